"""How jetmask lies on a device, and the commands that work on it: paths, container flags, unit, service."""

import hashlib
import os
import re
import shlex
import urllib.parse
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jetson
from jetson.doctor import parse_release
from jetson.errors import BadInput, UsageError
from jetson.install.installer import opened

ROOT = "/opt/jetmask"
STATE = "/var/lib/jetmask"
NAME = "jetmask"
CSV_MOUNTS = "NVIDIA_REQUIRE_JETPACK=csv-mounts=all"
# The folder in which nvargus-daemon makes its socket, not the socket: that one is another after each start of the
# daemon, and docker makes a folder of its name where it starts first. jetson/container.py leads there from /tmp.
HOST_TMP = "/tmp:/run/host-tmp:ro"
# From which L4T release on -> JetPack, and NVIDIA's images to run in and to build in.
_NGC = "nvcr.io/nvidia/"
BASES = (
    ((32, 7, 0), "4", _NGC + "l4t-base:r32.7.1", _NGC + "l4t-base:r32.7.1"),
    ((34, 0, 0), "5", _NGC + "l4t-tensorrt:r8.5.2-runtime", _NGC + "l4t-tensorrt:r8.5.2.2-devel"),
    ((36, 0, 0), "6", _NGC + "l4t-tensorrt:r8.6.2-runtime", _NGC + "l4t-tensorrt:r8.6.2-devel"),
    ((36, 4, 0), "6", _NGC + "l4t-tensorrt:r10.3.0-runtime", _NGC + "l4t-tensorrt:r10.3.0-devel"),
)
# Python -> which list of pinned modules fits it: that of the JetPack that brings this Python.
PINS = {(3, 6): "4", (3, 8): "5", (3, 10): "6"}
# As in compose.yaml: docker's own log has no limit, and a loose camera cable writes some hundred MB in a year.
_LOGGING = ("--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3")
_PACKAGE = os.path.dirname(os.path.abspath(jetson.__file__))
# Beside the package: what an image is built from. An installation from a wheel lacks it.
_BESIDE = ("Dockerfile.l4t", "compose.yaml", ".dockerignore")


def package_folder() -> str:
    """The folder of the device package on this machine."""
    return _PACKAGE


class Layout(NamedTuple):
    """Where things are on the device. `code_id`: version and content of the device package."""

    root: str
    state: str
    code_id: str

    @property
    def code(self) -> str:
        """The folder of the device package."""
        return f"{self.root}/{self.code_id}"

    @property
    def image(self) -> str:
        """The container image of this device package."""
        return f"{NAME}:{self.code_id}"

    @property
    def venv(self) -> str:
        """The venv of this device package, where there is no container."""
        return f"{self.root}/venv-{self.code_id}"

    @property
    def pycuda_wheels(self) -> str:
        """The folder for the wheel of pycuda that was compiled on the device, kept over releases."""
        return f"{self.root}/wheels"

    def bundle(self, digest: str) -> str:
        """The folder of an installed bundle."""
        return f"{self.state}/bundles/{digest}"


def package_files() -> dict[str, str]:
    """{path on the device: local file} of the device package, models left out (they come as a bundle)."""
    found = {}
    for folder, folders, names in os.walk(_PACKAGE):
        folders[:] = sorted(name for name in folders if name not in ("__pycache__", "models"))
        for name in sorted(names):
            if not name.endswith((".pyc", ".part")):
                path = os.path.join(folder, name)
                found["jetson/" + os.path.relpath(path, _PACKAGE).replace(os.sep, "/")] = path
    for name in _BESIDE:
        path = os.path.join(os.path.dirname(_PACKAGE), name)
        if os.path.isfile(path):
            found[name] = path
    return found


def write_package(folder: str) -> str:
    """Copy the device package into `folder` with its SHA256SUMS; returns its id: version and digits of the sums."""
    sums = []
    for name, source in package_files().items():
        target = os.path.join(folder, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(source, "rb") as file:
            data = file.read()
        with open(target, "wb") as file:
            file.write(data)
        sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
    text = "".join(sums)
    with open(os.path.join(folder, "SHA256SUMS"), "w", encoding="ascii") as file:
        file.write(text)
    return f"{jetson.__version__}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def jetpack(facts: dict[str, str]) -> tuple[str, str, str]:
    """(JetPack, image to run in, image to build in) for a device: by its L4T release, elsewhere by its Python."""
    release = parse_release(facts.get("release", ""))
    if release is not None:
        return next(row[1:] for row in reversed(BASES) if release >= row[0])
    return next(row[1:] for row in reversed(BASES) if row[1] == pins(facts["python"]))


def pins(python: str) -> str:
    """Which list of pinned modules fits a Python ("3.6" -> "4")."""
    version = tuple(int(part) for part in python.split("."))
    return next((name for least, name in sorted(PINS.items(), reverse=True) if version >= least), "4")


def csv_mounts(facts: dict[str, str]) -> list[str]:
    """What libnvidia-container from 0.11 on wants on JetPack 4, to mount CUDA and TensorRT and not the driver alone.

    Of the versions before it nobody says what they make of the word, so they do not get it. Untested on hardware;
    source: an answer of NVIDIA's staff, nvidia-container-runtime#173.
    """
    release = parse_release(facts.get("release", ""))
    version = tuple(int(part) for part in re.findall(r"\d+", facts.get("nvidia_container", ""))[:2])
    return ["-e", CSV_MOUNTS] if release and release[0] == 32 and version >= (0, 11) else []


def container_flags(layout: Layout, facts: dict[str, str], sources: Sequence[str], gpu: bool) -> list[str]:
    """The `docker run` flags that camera, GPU and state need, and no more: no root, no capability, read-only."""
    flags = [
        "--network",
        "host",
        "--user",
        f"{facts['uid']}:{facts['gid']}",
        "--group-add",
        "video",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "-v",
        f"{layout.state}:{STATE}",
    ]
    if gpu:
        flags = ["--runtime", "nvidia", *csv_mounts(facts), *flags]
    if facts.get("release"):
        flags += ["-v", "/etc/nv_tegra_release:/etc/nv_tegra_release:ro"]
    for source in sources:
        device = source.split("?")[0]
        if device.startswith("/dev/"):
            flags += ["--device", device]
        elif device.startswith("csi:") and HOST_TMP not in flags:
            flags += ["-v", HOST_TMP]
        elif device.startswith("/"):
            flags += ["-v", f"{device}:{device}:ro"]
    return flags


def serve_words(bundle: str, sources: Sequence[str], host: str, port: int, extra: Sequence[str]) -> list[str]:
    """The runner's arguments."""
    words = ["serve", bundle]
    for source in sources:
        words += ["--source", source]
    # A camera that is not plugged in yet must not make a deployment fail: the runner says so on its page.
    return [*words, "--host", host, "--port", str(port), "--wait-for-source", *extra]


def unit_text(layout: Layout, start: Sequence[str], python: str, user: str | None, sources: Sequence[str] = ()) -> str:
    """The systemd unit; `user` None makes it a unit of the ssh user's own systemd.

    `sources`: what is watched, where a file says it and not the words of `start`.
    """
    with open(os.path.join(_PACKAGE, "install", "jetmask.service"), encoding="utf-8") as file:
        text = file.read()
    code, state = (folder.replace("%", "%%") for folder in (layout.code, layout.state))
    values = {
        "CODE": code,
        "URI": urllib.parse.quote(layout.code).replace("%", "%%"),
        "STATE": state,
        "PYTHON": _unit_words([python]),
        "START": _unit_words(start),
        "USER_LINES": f"User={user}\nSupplementaryGroups=video" if user else "",
        "PRIVATE_TMP": "false" if any(word.startswith("csi:") for word in [*start, *sources]) else "true",
        "WANTED_BY": "multi-user.target" if user else "default.target",
    }
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    if user is None:
        # A user's own systemd 237 cannot make these namespaces, and would not start the unit.
        text = "".join(
            line
            for line in text.splitlines(keepends=True)
            if not line.startswith(("Protect", "PrivateTmp", "ReadWritePaths"))
        )
    return text


def _unit_words(words: Sequence[str]) -> str:
    """Words for a unit's command line: `%` and `$`, which addresses of cameras may hold, are systemd's own there."""
    quoted = []
    for word in words:
        if not word.isprintable():  # a newline would end the line, and what follows it would be a line of its own
            raise UsageError(f"{word!r} is not allowed in a systemd unit", None, "words without newlines and tabs")
        text = word.replace("%", "%%").replace("$", "$$")
        if not text or any(c.isspace() or c in "'\"\\;" for c in text):
            text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        quoted.append(text)
    return " ".join(quoted)


def service(
    layout: Layout,
    kind: str,
    run: Sequence[str],
    serve: Sequence[str],
    port: int,
    facts: dict[str, str],
    python: str,
    docker: str = "docker",
    user_unit: bool = False,
    host: str = "127.0.0.1",
    sources: Sequence[str] = (),
) -> dict[str, Any]:
    """The service object (see jetson/install/service.py). `run`: the words before a verb, kept for later commands too.

    `host`: what the runner listens on; its health is asked there.
    """
    asked = "127.0.0.1" if host in ("", "0.0.0.0", "localhost") else "::1" if host == "::" else host
    address = f"[{asked}]:{port}" if ":" in asked else f"{asked}:{port}"
    spec: dict[str, Any] = {
        "kind": kind,
        "name": NAME if kind == "docker" else f"{NAME}.service",
        "url": f"http://{address}/healthz",
        "run": list(run),
        "cwd": layout.code,
        "code": layout.code_id,
    }
    if kind == "docker":
        image = run[-1]
        flags = [word for word in run[2:-1] if word != "--rm"]
        spec["program"] = docker
        spec["start"] = [
            docker,
            "run",
            "-d",
            "--name",
            NAME,
            "--restart",
            "unless-stopped",
            *_LOGGING,
            "-e",
            f"JETMASK_PORT={port}",
            "-e",
            f"JETMASK_HOST={asked}",
            *flags,
            image,
            *serve,
        ]
    else:
        spec["start"] = [*run, *serve]
        spec["env"] = environment(layout)
    if kind == "systemd":
        spec["user"] = user_unit
        spec["unit"] = unit_text(layout, spec["start"], python, None if user_unit else facts["user"], sources)
    return spec


def environment(layout: Layout) -> dict[str, str]:
    """What the device package wants in its environment, outside a container."""
    return {
        "OPENBLAS_CORETYPE": "ARMV8",
        "PYTHONUNBUFFERED": "1",
        "JETMASK_STATE": layout.state,
        "JETMASK_ENGINES": f"{layout.state}/engines",
    }


def in_code(layout: Layout, words: Sequence[str]) -> str:
    """A shell line that runs `words` in the device package's folder, with its environment."""
    variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment(layout).items())
    return f"cd {shlex.quote(layout.code)} && {variables} exec {shlex.join(words)}"


def unpack(bundle: str) -> AbstractContextManager[str]:
    """A bundle's folder for a `with`: the folder itself, or where its tar file is unpacked meanwhile."""
    if not os.path.exists(bundle):
        raise BadInput(
            "the bundle does not exist",
            bundle,
            "a bundle's folder, or its tar file",
            "`jetmask demo` or `jetmask bundle create` makes one; jetson/models is the one that ships",
        )
    return opened(bundle)
