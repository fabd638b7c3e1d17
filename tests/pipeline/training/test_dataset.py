"""Augmented batches: seeded, in bounds, honest about what is cut."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from jetson.bundle.manifest import CLASSES
from jetson.errors import BadInput
from jetson.evaluation.average_precision import load_split
from pipeline import config
from pipeline.training import augment, dataset, image_cache
from pipeline.training.canvas import Sheet

CATEGORIES = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two splits of noise images with boxes; one holds a photo without faces."""
    top = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("negatives", 9)):
        (top / split / "images").mkdir(parents=True)
        images, annotations = [], []
        for i in range(count):
            h, w = rng.integers(60, 200, 2)
            cv2.imwrite(str(top / split / "images" / (f"{i}.png")), rng.integers(0, 255, (h, w, 3), np.uint8))
            images.append(
                {
                    "id": i,
                    "file_name": f"images/{i}.png",
                    "width": int(w),
                    "height": int(h),
                    "ignore_boxes": [[1, 1, 5, 5]],
                }
            )
            for label in range(1, 4) if split == "train" else ():
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": i,
                        "category_id": label,
                        "bbox": [5 * label, 6, 20 + label, 30],
                    }
                )
        (top / split / "annotations.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES})
        )
    return top


@pytest.fixture(scope="module")
def pool(root):
    return dataset.read_pool(root, ["train", "negatives"])


@given(seed=st.integers(0, 10**6), size=st.sampled_from([64, 96, 160]), closing=st.booleans())
@settings(max_examples=60, deadline=None)
def test_canvas_truth_is_inside_and_large_enough(pool, seed, size, closing):
    settings_ = config.load().augment
    image, boxes, labels, ignore = augment.canvas(pool, size, settings_, np.random.default_rng(seed), closing)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert len(boxes) == len(labels)
    for b in (boxes, ignore):
        assert (b >= 0).all() and (b <= size).all() and (b[:, 2:] > b[:, :2]).all()
    if len(boxes):
        assert (boxes[:, 2:] - boxes[:, :2]).min() >= settings_.min_face_px


def test_the_same_index_gives_the_same_batch_and_photos_stay_untouched(pool):
    settings_ = config.load(None, ["train.sizes=[[64, 0.5], [96, 0.5]]", "train.batch_size=1"])
    before = [p.image().copy() for faces in pool.faces for p, _ in faces]
    a, b = dataset.Batches(pool, settings_, 3, 6), dataset.Batches(pool, settings_, 3, 6)
    order = [4, 0, 5, 2]
    first = {i: a[i] for i in order}
    for i in sorted(order):
        x, y = b[i]
        np.testing.assert_array_equal(x, first[i][0])
        for key in y:
            np.testing.assert_array_equal(y[key], first[i][1][key])
    other = dataset.Batches(pool, settings_, 4, 6)[0][0]
    assert other.shape != first[0][0].shape or (other != first[0][0]).any()
    for photo, image in zip((p for faces in pool.faces for p, _ in faces), before):
        np.testing.assert_array_equal(photo.image(), image)


def test_a_third_of_the_negatives_is_never_trained_on(root):
    everything = dataset.read_split(root / "negatives")
    kept = [p for group, _ in dataset.read_pool(root, ["negatives"]).scenes for p in group]
    out = [p for p in everything if dataset.held_out(p.path.name)]
    assert out and {p.path for p in kept} | {p.path for p in out} == {p.path for p in everything}
    assert not {p.path for p in kept} & {p.path for p in out}


def test_copies_of_a_judging_photograph_are_not_trained_on(root, tmp_path):
    """A re-compressed copy of a val photograph under another name stays out; another photograph stays in."""
    (tmp_path / "val" / "images").mkdir(parents=True)
    (tmp_path / "train" / "images").mkdir(parents=True)
    rng = np.random.default_rng(3)
    pictures = [
        cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
        for _ in range(2)
    ]
    cv2.imwrite(str(tmp_path / "val" / "images" / "judge.png"), pictures[0])
    cv2.imwrite(str(tmp_path / "train" / "images" / "copy.jpg"), pictures[0], [cv2.IMWRITE_JPEG_QUALITY, 70])
    cv2.imwrite(str(tmp_path / "train" / "images" / "other.jpg"), pictures[1])
    images = [
        {"id": i, "file_name": "images/" + n, "width": 160, "height": 120}
        for i, n in enumerate(("copy.jpg", "other.jpg"))
    ]
    annotations = [{"image_id": i, "category_id": 1, "bbox": [20, 20, 40, 40]} for i in range(2)]
    (tmp_path / "train" / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES})
    )
    pool = dataset.read_pool(tmp_path, ["train"], ["val", "test"])
    assert [p.path.name for p in pool.scenes[0][0]] == ["other.jpg"]
    assert len(dataset.read_pool(tmp_path, ["train"]).scenes[0][0]) == 2


def test_what_is_trained_on_is_what_is_measured(tmp_path):
    """Categories in another order and with other numbers, a crowd, and a photograph that EXIF would turn."""
    (tmp_path / "images").mkdir()
    _, data = cv2.imencode(".jpg", np.zeros((40, 60, 3), np.uint8))
    turned = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    (tmp_path / "images" / "a.jpg").write_bytes(data.tobytes()[:2] + turned + data.tobytes()[2:])
    (tmp_path / "annotations.json").write_text(
        json.dumps(
            {
                "categories": [
                    {"id": 0, "name": "without_mask"},
                    {"id": 1, "name": "mask_worn_incorrect"},
                    {"id": 5, "name": "with_mask"},
                ],
                "images": [
                    {"id": 7, "file_name": "images/a.jpg", "width": 60, "height": 40, "ignore_boxes": [[0, 0, 9, 9]]}
                ],
                "annotations": [
                    {"image_id": 7, "category_id": 5, "bbox": [10, 10, 20, 20]},
                    {"image_id": 7, "category_id": 0, "bbox": [30, 10, 20, 20]},
                    {"image_id": 7, "category_id": 0, "bbox": [1, 20, 8, 9], "iscrowd": 1},
                ],
            }
        )
    )
    (photo,), (truth,) = dataset.read_split(tmp_path), load_split(str(tmp_path))
    assert [CLASSES[k] for k in photo.labels] == ["with_mask", "without_mask"] == [CLASSES[k] for k in truth.labels]
    np.testing.assert_array_equal(photo.boxes, truth.xyxy)
    np.testing.assert_array_equal(photo.ignore, [[0, 0, 9, 9], [1, 20, 9, 29]])
    assert photo.image().shape == (40, 60, 3)


@pytest.mark.parametrize(
    "there, folders", [(["train"], ["train"]), (["train", "negatives"], ["train", "negatives"]), ([], ["train"])]
)
def test_without_names_the_folders_that_are_there_are_trained_on(there, folders, tmp_path):
    for name in there:
        (tmp_path / name).mkdir()
    assert dataset.folders_of(config.load(None, [f"data.root={tmp_path}"]).data) == folders
    named = config.load(None, [f"data.root={tmp_path}", "data.train=[train, typo]"]).data
    with refused(BadInput, names="tr"):
        dataset.read_pool(tmp_path, dataset.folders_of(named))


def test_truth_of_a_plain_placement_is_exact(pool):
    """Scale 2 into a canvas that holds the whole photo: boxes land where their pixels do."""
    image = np.zeros((40, 50, 3), np.uint8)
    image[10:30, 15:35] = 255
    box, none = np.array([[15, 10, 35, 30]], np.float32), np.zeros((0, 4), np.float32)
    photo = Plain(image, box, np.array([0], np.int32), none)
    sheet = Sheet(160, config.load().augment)
    sheet.place(photo, np.random.default_rng(5), (2.0, 2.0), (0, 0, 160, 160))
    ((x0, y0, x1, y1),) = sheet.truth()[0].astype(int)
    assert (x1 - x0, y1 - y0) == (40, 40)
    assert sheet.image[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].min() > 200
    sheet.flip()
    ((x0, y0, x1, y1),) = sheet.truth()[0].astype(int)
    assert sheet.image[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].min() > 200


class Plain(dataset.Photo):
    def image(self):
        return self.path


def test_missing_and_broken_folders_are_named(tmp_path):
    with refused(BadInput, where="annotations.json"):
        dataset.read_split(tmp_path)
    (tmp_path / "annotations.json").write_text("{")
    with refused(BadInput, where="annotations.json, line 1", names="JSON"):
        dataset.read_split(tmp_path)


def test_photographs_beyond_the_memory_are_decoded_again(root, monkeypatch, capsys):
    """With room for two of six: the same batches, two kept, and one word about it."""
    settings_ = config.load(None, ["train.sizes=[[64, 1.0]]", "train.batch_size=1"])

    def batches():
        monkeypatch.setattr(dataset, "_kept", image_cache.Kept())
        made = dataset.Batches(dataset.read_pool(root, ["train"]), settings_, 0, 12)
        return [made[i] for i in range(12)], dataset._kept

    roomy, kept = batches()
    largest = max(image.nbytes for image in kept.images.values())
    assert len(kept.images) == 6 and not capsys.readouterr().err
    monkeypatch.setattr(image_cache, "total", lambda: 2 * 2 * largest)
    tight, kept = batches()
    assert 2 <= len(kept.images) < 6
    assert kept.bytes == sum(image.nbytes for image in kept.images.values()) <= 2 * largest
    assert capsys.readouterr().err.count("note: memory holds") == 1
    for (x, y), (same_x, same_y) in zip(roomy, tight, strict=True):
        np.testing.assert_array_equal(x, same_x)
        assert all(np.array_equal(y[key], same_y[key]) for key in y)


def test_memory_is_what_the_container_allows(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(image_cache, "LIMITS", [str(tmp_path / "memory.max"), str(tmp_path / "none")])
    machine = image_cache.total()
    assert machine > 1 << 28
    (tmp_path / "memory.max").write_text("123456\n")
    assert image_cache.total() == 123456


def test_a_photograph_of_another_size_than_its_labels_is_not_trained_on(tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((60, 40, 3), np.uint8))  # turned after it was labelled
    (tmp_path / "annotations.json").write_text(
        json.dumps(
            {
                "categories": CATEGORIES,
                "images": [{"id": 1, "file_name": "images/a.png", "width": 60, "height": 40}],
                "annotations": [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}],
            }
        )
    )
    (photo,) = dataset.read_split(tmp_path)
    with refused(BadInput, where="a.png", names=["40 x 60", "60 x 40", "annotations.json"]):
        photo.image()


def test_a_speck_is_no_face_to_enlarge(tmp_path):
    """A box of a hundredth of a pixel, brought to the size of a face, would take gigabytes."""
    (tmp_path / "train" / "images").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "train" / "images" / "a.png"), np.zeros((40, 60, 3), np.uint8))
    boxes = [[10, 10, 0.01, 0.01], [20, 10, 5, 6]]
    (tmp_path / "train" / "annotations.json").write_text(
        json.dumps(
            {
                "categories": CATEGORIES,
                "images": [{"id": 1, "file_name": "images/a.png", "width": 60, "height": 40}],
                "annotations": [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes],
            }
        )
    )
    pool = dataset.read_pool(tmp_path, ["train"])
    assert [[k for _, k in faces] for faces in pool.faces] == [[1], [], []]


@pytest.mark.parametrize(
    "size, count", [(320, 32), (160, 128), (640, 8), (416, 19), (224, 65), (2560, 1), (4096, 1), (32, 3200)]
)
def test_a_batch_of_every_size_costs_the_same(size, count):
    """Pixels, not sides: a quarter of the images at twice the side; never none."""
    assert dataset.batch_count(32, size) == count


def test_the_mean_batch_and_the_steps_of_an_epoch():
    settings_ = config.load(
        None, ["train.sizes=[[320, 3], [640, 1]]", "train.batch_size=32", "train.images_per_epoch=2601"]
    )
    assert dataset.mean_batch(settings_) == (3 * 32 + 8) / 4  # 26
    assert dataset.steps_per_epoch(settings_) == 101  # 100.04 are begun
    assert dataset.steps_per_epoch(config.load(None, ["train.images_per_epoch=1"])) == 1


@pytest.mark.parametrize("lengths, padded", [((0,), 8), ((8, 1), 8), ((9, 0), 16), ((3, 17), 24)])
def test_padding_fills_up_to_a_multiple_of_eight(lengths, padded):
    arrays = [np.full((n, 4), 7, np.float32) for n in lengths]
    out = dataset.pad(arrays, -1)
    assert out.shape == (len(lengths), padded, 4) and out.dtype == np.float32
    for row, n in zip(out, lengths):
        assert (row[:n] == 7).all() and (row[n:] == -1).all()


def test_half_of_each_persons_pictures_are_left_out():
    """At most 8 bare faces of any 16 in a row; the rest of the photographs stay."""
    bare = [dataset.Photo(Path(f"{i:03d}"), np.zeros((1, 4)), np.array([1]), np.zeros((0, 4))) for i in range(64)]
    masked = [dataset.Photo(Path(f"m{i}"), np.zeros((1, 4)), np.array([0]), np.zeros((0, 4))) for i in range(9)]
    kept = dataset.one_person_capped([*masked, *bare])
    assert kept[:9] == masked
    assert [int(p.path.name) for p in kept[9:]] == list(range(0, 64, 2))
    assert [int(p.path.name) for p in dataset.one_person_capped(bare[::-1], most=4)] == list(range(60, -1, -4))
    assert dataset.one_person_capped(bare, most=16) == bare


def test_images_of_every_batch_are_those_of_its_size(pool):
    settings_ = config.load(None, ["train.sizes=[[32, 0.5], [64, 0.5]]"])
    settings_.train.batch_size = 1
    batches = dataset.Batches(pool, settings_, 0, 20)
    assert len(batches) == 20 and set(batches.sizes.tolist()) == {32, 64}
    at = batches.sizes.tolist().index(64)
    x, y = batches[at]
    assert x.shape == (25, 64, 64, 3) and x.dtype == np.float32
    assert y["boxes"].shape[:2] == y["labels"].shape and (y["labels"] >= -1).all()
    assert ((y["labels"] >= 0) == (y["boxes"][..., 2] > 0)).all()


@pytest.mark.parametrize(
    "name, common",
    [
        ("Face-Detection-2/train/images/IMG_4920_mov-21_jpg.rf.ceb23ea67c4085.jpg", "IMG__mov"),
        ("Face-Detection-2/train/images/IMG_4920_mov-7_jpg.rf.0000.jpg", "IMG__mov"),
        ("data/test/images/closed-eye-19134b22-3044-11ec-8940-302432df5bc8_jpg.rf.ee96.jpg", "closed-eye"),
        ("Face-Detection-2/valid/images/1-6532-_jpg.rf.3824d824245a1b05.jpg", None),
        ("0001.png", None),
        ("", None),
    ],
)
def test_frames_of_one_video_are_known_by_their_names(name, common):
    assert dataset.series(name) == common


def split_of(folder, entries):
    """A split of plain images; entries: (file name, original name, tags, number of faces)."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, (name, orig, tags, faces) in enumerate(entries):
        cv2.imwrite(str(folder / "images" / name), np.zeros((40, 60, 3), np.uint8))
        images.append({"id": number, "file_name": f"images/{name}", "width": 60, "height": 40, "source": "one",
                       "orig_name": orig, "tags": tags})  # fmt: skip
        annotations += [{"image_id": number, "category_id": 2, "bbox": [10, 10, 20, 20]}] * faces
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES})
    )


def test_one_person_gives_no_more_photographs_than_the_cap(tmp_path):
    """A video of ten frames is thinned evenly; scenes without a face, portraits and untagged pictures are not."""
    few = ["few_people"]
    split_of(
        tmp_path / "extra2",
        [(f"v{i}.jpg", f"man_mp4-{i}_jpg.rf.{i}.jpg", few, 1) for i in range(10)]
        + [(f"s{i}.jpg", f"street_mp4-{i}_jpg.rf.{i}.jpg", few, 0) for i in range(5)]
        + [(f"p{i}.jpg", f"1-{i}-_jpg.rf.{i}.jpg", few, 1) for i in range(5)]
        + [(f"u{i}.jpg", f"web_{i}.jpg", [], 1) for i in range(5)],
    )

    def names(most):
        ((photos, weight),) = dataset.read_pool(tmp_path, ["extra2"], (), most).scenes
        assert weight == dataset.WEIGHTS["extra2"] < dataset.WEIGHTS["train"]
        return [p.path.stem for p in photos]

    assert [n for n in names(3) if n[0] == "v"] == ["v0", "v3", "v6"]
    assert [n for n in names(3) if n[0] != "v"] == [n for n in names(0) if n[0] != "v"] and len(names(0)) == 25


def test_the_people_of_the_validation_lists_are_not_trained_on(tmp_path, monkeypatch):
    split_of(tmp_path / "extra2", [("a.jpg", "", [], 1), ("b.jpg", "", [], 1)])
    split_of(tmp_path / "train", [("a.jpg", "", [], 1)])
    (tmp_path / "held_out.json").write_text(json.dumps({"not_trained_on": {"extra2": ["a.jpg"]}}))
    monkeypatch.setattr(dataset, "HELD_OUT", tmp_path / "held_out.json")
    scenes = dataset.read_pool(tmp_path, ["train", "extra2"]).scenes
    assert [p.path.relative_to(tmp_path).as_posix() for photos, _ in scenes for p in photos] == [
        "train/images/a.jpg",
        "extra2/images/b.jpg",
    ]


def test_grey_and_dark_are_for_every_picture_when_asked_for():
    picture = np.full((8, 8, 3), (40, 120, 200), np.uint8)
    off = ["photometric", "blur", "noise", "jpeg", "low_resolution", "grey", "dark"]
    plain = {f"augment.{name}": 0 for name in off}

    def seen(**on):
        values = [f"{k}={v}" for k, v in {**plain, **{f"augment.{k}": v for k, v in on.items()}}.items()]
        return augment.photometric(picture, config.load(None, values).augment, np.random.default_rng(1))

    np.testing.assert_array_equal(seen(), picture)
    assert np.ptp(seen(grey=1), axis=2).max() == 0 and abs(int(seen(grey=1)[0, 0, 0]) - 135) <= 2
    dark = seen(dark=1)
    share = dark[0, 0] / picture[0, 0]
    assert (share < 1).all() and np.ptp(share) < 0.03 and share.min() > 0.27


def test_a_large_face_is_rather_one_that_need_not_be_enlarged(monkeypatch):
    """Of a small crop and a sharp portrait, the portrait, whatever the draw begins with."""
    none = np.zeros((0, 4), np.float32)
    small = Plain(np.zeros((60, 60, 3), np.uint8), np.array([[10, 10, 40, 40]], np.float32), np.array([1]), none)
    sharp = Plain(
        np.full((600, 600, 3), 255, np.uint8), np.array([[100, 100, 500, 500]], np.float32), small.labels, none
    )
    pool = dataset.Pool([], [[], [(small, 0), (sharp, 0)], []], [])
    taken = []
    monkeypatch.setattr(Sheet, "place", lambda self, photo, *_: taken.append(photo is sharp))
    for seed in range(60):
        augment._large(Sheet(320, config.load().augment), pool, np.random.default_rng(seed))
    assert np.mean(taken) > 0.85


def test_what_tells_masks_apart_is_not_drawn_on_other_classes(root):
    pool = dataset.read_pool(root, ["train"])
    mine = dataset.Batches(pool._replace(classes=("helmet", "head")), config.load(), 0, 2)
    assert (mine.augment.drawn, mine.augment.prints, mine.augment.drawn_masks) == (0.0, 0.0, 0.0)
    assert mine.augment.mosaic == config.load().augment.mosaic
    assert dataset.Batches(pool, config.load(), 0, 2).augment == config.load().augment


def test_the_shares_of_the_folders_with_faces_are_a_whole():
    assert sum(dataset.WEIGHTS[name] for name in ("train", "extra", "extra2", "crops")) == pytest.approx(1)
