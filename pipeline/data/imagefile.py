"""What an image file really is: its format, size and EXIF turn, and whether all of it is there.

OpenCV decodes a JPEG that ends in the middle to a picture with a grey rest and says so only on stderr; a detector
would be trained on it.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.data import jpegfile
from pipeline.data.jpegfile import BrokenImage


class ImageFile(NamedTuple):
    wh: tuple[int, int]  # as stored, before any EXIF turn
    suffix: str  # that of the content: .jpg .png .bmp .webp .tif
    turned: int  # EXIF orientation, 1 where there is none
    data: bytes


def read(path: Path) -> ImageFile:
    """Read and decode `path`. BrokenImage: empty, no image, truncated, damaged, not decodable."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BrokenImage(f"cannot be read: {error.strerror}") from None
    suffix = whole(data)
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # more pixels than OpenCV is willing to decode
        picture = None
    if picture is None:
        raise BrokenImage("cannot be decoded")
    if suffix == ".jpg":
        jpegfile.require_all_data(data, picture)
    turned = _orientation(data, suffix)
    if suffix == ".tif" and turned != 1:  # OpenCV turns some in spite of the flag, and cannot read the others from disk
        raise BrokenImage("is a TIFF with a rotation, which is not supported: save it as PNG")
    return ImageFile((picture.shape[1], picture.shape[0]), suffix, turned, data)


def whole(data: bytes) -> str:
    """The suffix that the content of an image file asks for; BrokenImage: it is none, or not all of it is there."""
    suffix = _suffix(data)
    if not data or suffix is None:
        raise BrokenImage("is empty" if not data else "is not a JPEG, PNG, BMP, WebP or TIFF")
    if suffix == ".jpg":
        jpegfile.require_whole(data)
    elif suffix == ".png":
        _whole_png(data)
    elif len(data) < {".webp": 8 + _size(data, 4), ".bmp": _size(data, 2)}.get(suffix, 0):
        raise BrokenImage("is truncated")
    return suffix


def _suffix(data: bytes) -> str | None:
    if data[:3] == b"\xff\xd8\xff":
        return ".jpg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return ".png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    if data[:2] == b"BM" and len(data) > 26:
        return ".bmp"
    return ".tif" if data[:4] in (b"II*\0", b"MM\0*") else None


def _size(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _whole_png(data: bytes) -> None:
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 4 : at + 8 + length]
        if len(data) < at + 12 + length:
            break
        if zlib.crc32(body) != struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]:
            raise BrokenImage("is damaged: a checksum does not match")
        if kind == b"IEND":
            return
        at += 12 + length
    raise BrokenImage("is truncated")


def _exif(data: bytes) -> list[tuple[int, int]]:
    """-> the (start, end) of the EXIF segments."""
    return [
        (start, end)
        for marker, start, end in jpegfile.segments(data)
        if marker == 0xE1 and data[start + 4 : start + 8] == b"Exif"
    ]


def _tiffs(data: bytes, suffix: str | None) -> list[bytes]:
    """What may hold an orientation: the TIFF inside each EXIF block, or the file itself."""
    if suffix == ".jpg":
        return [data[start + 10 : end] for start, end in _exif(data)]
    if suffix == ".tif":
        return [data]
    found, at = [], 8 if suffix == ".png" else 12 if suffix == ".webp" else len(data)
    while at + 8 <= len(data):
        # A chunk of PNG is its length, its kind, its body and a checksum; of WebP its kind, its length and its body.
        kind, length, after = data[at : at + 4], _size(data, at + 4), 0
        if suffix == ".png":
            kind, length, after = data[at + 4 : at + 8], int.from_bytes(kind, "big"), 4
        if kind in (b"eXIf", b"EXIF"):
            body = data[at + 8 : at + 8 + length]
            found.append(body[6:] if body[:6] == b"Exif\0\0" else body)
        at += 8 + length + (after or length % 2)
    return found


def _orientation(data: bytes, suffix: str | None) -> int:
    for tiff in _tiffs(data, suffix):
        order = {b"II": "<", b"MM": ">"}.get(tiff[:2], "?")
        try:
            (first,) = struct.unpack(order + "I", tiff[4:8])
            (count,) = struct.unpack(order + "H", tiff[first : first + 2])
            for at in range(first + 2, first + 2 + 12 * count, 12):
                tag, _, _, value = struct.unpack(order + "HHIH", tiff[at : at + 10])
                if tag == 0x0112 and 1 <= value <= 8:
                    return int(value)
        except (struct.error, TypeError):
            continue
    return 1


def plain(data: bytes, upright: bool) -> bytes:
    """An image that EXIF turns, without EXIF: turned so (`upright`), or as it is stored. No reader can turn it then.

    A JPEG as it is stored is untouched but for that; turned, it is coded anew, at a quality that costs nothing to see.
    Others lose nothing.
    """
    suffix = _suffix(data) or ""
    if suffix == ".jpg" and not upright:
        return without_exif(data)
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise BrokenImage("cannot be decoded")
    turned = _orientation(data, suffix) if upright else 1
    if turned >= 5:
        picture = picture.transpose(1, 0, 2)
    if turned in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if turned in (3, 4, 7, 8):
        picture = picture[::-1]
    quality = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}  # over 100: lossless
    return cv2.imencode(suffix, np.ascontiguousarray(picture), quality.get(suffix, []))[1].tobytes()


def without_exif(data: bytes) -> bytes:
    """A JPEG without its EXIF segments, the picture untouched: no reader can turn it any more, and no place or camera
    stays in it."""
    for start, end in reversed(_exif(data)):
        data = data[:start] + data[end:]
    return data
