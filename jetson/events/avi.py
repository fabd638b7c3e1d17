"""JPEGs as a film that players open without further codecs: Motion JPEG in an AVI container, written here.

The container is RIFF, as https://learn.microsoft.com/windows/win32/directshow/avi-riff-file-reference tells: a header,
the JPEGs as chunks `00dc`, and an index of them.
"""

import struct
from typing import Sequence, Tuple

_KEYFRAME, _HAS_INDEX = 0x10, 0x10


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _list(name: bytes, body: bytes) -> bytes:
    return _chunk(b"LIST", name + body)


def mjpeg(jpegs: Sequence[bytes], wh: Tuple[int, int], seconds_each: float) -> bytes:
    """The file for JPEGs of `wh` (width, height) pixels, each shown for `seconds_each`. ValueError without any."""
    if not jpegs:
        raise ValueError("a film of no picture")
    width, height = wh
    micros = max(1, int(round(seconds_each * 1e6)))
    largest = max(len(one) for one in jpegs)
    main = struct.pack(
        "<14I",
        micros,
        min(int(largest / seconds_each), 0xFFFFFFFF),
        0,
        _HAS_INDEX,
        len(jpegs),
        0,
        1,
        largest,
        width,
        height,
        0,
        0,
        0,
        0,
    )
    stream = struct.pack(
        "<4s4sIHHIIIIIIII4H",
        b"vids", b"MJPG", 0, 0, 0, 0, micros, 1000000, 0, len(jpegs), largest, 0xFFFFFFFF, 0, 0, 0, width, height,
    )  # fmt: skip
    bitmap = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", 3 * width * height, 0, 0, 0, 0)
    header = _list(b"hdrl", _chunk(b"avih", main) + _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", bitmap)))
    chunks, index, at = [], [], 4  # from the name of the list on
    for one in jpegs:
        chunks.append(_chunk(b"00dc", one))
        index.append(struct.pack("<4sIII", b"00dc", _KEYFRAME, at, len(one)))
        at += len(chunks[-1])
    body = header + _list(b"movi", b"".join(chunks)) + _chunk(b"idx1", b"".join(index))
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"AVI " + body
