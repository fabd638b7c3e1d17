"""Scene time is the medium's, whenever frames arrive; and with it what is said about persons."""

from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.capture import source
from jetson.capture.camera import Camera
from jetson.capture.child import Stamp


@given(
    st.lists(st.floats(0.001, 3.0), min_size=2, max_size=40),
    st.lists(st.floats(0.0, 5.0), min_size=40, max_size=40),
    st.integers(0, 3),
)
@settings(max_examples=200, deadline=None)
def test_scene_time_is_the_medias_whenever_frames_arrive(steps, arrivals, again):
    """Two passes of a file whose frames have any times and arrive at any: differences are the file's, time rises."""
    camera = Camera(source.parse("clip.avi"))
    clock, at = 100.0, []
    for turn in range(1 + again):
        second = 0.0
        for number, step in enumerate(steps):
            clock += arrivals[number % len(arrivals)]
            stamp = Stamp(turn, number, second)
            found = camera._scene_time(clock, stamp)
            camera._stamp, camera._at = stamp, found
            at.append((turn, second, found))
            second += step
    for before, after in zip(at, at[1:], strict=False):
        assert after[2] > before[2]
        if after[0] == before[0]:
            assert abs((after[2] - before[2]) - (after[1] - before[1])) < 1e-6
