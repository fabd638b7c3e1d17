"""The capture process of a camera: a child that hands over raw frames, and writes its complaints to a pipe.

What jetson.capture.reader reads comes through shared memory; what GStreamer reads, through a pipe.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import IO, Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union, cast

import numpy as np

from jetson.capture import gstreamer, reader, shared, source
from jetson.capture.address import without_credentials
from jetson.capture.check import check


class Attempt(NamedTuple):
    """How a source is opened this time, by what went wrong before.

    `relaxed`: the camera chooses its mode; `transport`: of an RTSP camera; `turn`, `skip`: the pass of a file and the
    number of its frames that have come already.
    """

    relaxed: bool = False
    transport: str = "tcp"
    turn: int = 0
    skip: int = 0


class Stamp(NamedTuple):
    """Where a frame stands in its source: `turn`: the pass; `number` and `second` in it. Of a camera, None."""

    turn: int
    number: int
    second: float


_READS = 16  # of a pipe before the child's words are listened to again
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, linux/fcntl.h
_libc = ctypes.CDLL(None, use_errno=True)

SOUND_ALONE = "the address has sound but no picture: the camera's picture is at another path, see its manual"

Buffer = Union[np.ndarray, shared.Lent]  # what a frame stands in
Deliver = Callable[[np.ndarray, Optional[Stamp], Dict[str, Any], Buffer], None]


def command(where: source.Source, fd: int, every_frame: bool, attempt: Attempt) -> Tuple[List[str], bool]:
    """The child process that writes this source's frames to `fd`: (argv, framed).

    `framed`: each frame carries a header (jetson.capture.reader); otherwise plain BGR, its size announced on stdout as
    `gst-launch-1.0 -v` does. What is nobody else's business is told on its stdin (`instructions`).
    """
    if by_gstreamer(where):
        if where.kind == "rtsp":
            return [sys.executable, "-m", "jetson.capture.launch"], False
        words = gstreamer.pipeline(where, fd, attempt.relaxed, attempt.transport).split(" ")
        return ["gst-launch-1.0", "-v"] + words, False
    if where.kind == "csi":
        check(where)
    return [sys.executable, "-m", "jetson.capture.reader", str(fd)], True


def by_gstreamer(where: source.Source) -> bool:
    """Whether GStreamer reads it."""
    return where.live and where.kind != "stream" and gstreamer.have_gstreamer()


def instructions(where: source.Source, fd: int, every_frame: bool, attempt: Attempt, memory: int = -1) -> bytes:
    """What the child of `command` reads from its stdin.

    `every_frame`: as fast as they are taken (files only); `memory`: the file for jetson.capture.shared, -1: none.
    """
    if by_gstreamer(where):
        return (
            gstreamer.pipeline(where, fd, attempt.relaxed, attempt.transport).encode() if where.kind == "rtsp" else b""
        )
    request = {
        "kind": where.kind,
        "path": os.fsencode(where.path).decode("latin-1"),
        "size": where.size,
        "fps": where.fps,
        "loop": where.loop,
        "wait": where.wait,
        "options": where.options,
        "transport": attempt.transport,
        "pace": not (where.live or every_frame or where.fps == 0),
        "from": [attempt.turn, attempt.skip],
        "memory": memory,
    }
    return json.dumps(request).encode() + b"\n"


def environment() -> Dict[str, str]:
    """Of the child: this package, and GStreamer's messages in English; letters as in our own locale."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.environ.get("PYTHONPATH")
    made = dict(
        without_credentials(os.environ),
        PYTHONPATH=here + (os.pathsep + path if path else ""),
        GST_DEBUG_NO_COLOR="1",
        OMP_NUM_THREADS="1",
        LC_MESSAGES="C",
        LANGUAGE="C",
    )
    everything = made.pop("LC_ALL", "")  # it would be over LC_MESSAGES
    if everything:
        made["LC_CTYPE"] = everything
    return made


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """For `preexec_fn`: the kernel sends the child this signal when the thread that started it ends (PR_SET_PDEATHSIG).

    A child that is stuck in a driver never notices that its pipe has closed.
    """
    _libc.prctl(1, number, 0, 0, 0)


class Capture:
    """One child process, started at once; to be started and read by one thread, which outlives it.

    `buffer(size)` gives the memory for a frame, uint8 (size,); `deliver(image, stamp, extra, buffer)` gets it filled;
    `hear(text)` gets what the child says about itself. OSError, BadInput or DeviceMismatch when it cannot be started.
    """

    def __init__(
        self,
        where: source.Source,
        every_frame: bool,
        attempt: Attempt,
        buffer: Callable[[int], np.ndarray],
        deliver: Deliver,
        hear: Callable[[str], None],
    ) -> None:
        self.lines: Deque[str] = deque(maxlen=200)
        self.length_s = 0.0  # of a file, as its container says; 0: not known
        self.broken = False  # the source has ended before its end
        self._where = where
        self._live = where.live
        self._gentle = where.kind == "csi"
        self._killing = threading.Lock()
        self._buffer = buffer
        self._deliver = deliver
        self._hear = hear
        self._size: Optional[Tuple[int, int]] = None
        self._rest = b""
        self._memory: Optional[shared.Memory] = None
        self._delivered = 0
        framed = self._spawn(where, every_frame, attempt)
        self._poll = select.poll()
        self._poll.register(self._messages, select.POLLIN)
        self._listening = False
        self._frames = self._framed() if framed else self._plain()
        self._want: Optional[memoryview] = next(self._frames)

    def _spawn(self, where: source.Source, every_frame: bool, attempt: Attempt) -> bool:
        self._pipe, write_end = os.pipe()
        with contextlib.suppress(OSError):  # fewer, larger reads are only a convenience
            fcntl.fcntl(self._pipe, _SET_PIPE_SIZE, 1 << 20)
        try:
            argv, framed = command(where, write_end, every_frame, attempt)
            if framed:
                with contextlib.suppress(OSError):  # without it, all goes through the pipe
                    self._memory = shared.Memory()
            memory = -1 if self._memory is None else self._memory.fd
            # A session of its own: Ctrl-C in the terminal is for the runner, which then ends its children.
            self._child = subprocess.Popen(
                argv,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment(),
                pass_fds=(write_end,) if memory < 0 else (write_end, memory),
                start_new_session=True,
                # A CSI camera's is asked, also when the runner was killed: see kill().
                preexec_fn=lambda: die_with_parent(signal.SIGINT if self._gentle else signal.SIGKILL),
            )
            told = cast(IO[bytes], self._child.stdin)
            with contextlib.suppress(OSError):  # it has died already; that is noticed where its frames are read
                told.write(instructions(where, write_end, every_frame, attempt, memory))
            if self._memory is not None:
                self._memory.returns_through(told)
            else:
                told.close()
        except BaseException:
            os.close(self._pipe)
            if self._memory is not None:
                self._memory.close()
            raise
        finally:
            os.close(write_end)
        self._said = cast(IO[bytes], self._child.stdout)
        self._messages = self._said.fileno()
        os.set_blocking(self._pipe, False)
        os.set_blocking(self._messages, False)
        return framed

    @property
    def sound_alone(self) -> bool:
        """Whether a camera has offered sound, and no picture has come."""
        return self._size is None and gstreamer.sound_alone(list(self.lines))

    @property
    def stopped(self) -> bool:
        """Whether the child was stopped by a signal: it does not go on by itself (state T in proc(5))."""
        with contextlib.suppress(OSError, IndexError), open(f"/proc/{self._child.pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "T"
        return False

    @property
    def pid(self) -> Optional[int]:
        """The child's process id while it lives."""
        return self._child.pid if self._child.poll() is None else None

    def kill(self) -> None:
        """End the child; callable from any thread.

        A CSI camera's is asked first: whoever is killed while it holds a session can wedge nvargus-daemon, and then no
        camera comes back before that is restarted.
        """
        # One at a time: gst-launch takes a second SIGINT as an order to die at once.
        with self._killing:
            for number, wait_s in ((signal.SIGINT, 1.0), (signal.SIGTERM, 0.5), (signal.SIGKILL, 5.0)):
                if number != signal.SIGKILL and not self._gentle:
                    continue
                if self._child.poll() is not None:
                    return  # its number may be another's by now
                with contextlib.suppress(OSError):
                    os.killpg(self._child.pid, number)
                # One that is stuck in a driver dies when the driver lets go.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(wait_s)

    def close(self) -> None:
        """End the child and close the pipes."""
        self.kill()
        if self._memory is not None:
            self._memory.close()
        os.close(self._pipe)
        self._said.close()

    def turn(self) -> Optional[str]:
        """Take what is there, waiting up to 0.2 s. None: it goes on; "": the source has ended; else why it is over.

        ValueError when the child writes nonsense.
        """
        if self._want is not None and not self._listening:
            self._poll.register(self._pipe, select.POLLIN)
            self._listening = True
        ready = [fd for fd, _ in self._poll.poll(200)]
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
            return self._take()
        elif not self._listening and self._child.poll() is not None:
            return self._ending()
        return None

    def _take(self) -> Optional[str]:
        """Read what the pipe holds, up to the end of a frame."""
        for _ in range(_READS):
            want: Any = self._want  # a memoryview: the pipe is listened to only then
            try:
                count = os.readv(self._pipe, [want])
            except BlockingIOError:
                return None
            if count == 0:
                return self._ending()
            before = self._delivered
            self._want = want[count:] if count < len(want) else next(self._frames)
            if self._delivered != before:
                return None
        return None

    def _note(self, lines: List[bytes]) -> str:
        for line in lines:
            text = line.decode("utf-8", "replace").strip()
            size = gstreamer.announced_size(text)
            if size is not None:
                if self._size is not None and size != self._size:
                    return "the frame size has changed from {}x{} to {}x{}".format(*(self._size + size))
                self._size = size
            elif text.startswith("jetmask-length: "):
                self.length_s = float(text.split(" ")[1])
            elif text:
                self.lines.append(text)
                if text.startswith("jetmask: "):
                    self._hear(self._where.hide(text[len("jetmask: ") :])[:300])
        return ""

    def _ending(self) -> str:
        try:
            status = self._child.wait(2.0)
        except subprocess.TimeoutExpired:
            return "the pipe was closed"
        self._note((self._rest + _read(self._messages)).split(b"\n"))
        if status in (0, reader.BROKEN) and not self._live:
            self.broken = status == reader.BROKEN
            return ""
        if self.sound_alone:
            return SOUND_ALONE
        told = gstreamer.complaint([self._where.hide(line) for line in self.lines])
        if status < 0:
            return f"the capture process was killed (signal {-status})"
        return told or f"the capture process ended with {status}"

    # -- what the child writes, as generators that yield the memory to fill next -----------------------------------

    def _plain(self) -> Iterator[Optional[memoryview]]:
        yield None  # nothing is read before the size is known
        width, height = cast(Tuple[int, int], self._size)
        stride = (width * 3 + 3) // 4 * 4  # GStreamer pads rows to four bytes
        while True:
            buffer = self._buffer(stride * height)
            yield memoryview(cast(Any, buffer))
            image = (
                buffer.reshape(height, stride)[:, : width * 3].reshape(height, width, 3)
                if stride == width * 3
                else np.ascontiguousarray(buffer.reshape(height, stride)[:, : width * 3]).reshape(height, width, 3)
            )
            self._delivered += 1
            self._deliver(image, None, {}, buffer)

    def _framed(self) -> Iterator[memoryview]:
        header = bytearray(reader.HEADER.size)
        while True:
            yield memoryview(header)
            magic, width, height, text_size, number, turn, second, place = reader.HEADER.unpack(header)
            if magic != reader.MAGIC or not 0 < width * height <= reader.MAX_PIXELS or text_size > 1 << 20:
                raise ValueError("the capture process sent invalid data")
            extra: Dict[str, Any] = {}
            if text_size:
                text = bytearray(text_size)
                yield memoryview(text)
                extra = json.loads(bytes(text).decode())
            stamp = None if self._live else Stamp(turn, number, second)
            if place >= 0 and self._memory is not None:
                image, lent = self._memory.frame(place, width, height)
                self._delivered += 1
                self._deliver(image, stamp, extra, lent)
                continue
            buffer = self._buffer(width * height * 3)
            yield memoryview(cast(Any, buffer))
            self._delivered += 1
            self._deliver(buffer.reshape(height, width, 3), stamp, extra, buffer)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return b""
