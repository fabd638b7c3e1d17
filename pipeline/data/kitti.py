"""Read KITTI labels, as NVIDIA's training tools write them: 15 words a line, corners in pixels."""

from __future__ import annotations

import math
import re
from pathlib import Path

from jetson.errors import BadInput
from pipeline.data.labels import Box, Collection, Finding, Labelled, images_in, labels_in, shared

_SHAPE = "type truncated occluded alpha left top right bottom and seven more numbers"
LINE = re.compile(r"[A-Za-z_][\w -]*( +-?[\d.]+(e[-+]?\d+)?){7,}\s*$")  # enough to tell the format by


def read(folder: Path, image_folders: list[Path]) -> Collection:
    """`folder` holds label_2/ or labels/ (else the txt files themselves) and image_2/ or images/."""
    where = next((folder / n for n in ("label_2", "labels") if (folder / n).is_dir()), folder)
    pictures = [*image_folders, *(folder / n for n in ("image_2", "images") if (folder / n).is_dir()), folder]
    labels = {p.stem: p for p in labels_in(where, ".txt")}
    if not labels:
        raise BadInput("no KITTI label files", where, "*.txt, one for each image")
    images, findings = [], []
    taken: dict[str, Path] = {}  # stem: the image that has its label
    for image in (i for f in dict.fromkeys(pictures) if f.is_dir() for i in images_in(f)):
        if image.stem in taken:
            findings.append(shared(image, taken[image.stem]))
            continue
        path = labels.pop(image.stem, None)
        if path is not None:
            taken[image.stem] = image
        else:
            findings.append(
                Finding(
                    str(image),
                    None,
                    "label missing",
                    f"no {image.stem}.txt in {where}",
                    "taken as an image without faces",
                    False,
                )
            )
        boxes = _boxes(path, findings) if path else []
        images.append(Labelled(image, image.name, str(path or image), None, boxes, None, {"orig_name": image.name}))
    for path in labels.values():
        findings.append(
            Finding(str(path), None, "image missing", f"no image called {path.stem}", "the label is left out", True)
        )
    return Collection(images, findings)


def _boxes(path, findings):
    boxes = []
    for line, text in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        # A class name may hold spaces, and a score may follow: the numbers are counted from the name's end.
        words = text.split()
        if not words:
            continue
        first = next((i for i, word in enumerate(words) if _number(word) is not None), len(words))
        values = [_number(word) for word in words[first:]]
        if first == 0 or len(values) < 7 or None in values:
            findings.append(
                Finding(str(path), line, "label broken", f"{text[:60]!r} is not {_SHAPE}", "the line is left out", True)
            )
            continue
        left, top, right, bottom = values[3:7]
        boxes.append(Box(" ".join(words[:first]), (left, top, right - left, bottom - top), line))
    return boxes


def _number(word):
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
