"""A medium's own times as one line that only goes on, whatever its container does with them."""

from typing import Optional

AGAIN_S = 1.0  # so far back and the times have begun again; less is disorder, which mends itself


class Timeline:
    """Seconds since the first frame, from the times that a container gives its frames.

    The times begin again where recordings were joined, where a camera was started anew and every 26.5 hours of an
    MPEG transport stream: there the next frame follows one period later, and time goes on from it. Where a container
    has no times, or gives them in disorder, a frame that would not be later is later by one period.

    period: seconds between frames, as the container announces them.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._offset = 0.0
        self._stamp: Optional[float] = None
        self.second = 0.0
        self.step = period  # between the last two frames

    def at(self, stamp: float) -> float:
        """The second of the next frame, whose time in the container is `stamp` in seconds."""
        if self._stamp is None:
            self._offset = -stamp
        else:
            if stamp < self._stamp - AGAIN_S:
                self._offset = self.second + self._period - stamp
            found = stamp + self._offset
            if found <= self.second:
                found = self.second + self._period
            self.step, self.second = found - self.second, found
        self._stamp = stamp
        return self.second
