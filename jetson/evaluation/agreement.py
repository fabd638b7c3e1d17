"""How much one variant finds what another finds: agreement with a reference, with its uncertainty.

Agreement = faces that both found, in the same place (IoU >= .5) and with the same class, as a share of all faces that
either found. It needs no labels; it says how much a faster variant loses against the most accurate one, not how good
that one is.
"""

import math
from collections import deque
from typing import Any, Deque, Dict, Optional, Tuple

import numpy as np

from jetson.inference.detector import Faces
from jetson.vision import boxes

MATCH_IOU = 0.5
SIZES = ("small", "medium", "large")
_EDGES = (32**2, 96**2)  # COCO's areas in pixels
KEPT = 2000


def match(reference: Faces, found: Faces) -> Tuple[np.ndarray, np.ndarray]:
    """Indices (K,) and (K,) of the pairs, the best IoU first, each face once, IoU at least .5."""
    overlap = boxes.iou_matrix(reference.xyxy, found.xyxy)
    rows, columns = np.nonzero(overlap >= MATCH_IOU)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    left, right = [], []
    for number in order:
        if rows[number] not in left and columns[number] not in right:
            left.append(int(rows[number]))
            right.append(int(columns[number]))
    return np.array(left, np.int64), np.array(right, np.int64)


def wilson(share: float, n: float) -> Tuple[float, float]:
    """The 95 % interval of a share seen in `n` independent cases (Wilson, JASA 1927).

    >>> [round(side, 3) for side in wilson(0.5, 100)]
    [0.404, 0.596]
    """
    if n <= 0:
        return 0.0, 1.0
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


class Agreement:
    """Counts over the last 2,000 sampled frames: per frame, how many faces either saw and on how many both agree."""

    def __init__(self) -> None:
        # (either, agreed, matched, then either and agreed for small, medium, large)
        self._rows: Deque[Tuple[int, ...]] = deque(maxlen=KEPT)
        self._cached: Optional[Dict[str, Any]] = None

    def add(self, reference: Faces, found: Faces) -> None:
        """Count one frame on which both were run."""
        left, right = match(reference, found)
        same = reference.labels[left] == found.labels[right] if len(left) else np.zeros(0, bool)
        alone = np.setdiff1d(np.arange(len(found)), right)
        # A face's size is that of the reference's box; a face that only the other saw has its own.
        area = np.concatenate([boxes.area(reference.xyxy), boxes.area(found.xyxy[alone])])
        agreed = np.zeros(len(area), bool)
        agreed[left[same]] = True
        row = [len(area), int(agreed.sum()), len(left)]
        size = np.digitize(area, _EDGES)
        for number in range(len(SIZES)):
            row += [int((size == number).sum()), int(agreed[size == number].sum())]
        self._rows.append(tuple(row))
        self._cached = None

    def value(self) -> Dict[str, Any]:
        """{agreement, low, high, class_agreement, by_size, faces, frames}; shares 0..1, None without a face.

        low and high bound the agreement at 95 %. Faces of one frame are not independent, so the case count is lowered
        by the design effect of frames as clusters (ratio estimator, Cochran, Sampling Techniques, chapter 6).
        """
        if self._cached is None:
            self._cached = self._compute()
        return self._cached

    def _compute(self) -> Dict[str, Any]:
        rows = np.array(self._rows, np.int64).reshape(-1, 3 + 2 * len(SIZES))
        total = rows.sum(axis=0)
        with_face = rows[rows[:, 0] > 0]
        result: Dict[str, Any] = {
            "agreement": None,
            "low": None,
            "high": None,
            "class_agreement": None,
            "by_size": dict.fromkeys(SIZES),
            "faces": int(total[0]),
            "frames": len(rows),
        }
        if not len(with_face):
            return result
        either, agreed = with_face[:, 0].astype(float), with_face[:, 1].astype(float)
        share = agreed.sum() / either.sum()
        frames = len(with_face)
        cases = float(frames)  # all equal: nothing is known of how faces of a frame hang together
        if frames > 1 and 0 < share < 1:
            residual = agreed - share * either
            variance = frames / (frames - 1) * float((residual**2).sum()) / either.sum() ** 2
            cases = min(either.sum(), max(1.0, share * (1 - share) / max(variance, 1e-12)))
        low, high = wilson(share, cases)
        result.update(agreement=round(share, 4), low=round(low, 4), high=round(high, 4))
        if total[2]:
            result["class_agreement"] = round(float(agreed.sum() / total[2]), 4)
        for number, name in enumerate(SIZES):
            seen, good = total[3 + 2 * number], total[4 + 2 * number]
            if seen:
                result["by_size"][name] = {"agreement": round(float(good / seen), 4), "faces": int(seen)}
        return result
