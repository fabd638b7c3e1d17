"""Read a YOLO export: `data.yaml` with the class names, a txt beside (or in `labels/` for) every image."""

from __future__ import annotations

import math
import re
from pathlib import Path

import yaml

from jetson.errors import BadInput
from pipeline.data.labels import Box, Collection, Finding, Labelled, folders_in, images_in, labels_in, shared

_SHAPE = "class x-centre y-centre width height, the last four as fractions of the image"
LINE = re.compile(r"\d+( +-?[\d.]+(e[-+]?\d+)?){4,}\s*$")  # enough to tell the format by


def read(folder: Path, image_folders: list[Path]) -> Collection:
    """`folder` holds data.yaml (or classes.txt) and pairs of images and txt files, flat, in images/ and labels/, or in
    one folder of those for each of its splits."""
    names, points = _described(folder)
    images, findings = [], []
    pairs = _pairs(folder, image_folders, findings)
    if not pairs:
        raise BadInput("no folder of images with labels", folder, "images/*.jpg and labels/*.txt")
    for image_folder, label_folder in pairs:
        labels = {p.stem: p for p in labels_in(label_folder, ".txt") if p.name not in ("classes.txt", "README.txt")}
        taken: dict[str, Path] = {}  # stem: the image that has its label
        for image in images_in(image_folder):
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
                        f"no {image.stem}.txt in {label_folder}",
                        "taken as an image without faces",
                        False,
                    )
                )
            boxes = _boxes(path, names, points, findings) if path else []
            images.append(Labelled(image, image.name, str(path or image), None, boxes, None, {"orig_name": image.name}))
        for path in labels.values():
            findings.append(
                Finding(
                    str(path),
                    None,
                    "image missing",
                    f"no image called {path.stem} in {image_folder}",
                    "the label is left out",
                    True,
                )
            )
    return Collection(images, findings)


def _pairs(folder, image_folders, findings):
    """-> [(folder of images, folder of labels), ...]"""
    pairs = []
    for images in image_folders:
        places = (folder / "labels" / images.name, folder / "labels", folder)
        pairs.append((images, next(p for p in places if p.is_dir())))
    for root in [] if pairs else [folder, *folders_in(folder)]:
        images, labels = root / "images", root / "labels"
        if not (images.is_dir() and labels.is_dir()):
            continue
        inner = folders_in(images)
        paired = [(p, labels / p.name) for p in inner if (labels / p.name).is_dir()]
        pairs += paired if paired and not images_in(images) else [(images, labels), *paired]
        for p in inner:
            if not (labels / p.name).is_dir() and (count := len(images_in(p))):
                what = f"no folder {labels / p.name}"
                findings.append(
                    Finding(str(p), None, "labels missing", what, f"its {count} images are left out", False)
                )
    if not pairs and images_in(folder):
        pairs = [(folder, folder)]
    return pairs


def _described(folder):
    """-> {class number: name}, and how many numbers of key points follow each box.

    The names are empty where nothing tells them, and then each number is an unknown class.
    """
    for path in labels_in(folder, ".y*ml") or sorted(folder.parent.glob("data.y*ml")):  # beside its splits
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that there is not
            mark = getattr(error, "problem_mark", None)
            raise BadInput(
                "not YAML", f"{path}, line {mark.line + 1}" if mark else path, "names: [mask, no-mask]"
            ) from None
        names = content.get("names") if isinstance(content, dict) else None
        points = _points(content, path) if names is not None else 0
        if isinstance(names, list):
            return {i: str(name) for i, name in enumerate(names)}, points
        if isinstance(names, dict) and all(str(k).isdecimal() for k in names):
            return {int(k): str(name) for k, name in names.items()}, points
        if names is not None:
            raise BadInput("names is neither a list nor a table", path, "names: [mask, no-mask]")
    for path in (folder / "classes.txt", folder / "obj.names"):
        if path.is_file():
            try:
                lines = path.read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise BadInput(f"cannot be read: {error}", path, "class names in UTF-8, one a line") from None
            return {i: line.strip() for i, line in enumerate(lines)}, 0
    return {}, 0


def _points(content, path):
    """How many numbers the key points of a pose are, by data.yaml's kpt_shape: [points, numbers each]."""
    shape = content.get("kpt_shape", [0, 2])
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and n >= 0 for n in shape):
        raise BadInput(f"kpt_shape is {str(shape)[:60]}", path, "[points, 2 or 3]")
    return shape[0] * shape[1]


def _boxes(path, names, points, findings):
    boxes = []
    for line, text in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
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
        ):
            findings.append(
                Finding(str(path), line, "label broken", f"{text[:60]!r} is not {_SHAPE}", "the line is left out", True)
            )
            continue
        if polygon:
            xs, ys = values[1::2], values[2::2]
            x, y, w, h = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
        else:
            w, h = values[3:5]
            x, y = values[1] - w / 2, values[2] - h / 2
        boxes.append(Box(names.get(int(values[0]), f"class {int(values[0])}"), (x, y, w, h), line, normalised=True))
    return boxes
