"""One trial of a sweep: the handle that an objective gets, and the objective that really trains.

An objective is any importable `objective(trial: Trial) -> {"map50", "latency_ms", "bytes", ...}`; it runs in a process
of its own, on this machine or on a worker of a Ray cluster.
"""

import importlib
import json
import math
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jetson import files
from jetson.errors import JetmaskError, UsageError
from pipeline import targets
from pipeline.training import dataset

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
        self.past([[step, ap]])
        if step <= GRACE or "latency_ms" not in self.known:
            return
        ahead = 0
        for rival in self.rivals:
            if rival["latency_ms"] <= self.known["latency_ms"] and rival["bytes"] <= self.known["bytes"]:
                then = [value for at, value in rival["curve"] if at == step]
                ahead += bool(then) and then[0] > ap + MARGIN
        if ahead >= BEATEN_BY:
            raise Poor

    def past(self, curve: list) -> None:
        """Tell (again) the whole curve so far, [[step, AP or None], ...]; nothing is given up for it."""
        known = dict(self.known["curve"])
        known.update({step: float(value) for step, value in curve if value is not None})
        self.known["curve"] = [[step, known[step]] for step in sorted(known)]


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
        _check(values)
        return {"state": "done", "values": values, "known": trial.known}
    except Poor:
        return {"state": "poor", "values": None, "known": trial.known}
    except JetmaskError as error:
        return {"state": "failed", "values": None, "known": trial.known, "error": str(error)}
    except Exception as error:  # one broken trial must not end the study
        return {
            "state": "failed",
            "values": None,
            "known": trial.known,
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }


def _check(values: Any) -> None:
    """UsageError for an outcome that the study could not keep: it would end there, and not go on either."""
    for name in ("map50", "latency_ms", "bytes"):
        value = values.get(name) if isinstance(values, dict) else None
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UsageError(
                f"the objective gave {name} {value!r}",
                "--objective",
                "a finite number for each of map50, latency_ms and bytes",
            )


def work_in_process(job_path: str) -> None:
    """As `work`, with the job read from a file and the outcome written beside it: the main of a local worker."""
    job = json.loads(Path(job_path).read_text())
    outcome = work(job)
    files.write_json(str(Path(job_path).with_name("outcome.json")), outcome)


def train_and_measure(trial: Trial) -> dict[str, Any]:
    """Train, prune and export as the parameters say; AP on val/ at the input size that is timed.

    From random weights pruning comes after seven tenths of the epochs; from trained ones (model.init) it comes first.
    Everything is kept in the trial's folder, the pruning plan too: a trial that was cut off goes on with the same
    network, though gradients differ in their last digits from one run to the next.
    """
    from pipeline.export import onnx
    from pipeline.graphs.shapes import from_model, read
    from pipeline.latency.cli import predict_graph
    from pipeline.models.detector import build, load
    from pipeline.pruning.pruner import prune
    from pipeline.training import train

    config, wh, left, precision = setting_of(trial)
    target, epochs = trial.context["target"], config.train.epochs
    net = load(config.model.init) if config.model.init else build(config.model.size, config.model.dropout)
    first = epochs if left == 1 else 0 if config.model.init else max(1, min(epochs - 1, round(epochs * 0.7)))
    if not first:
        net = prune(net, _plan(trial.folder / "plan.json", net, left, config, wh, "taylor"))
    # Nothing is trained yet where pruning comes later: the plan that tells the cost goes by the weights alone.
    costed = net if not first or left == 1 else prune(net, _plan(None, net, left, config, wh, "l1"))
    proto, _ = onnx.to_onnx(costed)
    cost = predict_graph(from_model(proto, wh), target, precision)
    trial.cost(cost.latency_ms, int(len(proto.SerializeToString()) * (1 if precision != "int8" else 0.25)))

    def fit(model: Any, name: str, count: int, before: int) -> dict[str, Any]:
        config.train.epochs = count
        folder = trial.folder / name
        result = train.fit(
            config,
            folder,
            model=model,
            resume=(folder / "checkpoint.npz").exists(),
            report=lambda epoch, row: trial.step(before + epoch, row["map50"]),
        )
        # Epochs of an earlier attempt were told to that one's handle.
        trial.past([[before + row["epoch"], row["map50"]] for row in result["rows"]])
        return result

    if first:
        result = fit(net, "train", first, 0)
        net = load(result["best"])
    if first < epochs:
        if first:
            net = prune(net, _plan(trial.folder / "plan.json", net, left, config, wh, "taylor"))
        result = fit(net, "pruned", epochs - first, first)
        net = load(result["best"])
    path = trial.folder / "model.onnx"
    onnx.export(net, str(path))
    # Timed by the float graph at the wanted precision: the latency model reads that, and not a quantised file's nodes.
    timed = predict_graph(read(str(path), wh), target, precision)
    ap = result["map50"]
    if precision == "int8":
        path, ap = _int8(path, config, wh)
    return {
        "map50": ap,
        "latency_ms": timed.latency_ms,
        "bytes": path.stat().st_size,
        "macs": timed.macs,
        "model": result["best"],
    }


def setting_of(trial: Trial) -> tuple[Any, tuple[int, int], float, str]:
    """(configuration, input size (width, height), share of the cost that pruning leaves, precision) of a trial.

    What the space does not name is what ships: 416x256, unpruned, the target's first precision. UsageError where a
    parameter and the configuration do not go together.
    """
    from pipeline import config as configuration
    from pipeline.latency.cli import parse_wh

    params, context = dict(trial.params), trial.context
    wh = parse_wh(params.pop("input_wh", "416x256")) or (416, 256)
    left = 1 - float(params.pop("prune", 0))
    precision = params.pop("precision", None) or targets.searched_precisions(context["target"])[0]
    overrides = list(context.get("overrides") or ()) + [f"{key}={value}" for key, value in params.items()]
    config = configuration.load(context.get("config"), [*overrides, f"train.val_wh=[{wh[0]},{wh[1]}]"])
    if context.get("data"):
        config.data.root = context["data"]
    least = 2 if left < 1 and not config.model.init else 1
    if config.train.epochs < least:
        raise UsageError(
            f"a trial of {config.train.epochs} epochs",
            "train.epochs",
            f"{least} or more" + (": pruning comes between them" if least == 2 else ""),
            "raise train.epochs" + (", or set model.init" if least == 2 else ""),
        )
    return config, wh, left, precision


def _plan(path: Path | None, net: Any, left: float, config: Any, wh: tuple[int, int], kind: str) -> Any:
    """The plan that leaves the share `left` of the multiply-adds; where a path is given, the one that is there."""
    from pipeline.pruning.pruner import Plan, plan_global
    from pipeline.pruning.schedule import photo_scores

    if path and path.exists():
        return Plan.from_dict(files.read_json(str(path)))
    scored = photo_scores(net, kind, config, wh) if kind == "taylor" else kind
    plan = plan_global(net, left, scored, wh)
    if path:
        files.write_json(str(path), plan.to_dict())
    return plan


def _int8(path: Path, config: Any, wh: tuple) -> tuple[Path, float]:
    """The int8 file for the CPU and its AP on val/, measured through the device's detector."""
    from jetson.engine.onnx import OnnxEngine
    from jetson.evaluation import average_precision
    from jetson.inference.detector import Detector
    from pipeline.evaluation.evaluate import detect_split
    from pipeline.graphs import classes as onnx_classes
    from pipeline.models.decode import DECODE
    from pipeline.quantization import calibrate, quantize

    root = Path(config.data.root or os.environ.get("JETMASK_DATA", ""))
    table = calibrate.collect(str(path), calibrate.select(str(root / dataset.folders_of(config.data)[0]), 48, 1), wh)
    small = path.with_name("model.int8-cpu.onnx")
    quantize.int8_cpu(str(path), table, str(small))
    names = onnx_classes.of_file(str(path)).names
    truths = average_precision.load_split(str(root / config.data.val), names)
    with Detector(OnnxEngine(str(small), wh), DECODE) as detector:
        return small, average_precision.evaluate(truths, detect_split(detector, truths), names)["map50"]
