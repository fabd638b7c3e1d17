"""Image files that are not whole, not what they are called, or turned by EXIF."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import imagefile
from pipeline.data.imagefile import BrokenImage

PICTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8), (0, 0), 2)
ENCODED = {
    ".jpg": cv2.imencode(".jpg", PICTURE)[1].tobytes(),
    ".png": cv2.imencode(".png", PICTURE)[1].tobytes(),
    ".bmp": cv2.imencode(".bmp", PICTURE)[1].tobytes(),
    ".webp": cv2.imencode(".webp", PICTURE)[1].tobytes(),
    "progressive": cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
    "restarts": cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_RST_INTERVAL, 1])[1].tobytes(),
}


def with_exif(data, orientation, order="<", thumbnail=b""):
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 2)
    tiff += struct.pack(order + "HHII", 0x010F, 2, 4, 0) + struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0" + tiff + struct.pack(order + "I", 0) + thumbnail
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def read(tmp_path, data):
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    return imagefile.read(path)


@pytest.mark.parametrize("kind", ENCODED)
def test_whole_files_are_known_by_their_content(kind, tmp_path):
    found = read(tmp_path, ENCODED[kind])
    assert found.wh == (53, 37) and found.suffix == (kind if kind[0] == "." else ".jpg") and found.turned == 1


@pytest.mark.parametrize("kind", ENCODED)
def test_a_file_cut_anywhere_is_broken(kind, tmp_path):
    data = ENCODED[kind]
    for length in sorted({*range(0, len(data), max(1, len(data) // 97)), len(data) - 2, len(data) - 1}):
        with pytest.raises(BrokenImage):
            read(tmp_path, data[:length])


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture(tmp_path):
    data = with_exif(ENCODED[".jpg"], 1, thumbnail=ENCODED[".jpg"])
    assert read(tmp_path, data).wh == (53, 37)
    with pytest.raises(BrokenImage, match="truncated"):
        read(tmp_path, data[:-40])


def test_a_flipped_bit_in_a_png_is_found(tmp_path):
    data = bytearray(ENCODED[".png"])
    data[len(data) // 2] ^= 4
    with pytest.raises(BrokenImage, match="checksum"):
        read(tmp_path, bytes(data))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_read_and_taken_out_without_touching_the_picture(orientation, order, tmp_path):
    data = with_exif(ENCODED[".jpg"], orientation, order)
    found = read(tmp_path, data)
    assert found.turned == orientation and found.wh == (53, 37)
    assert imagefile.without_exif(data) == ENCODED[".jpg"]
    # OpenCV agrees on what the tag means.
    turned = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert (turned.shape[:2] == (53, 37)) == (orientation >= 5)


def exif_chunk(suffix, orientation):
    """The picture as PNG or WebP with an EXIF orientation."""
    tiff = with_exif(b"", orientation)[10:]
    if suffix == ".png":
        data, body = ENCODED[".png"], b"eXIf" + tiff
        return data[:33] + struct.pack(">I", len(tiff)) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]
    chunks = cv2.imencode(".webp", PICTURE, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()[12:]
    head = b"VP8X" + struct.pack("<IBBBB", 10, 8, 0, 0, 0) + struct.pack("<I", 52)[:3] + struct.pack("<I", 36)[:3]
    body = head + chunks + b"EXIF" + struct.pack("<I", len(tiff)) + tiff + b"\0" * (len(tiff) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_copy_needs_no_reader_that_turns_it(orientation, suffix, tmp_path):
    """Turned or as it is stored, whatever the reader does about EXIF; PNG and WebP lose nothing."""
    data = with_exif(ENCODED[".jpg"], orientation) if suffix == ".jpg" else exif_chunk(suffix, orientation)
    assert read(tmp_path, data).turned == orientation and read(tmp_path, data).suffix == suffix
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    # By the JPEG's turn, which every OpenCV knows, of a picture without loss.
    seen = cv2.imdecode(np.frombuffer(with_exif(ENCODED[".jpg"], orientation), np.uint8), cv2.IMREAD_COLOR)
    for upright, wanted in ((False, stored), (True, seen)):
        copy = imagefile.plain(data, upright)
        found = read(tmp_path, copy)
        assert found.turned == 1 and found.suffix == suffix
        picture = cv2.imdecode(np.frombuffer(copy, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == wanted.shape
        near = 0 if not upright else 40  # a JPEG's loss
        assert np.abs(picture.astype(int) - wanted).max() <= near
        assert not upright or np.abs(picture.astype(int) - wanted).mean() < 5


def test_a_tiff_that_has_to_be_turned_is_refused(tmp_path):
    """OpenCV turns it in memory and cannot read it from disk: training would stop at what the check called clean."""
    tiff = bytearray(cv2.imencode(".tiff", PICTURE)[1].tobytes())
    (first,) = struct.unpack("<I", tiff[4:8])
    (count,) = struct.unpack("<H", tiff[first : first + 2])
    entries = [bytes(tiff[at : at + 12]) for at in range(first + 2, first + 2 + 12 * count, 12)]
    assert read(tmp_path, bytes(tiff)).turned == 1
    # In place of the planar configuration, which may be left out.
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) if e[:2] == b"\x1c\x01" else e for e in entries]
    tiff[first + 2 : first + 2 + 12 * count] = b"".join(sorted(entries, key=lambda e: struct.unpack("<H", e[:2])))
    with pytest.raises(BrokenImage, match="save it as PNG"):
        read(tmp_path, bytes(tiff))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(ENCODED)),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8),
    st.binary(max_size=40),
)
def test_any_damage_gives_an_image_or_a_clear_word(tmp_path_factory, kind, damage, tail):
    data = bytearray(ENCODED[kind])
    for at, value in damage:
        data[at % len(data)] = value
    try:
        found = read(tmp_path_factory.mktemp("image"), bytes(data) + tail)
        assert min(found.wh) > 0
    except BrokenImage as error:
        assert str(error)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=80),
    st.sampled_from((b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"BM", b"II*\0")),
)
def test_no_bytes_break_the_reader(tmp_path_factory, data, start):
    with pytest.raises(BrokenImage):
        read(tmp_path_factory.mktemp("image"), start + data)
