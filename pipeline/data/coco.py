"""Read COCO json files: jetmask's own, COCO's, and those of CVAT, Label Studio and Roboflow."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jetson.errors import BadInput
from pipeline.data import attributes, jsonfile, pictures
from pipeline.data.classes import IGNORE
from pipeline.data.labels import Box, Collection, Finding, Labelled, outline, size_of
from pipeline.data.source import Source

_KEPT = ("source", "license", "orig_name", "orig_size", "tags", "x_scale")
_KEPT_OF_BOX = ("box_made_by", "score")
_EXPECTED = "a COCO json"


def read(source: Source, paths: Sequence[Path]) -> Collection:
    """`paths`: the jsons. BadInput where one is no COCO."""
    found = [read_file(path, source) for path in paths]
    images = [image for one in found for image in one.images]
    findings = [finding for one in found for finding in one.findings]
    if len(paths) > 1:
        shown = ", ".join(source.shown(path) for path in paths[:6]) + (", ..." if len(paths) > 6 else "")
        remedy = "all are read into one set; to keep them apart, import each JSON on its own"
        findings.append(Finding(str(source.path), None, "several label files", shown, remedy, False))
    looked_for = "not named in " + ", ".join(path.name for path in paths[:3])
    used = {image.image for image in images if image.image}
    if not all(one.own for one in found) and not any(path.parent == source.path for path in paths):
        findings += pictures.unlabelled(
            source.pictures,
            used,
            source.path,
            looked_for,
            "they are left out",
            source.whole and not source.image_folders,
        )
    licenses = found[0].licenses if len(found) == 1 else []
    names = list(dict.fromkeys(name for one in found for name in one.names))
    return Collection(images, findings, licenses, names, all(one.own for one in found))


def read_file(path: Path, source: Source) -> Collection:
    """One json with the line of each of its entries."""
    document = jsonfile.read(path, _EXPECTED)
    if not isinstance(document.top, dict):
        raise BadInput("not a COCO file: the top level is not an object", path, "images, annotations and categories")
    line_of, findings = document.line_of, list[Finding]()
    names, above = _categories(document, path)
    images: dict[Any, Labelled] = {}
    for value, offset in _list(document, "images", path):
        line = line_of(offset)
        key, name = _key(_need(value, "id", path, "images", line)), str(_need(value, "file_name", path, "images", line))
        if key in images:
            findings.append(Finding(str(path), line, "image id twice", f"id {key!r}", f"{name} is left out", True))
            continue
        ignored = value.get("ignore_boxes") or []
        if not isinstance(ignored, list):
            raise BadInput(f"ignore_boxes is {str(ignored)[:80]}", f"{path}, line {line}", "a list of boxes")
        boxes = [Box(IGNORE, _four(box, path, line), line) for box in ignored]
        wh = size_of(value.get("width"), value.get("height"))
        hit = source.pictures.find(name, path, line, findings)
        images[key] = Labelled(hit.image, name, str(path), line, boxes, wh, _kept(value, _KEPT), hit.missing)
    for value, offset in _list(document, "annotations", path):
        line = line_of(offset)
        key, category = (_key(_need(value, k, path, "annotations", line)) for k in ("image_id", "category_id"))
        if key not in images:
            what = f"no image has the id {key!r}"
            findings.append(Finding(str(path), line, "image missing", what, "the box is left out", True))
            continue
        xywh = _box(value, path, line, findings)
        if xywh is None:
            continue
        name = IGNORE if value.get("iscrowd") else names.get(category, f"category {category}")
        kept = value.get("attributes")
        name = attributes.named(name, kept.items()) if isinstance(kept, dict) else name
        images[key].boxes.append(Box(name, xywh, line, extra=_kept(value, _KEPT_OF_BOX)))
    licenses = _licenses(document, path, findings)
    declared = [name for key, name in names.items() if key not in above]
    info = document.value("info")
    own = isinstance(info, dict) and info.get("classes") == declared
    return Collection(list(images.values()), findings, licenses, declared, own)


def _categories(document: jsonfile.Document, path: Path) -> tuple[dict[Any, str], set[Any]]:
    """-> {id: name}, and the ids of those that only stand above others (Roboflow writes one that no box has)."""
    names: dict[Any, str] = {}
    groups: dict[Any, str] = {}
    for value, offset in _list(document, "categories", path):
        line = document.line_of(offset)
        key, name = _key(_need(value, "id", path, "categories", line)), _need(value, "name", path, "categories", line)
        if names.setdefault(key, str(name)) != str(name):  # whichever were taken, half of the labels would be wrong
            raise BadInput(
                f"the category {key!r} is {names[key]!r} and {str(name)!r}",
                f"{path}, line {line}",
                "one name for each category id",
                "export the labels again, or give one of the two another id",
            )
        groups[key] = str(value.get("supercategory"))
    used = {_key(value.get("category_id")) for value, _ in _list(document, "annotations", path) if _hashable(value)}
    parents = set(groups.values())
    return names, {key for key in names if key not in used and names[key] in parents and groups[key] != names[key]}


def _key(value: Any) -> Any:
    """An id as it is compared: some programs write "1" in one list and 1 in another."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19 else value


def _hashable(value: Mapping[str, Any]) -> bool:
    return not isinstance(value.get("category_id"), (list, dict))


def _licenses(document: jsonfile.Document, path: Path, findings: list[Finding]) -> list[dict[str, Any]]:
    licenses, offset = document.top.get("licenses", ([], 0))
    if licenses and (not isinstance(licenses, list) or any(not isinstance(v, dict) for v, _ in licenses)):
        line, what = document.line_of(offset), "licenses is not a list of objects"
        findings.append(Finding(str(path), line, "licences", what, "they are left out", False))
        return []
    return [_kept(v, v) for v, _ in licenses or ()]


def _list(document: jsonfile.Document, key: str, path: Path) -> list[tuple[dict[str, Any], int]]:
    value = document.top.get(key, (None, 0))[0]
    if not isinstance(value, list) or any(not isinstance(element, dict) for element, _ in value):
        raise BadInput(
            f"not a COCO file: {key} is missing or not a list of objects",
            path,
            "an object with the lists images, annotations and categories",
        )
    return value


def _need(value: Mapping[str, Any], key: str, path: Path, where: str, line: int) -> Any:
    if key not in value or isinstance(value[key], (dict, list)):
        raise BadInput(
            f"an entry of {where} has no usable {key}", f"{path}, line {line}", f"{key} in every entry of {where}"
        )
    return value[key]


def _box(
    value: Mapping[str, Any], path: Path, line: int, findings: list[Finding]
) -> tuple[float, float, float, float] | None:
    """The box of an annotation; of its segmentation, where a tool left the box empty."""
    box = value.get("bbox")
    if box is not None and box != []:
        return _four(box, path, line)
    points = _outline(value.get("segmentation"))
    what = "no bbox"
    if points is None:
        findings.append(Finding(str(path), line, "box empty", what, "the box is left out", True))
        return None
    findings.append(Finding(str(path), line, "box empty", what, "the box around its segmentation is used", False))
    return points


def _outline(segmentation: object) -> tuple[float, float, float, float] | None:
    if not isinstance(segmentation, list) or not segmentation:
        return None
    points: list[tuple[float, float]] = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(_finite, polygon)):
            return None
        points += zip(map(float, polygon[::2]), map(float, polygon[1::2]), strict=True)
    return outline(points)


def _four(box: object, path: Path, line: int) -> tuple[float, float, float, float]:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        raise BadInput(f"not a box: {str(box)[:80]}", f"{path}, line {line}", "four numbers: x, y, width, height")
    x, y, width, height = (float(v) for v in box)
    return x, y, width, height


def _finite(value: object) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _kept(value: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """What is carried over as it is; not what strict JSON cannot hold (NaN, as pandas writes what is missing)."""
    kept = {}
    for key in keys:
        with contextlib.suppress(KeyError, ValueError):
            json.dumps(value[key], allow_nan=False)
            kept[key] = value[key]
    return kept
