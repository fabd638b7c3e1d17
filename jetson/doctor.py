"""What this device has, what is missing, and what to do about it.

Runs with the standard library alone, so that it can say that numpy is missing. `root` is where the machine's own
files are read from: "/" on a device, in a test a folder that holds the files of another one.
"""

import argparse
import ctypes
import glob
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from typing import Any, List, NamedTuple, Optional, Tuple

from jetson import __version__
from jetson.bundle import manifest
from jetson.engine.cuda import INSTALL_PYCUDA, PYCUDA_SINCE
from jetson.errors import DeviceMismatch, JetmaskError


# level: ok; info: worth knowing; warn: works, but less well; bad: will not work.
class Finding(NamedTuple):
    level: str
    topic: str
    found: str
    remedy: str


# NVIDIA's release notes: L4T release -> JetPack, TensorRT.
JETPACK = (
    ((32, 6, 0), "4.6", "8.0"),
    ((32, 7, 0), "4.6.1 or later", "8.2"),
    ((34, 1, 0), "5.0 preview", "8.4"),
    ((35, 1, 0), "5.0.2", "8.4"),
    ((35, 2, 0), "5.1", "8.5"),
    ((36, 2, 0), "6.0 preview", "8.6"),
    ((36, 3, 0), "6.0", "8.6"),
    ((36, 4, 0), "6.1 or 6.2", "10.3"),
    ((38, 0, 0), "7", "10.13"),
)
OLDEST_L4T = (32, 7, 0)
MIN_RAM_BYTES = 1 << 30
MIN_DISK_BYTES = 1 << 30
GPU_FLAGS = "--runtime nvidia"
CSV_FLAG = "-e NVIDIA_REQUIRE_JETPACK=csv-mounts=all"
STATIC_TLS = "cannot allocate memory in static TLS block"
LIBGOMP = "/usr/lib/aarch64-linux-gnu/libgomp.so.1"
ENVIRONMENT_STATE = "JETMASK_STATE"
STATE = "/var/lib/jetmask"


def _text(root: str, path: str) -> Optional[str]:
    try:
        with open(os.path.join(root, path.lstrip("/")), "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return None


def _output(command: List[str], timeout_s: float = 15) -> Optional[str]:
    try:
        # Without stderr: a warning there would be taken for the answer.
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=timeout_s
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _import(name: str, timeout_s: float = 60) -> Tuple[Optional[str], str]:
    """(the version of a module, "") or (None, why it cannot be imported: the last line that Python says).

    In a process of its own: a wheel built for another processor kills the one that imports it.
    """
    code = f"import {name}; print(getattr({name}, '__version__', 'present'))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return None, str(error)
    lines = (done.stdout if done.returncode == 0 else done.stderr).decode("utf-8", "replace").strip().splitlines()
    if done.returncode == 0:
        return (lines or ["present"])[-1], ""
    return None, f"killed by signal {-done.returncode}" if done.returncode < 0 else (lines or [""])[-1]


def preload(why: str) -> str:
    """What to do where the loader has no room left for a library's thread-local data (glibc before 2.32, aarch64).

    The library that it names must be loaded before all others.

    >>> preload("ImportError: /usr/lib/aarch64-linux-gnu/libgomp.so.1: cannot allocate memory in static TLS block")
    'export LD_PRELOAD=/usr/lib/aarch64-linux-gnu/libgomp.so.1 before Python starts'
    """
    match = re.search(r"(/\S+?\.so[.\d]*): " + STATIC_TLS, why)
    return f"export LD_PRELOAD={match.group(1) if match else LIBGOMP} before Python starts"


def l4t_release(root: str = "/") -> Optional[Tuple[int, int, int]]:
    """The L4T release of a Jetson, for instance (32, 7, 1); None elsewhere. From /etc/nv_tegra_release."""
    return parse_release(_text(root, "/etc/nv_tegra_release") or "")


def parse_release(text: str) -> Optional[Tuple[int, int, int]]:
    """The release in the first line of /etc/nv_tegra_release, or None.

    >>> parse_release("# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t186ref")
    (32, 7, 1)
    """
    match = re.match(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*(\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2)), int(match.group(3))) if match else None


def jetpack_of(release: Tuple[int, int, int]) -> Tuple[str, str]:
    """(JetPack, TensorRT) that belong to an L4T release; ("unknown", "unknown") before the table begins."""
    best = ("unknown", "unknown")
    for first, jetpack, tensorrt in JETPACK:
        if release >= first:
            best = (jetpack, tensorrt)
    return best


def in_container(root: str = "/") -> bool:
    """Whether this runs inside a container: our image says so itself, others by the files that their program makes."""
    return "JETMASK_EXPECT_GPU" in os.environ or any(
        os.path.exists(os.path.join(root, name)) for name in (".dockerenv", "run/.containerenv")
    )


def board(root: str = "/") -> List[Finding]:
    """The machine: board, L4T release, architecture, memory."""
    found = []
    model = _text(root, "/proc/device-tree/model")
    release = l4t_release(root)
    if release is None:
        level, remedy = "info", ""
        if model and "Jetson" in model and in_container(root):
            level, remedy = "warn", "mount the file: -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro"
        found.append(Finding(level, "board", f"{model or 'not a Jetson'}; no L4T release file", remedy))
    else:
        jetpack, tensorrt = jetpack_of(release)
        text = "{}, L4T r{}.{}.{}, JetPack {}, TensorRT {}".format(model or "Jetson", *release + (jetpack, tensorrt))
        if release < OLDEST_L4T:
            found.append(
                Finding(
                    "bad",
                    "board",
                    text,
                    "flash or upgrade to JetPack 4.6.1 or later (L4T r32.7.x): "
                    "TensorRT 8.2 is the oldest that is supported",
                )
            )
        else:
            found.append(Finding("ok", "board", text, ""))
    memory = {
        key: int(value) * 1024
        for key, value in re.findall(r"^(\w+):\s+(\d+) kB", _text(root, "/proc/meminfo") or "", re.M)
    }
    total, free, swap = (memory.get(key, 0) for key in ("MemTotal", "MemAvailable", "SwapTotal"))
    text = f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB available, swap {swap / 2**30:.1f} GiB"
    if total and free < MIN_RAM_BYTES and free + memory.get("SwapFree", 0) < 2 * MIN_RAM_BYTES:
        found.append(
            Finding(
                "warn",
                "memory",
                text,
                "close other programs or stop the desktop (sudo systemctl isolate "
                "multi-user.target), and add swap, before building an engine",
            )
        )
    else:
        found.append(Finding("ok", "memory", text, ""))
    return found


def python() -> List[Finding]:
    """The interpreter and the modules it needs, with the foreign `jetson` that another product installs."""
    found = [
        Finding(
            "ok" if sys.version_info >= (3, 6) else "bad",
            "python",
            f"{platform.python_version()} ({sys.executable})",
            "",
        )
    ]
    for name, need in (("numpy", True), ("cv2", True), ("prometheus_client", False), ("paho.mqtt", False)):
        version, why = _import(name)
        install = f"python3 -m pip install -r {requirements_file()}"
        if version is not None:
            found.append(Finding("ok", name, version, ""))
        elif STATIC_TLS in why:
            found.append(Finding("bad" if need else "warn", name, "cannot be imported: " + why, preload(why)))
        elif need:
            found.append(Finding("bad", name, f"cannot be imported{': ' + why if why else ''}", install))
        else:
            use = "--mqtt" if name == "paho.mqtt" else "/metrics"
            found.append(Finding("info", name, f"not installed; only {use} needs it", install))
    foreign = foreign_package()
    if foreign:
        found.append(
            Finding(
                "warn",
                "package",
                f"another product's `jetson` package is at {foreign}",
                "start ours from its own folder (cd /opt/jetmask/<version>), as the service does",
            )
        )
    return found


def requirements_file() -> str:
    """The list of pinned modules for this interpreter."""
    jetpack = 4 if sys.version_info < (3, 8) else 5 if sys.version_info < (3, 10) else 6
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), f"requirements-jetpack{jetpack}.txt")


def foreign_package() -> Optional[str]:
    """Where a `jetson` package that is not this one lies on Python's path; None when there is none."""
    own = os.path.dirname(os.path.abspath(__file__))
    for folder in sys.path:
        path = os.path.abspath(os.path.join(folder or ".", "jetson"))
        if (
            os.path.isdir(path)
            and os.path.realpath(path) != os.path.realpath(own)
            and (os.path.isfile(os.path.join(path, "__init__.py")))
            and "packages" in path
        ):
            return path
    return None


def _library(names: List[str]) -> Tuple[Optional[str], str]:
    reason = ""
    for name in names:
        try:
            ctypes.CDLL(name)
            return name, ""
        except OSError as error:
            reason = str(error)
    return None, reason


def gpu(root: str = "/") -> List[Finding]:
    """The GPU as a program sees it: driver, TensorRT, pycuda. Names the missing library and the flag that brings it."""
    # Docker hides the device tree, so the image says itself that it was built for a GPU.
    jetson_board = (
        os.environ.get("JETMASK_EXPECT_GPU") == "1"
        or l4t_release(root) is not None
        or "Jetson" in (_text(root, "/proc/device-tree/model") or "")
    )
    missing_level = "bad" if jetson_board else "info"
    flag = ""
    if in_container(root):
        flag = f"start the container with {GPU_FLAGS} (on JetPack 4 with libnvidia-container 0.11 or later also {CSV_FLAG})"
    found = []
    driver, reason = _library(["libcuda.so.1"])
    if driver is None:
        return [
            Finding(
                missing_level,
                "gpu",
                "CUDA is not visible: " + reason,
                flag
                or (
                    "install NVIDIA's L4T packages (nvidia-l4t-cuda)"
                    if jetson_board
                    else "without an NVIDIA GPU the onnxruntime variants are used"
                ),
            )
        ]
    try:
        from jetson.engine import cuda

        device = cuda.gpu()
        found.append(Finding("ok", "gpu", "{}, compute capability {}.{}".format(device.name, *device.capability), ""))
    except ImportError as error:
        found.append(Finding("info", "gpu", f"{driver} loads; not asked further ({error})", ""))
    except JetmaskError as error:
        found.append(Finding(missing_level, "gpu", str(error.what), flag or str(error.remedy)))
    nvinfer, reason = _library(["libnvinfer.so", "libnvinfer.so.8", "libnvinfer.so.10"])
    if nvinfer is None:
        found.append(
            Finding(
                "warn" if jetson_board else "info",
                "tensorrt",
                "not visible: " + reason,
                flag or "sudo apt-get install tensorrt python3-libnvinfer",
            )
        )
    version = _output([sys.executable, "-c", "import tensorrt; print(tensorrt.__version__)"])
    if version:
        number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        found.append(
            Finding(
                "ok" if number >= (8, 2) else "bad",
                "tensorrt",
                version.strip(),
                "" if number >= (8, 2) else "TensorRT 8.2 or later is needed: JetPack 4.6.1",
            )
        )
    elif nvinfer:
        found.append(
            Finding(
                "warn",
                "tensorrt",
                "the library is there, its Python module is not",
                "sudo apt-get install python3-libnvinfer; in a venv: --system-site-packages",
            )
        )
    if version:
        found += _pycuda()
    return found


def _pycuda() -> List[Finding]:
    version, why = _import("pycuda.driver")
    if version is None:
        remedy = preload(why) if STATIC_TLS in why else "use the container, or: " + INSTALL_PYCUDA
        return [Finding("warn", "pycuda", f"no TensorRT engine can run: it cannot be imported ({why})", remedy)]
    # By what it has, as jetson.engine.cuda does.
    old = "import pycuda, pycuda.driver as d; print('' if hasattr(d.Device, 'retain_primary_context') else pycuda.VERSION)"
    answer = (_output([sys.executable, "-c", old]) or "").strip()
    if answer:
        number = ".".join(re.findall(r"\d+", answer))
        return [
            Finding(
                "warn",
                "pycuda",
                f"no TensorRT engine can run: {number} is older than {PYCUDA_SINCE}",
                "use the container, or: " + INSTALL_PYCUDA,
            )
        ]
    return []


def runtimes() -> List[Finding]:
    """Which engines can run here."""
    found, usable = [], 0
    for name in manifest.RUNTIMES:
        try:
            reason = importlib.import_module("jetson.engine").reason(name)  # type: Optional[str]
        except ImportError as error:
            reason = str(error)
        usable += reason is None
        found.append(Finding("info" if reason else "ok", "engine", f"{name}: {reason or 'usable'}", ""))
    if not usable:
        found.append(
            Finding("bad", "engine", "no engine can run here", f"python3 -m pip install -r {requirements_file()}")
        )
    return found


def docker(root: str = "/") -> List[Finding]:
    """Docker and its NVIDIA runtime; asked on the device itself, not in a container."""
    if in_container(root):
        return [Finding("info", "docker", "this runs inside a container", "")]
    if shutil.which("docker") is None:
        return [
            Finding(
                "info",
                "docker",
                "not installed",
                "deploy with --no-container, or: sudo apt-get install docker.io nvidia-docker2",
            )
        ]
    text = _output(["docker", "info", "--format", "{{json .Runtimes}} {{.DefaultRuntime}}"])
    if text is None:
        return [
            Finding(
                "warn",
                "docker",
                "installed, but this user may not use it",
                "sudo usermod -aG docker $USER, then log in again",
            )
        ]
    runtimes_text, _, default = text.strip().rpartition(" ")
    if "nvidia" not in runtimes_text:
        return [
            Finding(
                "warn",
                "docker",
                "no nvidia runtime: a container would see no GPU",
                "sudo apt-get install nvidia-docker2 && sudo systemctl restart docker",
            )
        ]
    if default != "nvidia":
        return [
            Finding(
                "info",
                "docker",
                "nvidia runtime there, but not the default: `docker build` sees no CUDA",
                'set "default-runtime": "nvidia" in /etc/docker/daemon.json to build the image here',
            )
        ]
    return [Finding("ok", "docker", "with the nvidia runtime as default", "")]


def camera(root: str = "/") -> List[Finding]:
    """Cameras, and the programs that read them."""
    found = []
    devices = sorted(glob.glob(os.path.join(root, "dev/video*")))
    closed = [path for path in devices if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        found.append(
            Finding(
                "warn",
                "camera",
                "no access to " + ", ".join(closed),
                "add the user to the group video (sudo usermod -aG video $USER); in a container: "
                f"--device {closed[0]} --group-add video",
            )
        )
    elif devices:
        found.append(Finding("ok", "camera", ", ".join(devices), ""))
    else:
        found.append(
            Finding("info", "camera", "no /dev/video*", "plug a camera in; in a container: --device /dev/video0")
        )
    if l4t_release(root) is not None:
        socket = os.path.exists(os.path.join(root, "tmp/argus_socket"))
        found.append(
            Finding(
                "ok" if socket else "info",
                "csi",
                "argus socket " + ("there" if socket else "not there"),
                ""
                if socket
                else "for a CSI camera: nvargus-daemon must run on the host; in a container: -v /tmp:/run/host-tmp:ro",
            )
        )
    if shutil.which("gst-launch-1.0"):
        elements = ["v4l2src", "rtspsrc", "videoconvert"] + (["nvvidconv"] if l4t_release(root) else [])
        absent = [name for name in elements if _output(["gst-inspect-1.0", name]) is None]
        found.append(
            Finding(
                "warn" if absent else "ok",
                "gstreamer",
                "without " + ", ".join(absent) if absent else "with all elements that cameras need",
                "sudo apt-get install gstreamer1.0-plugins-good gstreamer1.0-plugins-bad" if absent else "",
            )
        )
    else:
        found.append(
            Finding(
                "info",
                "gstreamer",
                "no gst-launch-1.0: cameras are read through OpenCV",
                "sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good",
            )
        )
    return found


def place(state: str) -> List[Finding]:
    """Where bundles and engines are kept: disk, rights, and what is installed there."""
    found = []
    folder = state
    while not os.path.exists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    found.append(
        Finding(
            "ok" if free >= MIN_DISK_BYTES else "warn",
            "disk",
            f"{free / 2**30:.1f} GiB free at {folder}",
            "" if free >= MIN_DISK_BYTES else "python3 -m jetson install --prune-old 2; docker image prune",
        )
    )
    if not os.access(folder, os.W_OK):
        found.append(
            Finding(
                "warn",
                "state",
                f"{state} cannot be written by this user",
                f"sudo mkdir -p {state} && sudo chown $USER {state}, or set {ENVIRONMENT_STATE}",
            )
        )
    current = os.path.join(state, "current")
    if os.path.islink(current):
        wrong = manifest.check(current)
        digest = os.path.basename(os.readlink(current))
        found.append(
            Finding(
                "bad" if wrong else "ok",
                "bundle",
                f"{digest[:16]}: {wrong[0] if wrong else manifest.load(current).name}",
                "python3 -m jetson install --rollback" if wrong else "",
            )
        )
    else:
        found.append(Finding("info", "bundle", f"none is installed at {state}", "jetmask deploy BUNDLE USER@HOST"))
    engines = os.path.join(state, "engines")
    if os.path.isdir(engines):
        facts = os.stat(engines)
        if facts.st_mode & 0o077 or facts.st_uid != os.getuid():
            found.append(
                Finding(
                    "warn",
                    "engines",
                    f"{engines} may be written or read by others",
                    "chown it to the user of the service and chmod 700: an engine is executable code",
                )
            )
    return found


def clock() -> List[Finding]:
    """A Jetson without a battery wakes up in 1970 or at its last shutdown; TLS and logs then go wrong."""
    own = os.path.getmtime(os.path.abspath(__file__))
    now = time.time()
    text = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < 1735689600 or now < own - 86400:
        return [
            Finding("warn", "clock", text + ": it is behind", "sudo timedatectl set-ntp true, or: sudo date -s ...")
        ]
    return [Finding("ok", "clock", text, "")]


def power() -> List[Finding]:
    """The power mode, which every measurement depends on."""
    text = _output(["nvpmodel", "-q"]) if shutil.which("nvpmodel") else None
    match = re.search(r"NV Power Mode:\s*(\S+)", text or "")
    return [Finding("info", "power", match.group(1), "")] if match else []


def findings(state: str, root: str = "/") -> List[Finding]:
    """Everything, in the order in which it should be mended."""
    checks = [
        lambda: board(root),
        python,
        lambda: gpu(root),
        runtimes,
        lambda: docker(root),
        lambda: camera(root),
        lambda: place(state),
        clock,
        power,
    ]
    return [finding for check in checks for finding in check()]


def show(found: List[Finding]) -> str:
    """The findings as text: level, topic, what was found, and under it what to do."""
    lines = []
    for finding in found:
        lines.append(f"{finding.level:<5} {finding.topic:<18} {finding.found}")
        if finding.remedy and finding.level != "ok":
            lines.append(f"{'':<24} do: {finding.remedy}")
    return "\n".join(lines)


def answer(found: List[Finding], as_json: bool, what: str) -> int:
    """Print the findings and return the exit code: 0, or 4 where something will not work."""
    bad = [finding for finding in found if finding.level == "bad"]
    if as_json:
        print(
            json.dumps(
                {
                    "what": what,
                    "version": __version__,
                    "ok": not bad,
                    "findings": [dict(finding._asdict()) for finding in found],
                },
                indent=1,
            )
        )
    else:
        print(show(found))
        counts = {level: sum(finding.level == level for finding in found) for level in ("bad", "warn")}
        print(f"\n{counts['bad']} of {len(found)} checks need something done, {counts['warn']} could be better")
    return DeviceMismatch.exit_code if bad else 0


def state_folder(given: Optional[str] = None) -> str:
    """Where bundles and engines are kept: `given`, or the environment's JETMASK_STATE, or /var/lib/jetmask."""
    return os.path.abspath(given or os.environ.get(ENVIRONMENT_STATE) or STATE)


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python3 -m jetson doctor`."""
    parser.add_argument(
        "--state", metavar="DIR", help=f"where bundles are kept (default: {ENVIRONMENT_STATE}, {STATE})"
    )
    parser.add_argument(
        "--gpu", action="store_true", help="only whether the GPU is visible; the container's start-up probe"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.epilog = "example: python3 -m jetson doctor"


def command(args: Any) -> int:
    """Say what this device has and lacks."""
    if args.gpu:
        return answer(gpu(), args.json, "gpu")
    return answer(findings(state_folder(args.state)), args.json, "device")
