"""Which classes a training is about: those that the configuration names, those of the model, or those of the data."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jetson.bundle.classes import MASKS, Classes
from jetson.evaluation import average_precision
from pipeline.config import Data
from pipeline.models.classes import checked
from pipeline.training.dataset import folders_of


def names_in(root: str | Path, folders: Sequence[str]) -> list[str]:
    """Class names of the data, each once: the categories of the folders' annotations.json, by their ids."""
    found: dict[str, None] = {}
    for folder in folders:
        found.update(dict.fromkeys(average_precision.categories(str(Path(root) / folder))))
    return list(found)


def of_training(data: Data, root: str | Path, known: Classes | None = None) -> Classes:
    """The classes of a training on the data in `root`. known: those of the model that it starts from.

    data.classes goes first; data whose names the model all knows is of the model's classes; else the data's own names,
    the three mask classes where they are all among those. data.roles goes over what the model says. BadInput for names
    or roles that are none.
    """
    names = list(data.classes)
    if not names:
        names = names_in(root, [*folders_of(dataclasses.replace(data, root=str(root))), data.val])
        for sets in (known.names if known else (), MASKS):
            if set(names) <= set(sets):
                names = list(sets)
                break
    inherited = dict(zip(known.names, known.roles, strict=True)) if known else {}
    roles = {name: role for name, role in inherited.items() if name in names} | data.roles
    return checked(names, roles, "data.classes" if data.classes else str(root))
