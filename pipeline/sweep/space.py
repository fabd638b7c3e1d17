"""What a sweep searches: the choices for each name, checked before any trial, and one draw of them."""

import difflib
import json
import math
from pathlib import Path
from typing import Any

import yaml

from jetson.errors import BadInput
from pipeline import config as configuration
from pipeline import targets, yaml_file

# What is searched: a list of choices, or {low, high[, log]} for a number. Names with a dot are configuration keys.
SPACE: dict[str, Any] = {
    "input_wh": ["320x192", "416x256", "640x384"],
    "model.size": ["n", "s", "m"],
    "prune": [0, 0.25, 0.5],  # share of the cost that pruning takes away
    "precision": [],  # filled with what the target runs fast
    "train.optimizer": ["adamw", "adam", "sgd", "rmsprop"],
    "train.learning_rate": {"low": 3e-4, "high": 6e-3, "log": True},
    "train.schedule": ["trapezoid", "cosine", "plateau"],
    "train.batch_size": [8, 16, 32],
    "model.dropout": [0.0, 0.1, 0.2],
    "augment.mosaic": [0.2, 0.4, 0.6],
    "augment.scale": {"low": 0.6, "high": 1.4},
    "augment.photometric": {"low": 0.5, "high": 1.5},
}
# What is given where a sweep starts from trained weights (model.init).
FIXED_BY_WEIGHTS = ("model.size", "model.dropout")
# The trial that every sweep begins with: the configuration that ships.
BASELINE: dict[str, Any] = {
    "input_wh": "416x256",
    "model.size": "s",
    "prune": 0,
    "train.optimizer": "adamw",
    "train.learning_rate": 2e-3,
    "train.schedule": "trapezoid",
    "train.batch_size": 16,
    "model.dropout": 0.0,
    "augment.mosaic": 0.4,
    "augment.scale": 1.0,
    "augment.photometric": 1.0,
}


def space_for(target: str, path: str | None = None, ours: bool = True) -> dict[str, Any]:
    """The space for a target, narrowed or widened by a YAML file of the same form as SPACE. ours: the objective is
    OBJECTIVE, so that other names than those it knows are mistakes."""
    space = dict(SPACE)
    space["precision"] = targets.searched_precisions(target)
    if path:
        try:
            own = yaml_file.parse(Path(path).read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise BadInput(f"the space cannot be read: {error.strerror}", path, "a YAML file") from None
        except (yaml.YAMLError, ValueError) as error:
            raise BadInput(f"not YAML: {error}", path, "names with choices") from None
        if not isinstance(own, dict):
            raise BadInput("a space is names with choices", path, "for instance input_wh: [320x192, 416x256]")
        space.update(own)
    space = {name: value for name, value in space.items() if value is not None}  # null takes a name out
    for name, value in space.items():
        good = (
            isinstance(value, list)
            and value
            or isinstance(value, dict)
            and {"low", "high"} <= set(value) <= {"low", "high", "log"}
        )
        if not good:
            raise BadInput(f"{name} has no choices", path or "space", "a list, or {low: …, high: …, log: true}")
        _check_choice(name, value, path or "space", ours)
    return space


def _check_choice(name: str, value: Any, where: str, ours: bool) -> None:
    """BadInput for choices that no trial could take: told here, and not by every trial."""
    if isinstance(value, dict):
        ends = [value["low"], value["high"]]
        if (
            not all(type(end) in (int, float) and math.isfinite(end) for end in ends)
            or ends[0] > ends[1]
            or (value.get("log") and ends[0] <= 0)
        ):
            raise BadInput(f"{name} is {value}", where, "numbers, low at most high, and more than 0 with log: true")
    if not ours:
        return
    if "." in name:
        for choice in value if isinstance(value, list) else map(float, ends):  # drawn as a number with a fraction
            try:
                configuration.load(None, [f"{name}={json.dumps(choice)}"])
            except BadInput as error:
                raise BadInput(str(error.what), f"{where}, {name}", error.expected, error.remedy) from None
    elif name not in SPACE:
        near = difflib.get_close_matches(name, SPACE, 1)
        raise BadInput(
            f"unknown name {name}",
            where,
            ", ".join(SPACE) + ", or a configuration key with its dot",
            f"did you mean {near[0]}?" if near else None,
        )


def suggest(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    """Let an Optuna trial choose a value for each name."""
    out = {}
    for name, value in space.items():
        if isinstance(value, list):
            out[name] = trial.suggest_categorical(name, value)
        else:
            out[name] = trial.suggest_float(name, value["low"], value["high"], log=bool(value.get("log")))
    return out


def allowed(value: Any, choices: Any) -> bool:
    if isinstance(choices, list):
        return value in choices
    return choices["low"] <= value <= choices["high"]
