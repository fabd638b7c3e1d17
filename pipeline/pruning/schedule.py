"""Pruning with fine-tuning: at once or in rounds, the largest pruning within an allowed loss, and a sensitivity scan.

Everything is a folder of steps, one folder each: plan.json, pruned.keras, the training's own files, and at the end
result.json. What has a result is not done again, and a training goes on from its checkpoint; so an interrupted run,
started again, ends as an unbroken one does, with the same plan.
"""

import copy
import functools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from jetson import files
from jetson.errors import BadInput, QualityGate, UsageError
from jetson.evaluation import average_precision
from pipeline.config import Config, to_dict
from pipeline.models.classes import classes_of
from pipeline.models.detector import load, save
from pipeline.paths import made
from pipeline.pruning import compose, importance, pruner, trainable
from pipeline.pruning import cost as prune_cost
from pipeline.pruning.pruner import Plan
from pipeline.training import dataset, train
from pipeline.training.distillation import with_teacher
from pipeline.training.losses import detection_loss
from pipeline.training.validation import Judge

SCORE_BATCHES = 8  # batches that activations and gradients are measured on
SCORE_IMAGES = 4  # images in each: Taylor's square is taken per batch, so small ones say more


class Settings(NamedTuple):
    """How channels are chosen. save: "macs" or "latency" (predicted for target and precision;
    pipeline/latency/roofline.py)."""

    importance: str = "l1"
    multiple_of: int = 8
    floor: float = 0.1
    input_wh: tuple[int, int] = (320, 320)
    save: str = "macs"
    target: str = "nano"
    precision: str = "fp16"
    distill: float = 0.0


class Pruning:
    """One pruning of one trained model in one folder.

    model: path of a .keras file. config: how to fine-tune (train.epochs of it for every step; 0: not at all) and the
    data. say(text): progress.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        config: Config,
        settings: Settings | None = None,
        say: Callable[[str], None] = lambda text: None,
        progress: int = 0,
    ) -> None:
        self.path, self.folder, self.config, self.settings = Path(model), Path(folder), config, settings or Settings()
        self.say, self.progress = say, progress
        self.original = load(str(model))
        if config.train.epochs or self.settings.importance in importance.FROM_DATA:
            trainable.require(self.original, str(model))
        made(self.folder)
        self.claims: dict[str, dict[str, Any]] = {}
        tuning = to_dict(config)
        tuning["data"].pop("root")  # where the photographs lie on this machine says nothing about the run
        for key in ("classes", "roles"):  # folders of before there were any have no such keys
            if not tuning["data"][key]:
                del tuning["data"][key]
        self.claim(
            "settings.json",
            {
                "model_sha256": files.sha256(str(model)),
                "tuning": tuning,
                **self.settings._asdict(),
                "input_wh": list(self.settings.input_wh),
            },
        )

    # The four ways.

    def rounds(self, macs_ratio: float, rounds: int = 1) -> dict[str, Any]:
        """Prune to macs_ratio of the cost, in equal factors over `rounds`, with fine-tuning after each.

        Returns the last step's result, with `plan` against the original model.
        """
        self.claim("wanted.json", {"macs_ratio": macs_ratio, "rounds": rounds})
        model, total = self.original, None
        result: dict[str, Any] = {}
        whole = self._cost(self.original)({})
        for number in range(1, rounds + 1):
            wanted = macs_ratio ** (number / rounds)
            folder = self.folder / (f"round-{number}")
            left = wanted * whole / self._cost(model)({})  # rounding in the round before is made up for here
            sizes = compose.sizes_before(self.original, total) if total else None  # the floor is a share of those
            plan = self._plan(folder, functools.partial(self._global, model, min(1.0, left), sizes))
            total = compose.compose(self.original, total, plan) if total else plan
            self.say(f"round {number} of {rounds}: to {100 * wanted:.0f} % of the cost")
            result = self._step(folder, model, plan)
            if number < rounds:
                model = load(result["model"])
        return self.finish(result, total)

    def uniform(self, ratio: float) -> dict[str, Any]:
        """Drop the same share of channels everywhere, then fine-tune."""
        self.claim("wanted.json", {"ratio": ratio})
        folder, s = self.folder / "round-1", self.settings

        def make() -> Plan:
            plan = pruner.plan_uniform(self.original, ratio, self.scores(self.original), s.multiple_of, s.floor)
            if ratio and not plan.kept:
                raise (
                    self._nothing()
                    if self._least() >= 1
                    else UsageError(
                        f"--ratio {ratio:g} takes no channel of any group",
                        where=str(self.path),
                        expected=f"half of --multiple-of ({s.multiple_of}) or more of some group",
                        remedy="raise --ratio, or lower --multiple-of",
                    )
                )
            return plan

        plan = self._plan(folder, make)
        return self.finish(self._step(folder, self.original, plan), plan)

    def gate(self, max_drop: float, probes: int = 5) -> dict[str, Any]:
        """The smallest network whose val mAP50, after fine-tuning, is at most max_drop points lower: by bisection over
        the share of the cost, each probe kept. QualityGate when no probe passes."""
        if self.config.train.epochs < 1:
            raise UsageError("a gate needs fine-tuning", where="--epochs", expected="1 or more")
        self.claim("wanted.json", {"gate": True})
        low, high, best = self._least(), 1.0, None
        if low >= 1:
            raise self._nothing()
        before, result = self.baseline()["map50"], None
        for number in range(probes):
            share = round((low + high) / 2, 4)
            if share in (low, high):
                break
            folder = self.folder / (f"share-{share:.4f}")
            plan = self._plan(folder, functools.partial(self._global, self.original, share))
            self.say(f"probe {number + 1} of {probes}: {100 * share:.0f} % of the cost")
            result = self._step(folder, self.original, plan)
            drop = before - result["map50"]
            self.say(f"{before:.1f} -> {result['map50']:.1f}: {'passes' if drop <= max_drop else 'too much'}")
            if drop <= max_drop:
                high, best = share, (result, plan)
            else:
                low = share
        if result is None:
            raise self._nothing()
        if best is None:
            raise QualityGate(
                "no pruning that was tried stays within the allowed loss",
                where=f"{self.folder}: {before:.1f} before, last {result['map50']:.1f}",
                expected=f"a fall of at most {max_drop:g} points",
                remedy="fine-tune longer (--epochs), more probes, or allow more",
            )
        return self.finish(*best)

    def scan(self, ratios: Sequence[float] = (0.25, 0.5, 0.75)) -> dict[str, Any]:
        """AP against the share of channels dropped, one group at a time, without fine-tuning: how much each hurts.

        Cached in scan.json, one entry after the other. Returns {"baseline": map50, "groups": {name: {ratio: map50}}}.
        """
        path = self.folder / "scan.json"
        found = files.read_json(str(path)) if path.exists() else {"baseline": None, "groups": {}}
        if found["baseline"] is None:
            found["baseline"] = self.baseline()["map50"]
        scored = self.scores(self.original)
        groups = [group for group in pruner.channel_groups(self.original) if not group.fixed]
        weights = self.original.get_weights()
        for group in groups:
            row = found["groups"].setdefault(group.name, {})
            for ratio in ratios:
                count = max(1, round(group.size * (1 - ratio)))
                if str(ratio) in row or count == group.size:
                    continue
                # Silencing gives what cutting gives, and the compiled network stays.
                pruner.silence(self.original, {group.name: pruner.best(scored[group.name], count)})
                row[str(ratio)] = self.map50(self.original)
                self.original.set_weights(weights)
                files.write_json(str(path), found)
                self.say(f"{group.name}: {count} of {group.size} channels, mAP50 {row[str(ratio)]:.1f}")
        files.write_json(str(path), found)
        return found

    # What they are made of.

    def claim(self, name: str, recipe: dict[str, Any]) -> None:
        """A folder belongs to what it was started with: steps of another pruning must not be taken for this one's.

        Written down with the first step that there is, so that a start that fails leaves the folder free."""
        self.claims[name] = recipe
        self._compare()

    def _compare(self) -> None:
        for name, recipe in self.claims.items():
            path = self.folder / name
            if path.exists() and files.read_json(str(path)) != recipe:
                raise UsageError(
                    "the folder holds another pruning",
                    where=str(path),
                    expected="the model and settings that it was started with",
                    remedy="use the same settings to resume, or choose another folder with --out",
                )

    def begin(self) -> None:
        """Before a file of a step is written or taken: whose folder this is, asked again, since another may have come
        first in the meantime, and written down."""
        if self.config.train.epochs:
            self._root()
        self._compare()
        for name, recipe in self.claims.items():
            if not (self.folder / name).exists():
                files.write_json(str(self.folder / name), recipe)

    def _nothing(self) -> UsageError:
        return UsageError(
            "every group of channels is already at its minimum",
            where=str(self.path),
            expected="channels to remove",
            remedy=f"lower --multiple-of (now {self.settings.multiple_of}) or --floor (now {self.settings.floor:g})",
        )

    def baseline(self) -> dict[str, Any]:
        """{"map50": val mAP50 of the unpruned model}, cached."""
        path = self.folder / "baseline.json"
        trainable.require(self.original, str(self.path))
        value = None if path.exists() else {"map50": self.map50(self.original)}
        self.begin()
        if value:
            files.write_json(str(path), value)
        return files.read_json(str(path))

    def map50(self, model: keras.Model) -> float:
        """Two-class mAP50 of a Keras model on the validation split."""
        return train.validate(model, self._val(), self.config.train.val_wh)["map50"]

    def _val(self) -> Path:
        return Path(self._root()) / self.config.data.val

    def _root(self) -> str:
        root = self.config.data.root or os.environ.get("JETMASK_DATA", "")
        if not root:
            raise UsageError(
                "no data",
                where="data.root",
                expected="a folder with split folders such as train/, val/",
                remedy="give --data DIR, set JETMASK_DATA, or --epochs 0 --importance l1",
            )
        return root

    def scores(self, model: keras.Model) -> dict[str, np.ndarray]:
        """Importance by the settings, {group: (channels,)}; measured on training photographs where it needs data."""
        kind = self.settings.importance
        if kind not in importance.FROM_DATA:
            return importance.score(model, kind, seed=self.config.train.seed)
        self._root()
        return photo_scores(model, kind, self.config, self.settings.input_wh)

    def _cost(self, model: keras.Model) -> prune_cost.Macs | prune_cost.PredictedLatency:
        s = self.settings
        if s.save == "latency":
            return prune_cost.PredictedLatency(model, s.input_wh, s.target, s.precision)
        return prune_cost.Macs(model, s.input_wh)

    def _global(self, model: keras.Model, share: float, sizes: dict[str, int] | None = None) -> Plan:
        s = self.settings
        return pruner.plan_global(
            model, share, self.scores(model), s.input_wh, s.multiple_of, s.floor, self._cost(model), sizes
        )

    def _least(self) -> float:
        """The share of the cost that is left when every group is at its floor."""
        s = self.settings
        cost = self._cost(self.original)
        least = {
            g.name: pruner.counts_allowed(g.size, s.multiple_of, s.floor)[0]
            for g in pruner.channel_groups(self.original)
            if not g.fixed
        }
        return math.ceil(1e4 * cost(least) / cost({})) / 1e4

    def _plan(self, folder: Path, make: Callable[[], Plan]) -> Plan:
        """The plan in a step's folder, made when there is none yet."""
        path = folder / "plan.json"
        plan = None
        if not path.exists():
            groups = pruner.channel_groups(self.original)
            if all(group.fixed for group in groups):
                reasons = dict.fromkeys(str(group.fixed) for group in groups)
                raise UsageError(
                    "no channel of this model can be removed: " + "; ".join(reasons),
                    where=str(self.path),
                    expected="a layer between input and output whose channels are its own",
                )
            plan = make()
        self.begin()
        if plan:
            folder.mkdir(exist_ok=True)
            files.write_json(str(path), plan.to_dict())
        return Plan.from_dict(files.read_json(str(path)))

    def _step(self, folder: Path, model: keras.Model, plan: Plan) -> dict[str, Any]:
        """Prune, fine-tune, and write down what came out: {"model", "map50", "macs", "macs_share", …}."""
        path = folder / "result.json"
        if path.exists():
            result = files.read_json(str(path))
            if not isinstance(result, dict) or not {"model", "map50", "macs"} <= set(result):
                raise BadInput(
                    "not the result of a step",
                    where=str(path),
                    expected="a file written by jetmask prune",
                    remedy="remove the file: the step is then repeated",
                )
            return {**result, "model": str(folder / result["model"])}
        pruned = pruner.prune(model, plan)
        save(pruned, folder / "pruned.keras")
        result = {"model": "pruned.keras", "map50": None, "epochs": 0, "minutes": 0.0}
        if self.config.train.epochs:
            run = folder / "train"
            tuned = train.fit(
                self.config,
                run,
                model=pruned,
                resume=(run / "checkpoint.npz").exists(),
                progress=self.progress,
                learner=self.learner(),
            )
            result.update({key: tuned[key] for key in ("map50", "epochs", "minutes")}, model="train/best.keras")
        macs = [prune_cost.Macs(m, self.settings.input_wh)({}) for m in (self.original, pruned)]
        result.update(macs=int(macs[1]), macs_share=macs[1] / macs[0], parameters=pruned.count_params())
        files.write_json(str(path), result)
        return {**result, "model": str(folder / result["model"])}

    def learner(self) -> Any:
        """What fine-tuning learns from: the unpruned model too, or what the configuration says."""
        if not self.settings.distill:
            return None
        return with_teacher(self.original, self.settings.distill)

    def finish(self, result: dict[str, Any], plan: Plan | None = None) -> dict[str, Any]:
        """The whole pruning's result: best.keras and result.json in the folder, plan.json where channels went."""
        with files.aside(str(self.folder / "best.keras")) as aside:
            Path(aside).write_bytes(Path(result["model"]).read_bytes())
        result = {**result, "model": str(self.folder / "best.keras"), "map50_before": None}
        if plan is not None:
            files.write_json(str(self.folder / "plan.json"), plan.to_dict())
            result["plan"] = str(self.folder / "plan.json")
        if self.config.train.epochs:
            result["map50_before"] = self.baseline()["map50"]
            judge = Judge(self._val(), self.config.train.val_wh, classes_of(self.original))
            before, after = (judge.find(model) for model in (self.original, load(result["model"])))
            result["change"] = average_precision.paired_bootstrap(
                judge.truths, before, after, classes=judge.classes.names
            )
        files.write_json(str(self.folder / "result.json"), result)
        return result


def photo_scores(model: keras.Model, kind: str, config: Config, input_wh: tuple[int, int]) -> dict[str, np.ndarray]:
    """Importance "taylor" or "activation" of a detector's channels, on training photographs of the config's data, as
    plan_uniform and plan_global take it. input_wh: (width, height); the photographs are squares of that width."""
    config = copy.deepcopy(config)
    config.train.sizes = [[input_wh[0], 1.0]]
    config.train.batch_size = SCORE_IMAGES
    root = config.data.root or os.environ.get("JETMASK_DATA", "")
    pool = dataset.read_pool(root, dataset.folders_of(config.data), classes=classes_of(model).names)
    batches = dataset.Batches(pool, config, 0, SCORE_BATCHES, True)
    pairs = [batches[i] for i in range(SCORE_BATCHES)]
    if kind == "activation":
        return importance.score(model, kind, (x for x, _ in pairs))
    return importance.score(
        model, kind, pairs, lambda y, out: sum(detection_loss(out, y["boxes"], y["labels"], y["ignore"]))
    )
