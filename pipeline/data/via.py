"""Read the VGG Image Annotator's labels: projects and exports of VIA 1 and 2 (json, csv), projects of VIA 3."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jetson.errors import BadInput
from pipeline.data import attributes, jsonfile, pictures, textfile
from pipeline.data.labels import Box, Collection, Finding, Labelled, outline
from pipeline.data.source import Source

_EXPECTED = "a VIA project or an export of its annotations"
_CLASS_KEYS = ("class", "label", "name", "type", "category", "object", "mask", "classname", "class_name")


class _Image:
    """One picture and its regions: (shape, attributes, line)."""

    def __init__(self, name: str, line: int | None) -> None:
        self.name, self.line = name, line
        self.regions: list[tuple[dict[str, Any], dict[str, Any], int | None]] = []


def read(source: Source, paths: Sequence[Path]) -> Collection:
    """`paths`: json and csv files. BadInput where one is none of VIA's, or where it is open which of several
    attributes is the class."""
    images: list[Labelled] = []
    findings: list[Finding] = []
    for path in paths or source.tree.ending(".json", ".csv"):
        found, options = _csv(path) if path.suffix.lower() == ".csv" else _json(path)
        key = _class_key(found, path)
        for image in found:
            boxes = [box for region in image.regions if (box := _box(region, key, options, path, findings))]
            hit = source.pictures.find(image.name, path, image.line, findings)
            images.append(
                Labelled(
                    hit.image, image.name, str(path), image.line, boxes, None, {"orig_name": image.name}, hit.missing
                )
            )
    used = {labelled.image for labelled in images if labelled.image}
    looked_for = "not named in " + ", ".join(path.name for path in paths[:3])
    findings += pictures.unlabelled(
        source.pictures, used, source.path, looked_for, "they are left out", source.whole and not source.image_folders
    )
    return Collection(images, findings)


def _dict(value: object) -> dict[str, Any]:
    """An object as it is; text that is one, as VIA's csv has it; else an empty one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _json(path: Path) -> tuple[list[_Image], dict[str, dict[str, str]]]:
    document = jsonfile.read(path, _EXPECTED)
    if not isinstance(document.top, dict):
        raise BadInput("the top level is not an object", path, _EXPECTED)
    if "view" in document.top:
        return _via3(document)
    options = {
        key: {k: str(v) for k, v in _dict(_dict(attribute).get("options")).items()}
        for key, attribute in _dict(_dict(document.value("_via_attributes")).get("region")).items()
    }
    inner = document.value("_via_img_metadata")
    entries: Iterable[tuple[Any, int | None]]
    if isinstance(inner, dict):
        entries = ((value, None) for value in inner.values())
    else:
        entries = ((value, document.line_of(offset)) for value, offset in document.top.values())
    found = []
    for value, line in entries:
        if not isinstance(value, dict) or "filename" not in value:
            continue
        image = _Image(str(value["filename"]), line)
        regions = value.get("regions") or []
        for region in regions.values() if isinstance(regions, dict) else regions if isinstance(regions, list) else []:
            entry = _dict(region)
            image.regions.append((_dict(entry.get("shape_attributes")), _dict(entry.get("region_attributes")), line))
        found.append(image)
    if not found:
        raise BadInput("it has no pictures", path, _EXPECTED)
    return found, options


_VIA3_SHAPES = {2: "rect", 3: "circle", 4: "ellipse", 7: "polygon"}


def _via3(document: jsonfile.Document) -> tuple[list[_Image], dict[str, dict[str, str]]]:
    """A VIA 3 project: files, views of them, and metadata of views, each under a number."""
    files, views = _dict(document.value("file")), _dict(document.value("view"))
    options = {
        str(_dict(attribute).get("aname") or key): {
            k: str(v) for k, v in _dict(_dict(attribute).get("options")).items()
        }
        for key, attribute in _dict(document.value("attribute")).items()
    }
    names = {key: str(_dict(a).get("aname") or key) for key, a in _dict(document.value("attribute")).items()}
    found = {}
    for key, view in views.items():
        of_view = _dict(view).get("fid_list") or []
        file = _dict(files.get(str(of_view[0]))) if isinstance(of_view, list) and of_view else {}
        if file:
            found[str(key)] = _Image(str(file.get("src") or file.get("fname") or ""), None)
            if str(file.get("src") or "").startswith(("data:", "blob:")) or not file.get("src"):
                found[str(key)].name = str(file.get("fname") or "")
    for entry in _dict(document.value("metadata")).values():
        value = _dict(entry)
        xy = value.get("xy")
        if not isinstance(xy, list) or not xy or str(value.get("vid")) not in found:
            continue
        shape: dict[str, Any] = {"name": _VIA3_SHAPES.get(xy[0], "point")}
        if shape["name"] == "polygon":
            shape.update(all_points_x=xy[1::2], all_points_y=xy[2::2])
        keys = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": ("cx", "cy", "rx", "ry")}
        shape.update(zip(keys.get(shape["name"], ()), xy[1:], strict=False))
        kept = {names.get(k, k): v for k, v in _dict(value.get("av")).items()}
        found[str(value.get("vid"))].regions.append((shape, kept, None))
    return list(found.values()), options


def _csv(path: Path) -> tuple[list[_Image], dict[str, dict[str, str]]]:
    found: dict[str, _Image] = {}
    reader = csv.DictReader(io.StringIO(textfile.read(path, _EXPECTED)))
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise BadInput(f"not CSV: {error}", f"{path}, line {reader.line_num}", _EXPECTED) from None
    for line, row in rows:
        name = next((v for k, v in row.items() if k and k.strip("# ") == "filename"), None)
        if not name:
            continue
        image = found.setdefault(name, _Image(name, line))
        shape = _dict(row.get("region_shape_attributes"))
        if shape:
            image.regions.append((shape, _dict(row.get("region_attributes")), line))
    return list(found.values()), {}


def _class_key(images: Sequence[_Image], path: Path) -> str | None:
    """The attribute that is the class: the only one, or the only one of a usual name."""
    keys = list(dict.fromkeys(key for image in images for _, kept, _ in image.regions for key in kept))
    if len(keys) < 2:
        return keys[0] if keys else None
    usual = [key for key in keys if key.casefold() in _CLASS_KEYS]
    if len(usual) == 1:
        return usual[0]
    raise BadInput(
        f"regions have the attributes {', '.join(keys[:8])}",
        path,
        "a single attribute that is the class, or one named class",
        "rename the right one to class in VIA, or remove the others",
    )


def _box(
    region: tuple[dict[str, Any], dict[str, Any], int | None],
    key: str | None,
    options: dict[str, dict[str, str]],
    path: Path,
    findings: list[Finding],
) -> Box | None:
    shape, kept, line = region

    def refuse(kind: str, what: str, error: bool = True) -> None:
        findings.append(Finding(str(path), line, kind, what, "it is left out", error))

    value = kept.get(key) if key else None
    if isinstance(value, dict):  # a checkbox: {name: true}
        value = [name for name, on in value.items() if on is True or on == "true"]
        if len(value) > 1:
            refuse("box contradicts", f"a region is {' and '.join(map(str, value))}")
            return None
        value = value[0] if value else ""
    name = "" if value is None else str(value).strip()
    named = options.get(key or "", {}).get(name)
    if named and not any(c.isalpha() for c in name):  # VIA 3 and some projects write an option's number
        name = named
    kind = str(shape.get("name"))
    if kind in ("point", "polyline", "line"):
        refuse("shape", f"a {kind} of {name!r} is not a box", False)
        return None
    xywh = _around(kind, shape)
    if xywh is None:
        refuse("box empty", f"no usable numbers in a {kind} of {name!r}")
        return None
    others = [(other, text) for other, text in kept.items() if other != key]
    return Box(attributes.named(name, others), xywh, line)


def _around(kind: str, shape: dict[str, Any]) -> tuple[float, float, float, float] | None:
    try:
        if kind == "polygon":
            points = [(float(x), float(y)) for x, y in zip(shape["all_points_x"], shape["all_points_y"], strict=True)]
            box = outline(points) if len(points) > 2 else None
        elif kind in ("circle", "ellipse"):
            rx = float(shape["r"] if kind == "circle" else shape["rx"])
            ry = float(shape["r"] if kind == "circle" else shape["ry"])
            turn = float(shape.get("theta") or 0)
            half_w = math.hypot(rx * math.cos(turn), ry * math.sin(turn))
            half_h = math.hypot(rx * math.sin(turn), ry * math.cos(turn))
            box = float(shape["cx"]) - half_w, float(shape["cy"]) - half_h, 2 * half_w, 2 * half_h
        else:
            box = float(shape["x"]), float(shape["y"]), float(shape["width"]), float(shape["height"])
    except (KeyError, TypeError, ValueError):
        return None
    return box if box and all(map(math.isfinite, box)) else None
