"""Read the csv of TensorFlow's Object Detection API, and those with the same columns: a line for every box."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from jetson.errors import BadInput
from pipeline.data import pictures, textfile
from pipeline.data.labels import Box, Collection, Finding, Labelled, size_of
from pipeline.data.source import Source
from pipeline.data.xmlfile import number

_COLUMNS = {
    "name": ("filename", "image", "file", "imagepath", "path", "imageid", "imagename", "filepath"),
    "class": ("class", "label", "classname", "labelname", "category"),
    "x1": ("xmin", "x1", "left"),
    "y1": ("ymin", "y1", "top"),
    "x2": ("xmax", "x2", "right"),
    "y2": ("ymax", "y2", "bottom"),
}
_EXPECTED = "the columns filename, width, height, class, xmin, ymin, xmax, ymax"


def read(source: Source, paths: Sequence[Path]) -> Collection:
    """`paths`: the csv files. BadInput where a column is missing or appears twice."""
    images: dict[tuple[Path, str], Labelled] = {}
    findings: list[Finding] = []
    for path in paths or source.tree.ending(".csv"):
        text = textfile.read(path, _EXPECTED)
        reader = csv.reader(io.StringIO(text), delimiter=_delimiter(text))
        rows = ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
        try:
            columns, width, height = _header(next(rows, (1, []))[1], path)
            for line, row in rows:
                cells = [cell.strip() for cell in row] + [""] * (1 + max(columns.values()))
                values = {key: cells[at] for key, at in columns.items()}
                size = size_of(number(row[width]), number(row[height])) if max(width, height) < len(row) else None
                _row(values, size if min(width, height) >= 0 else None, path, line, source, images, findings)
        except csv.Error as error:
            raise BadInput(f"not CSV: {error}", f"{path}, line {reader.line_num}", _EXPECTED) from None
    found = list(images.values())
    used = {labelled.image for labelled in found if labelled.image}
    looked_for = "not named in " + ", ".join(path.name for path in paths[:3])
    findings += pictures.unlabelled(
        source.pictures, used, source.path, looked_for, "they are left out", source.whole and not source.image_folders
    )
    return Collection(found, findings)


def _delimiter(text: str) -> str:
    first = text.split("\n", 1)[0]
    return max(",;\t", key=first.count)


def _header(row: list[str], path: Path) -> tuple[dict[str, int], int, int]:
    """-> {what: column}, and those of the picture's width and height (-1: none)."""
    words = [word.strip(" \ufeff").casefold().replace("_", "").replace(" ", "") for word in row]
    columns = {}
    for key, names in _COLUMNS.items():
        at = [i for name in names for i, word in enumerate(words) if word == name]
        if key == "class" and len(at) > 1:
            which = ", ".join(row[i].strip() for i in at)
            raise BadInput(
                f"several columns may be the class: {which}", f"{path}, line 1", "one of them; remove others"
            )
        if len(at) != 1 and not (key == "name" and at):
            what = "is missing" if not at else "appears twice"
            raise BadInput(f"the column {names[0]} {what} in {', '.join(row)[:120]}", f"{path}, line 1", _EXPECTED)
        columns[key] = at[0]
    return columns, words.index("width") if "width" in words else -1, words.index("height") if "height" in words else -1


def _row(
    values: dict[str, str],
    wh: tuple[int, int] | None,
    path: Path,
    line: int,
    source: Source,
    images: dict[tuple[Path, str], Labelled],
    findings: list[Finding],
) -> None:
    name = values["name"]
    entry = images.get((path, name))
    if entry is None:
        hit = source.pictures.find(name, path, line, findings)
        entry = Labelled(hit.image, name, str(path), line, [], wh, {"orig_name": name}, hit.missing)
        images[path, name] = entry
    sides = [values[key] for key in ("x1", "y1", "x2", "y2")]
    if not any(sides) and not values["class"]:
        return  # a picture without faces
    numbers = [number(side) for side in sides]
    known = [value for value in numbers if value is not None]
    if len(known) < 4:
        comma = any("," in side for side in sides)
        what = f"no four numbers in {', '.join(sides)}" + (": a comma where a point is expected" if comma else "")
        findings.append(Finding(str(path), line, "box empty", what, "the box is left out", True))
        return
    x1, y1, x2, y2 = known
    if max(map(abs, known)) <= 1 and any(value != int(value) for value in known):
        entry.boxes.append(Box(values["class"], (x1, y1, x2 - x1, y2 - y1), line, normalised=True))
        return
    entry.boxes.append(Box(values["class"], (x1, y1, x2 - x1, y2 - y1), line))
