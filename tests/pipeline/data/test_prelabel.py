"""Drafts by a detector come back as they were written; and of many photographs the right ones are chosen."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_import import jetmask
from test_import_tools import boxes_of

from jetson.synthetic import scene
from pipeline.data import layout, leak, select
from pipeline.data.select import Candidate


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Drawn heads in two folders, two of one name, one that EXIF turns, and one file that is no picture."""
    root = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(("a.jpg", "b.png", "in/a.jpg", "in/ü b.jpg")):
        frame, _, _ = scene.scene(number + 5, (480, 360), 2)
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(cv2.imencode(Path(name).suffix, frame)[1].tobytes())
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    plain = (root / "a.jpg").read_bytes()
    (root / "a.jpg").write_bytes(plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:])
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return root


@pytest.fixture(scope="module")
def right(photos, tmp_path_factory):
    """The boxes of the drafts, by the COCO that was written."""
    out = tmp_path_factory.mktemp("coco") / "out"
    jetmask("prelabel", photos, "--format", "coco", "--out", out, code=0)
    document = json.loads((out / "annotations" / "instances_default.json").read_text())
    found = {entry["file_name"]: [] for entry in document["images"]}
    names = {entry["id"]: entry["file_name"] for entry in document["images"]}
    for box in document["annotations"]:
        x, y, w, h = box["bbox"]
        assert 0 < box["score"] <= 1
        found[names[box["image_id"]]].append((box["category_id"] - 1, [x, y, x + w, y + h]))
    assert sum(map(len, found.values())) >= 3, "the drawn heads are found by the shipped detector"
    return found


@pytest.mark.parametrize("form", ["yolo", "voc", "coco", "label-studio"])
def test_what_is_drafted_is_imported_back(form, photos, right, tmp_path):
    out = tmp_path / "drafts"
    told = jetmask("prelabel", photos, "--format", form, "--out", out, "--json", code=0)
    summary = json.loads(told.stdout)
    assert summary["images"] == 4 == len(list((out / "images").iterdir())) and summary["left_out"] == 1
    assert "broken.jpg" in told.stderr
    jetmask("import", out, tmp_path / "back", code=0)
    back = boxes_of(tmp_path / "back")
    assert set(back) == set(right)
    for name, boxes in back.items():
        wanted = sorted(right[name])
        assert [label for label, _ in boxes] == [label for label, _ in wanted]
        for (_, one), (_, other) in zip(boxes, wanted, strict=True):
            assert np.abs(np.array(one) - other).max() < 0.11


def test_a_turned_photograph_is_written_as_viewers_show_it(photos, tmp_path):
    jetmask("prelabel", photos, "--out", tmp_path / "drafts", code=0)
    shown = cv2.imread(str(photos / "a.jpg"))
    copy = cv2.imread(str(tmp_path / "drafts" / "images" / "a.jpg"), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert copy.shape == shown.shape == (480, 360, 3)


def test_a_corrected_export_of_label_studio_comes_back(photos, right, tmp_path):
    """What it exports after a correction: annotations beside the predictions, under the pictures' names."""
    out = tmp_path / "drafts"
    jetmask("prelabel", photos, "--format", "label-studio", "--out", out, code=0)
    tasks = json.loads((out / "tasks.json").read_text())
    for number, task in enumerate(tasks):
        result = [dict(r, origin="prediction") for r in task["predictions"][0]["result"]]
        for region in result:
            region.pop("score")
        kept = result[1:] if number == 0 else result
        task.update(id=number, annotations=[{"id": number, "was_cancelled": False, "result": kept}])
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    jetmask("import", tmp_path / "export.json", tmp_path / "back", "--images", out / "images", code=0)
    removed = min(1, len(tasks[0]["predictions"][0]["result"]))
    back = boxes_of(tmp_path / "back")
    assert sum(map(len, back.values())) == sum(map(len, right.values())) - removed


@pytest.mark.parametrize("words, code", [(("--score", "2"), 2), (("--variant", "none"), 2), (("--format", "x"), 2)])
def test_settings_that_cannot_be(words, code, photos, tmp_path):
    jetmask("prelabel", photos, "--out", tmp_path / "o", *words, code=code)
    assert not (tmp_path / "o").exists()


def test_a_folder_without_photographs(tmp_path):
    (tmp_path / "s").mkdir()
    jetmask("prelabel", tmp_path / "s", code=3)
    jetmask("prelabel", tmp_path / "none", code=3)
    (tmp_path / "s" / "a.jpg").write_bytes(b"no picture")
    jetmask("prelabel", tmp_path / "s", code=3)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def candidates(values, rng=None):
    rng = rng or np.random.default_rng(0)
    return [
        Candidate(Path(f"{i:03d}.jpg"), value, select.looks(rng.integers(0, 256, (48, 64, 3), np.uint8)))
        for i, value in enumerate(values)
    ]


def far(count):
    """Hashes that differ in many bits, and so do their mirrors."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 2**63, count, dtype=np.uint64) * 2 + 1, rng.integers(0, 2**63, count, dtype=np.uint64) * 2


def test_the_unsure_come_first_and_near_duplicates_never():
    found = candidates([0.1, 0.9, 0.9, 0.5])
    hashed, mirrored = far(4)
    hashed[2] = hashed[1] ^ np.uint64(7)  # three bits from it
    chosen = select.choose(found, 4, hashed, mirrored)
    names = [c.path.name for c in chosen]
    assert names[0] in ("001.jpg", "002.jpg") and len(names) == 3 and len({"001.jpg", "002.jpg"} & set(names)) == 1
    known = select.choose(found, 4, hashed, mirrored, hashed[1:2])
    assert [c.path.name for c in known] == [n for n in names if n not in ("001.jpg", "002.jpg")]


def test_a_mirror_image_is_a_near_duplicate():
    hashed, mirrored = far(2)
    mirrored[0], mirrored[1] = hashed[1], hashed[0]
    assert len(select.choose(candidates([0.5, 0.5]), 2, hashed, mirrored)) == 1


def test_unlike_ones_are_taken_before_more_of_the_same():
    """Three of one place and one of another, all as unsure: the other place is the second that is taken."""
    rng = np.random.default_rng(2)
    place = rng.integers(0, 256, (48, 64, 3), np.uint8)
    same = [
        Candidate(Path(f"same{i}.jpg"), 0.5, select.looks(np.clip(place.astype(int) + i, 0, 255).astype(np.uint8)))
        for i in range(3)
    ]
    other = Candidate(Path("other.jpg"), 0.5, select.looks(255 - place))
    hashed, mirrored = far(4)
    assert "other.jpg" in [c.path.name for c in select.choose([*same, other], 2, hashed, mirrored)]


def test_the_order_of_the_files_changes_nothing():
    found = candidates(np.random.default_rng(3).random(20))
    hashed, mirrored = far(20)
    mixed = np.random.default_rng(4).permutation(20)
    again = select.choose([found[i] for i in mixed], 8, hashed[mixed], mirrored[mixed])
    assert again == select.choose(found, 8, hashed, mirrored)


def test_select_writes_the_photographs_and_why(photos, tmp_path):
    told = jetmask("select", photos, tmp_path / "out", "--count", 2, "--json", code=0)
    rows = json.loads(told.stdout)["selected"]
    assert len(rows) == 2 and rows == json.loads((tmp_path / "out" / "selected.json").read_text())
    for row in rows:
        assert (tmp_path / "out" / "images" / row["file"]).read_bytes() == Path(row["from"]).read_bytes()
    jetmask("select", photos, tmp_path / "more", "--count", 50, code=0)
    jetmask("select", photos, tmp_path / "zero", "--count", 0, code=2)
    everything = leak.images_of(photos)
    jetmask("import", photos, tmp_path / "none", code=3)  # photographs alone are no labels
    assert everything
    jetmask("select", photos, tmp_path / "held", "--against", photos, "--against", photos / "in", code=3)
    assert not (tmp_path / "held").exists() and layout
