"""Ask a device, before anything of ours is there, whether it can run what is to be deployed."""

import argparse
import re
import shlex
import sys
import time

from jetson.doctor import OLDEST_L4T, parse_release
from jetson.errors import DeviceMismatch
from pipeline.device import Layout

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
if command -v "$DOCKER" >/dev/null 2>&1; then
    say docker_works "$("$DOCKER" info >/dev/null 2>&1 && echo yes)"
    say docker_runtimes "$("$DOCKER" info --format '{{json .Runtimes}}' 2>/dev/null | tr -d '\n')"
fi
say systemd "$(test -d /run/systemd/system && echo yes)"
say release "$(head -n 1 /etc/nv_tegra_release 2>/dev/null)"
say model "$(tr -d '\0' 2>/dev/null </proc/device-tree/model)"
say memory_kb "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
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


def script(layout: Layout, python: str, docker: str) -> str:
    """The script that asks a device what it has; its answers are key=value lines."""
    values = {"ROOT": layout.root, "STATE": layout.state, "PYTHON": python, "DOCKER": docker}
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items()) + PROBE


def parse(text: str) -> dict[str, str]:
    """The answers of the probe script."""
    facts = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and re.match(r"^\w+$", key):
            facts[key] = value.strip()
    return facts


def judge(facts: dict[str, str], args: argparse.Namespace, kind: str, layout: Layout, bundle_kb: int) -> None:
    """Refuse a device that cannot work, all reasons at once, each with what to do; DeviceMismatch."""
    bad = []
    if not facts.get("python"):
        bad.append((f"no {args.python} there", "sudo apt-get install python3, or give --python"))
    elif tuple(int(part) for part in facts["python"].split(".")) < (3, 6):
        bad.append((f"Python {facts['python']} is too old", "JetPack 4.6.1 has 3.6; or give --python"))
    for name, package in (("rsync", "rsync"), ("sums", "coreutils")):
        if not facts.get(name):
            bad.append((f"no {package} there", f"sudo apt-get install {package}"))
    for place, folder in (("ROOT", layout.root), ("STATE", layout.state)):
        if facts.get(f"{place}_writable") != "yes":
            bad.append((f"{folder} cannot be written by {facts.get('user')}",
                        f"on the device, once: sudo mkdir -p {folder} && sudo chown $USER {folder}"))
    free = min((int(facts[key]) for key in ("ROOT_free_kb", "STATE_free_kb") if facts.get(key, "").isdigit()),
               default=0)
    needed = MIN_FREE_KB[kind] + 3 * bundle_kb
    if free < needed:
        bad.append((f"{free >> 10} MiB free, {needed >> 10} MiB needed",
                    "jetmask deploy --prune-old 2 USER@HOST; docker image prune"))
    release = facts.get("release", "")
    if release:
        number = parse_release(release)
        if number is not None and number < OLDEST_L4T:
            bad.append(("L4T r{}.{}.{} is older than r32.7: its TensorRT is not supported".format(*number),
                        "upgrade to JetPack 4.6.1 or later"))
    if kind == "docker":
        if not facts.get("docker"):
            bad.append((f"no {args.docker} there", "sudo apt-get install docker.io nvidia-docker2, or --no-container"))
        elif facts.get("docker_works") != "yes":
            bad.append((f"{facts.get('user')} may not use docker",
                        "sudo usermod -aG docker $USER, then log in again; or --no-container"))
        elif release and not args.no_gpu and "nvidia" not in facts.get("docker_runtimes", ""):
            bad.append(("docker has no nvidia runtime: the container would see no GPU",
                        "sudo apt-get install nvidia-docker2 && sudo systemctl restart docker, or --no-gpu"))
    elif kind.startswith("systemd") and facts.get("systemd") != "yes":
        bad.append(("systemd does not run there", "--service process"))
    skew = abs(int(facts.get("date") or 0) - time.time())
    if skew > 86400:
        print(f"  warning: the device's clock is {skew / 86400:.0f} days off; do: sudo timedatectl set-ntp true",
              file=sys.stderr)
    if bad:
        raise DeviceMismatch("the device is not ready:\n" + "\n".join(
            f"    {what}\n      do: {remedy}" for what, remedy in bad), facts.get("model") or facts.get("arch"))
