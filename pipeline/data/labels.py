"""What every importer reads a collection into: labelled images with the place of each label, and findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """Something in a collection that is not as it should be.

    `error`: nothing is imported with it unless asked to mend; else it is a note, and what it says is done anyway.
    """

    file: str
    line: int | None
    kind: str  # box outside, box empty, class unknown, image missing, image broken, image duplicate, extension, ...
    what: str
    remedy: str  # what the import does about it
    error: bool

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {'error' if self.error else 'note'}: {self.kind}: {self.what} -> {self.remedy}"


class Box(NamedTuple):
    """One label as it stands in the source."""

    name: str
    xywh: tuple[float, float, float, float]  # px of the stored image
    line: int | None
    normalised: bool = False  # xywh are fractions of the image's size, which the label file does not tell
    extra: Mapping[str, Any] = {}  # kept as it is: box_made_by, score


@dataclass
class Labelled:
    """One image and its labels."""

    image: Path | None  # None where the label does not say which image is meant, or no file of that name is there
    name: str  # the image's name as the label gives it
    file: str  # the label file
    line: int | None
    boxes: list[Box]
    wh: tuple[int, int] | None = None  # as the label says
    extra: dict[str, Any] = field(default_factory=dict)  # source, license, tags, orig_name: kept as they are
    missing: str = ""  # where there is no image: what was seen instead


class Collection(NamedTuple):
    """What an importer returns."""

    images: list[Labelled]
    findings: list[Finding]
    licenses: list[dict[str, Any]] = []
    names: Sequence[str] = ()  # the class names that the source declares, in its order; empty where it declares none
    own: bool = False  # jetmask wrote it, with these names as classes of their own


def outline(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Points (x, y) -> the x, y, width and height of the box around them."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def size_of(width: object, height: object) -> tuple[int, int] | None:
    """(width, height) as a label file gives it; None where it says nothing of use: a size of 0 is no size."""
    try:
        wh = round(float(width)), round(float(height))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return wh if min(wh) > 0 else None
