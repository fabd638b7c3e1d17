"""`jetmask data VERB`: its verbs and their options; each verb's module does the work, by a settings object."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from jetson.errors import UsageError
from pipeline.data import draw, fetch, importer, leak, prelabel, select, split, stats
from pipeline.data.classes import CLASSES, IGNORE
from pipeline.paths import SHIPPED


def _source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a folder with labels in any supported format, or one label file")
    parser.add_argument(
        "--format",
        choices=sorted(importer.FORMATS),
        help="the format, if it is not recognised correctly (docs/labels.md lists all formats)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="the folder of the images, if it is another one",
    )
    parser.add_argument(
        "--classes",
        metavar="NAMES",
        help="mask: the three mask "
        "classes; other names are errors. helmet,no_helmet: these, in this order. all: every name in the labels. "
        "Default: mask, or all where no name mentions masks or faces",
    )
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="NAME=CLASS",
        help=f"rename a class of the labels; CLASS is {', '.join(CLASSES)}, {IGNORE}, or one of --classes",
    )
    parser.add_argument(
        "--exif",
        choices=("stored", "turned"),
        help="whether labels of "
        "photographs with an EXIF rotation belong to the stored pixels or to the turned picture; needed only where "
        "the size in the label file does not decide it",
    )
    parser.add_argument("--json", action="store_true", help="print findings and counts as JSON")


def _source_settings(args: argparse.Namespace) -> importer.Settings:
    return importer.Settings(
        args.source, args.format, tuple(args.images), tuple(args.map), args.classes, args.exif, args.json
    )


def _import_options(parser: argparse.ArgumentParser) -> None:
    _source_options(parser)
    parser.add_argument("out", type=Path, help="the folder to write images/ and annotations.json to")
    parser.add_argument(
        "--mend", action="store_true", help="import despite errors: each is corrected as its message says"
    )
    parser.epilog = "example: jetmask data import downloads/mask.v1.yolo data/mine --map 'no-mask=without_mask'"


def _import(args: argparse.Namespace) -> int:
    return importer.run_import(_source_settings(args), args.out, args.mend)


def _check_options(parser: argparse.ArgumentParser) -> None:
    _source_options(parser)
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="SPLIT_DIR",
        help="also list the images that are near-duplicates of one in that folder (val, test)",
    )
    parser.epilog = "example: jetmask data check data/mine --against data/facemask/test"


def _check(args: argparse.Namespace) -> int:
    return importer.run_check(_source_settings(args), args.against)


def _split_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, help="a folder with images/ and annotations.json, as written by `data import`"
    )
    parser.add_argument("out", type=Path, help="the folder to write train/, val/ and test/ to")
    parser.add_argument("--train", type=float, default=0.8, metavar="SHARE")
    parser.add_argument("--val", type=float, default=0.1, metavar="SHARE")
    parser.add_argument("--test", type=float, default=0.1, metavar="SHARE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--bits",
        type=int,
        default=leak.NEAR_BITS,
        help="two images whose hashes differ in at most this many of 64 bits count as the same photograph",
    )
    parser.add_argument("--json", action="store_true")
    parser.epilog = "example: jetmask data split data/mine data/mine_parts --train 0.7 --val 0.15 --test 0.15 --seed 1"


def _split(args: argparse.Namespace) -> int:
    shares = {"train": args.train, "val": args.val, "test": args.test}
    return split.run(split.Settings(args.source, args.out, shares, args.seed, args.bits, args.json))


def _draw_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="the folder to write images/ and annotations.json to")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", default="480x360", metavar="WxH")
    parser.add_argument("--faces", type=int, help="heads per image (default: random, 0 to 12)")
    parser.add_argument("--json", action="store_true")
    parser.epilog = "example: jetmask data draw data/drawn/train --images 300 --seed 1"


def _draw(args: argparse.Namespace) -> int:
    wh = _size(args.size)
    return draw.run(draw.Settings(args.out, args.images, args.seed, wh, args.faces, args.json))


def _size(text: str) -> tuple[int, int]:
    words = text.lower().split("x")
    if len(words) == 2 and all(word.isdecimal() and 32 <= int(word) <= 4096 for word in words):
        return int(words[0]), int(words[1])
    raise UsageError(f"--size {text}", None, "WIDTHxHEIGHT, 32 to 4096 each, for instance 480x360")


def _stats_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, nargs="+", help="folders with images/ and annotations.json; several are shown side by side"
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="write a picture with the plots of all folders")
    parser.add_argument("--json", action="store_true")
    parser.epilog = "example: jetmask data stats data/facemask/train data/facemask/val --plot stats.png"


def _stats(args: argparse.Namespace) -> int:
    return stats.run(stats.Settings(tuple(args.source), args.plot, args.json))


def _fetch_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="the collection; without it, all are listed")
    parser.add_argument("--to", type=Path, default=Path("downloads"), metavar="DIR", help="default: downloads/")
    parser.add_argument("--accept", action="store_true", help="confirm that you have read the licence and agree to it")
    parser.add_argument("--json", action="store_true")
    parser.epilog = "example: jetmask data fetch darun18 --accept"


def _fetch(args: argparse.Namespace) -> int:
    return fetch.run(fetch.Settings(args.name, args.to, args.accept, args.json))


def _detector_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="DIR", default=SHIPPED, help="default: the one that ships with jetmask")
    parser.add_argument("--variant", metavar="NAME", help="default: the most accurate that runs on this machine")
    parser.add_argument("--json", action="store_true")


def _prelabel_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder of photographs")
    parser.add_argument("--format", choices=sorted(prelabel.WRITERS), default="yolo", help="default: yolo")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder to write (default: DIR_FORMAT, beside it)")
    parser.add_argument("--score", type=float, metavar="S", help="score threshold of the boxes (default: the bundle's)")
    parser.add_argument("--ray", metavar="ADDRESS", help="spread over a Ray cluster (local: one on this machine)")
    _detector_options(parser)
    parser.epilog = "example: jetmask data prelabel photos --format label-studio"


def _prelabel(args: argparse.Namespace) -> int:
    return prelabel.run(
        prelabel.Settings(
            args.folder, args.format, args.bundle, args.out, args.variant, args.score, args.json, args.ray
        )
    )


def _select_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder of photographs")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write the selected photographs to")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="how many (default: 100)")
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="SPLIT_DIR",
        help="folders that are already labelled: near-duplicates of these are not selected",
    )
    _detector_options(parser)
    parser.epilog = "example: jetmask data select collected chosen --count 200 --against data/mine/train"


def _select(args: argparse.Namespace) -> int:
    return select.run(
        select.Settings(args.folder, args.out, args.count, args.bundle, args.variant, tuple(args.against), args.json)
    )


_VERBS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int], str]] = {
    "import": (
        _import_options,
        _import,
        "convert labels of COCO, VOC, YOLO, CVAT, Label Studio and others to one layout",
    ),
    "check": (
        _check_options,
        _check,
        "list every finding of a data set; with --against, near-duplicates too",
    ),
    "split": (_split_options, _split, "split into train, val and test that share no photograph"),
    "select": (_select_options, _select, "select the photographs that are most worth labelling"),
    "prelabel": (
        _prelabel_options,
        _prelabel,
        "write draft labels made by a detector, to be corrected in a labelling tool",
    ),
    "draw": (_draw_options, _draw, "draw a synthetic labelled data set"),
    "stats": (_stats_options, _stats, "show boxes by class and size, as a table and plots"),
    "fetch": (_fetch_options, _fetch, "download a public collection, or explain how to download it by hand"),
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `jetmask data`, each with its options."""
    parser.epilog = "example: jetmask data draw data/drawn/train --images 300"
    verbs = parser.add_subparsers(dest="data_verb", metavar="VERB", title="verbs")
    for name, (add, command, text) in _VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        add(verb)
        verb.set_defaults(data_command=command)


def command(args: argparse.Namespace) -> int:
    """Run the verb that was named; UsageError where none was."""
    if args.data_verb is None:
        raise UsageError(
            "no data verb is given", None, "one of " + ", ".join(_VERBS), "`jetmask data --help` explains each"
        )
    return int(args.data_command(args))
