"""What labelling tools export, as they lay it out: all of it is recognised, and every box is where it was drawn."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from test_import import NUMBER, TRUTH, draw_images, errors_of, jetmask
from test_import_cases import coco, pairs, put, voc

from jetson.errors import BadInput
from jetson.evaluation.average_precision import load_split
from pipeline.data import check, importer
from pipeline.data.classes import CLASSES

HASH = "3f2a1b5c-"


def cvat_images(root, names=TRUTH):
    """CVAT for images 1.1, the export of a task with its images."""
    rows = []
    for number, name in enumerate(names):
        (w, h), boxes = TRUTH[name]
        inner = "".join(
            f'<box label="{c}" source="manual" occluded="0" xtl="{x:.2f}" ytl="{y:.2f}" xbr="{x + bw:.2f}" '
            f'ybr="{y + bh:.2f}" z_order="0"></box>\n'
            for c, x, y, bw, bh in boxes
        )
        rows.append(f'<image id="{number}" name="{name}" width="{w}" height="{h}">\n{inner}</image>\n')
    labels = "".join(f"<label><name>{c}</name><attributes></attributes></label>" for c in CLASSES)
    put(
        root / "annotations.xml",
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task><name>t</name>'
        f"<labels>{labels}</labels></task></meta>\n{''.join(rows)}</annotations>\n",
    )
    draw_images(root / "images")


def cvat_project(root):
    """Two tasks of a project, each with its own numbers; the images in a folder for each subset."""
    cvat_images(root)
    text = (root / "annotations.xml").read_text()
    text = text.replace('id="2" name="c.jpg"', 'id="0" name="c.jpg" subset="Train" task_id="7"')
    put(
        root / "annotations.xml",
        text.replace("<meta><task>", "<meta><project><tasks><task>").replace(
            "</task></meta>", "</task></tasks></project></meta>"
        ),
    )
    put(root / "images" / "Train" / "c.jpg", (root / "images" / "c.jpg").read_bytes())
    (root / "images" / "c.jpg").unlink()


def cvat_video(root):
    """CVAT for video 1.1: tracks, and frames that were exported as pictures."""
    tracks = []
    for number, (_, boxes) in enumerate(TRUTH.values()):
        for c, x, y, bw, bh in boxes:
            tracks.append(
                f'<track id="{len(tracks)}" label="{c}"><box frame="{number}" outside="0" occluded="0" keyframe="1" '
                f'xtl="{x}" ytl="{y}" xbr="{x + bw}" ybr="{y + bh}" z_order="0"/><box frame="{number + 1}" outside="1" '
                f'occluded="0" keyframe="1" xtl="{x}" ytl="{y}" xbr="{x + bw}" ybr="{y + bh}" z_order="0"/></track>'
            )
    put(root / "annotations.xml", f"<annotations><version>1.1</version>{''.join(tracks)}</annotations>")
    draw_images(root / "images")
    for number, name in enumerate(TRUTH):
        path = root / "images" / name
        path.rename(path.with_name(f"frame_{number:06d}{path.suffix}"))


def ls_results(name, rotated=False):
    (w, h), boxes = TRUTH[name]
    results = []
    for number, (c, x, y, bw, bh) in enumerate(boxes):
        value = {"x": 100 * x / w, "y": 100 * y / h, "width": 100 * bw / w, "height": 100 * bh / h, "rotation": 0}
        if rotated:  # the same box, turned by a quarter about its corner at the top left
            value.update(x=100 * (x + bw) / w, width=100 * bh / w, height=100 * bw / h, rotation=90)
        results.append(
            {
                "original_width": w,
                "original_height": h,
                "image_rotation": 0,
                "value": {**value, "rectanglelabels": [c]},
                "id": f"r{number}",
                "from_name": "label",
                "to_name": "image",
                "type": "rectanglelabels",
                "origin": "manual",
            }
        )
    return results


def ls_json(root, rotated=False, quoted=False):
    """Label Studio's JSON; the pictures are its user's, with their names of before the upload."""
    tasks = []
    for number, name in enumerate(TRUTH, 1):
        upload = name.replace(" ", "%20") if quoted else name
        tasks.append(
            {
                "id": number,
                "annotations": [{"id": number, "was_cancelled": False, "result": ls_results(name, rotated)}],
                "file_upload": HASH + name,
                "drafts": [],
                "predictions": [],
                "data": {"image": f"/data/upload/1/{HASH}{upload}"},
                "meta": {},
            }
        )
    put(root / "project-1-at-2026-01-01.json", json.dumps(tasks))
    draw_images(root / "pictures")


def ls_min(root):
    rows = []
    for number, name in enumerate(TRUTH, 1):
        labels = [
            {**r["value"], "original_width": r["original_width"], "original_height": r["original_height"]}
            for r in ls_results(name)
        ]
        row = {"image": f"/data/upload/1/{HASH}{name}", "id": number, "annotator": 1, "annotation_id": number}
        rows.append({**row, "label": labels} if labels else row)
    rows[2]["label"] = [rows[0]["label"][0]]
    del rows[2]["label"]
    put(root / "project.json", json.dumps(rows))
    draw_images(root / "images")


def labelme(root, windows=False):
    for name, ((w, h), boxes) in TRUTH.items():
        shapes = [
            {"label": c, "points": [[x + bw, y], [x, y + bh]], "group_id": None, "shape_type": "rectangle", "flags": {}}
            for c, x, y, bw, bh in boxes
        ]
        path = f"..\\images\\{name}" if windows else name
        content = {"version": "5.2.1", "flags": {}, "shapes": shapes, "imagePath": path, "imageData": "/9j/4AAQ" * 9000}
        folder = root / "labels" if windows else root
        put(folder / (Path(name).stem + ".json"), json.dumps({**content, "imageHeight": h, "imageWidth": w}, indent=2))
    draw_images(root / "images" if windows else root)


def via2(root, project=True):
    entries = {}
    for name, (_, boxes) in TRUTH.items():
        regions = [
            {
                "shape_attributes": {"name": "rect", "x": x, "y": y, "width": bw, "height": bh},
                "region_attributes": {"class": c, "occluded": "no"},
            }
            for c, x, y, bw, bh in boxes
        ]
        entries[f"{name}123"] = {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}
    content = (
        {"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": {"region": {}}} if project else entries
    )
    put(root / "via_project.json", json.dumps(content))
    draw_images(root / "images")


def via1(root):
    via2(root, False)
    content = json.loads((root / "via_project.json").read_text())
    for entry in content.values():
        entry["regions"] = {str(i): region for i, region in enumerate(entry["regions"])}
    put(root / "via_project.json", json.dumps(content))


def via_csv(root):
    draw_images(root / "images")
    with open(root / "via_export_csv.csv", "w", newline="") as file:
        writer = csv.writer(file)
        columns = ["#filename", "file_size", "file_attributes", "region_count", "region_id"]
        writer.writerow([*columns, "region_shape_attributes", "region_attributes"])
        for name, (_, boxes) in TRUTH.items():
            for number, (c, x, y, bw, bh) in enumerate(boxes):
                shape = {"name": "rect", "x": x, "y": y, "width": bw, "height": bh}
                writer.writerow([name, 1, "{}", len(boxes), number, json.dumps(shape), json.dumps({"class": c})])
            if not boxes:
                writer.writerow([name, 1, "{}", 0, 0, "{}", "{}"])


def via3(root):
    files, views, metadata = {}, {}, {}
    for number, (name, (_, boxes)) in enumerate(TRUTH.items(), 1):
        files[str(number)] = {"fid": str(number), "fname": name, "type": 2, "loc": 1, "src": ""}
        views[str(number)] = {"fid_list": [str(number)]}
        for c, *box in boxes:
            metadata[f"m{len(metadata)}"] = {
                "vid": str(number),
                "flg": 0,
                "z": [],
                "xy": [2, *box],
                "av": {"1": str(NUMBER[c])},
            }
    options = {str(i): c for i, c in enumerate(CLASSES)}
    attribute = {"1": {"aname": "kind", "type": 4, "options": options, "default_option_id": ""}}
    content = {"project": {}, "config": {}, "attribute": attribute, "file": files, "metadata": metadata, "view": views}
    put(root / "via3.json", json.dumps(content))
    draw_images(root / "images")


def createml(root, old=False):
    image, labels = ("imagefilename", "annotation") if old else ("image", "annotations")
    rows = [
        {
            image: name,
            labels: [
                {"label": c, "coordinates": {"x": x + bw / 2, "y": y + bh / 2, "width": bw, "height": bh}}
                for c, x, y, bw, bh in boxes
            ],
        }
        for name, (_, boxes) in TRUTH.items()
    ]
    put(root / "_annotations.createml.json", json.dumps(rows))
    draw_images(root)


def tfcsv(root, sign=",", encoding="utf-8"):
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for name, ((w, h), boxes) in TRUTH.items():
        lines += [f"{name},{w},{h},{c},{x},{y},{x + bw},{y + bh}" for c, x, y, bw, bh in boxes] or [
            f"{name},{w},{h},,,,,"
        ]
    put(root / "_annotations.csv", "\n".join(lines).replace(",", sign).encode(encoding))
    draw_images(root)


def coco_own(root):
    """COCO's own layout: a json for each split in annotations/, the pictures in folders of the splits' names."""
    halves = (["a.jpg", "b.png"], ["c.jpg", "d (2)[x].jpg"])
    draw_images(root / "all")
    for split, names in zip(("train2017", "val2017"), halves, strict=True):
        document = json.loads(coco_text(names))
        put(root / "annotations" / f"instances_{split}.json", json.dumps(document))
        put(root / "annotations" / f"person_keypoints_{split}.json", json.dumps(document))
        put(
            root / "annotations" / f"captions_{split}.json",
            json.dumps({"images": document["images"], "annotations": [{"id": 1, "image_id": 1, "caption": "a bbox?"}]}),
        )
        for name in names:
            put(root / split / name, (root / "all" / name).read_bytes())
    for path in (root / "all").iterdir():
        path.unlink()
    (root / "all").rmdir()


def coco_text(names):
    document = {"info": {}, "licenses": [], "categories": [{"id": i, "name": c} for i, c in enumerate(CLASSES)]}
    document.update(images=[], annotations=[])
    for key, name in enumerate(names):
        (w, h), boxes = TRUTH[name]
        document["images"].append({"id": key, "file_name": name, "width": w, "height": h})
        for c, *box in boxes:
            document["annotations"].append(
                {
                    "id": len(document["annotations"]),
                    "image_id": key,
                    "category_id": NUMBER[c],
                    "bbox": box,
                    "iscrowd": 0,
                }
            )
    return json.dumps(document)


def roboflow_coco(root):
    """A split for each folder, and a category above the others that no box has."""
    for split, names in {"train": ["a.jpg", "b.png"], "valid": ["c.jpg"], "test": ["d (2)[x].jpg"]}.items():
        document = json.loads(coco_text(names))
        for entry in document["categories"]:
            entry.update(id=entry["id"] + 1, supercategory="masks")
        document["categories"].insert(0, {"id": 0, "name": "masks", "supercategory": "none"})
        for entry in document["annotations"]:
            entry["category_id"] += 1
        put(root / split / "_annotations.coco.json", json.dumps(document))
        draw_images(root / "all")
        for name in names:
            put(root / split / name, (root / "all" / name).read_bytes())
    for path in (root / "all").iterdir():
        path.unlink()
    put(root / "README.roboflow.txt", "Masks - v1 2026-01-01\n")


def vocdevkit(root):
    folder = root / "VOCdevkit" / "VOC2007"
    draw_images(folder / "JPEGImages")
    for name, ((w, h), boxes) in TRUTH.items():
        objects = "".join(
            f"<object><name>{c}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
            f"<xmax>{x + bw}</xmax><ymax>{y + bh}</ymax>"
            "</bndbox></object>"
            for c, x, y, bw, bh in boxes
        )
        size = f"<size><width>{w}</width><height>{h}</height></size>"
        text = f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"
        put(folder / "Annotations" / (Path(name).stem + ".xml"), text)
    put(folder / "ImageSets" / "Main" / "trainval.txt", "\n".join(Path(name).stem for name in TRUTH))


def yolo_lines(name):
    (w, h), boxes = TRUTH[name]
    return "".join(
        f"{NUMBER[c]} {(x + bw / 2) / w} {(y + bh / 2) / h} {bw / w} {bh / h}\n" for c, x, y, bw, bh in boxes
    )


def cvat_ultralytics(root):
    """CVAT's Ultralytics YOLO: splits below images/ and labels/, a list of the pictures, names as a table."""
    draw_images(root / "images" / "train")
    for name in TRUTH:
        put(root / "labels" / "train" / (Path(name).stem + ".txt"), yolo_lines(name))
    put(root / "train.txt", "".join(f"data/images/train/{name}\n" for name in TRUTH))
    names = "".join(f"  {i}: {c}\n" for i, c in enumerate(CLASSES))
    put(root / "data.yaml", f"names:\n{names}path: .\ntrain: train.txt\n")


def cvat_yolo_elsewhere(root):
    """CVAT's YOLO 1.1 without its images, which lie in a folder of their own."""
    draw_images(root / "pictures")
    for name in TRUTH:
        put(root / "obj_train_data" / (Path(name).stem + ".txt"), yolo_lines(name))
    put(root / "obj.names", "".join(f"{c}\n" for c in CLASSES))


def ls_yolo(root):
    draw_images(root / "images")
    for name in TRUTH:
        put(root / "labels" / (Path(name).stem + ".txt"), yolo_lines(name))
    put(root / "classes.txt", "".join(f"{c}\n" for c in CLASSES))
    categories = [{"id": i, "name": c} for i, c in enumerate(CLASSES)]
    put(
        root / "notes.json",
        json.dumps({"categories": categories, "info": {"year": 2026, "contributor": "Label Studio"}}),
    )


def darknet(root):
    draw_images(root / "data" / "img")
    for name in TRUTH:
        put(root / "data" / "img" / (Path(name).stem + ".txt"), yolo_lines(name))
    put(root / "data" / "mask.names", "".join(f"{c}\n" for c in CLASSES))
    put(root / "data" / "train.txt", "".join(f"data/img/{name}\n" for name in TRUTH))


def tao(root):
    draw_images(root / "train" / "images")
    for name, (_, boxes) in TRUTH.items():
        lines = [
            f"{c} 0.00 0 0.00 {x:.2f} {y:.2f} {x + bw:.2f} {y + bh:.2f}" + " 0.00" * 7 for c, x, y, bw, bh in boxes
        ]
        put(root / "train" / "labels" / (Path(name).stem + ".txt"), "\n".join(lines))


def powershell(root):
    """Saved by a Windows shell, in UTF-16 with a mark."""
    ls_yolo(root)
    for path in [root / "classes.txt", *(root / "labels").iterdir()]:
        path.write_bytes(path.read_text().encode("utf-16"))


EXPORTS = {
    "cvat images": ("cvat", cvat_images),
    "cvat project": ("cvat", cvat_project),
    "cvat ultralytics": ("yolo", cvat_ultralytics),
    "cvat yolo, images elsewhere": ("yolo", cvat_yolo_elsewhere),
    "label studio": ("labelstudio", ls_json),
    "label studio, turned": ("labelstudio", lambda root: ls_json(root, rotated=True)),
    "label studio, coded names": ("labelstudio", lambda root: ls_json(root, quoted=True)),
    "label studio yolo": ("yolo", ls_yolo),
    "labelme": ("labelme", labelme),
    "labelme, windows": ("labelme", lambda root: labelme(root, windows=True)),
    "via 2 project": ("via", via2),
    "via 2 export": ("via", lambda root: via2(root, False)),
    "via 1": ("via", via1),
    "via csv": ("via", via_csv),
    "via 3": ("via", via3),
    "createml": ("createml", createml),
    "createml, old": ("createml", lambda root: createml(root, old=True)),
    "tensorflow csv": ("tfcsv", tfcsv),
    "csv with semicolons": ("tfcsv", lambda root: tfcsv(root, ";")),
    "csv with a mark": ("tfcsv", lambda root: tfcsv(root, encoding="utf-8-sig")),
    "coco's own": ("coco", coco_own),
    "roboflow coco": ("coco", roboflow_coco),
    "VOCdevkit": ("voc", vocdevkit),
    "darknet": ("yolo", darknet),
    "tao": ("kitti", tao),
    "utf-16": ("yolo", powershell),
}


def boxes_of(out):
    return {
        Path(t.file).name: sorted(zip(t.labels.tolist(), np.round(t.xyxy, 1).tolist())) for t in load_split(str(out))
    }


RIGHT = {
    name: sorted((NUMBER[c], [x, y, x + w, y + h]) for c, x, y, w, h in boxes) for name, (_, boxes) in TRUTH.items()
}


@pytest.mark.parametrize("name", EXPORTS)
def test_what_a_tool_exports_is_recognised_and_right(name, tmp_path):
    form, make = EXPORTS[name]
    make(tmp_path / "s")
    assert importer.guess(tmp_path / "s") == form
    told = jetmask("import", tmp_path / "s", tmp_path / "out", code=0)
    assert "error:" not in told.stderr
    assert boxes_of(tmp_path / "out") == RIGHT


def test_frames_of_a_video_of_cvat(tmp_path):
    cvat_video(tmp_path / "s")
    jetmask("import", tmp_path / "s", tmp_path / "out", code=0)
    found = list(boxes_of(tmp_path / "out").values())
    assert found == [boxes for boxes in RIGHT.values() if boxes]  # the frame without a box is not labelled


def test_jsonmin_of_label_studio_holds_no_skipped_task(tmp_path):
    ls_min(tmp_path / "s")
    jetmask("import", tmp_path / "s", tmp_path / "out", code=0)
    assert {k: v for k, v in boxes_of(tmp_path / "out").items() if v} == {k: v for k, v in RIGHT.items() if v}


@pytest.mark.parametrize(
    "make, name",
    [
        (cvat_images, "annotations.xml"),
        (ls_json, "project-1-at-2026-01-01.json"),
        (via2, "via_project.json"),
        (createml, "_annotations.createml.json"),
        (tfcsv, "_annotations.csv"),
    ],
)
def test_the_label_file_itself_can_be_named(make, name, tmp_path):
    make(tmp_path / "s")
    pictures = next(p.parent for p in (tmp_path / "s").rglob("a.jpg"))
    (tmp_path / "s" / name).rename(tmp_path / name)
    jetmask("import", tmp_path / name, tmp_path / "out", "--images", pictures, code=0)
    assert boxes_of(tmp_path / "out") == RIGHT


def test_a_box_that_is_turned_becomes_the_one_around_it(tmp_path):
    root = tmp_path / "s"
    put(root / "images" / "a.jpg")
    shape = '<box label="mask" xtl="20" ytl="20" xbr="40" ybr="30" rotation="90.00"/>'
    shape += '<ellipse label="mask" cx="20" cy="20" rx="8" ry="4"/>'
    put(
        root / "annotations.xml",
        f'<annotations><image id="0" name="a.jpg" width="64" height="48">{shape}</image></annotations>',
    )
    entries, findings = check.check(importer.read(root))
    assert entries[0].boxes == [[25, 15, 10, 20], [12, 16, 16, 8]] and not findings
    turned = f"<robndbox><cx>30</cx><cy>20</cy><w>20</w><h>10</h><angle>{math.pi / 2}</angle></robndbox>"
    text = voc("mask").replace(voc("mask")[voc("mask").index("<bndbox>") : voc("mask").index("</object>")], turned)
    put(tmp_path / "t" / "a.jpg")
    put(tmp_path / "t" / "a.xml", text)
    assert check.check(importer.read(tmp_path / "t"))[0][0].boxes == [[25, 10, 10, 20]]


def test_what_has_no_area_is_told_and_left_out(tmp_path):
    labelme(tmp_path / "s")
    path = tmp_path / "s" / "a.json"
    content = json.loads(path.read_text())
    content["shapes"].append({"label": "mask", "points": [[1, 2]], "shape_type": "point"})
    content["shapes"].append({"label": "mask", "points": [["x", 2], [3, 4]], "shape_type": "rectangle"})
    path.write_text(json.dumps(content))
    _, findings = check.check(importer.read(tmp_path / "s"))
    assert [(f.kind, f.error) for f in findings] == [("shape", False), ("box empty", True)]


def test_two_annotators_who_differ_are_told(tmp_path):
    ls_json(tmp_path / "s")
    path = next((tmp_path / "s").glob("*.json"))
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"].append({**tasks[0]["annotations"][0], "result": [], "updated_at": "2026"})
    tasks[1]["annotations"].append(dict(tasks[1]["annotations"][0]))  # the same twice says nothing wrong
    tasks[3]["annotations"][0]["was_cancelled"] = True
    path.write_text(json.dumps(tasks))
    _, findings = check.check(importer.read(tmp_path / "s"))
    assert sorted((f.kind, f.error) for f in findings if f.kind != "image name") == [
        ("annotated twice", True),
        ("label missing", False),
        ("label missing", False),
    ]


def test_a_region_of_two_labels_or_of_none_is_not_taken(tmp_path):
    ls_json(tmp_path / "s")
    path = next((tmp_path / "s").glob("*.json"))
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"][0]["result"][0]["value"]["rectanglelabels"] = ["with_mask", "without_mask"]
    tasks[0]["annotations"][0]["result"][1]["value"]["rectanglelabels"] = []
    path.write_text(json.dumps(tasks))
    assert [f.kind for f in errors_of(tmp_path / "s")] == ["box contradicts", "box contradicts"]


def test_the_attribute_that_is_the_class_is_asked_for(tmp_path):
    via2(tmp_path / "s")
    path = tmp_path / "s" / "via_project.json"
    path.write_text(path.read_text().replace('"class"', '"one"').replace('"occluded"', '"two"'))
    with refused(BadInput, where="via_project.json", names="one, two"):
        importer.read(tmp_path / "s")


@pytest.mark.parametrize("form", ["cvat", "labelstudio", "labelme", "via", "createml", "tfcsv", "coco"])
@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "{}", "[]", "<a>", "<annotations/>", "a,b\n1,2\n", '[{"a": [1]}]', "\0\0"]
)
def test_a_file_of_nothing_ends_with_a_clear_error(form, text, tmp_path):
    put(tmp_path / "s" / "images" / "a.jpg")
    suffix = {"cvat": ".xml", "tfcsv": ".csv"}.get(form, ".json")
    put(tmp_path / "s" / f"labels{suffix}", text)
    told = jetmask("import", tmp_path / "s", tmp_path / "out", "--format", form, code=3)
    assert "\nerror: " in "\n" + told.stderr and not (tmp_path / "out").exists()


def test_the_same_name_in_two_folders_is_never_guessed(tmp_path):
    for folder in ("x", "y"):
        put(tmp_path / "s" / folder / "a.jpg", seed=len(folder))
    put(tmp_path / "s" / "labels.json", coco(["a.jpg"]))
    told = jetmask("import", tmp_path / "s", tmp_path / "out", code=3).stderr
    assert "x/a.jpg, y/a.jpg all exist" in told


def test_label_files_of_two_folders_are_not_mixed(tmp_path):
    for cam, label in (("cam1", "0 0.5 0.5 0.2 0.2\n"), ("cam2", "1 0.5 0.5 0.4 0.4\n")):
        pairs(tmp_path / "s", ("a",), images=f"images/{cam}", labels=f"labels/{cam}", text=label)
    put(tmp_path / "s" / "data.yaml", "names: [mask, no_mask]\n")
    entries, findings = check.check(importer.read(tmp_path / "s"))
    assert [e.labels for e in entries] == [[0], [1]] and not findings


def test_xml_of_a_chinese_windows_is_read(tmp_path):
    put(tmp_path / "s" / "a.jpg")
    text = '<?xml version="1.0" encoding="gb2312"?>\n' + voc("戴口罩")
    put(tmp_path / "s" / "a.xml", text.encode("gb2312"))
    entries, findings = check.check(importer.read(tmp_path / "s"))
    assert [e.labels for e in entries] == [[0]] and not findings
    put(tmp_path / "s" / "a.xml", text.encode("gb2312")[:60] + b"\xff\xff" + text.encode("gb2312")[60:])
    assert [f.kind for f in errors_of(tmp_path / "s")] == ["label broken"]


def test_pixels_in_a_yolo_file_are_named(tmp_path):
    pairs(tmp_path / "s", text="0 20 20 10 10\n")
    put(tmp_path / "s" / "classes.txt", "mask\n")
    assert {(f.kind, "pixels" in f.what) for f in errors_of(tmp_path / "s")} == {("label broken", True)}


def test_ids_as_text_and_as_numbers_are_the_same(tmp_path):
    document = json.loads(coco(["a.jpg"]))
    document["annotations"][0].update(image_id="1", category_id="1")
    put(tmp_path / "s" / "a.jpg")
    put(tmp_path / "s" / "labels.json", json.dumps(document))
    entries, findings = check.check(importer.read(tmp_path / "s"))
    assert [e.labels for e in entries] == [[0]] and not findings


def test_a_clone_of_a_trainer_beside_the_set_names_other_classes(tmp_path):
    """Its files are no names of these labels; a list in a folder of settings is, where there is no other."""
    ls_yolo(tmp_path / "s")
    put(tmp_path / "s" / "yolov5" / "data" / "coco128.yaml", "names: [person, car]\n")
    jetmask("import", tmp_path / "s", tmp_path / "out", code=0)
    assert boxes_of(tmp_path / "out") == RIGHT
    (tmp_path / "s" / "yolov5" / "data" / "coco128.yaml").unlink()
    (tmp_path / "s" / "cfg").mkdir()
    (tmp_path / "s" / "classes.txt").rename(tmp_path / "s" / "cfg" / "obj.names")
    jetmask("import", tmp_path / "s", tmp_path / "again", code=0)
    assert boxes_of(tmp_path / "again") == RIGHT
