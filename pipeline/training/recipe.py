"""What `jetmask train` does where nothing is said: fine-tune the shipped `s` for as long as the photographs are worth.

A preset or a configuration file is a whole recipe and is taken as it is.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from jetson.bundle.classes import MASK_CLASSES
from jetson.errors import BadInput
from pipeline import config as configuration
from pipeline.config import Config, Train
from pipeline.training.classes import of_training
from pipeline.training.dataset import folders_of

START = "s"  # of the shipped weights
EPOCHS = 12
PER_ROOT = 600  # augmented images are this times the root of the photographs: 45 give 4,000, 1,000 give 19,000
LEAST, MOST = 2000, 120_000
FROM_SCRATCH = 8  # times as many where nothing is known yet; what ships began with 264,000
NEW_CLASSES = 2  # times as many where class heads begin anew


def photographs(root: str | Path, folders: Sequence[str]) -> int:
    """How many photographs the folders list. BadInput for a folder that is none or lists none."""
    count = 0
    for folder in folders:
        path = Path(root) / folder / "annotations.json"
        if not path.is_file():
            raise _no_split(Path(root), path.parent)
        try:
            count += len(json.loads(path.read_text(encoding="utf-8"))["images"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"not a COCO file: {error}", where=str(path), expected="the list images") from None
    return count


def _no_split(root: Path, folder: Path) -> BadInput:
    """That `folder` of `root` is not there, with what to do about what is there instead."""
    if (root / "annotations.json").is_file():
        if (root.parent / folder.name / "annotations.json").is_file():
            remedy = f"name the folder of all parts: --data {root.parent}"
        else:
            remedy = f"split it first: jetmask data split {root} DIR, then jetmask train --data DIR"
    elif root.exists():
        remedy = "import and split your labels first: jetmask data import FOLDER ALL, jetmask data split ALL DIR"
    else:
        remedy = "check the path"
    return BadInput(
        "the data folder does not exist" if not folder.is_dir() else "the folder has no annotations.json",
        where=str(folder if root.exists() else root),
        expected="a folder that holds train/ and val/, each with images/ and annotations.json",
        remedy=remedy,
    )


def schedule(count: int, from_scratch: bool = False, new_classes: bool = False) -> Train:
    """How long and how fast to train on `count` photographs."""
    images = PER_ROOT * math.sqrt(max(1, count)) * (NEW_CLASSES if new_classes else 1)
    images = min(MOST, max(LEAST, images)) * (FROM_SCRATCH if from_scratch else 1)
    epochs = EPOCHS * (3 if from_scratch else 1)
    train = Train(epochs=epochs, images_per_epoch=round(images / epochs), batch_size=8, closing_epochs=2)
    train.decay_share = 0.6
    steps = images / 8
    if not from_scratch:
        train.learning_rate = 1e-3 if new_classes else 3e-4
        train.ema = 0.99
    train.warmup_steps = min(300, round(steps / 10))
    return train


def config(overrides: Sequence[str], root: str = "", from_scratch: bool = False) -> Config:
    """The whole configuration by the photographs in `root` (default: data.root, then JETMASK_DATA); overrides go over
    it. UsageError and BadInput as `pipeline.config.load`, and where there is no data."""
    said = configuration.load(None, overrides)
    named = {override.partition("=")[0].strip() for override in overrides}
    start = Config(data=said.data)
    where = root or said.data.root or os.environ.get("JETMASK_DATA", "")
    if not from_scratch and "model.init" not in named:
        # A size that ships is begun with its own weights.
        size = said.model.size if "model.size" in named else START
        start.model.init = size if size in configuration.shipped() else ""
    elif not from_scratch:
        start.model.init = said.model.init
    if where and Path(where).is_dir():
        data = said.data
        data.root = where
        count = photographs(where, folders_of(data))
        known = MASK_CLASSES if start.model.init in configuration.shipped() else None
        fresh = known is not None and of_training(data, where, known).names != known.names
        start.train = schedule(count, not start.model.init, fresh)
        data.root = root or said.data.root
    elif where:
        raise _no_split(Path(where), Path(where) / "train")
    return configuration.load(None, overrides, start)
