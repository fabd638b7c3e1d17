"""Whether a source can work at all, asked before anything is started: a mistake is told at once, with the way out."""

import os

from jetson.capture.gstreamer import have_element
from jetson.capture.source import CAMERA, EXAMPLES, IMAGES, Source, images
from jetson.errors import BadInput, DeviceMismatch


def check(source: Source) -> None:
    """BadInput or DeviceMismatch when it is already clear that this source cannot work.

    Network cameras are not asked: one that is still booting is waited for.
    """
    if source.kind in ("file", "folder"):
        _check_files(source)
    elif source.kind == "v4l2":
        _check_camera(source)
    elif source.kind == "csi" and not have_element("nvarguscamerasrc"):
        raise DeviceMismatch(
            "this machine has no CSI camera: the GStreamer element nvarguscamerasrc is missing",
            source.uri,
            "a Jetson with gst-launch-1.0 and NVIDIA's GStreamer elements",
            "run on the Jetson, or in the container with --runtime nvidia and /tmp/argus_socket mounted",
        )


def _check_files(source: Source) -> None:
    if not os.path.exists(source.path):
        raise BadInput(
            "the source does not exist", source.label, EXAMPLES, "check the path; --wait-for-source waits for it"
        )
    if not os.access(source.path, os.R_OK):
        raise BadInput("the source cannot be read", source.label, "a file that this user may read")
    if source.kind == "folder":
        if not images(source.path):
            raise BadInput("no image in the folder", source.label, "files ending in " + ", ".join(IMAGES))
    elif not os.path.isfile(source.path):
        raise BadInput("not a file", source.label, EXAMPLES)
    elif os.path.getsize(source.path) == 0:
        raise BadInput("the file is empty", source.label, "a video", "copy or record it again")
    elif is_text(source.path):
        raise BadInput(
            "this is a text file, not a video",
            source.label,
            EXAMPLES,
            "give --source once for each camera, or a file that ends in .txt with one address a line",
        )


def is_text(path: str) -> bool:
    """Whether a file begins as text does: no control characters; a playlist (#EXTM3U) counts as a video."""
    with open(path, "rb") as file:
        head = file.read(512)
    if head.startswith(b"#EXTM3U"):
        return False
    return bool(head) and not any(byte < 32 and byte not in b"\t\n\r\f" for byte in head)


def _check_camera(source: Source) -> None:
    try:
        os.close(os.open(source.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        names = sorted(os.listdir("/dev")) if os.path.isdir("/dev") else []
        there = ", ".join("/dev/" + name for name in names if CAMERA.match("/dev/" + name)) or "none"
        raise BadInput(
            f"the camera cannot be opened: {error.strerror}",
            source.path,
            f"a camera; here there is {there}",
            f"plug it in, pass the device into the container (--device {source.path}), or give the user the group "
            "'video'; --wait-for-source waits for it",
        ) from error
