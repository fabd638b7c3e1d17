"""AP of a bundle's variant on a labelled split, through the detector that runs on the device."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jetson.bundle import manifest
from jetson.bundle.manifest import RUNTIMES, Manifest, Variant
from jetson.cli import table
from jetson.engine import available
from jetson.errors import DeviceMismatch, JetmaskError, QualityGate
from jetson.evaluation import average_precision
from jetson.inference.detector import Detector, Faces, open_detector
from pipeline.cluster import Cluster

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
            "a machine with " + " or ".join(wanted),
        )

    def rank(pair: tuple[Variant, str]) -> tuple[float, ...]:
        variant, name = pair
        measured = (variant.ap.get(name) or {}).get("map50", -1.0)
        pixels = variant.input_wh[0] * variant.input_wh[1]
        # MACs grow with the input, so models are compared by MACs per pixel: "largest model" first, then its input.
        return (measured, variant.precision == "fp32", variant.macs / pixels, pixels, -RUNTIMES.index(name))

    return max(usable, key=rank)


def require_engine(contents: Manifest, name: str) -> None:
    """UsageError where there is no variant `name`, DeviceMismatch where none of its runtimes is here."""
    variant, reasons = contents.variant(name), available()
    if all(reasons[runtime] for runtime in variant.runtimes):
        raise DeviceMismatch(
            f"no engine on this machine can run variant {name}",
            "; ".join(f"{runtime}: {reasons[runtime]}" for runtime in variant.runtimes),
            "a machine with " + " or ".join(variant.runtimes),
        )


def detect_split(
    detector: Detector,
    truths: Sequence[average_precision.Truth],
    on_image: Callable[[int, dict[str, float]], None] | None = None,
) -> list[Faces]:
    """The faces of every image that score over .01 in some class; `on_image(number, timings)` after each."""
    found = []
    for number, truth in enumerate(truths):
        found.append(detector.detect(average_precision.read_image(truth), average_precision.MIN_SCORE))
        if on_image:
            on_image(number, detector.timings)
    return found


class Each:
    """The faces of one image after the other with the times of the steps, by a worker of a cluster: on one thread."""

    def __init__(self, bundle_dir: str, variant: str, runtime: str | None) -> None:
        self.detector = open_detector(bundle_dir, variant, runtime)

    def __call__(self, truth: average_precision.Truth) -> tuple[Faces, dict[str, float], str]:
        faces = self.detector.detect(average_precision.read_image(truth), average_precision.MIN_SCORE)
        return faces, dict(self.detector.timings), self.detector.engine.runtime


def measure(
    bundle_dir: str,
    truths: Sequence[average_precision.Truth],
    variant: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    progress: bool = False,
    cluster: Cluster | None = None,
) -> Measured:
    """Run one variant (default: the most accurate that runs here) over `truths` (see `metrics.load_split`).

    cluster: whose workers do it, each on one thread, instead of this process on `threads`. JetmaskError where it lost
    images.

    The result holds `metrics.evaluate`'s figures beside `variant`, `runtime`, `precision`, `input_wh`, `threads`, and
    `latency_ms` {step: {p50, p95, p99}} at the evaluation threshold of .01, on this machine.
    """
    contents = manifest.load(bundle_dir)
    if variant is None:
        chosen, runtime = most_accurate(contents, runtime)
    else:
        chosen = contents.variant(variant)
    threads = 1 if cluster else threads or os.cpu_count() or 1
    rows: list[list[float]] = []

    def on_image(number: int, timings: dict[str, float]) -> None:
        rows.append([timings[step] for step in STEPS])
        if progress and (number + 1) % 20 == 0 or number + 1 == len(truths):
            _progress(f"{chosen.name}: {number + 1} of {len(truths)} images", progress, number + 1 == len(truths))

    if cluster is not None:
        detections, used = _on(cluster, truths, (os.path.abspath(bundle_dir), chosen.name, runtime), on_image)
    else:
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
        "variant": chosen.name,
        "runtime": used,
        "precision": chosen.precision,
        "input_wh": list(chosen.input_wh),
        "threads": threads,
        "classes": list(contents.classes),
        **average_precision.evaluate(truths, detections, contents.classes),
        "latency_ms": latency,
    }
    return Measured(result, detections)


def _on(
    cluster: Cluster,
    truths: Sequence[average_precision.Truth],
    what: tuple[str, str, str | None],
    on_image: Callable[[int, dict[str, float]], None],
) -> tuple[list[Faces], str]:
    """The faces of every image, in order, and the runtime that found them."""
    jobs = [truth._replace(file=os.path.abspath(truth.file)) for truth in truths]  # workers have other working folders
    found: list[Faces | None] = [None] * len(truths)
    runtimes = set()
    for done, (number, (faces, timings, runtime)) in enumerate(cluster.spread(Each, what, jobs)):
        found[number] = faces
        runtimes.add(runtime)
        on_image(done, timings)
    lost = [truth.file for truth, faces in zip(truths, found, strict=True) if faces is None]
    if lost:
        raise JetmaskError(
            f"{len(lost)} of {len(truths)} images were lost with the workers that had them",
            lost[0],
            remedy="look at that image, and whether the workers have memory enough",
        )
    return [faces for faces in found if faces is not None], " and ".join(sorted(runtimes))


def _progress(text: str, wanted: bool, last: bool) -> None:
    if wanted and sys.stderr.isatty():
        print("\r\033[K" + text, end="\n" if last else "", file=sys.stderr, flush=True)
    elif wanted and last:
        print(text, file=sys.stderr, flush=True)


def coco_results(truths: Sequence[average_precision.Truth], detections: Sequence[Faces]) -> list[dict[str, Any]]:
    """COCO's result list: one entry per face and class that scores over .01; categories from 1, bbox xywh in pixels.

    The numbers are not rounded, so that any other tool gets the AP that is printed here.
    """
    results = []
    for truth, (xyxy, scores) in zip(truths, detections, strict=True):
        corners = np.asarray(xyxy, np.float64)
        xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
        for face, label in zip(*np.nonzero(scores > average_precision.MIN_SCORE), strict=True):
            results.append(
                {
                    "image_id": truth.image_id,
                    "category_id": int(label) + 1,
                    "bbox": xywh[face],
                    "score": float(scores[face, label]),
                }
            )
    return results


def summary(result: dict[str, Any]) -> str:
    """The figures as a short table."""

    def points(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    counts, three = result["counts"], result.get("three_class")
    figure = average_precision.figure_name(list(counts["per_class"]))
    rows = [[figure, points(result["map50"]), sum(counts["per_class"][name] for name in result["per_class"])]]
    rows += [["  " + name, points(value), counts["per_class"][name]] for name, value in result["per_class"].items()]
    limits = {"small": "under 32 px", "medium": "32 to 96 px", "large": "over 96 px"}
    rows += [[f"  {limits[name]}", points(value), counts["by_size"][name]] for name, value in result["by_size"].items()]
    if three:
        rows.append(["three-class mAP50", points(three["map50"]), sum(counts["per_class"].values())])
        rows += [["  " + name, points(value), counts["per_class"][name]] for name, value in three["per_class"].items()]
    total, threads = result["latency_ms"]["total_ms"], result["threads"]
    return (
        f"{result['variant']} on {result['runtime']}, {result['split']}, {counts['images']} images\n\n"
        + table(["", "AP50", "faces" if three else "boxes"], rows)
        + f"\n\nlatency on this machine, {threads} thread{'s' if threads != 1 else ''}, all faces over .01: "
        f"p50 {total['p50']:.1f} ms, p95 {total['p95']:.1f} ms"
    )


def gate(change: dict[str, float], max_drop: float) -> None:
    """QualityGate when a change (see `metrics.paired_bootstrap`) is a fall of more than `max_drop` points."""
    if change["difference"] < -max_drop:
        raise QualityGate(
            f"mAP50 falls by {-change['difference']:.1f} points, from {change['before']:.1f} to {change['after']:.1f} "
            f"(95 % bounds of the change {change['low']:+.1f} to {change['high']:+.1f}, {change['images']} images)",
            None,
            f"a fall of at most {max_drop:g} points",
            "allow more with --max-drop, or make the variant again: jetmask build --precision auto keeps the layers "
            "that cost most in float, and a pruned model can be fine-tuned longer",
        )
