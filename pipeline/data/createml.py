"""Read Create ML's JSON: a list of pictures, each box by its middle, in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from jetson.errors import BadInput
from pipeline.data import jsonfile, pictures
from pipeline.data.labels import Box, Collection, Finding, Labelled
from pipeline.data.source import Source

_EXPECTED = "a Create ML json: a list of image and annotations"


def read(source: Source, paths: Sequence[Path]) -> Collection:
    """`paths`: the JSON files. BadInput where one is not a list of pictures."""
    images: list[Labelled] = []
    findings: list[Finding] = []
    for path in paths or source.tree.ending(".json"):
        document = jsonfile.read(path, _EXPECTED)
        if not isinstance(document.top, list) or any(not isinstance(value, dict) for value, _ in document.top):
            raise BadInput("not a list of pictures", path, _EXPECTED)
        for value, offset in document.top:
            line = document.line_of(offset)
            name = value.get("image", value.get("imagefilename"))
            labels = value.get("annotations", value.get("annotation", []))
            if not isinstance(name, str) or not isinstance(labels, list):
                raise BadInput("an entry has no image or no list of annotations", f"{path}, line {line}", _EXPECTED)
            boxes = [box for label in labels if (box := _box(label, path, line, findings))]
            hit = source.pictures.find(name, path, line, findings)
            images.append(Labelled(hit.image, name, str(path), line, boxes, None, {"orig_name": name}, hit.missing))
    used = {labelled.image for labelled in images if labelled.image}
    looked_for = "not named in " + ", ".join(path.name for path in paths[:3])
    findings += pictures.unlabelled(
        source.pictures, used, source.path, looked_for, "they are left out", source.whole and not source.image_folders
    )
    return Collection(images, findings)


def _box(label: object, path: Path, line: int, findings: list[Finding]) -> Box | None:
    at = label.get("coordinates") if isinstance(label, dict) else None
    name = str(label.get("label") or "") if isinstance(label, dict) else ""
    try:
        x, y, w, h = (float(at[key]) for key in ("x", "y", "width", "height"))  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        x = y = w = h = math.nan
    if not all(map(math.isfinite, (x, y, w, h))):
        what = f"no usable coordinates of {name!r}"
        findings.append(Finding(str(path), line, "box empty", what, "the box is left out", True))
        return None
    return Box(name, (x - w / 2, y - h / 2, w, h), line)
