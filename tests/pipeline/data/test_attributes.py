"""A class and what a tool keeps beside it: what speaks against a mask that is worn is asked about in every format."""

import json

import pytest
from test_import import jetmask
from test_import_cases import coco, pairs, put, voc

from pipeline.data.attributes import named
from pipeline.data.classes import CLASSES, class_of

REGION = {"x": 10, "y": 10, "width": 30, "height": 30, "rotation": 0}


def cvat(root):
    put(root / "images" / "a.jpg")
    box = '<box label="mask" xtl="5" ytl="5" xbr="25" ybr="25"><attribute name="worn">no</attribute></box>'
    image = f'<image id="0" name="a.jpg" width="64" height="48">{box}</image>'
    put(root / "annotations.xml", f"<annotations><version>1.1</version><meta></meta>{image}</annotations>")


def labelme(root):
    shape = {"label": "mask", "points": [[5, 5], [25, 25]], "shape_type": "rectangle", "flags": {"not worn": True}}
    picture = {"imagePath": "a.jpg", "imageData": None, "imageHeight": 48, "imageWidth": 64}
    put(root / "a.jpg")
    put(root / "a.json", json.dumps({"version": "5", "shapes": [shape], **picture}))


def of_coco(root):
    put(root / "images" / "a.jpg")
    text = coco(["a.jpg"], ("mask", "no_mask"), attributes={"occluded": False, "worn": False})
    put(root / "annotations.json", text)


def of_voc(root):
    inner = "<attributes><attribute><name>worn</name><value>no</value></attribute></attributes>"
    put(root / "images" / "a.jpg")
    put(root / "annotations" / "a.xml", voc("mask").replace("</name>", "</name>" + inner))


def label_studio(root):
    own = {"original_width": 64, "original_height": 48, "image_rotation": 0, "id": "q", "to_name": "image"}
    results = [
        {**own, "value": {**REGION, "rectanglelabels": ["mask"]}, "type": "rectanglelabels"},
        {**own, "value": {**REGION, "choices": ["not worn"]}, "type": "choices"},
    ]
    put(root / "images" / "a.jpg")
    put(root / "ls.json", json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": results}]}]))


def via(root):
    shape = {"name": "rect", "x": 5, "y": 5, "width": 20, "height": 20}
    region = {"shape_attributes": shape, "region_attributes": {"label": "mask", "worn": "no"}}
    put(root / "a.jpg")
    put(root / "via.json", json.dumps({"a.jpg9": {"filename": "a.jpg", "size": 9, "regions": [region]}}))


@pytest.mark.parametrize(
    "make, name",
    [
        (cvat, "mask (worn: no)"),
        (labelme, "mask (not worn: True)"),
        (of_coco, "mask (worn: False)"),
        (of_voc, "mask (worn: no)"),
        (label_studio, "mask (choice: not worn)"),
        (via, "mask (worn: no)"),
    ],
)
def test_a_mask_that_is_not_worn_is_asked_about_and_can_be_told(make, name, tmp_path):
    make(tmp_path / "s")
    told = jetmask("import", tmp_path / "s", tmp_path / "out", code=3)
    assert f"class unknown: {name!r}" in told.stderr
    jetmask("import", tmp_path / "s", tmp_path / "out", "--map", f"{name}=without_mask", code=0)
    document = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [CLASSES[0] == c["name"] for c in document["categories"]][
        document["annotations"][0]["category_id"] - 1
    ] is False


@pytest.mark.parametrize(
    "key, value",
    [
        ("occluded", "0"),
        ("truncated", "no"),
        ("worn", "yes"),
        ("worn", ""),
        ("not worn", "False"),
        ("mask type", "normal"),
        ("mask", "surgical"),
        ("correct", "true"),
        ("gender", "not known"),
        ("worn", ["no"]),
        ("track_id", 0),
    ],
)
def test_what_says_nothing_against_a_mask_leaves_its_name(key, value):
    assert named("mask", [(key, value)]) == "mask"


@pytest.mark.parametrize(
    "key, value",
    [
        ("state", "off"),
        ("correct", "False"),
        ("wearing", "0"),
        ("mask", "none"),
        ("position", "under chin"),
        ("worn", "incorrectly"),
        ("zustand", "ohne Maske"),
        ("状态", "未戴口罩"),
    ],
)
def test_what_speaks_against_a_mask_makes_a_name_that_nobody_knows(key, value):
    assert class_of(named("mask", [("occluded", "0"), (key, value)]), {}) is None
    assert named("no_mask", [(key, value)]) == "no_mask"


@pytest.mark.parametrize(
    "yaml, right",
    [
        ("nc: 3\nnames: [mask, no_mask]\n", "nc says 3 classes, and names lists 2"),
        ("names: [mask, no_mask]\nnames: [no_mask, mask]\n", "names is there twice"),
    ],
)
def test_names_that_may_be_shifted_are_not_taken(yaml, right, tmp_path):
    pairs(tmp_path / "s")
    put(tmp_path / "s" / "data.yaml", yaml)
    assert right in jetmask("import", tmp_path / "s", tmp_path / "out", code=3).stderr


def test_two_names_of_one_object_and_two_columns_of_a_class_are_not_chosen_from(tmp_path):
    put(tmp_path / "v" / "images" / "a.jpg")
    put(tmp_path / "v" / "annotations" / "a.xml", voc("mask").replace("</name>", "</name><name>no_mask</name>"))
    told = jetmask("import", tmp_path / "v", tmp_path / "out", code=3)
    assert "class unknown: 'mask and no_mask'" in told.stderr
    put(tmp_path / "c" / "a.jpg")
    put(tmp_path / "c" / "a.csv", "filename,class,label,xmin,ymin,xmax,ymax\na.jpg,mask,no_mask,5,5,25,25\n")
    assert "class, label" in jetmask("import", tmp_path / "c", tmp_path / "out", code=3).stderr
