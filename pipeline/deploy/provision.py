"""What a runner runs in on a device, made there once per device package: a container image, or a venv."""

import shlex
from collections.abc import Callable, Mapping

from pipeline.deploy.layout import Layout
from pipeline.deploy.settings import Settings
from pipeline.deploy.ssh import LONG_S, Remote

Say = Callable[[str], None]


def follower(say: Say) -> Callable[[str], None]:
    """What shows the lines of a long command as they come."""
    return lambda line: say("  | " + line[:200])


def image(remote: Remote, settings: Settings, layout: Layout, arguments: Mapping[str, str], say: Say) -> None:
    """See that the image of `layout` is there: from `--image-tar`, or built with these build arguments."""
    docker = settings.docker
    if not remote.dry_run and remote.code([docker, "image", "inspect", layout.image]) == 0:
        return
    if settings.image_tar:
        arriving = f"{layout.state}/incoming/image.tar"
        remote.run(["mkdir", "-p", f"{layout.state}/incoming"])
        remote.copy(settings.image_tar, arriving)
        loaded = remote.run([docker, "load", "-i", arriving], limit_s=LONG_S)
        name = loaded.strip().rpartition("Loaded image")[2].split(":", 1)[-1].strip()
        remote.run([docker, "tag", name or "IMAGE", layout.image])
        remote.run(["rm", "-f", arriving])
        return
    words = [docker, "build", "-f", "Dockerfile.l4t", "-t", layout.image]
    for key, value in {**arguments, **dict(pair.split("=", 1) for pair in settings.build_arg)}.items():
        words += ["--build-arg", f"{key}={value}"]
    say("  building the image on the device: this takes minutes, once")
    remote.run(f"cd {shlex.quote(layout.code)} && {shlex.join([*words, '.'])}", follow=follower(say), limit_s=LONG_S)


def pycuda_lines(python: str, pins: str, wheels: str, source: str) -> str:
    """Shell lines that see that `python` has a pycuda with primary contexts: the device's own, or a wheel.

    The wheel is compiled once and kept in `wheels`, for this Python and these pins, over releases of the package.
    """
    wheels, pins = shlex.quote(wheels), shlex.quote(pins)
    return f"""
if ! {python} -c 'import pycuda.driver as d; d.Device.retain_primary_context' 2>/dev/null; then
    kept={wheels}/$({python} -c 'import sys; print("py%d%d" % sys.version_info[:2])')-$(sha256sum {pins} | cut -c1-12)
    if ! test -e "$kept/.ready"; then
        rm -rf "$kept"; mkdir -p "$kept"
        PATH="/usr/local/cuda/bin:$PATH" {python} -m pip wheel --no-deps --no-build-isolation \\
            --require-hashes {source}-w "$kept" -r {pins}
        touch "$kept/.ready" {wheels}/.ready
    fi
    {python} -m pip install --no-deps --no-index "$kept"/*.whl
fi"""


def modules(remote: Remote, settings: Settings, layout: Layout, pins: str, gpu: bool, ready: bool, say: Say) -> None:
    """See that the venv of `layout` is there. `pins`: which list of modules it gets; `ready`: it is known to be."""
    pinned = f"{layout.code}/jetson/requirements-jetpack{pins}.txt"
    cuda = f"{layout.code}/jetson/requirements-pycuda-jetpack{pins}.txt"
    venv, python = shlex.quote(layout.venv), shlex.quote(f"{layout.venv}/bin/python")
    source = ""
    if settings.wheels and not ready:
        arriving = f"{layout.root}/incoming/wheels"
        remote.run(["mkdir", "-p", arriving])
        remote.copy(settings.wheels.rstrip("/") + "/", arriving + "/")
        source = f"--no-index --find-links {shlex.quote(arriving)} "
    # With the system's packages in sight: JetPack's TensorRT module and OpenCV with GStreamer live there.
    lines = [
        "set -e",
        f"test -e {venv}/.ready && exit 0",
        f"rm -rf {venv}",
        f"{shlex.quote(settings.python)} -m venv --system-site-packages {venv}",
        f"{python} -m pip install -q {source}-U 'pip==21.3.1' 'setuptools==59.6.0' 'wheel==0.37.1'",
        f"{python} -m pip install --no-deps --require-hashes {source}-r {shlex.quote(pinned)}",
    ]
    if gpu:
        # TensorRT's engines run through pycuda, which has no wheel for a Jetson: it is compiled there, once.
        say("  compiling pycuda on the device: this takes minutes, once")
        lines.append(pycuda_lines(python, cuda, layout.pycuda_wheels, source))
    lines.append(f"touch {venv}/.ready")
    remote.run("\n".join(lines), follow=follower(say), limit_s=LONG_S)
