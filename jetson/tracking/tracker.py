"""Tracks: one person is one track, and its class is a vote over its life.

Association in two rounds, as in ByteTrack (Zhang et al., ECCV 2022): sure detections first, then the unsure ones for
the tracks left over, by IoU with the predicted box. Motion is a constant velocity with gains that shrink with age (an
alpha-beta filter). All times are seconds of the scene (of a file its own), so that a slow machine and a fast one keep
a track equally long.
"""

import array
import functools
import math
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
        "box",
        "velocity",
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

    def __init__(self, number: int, box: List[float], scores: List[float], now: float) -> None:
        self.number = number
        self.box = box  # x0, y0, x1, y1 in frame pixels
        self.velocity = [0.0, 0.0, 0.0, 0.0]  # of each, in px/s
        self.confidence = max(scores)
        self.began = self.seen = now
        self.hits = 1
        self.votes = [score * score for score in scores]
        self.label = self.raw_label = scores.index(self.confidence)
        self.confirmed = False
        self.alarmed = -1
        self.shown = True
        self.flickers = 0

    @property
    def xyxy(self) -> np.ndarray:
        """The box, float64 (4,), in frame pixels."""
        return np.array(self.box)

    def predict(self, now: float) -> List[float]:
        """Where the box is expected at `now`; an unseen track slows down, so that it does not fly off."""
        ahead = min(now - self.seen, 0.5)
        return [side + pace * ahead for side, pace in zip(self.box, self.velocity)]

    def follow(self, expected: List[float], box: List[float], scores: List[float], now: float) -> None:
        """It was `expected` there, and was seen at `box` with `scores`."""
        step = max(now - self.seen, 1e-3)
        gain, pace = max(0.6, 2.0 / (self.hits + 1)), max(step, 1 / 60)
        surprise = [side - was for side, was in zip(box, expected)]
        self.box = [was + gain * far for was, far in zip(expected, surprise)]
        self.velocity = [0.9 * speed + 0.25 * far / pace for speed, far in zip(self.velocity, surprise)]
        fade = 0.5 ** (step / VOTE_MEMORY_S)
        # Squared: an unsure look (turned head, blur) weighs little against a clear one.
        self.votes = votes = [vote * fade + score * score for vote, score in zip(self.votes, scores)]
        most, self.confidence = max(votes), max(scores)
        leader, label = votes.index(most), scores.index(self.confidence)
        self.flickers += label != self.raw_label
        self.raw_label = label
        self.seen = now
        self.hits += 1
        if leader != self.label and (not self.confirmed or most > VOTE_LEAD * _total(votes)):
            self.label = leader


def _total(numbers: List[float]) -> float:
    """Their sum from left to right; sum() rounds in another way from Python 3.12 on."""
    total = 0.0
    for number in numbers:
        total += number
    return total


@functools.lru_cache(maxsize=64)
def _single(score: float) -> float:
    """A score as it is in float32."""
    return float(np.float32(score))


_PLAIN = 150  # pairs up to which plain numbers are faster than arrays, each call of which costs more than ten pairs


def _overlapping(expected: List[List[float]], found: List[List[float]]) -> List[Tuple[int, int]]:
    """Pairs (number in `expected`, number in `found`) whose IoU is MATCH_IOU or more, the best first."""
    if len(expected) * len(found) > _PLAIN:
        overlap = boxes.iou_matrix(np.array(expected), np.array(found))
        rows, columns = np.nonzero(overlap >= MATCH_IOU)
        order = np.argsort(-overlap[rows, columns], kind="stable")
        return list(zip(rows[order].tolist(), columns[order].tolist()))
    areas = [max(x1 - x0, 0.0) * max(y1 - y0, 0.0) for x0, y0, x1, y1 in found]
    shares, pairs = array.array("f"), []  # float32, as boxes.iou_matrix
    for t, (left, top, right, bottom) in enumerate(expected):
        area = max(right - left, 0.0) * max(bottom - top, 0.0)
        for d, (x0, y0, x1, y1) in enumerate(found):
            width = (x1 if x1 < right else right) - (x0 if x0 > left else left)
            if width > 0.0:
                height = (y1 if y1 < bottom else bottom) - (y0 if y0 > top else top)
                if height > 0.0:
                    common = width * height
                    shares.append(common / (area + areas[d] - common))
                    pairs.append((t, d))
    good = sorted((-share, number) for number, share in enumerate(shares) if share >= MATCH_IOU)
    return [pairs[number] for _, number in good]


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
        found, classes = xyxy.tolist(), scores.tolist()  # plain numbers: persons are few, see _PLAIN
        # Scores are float32, so what they are compared with is, too.
        high, low = _single(self.score), _single(LOW_SCORE)
        confidence = [max(one) for one in classes]
        expected = [track.predict(now) for track in self.tracks]
        free, waiting = set(range(len(found))), set(range(len(expected)))
        near = _overlapping(expected, found) if found and expected else []
        for least, under in ((high, math.inf), (low, high)):
            for t, d in near:
                if least <= confidence[d] < under and t in waiting and d in free:
                    waiting.remove(t)
                    free.remove(d)
                    self.tracks[t].follow(expected[t], found[d], classes[d], now)
        unknown = [d for d in sorted(free) if confidence[d] >= high]
        if unknown:
            for t, d in self._reach(sorted(waiting), unknown, expected, found, now):
                free.remove(d)
                self.tracks[t].follow(expected[t], found[d], classes[d], now)
        for d in [d for d in unknown if d in free][: max(0, 2 * MOST - len(self.tracks))]:
            self.tracks.append(Track(self._next, found[d], classes[d], now))
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
        away = gap > AWAY_S and bool(self._gaps) and gap > 3 * sorted(self._gaps)[len(self._gaps) // 2]
        if self._updated is not None:
            self._gaps.append(gap)
        self._updated = now
        return away

    def _reach(
        self,
        waiting: List[int],
        detections: List[int],
        expected: List[List[float]],
        found: List[List[float]],
        now: float,
    ) -> List[Tuple[int, int]]:
        """Pairs without overlap, but near and of like size: fast small faces at a low frame rate."""
        if not waiting or not detections:
            return []
        there, here = np.array([expected[t] for t in waiting]), np.array([found[d] for d in detections])
        unseen = np.array([min(now - self.tracks[t].seen, 1.0) for t in waiting])
        side = np.sqrt(np.maximum(boxes.area(there), 1.0))[:, None]
        ratio = np.sqrt(np.maximum(boxes.area(here), 1.0))[None] / side
        apart = (here[None, :, :2] + here[None, :, 2:] - there[:, None, :2] - there[:, None, 2:]) / 2
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
        if all(track.seen >= now for track in self.tracks):
            return events
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
        if len(seen) == len(self.tracks):
            return seen
        missing = [
            track for track in self.tracks if track.seen < now and track.confirmed and now - track.seen <= grace_s
        ]
        if seen and missing:
            # Where somebody else is seen now, the one who is missing is not.
            overlap = boxes.iou_matrix(
                np.array([track.predict(now) for track in missing]), np.array([track.box for track in seen])
            )
            missing = [track for track, most in zip(missing, overlap.max(axis=1)) if most < MATCH_IOU]
        return seen + missing


def _assign(goodness: np.ndarray, allowed: np.ndarray, rows: List[int], columns: List[int]) -> List[Tuple[int, int]]:
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
            pairs.append((rows[r], columns[c]))
    return pairs


def describe(track: Track) -> Dict[str, Any]:
    """A track for JSON: id, box in frame pixels, class number, confidence, whether it is counted."""
    return {
        "id": track.number,
        "xyxy": [round(side, 1) for side in track.box],
        "label": track.label,
        "confidence": round(track.confidence, 3),
        "counted": track.confirmed,
    }


def count_of(tracks: List[Track], label: Optional[int] = None) -> int:
    """How many of these tracks have the voted class `label` (all when None)."""
    return sum(1 for track in tracks if label is None or track.label == label)
