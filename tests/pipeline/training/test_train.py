"""Training from outside: a real process that is killed at some moment, and resumed, ends like an unbroken one."""

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
from refusals import refused

from jetson import files
from jetson.errors import BadInput, JetmaskError, UsageError
from pipeline import cli as host
from pipeline import config as configuration
from pipeline.models.detector import build, load, save
from pipeline.pruning import pruner
from pipeline.training import cli, dataset, train, validation

SETTINGS = [
    "model.size=n",
    "train.epochs=3",
    "train.images_per_epoch=8",
    "train.batch_size=4",
    "train.warmup_steps=2",
    "train.sizes=[[64, 0.6], [96, 0.4]]",
    "train.val_wh=[96, 96]",
    "train.closing_epochs=1",
    "data.train=[train]",
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two splits of coloured squares on noise: enough for a loss to fall."""
    top = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(1)
    for split in ("train", "val"):
        (top / split / "images").mkdir(parents=True)
        images, annotations = [], []
        for i in range(6):
            image = rng.integers(0, 80, (96, 96, 3), np.uint8)
            x, y, side = (int(v) for v in rng.integers(20, 40, 3))
            image[y : y + side, x : x + side] = (0, 200, 0) if i % 2 else (0, 0, 200)
            cv2.imwrite(str(top / split / "images" / (f"{i}.png")), image)
            images.append({"id": i, "file_name": f"images/{i}.png", "width": 96, "height": 96})
            annotations.append(
                {
                    "id": i,
                    "image_id": i,
                    "category_id": 1 + i % 2,
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
        categories = [
            {"id": i + 1, "name": n} for i, n in enumerate(("with_mask", "without_mask", "mask_worn_incorrect"))
        ]
        (top / split / "annotations.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
    return top


def command(drawn, out, *more):
    line = [sys.executable, "-m", "pipeline.cli", "train", "--data", str(drawn), "--out", str(out), "--json", *more]
    for setting in SETTINGS:
        line += ["--set", setting]
    return line


# TensorFlow's sums on a CPU have no fixed order: two runs of one training differ in the last digits even unbroken, and
# Adam enlarges that (2e-5 seen). One optimizer step moves weights by the rate, 2e-3: what a lost or repeated step, a
# stale moment or another batch would leave is ten times the tolerance.
ROUNDING = {"rtol": 1e-2, "atol": 2e-4}
ENVIRONMENT = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}


def run(*args):
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=600, env=ENVIRONMENT)


def log_of(out):
    with open(out / "log.csv") as lines:
        return [[float(v or "nan") for k, v in row.items() if k != "minutes"] for row in csv.DictReader(lines)]


@pytest.mark.slow
def test_killed_and_resumed_ends_like_an_unbroken_run(drawn, tmp_path):
    whole = run(drawn, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    broken = tmp_path / "broken"
    process = subprocess.Popen(
        command(drawn, broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    deadline = time.time() + 300
    while not (broken / "checkpoint.npz").exists() and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    np.load(broken / "checkpoint.npz").close()  # whole, whenever the kill came
    with refused(UsageError, where="broken", names=["--resume", "--out"]):
        train.fit(settings(drawn), broken)
    resumed = run(drawn, broken, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    np.testing.assert_allclose(log_of(broken), log_of(tmp_path / "whole"), rtol=1e-3)
    with np.load(broken / "checkpoint.npz") as a, np.load(tmp_path / "whole" / "checkpoint.npz") as b:
        for name in a.files:
            if name != "state":
                np.testing.assert_allclose(a[name], b[name], err_msg=name, **ROUNDING)
    result = json.loads(resumed.stdout.splitlines()[-1])
    assert result["event"] == "end"
    assert result["epochs"] == 3 and os.path.exists(result["best"]) and os.path.exists(result["last"])
    assert not [p for p in os.listdir(broken) if p.endswith(".part")]


def settings(drawn, *more):
    return configuration.load(None, [*SETTINGS, f"data.root={drawn}", *more])


@pytest.mark.parametrize("change", [{"annotations": []}, {"annotations": [], "images": []}])
def test_a_val_without_faces_is_told_before_the_first_epoch(drawn, tmp_path, change):
    shutil.copytree(drawn, tmp_path / "data")
    path = tmp_path / "data" / "val" / "annotations.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with refused(BadInput, where="val", names=["with_mask", "without_mask"]):
        train.fit(settings(tmp_path / "data"), tmp_path / "out")
    with refused(BadInput, where="nowhere"):
        train.fit(settings(drawn, "data.val=nowhere"), tmp_path / "out")


def test_no_epochs_are_no_training(drawn, tmp_path):
    with refused(UsageError, where="train.epochs", names=["0", "1"]):
        train.fit(settings(drawn, "train.epochs=0"), tmp_path / "out")


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_training_and_leaves_the_last_good_epoch(drawn, tmp_path):
    more = ["train.batch_size=1", "train.images_per_epoch=60", "train.sizes=[[64, 1.0]]"]  # three steps
    run = train.Run(settings(drawn, *more), tmp_path)
    run.save(1)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    broken = settings(drawn, *more, "train.learning_rate=1e30", "train.clip_norm=0", "train.warmup_steps=0")
    with refused(JetmaskError, where="epoch 2/3, step ", names=["train.learning_rate", "--resume"]):
        train.fit(broken, tmp_path, resume=True)
    assert (tmp_path / "checkpoint.npz").read_bytes() == before


def test_a_resumed_run_goes_by_its_own_config_and_tells_what_is_otherwise(drawn, tmp_path, monkeypatch, capsys):
    """Without a config named it would go on with the defaults: other sizes, another rate, another end."""
    asked = []
    monkeypatch.setattr(
        train,
        "fit",
        lambda config, *_, **__: (
            asked.append(config) or {"map50": 1.0, "best_epoch": 1, "epochs": 1, "best": "", "classes": ["a"]}
        ),
    )

    def resume(*words):
        parser = argparse.ArgumentParser()
        cli.options(parser)
        cli.command(parser.parse_args([*words, "--out", str(tmp_path), "--resume"]))
        return asked[-1]

    own = settings(drawn, "train.learning_rate=1e-3", "augment.mosaic=0.1")
    (tmp_path / "config.json").write_text(json.dumps(configuration.to_dict(own)))
    assert resume() == own
    assert resume("--set", "train.epochs=9").train.epochs == 9
    assert resume("n", "--data", str(drawn)).augment.mosaic == configuration.load("n").augment.mosaic
    before = configuration.to_dict(own)
    configuration.gone_on_with(before, settings(drawn / "elsewhere", "train.learning_rate=1e-3"), "there")
    told = capsys.readouterr().err
    assert told.count("note:") == 1 and "augment.mosaic is now 0.42, and was 0.1" in told
    with refused(BadInput, where="train.optimizer", names=["'adam'", "adamw"]):
        configuration.gone_on_with(before, settings(drawn, "train.optimizer=adam"), "there")


def test_more_threads_give_the_same_batches_in_the_same_order(drawn, tmp_path, monkeypatch):
    run = train.Run(settings(drawn, "train.batch_size=1", "train.images_per_epoch=30"), tmp_path)
    batches = dataset.Batches(run.pool, run.config, 0, 30)
    seen = {}

    def learn(x, y, **_):
        seen.setdefault(train.PREPARING, []).append((x.copy(), y["boxes"].copy()))
        return {"cls_loss": 0.0, "box_loss": 0.0}

    monkeypatch.setattr(run.learner, "train_on_batch", learn)
    for threads in (1, 4):
        monkeypatch.setattr(train, "PREPARING", threads)
        run.epoch(batches, keras.callbacks.CallbackList([]), "")
    for one, other in zip(seen[1], seen[4], strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(seen[1]) == 30


def test_two_trainings_in_one_folder_are_refused(drawn, tmp_path):
    with files.lock(tmp_path / "train.lock"), refused(JetmaskError, where="train.lock"):
        train.fit(settings(drawn), tmp_path)


def test_a_training_without_any_face_is_told(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "data")
    path = tmp_path / "data" / "train" / "annotations.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    with refused(BadInput, where="data", names="1 px"):
        train.Run(settings(tmp_path / "data"), tmp_path)


def test_a_model_of_another_kind_and_a_broken_checkpoint_are_told(drawn, tmp_path):
    image = keras.Input((None, None, 3))
    keras.Model(image, keras.layers.Conv2D(3, 1, name="other")(image)).save(tmp_path / "other.keras")
    with refused(BadInput, where="other.keras", names=["cls_4", "box_32"]):
        train.Run(settings(drawn, f"model.init={tmp_path / 'other.keras'}"), tmp_path)
    run = train.Run(settings(drawn), tmp_path)
    run.save(1)
    whole = (tmp_path / "checkpoint.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255
    for content in (b"", b"hello" * 100, whole[: len(whole) // 2], whole[:-1], bytes(flipped)):
        (tmp_path / "checkpoint.npz").write_bytes(content)
        with refused(BadInput, where="checkpoint.npz"):
            run.resume()


@pytest.mark.parametrize(
    "figures, best, stopped",
    [
        ([None, None, None], 0, False),
        ([1, None, None, 0.5], 1, True),
        ([1, 2], 2, False),
        ([2, 1, 1], 1, True),
        ([], 0, False),
        ([None, None, None, 1], 4, False),
        ([2, 1, None], 1, False),
    ],
)
def test_early_stop_waits_for_validations(drawn, figures, best, stopped):
    """An end before the first validation would leave no best model at all."""
    rows = [{"epoch": i, "map50": figure} for i, figure in enumerate(figures, 1)]
    run = SimpleNamespace(config=settings(drawn, "train.early_stop_epochs=2"), rows=rows, best_epoch=best)
    assert train.Run.stopped_early(run) is stopped


def test_no_data_is_one_clear_message(tmp_path):
    missing = run(tmp_path / "nowhere", tmp_path / "out")
    assert missing.returncode == 3 and "nowhere" in missing.stderr and "Traceback" not in missing.stderr


@pytest.mark.slow
def test_a_teacher_adds_the_distance_to_its_answers(drawn, tmp_path):
    """Nothing to the teacher itself, in proportion to the weight to another; training leaves the teacher as it was."""
    teacher, path = train.Run(settings(drawn, "train.seed=7"), tmp_path), tmp_path / "teacher.keras"
    teacher.save_model(path.name)
    x, y = dataset.Batches(teacher.pool, teacher.config, 0, teacher.steps, False)[0]

    def begun(weight, *more):
        taught = f"model.teacher={path}", f"model.teacher_weight={weight:g}"
        return train.Run(settings(drawn, *taught, *more), tmp_path)

    def losses(run):
        """The loss with no, one and three times the distance to the teacher."""
        answer = run.net(x, training=False)
        found = []
        for run.learner.weight in (0, 1, 3):
            found.append(float(run.learner.compute_loss(x, y, answer)))
        return found

    none, _, thrice = losses(begun(1, f"model.init={path}"))
    assert abs(thrice - none) < 1e-5
    run = begun(3)
    assert run.learner.weight == 3
    none, once, thrice = losses(run)
    assert once - none > 1e-3
    np.testing.assert_allclose(thrice - none, 3 * (once - none), rtol=1e-3)
    run = begun(1, "train.epochs=1", "train.sizes=[[64, 1]]")  # each size is traced: seconds
    before = run.learner.teacher.get_weights()
    run.fit()
    for value, wanted in zip(run.learner.teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, wanted)
    for value, wanted in zip(run.learner.teacher(x, training=False), load(path)(x, training=False), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-3, atol=1e-4)


def test_shipped_weights_go_by_their_name_and_a_file_goes_first(drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = settings(drawn, "model.init=s")
    assert train.Run(config, tmp_path / "a").net.count_params() == load(configuration.weights("s")).count_params()
    (tmp_path / "s").write_text("mine")
    assert configuration.weights("s") == "s"
    for key in ("init", "teacher"):
        with refused(BadInput, where="nowhere.keras"):
            train.Run(settings(drawn, f"model.{key}=nowhere.keras"), tmp_path / "b")


@pytest.mark.slow
def test_a_plateau_is_counted_across_an_interruption(drawn, tmp_path, monkeypatch):
    """Three validations without a better figure lower the rate, wherever in them the training was stopped."""
    figures = iter([])
    judged = lambda *_: validation.Judged({"map50": next(figures), "per_class": {}}, [])  # noqa: E731
    monkeypatch.setattr(validation.Judge, "judge", judged)
    monkeypatch.setattr(train.Run, "samples", lambda *_: [])
    monkeypatch.setattr(train.Learner, "train_on_batch", lambda *_, **words: {"cls_loss": 1.0, "box_loss": 1.0})
    config = settings(
        drawn, "train.schedule=plateau", "train.epochs=6", "train.images_per_epoch=4", "train.sizes=[[64, 1]]"
    )

    def stop(epoch, row):
        if epoch == stop_at:
            raise KeyboardInterrupt

    rates = []
    for stop_at in (0, 3, 4):
        figures = iter([1.0, 2.0, 1.0, 1.0, 1.0, 1.0])
        folder = tmp_path / str(stop_at)
        if stop_at:
            with pytest.raises(KeyboardInterrupt):
                train.fit(config, folder, report=stop)
        rows = train.fit(config, folder, resume=bool(stop_at))["rows"]
        rates.append([row["learning_rate"] for row in rows])
    np.testing.assert_allclose(rates[0], [2e-3] * 5 + [6e-4], rtol=1e-5)
    np.testing.assert_allclose(rates[1:], [rates[0]] * 2)


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def fit(config, out, resume, output):
        (tmp_path / "checkpoint.npz").write_bytes(b"an epoch")
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr("sys.argv", ["jetmask", "train", "s", "--data", "anywhere", "--out", str(tmp_path)])
    assert host.main() == 130
    assert "--resume" in capsys.readouterr().err


@pytest.mark.slow
def test_a_pruned_network_s_shape_is_trained_from_random_weights(drawn, tmp_path):
    """The control of a pruning: its shape, and nothing of its weights."""
    keras.utils.set_random_seed(99)  # not the training's own
    whole = build("n")
    plan = pruner.plan_uniform(whole, 0.5, "l1")
    save(pruner.prune(whole, plan), tmp_path / "half.keras")
    half = load(tmp_path / "half.keras")
    new = train.Run(settings(drawn, f"model.size={tmp_path / 'half.keras'}"), tmp_path).net
    assert [w.shape for w in new.weights] == [w.shape for w in half.weights]
    kernels = [(a, b) for a, b in zip(new.get_weights(), half.get_weights()) if a.ndim == 4]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in kernels)
    # Begun as the family's own are: the prior of a face at a cell is a hundredth.
    np.testing.assert_array_equal(new.get_layer("cls_4").bias, build("n").get_layer("cls_4").bias)


def test_a_plateau_checkpoint_of_an_older_version_counts_anew(drawn, tmp_path):
    run = train.Run(settings(drawn, "train.schedule=plateau"), tmp_path)
    run.save(1)
    with np.load(tmp_path / "checkpoint.npz") as stored:
        arrays = dict(stored)
    state = json.loads(bytes(arrays["state"]))
    del state["plateau"]
    np.savez(tmp_path / "checkpoint.npz", **{**arrays, "state": np.frombuffer(json.dumps(state).encode(), np.uint8)})
    run.resume()
    assert run.done == 1 and run.plateau.before == {}
