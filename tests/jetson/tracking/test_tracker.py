"""Tracks and votes on made-up detections."""

import numpy as np

from jetson.tracking import tracker as track

MASK, BARE = [0.8, 0.1, 0.05], [0.1, 0.8, 0.05]


def run(tracker, frames, fps=30.0, start=0.0):
    """Feed [(box, scores), …] per frame, the first at `start` s; all events."""
    events = []
    for number, faces in enumerate(frames):
        xyxy = np.array([box for box, _ in faces], np.float32).reshape(-1, 4)
        scores = np.array([score for _, score in faces], np.float32).reshape(-1, 3)
        events += tracker.update(xyxy, scores, start + number / fps)
    return events


def box(x, y=100.0, side=40.0):
    return [x, y, x + side, y + side]


def test_one_walk_is_one_person():
    tracker = track.Tracker(0.4)
    events = run(tracker, [[(box(10 + 4 * n), MASK)] for n in range(60)])
    assert [e.kind for e in events] == ["enter"] and tracker.persons == 1
    assert tracker.counts == [1, 0, 0] and len(tracker.tracks) == 1


def test_flicker_of_the_class_does_not_alarm():
    tracker = track.Tracker(0.4)
    events = run(tracker, [[(box(10 + 4 * n), BARE if n % 5 == 4 else MASK)] for n in range(60)])
    assert [(e.kind, e.label) for e in events] == [("enter", 0)]
    assert tracker.tracks[0].flickers >= 10


def test_a_mask_taken_off_is_told():
    tracker = track.Tracker(0.4)
    events = run(tracker, [[(box(100), MASK if n < 30 else BARE)] for n in range(300)])
    assert [(e.kind, e.label) for e in events] == [("enter", 0), ("change", 1)]
    assert tracker.counts == [0, 1, 0] and tracker.persons == 1


def test_a_gap_is_bridged_and_a_long_one_is_not():
    def walk(gap):
        frames = [[(box(10 + 3 * n), MASK)] for n in range(30)] + [[] for _ in range(gap)]
        return frames + [[(box(10 + 3 * n), MASK)] for n in range(30 + gap, 60 + gap)]

    for gap, persons in ((15, 1), (90, 2)):
        tracker = track.Tracker(0.4)
        run(tracker, walk(gap))
        assert tracker.persons == persons, gap


def test_who_stands_there_after_an_outage_is_another():
    tracker = track.Tracker(0.4)
    run(tracker, [[(box(100), MASK)] for _ in range(30)])
    events = run(tracker, [[(box(110), MASK)] for _ in range(30)], start=3600.0)
    assert [(e.kind, e.track) for e in events] == [("leave", 1), ("enter", 2)] and tracker.persons == 2
    assert events[0].at < 1.0  # not an hour in the picture


def test_where_frames_are_always_far_apart_a_gap_is_no_outage():
    tracker = track.Tracker(0.4)
    run(tracker, [[(box(100), MASK)] for _ in range(8)], fps=0.2)
    assert tracker.persons == 1 and len(tracker.tracks) == 1


def test_unsure_detections_keep_a_track_but_start_none():
    tracker = track.Tracker(0.4)
    weak = [0.2, 0.05, 0.02]
    run(tracker, [[(box(50), weak)] for _ in range(30)])
    assert not tracker.tracks
    tracker = track.Tracker(0.4)
    run(tracker, [[(box(50 + n), MASK if n < 10 else weak)] for n in range(100)])
    assert tracker.persons == 1 and tracker.tracks[0].hits == 100


def test_two_who_pass_each_other_stay_two():
    tracker = track.Tracker(0.4)
    frames = [[(box(10 + 5 * n, 100), MASK), (box(310 - 5 * n, 118), BARE)] for n in range(60)]
    run(tracker, frames)
    assert tracker.persons == 2


def test_a_fast_small_face_at_a_low_rate_is_one_person():
    tracker = track.Tracker(0.4)
    run(tracker, [[(box(10 + 22 * n, side=24), MASK)] for n in range(20)], fps=5)
    assert tracker.persons == 1


def test_noise_for_one_frame_is_nobody():
    tracker = track.Tracker(0.4)
    random = np.random.RandomState(0)
    events = run(
        tracker,
        [[(box(random.uniform(0, 3000), random.uniform(0, 2000)), MASK)] if n % 7 == 0 else [] for n in range(200)],
    )
    assert events == [] and tracker.persons == 0


def test_leave_is_told_with_its_span():
    tracker = track.Tracker(0.4)
    events = run(tracker, [[(box(100), BARE)] for _ in range(30)] + [[] for _ in range(60)])
    assert [e.kind for e in events] == ["enter", "leave"]
    assert events[1].began == 0.0 and abs(events[1].at - 29 / 30) < 1e-6


def test_faces_everywhere_do_not_stop_the_loop():
    tracker = track.Tracker(0.1)
    random = np.random.RandomState(1)
    for number in range(10):
        corner = random.uniform(0, 600, (300, 2))
        xyxy = np.concatenate([corner, corner + random.uniform(5, 60, (300, 1))], axis=1).astype(np.float32)
        tracker.update(xyxy, random.uniform(0, 1, (300, 3)).astype(np.float32), number / 30)
    assert len(tracker.tracks) <= 2 * track.MOST


def test_nothing_seen_at_all():
    tracker = track.Tracker(0.4)
    assert run(tracker, [[]] * 5) == [] and tracker.visible(1.0) == []
