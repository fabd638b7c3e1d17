"""Drawn masks: where they are, what they are called, and that they stay within the picture and the face."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import masks

SKIN = (112, 135, 172)


def bare(wh=(240, 260), colour=SKIN):
    rng = np.random.default_rng(1)
    image = np.full((wh[1], wh[0], 3), colour, np.float32) + rng.normal(0, 6, (wh[1], wh[0], 1))
    return image.clip(0, 255).astype(np.uint8)


def test_a_mask_well_worn_covers_nose_to_chin_and_leaves_the_eyes():
    box = np.array([60, 60, 180, 200], np.float32)
    rng = np.random.default_rng(0)
    for _ in range(40):
        image = bare()
        before = image.copy()
        assert masks.draw_mask(image, box, rng, incorrect=0) == masks.WITH_MASK
        changed = np.abs(image.astype(int) - before).max(2) > 12
        assert not changed[: 60 + 18].any() and not changed[60 + int(1.35 * 140) :].any()
        assert not changed[:, : 60 - 16].any() and not changed[:, 180 + 16 :].any()
        assert not changed[60 + 20 : 60 + 35, 105:135].any()  # between the eyes


def test_most_masks_change_most_of_the_lower_face():
    box, rng, shares = np.array([60, 60, 180, 200]), np.random.default_rng(0), []
    for _ in range(60):
        image = bare()
        before = image.copy()
        masks.draw_mask(image, box, rng, incorrect=0)
        shares.append((np.abs(image.astype(int) - before).max(2) > 12)[60 + 75 : 60 + 125, 90:150].mean())
    assert np.mean(np.array(shares) > 0.8) > 0.85  # a skin-coloured mask hides on skin


def test_badly_worn_masks_leave_the_nose_free_and_are_called_so():
    box, rng = np.array([60, 60, 180, 200]), np.random.default_rng(3)
    for _ in range(40):
        image = bare()
        before = image.copy()
        assert masks.draw_mask(image, box, rng, incorrect=1) == masks.MASK_WORN_INCORRECT
        changed = np.abs(image.astype(int) - before).max(2) > 12
        assert not changed[60 + 30 : 60 + 75, 100:140].any() and changed.any()


def test_how_often_it_is_badly_worn_can_be_said_and_looks_vary():
    rng, box, pictures, labels = np.random.default_rng(0), np.array([20, 20, 60, 66]), set(), []
    for _ in range(300):
        image = bare((90, 100))
        labels.append(masks.draw_mask(image, box, rng, incorrect=0.25))
        pictures.add(image.tobytes())
    assert 0.17 < np.mean(np.array(labels) == 2) < 0.33 and len(pictures) == 300


def test_the_same_generator_state_draws_the_same():
    images = [bare(), bare()]
    labels = [masks.draw_mask(image, np.array([60, 60, 180, 200]), np.random.default_rng(9)) for image in images]
    assert labels[0] == labels[1] and np.array_equal(*images)


@pytest.mark.parametrize(
    "box", [(5, 5, 8, 9), (-200, 10, -100, 120), (20, 255, 60, 300), (230, 20, 330, 120), (10, 10, 10, 40)]
)
def test_a_face_too_small_or_out_of_the_picture_stays_bare(box):
    image = bare()
    before = image.copy()
    assert masks.draw_mask(image, np.array(box, np.float32), np.random.default_rng(0)) == masks.WITHOUT_MASK
    assert np.array_equal(image, before)


def test_a_grey_picture_stays_grey_and_a_dark_one_dark():
    for seed in range(20):
        grey = cv2.cvtColor(cv2.cvtColor(bare(), cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        masks.draw_mask(grey, np.array([60, 60, 180, 200]), np.random.default_rng(seed))
        assert np.ptp(grey.astype(int), axis=2).max() <= 2
        dark = bare(colour=(14, 18, 24))
        masks.draw_mask(dark, np.array([60, 60, 180, 200]), np.random.default_rng(seed), incorrect=0)
        assert dark[60 + 75 : 60 + 125, 90:150].mean() < 110


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.tuples(*[st.floats(-150, 250)] * 4),
    st.integers(0, 2**32),
    st.floats(0, 1),
)
def test_any_box_on_any_picture_is_safe_and_leaves_the_rest_alone(width, height, corners, seed, incorrect):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    frame = np.full((height + 8, width + 8, 3), 7, np.uint8)
    image = frame[4:-4, 4:-4]
    image[:] = 120
    label = masks.draw_mask(image, np.array([x1, y1, x2, y2]), np.random.default_rng(seed), incorrect)
    assert label in (0, 1, 2) and (label != 1 or (image == 120).all())
    frame[4:-4, 4:-4] = 7
    assert (frame == 7).all()


@pytest.mark.needs_data
def test_mined_ignore_regions_belong_to_images_and_touch_no_label(data_dir, root):
    mined = json.loads((Path(root) / "pipeline" / "training" / "mined_ignores.json").read_text())
    assert "CenterFace" in mined.pop("provenance")["found_by"]
    assert len(mined) > 100
    documents = {}
    for key, boxes in mined.items():
        split, name = key.split("/")
        document = documents.setdefault(split, json.loads((Path(data_dir) / split / "annotations.json").read_text()))
        image = next(i for i in document["images"] if i["file_name"] == f"images/{name}")
        labels = [a["bbox"] for a in document["annotations"] if a["image_id"] == image["id"]]
        for x, y, w, h, score in boxes:
            assert (
                0 <= x < x + w <= image["width"] + 0.1
                and 0 <= y < y + h <= image["height"] + 0.1
                and 0.35 <= score <= 1
            )
            for lx, ly, lw, lh in labels:
                inter = max(0, min(x + w, lx + lw) - max(x, lx)) * max(0, min(y + h, ly + lh) - max(y, ly))
                assert inter < 0.35 * (w * h + lw * lh - inter)
