"""Read a folder of Pascal VOC XML files, with the line of every object."""

from __future__ import annotations

import math
from pathlib import Path
from xml.parsers import expat

from jetson.errors import BadInput
from pipeline.data.labels import Box, Collection, Finding, Labelled, find_image, folders_in, images_in, labels_in

_SIDES = ("xmin", "ymin", "xmax", "ymax")


class _Element:
    """An XML element with the line it begins on, which ElementTree does not keep."""

    def __init__(self, tag, line):
        self.tag, self.line, self.text, self.children = tag, line, "", []

    def child(self, tag):
        return next((c for c in self.children if c.tag == tag), None)

    def value(self, tag):
        found = self.child(tag)
        return None if found is None else found.text.strip()


def read(folder: Path, image_folders: list[Path]) -> Collection:
    """`folder` holds the XML files: directly, in annotations/, or in one folder for each of its splits. An XML that
    cannot be parsed is a finding."""
    near = [f for f in (folder / "annotations", folder / "Annotations", folder) if labels_in(f, ".xml")][:1]
    places = near or [f for f in folders_in(folder) if labels_in(f, ".xml")]
    images: list[Labelled] = []
    findings: list[Finding] = []
    known: dict = {}
    for place in places:
        folders = [*image_folders, place] + [
            f for f in (folder / "images", folder / "JPEGImages", folder) if f.is_dir() and near
        ]
        used = set()
        for path in labels_in(place, ".xml"):
            try:
                labelled = _labelled(path, _parse(path), folders, findings, known)
            except BadInput as error:
                findings.append(Finding(str(path), None, "label broken", str(error.what), "the file is left out", True))
                continue
            images.append(labelled)
            used.add(labelled.image)
        for image in (i for f in dict.fromkeys(folders) for i in images_in(f)):
            if image not in used:
                findings.append(
                    Finding(str(image), None, "label missing", "no XML names this image", "it is left out", False)
                )
    return Collection(images, findings)


def _parse(path):
    parser, stack = expat.ParserCreate(), [_Element("", 0)]

    def start(tag, _):
        element = _Element(tag, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def text(data):
        stack[-1].text += data

    def entity(*_):
        # Labels need none, and a few nested ones can fill the memory.
        raise BadInput("the XML declares entities", path, "plain Pascal VOC")

    parser.StartElementHandler, parser.CharacterDataHandler, parser.EntityDeclHandler = start, text, entity
    parser.EndElementHandler = lambda _: stack.pop()
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise BadInput(f"not XML: {error}", path, "Pascal VOC") from None
    except (ValueError, LookupError) as error:  # an encoding that the parser does not know, such as GBK
        raise BadInput(f"cannot be read: {error}", path, "Pascal VOC in UTF-8") from None
    top = stack[0].children[0]
    if top.tag != "annotation":
        raise BadInput(f"the top element is <{top.tag}>", path, "<annotation>")
    return top


def _labelled(path, top, folders, findings, known):
    file = str(path)
    named = top.child("filename")
    name = named.text.strip() if named is not None and named.text.strip() else path.stem + ".jpg"
    line = named.line if named is not None else top.line
    image = find_image(folders, name, file, line, findings, known)
    if image is None and Path(name).stem != path.stem:
        # Renamed exports keep the old name inside; the XML's own name is then the better one.
        image = find_image(folders, path.stem + ".jpg", file, line, findings, known)
        if image is not None:
            findings.append(
                Finding(file, line, "image name", f"<filename> says {name}", f"{image.name} is taken", False)
            )
    boxes = []
    for entry in (c for c in top.children if c.tag == "object"):
        box = entry.child("bndbox")
        sides = [None if box is None else _number(box.value(side)) for side in _SIDES]
        if any(side is None for side in sides):
            findings.append(
                Finding(file, entry.line, "box empty", "no four numbers in <bndbox>", "the box is left out", True)
            )
            continue
        x1, y1, x2, y2 = sides
        boxes.append(Box(entry.value("name") or "", (x1, y1, x2 - x1, y2 - y1), entry.line))
    size = top.child("size")
    wh = [None if size is None else _number(size.value(side)) for side in ("width", "height")]
    return Labelled(image, name, file, line, boxes, (int(wh[0]), int(wh[1])) if all(wh) else None, {"orig_name": name})


def _number(text):
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
