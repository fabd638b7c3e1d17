"""`jetmask evaluate`: AP of a bundle's variant on a labelled split, and what was asked for beside it."""

import contextlib
import json
import os
from typing import Any

from jetson import files
from jetson.bundle import manifest
from jetson.bundle.manifest import RUNTIMES
from jetson.errors import BadInput, UsageError
from jetson.evaluation import average_precision
from pipeline.cluster import Cluster
from pipeline.evaluation import align
from pipeline.evaluation.evaluate import coco_results, gate, measure, require_engine, summary
from pipeline.evaluation.gate import finite
from pipeline.paths import for_file, made


def options(parser: Any) -> None:
    """The arguments of `jetmask evaluate`."""
    parser.epilog = "example: jetmask evaluate --bundle jetson/models --data data/facemask/val --report runs/errors"
    parser.add_argument("--bundle", required=True, metavar="DIR", help="the bundle's folder")
    parser.add_argument("--data", required=True, metavar="SPLIT_DIR", help="a folder with images/ and annotations.json")
    parser.add_argument("--variant", metavar="NAME", help="the variant (default: the most accurate that runs here)")
    parser.add_argument("--runtime", choices=RUNTIMES, help="default: the variant's first runtime that is installed")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument("--ray", metavar="ADDRESS", help="spread over a Ray cluster (local: one on this machine)")
    parser.add_argument("--detections", metavar="OUT.json", help="write every face over .01 in COCO's result format")
    parser.add_argument("--against", metavar="NAME", help="compare with this variant by a paired bootstrap over images")
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="with --against: exit 5 if mAP50 is lower than that variant's by more than this",
    )
    parser.add_argument("--report", metavar="DIR", help="write an error analysis (report.html) there")
    parser.add_argument(
        "--negatives",
        metavar="SPLIT_DIR",
        help="for --report: images without masks, where every mask found is a false alarm",
    )
    parser.add_argument(
        "--align",
        action="store_true",
        help="also report AP after removing one constant box offset per collection, for labels with another box "
        "convention (from the hairline or the eyebrows, to the chin or below); --max-drop does not use it",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def command(args: Any) -> int:
    """Evaluate, and print or write what was asked for."""
    _agree(args)
    classes = manifest.load(args.bundle).classes
    truths = average_precision.load_split(args.data, classes)
    if not truths:
        raise BadInput("no image to evaluate on", os.path.join(args.data, "annotations.json"))
    if args.detections:
        for_file(args.detections)
    # Found now, not after the last image.
    if args.negatives and not average_precision.load_split(args.negatives, classes):
        raise BadInput("no negative image to look for false masks in", args.negatives)
    if args.against and not average_precision.has_scored(truths, classes):
        raise BadInput("no labelled boxes to compare two variants on", args.data, "boxes of a counted class")
    if args.against:
        require_engine(manifest.load(args.bundle), args.against)
    if args.report:
        from pipeline.pages import render  # noqa: F401  (told now where Jinja2 is missing, not after the last image)

        made(args.report)
    with Cluster(args.ray) if args.ray else contextlib.nullcontext() as cluster:
        measured = measure(args.bundle, truths, args.variant, args.runtime, args.threads, True, cluster)
        if args.against:
            before = measure(args.bundle, truths, args.against, None, args.threads, True, cluster)
    split = os.path.basename(os.path.abspath(args.data))
    result = {"bundle": args.bundle, "split": split, **measured.result}
    if args.align:
        result["aligned"] = align.evaluate(truths, measured.detections, classes)
    if args.detections:
        files.write_json(args.detections, coco_results(truths, measured.detections))
    if args.against:
        change = average_precision.paired_bootstrap(truths, before.detections, measured.detections, classes=classes)
        result["against"] = {"variant": args.against, "runtime": before.result["runtime"], **change}
    if args.report:
        from pipeline.evaluation import error_analysis  # its page needs Jinja2, which the base install has not

        result["report"] = error_analysis.run(args.report, args.bundle, truths, measured, split, args.negatives)
    if args.json:
        print(json.dumps(result, allow_nan=False))
    else:
        print(summary(result))
        if args.align:
            print("\n" + align.summary(result, result["aligned"]))
        if args.against:
            print(
                f"against {args.against} on {before.result['runtime']}: {change['difference']:+.1f} points "
                f"(95 % bounds {change['low']:+.1f} to {change['high']:+.1f})"
            )
        for name in ("detections", "report"):
            path = result.get("report") if name == "report" else args.detections
            if path:
                print(f"{name}: {path}")
    if args.max_drop is not None:
        gate(change, args.max_drop)
    return 0


def _agree(args: Any) -> None:
    """UsageError where options exclude each other or miss one another."""
    if args.max_drop is not None and not args.against:
        raise UsageError("--max-drop needs --against", None, "--against NAME")
    finite(args.max_drop)
    if args.negatives and not args.report:
        raise UsageError("--negatives needs --report", None, "--report DIR with it")
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads {args.threads} is not a number of threads", None, "1 or more")
    if args.ray and args.threads not in (None, 1):
        raise UsageError("--threads and --ray exclude each other", None, "--ray alone: each worker has one thread")
