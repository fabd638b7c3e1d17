"""Several prunings of one model after another, told as one plan for the model that they began with."""

from typing import Any

import keras
import numpy as np

from jetson.errors import UsageError
from pipeline.pruning.channels import Channels
from pipeline.pruning.pruner import Plan, cut, keep_mask


def compose(model: keras.Model, first: Plan, second: Plan) -> Plan:
    """The plan for `model` that does at once what `first` and then, on its result, `second` do."""
    channels, keep, after, origin = _traced(model, first)
    known = origin >= 0
    keep[origin[known]] = keep_mask(after, second)[known]
    kept = {}
    for index, group in enumerate(channels.groups):
        gone = channels.element_of[(channels.group_of == index) & ~keep]
        if len(gone):
            kept[group.name] = np.setdiff1d(np.arange(group.size), gone).tolist()
    return Plan(kept, {g.name: g.size for g in channels.groups if not g.fixed}, second.how)


def sizes_before(model: keras.Model, plan: Plan | dict[str, Any]) -> dict[str, int]:
    """{group name of the pruned model: channels of that group in `model`}, of the groups that may be pruned. A group
    may have another name there: a model used as a layer comes out inlined, so another of its layers may be the first.
    """
    channels, _, after, origin = _traced(model, plan)
    return {
        group.name: channels.groups[channels.group_of[origin[(after.group_of == i) & (origin >= 0)][0]]].size
        for i, group in enumerate(after.groups)
        if not group.fixed
    }


def _traced(model: keras.Model, plan: Plan | dict[str, Any]) -> tuple[Channels, np.ndarray, Any, np.ndarray]:
    """Channels of a model, what the plan keeps of them, Channels of what it makes, and for each number of those the
    number that it was; -1 where no layer makes it, of inputs and behind what is not understood."""
    channels = Channels(model)
    keep = keep_mask(channels, plan)
    pruned, made = cut(model, channels, keep)
    after = Channels(pruned)
    origin = np.full(len(after.group_of), -1)
    for record in channels.records.values():
        if record.opens is None:
            continue
        opens = after.records[id(made[id(record.layer)])].opens
        if opens is None:
            raise UsageError(
                "a grouped convolution with one channel in each of its groups cannot be pruned again",
                where=f"layer {record.layer.name!r}",
                expected="two or more left in each",
                remedy="raise --multiple-of or --floor, or prune in one round",
            )
        origin[opens] = record.opens[keep[record.opens]]
    return channels, keep, after, origin
