"""GStreamer: what elements there are, the pipeline that reads a camera, and what gst-launch-1.0 says about it."""

import fcntl
import os
import re
import shutil
import struct
import subprocess
from typing import Dict, FrozenSet, List, Optional, Tuple

from jetson.capture import sensor_modes
from jetson.capture.address import scrub
from jetson.capture.source import Source

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


def _to_bgr(
    size: Optional[Tuple[int, int]],
    flip: str = "",
    crop: Optional[Tuple[int, int, int, int]] = None,
    boxed: bool = False,
) -> str:
    """Conversion to BGR: nvvidconv (hardware scaling) where there is one, software elsewhere.

    `crop`: (left, top, right, bottom) of the camera's picture, for nvvidconv alone. `boxed`: the picture's own shape is
    not known, so what is missing to `size` is filled with black: nvvidconv alone would squeeze.
    """
    wh = ",width={},height={}".format(*size) if size else ""
    boxes = "videoscale add-borders=true ! "
    square = ",pixel-aspect-ratio=1/1" if size else ""
    if have_element("nvvidconv"):
        turned = " flip-method=" + flip if flip else ""
        cut = " left={0} right={2} top={1} bottom={3}".format(*crop) if crop else ""
        # nvvidconv cannot write BGR.
        if boxed and size:
            whole = f"nvvidconv{turned} ! video/x-raw,format=BGRx ! videoconvert"
            return f"{whole} ! {boxes}video/x-raw,format=BGR{wh}{square}"
        return f"nvvidconv{turned}{cut} ! video/x-raw{wh},format=BGRx ! videoconvert ! video/x-raw,format=BGR"
    return f"{boxes}videoconvert ! video/x-raw,format=BGR{wh}{square}"


def _csi(source: Source, relaxed: bool) -> str:
    """From the sensor to BGR: a mode of the asked aspect, or the middle of another one."""
    size, flip = source.size or (1280, 720), source.options.get("flip", "0")
    shape = size[::-1] if flip in ("1", "3", "5", "7") else size  # as the sensor sees it
    head = "nvarguscamerasrc sensor-id=" + source.path
    number = source.options.get("mode")
    if number is not None:
        # A mode by its number has its own size and rate; where the table knows it, its shape too.
        rate = "" if source.fps is None else ",framerate=" + _fraction(source.fps or 30.0)
        mode = sensor_modes.numbered(int(source.path), int(number))
        crop = sensor_modes.crop_for(mode, shape) if mode else None
        tail = _to_bgr(size, flip, crop, boxed=mode is None)
        return f"{head} sensor-mode={number} ! video/x-raw(memory:NVMM),format=NV12{rate} ! {tail}"
    if relaxed:  # it has refused what it was asked for: whatever it gives
        return f"{head} ! video/x-raw(memory:NVMM),format=NV12 ! {_to_bgr(size, flip, boxed=True)}"
    chosen = sensor_modes.for_camera(int(source.path), shape, source.fps)
    caps = f"width={chosen.mode.width},height={chosen.mode.height},format=NV12,framerate={_fraction(chosen.fps)}"
    return f"{head} ! video/x-raw(memory:NVMM),{caps} ! {_to_bgr(size, flip, chosen.crop)}"


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
        return f"{_csi(source, relaxed)} ! {sink}"
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
        return f"{head} ! {_NEWEST} ! {_to_bgr(size, boxed=relaxed)} ! {sink}"
    if source.kind == "rtsp":
        # TCP: lost UDP packets smear the picture. decodebin takes the hardware decoder where there is one.
        return (
            f"rtspsrc location={source.path} protocols={transport} latency=100 drop-on-latency=true "
            f"tcp-timeout=5000000 timeout=5000000 ! "
            f"application/x-rtp,media=video ! decodebin ! {_NEWEST} ! {_to_bgr(source.size, boxed=True)} ! {sink}"
        )
    raise ValueError(f"{source.kind} is not read through GStreamer")


_CAPS = re.compile(r"GstFdSink:\S*\.GstPad:sink: caps = video/x-raw.*?width=\(int\)(\d+), height=\(int\)(\d+)")


def announced_size(line: str) -> Optional[Tuple[int, int]]:
    """The frame size in a line of `gst-launch-1.0 -v`, when the line announces the sink's caps."""
    match = _CAPS.search(line)
    return (int(match.group(1)), int(match.group(2))) if match else None


def sound_alone(lines: List[str]) -> bool:
    """Whether an RTSP camera has offered sound and no picture, in the lines of `gst-launch-1.0 -v`."""
    offered = [line for line in lines if "GstRTSPSrc" in line]  # not what we have asked for ourselves
    return any("media=(string)audio" in line for line in offered) and not any(
        "media=(string)video" in line for line in offered
    )


def complaint(lines: List[str]) -> str:
    """The most telling line that a dying child has left on stderr, with addresses as they may be shown."""
    for mark in ("jetmask:", "ERROR: from element", "erroneous pipeline", "ERROR", "WARNING", "Error"):
        for line in lines:  # the first error is the cause, those after it are its consequences
            if mark in line:
                text = re.sub(r"^.*?(jetmask: |from element \S+: |erroneous pipeline: )", "", line).strip()
                return scrub(text)[:300]
    return scrub(lines[-1].strip())[:300] if lines else ""
