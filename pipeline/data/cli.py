"""`jetmask data VERB`: lists its verbs; each lives in the module that does the work."""

from __future__ import annotations

import argparse

from jetson.errors import UsageError
from pipeline.data import draw, fetch, importer, split, stats

_VERBS = {
    "import": (
        importer.import_options,
        importer.import_command,
        "COCO, Pascal VOC, YOLO or KITTI labels into one layout, every finding listed",
    ),
    "check": (
        importer.check_options,
        importer.check_command,
        "list every finding of a data set; with --against, near-duplicates too",
    ),
    "split": (split.split_options, split.split_command, "train, val and test that share no photograph"),
    "draw": (draw.draw_options, draw.draw_command, "a labelled set drawn from nothing"),
    "stats": (stats.stats_options, stats.stats_command, "boxes by class and size, as a table and plots"),
    "fetch": (fetch.fetch_options, fetch.fetch_command, "download a public collection, or say how to place it by hand"),
}


def options(parser) -> None:
    parser.epilog = "example: jetmask data draw data/drawn/train --images 300"
    verbs = parser.add_subparsers(dest="data_verb", metavar="VERB", title="verbs")
    for name, (add, command, text) in _VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        add(verb)
        verb.set_defaults(data_command=command)


def command(args) -> int:
    if args.data_verb is None:
        raise UsageError(
            "which of the data verbs?", None, "one of " + ", ".join(_VERBS), "`jetmask data --help` says what each does"
        )
    return args.data_command(args)
