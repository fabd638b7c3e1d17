"""`jetmask sweep`: search models, input sizes and training settings for the front of AP, time and bytes.

The study lives in OUT/study.db (SQLite through Optuna) and may be killed at any moment: the same command goes on, and a
trial that was running starts again in its own folder, where its training resumes.
"""

import argparse
import contextlib
import csv
import difflib
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from jetson import files
from jetson.cli import table
from jetson.errors import BadInput, DeviceMismatch, UsageError
from pipeline import config as configuration
from pipeline import targets, yaml_file
from pipeline.choose.pareto import front
from pipeline.paths import made
from pipeline.sweep import workers as sweep_workers

OBJECTIVE = "pipeline.sweep.trial:train_and_measure"
DIRECTIONS = ("maximize", "minimize", "minimize")  # mAP50, predicted ms on the target, bytes
ATTEMPTS = 3  # how often a trial that was lost is started

# What is searched: a list of choices, or {low, high[, log]} for a number. Names with a dot are configuration keys.
SPACE: dict[str, Any] = {
    "input_wh": ["320x192", "416x256", "640x384"],
    "model.size": ["n", "s", "m"],
    "prune": [0, 0.25, 0.5],  # share of the cost that pruning takes away
    "precision": [],  # filled with what the target runs fast
    "train.optimizer": ["adamw", "adam", "sgd", "rmsprop"],
    "train.learning_rate": {"low": 3e-4, "high": 6e-3, "log": True},
    "train.schedule": ["trapezoid", "cosine", "plateau"],
    "train.batch_size": [8, 16, 32],
    "model.dropout": [0.0, 0.1, 0.2],
    "augment.mosaic": [0.2, 0.4, 0.6],
    "augment.scale": {"low": 0.6, "high": 1.4},
    "augment.photometric": {"low": 0.5, "high": 1.5},
}
# What is given where a sweep starts from trained weights (model.init).
FIXED_BY_WEIGHTS = ("model.size", "model.dropout")
# The trial that every sweep begins with: the configuration that ships.
BASELINE: dict[str, Any] = {
    "input_wh": "416x256",
    "model.size": "s",
    "prune": 0,
    "train.optimizer": "adamw",
    "train.learning_rate": 2e-3,
    "train.schedule": "trapezoid",
    "train.batch_size": 16,
    "model.dropout": 0.0,
    "augment.mosaic": 0.4,
    "augment.scale": 1.0,
    "augment.photometric": 1.0,
}


def space_for(target: str, path: str | None = None, ours: bool = True) -> dict[str, Any]:
    """The space for a target, narrowed or widened by a YAML file of the same form as SPACE. ours: the objective is
    OBJECTIVE, so that other names than those it knows are mistakes."""
    space = dict(SPACE)
    space["precision"] = targets.searched_precisions(target)
    if path:
        try:
            own = yaml_file.parse(Path(path).read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise BadInput(f"the space cannot be read: {error.strerror}", path, "a YAML file") from None
        except (yaml.YAMLError, ValueError) as error:
            raise BadInput(f"not YAML: {error}", path, "names with choices") from None
        if not isinstance(own, dict):
            raise BadInput("a space is names with choices", path, "for instance input_wh: [320x192, 416x256]")
        space.update(own)
    space = {name: value for name, value in space.items() if value is not None}  # null takes a name out
    for name, value in space.items():
        good = (
            isinstance(value, list)
            and value
            or isinstance(value, dict)
            and {"low", "high"} <= set(value) <= {"low", "high", "log"}
        )
        if not good:
            raise BadInput(f"{name} has no choices", path or "space", "a list, or {low: …, high: …, log: true}")
        _check_choice(name, value, path or "space", ours)
    return space


def _check_choice(name: str, value: Any, where: str, ours: bool) -> None:
    """BadInput for choices that no trial could take: told here, and not by every trial."""
    if isinstance(value, dict):
        ends = [value["low"], value["high"]]
        if (
            not all(type(end) in (int, float) and math.isfinite(end) for end in ends)
            or ends[0] > ends[1]
            or (value.get("log") and ends[0] <= 0)
        ):
            raise BadInput(f"{name} is {value}", where, "numbers, low not over high, and over 0 with log: true")
    if not ours:
        return
    if "." in name:
        for choice in value if isinstance(value, list) else map(float, ends):  # drawn as a number with a fraction
            try:
                configuration.load(None, [f"{name}={json.dumps(choice)}"])
            except BadInput as error:
                raise BadInput(str(error.what), f"{where}, {name}", error.expected, error.remedy) from None
    elif name not in SPACE:
        near = difflib.get_close_matches(name, SPACE, 1)
        raise BadInput(
            f"unknown name {name}",
            where,
            ", ".join(SPACE) + ", or a configuration key with its dot",
            f"did you mean {near[0]}?" if near else None,
        )


def suggest(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    """Let an Optuna trial choose a value for each name."""
    out = {}
    for name, value in space.items():
        if isinstance(value, list):
            out[name] = trial.suggest_categorical(name, value)
        else:
            out[name] = trial.suggest_float(name, value["low"], value["high"], log=bool(value.get("log")))
    return out


class Sweep:
    """A study in a folder. `run` goes on until it holds `trials` ended trials, wherever it was stopped before."""

    def __init__(
        self,
        folder: str | os.PathLike,
        context: dict[str, Any],
        space: dict[str, Any],
        objective: str = OBJECTIVE,
        seed: int = 1,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        optuna = _optuna()
        self.folder, self.context, self.space = Path(folder).absolute(), context, space
        self.objective, self.say = objective, say
        self.folder.mkdir(parents=True, exist_ok=True)
        self.states = optuna.trial.TrialState
        path = self.folder / "study.db"
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
        self.study = optuna.create_study(
            study_name="jetmask", storage=storage, directions=DIRECTIONS, load_if_exists=True
        )
        setting = {
            "target": context.get("target"),
            "data": context.get("data"),
            "config": context.get("config"),
            "overrides": context.get("overrides"),
            "objective": objective,
            "space": space,
        }
        known = self.study.user_attrs.get("setting")
        if known is not None and known != json.loads(json.dumps(setting)):
            changed = [key for key in setting if json.loads(json.dumps(setting[key])) != known.get(key)]
            raise UsageError(
                f"this folder holds a sweep with another {', '.join(changed)}",
                str(self.folder),
                "the same settings as before",
                "name another folder with --out",
            )
        if known is None:
            self.study.set_user_attr("setting", setting)
            base = {name: value for name, value in BASELINE.items() if name in space}
            ships = not set(FIXED_BY_WEIGHTS) - set(space)  # a sweep from trained weights is another thing
            if ships and all(_allowed(value, space[name]) for name, value in base.items()):
                self.study.enqueue_trial(base, user_attrs={"note": "the configuration that ships"})
        # Another seed after every restart: the same one would draw the same trials again.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(self.study.trials), multivariate=True, constant_liar=True, n_startup_trials=8
        )

    def run(self, trials: int, workers: Any) -> list[dict[str, Any]]:
        """Run until `trials` have ended; returns `table_rows`."""
        open_trials: dict[int, Any] = {}
        self._recover()
        try:
            while True:
                while workers.free and self.ended() + len(open_trials) < trials:
                    trial = self.study.ask()
                    open_trials[trial.number] = trial
                    workers.start(self._job(trial))
                if not open_trials:
                    break
                for number, outcome in workers.finished(wait_s=1.0):
                    self._tell(open_trials.pop(number), outcome)
                    self.write()
        finally:
            workers.close()
        self.write()
        return self.table_rows()

    def ended(self) -> int:
        """Trials that count: done, given up, or failed for good."""
        return len(self.table_rows())

    def _recover(self) -> None:
        """Trials that were running belong to a sweep that is dead (its lock is ours): put them back."""
        for trial in self.study.get_trials(deepcopy=False, states=(self.states.RUNNING,)):
            self.say(f"trial {trial.number} was interrupted and is resumed")
            self._again(trial)
            self.study.tell(trial.number, state=self.states.FAIL)

    def _again(self, trial: Any) -> bool:
        """Queue the same parameters in the same folder, unless this was the last attempt."""
        attempt = trial.user_attrs.get("attempt", 1)
        if attempt >= ATTEMPTS:
            return False
        if trial.number not in self._superseded():  # a sweep killed just here has queued it already
            self.study.enqueue_trial(
                trial.params,
                user_attrs={
                    "note": trial.user_attrs.get("note", ""),
                    "attempt": attempt + 1,
                    "folder": self._trial_folder(trial).name,
                    "again_of": trial.number,
                },
            )
        return True

    def _superseded(self) -> set[int]:
        """Numbers of the trials that were started again under another number."""
        return {t.user_attrs["again_of"] for t in self.study.get_trials(deepcopy=False) if "again_of" in t.user_attrs}

    def _trial_folder(self, trial: Any) -> Path:
        return self.folder / trial.user_attrs.get("folder", f"trial_{trial.number:04d}")

    def _job(self, trial: Any) -> dict[str, Any]:
        params = suggest(trial, self.space)
        rivals = [
            {"latency_ms": t.values[1], "bytes": t.values[2], "curve": t.user_attrs["told"]["curve"]}
            for t in self.study.get_trials(deepcopy=False, states=(self.states.COMPLETE,))
        ]
        return {
            "number": trial.number,
            "params": params,
            "folder": str(self._trial_folder(trial)),
            "context": self.context,
            "rivals": rivals,
            "objective": self.objective,
        }

    def _tell(self, trial: Any, outcome: dict[str, Any]) -> None:
        told = {**outcome["known"], **(outcome["values"] or {}), "error": outcome.get("error") or ""}
        trial.set_user_attr("told", told)  # one attribute: each is a transaction of its own
        if outcome["state"] == "done":
            values = outcome["values"]
            self.study.tell(trial, [values["map50"], values["latency_ms"], values["bytes"]])
            self.say(
                f"trial {trial.number}: mAP50 {values['map50']:.1f}, {values['latency_ms']:.2f} ms, "
                f"{values['bytes'] / 1e6:.2f} MB; front: {self.front_text()}"
            )
        elif outcome["state"] == "poor":
            self.study.tell(trial, state=self.states.PRUNED)
            step = outcome["known"]["curve"][-1][0]
            self.say(f"trial {trial.number}: stopped after step {step}: it was behind trials of the same cost")
        else:
            frozen = self.study.get_trials(deepcopy=False)[trial.number]
            again = outcome["state"] == "lost" and self._again(frozen)
            self.study.tell(trial, state=self.states.FAIL)
            self.say(
                f"trial {trial.number}: {outcome['state']}, {outcome.get('error', '').splitlines()[0]}"
                + ("; it is started again" if again else "")
            )

    def table_rows(self) -> list[dict[str, Any]]:
        """One dict a trial: number, state, map50, latency_ms, bytes, params, front (bool), note."""
        rows, superseded = [], self._superseded()
        for t in self.study.get_trials(deepcopy=False):
            if t.state in (self.states.WAITING, self.states.RUNNING) or t.number in superseded:
                continue
            done = t.state == self.states.COMPLETE
            state = {"COMPLETE": "done", "PRUNED": "given up", "FAIL": "failed"}[t.state.name]
            told = t.user_attrs.get("told") or {}
            rows.append(
                {
                    "number": t.number,
                    "state": state,
                    "map50": t.values[0] if done else None,
                    "latency_ms": told.get("latency_ms"),
                    "bytes": told.get("bytes"),
                    "params": t.params,
                    "front": False,
                    "note": told.get("error") or t.user_attrs.get("note") or "",
                    "attempt": t.user_attrs.get("attempt", 1),
                }
            )
        done = [row for row in rows if row["state"] == "done"]
        for i in front([(-row["map50"], row["latency_ms"], row["bytes"]) for row in done]):
            done[i]["front"] = True
        return rows

    def front_text(self) -> str:
        best = sorted((row for row in self.table_rows() if row["front"]), key=lambda row: row["latency_ms"])
        return ", ".join(f"#{row['number']} {row['map50']:.1f} at {row['latency_ms']:.2f} ms" for row in best)

    def write(self) -> None:
        """trials.csv and the sweep's part of a report, beside the study."""
        rows = self.table_rows()
        handle = io.StringIO()
        columns = ["number", "state", "front", "map50", "latency_ms", "bytes", "attempt", *self.space, "note"]
        writer = csv.DictWriter(handle, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    **row,
                    **row["params"],
                    "front": int(row["front"]),
                    "note": row["note"].splitlines()[0] if row["note"] else "",
                }
            )
        files.write_text(str(self.folder / "trials.csv"), handle.getvalue())
        files.write_json(
            str(self.folder / "report.json"),
            {
                "title": "jetmask sweep",
                "sweep": {
                    "target": self.context.get("target"),
                    "trials": rows,
                    "note": (f"{len(rows)} trials, {sum(row['state'] == 'given up' for row in rows)} given up early."),
                },
            },
        )


def _allowed(value: Any, choices: Any) -> bool:
    if isinstance(choices, list):
        return value in choices
    return choices["low"] <= value <= choices["high"]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise DeviceMismatch(
            "Optuna is not installed here", "jetmask sweep", "the extra `sweep`", "pip install 'jetmask[sweep]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    import warnings

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


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


def keep_weights(source: str, start: Path) -> None:
    """A copy of the weights that a study starts from: replaced meanwhile, they would make its trials incomparable."""
    if not os.path.isfile(source):
        raise BadInput("the weights do not exist", source, "a .keras file", "check model.init")
    if not start.exists():
        with files.aside(str(start)) as aside:
            shutil.copyfile(source, aside)
    elif files.sha256(str(start)) != files.sha256(source):
        raise UsageError(
            "this folder holds a sweep from other weights",
            str(start),
            f"those of {source}",
            f"go on with model.init={start}, or name another folder with --out",
        )


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
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
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
