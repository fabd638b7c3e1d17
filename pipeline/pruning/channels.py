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

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from jetson.errors import UsageError
from pipeline.models import rebuild
from pipeline.models.functional import functional, walk
from pipeline.pruning.channel_rules import Unknown, rule_for

INPUT, OUTPUT = "input of the model", "output of the model"


class Group(NamedTuple):
    """Channels that can be removed independently of one another, one by one, and that the same layers make.

    size: how many. layers: names of the layers that make them. fixed: why they must stay, None where they need not.
    """

    name: str
    size: int
    layers: tuple
    fixed: str | None


@dataclass
class Value:
    """A tensor during the pass: the number of each channel on its last axis, its shape (None: open), and the layer or
    operation that made it (None: an input)."""

    ids: np.ndarray
    shape: tuple
    maker: object = None

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass
class Slice:
    """An axis of a layer's variable that runs along channels; `reads`: its input's (else those it makes or carries)."""

    variable: str
    axis: int
    ids: np.ndarray
    reads: bool = False


@dataclass
class Record:
    """What the pass found of one layer.

    slices: variables to cut. counts: config entries that count channels. opens: numbers of the channels it makes,
    carries: the numbers on its output. source: the layer whose output it takes. unknown: why it was not understood.
    first: the arguments of its first use, with a Value for each tensor, where its class is the user's own; given: those
    of its first use that was understood. lost: why what is made anew from its configuration and its weights is not the
    same layer.
    """

    layer: Any  # a Keras layer or operation
    slices: list[Any] = field(default_factory=list)
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    opens: Any = None  # (channels,) int, None: it makes none
    carries: Any = None  # (channels,) int, None: not understood
    source: Any = None
    unknown: str = ""
    first: tuple[Any, ...] | None = None
    given: tuple[Any, ...] | None = None
    lost: str = ""


class Channels:
    """The pass and what it found.

    groups: all groups, in the order of the graph. group_of, element_of: for every channel number, the index of its
    group and its place in it. records: {id(layer): Record} in the order of the graph.
    """

    def __init__(self, model: keras.Model) -> None:
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
        self._parent: list[int] = []
        self._opened: list[tuple[str, np.ndarray]] = []  # (name, ids)
        self._fixed: list[tuple[np.ndarray, str]] = []  # (ids, reason)
        inputs = [self._value(tensor.shape, tensor.name, INPUT) for tensor in graph.inputs]
        for value in walk(graph, inputs, self._call):
            self._fixed.append((value.ids, OUTPUT))
        for record in self.records.values():
            if record.first is not None:
                record.lost = rebuild.lost(record, record.first) or ""
            if record.given is not None and not record.unknown:
                self._try(record)
        self._settle()

    # What the rules below use.

    def reads(self, record: Record, ids: np.ndarray, *slices: Any) -> None:
        """The layer's weights have an axis along these channels, ids int (N,); used again, its inputs are one."""
        self._carry(record, ids, slices, True)

    def carries(self, record: Record, ids: np.ndarray, *slices: Any) -> None:
        """The layer's weights have an axis along these channels, ids int (N,), that it passes on and does not sum."""
        self._carry(record, ids, slices, False)

    def _carry(self, record: Record, ids: np.ndarray, slices: Any, reads: bool) -> None:
        for variable, axis in slices:
            if getattr(record.layer, variable, None) is None:
                continue
            known = next((s for s in record.slices if (s.variable, s.axis) == (variable, axis)), None)
            if known:
                self.tie(known.ids, ids)
            else:
                record.slices.append(Slice(variable, axis, ids, reads))

    def opens(self, record: Record, count: int, *slices: Any) -> np.ndarray:
        """Numbers of the channels that the layer makes, the same ones at every use of it."""
        if record.opens is None:
            record.opens = self._open(count, record.layer.name)
            self.carries(record, record.opens, *slices)
        return record.opens

    def fix(self, ids: np.ndarray, reason: str) -> None:
        """None of these channels, ids int (N,), may be removed; the reason is told."""
        self._fixed.append((ids, reason))

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Channels at the same place in both, int (N,) each, are one."""
        if a is b:
            return
        parent = self._parent
        for x, y in zip(a.tolist(), b.tolist()):
            while parent[x] != x:
                parent[x] = x = parent[parent[x]]
            while parent[y] != y:
                parent[y] = y = parent[parent[y]]
            if x != y:
                parent[max(x, y)] = min(x, y)

    def _open(self, count: int, name: str) -> np.ndarray:
        ids = np.arange(len(self._parent), len(self._parent) + count)
        self._parent.extend(ids.tolist())
        self._opened.append((name, ids))
        return ids

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
