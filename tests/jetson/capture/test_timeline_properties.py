"""Whatever a container does with its times, what the scene goes by is one line that only goes on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetson.capture.timeline import AGAIN_S, Timeline

PERIOD = 0.04
STEPS = st.lists(st.floats(0.001, 60.0), min_size=1, max_size=30)


@given(
    recordings=st.lists(STEPS, min_size=1, max_size=5),
    starts=st.lists(st.floats(0.0, 1e5), min_size=5, max_size=5),
)
def test_joined_recordings_follow_each_other(recordings, starts):
    """Each keeps its own times, and begins one period after the one before."""
    timeline, wanted, found, second, before = Timeline(PERIOD), [], [], 0.0, None
    for steps, start in zip(recordings, starts):
        stamps = start + np.concatenate([[0.0], np.cumsum(steps)])
        if before is not None and stamps[0] >= before - AGAIN_S:
            stamps += before - 2 * AGAIN_S - stamps[0]  # one that goes on is no other recording
        for number, stamp in enumerate(stamps.tolist()):
            found.append(timeline.at(stamp))
            if number:
                second += stamp - before
            elif before is not None:
                second += PERIOD
            before = stamp
            wanted.append(second)
    assert found == pytest.approx(wanted, abs=1e-6)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_time_only_goes_on(stamps):
    timeline = Timeline(PERIOD)
    found = [timeline.at(stamp) for stamp in stamps]
    assert found[0] == 0 and all(np.diff(found) > 0)


@given(st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=200))
def test_disorder_does_not_add_up(shifts):
    """However long times are a little wrong, the line is no further from the true time than by that little."""
    timeline = Timeline(PERIOD)
    found = [timeline.at(number * PERIOD + shift) for number, shift in enumerate(shifts)]
    true = np.arange(len(shifts)) * PERIOD
    # Frames that would not be later push each other on, by a period at most for each frame within the disorder.
    assert np.abs(np.array(found) - true).max() <= 0.4 + PERIOD * (0.4 / PERIOD + 2)


def test_a_container_without_times():
    timeline = Timeline(PERIOD)
    assert [timeline.at(0.0) for _ in range(4)] == pytest.approx([0.0, 0.04, 0.08, 0.12])
