"""`jetmask data import` and `data check`: labels of any known format into the one layout, findings listed."""

from __future__ import annotations

import difflib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jetson.errors import BadInput, UsageError
from pipeline.data import (
    check,
    coco,
    createml,
    cvat,
    kitti,
    labelme,
    labelstudio,
    layout,
    leak,
    recognise,
    tfcsv,
    via,
    voc,
    yolo,
)
from pipeline.data.classes import CLASSES, IGNORE, ClassSet, chosen, class_of
from pipeline.data.labels import Collection, Finding
from pipeline.data.source import Source

FORMATS: dict[str, Callable[[Source, Sequence[Path]], Collection]] = {
    "coco": coco.read,
    "cvat": cvat.read,
    "labelstudio": labelstudio.read,
    "labelme": labelme.read,
    "via": via.read,
    "createml": createml.read,
    "voc": voc.read,
    "tfcsv": tfcsv.read,
    "kitti": kitti.read,
    "yolo": yolo.read,
}

ALIKE = 5  # findings of one kind that an import prints


@dataclass(frozen=True)
class Settings:
    """What to read and how. `classes`: mask, all, names with commas between, or None (see classes.chosen)."""

    source: Path
    format: str | None = None
    images: tuple[Path, ...] = ()
    map: tuple[str, ...] = ()
    classes: str | None = None
    exif: str | None = None
    json: bool = False


def guess(path: Path) -> str:
    """The format of a label file or a folder, from what lies in it; BadInput where nothing tells."""
    return next(iter(recognise.recognise(Source(path))))


def read(path: Path, form: str | None = None, image_folders: Sequence[Path] | None = None) -> Collection:
    """Read `path` as `form` (recognised where None). Labels of other formats beside it are told, and not read."""
    source = Source(Path(path), image_folders or ())
    if form is None:
        found = recognise.recognise(source)
        form = next(iter(found))
        paths = found[form]
    else:
        found, paths = {}, _of_format(source, form)
    collection = FORMATS[form](source, paths)
    others = [other for other in found if other != form]
    if others:
        what = f"the folder also holds labels of {' and '.join(others)}, which are not read"
        remedy = f"read as {form}; choose another with --format"
        collection.findings.append(Finding(str(path), None, "formats mixed", what, remedy, False))
    return collection


def _of_format(source: Source, form: str) -> list[Path]:
    """The label files of a format that was asked for by name."""
    if source.path.is_file() and not source.whole:
        return [source.path]
    try:
        found = recognise.recognise(source).get(form, [])
    except BadInput as error:
        if "several data sets" in str(error.what):
            raise
        found = []
    suffixes = {"voc": (".xml",), "cvat": (".xml",), "kitti": (".txt",), "yolo": (".txt",), "tfcsv": (".csv",)}
    paths = found or source.tree.ending(*suffixes.get(form, (".json",)))
    if not paths and form != "yolo":
        raise BadInput(f"no labels of {form} found", source.path, recognise.READS[form])
    if form == "coco" and not found and len(paths) > 1:
        raise BadInput(
            "the folder holds several JSON files", source.path, "one COCO json", "give the path of the file itself"
        )
    return paths


def mapping_of(pairs: Sequence[str], classes: str | None = None) -> dict[str, str]:
    """["mask=with_mask", ...] -> {"mask": "with_mask"}; UsageError for a class that is none. With classes of one's own
    a name may become any other."""
    mapping = {}
    allowed = (
        (*(name.strip() for name in classes.split(",")), IGNORE) if classes and "," in classes else (*CLASSES, IGNORE)
    )
    for pair in pairs:
        name, sign, target = pair.rpartition("=")
        if not sign or not target or (classes != "all" and target not in allowed and target != classes):
            near = class_of(target, {})
            raise UsageError(
                f"--map {pair!r}",
                None,
                f"NAME=CLASS, CLASS one of {', '.join(allowed)}",
                f"did you mean {name}={near}?" if near else None,
            )
        mapping[name] = target
    return mapping


def unused(mapping: dict[str, str], collection: Collection, source: Path) -> list[Finding]:
    """A note for each name of --map that no label has: a slip, and then the class is not what was asked for."""
    names = {box.name for image in collection.images for box in image.boxes}
    near = {name: difflib.get_close_matches(name, names, 1) for name in mapping if name not in names}
    return [
        Finding(
            str(source),
            None,
            "map unused",
            f"no label has the name {name!r}" + (f"; there is {close[0]!r}" if close else ""),
            "its --map has no effect",
            False,
        )
        for name, close in near.items()
    ]


@dataclass
class Checked:
    """A source that was read and held against its images."""

    collection: Collection
    classes: ClassSet
    entries: list[check.Entry]
    findings: list[Finding]

    @property
    def errors(self) -> int:
        return sum(f.error for f in self.findings)


def checked(settings: Settings, quiet: bool = False) -> Checked:
    """Read the source and check every image and every box of it."""
    mapping = mapping_of(settings.map, settings.classes)
    collection = read(settings.source, settings.format, settings.images)
    used = [box.name for image in collection.images for box in image.boxes]
    if collection.own and settings.classes is None:
        classes, note = ClassSet(tuple(collection.names), True), None
    else:
        classes, note = chosen(settings.classes, collection.names, used, mapping)
    entries, findings = check.check(collection, mapping, quiet, settings.exif, classes)
    findings += unused(mapping, collection, settings.source)
    if note:
        findings.append(Finding(str(settings.source), None, "own classes", note, "imported with them", False))
    return Checked(collection, classes, entries, findings)


def report(
    findings: Sequence[Finding],
    entries: Sequence[check.Entry],
    classes: ClassSet,
    as_json: bool,
    done: str | None,
    most: int | None = None,
) -> None:
    """The findings to stderr (with --json to stdout), and one line of what was done (None: nothing was).

    most: of how many of one kind a line is printed; None: of all.
    """
    boxes = Counter(label for e in entries for label in e.labels)
    counts = {name: boxes[i] for i, name in enumerate(classes.names)}
    summary = {
        "images": len(entries),
        "boxes": counts,
        "ignore_boxes": sum(len(e.ignore) for e in entries),
        "errors": sum(f.error for f in findings),
        "notes": sum(not f.error for f in findings),
    }
    if as_json:
        # In ASCII: a file name that is no UTF-8 could not be printed otherwise.
        print(json.dumps({**summary, "done": done, "findings": [f._asdict() for f in findings]}))
        return
    said: Counter[tuple[bool, str, str]] = Counter()
    for finding in findings:
        # An unknown class is told by its name; of the others each may be another.
        alike = (finding.error, finding.kind, finding.what if finding.kind == "class unknown" else "")
        said[alike] += 1
        if most is None or said[alike] <= most:
            print(finding, file=sys.stderr)
    left = sum(max(0, count - most) for count in said.values()) if most is not None else 0
    if left:
        print(f"{left} more like these: jetmask data check lists all", file=sys.stderr)
    for (error, kind), count in sorted(Counter((f.error, f.kind) for f in findings).items(), reverse=True):
        print(f"{count:5d} {'error' if error else 'note'}{'' if count == 1 else 's'}: {kind}", file=sys.stderr)
        if kind == "class unknown":  # one slip in a name is one line for every box above: here it is one for all
            names = Counter(f"{f.what} -> {f.remedy}" for f in findings if (f.error, f.kind) == (error, kind))
            for text, boxes_so in names.most_common(10):
                print(f"{boxes_so:9d} x {text}", file=sys.stderr)
    if done is not None:
        shown = ", ".join(f"{n} {name}" for name, n in counts.items())
        print(f"{done}: {summary['images']} images, {shown}, {summary['ignore_boxes']} ignore regions")


def run_import(settings: Settings, out: Path, mend: bool) -> int:
    """Write the source as a split folder `out`; BadInput where an error is left and `mend` is not asked for."""
    found = checked(settings)
    failed = bool(found.errors and not mend) or not found.entries
    if not failed:
        with layout.folder_aside(out) as part:
            what = f"imported by jetmask from {settings.source.name}"
            layout.write(part, found.entries, found.collection.licenses, what, found.classes)
    report(found.findings, found.entries, found.classes, settings.json, None if failed else f"wrote {out}", ALIKE)
    if failed:
        raise BadInput(
            f"{found.errors} errors in the labels, listed above; nothing was written"
            if found.errors
            else "no image is left to import",
            settings.source,
            "labels without an error",
            "correct the labels, or use --mend to apply what each line says",
        )
    return 0


def run_check(settings: Settings, against: Sequence[Path]) -> int:
    """List every finding of the source, and its images that are near to one of the folders `against`."""
    found = checked(settings)
    found.findings += leak.findings([e.image for e in found.entries], against)
    report(found.findings, found.entries, found.classes, settings.json, f"checked {settings.source}")
    return BadInput.exit_code if found.errors else 0
