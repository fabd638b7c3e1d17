"""A file is no camera: whatever becomes of its readers, each frame comes once and in order, then the end."""

import time
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.capture import camera, source
from jetson.capture.child import Stamp

FRAMES = 24


class Reader:
    """In the place of child.Capture: gives the frames from `attempt.skip` on, and dies where the plan says so.

    `plan`: how many turns of the loop each process lives; a turn brings a frame or, in `pauses`, none.
    """

    plan, pauses, started = deque(), set(), 0

    def __init__(self, where, every_frame, attempt, buffer, deliver, hear):
        type(self).started += 1
        self.pid, self.lines, self.length_s, self.broken = None, deque(), FRAMES / 10, False
        self.stopped = self.sound_alone = False
        self._next, self._buffer, self._deliver = attempt.skip, buffer, deliver
        self._left = self.plan.popleft() if self.plan else None
        self._turns = 0

    def turn(self):
        self._turns += 1
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                return "the capture process was killed (signal 9)"
        if self._next == FRAMES:
            return ""
        if (self._next, self._turns) in self.pauses:
            return None
        buffer = self._buffer(12)
        self._deliver(buffer.reshape(2, 2, 3), Stamp(0, self._next, self._next / 10), {}, buffer)
        self._next += 1
        return None

    def kill(self):
        pass

    close = kill


@pytest.fixture(scope="module", autouse=True)
def at_once():
    patch = pytest.MonkeyPatch()
    patch.setattr(camera, "Capture", Reader)
    patch.setattr(camera, "_BACK_OFF_S", (0.0,))
    yield
    patch.undo()


@given(
    st.lists(st.integers(1, 12), max_size=8),
    st.sets(st.tuples(st.integers(0, FRAMES - 1), st.integers(1, 12)), max_size=20),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_each_frame_once_and_in_order_whatever_becomes_of_its_readers(lives, pauses, every_frame):
    Reader.plan, Reader.pauses, Reader.started = deque(lives), pauses, 0
    # A process that dies without a frame is tried again once; a pause in its first turn would be one such.
    Reader.pauses = {(number, turn) for number, turn in pauses if turn > 1}
    made = camera.Camera(source.parse("film.avi", loop=False), every_frame=every_frame).start()
    found, end = [], time.monotonic() + 30
    while not made.over and time.monotonic() < end:
        frame = made.take()
        if frame is None:
            time.sleep(0.0002)
            continue
        found.append((frame.number, frame.second, frame.at))
        frame.release()
    made.stop()
    assert made.over and not made.broken and made.dropped == 0
    assert [number for number, _, _ in found] == list(range(FRAMES))
    assert [second for _, second, _ in found] == [number / 10 for number in range(FRAMES)]
    # Scene time goes on over a reader's death as if nothing had been.
    assert np.diff([at for _, _, at in found]) == pytest.approx([0.1] * (FRAMES - 1))
    assert Reader.started == made.restarts + 1 <= len(lives) + 1
