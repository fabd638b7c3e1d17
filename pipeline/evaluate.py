"""`jetmask evaluate`: AP of a bundle's variant on a labelled split, through the detector that runs on the device."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jetson import files, manifest, metrics
from jetson.cli import table
from jetson.detector import Detector, Faces, open_detector
from jetson.engine import available
from jetson.errors import BadInput, DeviceMismatch, QualityGate, UsageError
from jetson.manifest import CLASSES, RUNTIMES, Manifest, Variant

STEPS = ("preprocess_ms", "infer_ms", "postprocess_ms")


class Measured(NamedTuple):
    """`result`: all figures, ready for JSON; `detections`: a `Faces` per image, every face scoring over .01."""

    result: dict[str, Any]
    detections: list[Faces]


def most_accurate(contents: Manifest, runtime: str | None = None) -> tuple[Variant, str]:
    """The variant with the best measured AP that runs here (on `runtime` if given), and its runtime.

    Where none was measured: the largest input of the fp32 variant with the most MACs. DeviceMismatch when nothing runs.
    """
    reasons = available()
    usable = [
        (variant, name)
        for variant in contents.variants
        for name in variant.runtimes
        if reasons[name] is None and runtime in (None, name)
    ]
    if not usable:
        wanted = [runtime] if runtime else sorted({name for v in contents.variants for name in v.runtimes})
        raise DeviceMismatch(
            "no variant of this bundle runs on this machine",
            "; ".join(f"{name}: {reasons[name] or 'no variant for it in the bundle'}" for name in wanted),
            "a machine with " + " or ".join(wanted))

    def rank(pair: tuple[Variant, str]) -> tuple[float, ...]:
        variant, name = pair
        measured = (variant.ap.get(name) or {}).get("map50", -1.0)
        pixels = variant.input_wh[0] * variant.input_wh[1]
        # MACs grow with the input, so models are compared by MACs per pixel: "largest model" first, then its input.
        return (measured, variant.precision == "fp32", variant.macs / pixels, pixels, -RUNTIMES.index(name))

    return max(usable, key=rank)


def detect_split(
    detector: Detector, truths: Sequence[metrics.Truth], on_image: Callable[[int, dict[str, float]], None] | None = None
) -> list[Faces]:
    """The faces of every image that score over .01 in some class; `on_image(number, timings)` after each."""
    found = []
    for number, truth in enumerate(truths):
        found.append(detector.detect(metrics.read_image(truth), metrics.MIN_SCORE))
        if on_image:
            on_image(number, detector.timings)
    return found


def measure(
    bundle_dir: str,
    truths: Sequence[metrics.Truth],
    variant: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Measured:
    """Run one variant (default: the most accurate that runs here) over `truths` (see `metrics.load_split`).

    The result holds `metrics.evaluate`'s figures beside `variant`, `runtime`, `precision`, `input_wh`, `threads`, and
    `latency_ms` {step: {p50, p95, p99}} at the evaluation threshold of .01, on this machine.
    """
    contents = manifest.load(bundle_dir)
    if variant is None:
        chosen, runtime = most_accurate(contents, runtime)
    else:
        chosen = contents.variant(variant)
    threads = threads or os.cpu_count() or 1
    rows: list[list[float]] = []

    def on_image(number: int, timings: dict[str, float]) -> None:
        rows.append([timings[step] for step in STEPS])
        if progress and (number + 1) % 20 == 0 or number + 1 == len(truths):
            _progress(f"{chosen.name}: {number + 1} of {len(truths)} images", progress, number + 1 == len(truths))

    with open_detector(bundle_dir, chosen.name, runtime, threads) as detector:
        detections = detect_split(detector, truths, on_image)
        used = detector.engine.runtime
    times = np.array(rows or [[0.0] * len(STEPS)])
    times = np.concatenate([times, times.sum(axis=1, keepdims=True)], axis=1)
    latency = {
        step: {f"p{q}": round(float(np.percentile(column, q)), 3) for q in (50, 95, 99)}
        for step, column in zip((*STEPS, "total_ms"), times.T, strict=True)
    }
    result = {
        "variant": chosen.name, "runtime": used, "precision": chosen.precision, "input_wh": list(chosen.input_wh),
        "threads": threads, **metrics.evaluate(truths, detections), "latency_ms": latency,
    }
    return Measured(result, detections)


def _progress(text: str, wanted: bool, last: bool) -> None:
    if wanted and sys.stderr.isatty():
        print("\r\033[K" + text, end="\n" if last else "", file=sys.stderr, flush=True)
    elif wanted and last:
        print(text, file=sys.stderr, flush=True)


def coco_results(truths: Sequence[metrics.Truth], detections: Sequence[Faces]) -> list[dict[str, Any]]:
    """COCO's result list: one entry per face and class that scores over .01; categories 1 to 3, bbox xywh in pixels.

    The numbers are not rounded, so that any other tool gets the AP that is printed here.
    """
    results = []
    for truth, (xyxy, scores) in zip(truths, detections, strict=True):
        corners = np.asarray(xyxy, np.float64)
        xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
        for face, label in zip(*np.nonzero(scores > metrics.MIN_SCORE), strict=True):
            results.append({"image_id": truth.image_id, "category_id": int(label) + 1, "bbox": xywh[face],
                            "score": float(scores[face, label])})
    return results


def summary(result: dict[str, Any]) -> str:
    """The figures as a short table."""

    def points(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    counts, three = result["counts"], result["three_class"]
    rows = [["two-class mAP50", points(result["map50"]), sum(counts["per_class"][CLASSES[i]] for i in (0, 1))]]
    rows += [["  " + name, points(value), counts["per_class"][name]] for name, value in result["per_class"].items()]
    limits = {"small": "under 32 px", "medium": "32 to 96 px", "large": "over 96 px"}
    rows += [[f"  {limits[name]}", points(value), counts["by_size"][name]] for name, value in result["by_size"].items()]
    rows.append(["three-class mAP50", points(three["map50"]), sum(counts["per_class"].values())])
    rows += [["  " + name, points(value), counts["per_class"][name]] for name, value in three["per_class"].items()]
    total = result["latency_ms"]["total_ms"]
    return (f"{result['variant']} on {result['runtime']}, {result['split']}, {counts['images']} images\n\n"
            + table(["", "AP50", "faces"], rows)
            + f"\n\nlatency on this machine, {result['threads']} threads, all faces over .01: "
            f"p50 {total['p50']:.1f} ms, p95 {total['p95']:.1f} ms")


def gate(change: dict[str, float], max_drop: float) -> None:
    """QualityGate when a change (see `metrics.paired_bootstrap`) is a fall of more than `max_drop` points."""
    if change["difference"] < -max_drop:
        raise QualityGate(
            f"mAP50 falls by {-change['difference']:.1f} points, from {change['before']:.1f} to {change['after']:.1f} "
            f"(95 % bounds of the change {change['low']:+.1f} to {change['high']:+.1f}, {change['images']} images)",
            None, f"a fall of at most {max_drop:g} points", "use a gentler step, or fine-tune longer")


def options(parser: Any) -> None:
    """The arguments of `jetmask evaluate`."""
    parser.epilog = "example: jetmask evaluate --bundle jetson/models --data data/facemask/val --report runs/errors"
    parser.add_argument("--bundle", required=True, metavar="DIR", help="the bundle's folder")
    parser.add_argument("--data", required=True, metavar="SPLIT_DIR", help="a folder with images/ and annotations.json")
    parser.add_argument("--variant", metavar="NAME", help="the variant (default: the most accurate that runs here)")
    parser.add_argument("--runtime", choices=RUNTIMES, help="default: the variant's first that is here")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument("--detections", metavar="OUT.json", help="write every face over .01 in COCO's result format")
    parser.add_argument("--against", metavar="NAME", help="compare with this variant by a paired bootstrap over images")
    parser.add_argument("--max-drop", type=float, metavar="POINTS",
                        help="with --against: exit 5 if mAP50 is lower than that variant's by more than this")
    parser.add_argument("--report", metavar="DIR", help="write an error analysis (report.html) there")
    parser.add_argument("--negatives", metavar="SPLIT_DIR", help="for --report: images where no mask may be found")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def command(args: Any) -> int:
    """Evaluate, and print or write what was asked for."""
    if args.max_drop is not None and not args.against:
        raise UsageError("--max-drop needs something to compare with", None, "--against NAME")
    if args.negatives and not args.report:
        raise UsageError("--negatives is a part of the error analysis", None, "--report DIR with it")
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads {args.threads} is not a number of threads", None, "1 or more")
    truths = metrics.load_split(args.data)
    if not truths:
        raise BadInput("there is no image to evaluate on", os.path.join(args.data, "annotations.json"))
    folder = os.path.dirname(os.path.abspath(args.detections)) if args.detections else None
    if folder and not os.path.isdir(folder):  # found now, not after the last image
        raise BadInput("there is no such folder to write the detections into", args.detections)
    if args.report:
        from pipeline import error_analysis  # here, so that a missing package or folder shows before the work
        if args.negatives:
            metrics.load_split(args.negatives)
    measured = measure(args.bundle, truths, args.variant, args.runtime, args.threads, progress=True)
    split = os.path.basename(os.path.abspath(args.data))
    result = {"bundle": args.bundle, "split": split, **measured.result}
    if args.detections:
        files.write_json(args.detections, coco_results(truths, measured.detections))
    if args.against:
        before = measure(args.bundle, truths, args.against, None, args.threads, progress=True).detections
        change = metrics.paired_bootstrap(truths, before, measured.detections)
        result["against"] = {"variant": args.against, **change}
    if args.report:
        result["report"] = error_analysis.run(args.report, args.bundle, truths, measured, split, args.negatives)
    if args.json:
        print(json.dumps(result, allow_nan=False))
    else:
        print(summary(result))
        if args.against:
            print(f"against {args.against}: {change['difference']:+.1f} points "
                  f"(95 % bounds {change['low']:+.1f} to {change['high']:+.1f})")
        for name in ("detections", "report"):
            path = result.get("report") if name == "report" else args.detections
            if path:
                print(f"{name}: {path}")
    if args.max_drop is not None:
        gate(change, args.max_drop)
    return 0
