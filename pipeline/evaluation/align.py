"""AP after one constant offset of boxes per collection is undone.

Collections draw a face's box differently: from the hairline or from the eyebrows, to the chin or below it. A detector
trained on one convention loses boxes of another at IoU .5 although it found every face. Here four numbers per
collection, the median distances of the edges of truth from those of the found box in shares of the box's own sides,
are estimated from the evaluated labels themselves and applied to everything that was found. So the aligned figure says
how well faces are found, not how well the boxes fit; it is never gated and never chosen by.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jetson.bundle.manifest import CLASSES
from jetson.evaluation import average_precision
from jetson.inference.detector import Faces
from jetson.vision.boxes import iou_matrix

SCORE = 0.3  # what is found with less says little about the convention
NEAR = 0.2  # IoU from which a box is taken for the same face: conventions can be far apart
FEWEST = 20  # pairs of one collection below which its offset is left as it is: a median of fewer would fit chance
EDGES = ("left", "top", "right", "bottom")


class Offset(NamedTuple):
    """Where labels of a collection lie beside the found boxes: `shares` (4,) for left, top, right, bottom, in shares of
    the found box's width and height, positive to the right and down; `pairs`: how many faces that was measured on."""

    shares: np.ndarray
    pairs: int


def _pairs(truth: average_precision.Truth, found: Faces) -> np.ndarray:
    """Offsets (N, 4) of one image's truth boxes from the boxes that found them, in shares of the latter's sides."""
    xyxy = np.asarray(found[0], np.float64).reshape(-1, 4)
    if not len(xyxy) or not len(truth.xyxy):
        return np.zeros((0, 4))
    sure = xyxy[np.asarray(found[1]).max(axis=1) > SCORE]
    if not len(sure):
        return np.zeros((0, 4))
    overlap = iou_matrix(sure, truth.xyxy)
    best = overlap.argmax(axis=1)
    # Each the other's best: a second box on a face, or a neighbour's, tells nothing about the convention.
    rows = [i for i, k in enumerate(best) if overlap[i, k] >= NEAR and overlap[:, k].argmax() == i]
    box = sure[rows]
    sides = np.maximum(box[:, 2:] - box[:, :2], 1e-9)
    return (truth.xyxy[best[rows]] - box) / np.concatenate([sides, sides], axis=1)


def offsets(truths: Sequence[average_precision.Truth], detections: Sequence[Faces]) -> dict[str, Offset]:
    """The constant offset of each collection (`source` of its images), zero where fewer than FEWEST faces tell."""
    parts: dict[str, list[np.ndarray]] = {}
    for truth, found in zip(truths, detections, strict=True):
        parts.setdefault(truth.source, []).append(_pairs(truth, found))
    out = {}
    for source, rows in parts.items():
        pairs = np.concatenate(rows)
        shares = np.median(pairs, axis=0) if len(pairs) >= FEWEST else np.zeros(4)
        out[source] = Offset(shares, len(pairs))
    return out


def moved(
    truths: Sequence[average_precision.Truth], detections: Sequence[Faces], by: dict[str, Offset]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per image (xyxy (N, 4), scores (N, C)): what was found, in the convention of the image's collection."""
    out = []
    for truth, (xyxy, scores) in zip(truths, detections, strict=True):
        boxes = np.asarray(xyxy, np.float64).reshape(-1, 4)
        sides = boxes[:, 2:] - boxes[:, :2]
        out.append((boxes + by[truth.source].shares * np.concatenate([sides, sides], axis=1), scores))
    return out


def evaluate(
    truths: Sequence[average_precision.Truth], detections: Sequence[Faces], classes: Sequence[str] = CLASSES
) -> dict[str, Any]:
    """`average_precision.evaluate`'s figures after alignment (without its counts), and `offsets`: {collection: {left,
    top, right, bottom: shares of the box's side, faces: how many it was measured on}}."""
    by = offsets(truths, detections)
    result = average_precision.evaluate(truths, moved(truths, detections, by), classes)
    del result["counts"]  # truth's, as without alignment
    result["offsets"] = {
        source: {**{edge: round(float(v), 4) for edge, v in zip(EDGES, o.shares, strict=True)}, "faces": o.pairs}
        for source, o in by.items()
    }
    return result


def summary(plain: dict[str, Any], aligned: dict[str, Any]) -> str:
    """Both figures, named, and the offsets that were undone."""

    def points(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    figure = average_precision.figure_name(list(plain["counts"]["per_class"]))
    lines = [
        f"{figure}, plain:   {points(plain['map50'])} (boxes as they are; what the gate and every table use)",
        f"{figure}, aligned: {points(aligned['map50'])} (after one constant offset of boxes per collection, "
        "estimated on these labels, is undone)",
    ]
    for source, offset in aligned["offsets"].items():
        edges = ", ".join(f"{edge} {100 * offset[edge]:+.0f} %" for edge in EDGES)
        told = edges if offset["faces"] >= FEWEST else f"not moved: fewer than {FEWEST}"
        lines.append(f"  {source or 'no source named'}: {told} (of the box's sides; {offset['faces']} faces)")
    return "\n".join(lines)
