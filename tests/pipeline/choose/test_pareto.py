"""The front against the plain reading of its definition."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.choose.pareto import front

NUMBER = st.one_of(st.integers(0, 6).map(float), st.just(math.nan), st.just(math.inf))


def plain(points):
    def beaten(p):
        return any(all(a <= b for a, b in zip(q, p, strict=True)) and q != p for q in points)

    usable = [p for p in points if not any(math.isnan(v) for v in p)]
    points = usable
    return [p for p in usable if not beaten(p)]


@settings(deadline=None)
@given(st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[NUMBER] * width), max_size=12)))
def test_front_is_what_nothing_beats(points):
    assert sorted(points[i] for i in front(points)) == sorted(plain(points))


def test_nothing_and_one():
    assert front([]) == []
    assert front([(1.0,)]) == [0]
