"""Every benchmark with its question, command and result; which results are older than the shipped weights.

    python -m benchmarks.catalogue            (make bench-all)  what is stale, with the command that measures it again
    python -m benchmarks.catalogue --run      measures what is stale and needs nothing but --data, one after the other
    python -m benchmarks.catalogue --write    benchmarks/README.md, from this list

A result was measured with the weights of the commit that last changed its file: their SHA-256 stand in the manifest of
jetson/models at that commit. Where one differs from today's, the result is stale. How long a run took is appended to
benchmarks/results/runs.csv with the commit, the machine and the date; minutes are shown from there alone.
"""

import argparse
import csv
import datetime
import io
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine
from jetson import files

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
RUNS = RESULTS / "runs.csv"
COLUMNS = ("benchmark", "minutes", "commit", "date", "machine")


class Benchmark(NamedTuple):
    """One benchmark. `command`: its arguments, DATA for the photographs' folder; `weights`: it measures what ships."""

    name: str
    question: str
    command: str
    results: tuple[str, ...]
    weights: bool = True
    needs: str = ""


BENCHMARKS = (
    Benchmark("ablation", "What is each choice of training worth?", "--data DATA", ("detector_ablation.csv",), False),
    Benchmark(
        "calibration",
        "What does int8 cost in AP, by calibration images and method?",
        "--onnx S.onnx --kept S_WITH_RESIDUALS.onnx --data DATA/train --val DATA/val",
        ("calibration.csv",),
        False,
        "two exported ONNX files",
    ),
    Benchmark("detect", "How much of the engine's rate does `jetmask detect` keep?", "--data DATA/test --write", ()),
    Benchmark(
        "engines", "AP and time of every precision on every CPU runtime?", "--data DATA --write", ("engines.csv",)
    ),
    Benchmark("events", "How long does a query of a million events take?", "--write", ("events.csv",), False),
    Benchmark(
        "everything",
        "What do events, MQTT, the page and drift cost the runner together?",
        "--write",
        ("everything.csv",),
        True,
        "mosquitto",
    ),
    Benchmark(
        "false_alarms",
        "How often is a mask found where there is none?",
        "--bundle jetson/models --data DATA",
        ("false_alarms.csv",),
    ),
    Benchmark(
        "faults",
        "How long from a fault to the notice, and to the picture?",
        "--bundle jetson/models --clip CLIP",
        ("faults.csv",),
        False,
        "a video clip",
    ),
    Benchmark(
        "frame_cost",
        "What does a frame cost besides the engine, against an older tree?",
        "--old DIR",
        ("frame_cost.csv",),
        False,
        "a working tree of an older commit",
    ),
    Benchmark("front", "AP against predicted time on a Nano, all models and sizes?", "", ("front.csv", "front.svg")),
    Benchmark("incorrect", "How well is mask_worn_incorrect found?", "--data DATA --write", ("incorrect.csv",)),
    Benchmark(
        "int8_shape",
        "Which int8 form does ONNX Runtime run fastest on a CPU?",
        "--onnx S.onnx --data DATA/train",
        ("int8_shape.csv",),
        False,
        "an exported ONNX file",
    ),
    Benchmark("large", "How well are large faces found?", "--data DATA --write", ("large.csv",)),
    Benchmark(
        "latency_model", "How far is the latency model from published rows?", "--write", ("latency_model.csv",), False
    ),
    Benchmark("mutants", "Which broken lines do the tests not notice?", "", (), False),
    Benchmark("page", "What do viewers of 20 cameras cost?", "", ("page.csv",), False),
    Benchmark(
        "peers",
        "How does AIZOO's detector compare on the same images?",
        "--data DATA/test --write",
        ("peers.csv",),
        True,
        "the peer's model (--peers)",
    ),
    Benchmark("pruner_speed", "How long does pruning itself take?", "", ("pruner_speed.csv",), False),
    Benchmark(
        "pruning",
        "What does pruning bring in AP, size and time?",
        "--model pipeline/weights/s.keras --data DATA",
        ("pruning.csv", "pruning.svg"),
    ),
    Benchmark(
        "recording", "What do pictures and clips of events cost for each frame?", "--write", ("recording.csv",), False
    ),
    Benchmark("robustness", "What do darkness, blur and noise cost?", "--data DATA/test --write", ("robustness.csv",)),
    Benchmark(
        "runner",
        "How much of the engine's rate does the runner keep?",
        "--bundle jetson/models --clip CLIP",
        ("runner.csv",),
        True,
        "a video clip",
    ),
    Benchmark(
        "sensitivity",
        "Which layers can be pruned or quantized?",
        "--model pipeline/weights/s.keras --bundle jetson/models --data DATA",
        ("pruning_scan.csv", "int8_sensitivity.csv"),
    ),
    Benchmark("spool_sqlite", "Would SQLite be the better MQTT spool?", "--write", ("spool_sqlite.csv",), False),
    Benchmark(
        "sweep", "Does a sweep survive kills, and what is its front?", "--data DATA --out runs/sweep", ("sweep.csv",)
    ),
    Benchmark(
        "this_machine",
        "How far is the latency model on this machine?",
        "--write",
        ("this_machine_fp32.csv", "this_machine_int8.csv"),
        False,
    ),
    Benchmark(
        "tracks",
        "How well are persons counted on a clip?",
        "--bundle jetson/models --clip CLIP.mp4 --truth CLIP.json",
        ("tracks.csv",),
        True,
        "a clip with known boxes",
    ),
)


def git(*words: str) -> str:
    """What git answers in this repository; "" where it fails."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def weights(manifest: str) -> dict[str, str]:
    """{model: SHA-256 of its fp32 file} of a manifest's text; empty where it is none."""
    try:
        variants = json.loads(manifest)["variants"]
    except (ValueError, KeyError):
        return {}
    return {each["model"]: each["sha256"] for each in variants if each["precision"] == "fp32"}


def reason(benchmark: Benchmark) -> str:
    """Why its results have to be measured again; "" where they are up to date or do not depend on the weights."""
    missing = [name for name in benchmark.results if not (RESULTS / name).exists()]
    if missing:
        return f"{missing[0]} is missing"
    if not benchmark.weights or not benchmark.results:
        return ""
    result = f"benchmarks/results/{benchmark.results[0]}"
    commit = git("log", "-1", "--format=%H", "--", result)
    if not commit or git("status", "--porcelain", "--", result):
        return ""  # not committed yet: of today
    then = weights(git("show", f"{commit}:jetson/models/manifest.json"))
    now = weights((ROOT / "jetson" / "models" / "manifest.json").read_text(encoding="utf-8"))
    changed = sorted(name for name in now if then.get(name) != now[name])
    return f"weights of {', '.join(changed)} changed since {commit[:8]}" if changed else ""


def minutes() -> dict[str, str]:
    """{benchmark: minutes of its last run} from runs.csv."""
    if not RUNS.exists():
        return {}
    with RUNS.open(encoding="utf-8", newline="") as file:
        return {row["benchmark"]: row["minutes"] for row in csv.DictReader(file)}


def command(benchmark: Benchmark, data: str = "DATA") -> str:
    """Its command line."""
    return f"python -m benchmarks.{benchmark.name} {benchmark.command.replace('DATA', data)}".strip()


def page() -> str:
    """benchmarks/README.md."""
    known = minutes()
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks.catalogue --write`. DATA is the folder of the photographs (`train/`, `val/`,",
        "`test/`). `make bench-all` lists the results that are older than the shipped weights; with `RUN=--run` it",
        "measures them again. Minutes are those of the last run in `results/runs.csv` (`-`: not yet",
        "timed). What the figures mean is in [int8](int8.md), [pruned or small](pruned_or_small.md) and",
        "[methods](methods.md).",
        "",
        "| question | command | minutes | result |",
        "|---|---|---:|---|",
    ]
    for each in BENCHMARKS:
        results = ", ".join(f"[{name}](results/{name})" for name in each.results) or "-"
        needs = f" (needs {each.needs})" if each.needs else ""
        lines.append(f"| {each.question}{needs} | `{command(each)}` | {known.get(each.name, '-')} | {results} |")
    lines += [
        "",
        "`results/train_*.csv` are the logs of the trainings that made the shipped weights: the model card has",
        "",
    ]
    lines[-1] = "their commands."
    return "\n".join([*lines, ""])


def run(benchmark: Benchmark, data: str) -> int:
    """Run it and keep how long it took; its exit code."""
    began = time.monotonic()
    words = shlex.split(command(benchmark, shlex.quote(data)))[1:]
    code = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
    if code == 0:
        taken = f"{(time.monotonic() - began) / 60:.1f}"
        today = datetime.date.today().isoformat()
        commit = git("rev-parse", "--short=8", "HEAD")
        row = dict(zip(COLUMNS, (benchmark.name, taken, commit, today, machine.describe())))
        rows = []
        if RUNS.exists():
            with RUNS.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, row])
        files.write_text(str(RUNS), out.getvalue())
    return code


def main() -> int:
    """List what is stale, run it, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--data", default=os.environ.get("JETMASK_DATA"), help="the photographs (default: JETMASK_DATA)"
    )
    parser.add_argument("--run", action="store_true", help="measure what is stale; without it, only list")
    parser.add_argument("--write", action="store_true", help="write benchmarks/README.md")
    args = parser.parse_args()
    if args.write:
        files.write_text(str(ROOT / "benchmarks" / "README.md"), page())
        return 0
    known, failed = minutes(), 0
    stale = [(each, why) for each in BENCHMARKS if (why := reason(each))]
    for each, why in stale:
        taken = f"{known[each.name]} minutes the last time" if each.name in known else "time unknown"
        print(f"{each.name}: {why}; {taken}\n  {command(each, args.data or 'DATA')}")
        if each.needs:
            print(f"  by hand: needs {each.needs}")
        elif args.run and args.data:
            failed += run(each, args.data) != 0
    if not stale:
        print("every result is of the shipped weights")
    elif args.run and not args.data:
        parser.error("--run needs --data DIR or JETMASK_DATA")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
