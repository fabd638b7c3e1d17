"""How far the files of `--once` are read: a line on the terminal that is written over, elsewhere one a while."""

import sys
import time
from typing import Sequence

from jetson.capture.camera import Camera
from jetson.monitor.watchdog import say

_TERMINAL_S = 0.5
_LOG_S = 30.0


def clock(seconds: float) -> str:
    """Seconds as 1:05 or 1:02:05.

    >>> clock(3725)
    '1:02:05'
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def line(cameras: Sequence[Camera], elapsed_s: float) -> str:
    """How far they are together, and for how long it still goes at this rate; "" while a length is not known."""
    lengths = [camera.length_s for camera in cameras]
    if not all(lengths):
        return ""
    total = sum(lengths)
    read = sum(
        length if camera.status == "ended" else min(camera.second, length) for camera, length in zip(cameras, lengths)
    )
    text = f"{100 * read / total:.0f} %, {clock(read)} of {clock(total)}"
    if read and elapsed_s > 2:
        text += f", about {clock(elapsed_s * (total - read) / read)} left"
    return text


class Progress:
    """Tells how far it is; `turn` is to be called often."""

    def __init__(self, cameras: Sequence[Camera]) -> None:
        self._cameras = cameras
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._due = self._began + (_TERMINAL_S if self._terminal else _LOG_S)

    def turn(self, now: float) -> None:
        """Tell it when it is time; `now`: monotonic seconds."""
        if now < self._due:
            return
        self._due = now + (_TERMINAL_S if self._terminal else _LOG_S)
        text = line(self._cameras, now - self._began)
        if text and self._terminal:
            print(f"\r\033[Kjetmask: {text}", end="\r", file=sys.stderr, flush=True)
        elif text:
            say(text)
