"""Read CVAT's own XML: for images (tasks and whole projects) and for video, whose tracks are spread over frames."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from jetson.errors import BadInput
from pipeline.data import attributes, pictures, xmlfile
from pipeline.data.labels import Box, Collection, Finding, Labelled, outline, size_of
from pipeline.data.source import Source
from pipeline.data.voc import around

_SHAPES = ("box", "polygon", "ellipse", "mask")  # what is around a face
_OTHERS = ("polyline", "points", "skeleton", "cuboid")  # what is not
_EXPECTED = "CVAT for images 1.1 or CVAT for video 1.1"


def read(source: Source, paths: Sequence[Path]) -> Collection:
    """`paths`: the XML files. BadInput where one is none of CVAT's."""
    images: list[Labelled] = []
    findings: list[Finding] = []
    names: list[str] = []
    for path in paths or source.tree.ending(".xml"):
        top = xmlfile.read(path, _EXPECTED)
        if top.tag != "annotations":
            raise BadInput(f"the top element is <{top.tag}>", path, f"<annotations>, of {_EXPECTED}")
        names += [name for name in _declared(top) if name not in names]
        for entry in top.all("image"):
            images.append(_image(entry, path, source, findings))
        if top.child("track") is not None:
            images += _tracks(top, path, source, findings)
    used = {labelled.image for labelled in images if labelled.image}
    looked_for = "not named in " + ", ".join(path.name for path in paths[:3])
    findings += pictures.unlabelled(
        source.pictures, used, source.path, looked_for, "they are left out", source.whole and not source.image_folders
    )
    return Collection(images, findings, [], names)


def _declared(top: xmlfile.Element) -> list[str]:
    """The names of <label> anywhere in <meta>: of the task, the job or the project."""
    found: list[str] = []
    meta = top.child("meta")
    todo = [meta] if meta is not None else []
    while todo:
        element = todo.pop(0)
        for child in element.children:
            if child.tag == "label" and (name := child.value("name")) is not None:
                found.append(name)
            elif child.tag != "label":
                todo.append(child)
    return list(dict.fromkeys(found))


def _image(entry: xmlfile.Element, path: Path, source: Source, findings: list[Finding]) -> Labelled:
    name = entry.attributes.get("name", "")
    boxes = []
    for shape in entry.children:
        if shape.tag in _OTHERS or shape.tag in _SHAPES:
            box = _box(shape, path, findings, shape.attributes.get("label", ""))
            boxes += [box] if box else []
    hit = source.pictures.find(_with_subset(entry, name, source), path, entry.line, findings)
    wh = size_of(entry.attributes.get("width"), entry.attributes.get("height"))
    return Labelled(hit.image, name, str(path), entry.line, boxes, wh, {"orig_name": name}, hit.missing)


def _with_subset(entry: xmlfile.Element, name: str, source: Source) -> str:
    """A project's export keeps the images of each subset in a folder of its name."""
    subset = entry.attributes.get("subset", "")
    folder = f"images/{subset}/{name}"
    return folder if subset and not source.image_folders and (source.tree.root / folder).is_file() else name


def _box(shape: xmlfile.Element, path: Path, findings: list[Finding], name: str) -> Box | None:
    xywh = _around(shape)
    if xywh is None:
        what = (
            f"a {shape.tag} of {name!r} is not a box" if shape.tag in _OTHERS else f"no usable numbers in <{shape.tag}>"
        )
        kind, error = ("shape", False) if shape.tag in _OTHERS else ("box empty", True)
        findings.append(Finding(str(path), shape.line, kind, what, "it is left out", error))
        return None
    kept = [(entry.attributes.get("name"), entry.text) for entry in shape.all("attribute")]
    return Box(attributes.named(name, kept), xywh, shape.line)


def _around(shape: xmlfile.Element) -> tuple[float, float, float, float] | None:
    def numbers(*keys: str) -> list[float] | None:
        values = [xmlfile.number(shape.attributes.get(key)) for key in keys]
        found = [value for value in values if value is not None]
        return found if len(found) == len(keys) else None

    turn = math.radians(xmlfile.number(shape.attributes.get("rotation")) or 0.0)
    if shape.tag == "box" and (sides := numbers("xtl", "ytl", "xbr", "ybr")):
        x1, y1, x2, y2 = sides
        return around((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, turn) if turn else (x1, y1, x2 - x1, y2 - y1)
    if shape.tag == "ellipse" and (values := numbers("cx", "cy", "rx", "ry")):
        cx, cy, rx, ry = values
        half_w = math.hypot(rx * math.cos(turn), ry * math.sin(turn))
        half_h = math.hypot(rx * math.sin(turn), ry * math.cos(turn))
        return cx - half_w, cy - half_h, 2 * half_w, 2 * half_h
    if shape.tag == "mask" and (values := numbers("left", "top", "width", "height")):
        return values[0], values[1], values[2], values[3]
    if shape.tag == "polygon":
        corners = [pair.split(",") for pair in shape.attributes.get("points", "").split(";")]
        points = [(xmlfile.number(pair[0]), xmlfile.number(pair[-1])) for pair in corners if len(pair) == 2]
        known = [(x, y) for x, y in points if x is not None and y is not None]
        return outline(known) if len(known) > 2 and len(known) == len(corners) else None
    return None


def _tracks(top: xmlfile.Element, path: Path, source: Source, findings: list[Finding]) -> list[Labelled]:
    """The frames of a video that have a picture here, or a box."""
    frames: dict[int, list[Box]] = {}
    for track in top.all("track"):
        for shape in track.children:
            at = shape.attributes.get("frame", "")
            if shape.tag not in (*_SHAPES, *_OTHERS) or not at.isdecimal() or shape.attributes.get("outside") == "1":
                continue
            box = _box(shape, path, findings, track.attributes.get("label", ""))
            if box is not None:
                frames.setdefault(int(at), []).append(box)
    pictures_of: dict[int, list[Path]] = {}
    for image in source.pictures.all:
        if number := re.search(r"(\d+)$", image.stem):
            pictures_of.setdefault(int(number.group(1)), []).append(image)
    found = []
    for frame in sorted(frames):
        images = pictures_of.get(frame, [])
        missing = (
            ""
            if len(images) == 1
            else f"{len(images)} pictures end in this number"
            if images
            else "export the frames, too"
        )
        name, line = f"frame_{frame:06d}", frames[frame][0].line
        image_path = images[0] if len(images) == 1 else None
        found.append(Labelled(image_path, name, str(path), line, frames[frame], None, {"orig_name": name}, missing))
    return found
