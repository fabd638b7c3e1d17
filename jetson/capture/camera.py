"""One camera: a child process and a pipe, watched, restarted for ever; only the newest frame is kept.

A camera is lost when no frame has come for 2 s, or when a live one has sent bit-identical frames for 10 s. Then the
child is killed and started again, at first at once, later every 10 s. A file is none: however slowly it is read, it is
waited for; when its child dies, another one goes on with the next frame; and where it is read once, no frame is left
out and its end is the end.
"""

import threading
import time
import zlib
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple, cast

import cv2
import numpy as np

from jetson.capture import source
from jetson.capture.child import SOUND_ALONE, Attempt, Buffer, Capture, Stamp
from jetson.capture.shared import Lent

LOST_S = 2.0
FROZEN_S = 10.0
FIRST_FRAME_S = 10.0  # opening an RTSP stream or the Argus daemon takes seconds
SLOW_S = 10.0  # without a frame of a file, after which it is told that it is waited for
_LOOK_S = 0.5  # how often the content is looked at (frozen? dark?)
_BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 4.0, 7.0, 10.0)
_FROZEN_BACK_OFF_S = 300.0
_DARK = 6.0  # mean grey level
_BUFFERS = 8
_TRIES = 2  # of a file whose child dies at the same frame each time
_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


class Frame:
    """A picture with its times. The buffer goes back to its camera at `release()`.

    `image`: uint8 (h, w, 3) BGR; `arrived`: time.monotonic() seconds; `number`: counts up since the camera started;
    `extra`: what the source tells besides (`truth` of drawn scenes, `file` of a folder).
    `at`: the scene's own time, by which everything that is said about persons goes: of a camera that of arrival, of a
    file its first frame's arrival and from there the file's times, however fast it is read. `turn`: the pass of a file
    that is played again; with a new one, all who were there are gone. `second`: in the file; None of a camera.
    """

    __slots__ = ("camera", "image", "arrived", "at", "turn", "second", "number", "extra", "_buffer", "_users")

    def __init__(
        self,
        camera: "Camera",
        image: np.ndarray,
        number: int,
        arrived: float,
        at: float,
        stamp: Optional[Stamp],
        extra: Dict[str, Any],
        buffer: Buffer,
    ) -> None:
        self.camera = camera
        self.image = image
        self.arrived = arrived
        self.at = at
        self.turn = stamp.turn if stamp is not None else 0
        self.second = stamp.second if stamp is not None else None
        self.number = number
        self.extra = extra
        self._buffer = buffer
        self._users = 1

    @property
    def wh(self) -> Tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def corner(self) -> Tuple[int, int]:
        """(x, y) in pixels where `part` begins."""
        roi = self.camera.source.roi
        width, height = self.wh
        return (0, 0) if roi is None else (min(int(roi[0] * width), width - 1), min(int(roi[1] * height), height - 1))

    @property
    def part(self) -> np.ndarray:
        """What of the picture faces are looked for in, (h, w, 3); a view, no copy."""
        roi = self.camera.source.roi
        if roi is None:
            return self.image
        (left, top), (width, height) = self.corner, self.wh
        right, bottom = int(np.ceil(roi[2] * width)), int(np.ceil(roi[3] * height))
        return self.image[top : max(top + 1, bottom), left : max(left + 1, right)]

    def release(self) -> None:
        """The picture is no longer needed; do not touch it afterwards."""
        self.camera._give_back(self)


class Camera:
    """Reads one source in a thread of its own, for ever. `notify` is called after every frame and change of state."""

    def __init__(
        self, where: source.Source, index: int = 0, notify: Callable[[], None] = lambda: None, every_frame: bool = False
    ):
        self.source = where
        self.index = index
        self.every_frame = every_frame or where.finite  # none is left out
        self._fast = every_frame
        self.status = "starting"  # starting, live, lost, ended
        self.since = time.monotonic()  # of the status
        self.frame_wh: Optional[Tuple[int, int]] = None
        self.frames = 0
        self.dropped = 0
        self.restarts = 0
        self.lost_count = 0
        self.last_error = ""
        self.broken = ""  # why a finite source has ended before its end
        self.second = 0.0  # in the file, of the newest frame
        self.dark = False
        self.frozen = False
        self.last_frame = 0.0  # monotonic
        self.waiting_since: Optional[float] = None  # monotonic: since when frames come without a result
        self._notify = notify
        self._guard = threading.Lock()
        self._lock = threading.Condition(self._guard)
        self._latest: Optional[Frame] = None
        self._free: List[np.ndarray] = []
        self._made = 0
        self._held = 0  # frames that somebody has, the newest one included
        self._filling: Optional[np.ndarray] = None
        self._arrivals: Deque[float] = deque(maxlen=64)
        self._stop = threading.Event()
        self._capture: Optional[Capture] = None
        self._relaxed = False
        self._transport = "udp" if where.options.get("transport") == "udp" else "tcp"
        self._stamp: Optional[Stamp] = None  # of the newest frame
        self._origin = 0.0  # the scene's time at the beginning of the file
        self._at = 0.0  # the scene's time of the newest frame
        self._tries = 0  # children that have died without a frame, one after the other
        self._last_crc: Optional[int] = None
        self._crc_since = self._looked = 0.0
        self._frozen_restarts = 0
        self._thread = threading.Thread(target=self._run, name=f"camera-{index}", daemon=True)

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
        capture = self._capture
        if capture is not None:
            capture.kill()
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
        capture = self._capture
        return capture.pid if capture is not None else None

    @property
    def over(self) -> bool:
        """Whether the source has ended and nobody has a frame of it any more."""
        return self.status == "ended" and self._held == 0

    @property
    def held(self) -> int:
        """Frames on their way, the newest one included."""
        return self._held

    @property
    def length_s(self) -> float:
        """How long the file is, as its container says; 0 when that is not known."""
        capture = self._capture
        return capture.length_s if capture is not None else 0.0

    @property
    def slow_s(self) -> float:
        """For how many seconds no frame of a file has come, where that is worth telling; else 0."""
        silent = time.monotonic() - max(self.last_frame, self.since)
        waits = self.source.live or self.status not in ("starting", "live") or self.fresh()
        return 0.0 if waits or silent < SLOW_S else silent

    def fresh(self) -> bool:
        """Whether a frame waits that nobody has taken."""
        return self._latest is not None

    def take(self) -> Optional[Frame]:
        """The newest frame, once; None when it was taken already. The taker releases it."""
        with self._guard:
            frame, self._latest = self._latest, None
            if self.every_frame:  # then its reader waits for this
                self._lock.notify_all()
        return frame

    def drop(self, frame: Frame) -> None:
        """Release a frame that gets no result, since a newer one is there, and count it."""
        with self._lock:
            self.dropped += 1
        frame.release()

    # -- buffers ------------------------------------------------------------------------------------------------

    def _buffer(self, size: int) -> np.ndarray:
        self._filling = self._find_buffer(size)
        return self._filling

    def _find_buffer(self, size: int) -> np.ndarray:
        with self._lock:
            while self._free:
                buffer = self._free.pop()
                if buffer.size == size:
                    return buffer
                self._made -= 1
            if self._made >= _BUFFERS and self._latest is not None and self._latest._buffer.size == size:
                frame, self._latest = self._latest, None
                self.dropped += 1
                self._held -= 1
                return cast(np.ndarray, frame._buffer)
            self._made += 1
        return np.empty(size, np.uint8)

    def _give_back(self, frame: Frame) -> None:
        with self._guard:
            frame._users -= 1
            if frame._users:
                return
            self._held -= 1
            if isinstance(frame._buffer, Lent):
                frame._buffer.give_back()
            elif len(self._free) < _BUFFERS:
                self._free.append(frame._buffer)
            else:
                self._made -= 1

    def _scene_time(self, arrived: float, stamp: Optional[Stamp]) -> float:
        """When a frame was to be seen, on the axis of time.monotonic(); rises from frame to frame."""
        if stamp is None:
            return arrived
        known = self._stamp
        if known is None or stamp.turn != known.turn:
            # Not before the end of the pass before; that may be ahead of the clock where nobody waits for it.
            self._origin = (arrived if known is None else max(arrived, self._at + 1e-3)) - stamp.second
        return self._origin + stamp.second

    def _deliver(self, image: np.ndarray, stamp: Optional[Stamp], extra: Dict[str, Any], buffer: Buffer) -> None:
        arrived = time.monotonic()
        if self.source.rotate:
            image = cv2.rotate(image, _TURNS[self.source.rotate])
        at = self._scene_time(arrived, stamp)
        self._stamp, self._at, self._tries = stamp, at, 0
        self.second = stamp.second if stamp is not None else 0.0
        frame = Frame(self, image, self.frames, arrived, at, stamp, extra, buffer)
        self._filling = None
        with self._guard:
            while self.every_frame and self._latest is not None and not self._stop.is_set():
                self._lock.wait(0.5)
            old, self._latest = self._latest, frame
            self._held += 1
        if old is not None:
            self.drop(old)
        self.frames += 1
        self.frame_wh = frame.wh
        if self.waiting_since is None or self.status != "live":
            self.waiting_since = frame.arrived
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
        crc = zlib.crc32(cast(Any, frame.image))
        if crc != self._last_crc:
            if self._crc_since:
                self.frozen, self._frozen_restarts = False, 0
            self._last_crc, self._crc_since = crc, frame.arrived

    # -- the child's life ---------------------------------------------------------------------------------------

    def _set_status(self, status: str) -> None:
        if status != self.status:
            self.status = status
            self.since = time.monotonic()
            self._notify()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            before = self.frames
            try:
                reason = self._live_once()
            except Exception as error:  # whatever it was: the camera is tried again
                reason = self.source.hide((str(error) or type(error).__name__).splitlines()[0])
            if self._stop.is_set():
                break
            if not reason or self._hopeless(reason, before):
                self._set_status("ended")
                return
            self.last_error = reason
            self._think_again(reason, before)
            if self.status != "lost":
                self.lost_count += 1
            self._set_status("lost")
            failures = 0 if time.monotonic() - began > 10.0 and self.frames > before else failures
            self._stop.wait(_BACK_OFF_S[min(failures, len(_BACK_OFF_S) - 1)])
            failures += 1
            self.restarts += 1
        with self._lock:
            self._lock.notify_all()

    def _hopeless(self, reason: str, before: int) -> bool:
        """Whether a source that is read once cannot be read, or no further: then this is its end."""
        if not self.source.finite or (self.source.wait and not self.frames):
            return False
        self._tries = self._tries + 1 if self.frames == before else 0
        if self._tries < _TRIES:
            return False
        self.last_error = self.broken = f"{reason} (at {self.second:.1f} s)" if self.frames else reason
        return True

    def _think_again(self, reason: str, before: int) -> None:
        """What to do otherwise the next time, after a child that has brought no frame."""
        if self.frames != before or self._capture is None:
            return
        said = " ".join(self._capture.lines)
        if "not-negotiated" in said:
            self._relaxed = True
        if self.source.options.get("transport") == "auto" and reason != SOUND_ALONE:
            # A camera that knows only UDP refuses the other; one that is merely down is asked both ways in turn.
            refused = "transport" in said.lower() or "not supported" in said.lower()
            if refused or self._transport == "udp":
                self._transport = "udp" if self._transport == "tcp" else "tcp"

    def _live_once(self) -> str:
        """Run one child until it ends; why it is over, or "" when the source has simply ended."""
        self._crc_since = time.monotonic()
        self._arrivals.clear()  # a rate over the time without a picture would be none
        self._capture = None
        known = self._stamp
        attempt = Attempt(
            self._relaxed,
            self._transport,
            known.turn if known is not None else 0,
            known.number + 1 if known is not None else 0,
        )
        capture = self._capture = Capture(self.source, self._fast, attempt, self._buffer, self._deliver, self._hear)
        try:
            over = self._watch(capture)
            if over == "" and capture.broken:
                self.broken = self.last_error
            return over
        finally:
            capture.close()
            if self._filling is not None:  # the frame that it has not finished
                with self._lock:
                    self._free.append(self._filling)
                self._filling = None

    def _hear(self, text: str) -> None:
        self.last_error = text

    def _watch(self, capture: Capture) -> str:
        patience = FIRST_FRAME_S
        last = time.monotonic()
        while not self._stop.is_set():
            before = self.frames
            over = capture.turn()
            if over is not None:
                return over
            now = time.monotonic()
            if self.frames != before:
                last, patience = now, LOST_S
            elif now - last > LOST_S and not self.source.live:
                if capture.stopped:
                    return "the capture process was stopped"
                last = now
            elif now - last > patience and self.source.live:
                return SOUND_ALONE if capture.sound_alone else f"no frame for {patience:.0f} s"
            if (
                self.source.live
                and self._crc_since
                and self.last_frame > self._crc_since + FROZEN_S
                and (now - self._crc_since > min(FROZEN_S * 2**self._frozen_restarts, _FROZEN_BACK_OFF_S))
            ):
                self.frozen = True
                self._frozen_restarts += 1
                return f"the picture has not changed for {now - self._crc_since:.0f} s: the camera is frozen"
        return "stopped"
