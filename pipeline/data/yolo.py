"""Read YOLO labels: a txt for every picture, beside it or in `labels/` where that is in `images/`, however deep, as
Ultralytics, Roboflow, Label Studio, labelImg, CVAT and darknet write them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pipeline.data import recognise, textfile, textlabels, yolo_names
from pipeline.data.labels import Box, Collection, Finding, outline
from pipeline.data.source import Source

_SHAPE = "class x-centre y-centre width height, the last four as fractions of the image"

_NO_FRACTION = 2  # a box over the edge is told as such; what is beyond this is another unit


def read(source: Source, paths: Sequence[Path]) -> Collection:
    """`paths`: label files that were recognised; all of the source that can be labels are read. BadInput where nothing
    pairs, or class names contradict one another."""
    stems = {image.stem for image in source.pictures.all}
    others = [path for path in recognise.label_texts(source) if path.stem in stems]  # of a folder without any face, too
    labels = list(dict.fromkeys([*paths, *others]))
    described = yolo_names.read(source.tree, labels)

    def boxes_of(path: Path, findings: list[Finding]) -> list[Box]:
        return _boxes(path, described, findings)

    names = [described.names[key] for key in sorted(described.names)]
    collection = textlabels.read(source, labels, boxes_of, "images/*.jpg and labels/*.txt", names)
    unnamed = {box.name for image in collection.images for box in image.boxes} - set(names)
    if unnamed:
        shown = ", ".join(sorted(unnamed)[:6])
        where = (
            f"{described.file} names {len(names)} classes"
            if described.file
            else "no data.yaml, classes.txt or obj.names"
        )
        what = f"{where}, and labels are of {shown}"
        findings_of = Finding(
            str(described.file or source.path), None, "class unnamed", what, "see the finding of each", False
        )
        collection.findings.append(findings_of)
    return collection


def _boxes(path: Path, described: yolo_names.Names, findings: list[Finding]) -> list[Box]:
    boxes = []
    points = described.points
    for line, text in enumerate(textfile.lines(path), 1):
        words = text.split()
        if not words:
            continue
        try:
            values = [float(w) for w in words]
        except ValueError:
            values = [math.nan]
        # Key points follow their box; without them to expect, as many numbers are the corners of an outline.
        pose = bool(points) and len(values) == 5 + points
        polygon = not points and len(values) >= 7 and len(values) % 2 == 1
        if (
            (len(values) not in (5, 6) and not polygon and not pose)
            or not all(map(math.isfinite, values))
            or values[0] != int(values[0])
            or max(values[1:5]) > _NO_FRACTION
        ):
            why = ": a comma where a point or a space is expected" if "," in text else ""
            if not why and len(values) > 4 and max(values[1:5]) > _NO_FRACTION:
                why = ": these are pixels"
            findings.append(
                Finding(
                    str(path), line, "label broken", f"{text[:60]!r} is not {_SHAPE}{why}", "the line is left out", True
                )
            )
            continue
        if polygon:
            x, y, w, h = outline(list(zip(values[1::2], values[2::2], strict=True)))
        else:
            w, h = values[3:5]
            x, y = values[1] - w / 2, values[2] - h / 2
        number = int(values[0])
        boxes.append(Box(described.names.get(number, f"class {number}"), (x, y, w, h), line, normalised=True))
    return boxes
