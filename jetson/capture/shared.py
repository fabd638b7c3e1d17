"""Frames from the capture process to the runner through memory that both have: nothing is copied between them.

Through a pipe each frame is copied twice, page by page, which costs more than to find the faces in it. A memory file
without a name has SLOTS places for frames of one size; the capture process writes each frame into a free one and tells
its number; the runner gives the number back when nobody needs the frame any more. Frames of another size than the
first go through the pipe, as all do where there is no such memory.
"""

import contextlib
import ctypes
import mmap
import os
import select
import threading
from typing import Any, List, Optional, Tuple

import numpy as np

SLOTS = 8  # frames on their way: four in the stages, the newest one, and what the capture process fills meanwhile
_CLOEXEC = 1  # MFD_CLOEXEC, linux/memfd.h
_libc = ctypes.CDLL(None, use_errno=True)


def _slot_bytes(height: int, width: int) -> int:
    """A frame in whole pages."""
    return -(-height * width * 3 // mmap.PAGESIZE) * mmap.PAGESIZE


class Writer:
    """The capture process's side. `memory`: the file; `returned`: whence the numbers of free places come."""

    def __init__(self, memory: int, returned: int) -> None:
        self._memory = memory
        self._returned = returned
        self._places: List[np.ndarray] = []
        self._free: List[int] = []
        self._next: Optional[int] = None
        self._useless = False
        self._poll = select.poll()
        self._poll.register(returned, select.POLLIN)

    def room(self) -> Optional[np.ndarray]:
        """Memory for the next frame, uint8 (h, w, 3) like the first one; None before that one has come.

        Waits while all places are taken. BrokenPipeError when the runner has gone away.
        """
        if not self._places:
            return None
        if self._next is None:
            while self._poll.poll(0 if self._free else None):
                numbers = os.read(self._returned, SLOTS)
                if not numbers:
                    raise BrokenPipeError("the runner has gone away")
                self._free += numbers
            self._next = self._free.pop()  # the one that came back last is in the processor's cache
        return self._places[self._next]

    def place(self, frame: np.ndarray) -> Optional[int]:
        """The number of the place that `frame` stands in; None when it has to go through the pipe.

        It is copied where it is not what `room` gave. The place is the runner's until it comes back.
        """
        if not self._places and not self._useless:
            self._useless = not self._make(frame.shape)
        if not self._places or frame.shape != self._places[0].shape:
            return None
        room = self.room()
        if room is None:
            return None
        if frame is not room:
            np.copyto(room, frame)
        number, self._next = self._next, None
        return number

    def _make(self, shape: Tuple[int, ...]) -> bool:
        size = _slot_bytes(shape[0], shape[1])
        try:
            os.ftruncate(self._memory, SLOTS * size)
            memory = mmap.mmap(self._memory, SLOTS * size)
        except (OSError, ValueError):
            return False
        self._places = [
            np.frombuffer(memory, np.uint8, shape[0] * shape[1] * 3, number * size).reshape(shape)
            for number in range(SLOTS)
        ]
        self._free = list(range(SLOTS))
        return True


class Lent:
    """A place with a frame in it, until `give_back()`."""

    size = 0  # of a buffer that could be used for another frame: none

    def __init__(self, memory: "Memory", number: int) -> None:
        self._memory = memory
        self._number = number

    def give_back(self) -> None:
        """The frame is no longer needed; do not touch it afterwards."""
        self._memory.give_back(self._number)


class Memory:
    """The runner's side. OSError when the kernel has no such memory."""

    def __init__(self) -> None:
        self.fd = -1
        try:
            self.fd = _libc.memfd_create(b"jetmask frames", _CLOEXEC)
        except AttributeError as error:  # a C library before 2.27
            raise OSError("no memory files") from error
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "no memory files")
        self._lock = threading.Lock()
        self._back: Optional[Any] = None
        self._wh = (0, 0)
        self._places: List[np.ndarray] = []

    def returns_through(self, pipe: Any) -> None:
        """`pipe`: an unbuffered file to the capture process; closed with this."""
        self._back = pipe

    def frame(self, number: int, width: int, height: int) -> Tuple[np.ndarray, Lent]:
        """What was written to place `number`, uint8 (h, w, 3). ValueError when there is no such place."""
        if (width, height) != self._wh:
            size = _slot_bytes(height, width)
            memory = mmap.mmap(self.fd, SLOTS * size)
            self._places = [
                np.frombuffer(memory, np.uint8, height * width * 3, at * size).reshape(height, width, 3)
                for at in range(SLOTS)
            ]
            self._wh = (width, height)
        if not 0 <= number < SLOTS:
            raise ValueError(f"no place {number} for a frame")
        return self._places[number], Lent(self, number)

    def give_back(self, number: int) -> None:
        """Place `number` may be written to again."""
        with self._lock:
            if self._back is not None:
                with contextlib.suppress(OSError):  # the capture process has ended
                    self._back.write(bytes((number,)))

    def close(self) -> None:
        """Frames that somebody still has stay valid."""
        with self._lock:
            if self._back is not None:
                with contextlib.suppress(OSError):
                    self._back.close()
            self._back = None
            if self.fd >= 0:
                os.close(self.fd)
            self.fd = -1
