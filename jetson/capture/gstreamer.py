"""GStreamer: what elements there are, the pipeline that reads a camera, and what gst-launch-1.0 says about it."""

import fcntl
import os
import re
import shutil
import struct
import subprocess
from typing import Dict, FrozenSet, List, Optional, Tuple

from jetson.capture.source import Source, redact

_ENUM_FMT = 0xC0405602  # _IOWR('V', 2, struct v4l2_fmtdesc), linux/videodev2.h
_RAW_FORMATS = ("YUYV", "UYVY", "YVYU", "NV12", "YU12", "YV12", "BGR3", "RGB3", "GREY")
ASK_S = 60.0
_elements: Dict[str, bool] = {}


def have_element(name: str) -> bool:
    """Whether GStreamer has this element; False too when it does not answer, and then it is asked again the next time.

    OpenCV hangs for ever on a missing one, so it is asked first.
    """
    if name not in _elements:
        tool = shutil.which("gst-inspect-1.0")
        try:
            _elements[name] = (
                tool is not None
                and subprocess.call(
                    [tool, name],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=ASK_S,
                )
                == 0
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return _elements[name]


def have_gstreamer() -> bool:
    """Whether cameras can be read through gst-launch-1.0."""
    return shutil.which("gst-launch-1.0") is not None and have_element("fdsink") and have_element("videoconvert")


def pixel_formats(device: str) -> FrozenSet[str]:
    """The four-letter pixel formats a V4L2 camera offers; empty when it does not say (VIDIOC_ENUM_FMT)."""
    found = set()
    try:
        handle = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return frozenset()
    try:
        for index in range(64):
            request = bytearray(struct.pack("<III32sI16x", index, 1, 0, b"", 0))
            fcntl.ioctl(handle, _ENUM_FMT, request)
            found.add(bytes(request[44:48]).decode("ascii", "replace"))
    except OSError:
        pass  # EINVAL ends the list
    finally:
        os.close(handle)
    return frozenset(found)


# A queue of one that drops the old frame: whatever stalls behind it, the next frame is the newest.
_NEWEST = "queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0"


def _to_bgr(size: Optional[Tuple[int, int]], flip: Optional[str] = None) -> str:
    """Conversion to BGR: nvvidconv (hardware scaling) where there is one, software elsewhere."""
    wh = ",width={},height={}".format(*size) if size else ""
    if have_element("nvvidconv"):
        # nvvidconv cannot write BGR.
        return "nvvidconv{} ! video/x-raw{},format=BGRx ! videoconvert ! video/x-raw,format=BGR".format(
            " flip-method=" + flip if flip else "", wh
        )
    return "videoscale add-borders=true ! videoconvert ! video/x-raw,format=BGR{}{}".format(
        wh, ",pixel-aspect-ratio=1/1" if size else ""
    )


def _fraction(fps: float) -> str:
    return f"{int(fps)}/1" if fps == int(fps) else f"{int(round(fps * 1000))}/1000"


def pipeline(source: Source, fd: int, relaxed: bool = False, transport: str = "tcp") -> str:
    """The GStreamer pipeline that writes raw BGR frames to file descriptor `fd`.

    `relaxed`: let the camera choose its mode and scale afterwards (when it has refused the exact one). `transport`: of
    an RTSP camera, tcp or udp.
    Elements and caps as in NVIDIA's Accelerated GStreamer guide for L4T.
    """
    sink = f"fdsink fd={fd} sync=false"
    fps = source.fps or 30.0
    if source.kind == "csi":
        size = source.size or (1280, 720)
        mode = "" if relaxed else ",width={},height={}".format(*max(size, (1280, 720)))
        chosen = " sensor-mode=" + source.options["mode"] if "mode" in source.options else ""
        if chosen:
            mode = ""  # a mode of the sensor has its own size and rate; it is scaled afterwards
        rate = "" if chosen and source.fps is None else ",framerate=" + _fraction(fps)
        return "nvarguscamerasrc sensor-id={}{} ! video/x-raw(memory:NVMM){},format=NV12{} ! {} ! {}".format(
            source.path, chosen, mode, rate, _to_bgr(size, source.options.get("flip", "0")), sink
        )
    if source.kind == "v4l2":
        size = source.size or (640, 480)
        offered = pixel_formats(source.path)
        raw = not offered or bool(offered.intersection(_RAW_FORMATS))
        # Raw video over USB 2 is too slow above VGA; cameras offer MJPEG for that.
        jpeg = "MJPG" in offered and (not raw or size[0] * size[1] > 640 * 480)
        caps = "" if relaxed else f",width={size[0]},height={size[1]},framerate={_fraction(fps)}"
        if jpeg:
            hardware = have_element("nvv4l2decoder") and have_element("nvvidconv")
            decoder = "jpegparse ! nvv4l2decoder mjpeg=1" if hardware else "jpegdec"
            head = f"v4l2src device={source.path} ! image/jpeg{caps} ! {decoder}"
        else:
            head = f"v4l2src device={source.path} ! video/x-raw{caps}"
        return f"{head} ! {_NEWEST} ! {_to_bgr(size)} ! {sink}"
    if source.kind == "rtsp":
        # TCP: lost UDP packets smear the picture. decodebin takes the hardware decoder where there is one.
        return (
            f"rtspsrc location={source.path} protocols={transport} latency=100 drop-on-latency=true "
            f"tcp-timeout=5000000 timeout=5000000 ! "
            f"application/x-rtp,media=video ! decodebin ! {_NEWEST} ! {_to_bgr(source.size)} ! {sink}"
        )
    raise ValueError(f"{source.kind} is not read through GStreamer")


_CAPS = re.compile(r"GstFdSink:\S*\.GstPad:sink: caps = video/x-raw.*?width=\(int\)(\d+), height=\(int\)(\d+)")


def announced_size(line: str) -> Optional[Tuple[int, int]]:
    """The frame size in a line of `gst-launch-1.0 -v`, when the line announces the sink's caps."""
    match = _CAPS.search(line)
    return (int(match.group(1)), int(match.group(2))) if match else None


def sound_alone(lines: List[str]) -> bool:
    """Whether an RTSP camera has offered sound and no picture, in the lines of `gst-launch-1.0 -v`."""
    return any("media=(string)audio" in line for line in lines) and not any(
        "media=(string)video" in line for line in lines
    )


def complaint(lines: List[str]) -> str:
    """The most telling line that a dying child has left on stderr, without addresses' passwords."""
    for mark in ("jetmask:", "ERROR: from element", "erroneous pipeline", "ERROR", "WARNING", "Error"):
        for line in lines:  # the first error is the cause, those after it are its consequences
            if mark in line:
                text = re.sub(r"^.*?(jetmask: |from element \S+: |erroneous pipeline: )", "", line).strip()
                return redact(text)[:300]
    return redact(lines[-1].strip())[:300] if lines else ""
