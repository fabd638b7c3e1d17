"""Training. Every epoch ends with a checkpoint written aside and renamed; a resumed run goes on from it and gives what
an unbroken one gives, since batches depend on (seed, epoch, index) alone."""

import dataclasses
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np

from jetson import files
from jetson.bundle.classes import Classes
from jetson.errors import BadInput, JetmaskError, UsageError
from jetson.evaluation import average_precision
from pipeline import config as configuration
from pipeline.config import Config
from pipeline.models import mobilenet
from pipeline.models.classes import classes_of, with_classes
from pipeline.models.detector import build, in_precision, load, macs, save
from pipeline.paths import made
from pipeline.training import board, checkpoint, dataset, run_folder
from pipeline.training.classes import of_training
from pipeline.training.distillation import with_teacher
from pipeline.training.learner import Learner
from pipeline.training.optimizers import Average, Plateau, make_optimizer
from pipeline.training.progress import Clock, Facts, Progress, Quiet, ap_key, teller
from pipeline.training.validation import NAMES, Judge, Judged, predict, validate

__all__ = ["NAMES", "Run", "fit", "predict", "validate"]

AHEAD = 6  # batches prepared while a step runs
# Threads that prepare them: one makes some 270 images a second, more than two cores train on; a GPU waits for more.
PREPARING = max(1, min(4, (os.cpu_count() or 1) // 3))


def _checked(net: Any, source: str) -> Any:
    """The network, where it is one of this detector; BadInput otherwise."""
    if getattr(net, "output_names", None) != NAMES:  # a Sequential has none
        raise BadInput(
            "not a jetmask detector",
            where=source,
            expected="the outputs " + ", ".join(NAMES),
            remedy="take a .keras file of jetmask train or prune",
        )
    return net


def _from_imagenet(model: configuration.Model) -> bool:
    return model.init == configuration.IMAGENET or model.init.endswith(".h5")


class Run:
    """One training in a folder; what lies in it afterwards: pipeline/training/run_folder.py."""

    def __init__(
        self,
        config: Config,
        run_dir: str | os.PathLike,
        net: Any = None,
        report: Callable[[int, dict[str, Any]], None] | None = None,
        learner: Callable[[Any], Any] | None = None,
        callbacks: Sequence[Any] = (),
        told: Progress | None = None,
    ) -> None:
        keras.utils.set_random_seed(config.train.seed)
        self.config, self.folder, self.report = config, Path(run_dir), report
        self.callbacks, self.teller = list(callbacks), told or Quiet()
        self.root = config.data.root or os.environ.get("JETMASK_DATA", "")
        if not self.root:
            raise UsageError(
                "no data",
                where="data.root",
                expected="a folder with split folders such as train/, val/",
                remedy="give --data DIR, set JETMASK_DATA, or draw images: jetmask data draw DIR",
            )
        given = net is not None
        if not given and config.model.init and not _from_imagenet(config.model):
            net = load(configuration.weights(config.model.init))
        known = None
        if net is not None:
            known = classes_of(_checked(net, config.model.init or net.name))
        self.classes = of_training(config.data, self.root, known)
        self._read_data()
        self.start = self._started_from(given, known)
        net = with_classes(net, self.classes) if net is not None else self._built()
        self.net = in_precision(_checked(net, config.model.size), config.train.precision)
        if learner is None and config.model.teacher:
            learner = with_teacher(self._teacher(), config.model.teacher_weight)
        self.averaged = keras.models.clone_model(self.net)
        self.averaged.set_weights(self.net.get_weights())
        self.steps = dataset.steps_per_epoch(config)
        self.learner = (learner or Learner)(self.net)
        optimizer = make_optimizer(config.train, self.steps * config.train.epochs)
        self.learner.compile(optimizer, jit_compile=False)
        optimizer.build(self.net.trainable_variables)
        self.average = Average(self.net, config.train.ema)
        self.plateau = Plateau() if config.train.schedule == "plateau" else None
        self.rows: list[dict[str, Any]] = []
        self.best, self.best_epoch, self.done, self.minutes = -1.0, 0, 0, 0.0
        self.started = time.time()
        self.last: Judged | None = None
        # Weights that know the classes already may be better than what a short training makes of them.
        self.starts_trained = not given and known is not None and set(self.classes.names) <= set(known.names)
        self.before: float | None = None
        self.bounds: tuple[float, float] | None = None

    def _read_data(self) -> None:
        config, folders = self.config, dataset.folders_of(self.config.data)
        # Now, not after the first epoch.
        self.judge = Judge(Path(self.root) / config.data.val, config.train.val_wh, self.classes)
        if not average_precision.has_scored(self.judge.truths, self.classes.names):
            scored = [self.classes.names[label] for label in average_precision.scheme(self.classes.names).scored]
            raise BadInput(
                "the validation images have no labels",
                where=str(Path(self.root) / config.data.val),
                expected="labels of " + " or ".join(scored[:5]),
                remedy="split the data again: jetmask data split",
            )
        self.pool = dataset.read_pool(
            self.root, folders, config.data.apart_from, config.data.most_per_person, self.classes.names
        )
        if not any(self.pool.faces):
            raise BadInput(
                "the training images have no labelled face"
                if self.pool.masks
                else "the training images have no labelled box",
                where=str(self.root),
                remedy="jetmask data stats shows the boxes of a folder",
                expected="labelled boxes of 1 px or more in " + ", ".join(folders),
            )

    def _started_from(self, given: bool, known: Classes | None) -> str:
        model = self.config.model
        if given:
            return "the model that was given"
        if known is None:
            begun = "ImageNet's weights" if model.init else "random weights"
            return f"{begun}, model.size={model.size}"
        new = [name for name in self.classes.names if name not in known.names]
        shipped = model.init in configuration.shipped() and not Path(model.init).exists()
        heads = f"; new class heads for {', '.join(new)}" if new else ""
        return f"{'the shipped weights' if shipped else 'the weights of'} {model.init}{heads}"

    def _built(self) -> Any:
        model = self.config.model
        net = build(model.size, model.dropout, self.classes)
        return mobilenet.transfer(net, model.init) if model.init else net

    def _teacher(self) -> Any:
        model = self.config.model
        teacher = _checked(load(configuration.weights(model.teacher)), model.teacher)
        if classes_of(teacher).names != self.classes.names:
            raise BadInput(
                "the teacher has other classes",
                where=f"model.teacher={model.teacher}: {', '.join(classes_of(teacher).names)}",
                expected=", ".join(self.classes.names),
                remedy="train a teacher on these classes first, or remove model.teacher",
            )
        return teacher

    def stopped_early(self) -> bool:
        """Whether the last validation was as long after the best one as train.early_stop_epochs allows."""
        allowed = self.config.train.early_stop_epochs
        validated = [row["epoch"] for row in self.rows if row["map50"] is not None]
        return bool(allowed and validated and validated[-1] - self.best_epoch >= allowed)

    def save_model(self, name: str) -> None:
        """Write the averaged weights."""
        save(self.averaged, self.folder / name)

    def _groups(self) -> dict[str, Any]:
        return {"net": self.net.variables, "optimizer": self.learner.optimizer.variables}

    def save(self, epoch: int) -> None:
        """Checkpoint after `epoch` epochs, and the log."""
        state = {
            "epoch": epoch,
            "rows": self.rows,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "before": self.before,
            "bounds": self.bounds,
            "plateau": self.plateau.state() if self.plateau else None,
            "average_step": self.average.step,
            "minutes": (time.time() - self.started) / 60 + self.minutes,
            "config": configuration.to_dict(self.config),
        }
        checkpoint.write(self.folder, self._groups(), self.average.values, state)
        checkpoint.write_log(self.folder, self.rows)

    def resume(self) -> None:
        """Go on where the folder's checkpoint is; BadInput where it does not fit."""
        before = checkpoint.config_of(self.folder)
        configuration.gone_on_with(before, self.config, self.folder / checkpoint.FILE)
        state, self.average.values = checkpoint.read(self.folder, self._groups(), self.average.values)
        if self.plateau:
            self.plateau.before = state.get("plateau") or {}  # an older checkpoint has none
        self.average.step, self.done = state["average_step"], state["epoch"]
        self.rows, self.best, self.best_epoch = state["rows"], state["best"], state["best_epoch"]
        self.before, self.bounds = state.get("before"), state.get("bounds")
        self.minutes = state["minutes"]

    def validate(self, epoch: int, logs: dict[str, Any]) -> None:
        """The row of an epoch that has ended, validated where it is its turn; the best is kept. `logs` gets all."""
        train = self.config.train
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "minutes": round((time.time() - self.started) / 60 + self.minutes, 2),
            "learning_rate": float(np.asarray(self.learner.optimizer.learning_rate)),
            "cls_loss": float(logs["cls_loss"]),
            "box_loss": float(logs["box_loss"]),
            **dict.fromkeys(["map50", "val_loss", "precision", "recall"]),
            **dict.fromkeys(ap_key(name) for name in self.classes.names),
        }
        if (epoch + 1) % train.val_every == 0 or epoch + 1 == train.epochs:
            self.average.write_to(self.averaged)
            self.last = self.judge.judge(self.averaged)
            row.update(self._figures(self.last.result))
            if row["map50"] >= self.best:
                self.best, self.best_epoch = row["map50"], epoch + 1
                self.save_model("best.keras")
        self.rows.append(row)
        logs["learning_rate"] = row["learning_rate"]
        for key, value in row.items():
            if value is not None and key not in ("epoch", "minutes", "learning_rate", "cls_loss", "box_loss"):
                logs[key if key.startswith("val_") else "val_" + key] = value

    def _figures(self, result: dict[str, Any]) -> dict[str, Any]:
        known = average_precision.every_class(result)
        own = {ap_key(name): known.get(name) for name in self.classes.names}
        return {
            "map50": result["map50"],
            "val_loss": result.get("loss"),
            "precision": result.get("precision"),
            "recall": result.get("recall"),
            **own,
        }

    def judge_start(self) -> None:
        """The figure of the weights that it starts from; they are the best until an epoch is better."""
        if not self.starts_trained or self.done:
            return
        self.last = self.judge.judge(self.averaged)
        self.before, self.bounds = self.last.result["map50"], self.judge.interval(self.last.faces)
        self.best = self.before if self.before is not None else -1.0
        self.save_model("best.keras")

    def samples(self) -> list[tuple[np.ndarray, np.ndarray, Any]]:
        """Some validation photographs with their truth and what was found last: those with the most boxes."""
        if self.last is None:
            return []
        order = sorted(range(len(self.judge.photos)), key=lambda i: -len(self.judge.photos[i].boxes))
        return [
            (self.judge.photos[i].image(), self.judge.photos[i].boxes, self.last.faces[i])
            for i in order[: board.PICTURES]
        ]

    def epoch(self, batches: Any, callbacks: Any, name: str, clock: Clock | None = None) -> dict[str, float]:
        """One epoch's steps; returns the mean losses. Not Keras' own loop: that takes every batch to have the shapes
        of its first two."""
        sums: dict[str, float] = {}
        self.teller.epoch_begins(name, len(batches))
        with ThreadPoolExecutor(PREPARING) as pool:
            first = min(AHEAD * PREPARING, len(batches))
            ahead = deque(pool.submit(batches.__getitem__, i) for i in range(first))
            for step in range(len(batches)):
                x, y = ahead.popleft().result()
                if step + first < len(batches):
                    ahead.append(pool.submit(batches.__getitem__, step + first))
                callbacks.on_train_batch_begin(step)
                logs = self.learner.train_on_batch(x, y, return_dict=True)
                # Its weights are lost, and all that is trained on would be; the last epoch's are in the checkpoint.
                if not all(math.isfinite(value) for value in logs.values()):
                    raise JetmaskError(
                        "the loss is NaN",
                        where=f"{name}, step {step + 1}",
                        expected="a finite loss",
                        remedy=f"lower train.learning_rate (now {self.config.train.learning_rate:g}), then continue "
                        "from the last complete epoch with --resume",
                    )
                callbacks.on_train_batch_end(step, logs)
                for key, value in logs.items():
                    sums[key] = sums.get(key, 0.0) + float(value)
                self.teller.step({key: sums[key] / (step + 1) for key in ("cls_loss", "box_loss")})
                if clock is not None and clock.step_done():
                    self.teller.left(clock.left())
        return {key: value / len(batches) for key, value in sums.items()}

    def fit(self) -> dict[str, Any]:
        """Train to the end; returns what `fit` below returns."""
        train = self.config.train
        self.judge_start()
        # The caller's go first: what they do to the weights is what is averaged. An epoch is validated before any of
        # them hears of its end, so that all see its figures.
        shown = board.Board(self.folder / "logs", self.classes, self.samples, self.steps, self.done)
        listed = [*self.callbacks, self.average, shown, *([self.plateau] if self.plateau else [])]
        callbacks = keras.callbacks.CallbackList(listed, model=self.learner)
        self.learner.stop_training = self.stopped_early()  # a resumed run may have been at its end
        left = range(self.done, train.epochs if not self.learner.stop_training else self.done)
        clock = Clock(self.steps * len(left), -(-len(left) // train.val_every))
        self.teller.begin(self._facts())
        try:
            callbacks.on_train_begin()
            for epoch in left:
                closing = epoch >= train.epochs - train.closing_epochs
                batches = dataset.Batches(self.pool, self.config, epoch, self.steps, closing)
                callbacks.on_epoch_begin(epoch)
                clock.restart()
                logs: dict[str, Any] = dict(self.epoch(batches, callbacks, f"epoch {epoch + 1}/{train.epochs}", clock))
                began = time.monotonic()
                self.validate(epoch, logs)
                if self.rows[-1]["map50"] is not None:
                    clock.validated(time.monotonic() - began)
                callbacks.on_epoch_end(epoch, logs)
                self._epoch_ends(epoch + 1, clock)
                if self.learner.stop_training:
                    break
            callbacks.on_train_end()
        finally:
            shown.close()
        self.average.write_to(self.averaged)
        self.save_model("last.keras")
        result = self._result()
        self.teller.end(result)
        return result

    def _epoch_ends(self, epoch: int, clock: Clock) -> None:
        self.save(epoch)
        self.teller.epoch(self.rows[-1], self.best, self.best_epoch, clock.left())
        if self.report:
            self.report(epoch, self.rows[-1])
        if self.stopped_early():
            self.learner.stop_training = True

    def _facts(self) -> Facts:
        train = self.config.train
        labels = {
            "training": [photo.labels for photo in self.pool.photos],
            self.config.data.val: [truth.labels for truth in self.judge.truths],
        }
        boxes = {
            split: {name: sum(int((part == n).sum()) for part in parts) for n, name in enumerate(self.classes.names)}
            for split, parts in labels.items()
        }
        return Facts(
            folder=str(self.folder),
            data=str(self.root),
            photographs={split: len(parts) for split, parts in labels.items()},
            boxes=boxes,
            classes=self.classes,
            start=self.start,
            epochs=train.epochs,
            steps=self.steps,
            images=train.epochs * train.images_per_epoch,
            optimizer=train.optimizer,
            learning_rate=train.learning_rate,
            done=self.done,
            before=self.before,
            bounds=self.bounds,
        )

    def _result(self) -> dict[str, Any]:
        return {
            "map50": self.best,
            "best_epoch": self.best_epoch,
            "map50_before": self.before,
            "classes": list(self.classes.names),
            "epochs": len(self.rows),
            "rows": self.rows,
            "macs_320": macs(self.net, (320, 320)),
            "best": str(self.folder / "best.keras"),
            "last": str(self.folder / "last.keras"),
            "minutes": self.rows[-1]["minutes"] if self.rows else 0.0,
        }


def fit(
    config: Config,
    run_dir: str | os.PathLike,
    model: Any = None,
    report: Callable[[int, dict[str, Any]], None] | None = None,
    resume: bool = False,
    progress: int = 0,
    learner: Callable[[Any], Any] | None = None,
    callbacks: Sequence[Any] = (),
    output: str = "",
) -> dict[str, Any]:
    """Train as config says in run_dir; `model` goes first over config.model. report(epoch, row) is called after each
    epoch. learner(net): makes the network with its loss, in place of what config.model.teacher says; callbacks: more of
    Keras' callbacks, which see the losses and, after an epoch, val_map50, val_loss, val_ap_CLASS (docs/train.md).
    output: "words", "json" lines or "quiet"; "": words where `progress` is set. Returns a dict with map50 (val, the
    best), best and last (paths), rows (the log)."""
    if config.train.epochs < 1:
        raise UsageError(f"train.epochs is {config.train.epochs}", where="train.epochs", expected="1 or more")
    keras.config.set_dtype_policy(config.train.precision)
    run_dir = made(run_dir)
    if resume and not (run_dir / checkpoint.FILE).exists() and not (run_dir / "config.json").exists():
        raise BadInput(
            "nothing to resume",
            where=str(run_dir),
            expected=f"a folder with {checkpoint.FILE}",
            remedy="start without --resume",
        )
    if not resume and (run_dir / checkpoint.FILE).exists():
        raise UsageError(
            "the folder already holds a training",
            where=str(run_dir),
            expected="a new or empty folder",
            remedy="continue with --resume, or choose another folder with --out",
        )
    # Two trainings in one folder would go on from one another's checkpoints.
    with files.lock(str(run_dir / "train.lock"), wait=False):
        run = Run(
            config, run_dir, model, report, learner, callbacks, teller(output or ("words" if progress else "quiet"))
        )
        if (run_dir / checkpoint.FILE).exists():
            run.resume()
        kept = dataclasses.replace(config, data=dataclasses.replace(config.data, classes=list(run.classes.names)))
        files.write_json(str(run_dir / "config.json"), configuration.to_dict(kept))
        run_folder.describe(run_dir, run.classes, run.start)
        return run.fit()
