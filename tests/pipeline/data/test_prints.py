"""Drawn prints: an image and its weight, repeatable; in a canvas they never lie on a face."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.synthetic.scene import scene
from pipeline import config
from pipeline.data import prints
from pipeline.training import augment
from pipeline.training.canvas import Sheet


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), width=st.floats(1, 300))
def test_a_print_is_an_image_with_its_weight_and_repeats(seed, width):
    colour, alpha = prints.draw_print(width, np.random.default_rng(seed))
    assert colour.dtype == np.uint8 and alpha.dtype == np.float32
    assert colour.shape == (*alpha.shape, 3)
    assert alpha.shape[1] == max(prints.SMALLEST_PX, round(width))
    assert alpha.min() >= 0 and alpha.max() <= 1
    assert alpha[alpha.shape[0] // 2, alpha.shape[1] // 2] > 0.5  # the middle is cloth, whatever its outline
    again = prints.draw_print(width, np.random.default_rng(seed))
    assert (again[0] == colour).all() and (again[1] == alpha).all()


def test_prints_differ_and_show_ink_on_cloth():
    drawn = [prints.draw_print(96, np.random.default_rng(seed))[0] for seed in range(12)]
    assert len({picture.tobytes() for picture in drawn}) == 12
    for picture in drawn:
        assert picture.std() > 8  # more than one flat colour


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([128, 256, 320]))
def test_a_print_changes_the_picture_and_neither_truth_nor_faces(seed, size):
    """The same canvas with and without: the pixels of every face and the truth are as they were."""
    image, boxes, labels = scene(seed, (size, size), 3)
    sheet = Sheet(size, config.load().augment)
    sheet.image[:] = image
    sheet.add(boxes, labels.astype(np.int32), np.zeros((0, 4), np.float32), (0, 0, size, size))
    before = [part.copy() for part in sheet.truth()]
    augment._print(sheet, np.random.default_rng(seed))
    for old, new in zip(before, sheet.truth()):
        assert (old == new).all()
    changed = (sheet.image != image).any(axis=2)
    for x1, y1, x2, y2 in np.concatenate([before[0], before[2]]).astype(int):
        assert not changed[y1:y2, x1:x2].any()


def test_prints_do_get_drawn():
    """An empty canvas always has room for one."""
    sheet = Sheet(256, config.load().augment)
    empty = sheet.image.copy()
    augment._print(sheet, np.random.default_rng(0))
    assert (sheet.image != empty).any()
