"""What the container of a video file says and OpenCV does not, or not in every version: MP4, Matroska, AVI.

`turn`: by how much the picture is to be turned so that it is upright. OpenCV 4.5 to 5.0 disagree about it, so it is
read from the track header's matrix here (ISO/IEC 14496-12, 8.3.2) and OpenCV is told to leave the picture alone.
`missing`: by how many bytes the file is shorter than its own headers say: it was cut off.
"""

import os
import struct
from typing import BinaryIO, Iterator, NamedTuple, Optional, Tuple

_MOST_HEADER = 1 << 26  # of an index that is read whole; two hours have a few MiB


class Facts(NamedTuple):
    """`turn`: degrees clockwise (0 to 270), None: not said; `missing`: bytes; `has_index`: of an MP4."""

    turn: Optional[int]
    missing: int
    has_index: bool = True


def facts(path: str) -> Facts:
    """What a video file's container says. Never fails on a damaged file: what cannot be read is not said."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(12)
            if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                return _mp4(file, size)
            if head[:4] == b"\x1aE\xdf\xa3":
                return Facts(None, _matroska(file, size))
            if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
                return Facts(None, _avi(file, size))
    except (OSError, struct.error, ValueError):
        pass
    return Facts(None, 0)


def _mp4(file: BinaryIO, size: int) -> Facts:
    offset, missing, turn, index = 0, 0, None, False
    while offset + 8 <= size:
        file.seek(offset)
        length, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if length == 1:
            length, header = struct.unpack(">Q", file.read(8))[0], 16
        if length == 0:
            length = size - offset  # to the end of the file
        if length < header:
            break
        missing = max(missing, offset + length - size)
        if kind == b"moov":
            index = True
            turn = _turn(file.read(min(length - header, _MOST_HEADER)))
        offset += length
    return Facts(turn, missing, index)


def _boxes(data: bytes) -> Iterator[Tuple[bytes, bytes]]:
    offset = 0
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        if length < 8:
            return
        yield kind, data[offset + 8 : offset + length]
        offset += length


def _turn(moov: bytes) -> Optional[int]:
    """Degrees clockwise of the first video track."""
    for kind, trak in _boxes(moov):
        if kind != b"trak":
            continue
        header, handler = b"", b""
        for inner, data in _boxes(trak):
            if inner == b"tkhd":
                header = data
            elif inner == b"mdia":
                handler = next((box[8:12] for name, box in _boxes(data) if name == b"hdlr"), b"")
        if handler == b"vide" and header:
            a, b, _, c, d = struct.unpack_from(">5i", header, 52 if header[0] == 1 else 40)
            one = 1 << 16
            return {(one, 0, 0, one): 0, (0, one, -one, 0): 90, (-one, 0, 0, -one): 180, (0, -one, one, 0): 270}.get(
                (a, b, c, d), 0
            )
    return None


def _number(data: bytes, keep_mark: bool) -> Tuple[int, int]:
    """An EBML number (RFC 8794) and its length; (-1, length): unknown size."""
    if not data or data[0] == 0:
        raise ValueError("not an EBML number")
    length = 9 - data[0].bit_length()
    value = int.from_bytes(data[:length], "big")
    if keep_mark:
        return value, length
    value -= 1 << (7 * length)
    return (-1 if value == (1 << (7 * length)) - 1 else value), length


def _matroska(file: BinaryIO, size: int) -> int:
    offset = 0
    while offset < size:
        file.seek(offset)
        data = file.read(16)
        kind, first = _number(data, True)
        length, second = _number(data[first:], False)
        if length < 0:
            return 0  # a recording that was written as it came: it does not say
        offset += first + second + length
        if kind == 0x18538067:  # Segment
            return max(0, offset - size)
    return 0


def _avi(file: BinaryIO, size: int) -> int:
    offset, missing = 0, 0
    while offset + 12 <= size:
        file.seek(offset)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or length == 0:
            break
        offset += 8 + length + length % 2
        missing = max(missing, offset - length % 2 - size)
    return missing
