"""`jetmask sweep`: search models, input sizes and training settings for the front of AP, time and bytes.

The study lives in OUT/study.db (SQLite through Optuna) and may be killed at any moment: the same command goes on, and a
trial that was running starts again in its own folder, where its training resumes.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
from pathlib import Path

from jetson import files
from jetson.cli import table
from jetson.errors import UsageError
from pipeline import config as configuration
from pipeline import targets
from pipeline.paths import made
from pipeline.sweep.space import FIXED_BY_WEIGHTS, space_for
from pipeline.sweep.study import OBJECTIVE, Sweep, keep_weights

log = logging.getLogger(__name__)


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask sweep`."""
    parser.description = (
        "Search input size, width, pruning, precision and training settings for the front of AP, "
        "predicted time on a target and bytes. An interrupted sweep is resumed by the same command."
    )
    parser.epilog = "example: jetmask sweep --target nano --trials 24 --data data/facemask --set train.epochs=8"
    parser.add_argument("--out", default="runs/sweep", help="folder of the study (default: %(default)s)")
    parser.add_argument("--target", default="nano", help="device kind that is timed (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=24, help="trials in all, those of earlier runs included")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time (default: %(default)s)")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on the Ray cluster there, or 'local'")
    parser.add_argument("--data", metavar="DIR", help="folder with the splits (default: data.root, then JETMASK_DATA)")
    parser.add_argument("--config", help="configuration that the trials start from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the configuration")
    parser.add_argument("--space", metavar="FILE.yaml", help="other choices than the built-in ones")
    parser.add_argument("--objective", default=OBJECTIVE, help="module:function that runs a trial")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON")


def command(args: argparse.Namespace) -> None:
    """Run or go on with a sweep."""
    if args.trials < 1 or args.jobs < 1:
        raise UsageError("--trials and --jobs are counts", expected="1 or more")
    config = configuration.load(args.config, args.set)  # a wrong key is told here, and not by every trial
    data = args.data or config.data.root or os.environ.get("JETMASK_DATA")
    # A trial may run in another folder, on another machine: paths in full.
    own = os.path.abspath(args.config) if args.config and os.path.exists(args.config) else args.config
    start = Path(args.out).absolute() / "start.keras"
    overrides = args.set + [
        f"model.{key}={os.path.abspath(path)}"
        for key, path in (("teacher", config.model.teacher), ("size", config.model.size))
        if os.path.isfile(path)
    ]
    overrides += [f"model.init={start}"] if config.model.init else []
    context = {
        "target": targets.target(args.target).name,
        "data": os.path.abspath(data) if data else None,
        "config": own,
        "overrides": overrides,
    }
    if not data and args.objective == OBJECTIVE:
        raise UsageError(
            "no data",
            "--data",
            "a folder with train/ and val/",
            "give --data DIR, set JETMASK_DATA, or draw some: jetmask data draw DIR",
        )
    space = space_for(args.target, args.space, args.objective == OBJECTIVE)
    if config.model.init:
        # The weights have their size and layers already: varying those would change nothing.
        space = {name: value for name, value in space.items() if name not in FIXED_BY_WEIGHTS}
    made(args.out)
    with files.lock(os.path.join(args.out, "sweep.lock"), wait=False):
        if config.model.init:
            keep_weights(configuration.weights(config.model.init), start)
        sweep = Sweep(
            args.out,
            context,
            space,
            args.objective,
            args.seed,
            say=log.info,
        )
        from pipeline.sweep import workers as sweep_workers  # TensorFlow takes seconds to load

        workers = sweep_workers.Ray(args.ray, args.jobs) if args.ray else sweep_workers.Processes(args.jobs)
        with contextlib.redirect_stdout(sys.stderr):  # Ray reports a lost worker on stdout
            rows = sweep.run(args.trials, workers)
    if args.json:
        print(json.dumps({"trials": rows, "folder": args.out}))
        return
    best = sorted((row for row in rows if row["front"]), key=lambda row: row["latency_ms"])
    print(
        table(
            ["trial", "mAP50", f"ms on {args.target} (predicted)", "MB", "settings"],
            [
                [
                    f"#{row['number']}",
                    f"{row['map50']:.1f}",
                    f"{row['latency_ms']:.2f}",
                    f"{row['bytes'] / 1e6:.2f}",
                    ", ".join(
                        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
                        for name, value in row["params"].items()
                    ),
                ]
                for row in best
            ],
        )
    )
    print(f"\n{len(rows)} trials; all of them: {os.path.join(args.out, 'trials.csv')}; page: jetmask report {args.out}")
