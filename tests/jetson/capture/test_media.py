"""Video files whose containers say what OpenCV does not: turned, of uneven rate, cut off."""

import random
import struct
import time

import cv2
import numpy as np
import pytest

from jetson.capture import camera, media, source

WH = (64, 48)
ONE = 1 << 16
MATRICES = {0: (ONE, 0, 0, ONE), 90: (0, ONE, -ONE, 0), 180: (-ONE, 0, 0, -ONE), 270: (0, -ONE, ONE, 0)}


def write(path, frames=30, fps=15):
    """An MP4 whose left upper quarter is bright, and brighter from frame to frame."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, WH)
    assert writer.isOpened()
    for number in range(frames):
        image = np.full((WH[1], WH[0], 3), 20, np.uint8)
        image[: WH[1] // 2, : WH[0] // 2] = 150 + number
        writer.write(image)
    writer.release()
    return path


def turn(path, degrees):
    """Write the turn into the track header, as a telephone does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    a, b, c, d = MATRICES[degrees]
    struct.pack_into(">9i", data, at + (52 if data[at] == 1 else 40), a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))


def read(path, **options):
    """[(frame, second, at)] of a file, and its camera."""
    made = camera.Camera(source.parse(str(path), loop=False, **options), every_frame=True).start()
    found = []
    try:
        while not made.over:
            frame = made.take()
            if frame is None:
                time.sleep(0.001)
                continue
            found.append((frame.image.copy(), frame.second, frame.at))
            frame.release()
    finally:
        made.stop()
    return found, made


@pytest.mark.parametrize("degrees", sorted(MATRICES))
def test_a_turned_video_is_upright(tmp_path, degrees):
    """In every OpenCV: 4.6 turns what is turned by 90 degrees the wrong way round."""
    path = write(tmp_path / "phone.mp4", 3)
    plain = read(path)[0][0][0]
    turn(path, degrees)
    assert media.facts(str(path)) == media.Facts(degrees, 0, True)
    found = read(path)[0][0][0]
    assert (found == np.rot90(plain, -degrees // 90)).all()


def test_frames_come_at_the_times_of_the_container(tmp_path):
    """A time-to-sample table with two rates: 15 frames/s, and from frame 10 on a frame every second."""
    path = write(tmp_path / "uneven.mp4", 20)
    data = bytearray(path.read_bytes())
    at = data.index(b"stts") + 4
    count, frames, delta = struct.unpack_from(">III", data, at + 4)
    assert (count, frames) == (1, 20)
    # Room for a second entry is made out of the table's own box by a larger one: every parent grows by 8 bytes.
    data[at + 8 : at + 16] = struct.pack(">IIII", 10, delta, 10, 15 * delta)
    struct.pack_into(">I", data, at + 4, 2)
    for name in (b"stts", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        where = data.index(name) - 4
        struct.pack_into(">I", data, where, struct.unpack_from(">I", data, where)[0] + 8)
    if data.index(b"moov") < data.index(b"mdat"):
        pytest.skip("this OpenCV writes the index first")
    if b"edts" in data:  # an edit list would cut it to the old length
        data[data.index(b"edts") : data.index(b"edts") + 4] = b"free"
    path.write_bytes(bytes(data))
    found, made = read(path)
    seconds = [second for _, second, _ in found]
    wanted = [number / 15 for number in range(11)] + [10 / 15 + number for number in range(1, 10)]
    assert seconds == pytest.approx(wanted, abs=1e-3) and not made.broken
    assert np.diff([at for _, _, at in found]) == pytest.approx(np.diff(wanted), abs=1e-3)


def test_joined_recordings_are_one(tmp_path):
    """Two MPEG transport streams in one file, of 25 and 10 frames/s: the times begin again at the joint. The second
    was played at the rate of the first, in 0.8 s of its 2."""
    joined = tmp_path / "joined.ts"
    with open(str(joined), "wb") as file:
        for number, (fps, frames) in enumerate(((25, 50), (10, 20))):
            part = tmp_path / f"{number}.ts"
            writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"mp4v"), fps, WH)
            if not writer.isOpened():
                pytest.skip("this OpenCV writes no transport stream")
            for _ in range(frames):
                writer.write(np.full((WH[1], WH[0], 3), 90, np.uint8))
            writer.release()
            file.write(part.read_bytes())
    found, made = read(joined)
    seconds = [second for _, second, _ in found]
    assert len(seconds) == 70 and not made.broken
    steps = np.diff(seconds)
    assert steps[:49] == pytest.approx([0.04] * 49, abs=1e-3) and steps[50:] == pytest.approx([0.1] * 19, abs=1e-3)
    assert 0 < steps[49] <= 0.1 + 1e-3  # the container tells the rate of either


def test_uneven_times_are_played_at_their_times(tmp_path):
    """What came in 3.4 s of a video of 5.8 s was a frame rate, not its times."""
    begun = time.monotonic()
    times = []
    made = camera.Camera(source.parse(str(write(tmp_path / "a.mp4", 15)), loop=False)).start()
    try:
        while not made.over:
            frame = made.take()
            if frame is None:
                time.sleep(0.001)
                continue
            times.append((frame.arrived, frame.second))
            frame.release()
    finally:
        made.stop()
    # Not before its time, counted from the start of the process that reads; how much later is the machine's matter.
    assert len(times) == 15 and all(arrived - begun > second for arrived, second in times)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_is_cut_off_tells_where(tmp_path, share):
    """An index at the front, as cameras and web servers write it: the player learns of the end by reaching it."""
    path = write(tmp_path / "whole.mp4", 60)
    assert not read(path)[1].broken
    data = path.read_bytes()
    front = index_first(data)
    path.write_bytes(front)
    whole = read(path)
    assert len(whole[0]) == 60 and not whole[1].broken
    path.write_bytes(front[: int(len(front) * share)])
    found, made = read(path)
    if not found:
        assert "cut off" in made.broken
    else:
        assert len(found) < 60 and f"at {len(found) / 15:.1f} s of 4.0 s" in made.broken
        assert media.facts(str(path)).missing == len(front) - int(len(front) * share)


@pytest.mark.parametrize("seed", range(3))
def test_wherever_a_file_is_cut_what_is_missing_is_known(tmp_path, seed):
    """Read from the container alone, without decoding: at each of many places."""
    draw = random.Random(seed)
    path = write(tmp_path / "whole.mp4", 10 + seed)
    whole = index_first(path.read_bytes())
    first = whole.index(b"mdat") + 4
    for cut in [first, len(whole) - 1, len(whole)] + [draw.randrange(first, len(whole)) for _ in range(100)]:
        path.write_bytes(whole[:cut])
        assert media.facts(str(path)).missing == len(whole) - cut


def index_first(data):
    """An MP4 with the index before the pictures (as `faststart` does it)."""
    boxes, offset = [], 0
    while offset < len(data):
        length = struct.unpack_from(">I", data, offset)[0]
        boxes.append((data[offset + 4 : offset + 8], bytearray(data[offset : offset + length])))
        offset += length
    parts = dict(boxes)
    if [kind for kind, _ in boxes].index(b"moov") < [kind for kind, _ in boxes].index(b"mdat"):
        return data
    moov = parts[b"moov"]
    at = moov.index(b"stco") + 8
    for number in range(struct.unpack_from(">I", moov, at)[0]):
        place = at + 4 + 4 * number
        struct.pack_into(">I", moov, place, struct.unpack_from(">I", moov, place)[0] + len(moov))
    order = [kind for kind, _ in boxes if kind not in (b"moov",)]
    return bytes(parts[order[0]] + moov + b"".join(parts[kind] for kind in order[1:]))


def test_an_mp4_without_its_index_is_told_as_such(tmp_path):
    path = write(tmp_path / "recording.mp4", 20)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4 if data.index(b"moov") > data.index(b"mdat") else 40])
    found, made = read(path)
    assert not found and "no index" in made.broken


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 40, b"\0\0\0\x08ftyp" * 3, b"\x1aE\xdf\xa3\xff\xff", b"RIFF\0\0\0\0AVI "]
)
def test_a_damaged_head_says_nothing(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    assert media.facts(str(path)).missing == 0


def test_a_matroska_that_was_written_as_it_came_does_not_say_how_long_it_is(tmp_path):
    path = tmp_path / "x.mkv"
    head = b"\x1aE\xdf\xa3\x84abcd"
    path.write_bytes(head + b"\x18S\x80g\x01\xff\xff\xff\xff\xff\xff\xff" + b"x" * 100)
    assert media.facts(str(path)).missing == 0
    path.write_bytes(head + b"\x18S\x80g\x41\x00" + b"x" * 100)
    assert media.facts(str(path)).missing == 256 - 100
