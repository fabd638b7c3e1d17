"""Inputs that were read wrongly once: each is one of a kind. What is right is said in the table."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_import import jetmask

from jetson.evaluation.average_precision import load_split

KITTI = " 0.00 0 0.0 5.00 5.00 25.00 25.00 0.0 0.0 0.0 0.0 0.0 0.0 0.0\n"
TWO = "0 0.5 0.5 0.3 0.3\n1 0.2 0.2 0.1 0.2\n"


def put(path, content=None, seed=0):
    """Write text, or a small picture that differs by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return
    frame = np.random.default_rng([seed, *os.fsencode(str(path))]).integers(0, 256, (48, 64, 3), np.uint8)
    kind = ".png" if path.suffix.lower() == ".png" else ".jpg"
    path.write_bytes(cv2.imencode(kind, frame)[1].tobytes())


def pairs(root, names=("a", "b"), images="images", labels="labels", suffix=".jpg", text=TWO):
    for name in names:
        put(root / images / (name + suffix))
        put(root / labels / (name + ".txt"), text)


def voc(name, filename=None, sides=("5", "5", "25", "25")):
    box = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True))
    return (
        f"<annotation><folder>x</folder><filename>{filename or 'a.jpg'}</filename><size><width>64</width>"
        f"<height>48</height><depth>3</depth></size><object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>"
    )


def coco(names=("a.jpg", "b.jpg"), classes=("with_mask", "without_mask"), first=1, **box):
    return json.dumps(
        {
            "images": [{"id": i, "file_name": n, "width": 64, "height": 48} for i, n in enumerate(names, first)],
            "annotations": [
                {"id": i, "image_id": i, "category_id": first + (i - first) % 2, "bbox": [5, 5, 20, 20], **box}
                for i, _ in enumerate(names, first)
            ],
            "categories": [{"id": i, "name": n} for i, n in enumerate(classes, first)],
        }
    )


def yolo(names, **more):
    def make(root):
        pairs(root, **more)
        put(root / "data.yaml", json.dumps({"names": names}))

    return make


def capital(root):
    pairs(root, images="Images", labels="Labels")
    put(root / "data.yaml", "names: [mask, no_mask]\n")


def nolabels(root):
    put(root / "images" / "a.jpg")
    put(root / "images" / "b.jpg")
    put(root / "data.yaml", "names: [mask, no_mask]\n")


def twoyaml(root):
    pairs(root)
    put(root / "args.yaml", "names: [no_mask, mask]\n")
    put(root / "data.yaml", "names: [mask, no_mask]\n")


def ultra_nested(root):
    for split in ("train", "val"):
        for cam in ("cam1", "cam2"):
            pairs(root, images=f"images/{split}/{cam}", labels=f"labels/{split}/{cam}")
    text = "path: D:\\PycharmProjects\\mask\ntrain: images/train\nval: images/val\nnames: [with_mask, without_mask]\n"
    put(root / "data.yaml", text)


def coco_basename(root):
    put(root / "images" / "0001.jpg")
    put(root / "annotations.json", coco(["cam2/0001.jpg"]))


def coco_emptybbox(root):
    put(root / "images" / "a.jpg")
    document = json.loads(coco(["a.jpg"]))
    document["annotations"][0].update(bbox=[], segmentation=[[5, 5, 25, 5, 25, 25, 5, 25]])
    document["annotations"].append({"id": 2, "image_id": 1, "category_id": 2, "bbox": [30, 10, 10, 10]})
    put(root / "annotations.json", json.dumps(document))


def coco_flat(root):
    for name in ("a.jpg", "b.jpg"):
        put(root / "images" / name)
    put(root / "annotations" / "instances_default.json", coco())


def cvat_yolo11(root):
    pairs(root, images="obj_train_data", labels="obj_train_data")
    put(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    put(root / "obj.names", "with_mask\nwithout_mask\n")
    put(root / "train.txt", "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")


def ls_coco(root):
    for name in ("3f2a1b-a.jpg", "3f2a1b-b.jpg"):
        put(root / "images" / name)
    names = ["images/3f2a1b-a.jpg", "/data/upload/1/3f2a1b-b.jpg"]
    put(root / "result.json", coco(names, ("mask", "no_mask"), first=0))


def ki_std(root):
    put(root / "training" / "image_2" / "training.png")
    put(root / "training" / "label_2" / "training.txt", "with_mask" + KITTI)
    put(root / "testing" / "image_2" / "testing.png")


def ki_mask1(root):
    put(root / "image_2" / "a.png")
    put(root / "label_2" / "a.txt", "mask 1" + KITTI)


def v_xmls(root):
    put(root / "images" / "a.jpg")
    put(root / "annotations" / "xmls" / "a.xml", voc("with_mask"))


def v_splitdirs(root):
    put(root / "images" / "train" / "a.jpg")
    put(root / "annotations" / "train" / "a.xml", voc("with_mask"))


def labelimg_yolo(root):
    pairs(root)
    put(root / "labels" / "classes.txt", "mask\nno_mask\n")


def suffixes(root):
    for name in ("a.JPG", "b.jfif", "c.jpe", "d.JPEG"):
        pairs(root, (name.split(".")[0],), suffix="." + name.split(".")[1])
    put(root / "data.yaml", "names: [mask, no_mask]\n")


def v_comma(root):
    put(root / "images" / "a.jpg")
    put(root / "annotations" / "a.xml", voc("with_mask", sides=("5,5", "5,5", "25,5", "25,5")))


def y_winpath(root):
    pairs(root)
    put(root / "data.yaml", 'path: "D:\\mask\\new"\nnames: [mask, no_mask]\n')


def half_jpeg(root):
    """A JPEG with its end, but without the second half of its data."""
    pairs(root, ("half",))
    whole = (root / "images" / "half.jpg").read_bytes()
    (root / "images" / "half.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    put(root / "data.yaml", "names: [mask, no_mask]\n")


# name: (how it is made, exit code, boxes of the three classes or words that the error holds)
CASES = {
    "c_zhmix": (yolo(["mask", "未戴mask"]), 3, ["class unknown: '未戴mask'"]),
    "c_bang": (yolo(["mask", "!mask"]), 3, ["class unknown: '!mask'"]),
    "c_sym": (yolo(["mask+", "mask-"]), 3, ["class unknown: 'mask+'", "class unknown: 'mask-'"]),
    "c_no1": (yolo(["Mask", "Mask (no)"]), 3, ["class unknown: 'Mask (no)'"]),
    "c_aizoo": (yolo(["face_mask", "face_nomask"]), 0, [2, 2, 0]),
    "c_tr": (yolo(["maskeli", "maskesiz"]), 0, [2, 2, 0]),
    "twoyaml2": (twoyaml, 3, ["args.yaml", "data.yaml"]),
    "capital": (capital, 0, [2, 2, 0]),
    "nolabels": (nolabels, 3, ["labels/a.txt", "images/a.txt"]),
    "ultra_nested": (ultra_nested, 0, [8, 8, 0]),
    "coco_basename": (coco_basename, 3, ["cam2/0001.jpg", "images/0001.jpg"]),
    "coco_emptybbox": (coco_emptybbox, 0, [1, 1, 0]),
    "cvat_coco_flat": (coco_flat, 0, [1, 1, 0]),
    "cvat_yolo11": (cvat_yolo11, 0, [2, 2, 0]),
    "ls_coco": (ls_coco, 0, [1, 1, 0]),
    "ki_std": (ki_std, 0, [1, 0, 0]),
    "ki_mask1": (ki_mask1, 3, ["label broken", "16 words", "a.txt:1"]),
    "v_xmls": (v_xmls, 0, [1, 0, 0]),
    "v_splitdirs": (v_splitdirs, 0, [1, 0, 0]),
    "labelimg_yolo": (labelimg_yolo, 0, [2, 2, 0]),
    "suffix": (suffixes, 0, [4, 4, 0]),
    "v_comma": (v_comma, 3, ["a.xml:1", "a comma where a point is expected"]),
    "y_winpath": (y_winpath, 3, ["data.yaml, line 1", "escape", "'single quotes'"]),
    "half_eoi": (half_jpeg, 3, ["image broken", "half.jpg", "truncated"]),
}


@pytest.mark.parametrize("name", CASES)
def test_each_input_gives_what_is_right(name, tmp_path):
    make, code, right = CASES[name]
    make(tmp_path / "s")
    told = jetmask("import", tmp_path / "s", tmp_path / "out", code=code)
    if code:
        assert all(word in told.stderr for word in right), told.stderr
        assert not (tmp_path / "out").exists()
        return
    truths = load_split(str(tmp_path / "out"))
    assert [sum(int((t.labels == k).sum()) for t in truths) for k in range(3)] == right


@pytest.mark.parametrize("name", ["c_zhmix", "c_bang", "c_sym", "c_no1"])
def test_no_suggestion_turns_what_a_name_means(name, tmp_path):
    CASES[name][0](tmp_path / "s")
    told = jetmask("import", tmp_path / "s", tmp_path / "out", code=3).stderr
    assert "=with_mask'" not in told and "the nearest is with_mask" not in told


def test_the_box_of_an_empty_bbox_is_that_of_its_segmentation(tmp_path):
    coco_emptybbox(tmp_path / "s")
    told = jetmask("import", tmp_path / "s", tmp_path / "out", code=0).stderr
    assert "note: box empty" in told
    (truth,) = load_split(str(tmp_path / "out"))
    assert truth.xyxy.tolist() == [[5, 5, 25, 25], [30, 10, 40, 20]]
    document = json.loads((tmp_path / "s" / "annotations.json").read_text())
    del document["annotations"][0]["segmentation"]
    put(tmp_path / "s" / "annotations.json", json.dumps(document))
    assert "error: box empty" in jetmask("import", tmp_path / "s", tmp_path / "none", code=3).stderr


def test_aliases_that_multiply_end_at_once(tmp_path):
    pairs(tmp_path / "s")
    rows = ["a: &a [x,x,x,x,x,x,x,x,x]"] + [
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]" for a, b in zip("abcdefg", "bcdefgh")
    ]
    put(tmp_path / "s" / "data.yaml", "\n".join([*rows, "names: *h"]) + "\n")
    told = jetmask("import", tmp_path / "s", tmp_path / "out", code=3).stderr
    assert "a class name is a list" in told and "data.yaml, line" in told and len(told) < 1000
    put(tmp_path / "s" / "data.yaml", "names: " + "[" * 4000 + "\n")
    assert "data.yaml" in jetmask("import", tmp_path / "s", tmp_path / "out", code=3).stderr


def test_what_is_not_known_is_named_with_what_is_read(tmp_path):
    put(tmp_path / "s" / "images" / "a.jpg")
    put(tmp_path / "s" / "labels.json", '{"boxes": [[1, 2, 3, 4]]}')
    told = jetmask("import", tmp_path / "s", tmp_path / "out", code=3).stderr
    assert "1 .jpg" in told and "1 .json" in told and '{"boxes"' in told
    assert all(
        w in told for w in ("COCO", "CVAT", "Label Studio", "LabelMe", "VIA", "CreateML", "csv", "KITTI", "YOLO")
    )


def test_a_size_of_0_in_the_label_is_no_size(tmp_path):
    put(tmp_path / "s" / "images" / "a.jpg")
    put(tmp_path / "s" / "a.xml", voc("with_mask").replace("64", "0").replace("48", "0"))
    jetmask("import", tmp_path / "s", tmp_path / "out", code=0)


def test_an_xml_of_two_pictures_is_of_none(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        put(tmp_path / "s" / "images" / name)
        put(tmp_path / "s" / "annotations" / (Path(name).stem + ".xml"), voc("with_mask", "a.jpg"))
    told = jetmask("import", tmp_path / "s", tmp_path / "out", code=3).stderr
    assert "b.xml:1: error: image missing" in told and "unclear which one" in told


def test_most_pictures_without_a_label_are_an_error(tmp_path):
    pairs(tmp_path / "s", ("a",))
    put(tmp_path / "s" / "data.yaml", "names: [mask, no_mask]\n")
    for name in "bcd":
        put(tmp_path / "s" / "images" / f"{name}.jpg")
    told = jetmask("import", tmp_path / "s", tmp_path / "out", code=3).stderr
    assert "error: labels missing: 3 of 4 pictures" in told and "labels/b.txt" in told
    jetmask("import", tmp_path / "s", tmp_path / "out", "--mend", code=0)
    assert [Path(t.file).name for t in load_split(str(tmp_path / "out"))] == ["a.jpg"]


def test_yaml_that_is_no_utf8_says_which_line(tmp_path):
    pairs(tmp_path / "s")
    put(tmp_path / "s" / "data.yaml", b"train: images\n# M\xe4rz\nnames: [mask, no_mask]\n")
    assert "data.yaml, line 2" in jetmask("import", tmp_path / "s", tmp_path / "out", code=3).stderr


def test_no_is_a_name_and_not_false(tmp_path):
    pairs(tmp_path / "s")
    put(tmp_path / "s" / "data.yaml", "names: [mask, no]\n")
    assert "class unknown: 'no'" in jetmask("import", tmp_path / "s", tmp_path / "out", code=3).stderr


CASES_FOLDER = os.environ.get("JETMASK_CASES")


@pytest.mark.skipif(not CASES_FOLDER, reason="JETMASK_CASES is not set: a folder of inputs that failed once")
@pytest.mark.parametrize("name", CASES)
def test_the_inputs_themselves(name, tmp_path):
    folder = Path(str(CASES_FOLDER)) / "data"
    _, code, right = CASES[name]
    source = folder / name
    if name == "half_eoi":
        put(tmp_path / "s" / "images" / "half.jpg", (folder / "half_eoi.jpg").read_bytes())
        put(tmp_path / "s" / "labels" / "half.txt", TWO)
        put(tmp_path / "s" / "data.yaml", "names: [mask, no_mask]\n")
        source = tmp_path / "s"
    told = jetmask("import", source, tmp_path / "out", code=code)
    assert code or sum(len(t.labels) for t in load_split(str(tmp_path / "out"))) == sum(right)
    assert not code or all(word in told.stderr for word in right), told.stderr
