"""Importers from outside: the same four images in four formats, then everything that can be wrong with them."""

import contextlib
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from jetson import cli
from jetson.errors import BadInput, UsageError
from jetson.evaluation.average_precision import load_split
from pipeline.cli import VERBS
from pipeline.data import check, importer, jsonfile, layout
from pipeline.data.classes import CLASSES, class_of, nearest_class

# file: (wh, [(class, x, y, w, h)])
TRUTH = {
    "a.jpg": ((80, 60), [("with_mask", 10, 12, 20, 24), ("without_mask", 40, 8, 16, 20)]),
    "b.png": ((64, 48), [("mask_worn_incorrect", 2, 3, 30, 31)]),
    "c.jpg": ((50, 70), []),
    "d (2)[x].jpg": ((90, 40), [("without_mask", 0, 0, 90, 40)]),
}
NUMBER = {name: i for i, name in enumerate(CLASSES)}


def picture(wh, seed):
    return np.random.default_rng(seed).integers(0, 256, (wh[1], wh[0], 3), np.uint8)


def draw_images(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, (wh, _)) in enumerate(TRUTH.items()):
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix, picture(wh, seed))[1].tobytes())


def coco_document():
    document = {
        "categories": [{"id": i + 7, "name": n} for i, n in enumerate(CLASSES)],
        "images": [],
        "annotations": [],
    }
    for name, (wh, boxes) in TRUTH.items():
        key = len(document["images"]) + 100
        document["images"].append({"id": key, "file_name": name, "width": wh[0], "height": wh[1]})
        for label, *box in boxes:
            document["annotations"].append(
                {"id": len(document["annotations"]), "image_id": key, "category_id": NUMBER[label] + 7, "bbox": box}
            )
    return document


def as_coco(folder, document=None):
    draw_images(folder / "images")
    (folder / "annotations.json").write_text(json.dumps(document or coco_document(), indent=1))
    return folder


def as_voc(folder):
    draw_images(folder / "images")
    (folder / "annotations").mkdir()
    for name, (wh, boxes) in TRUTH.items():
        objects = "".join(
            f"\n<object>\n<name>{label}</name>\n<bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
            f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox>\n</object>"
            for label, x, y, w, h in boxes
        )
        (folder / "annotations" / (Path(name).stem + ".xml")).write_text(
            f"<annotation>\n<filename>{name}</filename>\n<size><width>{wh[0]}</width><height>{wh[1]}</height></size>{objects}\n</annotation>\n"
        )
    return folder


def as_yolo(folder):
    draw_images(folder / "images")
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text("nc: 3\nnames: ['mask', 'no-mask', 'mask_weared_incorrect']\n")
    (folder / "README.roboflow.txt").write_text("Mask Wearing > 1 2020-01-01 a very nice data set with many words\n")
    for name, (wh, boxes) in TRUTH.items():
        lines = [
            f"{NUMBER[n]} {(x + w / 2) / wh[0]} {(y + h / 2) / wh[1]} {w / wh[0]} {h / wh[1]}"
            for n, x, y, w, h in boxes
        ]
        (folder / "labels" / (Path(name).stem + ".txt")).write_text("\n".join(lines) + "\n")
    return folder


def as_kitti(folder):
    draw_images(folder / "image_2")
    (folder / "label_2").mkdir()
    for name, (_, boxes) in TRUTH.items():
        lines = [f"{n} 0.00 0 -10 {x} {y} {x + w} {y + h} -1 -1 -1 -1000 -1000 -1000 -10" for n, x, y, w, h in boxes]
        (folder / "label_2" / (Path(name).stem + ".txt")).write_text("\n".join(lines) + "\n")
    return folder


class Done(NamedTuple):
    stdout: str
    stderr: str


def jetmask(*words, code):
    """The command line within this process: a new interpreter for each of these would take a second."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = cli.main(["data", *map(str, words)], "jetmask", VERBS)
    assert "internal error" not in err.getvalue() and found == code, err.getvalue()
    return Done(out.getvalue(), err.getvalue())


def tree(folder):
    """Everything below a folder, to see that nothing changed or stayed behind."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "folder"
        for p in sorted(folder.rglob("*"))
    }


def errors_of(source, **options):
    _, findings = check.check(importer.read(source, **options))
    return [f for f in findings if f.error]


@pytest.mark.parametrize("make", [as_coco, as_voc, as_yolo, as_kitti])
def test_every_format_gives_the_same_labels(make, tmp_path):
    source = make(tmp_path / "source")
    before = tree(source)
    jetmask("import", source, tmp_path / "out", code=0)
    assert tree(source) == before
    found = {Path(t.file).name: t for t in load_split(str(tmp_path / "out"))}
    assert set(found) == set(TRUTH)
    for seed, (name, (wh, boxes)) in enumerate(TRUTH.items()):
        truth = found[name]
        assert tuple(truth.wh) == wh and [CLASSES[i] for i in truth.labels] == [b[0] for b in boxes]
        wanted = np.array([[x, y, x + w, y + h] for _, x, y, w, h in boxes], float).reshape(-1, 4)
        assert np.abs(truth.xyxy - wanted).max(initial=0) < 0.002
        copy = (tmp_path / "out" / "images" / name).read_bytes()
        assert (
            copy == next(source / f / name for f in ("images", "image_2") if (source / f / name).is_file()).read_bytes()
        )
        assert cv2.imdecode(np.frombuffer(copy, np.uint8), 1).shape == picture(wh, seed).shape


def test_a_folder_of_two_formats_says_once_which_was_taken(tmp_path):
    source = as_voc(tmp_path / "s")
    (source / "labels").mkdir()
    (source / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    told = jetmask("import", source, tmp_path / "guessed", code=0)
    assert told.stderr.count("labels of yolo") == told.stderr.count("read as voc") == 1
    named = jetmask("import", source, tmp_path / "named", "--format", "voc", code=0)
    assert "note" not in named.stderr and tree(tmp_path / "named") == tree(tmp_path / "guessed")


def test_what_was_imported_is_clean_and_imports_again_to_the_same(tmp_path):
    as_voc(tmp_path / "source")
    jetmask("import", tmp_path / "source", tmp_path / "one", code=0)
    jetmask("check", tmp_path / "one", code=0)
    jetmask("import", tmp_path / "one", tmp_path / "two", code=0)
    one, two = ((tmp_path / n / "annotations.json").read_text().splitlines()[2:] for n in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    "broken, kind, line_has",
    [
        ({"bbox": [70, 10, 30, 20]}, "box outside", "70"),
        ({"bbox": [200, 10, 30, 20]}, "box outside", "200"),
        ({"bbox": [10, 10, 0, 20]}, "box empty", '"bbox"'),
        ({"bbox": [10, 10, -5, 20]}, "box empty", "-5"),
        ({"category_id": 99}, "class unknown", "99"),
        ({"image_id": 12345}, "image missing", "12345"),
    ],
)
def test_a_bad_box_is_named_with_its_line_and_stops_the_import(broken, kind, line_has, tmp_path):
    document = coco_document()
    document["annotations"][0].update(broken)
    source = tmp_path / "source"
    draw_images(source / "images")
    rows = ",\n".join(json.dumps(a) for a in document["annotations"])
    rest = json.dumps({k: v for k, v in document.items() if k != "annotations"})[1:-1]
    (source / "annotations.json").write_text(f'{{{rest},\n"annotations": [\n{rows}\n]\n}}\n')
    done = jetmask("import", source, tmp_path / "out", code=3)
    line = next(line for line in done.stderr.splitlines() if f": error: {kind}: " in line)
    place = line.split(": error: ")[0]
    assert place == f"{source / 'annotations.json'}:3"
    assert line_has in (source / "annotations.json").read_text().splitlines()[2]
    assert "nothing was written" in done.stderr and sorted(p.name for p in tmp_path.iterdir()) == ["source"]
    mended = jetmask("import", source, tmp_path / "out", "--mend", "--json", code=0)
    assert json.loads(mended.stdout)["errors"] == 1
    assert jetmask("check", tmp_path / "out", code=0)


def test_mended_boxes_are_cut_or_left_out_or_ignored(tmp_path):
    document = coco_document()
    image = document["images"][0]["id"]
    document["annotations"] = [
        {"id": 1, "image_id": image, "category_id": 7, "bbox": [70, 10, 30, 20]},
        {"id": 2, "image_id": image, "category_id": 99, "bbox": [1, 2, 3, 4]},
        {"id": 3, "image_id": image, "category_id": 8, "bbox": [5, 5, 6, 7], "iscrowd": 1},
        {"id": 4, "image_id": image, "category_id": 8, "bbox": [-0.4, 5, 6, 7]},
        {"id": 5, "image_id": image, "category_id": 8, "bbox": [10, 10, 6, 7]},
        {"id": 6, "image_id": image, "category_id": 8, "bbox": [10, 10, 6, 7]},
        {"id": 7, "image_id": image, "category_id": 7, "bbox": [10, 10, 6, 7]},
    ]
    entries, findings = check.check(importer.read(as_coco(tmp_path / "s", document)))
    entry = entries[0]
    assert entry.boxes == [[70, 10, 10, 20], [0, 5, 5.6, 7], [10, 10, 6, 7]] and entry.labels == [0, 1, 1]
    assert entry.ignore == [[1, 2, 3, 4], [5, 5, 6, 7]]
    assert sorted(f.kind for f in findings if f.error) == [
        "box contradicts",
        "box outside",
        "box twice",
        "class unknown",
    ]
    assert [f.kind for f in findings if not f.error] == ["box over the edge"]


def test_a_class_can_be_mapped_and_a_wrong_map_names_the_nearest(tmp_path):
    source = as_yolo(tmp_path / "s")
    (source / "data.yaml").write_text("names: {0: Maskierter Mensch, 1: bare, 2: half}\n")
    unknown = [f for f in errors_of(source) if f.kind == "class unknown"]
    assert len(unknown) == 4 and all(f.file.endswith(".txt") and f.line for f in unknown)
    entries, findings = check.check(
        importer.read(source), importer.mapping_of(["Maskierter Mensch=with_mask", "bare=without_mask", "half=ignore"])
    )
    assert not findings and sum(len(e.boxes) for e in entries) == 3 and sum(len(e.ignore) for e in entries) == 1
    with refused(UsageError, names=["--map 'x=withmask'", "x=with_mask"]):
        importer.mapping_of(["x=withmask"])
    assert class_of("Mask_Weared_Incorrect", {}) == "mask_worn_incorrect" and class_of("face", {}) is None
    assert nearest_class("wth_mask") == "with_mask" and nearest_class("class 0") is None


def test_one_slip_in_a_name_is_told_once_for_all_its_boxes(tmp_path):
    source = as_yolo(tmp_path / "s")
    (source / "data.yaml").write_text("names: {0: with_mask, 1: without_mesk, 2: 17}\n")
    told = jetmask("import", source, tmp_path / "out", code=3).stderr
    assert "2 x 'without_mesk' (the nearest is without_mask) -> " in told
    assert "--map 'without_mesk=without_mask'" in told
    assert "1 x '17' is none of with_mask, without_mask, mask_worn_incorrect -> " in told and "--map '17=CLASS'" in told


@pytest.mark.parametrize(
    "damage, kind",
    [
        (lambda p: p.unlink(), "image missing"),
        (lambda p: p.write_bytes(b""), "image broken"),
        (lambda p: p.write_bytes(b"hello, this is no picture"), "image broken"),
        (lambda p: p.write_bytes(p.read_bytes()[:-300]), "image broken"),
        (lambda p: p.write_bytes(cv2.imencode(".jpg", picture((81, 60), 0))[1].tobytes()), "image size"),
    ],
)
@pytest.mark.parametrize("make", [as_coco, as_voc])
def test_a_bad_image_is_named_and_left_out_when_mending(damage, kind, make, tmp_path):
    source = make(tmp_path / "s")
    damage(source / "images" / "a.jpg")
    done = jetmask("import", source, tmp_path / "out", code=3)
    assert f"error: {kind}: " in done.stderr and "a.jpg" in done.stderr and not (tmp_path / "out").exists()
    jetmask("import", source, tmp_path / "out", "--mend", code=0)
    assert {p.name for p in (tmp_path / "out" / "images").iterdir()} == set(TRUTH) - {"a.jpg"}


def test_a_wrong_extension_is_put_right_in_the_copy(tmp_path):
    source = as_coco(tmp_path / "s")
    (source / "images" / "a.jpg").write_bytes(cv2.imencode(".png", picture((80, 60), 9))[1].tobytes())
    done = jetmask("import", source, tmp_path / "out", code=0)
    assert "note: extension: a.jpg is png inside" in done.stderr
    assert (tmp_path / "out" / "images" / "a.png").is_file() and not (tmp_path / "out" / "images" / "a.jpg").exists()
    assert any(t.file.endswith("a.png") for t in load_split(str(tmp_path / "out")))


def test_voc_names_an_image_of_another_extension(tmp_path):
    source = as_voc(tmp_path / "s")
    xml = source / "annotations" / "a.xml"
    xml.write_text(xml.read_text().replace("a.jpg", "a.png"))
    _, findings = check.check(importer.read(source))
    assert [(f.kind, f.line, f.error) for f in findings] == [("extension", 2, False)]


def test_a_folder_is_listed_once_for_all_names_of_another_extension(tmp_path, monkeypatch):
    """For each of them it would take hours with tens of thousands. `a.front.jpg` is another picture than `a.jpg`."""
    document = coco_document()
    document["images"] = [{"id": i, "file_name": f"{i}.bmp", "width": 40, "height": 30} for i in range(40)]
    document["annotations"] = []
    source = as_coco(tmp_path / "s", document)
    for path in (source / "images").iterdir():
        path.rename(path.with_name(f"1.front{path.suffix}"))
    for i in range(2, 40):
        (source / "images" / f"{i}.jpg").write_bytes(cv2.imencode(".jpg", picture((40, 30), i))[1].tobytes())
    listed, scandir = Counter(), os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": listed.update([str(path)]) or scandir(path))
    monkeypatch.setattr(os, "listdir", lambda path=".", listdir=os.listdir: listed.update([str(path)]) or listdir(path))
    collection = importer.read(source)
    assert [i.image and i.image.name for i in collection.images] == [None, None, *(f"{i}.jpg" for i in range(2, 40))]
    assert len(collection.findings) == 38 and 1 <= listed[str(source / "images")] <= 2


def test_duplicates_are_found_and_told_apart_by_their_labels(tmp_path):
    for alike in (True, False):
        document = coco_document()
        source = as_coco(tmp_path / f"s{alike}")
        (source / "images" / "e.jpg").write_bytes((source / "images" / "a.jpg").read_bytes())
        document["images"].append({"id": 900, "file_name": "e.jpg", "width": 80, "height": 60})
        first = [a for a in document["annotations"] if a["image_id"] == 100]
        document["annotations"] += [
            {**a, "id": 50 + i, "image_id": 900} for i, a in enumerate(first if alike else first[:1])
        ]
        (source / "annotations.json").write_text(json.dumps(document))
        entries, findings = check.check(importer.read(source))
        assert [(f.kind, f.error) for f in findings] == [("image duplicate", not alike)]
        assert [e.name for e in entries] == list(TRUTH)


@pytest.mark.parametrize(
    "text, line",
    [
        ("this is no json", 1),
        ('{"images": [],\n "annotations": [\n {"id": 1,}]}', 3),
        ('{"images": [}', 1),
        ("", 1),
        ("[1, 2]", None),
        ('{"images": [], "annotations": []}', None),
        ('{"images": 3, "annotations": [], "categories": []}', None),
        ('{"a": 1} x', 1),
        ("[" * 100000, None),
    ],
)
def test_annotations_that_are_no_coco(text, line, tmp_path):
    (tmp_path / "annotations.json").write_text(text)
    done = jetmask("import", tmp_path, tmp_path / "out", code=3)
    assert str(tmp_path / "annotations.json") in done.stderr
    assert line is None or f"line {line}" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change", [{"bbox": [1, 2, 3]}, {"bbox": "x"}, {"bbox": [1, 2, float("nan"), 3]}, {"category_id": [1]}]
)
def test_an_entry_that_is_no_annotation_is_named_with_its_line(change, tmp_path):
    document = coco_document()
    document["annotations"][1].update(change)
    source = as_coco(tmp_path / "s", document)
    with refused(BadInput, where="annotations.json, line "):
        importer.read(source)


@pytest.mark.parametrize(
    "text, kind, line",
    [
        ("0 0.5 0.5 0.2\n", "label broken", 1),
        ("\n\n0 0.5 x 0.2 0.2\n", "label broken", 3),
        ("0.5 0.5 0.5 0.2 0.2\n", "label broken", 1),
        ("7 0.5 0.5 0.2 0.2\n", "class unknown", 1),
        ("0 1.5 0.5 0.2 0.2\n", "box outside", 1),
        ("0 0.5 0.5 0 0.2\n", "box empty", 1),
        ("0 0.5 0.5 0.2 1e-7\n", "box empty", 1),
    ],
)
def test_yolo_lines_that_are_wrong(text, kind, line, tmp_path):
    source = as_yolo(tmp_path / "s")
    (source / "labels" / "c.txt").write_text(text)
    assert [(f.file, f.line, f.kind) for f in errors_of(source)] == [(str(source / "labels" / "c.txt"), line, kind)]


def test_a_box_that_is_cut_to_a_sliver_is_left_out_and_what_is_written_can_be_read(tmp_path):
    """A ten-thousandth of a pixel is left of it inside the image: written, it would be a box without an area."""
    document = coco_document()
    document["annotations"][0]["bbox"] = [-20, 12, 20.0001, 24]
    jetmask("import", as_coco(tmp_path / "s", document), tmp_path / "out", "--mend", code=0)
    assert [len(truth.xyxy) for truth in load_split(str(tmp_path / "out"))] == [1, 1, 0, 1]


def test_yolo_polygons_become_their_box_and_missing_pairs_are_told(tmp_path):
    source = as_yolo(tmp_path / "s")
    (source / "labels" / "c.txt").write_text("1 0.2 0.1 0.6 0.3 0.4 0.9\n")
    (source / "labels" / "a.txt").unlink()
    (source / "labels" / "ghost.txt").write_text("0 .5 .5 .1 .1\n")
    entries, findings = check.check(importer.read(source))
    assert [e.boxes for e in entries if e.name == "c.jpg"] == [[[10, 7, 20, 56]]]
    assert [(Path(f.file).name, f.kind, f.error) for f in findings] == [
        ("a.jpg", "label missing", False),
        ("ghost.txt", "image missing", True),
    ]


@pytest.mark.parametrize("shape, each", [("[5, 2]", "0.45 0.5"), ("[5, 3]", "0.45 0.5 2")])
def test_key_points_of_a_pose_are_no_corners_of_an_outline(shape, each, tmp_path):
    source = as_yolo(tmp_path / "s")
    plain, _ = check.check(importer.read(source))
    with open(source / "data.yaml", "a") as file:
        file.write(f"kpt_shape: {shape}\n")
    for path in (source / "labels").iterdir():
        lines = path.read_text().split("\n")
        path.write_text("\n".join(f"{line} {' '.join([each] * 5)}" if line else "" for line in lines))
    entries, findings = check.check(importer.read(source))
    assert not findings and [e.boxes for e in entries] == [e.boxes for e in plain]
    (source / "data.yaml").write_text("names: [mask, no-mask, incorrect]\nkpt_shape: 17\n")
    with refused(BadInput, where="data.yaml, line 2", names=["kpt_shape", "17"]):
        importer.read(source)


@pytest.mark.parametrize(
    "text, kind",
    [
        ("with_mask 0 0 0 1 2 3\n", "label broken"),
        ("with_mask 0 0 0 a b c d 1 1 1 1 1 1 1\n", "label broken"),
        ("Cyclist 0 0 -10 1 2 30 40 -1 -1 -1 -1 -1 -1 -1\n", "class unknown"),
        ("with_mask 0 0 -10 30 2 1 40 -1 -1 -1 -1 -1 -1 -1\n", "box empty"),
    ],
)
def test_kitti_lines_that_are_wrong(text, kind, tmp_path):
    source = as_kitti(tmp_path / "s")
    (source / "label_2" / "c.txt").write_text("DontCare -1 -1 -10 1 1 9 9 -1 -1 -1 -1000 -1000 -1000 -10\n" + text)
    assert [(f.line, f.kind) for f in errors_of(source)] == [(2, kind)]
    entries, _ = check.check(importer.read(source))
    assert next(e for e in entries if e.name == "c.jpg").ignore[0] == [1, 1, 8, 8]


@pytest.mark.parametrize(
    "text, what",
    [
        ("<annotation><object>", "not XML"),
        ("<html></html>", "top element"),
        ("", "not XML"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "entities"),
    ],
)
def test_xml_that_is_no_voc(text, what, tmp_path):
    source = as_voc(tmp_path / "s")
    (source / "annotations" / "a.xml").write_text(text)
    entries, findings = check.check(importer.read(source))
    assert [(f.kind, Path(f.file).name) for f in findings if f.error] == [("label broken", "a.xml")]
    assert what in next(f.what for f in findings if f.error)
    assert [e.name for e in entries] == ["b.png", "c.jpg", "d (2)[x].jpg"]


def test_an_object_without_numbers_is_named_with_its_line(tmp_path):
    source = as_voc(tmp_path / "s")
    xml = source / "annotations" / "a.xml"
    xml.write_text(xml.read_text().replace("<xmin>40</xmin>", "<xmin>forty</xmin>"))
    found = errors_of(source)
    assert [(f.kind, f.line) for f in found] == [("box empty", 8)]
    assert xml.read_text().splitlines()[7] == "<object>"


def test_a_process_of_its_own_ends_with_the_code_and_no_traceback(tmp_path):
    source = as_coco(tmp_path / "s")
    (source / "images" / "a.jpg").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "data", "import", str(source), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3 and "Traceback" not in done.stderr and "error: image missing" in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_at_all(tmp_path):
    assert "the data folder does not exist" in jetmask("import", tmp_path / "none", tmp_path / "out", code=3).stderr
    (tmp_path / "empty").mkdir()
    assert "no labels found" in jetmask("import", tmp_path / "empty", tmp_path / "out", code=3).stderr
    as_coco(tmp_path / "two" / "train")
    as_coco(tmp_path / "two" / "val")
    told = jetmask("import", tmp_path / "two", tmp_path / "out", code=3).stderr
    assert "several data sets" in told and "two: train, val" in told and "--data" in told
    as_coco(tmp_path / "s")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    assert "already exists" in jetmask("import", tmp_path / "s", tmp_path / "out", code=2).stderr
    assert tree(tmp_path / "out").keys() == {"mine.txt"}
    assert "--mnd" in jetmask("import", tmp_path / "s", tmp_path / "new", "--mnd", code=2).stderr


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    entries, _ = check.check(importer.read(as_coco(tmp_path / "s")))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layout.shutil, "copyfile", full)
    with pytest.raises(OSError), layout.folder_aside(tmp_path / "out") as part:
        layout.write(part, entries, [], "")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_files_of_one_name_in_two_folders_both_come_along(tmp_path):
    source = tmp_path / "s"
    document = {"categories": [{"id": 1, "name": "with_mask"}], "annotations": [], "images": []}
    for number, part in enumerate(("x", "y")):
        (source / part).mkdir(parents=True)
        (source / part / "a.jpg").write_bytes(cv2.imencode(".jpg", picture((40, 30), number))[1].tobytes())
        document["images"].append({"id": number, "file_name": f"{part}/a.jpg", "width": 40, "height": 30})
    (source / "annotations.json").write_text(json.dumps(document))
    jetmask("import", source, tmp_path / "out", code=0)
    assert sorted(p.name for p in (tmp_path / "out" / "images").iterdir()) == ["a-2.jpg", "a.jpg"]


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=4), _values, max_size=5), st.sampled_from((None, 0, 1)))
def test_the_walk_over_the_top_object_reads_what_json_reads(tmp_path_factory, document, indent):
    path = tmp_path_factory.mktemp("coco") / "a.json"
    path.write_text(json.dumps(document, indent=indent))
    entries, line_of = jsonfile.read(path, "JSON")
    plain = {k: [e for e, _ in v] if isinstance(v, list) else v for k, (v, _) in entries.items()}
    assert plain == json.loads(path.read_text())
    lines = path.read_text().split("\n")
    for value, start in entries.values():
        for element, offset in value if isinstance(value, list) else [(value, start)]:
            if isinstance(element, str) and element.isalnum() and element.isascii():
                assert json.dumps(element) in lines[line_of(offset) - 1]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_the_json_reader(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("coco") / "a.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(BadInput):
        jsonfile.read(path, "JSON")


def with_exif(path, orientation):
    """Give the JPEG an EXIF orientation; its bytes before."""
    body = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    plain = path.read_bytes()
    path.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:])
    return plain


def test_an_image_turned_by_exif_is_told_and_copied_without(tmp_path):
    source = as_coco(tmp_path / "s")
    plain = with_exif(source / "images" / "a.jpg", 6)
    assert "note: exif turn: " in jetmask("import", source, tmp_path / "out", code=0).stderr
    assert (tmp_path / "out" / "images" / "a.jpg").read_bytes() == plain


def smooth(wh):
    """A picture that JPEG hardly changes, another in each corner."""
    corners = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [40, 40, 40]]], np.uint8)
    return cv2.imencode(".jpg", cv2.resize(corners, wh, interpolation=cv2.INTER_LINEAR))[1].tobytes()


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("make", [as_coco, as_voc, as_yolo, as_kitti])
def test_labels_made_on_the_picture_as_exif_turns_it_are_not_shifted(make, orientation, tmp_path):
    """What a phone and most labelling tools make together: the copy is turned, its labels are those of the source."""
    source = make(tmp_path / "s")
    path = next(source.rglob("a.jpg"))
    path.write_bytes(smooth((60, 80) if orientation > 4 else (80, 60)))
    with_exif(path, orientation)
    seen = cv2.imread(str(path)).astype(int)  # turned by OpenCV
    done = jetmask("import", source, tmp_path / "out", "--exif", "turned", code=0)
    assert "note: exif turn: a.jpg" in done.stderr and seen.shape == (60, 80, 3)
    (truth,) = [t for t in load_split(str(tmp_path / "out")) if t.file.endswith("a.jpg")]
    copy = cv2.imread(truth.file, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION).astype(int)
    assert truth.wh == (80, 60) and np.abs(copy - seen).max() < 12 and b"Exif" not in Path(truth.file).read_bytes()
    np.testing.assert_allclose(truth.xyxy, [[10, 12, 30, 36], [40, 8, 56, 28]], atol=2e-3)
    sized = make in (as_coco, as_voc)
    jetmask("import", source, tmp_path / "unsaid", code=0 if sized and orientation > 4 else 3)


@pytest.mark.parametrize("make", [as_yolo, as_kitti])
def test_what_nothing_tells_is_asked_for(make, tmp_path):
    """A label without a size beside a photograph that EXIF turns: either way may shift every box."""
    source = make(tmp_path / "s")
    plain = with_exif(next(source.rglob("a.jpg")), 3)
    with_exif(next(source.rglob("c.jpg")), 6)  # it has no face: nothing to ask
    done = jetmask("import", source, tmp_path / "out", code=3)
    assert done.stderr.count("error: exif turn: a.jpg") == 1 and "--exif stored" in done.stderr
    assert "note: exif turn: c.jpg" in done.stderr
    jetmask("import", source, tmp_path / "stored", "--exif", "stored", code=0)
    assert (tmp_path / "stored" / "images" / "a.jpg").read_bytes() == plain
    jetmask("import", source, tmp_path / "mended", "--mend", code=0)
    mended = cv2.imread(str(tmp_path / "mended" / "images" / "a.jpg")).astype(int)
    assert np.abs(mended - cv2.imread(str(next(source.rglob("a.jpg"))))).mean() < 40
    entries, _, _ = layout.load(tmp_path / "stored")  # what was written is clean
    assert len(entries) == len(TRUTH)


@pytest.mark.parametrize("name", ["/etc/hostname.jpg", "../secret.jpg", "images/../../secret.jpg"])
def test_a_label_cannot_fetch_pictures_from_elsewhere(name, tmp_path):
    document = coco_document()
    document["images"][0]["file_name"] = name
    source = as_coco(tmp_path / "s", document)
    (tmp_path / "secret.jpg").write_bytes((source / "images" / "a.jpg").read_bytes())
    assert [f.kind for f in errors_of(source)] == ["image missing"]


def test_one_split_of_a_yolo_export_finds_the_names_beside_it(tmp_path):
    source = as_yolo(tmp_path / "export" / "train")
    (source / "data.yaml").rename(tmp_path / "export" / "data.yaml")
    entries, findings = check.check(importer.read(source))
    assert not findings and [e.labels for e in entries] == [[0, 1], [2], [], [1]]
    whole, _ = check.check(importer.read(tmp_path / "export"))
    assert [(e.boxes, e.labels) for e in whole] == [(e.boxes, e.labels) for e in entries]


def test_voc_in_one_folder_for_each_split(tmp_path):
    source = as_voc(tmp_path / "made")
    for name in ("train", "valid"):
        (tmp_path / "export" / name).mkdir(parents=True)
    for path in [*(source / "images").iterdir(), *(source / "annotations").iterdir()]:
        path.rename(tmp_path / "export" / ("train" if path.stem < "c" else "valid") / path.name)
    entries, findings = check.check(importer.read(tmp_path / "export"))
    assert not findings and [e.name for e in entries] == list(TRUTH)


def test_every_folder_of_a_yolo_set_is_read_or_told(tmp_path):
    """Images beside the folders of the splits, and a split without labels; --images with its own folder of labels."""
    source = as_yolo(tmp_path / "s")
    for name in ("images", "labels"):
        (source / name / "train").mkdir()
        for path in (source / name).glob("[ab].*"):
            path.rename(source / name / "train" / path.name)
    (source / "images" / "test").mkdir()
    (source / "images" / "test" / "e.jpg").write_bytes((source / "images" / "c.jpg").read_bytes())
    entries, findings = check.check(importer.read(source))
    assert {e.name: e.labels for e in entries} == {"a.jpg": [0, 1], "b.png": [2], "c.jpg": [], "d (2)[x].jpg": [1]}
    assert [(f.file, f.kind, f.error) for f in findings] == [(str(source / "images" / "test"), "labels missing", False)]
    named, findings = check.check(importer.read(source, image_folders=[source / "images" / "train"]))
    assert not findings and {e.name: e.labels for e in named} == {"a.jpg": [0, 1], "b.png": [2]}


@pytest.mark.parametrize("make", [as_coco, as_voc, as_yolo, as_kitti])
def test_what_macos_puts_beside_every_file_is_no_label(make, tmp_path):
    source = make(tmp_path / "s")
    plain = check.check(importer.read(source))
    for path in [p for p in source.rglob("*") if p.is_file()]:
        path.with_name("._" + path.name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (source / "__MACOSX").mkdir()
    (source / "__MACOSX" / "._a.xml").write_bytes(b"\0\5\x16\7")
    assert importer.guess(source) == make.__name__[3:] and check.check(importer.read(source)) == plain


def test_the_coco_file_of_a_roboflow_export_is_found(tmp_path):
    source = as_coco(tmp_path / "s")
    (source / "annotations.json").rename(source / "_annotations.coco.json")
    assert importer.guess(source) == "coco" and len(importer.read(source).images) == len(TRUTH)
