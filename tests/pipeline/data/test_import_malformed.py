"""Label files that other programs and machines wrote: each ends with labels or a clear error, never a traceback."""

import contextlib
import io
import json
import os

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from test_import import TRUTH, as_coco, as_kitti, as_voc, as_yolo, coco_document, errors_of, jetmask, picture

from jetson import cli
from jetson.errors import BadInput
from jetson.evaluation.average_precision import load_split
from pipeline.cli import VERBS
from pipeline.data import check, importer


def changed(part, **change):
    document = coco_document()
    document[part][0].update(change)
    return document


@pytest.mark.parametrize(
    "document, word",
    [
        (changed("images", ignore_boxes=5), "ignore_boxes"),
        (changed("images", ignore_boxes={"x": 1}), "ignore_boxes"),
        (changed("annotations", bbox=[10**400, 1, 2, 3]), "not a box"),
    ],
)
def test_a_number_that_is_none_stops_the_import_with_its_line(document, word, tmp_path):
    source = as_coco(tmp_path / "s", document)
    done = jetmask("import", source, tmp_path / "out", code=3)
    assert word in done.stderr and "annotations.json, line " in done.stderr


def test_a_number_of_thousands_of_digits(tmp_path):
    source = as_coco(tmp_path / "s")
    text = (source / "annotations.json").read_text()
    (source / "annotations.json").write_text(text.replace('"width": 80', '"width": ' + "8" * 5000))
    assert "not usable JSON" in jetmask("import", source, tmp_path / "out", code=3).stderr


@pytest.mark.parametrize(
    "part, change",
    [
        ("images", {"width": float("nan")}),
        ("images", {"height": float("inf")}),
        ("annotations", {"score": float("nan")}),
        ("images", {"tags": float("inf")}),
    ],
)
def test_what_is_missing_as_pandas_writes_it_is_no_reason_to_stop(part, change, tmp_path):
    source = as_coco(tmp_path / "s", changed(part, **change))
    jetmask("import", source, tmp_path / "out", code=0)
    json.loads((tmp_path / "out" / "annotations.json").read_text(), parse_constant=pytest.fail)
    assert len(load_split(str(tmp_path / "out"))) == len(TRUTH)


@pytest.mark.parametrize("licenses", ["CC-BY", {"name": "CC-BY"}, ["CC-BY"], 5])
def test_licences_of_another_shape_are_told_and_left_out(licenses, tmp_path):
    source = as_coco(tmp_path / "s", {**coco_document(), "licenses": licenses})
    assert "licenses is not a list of objects" in jetmask("import", source, tmp_path / "out", code=0).stderr
    assert json.loads((tmp_path / "out" / "annotations.json").read_text())["licenses"] == []


def test_one_category_id_with_two_names_is_refused(tmp_path):
    document = coco_document()
    document["categories"].append({"id": 7, "name": "without_mask"})  # 7 is with_mask
    done = jetmask("import", as_coco(tmp_path / "s", document), tmp_path / "out", code=3)
    assert "with_mask" in done.stderr and "without_mask" in done.stderr and "line " in done.stderr
    document["categories"][-1]["name"] = "with_mask"  # the same twice says nothing wrong
    jetmask("import", as_coco(tmp_path / "t", document), tmp_path / "out", code=0)


def test_a_name_that_no_file_can_have_is_a_missing_image(tmp_path):
    source = as_coco(tmp_path / "s", changed("images", file_name="https://" + 300 * "x" + ".jpg"))
    assert {f.kind for f in errors_of(source)} == {"image missing"}


@pytest.mark.parametrize("declared", ["no-such", "utf-7x"])
def test_xml_in_an_encoding_that_the_parser_does_not_know(declared, tmp_path):
    source = as_voc(tmp_path / "s")
    path = source / "annotations" / "a.xml"
    path.write_text(f'<?xml version="1.0" encoding="{declared}"?>\n' + path.read_text())
    found = [f for f in errors_of(source) if f.file == str(path)]
    assert [f.kind for f in found] == ["label broken"] and "encoding" in found[0].what


@pytest.mark.parametrize(
    "name, content",
    [
        ("data.yaml", b"names: [mask]\ndate: 2021-13-45\n"),
        ("data.yaml", "names: {\u00b2: mask}\n".encode()),
        ("data.yaml", "names: [\u53e3\u7f69]\n".encode("gbk")),
        ("classes.txt", "\u53e3\u7f69\n".encode("gbk")),
    ],
)
def test_class_names_that_cannot_be_read(name, content, tmp_path):
    source = as_yolo(tmp_path / "s")
    for path in [*source.glob("*.yaml"), *source.glob("classes.txt")]:
        path.unlink()
    (source / name).write_bytes(content)
    assert name in jetmask("import", source, tmp_path / "out", "--format", "yolo", code=3).stderr


@pytest.mark.parametrize("make", [as_yolo, as_kitti])
def test_a_byte_order_mark_is_no_part_of_the_first_word(make, tmp_path):
    source = make(tmp_path / "s")
    for path in [*source.rglob("*.txt"), *source.rglob("*.yaml")]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    jetmask("import", source, tmp_path / "out", code=0)
    written = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert len(written["annotations"]) == sum(len(boxes) for _, boxes in TRUTH.values())


@pytest.mark.parametrize("make, folder", [(as_yolo, "images"), (as_kitti, "image_2")])
def test_two_images_of_one_stem_have_one_label(make, folder, tmp_path):
    source = make(tmp_path / "s")
    (source / folder / "a.png").write_bytes(cv2.imencode(".png", picture((80, 60), 9))[1].tobytes())
    assert [(f.kind, os.path.basename(f.file)) for f in errors_of(source)] == [("label shared", "a.png")]
    jetmask("import", source, tmp_path / "out", "--mend", code=0)
    assert len(load_split(str(tmp_path / "out"))) == len(TRUTH)


def test_a_file_name_that_is_no_utf8_is_copied_under_another(tmp_path):
    source = as_yolo(tmp_path / "s")
    for folder, suffix in (("images", ".jpg"), ("labels", ".txt")):
        old = os.fsencode(source / folder / ("a" + suffix))
        os.rename(old, os.path.join(os.path.dirname(old), b"\xbf\xda" + suffix.encode()))
    done = jetmask("import", source, tmp_path / "out", code=0)
    assert "not UTF-8" in done.stderr
    assert (tmp_path / "out" / "images" / "__.jpg").is_file()
    entries, findings = check.check(importer.read(tmp_path / "out"))
    assert len(entries) == len(TRUTH) and not findings
    strict = io.TextIOWrapper(io.BytesIO(), "utf-8")  # as a terminal's is in most languages
    with contextlib.redirect_stdout(strict):
        assert cli.main(["data", "check", str(source), "--json"], "jetmask", VERBS) == 0
    found = json.loads(strict.buffer.getvalue())["findings"]
    assert [f["kind"] for f in found] == ["image name"] and os.fsencode(found[0]["file"]).endswith(b"\xbf\xda.txt")


def test_a_box_that_is_nan_is_still_refused(tmp_path):
    with refused(BadInput, where="annotations.json, line ", names="[1, 2, nan, 3]"):
        importer.read(as_coco(tmp_path / "s", changed("annotations", bbox=[1, 2, float("nan"), 3])))


def test_a_name_of_map_that_no_label_has_is_told(tmp_path):
    source = as_coco(tmp_path / "s")
    done = jetmask("import", source, tmp_path / "out", "--map", "with_maks=ignore", "--map", "with_mask=ignore", code=0)
    assert "'with_maks'" in done.stderr and "'with_mask'" in done.stderr
    assert "map unused" in jetmask("check", source, "--map", "zz=ignore", code=0).stderr


@pytest.mark.parametrize("tags", [5, None, "abc", [[1]]])
def test_tags_of_any_shape_are_counted(tags, tmp_path):
    source = as_coco(tmp_path / "s", changed("images", tags=tags))
    jetmask("stats", source, code=0)


def test_a_file_in_the_way_of_the_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    for words in (("draw", tmp_path / "file" / "out"), ("import", as_coco(tmp_path / "s"), tmp_path / "file" / "out")):
        assert "a file is where a folder is to be" in jetmask(*words, code=3).stderr
    assert (tmp_path / "file").read_text() == "mine"


SMALL = cv2.imencode(".jpg", picture((64, 48), 1))[1].tobytes()
KEYS = [
    "images",
    "annotations",
    "categories",
    "id",
    "image_id",
    "category_id",
    "bbox",
    "file_name",
    "name",
    "segmentation",
    "data",
    "image",
    "result",
    "value",
    "x",
    "y",
    "width",
    "height",
    "rotation",
    "rectanglelabels",
    "labels",
    "points",
    "original_width",
    "type",
    "shapes",
    "label",
    "shape_type",
    "imagePath",
    "imageWidth",
    "regions",
    "filename",
    "shape_attributes",
    "region_attributes",
    "coordinates",
    "view",
    "metadata",
    "attribute",
    "file",
    "xy",
    "av",
    "vid",
    "fid_list",
    "_via_img_metadata",
    "predictions",
    "was_cancelled",
    "fname",
    "options",
]
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-9, 999)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["a.jpg", "mask"])
)
_json = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(content=_json, form=st.sampled_from(["coco", "labelstudio", "labelme", "via", "createml"]))
def test_no_json_ends_in_a_traceback(content, form, tmp_path_factory):
    source = tmp_path_factory.mktemp("json")
    (source / "a.jpg").write_bytes(SMALL)
    (source / "labels.json").write_text(json.dumps(content))
    with contextlib.suppress(BadInput):
        check.check(importer.read(source, form))


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80), form=st.sampled_from([".xml", ".csv", ".txt", ".yaml"]), known=st.booleans())
def test_no_text_ends_in_a_traceback(text, form, known, tmp_path_factory):
    source = tmp_path_factory.mktemp("text")
    (source / "a.jpg").write_bytes(SMALL)
    before = {
        ".xml": f"<annotation><object><name>{'x'}</name></object>",
        ".csv": "filename,class,xmin,ymin,xmax,ymax\na.jpg,",
        ".txt": "0 0.5 0.5 0.1 0.1\n",
        ".yaml": "names:\n",
    }[form]
    (source / f"a{form}").write_text((before if known else "") + text, encoding="utf-8", errors="replace")
    with contextlib.suppress(BadInput):
        check.check(importer.read(source))
