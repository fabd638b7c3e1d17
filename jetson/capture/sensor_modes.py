"""Which mode of a CSI sensor gives the asked frame: the same aspect, or a centred crop; a picture is never squeezed.

A CSI camera delivers only its sensor's modes, and the image processor scales to whatever is asked, each side by its own
factor. So a size of another aspect than the mode's would come out squeezed. The tables are what nvarguscamerasrc prints
as "Available Sensor modes" on JetPack 4.6 (L4T r32.7) with NVIDIA's drivers; sensors that are not in them are asked
through V4L2. Untested on hardware: docs/deploy.md says how to see a camera's own list.
"""

import glob
import os
import re
import subprocess
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

Size = Tuple[int, int]


class Mode(NamedTuple):
    """A mode of a sensor: pixels, and the most frames/s."""

    width: int
    height: int
    fps: float


class Chosen(NamedTuple):
    """What is asked of the camera: `mode`; `crop` (left, top, right, bottom) in the mode's pixels, None for all of it;
    `fps`: at most the mode's.
    """

    mode: Mode
    crop: Optional[Tuple[int, int, int, int]]
    fps: float


SENSORS: Dict[str, Tuple[Mode, ...]] = {
    # The Raspberry Pi camera v2, which most Nanos have.
    "imx219": (
        Mode(3264, 2464, 21.0),
        Mode(3264, 1848, 28.0),
        Mode(1920, 1080, 30.0),
        Mode(1640, 1232, 30.0),
        Mode(1280, 720, 60.0),
    ),
    # The Raspberry Pi HQ camera.
    "imx477": (Mode(4032, 3040, 30.0), Mode(3840, 2160, 30.0), Mode(1920, 1080, 60.0)),
}
ASSUMED = "imx219"
_SAME = 0.01  # aspects that differ by less are the same: 1640x1232 and 3264x2464 are both called 4:3
ASK_S = 5.0


def same_aspect(one: Size, other: Size) -> bool:
    """Whether two sizes have the same shape, to one part in a hundred.

    >>> same_aspect((640, 480), (3264, 2464)), same_aspect((640, 480), (1280, 720))
    (True, False)
    """
    return abs(one[0] * other[1] - one[1] * other[0]) <= _SAME * one[0] * other[1]


def centred(frame: Size, shape: Size) -> Tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest part of `frame` with the aspect of `shape`, in its middle.

    All even: the sensor's colours come in pairs of pixels.

    >>> centred((1920, 1080), (640, 480))
    (240, 0, 1680, 1080)
    """
    width = min(frame[0], frame[1] * shape[0] // shape[1]) // 2 * 2
    height = min(frame[1], frame[0] * shape[1] // shape[0]) // 2 * 2
    left, top = (frame[0] - width) // 4 * 2, (frame[1] - height) // 4 * 2
    return left, top, left + width, top + height


def crop_for(mode: Mode, size: Size) -> Optional[Tuple[int, int, int, int]]:
    """The part of a mode's picture with the aspect of `size`; None for all of it."""
    return None if same_aspect(mode[:2], size) else centred(mode[:2], size)


def choose(modes: Sequence[Mode], size: Size, fps: Optional[float] = None) -> Chosen:
    """The mode for frames of `size` at `fps` (None: 30, or what the mode has).

    Of the modes that are as large as the frame those come first that are as fast as was asked, of these the ones of its
    aspect, and of these the smallest: less to read. Where none is as large, the largest, and it is scaled up.
    """

    def rank(mode: Mode) -> Tuple[bool, bool, bool, int]:
        whole = mode.width >= size[0] and mode.height >= size[1]
        pixels = mode.width * mode.height
        return (
            not whole,
            fps is not None and mode.fps < fps - 1,
            not same_aspect(mode[:2], size),
            pixels * (1 if whole else -1),
        )

    best = min(modes, key=rank)
    wanted = 30.0 if fps is None else fps
    return Chosen(best, crop_for(best, size), min(wanted, best.fps) if wanted else best.fps)


_SIZE = re.compile(r"Size: Discrete (\d+)x(\d+)")
_FPS = re.compile(r"\((\d+(?:\.\d+)?) fps\)")


def parse_v4l2(text: str) -> List[Mode]:
    """The modes in what `v4l2-ctl --list-formats-ext` prints, each size with its fastest rate.

    >>> parse_v4l2("Size: Discrete 1920x1080\\n Interval: Discrete 0.017s (60.000 fps)\\n Discrete 0.033s (30.0 fps)")
    [Mode(width=1920, height=1080, fps=60.0)]
    """
    found: Dict[Size, float] = {}
    size: Optional[Size] = None
    for line in text.splitlines():
        match = _SIZE.search(line)
        if match:
            size = (int(match.group(1)), int(match.group(2)))
            found.setdefault(size, 0.0)
        rate = _FPS.search(line)
        if rate and size is not None:
            found[size] = max(found[size], float(rate.group(1)))
    return [Mode(width, height, fps or 30.0) for (width, height), fps in found.items() if width and height]


def modes_of(name: str, device: str) -> Sequence[Mode]:
    """The modes of the sensor whose driver calls its node `name`, for instance "vi-output, imx219 7-0010".

    From the table, else what the driver of `device` (/dev/video0) lists, else those of the sensor that is assumed.
    """
    for sensor, modes in SENSORS.items():
        if sensor in name.lower():
            return modes
    try:
        done = subprocess.run(
            ["v4l2-ctl", "--device", device, "--list-formats-ext"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ASK_S,
        )
        listed = parse_v4l2(done.stdout.decode("utf-8", "replace")) if done.returncode == 0 else []
    except (OSError, subprocess.SubprocessError):
        listed = []
    return listed or SENSORS[ASSUMED]


def sensor(index: int, folder: str = "/sys/class/video4linux") -> Tuple[str, str]:
    """(the driver's name, the node) of the CSI sensor `index`, as csi://0 counts; ("", "") when it is not seen.

    In a container the folder may be hidden: then the assumed sensor's table is taken.
    """
    found = []
    for path in glob.glob(os.path.join(folder, "video*", "name")):
        try:
            with open(path) as file:
                name = file.read().strip()
        except OSError:
            continue
        number = re.search(r"video(\d+)", path)
        if name.startswith("vi-output") and number:
            found.append((int(number.group(1)), name))
    found.sort()
    return (found[index][1], f"/dev/video{found[index][0]}") if index < len(found) else ("", "")


def for_camera(index: int, size: Size, fps: Optional[float] = None) -> Chosen:
    """What to ask of csi://`index` for frames of this size."""
    return choose(modes_of(*sensor(index)), size, fps)


def numbered(index: int, number: int) -> Optional[Mode]:
    """The mode `number` of csi://`index`, as nvarguscamerasrc counts; None where its sensor is in no table."""
    name = sensor(index)[0].lower()
    for known, modes in SENSORS.items():
        if known in name and number < len(modes):
            return modes[number]
    return None
