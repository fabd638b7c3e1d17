"""A bounded queue on the disk for a consumer that may be away for hours; at least once, in order, safe against kill -9.

Numbers: each record gets the next one; they go on over restarts, so that the consumer sees what is missing.
Removal: a record goes only when the consumer has acknowledged it, or when the limit is reached.
Limit: over `max_records` or `max_bytes` the oldest goes, since after a long outage the newest events are those that
    somebody can still act on, and what is kept stays one unbroken row up to now. Every dropped record is counted.
fsync: `offer` only appends to memory. A thread of its own writes at once, so that kill -9 loses what came within some
    milliseconds, and syncs at most SYNC_S later, only what is not acknowledged yet: a power cut may lose the last
    SYNC_S. After either, records of the last SYNC_S that were acknowledged may be given out again.
Disk full or broken: up to MEMORY records wait in memory, and are given out from there; over that the oldest goes.
"""

import contextlib
import os
import threading
import time
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Tuple

from jetson import files
from jetson.errors import BadInput
from jetson.mqtt import segment
from jetson.mqtt.segment import Segment

SYNC_S = 1.0
MEMORY = 10000
SEGMENT_BYTES = 1 << 20
_BATCH = 1000
_FOREVER = 1 << 62


class Spool:
    """The queue in a folder of its own. One process at a time; one consumer. BadInput when the folder cannot be used.

    `dropped` counts, over all runs, by reason: "limit" (see above), "disk" (it took no more), "damaged" (records
    whose checksum is wrong or that are gone) and "refused" (see `drop`).
    """

    def __init__(
        self, folder: str, max_records: int = 100000, max_bytes: int = 64 << 20, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.folder = os.path.abspath(folder)
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.error = ""
        self._segment_bytes = min(segment_bytes, max(1, max_bytes // 4))
        self._lock = threading.Condition()
        self._pending: Deque[Tuple[int, bytes]] = deque()  # offered, not written
        self._batch: Deque[Tuple[int, bytes]] = deque()  # just being written
        self._segments: List[Segment] = []
        self._dead: List[Segment] = []  # done with; unlinked once the cursor says so
        self._handle: Optional[int] = None  # of the newest segment
        self._ahead: Deque[Tuple[int, bytes]] = deque()  # read, not yet given out
        self._loaded = ("", 0)  # the reader's file and offset
        self._dirty = self._closing = False
        self._synced = 0.0
        self._stop = threading.Event()
        self._held = contextlib.ExitStack()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
            self._held.enter_context(files.lock(os.path.join(self.folder, "lock"), wait=False))
            self._open()
        except OSError as error:
            self._held.close()
            raise BadInput(
                f"the spool cannot be used: {error.strerror or error}",
                self.folder,
                "a folder that this user may write to, on a disk with room",
            ) from error

    def _open(self) -> None:
        self._cursor: Optional[segment.Cursor] = segment.Cursor(os.path.join(self.folder, "cursor"))
        values = self._cursor.values
        self.published = int(values.get("published", 0))
        self.dropped = {name: int(values.get(name, 0)) for name in ("limit", "disk", "damaged", "refused")}
        self._written = int(values.get("written", 0))
        self._head = int(values.get("head", 1))  # everything below is done with
        self._segments = segment.scan(self.folder, self._written)
        holes = self._holes() if self._segments else max(0, self._written - self._head + 1)
        # Those that the cursor knows of were counted when they were found.
        self.dropped["damaged"] += max(0, holes - int(values.get("holes", 0)))
        self._written = max([self._written] + [one.last for one in self._segments])
        if not self._segments:
            self._head = max(self._head, self._written + 1)
        self._next = max(self._written + 1, self._head, int(values.get("next", 1)))
        self._position = self._head - 1  # of the reader
        self._advance(self._head)
        self._dirty = True

    def start(self) -> "Spool":
        """Begin to write."""
        self._thread.start()
        return self

    # -- the producer ---------------------------------------------------------------------------------------------

    def offer(self, payload: bytes) -> int:
        """Append a record; its number. Waits for no disk. ValueError over 1 MiB."""
        if len(payload) > segment.MAX_PAYLOAD:
            raise ValueError(f"a record of {len(payload)} bytes")
        with self._lock:
            number = self._next
            self._next += 1
            self._pending.append((number, payload))
            if self.error:
                self._hold_memory(MEMORY, "disk")
            else:  # a burst faster than the disk may use the whole limit
                self._hold_memory(self.max_records, "limit")
            self._lock.notify_all()
        return number

    # -- the consumer ---------------------------------------------------------------------------------------------

    def rewind(self) -> None:
        """Read again from the first record that is not acknowledged."""
        with self._lock:
            self._position = self._head - 1
        self._ahead.clear()
        self._loaded = ("", 0)

    def read(self, count: int) -> List[Tuple[int, bytes]]:
        """The next records, (number, payload), at most `count`; [] when there are none now."""
        found: List[Tuple[int, bytes]] = []
        while len(found) < count:
            if self._ahead:
                record = self._ahead.popleft()
                if record[0] >= self._head:  # else dropped meanwhile
                    found.append(record)
            elif not self._load():
                break
        return found

    def acknowledge(self, number: int) -> None:
        """The consumer has everything up to `number`: it is removed and counted as published."""
        with self._lock:
            self.published += self._advance(number + 1)
            if not self._dirty:
                self._dirty = True
                self._lock.notify_all()

    def drop(self, number: int) -> None:
        """Be done with everything up to `number`, which the consumer can never take: counted as refused."""
        with self._lock:
            self.dropped["refused"] += self._advance(number + 1)
            if not self._dirty:
                self._dirty = True
                self._lock.notify_all()

    def _load(self) -> bool:
        """Read on into `_ahead`; False when there is nothing more now."""
        with self._lock:
            one = next((s for s in self._segments if s.last > self._position), None)
            if one is None:
                if self.error:  # what the disk does not take goes out from memory
                    self._ahead.extend(r for r in list(self._batch) + list(self._pending) if r[0] > self._position)
                    self._position = self._ahead[-1][0] if self._ahead else self._position
                return bool(self._ahead)
            path, size, last = one.path, one.size, one.last
            expected = set(one.numbers(self._position + 1))
        start = self._loaded[1] if self._loaded[0] == path else segment.HEADER.size
        data = b""
        try:
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read(size - start)
        except OSError:
            pass  # dropped meanwhile, or unreadable: its records are missed below
        for number, payload, _ in segment.decode(data):
            if number in expected:
                expected.discard(number)
                self._ahead.append((number, payload))
        self._loaded = (path, size)
        self._position = last
        with self._lock:
            missed = {number for number in expected if number >= self._head}
            if missed:
                one.holes.update(missed)
                self.dropped["damaged"] += len(missed)
                self._dirty = True
        return True

    # -- the thread that writes -----------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._pending and not self._closing:
                    self._lock.wait(SYNC_S if self._dirty else None)
                closing = self._closing
            self._write()
            self._hold_limit()
            if self._dirty and (closing or time.monotonic() - self._synced >= SYNC_S):
                self._sync()
            if closing and not self._pending:
                return
            if self.error:
                self._stop.wait(SYNC_S)

    def _write(self) -> None:
        with self._lock:
            while self._pending and len(self._batch) < _BATCH:
                self._batch.append(self._pending.popleft())
        try:
            while self._batch:
                self._append()
            self.error = ""
        except OSError as error:
            self.error = f"events are not kept on disk: {error.strerror or error}"
            with self._lock:
                self._pending.extendleft(r for r in reversed(self._batch) if r[0] >= self._head)
                self._batch.clear()
                self._hold_memory(0 if self._closing else MEMORY, "disk")

    def _append(self) -> None:
        """Write the batch's first records, as many as belong into one segment."""
        first = self._batch[0][0]
        newest = self._segments[-1] if self._segments else None
        handle = self._handle
        if handle is None or newest is None or newest.size >= self._segment_bytes or newest.last + 1 != first:
            newest, handle = self._begin(first)
        parts: List[bytes] = []
        size = newest.size
        for number, payload in self._batch:
            if number != first + len(parts) or size >= self._segment_bytes:
                break
            parts.append(segment.encode(number, payload))
            size += len(parts[-1])
        try:
            segment.append(handle, b"".join(parts))
        except OSError:
            self._end()  # half a record at a segment's end hurts nobody; the next goes into a new one
            raise
        with self._lock:
            newest.size, newest.last = size, first + len(parts) - 1
            self._written = newest.last
            for _ in parts:
                self._batch.popleft()
            self._dirty = True

    def _begin(self, first: int) -> Tuple[Segment, int]:
        """A new segment and its handle.

        A full one is synced first, and old ones go, so that the disk's share stays bounded.
        """
        if self._handle is not None:
            self._sync()
            self._end()
        fresh = Segment(os.path.join(self.folder, f"{first:016x}{segment.SUFFIX}"), first)
        handle = self._handle = segment.create(fresh.path, self._written)
        with self._lock:
            self._segments.append(fresh)
            self._advance(self._head)
        return fresh, handle

    def _end(self) -> None:
        handle, self._handle = self._handle, None
        if handle is None:
            return
        with contextlib.suppress(OSError):
            os.fsync(handle)
        os.close(handle)

    def _hold_limit(self) -> None:
        with self._lock:
            over = self._waiting() - self.max_records
            if over > 0:
                self.dropped["limit"] += self._advance(self._nth(over))
                self._dirty = True
            while len(self._segments) > 1 and sum(one.size for one in self._segments) > self.max_bytes:
                self.dropped["limit"] += self._advance(self._segments[0].last + 1)
                self._dirty = True

    def _sync(self) -> None:
        """Bring to the disk what is not acknowledged, then the cursor; only then unlink what is done with."""
        with self._lock:
            self._dirty = False
            dead, self._dead = self._dead, []
            newest = self._segments[-1] if self._segments else None
            wanted = newest is not None and newest.count(self._head, _FOREVER) > 0
            values = dict(
                self.dropped,
                head=self._head,
                next=self._next,
                written=self._written,
                holes=self._holes(),
                published=self.published,
            )
        try:
            if wanted and self._handle is not None:
                os.fsync(self._handle)
            if self._cursor is not None:
                self._cursor.write(values)
            for one in dead:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(one.path)
        except OSError as error:
            self.error = f"events are not kept on disk: {error.strerror or error}"
            with self._lock:
                self._dead = dead + self._dead
                self._dirty = True
        self._synced = time.monotonic()

    # -- with the lock held ---------------------------------------------------------------------------------------

    def _hold_memory(self, most: int, reason: str) -> None:
        while len(self._pending) > most:
            self._pending.popleft()
            self.dropped[reason] += 1
            self._dirty = True

    def _advance(self, head: int) -> int:
        """Be done with every record below `head`; how many there were."""
        gone = 0
        for one in self._segments:
            if one.first >= head:
                break
            gone += one.count(self._head, head)
        gone += sum(self._head <= number < head for number, _ in self._batch)
        while self._pending and self._pending[0][0] < head:
            self._pending.popleft()
            gone += 1
        self._head = max(self._head, head)
        while (
            self._segments and self._segments[0].last < self._head and (len(self._segments) > 1 or self._handle is None)
        ):
            self._dead.append(self._segments.pop(0))
        return gone

    def _nth(self, count: int) -> int:
        """The number before which `count` records wait."""
        for one in self._segments:
            here = one.count(self._head, _FOREVER)
            if count < here:
                return next(number for place, number in enumerate(one.numbers(self._head)) if place == count)
            count -= here
        rest = [number for number, _ in list(self._batch) + list(self._pending) if number >= self._head]
        return rest[count] if count < len(rest) else self._next

    def _holes(self) -> int:
        return sum(hole >= self._head for one in self._segments for hole in one.holes)

    def _waiting(self) -> int:
        stored = sum(one.count(self._head, _FOREVER) for one in self._segments)
        return stored + sum(number >= self._head for number, _ in self._batch) + len(self._pending)

    # -- for everybody --------------------------------------------------------------------------------------------

    def state(self) -> Dict[str, Any]:
        """{waiting, waiting_bytes (on disk), max_records, max_bytes, published, dropped: {reason: n}, error}."""
        with self._lock:
            return {
                "waiting": self._waiting(),
                "disk_bytes": sum(one.size for one in self._segments),
                "max_records": self.max_records,
                "max_bytes": self.max_bytes,
                "published": self.published,
                "dropped": dict(self.dropped),
                "error": self.error,
            }

    def close(self) -> None:
        """Write and sync what is left, and let go of the folder."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        if self._handle is not None:
            self._end()
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None
        self._held.close()
