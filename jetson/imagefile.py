"""Pictures from files of others: their size is read from the first bytes, before anything is decoded.

A PNG of under a megabyte can announce 26,000 x 26,000 pixels, and take gigabytes to decode.
"""

import os
import struct
from typing import Optional, Tuple

import cv2
import numpy as np

from jetson.errors import BadInput

MOST_BYTES = 256 << 20
MOST_PIXELS = 100 * 1000 * 1000  # 300 MB decoded; a camera's 48 megapixels fit
_NO_SIZE = frozenset([0xC4, 0xC8, 0xCC])  # JPEG markers between SOF0 and SOF15 that announce no frame


def size_of(data: bytes) -> Optional[Tuple[int, int]]:
    """(width, height) in pixels that a PNG, JPEG, BMP or WebP announces; None where it is none of these, or cut off."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
            return struct.unpack(">II", data[16:24])
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[:2] == b"BM":
            if struct.unpack("<I", data[14:18])[0] == 12:  # OS/2's header
                return struct.unpack("<HH", data[18:22])
            width, height = struct.unpack("<ii", data[18:26])
            return abs(width), abs(height)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
    except struct.error:
        pass
    return None


def _jpeg(data: bytes) -> Optional[Tuple[int, int]]:
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        elif marker in (0xD9, 0xDA):
            return None
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None


def _webp(data: bytes) -> Optional[Tuple[int, int]]:
    kind = data[12:16]
    if kind == b"VP8X":
        return (
            1 + int.from_bytes(data[24:27], "little"),
            1 + int.from_bytes(data[27:30], "little"),
        )
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def decode(
    data: bytes, where: str, flags: int = cv2.IMREAD_COLOR, most_pixels: int = MOST_PIXELS
) -> Optional[np.ndarray]:
    """The picture in `data` as cv2.imdecode gives it, uint8 (h, w, 3) BGR, None where it cannot be decoded.

    BadInput where it announces more than `most_pixels`; nothing is decoded then. A format whose size is not read here
    (TIFF) is bounded by OpenCV's own limit, which `jetson` sets when it is imported.
    """
    size = size_of(data)
    if size is not None and size[0] * size[1] > most_pixels:
        raise BadInput(
            "the picture is {} x {} pixels".format(*size),
            where,
            f"at most {most_pixels} pixels together",
            "scale it down, or remove it",
        )
    if not data:
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # OpenCV's own limits
        return None


def read(
    path: str, flags: int = cv2.IMREAD_COLOR, most_pixels: int = MOST_PIXELS, most_bytes: int = MOST_BYTES
) -> Optional[np.ndarray]:
    """The picture in a file, uint8 (h, w, 3) BGR None where there is none; BadInput as of `decode`."""
    try:
        if os.path.getsize(path) > most_bytes:
            raise BadInput("the picture's file is too large", path, f"at most {most_bytes} bytes")
        with open(path, "rb") as file:
            data = file.read(most_bytes)
    except OSError:
        return None
    return decode(data, path, flags, most_pixels)
