"""What the runner's parsers and the tracker must hold for every input."""

import contextlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.capture import source
from jetson.errors import UsageError
from jetson.evaluation import agreement
from jetson.inference.detector import Faces
from jetson.inference.histogram import Histogram
from jetson.monitor import board
from jetson.tracking import tracker as track
from jetson.web.http import BadRequest, Request, parse_request

words = st.sampled_from([b"GET", b"HEAD", b" ", b"/", b"HTTP/1.1", b"\r\n", b"Host:", b"x", b":", b"%41", b"?", b"\0"])


@given(st.one_of(st.binary(max_size=300), st.lists(words, max_size=30).map(b"".join)))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_a_request_or_a_bad_request(head):
    try:
        request = parse_request(head)
    except BadRequest as error:
        assert 400 <= error.status < 600 and str(error)
    else:
        assert isinstance(request, Request) and request.path.startswith("/") and request.method in ("GET", "HEAD")


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_line_is_read_by_the_board(line):
    value = board.parse_tegrastats(line)
    assert set(value) <= {
        "ram_mb",
        "swap_mb",
        "cpu",
        "gpu_load",
        "gpu_mhz",
        "emc_load",
        "temperature_c",
        "power_mw",
        "power_average_mw",
    }


pieces = st.sampled_from(
    [
        "csi://",
        "rtsp://",
        "synthetic://",
        "/dev/video",
        "0",
        "?",
        "size=",
        "640x480",
        "&",
        "fps=",
        "a",
        "@",
        ":",
        "[",
        "%",
    ]
)


@given(st.lists(pieces, max_size=10).map("".join))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_source_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        assert source.parse(text).kind in source.KINDS


@given(st.lists(st.floats(0.02, 1e5), min_size=1, max_size=300))
@settings(max_examples=100, deadline=None)
def test_percentiles_are_right_within_a_bucket(times):
    histogram = Histogram()
    for value in times:
        histogram.add(value)
    found = histogram.percentiles()
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        true = sorted(times)[max(0, int(np.ceil(share * len(times))) - 1)]
        assert true / 1.04 <= found[name] <= true * 1.04


boxes = st.tuples(
    st.floats(0, 600), st.floats(0, 400), st.floats(4, 200), st.sampled_from([0, 1, 2]), st.floats(0.05, 1.0)
)


def faces(rows):
    xyxy = np.array([[x, y, x + side, y + side] for x, y, side, _, _ in rows], np.float32).reshape(-1, 4)
    scores = np.zeros((len(rows), 3), np.float32)
    for number, row in enumerate(rows):
        scores[number, row[3]] = row[4]
    return Faces(xyxy, scores)


@given(st.lists(st.lists(boxes, max_size=6), max_size=30))
@settings(max_examples=150, deadline=None)
def test_counts_of_the_tracker_add_up(frames):
    tracker = track.Tracker(0.4)
    entered, gone = set(), set()
    for number, rows in enumerate(frames):
        found = faces(rows)
        for event in tracker.update(found.xyxy, found.scores, number / 10):
            assert event.began <= event.at
            if event.kind == "enter":
                assert event.track not in entered
                entered.add(event.track)
            elif event.kind == "leave":
                assert event.track in entered - gone
                gone.add(event.track)
    assert tracker.persons == len(entered) == sum(tracker.counts) and min(tracker.counts) >= 0
    numbers = [one.number for one in tracker.tracks]
    assert len(set(numbers)) == len(numbers)


@given(st.lists(boxes, max_size=8), st.lists(boxes, max_size=8))
@settings(max_examples=150, deadline=None)
def test_agreement_is_a_share_and_whole_with_itself(first, second):
    count = agreement.Agreement()
    count.add(faces(first), faces(second))
    value = count.value()
    if first or second:
        assert 0 <= value["low"] <= value["agreement"] <= value["high"] <= 1
    left, right = agreement.match(faces(first), faces(second))
    assert len(set(left.tolist())) == len(left) == len(right) == len(set(right.tolist()))
