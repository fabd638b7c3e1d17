"""What the image starts: say which library a container does not see and which flag brings it, then run the verb."""

import contextlib
import http.client
import os
import sys

from jetson import doctor
from jetson.errors import JetmaskError
from jetson.install import installer as install
from jetson.install.store import Store

HOST_TMP = "/run/host-tmp"  # the host's /tmp, read-only
ARGUS = "argus_socket"
_VERBS_WITH_GPU = ("serve", "build", "bench")


def probe() -> int:
    """Print what the GPU lacks, with the flag that brings it; the number of such findings."""
    missing = [finding for finding in doctor.gpu() if finding.level in ("bad", "warn")]
    for finding in missing:
        print(f"{finding.topic}: {finding.found}\n  do: {finding.remedy}", file=sys.stderr)
    if missing:
        print("the TensorRT variants cannot run in this container; those for ONNX Runtime can", file=sys.stderr)
    sys.stderr.flush()
    return len(missing)


def lead_to_argus(host: str = HOST_TMP, own: str = "/tmp") -> bool:
    """Lead from where NVIDIA's library looks for nvargus-daemon's socket to the host's folder; whether that is mounted.

    A socket that is mounted itself stays the old one when the daemon starts anew, and docker makes a folder of its name
    where it starts before the daemon. By a link it is looked up at each attempt.
    """
    if not os.path.isdir(host):
        return False
    with contextlib.suppress(OSError):  # FileExistsError: a container that is started again
        os.symlink(os.path.join(host, ARGUS), os.path.join(own, ARGUS))
    return True


def recover() -> None:
    """After a power cut in the middle of a switch: back to the bundle that was known to work."""
    try:
        install.recover_at_start(Store(doctor.state_folder()), lambda text: print(text, file=sys.stderr))
    except (JetmaskError, OSError) as error:  # a state folder that cannot be written is no reason not to serve
        print(f"cannot look for an interrupted activation: {error}", file=sys.stderr)


def health(port: int, host: str = "127.0.0.1", timeout_s: float = 4.0) -> int:
    """0 if the runner on this machine answers /healthz with 200, else 1: the image's HEALTHCHECK.

    `host`: what the runner listens on; where that is every address, its own loopback is asked.
    """
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz")
        return 0 if connection.getresponse().status == 200 else 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        connection.close()


def main() -> int:
    """The image's entry point."""
    argv = sys.argv[1:]
    if argv[:1] == ["health"]:
        return health(int(os.environ.get("JETMASK_PORT", "8080")), os.environ.get("JETMASK_HOST", "127.0.0.1"))
    if argv and argv[0] in _VERBS_WITH_GPU and os.environ.get("JETMASK_EXPECT_GPU") == "1":
        probe()
    lead_to_argus()
    if argv[:1] == ["serve"]:
        recover()
    # A new process image: the runner gets PID 1's signals itself, and a crash of the probe's libraries stays here.
    os.execv(sys.executable, [sys.executable, "-m", "jetson"] + argv)
    return 1


if __name__ == "__main__":
    sys.exit(main())
