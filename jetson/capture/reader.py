"""The child process that reads files, folders and drawn scenes (and cameras where there is no GStreamer).

It writes each frame to a pipe as a header, a JSON object and raw BGR (or to memory that the runner has too: shared);
it can hang or crash without harm to the runner. A frame of a file carries its time in the file (the container's), at
whatever speed it is read.
"""

import contextlib
import json
import os
import re
import struct
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple
from urllib.parse import urlsplit

from jetson.capture.shared import Writer
from jetson.capture.timeline import Timeline

# magic, width, height, bytes of JSON, number of the frame in its pass, pass, second in the pass, place in the shared
# memory (-1: the frame follows)
HEADER = struct.Struct("<4sIIIQIdi")
MAGIC = b"JMF3"
MAX_PIXELS = 64 * 1024 * 1024
FOLDER_FPS = 1.0
SYNTHETIC_FPS = 30.0
BROKEN = 4  # exit status: the file ends before its end
UNREADABLE = 3  # exit status: nothing could be read
_PLAIN = re.compile(r"^[A-Za-z0-9 ._/+@,=-]+\Z")

Read = Iterator[Tuple[Any, Dict[str, Any], float]]  # frame, what is told besides, second
Room = Callable[[], Any]  # memory to read the next frame into, like the last one; or None


class Broken(Exception):
    """The file ends before its end; the text says where."""


def note(text: str) -> None:
    """Tell the runner something; it stands on the page as the source's last word."""
    print("jetmask: " + text, file=sys.stderr, flush=True)


def tell_length(seconds: float) -> None:
    """Tell the runner how long the source is."""
    print(f"jetmask-length: {seconds:.3f}", file=sys.stderr, flush=True)


def _name_for_opencv(path: str) -> str:
    """A name of this file that any OpenCV can open.

    OpenCV 4.6 under Python 3.6 dies of a name with other letters in the C locale, every version of bytes that are no
    UTF-8; FFmpeg takes what stands before a ':' for a protocol.
    """
    if _PLAIN.match(path):
        return path
    return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"


def _turned(frame: Any, turn: int) -> Any:
    import cv2

    codes = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    return cv2.rotate(frame, codes[turn]) if turn else frame


def read_video(request: Dict[str, Any], room: Room) -> Read:
    """Frames of a video file, upright, at the container's times (or at `fps`, where one was asked for).

    Broken when the file ends before what its container says.
    """
    import cv2

    from jetson.capture import media

    path = request["path"]
    if not os.path.exists(path):
        note("the file does not exist; it is waited for" if request["wait"] else "the file does not exist")
        sys.exit(UNREADABLE)
    # One decoding thread: FFmpeg would take all cores in bursts, which the engine needs.
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "threads;1")
    told = media.facts(path)
    name = _name_for_opencv(path)
    capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    if not capture.isOpened() and name == path:
        capture = cv2.VideoCapture(name)  # an OpenCV without FFmpeg
    if not capture.isOpened():
        if told.missing or not told.has_index:
            note("the video has no index: it was cut off while it was copied or recorded")
        else:
            note("not a video that OpenCV can open")
        sys.exit(UNREADABLE)
    if told.turn is not None:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    usual = capture.get(cv2.CAP_PROP_FPS)
    usual = usual if 0.1 <= usual <= 1000 else 25.0
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    length = count / usual if 0 < count < 1e9 else 0.0
    asked = request["fps"]
    tell_length(count / asked if asked and length else length)
    number, timeline = 0, Timeline(1 / usual)
    while True:
        good, frame = capture.read(room() if not told.turn else None)
        if not good:
            break
        second = timeline.at(capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3)
        yield _turned(frame, told.turn or 0), {}, number / asked if asked else second
        number += 1
    capture.release()
    if number == 0:
        note("no frame in the video: it is empty or damaged")
        sys.exit(UNREADABLE)
    end = timeline.second + timeline.step
    # The length is the container's estimate; where bytes are missing, little is needed to believe it.
    if end < (length - max(0.25, 2 * timeline.step) if told.missing or media.facts(path).missing else 0.9 * length):
        raise Broken(f"the video ends early: it breaks off at {end:.1f} s of {length:.1f} s")


def _image(path: str) -> Any:
    """An image as uint8 (h, w, 3) BGR, upright; None when it cannot be read."""
    import cv2
    import numpy as np

    with contextlib.suppress(OSError, ValueError, cv2.error), open(path, "rb") as file:
        return cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    return None


def read_folder(request: Dict[str, Any], room: Room) -> Read:
    """The images of a folder, one a second unless told otherwise; a damaged one is told and left out."""
    from jetson.capture import source

    fps = request["fps"] or FOLDER_FPS
    number = 0
    paths = source.images(request["path"])
    tell_length(len(paths) / fps)
    for path in paths:
        frame = _image(path)
        if frame is None:
            note(f"not a readable image, left out: {os.path.basename(path)}")
            continue
        yield frame, {"file": os.path.basename(path)}, number / fps
        number += 1
    if number == 0:
        note("no readable image in the folder")
        sys.exit(UNREADABLE)


def read_synthetic(request: Dict[str, Any], room: Room) -> Read:
    """Drawn scenes with moving faces; the truth (boxes, labels) comes with each frame.

    `darken` and `blur` do to them what a worn lamp and a dirty lens do.
    """
    import cv2

    from jetson.synthetic import scene as drawn

    frames = int(request["options"].get("frames", 0))
    fps = request["fps"] or SYNTHETIC_FPS
    if frames:
        tell_length(frames / fps)
    faces = request["options"].get("faces")
    scene = drawn.Scene(
        int(request["options"].get("seed", 0)),
        tuple(request["size"] or (640, 480)),
        None if faces is None else int(faces),
    )
    darken, blur = [float(request["options"].get(key, 0)) for key in ("darken", "blur")]
    number = 0
    while not frames or number < frames:
        at = number / fps
        frame, xyxy, labels, ids = scene.frame(at)
        if blur > 0:
            frame = cv2.GaussianBlur(frame, (0, 0), blur)
        if darken > 0:
            frame = cv2.convertScaleAbs(frame, alpha=1 - darken)
        truth = {
            "xyxy": [[round(float(side), 2) for side in box] for box in xyxy],
            "labels": [int(label) for label in labels],
            "ids": [int(person) for person in ids],
        }
        yield frame, {"truth": truth}, at
        number += 1


def read_camera(request: Dict[str, Any], room: Room) -> Read:
    """A USB or RTSP camera through OpenCV: the fallback where there is no GStreamer."""
    import cv2

    if request["kind"] == "rtsp":
        transport = request["transport"]
        # Without these, OpenCV 4.6 serves 0.9 s of old frames after opening. `probesize` would break 4.6.
        os.environ.setdefault(
            "OPENCV_FFMPEG_CAPTURE_OPTIONS",
            f"rtsp_transport;{transport}|fflags;nobuffer|flags;low_delay|analyzeduration;100000",
        )
        capture = cv2.VideoCapture(request["path"], cv2.CAP_FFMPEG)
    else:
        capture = cv2.VideoCapture(request["path"], cv2.CAP_V4L2)
        width, height = request["size"] or (640, 480)
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
    if not capture.isOpened():
        note("the camera cannot be opened")
        sys.exit(UNREADABLE)
    return _frames(capture, request["size"], False, room)


def read_stream(request: Dict[str, Any], room: Room) -> Read:
    """A network stream that FFmpeg reads: MJPEG over HTTP, HLS, MPEG-TS over UDP."""
    import cv2

    # A stream over UDP is looked at for 5 s before its first frame unless told otherwise.
    options = "fflags;nobuffer|flags;low_delay|threads;1|analyzeduration;1000000"
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", options)
    address = request["path"].replace("udp://:", "udp://@:")
    playlist = urlsplit(address).path.lower().endswith(".m3u8")
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG)
    if not capture.isOpened():
        note("no stream with a picture at this address")
        sys.exit(UNREADABLE)
    return _frames(capture, request["size"], playlist, room)


def _frames(capture: Any, size: Optional[List[int]], own_pace: bool, room: Room) -> Read:
    """What a camera sends, until it stops. `own_pace`: at its own times, since segments come all at once (HLS)."""
    import cv2

    from jetson.capture.fit import fit

    start = None
    usual = capture.get(cv2.CAP_PROP_FPS) if own_pace else 0.0
    timeline = Timeline(1 / usual if 0.1 <= usual <= 1000 else 0.04)
    while True:
        good, frame = capture.read(room())
        if not good:
            note("the camera has stopped sending")
            sys.exit(1)
        if own_pace:
            second, now = timeline.at(capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3), time.monotonic()
            if start is None or abs(start + second - now) > 30.0:  # the times have jumped ahead
                start = now - second
            time.sleep(max(0.0, start + second - now))
        if size and frame.shape[1::-1] != tuple(size):
            frame = fit(frame, size)
        yield frame, {}, 0.0


_READERS: Dict[str, Callable[[Dict[str, Any], Room], Read]] = {
    "file": read_video,
    "folder": read_folder,
    "synthetic": read_synthetic,
    "v4l2": read_camera,
    "rtsp": read_camera,
    "stream": read_stream,
}


def _write(fd: int, data: Any) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(fd, view) :]


class Outlet:
    """Where frames go: the pipe `fd`, and memory that the runner has too, where there is some."""

    def __init__(self, fd: int, memory: Optional[Writer] = None) -> None:
        self.fd = fd
        self.memory = memory

    def room(self) -> Any:
        """Memory to read the next frame into; None: wherever you like."""
        return self.memory.room() if self.memory is not None else None


def send(out: Outlet, frame: Any, extra: Dict[str, Any], number: int, turn: int, at: float) -> None:
    """Hand over one frame, uint8 (h, w, 3); `number` and second `at` in the pass `turn`."""
    height, width = frame.shape[:2]
    if width * height > MAX_PIXELS:
        note(f"a frame of {width}x{height} pixels is too large, left out")
        return
    text = json.dumps(extra).encode() if extra else b""
    place = out.memory.place(frame) if out.memory is not None else None
    _write(
        out.fd, HEADER.pack(MAGIC, width, height, len(text), number, turn, at, -1 if place is None else place) + text
    )
    if place is None:
        if not frame.flags.c_contiguous:
            frame = frame.copy()
        _write(out.fd, memoryview(frame).cast("B"))


def read(out: Outlet, request: Dict[str, Any]) -> int:
    """Send the frames of `request` until its end; the exit status.

    `pace`: no faster than the source's own time. `from`: [pass, frame]: begin there (those before it were sent by a
    process that has died).
    """

    from jetson.capture.fit import fit

    turn, skip = request["from"]
    while True:
        start: Optional[float] = None
        at = period = 0.0
        broken = ""
        frames = enumerate(_READERS[request["kind"]](request, out.room))
        try:
            for number, (frame, extra, second) in frames:
                period, at = second - at, second
                if number < skip:
                    continue
                if request["pace"]:
                    now = time.monotonic()
                    start = now - at if start is None else max(start, now - at - 1.0)
                    time.sleep(max(0.0, start + at - now))
                if request["size"] and request["kind"] == "file":
                    frame = fit(frame, request["size"])
                send(out, frame, extra, number, turn, at)
        except Broken as error:
            broken = str(error)
            note(broken)
        if not request["loop"] or request["options"].get("frames"):
            return BROKEN if broken else 0
        if request["pace"]:  # the last frame is shown for as long as the one before it was; a lone image for a second
            time.sleep(period or 1.0)
        turn, skip = turn + 1, 0


def _request() -> Dict[str, Any]:
    """The first line of stdin; what follows is for the shared memory. Not an argument: everybody could read those."""
    text = b""
    while not text.endswith(b"\n"):
        more = os.read(0, 1 << 16)
        if not more:
            break
        text += more
    return json.loads(text.decode())


def main(argv: Optional[List[str]] = None) -> int:
    """`python3 -m jetson.capture.reader FD < REQUEST`: read until the source ends or the runner goes away."""
    import cv2

    cv2.setNumThreads(1)
    fd = (argv or sys.argv[1:])[0]
    request = _request()
    # As bytes, so that the name survives two processes with different locales.
    request["path"] = os.fsdecode(request["path"].encode("latin-1"))
    memory = request.get("memory", -1)
    try:
        return read(Outlet(int(fd), Writer(memory, 0) if memory >= 0 else None), request)
    except (BrokenPipeError, KeyboardInterrupt):
        return 0


if __name__ == "__main__":
    sys.exit(main())
