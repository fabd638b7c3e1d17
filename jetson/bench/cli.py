"""The verb `bench`: its options and its output; what is measured is in jetson.bench.measure."""

import argparse
import json
import logging
import sys

from jetson import files
from jetson.bench import plan
from jetson.bench.measure import Settings, measure
from jetson.bench.result import text_table
from jetson.engine import int8
from jetson.errors import UsageError

log = logging.getLogger(__name__)


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python3 -m jetson bench`."""
    parser.add_argument("bundle", metavar="DIR", help="the bundle's folder")
    bench_options(parser)
    parser.epilog = "example: python3 -m jetson bench jetson/models --source clip.mp4 --json"


def bench_options(parser: argparse.ArgumentParser) -> None:
    """All arguments but the bundle (shared with `jetmask bench`)."""
    add = parser.add_argument
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--source", metavar="URI", help="frames to measure agreement and end-to-end throughput on")
    group.add_argument("--data", metavar="SPLIT_DIR", help="labelled images to measure AP on")
    add("--variant", action="append", default=[], metavar="NAME", help="only this variant; may be given several times")
    add("--runtime", metavar="R", help="only this runtime: tensorrt, onnxruntime or litert")
    add(
        "--all",
        action="store_true",
        help=f"every variant on every runtime (default: at most {plan.MOST}, those that no other beats in AP and cost)",
    )
    add("--threads", type=int, default=1, metavar="N", help="CPU threads of one inference (default 1)")
    add("--seconds", type=float, default=2.0, metavar="S", help="measure each variant for so long (default 2)")
    add("--int8-anyway", action="store_true", help=int8.HELP)
    add("--fresh", action="store_true", help="forget what the same command, cut off within a day, has measured already")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--out", metavar="FILE", help="write the JSON there too")


def settings_of(args: argparse.Namespace) -> Settings:
    """The typed settings of a command line; UsageError for what cannot be."""
    if args.threads < 1 or not 0 < args.seconds <= 3600:
        raise UsageError("--threads of 1 or more, --seconds of more than 0", "--threads / --seconds")
    return Settings(
        args.bundle,
        tuple(args.variant),
        args.runtime,
        args.threads,
        args.seconds,
        args.source,
        args.data,
        args.all,
        args.fresh,
        args.int8_anyway,
    )


def command(args: argparse.Namespace) -> int:
    """Measure and print."""
    settings = settings_of(args)
    terminal = sys.stderr.isatty()

    def say(text: str) -> None:
        if terminal:
            print("\r\033[K" + text[:100], end="", file=sys.stderr, flush=True)

    found = measure(settings, say, log.info)
    if terminal:
        print("\r\033[K", end="", file=sys.stderr)
    if args.out:
        files.write_json(args.out, found)
    print(json.dumps(found) if args.json else text_table(found))
    return 0
