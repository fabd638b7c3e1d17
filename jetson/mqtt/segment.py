"""The files of a spool (jetson.mqtt.spool): segments of checksummed records, and the cursor that says how far it is.

Segment: a header, then records one behind the other, their numbers in one unbroken row. Big-endian:
    header   8s magic, Q number of the last record written before this segment, I CRC-32 of the number
    record   4s magic, I payload bytes, I CRC-32 of number and payload, Q number, payload
Whatever is damaged is skipped up to the next record that is whole.
"""

import contextlib
import errno
import json
import os
import struct
import zlib
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

from jetson import files

HEADER = struct.Struct(">8sQI")
RECORD = struct.Struct(">4sIIQ")
_HEADER_MAGIC = b"JMSPOOL1"
_MAGIC = b"JMR1"
_NUMBER = struct.Struct(">Q")
MAX_PAYLOAD = 1 << 20
SUFFIX = ".seg"


def encode(number: int, payload: bytes) -> bytes:
    """One record; `payload`: at most MAX_PAYLOAD bytes."""
    check = zlib.crc32(payload, zlib.crc32(_NUMBER.pack(number)))
    return RECORD.pack(_MAGIC, len(payload), check, number) + payload


def decode(data: bytes, at: int = 0) -> Iterator[Tuple[int, bytes, int]]:
    """(number, payload, offset behind it) of each whole record from `at` on."""
    while True:
        at = data.find(_MAGIC, at)
        if at < 0 or at + RECORD.size > len(data):
            return
        _, size, check, number = RECORD.unpack_from(data, at)
        end = at + RECORD.size + size
        if size <= MAX_PAYLOAD and end <= len(data):
            payload = data[at + RECORD.size : end]
            if zlib.crc32(payload, zlib.crc32(_NUMBER.pack(number))) == check:
                yield number, payload, end
                at = end
                continue
        at += 1


def header(before: int) -> bytes:
    """A segment's first bytes; `before`: the last number written before it."""
    return HEADER.pack(_HEADER_MAGIC, before, zlib.crc32(_NUMBER.pack(before)))


def before_of(data: bytes) -> Optional[int]:
    """The number in a segment's header; None where the header is damaged."""
    if len(data) < HEADER.size:
        return None
    magic, before, check = HEADER.unpack_from(data)
    return before if magic == _HEADER_MAGIC and check == zlib.crc32(_NUMBER.pack(before)) else None


def create(path: str, before: int) -> int:
    """Make a segment file with its header; the handle to append with. OSError leaves no file."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        append(handle, header(before))
        files.fsync_folder(os.path.dirname(path))
    except OSError:
        os.close(handle)
        os.unlink(path)
        raise
    return handle


def append(handle: int, data: bytes) -> None:
    """Write all of `data`; after an OSError a part of it may be there."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


class Segment:
    """A segment file: numbers first to last but for `holes` (damaged records), `size` bytes of it are whole."""

    def __init__(self, path: str, first: int) -> None:
        self.path = path
        self.first = first
        self.last = first - 1
        self.size = HEADER.size
        self.holes: Set[int] = set()

    def numbers(self, low: int) -> Iterator[int]:
        """The numbers of its records from `low` on."""
        return (number for number in range(max(self.first, low), self.last + 1) if number not in self.holes)

    def count(self, low: int, high: int) -> int:
        """How many of its records have low <= number < high."""
        low, high = max(self.first, low), min(self.last + 1, high)
        return max(0, high - low - sum(low <= hole < high for hole in self.holes))


def scan(folder: str, last_written: int) -> List[Segment]:
    """The segments of a folder, oldest first; a torn end is cut off, files without a whole record are removed.

    `last_written`: the highest number that is known to have been written, from the cursor.
    """
    found: List[Segment] = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not name.endswith(SUFFIX):
            continue
        with open(path, "rb") as file:
            data = file.read()
        good: List[int] = []
        end = 0
        for number, _, behind in decode(data, HEADER.size):
            if number > (good[-1] if good else found[-1].last if found else 0):
                good.append(number)
                end = behind
        first = _first(name) or (good[0] if good else 1)
        before = before_of(data)
        if found:
            _extend(found[-1], first - 1 if before is None else before)
        if not good:
            _change(os.unlink, path)
            continue
        segment = Segment(path, max(min(first, good[0]), found[-1].last + 1 if found else 1))
        segment.last, segment.size = good[-1], end
        segment.holes = set(range(segment.first, segment.last + 1)) - set(good)
        found.append(segment)
        if end < len(data):
            # A later append must follow a whole record. In older segments this is only the end of what was damaged.
            _change(os.truncate, path, end)
    if found:
        _extend(found[-1], last_written)
    return found


def _change(how: Callable[..., None], *words: Any) -> None:
    try:
        how(*words)
    except OSError as error:
        if error.errno != errno.EROFS:  # nothing will be appended there either
            raise


def _first(name: str) -> Optional[int]:
    try:
        return int(name[: -len(SUFFIX)], 16)
    except ValueError:
        return None


def _extend(segment: Segment, last: int) -> None:
    # Records up to `last` were written; those that are not there any more are holes.
    segment.holes.update(range(segment.last + 1, last + 1))
    segment.last = max(segment.last, last)


class Cursor:
    """A few numbers on the disk: two slots written in turn, so that a torn write leaves the one before."""

    SLOT = 512

    def __init__(self, path: str) -> None:
        self._turn = 0
        self.values: Dict[str, Any] = {}
        self._handle, self._writable = files.open_shared(path, 0o600)
        try:
            data = os.pread(self._handle, 2 * self.SLOT, 0)
            for at in (0, self.SLOT):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    check, _, text = data[at : at + self.SLOT].rstrip(b" \0").partition(b" ")
                    if int(check, 16) == zlib.crc32(text):
                        values = json.loads(text.decode())
                        if int(values["turn"]) > self._turn:
                            self._turn, self.values = int(values["turn"]), values
            # Its blocks are taken now: a full disk later does not stop it.
            if len(data) < 2 * self.SLOT and self._writable:
                os.pwrite(self._handle, data.ljust(2 * self.SLOT, b" "), 0)
        except BaseException:
            os.close(self._handle)
            raise

    def write(self, values: Dict[str, Any]) -> None:
        """Keep `values` (at most 450 bytes as JSON), on the disk when this returns. OSError where that fails."""
        if not self._writable:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self._turn += 1
        text = json.dumps(dict(values, turn=self._turn)).encode()
        slot = f"{zlib.crc32(text):08x} ".encode() + text
        os.pwrite(self._handle, slot.ljust(self.SLOT), self._turn % 2 * self.SLOT)
        os.fdatasync(self._handle)
        self.values = values

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)
