"""What a device could watch, by what it was asked: its cameras, and whether those that are named are there."""

from collections.abc import Sequence

from jetson.capture.address import shown
from jetson.doctor import Finding
from jetson.errors import UsageError

_RAW_SENSOR = (
    "vi-output"  # the name that NVIDIA's driver gives the raw node of a CSI sensor, for instance "vi-output, imx219"
)


def camera_names(facts: dict[str, str]) -> dict[str, str]:
    """{device: the name that its driver gives} of the cameras there."""
    pairs = (part.partition("=") for part in facts.get("camera_names", "").split(";") if part)
    return {device: name.strip() for device, _, name in pairs}


def sources_there(facts: dict[str, str]) -> list[str]:
    """What could be watched there, as words for --source with what it is, the CSI cameras first."""
    names, found = camera_names(facts), []
    sensors = [device for device, name in names.items() if name.startswith(_RAW_SENSOR)]
    for number, device in enumerate(sensors):
        found.append(f"--source csi://{number} ({names[device]}; its {device} is the raw sensor, not a webcam)")
    for device in facts.get("cameras", "").split():
        if device not in sensors:
            found.append(f"--source {device}" + (f" ({names[device]})" if names.get(device) else ""))
    if not found and facts.get("argus") == "yes":
        found.append("--source csi://0 (nvargus-daemon runs there; no sensor is seen by the kernel)")
    return found


def ask_for_source(facts: dict[str, str]) -> UsageError:
    """What is told to whoever has not said what the runner is to watch."""
    there = sources_there(facts)
    return UsageError(
        "--source is missing",
        None,
        "--source csi://0, --source /dev/video0, --source rtsp://... or several of them",
        "there it could be " + "; or ".join(there)
        if there
        else "no camera is seen there; --source synthetic:// tries without one",
    )


def findings(facts: dict[str, str], kind: str, sources: Sequence[str]) -> list[Finding]:
    found = []
    names = camera_names(facts)
    there, closed, absent = (facts.get(key, "").split() for key in ("cameras", "closed", "absent"))
    # docker refuses a device that is not there, and makes a folder where a file or socket should have been.
    level = "bad" if kind == "docker" else "warn"
    for source in sources:
        path = source.split("?")[0]
        if path in absent and path.startswith("/dev/"):
            found.append(
                Finding(
                    level,
                    "camera",
                    f"no {path} on the device" + (f", but {', '.join(there)}" if there else ""),
                    "plug the camera in, or give --source"
                    + (f" {there[0]}" if there else " synthetic:// for a try without one"),
                )
            )
        elif names.get(path, "").startswith(_RAW_SENSOR):
            sensors = [device for device, name in names.items() if name.startswith(_RAW_SENSOR)]
            found.append(
                Finding(
                    "bad",
                    "camera",
                    f"{path} is the raw output of a CSI sensor ({names[path]}), not a webcam",
                    f"--source csi://{sensors.index(path)}",
                )
            )
        elif path in absent:
            found.append(
                Finding(level, "source", f"no {path} on the device", "copy it there, or give another --source")
            )
        elif path in closed and kind in ("process", "systemd-user"):
            found.append(
                Finding(
                    "warn",
                    "camera",
                    f"{facts.get('user')} may not read {path}",
                    "sudo usermod -aG video $USER, then log in again",
                )
            )
        elif path.startswith("csi:") and facts.get("argus") != "yes":
            found.append(
                Finding(
                    level,
                    "camera",
                    "no /tmp/argus_socket: nvargus-daemon does not run there",
                    "sudo systemctl restart nvargus-daemon (a folder of that name, which docker makes for whoever "
                    "mounts it, must go first: sudo rmdir /tmp/argus_socket)",
                )
            )
        else:
            found.append(Finding("ok", "camera", shown(source), ""))
    return found
