"""The ablation from outside: its choices are configurations, and a stopped run goes on with what is missing."""

import csv
import subprocess
import sys

import pytest

from benchmarks import ablation
from pipeline import config


@pytest.mark.parametrize("model", ["n", "s"])
def test_every_choice_is_a_configuration_that_differs_from_the_baseline(model):
    base, *others = ablation.choices(model)
    plain = config.to_dict(config.load(model, [*ablation.SHORT, *base.overrides]))
    assert base.choice == "baseline" and len({row[:2] for row in others}) == len(others) > 15
    for choice in others:
        assert config.to_dict(config.load(model, [*ablation.SHORT, *choice.overrides])) != plain, choice


def test_imagenet_is_measured_against_random_weights():
    base, start = ablation.choices("mobilenetv2")
    settings = [config.load("mobilenetv2", [*ablation.SHORT, *row.overrides]) for row in (base, start)]
    assert [one.model.init for one in settings] == ["", "imagenet"]
    settings[1].model.init = ""
    assert settings[0] == settings[1]  # and nothing else differs


@pytest.mark.parametrize("model", ["n", "s", "m"])
def test_the_baseline_does_not_follow_a_preset(model):
    train = config.load(model, ablation.SHORT).train
    assert (train.batch_size, train.optimizer, train.schedule, train.decay_share) == (16, "adamw", "trapezoid", 0.45)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.ablation", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=3000,
    )


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--only", "luck"], "no choice is called 'luck'"), (["--images", "3"], "8 or more")]
)
def test_wrong_arguments_are_named(tmp_path, arguments, words):
    done = run("--data", tmp_path, "--out", tmp_path / "out.csv", *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.full
def test_rows_that_are_there_are_not_trained_again(tmp_path, root):
    for seed, split in enumerate(("train", "val")):  # of one seed they would be the same images, which are kept apart
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pipeline.cli",
                "data",
                "draw",
                str(tmp_path / split),
                "--images",
                "6",
                "--size",
                "96x96",
                "--seed",
                str(seed),
            ],
            check=True,
            capture_output=True,
            cwd=root,
        )
    line = [
        "--data",
        tmp_path,
        "--images",
        "8",
        "--only",
        "flip",
        "--out",
        tmp_path / "out.csv",
        "--runs",
        tmp_path / "runs",
        "--set",
        "train.sizes=[[64,1]]",
        "--set",
        "train.batch_size=1",
        "--set",
        "data.train=[train]",
    ]
    done = run(*line)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "out.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    # Untrained networks find nothing: no difference, so that each got its second seed.
    assert [r["choice"] + r["seed"] for r in rows] == ["baseline1", "flip1", "baseline2", "flip2"]
    assert all(list(r) == list(ablation.FIELDS) and r["images"] == "8" for r in rows)
    text = (tmp_path / "out.csv").read_text()
    (tmp_path / "out.csv").write_text("\n".join(text.splitlines()[:-1]) + "\n")
    again = run(*line)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("mAP50") == 1 and "epoch 1/8" not in again.stderr
    assert (tmp_path / "out.csv").read_text().splitlines()[:-1] == text.splitlines()[:-1]
