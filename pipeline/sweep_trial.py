"""One trial of a sweep: the handle that an objective gets, and the objective that really trains.

An objective is any importable `objective(trial: Trial) -> {"map50", "latency_ms", "bytes", ...}`; it runs in a process
of its own, on this machine or on a worker of a Ray cluster.
"""

import importlib
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jetson import files
from jetson.errors import JetmaskError, UsageError

BEATEN_BY = 2  # rivals that must have been ahead before a trial is given up
MARGIN = 1.0  # points of mAP50 by which they must have been ahead
GRACE = 2  # steps that no trial is judged by


class Poor(Exception):
    """The trial is beaten in every respect so far: stop it."""


class Trial:
    """What an objective may know and must tell. It must call `cost` before it trains, and `step` after each epoch.

    params: what the sampler chose; folder: the trial's own, kept over a restart, so that training can go on where it
    was; context: what holds for all trials (data, base configuration, target).
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.number: int = job["number"]
        self.params: dict[str, Any] = job["params"]
        self.folder = Path(job["folder"])
        self.context: dict[str, Any] = job["context"]
        self.rivals: list[dict[str, Any]] = job.get("rivals") or []
        self.known: dict[str, Any] = {"curve": []}

    def cost(self, latency_ms: float, size_bytes: int) -> None:
        """What the model will cost, known before it is trained."""
        self.known.update(latency_ms=float(latency_ms), bytes=int(size_bytes))

    def step(self, step: int, ap: float | None) -> None:
        """Tell the AP after a step (1, 2, ...); raises Poor when the trial is to be given up.

        Given up is what, at this very step, at least two finished trials that cost no more, neither in time nor in
        bytes, were clearly ahead of.
        """
        if ap is None:
            return
        self.known["curve"] = [point for point in self.known["curve"] if point[0] != step] + [[step, float(ap)]]
        if step <= GRACE or "latency_ms" not in self.known:
            return
        ahead = 0
        for rival in self.rivals:
            if rival["latency_ms"] <= self.known["latency_ms"] and rival["bytes"] <= self.known["bytes"]:
                then = [value for at, value in rival["curve"] if at == step]
                ahead += bool(then) and then[0] > ap + MARGIN
        if ahead >= BEATEN_BY:
            raise Poor


def objective_named(name: str) -> Callable[[Trial], dict[str, Any]]:
    """The objective "module:function"."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"no objective {name!r}: {error}", "--objective", "module:function") from None


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job to its outcome: {"state": done | poor | failed, "values", "known", "error"}. Never raises."""
    trial = Trial(job)
    try:
        os.makedirs(trial.folder, exist_ok=True)
        values = objective_named(job["objective"])(trial)
        return {"state": "done", "values": values, "known": trial.known}
    except Poor:
        return {"state": "poor", "values": None, "known": trial.known}
    except JetmaskError as error:
        return {"state": "failed", "values": None, "known": trial.known, "error": str(error)}
    except Exception as error:  # one broken trial must not end the study
        return {"state": "failed", "values": None, "known": trial.known,
                "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def work_in_process(job_path: str) -> None:
    """As `work`, with the job read from a file and the outcome written beside it: the main of a local worker."""
    job = json.loads(Path(job_path).read_text())
    outcome = work(job)
    files.write_json(str(Path(job_path).with_name("outcome.json")), outcome)


def train_and_measure(trial: Trial) -> dict[str, Any]:
    """Train, prune and export as the parameters say; AP on val/ at the input size that is timed."""
    from pipeline import config as configuration
    from pipeline import export, train
    from pipeline.latency import parse_wh, predict_graph
    from pipeline.model import build, load
    from pipeline.onnx_graph import from_model, read
    from pipeline.prune import plan_global, prune

    params, context = dict(trial.params), trial.context
    wh = parse_wh(params.pop("input_wh"))
    left = 1 - float(params.pop("prune", 0))
    precision = params.pop("precision")
    overrides = list(context.get("overrides") or ()) + [f"{key}={value}" for key, value in params.items()]
    config = configuration.load(context.get("config"), [*overrides, f"train.val_wh=[{wh[0]},{wh[1]}]"])
    if context.get("data"):
        config.data.root = context["data"]
    net = load(config.model.init) if config.model.init else build(config.model.size, config.model.dropout)

    def smaller(model):
        return prune(model, plan_global(model, left, "l1", wh)) if left < 1 else model

    proto, _ = export.to_onnx(smaller(net))
    cost = predict_graph(from_model(proto, wh), context["target"], precision)
    trial.cost(cost.latency_ms, int(len(proto.SerializeToString()) * (1 if precision != "int8" else 0.25)))
    epochs = config.train.epochs
    first = epochs if left == 1 else max(1, round(epochs * 0.7))

    def fit(model, name, count, before):
        config.train.epochs = count
        folder = trial.folder / name
        return train.fit(config, folder, model=model, resume=(folder / "checkpoint.npz").exists(),
                         report=lambda epoch, row: trial.step(before + epoch, row["map50"]))

    result = fit(net, "train", first, 0)
    if left < 1:
        result = fit(smaller(load(result["best"])), "pruned", max(1, epochs - first), first)
    model = load(result["best"])
    path = trial.folder / "model.onnx"
    export.export(model, str(path))
    ap = result["map50"]
    if precision == "int8":
        path, ap = _int8(path, config, wh)
    timed = predict_graph(read(str(path), wh), context["target"], precision)
    return {"map50": ap, "latency_ms": timed.latency_ms, "bytes": path.stat().st_size, "macs": timed.macs,
            "model": result["best"]}


def _int8(path: Path, config: Any, wh: tuple) -> tuple[Path, float]:
    """The int8 file for the CPU and its AP on val/, measured through the device's detector."""
    from jetson import metrics
    from jetson.detector import Detector
    from jetson.engine.onnx import OnnxEngine
    from pipeline import calibrate, quantize
    from pipeline.evaluate import detect_split
    from pipeline.train import DECODE

    root = Path(config.data.root or os.environ.get("JETMASK_DATA", ""))
    table = calibrate.collect(str(path), calibrate.select(str(root / config.data.train[0]), 48, 1), wh)
    small = path.with_name("model.int8-cpu.onnx")
    quantize.int8_cpu(str(path), table, str(small))
    truths = metrics.load_split(str(root / config.data.val))
    with Detector(OnnxEngine(str(small), wh), DECODE) as detector:
        return small, metrics.evaluate(truths, detect_split(detector, truths))["map50"]
