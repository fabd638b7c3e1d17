"""Choosing: the most accurate candidate within limits, and which limit binds where there is none."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Candidate(NamedTuple):
    """One row to choose from. map50 in points, ms for one image on the target, bytes of the model's file (None: not
    known, and so within no limit)."""

    name: str
    map50: float
    ms: float
    bytes: int | None
    how: str = "measured"
    high_ms: float | None = None


class Limits(NamedTuple):
    """What must hold; None: anything."""

    max_ms: float | None = None
    max_bytes: int | None = None
    min_ap: float | None = None


class Choice(NamedTuple):
    """The best candidate within the limits and the next one (None: there is none); `loosened` when there is none."""

    best: Candidate | None
    runner_up: Candidate | None
    within: int
    loosened: dict[str, Candidate]


def choose(candidates: Sequence[Candidate], limits: Limits = Limits()) -> Choice:  # noqa: B008 - a tuple cannot change
    """The most accurate candidate within the limits; of equals the faster one, then the smaller, then by name.

    When nothing is within, `loosened` says for each limit which candidate would be, if that limit alone were loosened
    as little as possible.
    """
    within = sorted((c for c in candidates if not broken(c, limits)), key=_rank)
    if within:
        return Choice(within[0], within[1] if len(within) > 1 else None, len(within), {})
    loosened = {}
    for name in Limits._fields:
        if getattr(limits, name) is None:
            continue
        others = [c for c in candidates if broken(c, limits) == [name] and _excess(c, name) < math.inf]
        if others:
            loosened[name] = min(others, key=lambda c: (_excess(c, name), _rank(c)))
    return Choice(None, None, 0, loosened)


def broken(candidate: Candidate, limits: Limits) -> list[str]:
    """The names of the limits that a candidate breaks."""
    out = []
    if limits.max_ms is not None and not candidate.ms <= limits.max_ms:
        out.append("max_ms")
    if limits.max_bytes is not None and not size_of(candidate) <= limits.max_bytes:
        out.append("max_bytes")
    if limits.min_ap is not None and not candidate.map50 >= limits.min_ap:
        out.append("min_ap")
    return out


def _rank(c: Candidate) -> tuple:
    return (-c.map50, c.ms, size_of(c), c.name)


def size_of(candidate: Candidate) -> float:
    return math.inf if candidate.bytes is None else candidate.bytes


def _excess(candidate: Candidate, name: str) -> float:
    return {"max_ms": candidate.ms, "max_bytes": size_of(candidate), "min_ap": -candidate.map50}[name]
