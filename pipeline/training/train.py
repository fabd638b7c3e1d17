"""Training: `jetmask train`. Every epoch ends with a checkpoint written aside and renamed; `--resume` goes on from it
and gives what an unbroken run gives, since batches depend on (seed, epoch, index) alone."""

import csv
import json
import math
import os
import sys
import time
import zipfile
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from jetson import files
from jetson.errors import BadInput, JetmaskError, UsageError
from jetson.evaluation import average_precision
from jetson.inference.detector import find
from jetson.vision import letterbox
from pipeline import config as configuration
from pipeline.models import mobilenet
from pipeline.models.decode import DECODE
from pipeline.models.detector import STRIDES, build, in_precision, load, macs, save
from pipeline.paths import made
from pipeline.training import dataset
from pipeline.training.distillation import with_teacher
from pipeline.training.learner import Learner
from pipeline.training.optimizers import Average, Plateau, make_optimizer

AHEAD = 6  # batches prepared while a step runs
# Threads that prepare them: one makes some 270 images a second, more than two cores train on; a GPU waits for more.
PREPARING = max(1, min(4, (os.cpu_count() or 1) // 3))
NAMES = [f"{kind}_{int(s)}" for s in STRIDES for kind in ("cls", "box")]  # the outputs, in their order
FEW = 0.01  # scores at or under this do not count in the metric


def _checked(net, source):
    """The network, where it is one of this detector; BadInput otherwise."""
    if getattr(net, "output_names", None) != NAMES:  # a Sequential has none
        raise BadInput(
            "not a model of this detector",
            where=source,
            expected="the outputs " + ", ".join(NAMES),
            remedy="take a .keras file of jetmask train or prune",
        )
    return net


def _start(model):
    """The network that the config's `model` section begins with."""
    if model.init and not (model.init == configuration.IMAGENET or model.init.endswith(".h5")):
        return load(configuration.weights(model.init))
    net = build(model.size, model.dropout)
    return mobilenet.transfer(net, model.init) if model.init else net


def predict(net, photos, input_wh, batch=8):
    """Faces of every photo by a Keras model: list of (xyxy in photo pixels, class scores (N, 3)); the plain way that
    training validates by. Decoding and NMS are the device's."""
    results = []
    for start in range(0, len(photos), batch):
        frames = [photo.image() for photo in photos[start : start + batch]]
        boxed = [letterbox.letterbox(frame, input_wh) for frame in frames]
        x = np.concatenate([blob for blob, _ in boxed]).transpose(0, 2, 3, 1)
        outputs = [np.asarray(o).transpose(0, 3, 1, 2) for o in net.predict_on_batch(x)]
        for i, (frame, (_, scale)) in enumerate(zip(frames, boxed)):
            found = {n: o[i : i + 1] for n, o in zip(NAMES, outputs)}
            results.append(find(found, DECODE, frame.shape[1::-1], scale, FEW))
    return results


def validate(net, split_dir, input_wh):
    """The metric of jetson/evaluation/average_precision.py for a Keras model on a split folder."""
    truths = average_precision.load_split(split_dir)
    photos = [dataset.Photo(Path(t.file), None, None, None, t.wh) for t in truths]
    return average_precision.evaluate(truths, predict(net, photos, input_wh))


class Validate(keras.callbacks.Callback):
    """After each epoch: validate the averaged weights and keep the best."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_epoch_end(self, epoch, logs=None):
        run, logs = self.run, logs or {}
        train = run.config.train
        row = {
            "epoch": epoch + 1,
            "minutes": round((time.time() - run.started) / 60 + run.minutes, 2),
            "learning_rate": float(np.asarray(run.learner.optimizer.learning_rate)),
            "cls_loss": float(logs["cls_loss"]),
            "box_loss": float(logs["box_loss"]),
            "map50": None,
        }
        if (epoch + 1) % train.val_every == 0 or epoch + 1 == train.epochs:
            run.average.write_to(run.averaged)
            row["map50"] = validate(run.averaged, run.val_dir, train.val_wh)["map50"]
            logs["val_map50"] = row["map50"]
            if row["map50"] >= run.best:
                run.best, run.best_epoch = row["map50"], epoch + 1
                run.save_model("best.keras")
        run.rows.append(row)


class Checkpoint(keras.callbacks.Callback):
    """After each epoch, and after all that its end changes: write the checkpoint and the log."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_epoch_end(self, epoch, logs=None):
        run = self.run
        run.save(epoch + 1)
        if run.report:
            run.report(epoch + 1, run.rows[-1])
        if run.stopped_early():
            self.model.stop_training = True


class Run:
    """One training in a folder: checkpoint.npz (everything needed to go on), best.keras, last.keras, log.csv,
    config.json, and TensorBoard's logs/."""

    def __init__(self, config, run_dir, net=None, report=None, learner=None, callbacks=()):
        keras.utils.set_random_seed(config.train.seed)
        self.config, self.folder, self.report = config, Path(run_dir), report
        self.callbacks = list(callbacks)
        root = config.data.root or os.environ.get("JETMASK_DATA", "")
        if not root:
            raise UsageError(
                "no data",
                where="data.root",
                expected="a folder with split folders such as train/, val/",
                remedy="give --data DIR, set JETMASK_DATA, or draw some: jetmask data draw DIR",
            )
        self.val_dir = Path(root) / config.data.val
        # Now, not after the first epoch.
        if not any(
            (truth.labels < len(average_precision.TWO_CLASS)).any()
            for truth in average_precision.load_split(str(self.val_dir))
        ):
            raise BadInput(
                "there is no face to validate on",
                where=str(self.val_dir),
                expected="labels of with_mask or without_mask",
                remedy="split again: jetmask data split",
            )
        self.pool = dataset.read_pool(
            root, dataset.folders_of(config.data), config.data.apart_from, config.data.most_per_person
        )
        if not any(self.pool.faces):
            raise BadInput(
                "there is no face to train on",
                where=str(root),
                remedy="look: jetmask data stats",
                expected="labelled boxes of 1 px or more in " + ", ".join(dataset.folders_of(config.data)),
            )
        model = config.model
        net = net or _start(model)
        self.net = in_precision(_checked(net, model.init or net.name), config.train.precision)
        if learner is None and model.teacher:
            teacher = _checked(load(configuration.weights(model.teacher)), model.teacher)
            learner = with_teacher(teacher, model.teacher_weight)
        self.averaged = keras.models.clone_model(self.net)
        self.averaged.set_weights(self.net.get_weights())
        self.steps = dataset.steps_per_epoch(config)
        self.learner = (learner or Learner)(self.net)
        optimizer = make_optimizer(config.train, self.steps * config.train.epochs)
        self.learner.compile(optimizer, jit_compile=False)
        optimizer.build(self.net.trainable_variables)
        self.average = Average(self.net, config.train.ema)
        self.plateau = Plateau() if config.train.schedule == "plateau" else None
        self.rows, self.best, self.best_epoch, self.done, self.minutes = [], -1.0, 0, 0, 0.0
        self.started = time.time()

    def stopped_early(self):
        """Whether the last validation was as long after the best one as train.early_stop_epochs allows."""
        allowed = self.config.train.early_stop_epochs
        validated = [row["epoch"] for row in self.rows if row["map50"] is not None]
        return bool(allowed and validated and validated[-1] - self.best_epoch >= allowed)

    def save_model(self, name):
        save(self.averaged, self.folder / name)

    def save(self, epoch):
        """Checkpoint after `epoch` epochs, in one file, so that a kill leaves the old one or the new one."""
        arrays = {f"net/{i}": np.array(w) for i, w in enumerate(self.net.variables)}
        arrays.update({f"optimizer/{i}": np.array(w) for i, w in enumerate(self.learner.optimizer.variables)})
        arrays.update({f"average/{i}": w for i, w in enumerate(self.average.values)})
        minutes = (time.time() - self.started) / 60 + self.minutes
        state = {
            "epoch": epoch,
            "rows": self.rows,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "plateau": self.plateau.state() if self.plateau else None,
            "average_step": self.average.step,
            "minutes": minutes,
            "config": configuration.to_dict(self.config),
        }
        arrays["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
        with files.aside(self.folder / "checkpoint.npz") as path, open(path, "wb") as out:
            np.savez(out, **arrays)
        if self.rows:
            with files.aside(self.folder / "log.csv") as path, open(path, "w", newline="") as out:
                writer = csv.DictWriter(out, list(self.rows[0]))
                writer.writeheader()
                writer.writerows(self.rows)

    def resume(self):
        path = self.folder / "checkpoint.npz"
        try:
            with np.load(path) as stored:
                state = json.loads(bytes(stored["state"]))
                configuration.gone_on_with(state.get("config") or {}, self.config, path)
                groups = (("net", self.net.variables), ("optimizer", self.learner.optimizer.variables))
                for prefix, variables in groups:
                    for i, variable in enumerate(variables):
                        variable.assign(stored[f"{prefix}/{i}"])
                self.average.values = [stored[f"average/{i}"].copy() for i in range(len(self.average.values))]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise BadInput(
                f"this checkpoint does not fit: {error}",
                where=str(path),
                expected="a checkpoint of the same model and optimizer",
                remedy="resume with the config of the run, or start a new folder",
            ) from error
        if self.plateau:
            self.plateau.before = state.get("plateau") or {}  # an older checkpoint has none
        self.average.step, self.done = state["average_step"], state["epoch"]
        self.rows, self.best, self.best_epoch = state["rows"], state["best"], state["best_epoch"]
        self.minutes = state["minutes"]

    def epoch(self, batches, callbacks, progress, name):
        """One epoch's steps. Not keras' own loop: that takes every batch to have the shapes of its first two."""
        sums = {}
        bar = tqdm(total=len(batches), desc=name, unit="step", disable=not progress, file=sys.stderr, mininterval=1)
        with bar, ThreadPoolExecutor(PREPARING) as pool:
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
                        "the loss is no number any more",
                        where=f"{name}, step {step + 1}",
                        expected="a rate of learning that the network bears",
                        remedy=f"lower train.learning_rate (now {self.config.train.learning_rate:g}); --resume goes on from the last "
                        "whole epoch",
                    )
                callbacks.on_train_batch_end(step, logs)
                bar.update()
                for key, value in logs.items():
                    sums[key] = sums.get(key, 0.0) + float(value)
                bar.set_postfix(
                    cls=f"{sums['cls_loss'] / (step + 1):.3f}",
                    box=f"{sums['box_loss'] / (step + 1):.3f}",
                    refresh=False,
                )
        return {key: value / len(batches) for key, value in sums.items()}

    def fit(self, progress=1):
        train = self.config.train
        # The caller's go first: what they do to the weights is what is averaged.
        callbacks = [
            *self.callbacks,
            self.average,
            keras.callbacks.TensorBoard(self.folder / "logs", update_freq=50, profile_batch=0),
            Validate(self),
            *([self.plateau] if self.plateau else []),
            Checkpoint(self),
        ]
        callbacks = keras.callbacks.CallbackList(callbacks, model=self.learner)
        self.learner.stop_training = self.stopped_early()  # a resumed run may have been at its end
        callbacks.on_train_begin()
        for epoch in range(self.done, train.epochs if not self.learner.stop_training else self.done):
            closing = epoch >= train.epochs - train.closing_epochs
            batches = dataset.Batches(self.pool, self.config, epoch, self.steps, closing)
            callbacks.on_epoch_begin(epoch)
            logs = self.epoch(batches, callbacks, progress, f"epoch {epoch + 1}/{train.epochs}")
            callbacks.on_epoch_end(epoch, logs)
            if self.learner.stop_training:
                break
        callbacks.on_train_end()
        self.average.write_to(self.averaged)
        self.save_model("last.keras")
        return {
            "map50": self.best,
            "best_epoch": self.best_epoch,
            "epochs": len(self.rows),
            "rows": self.rows,
            "macs_320": macs(self.net, (320, 320)),
            "best": str(self.folder / "best.keras"),
            "last": str(self.folder / "last.keras"),
            "minutes": self.rows[-1]["minutes"] if self.rows else 0.0,
        }


def fit(config, run_dir, model=None, report=None, resume=False, progress=0, learner=None, callbacks=()):
    """Train as config says in run_dir; `model` goes first over config.model. report(epoch, row) is called after each
    epoch. learner(net): makes the network with its loss, in place of what config.model.teacher says; callbacks: more of
    Keras' callbacks, for that. Returns a dict with map50 (val, the best), best and last (paths), rows (the log)."""
    if config.train.epochs < 1:
        raise UsageError(f"train.epochs is {config.train.epochs}", where="train.epochs", expected="1 or more")
    keras.config.set_dtype_policy(config.train.precision)
    run_dir = made(run_dir)
    if resume and not (run_dir / "checkpoint.npz").exists() and not (run_dir / "config.json").exists():
        raise BadInput(
            "nothing to resume",
            where=str(run_dir),
            expected="a folder with checkpoint.npz",
            remedy="start without --resume",
        )
    if not resume and (run_dir / "checkpoint.npz").exists():
        raise UsageError(
            "there is a training already",
            where=str(run_dir),
            expected="a new or empty folder",
            remedy="go on with --resume, or name another folder with --out",
        )
    # Two trainings in one folder would go on from one another's checkpoints.
    with files.lock(run_dir / "train.lock", wait=False):
        run = Run(config, run_dir, model, report, learner, callbacks)
        if (run_dir / "checkpoint.npz").exists():
            run.resume()
        files.write_json(run_dir / "config.json", configuration.to_dict(config))
        return run.fit(progress)


def options(parser):
    parser.epilog = "example: jetmask train s --data data/facemask --set train.epochs=5 --out runs/s"
    parser.add_argument("config", nargs="?", help="YAML file, or preset: n, s, m")
    parser.add_argument("--data", help="folder with the split folders (default: data.root, then JETMASK_DATA)")
    parser.add_argument("--out", default="runs/train", help="run folder")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where a stopped run in --out was, by its own config where none is named",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one config key")
    parser.add_argument("--json", action="store_true")


def command(args):
    own = Path(args.out) / "config.json"
    start = configuration.load(own) if args.resume and not args.config and own.exists() else None
    config = configuration.load(args.config, args.set, start)
    if args.data:
        config.data.root = args.data
    result = fit(config, args.out, resume=args.resume, progress=1)
    if args.json:
        print(json.dumps(result))
    else:
        print(
            "val mAP50 %.1f (two-class, epoch %d of %d)\nmodel     %s"
            % (result["map50"], result["best_epoch"], result["epochs"], result["best"])
        )
