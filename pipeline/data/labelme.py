"""Read LabelMe's JSON, one file for each picture; X-AnyLabeling and AnyLabeling write the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jetson.errors import BadInput
from pipeline.data import attributes, jsonfile, pictures
from pipeline.data.labels import Box, Collection, Finding, Labelled, outline, size_of
from pipeline.data.source import Source

_EXPECTED = "a LabelMe json: shapes and imagePath"
_NO_AREA = ("point", "points", "line", "linestrip")


def read(source: Source, paths: Sequence[Path]) -> Collection:
    """`paths`: the JSON files. One that cannot be read is a finding."""
    images: list[Labelled] = []
    findings: list[Finding] = []
    broken: set[str] = set()
    for path in paths or source.tree.ending(".json"):
        try:
            images.append(_labelled(path, source, findings))
        except BadInput as error:
            findings.append(Finding(str(path), None, "label broken", str(error.what), "the file is left out", True))
            broken.add(path.stem)
    used = {labelled.image for labelled in images if labelled.image}
    used |= {image for image in source.pictures.all if image.stem in broken}  # that is told already
    findings += pictures.unlabelled(
        source.pictures, used, source.path, "no LabelMe json names it", "it is left out", source.whole
    )
    return Collection(images, findings)


def _labelled(path: Path, source: Source, findings: list[Finding]) -> Labelled:
    document = jsonfile.read(path, _EXPECTED)
    shapes = document.top.get("shapes", (None, 0))[0] if isinstance(document.top, dict) else None
    if not isinstance(shapes, list) or any(not isinstance(shape, dict) for shape, _ in shapes):
        raise BadInput("shapes is missing or not a list of objects", path, _EXPECTED)
    boxes = []
    for shape, offset in shapes:
        line, name = document.line_of(offset), str(shape.get("label") or "")
        kind = str(shape.get("shape_type") or "polygon")
        if kind in _NO_AREA:
            findings.append(
                Finding(str(path), line, "shape", f"a {kind} of {name!r} is not a box", "it is left out", False)
            )
            continue
        xywh = _around(kind, shape.get("points"))
        if xywh is None:
            what = f"no usable points in a {kind} of {name!r}"
            findings.append(Finding(str(path), line, "box empty", what, "the box is left out", True))
            continue
        kept = [
            pair for key in ("flags", "attributes") if isinstance(shape.get(key), dict) for pair in shape[key].items()
        ]
        boxes.append(Box(attributes.named(name, kept), xywh, line))
    name = str(document.value("imagePath") or "")
    quiet: list[Finding] = []
    hit = source.pictures.find(name or path.stem + ".jpg", path, None, quiet)
    own = source.pictures.find(path.stem + ".jpg", path, None, [])
    if hit.image is None and own.image is not None:
        what = f"imagePath says {name!r}"
        quiet = [Finding(str(path), None, "image name", what, f"{own.image.name} is used", False)]
        hit = own
    elif hit.image is not None and own.image is not None and own.image != hit.image:
        hit = pictures.Hit(
            None, f"imagePath says {name!r}, but {own.image.name} exists too: it is unclear which one is meant"
        )
    findings += quiet
    wh = size_of(document.value("imageWidth"), document.value("imageHeight"))
    return Labelled(
        hit.image, name, str(path), None, boxes, wh, {"orig_name": Path(name.replace("\\", "/")).name}, hit.missing
    )


def _around(kind: str, points: Any) -> tuple[float, float, float, float] | None:
    try:
        known = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError):
        return None
    if not all(math.isfinite(v) for point in known for v in point):
        return None
    if kind == "circle" and len(known) == 2:
        radius = math.dist(*known)
        return known[0][0] - radius, known[0][1] - radius, 2 * radius, 2 * radius
    return outline(known) if len(known) >= (3 if kind == "polygon" else 2) else None
