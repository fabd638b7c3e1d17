"""Augmentation's rules one by one, on photographs made of one colour."""

import numpy as np
import pytest

from pipeline import config
from pipeline.training import augment, dataset
from pipeline.training.canvas import Sheet, overlap

SETTINGS = config.load().augment
NONE = np.zeros((0, 4), np.float32)


class Picture(dataset.Photo):
    """A photograph that is its own array."""

    def image(self):
        return self.path


def photo(wh=(200, 100), boxes=(), labels=(), colour=255, ignore=NONE):
    image = np.full((wh[1], wh[0], 3), colour, np.uint8)
    return Picture(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int32), ignore)


def pool(*photos, backgrounds=()):
    faces = [[(p, k) for p in photos for k in range(len(p.boxes)) if p.labels[k] == label] for label in range(3)]
    return dataset.Pool([(list(photos), 1.0)], faces, list(backgrounds))


def draws(function, count=300):
    return [function(np.random.default_rng(seed)) for seed in range(count)]


def test_a_zoom_keeps_its_bounds():
    """The long side becomes .55 to 1.7 of the canvas (both are reached), the sides by exp(.12) apart at most."""
    picture = photo((200, 100))
    scales = np.array(draws(lambda rng: augment._zoom(picture, 320, rng, SETTINGS)))
    middle = np.sqrt(scales[:, 0] * scales[:, 1]) * 200 / 320
    assert middle.min() > 0.55 - 1e-6 and middle.max() < 1.7 + 1e-6
    assert middle.min() < 0.6 and middle.max() > 1.6
    stretch = np.log(np.sqrt(scales[:, 0] / scales[:, 1]))
    assert np.abs(stretch).max() < 0.12 + 1e-6 and stretch.max() > 0.1 and stretch.min() < -0.1
    still = config.load(None, ["augment.scale=0"]).augment
    assert augment._zoom(picture, 320, np.random.default_rng(0), still) == (1.6, 1.6)


@pytest.mark.parametrize("wh, size", [((200, 100), 320), ((100, 200), 320), ((2000, 2000), 1280)])
def test_no_face_is_zoomed_beyond_what_a_detector_has_use_for(wh, size):
    """The largest side of the largest face ends under MAX_FACE_PX, and under 95 % of the canvas."""
    picture = photo(wh, [[0, 0, wh[0] * 0.9, wh[1] * 0.9], [0, 0, 5, 5]], [0, 1])
    scales = np.array(draws(lambda rng: augment._zoom(picture, size, rng, SETTINGS)))
    largest = max(wh) * 0.9 * np.sqrt(scales[:, 0] * scales[:, 1])
    limit = min(augment.MAX_FACE_PX, 0.95 * size)
    assert largest.max() <= limit + 1e-3
    assert largest.max() > limit - 1e-3  # the limit is what holds here, not the draw


def test_rare_classes_are_drawn_more_often_than_they_are():
    """Of 80 with a mask, 16 bare and 4 worn incorrectly; by single draws 16 % would be bare and 4 % incorrect."""
    photos = [photo(boxes=[[0, 0, 9, 9]], labels=[label]) for label in [0] * 80 + [1] * 16 + [2] * 4]
    some = pool(*photos)
    labels = np.array(draws(lambda rng: augment._pick(some, rng).labels[0], 3000))
    share = np.bincount(labels, minlength=3) / len(labels)
    worn = 1 - 0.96**3  # three draws
    bare = (1 - worn) * (1 - (0.8 / 0.96) ** 2)  # among the first draw's others: bare, or bare by one more
    assert share[2] == pytest.approx(worn, abs=0.02)
    assert share[1] == pytest.approx(bare, abs=0.03)


def test_scenes_are_drawn_by_their_weights():
    one, other = photo(), photo()
    mixed = dataset.Pool([([one], 3.0), ([other], 1.0)], [[], [], []], [])
    picked = draws(lambda rng: augment._pick(mixed, rng) is one, 1000)
    assert np.mean(picked) == pytest.approx(0.75, abs=0.05)


def test_faces_are_drawn_by_class_and_a_class_without_any_is_left_out():
    photos = [photo(boxes=[[0, 0, 9, 9]], labels=[label]) for label in [0] * 50 + [1] + [2] * 3]
    labels = np.array(draws(lambda rng: augment._pick_face(pool(*photos), rng)[0].labels[0], 1500))
    assert (np.bincount(labels, minlength=3) / 1500).tolist() == pytest.approx(augment.FACE_ODDS, abs=0.04)
    two = pool(*photos[:51])
    labels = np.array(draws(lambda rng: augment._pick_face(two, rng)[0].labels[0], 500))
    assert np.mean(labels == 1) == pytest.approx(0.46 / 0.88, abs=0.06)


def test_a_large_face_fills_its_share_of_the_canvas():
    """35 to 95 % of it by its longer side, and no more than MAX_FACE_PX."""
    wide = photo((400, 200), [[100, 50, 200, 100]], [0])
    for size in (320, 1280):
        sides = []
        for seed in range(150):
            sheet = Sheet(size, SETTINGS)
            placed = []
            sheet.place = lambda p, rng, scale, region, placed=placed: placed.append((scale, region))
            augment._large(sheet, pool(wide), np.random.default_rng(seed))
            ((scale, region),) = placed
            assert scale[0] == scale[1] and region == (0, 0, size, size)
            sides.append(100 * scale[0])
        high = min(0.95 * size, augment.MAX_FACE_PX)
        assert 0.35 * size <= min(sides) < 0.42 * size and 0.9 * high < max(sides) <= high + 1e-6


def test_a_pasted_face_lies_where_its_box_says():
    """A white face of 40 x 40 on black, pasted 80 px high: its box is 80 x 80, and white."""
    picture = photo((200, 200), [[80, 80, 120, 120]], [1], colour=0)
    picture.image()[80:120, 80:120] = 255
    still = config.load(None, ["augment.drawn_masks=0"]).augment
    found = 0
    for seed in range(40):
        sheet = Sheet(320, still)
        augment._paste(sheet, picture, 0, 80.0, np.random.default_rng(seed))
        boxes, labels, ignore = sheet.truth()
        assert len(boxes) == 1 and labels.tolist() == [1] and not len(ignore)
        x0, y0, x1, y1 = boxes[0]
        assert x1 - x0 == pytest.approx(80, abs=2) and y1 - y0 == pytest.approx(80, abs=2)
        middle = sheet.image[int(y0) + 30 : int(y1) - 30, int(x0) + 30 : int(x1) - 30]
        found += middle.min() > 200
        assert sheet.image[int(y0) - 4, int((x0 + x1) / 2)].max() < 200  # above the face is its surroundings
    assert found == 40


@pytest.mark.parametrize(
    "boxes, size, face_px, pasted",
    [
        ([[80, 80, 120, 120]], 320, 80.0, True),
        ([[80, 80, 120, 120], [110, 80, 150, 120]], 320, 80.0, False),  # a neighbour's half face in the patch
        ([[80, 80, 83, 120]], 320, 80.0, False),  # under 4 px
        ([[80, 80, 120, 83]], 320, 80.0, False),
        ([[80, 80, 84, 84]], 320, 80.0, True),
        ([[80, 80, 120, 120]], 320, 1.0, False),  # a speck
        ([[80, 80, 120, 120]], 80, 80.0, False),  # larger than the canvas
    ],
)
def test_what_is_pasted(boxes, size, face_px, pasted):
    picture = photo((200, 200), boxes, [0] * len(boxes))
    sheet = Sheet(size, config.load(None, ["augment.min_face_px=1"]).augment)
    augment._paste(sheet, picture, 0, face_px, np.random.default_rng(3))
    assert (len(sheet.boxes) == 1) is pasted
    assert bool((sheet.image == 255).any()) is pasted


def test_nothing_is_pasted_over_a_face():
    """A face under the patch by more than a tenth stays; the patch is not pasted."""
    picture = photo((200, 200), [[80, 80, 120, 120]], [0])
    for seed in range(20):
        sheet = Sheet(200, SETTINGS)
        sheet.add(np.array([[0, 0, 200, 200]], np.float32), [2], NONE, (0, 0, 200, 200))
        augment._paste(sheet, picture, 0, 60.0, np.random.default_rng(seed))
        small = Sheet(200, SETTINGS)
        small.add(np.array([[90, 90, 110, 110]], np.float32), [2], NONE, (0, 0, 200, 200))
        augment._paste(small, picture, 0, 60.0, np.random.default_rng(seed))
        assert 2 in small.labels or small.ignore
        for box, label in zip(small.boxes, small.labels):
            if label == 0 and 2 in small.labels:
                covered = small.boxes[small.labels.index(2)]
                assert overlap(covered, box) <= 0.16
        assert len(sheet.boxes) >= 1


def test_a_distractor_holds_no_face_and_covers_none():
    """From a photograph that is all face nothing is taken; onto a canvas that is all face nothing is put."""

    def changed(picture, truth):
        count = 0
        for seed in range(60):
            sheet = Sheet(160, SETTINGS)
            sheet.add(np.array(truth, np.float32).reshape(-1, 4), [0] * len(truth), NONE, (0, 0, 160, 160))
            augment._distract(sheet, pool(picture), np.random.default_rng(seed))
            count += bool((sheet.image == 255).any())
        return count

    assert changed(photo(), []) == 60
    assert changed(photo(boxes=[[0, 0, 200, 100]], labels=[0]), []) == 0
    assert changed(photo(ignore=np.array([[0, 0, 200, 100]], np.float32)), []) == 0
    assert changed(photo(), [[0, 0, 160, 160]]) == 0
    assert changed(photo((20, 20)), []) == 0  # at most 40 % of 20 px: no 8 px are left


def test_a_mosaic_has_four_tiles_that_fill_the_canvas():
    regions = []
    sheet = Sheet(320, SETTINGS)
    sheet.place = lambda p, rng, scale, region: regions.append((scale, region))
    for seed in range(50):
        regions.clear()
        augment._mosaic(sheet, pool(photo((100, 100))), np.random.default_rng(seed))
        (cx, cy) = regions[0][1][2:]
        assert [r for _, r in regions] == [(0, 0, cx, cy), (cx, 0, 320, cy), (0, cy, cx, 320), (cx, cy, 320, 320)]
        assert 80 <= cx <= 240 and 80 <= cy <= 240
        for scale, (x0, y0, x1, y1) in regions:
            share = np.sqrt(scale[0] * scale[1]) * 100 / max(x1 - x0, y1 - y0)
            assert 0.7 - 1e-6 <= share <= 1.9 + 1e-6


def test_a_print_is_no_face_and_lies_on_none():
    """Ink changes the picture, adds no truth, and stays off every face."""
    changed = 0
    for seed in range(60):
        sheet = Sheet(320, SETTINGS)
        sheet.add(np.array([[100, 40, 160, 110]], np.float32), [0], np.array([[0, 0, 40, 320]], np.float32),
                  (0, 0, 320, 320))  # fmt: skip
        before = sheet.image.copy()
        augment._print(sheet, np.random.default_rng(seed))
        touched = (sheet.image != before).any(axis=2)
        changed += bool(touched.any())
        assert not touched[40:110, 100:160].any() and not touched[:, :40].any()
        assert len(sheet.boxes) == 1 and len(sheet.ignore) == 1
    assert changed > 40


def test_a_print_may_reach_over_every_edge():
    """Its part that is in the picture is drawn, up to the last row and column."""
    edges = np.zeros(4, bool)
    for seed in range(150):
        sheet = Sheet(128, SETTINGS)
        sheet.add(np.array([[54, 20, 74, 100]], np.float32), [0], NONE, (0, 0, 128, 128))
        for corner in ((2, 2), (112, 2), (2, 112), (112, 112)):
            sheet.boxes[0] = np.array([*corner, corner[0] + 14, corner[1] + 14], np.float32)
            before = sheet.image.copy()
            augment._print(sheet, np.random.default_rng(seed))
            touched = (sheet.image != before).any(axis=2)
            edges |= [touched[:, 0].any(), touched[0].any(), touched[:, -1].any(), touched[-1].any()]
    assert edges[[0, 2, 3]].all()


def test_closing_epochs_have_whole_photographs_only():
    """No mosaic and no pasted faces at the end of a training; what is drawn by share 0 is not drawn at all."""
    kinds = []
    settings = config.load(None, ["augment.single=1", "augment.mosaic=5", "augment.paste=5", "augment.large=0",
                                  "augment.drawn=0"]).augment  # fmt: skip

    def spy(name):
        return lambda sheet, some, rng: kinds.append(name)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_mosaic", "_pasted", "_large"):
            patch.setattr(augment, name, spy(name))
        for seed in range(60):
            augment.canvas(pool(photo()), 64, settings, np.random.default_rng(seed), closing=True)
        assert not kinds
        for seed in range(60):
            augment.canvas(pool(photo()), 64, settings, np.random.default_rng(seed))
    assert set(kinds) == {"_mosaic", "_pasted"} and 45 <= len(kinds) < 60


def test_half_of_the_pasted_faces_have_soft_edges_but_no_small_one():
    """A hard edge would be learnt as a sign of a face; under 12 px a soft one would leave nothing of it."""
    picture = photo((200, 200), [[80, 80, 120, 120]], [1])

    def hard(face_px):
        count = 0
        for seed in range(60):
            sheet = Sheet(320, config.load(None, ["augment.drawn_masks=0", "augment.min_face_px=1"]).augment)
            augment._paste(sheet, picture, 0, face_px, np.random.default_rng(seed))
            rows, columns = np.nonzero((sheet.image == 255).all(axis=2))
            count += bool(len(rows)) and (sheet.image[rows.min() : rows.max() + 1, columns.min()] == 255).all()
        return count

    assert 15 <= hard(80.0) <= 45
    assert hard(5.0) == 60


def test_a_drawn_scene_keeps_its_boxes_up_to_the_canvas_edge(monkeypatch):
    whole = config.load(None, [f"augment.{name}=0" for name in ("single", "mosaic", "paste", "large", "prints", "flip",
                                                               "photometric", "erase")]).augment  # fmt: skip
    boxes = np.array([[0, 0, 20, 20], [44, 44, 64, 64]], np.float32)
    drawn = (np.zeros((64, 64, 3), np.uint8), boxes, np.array([0, 1]))
    monkeypatch.setattr(augment.scene, "scene", lambda seed, wh: drawn)
    _, found, labels, _ = augment.canvas(pool(photo()), 64, whole, np.random.default_rng(0))
    np.testing.assert_array_equal(found, boxes)
    assert labels.tolist() == [0, 1]
