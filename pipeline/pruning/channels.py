"""Which layers of a Keras model share channels: one dependency pass over a functional graph.

Every layer that makes channels (a convolution, a dense layer) opens a number for each of them; every other layer
passes them on, repeats them (depthwise, Flatten), joins them (Add, Multiply: union-find) or lines them up
(Concatenate). Numbers joined to one another stand for one channel, which can only be removed everywhere at once. The
same idea as DepGraph (arXiv:2301.12900), for single channels instead of layers, so that offsets of a Concatenate need
no care.

What a layer does is known by its class, base classes included; a class of the user's own is tried on random numbers
with and without some of its channels, at inference. What is not known, or not as it seems, is not guessed: the channels
that reach it and those that leave it stay, and the group says which layer is the reason.
"""

from typing import Any, NamedTuple

import keras
import numpy as np

from jetson.errors import UsageError
from pipeline.models import rebuild
from pipeline.models.functional import functional, walk
from pipeline.pruning.channel_numbers import Numbers, Record, Unknown, Value
from pipeline.pruning.channel_rules import rule_for

INPUT, OUTPUT = "input of the model", "output of the model"


class Group(NamedTuple):
    """Channels that can be removed independently of one another, one by one, and that the same layers make.

    size: how many. layers: names of the layers that make them. fixed: why they must stay, None where they need not.
    """

    name: str
    size: int
    layers: tuple
    fixed: str | None


class Channels(Numbers):
    """The pass and what it found.

    groups: all groups, in the order of the graph. group_of, element_of: for every channel number, the index of its
    group and its place in it. records: {id(layer): Record} in the order of the graph.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        graph = functional(model)
        if graph is None:
            raise UsageError(
                "not a functional model",
                where=f"model {model.name!r} ({type(model).__name__})",
                expected="a Keras model made from inputs and outputs, or a built Sequential",
                remedy="build the model with keras.Model(inputs, outputs)",
            )
        self.graph = graph
        self.records: dict[int, Record] = {}
        inputs = [self._value(tensor.shape, tensor.name, INPUT) for tensor in graph.inputs]
        for value in walk(graph, inputs, self._call):
            self._fixed.append((value.ids, OUTPUT))
        for record in self.records.values():
            if record.first is not None:
                record.lost = rebuild.lost(record, record.first) or ""
            if record.given is not None and not record.unknown:
                self._try(record)
        self._settle()

    def _value(self, shape: tuple[int | None, ...], name: str, reason: str, maker: Any = None) -> Value:
        count = shape[-1] if len(shape) > 1 and shape[-1] else 1
        ids = self._open(count, name)
        self._fixed.append((ids, reason))
        return Value(ids, tuple(shape), maker)

    def _call(self, operation: Any, args: Any, kwargs: Any, path: tuple[str, ...], outputs: Any) -> Any:
        inputs = [v for v in keras.tree.flatten((args, kwargs)) if isinstance(v, Value)]
        record = self.records.setdefault(id(operation), Record(operation))
        record.source = inputs[0].maker if inputs else None
        if record.first is None and rebuild.own(operation):
            record.first = args, kwargs
        try:
            shape = outputs[0].shape
            if record.unknown:
                raise Unknown(record.unknown)
            if len(outputs) != 1 or len(shape) < 2:
                raise Unknown("it has no single output with channels")
            ids = rule_for(operation)(self, record, inputs, shape, args, kwargs)
        except Unknown as error:
            record.unknown = str(error)
            reason = f"layer {operation.name!r} ({type(operation).__name__}): {error}"
            # What an earlier use of the layer tied to its weights must stay too.
            touched = [v.ids for v in inputs] + [s.ids for s in record.slices] + list(record.counts.values())
            for ids in touched:
                self.fix(ids, reason)
            return [self._value(tensor.shape, operation.name, reason, operation) for tensor in outputs]
        record.carries = ids
        if record.given is None and rebuild.own(operation):
            record.given = args, kwargs
        return Value(ids, tuple(shape), operation)

    def _try(self, record: Record) -> None:
        """Fix what a layer of the user's own class does not let go: its inputs' channels, its output's, or both."""
        roots = self._roots()
        taken = [v.ids for v in keras.tree.flatten(record.given) if isinstance(v, Value)]
        layer = record.layer
        for ids in (np.concatenate(taken), record.carries):
            own = np.unique(roots[ids])
            for part in _parts(own) if len(own) > 1 else ():
                why = rebuild.differs(record, record.given, ~np.isin(roots, part))
                if why:
                    self.fix(ids, f"layer {layer.name!r} ({type(layer).__name__}): not as its base class: {why}")
                    break

    def _roots(self) -> np.ndarray:
        """(channel numbers,) the number that stands for each and all that it is joined to."""
        parent = np.array(self._parent)
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
        return parent

    def _settle(self) -> None:
        """Joined numbers become elements, elements made by the same layers become groups."""
        parent = self._roots()
        makers: dict[int, list[tuple[int, int]]] = {}
        for index, (_, ids) in enumerate(self._opened):
            roots, counts = np.unique(parent[ids], return_counts=True)
            for root, count in zip(roots.tolist(), counts.tolist()):
                makers.setdefault(root, []).append((index, count))
        reasons: dict[int, str] = {}
        for ids, reason in self._fixed:
            for root in np.unique(parent[ids]).tolist():
                # The most telling reason: a layer that was not understood, before "it is an output".
                if root not in reasons or reasons[root] in (INPUT, OUTPUT):
                    reasons[root] = reason
        sets: dict[tuple[tuple[tuple[int, int], ...], str | None], list[int]] = {}
        for root in sorted(makers):  # the smallest number of a channel is in the first layer that makes it
            sets.setdefault((tuple(makers[root]), reasons.get(root)), []).append(root)
        self.groups: list[Group] = []
        group_of: dict[int, int] = {}
        element_of: dict[int, int] = {}
        names: dict[str, int] = {}
        for (made_by, kept), members in sets.items():
            first = self._opened[made_by[0][0]][0]
            names[first] = names.get(first, 0) + 1
            name = first if names[first] == 1 else f"{first}#{int(names[first])}"
            unique = tuple(dict.fromkeys(self._opened[index][0] for index, _ in made_by))
            for element, root in enumerate(members):
                group_of[root], element_of[root] = len(self.groups), element
            self.groups.append(Group(name, len(members), unique, kept))
        self.group_of = np.array([group_of[root] for root in parent.tolist()])
        self.element_of = np.array([element_of[root] for root in parent.tolist()])

    # What pruning, importance and cost use.

    def counts(self, ids: np.ndarray) -> np.ndarray:
        """(groups,) how many of these channel numbers one element of each group stands for."""
        times = np.bincount(self.group_of[ids], minlength=len(self.groups))
        return times / np.array([group.size for group in self.groups])

    def index(self, name: str) -> int | None:
        """The index of a group by its name."""
        return next((i for i, group in enumerate(self.groups) if group.name == name), None)


def _parts(own: Any) -> Any:
    """Sets of channels to try a layer without: a layer that pairs its channels, near ones or the halves, or that takes
    them in blocks, is not itself without one of these."""
    some = np.random.default_rng(0).permutation(own)
    return own[::2], own[1::2], own[: len(own) // 2], own[len(own) // 2 :], some[: max(1, len(own) // 3)]


def channel_groups(model: keras.Model) -> list[Group]:
    """The groups of channels of a functional model, in the order of its graph: list of Group."""
    return Channels(model).groups
