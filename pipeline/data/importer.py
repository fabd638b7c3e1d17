"""`jetmask data import` and `data check`: any of four formats into the one layout, every finding listed."""

from __future__ import annotations

import difflib
import json
import sys
from collections import Counter
from pathlib import Path

from jetson.errors import BadInput, UsageError
from pipeline.data import check, coco, kitti, layout, voc, yolo
from pipeline.data.labels import CLASSES, IGNORE, Collection, Finding, class_of, folders_in, labels_in

FORMATS = {"coco": coco, "voc": voc, "yolo": yolo, "kitti": kitti}

COCO_NAMES = ("annotations.json", "_annotations.coco.json")  # jetmask's own, and that of a Roboflow export


def guess(source: Path) -> str:
    """The format of `source` (a COCO json, or a folder), from what lies in it; BadInput where nothing tells."""
    if not source.exists():
        raise BadInput(
            "there is no such data folder",
            source,
            "a folder of images and labels, or a COCO json",
            "check the path; `jetmask data fetch` names public collections",
        )
    if source.is_file():
        return "coco"
    form = next(_formats(source), None)
    if form:
        return form
    if any(source.glob("*.y*ml")):
        return "yolo"
    below = folders_in(source)
    below += [q for p in below for q in folders_in(p)]
    sets = [p for p in below if any((p / name).is_file() for name in COCO_NAMES)]
    if sets:
        as_it_is = (
            f"; train/ and val/ of this layout need no import: --data {source}"
            if ((sets[0] / COCO_NAMES[0]).is_file())
            else ""
        )
        raise BadInput(
            "these are the folders of several data sets",
            f"{source}: {', '.join(p.name for p in sets)}",
            "one data set",
            f"import each: `jetmask data import {sets[0]} OUT/{sets[0].name}`{as_it_is}",
        )
    raise BadInput(
        "no labels found",
        source,
        "annotations.json, Pascal VOC *.xml, YOLO or KITTI *.txt",
        "name the format with --format, or the json itself",
    )


def _formats(source):
    """The formats that a folder has labels of, the one to take first; of YOLO and KITTI only what comes first."""
    below = [source, *folders_in(source)]
    if any((source / name).is_file() for name in COCO_NAMES):
        yield "coco"
    if any(labels_in(p, ".xml") for p in below):
        yield "voc"
    below += [q for p in below[1:] for q in folders_in(p)]
    for path in (q for p in below for q in labels_in(p, ".txt")):
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            line = file.readline(1024)
        for form, pattern in (("kitti", kitti.LINE), ("yolo", yolo.LINE)):
            if pattern.match(line):
                yield form
                return


def mixed(source: Path, form: str | None) -> list[Finding]:
    """A note where the format is guessed and the folder has labels of others, too: those are not read."""
    found = [] if form or source.is_file() else list(_formats(source))
    if len(found) < 2:
        return []
    what = f"labels of {' and '.join(found[1:])} are there, too, and are not read"
    return [Finding(str(source), None, "formats mixed", what, f"taken as {found[0]}; another: --format", False)]


def read(source: Path, form: str | None = None, image_folders: list[Path] | None = None) -> Collection:
    """Read `source` as `form` (guessed where None)."""
    form = form or guess(source)
    if not source.exists():
        guess(source)
    for folder in image_folders or []:
        if not folder.is_dir():
            raise BadInput("there is no such folder of images", folder)
    if form == "coco" and source.is_dir():
        found = labels_in(source, ".json")
        named = [p for p in found if p.name in COCO_NAMES]
        if not found or (len(found) > 1 and not named):
            raise BadInput(
                "which json?" if found else "there is no json", source, "one COCO json", "name the file itself"
            )
        source = (named or found)[0]
    elif form != "coco" and source.is_file():
        raise UsageError(f"--format {form} reads a folder", source)
    return FORMATS[form].read(source, image_folders or [])


def mapping_of(pairs: list[str]) -> dict[str, str]:
    """["mask=with_mask", ...] -> {"mask": "with_mask"}; UsageError for a class that is none."""
    mapping = {}
    for pair in pairs:
        name, sign, target = pair.rpartition("=")
        if not sign or (target not in CLASSES and target != IGNORE):
            near = class_of(target, {})
            raise UsageError(
                f"--map {pair!r}",
                None,
                f"NAME=CLASS, CLASS one of {', '.join(CLASSES)}, {IGNORE}",
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
            f"no label is called {name!r}" + (f"; one is called {close[0]!r}" if close else ""),
            "--map for it changes nothing",
            False,
        )
        for name, close in near.items()
    ]


def report(findings, entries, as_json: bool, done: str, failed: bool) -> None:
    """All findings to stderr (with --json to stdout), and one line of what was done."""
    boxes = Counter(label for e in entries for label in e.labels)
    summary = {
        "images": len(entries),
        "boxes": {name: boxes[i] for i, name in enumerate(CLASSES)},
        "ignore_boxes": sum(len(e.ignore) for e in entries),
        "errors": sum(f.error for f in findings),
        "notes": sum(not f.error for f in findings),
    }
    if as_json:
        # In ASCII: a file name that is no UTF-8 could not be printed otherwise.
        done_so = {"done": None if failed else done, "findings": [f._asdict() for f in findings]}
        print(json.dumps({**summary, **done_so}))
        return
    for finding in findings:
        print(finding, file=sys.stderr)
    for kind, count in sorted(Counter((f.error, f.kind) for f in findings).items(), reverse=True):
        print(f"{count:5d} {'error' if kind[0] else 'note'}{'' if count == 1 else 's'}: {kind[1]}", file=sys.stderr)
        if kind[1] == "class unknown":  # one slip in a name is one line for every box above: here it is one for all
            names = Counter(f"{f.what} -> {f.remedy}" for f in findings if (f.error, f.kind) == kind)
            for text, boxes_so in names.most_common(10):
                print(f"{boxes_so:9d} x {text}", file=sys.stderr)
    if not failed:
        print(
            f"{done}: {summary['images']} images, "
            + ", ".join(f"{n} {name}" for name, n in summary["boxes"].items())
            + f", {summary['ignore_boxes']} ignore regions"
        )


def import_options(parser) -> None:
    parser.add_argument("source", type=Path, help="a COCO json, or a folder with labels in one of the formats")
    parser.add_argument("out", type=Path, help="the folder to write: images/ and annotations.json")
    parser.add_argument("--format", choices=sorted(FORMATS), help="where it is not guessed rightly")
    parser.add_argument(
        "--images", type=Path, action="append", default=[], metavar="DIR", help="where the images are, if elsewhere"
    )
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="NAME=CLASS",
        help=f"a class of the source; CLASS is {', '.join(CLASSES)} or {IGNORE}",
    )
    _exif_option(parser)
    parser.add_argument("--mend", action="store_true", help="write in spite of errors, each mended as its line says")
    parser.add_argument("--json", action="store_true", help="findings and counts as JSON")
    parser.epilog = "example: jetmask data import downloads/mask.v1.yolo data/mine --map 'no-mask=without_mask'"


def _exif_option(parser) -> None:
    parser.add_argument(
        "--exif",
        choices=("stored", "turned"),
        help="what labels were made on where EXIF turns a photograph and the label's size does not tell: the stored "
        "pixels, or the picture as viewers show it",
    )


def import_command(args) -> int:
    collection = read(args.source, args.format, args.images)
    mapping = mapping_of(args.map)
    entries, findings = check.check(collection, mapping, quiet=False, exif=args.exif)
    findings += unused(mapping, collection, args.source) + mixed(args.source, args.format)
    errors = sum(f.error for f in findings)
    failed = bool(errors and not args.mend) or not entries
    if not failed:
        with layout.folder_aside(args.out) as part:
            layout.write(part, entries, collection.licenses, f"imported by jetmask from {args.source.name}")
    report(findings, entries, args.json, f"wrote {args.out}", failed)
    if failed:
        raise BadInput(
            f"{errors} errors in the labels, listed above; nothing was written"
            if errors
            else "no image is left to import",
            args.source,
            "labels without an error",
            "mend the source, or let --mend do what each line says",
        )
    return 0


def check_options(parser) -> None:
    parser.add_argument("source", type=Path, help="a folder with labels in any of the formats, or a COCO json")
    parser.add_argument("--format", choices=sorted(FORMATS))
    parser.add_argument("--images", type=Path, action="append", default=[], metavar="DIR")
    parser.add_argument("--map", action="append", default=[], metavar="NAME=CLASS")
    _exif_option(parser)
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="SPLIT_DIR",
        help="also name the images that are near-duplicates of one there (val, test)",
    )
    parser.add_argument("--json", action="store_true")
    parser.epilog = "example: jetmask data check data/mine --against data/facemask/test"


def check_command(args) -> int:
    from pipeline.data import leak

    mapping, collection = mapping_of(args.map), read(args.source, args.format, args.images)
    entries, findings = check.check(collection, mapping, quiet=False, exif=args.exif)
    findings += unused(mapping, collection, args.source) + mixed(args.source, args.format)
    findings += leak.findings([e.image for e in entries], args.against)
    errors = sum(f.error for f in findings)
    report(findings, entries, args.json, f"checked {args.source}", False)
    return BadInput.exit_code if errors else 0
