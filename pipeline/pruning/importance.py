"""How much each channel matters: several measures from weights, and two from data.

Every measure gives {group name: (size,) scores}, larger for more important. Those from weights and activations are
put on one scale per group (LAMP, arXiv:2010.07611: a score's square over the sum of all squares that are not smaller),
so that groups of different layers can be ranked together; Taylor's is a change of the loss and needs no scaling.
"""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from jetson.errors import UsageError
from pipeline.models.functional import walk
from pipeline.pruning.channel_numbers import Record
from pipeline.pruning.channels import Channels

# l1, l2: norm of a channel's own weights, batch normalisation folded in. bn_scale: |gamma| (arXiv:1708.06519).
# geometric_median: distance to the layer's other channels (arXiv:1811.00250). random: the control.
# taylor: (sum of weight * gradient)^2 (arXiv:1906.10771). activation: the largest |value| that the channel hands on.
FROM_WEIGHTS = ("l1", "l2", "bn_scale", "geometric_median", "random")
FROM_DATA = ("taylor", "activation")
KINDS = FROM_WEIGHTS + FROM_DATA


def score(
    model: keras.Model,
    kind: str,
    batches: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Importance of every channel that may be pruned: {group name: (size,) float64}.

    model: a functional model (or the Channels of one). kind: one of KINDS. batches: for "activation" arrays that the
    model takes, for "taylor" pairs (x, y). loss(y, outputs) -> scalar tensor, for "taylor". seed: for "random".
    """
    channels = model if isinstance(model, Channels) else Channels(model)
    if kind not in KINDS:
        raise UsageError(f"unknown importance {kind!r}", expected="one of " + ", ".join(KINDS))
    if kind == "random":
        rng = np.random.default_rng(seed)
        values = {group.name: rng.random(group.size) for group in channels.groups if not group.fixed}
        return {name: _lamp(v) for name, v in values.items()}
    if kind in FROM_DATA and (batches is None or kind == "taylor" and loss is None):
        raise UsageError(
            f"importance {kind!r} needs data",
            expected="batches" + (" and a loss" if kind == "taylor" else ""),
            remedy="pass them to score(), or take one of " + ", ".join(FROM_WEIGHTS),
        )
    if kind == "taylor" and batches is not None and loss is not None:
        return _taylor(channels, batches, loss)
    if kind == "activation" and batches is not None:
        found = _activations(channels, batches)
    else:
        found = [
            (record.opens, _filters(channels, record, kind))
            for record in channels.records.values()
            if record.opens is not None
        ]
        if kind == "bn_scale":
            scales = [(record.carries, np.abs(np.asarray(record.layer.gamma))) for record in norms(channels)]
            # A group without batch normalisation is ranked by its weights.
            have = np.zeros(len(channels.groups), bool)
            for ids, _ in scales:
                have[channels.group_of[ids]] = True
            found = [(ids, v) for ids, v in found if not have[channels.group_of[ids]].any()] + scales
    return {name: _lamp(v) for name, v in _gather(channels, _even(found)).items()}


def norms(channels: Channels) -> list[Record]:
    """The records of batch normalisations with a scale."""
    return [
        record
        for record in channels.records.values()
        if isinstance(record.layer, keras.layers.BatchNormalization)
        and not record.unknown
        and record.layer.gamma is not None
    ]


def _gather(channels: Channels, found: list[tuple[Any, Any]]) -> dict[str, np.ndarray]:
    """Sums over the places where each element is: found is [(channel numbers, values)]."""
    sums = [np.zeros(group.size) for group in channels.groups]
    for ids, values in found:
        groups, elements = channels.group_of[ids], channels.element_of[ids]
        for index in np.unique(groups).tolist():
            own = groups == index
            np.add.at(sums[index], elements[own], np.asarray(values, np.float64)[own])
    return {group.name: total for group, total in zip(channels.groups, sums) if not group.fixed}


def _even(found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The same with every place's values over their mean: a layer with large weights must not decide alone."""
    return [(ids, np.asarray(values) / (np.mean(values) or 1.0)) for ids, values in found]


def _lamp(values: np.ndarray) -> np.ndarray:
    order = np.argsort(values, kind="stable")
    squares = np.square(np.asarray(values, np.float64)[order]) + 1e-24
    scores = np.empty(len(values))
    scores[order] = squares / np.cumsum(squares[::-1])[::-1]
    return scores


def _filters(channels: Channels, record: Record, kind: str) -> np.ndarray:
    """(channels made,) the measure of a layer's own filters."""
    filters = _matrix(record) * _folded(channels, record)[:, None]
    if kind == "geometric_median":
        squares = np.square(filters).sum(axis=1)
        distance = squares[:, None] + squares[None] - 2 * filters @ filters.T
        return np.sqrt(np.maximum(distance, 0)).sum(axis=1)
    return np.abs(filters).sum(axis=1) if kind == "l1" else np.sqrt(np.square(filters).sum(axis=1))


def _matrix(record: Record) -> np.ndarray:
    """A layer's kernel as (channels made, everything else); ones for a layer whose weights are not understood."""
    for cut in record.slices:
        if cut.ids is record.opens and cut.variable != "bias":
            kernel = np.asarray(getattr(record.layer, cut.variable), np.float64)
            return np.moveaxis(kernel, cut.axis, 0).reshape(len(record.opens), -1)
    return np.ones((len(record.opens), 1))


def _folded(channels: Channels, record: Record) -> np.ndarray:
    """What the batch normalisation right after a layer multiplies its channels by."""
    for norm in channels.records.values():
        if (
            norm.source is record.layer
            and isinstance(norm.layer, keras.layers.BatchNormalization)
            and not norm.unknown
            and len(norm.layer.moving_variance.shape) == 1
        ):
            spread = np.sqrt(np.asarray(norm.layer.moving_variance, np.float64) + norm.layer.epsilon)
            gamma = 1.0 if norm.layer.gamma is None else np.asarray(norm.layer.gamma, np.float64)
            if len(spread) == len(record.opens):
                return np.abs(gamma / spread)
    return np.ones(len(record.opens))


def _activations(channels: Channels, batches: Iterable[Any]) -> list[tuple[Any, Any]]:
    """The largest |value| of each channel of the tensors that layers with weights read, meaned over the batches.

    Not the mean over all places, which arXiv:1611.06440 takes for classifiers: a detector's most telling channels are
    silent but on faces, in a hundredth of the places, and would go first. Measured on the shipped `s`, a quarter of its
    multiply-adds removed without fine-tuning: val mAP50 4.9 by the mean, 35.5 by the root mean square, 43.1 by the
    largest (random 44.5, taylor 60.7). How loud a channel is says little about what depends on it.
    """
    graph = channels.graph
    tensors: list[Any] = []
    numbers: list[Any] = []

    def call(operation: Any, args: Any, kwargs: Any, path: Any, outputs: Any) -> Any:
        record = channels.records[id(operation)]
        cut = next((cut for cut in record.slices if cut.reads), None)
        first = next((t for t in keras.tree.flatten((args, kwargs)) if isinstance(t, keras.KerasTensor)), None)
        # A grouped kernel's axis is shorter than the tensor: its other channels are tied to those.
        if (
            cut is not None
            and first is not None
            and first.shape[-1] == len(cut.ids)
            and not any(t is first for t in tensors)
        ):
            tensors.append(first)
            numbers.append(cut.ids)
        return operation(*args, **kwargs) if path else list(outputs)

    walk(graph, graph.inputs, call)
    watch = keras.Model(graph._inputs_struct, tensors)
    sums, count = [np.zeros(len(ids)) for ids in numbers], 0
    for x in batches:
        values = watch(x, training=False)
        for total, value in zip(sums, values if isinstance(values, (list, tuple)) else [values]):
            value = np.abs(np.asarray(value, np.float64))
            total += value.reshape(-1, value.shape[-1]).max(axis=0)
        count += 1
    if not count:
        raise UsageError("no batch to measure activations on", expected="at least one")
    return [(ids, total / count) for ids, total in zip(numbers, sums)]


class _Catch(keras.optimizers.Optimizer):
    """Keeps the gradients of a step in place of using them: Keras' own way to gradients on every backend."""

    def __init__(self) -> None:
        super().__init__(learning_rate=0.0, name="catch")

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.caught = [self.add_variable_from_reference(v, name="caught") for v in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign(self.caught[self._get_variable_index(variable)], gradient)


class Scored(keras.Model):
    """A model with a loss, run as at inference, so that batch statistics do not hide a channel."""

    def __init__(self, net: keras.Model, loss: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.net, self.own_loss = net, loss

    def call(self, x: Any, training: Any = None) -> Any:
        return self.net(x, training=False)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: Any = True
    ) -> Any:
        return self.own_loss(y, y_pred)


def _taylor(channels: Channels, batches: Iterable[Any], loss: Callable[[Any, Any], Any]) -> dict[str, np.ndarray]:
    """Mean over batches of (sum of parameter * gradient)^2, over the parameters that a gate on the channel would scale.

    Such a gate sits behind the batch normalisation where one follows, else behind the layer itself.
    """
    gates = []  # (channel numbers, [(variable, axis)])
    for record in channels.records.values():
        if record.opens is None or record.unknown:
            continue
        norm = next((n for n in norms(channels) if n.source is record.layer), None)
        if norm is not None:
            gates.append((norm.carries, [(v, 0) for v in (norm.layer.gamma, norm.layer.beta) if v is not None]))
        else:
            own = [(getattr(record.layer, c.variable), c.axis) for c in record.slices if c.ids is record.opens]
            gates.append((record.opens, own))
    model = channels.graph
    trainable = {layer: layer.trainable for layer in model._flatten_layers() if not layer._layers}
    before = [np.array(v) for v in model.variables]
    total, count = [np.zeros(len(ids)) for ids, _ in gates], 0
    try:
        for layer in trainable:
            layer.trainable = True
        catch = _Catch()
        scored = Scored(model, loss)
        scored.compile(catch, jit_compile=False)
        for x, y in batches:
            scored.train_on_batch(x, y)
            caught = {id(v): np.asarray(g, np.float64) for v, g in zip(catch._trainable_variables, catch.caught)}
            for sums, (ids, variables) in zip(total, gates):
                change = np.zeros(len(ids))
                for variable, axis in variables:
                    product = np.asarray(variable, np.float64) * caught.get(id(variable), 0.0)
                    change += np.moveaxis(product, axis, 0).reshape(len(ids), -1).sum(axis=1)
                sums += np.square(change)
            count += 1
    finally:
        for layer, was in trainable.items():
            layer.trainable = was
        for variable, value in zip(model.variables, before):
            variable.assign(value)
    if not count:
        raise UsageError("no batch to measure gradients on", expected="at least one")
    # Removing an element removes it at all its places: the changes add up.
    return _gather(channels, [(ids, sums / count) for (ids, _), sums in zip(gates, total)])
