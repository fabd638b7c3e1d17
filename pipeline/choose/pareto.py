"""The Pareto front: what nothing else beats in every respect."""

import math
from collections.abc import Sequence


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other point beats, in the order given; every coordinate is to be small.

    A point is beaten by one that is nowhere larger and somewhere smaller. Equal points all stay. A point with a NaN
    coordinate is never on the front.

    >>> front([(10, -70), (20, -80), (25, -75), (20, -80)])
    [0, 1, 3]
    """
    order = sorted((tuple(point), i) for i, point in enumerate(points) if not any(math.isnan(v) for v in point))
    kept: list[tuple[float, ...]] = []
    out = []
    for point, i in order:
        # Sorted order: whatever beats this point came before it, and is itself beaten only by what came before.
        if any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in kept):
            continue
        if not kept or kept[-1] != point:
            kept.append(point)
        out.append(i)
    return sorted(out)
