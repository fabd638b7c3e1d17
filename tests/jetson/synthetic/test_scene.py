"""Drawn scenes: the truth is where the drawing is, the same seed draws the same, and walkers move as people do."""

import numpy as np
import pytest

from jetson.synthetic import heads
from jetson.synthetic import scene as drawn


def plain_paste(frame, sprite, x, y):
    """Alpha compositing a pixel at a time."""
    out = frame.copy()
    for row in range(sprite.colour.shape[0]):
        for column in range(sprite.colour.shape[1]):
            if 0 <= y + row < frame.shape[0] and 0 <= x + column < frame.shape[1]:
                for channel in range(3):
                    under = frame[y + row, x + column, channel] * (sprite.rest[row, column, channel] / 255.0)
                    above = int(sprite.colour[row, column, channel])
                    out[y + row, x + column, channel] = min(255, int(round(under)) + above)
    return out


@pytest.mark.parametrize("x, y", [(10, 8), (-12, -20), (50, 30), (200, 0), (-300, 5)])
def test_paste_is_alpha_compositing_cut_at_the_edges(x, y):
    random = np.random.RandomState(1)
    sprite = heads.head(random, 14, heads.WITH_MASK)
    frame = random.randint(0, 256, (48, 64, 3)).astype(np.uint8)
    wanted = plain_paste(frame, sprite, x, y)
    heads.paste(frame, sprite, x, y)
    assert np.abs(frame.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("face_px", [5, 12, 40, 150, 320])
def test_a_head_has_its_face_where_the_box_says(label, face_px):
    for seed in range(3):
        sprite = heads.head(np.random.RandomState(seed), face_px, label)
        height, width = sprite.rest.shape[:2]
        x1, y1, x2, y2 = sprite.box
        assert sprite.label == label and sprite.colour.dtype == np.uint8 and sprite.colour.shape == (height, width, 3)
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        assert 0.8 * face_px <= y2 - y1 <= 1.3 * face_px + 1
        inner = sprite.rest[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2)), 0]
        assert (inner < 128).mean() > 0.6  # an ellipse of face, and a rim of a pixel


@pytest.mark.parametrize("label", [0, 1, 2])
def test_everything_a_class_can_wear_is_drawn_and_differs(label, monkeypatch):
    pictures = []
    for name, _ in heads.WEARS[label]:
        monkeypatch.setitem(heads.WEARS, label, ((name, 1.0),))
        pictures.append(heads.head(np.random.RandomState(5), 60, label).colour)
    for i, one in enumerate(pictures):
        for other in pictures[i + 1 :]:
            assert np.abs(one.astype(int) - other).mean() > 0.2


def test_covered_counts_the_pixels_that_a_sprite_hides():
    sprite = heads.head(np.random.RandomState(3), 30, 1)
    random = np.random.RandomState(0)
    for _ in range(30):
        x, y = random.randint(-60, 60, 2)
        x1, y1 = random.randint(-30, 60, 2)
        box = np.array([x1, y1, x1 + random.randint(2, 50), y1 + random.randint(2, 50)])
        height, width = sprite.rest.shape[:2]
        hidden = sum(
            0 <= r - y < height and 0 <= c - x < width and sprite.rest[r - y, c - x, 0] < 128
            for r in range(box[1], box[3])
            for c in range(box[0], box[2])
        )
        area = float((box[2] - box[0]) * (box[3] - box[1]))
        assert heads.covered(box, sprite, x, y) == pytest.approx(hidden / area)


@pytest.mark.parametrize("wh", [(320, 240), (97, 61), (48, 200)])
def test_scene_is_labelled_inside_the_frame_and_repeatable(wh):
    for seed in range(4):
        frame, xyxy, labels = drawn.scene(seed, wh)
        assert frame.shape == (wh[1], wh[0], 3) and frame.dtype == np.uint8 and frame.flags["C_CONTIGUOUS"]
        assert xyxy.shape == (len(labels), 4) and xyxy.dtype == np.float32
        assert set(labels.tolist()) <= {0, 1, 2}
        assert (xyxy[:, 2:] > xyxy[:, :2]).all() and (xyxy >= 0).all()
        assert (xyxy <= np.array(wh * 2)).all()
        again = drawn.scene(seed, wh)
        assert all(np.array_equal(a, b) for a, b in zip((frame, xyxy, labels), again))
        assert not np.array_equal(frame, drawn.scene(seed + 100, wh)[0])


def test_scenes_hold_all_classes_many_sizes_and_empty_ones():
    found = [drawn.scene(seed, (320, 240)) for seed in range(24)]
    labels = np.concatenate([labels for _, _, labels in found])
    heights = np.concatenate([xyxy[:, 3] - xyxy[:, 1] for _, xyxy, _ in found])
    assert {0, 1, 2} == set(labels.tolist())
    assert heights.min() < 14 and heights.max() > 96 and ((heights > 20) & (heights < 60)).any()
    assert any(len(labels) == 0 for _, _, labels in found) and max(len(labels) for _, _, labels in found) > 6


def test_the_number_of_faces_can_be_asked_for():
    frame, xyxy, labels = drawn.scene(4, (320, 240), faces=0)
    assert xyxy.shape == (0, 4) and labels.shape == (0,)
    assert all(0 < len(drawn.scene(seed, (640, 480), faces=3)[2]) <= 3 for seed in range(5))


def test_what_is_labelled_is_drawn():
    for seed in range(5):
        empty = drawn.ground(np.random.RandomState(seed), (320, 240)).astype(int)
        frame, xyxy, _ = drawn.scene(seed, (320, 240), faces=2)
        for x1, y1, x2, y2 in np.round(xyxy).astype(int):
            if (x2 - x1) * (y2 - y1) > 60:
                assert np.abs(frame[y1:y2, x1:x2].astype(int) - empty[y1:y2, x1:x2]).mean() > 12


def test_a_moving_scene_depends_on_time_alone():
    forwards = drawn.Scene(7, (320, 240))
    frames = [forwards.frame(t / 10.0) for t in range(12)]
    backwards = drawn.Scene(7, (320, 240))
    for number in reversed(range(12)):
        again = backwards.frame(number / 10.0)
        assert all(np.array_equal(a, b) for a, b in zip(frames[number], again))


def test_walkers_keep_label_and_id_move_smoothly_and_come_and_go():
    scene = drawn.Scene(3, (200, 150))
    seen, labels_of, longest = {}, {}, 0
    for tick in range(900):
        frame, xyxy, labels, ids = scene.frame(tick / 30.0)
        assert frame.shape == (150, 200, 3) and len(xyxy) == len(labels) == len(ids) == len(set(ids.tolist()))
        assert (xyxy[:, 2:] > xyxy[:, :2]).all() and (xyxy >= 0).all() and (xyxy <= [200, 150, 200, 150]).all()
        for box, label, identity in zip(xyxy, labels.tolist(), ids.tolist()):
            assert labels_of.setdefault(identity, label) == label
            if identity in seen and seen[identity][0] == tick - 1:
                assert np.abs(box - seen[identity][1]).max() < 8  # px in a thirtieth of a second
            seen[identity] = tick, box
        longest = max(longest, len(ids))
    assert longest >= 2 and len(seen) > longest  # somebody left and somebody came
    assert len(set(labels_of.values())) >= 2


def test_a_moving_scene_with_a_number_of_faces():
    assert all(len(drawn.Scene(1, (160, 120), faces=1).frame(t)[3]) <= 1 for t in range(5))
    assert len(drawn.Scene(1, (160, 120), faces=0).frame(0.0)[3]) == 0
