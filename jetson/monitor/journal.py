"""Who entered when, and with or without a mask: a ring in memory, a file only where one was asked for.

No picture is kept unless it was switched on, and then only the best crop of a face, in memory.
"""

import contextlib
import errno
import itertools
import json
import os
import threading
import time
from collections import OrderedDict, deque
from datetime import datetime, timezone
from typing import Any, BinaryIO, Callable, Deque, Dict, List, Optional, Tuple, Union

from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.errors import BadInput

KEPT = 1000
KEPT_CROPS = 200
MEMORY = 10000
MEMORY_BYTES = 8 << 20
_AT_ONCE = 100
_TAIL = 1 << 20


def stamp(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def unstamp(text: str) -> float:
    """Unix seconds of what `stamp` wrote."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp()


class Journal:
    """The events of all cameras. With `path`, each is on the disk (fsync) before anybody is told of it.

    What a full or broken disk does not take waits in memory, up to MEMORY events of MEMORY_BYTES together, and is
    written in its order when there is room again; over that the oldest goes, and is counted in `dropped`. `tell(event)`
    is called after an event was kept. Safe to call from several threads.
    """

    def __init__(
        self,
        path: Optional[str] = None,
        crops: bool = False,
        tell: Callable[[Dict[str, Any]], None] = lambda event: None,
    ) -> None:
        self.crops_on = crops
        self.path = path
        self.error = ""
        self._tell = tell
        self._lock = threading.Lock()
        self._first = 1  # the number of the first event of this start
        self._events: Deque[Dict[str, Any]] = deque(maxlen=KEPT)
        self._crops: OrderedDict[str, Tuple[float, bytes]] = OrderedDict()
        self._number = 0
        self.dropped = 0
        self._waiting: Deque[bytes] = deque()  # lines that the disk has not taken
        self._waiting_bytes = 0
        self._torn = False  # half a line stands at the file's end and cannot be cut off
        self._file: Optional[BinaryIO] = None
        if path:
            self._number = _mend(path)
            self._first = self._number + 1
            try:
                self._file = _opened(path)
            except OSError as error:
                # A card that has become read-only under a runner is no reason not to start it again: a camera that is
                # watched matters more. A file that was never there is a mistake.
                if error.errno != errno.EROFS or not os.path.exists(path):
                    raise BadInput(
                        f"the events file cannot be written: {error.strerror}",
                        path,
                        "a file in a folder that this user may write to",
                    ) from error
                self.error = f"events are not written: {error.strerror}"

    def add(self, kind: str, **fields: Any) -> Dict[str, Any]:
        """Keep an event and tell of it; returns it with its `number`."""
        with self._lock:
            self._number += 1
            event = dict({"at": stamp(time.time())}, number=self._number, kind=kind, **fields)
            if self.path is not None:
                self._waiting.append(json.dumps(event).encode() + b"\n")
                self._waiting_bytes += len(self._waiting[-1])
                self._write(self.path)
            self._events.append(event)
        self._tell(event)
        return event

    def clock_stepped(self, by_s: float) -> None:
        """The wall clock was set by `by_s` seconds: events of before carry the correction.

        Those in memory get corrected times and `clock_corrected_s`; what is in the file stays, and an event "clock
        stepped" says by how much the times of which numbers (`first` to `last`, of this start) are wrong.
        """
        with self._lock:
            first, last = self._first, self._number
            # Replaced, not changed: whoever was told of an event may be writing it out just now.
            self._events = deque((_corrected(event, by_s, first) for event in self._events), maxlen=KEPT)
            waiting = [_corrected(json.loads(line.decode()), by_s, first) for line in self._waiting]
            self._waiting = deque(json.dumps(event).encode() + b"\n" for event in waiting)
            self._waiting_bytes = sum(len(line) for line in self._waiting)
        self.add("clock stepped", by_s=round(by_s, 3), first=first, last=last)

    def retry(self) -> None:
        """Write what waits, if anything does; to be called now and then, since the next event may be far."""
        with self._lock:
            if self._waiting and self.path is not None:
                self._write(self.path)

    def state(self) -> Dict[str, Any]:
        """{waiting, dropped, error}: events that the file has not taken yet, and that it never will."""
        return {"waiting": len(self._waiting), "dropped": self.dropped, "error": self.error}

    def _write(self, path: str) -> None:
        """Bring all that waits to the disk; a full one must not end the service, and is told on the page."""
        try:
            self._file = file = _opened(path) if self._file is None else _followed(path, self._file)
            while self._waiting:
                lines = list(itertools.islice(self._waiting, _AT_ONCE))  # a nearly full disk takes some of many
                _append(file, (b"\n" if self._torn else b"") + b"".join(lines))
                self._torn = False
                for line in lines:
                    self._waiting.popleft()
                    self._waiting_bytes -= len(line)
            self.error = f"{self.dropped} events were lost while the disk took none" if self.dropped else ""
        except _Torn:
            self._torn = True
            self._tell_trouble("the last line of the file is incomplete")
        except OSError as error:
            self._tell_trouble(error.strerror or str(error))

    def _tell_trouble(self, reason: str) -> None:
        while len(self._waiting) > MEMORY or self._waiting_bytes > MEMORY_BYTES:
            self._waiting_bytes -= len(self._waiting.popleft())
            self.dropped += 1
        self.error = f"events are not written: {reason}; {len(self._waiting)} wait in memory"
        if self.dropped:
            self.error += f", {self.dropped} were lost"

    def latest(self, count: int = 50, after: int = 0) -> List[Dict[str, Any]]:
        """The newest events, newest first, with numbers over `after`."""
        with self._lock:
            chosen = [event for event in self._events if event["number"] > after][-count:]
        return chosen[::-1]

    def keep_crop(self, key: str, quality: float, make: Callable[[], bytes]) -> None:
        """Keep a face's picture if it is better than the one there is (only when that was switched on)."""
        if not self.crops_on:
            return
        with self._lock:
            known = self._crops.get(key)
            if known is not None and known[0] >= quality * 0.9:
                return
        data = make()
        with self._lock:
            self._crops[key] = (quality, data)
            self._crops.move_to_end(key)
            while len(self._crops) > KEPT_CROPS:
                self._crops.popitem(last=False)

    def crop(self, key: str) -> Optional[bytes]:
        """The JPEG kept for "camera-track", if there is one."""
        with self._lock:
            known = self._crops.get(key)
        return known[1] if known else None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._waiting and self.path is not None:
                self._write(self.path)
            file, self._file, self.path = self._file, None, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()


class _Torn(OSError):
    """A part of what should be written was, and could not be taken back."""


def _opened(path: str) -> BinaryIO:
    return open(path, "ab", buffering=0)  # nothing that a later write would bring half


def _append(file: BinaryIO, data: bytes) -> None:
    """All of `data` at the file's end and on the disk, or nothing of it."""
    start = os.fstat(file.fileno()).st_size
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file.fileno(), view) :]
        os.fsync(file.fileno())
    except OSError as error:
        try:
            os.ftruncate(file.fileno(), start)
        except OSError:
            raise _Torn(error.errno, error.strerror) from error
        raise


def _corrected(event: Dict[str, Any], by_s: float, first: int) -> Dict[str, Any]:
    """An event with its times moved by `by_s`, where it is of this start."""
    if event["number"] < first:
        return event
    moved = dict(event, clock_corrected_s=round(event.get("clock_corrected_s", 0.0) + by_s, 3))
    for key in ("at", "began"):
        if key in event:
            moved[key] = stamp(unstamp(event[key]) + by_s)
    return moved


def _followed(path: str, old: BinaryIO) -> BinaryIO:
    """`old`, or a file begun anew where somebody has moved or removed it (logrotate); OSError leaves the old."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(path), os.fstat(old.fileno())):
            return old
    fresh = _opened(path)
    with contextlib.suppress(OSError):
        old.close()
    return fresh


def _open_to_mend(path: str) -> BinaryIO:
    try:
        return open(path, "rb+")
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return open(path, "rb")


def _mend(path: str) -> int:
    """The highest event number in a file; a last line that a power cut left half is cut off."""
    try:
        with _open_to_mend(path) as file:
            size = file.seek(0, os.SEEK_END)
            # Only its end: after a year the file is larger than a small board's memory.
            start = max(0, size - _TAIL)
            file.seek(start)
            data = file.read(_TAIL)
            whole = data.rfind(b"\n") + 1
            if whole < len(data) and (whole or not start) and file.writable():
                file.truncate(start + whole)
            lines = data[:whole].splitlines()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise BadInput(f"the events file cannot be opened: {error.strerror}", path) from error
    for line in reversed(lines):
        try:
            return int(json.loads(line.decode())["number"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0


def from_track(
    event: Any, camera: Union[int, str], uri: str, wall: float, monotonic: float, classes: Classes = MASK_CLASSES
) -> Dict[str, Any]:
    """A tracker's event as the fields of a journal entry; `wall` and `monotonic` are the same moment.

    `camera`: its name, or its position where it has none.
    """
    return {
        "camera": camera,
        "source": uri,
        "person": event.track,
        "label": classes.names[event.label],
        "role": classes.roles[event.label],
        "began": stamp(wall - monotonic + event.began),
        "at": stamp(wall - monotonic + event.at),
    }
