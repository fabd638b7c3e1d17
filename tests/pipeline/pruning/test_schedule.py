"""`jetmask prune` from outside, on drawn squares; distillation and magnitude pruning."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import keras
import numpy as np
import pytest
from refusals import refused

from benchmarks import magnitude
from jetson import files
from jetson.errors import BadInput, UsageError
from pipeline import config as configuration
from pipeline.models import detector as models
from pipeline.pruning import cli as prune_cli
from pipeline.pruning import cost
from pipeline.pruning.plot import plot_scan
from pipeline.pruning.pruner import Plan, channel_groups, prune
from pipeline.pruning.schedule import Pruning, Settings
from pipeline.report import folders
from pipeline.training import distillation

TINY = models.Architecture(8, ((8, 1),) * 4, (8,) * 4, ((8,),) * 4)
SETTINGS = [
    "train.images_per_epoch=4",
    "train.batch_size=4",
    "train.warmup_steps=1",
    "train.sizes=[[64, 1.0]]",
    "train.val_wh=[64, 64]",
    "train.closing_epochs=0",
    "data.train=[train]",
]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two splits of coloured squares on noise."""
    top = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(1)
    for split in ("train", "val"):
        (top / split / "images").mkdir(parents=True)
        images, annotations = [], []
        for i in range(4):
            image = rng.integers(0, 80, (64, 64, 3), np.uint8)
            x, y, side = (int(v) for v in rng.integers(12, 30, 3))
            image[y : y + side, x : x + side] = (0, 200, 0) if i % 2 else (0, 0, 200)
            cv2.imwrite(str(top / split / "images" / (f"{i}.png")), image)
            images.append({"id": i, "file_name": f"images/{i}.png", "width": 64, "height": 64})
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
        files.write_json(
            str(top / split / "annotations.json"),
            {"images": images, "annotations": annotations, "categories": categories},
        )
    return top


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    keras.utils.set_random_seed(3)
    models.build(TINY).save(path)
    return path


def pruning(trained, folder, drawn, epochs=0, say=lambda text: None, **settings):
    config = configuration.load(None, [*prune_cli.TUNE, *SETTINGS, f"train.epochs={epochs}"])
    config.data.root = str(drawn)
    return Pruning(trained, folder, config, Settings(multiple_of=2, input_wh=(64, 64), **settings), say=say)


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_rounds_interrupted_and_started_again_give_the_same_plan(trained, drawn, tmp_path):
    whole = pruning(trained, tmp_path / "whole", drawn).rounds(0.4, 2)

    def stop(text):
        if text.startswith("round 2"):
            raise Stopped

    with pytest.raises(Stopped):
        pruning(trained, tmp_path / "broken", drawn, say=stop).rounds(0.4, 2)
    broken = pruning(trained, tmp_path / "broken", drawn).rounds(0.4, 2)
    plans = [files.read_json(r["plan"]) for r in (whole, broken)]
    assert plans[0] == plans[1] and broken["macs"] == whole["macs"] and broken["macs_share"] <= 0.4
    # The rounds' plans together, on the original, give the network that the rounds ended with.
    at_once = prune(models.load(str(trained)), Plan.from_dict(plans[0]))
    x = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    for a, b in zip(at_once(x), models.load(broken["model"])(x)):
        assert np.array_equal(a, b)
    with refused(UsageError, where="wanted.json", names="--out"):
        pruning(trained, tmp_path / "broken", drawn).rounds(0.5, 2)
    with refused(UsageError, where="settings.json", names="--out"):
        pruning(trained, tmp_path / "broken", drawn, importance="l2").rounds(0.4, 2)


def test_scan_is_cached_and_drawn(trained, drawn, tmp_path):
    run = pruning(trained, tmp_path / "scan", drawn)
    before = run.original.get_weights()
    found = run.scan((0.5,))
    prunable = [g.name for g in channel_groups(run.original) if not g.fixed]
    assert list(found["groups"]) == prunable and all(set(row) == {"0.5"} for row in found["groups"].values())
    assert all(np.array_equal(a, b) for a, b in zip(before, run.original.get_weights()))
    # A second scan asks only for what is not there yet.
    found["groups"]["stem"]["0.5"] = 12.25
    files.write_json(str(tmp_path / "scan" / "scan.json"), found)
    assert pruning(trained, tmp_path / "scan", drawn).scan((0.5,))["groups"]["stem"]["0.5"] == 12.25
    plot_scan(found, tmp_path / "scan.svg")
    assert (tmp_path / "scan.svg").read_text().rstrip().endswith("</svg>")


@pytest.mark.full
def test_gate_by_bisection_with_a_teacher(trained, drawn, tmp_path):
    """Two probes, fine-tuned with distillation, importance from gradients: the second is half-way from the first."""
    run = pruning(trained, tmp_path / "gate", drawn, epochs=1, importance="taylor", distill=1.0)
    result = run.gate(100.0, probes=2)
    folders = sorted(p.name for p in (tmp_path / "gate").glob("share-*"))
    least = run._least()
    shares = [float(name.split("-")[1]) for name in folders]
    assert shares == pytest.approx(sorted([(1 + least) / 2, (1 + 3 * least) / 4]), abs=2e-4)
    assert result["macs_share"] <= shares[0] and result["change"]["images"] == 4
    assert result["map50_before"] is not None
    models.load(result["model"])


@pytest.mark.full
def test_a_gate_that_was_stopped_goes_on_with_its_probes(trained, drawn, tmp_path):
    whole = pruning(trained, tmp_path / "whole", drawn, epochs=1).gate(100.0, probes=2)

    def stop(text):
        if text.startswith("probe 2"):
            raise Stopped

    with pytest.raises(Stopped):
        pruning(trained, tmp_path / "broken", drawn, epochs=1, say=stop).gate(100.0, probes=2)
    first = next((tmp_path / "broken").glob("share-*/result.json"))
    made = first.stat().st_mtime_ns
    broken = pruning(trained, tmp_path / "broken", drawn, epochs=1).gate(100.0, probes=2)
    assert first.stat().st_mtime_ns == made
    assert files.read_json(broken["plan"]) == files.read_json(whole["plan"])
    assert broken["macs"] == whole["macs"]


def test_distance_to_a_teacher_is_nothing_for_equal_answers():
    rng = np.random.default_rng(2)
    maps = [rng.normal(-2, 2, (2, 4, 4, c)).astype(np.float32) for _ in models.STRIDES for c in (3, 4)]
    assert float(distillation.distance(maps, maps)) == pytest.approx(0, abs=1e-6)
    near, far = ([m + scale * rng.normal(0, 1, m.shape).astype(np.float32) for m in maps] for scale in (0.1, 1.0))
    assert 0 < float(distillation.distance(near, maps)) < float(distillation.distance(far, maps))


def test_magnitude_pruning_reaches_its_sparsity_and_stays_there(tmp_path):
    image = keras.Input((8, 8, 3))
    net = keras.Model(image, keras.layers.Conv2D(2, 3, name="b")(keras.layers.Conv2D(16, 3, name="a")(image)))
    net.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    callback = magnitude.PolynomialSparsity(net, 0.75, begin=2, end=8, every=2)
    assert [callback.sparsity(s) for s in (0, 2, 8, 100)] == [0, 0, 0.75, 0.75]
    assert callback.sparsity(5) == pytest.approx(0.75 - 0.75 * 0.125)
    rng = np.random.default_rng(0)
    net.fit(rng.random((12, 8, 8, 3)), rng.random((12, 4, 4, 2)), batch_size=1, verbose=0, callbacks=[callback])
    assert magnitude.share_of_zeros(net) == pytest.approx(0.75, abs=0.01)
    assert all(np.asarray(v).all() for v in net.trainable_variables if v.name == "bias")
    other = keras.models.clone_model(net)
    for model, name in ((net, "sparse"), (other, "dense")):
        np.concatenate([w.reshape(-1) for w in model.get_weights()]).tofile(tmp_path / name)
    assert magnitude.compressed_bytes(tmp_path / "sparse") < 0.6 * magnitude.compressed_bytes(tmp_path / "dense")
    magnitude.sparsify(other, 0.5)
    assert magnitude.share_of_zeros(other) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(UsageError):
        magnitude.PolynomialSparsity(net, 1.5, 0, 10)


def test_a_sparsity_is_reached_where_keras_tells_only_some_of_the_steps():
    image = keras.Input((8,))
    net = keras.Model(image, keras.layers.Dense(32)(image))
    net.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False, steps_per_execution=7)
    callback = magnitude.PolynomialSparsity(net, 0.75, begin=2, end=50, every=20)
    net.fit(np.ones((105, 8)), np.ones((105, 32)), batch_size=1, verbose=0, callbacks=[callback])
    assert magnitude.share_of_zeros(net) == pytest.approx(0.75, abs=0.01)


def three(path, width=64):
    """A model of three equal convolutions as a file."""
    image = x = keras.Input((8, 8, 3))
    for number in range(3):
        x = keras.layers.Conv2D(width, 3, padding="same", name=f"c{number}")(x)
    keras.Model(image, keras.layers.Conv2D(2, 1)(x)).save(path)
    return path


def bare(path, folder, **settings):
    """A pruning without data or fine-tuning."""
    return Pruning(path, folder, configuration.load(None, ["train.epochs=0"]), Settings(**settings))


def test_the_floor_is_a_share_of_the_whole_in_every_round(tmp_path):
    path = three(tmp_path / "three.keras")
    settings = {"floor": 0.5, "multiple_of": 2, "input_wh": (8, 8)}
    result = bare(path, tmp_path / "run", **settings).rounds(0.35, 3)
    plan = Plan.from_dict(files.read_json(result["plan"]))
    assert plan.sizes == {"c0": 64, "c1": 64, "c2": 64} and min(len(v) for v in plan.kept.values()) >= 32
    with refused(UsageError, where="a share of 0.571469", names="multiple_of"):
        bare(path, tmp_path / "other", **settings).rounds(0.1, 4)


def test_a_start_that_fails_leaves_the_folder_free(tmp_path):
    path = three(tmp_path / "three.keras")
    for _ in range(2):
        with refused(UsageError, where="a share of 0.05", names="multiple_of"):
            bare(path, tmp_path / "run", floor=0.5, input_wh=(8, 8)).rounds(0.05)
    bare(path, tmp_path / "run", floor=0.1, input_wh=(8, 8)).rounds(0.2)
    with refused(UsageError, where="settings.json", names="--out"):
        bare(path, tmp_path / "run", floor=0.2, input_wh=(8, 8))
    with refused(UsageError, where="wanted.json", names="--out"):
        bare(path, tmp_path / "run", floor=0.1, input_wh=(8, 8)).uniform(0.5)


def test_of_two_that_start_at_once_the_later_is_refused(tmp_path):
    path = three(tmp_path / "three.keras")
    first, second = (bare(path, tmp_path / "run", multiple_of=n, input_wh=(8, 8)) for n in (8, 16))
    first.uniform(0.5)
    with refused(UsageError, where="settings.json", names="--out"):
        second.uniform(0.5)


def test_a_start_without_photographs_leaves_the_folder_free(tmp_path, monkeypatch):
    monkeypatch.delenv("JETMASK_DATA", raising=False)
    config = configuration.load(None, ["train.epochs=1"])
    with refused(UsageError, where="data.root", names=["--data", "--epochs 0", "--importance"]):
        Pruning(configuration.WEIGHTS / "n.keras", tmp_path / "run", config, Settings(input_wh=(64, 64))).uniform(0.5)
    assert not list((tmp_path / "run").iterdir())


def test_nothing_to_remove_is_no_success(trained, drawn, tmp_path):
    path = three(tmp_path / "three.keras", 8)
    with refused(UsageError, where="three.keras", names=["--multiple-of", "--floor"]):
        bare(path, tmp_path / "run").uniform(0.5)
    with refused(UsageError, where="three.keras", names="--ratio 0.05"):
        bare(path, tmp_path / "run", multiple_of=1).uniform(0.05)
    whole = pruning(trained, tmp_path / "gate", drawn, epochs=1, floor=1.0)
    with refused(UsageError, where="tiny.keras", names=["--multiple-of", "--floor"]):
        whole.gate(1.0)


def test_a_folder_belongs_to_its_photographs_but_not_to_where_they_lie(trained, drawn, tmp_path):
    pruning(trained, tmp_path / "run", drawn).rounds(0.6)
    moved = configuration.load(None, [*prune_cli.TUNE, *SETTINGS, "train.epochs=0"])
    settings = Settings(multiple_of=2, input_wh=(64, 64))
    Pruning(trained, tmp_path / "run", moved, settings)
    moved.data.val = "test"
    with refused(UsageError, where="settings.json", names="--out"):
        Pruning(trained, tmp_path / "run", moved, settings)


def test_a_step_s_result_that_was_edited_is_told(trained, drawn, tmp_path):
    pruning(trained, tmp_path / "run", drawn).rounds(0.6)
    (tmp_path / "run" / "round-1" / "result.json").write_text("{}")
    with refused(BadInput, where="result.json"):
        pruning(trained, tmp_path / "run", drawn).rounds(0.6)


def test_a_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    model = models.build(TINY)

    def full(path):
        with open(path, "wb") as file:
            file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save", full)
    with pytest.raises(OSError, match="space"):
        models.save(model, tmp_path / "a.keras")
    assert not list(tmp_path.iterdir())


def command(*arguments):
    return [sys.executable, "-m", "pipeline.cli", "prune", *map(str, arguments)]


# With one thread sums have one order; with more, two runs of the same training differ in the last digits.
ENVIRONMENT = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
ENVIRONMENT.pop("JETMASK_DATA", None)


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600, env=ENVIRONMENT)


@pytest.mark.parametrize("by_file", [False, True])
def test_the_verb_prunes_any_keras_model_without_data(tmp_path, by_file):
    image = keras.Input((32, 32, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(16, 3, strides=8, activation="relu", name="wide")(image))
    keras.Model(image, keras.layers.Dense(4)(x)).save(tmp_path / "mine.keras")
    (tmp_path / "tuning.yaml").write_text("train: {epochs: 0}\n")
    no_epochs = ["--config", tmp_path / "tuning.yaml"] if by_file else ["--epochs", "0"]
    done = run("--model", tmp_path / "mine.keras", "--out", tmp_path / "out", "--ratio", "0.5", *no_epochs, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    smaller = models.load(result["model"])
    assert smaller.get_layer("wide").filters == 8 and 0.49 < result["macs_share"] < 0.51
    report = folders.read(tmp_path / "out", "pruning")
    assert report["pruning"]["after"] == {"macs": result["macs"]} and report["config"] == {}
    assert "--data DIR" in report["warnings"][0] and "map50" not in report["pruning"]["before"]


@pytest.mark.parametrize(
    "arguments,word",
    [
        (["--ratio", "1.5"], "--ratio"),
        (["--macs-ratio", "0"], "--macs-ratio"),
        (["--ratio", "0.5", "--rounds", "2"], "--rounds"),
        (["--ratio", "0.5", "--save", "latency"], "--save"),
        (["--ratio", "0.5", "--precision", "fp61"], "--precision"),
        (["--ratio", "0.5", "--target", "nanno"], "nanno"),
        (["--max-drop", "nan"], "--max-drop"),
    ],
)
def test_a_wrong_number_is_a_usage_error(arguments, word):
    import argparse

    parser = argparse.ArgumentParser()
    prune_cli.options(parser)
    with refused(UsageError, names=word):
        prune_cli.command(parser.parse_args(["--model", "x", "--out", "y", *arguments]))


def test_a_file_that_is_no_model_says_what_is_wrong_with_it(tmp_path):
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Lambda(lambda x: 2 * x)(image)).save(tmp_path / "own.keras")
    whole = (tmp_path / "own.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    for name, word in (("none.keras", ()), ("cut.keras", "model.save"), ("own.keras", "pruner.prune")):
        with refused(BadInput, where=name, names=word):
            models.load(str(tmp_path / name))


def test_a_model_without_a_channel_to_remove_is_told_why(tmp_path):
    """It would be written as it is, with nothing but the numbers to tell."""
    words = keras.Input((32,))
    x = keras.layers.LSTM(16, name="memory")(keras.layers.Embedding(10, 16)(words))
    keras.Model(words, keras.layers.Dense(2)(x)).save(tmp_path / "lstm.keras")
    config = configuration.load(None, ["train.epochs=0"])
    with refused(UsageError, where="lstm.keras", names=["'embedding'", "'memory'"]):
        Pruning(tmp_path / "lstm.keras", tmp_path / "out", config).uniform(0.5)
    assert not (tmp_path / "out" / "best.keras").exists()


def test_a_cost_that_cannot_be_known_names_the_layer():
    image = keras.Input((8, 8, 3))
    x = keras.layers.EinsumDense("abcd,de->abce", (None, None, 6), name="open")(image)
    model = keras.Model(image, keras.layers.Conv2D(4, 3, name="after")(x))
    with refused(UsageError, where="layer 'after'"):
        cost.Macs(model, (8, 8))


@pytest.mark.full
def test_killed_and_started_again_ends_with_the_same_plan(trained, drawn, tmp_path):
    line = [
        "--model",
        trained,
        "--data",
        drawn,
        "--macs-ratio",
        "0.4",
        "--rounds",
        "2",
        "--epochs",
        "2",
        "--multiple-of",
        "2",
        "--input-wh",
        "64x64",
        "--json",
    ]
    for setting in SETTINGS:
        line += ["--set", setting]
    whole = run(*line, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    signs = ("round-1/train/checkpoint.npz", "round-2/plan.json", "round-2/train/checkpoint.npz")
    for number, sign in enumerate(signs):
        folder = tmp_path / (f"broken-{number}")
        process = subprocess.Popen(
            command(*line, "--out", folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
        )
        deadline = time.time() + 300
        while not (folder / sign).exists() and process.poll() is None and time.time() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        again = run(*line, "--out", folder)
        assert again.returncode == 0, again.stderr
        assert (folder / "plan.json").read_bytes() == (tmp_path / "whole" / "plan.json").read_bytes()
        ours, theirs = (json.loads(r.stdout) for r in (again, whole))
        assert ours["map50"] == theirs["map50"] and ours["macs"] == theirs["macs"]
