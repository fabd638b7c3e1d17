"""Latencies in a histogram of fixed size: percentiles over months without growing memory."""

import math
import threading
import time
from collections import deque
from typing import Deque, Dict, List, Optional, Tuple

import numpy as np

_LOW_MS = 0.01
_STEP = 1.03  # the width of a bucket: a percentile is right within 1.5 %
_BUCKETS = 560  # 0.01 ms * 1.03 ** 560 = 154 s
_LOG_STEP = math.log(_STEP)
WINDOW_S = 30.0
_TOGETHER = 256


class Histogram:
    """Counts of durations in ms. `percentiles()` speak of the last 30 to 60 s, `count` and `sum_ms` of all time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # What was added since somebody asked: to count one alone costs more than many together.
        self._waiting: Deque[Tuple[float, float]] = deque()
        self._now = [0] * _BUCKETS
        self._before = [0] * _BUCKETS
        self._turned = time.monotonic()
        self._count = 0
        self._sum_ms = 0.0

    def add(self, ms: float, now: Optional[float] = None) -> None:
        """Count one duration; `now`: time.monotonic(), where the caller has just asked for it."""
        self._waiting.append((ms, time.monotonic() if now is None else now))
        if len(self._waiting) >= _TOGETHER:
            with self._lock:
                self._add_all()

    @property
    def count(self) -> int:
        """Durations of all time."""
        with self._lock:
            self._add_all()
            return self._count

    @property
    def sum_ms(self) -> float:
        """Their sum."""
        with self._lock:
            self._add_all()
            return self._sum_ms

    def _add_all(self) -> None:
        for _ in range(len(self._waiting)):
            ms, now = self._waiting.popleft()
            self._turn(now)
            self._now[0 if ms <= _LOW_MS else min(_BUCKETS - 1, int(math.log(ms / _LOW_MS) / _LOG_STEP))] += 1
            self._count += 1
            self._sum_ms += ms

    def _turn(self, now: float) -> None:
        if now - self._turned > WINDOW_S:
            self._before = self._now if now - self._turned <= 2 * WINDOW_S else [0] * _BUCKETS
            self._now = [0] * _BUCKETS
            self._turned = now

    def clear(self) -> None:
        """Forget the durations of late; `count` and `sum_ms` go on."""
        with self._lock:
            self._add_all()
            self._now, self._before = [0] * _BUCKETS, [0] * _BUCKETS

    def percentiles(self) -> Dict[str, float]:
        """{"p50", "p95", "p99"} in ms and the "n" they rest on; an empty dict when nothing was counted lately."""
        with self._lock:
            self._add_all()
            self._turn(time.monotonic())
            counts = np.add(self._now, self._before)
        total = int(counts.sum())
        if not total:
            return {}
        summed = np.cumsum(counts)
        result: Dict[str, float] = {"n": total}
        for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
            bucket = int(np.searchsorted(summed, max(1, math.ceil(share * total))))
            # The geometric middle of the bucket errs least on either side.
            result[name] = round(_LOW_MS * _STEP ** (bucket + 0.5), 3)
        return result


class Rate:
    """Events a second over the last few seconds."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._marks: List[List[float]] = []  # [second of the first, count]
        self._lock = threading.Lock()

    def add(self, now: float, count: int = 1) -> None:
        """Count events at monotonic time `now`."""
        with self._lock:
            if self._marks and now - self._marks[-1][0] < 0.25:
                self._marks[-1][1] += count
            else:
                self._marks.append([now, count])
                del self._marks[:-64]

    def value(self, now: float) -> float:
        """Events a second at time `now`."""
        with self._lock:
            marks = [mark for mark in self._marks if now - mark[0] <= self._seconds]
            if len(marks) == 1:  # so slow that the pause before it tells the rate, or just begun
                marks = self._marks[-2:]
        if not marks:
            return 0.0
        first, newest = marks[0][0], marks[-1]
        before = sum(mark[1] for mark in marks[:-1])
        # What came from the first mark up to the newest, which is still filling; in a silence up to now.
        return min(before / max(newest[0] - first, 0.25), (before + newest[1]) / max(now - first, 0.25))
