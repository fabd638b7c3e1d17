"""One trial of a sweep: what its parameters mean, what it tells, and a real one on drawn squares."""

import json

import keras
import pytest
from refusals import refused

from jetson.errors import UsageError
from pipeline.data import draw, layout
from pipeline.models import detector as models
from pipeline.sweep.trial import Trial, setting_of, work

TINY = models.Architecture(8, ((16, 1),) * 4, (16,) * 4, ((16,),) * 4)


def trial(params, *overrides, target="nano", data=None, folder="unused"):
    return Trial(
        {
            "number": 0,
            "params": params,
            "folder": str(folder),
            "context": {"target": target, "data": data, "config": None, "overrides": list(overrides)},
        }
    )


def test_parameters_go_over_the_configuration():
    config, wh, left, precision = setting_of(
        trial(
            {"input_wh": "320x192", "prune": 0.25, "precision": "fp16", "train.learning_rate": 0.0005},
            "train.learning_rate=1",
            "train.epochs=7",
            data="somewhere",
        )
    )
    assert (wh, left, precision) == ((320, 192), 0.75, "fp16")
    assert config.train.learning_rate == 0.0005 and config.train.epochs == 7
    assert config.train.val_wh == [320, 192] and config.data.root == "somewhere"


@pytest.mark.parametrize(("target", "precision"), [("nano", "fp16"), ("this-machine", "fp32")])
def test_what_the_space_leaves_out_is_what_ships(target, precision):
    _, wh, left, chosen = setting_of(trial({}, target=target))
    assert (wh, left, chosen) == ((416, 256), 1.0, precision)


def test_too_few_epochs_for_pruning_between_them():
    with refused(UsageError, where="train.epochs", names=["1", "2"]):
        setting_of(trial({"prune": 0.5}, "train.epochs=1"))
    setting_of(trial({"prune": 0.5}, "train.epochs=1", "model.init=some.keras"))
    with refused(UsageError, where="train.epochs", names=["0", "1"]):
        setting_of(trial({}, "train.epochs=0"))


def test_earlier_epochs_are_known_after_a_restart():
    one = trial({})
    one.step(3, 61.0)
    one.past([[1, 50.0], [2, None], [3, 61.5]])
    assert one.known["curve"] == [[1, 50.0], [3, 61.5]]


@pytest.mark.full
@pytest.mark.parametrize(
    ("start", "target", "precision", "file"),
    [
        ("trained", "nano", "fp16", "model.onnx"),
        ("random", "nano", "fp16", "model.onnx"),
        ("trained", "this-machine", "int8", "model.int8-cpu.onnx"),
    ],
)
def test_a_real_trial_trains_prunes_and_is_not_done_twice(tmp_path, monkeypatch, start, target, precision, file):
    for seed, split in enumerate(("train", "val")):
        with layout.folder_aside(tmp_path / split) as part:
            draw.write(part, 6, seed=seed, wh=(96, 96))
    overrides = [
        "train.epochs=2",
        "train.images_per_epoch=4",
        "train.batch_size=4",
        "train.sizes=[[64, 1.0]]",
        "train.warmup_steps=1",
        "data.train=[train]",
    ]
    if start == "trained":
        keras.utils.set_random_seed(3)
        models.build(TINY).save(tmp_path / "tiny.keras")
        overrides.append(f"model.init={tmp_path / 'tiny.keras'}")
    else:
        monkeypatch.setitem(models.FAMILY, "n", TINY)
        overrides.append("model.size=n")
    params = {"input_wh": "64x64", "prune": 0.4, "precision": precision}
    job = {
        "number": 0,
        "params": params,
        "folder": str(tmp_path / "trial"),
        "objective": "pipeline.sweep.trial:train_and_measure",
        "rivals": [],
        "context": {"target": target, "data": str(tmp_path), "config": None, "overrides": overrides},
    }
    first = work(job)
    assert first["state"] == "done", first
    values = first["values"]
    assert [step for step, _ in first["known"]["curve"]] == [1, 2]
    assert values["bytes"] == (tmp_path / "trial" / file).stat().st_size
    assert values["latency_ms"] == pytest.approx(first["known"]["latency_ms"], rel=0.3)
    kept = json.loads((tmp_path / "trial" / "plan.json").read_text())["kept"]
    whole = models.macs(models.build(TINY), (64, 64))
    assert kept and values["macs"] <= 0.65 * whole
    before = (tmp_path / "trial" / "plan.json").read_bytes()
    again = work(job)
    assert again["values"] == values and again["known"]["curve"] == first["known"]["curve"]
    assert (tmp_path / "trial" / "plan.json").read_bytes() == before
