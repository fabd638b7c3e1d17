"""Everything that a training needs to go on, in one file: a kill leaves the old one or the new one."""

import csv
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jetson import files
from jetson.errors import BadInput

FILE = "checkpoint.npz"
LOG = "log.csv"


def write(
    folder: Path, groups: Mapping[str, Sequence[Any]], average: Sequence[np.ndarray], state: Mapping[str, Any]
) -> None:
    """Write checkpoint.npz. groups: {name: Keras variables}; average: the averaged weights, in the shapes and the order
    of the network's trainable ones; state: ready for JSON."""
    arrays = {f"{name}/{i}": np.array(v) for name, variables in groups.items() for i, v in enumerate(variables)}
    arrays.update({f"average/{i}": value for i, value in enumerate(average)})
    arrays["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    with files.aside(str(folder / FILE)) as path, open(path, "wb") as out:
        np.savez(out, **arrays)  # type: ignore[arg-type]


def read(
    folder: Path, groups: Mapping[str, Sequence[Any]], average: Sequence[np.ndarray]
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Put the stored values into the variables; returns the state and the averaged weights. BadInput where the file
    is damaged or of another network or optimizer; the variables may have changed then."""
    path = folder / FILE
    try:
        with np.load(path) as stored:
            state = json.loads(bytes(stored["state"]))
            for name, variables in groups.items():
                for i, variable in enumerate(variables):
                    variable.assign(stored[f"{name}/{i}"])
            return state, [stored[f"average/{i}"].copy() for i in range(len(average))]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(
            f"this checkpoint does not fit: {error}",
            where=str(path),
            expected="a checkpoint of the same model and optimizer",
            remedy="resume with the config of the run, or start a new folder",
        ) from error


def config_of(folder: Path) -> dict[str, Any]:
    """The configuration that a checkpoint was written with; {} where it cannot be read, which `read` tells."""
    try:
        with np.load(folder / FILE) as stored:
            return json.loads(bytes(stored["state"])).get("config") or {}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        return {}


def write_log(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write log.csv. A run that an older jetmask began has rows with fewer columns."""
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with files.aside(str(folder / LOG)) as path, open(path, "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
