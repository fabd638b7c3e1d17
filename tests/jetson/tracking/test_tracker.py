"""Tracks and votes on made-up detections."""

import numpy as np
import pytest

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


@pytest.mark.parametrize("seed", range(6))
def test_plain_numbers_and_arrays_give_the_same_to_the_bit(seed, monkeypatch):
    def walks():
        random, tracker, seen = np.random.RandomState(seed), track.Tracker(0.4), []
        many = [4, 12, 25][seed % 3]
        at, pace, side = (
            random.uniform(0, 600, (many, 2)),
            random.normal(0, 60, (many, 2)),
            random.uniform(20, 80, many),
        )
        for number in range(60):
            at += pace / 30
            there = random.rand(many) < 0.85
            xyxy = np.concatenate([at[there], at[there] + side[there, None] * random.uniform(0.8, 1.2, (1, 2))], axis=1)
            scores = random.dirichlet([0.5] * 3, int(there.sum())) * random.uniform(0.1, 1, (int(there.sum()), 1))
            events = tracker.update(xyxy.astype(np.float32), scores.astype(np.float32), number / 30)
            seen.append((events, [(one.number, one.box, one.velocity, one.votes, one.label) for one in tracker.tracks]))
        return seen

    found = []
    for most in (0, 10**9):
        monkeypatch.setattr(track, "_PLAIN", most)
        found.append(walks())
    assert found[0] == found[1] and sum(len(tracks) for _, tracks in found[0]) > 100


# Rules that a comment justifies, each at its border.


def follow(one, xyxy, scores, now):
    """One track, seen where and as what these say."""
    one.follow(one.predict(now), list(xyxy), list(scores), now)


def test_votes_fade_so_that_a_short_new_look_outweighs_a_long_old_one():
    """Half of a vote is gone after VOTE_MEMORY_S: 60 s with a mask do not hold against 15 s without."""
    tracker = track.Tracker(0.4)
    events = run(tracker, [[(box(100), MASK if n < 600 else BARE)] for n in range(750)], fps=10)
    assert [(e.kind, e.label) for e in events] == [("enter", 0), ("change", 1)]


def test_a_vote_is_halved_after_its_memory():
    one = track.Track(1, box(100), [1.0, 0.0, 0.0], 0.0)
    follow(one, np.array(box(100)), np.array([0.0, 0.5, 0.0]), track.VOTE_MEMORY_S)
    np.testing.assert_allclose(one.votes, [0.5, 0.25, 0.0])
    assert one.label == 0 and one.raw_label == 1 and one.flickers == 1 and one.hits == 2


def test_a_confirmed_class_gives_way_to_a_clear_lead_only():
    """VOTE_LEAD of all votes; before it is confirmed, the larger number decides."""
    for confirmed, other, label in ((True, 1.2, 0), (True, 1.3, 1), (False, 1.1, 1), (False, 0.9, 0)):
        one = track.Track(1, box(100), [1.0, 0.0, 0.0], 0.0)
        one.confirmed = confirmed
        follow(one, np.array(box(100)), np.array([0.0, other, 0.0]), 1e-3)
        assert one.label == label, (confirmed, other)


def test_noise_is_kept_for_a_third_of_the_time_of_a_person():
    for frames, fps, kept_s in ((2, 30.0, track.KEEP_S / 3), (30, 30.0, track.KEEP_S)):
        for unseen_s, left in ((kept_s - 0.01, 1), (kept_s + 0.01, 0)):
            tracker = track.Tracker(0.4)
            run(tracker, [[(box(100), MASK)] for _ in range(frames)], fps=fps)
            tracker.update(np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32), (frames - 1) / fps + unseen_s)
            assert len(tracker.tracks) == left, (frames, unseen_s)


def test_a_person_counts_after_three_looks_and_a_quarter_of_a_second():
    for times, persons in (((0, 0.1, 0.26), 1), ((0, 0.26), 0), ((0, 0.1, 0.2), 0), ((0, 0.1, 0.25), 1)):
        tracker = track.Tracker(0.4)
        for now in times:
            tracker.update(np.array([box(100)], np.float32), np.array([MASK], np.float32), now)
        assert tracker.persons == persons, times


def test_who_is_missing_is_shown_for_a_moment_and_not_where_somebody_else_is():
    def shown(other, after=0.1, frames=30):
        tracker = track.Tracker(0.4)
        run(tracker, [[(box(100), MASK)] for _ in range(frames)])
        last = (frames - 1) / 30
        # A stranger of another size: it is not taken for the one who is missing.
        tracker.tracks.append(track.Track(9, other, BARE, last + after))
        return [one.number for one in tracker.visible(last + after)]

    assert shown(box(300)) == [9, 1]
    assert shown(box(104)) == [9]  # they overlap by more than MATCH_IOU
    assert shown(box(130)) == [9, 1]  # by less
    assert shown(box(300), after=0.34) == [9, 1] and shown(box(300), after=0.36) == [9]
    assert shown(box(300), frames=2) == [9]  # noise is not shown when it is gone


def test_an_unseen_track_flies_on_for_half_a_second_at_most():
    one = track.Track(1, box(100), MASK, 10.0)
    one.velocity = [10.0, 0, 10.0, 0]
    for now, ahead in ((10.0, 0.0), (10.2, 2.0), (10.5, 5.0), (11.0, 5.0), (60.0, 5.0)):
        np.testing.assert_allclose(one.predict(now), np.array(box(100 + ahead)), err_msg=str(now))


def test_gains_of_the_filter_shrink_with_age():
    """A first surprise is taken whole, a later one by .6; the velocity takes a quarter of it."""
    one = track.Track(1, box(100), MASK, 0.0)
    for number, (gain, step) in enumerate(((1.0, 1.0), (2 / 3, 1.0), (0.6, 1.0), (0.6, 0.5)), 1):
        expected, speed = np.array(one.predict(one.seen + step)), one.velocity[0]
        follow(one, expected + 12.0, np.array(MASK), one.seen + step)
        np.testing.assert_allclose(one.xyxy, expected + 12.0 * gain)
        assert abs(one.velocity[0] - (0.9 * speed + 0.25 * 12.0 / step)) < 1e-9 and one.hits == number + 1


def test_a_small_step_of_the_clock_makes_no_wild_velocity():
    """Two frames a millisecond apart, or at the same time: the step counts as a sixtieth at least."""
    for step in (0.0, 1e-3, 1 / 60):
        one = track.Track(1, box(100), MASK, 0.0)
        follow(one, np.array(box(102)), np.array(MASK), step)
        assert abs(one.velocity[0] - 0.25 * 2 * 60) < 1e-6, step
        # The clock may stand still or go back: a thousandth of a second has passed.
        faded = MASK[0] ** 2 * 0.5 ** (max(step, 1e-3) / track.VOTE_MEMORY_S)
        assert abs(one.votes[0] - faded - MASK[0] ** 2) < 1e-9


def test_reach_takes_near_ones_of_like_size_only():
    """Without overlap: nearer than 1 side (+ 1 for each unseen second, at most 1), .6 to 1.67 times the side."""
    for after, x, side, same in (
        (0.1, 1.05, 1.0, True),
        (0.1, 1.15, 1.0, False),
        (0.4, 1.35, 1.0, True),
        (0.4, 1.45, 1.0, False),
        (0.1, -1.05, 1.0, True),
        (0.1, 1.05, 0.62, True),
        (0.1, 1.05, 0.58, False),
        (0.1, 1.05, 1.65, True),
        (0.1, 1.05, 1.69, False),
    ):
        for down in (False, True):
            centre = np.array([200.0, 200.0])
            moved = centre + np.array([0.0, x * 40] if down else [x * 40, 0.0])
            tracker = track.Tracker(0.4)
            first, second = (np.concatenate([c - s / 2, c + s / 2]) for c, s in ((centre, 40), (moved, 40 * side)))
            tracker.update(first[None].astype(np.float32), np.array([MASK], np.float32), 0.0)
            tracker.update(second[None].astype(np.float32), np.array([MASK], np.float32), after)
            assert (tracker.tracks[0].hits == 2) is same, (after, x, side, down)


def test_an_outage_is_longer_than_twice_the_time_of_keeping_and_thrice_the_usual_gap():
    for usual, gap, away in ((0.1, 2.9, False), (0.1, 3.1, True), (1.4, 4.1, False), (1.4, 4.3, True)):
        tracker = track.Tracker(0.4)
        for number in range(6):
            tracker._was_away(number * usual)
        assert tracker._was_away(5 * usual + gap) is away, (usual, gap)


def test_a_second_round_takes_unsure_detections_down_to_its_border():
    for score, hits in ((track.LOW_SCORE - 0.01, 1), (track.LOW_SCORE + 0.01, 2)):
        tracker = track.Tracker(0.4)
        run(tracker, [[(box(100), MASK)], [(box(100), [score, 0, 0])]])
        assert tracker.tracks[0].hits == hits


def test_the_surest_hundred_are_followed_and_two_hundred_at_most():
    assert track.MOST == 100
    tracker = track.Tracker(0.4)
    for row in range(3):
        xyxy = np.array([[60 * n, 500 * row, 60 * n + 40, 500 * row + 40] for n in range(150)], np.float32)
        tracker.update(xyxy, np.array([MASK] * 150, np.float32), row / 30)
        assert len(tracker.tracks) == min(100 * (row + 1), 200)


def test_a_track_for_json_and_the_counts():
    tracker = track.Tracker(0.4)
    run(tracker, [[(box(100.04), MASK), (box(300), BARE)] for _ in range(2)])
    assert track.describe(tracker.tracks[0]) == {
        "id": 1,
        "xyxy": [100.0, 100.0, 140.0, 140.0],
        "label": 0,
        "confidence": 0.8,
        "counted": False,
    }
    assert [track.count_of(tracker.tracks, label) for label in (None, 0, 1, 2)] == [2, 1, 1, 0]
