"""Frames through shared memory: each whole, none overwritten while somebody has it, and none lost without it."""

import os

import cv2
import numpy as np
import pytest
from serving import wait_for

from jetson.capture import camera, shared, source


class Both:
    """Writer and reader in one process."""

    def __init__(self):
        self.memory = shared.Memory()
        self.returned, back = os.pipe()
        self.memory.returns_through(os.fdopen(back, "wb", 0))
        self.writer = shared.Writer(os.dup(self.memory.fd), self.returned)

    def close(self):
        self.memory.close()
        os.close(self.returned)


@pytest.fixture()
def both():
    made = Both()
    yield made
    made.close()


def picture(number, wh=(37, 23)):
    return np.random.RandomState(number).randint(0, 256, (wh[1], wh[0], 3)).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_frames_come_through_whole_and_stay_while_they_are_held(both, seed):
    random = np.random.RandomState(seed)
    held = []
    for number in range(200):
        frame = picture(number)
        if number and random.randint(2):  # read straight into the shared memory, as a video is
            room = both.writer.room()
            room[...] = frame
            place = both.writer.place(room)
        else:
            place = both.writer.place(frame)
        image, lent = both.memory.frame(place, 37, 23)
        held.append((number, image, lent))
        for before, seen, _ in held:
            assert (seen == picture(before)).all()
        while len(held) == shared.SLOTS or (held and random.randint(3) == 0):
            held.pop(random.randint(len(held)))[2].give_back()


def test_a_frame_of_another_size_goes_through_the_pipe(both):
    assert both.writer.room() is None
    assert both.writer.place(picture(0)) is not None
    assert both.writer.place(picture(1, (23, 37))) is None
    assert both.writer.place(picture(2)) is not None


def test_the_end_of_the_runner_ends_the_wait_for_a_free_place(both):
    for number in range(shared.SLOTS):
        both.writer.place(picture(number))
    both.memory.close()
    with pytest.raises(BrokenPipeError):
        both.writer.room()


def test_frames_stay_valid_after_the_end(both):
    place = both.writer.place(picture(0))
    image, lent = both.memory.frame(place, 37, 23)
    both.memory.close()
    lent.give_back()
    assert (image == picture(0)).all()


def test_a_place_that_is_none_is_refused(both):
    both.writer.place(picture(0))
    for place, wh in ((shared.SLOTS, (37, 23)), (0, (4000, 3000))):
        with pytest.raises(ValueError):
            both.memory.frame(place, *wh)


@pytest.fixture()
def folder(tmp_path):
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), picture(number, [(64, 48), (48, 64), (64, 48)][number % 3]))
    return tmp_path


@pytest.mark.parametrize("memory", [True, False])
def test_all_frames_come_with_and_without_shared_memory(folder, monkeypatch, memory):
    if not memory:

        def none(self):
            raise OSError("no memory files")

        monkeypatch.setattr(shared.Memory, "__init__", none)
    cam = camera.Camera(source.parse(str(folder), fps=0, loop=False), every_frame=True).start()
    try:
        for number in range(12):
            frame = wait_for(cam.take, "a frame; last error: " + cam.last_error)
            assert frame.extra["file"] == f"{number:02}.png"
            assert (frame.image == cv2.imread(str(folder / f"{number:02}.png"))).all()
            assert isinstance(frame._buffer, shared.Lent) == (memory and number % 3 != 1)
            frame.release()
        wait_for(lambda: cam.over, "the end")
        assert not cam.broken
    finally:
        cam.stop()
