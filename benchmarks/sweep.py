"""A real sweep, killed with -9 in the middle of a trial and resumed: its front as a table.

    python -m benchmarks.sweep --data DIR --out runs/sweep [--trials 24] [--kills 2]

Every trial starts from the shipped weights, prunes, fine-tunes on a few hundred photographs and is judged on val/. So
short a tuning ranks settings of a short tuning; a long one is `jetmask sweep` with more epochs. Writes
benchmarks/results/sweep.csv: all trials, which are the front, and how many attempts each took.
"""

import argparse
import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.machine import describe
from jetson import files
from pipeline import config as configuration
from pipeline.sweep import space as choices

OUT = Path(__file__).parent / "results" / "sweep.csv"
WEIGHTS = Path(configuration.__file__).parent / "weights" / "s.keras"
SPACE = {
    "input_wh": ["256x160", "320x192", "416x256"],
    "prune": [0, 0.15, 0.25, 0.5],
    "train.learning_rate": {"low": 1e-4, "high": 2e-3, "log": True},
    "train.schedule": ["cosine", "trapezoid", "fixed"],
    "train.batch_size": [4, 8],
    "augment.mosaic": [0.0, 0.42],
}
TUNE = [
    f"model.init={WEIGHTS}",
    "train.epochs=3",
    "train.images_per_epoch=192",
    "train.warmup_steps=5",
    "train.sizes=[[224, 1.0]]",
    "train.closing_epochs=1",
    "train.ema=0",
    "data.train=[train]",
]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train/ and val/")
    parser.add_argument("--out", default="runs/sweep", help="folder of the study (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--kills", type=int, default=2, help="so many times (default: %(default)s)")
    parser.add_argument("--target", default="nano")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override for every trial")
    args = parser.parse_args(argv)
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    space = folder / "space.yaml"
    files.write_text(str(space), yaml.safe_dump(dict.fromkeys(choices.SPACE) | {"precision": ["fp16"]} | SPACE))
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "sweep",
        "--target",
        args.target,
        "--trials",
        str(args.trials),
        "--data",
        args.data,
        "--out",
        str(folder),
        "--space",
        str(space),
    ]
    for text in [*TUNE, *args.set]:
        command += ["--set", text]
    for kill in range(args.kills):
        started = subprocess.Popen(command)
        ended = args.trials * (kill + 1) // (args.kills + 1)
        while started.poll() is None and not (len(rows_of(folder)) >= ended and in_mid_trial(folder)):
            time.sleep(0.2)
        started.send_signal(signal.SIGKILL)
        started.wait()
        print(f"killed with {len(rows_of(folder))} trials ended", file=sys.stderr, flush=True)
    code = subprocess.run(command).returncode
    if code:
        return code
    text = io.StringIO()
    rows = [
        {**row, "target": args.target, "split": "val", "machine": describe("keras", "optuna")}
        for row in rows_of(folder)
    ]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(str(OUT), text.getvalue())
    print(f"wrote {OUT.name}, {len(rows)} trials")
    return 0


def rows_of(folder: Path) -> list[dict[str, str]]:
    path = folder / "trials.csv"
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def in_mid_trial(folder: Path) -> bool:
    """Whether the youngest trial has a checkpoint and no outcome."""
    trials = sorted(folder.glob("trial_*/job.json"), key=os.path.getmtime)
    if not trials:
        return False
    own = trials[-1].parent
    return any(own.glob("*/checkpoint.npz")) and not (own / "outcome.json").exists()


if __name__ == "__main__":
    sys.exit(main())
