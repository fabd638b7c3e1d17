"""Ask a device, before anything of ours is there, whether it can run what is to be deployed."""

import re
import shlex
import time
from collections.abc import Sequence

from jetson import doctor, memory
from jetson.doctor import Finding
from jetson.engine.build import WORKSPACE_BYTES
from jetson.engine.cuda import PYCUDA_SINCE
from pipeline.deploy import cameras
from pipeline.deploy.layout import Layout
from pipeline.deploy.settings import Settings

# Beside the bundle: an image on the device's disk, a venv, or the package alone.
MIN_FREE_KB = {"docker": 1 << 20, "systemd": 600 << 10, "systemd-user": 600 << 10, "process": 50 << 10}

# Runs before anything of ours is there, so it is plain sh and asks plain programs only.
PROBE = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
say arch "$(uname -m)"
say user "$(id -un)"
say uid "$(id -u)"
say gid "$(id -g)"
say home "$HOME"
say python "$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
say rsync "$(command -v rsync)"
say sums "$(command -v sha256sum)"
say docker "$(command -v "$DOCKER")"
works=
if command -v "$DOCKER" >/dev/null 2>&1; then
    # A daemon that hangs answers nobody, and would hold this for ever.
    timeout 30 "$DOCKER" info >/dev/null 2>&1
    case $? in 0) works=yes ;; 124) works=hangs ;; esac
    say docker_works "$works"
fi
if test "$works" = yes; then
    say docker_runtimes "$("$DOCKER" info --format '{{json .Runtimes}}' 2>/dev/null | tr -d '\n')"
    say image "$("$DOCKER" image inspect "$IMAGE" >/dev/null 2>&1 && echo yes)"
    say docker_default "$("$DOCKER" info --format '{{.DefaultRuntime}}' 2>/dev/null)"
fi
# As jetson/__init__.py does, before anything may import numpy.
test "$(uname -m)" = aarch64 && export OPENBLAS_CORETYPE=ARMV8
say pycuda "$("$PYTHON" -c 'import pycuda; print(pycuda.VERSION_TEXT)' 2>/dev/null)"
say pycuda_primary "$("$PYTHON" -c 'import pycuda.driver as d
d.Device.retain_primary_context; print("yes")' 2>/dev/null)"
say pycuda_wheel "$(test -e "$WHEEL" && echo yes)"
say nvcc "$(PATH="/usr/local/cuda/bin:$PATH" command -v nvcc)"
say gpp "$(command -v g++)"
say headers "$("$PYTHON" -c 'import os, sysconfig
print("yes" if os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")) else "")' 2>/dev/null)"
say venv_module "$("$PYTHON" -c 'import ensurepip, venv; print("yes")' 2>/dev/null)"
say venv "$(test -e "$VENV/.ready" && echo yes)"
say systemd "$(test -d /run/systemd/system && echo yes)"
say sudo "$({ test "$(id -u)" = 0 || { sudo -n systemctl --version && sudo -n install --version; }; } \
    >/dev/null 2>&1 && echo yes)"
say linger "$(test -e "/var/lib/systemd/linger/$(id -un)" && echo yes)"
say release "$(head -n 1 /etc/nv_tegra_release 2>/dev/null)"
say tensorrt "$("$PYTHON" -c 'import tensorrt; print(tensorrt.__version__)' 2>/dev/null)"
say nvinfer "$(dpkg-query -W -f '${db:Status-Status} ${Version}\n' 'libnvinfer[0-9]*' 2>/dev/null |
    sed -n 's/^installed //p' | head -n 1)"
say nvidia_container "$(dpkg-query -W -f '${db:Status-Status} ${Version}\n' 'libnvidia-container[0-9]*' 2>/dev/null |
    sed -n 's/^installed //p' | sort | tail -n 1)"
say model "$(tr -d '\0' 2>/dev/null </proc/device-tree/model)"
for name in MemTotal MemAvailable SwapFree; do
    say "$name" "$(sed -n "s/^$name: *\([0-9]*\) kB/\1/p" /proc/meminfo)"
done
say cameras "$(for camera in /dev/video*; do test -c "$camera" && printf '%s ' "$camera"; done)"
say camera_names "$(for camera in "$VIDEO4LINUX"/video*; do test -e "$camera/name" &&
    printf '/dev/%s=%s;' "$(basename "$camera")" "$(tr -d '\n;=' <"$camera/name")"; done)"
say closed "$(for camera in /dev/video*; do
    test -c "$camera" && ! { test -r "$camera" && test -w "$camera"; } && printf '%s ' "$camera"; done)"
say argus "$(test -S /tmp/argus_socket && echo yes)"
say absent "$(printf '%s' "$PATHS" | while read -r path; do test -e "$path" || printf '%s ' "$path"; done)"
say date "$(date +%s)"
place() {
    folder=$2
    mkdir -p "$folder" 2>/dev/null
    say "$1_writable" "$(test -d "$folder" && test -w "$folder" && echo yes)"
    while ! test -d "$folder"; do folder=$(dirname "$folder"); done
    say "$1_free_kb" "$(df -Pk "$folder" | awk 'NR == 2 {print $4}')"
}
place ROOT "$ROOT"
place STATE "$STATE"
"""


def script(layout: Layout, python: str, docker: str, sources: Sequence[str] = ()) -> str:
    """The script that asks a device what it has; its answers are key=value lines."""
    paths = [source.split("?")[0] for source in sources if source.startswith("/")]
    values = {
        "ROOT": layout.root,
        "STATE": layout.state,
        "PYTHON": python,
        "DOCKER": docker,
        "IMAGE": layout.image,
        "VENV": layout.venv,
        "WHEEL": f"{layout.pycuda_wheels}/.ready",
        "VIDEO4LINUX": "/sys/class/video4linux",
        "PATHS": "".join(path + "\n" for path in paths),
    }
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items()) + PROBE


def parse(text: str) -> dict[str, str]:
    """The answers of the probe script."""
    facts = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and re.match(r"^\w+$", key):
            facts[key] = value.strip()
    return facts


def gpu_wanted(facts: dict[str, str], settings: Settings) -> bool:
    """Whether the deployment uses a GPU there: a Jetson's, or one that docker can hand on."""
    return not settings.no_gpu and (bool(facts.get("release")) or "nvidia" in facts.get("docker_runtimes", ""))


def judge(
    facts: dict[str, str],
    settings: Settings,
    kind: str,
    layout: Layout,
    bundle_kb: int,
    sources: Sequence[str],
    engines: bool,
) -> list[Finding]:
    """What the device has and lacks for this deployment, each finding with its remedy; "bad" ones must stop it.

    `kind`: how the runner will be kept running. `engines`: whether TensorRT engines are to be built now.
    """
    return [
        *_board(facts),
        *_programs(facts, settings),
        *_tensorrt(facts, settings, kind),
        *_modules(facts, settings, kind),
        *_keeper(facts, settings, kind),
        *_rights_and_disk(facts, kind, layout, bundle_kb),
        _memory(facts, engines),
        *cameras.findings(facts, kind, sources),
        _clock(facts),
    ]


def _board(facts: dict[str, str]) -> list[Finding]:
    release = doctor.parse_release(facts.get("release", ""))
    machine = facts.get("model") or facts.get("arch", "unknown")
    if release is None:
        return [Finding("info", "board", f"{machine}; no L4T release: not a Jetson, or not its system", "")]
    jetpack, tensorrt = doctor.jetpack_of(release)
    text = "{}, L4T r{}.{}.{}, JetPack {}".format(machine, *release, jetpack)
    if release < doctor.OLDEST_L4T:
        return [
            Finding(
                "bad",
                "board",
                text + f": older than r32.7, its TensorRT {tensorrt} is not supported",
                "upgrade to JetPack 4.6.1 or later",
            )
        ]
    return [Finding("ok", "board", text, "")]


def _programs(facts: dict[str, str], settings: Settings) -> list[Finding]:
    found = []
    if not facts.get("python"):
        found.append(
            Finding(
                "bad", "python", f"no {settings.python} on the device", "sudo apt-get install python3, or give --python"
            )
        )
    elif tuple(int(part) for part in facts["python"].split(".")) < (3, 6):
        found.append(
            Finding("bad", "python", f"Python {facts['python']} is too old", "JetPack 4.6.1 has 3.6; or give --python")
        )
    else:
        found.append(Finding("ok", "python", facts["python"], ""))
    for name, package in (("rsync", "rsync"), ("sums", "coreutils")):
        if not facts.get(name):
            found.append(Finding("bad", package, f"no {package} on the device", f"sudo apt-get install {package}"))
    return found


def _tensorrt(facts: dict[str, str], settings: Settings, kind: str) -> list[Finding]:
    release = doctor.parse_release(facts.get("release", ""))
    if release is None or settings.no_gpu:
        return []
    if kind == "docker" and release[0] > 32:
        return [Finding("ok", "tensorrt", "comes in the image", "")]
    # On JetPack 4 the container sees the device's own files; without a container every JetPack does.
    version = facts.get("tensorrt") or facts.get("nvinfer") or ""
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if not version:
        return [
            Finding(
                "bad",
                "tensorrt",
                "not installed there",
                "sudo apt-get install tensorrt python3-libnvinfer "
                "(nvidia-jetpack has everything), or --no-gpu: ONNX Runtime on the CPU",
            )
        ]
    if number < (8, 2):
        return [
            Finding("bad", "tensorrt", f"{version} is older than 8.2", "upgrade to JetPack 4.6.1 or later, or --no-gpu")
        ]
    if not facts.get("tensorrt") and kind != "docker":
        return [
            Finding(
                "bad",
                "tensorrt",
                f"{version}, but {settings.python} has no module tensorrt",
                "sudo apt-get install python3-libnvinfer, or --no-gpu",
            )
        ]
    return [Finding("ok", "tensorrt", version, "")]


def _modules(facts: dict[str, str], settings: Settings, kind: str) -> list[Finding]:
    """What a stock image lacks for a venv with pycuda in it, all of it in one line for apt."""
    if kind == "docker":
        return []
    wants_gpu = doctor.parse_release(facts.get("release", "")) is not None and not settings.no_gpu
    if settings.use_python:
        if not wants_gpu or facts.get("pycuda_primary"):
            return []
        found = facts.get("pycuda")
        what = f"{found} is too old, {PYCUDA_SINCE} or later is needed" if found else "it cannot be imported"
        return [Finding("bad", "pycuda", f"TensorRT engines run through it: {what}", "omit --use-python")]
    if facts.get("venv") == "yes":
        return []
    missing = [] if facts.get("venv_module") else [("the module venv", "python3-venv")]
    if wants_gpu and not facts.get("pycuda_primary") and not facts.get("pycuda_wheel") and not settings.wheels:
        # pycuda has no wheel for a Jetson: it is compiled there, once, and the wheel is kept.
        release = doctor.parse_release(facts.get("release", "")) or (0, 0, 0)
        cuda = {32: "cuda-toolkit-10-2", 35: "cuda-toolkit-11-4", 36: "cuda-toolkit-12-6"}.get(
            release[0], "cuda-toolkit"
        )
        missing += [] if facts.get("headers") else [("Python.h", "python3-dev")]
        missing += [] if facts.get("gpp") else [("g++", "g++")]
        missing += [] if facts.get("nvcc") else [("nvcc (also not in /usr/local/cuda/bin)", cuda)]
    if not missing:
        return []
    return [
        Finding(
            "bad",
            "packages",
            "missing for --no-container: " + ", ".join(what for what, _ in missing),
            f"on the device, once: sudo apt-get install {' '.join(package for _, package in missing)}; "
            "or use the container" + (", or --no-gpu" if wants_gpu else ""),
        )
    ]


def _keeper(facts: dict[str, str], settings: Settings, kind: str) -> list[Finding]:
    if kind.startswith("systemd"):
        if facts.get("systemd") != "yes":
            return [Finding("bad", "systemd", "systemd does not run there", "--service process")]
        user = facts.get("user")
        if kind == "systemd" and facts.get("sudo") != "yes":
            return [
                Finding(
                    "bad",
                    "systemd",
                    f"{user} may not run systemctl and install there with `sudo -n`, which sets up the unit",
                    'on the device, once: echo "$USER ALL=(root) NOPASSWD: $(command -v '
                    'systemctl), $(command -v install)" | sudo tee /etc/sudoers.d/jetmask (root without a password '
                    "for this user: see SECURITY.md); or --service "
                    "systemd-user",
                )
            ]
        if kind == "systemd-user" and facts.get("linger") != "yes":
            return [
                Finding(
                    "bad",
                    "systemd",
                    f"what {user} runs ends with {user}'s last login, and does not start at boot",
                    "on the device, once: sudo loginctl enable-linger $USER",
                )
            ]
        return [Finding("ok", "systemd", "runs", "")]
    if kind != "docker":
        return []
    if not facts.get("docker"):
        return [
            Finding(
                "bad",
                "docker",
                f"no {settings.docker} on the device",
                "sudo apt-get install docker.io nvidia-docker2, or --no-container",
            )
        ]
    if facts.get("docker_works") == "hangs":
        return [Finding("bad", "docker", "it does not answer within 30 s", "sudo systemctl restart docker there")]
    if facts.get("docker_works") != "yes":
        return [
            Finding(
                "bad",
                "docker",
                f"{facts.get('user')} may not use docker",
                "sudo usermod -aG docker $USER, then log in again; or --no-container",
            )
        ]
    if facts.get("release") and not settings.no_gpu and "nvidia" not in facts.get("docker_runtimes", ""):
        return [
            Finding(
                "bad",
                "docker",
                "docker has no nvidia runtime: the container would see no GPU",
                "sudo apt-get install nvidia-docker2 && sudo systemctl restart docker, or --no-gpu",
            )
        ]
    release = doctor.parse_release(facts.get("release", ""))
    to_build = not settings.no_gpu and not settings.image_tar and facts.get("image") != "yes"
    if release and release[0] == 32 and to_build and facts.get("docker_default") != "nvidia":
        # JetPack 4's CUDA is mounted into containers, and `docker build` knows no --runtime.
        return [
            Finding(
                "bad",
                "docker",
                "its default runtime is not nvidia: the image cannot be built with CUDA",
                'put "default-runtime": "nvidia" into /etc/docker/daemon.json there, then sudo systemctl '
                "restart docker; or give --image-tar, or --no-gpu",
            )
        ]
    return [
        Finding(
            "ok",
            "docker",
            "works" + (", with the nvidia runtime" if "nvidia" in facts.get("docker_runtimes", "") else ""),
            "",
        )
    ]


def _rights_and_disk(facts: dict[str, str], kind: str, layout: Layout, bundle_kb: int) -> list[Finding]:
    found = []
    for place, folder in (("ROOT", layout.root), ("STATE", layout.state)):
        if facts.get(f"{place}_writable") != "yes":
            found.append(
                Finding(
                    "bad",
                    "rights",
                    f"{folder} cannot be written by {facts.get('user')}",
                    f"on the device, once: sudo mkdir -p {folder} && sudo chown $USER {folder}",
                )
            )
    free = min(
        (int(facts[key]) for key in ("ROOT_free_kb", "STATE_free_kb") if facts.get(key, "").isdigit()), default=0
    )
    # An image or a venv that is there already takes no further room.
    room = MIN_FREE_KB["process" if facts.get("image" if kind == "docker" else "venv") == "yes" else kind]
    needed = room + 3 * bundle_kb
    if free < needed:
        found.append(
            Finding(
                "bad",
                "disk",
                f"{free >> 10} MiB free, {needed >> 10} MiB needed",
                "jetmask deploy --prune-old 0 USER@HOST deletes the bundles, images and venvs of older releases; "
                "`docker system df` on the device shows what else Docker uses",
            )
        )
    else:
        found.append(Finding("ok", "disk", f"{free >> 10} MiB free, {needed >> 10} MiB needed", ""))
    return found


def _memory(facts: dict[str, str], engines: bool) -> Finding:
    total, available, swap = (int(facts.get(key) or 0) for key in ("MemTotal", "MemAvailable", "SwapFree"))
    needed = (WORKSPACE_BYTES + memory.RESERVE_BYTES) >> 10
    text = f"{total >> 10} MiB, {available >> 10} MiB available, {swap >> 10} MiB of swap free"
    if engines and total and available + swap < needed:
        return Finding(
            "bad",
            "memory",
            f"{text}; an engine's build needs {needed >> 10} MiB (assumed)",
            "stop the desktop (sudo systemctl isolate multi-user.target), add swap, or --no-engines",
        )
    if total and available + swap < 400 << 10:
        return Finding("warn", "memory", text, "stop the desktop: sudo systemctl isolate multi-user.target")
    return Finding("ok", "memory", text, "")


def _clock(facts: dict[str, str]) -> Finding:
    skew = abs(int(facts.get("date") or 0) - time.time())
    if skew > 86400:
        return Finding(
            "warn",
            "clock",
            f"{skew / 86400:.0f} days off: downloads over https and log times go wrong",
            "sudo timedatectl set-ntp true, or: sudo date -s ...",
        )
    return Finding("ok", "clock", f"{skew:.0f} s off", "")
