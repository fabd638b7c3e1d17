"""Lines and polygons: the file, the counting, the running service."""

import json
import signal

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Serving, wait_for

from jetson.errors import BadInput
from jetson.tracking import tracker as track
from jetson.tracking import zones

WH = (400, 200)
SIDE = 40.0
MASK, BARE = [0.9, 0.05, 0.05], [0.05, 0.9, 0.05]
DOOR = "line 0 door 0.5,0 0.5,1\n"  # from the top down: in is to the right
QUEUE = "polygon 0 queue 0.5,0 1,0 1,1 0.5,1\n"


def walk(text, *paths, fps=20.0, scores=MASK):
    """Feed faces whose middles follow `paths`, lists of (x, y) or None, through tracker and counter; both."""
    tracker, counter = track.Tracker(0.4), zones.Counter(zones.parse(text))
    events = []
    for number in range(max(len(path) for path in paths)):
        middles = [path[number] for path in paths if number < len(path) and path[number] is not None]
        xyxy = np.array([[x - SIDE / 2, y - SIDE / 2, x + SIDE / 2, y + SIDE / 2] for x, y in middles], np.float32)
        tracker.update(xyxy.reshape(-1, 4), np.array([scores] * len(middles), np.float32).reshape(-1, 3), number / fps)
        events += counter.update(tracker.tracks, WH, number / fps)
    return counter, events


def way(*corners, step=6.0):
    """Points each `step` px along straight ways from corner to corner."""
    found = [corners[0]]
    for a, b in zip(corners, corners[1:]):
        count = max(1, int(np.hypot(b[0] - a[0], b[1] - a[1]) / step))
        found += [(a[0] + (b[0] - a[0]) * k / count, a[1] + (b[1] - a[1]) * k / count) for k in range(1, count + 1)]
    return found


def crossings(counter, name="door"):
    line = next(line for line in counter.state()["lines"] if line["name"] == name)
    return line["in"]["total"], line["out"]["total"]


def test_a_line_is_crossed_in_and_out():
    counter, events = walk(DOOR, way((50, 100), (350, 100)))
    assert crossings(counter) == (1, 0)
    assert [(e.kind, e.name, e.direction, e.label) for e in events] == [("crossed", "door", "in", 0)]
    assert counter.state()["lines"][0]["in"] == {
        "with_mask": 1,
        "without_mask": 0,
        "mask_worn_incorrect": 0,
        "total": 1,
    }
    counter, _ = walk(DOOR, way((50, 100), (350, 100), (50, 100)), scores=BARE)
    assert crossings(counter) == (1, 1) and counter.state()["lines"][0]["out"]["without_mask"] == 1
    # Swapping the points turns the way in; a line from left to right is crossed in upwards.
    assert crossings(walk("line 0 door 0.5,1 0.5,0", way((50, 100), (350, 100)))[0]) == (0, 1)
    assert crossings(walk("line 0 door 0,0.5 1,0.5", way((200, 180), (200, 20)))[0]) == (1, 0)


def test_trembling_on_the_line_counts_once():
    random = np.random.RandomState(0)
    on_it = [(200 + random.normal(0, 4), 100 + random.normal(0, 4)) for _ in range(300)]
    counter, _ = walk(DOOR, way((100, 100), (200, 100)) + on_it + way((200, 100), (300, 100)))
    assert crossings(counter) == (1, 0)
    counter, events = walk(DOOR, way((100, 100), (200, 100)) + on_it + way((200, 100), (100, 100)))
    assert crossings(counter) == (0, 0) and events == []


def test_walking_around_the_end_of_a_line_is_not_crossing_it():
    short = "line 0 door 0.5,0 0.5,0.4"
    assert crossings(walk(short, way((100, 150), (300, 150)))[0]) == (0, 0)
    # Around the end and back through it: the way back counts.
    assert crossings(walk(short, way((100, 150), (300, 150), (300, 40), (100, 40)))[0]) == (0, 1)


def test_who_is_not_confirmed_yet_is_counted_then():
    fast = [(170 + 25 * n, 100) for n in range(5)]  # over the line before a quarter of a second has passed
    assert crossings(walk(DOOR, fast + [(270 + 4 * n, 100) for n in range(10)])[0]) == (1, 0)
    assert crossings(walk(DOOR, fast[:2])[0]) == (0, 0)  # noise of two frames


def test_two_at_once_and_a_gap():
    counter, _ = walk(DOOR, way((50, 40), (350, 40)), way((350, 150), (50, 150)))
    assert crossings(counter) == (1, 1)
    path = way((50, 100), (350, 100))
    path[22:30] = [None] * 8  # behind a pillar right at the line
    assert crossings(walk(DOOR, path)[0]) == (1, 0)


def test_a_polygon_knows_who_is_in_it():
    counter, events = walk(QUEUE, way((100, 100), (300, 100)))
    zone = counter.state()["zones"][0]
    assert zone["now"]["total"] == zone["entered"]["with_mask"] == 1 and [e.kind for e in events] == ["zone entered"]
    assert counter.state(live=False)["zones"][0]["now"]["total"] == 0
    counter, events = walk(QUEUE, way((100, 100), (300, 100), (100, 100)))
    zone = counter.state()["zones"][0]
    assert zone["now"]["total"] == 0 and zone["entered"]["total"] == 1
    assert [e.kind for e in events] == ["zone entered", "zone left"] and events[1].began == events[0].at < events[1].at


def test_trembling_at_the_edge_of_a_polygon_enters_once():
    random = np.random.RandomState(1)
    edge = [(200 + random.normal(0, 2.5), 100) for _ in range(300)]
    counter, events = walk(QUEUE, way((100, 100), (200, 100)) + edge)
    assert counter.state()["zones"][0]["entered"]["total"] == 1 and len(events) == 1
    # Out and in again is the same person: an event, but no other one in the count.
    counter, events = walk(QUEUE, way((100, 100), (300, 100), (100, 100), (300, 100)))
    assert counter.state()["zones"][0]["entered"]["total"] == 1 and len(events) == 3


def test_who_vanishes_inside_is_gone_and_forgotten():
    counter, events = walk(QUEUE, way((100, 100), (300, 100)) + [None] * 60)
    assert counter.state()["zones"][0]["now"]["total"] == 0
    assert [e.kind for e in events] == ["zone entered", "zone left"] and not counter._seen


def test_a_mask_taken_off_inside_changes_who_is_there_now():
    tracker, counter = track.Tracker(0.4), zones.Counter(zones.parse(QUEUE))
    for number in range(300):
        scores = np.array([MASK if number < 40 else BARE], np.float32)
        tracker.update(np.array([[280, 80, 320, 120]], np.float32), scores, number / 20)
        counter.update(tracker.tracks, WH, number / 20)
    zone = counter.state()["zones"][0]
    assert zone["now"]["without_mask"] == 1 and zone["entered"]["with_mask"] == 1


# -- the file ---------------------------------------------------------------------------------------------------------


def test_comments_pixels_and_cameras():
    found = zones.parse(
        "# doors\n\nline 1 a.b-c_1 0,0 1,1  # a way out\npixels 1280x720\npolygon 0 q 0,0 640,0 640,360\n"
    )
    assert [(z.kind, z.camera, z.name) for z in found] == [("line", 1, "a.b-c_1"), ("polygon", 0, "q")]
    assert found[1].points.tolist() == [[0, 0], [0.5, 0], [0.5, 0.5]]


def test_a_picture_of_sixteen_pixels_is_one():
    (zone,) = zones.parse("pixels 16x16\nline 0 a 0,0 16,16\n")
    np.testing.assert_allclose(zone.points, [[0, 0], [1, 1]])


@pytest.mark.parametrize(
    "text, line, words",
    [
        ("circle 0 a 0,0 1,1", 1, "unknown kind"),
        ("line", 1, "camera's number"),
        ("\nline x a 0,0 1,1", 2, "number"),
        ("line 2 a 0,0 1,1", 1, "unknown camera 2"),
        ("line 0 ../a 0,0 1,1", 1, "not a name"),
        ("line 0 a 0,0 1,1\npolygon 0 a 0,0 1,0 1,1", 2, "already"),
        ("line 0 a 0,0", 1, "two points, not 1"),
        ("line 0 a 0,0 0.5,0.5 1,1", 1, "two points, not 3"),
        ("line 0 a 0.5,0.5 0.501,0.5", 1, "too short"),
        ("line 0 a 0,0 1;1", 1, "not a point: 1;1"),
        ("line 0 a 0,0 nan,1", 1, "not a point"),
        ("line 0 a 10,20 300,200", 1, "outside the picture"),
        ("pixels 100x100\nline 0 a 0,0 101,5", 2, "outside"),
        ("pixels 5", 1, "size of a picture"),
        ("pixels 15x480", 1, "size of a picture"),
        ("pixels 640x15", 1, "size of a picture"),
        ("polygon 0 a 0,0 1,1", 1, "3 to 64 points, not 2"),
        ("polygon 0 a 0,0 1,1 1,0 0,1", 1, "crosses itself: the sides from point 1 to 2 and from point 3 to 4 meet"),
        ("polygon 0 a 0,0 1,0 1,1 0.5,0 0,1", 1, "crosses itself"),  # a corner on another side
        ("polygon 0 a 0,0 1,0 0.5,0 0.5,1", 1, "crosses itself"),  # folded back on itself
        ("polygon 0 a 0,0 1,0 1,1 0,0", 1, "repeated: point 4"),
        ("polygon 0 a 0,0 1,0 1,0.00001", 1, "area"),
        ("polygon 0 a 0,0 0.5,0.5 1,1", 1, "crosses itself"),
        ("\n".join(f"line 0 n{n} 0,0 1,1" for n in range(33)), 33, "too many"),
    ],
)
def test_a_mistake_is_told_with_its_line(text, line, words):
    with pytest.raises(BadInput) as told:
        zones.parse(text, "zones.txt", 2)
    assert words in str(told.value) and f"zones.txt, line {line}" in str(told.value)


def test_a_file_that_is_none(tmp_path):
    for name, data in (("missing", None), ("binary", b"\xff\xfe\x00")):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput) as told:
            zones.load(str(tmp_path / name), 1)
        assert name in str(told.value)


def test_a_file_from_a_windows_editor(tmp_path):
    (tmp_path / "zones.txt").write_bytes(b"\xef\xbb\xbf# kind camera name\r\n" + DOOR.encode().replace(b"\n", b"\r\n"))
    assert [zone.name for zone in zones.load(str(tmp_path / "zones.txt"), 1)] == ["door"]


# -- another file while it runs ---------------------------------------------------------------------------------------


def carried(before, text):
    """The counter for another file that takes the place of `before`, and what happened by that."""
    after = zones.Counter(zones.parse(text))
    return after, after.go_on_from(before)


def test_counts_go_on_under_the_same_name():
    before, _ = walk(DOOR + QUEUE, way((100, 100), (300, 100)))
    assert crossings(before) == (1, 0)
    after, events = carried(before, "line 0 new 0.1,0 0.1,1\n" + QUEUE + "line 0 door 0.25,0 0.25,1\n")
    assert crossings(after) == (1, 0) and crossings(after, "new") == (0, 0) and events == []
    assert [one["now"]["total"] for one in after.state()["zones"]] == [1]
    assert not after.same_places(before) and after.same_places(
        zones.Counter(zones.parse("line 0 new 0.1,0 0.1,1\nline 0 door 0.25,0 0.25,1\n" + QUEUE))
    )


def feed(tracker, counter, places, began):
    """Go on with a walk: the middles `places`, one a frame."""
    events = []
    for number, (x, y) in enumerate(places):
        now = began + number / 20.0
        tracker.update(np.array([[x - 20, y - 20, x + 20, y + 20]], np.float32), np.array([MASK], np.float32), now)
        events += counter.update(tracker.tracks, WH, now)
    return events


@pytest.mark.parametrize(
    "text, kinds",
    [
        (DOOR + QUEUE, []),  # nothing has moved: who is inside is not told to enter again
        (DOOR + QUEUE.replace("0.5,1\n", "0.51,1\n"), ["zone left", "zone entered"]),  # moved: left and entered
        ("line 0 door 0.9,0 0.9,1\n", ["zone left"]),  # behind a line that was moved over somebody: no crossing
    ],
)
def test_who_stands_there_while_the_file_changes(text, kinds):
    tracker, before = track.Tracker(0.4), zones.Counter(zones.parse(DOOR + QUEUE))
    feed(tracker, before, way((100, 100), (300, 100)), 0.0)
    after, events = carried(before, text)
    events += feed(tracker, after, [(300, 100)] * 5, 10.0 / 6)
    assert [event.kind for event in events] == kinds and crossings(after) == (1, 0)
    assert sum(zone["entered"]["total"] for zone in after.state()["zones"]) == len(after.polygons)


def test_crossing_an_unmoved_line_is_not_missed_by_a_reload_in_between():
    tracker, before = track.Tracker(0.4), zones.Counter(zones.parse(DOOR))
    feed(tracker, before, way((100, 100), (195, 100)), 0.0)
    after, _ = carried(before, QUEUE + DOOR)
    feed(tracker, after, way((195, 100), (300, 100)), 0.9)
    assert crossings(after) == (1, 0)


def test_a_running_service_reads_the_file_again(tiny_bundle, clip, tmp_path):
    path, log = tmp_path / "zones.txt", tmp_path / "events.jsonl"
    path.write_text("line 0 door 0.4,0 0.4,1\n")
    with Serving(
        tiny_bundle, clip, options=["--zones", str(path), "--tradeoff", "off", "--every-frame", "--events", str(log)]
    ) as made:
        wait_for(lambda: made.camera()["lines"][0]["in"]["total"], "a crossing")
        path.write_text("line 0 door 0.4,0 0.4,1\npolygon 0 all 0,0 1,0 1,1 0,1\n")
        made.process.send_signal(signal.SIGHUP)
        wait_for(lambda: made.state()["reloads"] == 1, "the reload")
        state = made.camera()
        assert state["lines"][0]["in"]["total"] and [zone["name"] for zone in state["zones"]] == ["all"]
        path.write_text("line 0 door 0.5,0 0.5\n")
        made.process.send_signal(signal.SIGHUP)
        wait_for(lambda: made.state()["reloads"] == 2, "the second reload")
        assert [zone["name"] for zone in made.camera()["zones"]] == ["all"]
        assert any("refused" in one and "zones.txt, line 1" in one for one in made.state()["warnings"])
        told = [json.loads(row) for row in log.read_text().split("\n")[:-1]]
        refused = [event for event in told if event["kind"] == "reload refused"]
        assert len(refused) == 1 and "not a point: 0.5" in refused[0]["reason"]
        path.unlink()
        made.process.send_signal(signal.SIGHUP)
        wait_for(lambda: made.state()["reloads"] == 3, "the third reload")
        assert [zone["name"] for zone in made.camera()["zones"]] == ["all"]
        path.write_text("")
        made.process.send_signal(signal.SIGHUP)
        wait_for(lambda: made.camera()["lines"] == made.camera()["zones"] == [], "an empty file")
        wait_for(lambda: not made.state()["warnings"], "no warning")


# -- the running service ----------------------------------------------------------------------------------------------


def test_counts_events_and_metrics_of_a_running_service(tiny_bundle, draw, tmp_path):
    """In the clip one square goes right and one left, far over the middle of the picture, again and again."""
    path, events, clip = tmp_path / "zones.txt", tmp_path / "events.jsonl", str(tmp_path / "across.avi")
    writer = cv2.VideoWriter(clip, cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
    for number in range(150):
        writer.write(draw((320, 240), [(0, 20 + 2 * number, 80, 30), (1, 250 - number, 170, 60)], seed=3))
    writer.release()
    path.write_text("line 1 door 0.5,0 0.5,1\npolygon 1 all 0,0 1,0 1,1 0,1\n")
    with Serving(
        tiny_bundle,
        "synthetic://?size=160x120&fps=5",
        clip,
        options=["--zones", str(path), "--events", str(events), "--tradeoff", "off", "--every-frame"],
    ) as made:  # a busy machine would skip the crossings
        line = wait_for(
            lambda: [one for one in made.camera(1)["lines"] if one["in"]["with_mask"] and one["out"]["without_mask"]],
            "crossings both ways",
        )[0]
        assert made.camera(0)["lines"] == made.camera(0)["zones"] == [] and line["points"] == [[0.5, 0], [0.5, 1]]
        zone = wait_for(lambda: [z for z in made.camera(1)["zones"] if z["entered"]["total"]], "a person inside")[0]
        assert zone["now"]["total"] <= zone["entered"]["total"]
        families = {f.name: f for f in text_string_to_metric_families(made.get("/metrics")[2].decode())}
        crossed = {
            (s.labels["line"], s.labels["direction"], s.labels["label"]): s.value
            for s in families["jetmask_line_crossings"].samples
        }
        assert crossed["door", "in", "with_mask"] >= 1 and crossed["door", "out", "without_mask"] >= 1
        assert {s.labels["zone"] for s in families["jetmask_zone_persons"].samples} == {"all"}
        assert families["jetmask_zone_entered"].samples
        plain, marked = (
            cv2.imdecode(np.frombuffer(made.get("/snapshot.jpg?camera=1" + more)[2], np.uint8), 1)
            for more in ("", "&overlay=1")
        )
        assert plain.shape == marked.shape == (240, 320, 3)
        # The line in the middle is yellow: more red and more green than blue, which nothing else in the clip is.
        yellow = [
            ((column[:, 1:] - column[:, :1]).min(axis=1) > 30).mean()
            for column in (picture[20:200, 160].astype(int) for picture in (plain, marked))
        ]
        assert yellow[0] < 0.1 and yellow[1] > 0.4, yellow
    told = [json.loads(row) for row in events.read_text().splitlines()]
    crossed = [event for event in told if event["kind"] == "crossed"]
    assert {(event["line"], event["direction"]) for event in crossed} == {("door", "in"), ("door", "out")}
    assert all(event["camera"] == 1 and event["person"] and event["label"] for event in crossed)
    assert any(event["kind"] == "zone entered" and event["zone"] == "all" for event in told)


def test_a_wrong_file_ends_the_start_with_its_line(tiny_bundle, tmp_path):
    path = tmp_path / "zones.txt"
    path.write_text("line 1 door 0.5,0 0.5,1\n")
    with Serving(tiny_bundle, "synthetic://", options=["--zones", str(path)], wait=False) as made:
        assert made.process.wait(60) == 3
        assert "zones.txt, line 1" in made.log() and "Traceback" not in made.log()
