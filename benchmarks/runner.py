"""The runner against the engine alone, with 1 and 4 sources of 640x480; latency and age of frames at 30 frames/s.

    python -m benchmarks.runner --bundle jetson/models --clip CLIP [--clip CLIP …] [--seconds 10] [--rounds 5]

The engine has one thread in both. Bare engine, runner, bare engine again, in each round: a ratio is that of one round,
so that another load on the machine does not decide it, and the row is the round with the median ratio; the lowest and
the highest stand beside it. "sampling": the live trade-off in its 5 % as well. Runs under Python 3.6 too. Rows are
appended to benchmarks/results/runner.csv with the machine in them.
"""

import argparse
import csv
import os
import sys
import time
from datetime import date
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from jetson.adapt import tradeoff
from jetson.bench import end_to_end, frames
from jetson.bundle import manifest
from jetson.inference.detector import Detector, open_detector
from jetson.inference.isolated import open_for_threads
from jetson.monitor import board

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "runner.csv")
FIELDS = [
    "date",
    "machine",
    "cores",
    "python",
    "power_mode",
    "bundle",
    "variant",
    "runtime",
    "case",
    "sources",
    "bare_fps",
    "runner_fps",
    "ratio",
    "rounds",
    "ratio_min",
    "ratio_max",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "wait_p50_ms",
    "infer_p50_ms",
    "seconds",
    "scheduler",
]
# A machine that does other work at the same time measures at real-time priority; the row says so.
SCHEDULERS = {os.SCHED_OTHER: "normal", os.SCHED_RR: "real-time", os.SCHED_FIFO: "real-time"}


def sampler(bundle: str, contents: manifest.Manifest, variant: manifest.Variant, runtime: str) -> tradeoff.TradeOff:
    """The live trade-off over all variants that run here, its engines open."""
    entries = tradeoff.choose(contents, "auto", runtime, variant)
    made = tradeoff.TradeOff(entries, lambda v, r: open_for_threads(bundle, v, r, 1), contents.decode["score"]).start()
    end = time.monotonic() + 60
    while any(entry.detector is None and not entry.error for entry in entries) and time.monotonic() < end:
        time.sleep(0.1)
    return made


class Settings(NamedTuple):
    """What is measured: `seconds` a run, `rounds` times; `clips` are given to the sources in turn."""

    bundle: str
    clips: Sequence[str]
    variant: Optional[str]
    runtime: Optional[str]
    seconds: float
    rounds: int


def one_round(
    settings: Settings,
    contents: manifest.Manifest,
    detector: Detector,
    frame: np.ndarray,
    case: str,
    uris: Sequence[str],
) -> Dict[str, Any]:
    """Bare engine, runner, bare engine: what `end_to_end.through_runner` gives, with `bare_fps` and `ratio`."""
    variant, runtime = contents.variant(settings.variant), detector.engine.runtime
    live = case.startswith("live")
    first = end_to_end.bare(detector, frame, settings.seconds / 2)
    sampling = sampler(settings.bundle, contents, variant, runtime) if "sampling" in case else None
    found = end_to_end.through_runner(
        settings.bundle, variant, runtime, uris, settings.seconds, 1, not live, 30.0 if live else None, sampling
    )
    if sampling is not None:
        sampling.stop()
    found["bare_fps"] = (first + end_to_end.bare(detector, frame, settings.seconds / 2)) / 2
    found["ratio"] = found["fps"] / found["bare_fps"]
    return found


def measure(settings: Settings) -> List[Dict[str, object]]:
    """A row per case."""
    contents = manifest.load(settings.bundle)
    variant = contents.variant(settings.variant)
    detector = open_detector(settings.bundle, variant.name, settings.runtime, 1)
    frame = frames.frames_of(settings.clips[0], 2)[0]
    machine = board.describe()
    rows = []
    clips = [settings.clips[number % len(settings.clips)] for number in range(4)]
    cases = [
        ("throughput", clips[:1]),
        ("throughput", clips),
        ("throughput, sampling", clips[:1]),
        ("live at 30 frames/s", clips[:1]),
    ]
    for case, uris in cases:
        rounds = []
        for number in range(settings.rounds):
            print(f"{case}, {len(uris)} source(s), round {number + 1}", file=sys.stderr)
            rounds.append(one_round(settings, contents, detector, frame, case, uris))
        rounds.sort(key=lambda found: found["ratio"])
        found = rounds[len(rounds) // 2]
        total, stages = found["latency_ms"]["total"], found["latency_ms"]
        live = case.startswith("live")
        rows.append(
            {
                "date": date.today().isoformat(),
                "machine": machine["machine"],
                "cores": machine["cores"],
                "python": sys.version.split()[0],
                "power_mode": machine["power_mode"] or "",
                "bundle": contents.name,
                "variant": variant.name,
                "runtime": detector.engine.runtime,
                "case": case,
                "sources": len(uris),
                "bare_fps": round(found["bare_fps"], 1),
                "runner_fps": found["fps"],
                "ratio": "" if live else round(found["ratio"], 3),
                "rounds": len(rounds),
                "ratio_min": "" if live else round(rounds[0]["ratio"], 3),
                "ratio_max": "" if live else round(rounds[-1]["ratio"], 3),
                "p50_ms": total["p50"],
                "p95_ms": total["p95"],
                "p99_ms": total["p99"],
                "wait_p50_ms": stages["wait"]["p50"],
                "infer_p50_ms": stages["infer"]["p50"],
                "seconds": settings.seconds,
                "scheduler": SCHEDULERS.get(os.sched_getscheduler(0), "other"),
            }
        )
    detector.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="jetson/models")
    parser.add_argument("--clip", action="append", required=True, help="a video of 640x480; up to four in turn")
    parser.add_argument("--variant")
    parser.add_argument("--runtime")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default=OUT)
    args = parser.parse_args()
    rows = measure(Settings(args.bundle, args.clip, args.variant, args.runtime, args.seconds, args.rounds))
    fresh = not os.path.exists(args.out)
    with open(args.out, "a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(
            "{case}, {sources} source(s): bare {bare_fps}, runner {runner_fps} frames/s, ratio {ratio} ({ratio_min} "
            "to {ratio_max}); arrival to result p50 {p50_ms}, p99 {p99_ms} ms".format(**row)
        )


if __name__ == "__main__":
    main()
