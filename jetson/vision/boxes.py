"""From the network's outputs to boxes: decoding, non-maximum suppression and merging, vectorised."""

import functools
import math
from typing import Any, Mapping, NamedTuple, Optional, Tuple

import cv2
import numpy as np

CANDIDATES = 1000
VOTE_SHARE = 0.5  # of a kept candidate's score; what scores less has no vote on it
_RANKS = np.arange(CANDIDATES, 0, -1, dtype=np.float32)
_any, _most = np.logical_or.reduce, np.maximum.reduce
_MAX_LOG = 10.0  # exp() of a wild box logit must not overflow; 4 * e^10 px is beyond every image


def area(xyxy: np.ndarray) -> np.ndarray:
    """Areas (N,) of boxes (N, 4); 0 where a side is negative."""
    xyxy = np.asarray(xyxy).reshape(-1, 4)
    sides = xyxy[:, 2:] - xyxy[:, :2]
    np.maximum(sides, 0, out=sides)
    return np.multiply(sides[:, 0], sides[:, 1])


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas (N, M) that boxes `a` (N, 4) and `b` (M, 4), xyxy, have in common."""
    a = np.asarray(a).reshape(-1, 1, 4)
    b = np.asarray(b).reshape(1, -1, 4)
    width = np.minimum(a[..., 2], b[..., 2])
    width -= np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3])
    height -= np.maximum(a[..., 1], b[..., 1])
    np.maximum(width, 0, out=width)
    width *= np.maximum(height, 0, out=height)
    return width


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (N, M), float32, of boxes `a` (N, 4) and `b` (M, 4), xyxy; 0 for empty boxes.

    >>> iou_matrix([[0, 0, 2, 2]], [[0, 0, 2, 1], [5, 5, 6, 6]])
    array([[0.5, 0. ]], dtype=float32)
    """
    a = np.asarray(a, np.float64).reshape(-1, 4)
    b = np.asarray(b, np.float64).reshape(-1, 4)
    common = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0).astype(np.float32)


def _logit(score: float) -> float:
    if score <= 0:
        return -math.inf
    if score >= 1:
        return math.inf
    return math.log(score / (1 - score))


class Cells(NamedTuple):
    """The cells that may be a face, of all maps: all that is left of the network's outputs, and a copy.

    float32: `places` (3, K), x and y of their centres in input pixels and their strides; `logits` (C, K); `distances`
    (4, K).
    """

    places: np.ndarray
    logits: np.ndarray
    distances: np.ndarray


@functools.lru_cache(maxsize=64)
def _centres(stride: int, height: int, width: int) -> np.ndarray:
    """Of every cell of a map: its centre's x and y in input pixels, and its stride; float32 (3, height * width)."""
    row, column = np.divmod(np.arange(height * width), width)
    return np.stack([(column + 0.5) * stride, (row + 0.5) * stride, np.full(height * width, stride)]).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _threshold(score: float) -> Any:
    """The logit of a score, as the network's outputs have it."""
    return np.float32(_logit(score))


def pick(outputs: Mapping[str, np.ndarray], recipe: Mapping[str, Any], score: float) -> Cells:
    """The cells whose best class scores over `score`; at most 1000 of a map, the best.

    `outputs`, `recipe`: as of `decode`. Nothing of it refers to `outputs`, which an engine overwrites.
    """
    places, found, reaches = [], [], []
    threshold = _threshold(score)
    classes = 0
    for stride in recipe["strides"]:
        logits = outputs[f"cls_{stride}"]
        _, classes, height, width = logits.shape
        logits = logits.reshape(classes, height * width)
        # The threshold is applied to logits: the sigmoid is paid for the few cells that pass, not for the map.
        over = logits > threshold
        numbers = (over[0] if classes == 1 else _any(over)).nonzero()[0]
        if not numbers.size:
            continue
        passed = logits.take(numbers, 1)
        if numbers.size > CANDIDATES:
            keep = np.argpartition(passed.max(axis=0), -CANDIDATES)[-CANDIDATES:]
            keep.sort()
            numbers, passed = numbers[keep], passed[:, keep]
        places.append(_centres(stride, height, width).take(numbers, 1))
        found.append(passed)
        reaches.append(outputs[f"box_{stride}"].reshape(4, height * width).take(numbers, 1))
    if not found:
        return Cells(np.zeros((3, 0), np.float32), np.zeros((classes, 0), np.float32), np.zeros((4, 0), np.float32))
    if len(found) == 1:
        return Cells(places[0], found[0], reaches[0])
    return Cells(np.concatenate(places, 1), np.concatenate(found, 1), np.concatenate(reaches, 1))


def decode(outputs: Mapping[str, np.ndarray], recipe: Mapping[str, Any], score: float) -> Tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) xyxy in input pixels and class scores (N, C), both float32, best first.

    `outputs`: for each stride s, `cls_<s>` (1, C, h, w) logits and `box_<s>` (1, 4, h, w), the distances left, top,
    right, bottom from the cell's centre ((j + .5) s, (i + .5) s), in pixels s * exp(x) (`recipe["box"] == "exp"`).
    `recipe`: the manifest's `decode`. A cell counts when its best class scores over `score`; at most 1000, the best.
    """
    return decode_cells(pick(outputs, recipe, score))


def decode_cells(picked: Cells) -> Tuple[np.ndarray, np.ndarray]:
    """`decode` of the cells that `pick` found: boxes (N, 4) xyxy in input pixels, scores (N, C), best first."""
    places, logits, distances = picked
    count = logits.shape[1]
    if not count:
        return np.zeros((0, 4), np.float32), np.zeros((0, len(logits)), np.float32)
    # All maps at once, and few calls: each costs more than the few numbers that it works on.
    order = np.negative(_most(logits)).argsort(kind="stable")[:CANDIDATES]
    places, reach = places.take(order, 1), distances.take(order, 1)
    np.exp(np.minimum(reach, _MAX_LOG, out=reach), out=reach)
    reach *= places[2]
    edges = np.empty((4, order.size), np.float32)
    np.subtract(places[:2], reach[:2], out=edges[:2])
    np.add(places[:2], reach[2:], out=edges[2:])
    return edges.T, sigmoid(logits.take(order, 1)).T


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow, in x's shape and type."""
    small = np.exp(np.copysign(x, -1))
    return np.maximum(small, x >= 0) / (1 + small)


def nms(xyxy: np.ndarray, scores: np.ndarray, iou: float, max_detections: int) -> np.ndarray:
    """Greedy suppression: indices (K,) into `xyxy` (N, 4), best score first, at most `max_detections`.

    A box goes when its IoU with a kept one of higher score is over `iou`. Class-agnostic: a face has one class, so
    `scores` (N,) is the best class score. Equal scores keep their order.
    """
    order = np.argsort(-np.asarray(scores, np.float32), kind="stable")
    return order[suppress(np.asarray(xyxy, np.float32).reshape(-1, 4)[order], iou, max_detections)]


def suppress(xyxy: np.ndarray, iou: float, max_detections: int) -> np.ndarray:
    """`nms` of boxes that come best first, float32 (N, 4)."""
    if not len(xyxy):
        return np.zeros(0, np.int64)
    xywh = xyxy.copy()
    xywh[:, 2:] -= xyxy[:, :2]
    # OpenCV's loop is five to ten times faster than one in numpy. It gets ranks for scores: it would drop a 0; and
    # lists, which it reads five times faster than the rows of an array.
    ranks = _RANKS[: len(xywh)] if len(xywh) <= CANDIDATES else np.arange(len(xywh), 0, -1, dtype=np.float32)
    kept = cv2.dnn.NMSBoxes(xywh.tolist(), ranks, 0.0, iou)  # type: ignore[arg-type]
    return np.array(kept, np.int64).reshape(-1)[:max_detections]


def merge(
    xyxy: np.ndarray, scores: np.ndarray, kept: np.ndarray, iou: float, best: Optional[np.ndarray] = None
) -> Tuple[np.ndarray, np.ndarray]:
    """The `kept` (K,) of `xyxy` (N, 4) and `scores` (N, C), each as the mean of those that found the same face.

    Several cells find one face, and their errors differ: the mean of boxes and classes is better than the best cell's
    alone (+0.5 points of mAP50 on val/). A candidate votes when its IoU with the kept one is `iou` (over 0) or more and
    its best score at least VOTE_SHARE of the kept one's; its weight is that score. The best score of a face stays what
    it was, so order and threshold are not touched. `best` (N,): the best of each row of `scores`, where it is known.
    """
    if not len(kept):
        return xyxy[:0], scores[:0]
    if best is None:
        best = scores.max(axis=1)
    confidence = best[kept]
    # IoU >= iou, without the division and in float32: with a low threshold there are 1000 candidates.
    size, common = area(xyxy), intersection(xyxy[kept], xyxy)
    common *= (1 + iou) / iou
    votes = common >= size[kept][:, None] + size
    votes &= best >= VOTE_SHARE * confidence[:, None]
    count = np.arange(len(kept))
    votes[count, kept] = True
    # Votes are few. Sums over them need no matrix product, whose threads would wait for cores that the engine has.
    rows, voters = votes.nonzero()
    weighted = np.empty((len(voters), 5 + scores.shape[1]), np.float32)
    weighted[:, 0] = weight = best[voters]
    np.multiply(xyxy[voters], weight[:, None], out=weighted[:, 1:5])
    np.multiply(scores[voters], weight[:, None], out=weighted[:, 5:])
    sums = np.add.reduceat(weighted, rows.searchsorted(count), axis=0)
    means = sums[:, 1:] / sums[:, :1]
    classes = means[:, 4:]
    classes *= (confidence / classes.max(axis=1))[:, None]
    return means[:, :4], classes
