"""Geometry, the file of lines and polygons and the file of histograms: for every input, against slow plain versions."""

import contextlib
import copy
import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jetson.errors import BadInput
from jetson.monitor import drift, drift_series
from jetson.tracking import tracker as track
from jetson.tracking import zones
from jetson.vision import geometry

# A small grid: collinear points, touching ends and points on outlines are as common as the rest.
whole = st.integers(-4, 4)
point = st.tuples(whole, whole)
polygon = st.lists(point, min_size=3, max_size=7)


def turn(a, b, p):
    return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])


def on_segment(p, a, b):
    return (
        turn(a, b, p) == 0 and min(a[0], b[0]) <= p[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= p[1] <= max(a[1], b[1])
    )


def common_point(a, b, c, d):
    """Whether two closed segments meet, by solving for the point in exact fractions."""
    if any(on_segment(p, c, d) for p in (a, b)) or any(on_segment(p, a, b) for p in (c, d)):
        return True
    r, s = (b[0] - a[0], b[1] - a[1]), (d[0] - c[0], d[1] - c[1])
    below = r[0] * s[1] - r[1] * s[0]
    if below == 0:
        return False
    t = Fraction((c[0] - a[0]) * s[1] - (c[1] - a[1]) * s[0], below)
    u = Fraction((c[0] - a[0]) * r[1] - (c[1] - a[1]) * r[0], below)
    return 0 <= t <= 1 and 0 <= u <= 1


def array(points):
    return np.array(points, np.float64).reshape(-1, 2)


@given(st.lists(st.tuples(point, point), min_size=1, max_size=8), point, point)
@settings(max_examples=300, deadline=None)
def test_crossing_segments(ways, a, b):
    found = geometry.crosses(array([way[0] for way in ways]), array([way[1] for way in ways]), array(a)[0], array(b)[0])
    assert found.tolist() == [common_point(start, end, a, b) for start, end in ways]


def winding(corners, p):
    """How often the polygon goes around p: a sum of exact quarter turns by crossings of a ray, up less down."""
    count = 0
    for a, b in zip(corners, corners[1:] + corners[:1]):
        if a[1] <= p[1] < b[1] and turn(a, b, p) > 0:
            count += 1
        elif b[1] <= p[1] < a[1] and turn(a, b, p) < 0:
            count -= 1
    return count


def simple(corners):
    """No two sides meet but neighbours in their corner, by looking at each pair."""
    sides = list(zip(corners, corners[1:] + corners[:1]))
    for (i, (a, b)), (j, (c, d)) in itertools.combinations(enumerate(sides), 2):
        if j == i + 1 or (i == 0 and j == len(sides) - 1):
            shared, ends = (b, (a, d)) if j == i + 1 else (a, (b, c))
            if on_segment(ends[0], shared, ends[1]) or on_segment(ends[1], shared, ends[0]):
                return False
        elif common_point(a, b, c, d):
            return False
    return True


@given(polygon)
@settings(max_examples=300, deadline=None)
def test_a_polygon_is_simple_or_its_meeting_sides_are_named(corners):
    assume(all(a != b for a, b in zip(corners, corners[1:] + corners[:1])))
    found = geometry.crossing_edges(array(corners))
    assert (found is None) == simple(corners)
    if found is not None:
        sides = list(zip(corners, corners[1:] + corners[:1]))
        assert found[0] < found[1] and common_point(*sides[found[0]], *sides[found[1]])


@given(polygon, st.lists(point, min_size=1, max_size=10))
@settings(max_examples=300, deadline=None)
def test_inside_is_what_the_outline_winds_around(corners, points):
    assume(simple(corners))
    sides = list(zip(corners, corners[1:] + corners[:1]))
    found = geometry.inside(array(corners), array(points))
    far = geometry.to_outline(array(corners), array(points))
    for p, within, apart in zip(points, found, far):
        on_it = any(on_segment(p, *side) for side in sides)
        assert on_it == (apart < 1e-9)
        if not on_it:
            assert within == (winding(corners, p) != 0)
            # The nearest of many points along each side is hardly nearer than what is said.
            steps = np.concatenate([np.linspace(a, b, 50) for a, b in sides])
            assert apart <= np.hypot(*(steps - p).T).min() + 1e-9 <= apart + 0.2


@given(point, point, st.lists(point, min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_left_is_the_side_of_the_left_hand(a, b, points):
    assume(a != b)
    found = geometry.left_of(array(a)[0], array(b)[0], array(points))
    length = np.hypot(b[0] - a[0], b[1] - a[1])
    assert np.allclose(found, [-turn(a, b, p) / length for p in points])
    assert np.allclose(found, -geometry.left_of(array(b)[0], array(a)[0], array(points)))


words = st.sampled_from(
    [
        "line",
        "polygon",
        "pixels",
        " ",
        "\n",
        "0",
        "1",
        "640x480",
        "a",
        "b",
        "0,0",
        "1,0",
        "0.5,1",
        "300,200",
        "1,1",
        "#",
        "-1,0",
        "nan,1",
        ",",
        "é",
    ]
)


@given(st.one_of(st.text(max_size=120), st.lists(words, max_size=30).map(" ".join)))
@settings(max_examples=400, deadline=None)
def test_any_text_is_zones_or_bad_input_with_a_line(text):
    try:
        found = zones.parse(text, "FILE", 2)
    except BadInput as error:
        assert "FILE, line " in str(error)
    else:
        for zone in found:
            assert zone.camera < 2 and (zone.points >= 0).all() and (zone.points <= 1).all()
            assert len(zone.points) == 2 if zone.kind == "line" else geometry.crossing_edges(zone.points) is None
        assert len({(zone.camera, zone.name) for zone in found}) == len(found)


steps = st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=5, max_size=80)


@given(steps, st.tuples(st.floats(20, 380), st.floats(20, 180)))
@settings(max_examples=150, deadline=None)
def test_counts_follow_from_where_a_person_began_and_ended(moves, start):
    """On a line across the whole picture: in less out is which side was changed to, whatever the way was."""
    tracker = track.Tracker(0.4)
    counter = zones.Counter(zones.parse("line 0 l 0.5,0 0.5,1\npolygon 0 p 0.5,0 1,0 1,1 0.5,1\n"))
    path = np.clip(np.cumsum([start, *moves], axis=0), (20, 20), (380, 180))
    sure, events = [], []
    for number, (x, y) in enumerate(path):
        box = np.array([[x - 20, y - 20, x + 20, y + 20]], np.float32)
        tracker.update(box, np.array([[0.9, 0, 0]], np.float32), number / 10)
        assume(len(tracker.tracks) == 1)  # a jump can make two persons of one
        events += counter.update(tracker.tracks, (400, 200), number / 10)
        at = float(tracker.tracks[0].xyxy[[0, 2]].mean())
        if abs(at - 200) > 0.25 * float(np.diff(tracker.tracks[0].xyxy[[1, 3]])[0]):
            sure.append(1 if at > 200 else -1)
    if not tracker.tracks[0].confirmed:
        assert events == []
        return
    state = counter.state()
    change = (sure[-1] - sure[0]) // 2 if sure else 0
    assert state["lines"][0]["in"]["total"] - state["lines"][0]["out"]["total"] == change
    kinds = [event.kind for event in events if event.kind != "crossed"]
    # Entered and left in turns, and who is there now has entered last.
    assert kinds == ["zone entered", "zone left"] * (len(kinds) // 2) + ["zone entered"] * (len(kinds) % 2)
    assert state["zones"][0]["now"]["total"] == len(kinds) % 2


# -- drift --------------------------------------------------------------------------------------------------------


histogram = st.lists(st.integers(0, 20), min_size=2, max_size=12).filter(any)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_the_distance_is_the_earth_movers(data):
    first = data.draw(histogram)
    second = data.draw(st.lists(st.integers(0, 20), min_size=len(first), max_size=len(first)).filter(any))
    # Slowly: earth is carried from the first bin that has any to the first that needs any.
    have, need = ([Fraction(n, sum(counts)) for n in counts] for counts in (first, second))
    work, i, j = Fraction(0), 0, 0
    while i < len(have) and j < len(need):
        part = min(have[i], need[j])
        work += part * abs(i - j)
        have[i] -= part
        need[j] -= part
        i, j = i + (have[i] == 0), j + (need[j] == 0)
    assert drift_series.distance(np.array(first), np.array(second), 0.5) == pytest.approx(float(work) * 0.5, abs=1e-9)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_a_file_with_anything_changed_is_read_or_refused(tmp_path_factory, data):
    """No change to what is on the disk makes a traceback, and what is read can be judged."""
    path = tmp_path_factory.mktemp("drift") / "drift.json"
    now = [1.7e9]
    made = drift.Drift(None, [drift.Known("a")], 0.01, wall=lambda: now[0], clock=lambda: now[0])
    image = np.full((32, 32, 3), 90, np.uint8)
    for _ in range(30):
        made.see(0, image)
        now[0] += 3
    made.path = str(path)
    made.save()
    whole_file = json.loads(path.read_text())
    value = copy.deepcopy(whole_file)
    at, key = value, None
    for _ in range(data.draw(st.integers(1, 6))):
        if not isinstance(at, (dict, list)) or not at:
            break
        parent, key = at, data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        at = at[key]
    parent[key] = data.draw(
        st.one_of(
            st.none(),
            st.integers(-9, 10**30),
            st.floats(),
            st.text(max_size=5),
            st.just([]),
            st.just({}),
            st.just([[1.7e9, "1 2"]]),
            st.booleans(),
        )
    )
    path.write_text(json.dumps(value))
    with contextlib.suppress(BadInput):
        read = drift.Drift(str(path), [drift.Known("a")], 0.01, wall=lambda: now[0], clock=lambda: now[0])
        read.see(0, image)
        read.judge()
        read.full()
        read.save()
        assert not read.error
