"""Where bundles and engines are kept, the cameras, and the clock."""

import glob
import os
import shutil
import time
from typing import List, Optional

from jetson.bundle import manifest
from jetson.doctor.finding import Finding, output_of
from jetson.doctor.machine import l4t_release

MIN_DISK_BYTES = 1 << 30
ENVIRONMENT_STATE = "JETMASK_STATE"
STATE = "/var/lib/jetmask"


def state_folder(given: Optional[str] = None) -> str:
    """Where bundles and engines are kept: `given`, or the environment's JETMASK_STATE, or /var/lib/jetmask."""
    return os.path.abspath(given or os.environ.get(ENVIRONMENT_STATE) or STATE)


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
        absent = [name for name in elements if output_of(["gst-inspect-1.0", name]) is None]
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
