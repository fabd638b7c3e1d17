"""The capture process of a camera: a child that writes raw frames to a pipe and its complaints to another."""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
from collections import deque
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from jetson.capture import reader, source

_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, linux/fcntl.h
_libc = ctypes.CDLL(None, use_errno=True)

Deliver = Callable[[np.ndarray, int, Dict[str, Any], np.ndarray], None]


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel kills the child when the thread that started it ends (PR_SET_PDEATHSIG).

    A child that is stuck in a driver never notices that its pipe has closed.
    """
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)


class Capture:
    """One child process, started at once; to be started and read by one thread, which outlives it.

    `buffer(size)` gives the memory for a frame, uint8 (size,); `deliver(image, number, extra, buffer)` gets it filled;
    `hear(text)` gets what the child says about itself. OSError, BadInput or DeviceMismatch when it cannot be started.
    """

    def __init__(
        self,
        where: source.Source,
        every_frame: bool,
        relaxed: bool,
        buffer: Callable[[int], np.ndarray],
        deliver: Deliver,
        hear: Callable[[str], None],
    ) -> None:
        self.lines: deque = deque(maxlen=40)
        self._live = where.live
        self._buffer = buffer
        self._deliver = deliver
        self._hear = hear
        self._size: Optional[Tuple[int, int]] = None
        self._rest = b""
        framed = self._spawn(where, every_frame, relaxed)
        self._poll = select.poll()
        self._poll.register(self._messages, select.POLLIN)
        self._listening = False
        self._frames = self._framed() if framed else self._plain()
        self._want: Optional[memoryview] = next(self._frames)

    def _spawn(self, where: source.Source, every_frame: bool, relaxed: bool) -> bool:
        self._pipe, write_end = os.pipe()
        with contextlib.suppress(OSError):  # fewer, larger reads are only a convenience
            fcntl.fcntl(self._pipe, _SET_PIPE_SIZE, 1 << 20)
        try:
            argv, framed = source.command(where, write_end, every_frame, relaxed)
            here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
            path = os.environ.get("PYTHONPATH")
            environment = dict(
                os.environ,
                PYTHONPATH=here + (os.pathsep + path if path else ""),
                GST_DEBUG_NO_COLOR="1",
                OMP_NUM_THREADS="1",
                LC_ALL="C",
            )
            # A session of its own: Ctrl-C in the terminal is for the runner, which then ends its children.
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(write_end,),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)
        self._messages = self._child.stdout.fileno()
        os.set_blocking(self._pipe, False)
        os.set_blocking(self._messages, False)
        return framed

    @property
    def pid(self) -> Optional[int]:
        """The child's process id while it lives."""
        return self._child.pid if self._child.poll() is None else None

    def kill(self) -> None:
        """End the child; callable from any thread."""
        if self._child.poll() is not None:
            return  # its number may be another's by now
        with contextlib.suppress(OSError):
            os.killpg(self._child.pid, signal.SIGKILL)
        # One that is stuck in a driver dies when the driver lets go.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(5.0)

    def close(self) -> None:
        """End the child and close the pipes."""
        self.kill()
        os.close(self._pipe)
        self._child.stdout.close()

    def turn(self) -> Optional[str]:
        """Take what is there, waiting up to 0.2 s. None: it goes on; "": the source has ended; else why it is over.

        ValueError when the child writes nonsense.
        """
        if self._want is not None and not self._listening:
            self._poll.register(self._pipe, select.POLLIN)
            self._listening = True
        ready = {fd for fd, _ in self._poll.poll(200)}
        if self._messages in ready:
            text = _read(self._messages)
            if not text:
                self._poll.unregister(self._messages)
            lines = (self._rest + text).split(b"\n")
            self._rest = lines.pop()[-4096:]
            problem = self._note(lines)
            if problem:
                return problem
            if self._want is None and self._size is not None:
                self._want = next(self._frames)
        if self._pipe in ready:
            count = os.readv(self._pipe, [self._want])
            if count == 0:
                return self._ending()
            self._want = self._want[count:]
            if not len(self._want):
                self._want = next(self._frames)
        elif not self._listening and self._child.poll() is not None:
            return self._ending()
        return None

    def _note(self, lines: List[bytes]) -> str:
        for line in lines:
            text = line.decode("utf-8", "replace").strip()
            size = source.announced_size(text)
            if size is not None:
                if self._size is not None and size != self._size:
                    return "the frame size has changed from {}x{} to {}x{}".format(*(self._size + size))
                self._size = size
            elif text:
                self.lines.append(text)
                if text.startswith("jetmask: "):
                    self._hear(source.redact(text[len("jetmask: ") :])[:300])
        return ""

    def _ending(self) -> str:
        try:
            status = self._child.wait(2.0)
        except subprocess.TimeoutExpired:
            return "the pipe was closed"
        self._note((self._rest + _read(self._messages)).split(b"\n"))
        if status == 0 and not self._live:
            return ""
        told = source.complaint(list(self.lines))
        if status < 0:
            return f"the capture process was killed (signal {-status})"
        return told or f"the capture process ended with {status}"

    # -- what the child writes, as generators that yield the memory to fill next -----------------------------------

    def _plain(self):
        yield None  # nothing is read before the size is known
        width, height = self._size
        stride = (width * 3 + 3) // 4 * 4  # GStreamer pads rows to four bytes
        number = 0
        while True:
            buffer = self._buffer(stride * height)
            yield memoryview(buffer)
            image = (
                buffer.reshape(height, stride)[:, : width * 3].reshape(height, width, 3)
                if stride == width * 3
                else np.ascontiguousarray(buffer.reshape(height, stride)[:, : width * 3]).reshape(height, width, 3)
            )
            self._deliver(image, number, {}, buffer)
            number += 1

    def _framed(self):
        header = bytearray(reader.HEADER.size)
        while True:
            yield memoryview(header)
            magic, width, height, text_size, number = reader.HEADER.unpack(header)
            if magic != reader.MAGIC or not 0 < width * height <= reader.MAX_PIXELS or text_size > 1 << 20:
                raise ValueError("the capture process wrote nonsense")
            text = bytearray(text_size)
            if text_size:
                yield memoryview(text)
            buffer = self._buffer(width * height * 3)
            yield memoryview(buffer)
            extra = json.loads(bytes(text).decode()) if text_size else {}
            self._deliver(buffer.reshape(height, width, 3), number, extra, buffer)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return b""
