"""One run over the same images for several detectors in turn, as lines of a CSV that compare with the first of them.

The detectors take turns image by image, so that a busy moment of the machine hits all alike; what another program takes
is in the wall times, and not in `cpu_ms`, the CPU time of all threads of this process for one image.
"""

import csv
import io
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import describe
from jetson import files
from jetson.evaluation import average_precision

RESULTS = Path(__file__).parent / "results"
FIELDS = (
    "system",
    "precision",
    "runtime",
    "threads",
    "input_wh",
    "split",
    "images",
    "map50",
    "with_mask",
    "without_mask",
    "small",
    "medium",
    "large",
    "infer_p50_ms",
    "infer_p95_ms",
    "total_p50_ms",
    "cpu_ms",
    "bytes",
    "macs",
    "ap_difference",
    "time_ratio",
    "cpu_ratio",
    "size_ratio",
    "macs_ratio",
    "machine",
    "load",
)
SCORE = 0.01


class Entry(NamedTuple):
    """A detector and what is known of it: `detector.detect(frame[, score])` and `detector.timings` as jetson's."""

    system: str
    precision: str
    runtime: str
    threads: int
    input_wh: tuple
    detector: Any
    bytes: int
    macs: int


class Measured(NamedTuple):
    """infer, total and cpu: ms per image; result: as metrics.evaluate gives it; load: of the machine at the start."""

    entry: Entry
    result: dict
    infer: np.ndarray
    total: np.ndarray
    cpu: np.ndarray
    load: float


def compare(entries: Sequence[Entry], truths: Sequence[Any], say: Callable[[str], None]) -> list[Measured]:
    """Run every detector on every image, in turns."""
    load = os.getloadavg()[0]
    found: list[list] = [[] for _ in entries]
    times: list[list] = [[] for _ in entries]
    for number, truth in enumerate(truths):
        frame = average_precision.read_image(truth)
        for place in range(len(entries)):
            place = (place + number) % len(entries)  # nobody always comes after the same one
            detector = entries[place].detector
            found[place].append(detector.detect(frame, SCORE))  # for AP: every weak face counts
            # Timed at its own threshold, as it would run; the call before has warmed it up.
            start, cpu = time.perf_counter(), time.process_time()
            detector.detect(frame)
            times[place].append(
                (detector.timings["infer_ms"], (time.perf_counter() - start) * 1e3, (time.process_time() - cpu) * 1e3)
            )
        if (number + 1) % 50 == 0 or number + 1 == len(truths):
            say(f"{number + 1} of {len(truths)} images")
    out = []
    for entry, faces, rows in zip(entries, found, times, strict=True):
        infer, total, cpu = np.array(rows).T
        out.append(Measured(entry, average_precision.evaluate(truths, faces), infer, total, cpu, load))
        entry.detector.close()
    return out


def rows_of(measured: Sequence[Measured], split: str, images: int) -> list[dict]:
    """Lines of the CSV; columns that end in _ratio and _difference are against the first entry of the same threads."""
    machine = describe("onnxruntime", "ai-edge-litert")
    out = []
    for m in measured:
        base = next(other for other in measured if other.entry.threads == m.entry.threads)
        by_size = m.result["by_size"]
        points = {"map50": m.result["map50"], **m.result["per_class"], **by_size}
        out.append(
            {
                "system": m.entry.system,
                "precision": m.entry.precision,
                "runtime": m.entry.runtime,
                "threads": m.entry.threads,
                "input_wh": "x".join(map(str, m.entry.input_wh)),
                "split": split,
                "images": images,
                **{name: "" if value is None else f"{value:.1f}" for name, value in points.items()},
                "infer_p50_ms": f"{np.median(m.infer):.2f}",
                "infer_p95_ms": f"{np.quantile(m.infer, 0.95):.2f}",
                "total_p50_ms": f"{np.median(m.total):.2f}",
                "cpu_ms": f"{np.median(m.cpu):.2f}",
                "bytes": m.entry.bytes,
                "macs": m.entry.macs,
                "ap_difference": f"{(m.result['map50'] or 0) - (base.result['map50'] or 0):.1f}",
                # Of paired times, image by image: a slow moment is in both.
                "time_ratio": f"{np.median(m.total / base.total):.3f}",
                "cpu_ratio": f"{np.median(m.cpu / base.cpu):.3f}",
                "size_ratio": f"{m.entry.bytes / base.entry.bytes:.3f}",
                "macs_ratio": f"{m.entry.macs / base.entry.macs:.3f}",
                "machine": machine,
                "load": f"{m.load:.1f}",
            }
        )
    return out


def write(path: Path, rows: Sequence[dict]) -> None:
    """Replace a CSV of this folder."""
    handle = io.StringIO()
    writer = csv.DictWriter(handle, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(str(path), handle.getvalue())
    print(f"wrote {path.name}")
