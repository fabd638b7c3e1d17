"""Read Pascal VOC XML files, with the line of every object: VOCdevkit, labelImg, and what others export under that
name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from jetson.errors import BadInput
from pipeline.data import attributes, pictures, xmlfile
from pipeline.data.labels import Box, Collection, Finding, Labelled, outline, size_of
from pipeline.data.source import Source

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read(source: Source, paths: Sequence[Path]) -> Collection:
    """`paths`: the XML files. One that cannot be parsed is a finding."""
    images: list[Labelled] = []
    findings: list[Finding] = []
    broken: set[str] = set()
    for path in paths or source.tree.ending(".xml"):
        try:
            top = xmlfile.read(path, "Pascal VOC")
            if top.tag != "annotation":
                raise BadInput(f"the top element is <{top.tag}>", path, "<annotation>")
        except BadInput as error:
            findings.append(Finding(str(path), None, "label broken", str(error.what), "the file is left out", True))
            broken.add(path.stem)
            continue
        images.append(_labelled(path, top, source, findings))
    used = {labelled.image for labelled in images if labelled.image}
    used |= {image for image in source.pictures.all if image.stem in broken}  # that is told already
    where = source.shown(paths[0].parent) if paths else str(source.path)
    looked_for = f"no XML in {where} names it" if where != "." else "no XML names it"
    findings += pictures.unlabelled(source.pictures, used, source.path, looked_for, "it is left out", source.whole)
    return Collection(images, findings)


def _labelled(path: Path, top: xmlfile.Element, source: Source, findings: list[Finding]) -> Labelled:
    named = top.child("filename")
    name = named.text.strip() if named is not None and named.text.strip() else path.stem + ".jpg"
    line = named.line if named is not None else top.line
    hit = _picture(path, name, line, source, findings)
    boxes = []
    for entry in top.all("object"):
        xywh = _box(entry, path, findings)
        if xywh is not None:
            inner = entry.child("attributes")
            kept = [(one.value("name"), one.value("value")) for one in inner.all("attribute")] if inner else []
            names = [one.text.strip() for one in entry.all("name")] or [""]
            label = attributes.named(names[0], kept) if len(set(names)) == 1 else " and ".join(names)
            boxes.append(Box(label, xywh, entry.line))
    size = top.child("size")
    wh = None if size is None else size_of(size.value("width"), size.value("height"))
    return Labelled(hit.image, name, str(path), line, boxes, wh, {"orig_name": name}, hit.missing)


def _picture(path: Path, name: str, line: int, source: Source, findings: list[Finding]) -> pictures.Hit:
    """The picture that <filename> names; where it is not there, that of the XML's own name. Both: nothing is taken."""
    here: list[Finding] = []
    hit = source.pictures.find(name, path, line, here)
    if Path(name.replace("\\", "/")).stem == path.stem:
        findings += here
        return hit
    # Renamed exports keep the old name inside; copies of an XML, too, and then the labels are of another picture.
    quiet: list[Finding] = []
    own = source.pictures.find(path.stem + ".jpg", path, line, quiet)
    if hit.image is None and own.image is not None:
        what = f"<filename> says {name}"
        findings.append(Finding(str(path), line, "image name", what, f"{own.image.name} is used", False))
        return own
    if own.image is not None and hit.image is not None and own.image != hit.image:
        what = f"<filename> says {hit.image.name}, but {own.image.name} exists too: it is unclear which one is meant"
        return pictures.Hit(None, what)
    findings += here
    return hit


def _box(entry: xmlfile.Element, path: Path, findings: list[Finding]) -> tuple[float, float, float, float] | None:
    def refuse(what: str, line: int) -> None:
        findings.append(Finding(str(path), line, "box empty", what, "the box is left out", True))

    box, turned, polygon = entry.child("bndbox"), entry.child("robndbox"), entry.child("polygon")
    if box is not None:
        sides = [xmlfile.number(box.value(side)) for side in _SIDES]
        if all(side is not None for side in sides):
            x1, y1, x2, y2 = (side for side in sides if side is not None)
            return x1, y1, x2 - x1, y2 - y1
        for side in _SIDES:
            text = box.value(side) or ""
            if "," in text and xmlfile.number(text.replace(",", ".")) is not None:
                found = box.child(side)
                refuse(f"<{side}> is {text!r}: a comma where a point is expected", found.line if found else box.line)
                return None
    if turned is not None:  # of roLabelImg: a box that is turned about its middle
        values = [xmlfile.number(turned.value(key)) for key in ("cx", "cy", "w", "h", "angle")]
        if all(value is not None for value in values):
            cx, cy, w, h, angle = (value for value in values if value is not None)
            return around(cx, cy, w, h, angle)
    if box is None and polygon is not None:
        corners = [(xmlfile.number(p.value("x")), xmlfile.number(p.value("y"))) for p in polygon.all("pt", "point")]
        points = [(x, y) for x, y in corners if x is not None and y is not None]
        if len(points) > 2:
            return outline(points)
    refuse("not four numbers in <bndbox>", entry.line)
    return None


def around(cx: float, cy: float, w: float, h: float, radians: float) -> tuple[float, float, float, float]:
    """The upright box around one of `w` x `h` that is turned about its middle."""
    cos, sin = abs(math.cos(radians)), abs(math.sin(radians))
    width, height = w * cos + h * sin, w * sin + h * cos
    return cx - width / 2, cy - height / 2, width, height
