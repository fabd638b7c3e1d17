"""The channels of a graph as numbers, while a pass goes over it: those that layers open, and which of them are one.

The pass is pipeline/pruning/channels.py; what each Keras layer does to them is in pipeline/pruning/channel_rules.py.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


class Unknown(Exception):
    """A layer, or a use of it, that the pass does not understand."""


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


class Numbers:
    """What the rules of the layers work on: channel numbers from 0 on, joined by union-find, some of them fixed."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._opened: list[tuple[str, np.ndarray]] = []  # (name, ids)
        self._fixed: list[tuple[np.ndarray, str]] = []  # (ids, reason)

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
