"""Read a COCO json, with the line of every entry, so that a finding can be found again."""

from __future__ import annotations

import bisect
import contextlib
import json
import math
import re
from json import JSONDecodeError
from pathlib import Path

from jetson.errors import BadInput
from pipeline.data.labels import IGNORE, Box, Collection, Finding, Labelled, find_image

_SPACE = re.compile(r"[ \t\n\r]*")
_KEPT = ("source", "license", "orig_name", "orig_size", "tags", "x_scale")
_KEPT_OF_BOX = ("box_made_by", "score")


def read(path: Path, image_folders: list[Path]) -> Collection:
    """`path`: the json. Images are looked for relative to it and in `image_folders`. BadInput where it is no COCO."""
    entries, line_of = _entries(path)
    file, findings = str(path), []
    folders = [*image_folders, path.parent, path.parent / "images"]
    names: dict = {}
    for value, offset in _list(entries, "categories", path):
        line = line_of(offset)
        key, name = (_need(value, k, path, "categories", line) for k in ("id", "name"))
        if names.setdefault(key, str(name)) != str(name):  # whichever were taken, half of the labels would be wrong
            raise BadInput(
                f"the category {key!r} is {names[key]!r} and {str(name)!r}",
                f"{path}, line {line}",
                "one name for each category id",
                "export the labels again, or give one of the two another id",
            )
    images, order = {}, []
    known: dict = {}
    for value, offset in _list(entries, "images", path):
        line, key = line_of(offset), _need(value, "id", path, "images", line_of(offset))
        name = str(_need(value, "file_name", path, "images", line))
        if key in images:
            findings.append(Finding(file, line, "image id twice", f"id {key!r}", f"{name} is left out", True))
            continue
        ignored = value.get("ignore_boxes") or []
        if not isinstance(ignored, list):
            raise BadInput(f"ignore_boxes is {str(ignored)[:80]}", f"{path}, line {line}", "a list of boxes")
        boxes = [Box(IGNORE, _four(box, path, line), line) for box in ignored]
        wh = (value.get("width"), value.get("height"))
        images[key] = Labelled(
            find_image(folders, name, file, line, findings, known),
            name,
            file,
            line,
            boxes,
            (int(wh[0]), int(wh[1])) if all(map(_finite, wh)) else None,
            _kept(value, _KEPT),
        )
        order.append(key)
    for value, offset in _list(entries, "annotations", path):
        line = line_of(offset)
        key, category = (_need(value, k, path, "annotations", line) for k in ("image_id", "category_id"))
        if key not in images:
            findings.append(
                Finding(file, line, "image missing", f"no image has the id {key!r}", "the box is left out", True)
            )
            continue
        box = _four(_need(value, "bbox", path, "annotations", line), path, line)
        name = IGNORE if value.get("iscrowd") else names.get(category, f"category {category}")
        images[key].boxes.append(Box(name, box, line, extra=_kept(value, _KEPT_OF_BOX)))
    licenses, offset = entries.get("licenses", ([], 0))
    if licenses and (not isinstance(licenses, list) or any(not isinstance(v, dict) for v, _ in licenses)):
        line = line_of(offset)
        findings.append(Finding(file, line, "licences", "licenses is no list of objects", "they are left out", False))
        licenses = []
    return Collection([images[key] for key in order], findings, [_kept(v, v) for v, _ in licenses or ()])


def _entries(path):
    """-> {key: (value or [(element, offset), ...], offset)} of the top object, and offset -> line.

    The json module tells no positions, so the top object and its lists are walked here, and each element decoded
    where it begins.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the annotations cannot be read: {error}", path, "a COCO json in UTF-8") from None
    breaks = [m.start() for m in re.finditer("\n", text)]

    def line_of(offset):
        return bisect.bisect_left(breaks, offset) + 1

    def skip(at):
        return _SPACE.match(text, at).end()

    def expect(sign, at):
        if text[at : at + 1] != sign:
            raise JSONDecodeError(f"expected {sign!r}", text, at)
        return skip(at + 1)

    decoder = json.JSONDecoder()
    entries = {}
    try:
        at = skip(0)
        if text[at : at + 1] != "{":
            json.loads(text)
            raise BadInput("not a COCO file: the top is no object", path, "images, annotations and categories")
        at = expect("{", at)
        while text[at : at + 1] != "}":
            at = at if not entries else expect(",", at)
            if text[at : at + 1] != '"':
                raise JSONDecodeError("expected a key in quotes", text, at)
            key, at = decoder.raw_decode(text, at)
            at = expect(":", skip(at))
            start = at
            if text[at : at + 1] == "[":
                value, at = [], expect("[", at)
                while text[at : at + 1] != "]":
                    at = at if not value else expect(",", at)
                    element, end = decoder.raw_decode(text, at)
                    value.append((element, at))
                    at = skip(end)
                at = skip(at + 1)
            else:
                value, at = decoder.raw_decode(text, at)
                at = skip(at)
            entries[key] = value, start
        if skip(at + 1) != len(text):
            raise JSONDecodeError("something follows the end", text, at + 1)
    except JSONDecodeError as error:
        raise BadInput(
            f"not JSON: {error.msg}",
            f"{path}, line {error.lineno}",
            "a COCO json",
            "export the labels again, or mend the file at that line",
        ) from None
    except ValueError as error:  # a number of thousands of digits
        raise BadInput(f"not usable JSON: {error}", path, "a COCO json") from None
    except RecursionError:
        raise BadInput("not usable JSON: nested too deeply", path, "a COCO json") from None
    return entries, line_of


def _list(entries, key, path):
    value = entries.get(key, (None, 0))[0]
    if not isinstance(value, list) or any(not isinstance(element, dict) for element, _ in value):
        raise BadInput(
            f"not a COCO file: {key} is missing or no list of objects",
            path,
            "an object with the lists images, annotations and categories",
        )
    return value


def _need(value, key, path, where, line=None):
    if key not in value or isinstance(value[key], dict) or (key != "bbox" and isinstance(value[key], list)):
        raise BadInput(
            f"an entry of {where} has no usable {key}",
            f"{path}, line {line}" if line else path,
            f"{key} in every entry of {where}",
        )
    return value[key]


def _four(box, path, line):
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        raise BadInput(f"not a box: {str(box)[:80]}", f"{path}, line {line}", "four numbers: x, y, width, height")
    return tuple(float(v) for v in box)


def _finite(value):
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _kept(value, keys):
    """What is carried over as it is; not what strict JSON cannot hold (NaN, as pandas writes what is missing)."""
    kept = {}
    for key in keys:
        with contextlib.suppress(KeyError, ValueError):
            json.dumps(value[key], allow_nan=False)
            kept[key] = value[key]
    return kept
