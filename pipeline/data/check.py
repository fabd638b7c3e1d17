"""Hold a collection against its images: every image, every box, and what the import does about each finding."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shlex
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.data import imagefile
from pipeline.data.classes import IGNORE, MASKS, ClassSet
from pipeline.data.labels import Box, Collection, Finding, Labelled

log = logging.getLogger(__name__)

ROUNDING_PX = 1.0  # boxes over the edge by this much come from rounding, not from a mistake
DUST_PX = 0.05  # and of this much, from rounding to a digit or two, nothing needs to be said
_SURROGATES = re.compile("[\ud800-\udfff]")  # bytes of a file name that are no UTF-8, as an old Windows zip holds them


@dataclass
class Entry:
    """One image that is fit to be used; boxes are [x, y, w, h] in its pixels, inside it."""

    image: Path
    name: str
    wh: tuple[int, int]
    boxes: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)  # numbers of the class set, by default 0, 1, 2 as in CLASSES
    ignore: list[list[float]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    extra_of_box: list[Mapping[str, Any]] = field(default_factory=list)
    turned: bool = False  # by EXIF: the copy is written without
    upright: bool = False  # its labels were made on the picture as EXIF turns it: so is the copy


class Tell(Protocol):
    """Adds a finding of the image at hand."""

    def __call__(self, kind: str, what: str, remedy: str, line: int | None = ..., error: bool = ...) -> None: ...


_Picture = imagefile.ImageFile | imagefile.BrokenImage | None


def check(
    collection: Collection,
    mapping: Mapping[str, str] | None = None,
    quiet: bool = True,
    exif: str | None = None,
    classes: ClassSet = MASKS,
) -> tuple[list[Entry], list[Finding]]:
    """-> the images fit to be used, with their mended boxes, and all findings in order of the files.

    `mapping`: class names of the source to those of `classes` or "ignore", before the names that are known anyway.
    `exif`: what the labels of photographs that EXIF turns were made on, "stored" or "turned"; None: as their label's
    size says, and where that leaves it open it is an error.
    """
    mapping, findings, entries = mapping or {}, list(collection.findings), []
    seen: dict[str, Entry] = {}
    names: set[str] = set()
    for number, (labelled, picture) in enumerate(_pictures(collection.images), 1):
        if not quiet and (number % 200 == 0 or number == len(collection.images)):
            log.info(f"checked {number}/{len(collection.images)} images")

        def found(
            kind: str,
            what: str,
            remedy: str,
            line: int | None = labelled.line,
            error: bool = True,
            file: str = labelled.file,
        ) -> None:
            findings.append(Finding(file, line, kind, what, remedy, error))

        if labelled.image is None:
            seen_instead = f" ({labelled.missing})" if labelled.missing else ""
            found(
                "image missing", f"{labelled.name or 'an image'} does not exist{seen_instead}", "the image is left out"
            )
            continue
        if picture is None or isinstance(picture, imagefile.BrokenImage):
            found("image broken", f"{labelled.image} {picture}", "the image is left out")
            continue
        ways = _ways(labelled, picture, exif)
        if not ways:
            turned = " (one of them is rotated)" if labelled.wh == picture.wh[::-1] else ""
            said = "x".join(map(str, labelled.wh or ()))
            what = f"the label says {said}, {labelled.image.name} is {picture.wh[0]}x{picture.wh[1]}{turned}"
            found("image size", what, "the image is left out")
            continue
        upright = "turned" in ways
        name = labelled.image.name
        if not _same_suffix(labelled.image.suffix, picture.suffix):
            found(
                "extension",
                f"{name} is {picture.suffix[1:]} inside",
                f"the copy is saved with the suffix {picture.suffix}",
                error=False,
            )
            name = labelled.image.stem + picture.suffix
        if picture.turned != 1:
            remedy = (
                "labels are applied to the picture as rotated by EXIF; the copy is rotated in the same way"
                if upright
                else "labels are applied to the stored pixels; the copy has no EXIF"
            )
            what = f"{name} has EXIF orientation {picture.turned}"
            if open_ := len(ways) == 2:
                what += ", and it is unknown whether its labels belong to the stored or the rotated picture"
                remedy += "; choose with --exif stored or --exif turned"
            found("exif turn", what, remedy, error=open_)
        if name != (plain := _SURROGATES.sub("_", name)):
            found("image name", f"{ascii(name)} is not UTF-8", f"the copy is called {plain}", error=False)
            name = plain
        name = _free(name, names)
        wh = _turned(picture) if upright else picture.wh
        entry = Entry(labelled.image, name, wh, extra=dict(labelled.extra), turned=picture.turned != 1, upright=upright)
        _boxes(labelled, entry, mapping, classes, found)
        digest = hashlib.sha256(picture.data).hexdigest()
        twin = seen.setdefault(digest, entry)
        if twin is not entry:
            alike = _labels(twin) == _labels(entry)
            found(
                "image duplicate",
                f"{labelled.image.name} is the same file as {twin.image.name}"
                + ("" if alike else ", and its labels differ"),
                "the later one is left out",
                error=not alike,
            )
            continue
        names.add(name.lower())
        entries.append(entry)
    return entries, sorted(findings, key=lambda f: (f.file, f.line or 0))


def _labels(entry: Entry) -> list[tuple[int, list[float]]]:
    return sorted(zip(entry.labels, entry.boxes, strict=True))


def _pictures(images: Sequence[Labelled]) -> Iterator[tuple[Labelled, _Picture]]:
    """Each labelled image with what its file is (None, an ImageFile or a BrokenImage), in order; some are read ahead on
    all cores, since decoding is nearly all that a check takes."""

    def read(path: Path | None) -> _Picture:
        try:
            return None if path is None else imagefile.read(path)
        except imagefile.BrokenImage as error:
            return error

    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        ahead: deque[tuple[Labelled, Future[_Picture]]] = deque()
        for labelled in images:
            ahead.append((labelled, pool.submit(read, labelled.image)))
            if len(ahead) > 2 * cores:
                first, picture = ahead.popleft()
                yield first, picture.result()
        for first, picture in ahead:
            yield first, picture.result()


def _ways(labelled: Labelled, picture: imagefile.ImageFile, exif: str | None) -> list[str]:
    """Which of "stored" and "turned" (by EXIF, as viewers and most tools show it) the labels can have been made on."""
    if picture.turned == 1 or (not labelled.boxes and exif is None and labelled.wh in (None, picture.wh)):
        return ["stored"] if labelled.wh in (None, picture.wh) else []
    known = {"stored": picture.wh, "turned": _turned(picture)}
    return [way for way, wh in known.items() if labelled.wh in (None, wh) and exif in (None, way)]


def _turned(picture: imagefile.ImageFile) -> tuple[int, int]:
    """(width, height) as EXIF turns it."""
    width, height = picture.wh
    return (height, width) if picture.turned >= 5 else (width, height)


def _boxes(labelled: Labelled, entry: Entry, mapping: Mapping[str, str], classes: ClassSet, found: Tell) -> None:
    width, height = entry.wh
    at: dict[tuple[float, ...], int] = {}  # the box -> its number
    for box in labelled.boxes:
        x, y, w, h = box.xywh
        if box.normalised:
            x, y, w, h = x * width, y * height, w * width, h * height
        shown = f"{box.name} [{x:.6g}, {y:.6g}, {w:.6g}, {h:.6g}]"
        if w <= 0 or h <= 0:
            found("box empty", f"{shown} has no area", "the box is left out", box.line)
            continue
        x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
        if x2 <= x1 or y2 <= y1:
            found("box outside", f"{shown} is outside the image of {width}x{height}", "the box is left out", box.line)
            continue
        over = max(-x, -y, x + w - width, y + h - height)
        if over > ROUNDING_PX:
            found(
                "box outside",
                f"{shown} extends {over:.6g} px beyond the image of {width}x{height}",
                "clipped to the image",
                box.line,
            )
        elif over > DUST_PX:
            found("box over the edge", f"{shown} by {over:.3g} px", "clipped to the image", box.line, error=False)
        # Sums of fractions leave dust in the last digits; a thousandth of a pixel is far below what a label means.
        xywh = [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)]
        if not min(xywh[2:]) > 0:
            found("box empty", f"{shown} has no area", "the box is left out", box.line)
            continue
        name = classes.of(box.name, mapping)
        if name is None:
            _unknown(box, classes, found)
            name = IGNORE
        if name == IGNORE:
            entry.ignore.append(xywh)
            continue
        label = classes.names.index(name)
        twin = at.setdefault(tuple(xywh), len(entry.boxes))
        if twin < len(entry.boxes):
            if entry.labels[twin] == label:
                found("box twice", shown, "the second is left out", box.line)
            else:
                found(
                    "box contradicts",
                    f"{shown} is also labelled {classes.names[entry.labels[twin]]}",
                    "the first is kept",
                    box.line,
                )
            continue
        entry.boxes.append(xywh)
        entry.labels.append(label)
        entry.extra_of_box.append(box.extra)


def _unknown(box: Box, classes: ClassSet, found: Tell) -> None:
    near = classes.suggest(box.name)
    shown = ", ".join(classes.names[:8])
    what = f"{box.name!r} " + (f"(the nearest is {near})" if near else f"is none of {shown}")
    pair = f"{box.name}={near or 'CLASS'}"
    option = shlex.quote(pair) if "'" in pair else f"'{pair}'"  # quoted in any case: names hold signs of the shell
    remedy = f"it becomes an ignore region; use --map {option} to assign a class"
    if not classes.own:
        remedy += "; --classes all keeps the names in the labels"
    found("class unknown", what, remedy, box.line)


def _same_suffix(a: str, b: str) -> bool:
    alike = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}
    return alike.get(a.lower(), a.lower()) == b


def _free(name: str, taken: set[str]) -> str:
    """`name`, or with a number where another folder's image already has it (file systems may ignore case)."""
    stem, suffix, number = Path(name).stem, Path(name).suffix, 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    return name
