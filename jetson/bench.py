"""The verb `bench`: latency, throughput, agreement and AP of a bundle's variants on this machine.

Latencies are of one frame at a time, measured in rounds over all variants in turn, so that a machine that gets warm or
busy hurts all alike. Every result carries the machine, its power mode and its temperature.
"""

import argparse
import json
import os
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from jetson import files
from jetson.adapt import tradeoff
from jetson.adapt.tradeoff import Entry
from jetson.bundle import manifest
from jetson.bundle.manifest import Manifest, Variant
from jetson.capture import source
from jetson.capture.camera import Camera
from jetson.cli import table
from jetson.errors import BadInput, JetmaskError, UsageError
from jetson.evaluation import average_precision
from jetson.evaluation.agreement import Agreement
from jetson.inference import golden
from jetson.inference.detector import Detector, Faces, open_detector
from jetson.inference.isolated import open_for_threads
from jetson.inference.runner import Runner
from jetson.monitor import board
from jetson.vision import letterbox

ROUNDS = 5
WARM_UP = 5
FRAMES = 60  # taken from a source for agreement


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
    add("--threads", type=int, default=1, metavar="N", help="CPU threads of one inference (default 1)")
    add("--seconds", type=float, default=2.0, metavar="S", help="measure each variant for so long (default 2)")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--out", metavar="FILE", help="write the JSON there too")


def percentiles(times_ms: Sequence[float]) -> Dict[str, float]:
    """{p50, p95, p99, n} of times in ms."""
    values = {f"p{q}": round(float(np.percentile(times_ms, q)), 3) for q in (50, 95, 99)}
    return dict(values, n=len(times_ms))


def entries_of(contents: Manifest, names: Sequence[str], runtime: Optional[str]) -> List[Entry]:
    """Every (variant, runtime) pair to measure; those that cannot run here carry the reason in `error`."""
    from jetson.engine import available

    here = available()
    if runtime is not None and runtime not in here:
        raise UsageError(f"no runtime is called {runtime!r}", "--runtime", "one of " + ", ".join(here))
    chosen = [contents.variant(name) for name in names] if names else list(contents.variants)
    found = []
    for variant in chosen:
        for name in variant.runtimes:
            if runtime in (None, name):
                entry = Entry(variant, name)
                entry.error = here[name] or ""
                found.append(entry)
    if not found:
        raise UsageError(f"no variant of this bundle is for {runtime}", "--runtime")
    return found


def time_rounds(
    entries: Sequence[Entry], frames: Sequence[np.ndarray], seconds: float, say: Callable[[str], None]
) -> None:
    """Fill each entry's `total_ms` and `infer_ms`: the whole detector on `frames` in turn, ROUNDS times each."""
    for entry in entries:
        for number in range(WARM_UP):
            entry.detector.detect(frames[number % len(frames)])
    for turn in range(ROUNDS):
        say(f"latency: round {turn + 1} of {ROUNDS}")
        for entry in entries:
            end = time.perf_counter() + seconds / ROUNDS
            count = 0
            while count < 3 or time.perf_counter() < end:
                began = time.perf_counter()
                entry.detector.detect(frames[count % len(frames)])
                entry.total_ms.append((time.perf_counter() - began) * 1e3)
                entry.infer_ms.append(entry.detector.timings["infer_ms"])
                count += 1


def frames_of(uri: str, count: int = FRAMES) -> List[np.ndarray]:
    """Up to `count` frames of a source, spread over its length where it has an end; BadInput when none comes."""
    where = source.parse(uri, loop=False)
    source.check(where)
    kept: List[np.ndarray] = []
    step = seen = 0
    camera = Camera(where, every_frame=not where.live).start()
    try:
        last = time.monotonic()
        while camera.status != "ended" or camera.fresh():
            frame = camera.take()
            if frame is None:
                if time.monotonic() - last > 20 or camera.status == "lost":
                    break
                time.sleep(0.002)
                continue
            last = time.monotonic()
            if seen % (2**step) == 0:
                kept.append(frame.image.copy())
                if len(kept) >= 2 * count:
                    kept, step = kept[::2], step + 1
            seen += 1
            frame.release()
            if (where.live or where.kind == "synthetic") and seen >= 4 * count:
                break
    finally:
        camera.stop()
    if not kept:
        raise BadInput(f"no frame came from the source: {camera.last_error or 'it is empty'}", where.label)
    return kept[:count] if len(kept) <= count else kept[:: len(kept) // count][:count]


def golden_frames(bundle_dir: str) -> List[np.ndarray]:
    """The bundle's drawn images; what is measured when neither a source nor data is given."""
    import cv2

    names = files.read_json(os.path.join(bundle_dir, golden.FILE)).get("images", [])
    frames = [cv2.imread(os.path.join(bundle_dir, "golden", name)) for name in names]
    frames = [frame for frame in frames if frame is not None]
    if not frames:
        raise BadInput("the bundle has no golden images", os.path.join(bundle_dir, golden.FILE))
    return frames


def bare(detector: Detector, frame: np.ndarray, seconds: float) -> float:
    """Inferences/s of the engine alone in a loop, on one prepared input: the limit of any runner."""
    blob, _ = letterbox.letterbox(frame, detector.input_wh)
    for _ in range(WARM_UP):
        detector.engine.infer(blob)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        detector.engine.infer(blob)
        count += 1
    return count / (time.perf_counter() - began)


def through_runner(
    bundle_dir: str,
    variant: Variant,
    runtime: Optional[str],
    uris: Sequence[str],
    seconds: float,
    threads: int = 1,
    every_frame: bool = True,
    fps: Optional[float] = None,
    sampling: Optional[tradeoff.TradeOff] = None,
) -> Dict[str, Any]:
    """The whole way for `seconds`: {fps, latency_ms {stage: {p50, p95, p99}}, results, dropped, camera_fps}.

    `every_frame`: files as fast as they are taken (throughput); otherwise at their rate or `fps` (latency). The first
    second, in which processes start, is not counted. `sampling`: the live trade-off works beside it.
    """
    detector = open_for_threads(bundle_dir, variant, runtime, threads)
    runner = Runner(
        [source.parse(uri, fps=fps) for uri in uris],
        variant,
        detector,
        every_frame=every_frame,
        on_result=None if sampling is None else lambda view, frame, result: sampling.offer(frame.image),
        spare=None if sampling is None else sampling.spare,
        classes=manifest.load(bundle_dir).class_list,
    )
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    runner.start()
    try:
        end = time.monotonic() + 30
        while not all(view.results for view in runner.views):
            if time.monotonic() > end:
                raise BadInput(
                    f"no result in 30 s: {'; '.join(view.camera.last_error for view in runner.views)}",
                    ", ".join(uris),
                )
            time.sleep(0.01)
        time.sleep(1.0)
        for stage in runner.histograms.values():
            stage.clear()
        first, began = runner.results, time.monotonic()
        time.sleep(seconds)
        count, elapsed = runner.results - first, time.monotonic() - began
        return {
            "fps": round(count / elapsed, 2),
            "results": count,
            "sources": len(uris),
            "latency_ms": {name: stage.percentiles() for name, stage in runner.histograms.items()},
            "camera_fps": [round(view.camera.fps, 2) for view in runner.views],
            "dropped": sum(view.camera.dropped for view in runner.views),
        }
    finally:
        runner.stop()
        sys.setswitchinterval(before)


def _agreement(entries: Sequence[Entry], reference: Entry, frames: Sequence[np.ndarray]) -> None:
    wanted = [reference.detector.detect(frame) for frame in frames]
    for entry in entries:
        entry.agreement = Agreement()
        for frame, want in zip(frames, wanted):
            entry.agreement.add(want, want if entry is reference else entry.detector.detect(frame))


def _average_precision(
    entries: Sequence[Entry],
    truths: Sequence[average_precision.Truth],
    classes: Sequence[str],
    say: Callable[[str], None],
) -> None:
    for entry in entries:
        found: List[Faces] = []
        for number, truth in enumerate(truths):
            found.append(entry.detector.detect(average_precision.read_image(truth), average_precision.MIN_SCORE))
            if number % 20 == 0:
                say(f"{entry.variant.name}: image {number + 1} of {len(truths)}")
        entry.eval_result = average_precision.evaluate(truths, found, classes)


def measure(args: argparse.Namespace, say: Callable[[str], None]) -> Dict[str, Any]:
    """Everything `bench` measures, ready for JSON."""
    contents = manifest.load(args.bundle)
    entries = entries_of(contents, args.variant, args.runtime)
    truths = average_precision.load_split(args.data, contents.classes) if args.data else []
    if truths:
        frames = [average_precision.read_image(truth) for truth in truths[:FRAMES]]
    else:
        frames = frames_of(args.source) if args.source else golden_frames(args.bundle)
    usable = []
    for entry in entries:
        if not entry.error:
            say(f"opening {entry.variant.name} on {entry.runtime}")
            try:
                entry.detector = open_detector(args.bundle, entry.variant.name, entry.runtime, args.threads)
            except JetmaskError as error:  # a Nano refuses every TensorRT INT8 variant; the others are measured
                entry.error = str(error.what).splitlines()[0]
                continue
            usable.append(entry)
    try:
        if usable:
            reference = tradeoff.most_accurate(usable)
            time_rounds(usable, frames, args.seconds, say)
            say(f"agreement with {reference.variant.name}")
            _agreement(usable, reference, frames)
            _average_precision(usable if truths else [], truths, say)
            ends = {}
            for entry in usable if args.source else []:
                say(f"{entry.variant.name}: end to end")
                ends[id(entry)] = end_to_end(args, entry, frames[0])
            rows = [_row(entry, entry is reference, ends.get(id(entry))) for entry in entries]
        else:
            rows = [_row(entry, False, None) for entry in entries]
    finally:
        for entry in usable:
            entry.detector.close()
    what = (
        "labelled images of " + os.path.basename(os.path.abspath(args.data))
        if args.data
        else (source.redact(args.source) if args.source else "the bundle's drawn golden images")
    )
    return {
        "bundle": contents.name,
        "measured_on": what,
        "frames": len(frames),
        "threads": args.threads,
        "images": len(truths) or None,
        "board": board.describe(),
        "rows": rows,
    }


def end_to_end(args: argparse.Namespace, entry: Entry, frame: np.ndarray) -> Dict[str, Any]:
    """The runner against the engine alone: bare, runner, bare again, so that a drift of the machine shows."""
    where = source.parse(args.source)
    first = bare(entry.detector, frame, args.seconds / 2)
    found = through_runner(
        args.bundle,
        entry.variant,
        entry.runtime,
        [args.source],
        args.seconds,
        args.threads,
        every_frame=not where.live,
        fps=0.0 if where.kind == "synthetic" else None,
    )
    second = bare(entry.detector, frame, args.seconds / 2)
    limit = (first + second) / 2
    return {
        "fps": found["fps"],
        "bare_fps": round(limit, 2),
        "ratio": round(found["fps"] / limit, 3),
        "latency_ms": found["latency_ms"]["total"],
    }


def _row(entry: Entry, reference: bool, end: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    variant = entry.variant
    row: Dict[str, Any] = {
        "variant": variant.name,
        "runtime": entry.runtime,
        "precision": variant.precision,
        "input_wh": list(variant.input_wh),
        "macs": variant.macs,
        "bytes": variant.bytes,
        "reference": reference,
        "skipped": entry.error or None,
        "latency_ms": None,
        "infer_ms": None,
        "fps": None,
        "agreement": None,
        "ap": None,
        "end_to_end": end,
    }
    if entry.total_ms:
        row["latency_ms"], row["infer_ms"] = percentiles(entry.total_ms), percentiles(entry.infer_ms)
        row["fps"] = round(1e3 / row["latency_ms"]["p50"], 2)
        row["agreement"] = entry.agreement.value()
    if entry.eval_result is not None:
        row["ap"] = entry.eval_result
    return row


def text_table(result: Dict[str, Any]) -> str:
    """The result for people."""
    rows = []
    for row in result["rows"]:
        if row["skipped"]:
            rows.append([row["variant"], row["runtime"]] + ["-"] * 5)
            continue
        agreement, end = row["agreement"]["agreement"], row["end_to_end"]
        rows.append(
            [
                row["variant"],
                row["runtime"],
                "{p50:.2f}".format(**row["latency_ms"]),
                "{p99:.2f}".format(**row["latency_ms"]),
                f"{(end['fps'] if end else row['fps']):.1f}",
                "reference" if row["reference"] else "-" if agreement is None else f"{100 * agreement:.1f} %",
                f"{row['ap']['map50']:.1f}" if row["ap"] and row["ap"]["map50"] is not None else "-",
            ]
        )
    machine = result["board"]
    lines = [
        "measured on {} ({} frames), {}, {} thread{}{}".format(
            result["measured_on"],
            result["frames"],
            machine["machine"],
            result["threads"],
            "" if result["threads"] == 1 else "s",
            ", power mode " + machine["power_mode"] if machine["power_mode"] else "",
        )
    ]
    lines.append(table(["variant", "runtime", "p50 ms", "p99 ms", "frames/s", "agreement", "AP50"], rows))
    reasons = sorted({f"{row['runtime']}: {row['skipped']}" for row in result["rows"] if row["skipped"]})
    return "\n".join(lines + ["- not run here: " + reason for reason in reasons])


def command(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.threads < 1 or not 0 < args.seconds <= 3600:
        raise UsageError("--threads is from 1, --seconds over 0", "--threads / --seconds")
    terminal = sys.stderr.isatty()

    def say(text: str) -> None:
        if terminal:
            print("\r\033[K" + text[:100], end="", file=sys.stderr, flush=True)

    result = measure(args, say)
    if terminal:
        print("\r\033[K", end="", file=sys.stderr)
    if args.out:
        files.write_json(args.out, result)
    print(json.dumps(result) if args.json else text_table(result))
    return 0
