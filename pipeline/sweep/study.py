"""A study in its folder: trials begun, lost, told and written; killed at any moment, it goes on.

It lives in OUT/study.db (SQLite through Optuna); a trial that was running starts again in its own folder, where its
training resumes.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jetson import files
from jetson.errors import BadInput, DeviceMismatch, UsageError
from pipeline.choose.pareto import front
from pipeline.sweep.space import BASELINE, FIXED_BY_WEIGHTS, allowed, suggest

OBJECTIVE = "pipeline.sweep.trial:train_and_measure"
DIRECTIONS = ("maximize", "minimize", "minimize")  # mAP50, predicted ms on the target, bytes
ATTEMPTS = 3  # how often a trial that was lost is started


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
            if ships and all(allowed(value, space[name]) for name, value in base.items()):
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
