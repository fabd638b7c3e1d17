"""The child process that reads files, folders and drawn scenes (and cameras where there is no GStreamer).

It writes each frame to a pipe as a header, a JSON object and raw BGR; it can hang or crash without harm to the runner.
"""

import json
import os
import struct
import sys
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

HEADER = struct.Struct("<4sIIIQ")  # magic, width, height, bytes of JSON, frame number
MAGIC = b"JMF1"
MAX_PIXELS = 64 * 1024 * 1024
FOLDER_FPS = 1.0
SYNTHETIC_FPS = 30.0


def note(text: str) -> None:
    """Tell the runner something; it stands on the page as the source's last word."""
    print("jetmask: " + text, file=sys.stderr, flush=True)


def read_video(request: Dict[str, Any]) -> Iterator[Tuple[Any, Dict[str, Any], float]]:
    """Frames of a video file with their times in seconds."""
    import cv2

    # One decoding thread: FFmpeg would take all cores in bursts, which the engine needs.
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "threads;1")
    capture = cv2.VideoCapture(request["path"])
    if not capture.isOpened():
        note("not a video that OpenCV can open")
        sys.exit(3)
    fps = capture.get(cv2.CAP_PROP_FPS) if request["fps"] is None else request["fps"]
    if fps != 0 and not 0.1 <= fps <= 1000 or request["fps"] is None and fps == 0:
        fps = 25.0
    expected = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    number = 0
    while True:
        good, frame = capture.read()
        if not good:
            break
        yield frame, {}, number / fps if fps else 0.0
        number += 1
    capture.release()
    if number == 0:
        note("no frame in the video: it is empty or damaged")
        sys.exit(3)
    # Containers round their frame counts; a few frames fewer is normal, a tenth is not.
    if 0 < expected < 1e7 and number < 0.9 * expected:
        note(f"the video ends early: {number} of {int(expected)} frames")


def read_folder(request: Dict[str, Any]) -> Iterator[Tuple[Any, Dict[str, Any], float]]:
    """The images of a folder, one a second unless told otherwise; a damaged one is told and left out."""
    import cv2

    from jetson.capture import source

    fps = FOLDER_FPS if request["fps"] is None else request["fps"]
    number = 0
    for path in source.images(request["path"]):
        frame = cv2.imread(path, cv2.IMREAD_COLOR)
        if frame is None:
            note(f"not a readable image, left out: {os.path.basename(path)}")
            continue
        yield frame, {"file": os.path.basename(path)}, number / fps if fps else 0.0
        number += 1
    if number == 0:
        note("no readable image in the folder")
        sys.exit(3)


def read_synthetic(request: Dict[str, Any]) -> Iterator[Tuple[Any, Dict[str, Any], float]]:
    """Drawn scenes with moving faces; the truth (boxes, labels) comes with each frame.

    `darken` and `blur` do to them what a worn lamp and a dirty lens do.
    """
    import cv2

    from jetson.synthetic import scene as drawn

    frames = int(request["options"].get("frames", 0))
    fps = SYNTHETIC_FPS if request["fps"] is None else request["fps"]
    faces = request["options"].get("faces")
    scene = drawn.Scene(
        int(request["options"].get("seed", 0)),
        tuple(request["size"] or (640, 480)),
        None if faces is None else int(faces),
    )
    darken, blur = [float(request["options"].get(key, 0)) for key in ("darken", "blur")]
    number = 0
    while not frames or number < frames:
        at = number / (fps or SYNTHETIC_FPS)
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
        yield frame, {"truth": truth}, at if fps else 0.0
        number += 1


def read_camera(request: Dict[str, Any]) -> Iterator[Tuple[Any, Dict[str, Any], float]]:
    """A USB or network camera through OpenCV: the fallback where there is no GStreamer."""
    import cv2

    if request["kind"] == "rtsp":
        # Without these, OpenCV 4.6 serves 0.9 s of old frames after opening. `probesize` would break 4.6.
        os.environ.setdefault(
            "OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|analyzeduration;100000"
        )
        capture = cv2.VideoCapture(request["path"], cv2.CAP_FFMPEG)
    else:
        capture = cv2.VideoCapture(request["path"], cv2.CAP_V4L2)
        width, height = request["size"] or (640, 480)
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
    if not capture.isOpened():
        note("the camera cannot be opened")
        sys.exit(3)
    while True:
        good, frame = capture.read()
        if not good:
            note("the camera has stopped sending")
            sys.exit(1)
        if request["size"] and frame.shape[1::-1] != tuple(request["size"]):
            frame = cv2.resize(frame, tuple(request["size"]))
        yield frame, {}, 0.0


_READERS = {
    "file": read_video,
    "folder": read_folder,
    "synthetic": read_synthetic,
    "v4l2": read_camera,
    "rtsp": read_camera,
}


def _write(fd: int, data: Any) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(fd, view) :]


def send(fd: int, frame: Any, extra: Dict[str, Any], number: int) -> None:
    """Write one frame, uint8 (h, w, 3), to the pipe."""
    height, width = frame.shape[:2]
    if width * height > MAX_PIXELS:
        note(f"a frame of {width}x{height} pixels is too large, left out")
        return
    text = json.dumps(extra).encode() if extra else b""
    _write(fd, HEADER.pack(MAGIC, width, height, len(text), number) + text)
    if not frame.flags.c_contiguous:
        frame = frame.copy()
    _write(fd, memoryview(frame).cast("B"))


def main(argv: Optional[List[str]] = None) -> int:
    """`python3 -m jetson.capture.reader FD REQUEST`: read until the source ends or the runner goes away."""
    import cv2

    cv2.setNumThreads(1)
    fd, text = (argv or sys.argv[1:])[:2]
    request = json.loads(text)
    number = 0
    start = time.monotonic()
    try:
        while True:
            at = before = 0.0
            for frame, extra, at in _READERS[request["kind"]](request):
                wait = 0.0 if request["every_frame"] else start + at - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                if request["size"] and request["kind"] == "file":
                    frame = cv2.resize(frame, tuple(request["size"]))
                send(int(fd), frame, extra, number)
                number += 1
                period, before = at - before, at
            if not request["loop"] or request["options"].get("frames"):
                return 0
            if request["fps"] == 0:
                continue  # as fast as possible, from the beginning too
            # The last frame is shown for as long as the one before it was; a lone image for a second.
            start = max(start + at + (period or 1.0), time.monotonic() - 1.0)
    except (BrokenPipeError, KeyboardInterrupt):
        return 0


if __name__ == "__main__":
    sys.exit(main())
