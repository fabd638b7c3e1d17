"""What a training tells and leaves: lines, TensorBoard's events, callbacks' logs, the schedule, the reference."""

import csv
import importlib.util
import io
import json
import re
import struct
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from jetson import cli as cli_frame
from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.cli import parser_for
from jetson.errors import BadInput, UsageError
from jetson.inference.detector import Faces
from pipeline import config as configuration
from pipeline.cli import VERBS
from pipeline.models.detector import build, save
from pipeline.training import board, cli, progress, recipe, train

ROOT = Path(__file__).resolve().parents[3]
FACTS = progress.Facts(
    folder="runs/x",
    data="data/x",
    photographs={"training": 45, "val": 15},
    boxes={"training": {"helmet": 80, "head": 9}, "val": {"helmet": 30, "head": 0}},
    classes=Classes(("helmet", "head"), ("ok", "alert")),
    start="the shipped weights s; new class heads for helmet, head",
    epochs=12,
    steps=47,
    images=3984,
    optimizer="adamw",
    learning_rate=0.0003,
    done=0,
    before=86.4,
    bounds=(71.7, 100.0),
)
ROW = {
    "epoch": 3,
    "minutes": 1.0,
    "cls_loss": 0.5,
    "box_loss": 0.25,
    "map50": 61.25,
    "val_loss": 1.0,
    "ap_helmet": 80.0,
    "ap_head": None,
}


def split(folder, count, names=MASK_CLASSES.names, seed=0, boxes=True):
    """A split folder of coloured squares, of the first two classes in turn."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for i in range(count):
        image = rng.integers(0, 80, (96, 96, 3), np.uint8)
        x, y, side = (int(v) for v in rng.integers(20, 40, 3))
        image[y : y + side, x : x + side] = (0, 200, 0) if i % 2 else (0, 0, 200)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        images.append({"id": i, "file_name": f"images/{i}.png", "width": 96, "height": 96})
        if boxes:
            annotations.append({"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [x, y, side, side]})
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short training from a model of its own: folder, result, what a callback saw, what was told."""
    top = tmp_path_factory.mktemp("outputs")
    split(top / "data" / "train", 6)
    split(top / "data" / "val", 4, seed=1)
    save(build("n"), top / "start.keras")
    overrides = [
        f"data.root={top / 'data'}",
        f"model.init={top / 'start.keras'}",
        "train.epochs=2",
        "train.images_per_epoch=800",
        "train.batch_size=1",
        "train.sizes=[[64, 1]]",
        "train.val_wh=[96, 96]",
    ]
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(dict(logs or {}))

    run = train.Run(
        configuration.load(None, overrides), top, callbacks=[Watch()], told=progress.JsonLines(told := io.StringIO())
    )
    result = run.fit()
    return top, result, seen, [json.loads(line) for line in told.getvalue().splitlines()]


@pytest.mark.slow
def test_tensorboard_holds_losses_rate_ap_per_class_and_pictures(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    top, result, _, _ = trained
    events = EventAccumulator(str(top / "logs"), size_guidance={"tensors": 0, "images": 0}).Reload()
    tags = set(events.Tags()["tensors"]) | set(events.Tags()["scalars"]) | set(events.Tags()["images"])
    wanted = {"loss/class", "loss/box", "learning_rate", "val/mAP50", "val/loss", "val/recall", "step/cls_loss"}
    wanted |= {"AP/with_mask", "AP/without_mask", "val/0"}
    assert wanted <= tags, sorted(wanted - tags)

    def values(tag):
        if tag in events.Tags()["scalars"]:
            return [(e.step, e.value) for e in events.Scalars(tag)]
        return [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]

    np.testing.assert_allclose(values("loss/class"), [(r["epoch"], r["cls_loss"]) for r in result["rows"]], rtol=1e-5)
    np.testing.assert_allclose(values("val/mAP50"), [(r["epoch"], r["map50"]) for r in result["rows"]], rtol=1e-5)


def test_callbacks_and_the_log_have_the_figures_of_the_epoch(trained):
    top, result, seen, _ = trained
    assert len(seen) == 2
    with open(top / "log.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    for logs, row, told in zip(seen, rows, result["rows"], strict=True):
        assert {"cls_loss", "box_loss", "learning_rate", "val_map50", "val_loss", "val_recall"} <= set(logs)
        assert logs["val_map50"] == told["map50"] == pytest.approx(float(row["map50"]))
        assert logs["val_ap_with_mask"] == told["ap_with_mask"]
        assert row["ap_mask_worn_incorrect"] == "" and float(row["val_loss"]) > 0 and 0 <= float(row["recall"]) <= 1


def test_the_weights_that_it_starts_from_are_the_best_until_an_epoch_is_better(trained):
    top, result, _, told = trained
    assert (top / "best.keras").exists() and result["map50"] >= result["map50_before"]
    assert told[0]["before"] == result["map50_before"] and told[0]["boxes"]["val"]["with_mask"] == 2
    assert [line["event"] for line in told] == ["start", "left", "epoch", "epoch"] + ["end"]


def test_first_lines_say_what_there_is_where_it_starts_and_what_makes_it_unsure():
    text = "\n".join(progress.summary(FACTS))
    for words in (
        "45 in training, 15 in val",
        "new class heads",
        "86.4 (95 % bounds 71.7 to 100.0)",
        "12 epochs of 47 steps",
        "runs/x",
        "note: only 9 boxes of head to train on",
        "note: no box of head in val: its AP cannot be measured",
        "±14 points",
    ):
        assert words in text, words
    assert not progress.warnings(
        FACTS._replace(
            boxes={"training": {"helmet": 80, "head": 90}, "val": {"helmet": 30, "head": 30}}, bounds=(80.0, 86.0)
        )
    )


def test_one_line_an_epoch_and_no_bar_where_there_is_no_terminal():
    out = io.StringIO()
    words = progress.Words(out)
    words.begin(FACTS)
    words.epoch_begins("epoch 3/12", 47)
    words.step({"cls_loss": 1.0, "box_loss": 1.0})
    words.left(754)
    words.epoch(ROW, 61.25, 3, 60)
    words.epoch(ROW | {"map50": None}, 61.25, 3, 60)
    lines = out.getvalue().splitlines()[-3:]
    assert lines[0] == "about 12 min 34 s left for the whole training"
    assert lines[1].startswith("epoch  3/12  class loss 0.500, box loss 0.250  mAP50 61.2 (helmet 80.0)  best")
    assert "mAP50" not in lines[2] and "\r" not in out.getvalue()
    text = progress.epoch_line(ROW, FACTS, 70.0, 0, 5)
    assert "best 70.0 of the start" in text


def test_the_time_that_is_left_counts_steps_and_validations(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    clock = progress.Clock(100, 2)
    told = []
    for step in range(50):
        now[0] += 30.0 if step < 3 else 2.0  # the first steps trace the network
        told.append(clock.step_done())
    assert told.index(True) == progress.STEPS_BEFORE_ESTIMATE - 1 and sum(told) == 1
    assert clock.left() == pytest.approx(50 * 2.0)
    now[0] += 10
    clock.validated(10.0)
    assert clock.left() == pytest.approx(50 * 2.0 + 10.0)


def test_the_schedule_grows_with_the_photographs_and_what_must_be_learnt():
    few, many = recipe.schedule(45), recipe.schedule(4500)

    def images(part):
        return part.epochs * part.images_per_epoch

    assert images(few) < images(many) < 264_000
    assert images(recipe.schedule(45, new_classes=True)) == pytest.approx(2 * images(few), rel=0.02)
    assert images(recipe.schedule(45, from_scratch=True)) == pytest.approx(8 * images(few), rel=0.02)
    assert few.learning_rate < recipe.schedule(45, new_classes=True).learning_rate < configuration.Train().learning_rate
    assert images(recipe.schedule(0)) >= recipe.LEAST - 12


@pytest.mark.parametrize(
    "sets, scratch, init",
    [
        ([], False, "s"),
        (["model.size=n"], False, "n"),
        (["model.size=m"], False, "m"),
        (["model.size=mobilenetv2"], False, ""),
        (["model.init=sp"], False, "sp"),
        ([], True, ""),
    ],
)
def test_without_a_preset_it_starts_from_what_ships(tmp_path, sets, scratch, init):
    split(tmp_path / "train", 2)
    split(tmp_path / "val", 2)
    found = recipe.config([*sets, "train.epochs=7"], str(tmp_path), scratch)
    assert found.model.init == init and found.train.epochs == 7
    assert found.train.batch_size == 8


def test_data_that_is_not_there_is_told_with_the_way_to_it(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(BadInput) as told:
        recipe.config([], str(tmp_path))
    assert "jetmask data import" in told.value.remedy


def test_from_scratch_goes_with_no_weights(tmp_path):
    parser = parser_for("train", "jetmask", VERBS)
    for words in (["--from-scratch", "--resume"], ["--from-scratch", "--set", "model.init=s"]):
        with pytest.raises(UsageError):
            cli.settings(parser.parse_args([*words, "--out", str(tmp_path)]))
    asked = cli.settings(parser.parse_args(["sp", "--from-scratch"]))
    assert asked.config.model.init == "" and asked.output == "words"
    quiet = cli_frame.parser_for("train", "jetmask", {"train": ("pipeline.training.cli", "")}).parse_args(["-q"])
    assert cli.settings(quiet).output == "quiet"
    assert "247 M" in cli.presets()


def test_a_drawn_sample_has_labels_in_white_and_finds_in_their_colour():
    frame = np.zeros((240, 240, 3), np.uint8)
    faces = Faces(np.array([[100, 100, 160, 160]], np.float32), np.array([[0, 0.9, 0]], np.float32))
    image = board.drawn(frame, np.array([[20, 20, 60, 60]]), faces, MASK_CLASSES)
    assert image.shape == (480, 480, 3) and image[40:120, 38:41].max() > 200
    assert np.abs(image[200, 260].astype(int) - MASK_CLASSES.colours()[1]).max() < 60


def reference():
    spec = importlib.util.spec_from_file_location("config_reference", ROOT / "docs" / "config_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_config_reference_is_that_of_the_code():
    made = reference()
    assert made.TARGET.read_text(encoding="utf-8") == made.markdown(), "python docs/config_reference.py"
    assert all(text for _, _, text in made.entries()), [key for key, _, text in made.entries() if not text]
    assert len(made.entries()) == sum(
        len(section) for section in configuration.to_dict(configuration.Config()).values()
    )


@pytest.mark.parametrize(
    "given, what_to_do",
    [
        ("parts/train", "--data {top}/parts"),
        ("all", "jetmask data split {top}/all"),
        ("labels", "jetmask data import"),
        ("nowhere", "check the path"),
    ],
)
def test_a_folder_that_is_not_split_is_told_what_it_lacks(given, what_to_do, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split(tmp_path / "parts" / "train", 1)
    split(tmp_path / "parts" / "val", 1)
    split(tmp_path / "all", 1)
    (tmp_path / "labels").mkdir()
    with pytest.raises(BadInput) as told:
        recipe.config([], str(tmp_path / given))
    assert what_to_do.format(top=tmp_path) in told.value.remedy
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("package, name", [("mlflow", "MLflow"), ("wandb", "WandB")])
def test_the_callback_of_the_guide_works_with_the_package(package, name, trained, tmp_path, monkeypatch):
    """The real package (the extra `track`) keeps each figure of a training, for classes of any name."""
    module = pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    block = next(
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "train.md").read_text(), re.DOTALL)
        if f"class {name}" in block
    )
    epochs = [{**logs, "val_ap_kein Helm (?) 头盔": 10.0 + number} for number, logs in enumerate(trained[2])]

    class jetmask:
        @staticmethod
        def train(data, out, callbacks):
            for epoch, logs in enumerate(epochs):
                for callback in callbacks:
                    callback.on_epoch_end(epoch, logs)

    exec(compile(block, "docs/train.md", "exec"), {"jetmask": jetmask})
    kept = _of_mlflow(module) if package == "mlflow" else _of_wandb(tmp_path)
    names = {key: re.sub(r"[^\w./-]", "_", key) if package == "mlflow" else key for key in epochs[0]}
    for step, logs in enumerate(epochs, 1):
        for key, value in logs.items():
            assert kept[names[key], step] == pytest.approx(value), key


def _of_mlflow(mlflow):
    """(metric, step) to value, through its own client."""
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return {
        (key, metric.step): metric.value
        for key in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, key)
    }


def _of_wandb(folder):
    """(metric, step) to value, from the file that `wandb sync` sends: records in the layout of LevelDB's log (blocks of
    32 KiB; a head of checksum, length and kind before each piece) behind seven bytes that name it."""
    from wandb.proto import wandb_internal_pb2

    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    data, at, whole, kept = path.read_bytes(), 7, b"", {}
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of it, or its last piece
            record = wandb_internal_pb2.Record.FromString(whole)
            row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            kept.update({(key, int(row["_step"])): json.loads(value) for key, value in row.items()})
            whole = b""
    return kept
