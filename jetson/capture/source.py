"""What a camera is: the address that a user gives, in the spellings that people know from other tools."""

import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import parse_qsl, unquote, urlsplit

from jetson.capture.address import hide, shown
from jetson.errors import BadInput, UsageError

KINDS = ("v4l2", "csi", "rtsp", "stream", "file", "folder", "synthetic")
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv")
LISTS = (".txt", ".list", ".streams")
EXAMPLES = (
    "/dev/video0, csi://0, rtsp://host/path, http://host/stream.mjpg, a video file, a photo, a folder of images, "
    "a .txt file with one address a line, synthetic://"
)
# No path that begins with a folder or a scheme looks so.
_NAMED = re.compile(r"^\s*([^/:=\s{}@?&][^/:={}@?&]{0,39})=((?:[A-Za-z][A-Za-z0-9+.-]*:/|/dev/).*)$", re.DOTALL)
_LIVE = ("v4l2", "csi", "rtsp", "stream")
# By number, or by the name that udev gives and that stays the same when cameras are plugged in another order.
CAMERA = re.compile(r"^/dev/(video\d+|v4l/by-(id|path)/[\w.:+@,-]+)($|\?)")
_RTSP = {"rtsp": "auto", "rtsps": "tcp", "rtspt": "tcp", "rtspu": "udp"}  # scheme: transport (GStreamer's spellings)
TRANSPORTS = ("auto", "tcp", "udp")
_STREAMS = ("http", "https", "udp", "tcp", "rtmp")
_KEYS = {
    "csi": ("size", "fps", "flip", "mode"),
    "v4l2": ("size", "fps"),
    "synthetic": ("size", "fps", "seed", "frames", "faces", "darken", "blur"),
}
# What a worn camera does to a drawn scene: the share of the light that is missing, and a blur (sigma) in pixels.
_WEAR = {"darken": 1.0, "blur": 50.0}


class Source(NamedTuple):
    """A parsed address. `size` and `fps` are what was asked for, or None: the source's own.

    `uri`: as it was given; `path`: what is opened; `loop`: files begin again at their end; `wait`: a device or file
    that is not there yet is waited for; `name`: what its owner calls it; `rotate`: degrees clockwise that each frame is
    turned by; `roi`: the part that faces are looked for in, left, top, right, bottom as shares of the turned frame.
    """

    kind: str
    uri: str
    path: str
    size: Optional[Tuple[int, int]]
    fps: Optional[float]
    options: Dict[str, str]
    loop: bool
    wait: bool = False
    name: str = ""
    rotate: int = 0
    roi: Optional[Tuple[float, float, float, float]] = None

    @property
    def live(self) -> bool:
        """Whether this is a camera: it never ends, and a standing picture means that it is frozen."""
        return self.kind in _LIVE

    @property
    def finite(self) -> bool:
        """Whether it is read once from beginning to end: each frame counts, and the end is an end."""
        return not self.live and (not self.loop or bool(self.options.get("frames")))

    @property
    def label(self) -> str:
        """Name and address as pages, logs and metrics show it: of one in a network, scheme, host and port alone."""
        return f"{self.name} ({shown(self.uri)})" if self.name else shown(self.uri)

    def hide(self, text: str) -> str:
        """`text`, which a program has said about this source, without its address."""
        return hide(text, self.uri, self.path)

    def __repr__(self) -> str:
        return f"Source({self.kind}, {self.label})"


def named(text: str) -> Tuple[str, str]:
    """(name, address) of `NAME=ADDRESS`; the name is empty where none is given.

    >>> named("front door=rtsp://host/a"), named("/videos/a=b.mp4")
    (('front door', 'rtsp://host/a'), ('', '/videos/a=b.mp4'))
    """
    found = _NAMED.match(text)
    return (found.group(1).strip(), found.group(2)) if found else ("", text)


def parse_size(text: str) -> Tuple[int, int]:
    """'640x480' as (640, 480); UsageError otherwise."""
    match = re.match(r"^(\d{1,5})x(\d{1,5})$", text)
    if not match or not all(16 <= int(side) <= 8192 for side in match.groups()):
        raise UsageError(f"not a frame size: {text!r}", None, "WIDTHxHEIGHT, each 16 to 8192, such as 640x480")
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
        raise UsageError("not an address", shown(uri), EXAMPLES) from error


def _quoted(text: str) -> str:
    """A user name or password as it stands in an address: all but letters, digits and %XX is escaped."""
    return re.sub(
        r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9._~%-]",
        lambda found: "".join(f"%{byte:02X}" for byte in found.group().encode("utf-8", "surrogateescape")),
        text,
    )


def _network(uri: str, scheme: str) -> str:
    """The address of a network camera with user name and password escaped; UsageError when it is none."""
    form = f"{scheme}://[user:password@]host[:port]/path"
    rest = uri.split("://", 1)[1]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, host = authority.rpartition("@")
    path = rest[len(authority) :]
    if re.search(r"[\s\"'\\]", host + path):
        raise UsageError("not an address of a camera", shown(uri), form, "write special characters as %XX")
    name, colon, password = user.partition(":")
    quoted = f"{scheme}://{_quoted(name)}{colon}{_quoted(password)}{at}{host}{path}"
    try:
        parts = urlsplit(quoted)
        good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        # Not the address itself: what was taken for a port may be the password.
        remedy = "in a password '/' is written %2F, '?' %3F and '#' %23" if "@" in path else None
        raise UsageError("the address has no host and port", f"{scheme}://…", form, remedy)
    return quoted


def _transport(uri: str, default: str) -> Tuple[str, str]:
    """An RTSP address without `transport=`, which is ours, and the transport; the rest of a query is the camera's."""
    address, mark, query = uri.partition("?")
    rest = [part for part in query.split("&") if not part.startswith("transport=")]
    asked = [part[len("transport=") :] for part in query.split("&") if part.startswith("transport=")]
    transport = asked[-1] if asked else default
    if transport not in TRANSPORTS:
        raise UsageError(f"unknown transport: {transport!r}", shown(uri), "one of " + ", ".join(TRANSPORTS))
    return address + (mark + "&".join(rest) if rest != [""] and rest else ""), transport


def _local(path: str) -> str:
    """The path of a file:// address, whose special characters are %XX; older spellings have them as they are."""
    path = path[len("localhost") :] if path.startswith("localhost/") else path
    plain = unquote(path, errors="surrogateescape")
    return path if os.path.exists(path) and not os.path.exists(plain) else plain


def parse(
    uri: str,
    size: Optional[Tuple[int, int]] = None,
    fps: Optional[float] = None,
    loop: bool = True,
    wait: bool = False,
) -> Source:
    """An address as a Source. UsageError when it means nothing; nothing is opened here.

    >>> parse("synthetic://?seed=3&size=320x240").size
    (320, 240)
    """
    name, uri = named(uri)
    scheme = uri.split("://", 1)[0].lower() if "://" in uri else ""
    options: Dict[str, str] = {}
    path, query = uri, ""
    if scheme in ("csi", "synthetic"):
        parts = _split(uri)
        kind, path, query = scheme, parts.netloc + parts.path.rstrip("/"), parts.query
    elif scheme in _RTSP:
        # What follows a '?' there belongs to the camera but for the transport, so sizes come from the command line.
        bare, options["transport"] = _transport(uri, _RTSP[scheme])
        kind, path = "rtsp", _network(bare, "rtsps" if scheme == "rtsps" else "rtsp")
    elif scheme in _STREAMS:
        # udp://:5000 and udp://@:5000 listen on a port; FFmpeg's and VLC's spellings.
        listens = re.match(r"^udp://@?(\[?[0-9a-fA-F.:]*\]?):(\d{1,5})/?(\?|$)", uri)
        kind, path = "stream", uri if listens else _network(uri, scheme)
        if scheme in ("http", "https") and urlsplit(path).path.lower().endswith(VIDEOS):
            raise UsageError(
                "a video file on a web server is not a camera",
                shown(uri),
                "an MJPEG or HLS stream",
                "fetch the file first (curl -O ADDRESS) and give its name",
            )
    elif scheme == "file":
        kind, path = "file", _local(uri[len("file://") :])
    elif scheme == "v4l2" or CAMERA.match(uri):
        path, _, query = uri[len("v4l2://") if scheme else 0 :].partition("?")
        kind = "v4l2"
        if not CAMERA.match(path):
            raise UsageError("not a V4L2 camera", uri, "/dev/video0 or v4l2:///dev/video0")
    elif scheme:
        raise UsageError(f"unknown kind of source: {scheme}://", shown(uri), EXAMPLES)
    elif not uri:
        raise UsageError("the source is empty", None, EXAMPLES)
    else:
        kind = "file"
    if kind == "file" and (os.path.isdir(path) or path.lower().endswith(IMAGES)):
        kind = "folder"
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _KEYS[kind]:
            raise UsageError(f"unknown option {key!r} of a source", uri, "one of " + ", ".join(_KEYS[kind]))
        options[key] = value
    _check_options(kind, path, uri, options)
    size = parse_size(options.pop("size")) if "size" in options else size
    fps = _parse_fps(options.pop("fps")) if "fps" in options else (None if fps is None else _parse_fps(fps))
    return Source(kind, uri, path, size, fps, options, loop, wait, name)


def _check_options(kind: str, path: str, uri: str, options: Dict[str, str]) -> None:
    if kind == "csi" and not re.match(r"^\d{1,2}$", path):
        raise UsageError("not a CSI camera", uri, "csi://0, csi://1, …")
    if "flip" in options and options["flip"] not in tuple("01234567"):
        raise UsageError(f"not a flip method: {options['flip']!r}", uri, "0 to 7 (nvvidconv's flip-method)")
    if "mode" in options and not re.match(r"^\d{1,2}$", options["mode"]):
        raise UsageError(f"not a sensor mode: {options['mode']!r}", uri, "a number, as nvarguscamerasrc lists them")
    for key in ("seed", "frames", "faces"):
        if key in options and not re.match(r"^\d{1,9}$", options[key]):
            raise UsageError(f"{key} is not a whole number", uri, f"{key}=7")
    for key, most in _WEAR.items():
        if key in options and not (re.match(r"^\d{1,3}(\.\d{1,6})?$", options[key]) and float(options[key]) <= most):
            raise UsageError(f"invalid value of {key}: {options[key]!r}", uri, f"0 to {most:.0f}")


def is_list(uri: str) -> bool:
    """Whether this is a file with one address a line."""
    return "://" not in uri and uri.lower().endswith(LISTS)


def read_list(path: str) -> List[str]:
    """The addresses in a list file; empty lines and those that begin with '#' are left out. BadInput names it.

    A path in it that is not absolute is beside the list.
    """
    try:
        with open(path, "rb") as file:
            lines = file.read(1 << 20).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise BadInput(f"the list of sources cannot be read: {error.strerror}", path, EXAMPLES) from error
    except UnicodeDecodeError as error:
        raise BadInput("the list of sources is not text in UTF-8", path, "one address a line") from error
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if is_list(text):
            raise BadInput("a list in a list of sources", f"{path}, line {number}", "one address a line")
        if named(text)[0]:
            found.append(text)
            continue
        beside = os.path.join(os.path.dirname(path), text)
        found.append(beside if "://" not in text and not text.startswith("/") else text)
    if not found:
        raise BadInput("no address in the list of sources", path, "one address a line")
    return found


def images(folder: str) -> List[str]:
    """The image files of a folder, or of the images/ in it (a split), sorted; a photo is its own folder."""
    if os.path.isfile(folder):
        return [folder]
    for place in (folder, os.path.join(folder, "images")):
        if os.path.isdir(place):
            names = sorted(name for name in os.listdir(place) if name.lower().endswith(IMAGES))
            if names:
                return [os.path.join(place, name) for name in names]
    return []
