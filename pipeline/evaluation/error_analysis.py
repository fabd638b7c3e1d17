"""What a detector gets wrong, in numbers: thresholds, confusion, false alarms, calibration, the worst images.

AP ranks all faces over .01. Here a face is what a viewer sees: its class is the one that scores best, and it is shown
when that score reaches a threshold.
"""

import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jetson import files
from jetson.bundle import manifest
from jetson.bundle.manifest import CLASSES
from jetson.evaluation import average_precision
from jetson.inference.detector import Faces, open_detector
from jetson.vision import boxes
from pipeline.evaluation import error_page, evaluate
from pipeline.paths import made

log = logging.getLogger(__name__)

THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.01), 2)
WORST = 24
FALSE_PER_NEGATIVE = 0.05  # the bar for false with_mask per image where there is no mask
NOTHING = -1


class Outcome(NamedTuple):
    """One image at a threshold. `pairs`: (truth, face) that lie on each other, whatever their classes; `missed`: truths
    without a face; `false`: faces on nothing (those in an ignore region are in none of the three). All are indices."""

    pairs: list[tuple[int, int]]
    missed: list[int]
    false: list[int]


def shown(faces: Faces, threshold: float) -> Faces:
    """The faces a viewer sees at a threshold."""
    keep = faces.confidence >= threshold
    return Faces(faces.xyxy[keep], faces.scores[keep])


def outcome(truth: average_precision.Truth, faces: Faces) -> Outcome:
    """Match shown faces with the truth of an image, best face first, at IoU .5, whatever the class."""
    overlap = boxes.iou_matrix(faces.xyxy, truth.xyxy)
    free = np.ones(len(truth.xyxy), bool)
    pairs, false = [], []
    inside = boxes.intersection(faces.xyxy, truth.ignore).max(axis=1, initial=0)
    own = np.maximum(boxes.area(faces.xyxy), 1e-9)
    for face in np.argsort(-faces.confidence, kind="stable"):
        row = np.where(free, overlap[face], 0)
        best = int(row.argmax()) if len(row) else NOTHING
        if best != NOTHING and row[best] >= average_precision.IOU:
            free[best] = False
            pairs.append((best, int(face)))
        elif inside[face] / own[face] < average_precision.IOU:
            false.append(int(face))
    return Outcome(pairs, np.flatnonzero(free).tolist(), false)


def _one_class_each(detections: Sequence[Faces]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Detections with every score but the best one of each face set to 0."""
    result = []
    for xyxy, scores in detections:
        best = np.zeros_like(scores)
        rows = np.arange(len(scores))
        best[rows, scores.argmax(axis=1)] = scores.max(axis=1)
        result.append((xyxy, best))
    return result


def threshold_curve(
    parts: Sequence[average_precision.Tally], thresholds: Sequence[float] | np.ndarray = THRESHOLDS
) -> list[dict[str, float]]:
    """[{"score", "precision", "recall", "f1"}], shares of 1, of the shown faces of both classes at each threshold."""
    scores = np.concatenate([part.scores for part in parts])
    hit = np.concatenate([part.hit for part in parts])
    positives = max(1, int(sum(part.positives.sum() for part in parts)))
    rows = []
    for threshold in thresholds:
        seen = scores >= threshold
        hits, count = int(hit[seen].sum()), int(seen.sum())
        precision = hits / count if count else 1.0
        recall = hits / positives
        f1 = 2 * hits / (count + positives)
        rows.append({"score": float(threshold), "precision": precision, "recall": recall, "f1": f1})
    return rows


def calibration(parts: Sequence[average_precision.Tally]) -> dict[str, Any]:
    """Tenths of confidence with the share of right faces in each, and the mean gap between the two from .3 up.

    The gap is the expected calibration error (Guo et al. 2017) of the faces that a threshold can sensibly show; below,
    thousands of weak boxes that nobody sees would drown them.
    """
    scores = np.concatenate([part.scores for part in parts])
    hit = np.concatenate([part.hit for part in parts])
    bins, gap, total = [], 0.0, 0
    for low in np.arange(1, 10) / 10:
        inside = (scores >= low) & (scores < low + 0.1) if low < 0.9 else scores >= low
        count = int(inside.sum())
        confidence, right = (float(scores[inside].mean()), float(hit[inside].mean())) if count else (None, None)
        bins.append({"from": float(low), "count": count, "confidence": confidence, "right": right})
        if confidence is not None and right is not None and low > 0.25:
            gap += count * abs(confidence - right)
            total += count
    return {"bins": bins, "expected_error": gap / total if total else None}


def alarm_labels(classes: Sequence[str]) -> tuple[int, ...]:
    """The classes that must not be found on negatives: of masks with_mask and mask_worn_incorrect (bare faces may be
    there), of others all."""
    return (0, 2) if tuple(classes) == CLASSES else tuple(range(len(classes)))


def false_masks(detections: Sequence[Faces], threshold: float, labels: Sequence[int] = (0, 2)) -> np.ndarray:
    """Faces shown with a mask (worn right or wrong) per image, int (images, 2): with_mask, mask_worn_incorrect; or the
    boxes of any `labels`, int (images, L)."""
    rows = [[int((shown(faces, threshold).labels == label).sum()) for label in labels] for faces in detections]
    return np.array(rows, np.int64).reshape(-1, len(labels))


def recommend(
    curve: Sequence[dict[str, float]], *negatives: Sequence[Faces] | None, labels: Sequence[int] = (0,)
) -> dict[str, Any]:
    """The threshold with the best F1; with sets of `negatives`, among those with few enough false masks in each.

    Of several that are equally good the middle one: the lowest would be a hair from showing what is wrong.
    """
    allowed = list(curve)
    for found in filter(None, negatives):
        allowed = [
            row for row in allowed if false_masks(found, row["score"], labels).sum(axis=1).mean() <= FALSE_PER_NEGATIVE
        ]
    pool = allowed or curve
    most = max(row["f1"] for row in pool)
    equal = [row for row in pool if row["f1"] == most]
    best = equal[(len(equal) - 1) // 2]
    return {
        **best,
        "limited_by_negatives": bool(allowed) and best["f1"] < max(row["f1"] for row in curve),
        "too_many_false_masks_everywhere": not allowed,
    }


def confusion(
    truths: Sequence[average_precision.Truth],
    detections: Sequence[Faces],
    threshold: float,
    count: int = len(CLASSES),
) -> list[list[int]]:
    """Counts: rows the C classes and "no face", columns the C classes and "not found"."""
    counts = np.zeros((count + 1, count + 1), int)
    for truth, faces in zip(truths, detections, strict=True):
        seen = shown(faces, threshold)
        result = outcome(truth, seen)
        for true, face in result.pairs:
            counts[truth.labels[true], seen.labels[face]] += 1
        for true in result.missed:
            counts[truth.labels[true], count] += 1
        for face in result.false:
            counts[count, seen.labels[face]] += 1
    return counts.tolist()


def worst(
    truths: Sequence[average_precision.Truth], detections: Sequence[Faces], threshold: float
) -> list[dict[str, Any]]:
    """The images with the most errors (missed, false, wrong class), at most 24; surer errors first among equals."""
    rows: list[dict[str, Any]] = []
    for number, (truth, faces) in enumerate(zip(truths, detections, strict=True)):
        seen = shown(faces, threshold)
        result = outcome(truth, seen)
        wrong = [face for true, face in result.pairs if truth.labels[true] != seen.labels[face]]
        errors = len(result.missed) + len(result.false) + len(wrong)
        if errors:
            sure = float(seen.confidence[wrong + result.false].sum())
            rows.append(
                {
                    "image": number,
                    "file": truth.file,
                    "missed": len(result.missed),
                    "false": len(result.false),
                    "wrong_class": len(wrong),
                    "errors": errors,
                    "sure": sure,
                }
            )
    rows.sort(key=lambda row: (-row["errors"], -row["sure"]))
    return rows[:WORST]


def by_source(
    truths: Sequence[average_precision.Truth], detections: Sequence[Faces], classes: Sequence[str] = CLASSES
) -> dict[str, dict[str, Any]]:
    """The figure (two-class mAP50 for masks) of the images of each source."""
    result: dict[str, dict[str, Any]] = {}
    groups: dict[str, list[int]] = {}
    for number, truth in enumerate(truths):
        groups.setdefault(truth.source, []).append(number)
    for source, chosen in sorted(groups.items()):
        part = average_precision.evaluate([truths[i] for i in chosen], [detections[i] for i in chosen], classes)
        result[source or "(not stated)"] = {
            "images": len(chosen),
            "map50": part["map50"],
            **part["per_class"],
            "faces": sum(part["counts"]["per_class"].values()),
        }
    return result


def _curve_points(part: average_precision.Tally) -> dict[str, Any]:
    score, precision, recall = average_precision.curve(part)
    # Every hit is a corner of the curve; what lies between two hits adds nothing to see.
    corners = np.flatnonzero(part.hit)
    return {
        "score": score[corners].tolist(),
        "precision": precision[corners].tolist(),
        "recall": recall[corners].tolist(),
    }


def analyse(
    truths: Sequence[average_precision.Truth],
    detections: Sequence[Faces],
    score: float,
    negatives: Sequence[Faces] | None = None,
    classes: Sequence[str] = CLASSES,
) -> dict[str, Any]:
    """All numbers of the report, ready for JSON. `shown_at` is the threshold of its pictures and counts: the
    recommended one, or the bundle's where no threshold shows a right face.

    `detections`: every face over .01 per image. `score`: the bundle's threshold. `negatives`: the faces found in images
    where nobody wears a mask.
    """
    single = _one_class_each(detections)
    scored, ignored = average_precision.scheme(classes)
    parts = [average_precision.tally(truths, single, label, ignored) for label in scored]
    curve = threshold_curve(parts)
    alarms = alarm_labels(classes)
    recommended = recommend(curve, negatives, labels=alarms[:1] if tuple(classes) == CLASSES else alarms)
    # Where no shown face is right at any threshold there is none to recommend.
    shown_at = recommended["score"] if recommended["f1"] else score
    result = {
        "score": score,
        "recommended": recommended,
        "shown_at": shown_at,
        "thresholds": curve,
        "at_score": threshold_curve(parts, [score])[0],
        "precision_recall": {
            name: _curve_points(average_precision.tally(truths, detections, label, ignored if label in scored else ()))
            for label, name in enumerate(classes)
        },
        "confusion": confusion(truths, detections, shown_at, len(classes)),
        "calibration": calibration(parts),
        "by_source": by_source(truths, detections, classes),
        "worst": worst(truths, detections, shown_at),
        "negatives": None,
    }
    if negatives is not None:
        rows = [
            {"score": t, **{classes[label]: float(mean) for label, mean in zip(alarms, counts, strict=True)}}
            for t in sorted({0.3, 0.5, score, shown_at})
            for counts in [false_masks(negatives, t, alarms).mean(axis=0)]
        ]
        result["negatives"] = {"images": len(negatives), "per_image": rows, "limit": FALSE_PER_NEGATIVE}
    return result


def run(
    folder: str,
    bundle_dir: str,
    truths: Sequence[average_precision.Truth],
    measured: evaluate.Measured,
    split: str,
    negatives_dir: str | None = None,
) -> str:
    """Write report.html and errors.json into `folder`; returns the path of the page."""
    negatives, negative_faces = [], None
    contents = manifest.load(bundle_dir)
    result, score, names = measured.result, contents.decode["score"], contents.classes
    if negatives_dir:
        negatives = average_precision.load_split(negatives_dir, names)
        log.info(f"looking for false masks in {len(negatives)} images")
        with open_detector(bundle_dir, result["variant"], result["runtime"], result["threads"]) as detector:
            negative_faces = evaluate.detect_split(detector, negatives)
    numbers = analyse(truths, measured.detections, score, negative_faces, names)
    made(folder)
    files.write_json(os.path.join(folder, "errors.json"), {"split": split, "evaluation": result, **numbers})
    shown_at = numbers["shown_at"]
    sheets, alarms = [], []
    for row in numbers["worst"]:
        truth, seen = truths[row["image"]], shown(measured.detections[row["image"]], shown_at)
        sheets.append(error_page.tile(truth, seen, row, outcome(truth, seen).missed, contents.class_list))
    if negative_faces:
        counts = false_masks(negative_faces, shown_at, alarm_labels(names)).sum(axis=1)
        for number in np.argsort(-counts, kind="stable")[:12]:
            if counts[number]:
                row = {"file": negatives[number].file, "false": int(counts[number])}
                alarms.append(
                    error_page.tile(
                        negatives[number], shown(negative_faces[number], shown_at), row, [], contents.class_list
                    )
                )
    path = os.path.join(folder, "report.html")
    files.write_text(path, error_page.page(split, result, numbers, sheets, alarms, contents.class_list))
    return path
