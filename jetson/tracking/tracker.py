"""Tracks: one person is one track, and its class is a vote over its life.

Association in two rounds, as in ByteTrack (Zhang et al., ECCV 2022): sure detections first, then the unsure ones for
the tracks left over, by IoU with the predicted box. Motion is a constant velocity with gains that shrink with age (an
alpha-beta filter). All times are seconds of the scene (of a file its own), so that a slow machine and a fast one keep
a track equally long.
"""

from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from jetson.vision import boxes

MATCH_IOU = 0.25
LOW_SCORE = 0.15  # detections down to this score keep a track alive, but start none
MOST = 100  # faces followed in one picture
KEEP_S = 1.5  # an unseen track is kept for this long
# So long without any frame, and thrice as long as usual here: the camera was away, and who stands there now is another.
AWAY_S = 2 * KEEP_S
CONFIRM_HITS = 3
CONFIRM_S = 0.25
VOTE_MEMORY_S = 8.0  # votes fade, so that a mask put on after entering changes the class
VOTE_LEAD = 0.6  # the share of the votes a new class needs to take over


class Event(NamedTuple):
    kind: str
    track: int
    label: int
    began: float
    at: float


class Track:
    """One face over time. `label` is the voted class; `confirmed` once it was seen often and long enough to count."""

    __slots__ = (
        "number",
        "xyxy",
        "velocity",
        "scores",
        "confidence",
        "began",
        "seen",
        "hits",
        "votes",
        "label",
        "confirmed",
        "alarmed",
        "shown",
        "flickers",
        "raw_label",
    )

    def __init__(self, number: int, xyxy: np.ndarray, scores: np.ndarray, now: float) -> None:
        self.number = number
        self.xyxy = xyxy.astype(np.float64)
        self.velocity = np.zeros(4)
        self.scores = scores
        self.confidence = float(scores.max())
        self.began = self.seen = now
        self.hits = 1
        self.votes = scores.astype(np.float64) ** 2
        self.label = self.raw_label = int(scores.argmax())
        self.confirmed = False
        self.alarmed = -1
        self.shown = True
        self.flickers = 0

    def predict(self, now: float) -> np.ndarray:
        """Where the box is expected at `now`; an unseen track slows down, so that it does not fly off."""
        ahead = now - self.seen
        return self.xyxy + self.velocity * min(ahead, 0.5)

    def see(self, label: int, confidence: float, scores: np.ndarray, leader: int, leads: bool, now: float) -> None:
        """A detection was matched, and `_follow` has moved the box and the votes; `leads`: clearly."""
        self.scores = scores
        self.confidence = confidence
        self.flickers += label != self.raw_label
        self.raw_label = label
        self.seen = now
        self.hits += 1
        if leader != self.label and (not self.confirmed or leads):
            self.label = leader


def _expected(tracks: List[Track], now: float) -> np.ndarray:
    """`predict` of all tracks at once: (T, 4)."""
    if not tracks:
        return np.zeros((0, 4))
    ahead = np.array([min(now - track.seen, 0.5) for track in tracks])
    return np.array([track.xyxy for track in tracks]) + np.array([track.velocity for track in tracks]) * ahead[:, None]


def _follow(
    tracks: List[Track],
    expected: np.ndarray,
    xyxy: np.ndarray,
    scores: np.ndarray,
    now: float,
) -> None:
    """Each of `tracks`, `expected` (T, 4), was seen as `xyxy` (T, 4) with `scores` (T, C), float64 and float32."""
    steps = [max(now - track.seen, 1e-3) for track in tracks]
    gains = np.array([max(0.6, 2.0 / (track.hits + 1)) for track in tracks])
    surprise = xyxy - expected
    boxes_now = expected + gains[:, None] * surprise
    pace = np.array([max(step, 1 / 60) for step in steps])
    velocities = 0.9 * np.array([track.velocity for track in tracks]) + 0.25 * surprise / pace[:, None]
    fade = np.array([0.5 ** (step / VOTE_MEMORY_S) for step in steps])
    # Squared: an unsure look (turned head, blur) weighs little against a clear one.
    votes = np.array([track.votes for track in tracks]) * fade[:, None] + scores.astype(np.float64) ** 2
    leaders, leads = votes.argmax(axis=1).tolist(), (votes.max(axis=1) > VOTE_LEAD * votes.sum(axis=1)).tolist()
    labels, confidences = scores.argmax(axis=1).tolist(), scores.max(axis=1).tolist()
    for number, track in enumerate(tracks):
        track.xyxy, track.velocity, track.votes = boxes_now[number], velocities[number], votes[number]
        track.see(labels[number], confidences[number], scores[number], leaders[number], leads[number], now)


class Tracker:
    """The tracks of one camera. `update` once per frame, with times that rise."""

    def __init__(self, score: float, classes: int = 3, ignored: Sequence[int] = ()) -> None:
        self.score = score  # from which a detection starts a track
        self.ignored = list(ignored)  # classes that are not followed
        self.tracks: List[Track] = []
        self.counts = [0] * classes  # persons by class at the end of the vote so far; moves with a changed vote
        self.persons = 0
        self._next = 1
        self._updated: Optional[float] = None
        self._gaps: Deque[float] = deque(maxlen=5)  # s between the last frames

    def update(self, xyxy: np.ndarray, scores: np.ndarray, now: float) -> List[Event]:
        """Take the detections of one frame, `xyxy` (N, 4) px and `scores` (N, C); what happened, as events.

        Events: "enter" when a person is confirmed, "change" when its voted class changes, "leave" when it is gone.
        """
        events = self._settle(now) if self._was_away(now) else []
        if self.ignored and len(xyxy):
            followed = ~np.isin(scores.argmax(axis=1), self.ignored)
            xyxy, scores = xyxy[followed], scores[followed]
        # A crowd, or a net that sees faces everywhere, must not stop the loop: the surest ones are followed.
        xyxy, scores = xyxy[:MOST], scores[:MOST]
        count = len(xyxy)
        free = np.ones(count, bool)
        confidence = scores.max(axis=1) if count else np.zeros(0, np.float32)
        sure = confidence >= self.score
        waiting = list(range(len(self.tracks)))
        expected = _expected(self.tracks, now)
        found = xyxy.astype(np.float64)
        pairs: List[Tuple[int, int]] = []
        if count and waiting:
            overlap = boxes.iou_matrix(expected, xyxy)
            for chosen in (sure, ~sure & (confidence >= LOW_SCORE)):
                columns = np.flatnonzero(chosen & free)
                if not len(columns) or not waiting:
                    continue
                part = overlap[np.array(waiting, np.intp)[:, None], columns]
                for t, d in _assign(part, part >= MATCH_IOU, waiting, columns):
                    pairs.append((t, d))
                    free[d] = False
                    waiting.remove(t)
            for t, d in self._reach(waiting, np.flatnonzero(sure & free), expected, found, now):
                pairs.append((t, d))
                free[d] = False
        if pairs:
            rows, columns = np.array([t for t, _ in pairs]), np.array([d for _, d in pairs])
            _follow([self.tracks[t] for t, _ in pairs], expected[rows], found[columns], scores[columns], now)
        for d in np.flatnonzero(sure & free)[: max(0, 2 * MOST - len(self.tracks))]:
            self.tracks.append(Track(self._next, xyxy[d], scores[d], now))
            self._next += 1
        return events + self._settle(now)

    def finish(self) -> List[Event]:
        """The scene is over: whoever is still followed leaves, when it was seen last."""
        gone = [
            Event("leave", track.number, track.label, track.began, track.seen)
            for track in self.tracks
            if track.confirmed
        ]
        self.tracks = []
        self._updated = None
        self._gaps.clear()
        return gone

    def _was_away(self, now: float) -> bool:
        """Whether this frame comes after a time without any; where each frame is long after the last, that is usual."""
        gap = 0.0 if self._updated is None else now - self._updated
        away = bool(self._gaps) and gap > max(AWAY_S, 3 * sorted(self._gaps)[len(self._gaps) // 2])
        if self._updated is not None:
            self._gaps.append(gap)
        self._updated = now
        return away

    def _reach(
        self, waiting: List[int], detections: np.ndarray, predicted: np.ndarray, xyxy: np.ndarray, now: float
    ) -> List[Tuple[int, int]]:
        """Pairs without overlap, but near and of like size: fast small faces at a low frame rate."""
        if not waiting or not len(detections):
            return []
        expected = predicted[waiting]
        unseen = np.array([min(now - self.tracks[t].seen, 1.0) for t in waiting])
        found = xyxy[detections]
        side = np.sqrt(np.maximum(boxes.area(expected), 1.0))[:, None]
        ratio = np.sqrt(np.maximum(boxes.area(found), 1.0))[None] / side
        apart = (found[None, :, :2] + found[None, :, 2:] - expected[:, None, :2] - expected[:, None, 2:]) / 2
        distance = np.hypot(apart[..., 0], apart[..., 1]) / side
        near = (distance < 1.0 + unseen[:, None]) & (ratio > 0.6) & (ratio < 1.67)
        return _assign(-distance, near, waiting, detections)

    def _settle(self, now: float) -> List[Event]:
        events = []
        for track in self.tracks:
            if not track.confirmed and track.hits >= CONFIRM_HITS and track.seen - track.began >= CONFIRM_S:
                track.confirmed = True
                track.alarmed = track.label
                self.persons += 1
                self.counts[track.label] += 1
                events.append(Event("enter", track.number, track.label, track.began, now))
            elif track.confirmed and track.alarmed != track.label:
                self.counts[track.alarmed] -= 1
                self.counts[track.label] += 1
                track.alarmed = track.label
                events.append(Event("change", track.number, track.label, track.began, now))
        kept = []
        for track in self.tracks:
            # A face seen once or twice and gone was noise; it is not kept as long as a person behind a pillar.
            if now - track.seen <= (KEEP_S if track.confirmed else KEEP_S / 3):
                kept.append(track)
            elif track.confirmed:
                events.append(Event("leave", track.number, track.label, track.began, track.seen))
        self.tracks = kept
        return events

    def visible(self, now: float, grace_s: float = 0.35) -> List[Track]:
        """The tracks to show: seen now, or confirmed and missing for a moment only."""
        seen = [track for track in self.tracks if track.seen >= now]
        missing = [
            track for track in self.tracks if track.seen < now and track.confirmed and now - track.seen <= grace_s
        ]
        if seen and missing:
            # Where somebody else is seen now, the one who is missing is not.
            overlap = boxes.iou_matrix(
                np.array([track.predict(now) for track in missing]), np.array([track.xyxy for track in seen])
            )
            missing = [track for track, most in zip(missing, overlap.max(axis=1)) if most < MATCH_IOU]
        return seen + missing


def _assign(goodness: np.ndarray, allowed: np.ndarray, rows: List[int], columns: np.ndarray) -> List[Tuple[int, int]]:
    """Pairs (row, column) that are allowed, the best first, each row and column once."""
    at_row, at_column = np.nonzero(allowed)
    pairs = []
    used_rows: Set[int] = set()
    used_columns: Set[int] = set()
    for number in np.argsort(-goodness[at_row, at_column], kind="stable"):
        r, c = int(at_row[number]), int(at_column[number])
        if r not in used_rows and c not in used_columns:
            used_rows.add(r)
            used_columns.add(c)
            pairs.append((rows[r], int(columns[c])))
    return pairs


def describe(track: Track) -> Dict[str, Any]:
    """A track for JSON: id, box in frame pixels, class number, confidence, whether it is counted."""
    return {
        "id": track.number,
        "xyxy": [round(float(side), 1) for side in track.xyxy],
        "label": track.label,
        "confidence": round(track.confidence, 3),
        "counted": track.confirmed,
    }


def count_of(tracks: List[Track], label: Optional[int] = None) -> int:
    """How many of these tracks have the voted class `label` (all when None)."""
    return sum(1 for track in tracks if label is None or track.label == label)
