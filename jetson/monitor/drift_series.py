"""Then and now of one measured signal: histograms of fixed size, and what difference between them is more than usual.

Time is cut into slices (an hour each, by default), each a histogram. The first 168 are the reference, the last 6 the
present. The distance is the earth mover's (Wasserstein-1), in the signal's own unit: it grows with how far values have
moved, so it neither jumps for one bin nor needs bins without zeros, as the population stability index does.

What is usual is not computed from the number of values, since those of one hour hang together: the reference is asked
itself. Each run of 6 of its slices is held against all its others, in the same way as the present will be; the largest
of those distances is what a usual week contains. Slices are compared with slices of the same time of day (an hour to
either side), so that a night is held against nights.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from jetson.errors import BadInput

REFERENCE = 168  # slices: seven days of hours
NOW = 6
OLD = 48  # slices: what is longer ago than these is not the present, although nothing came since
MARGIN = 1.5  # times the largest distance within the reference
_FEWEST = 20  # values in a window of NOW slices; below that it says nothing
_DAY_S, _HOUR_S = 86400.0, 3600.0
_MOST_COUNT = 1 << 40


class Scale(NamedTuple):
    name: str
    title: str
    low: float
    high: float
    bins: int
    floor: float
    falls: bool


class Slice:
    """Values between `began` (Unix seconds) and a slice's length later, counted into bins."""

    __slots__ = ("began", "counts")

    def __init__(self, began: float, counts: np.ndarray) -> None:
        self.began = began
        self.counts = counts


def distance(first: np.ndarray, second: np.ndarray, width: float) -> float:
    """The earth mover's distance of two histograms (M,) that are not empty, bins `width` apart."""
    apart = np.cumsum(first) / first.sum() - np.cumsum(second) / second.sum()
    return float(np.abs(apart[:-1]).sum() * width)


def same_time(hours: np.ndarray) -> np.ndarray:
    """Which of the slices that began at `hours` (N,) belong to each hour of the day: bool (N, 24)."""
    apart = np.abs(hours[:, None] - np.arange(24)[None])
    return np.minimum(apart, 24 - apart) <= 1


class Series:
    """One signal of one camera. `slice_s`: seconds of a slice; `key`: what it was measured with (another: anew)."""

    def __init__(self, scale: Scale, slice_s: float, key: str = "") -> None:
        self.scale = scale
        self.slice_s = slice_s
        self._begin(key)

    def _begin(self, key: str) -> None:
        self.key = key
        self.reference: List[Slice] = []
        self.recent: List[Slice] = []
        self.open: Optional[Slice] = None
        self._usual: Optional[Dict[str, float]] = None

    def add(self, values: Any, wall: float, key: Optional[str] = None) -> None:
        """Count values measured at Unix time `wall`; none is an answer too (no face), and the slice goes on."""
        if key is not None and key != self.key:
            self._begin(key)  # another model: its scores are no drift of the camera
        # Slices begin on the clock's full hours; a clock that jumps (NTP after a cold start) ends one either way.
        began = wall // self.slice_s * self.slice_s
        if self.open is not None and abs(began - self.open.began) > 0.5 * self.slice_s:
            self._close()
        if self.open is None:
            self.open = Slice(began, np.zeros(self.scale.bins, np.int64))
        if len(values):
            share = (np.asarray(values, np.float64) - self.scale.low) / (self.scale.high - self.scale.low)
            share = share[np.isfinite(share)]
            bins = np.clip(share * self.scale.bins, 0, self.scale.bins - 1).astype(np.intp)
            np.add.at(self.open.counts, bins, 1)

    def _close(self) -> None:
        if self.open is None:
            return
        if len(self.reference) < REFERENCE:
            self.reference.append(self.open)
            self._usual = None
        else:
            self.forget_old(self.open.began)
            self.recent = (self.recent + [self.open])[-NOW:]
        self.open = None

    def forget_old(self, wall: float) -> None:
        """At Unix time `wall`, take nothing for the present that is older than OLD slices: the runner was away."""
        # What comes from the future stays: a clock that is behind until NTP sets it says nothing of its age.
        self.recent = [part for part in self.recent if wall - part.began <= OLD * self.slice_s]

    @property
    def width(self) -> float:
        """The width of a bin."""
        return (self.scale.high - self.scale.low) / self.scale.bins

    def usual(self) -> Dict[str, float]:
        """{"distance", "values"}: the largest distance of a run of slices within the reference, values in a run."""
        if self._usual is None:
            counts = np.array([part.counts for part in self.reference], np.float64)
            match = same_time(self._hours(self.reference))
            whole, total = match.T.astype(np.float64).dot(counts), counts.sum(axis=0)
            distances, values = [], []
            for first in range(len(counts) - NOW + 1):
                run = slice(first, first + NOW)
                mine = counts[run].sum(axis=0)
                rest = self._expected(
                    self._hours(self.reference[run]),
                    counts[run].sum(axis=1),
                    whole - match[run].T.astype(np.float64).dot(counts[run]),
                    total - mine,
                )
                if mine.sum() >= _FEWEST and rest.sum() > 0:
                    distances.append(distance(mine, rest, self.width))
                    values.append(mine.sum())
            # The most of a few windows is not the most of a week: a signal that is measured too rarely is not judged.
            enough = len(distances) >= (len(counts) - NOW + 1) / 2
            self._usual = {"distance": max(distances), "values": float(np.median(values))} if enough else {}
        return self._usual

    @staticmethod
    def _hours(parts: Sequence[Slice]) -> np.ndarray:
        return np.array([int(part.began % _DAY_S // _HOUR_S) for part in parts], np.intp)

    @staticmethod
    def _expected(hours: np.ndarray, weights: np.ndarray, by_hour: np.ndarray, total: np.ndarray) -> np.ndarray:
        """What slices at `hours` with `weights` values each would hold if all were as in the reference: (bins,)."""
        result = np.zeros_like(total, np.float64)
        for hour, weight in zip(hours, weights):
            there = by_hour[hour] if by_hour[hour].sum() > 0 else total
            if there.sum() > 0:
                result += weight * there / there.sum()
        return result

    def verdict(self) -> Dict[str, Any]:
        """What is to be said now.

        {"state", "learned", "of", "then", "now" (shares per bin or None), "values_then", "values_now", "mean_then",
        "mean_now", "distance", "limit", "ratio"}. state: "none" (never measured), "learning", "waiting" (the present
        is not full yet), "few" (too few values to tell), "judged"; ratio is distance / limit.
        """
        value: Dict[str, Any] = dict.fromkeys(("then", "now", "mean_then", "mean_now", "distance", "limit", "ratio"))
        past = self.reference + ([self.open] if self.open is not None and len(self.reference) < REFERENCE else [])
        counts = np.array([part.counts for part in past], np.float64).reshape(-1, self.scale.bins)
        total = counts.sum(axis=0)
        mine = np.array([part.counts for part in self.recent], np.float64).reshape(-1, self.scale.bins)
        present, expected = mine.sum(axis=0), total
        if len(mine) and present.sum() > 0:
            match = same_time(self._hours(past)).T.astype(np.float64)
            expected = self._expected(self._hours(self.recent), mine.sum(axis=1), match.dot(counts), total)
        value.update(
            learned=len(self.reference), of=REFERENCE, values_then=int(total.sum()), values_now=int(present.sum())
        )
        for name, histogram in (("then", expected), ("now", present)):
            if histogram.sum() > 0:
                share = histogram / histogram.sum()
                centres = self.scale.low + (np.arange(self.scale.bins) + 0.5) * self.width
                value[name] = [round(float(part), 4) for part in share]
                value["mean_" + name] = round(float((share * centres).sum()), 3)
        if not past:
            value["state"] = "none"
        elif len(self.reference) < REFERENCE:
            value["state"] = "learning"
        elif len(self.recent) < NOW:
            value["state"] = "waiting"
        elif present.sum() < _FEWEST or not self.usual():
            value["state"] = "few"
        else:
            usual = self.usual()
            # Fewer values than the reference's windows had scatter more.
            limit = MARGIN * usual["distance"] * max(1.0, usual["values"] / present.sum()) ** 0.5
            limit = max(float(limit), self.scale.floor)
            moved = distance(present, expected, self.width)
            if self.scale.falls and value["mean_now"] > value["mean_then"]:
                moved = 0.0
            value.update(state="judged", distance=round(moved, 4), limit=round(limit, 4), ratio=round(moved / limit, 3))
        return value

    # -- on the disk ----------------------------------------------------------------------------------------------

    def to_json(self) -> Dict[str, Any]:
        """For a JSON file."""

        def rows(parts: Sequence[Slice]) -> List[List[Any]]:
            return [[round(part.began, 3), " ".join(str(int(n)) for n in part.counts)] for part in parts]

        return {
            "key": self.key,
            "reference": rows(self.reference),
            "recent": rows(self.recent),
            "open": rows([self.open] if self.open is not None else []),
        }

    @classmethod
    def from_json(cls, scale: Scale, slice_s: float, value: Any, where: str) -> "Series":
        """Read what `to_json` gave; BadInput names `where`."""
        made = cls(scale, slice_s)

        def rows(name: str, most: int) -> List[Slice]:
            found = []
            if not isinstance(value.get(name), list) or len(value[name]) > most:
                raise ValueError(f"{name} is not a list of up to {most} slices")
            for began, text in value[name]:
                counts = np.array([int(n) for n in text.split(" ")], np.int64)
                if len(counts) != scale.bins or counts.min() < 0 or counts.max() > _MOST_COUNT:
                    raise ValueError(f"{name} has a slice that is not {scale.bins} counts")
                if not 0 <= float(began) < 1e11:
                    raise ValueError(f"{name} has a slice without a time")
                found.append(Slice(float(began), counts))
            return found

        try:
            made.key = str(value["key"])
            made.reference, made.recent = rows("reference", REFERENCE), rows("recent", NOW)
            made.open = next(iter(rows("open", 1)), None)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise BadInput(
                f"not a valid drift file: {error}",
                where,
                "a file that `serve --drift` wrote",
                "move the file away to start learning again",
            ) from error
        if made.recent and len(made.reference) < REFERENCE:
            raise BadInput(
                "not a valid drift file: it has recent data, but its reference period is incomplete",
                where,
                "a file that `serve --drift` wrote",
                "move the file away to start learning again",
            )
        return made
