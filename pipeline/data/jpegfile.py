"""Whether all of a JPEG is there: its markers, its scans, and the data of its last block."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import cv2
import numpy as np

_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_FRAMES = (0xC0, 0xC1, *_PROGRESSIVE)
_MORE = b"\x5a" * 4096  # entropy-coded data that mean anything but nothing


class BrokenImage(Exception):
    """Says in a few words what is wrong with the file."""


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """-> (marker, start, end) of each segment before the picture's own data, and (0xDA, start, end of the file)."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise BrokenImage("is damaged: no JPEG marker where one must be")
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes
            at += 1
            continue
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        if marker == 0xDA:
            yield marker, at, len(data)
            return
        yield marker, at, at + 2 + length
        at += 2 + length
    raise BrokenImage("is truncated")


def require_whole(data: bytes) -> None:
    """BrokenImage where the file ends before the picture does, or a progressive one lacks scans."""
    found = list(segments(data))
    start = found[-1][1]
    # Within the picture's data an FF is always followed by 00 or a restart marker: FF D9 is its end, nothing else.
    if data.find(b"\xff\xd9", start) < 0:
        raise BrokenImage("is truncated")
    frame = next(((marker, at) for marker, at, _ in found if marker in _FRAMES), None)
    if frame and frame[0] in _PROGRESSIVE and not _all_scans(data, frame[1], start):
        raise BrokenImage("is truncated: some of its scans are missing, which shows as a blur")


def _all_scans(data: bytes, frame: int, start: int) -> bool:
    """Whether the scans of a progressive JPEG bring every coefficient of every component to its last bit."""
    components = {data[frame + 10 + 3 * i] for i in range(data[frame + 9])}
    left = {component: set(range(64)) for component in components}
    at = start
    while 0 <= at < len(data) - 4:
        marker = data[at + 1]
        if marker == 0xD9:
            break
        if marker == 0xDA:
            count = data[at + 4]
            if len(data) < at + 8 + 2 * count:
                return False
            first, last, bits = data[at + 5 + 2 * count : at + 8 + 2 * count]
            if bits & 15 == 0:
                for i in range(count):
                    left.get(data[at + 5 + 2 * i], set()).difference_update(range(first, last + 1))
        # The next marker: no stuffed FF, no restart.
        at += 2 if marker in (0, 0xFF, *range(0xD0, 0xD8)) else 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) - 1 and data[at + 1] in (0, *range(0xD0, 0xD8)):
            at = data.find(b"\xff", at + 2)
    return not any(left.values())


def require_all_data(data: bytes, picture: np.ndarray) -> None:
    """BrokenImage where a JPEG has its end, but not all data before it: decoders fill the rest with grey, and say so
    only on stderr. `picture`: as it was decoded, uint8 (h, w, 3).

    Where nothing is missing, decoders stop at the last block, and more data behind it change nothing. So the picture is
    decoded once more with such, if its last corner is as flat as what is filled in.
    """
    corner = picture[-4:, -4:].reshape(-1, picture.shape[2])
    if (corner != corner[0]).any() or any(marker in _PROGRESSIVE for marker, _, _ in segments(data)):
        return
    start = [begin for _, begin, _ in segments(data)][-1]
    end = data.find(b"\xff\xd9", start)
    longer = np.frombuffer(data[:end] + _MORE, np.uint8)
    again = cv2.imdecode(longer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if again is None or not np.array_equal(again, picture) or _restarts_missing(data, start, end):
        raise BrokenImage("is truncated: data are missing before its end, and the rest of it is grey")


def _restarts_missing(data: bytes, start: int, end: int) -> bool:
    """Whether a JPEG with restart markers has fewer of them than its blocks need: each begins a piece of its data."""
    found = {marker: at for marker, at, _ in segments(data)}
    if 0xDD not in found or not (found.keys() & {0xC0, 0xC1}):
        return False
    (interval,) = struct.unpack(">H", data[found[0xDD] + 4 : found[0xDD] + 6])
    frame = found.get(0xC0, found.get(0xC1, 0))
    height, width, components = struct.unpack(">HHB", data[frame + 5 : frame + 10])
    if interval == 0 or data[start + 4] != components:  # its components one by one
        return False
    sampling = [data[frame + 11 + 3 * i] for i in range(components)]
    across, down = max(s >> 4 for s in sampling), max(s & 15 for s in sampling)
    if components == 1:
        across = down = 1
    blocks = -(-width // (8 * across)) * -(-height // (8 * down))
    pieces = np.frombuffer(data[start:end], np.uint8)
    markers = (pieces[:-1] == 0xFF) & (pieces[1:] >= 0xD0) & (pieces[1:] <= 0xD7)
    return int(markers.sum()) < -(-blocks // interval) - 1
