"""Structured pruning of Keras 3 functional models: channels are cut out, so the network becomes smaller and faster.

    plan = plan_uniform(model, ratio=0.5)      # or plan_global(model, macs_ratio=0.35)
    smaller = prune(model, plan)               # a new, plain Keras model; fine-tune it

Which channels belong together is found by pipeline/pruning/channels.py; weights are sliced, never recomputed: the
pruned model gives what the model gives when the weights that read those channels are zero. Models used as layers come
out inlined.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np

from jetson.errors import BadInput, JetmaskError, UsageError
from pipeline.models import rebuild
from pipeline.models.functional import walk
from pipeline.pruning import importance as scores
from pipeline.pruning.channels import Channels, channel_groups
from pipeline.pruning.cost import Macs

__all__ = ["MULTIPLE_OF", "Plan", "channel_groups", "describe", "plan_global", "plan_uniform", "prune", "silence"]

# Channel counts that kernels like: NVIDIA's fp16 and fp32 kernels and CPU vectors work on 8 (ONNX Runtime's int8 on
# 16), int8 tensor cores on tiles of 32. A Nano has no tensor cores: 8.
MULTIPLE_OF = {"fp32": 8, "fp16": 8, "int8-cpu": 16, "int8": 32}


class Plan(NamedTuple):
    """Which channels stay.

    kept: {group name: indices, ascending}; a group that is not named stays whole. sizes: {group name: channels
    before}. how: what the plan was made with, for the record.
    """

    kept: dict
    sizes: dict
    how: dict = {}

    def to_dict(self) -> dict[str, Any]:
        return {"kept": self.kept, "sizes": self.sizes, "how": self.how}

    @classmethod
    def from_dict(cls, document: Any) -> "Plan":
        """A plan from `to_dict`'s JSON; BadInput where it is none."""
        try:
            kept = {str(k): sorted(v) for k, v in document["kept"].items()}
            if any(type(i) is not int for v in document["kept"].values() for i in v):
                raise TypeError("a channel index that is not a whole number")
            return cls(kept, {str(k): int(v) for k, v in document["sizes"].items()}, dict(document.get("how", {})))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"not a pruning plan: {error}",
                expected="kept and sizes per group",
                remedy="make one with jetmask prune",
            ) from error


def prune(model: keras.Model, plan: Plan | dict[str, Any]) -> keras.Model:
    """A new model without the channels that the plan drops; `model` stays as it is.

    plan: a Plan, or {group name: indices to keep}. Weights, names, trainable flags and dtype policies are those of
    `model`; it comes back uncompiled. UsageError for a plan that does not fit, with the layer that is the reason.
    """
    channels = Channels(model)
    return cut(model, channels, keep_mask(channels, plan))[0]


def cut(model: keras.Model, channels: Channels, keep: np.ndarray) -> tuple[keras.Model, dict[int, Any]]:
    """The model with the channels of `keep` (keep_mask) alone, and {id of a layer: what was made of it}."""
    made: dict[int, Any] = {}
    names: set[str] = set()

    def call(operation: Any, args: Any, kwargs: Any, path: tuple[str, ...], outputs: Any) -> Any:
        record = channels.records[id(operation)]
        if record.lost:
            raise JetmaskError(
                "a rebuilt layer differs from the original: " + record.lost,
                where=f"layer {operation.name!r} ({type(operation).__name__})",
                expected="all that it knows in get_config and in its variables",
                remedy="add what was set later to its get_config",
            )
        if id(operation) not in made:
            name = _free("/".join((*path, operation.name)), operation.name, names)
            made[id(operation)] = rebuild.renewed(operation, record.counts, keep, name)
        try:
            return made[id(operation)](*args, **kwargs)
        except Exception as error:  # Keras' and the backend's own kinds
            raise JetmaskError(
                "a layer does not take what is left: {}".format(str(error).strip().split("\n")[0]),
                where=f"layer {operation.name!r} ({type(operation).__name__})",
                remedy="remove its group, and those of its inputs, from the plan",
            ) from error

    graph = channels.graph
    inputs = []
    for tensor in graph.inputs:
        layer = tensor._keras_history.operation
        names.add(layer.name)
        inputs.append(
            keras.Input(
                batch_shape=tensor.shape,
                dtype=tensor.dtype,
                sparse=tensor.sparse,
                name=layer.name,
                optional=layer.optional,
            )
        )
    outputs = walk(graph, inputs, call)
    pruned = keras.Model(
        keras.tree.pack_sequence_as(graph._inputs_struct, inputs),
        keras.tree.pack_sequence_as(graph._outputs_struct, outputs),
        name=model.name,
    )
    for record in channels.records.values():
        if isinstance(record.layer, keras.Layer):
            rebuild.copy(record, made[id(record.layer)], keep)
    return pruned, made


def keep_mask(channels: Channels, plan: Plan | dict[str, Any]) -> np.ndarray:
    """(channel numbers,) bool: which stay by the plan. UsageError where the plan does not fit the model."""
    kept, sizes = (plan.kept, plan.sizes) if isinstance(plan, Plan) else (plan, {})
    stays = [np.ones(group.size, bool) for group in channels.groups]
    for name, indices in kept.items():
        at = channels.index(name)
        if at is None:
            raise UsageError(
                f"the model has no channel group {name!r}",
                where="plan",
                expected="one of " + ", ".join(g.name for g in channels.groups if not g.fixed),
                remedy="make the plan for this model",
            )
        group = channels.groups[at]
        if sizes.get(name, group.size) != group.size:
            raise UsageError(
                f"the plan is for a group of {int(sizes[name])} channels",
                where=f"plan, group {name!r}",
                expected=f"{group.size}",
                remedy="make the plan for this model",
            )
        indices = np.asarray(indices).reshape(-1)
        if (
            not len(indices)
            or indices.dtype.kind not in "iu"
            or len(set(indices.tolist())) != len(indices)
            or indices.min() < 0
            or indices.max() >= group.size
        ):
            raise UsageError(
                "the plan's indices do not fit",
                where=f"plan, group {name!r}",
                expected=f"at least one of 0..{group.size - 1}, each once",
            )
        if group.fixed and len(indices) < group.size:
            raise UsageError(
                "these channels cannot be removed: " + group.fixed,
                where=f"group {name!r}",
                expected=f"a plan that keeps all {group.size}",
                remedy="remove the group from the plan",
            )
        stays[at][:] = False
        stays[at][indices] = True
    return np.concatenate(stays)[
        np.cumsum([0] + [g.size for g in channels.groups])[channels.group_of] + channels.element_of
    ]


def _free(full: str, name: str, names: set[str]) -> str:
    for candidate in (name, full.replace("/", "_")):
        if candidate not in names:
            break
    else:
        candidate = next(c for c in (f"{name}_{i}" for i in range(1, 10**6)) if c not in names)
    names.add(candidate)
    return candidate


def silence(model: keras.Model, plan: Plan | dict[str, Any]) -> keras.Model:
    """Zero, in place, the weights that read the channels a plan drops: what `prune` gives, in the old shapes.

    Cheaper than pruning where only the outputs are asked for (a compiled function stays valid), and the other side of
    the tests' proof. Returns the model.
    """
    channels = Channels(model)
    keep = keep_mask(channels, plan)
    for record in channels.records.values():
        for cut in record.slices:
            if cut.reads and not keep[cut.ids].all():
                variable = getattr(record.layer, cut.variable)
                shape = [1] * len(variable.shape)
                shape[cut.axis] = -1
                variable.assign(np.asarray(variable) * keep[cut.ids].reshape(shape).astype(np.float32))
    return model


def plan_uniform(
    model: keras.Model,
    ratio: float,
    importance: str | dict[str, np.ndarray] = "l1",
    multiple_of: int = 8,
    floor: float = 0.0,
) -> Plan:
    """Drop the share `ratio` (0 to under 1) of the least important channels of every group that may be pruned.

    importance: a kind of pipeline.pruning.importance.KINDS that needs no data, or {group name: (size,) scores} as
    `pipeline.pruning.importance.score` gives. Counts become multiples of multiple_of; a group keeps at least the share
    `floor`, and at least multiple_of channels (all of them where it has fewer).
    """
    if not 0 <= ratio < 1:
        raise UsageError(f"a ratio of {ratio!r}", where="ratio", expected="0 (keep all) to under 1")
    channels = Channels(model)
    scored = _scores(channels, importance)
    kept = {}
    for group in channels.groups:
        choices = [] if group.fixed or not ratio else counts_allowed(group.size, multiple_of, floor)
        if len(choices) > 1:
            count = min(choices, key=lambda c: (abs(c - group.size * (1 - ratio)), -c))
            if count < group.size:
                kept[group.name] = best(scored[group.name], count)
    how = {"kind": "uniform", "ratio": ratio, "multiple_of": multiple_of, "importance": _name(importance)}
    return Plan(kept, {g.name: g.size for g in channels.groups if not g.fixed}, how)


def plan_global(
    model: keras.Model,
    macs_ratio: float,
    importance: str | dict[str, np.ndarray] = "l1",
    input_wh: tuple[int, int] = (320, 320),
    multiple_of: int = 8,
    floor: float = 0.1,
    cost: Any = None,
    sizes: dict[str, int] | None = None,
) -> Plan:
    """Drop channels wherever they matter least per cost, until only the share macs_ratio of the cost is left.

    macs_ratio: wanted cost afterwards as a share of the cost before. input_wh: (width, height) that MACs are counted
    at, where the model leaves its size open. cost: what is to be saved, a callable ({group name: channels}) -> number,
    or one with `many` (pipeline.pruning.cost: Macs, PredictedLatency); None: multiply-adds. importance, multiple_of and
    floor as in plan_uniform; sizes: {group name: channels} that the floor is a share of, where the model was pruned
    before. UsageError where the floor does not allow that much.
    """
    if not 0 < macs_ratio <= 1:
        raise UsageError(
            f"a share of {macs_ratio!r}", where="macs_ratio", expected="more than 0 and at most 1 (1 keeps everything)"
        )
    channels = Channels(model)
    scored = _scores(channels, importance)
    cost = cost or Macs(channels, input_wh)
    widths = np.array([group.size for group in channels.groups], float)
    free = [i for i, group in enumerate(channels.groups) if not group.fixed]
    choices = {
        i: counts_allowed(channels.groups[i].size, multiple_of, floor, (sizes or {}).get(channels.groups[i].name))
        for i in free
    }
    # lost[i][n]: importance lost when n channels are left.
    lost = {}
    for i in free:
        ascending = np.concatenate([[0.0], np.cumsum(np.sort(scored[channels.groups[i].name]))])
        lost[i] = ascending[::-1]
    whole = total = _many(cost, channels, widths[None])[0]
    while total > macs_ratio * whole * (1 + 1e-9):
        # A kernel's tile may hide the gain of a single step, so up to four are looked at.
        moves = [(i, n) for i in free for n in [c for c in choices[i] if c < widths[i]][:-5:-1]]
        table = np.repeat(widths[None], len(moves), axis=0)
        for row, (i, n) in zip(table, moves):
            row[i] = n
        after = _many(cost, channels, table) if moves else np.empty(0)
        gain = total - after
        price = np.array([lost[i][n] - lost[i][int(widths[i])] for i, n in moves])
        useful = gain > 1e-9 * whole
        if not useful.any():
            raise UsageError(
                f"the model cannot be pruned that far: at least {total / whole:.3f} of its cost remains",
                where=f"a share of {macs_ratio:g}",
                expected="a larger share",
                remedy=f"lower the floor (now {floor:g}) or multiple_of (now {multiple_of})",
            )
        rate = np.where(useful, price / np.where(useful, gain, 1), np.inf)
        at = int(np.argmin(rate))
        # The last move may overshoot: of those that reach the target, take the one that loses least.
        reaching = useful & (after <= macs_ratio * whole)
        if after[at] <= macs_ratio * whole and reaching.any():
            at = int(np.argmin(np.where(reaching, price, np.inf)))
        widths[moves[at][0]], total = moves[at][1], after[at]
    kept = {
        channels.groups[i].name: best(scored[channels.groups[i].name], int(widths[i]))
        for i in free
        if widths[i] < channels.groups[i].size
    }
    how = {
        "kind": "global",
        "macs_ratio": macs_ratio,
        "reached": float(total / whole),
        "multiple_of": multiple_of,
        "floor": floor,
        "importance": _name(importance),
        "cost": getattr(cost, "name", "own"),
        "input_wh": list(input_wh),
    }
    return Plan(kept, {g.name: g.size for g in channels.groups if not g.fixed}, how)


def counts_allowed(size: int, multiple_of: int, floor: float, whole: int | None = None) -> list[int]:
    """Channel counts that a group may have, ascending: multiples of multiple_of over the floor, and its own size.

    floor: share of `whole`, the group's size before any pruning (None: its size now)."""
    if multiple_of < 1 or not 0 <= floor <= 1:
        raise UsageError(
            f"a multiple of {multiple_of!r}, a floor of {floor!r}",
            where="multiple_of, floor",
            expected="1 or more, and a share from 0 to 1",
        )
    least = max(multiple_of, math.ceil((whole or size) * floor / multiple_of) * multiple_of)
    return [*range(least, size, multiple_of), size]


def best(values: np.ndarray, count: int) -> list[int]:
    """Indices of the `count` most important, ascending; of equal ones the first."""
    order = np.argsort(-np.asarray(values), kind="stable")[:count]
    return sorted(order.tolist())


def describe(plan: Plan) -> str:
    """The plan as a short text: a line per group, channels before and after."""
    width = max([len(name) for name in plan.sizes], default=0)
    lines = [
        f"{name:{width}}  {size:5} -> {len(plan.kept.get(name, range(size)))}" for name, size in plan.sizes.items()
    ]
    before = sum(plan.sizes.values())
    after = sum(len(plan.kept.get(name, range(size))) for name, size in plan.sizes.items())
    return "\n".join([*lines, f"{'all':{width}}  {before:5} -> {after}"])


def _scores(channels: Channels, importance: str | dict[str, np.ndarray]) -> dict[str, Any]:
    found = scores.score(channels, importance) if isinstance(importance, str) else importance
    for group in channels.groups:
        if group.fixed:
            continue
        if len(found.get(group.name, ())) != group.size:
            raise UsageError(
                "importance does not fit the model",
                where=f"group {group.name!r}",
                expected=f"{group.size} scores",
                remedy="score this model: pipeline.pruning.importance.score",
            )
        if not np.isfinite(np.asarray(found[group.name], float)).all():
            raise UsageError(
                "the importance of a channel is not finite",
                where=f"group {group.name!r}, made by {', '.join(group.layers)}",
                expected="finite scores",
                remedy="look for NaN weights, which a failed training leaves"
                if isinstance(importance, str)
                else "give a large number for what must stay",
            )
    return found


def _name(importance: str | dict[str, np.ndarray]) -> str:
    return importance if isinstance(importance, str) else "given"


def _many(cost: Any, channels: Channels, table: np.ndarray) -> np.ndarray:
    if hasattr(cost, "many"):
        return np.asarray(cost.many(table), float)
    names = [group.name for group in channels.groups]
    return np.array([cost(dict(zip(names, row.astype(int).tolist()))) for row in table], float)
