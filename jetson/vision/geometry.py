"""Points, segments and polygons in a picture (x to the right, y down), for many points at once."""

from typing import Optional, Tuple

import numpy as np


def _turn(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Twice the signed area of the triangles a, b, p; each (..., 2). Positive: p is to the right of a->b."""
    return (b[..., 0] - a[..., 0]) * (p[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (p[..., 0] - a[..., 0])


def left_of(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How far `points` (N, 2) are to the left hand of one who walks from `a` to `b` (2,), (N,); negative: right.

    >>> left_of(np.array([0., 10.]), np.array([10., 10.]), np.array([[5., 4.], [5., 13.]])).tolist()
    [6.0, -3.0]
    """
    return -_turn(a, b, points) / max(float(np.hypot(*(b - a))), 1e-12)


def crosses(starts: np.ndarray, ends: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether the segments starts->ends (N, 2) and a->b (2,) or (N, 2) have a point in common: bool (N,)."""
    a, b = np.broadcast_to(a, starts.shape), np.broadcast_to(b, starts.shape)
    apart = (np.maximum(starts, ends) < np.minimum(a, b)) | (np.maximum(a, b) < np.minimum(starts, ends))
    first = np.sign(_turn(a, b, starts)) * np.sign(_turn(a, b, ends))
    second = np.sign(_turn(starts, ends, a)) * np.sign(_turn(starts, ends, b))
    return ~apart.any(axis=1) & (first <= 0) & (second <= 0)


def inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether `points` (N, 2) lie in `polygon` (M, 2), by the number of edges to their right: bool (N,).

    A point on the outline may count as either.
    """
    a, b = polygon[None], np.roll(polygon, -1, axis=0)[None]
    p = points[:, None]
    spans = (a[..., 1] > p[..., 1]) != (b[..., 1] > p[..., 1])
    # The edge passes to the right of the point; no division, so that whole numbers stay exact.
    right = (_turn(a, b, p) > 0) == (a[..., 1] > b[..., 1])
    return (spans & right).sum(axis=1) % 2 == 1


def to_outline(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The distance of `points` (N, 2) from the outline of `polygon` (M, 2): (N,)."""
    a, along = polygon[None], (np.roll(polygon, -1, axis=0) - polygon)[None]
    offset = points[:, None] - a
    share = (offset * along).sum(axis=2) / np.maximum((along**2).sum(axis=2), 1e-12)
    rest = offset - np.clip(share, 0, 1)[..., None] * along
    return np.hypot(rest[..., 0], rest[..., 1]).min(axis=1)


def area(polygon: np.ndarray) -> float:
    """The area of `polygon` (M, 2)."""
    x, y = polygon[:, 0], polygon[:, 1]
    return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2


def crossing_edges(polygon: np.ndarray) -> Optional[Tuple[int, int]]:
    """Two edges of `polygon` (M, 2) that meet where they should not, by their numbers from 0; None when it is simple.

    Edge i goes from point i to point i + 1. Neighbours meet in their common point; lying on each other is a fault.
    """
    count = len(polygon)
    ends = np.roll(polygon, -1, axis=0)
    for i in range(count):
        meeting = crosses(polygon, ends, polygon[i], ends[i])
        for j in np.flatnonzero(meeting[i + 1 :]) + i + 1:
            if j == i + 1 or (i == 0 and j == count - 1):
                corner = j if j == i + 1 else 0
                before, there, after = polygon[corner - 1], polygon[corner], polygon[(corner + 1) % count]
                if _turn(before, there, after) != 0 or ((before - there) * (after - there)).sum() <= 0:
                    continue
            return i, int(j)
    return None
