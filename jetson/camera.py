"""One camera: a child process and a pipe, watched, restarted for ever; only the newest frame is kept.

A camera is lost when no frame has come for 2 s, or when a live one has sent bit-identical frames for 10 s. Then the
child is killed and started again, at first at once, later every 10 s.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import threading
import time
import zlib
from collections import deque
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from jetson import reader, source
from jetson.errors import JetmaskError

LOST_S = 2.0
FROZEN_S = 10.0
FIRST_FRAME_S = 10.0  # opening an RTSP stream or the Argus daemon takes seconds
_LOOK_S = 0.5  # how often the content is looked at (frozen? dark?)
_BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 4.0, 7.0, 10.0)
_FROZEN_BACK_OFF_S = 300.0
_DARK = 6.0  # mean grey level
_BUFFERS = 8
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, linux/fcntl.h
_libc = ctypes.CDLL(None, use_errno=True)


class Frame:
    """A picture with its time of arrival. The buffer goes back to its camera at `release()`.

    `image`: uint8 (h, w, 3) BGR; `arrived`: time.monotonic() seconds; `number`: counts up since the camera started;
    `extra`: what the source tells besides (`truth` of drawn scenes, `file` of a folder).
    """

    __slots__ = ("camera", "image", "arrived", "number", "extra", "_buffer", "_users")

    def __init__(self, camera: "Camera", image: np.ndarray, number: int, extra: Dict[str, Any], buffer: np.ndarray):
        self.camera = camera
        self.image = image
        self.arrived = time.monotonic()
        self.number = number
        self.extra = extra
        self._buffer = buffer
        self._users = 1

    @property
    def wh(self) -> Tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def release(self) -> None:
        """The picture is no longer needed; do not touch it afterwards."""
        self.camera._give_back(self)


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel kills the child when the thread that started it ends (PR_SET_PDEATHSIG).

    A child that is stuck in a driver never notices that its pipe has closed.
    """
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)


class Camera:
    """Reads one source in a thread of its own, for ever. `notify` is called after every frame and change of state."""

    def __init__(self, where: source.Source, index: int = 0, notify: Callable[[], None] = lambda: None,
                 every_frame: bool = False):
        self.source = where
        self.index = index
        self.every_frame = every_frame
        self.status = "starting"  # starting, live, lost, ended
        self.since = time.time()
        self.frame_wh: Optional[Tuple[int, int]] = None
        self.frames = 0
        self.dropped = 0
        self.restarts = 0
        self.lost_count = 0
        self.last_error = ""
        self.dark = False
        self.frozen = False
        self.last_frame = 0.0  # monotonic
        self._notify = notify
        self._lock = threading.Condition()
        self._latest: Optional[Frame] = None
        self._free: List[np.ndarray] = []
        self._made = 0
        self._arrivals: deque = deque(maxlen=64)
        self._stop = threading.Event()
        self._child: Optional[subprocess.Popen] = None
        self._relaxed = False
        self._size: Optional[Tuple[int, int]] = None
        self._lines: deque = deque(maxlen=40)
        self._last_crc: Optional[int] = None
        self._crc_since = self._looked = 0.0
        self._frozen_restarts = 0
        self._thread = threading.Thread(target=self._run, name="camera-{}".format(index), daemon=True)

    def start(self) -> "Camera":
        """Begin to read."""
        self._thread.start()
        return self

    def ask_to_stop(self) -> None:
        """Begin to stop, without waiting."""
        self._stop.set()
        with self._lock:
            self._lock.notify_all()

    def stop(self) -> None:
        """Kill the child and end the thread."""
        self.ask_to_stop()
        self._kill()
        if self._thread.is_alive():
            self._thread.join(2.0)

    @property
    def fps(self) -> float:
        """Frames/s that arrived lately; 0 when none came in the last 2 s."""
        times = list(self._arrivals)
        if len(times) < 2 or time.monotonic() - times[-1] > LOST_S:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], 1e-6)

    @property
    def pid(self) -> Optional[int]:
        """The child's process id, while there is one."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def fresh(self) -> bool:
        """Whether a frame waits that nobody has taken."""
        return self._latest is not None

    def take(self) -> Optional[Frame]:
        """The newest frame, once; None when it was taken already. The taker releases it."""
        with self._lock:
            frame, self._latest = self._latest, None
            self._lock.notify_all()
        return frame

    # -- buffers ------------------------------------------------------------------------------------------------

    def _buffer(self, size: int) -> np.ndarray:
        with self._lock:
            while self._free:
                buffer = self._free.pop()
                if buffer.size == size:
                    return buffer
                self._made -= 1
            if self._made >= _BUFFERS and self._latest is not None and self._latest._buffer.size == size:
                frame, self._latest = self._latest, None
                self.dropped += 1
                return frame._buffer
            self._made += 1
        return np.empty(size, np.uint8)

    def _give_back(self, frame: Frame) -> None:
        with self._lock:
            frame._users -= 1
            if frame._users == 0:
                if len(self._free) < _BUFFERS:
                    self._free.append(frame._buffer)
                else:
                    self._made -= 1

    def _deliver(self, image: np.ndarray, number: int, extra: Dict[str, Any], buffer: np.ndarray) -> None:
        frame = Frame(self, image, number, extra, buffer)
        with self._lock:
            while self.every_frame and self._latest is not None and not self._stop.is_set():
                self._lock.wait(0.5)
            old, self._latest = self._latest, frame
        if old is not None:
            self.dropped += 1
            old.release()
        self.frames += 1
        self.frame_wh = frame.wh
        self.last_frame = frame.arrived
        self._arrivals.append(frame.arrived)
        if self.status != "live":
            self._set_status("live")
        if frame.arrived - self._looked >= _LOOK_S:
            self._look(frame)
        self._notify()

    def _look(self, frame: Frame) -> None:
        self._looked = frame.arrived
        if not self.source.live:
            return
        self.dark = float(frame.image[::16, ::16].mean()) < _DARK
        crc = zlib.crc32(frame._buffer)  # type: ignore[arg-type]
        if crc != self._last_crc:
            if self._crc_since:
                self.frozen, self._frozen_restarts = False, 0
            self._last_crc, self._crc_since = crc, frame.arrived

    # -- the child's life ---------------------------------------------------------------------------------------

    def _set_status(self, status: str) -> None:
        if status != self.status:
            self.status = status
            self.since = time.time()
            self._notify()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            before = self.frames
            try:
                reason = self._live_once()
            except (OSError, ValueError, JetmaskError) as error:
                reason = source.redact(str(error).splitlines()[0])
            finally:
                self._kill()
            if self._stop.is_set():
                break
            if not reason:
                self._set_status("ended")
                return
            self.last_error = reason
            if self.frames == before and "not-negotiated" in " ".join(self._lines):
                self._relaxed = True
            if self.status != "lost":
                self.lost_count += 1
            self._set_status("lost")
            failures = 0 if time.monotonic() - began > 10.0 and self.frames > before else failures
            self._stop.wait(_BACK_OFF_S[min(failures, len(_BACK_OFF_S) - 1)])
            failures += 1
            self.restarts += 1
        with self._lock:
            self._lock.notify_all()

    def _spawn(self) -> Tuple[int, int, bool]:
        read_end, write_end = os.pipe()
        with contextlib.suppress(OSError):  # fewer, larger reads are only a convenience
            fcntl.fcntl(read_end, _SET_PIPE_SIZE, 1 << 20)
        try:
            argv, framed = source.command(self.source, write_end, self.every_frame, self._relaxed)
            here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
            path = os.environ.get("PYTHONPATH")
            environment = dict(os.environ, PYTHONPATH=here + (os.pathsep + path if path else ""),
                               GST_DEBUG_NO_COLOR="1", OMP_NUM_THREADS="1", LC_ALL="C")
            # A session of its own: Ctrl-C in the terminal is for the runner, which then ends its children.
            self._child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
                pass_fds=(write_end,), start_new_session=True, preexec_fn=die_with_parent)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        os.set_blocking(read_end, False)
        os.set_blocking(self._child.stdout.fileno(), False)
        return read_end, self._child.stdout.fileno(), framed

    def _kill(self) -> None:
        child = self._child
        if child is None:
            return
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        # One that is stuck in a driver dies when the driver lets go.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5.0)

    def _live_once(self) -> str:
        """Run one child until it ends; why it is over, or "" when the source has simply ended."""
        self._size = None
        self._lines.clear()
        self._last_crc, self._crc_since = self._last_crc, time.monotonic()
        pipe, messages, framed = self._spawn()
        try:
            return self._pump(pipe, messages, self._framed() if framed else self._plain())
        finally:
            os.close(pipe)
            self._child.stdout.close()

    def _pump(self, pipe: int, messages: int, frames: Any) -> str:
        slow = 3.0 / self.source.fps if self.source.fps and not self.source.live else 0.0
        if self.source.kind == "folder" and not self.source.fps:
            slow = 3.0 / reader.FOLDER_FPS
        patience = FIRST_FRAME_S + slow
        poll = select.poll()
        poll.register(messages, select.POLLIN)
        listening = False
        want = next(frames)
        rest = b""
        last = time.monotonic()
        while not self._stop.is_set():
            if want is not None and not listening:
                poll.register(pipe, select.POLLIN)
                listening = True
            ready = {fd for fd, _ in poll.poll(200)}
            if messages in ready:
                text = _read(messages)
                if not text:
                    poll.unregister(messages)
                lines = (rest + text).split(b"\n")
                rest = lines.pop()[-4096:]
                problem = self._hear(lines)
                if problem:
                    return problem
                if want is None and self._size is not None:
                    want = next(frames)
            if pipe in ready:
                count = os.readv(pipe, [want])
                if count == 0:
                    return self._ending(messages, rest)
                want = want[count:]
                if not len(want):
                    before = self.frames
                    want = next(frames)
                    if self.frames != before:
                        last, patience = time.monotonic(), LOST_S + slow
            elif not listening and self._child.poll() is not None:
                return self._ending(messages, rest)
            now = time.monotonic()
            if now - last > patience:
                return "no frame for {:.0f} s".format(patience)
            if self.source.live and self._crc_since and self.last_frame > self._crc_since + FROZEN_S and (
                    now - self._crc_since > min(FROZEN_S * 2 ** self._frozen_restarts, _FROZEN_BACK_OFF_S)):
                self.frozen = True
                self._frozen_restarts += 1
                return "the picture has not changed for {:.0f} s: the camera is frozen".format(now - self._crc_since)
        return "stopped"

    def _hear(self, lines: List[bytes]) -> str:
        for line in lines:
            text = line.decode("utf-8", "replace").strip()
            size = source.announced_size(text)
            if size is not None:
                if self._size is not None and size != self._size:
                    return "the frame size has changed from {}x{} to {}x{}".format(*(self._size + size))
                self._size = size
            elif text:
                self._lines.append(text)
                if text.startswith("jetmask: "):
                    self.last_error = source.redact(text[len("jetmask: "):])[:300]
        return ""

    def _ending(self, messages: int, rest: bytes) -> str:
        try:
            status = self._child.wait(2.0)
        except subprocess.TimeoutExpired:
            return "the pipe was closed"
        self._hear((rest + _read(messages)).split(b"\n"))
        if status == 0 and not self.source.live:
            return ""
        told = source.complaint(list(self._lines))
        if status < 0:
            return "the capture process was killed (signal {})".format(-status)
        return told or "the capture process ended with {}".format(status)

    # -- what the child writes, as generators that yield the memory to fill next -----------------------------------

    def _plain(self):
        yield None  # nothing is read before the size is known
        width, height = self._size
        stride = (width * 3 + 3) // 4 * 4  # GStreamer pads rows to four bytes
        number = 0
        while True:
            buffer = self._buffer(stride * height)
            yield memoryview(buffer)
            image = buffer.reshape(height, stride)[:, :width * 3].reshape(height, width, 3) if stride == width * 3 \
                else np.ascontiguousarray(buffer.reshape(height, stride)[:, :width * 3]).reshape(height, width, 3)
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
