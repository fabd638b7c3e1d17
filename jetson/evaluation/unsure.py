"""How unsure a detector is about a frame: such frames teach the next one most (uncertainty sampling)."""

import numpy as np

from jetson.evaluation import agreement
from jetson.inference.detector import Faces

LOWEST = 0.05  # score: what is under it is hardly ever a face


def unsureness(faces: Faces, score: float) -> float:
    """0 where a detector sees no face or is certain of all; 1 where a face scores just `score`, or two classes alike.

    `faces`: those over LOWEST; `score`: the score from which a face is shown, between 0 and 1.
    """
    worst = 0.0
    for scores in np.asarray(faces.scores, np.float64):
        best = float(scores.max())
        at_threshold = 1 - abs(best - score) / (score if best < score else 1 - score)
        second = float(np.partition(scores, -2)[-2]) if len(scores) > 1 else 0.0
        worst = max(worst, at_threshold, second / best if best >= score else 0.0)
    return worst


def disagree(one: Faces, other: Faces) -> bool:
    """Whether two detectors see other faces, or other classes on the same: IoU >= .5 is the same place."""
    left, right = agreement.match(one, other)
    same = len(left) == len(one) == len(other)
    return not same or bool((one.labels[left] != other.labels[right]).any())
