"""The wall clock, watched: a small board has none on battery, begins in 1970 and is set when the network is there.

Durations go by the monotonic clock everywhere; only what is shown or written is wall time, and that is what a step
makes wrong after the fact.
"""

import time
from typing import Callable

LEAST_S = 2.0  # a smaller difference is a clock that is being slewed, or a busy machine
_BOOTTIME = 7  # CLOCK_BOOTTIME, linux/time.h: goes on while the machine sleeps; a name in Python 3.7 and later


def since_boot() -> float:
    """Seconds since the machine was started, its sleep included; nobody sets this clock."""
    return time.clock_gettime(_BOOTTIME)


class WallClock:
    """Tells when somebody has set the wall clock (NTP, an operator)."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = since_boot) -> None:
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()

    def step(self) -> float:
        """By how many seconds the clock was set since the last call, forward or (negative) back; 0: it was not."""
        offset = self._wall() - self._steady()
        by = offset - self._offset
        if abs(by) < LEAST_S:
            return 0.0
        self._offset = offset
        return by
