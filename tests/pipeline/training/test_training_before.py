"""A training that the code before the layout of 1.0 began is gone on with, and its .keras file opens.

tests/data/training_before: two of three epochs of a network of 744 weights on drawn squares, killed after the second.
"""

import csv
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline import config as configuration
from pipeline.data import draw
from pipeline.models.detector import load
from pipeline.training import train

BEFORE = Path(__file__).resolve().parents[2] / "data" / "training_before"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(BEFORE, tmp_path / "run")
    for seed, split in enumerate(("train", "val")):
        (tmp_path / "data" / split).mkdir(parents=True)
        draw.write(tmp_path / "data" / split, 6, seed=seed, wh=(96, 96))
    return tmp_path


def test_a_keras_file_of_before_gives_the_outputs_of_the_detector(folder):
    net = load(str(folder / "run" / "best.keras"))
    assert (
        net.output_names == [f"{kind}_{stride}" for stride in (4, 8, 16, 32) for kind in ("cls", "box")]
        and net.count_params() == 744
    )
    assert all(np.isfinite(keras.ops.convert_to_numpy(o)).all() for o in net(np.full((1, 64, 64, 3), 9, np.float32)))


@pytest.mark.slow
def test_a_checkpoint_of_before_is_gone_on_with(folder):
    run = folder / "run"
    with np.load(run / "checkpoint.npz") as kept:
        weight, mean = kept["net/0"], kept["average/0"]
    settings = configuration.load(run / "config.json", [f"data.root={folder / 'data'}"])
    going_on = train.Run(settings, run, load(str(run / "best.keras")))
    going_on.resume()
    assert going_on.done == 2 and [row["epoch"] for row in going_on.rows] == [1, 2]
    np.testing.assert_array_equal(going_on.net.variables[0], weight)
    np.testing.assert_array_equal(going_on.average.values[0], mean)
    result = train.fit(settings, run, model=load(str(run / "best.keras")), resume=True)
    assert result["epochs"] == 3 and Path(result["last"]).exists()
    with open(run / "log.csv") as log:
        assert [row["epoch"] for row in csv.DictReader(log)] == ["1", "2", "3"]
