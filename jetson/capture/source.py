"""What a camera is: the address a user gives, and the command of the child process that delivers its frames."""

import fcntl
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from typing import Any, Dict, FrozenSet, List, NamedTuple, Optional, Tuple
from urllib.parse import parse_qsl, urlsplit

from jetson.errors import BadInput, DeviceMismatch, UsageError

KINDS = ("v4l2", "csi", "rtsp", "file", "folder", "synthetic")
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
EXAMPLES = "/dev/video0, csi://0, rtsp://host/path, a video file, a folder of images, synthetic://"
_LIVE = ("v4l2", "csi", "rtsp")
# By number, or by the name that udev gives and that stays the same when cameras are plugged in another order.
_CAMERA = re.compile(r"^/dev/(video\d+|v4l/by-(id|path)/[\w.:+@,-]+)($|\?)")
_KEYS = {
    "csi": ("size", "fps", "flip"),
    "v4l2": ("size", "fps"),
    "synthetic": ("size", "fps", "seed", "frames", "faces", "darken", "blur"),
}
# What a worn camera does to a drawn scene: the share of the light that is missing, and a blur (sigma) in pixels.
_WEAR = {"darken": 1.0, "blur": 50.0}
# Cameras that take the password in the path or the query: …?user=a&password=b, …/user=a_password=b_channel=1.
_SECRET = re.compile(
    r"((?:[/?&;]|(?<=[^/?&;\s])_)(?:password|passwd|pass|pwd|psw|token)=)"
    r"(?:(?!_[a-z]+=)[^&;/?\s\"'])+",
    re.IGNORECASE,
)
_ENUM_FMT = 0xC0405602  # _IOWR('V', 2, struct v4l2_fmtdesc), linux/videodev2.h
_RAW_FORMATS = ("YUYV", "UYVY", "YVYU", "NV12", "YU12", "YV12", "BGR3", "RGB3", "GREY")


class Source(
    NamedTuple(
        "Source",
        [
            ("kind", str),
            ("uri", str),
            ("path", str),
            ("size", Optional[Tuple[int, int]]),
            ("fps", Optional[float]),
            ("options", Dict[str, str]),
            ("loop", bool),
        ],
    )
):
    """A parsed address. `size` and `fps` are what was asked for, or None: the source's own."""

    __slots__ = ()

    @property
    def live(self) -> bool:
        """Whether this is a camera: it never ends, and a standing picture means that it is frozen."""
        return self.kind in _LIVE

    @property
    def label(self) -> str:
        """The address without a password, for pages, logs and metrics."""
        return redact(self.uri)


def redact(text: str) -> str:
    """Hide user names and passwords in every address within `text`, and passwords in its path and query.

    >>> redact("open rtsp://me:secret@10.0.0.2/cam")
    'open rtsp://***@10.0.0.2/cam'
    """
    return _SECRET.sub(r"\1***", re.sub(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s\"']*@", r"\1***@", text))


def parse_size(text: str) -> Tuple[int, int]:
    """'640x480' as (640, 480); UsageError otherwise."""
    match = re.match(r"^(\d{1,5})x(\d{1,5})$", text)
    if not match or not all(16 <= int(side) <= 8192 for side in match.groups()):
        raise UsageError(f"not a frame size: {text!r}", None, "WIDTHxHEIGHT, each 16 to 8192, as 640x480")
    return int(match.group(1)), int(match.group(2))


def _parse_fps(text: Any) -> float:
    try:
        fps = float(text)
    except ValueError:
        fps = -1.0
    if not 0 <= fps <= 1000:
        raise UsageError(f"not a frame rate: {text!r}", None, "frames/s from 0 (as fast as possible) to 1000")
    return fps


def _split(uri: str) -> Any:
    """urlsplit, with UsageError for what it cannot split (a lone '[')."""
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise UsageError(f"not an address: {error}", redact(uri), EXAMPLES)


def parse(uri: str, size: Optional[Tuple[int, int]] = None, fps: Optional[float] = None, loop: bool = True) -> Source:
    """An address as a Source. UsageError when it means nothing; nothing is opened here.

    >>> parse("synthetic://?seed=3&size=320x240").size
    (320, 240)
    """
    scheme = uri.split("://", 1)[0].lower() if "://" in uri else ""
    options: Dict[str, str] = {}
    path = uri
    if scheme in ("csi", "synthetic"):
        parts = _split(uri)
        kind, path, query = scheme, parts.netloc + parts.path.rstrip("/"), parts.query
    elif scheme in ("rtsp", "rtsps"):
        # What follows a '?' there belongs to the camera, so sizes come from the command line alone.
        kind, query = "rtsp", ""
        if re.search(r"[\s\"'\\]", uri) or not _split(uri).hostname:
            raise UsageError(
                "not an RTSP address",
                redact(uri),
                "rtsp://[user:password@]host[:port]/path",
                "write special characters as %XX",
            )
    elif scheme == "file":
        kind, path, query = "file", uri[len("file://") :], ""
    elif scheme:
        raise UsageError(f"unknown kind of source: {scheme}://", redact(uri), EXAMPLES)
    elif _CAMERA.match(uri):
        kind, (path, _, query) = "v4l2", uri.partition("?")
    elif not uri:
        raise UsageError("the source is empty", None, EXAMPLES)
    else:
        kind, query = "file", ""
    if kind == "file" and os.path.isdir(path):
        kind = "folder"
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _KEYS[kind]:
            raise UsageError(f"unknown option {key!r} of a source", uri, "one of " + ", ".join(_KEYS[kind]))
        options[key] = value
    if kind == "csi" and not re.match(r"^\d{1,2}$", path):
        raise UsageError("not a CSI camera", uri, "csi://0, csi://1, …")
    if "flip" in options and options["flip"] not in tuple("01234567"):
        raise UsageError(f"not a flip method: {options['flip']!r}", uri, "0 to 7 (nvvidconv's flip-method)")
    for key in ("seed", "frames", "faces"):
        if key in options and not re.match(r"^\d{1,9}$", options[key]):
            raise UsageError(f"{key} is not a whole number", uri, f"{key}=7")
    for key, most in _WEAR.items():
        if key in options and not (re.match(r"^\d{1,3}(\.\d{1,6})?$", options[key]) and float(options[key]) <= most):
            raise UsageError(f"not an amount to {key}: {options[key]!r}", uri, f"0 to {most:.0f}")
    size = parse_size(options.pop("size")) if "size" in options else size
    fps = _parse_fps(options.pop("fps")) if "fps" in options else (None if fps is None else _parse_fps(fps))
    return Source(kind, uri, path, size, fps, options, loop)


def check(source: Source) -> None:
    """BadInput or DeviceMismatch when it is already clear that this source cannot work.

    Network cameras are not asked: one that is still booting is waited for.
    """
    if source.kind in ("file", "folder"):
        if not os.path.exists(source.path):
            raise BadInput("the source does not exist", source.label, EXAMPLES, "check the path")
        if not os.access(source.path, os.R_OK):
            raise BadInput("the source cannot be read", source.label, "a file that this user may read")
        if source.kind == "folder" and not images(source.path):
            raise BadInput("no image in the folder", source.label, "files ending in " + ", ".join(IMAGES))
    elif source.kind == "v4l2":
        try:
            os.close(os.open(source.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if os.path.isdir("/dev"):
                there = sorted(name for name in os.listdir("/dev") if _CAMERA.match("/dev/" + name))
            raise BadInput(
                f"the camera cannot be opened: {error.strerror}",
                source.path,
                "a camera; here there is " + (", ".join("/dev/" + name for name in there) or "none"),
                f"plug it in, pass the device into the container (--device {source.path}), or give the user the group 'video'; "
                "--wait-for-source waits for it",
            )
    elif source.kind == "csi" and not have_element("nvarguscamerasrc"):
        raise DeviceMismatch(
            "this machine has no CSI camera: the GStreamer element nvarguscamerasrc is missing",
            source.uri,
            "a Jetson with gst-launch-1.0 and NVIDIA's GStreamer elements",
            "run on the Jetson, or in the container with --runtime nvidia and /tmp/argus_socket mounted",
        )


def images(folder: str) -> List[str]:
    """The image files of a folder, or of the images/ in it (a split), sorted."""
    for place in (folder, os.path.join(folder, "images")):
        if os.path.isdir(place):
            names = sorted(name for name in os.listdir(place) if name.lower().endswith(IMAGES))
            if names:
                return [os.path.join(place, name) for name in names]
    return []


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
                bool(tool)
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


def pipeline(source: Source, fd: int, relaxed: bool = False) -> str:
    """The GStreamer pipeline that writes raw BGR frames to file descriptor `fd`.

    `relaxed`: let the camera choose its mode and scale afterwards (when it has refused the exact one).
    Elements and caps as in NVIDIA's Accelerated GStreamer guide for L4T.
    """
    sink = f"fdsink fd={fd} sync=false"
    fps = source.fps or 30.0
    if source.kind == "csi":
        size = source.size or (1280, 720)
        mode = "" if relaxed else ",width={},height={}".format(*max(size, (1280, 720)))
        return "nvarguscamerasrc sensor-id={} ! video/x-raw(memory:NVMM){},format=NV12,framerate={} ! {} ! {}".format(
            source.path, mode, _fraction(fps), _to_bgr(size, source.options.get("flip", "0")), sink
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
            f"rtspsrc location={source.uri} protocols=tcp latency=100 drop-on-latency=true tcp-timeout=5000000 ! "
            f"application/x-rtp,media=video ! decodebin ! {_NEWEST} ! {_to_bgr(source.size)} ! {sink}"
        )
    raise ValueError(f"{source.kind} is not read through GStreamer")


def command(source: Source, fd: int, every_frame: bool = False, relaxed: bool = False) -> Tuple[List[str], bool]:
    """The child process that writes this source's frames to `fd`: (argv, framed).

    `framed`: each frame carries a header (jetson.capture.reader); otherwise plain BGR, its size announced on stdout by
    `gst-launch-1.0 -v`. `every_frame`: as fast as they are taken, none dropped (files only).
    """
    if source.live and have_gstreamer():
        return ["gst-launch-1.0", "-v"] + pipeline(source, fd, relaxed).split(" "), False
    if source.kind == "csi":
        check(source)
    request = {
        "kind": source.kind,
        "path": source.path,
        "size": source.size,
        "fps": source.fps,
        "loop": source.loop,
        "options": source.options,
        "every_frame": every_frame,
    }
    return [sys.executable, "-m", "jetson.capture.reader", str(fd), json.dumps(request)], True


_CAPS = re.compile(r"GstFdSink:\S*\.GstPad:sink: caps = video/x-raw.*?width=\(int\)(\d+), height=\(int\)(\d+)")


def announced_size(line: str) -> Optional[Tuple[int, int]]:
    """The frame size in a line of `gst-launch-1.0 -v`, when the line announces the sink's caps."""
    match = _CAPS.search(line)
    return (int(match.group(1)), int(match.group(2))) if match else None


def complaint(lines: List[str]) -> str:
    """The most telling line that a dying child has left on stderr, without addresses' passwords."""
    for mark in ("jetmask:", "ERROR: from element", "erroneous pipeline", "ERROR", "WARNING", "Error"):
        for line in lines:  # the first error is the cause, those after it are its consequences
            if mark in line:
                text = re.sub(r"^.*?(jetmask: |from element \S+: |erroneous pipeline: )", "", line).strip()
                return redact(text)[:300]
    return redact(lines[-1].strip())[:300] if lines else ""
