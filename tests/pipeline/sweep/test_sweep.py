"""The sweep with a cheap objective that really trains: front, early stop, kill -9 and resume, lost workers, Ray."""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from refusals import refused

from jetson.errors import BadInput, UsageError
from pipeline import config as configuration
from pipeline.sweep import cli as sweep
from pipeline.sweep import space as choices
from pipeline.sweep import study
from pipeline.sweep.trial import Poor, Trial, work
from pipeline.sweep.workers import Processes

optuna = pytest.importorskip("optuna")
HERE = Path(__file__).parents[2] / "doubles"
SPACE = {"input_wh": ["160x96", "320x192"], "width": [8, 16, 32, 64], "rate": {"low": 0.05, "high": 5.0, "log": True}}
OBJECTIVE = "cheap_objective:train"


class Here:
    """Trials one after the other in this process: what is tested is the study, not the processes."""

    def __init__(self):
        self.done = []

    @property
    def free(self):
        return 1 - len(self.done)

    def start(self, job):
        self.done.append((job["number"], work(job)))

    def finished(self, wait_s):
        out, self.done = self.done, []
        return out

    def close(self):
        pass


def swept(folder, **context):
    return study.Sweep(folder, {"target": "nano", **context}, SPACE, OBJECTIVE)


def test_the_front_is_right_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    rows = swept(tmp_path).run(4, Here())
    assert [row["state"] for row in rows].count("failed") == 0 and len(rows) == 4
    again = swept(tmp_path).run(8, Here())
    assert len(again) == 8 and [r["params"] for r in again[:4]] == [r["params"] for r in rows]
    done = [r for r in again if r["state"] == "done"]
    for row in done:
        beaten = any(
            o["map50"] >= row["map50"]
            and o["latency_ms"] <= row["latency_ms"]
            and o["bytes"] <= row["bytes"]
            and (o["map50"], o["latency_ms"], o["bytes"]) != (row["map50"], row["latency_ms"], row["bytes"])
            for o in done
        )
        assert row["front"] == (not beaten)
    table = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert len(table) == 8 and {row["width"] for row in table} <= {"8", "16", "32", "64"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["sweep"]["trials"]) == 8
    assert swept(tmp_path).run(8, Here()) == again  # nothing left to do


def test_another_setting_is_refused(tmp_path):
    swept(tmp_path)
    with refused(UsageError, names=["--out", "target"]):
        study.Sweep(tmp_path, {"target": "tx2"}, SPACE, OBJECTIVE)


def trial(rivals, latency=5.0, size=100):
    one = Trial({"number": 9, "params": {}, "folder": "unused", "context": {}, "rivals": rivals})
    one.cost(latency, size)
    return one


def rival(latency, size, values):
    return {"latency_ms": latency, "bytes": size, "curve": [[i + 1, v] for i, v in enumerate(values)]}


def test_poor_trials_are_given_up_and_no_others():
    ahead = [rival(5.0, 100, [50, 60, 70, 75]), rival(4.0, 90, [50, 60, 72, 75])]
    with pytest.raises(Poor):
        trial(ahead).step(3, 65.0)
    trial(ahead).step(2, 10.0)  # too early to say
    trial(ahead).step(3, 69.5)  # not clearly behind
    trial(ahead[:1]).step(3, 10.0)  # one is no evidence
    trial(ahead, latency=3.0).step(3, 10.0)  # faster than they are
    trial(ahead, size=50).step(3, 10.0)  # smaller than they are
    trial(ahead).step(9, 10.0)  # they have not been there
    trial(ahead).step(3, None)


def test_a_broken_objective_fails_its_trial_only(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    rows = study.Sweep(tmp_path, {"target": "nano"}, SPACE, "cheap_objective:broken").run(2, Here())
    assert [row["state"] for row in rows] == ["failed", "failed"]
    assert "no such luck" in rows[0]["note"]
    outcome = work({"number": 0, "params": {}, "folder": str(tmp_path), "context": {}, "objective": "none:none"})
    assert outcome["state"] == "failed" and "no objective" in outcome["error"]


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"map50": float("nan"), "latency_ms": 1.0, "bytes": 1},
        {"map50": 50.0, "latency_ms": float("inf"), "bytes": 1},
    ],
)
def test_an_objective_without_an_outcome_fails_its_trial_only(given, tmp_path, monkeypatch):
    """The study could not keep it: neither this sweep nor the next one in its folder would come to an end."""
    monkeypatch.setitem(sys.modules, "odd_objective", SimpleNamespace(odd=lambda trial: given))
    rows = study.Sweep(tmp_path, {"target": "nano"}, SPACE, "odd_objective:odd").run(1, Here())
    assert [row["state"] for row in rows] == ["failed"] and "the objective gave" in rows[0]["note"]


@pytest.mark.slow
def test_a_lost_worker_loses_only_its_trial(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    marker = tmp_path / "died"
    rows = swept(tmp_path / "sweep", die_once=str(marker)).run(3, Processes(2))
    assert marker.exists()
    assert [row["state"] for row in rows if row["state"] == "failed"] == []
    assert len(rows) == 3 and max(row["attempt"] for row in rows) == 2
    logs = [path.read_text().split() for path in (tmp_path / "sweep").glob("trial_*/epochs.log")]
    # The one that died after its third epoch went on with the fourth, in its own folder.
    assert all(log == sorted(set(log)) for log in logs)


def command(folder, *more):
    code = (
        "import argparse, sys; from pipeline.sweep import cli as sweep; p = argparse.ArgumentParser(); "
        "sweep.options(p);"
        "sweep.command(p.parse_args(sys.argv[1:]))"
    )
    space = folder.parent / "space.yaml"
    document = dict.fromkeys(choices.SPACE) | SPACE
    space.write_text(yaml.safe_dump(document))
    return [
        sys.executable,
        "-c",
        code,
        "--out",
        str(folder),
        "--objective",
        OBJECTIVE,
        "--space",
        str(space),
        "--trials",
        "4",
        "--json",
        *more,
    ]


def killed_and_resumed(folder, kills):
    path = os.pathsep.join([str(HERE), str(HERE.parents[0]), str(HERE.parents[1])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CHEAP_PAUSE": "0.2"}
    environment.pop("JETMASK_DATA", None)
    for kill in range(kills):
        process = subprocess.Popen(command(folder), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        stop = time.monotonic() + 120
        # Killed while a trial is in the middle of its epochs.
        while time.monotonic() < stop and process.poll() is None:
            logs = list(folder.glob("trial_*/epochs.log"))
            if any(len(log.read_text().split()) in (1, 2, 3) for log in logs) and len(logs) > kill:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = subprocess.run(command(folder), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["trials"], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.full)])
def test_killed_with_9_and_resumed(tmp_path, kills):
    folder = tmp_path / "sweep"
    rows, _ = killed_and_resumed(folder, kills)
    assert len(rows) == 4 and all(row["state"] in ("done", "given up") for row in rows)
    for log in folder.glob("trial_*/epochs.log"):
        epochs = log.read_text().split()
        assert len(epochs) - len(set(epochs)) <= kills  # at most the epoch that was running is done twice


def test_two_sweeps_in_one_folder(tmp_path):
    from jetson import files
    from jetson.errors import JetmaskError

    with files.lock(str(tmp_path / "sweep.lock")):
        parser = argparse.ArgumentParser()
        sweep.options(parser)
        with refused(JetmaskError, where="sweep.lock"):
            sweep.command(parser.parse_args(["--out", str(tmp_path), "--objective", OBJECTIVE]))


def test_the_weights_that_a_study_starts_from_are_kept(tmp_path):
    mine, start = tmp_path / "mine.keras", tmp_path / "start.keras"
    with refused(BadInput, where="mine.keras", names="model.init"):
        study.keep_weights(str(mine), start)
    mine.write_bytes(b"one")
    study.keep_weights(str(mine), start)
    study.keep_weights(str(mine), start)
    mine.write_bytes(b"two")
    with refused(UsageError, where="start.keras", names=["mine.keras", "--out"]):
        study.keep_weights(str(mine), start)
    assert start.read_bytes() == b"one"


def test_trials_elsewhere_find_the_teacher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("teacher.keras").write_bytes(b"")
    seen = []
    monkeypatch.setattr(study.Sweep, "run", lambda self, trials, workers: seen.append(self.context["overrides"]) or [])
    parser = argparse.ArgumentParser()
    sweep.options(parser)
    for teacher in ("teacher.keras", "s"):
        sweep.command(
            parser.parse_args(
                ["--out", teacher + ".d", "--objective", OBJECTIVE, "--json", "--set", "model.teacher=" + teacher]
            )
        )
    assert configuration.load(None, seen[0]).model.teacher == str(tmp_path / "teacher.keras")
    assert configuration.load(None, seen[1]).model.teacher == "s"  # shipped weights are where jetmask is


def test_the_data_is_that_of_the_option_then_the_configuration_then_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JETMASK_DATA", str(tmp_path / "environment"))
    seen = []
    monkeypatch.setattr(study.Sweep, "run", lambda self, trials, workers: seen.append(self.context["data"]) or [])
    parser = argparse.ArgumentParser()
    sweep.options(parser)
    for number, words in enumerate((["--data", "option", "--set", "data.root=own"], ["--set", "data.root=own"], [])):
        sweep.command(parser.parse_args(["--out", str(number), "--objective", OBJECTIVE, "--json", *words]))
    assert seen == [str(tmp_path / name) for name in ("option", "own", "environment")]


@pytest.mark.parametrize(
    ("text", "name"),
    [("- a", "input_wh: [320x192, 416x256]"), ("a: [", "YAML"), ("a: []", "{low: …"), ("a: {low: 1}", "{low: …")],
)
def test_spaces_that_are_none(tmp_path, text, name):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with refused(BadInput, where="space.yaml", names=name):
        choices.space_for("nano", str(path))
    with refused(BadInput, where="none.yaml"):
        choices.space_for("nano", str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    "text, names",
    [
        ("train.lerning_rate: [1e-3]", "train.learning_rate"),
        ("train.optimizer: [3]", "train.optimizer"),
        ("train.learning_rate: {low: 1e-2, high: 1e-3}", ["train.learning_rate", "1e-2", "1e-3"]),
        ("augment.scale: {low: a, high: 2}", ["augment.scale", "'a'"]),
        ("train.learning_rate: {low: 0, high: 0.1, log: true}", ["train.learning_rate", "'low': 0"]),
        ("prunes: [0, 0.5]", ["prunes", "prune?"]),
        ("train.batch_size: {low: 8, high: 32}", "train.batch_size"),
    ],
)
def test_choices_that_no_trial_could_take_are_told_at_once(tmp_path, text, names):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with refused(BadInput, where="space.yaml", names=names):
        choices.space_for("nano", str(path))


def test_an_objective_of_ones_own_has_names_of_its_own(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("width: [8, 16]")
    assert choices.space_for("nano", str(path), ours=False)["width"] == [8, 16]


def test_the_built_in_space_holds_what_the_target_can():
    assert choices.space_for("nano")["precision"] == ["fp16"]
    assert choices.space_for("this-machine")["precision"] == ["fp32", "int8"]
    assert set(choices.BASELINE) | {"precision"} == set(choices.SPACE)


def test_the_space_is_made_of_keys_that_the_configuration_has():
    from pipeline import config

    for name, value in choices.SPACE.items():
        if "." in name:
            values = value if isinstance(value, list) else [value["low"], value["high"]]
            for one in values:
                config.load(None, [f"{name}={one}"])


@pytest.mark.full
def test_the_same_study_on_a_local_ray_with_a_worker_killed(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from pipeline.sweep.workers import Ray

    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join([str(HERE), str(HERE.parents[0]), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]),
    )
    marker = tmp_path / "died"
    rows = swept(tmp_path / "sweep", die_once=str(marker)).run(4, Ray(os.environ.get("JETMASK_RAY", "local"), 2))
    assert marker.exists()
    assert len(rows) == 4 and all(row["state"] in ("done", "given up") for row in rows)
    assert max(row["attempt"] for row in rows) == 2
