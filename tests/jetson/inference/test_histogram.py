"""Latencies that are counted together later, as if each had been counted at once."""

import random
import threading

import pytest

from jetson.inference import histogram


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.mark.parametrize("seed", range(10))
def test_when_it_is_asked_changes_nothing(monkeypatch, seed):
    """One is asked after each duration, the other rarely; both know the same of the last 30 to 60 s and of all time."""
    clock, draw = Clock(), random.Random(seed)
    monkeypatch.setattr(histogram, "time", clock)
    often, rarely = histogram.Histogram(), histogram.Histogram()
    for _ in range(700):
        clock.now += draw.choice([0.0, 0.03, 0.03, 1.0, 20.0 if draw.random() < 0.05 else 0.1])
        ms = draw.choice([0.0, 0.005, 1e9, draw.uniform(0.01, 300.0)])
        for one in (often, rarely):
            one.add(ms, clock.now)
        often.percentiles()
        if draw.random() < 0.02:
            assert rarely.percentiles() == often.percentiles()
        if draw.random() < 0.01:
            often.clear()
            rarely.clear()
    clock.now += draw.choice([0.0, 31.0, 100.0])
    assert rarely.percentiles() == often.percentiles()
    assert rarely.count == often.count == 700 and rarely.sum_ms == often.sum_ms


def test_none_is_lost_or_counted_twice_by_threads_that_count_at_once():
    made, each = histogram.Histogram(), 3000

    def count():
        for number in range(each):
            made.add(1.0)
            if number % 500 == 0:
                made.percentiles()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert made.count == 4 * each and made.sum_ms == 4.0 * each and made.percentiles()["n"] == 4 * each
