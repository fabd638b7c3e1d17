"""The step that opens each camera in each of its modes."""

import fcntl
import glob
import os
import re
import shutil
import struct
import subprocess
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from jetson.capture import sensor_modes, source
from jetson.capture.camera import LOST_S, Camera
from jetson.capture.check import check
from jetson.capture.gstreamer import have_element, pixel_formats
from jetson.errors import JetmaskError
from jetson.firstlight.step import FAIL, PASS, SKIPPED, Known, Outcome, Say, Settings

FIRST_FRAME_S = 20.0
WATCH_S = 3.0
ARGUS_S = 30.0
MOST_MODES = 8
# What webcams have, where the driver does not say.
WEBCAM = ((640, 480, 30.0), (1280, 720, 30.0))
_ARGUS_MODE = re.compile(r"GST_ARGUS: (\d+) x (\d+) FR = (\d+(?:\.\d+)?) fps")
# linux/videodev2.h: _IOWR('V', 74, struct v4l2_frmsizeenum), 44 bytes; formats as in jetson.capture.
_ENUM_SIZES = 0xC02C564A
_READABLE = ("YUYV", "UYVY", "NV12", "YU12", "BGR3", "MJPG")


class Mode(NamedTuple):
    width: int
    height: int
    fps: Optional[float]

    def __str__(self) -> str:
        return f"{self.width}x{self.height}" + (f" at {self.fps:g}" if self.fps else "")


def find(root: str = "/") -> List[str]:
    """The cameras of this machine. A sensor on CSI has a /dev/video, too, with raw pictures that nobody reads there."""
    found = []
    if os.path.exists(os.path.join(root, "tmp/argus_socket")) and have_element("nvarguscamerasrc"):
        found.append("csi://0")
    for path in sorted(glob.glob(os.path.join(root, "dev/video*"))):
        if pixel_formats(path).intersection(_READABLE):
            found.append(path)
    return found


def modes(where: source.Source) -> List[Mode]:
    """The modes of a camera, as it tells them; the usual ones where it does not."""
    told: Sequence[Any] = ()
    usual: Sequence[Any] = ()
    if where.kind == "csi":
        told, usual = argus_modes(where.path), sensor_modes.modes_of(*sensor_modes.sensor(int(where.path)))
    elif where.kind == "v4l2":
        told, usual = _v4l2_modes(where.path), WEBCAM
    else:
        return []
    kept = []
    for width, height, fps in told or usual:
        mode = Mode(width, height, fps)
        if mode not in kept:
            kept.append(mode)
    return kept[:MOST_MODES]


def argus_modes(sensor: str) -> List[Mode]:
    """What nvarguscamerasrc prints of the sensor's modes when it starts."""
    tool = shutil.which("gst-launch-1.0")
    if tool is None:
        return []
    line = [tool, "nvarguscamerasrc", "sensor-id=" + sensor, "num-buffers=1", "!", "fakesink"]
    try:
        said = subprocess.run(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=ARGUS_S
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [Mode(int(w), int(h), float(fps)) for w, h, fps in _ARGUS_MODE.findall(said)]


def _v4l2_modes(device: str) -> List[Mode]:
    """The discrete frame sizes of the format that is read (VIDIOC_ENUM_FRAMESIZES); the rate is the driver's own."""
    offered = pixel_formats(device)
    wanted = next((name for name in ("MJPG",) + _READABLE if name in offered), None)
    found: List[Mode] = []
    if wanted is None:
        return found
    try:
        handle = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return found
    try:
        for index in range(64):
            request = bytearray(struct.pack("<I4sI32x", index, wanted.encode("ascii"), 0))
            fcntl.ioctl(handle, _ENUM_SIZES, request)
            kind, width, height = struct.unpack_from("<III", request, 8)
            if kind != 1:  # stepwise: any size in a range
                break
            found.append(Mode(width, height, None))
    except OSError:
        pass  # EINVAL ends the list
    finally:
        os.close(handle)
    return found


def run(settings: Settings, known: Known, say: Say) -> Outcome:
    """Each mode: opened, a first picture, its size and rate, and closed again, so that the next one finds it free."""
    uris = list(settings.sources) or find(settings.root)
    if not uris:
        return Outcome(SKIPPED, "no camera was found or named (--source csi://0, /dev/video0, rtsp://…)")
    rows: List[Dict[str, Any]] = []
    for number, uri in enumerate(uris):
        where = source.parse(uri)
        label = f"{where.kind} camera {number + 1}"
        try:
            check(where)
        except JetmaskError as error:
            rows.append({"camera": label, "mode": None, "error": str(error.what)})
            continue
        tried: List[Optional[Mode]] = list(modes(where))
        for mode in tried or [None]:
            say(f"{label}, {mode or 'its own mode'}")
            rows.append(dict(_opened(where, mode), camera=label))
        if known.camera is None and any(row["camera"] == label and not row["error"] for row in rows):
            known.camera = uri
    wrong = [f"{row['camera']}, {row['mode'] or 'opening'}: {row['error']}" for row in rows if row["error"]]
    if wrong:
        return Outcome(FAIL, "; ".join(wrong), {"modes": rows})
    text = ", ".join(f"{row['mode'] or row['camera']}: {row['fps']:.1f} frames/s" for row in rows)
    return Outcome(PASS, f"{len(rows)} modes of {len(uris)} cameras; {text}", {"modes": rows})


def _opened(where: source.Source, mode: Optional[Mode]) -> Dict[str, Any]:
    row: Dict[str, Any] = {
        "mode": None if mode is None else str(mode),
        "error": None,
        "fps": 0.0,
        "first_frame_s": None,
    }
    if mode is not None:
        where = where._replace(size=(mode.width, mode.height), fps=mode.fps)
    camera = Camera(where).start()
    began = time.monotonic()
    try:
        while not camera.frames and time.monotonic() - began < FIRST_FRAME_S and camera.lost_count < 3:
            time.sleep(0.02)
        if not camera.frames:
            row["error"] = camera.last_error or f"no picture within {FIRST_FRAME_S:.0f} s"
            return row
        row["first_frame_s"] = round(time.monotonic() - began, 2)
        before, began = camera.frames, time.monotonic()
        # At least one more, however slow the machine is at pictures of eight megapixels.
        while time.monotonic() - began < WATCH_S or (
            camera.frames == before and time.monotonic() - began < WATCH_S + LOST_S
        ):
            time.sleep(0.05)
        row["fps"] = round((camera.frames - before) / (time.monotonic() - began), 2)
        row["frame_wh"], row["dark"] = list(camera.frame_wh or ()), camera.dark
        if camera.lost_count or row["fps"] == 0:
            row["error"] = f"it was lost again: {camera.last_error or 'no further picture'}"
        elif mode is not None and tuple(row["frame_wh"]) != (mode.width, mode.height):
            row["error"] = "its pictures are {} x {}".format(*row["frame_wh"])
    finally:
        camera.stop()
    return row
