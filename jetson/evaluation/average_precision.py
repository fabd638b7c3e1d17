"""Average precision as COCO's tools define it (cocoapi, cocoeval.py), with ignore regions, in points 0..100.

AP at IoU .50, 101 recall points, at most 300 detections an image and class, scores over .01. The figure that gates is
the two-class mAP50: truth of `mask_worn_incorrect` and `ignore_boxes` are ignore regions for both other classes
(COCO's iscrowd: a detection with at least half of its own area inside one counts neither way, any number of times),
and predictions of the third class are dropped. Of other classes than the three mask classes all count alike: their
figure is the mean over every class that has truth.
"""

import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np

from jetson import files, imagefile
from jetson.bundle import paths
from jetson.bundle.manifest import CLASSES
from jetson.errors import BadInput
from jetson.vision.boxes import area, intersection

MIN_SCORE = 0.01
MAX_DETECTIONS = 300
IOU = 0.5
TWO_CLASS = (0, 1)
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
_ALL = (0.0, 1e10)
_RECALLS = np.linspace(0, 1, 101)


# One labelled image: `xyxy` float64 (N, 4) and `ignore` float64 (M, 4) in pixels of the stored image, `labels` (N,).
class Truth(NamedTuple):
    image_id: int
    file: str
    wh: Tuple[int, int]
    xyxy: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    source: str


# Every detection of one class over all images that counts as hit or as miss, best score first (equal scores in image
# order): `scores`, `hit` and `image` (index) are (D,); `positives` (images,) is the number of truths per image.
class Tally(NamedTuple):
    scores: np.ndarray
    hit: np.ndarray
    image: np.ndarray
    positives: np.ndarray


class Scheme(NamedTuple):
    """What the figure of some classes counts: class numbers that are scored, and those whose truth is ignored there."""

    scored: Tuple[int, ...]
    ignored: Tuple[int, ...]


def scheme(classes: Sequence[str]) -> Scheme:
    """The two-class figure of the mask classes, the mean over all of any others.

    >>> scheme(("with_mask", "without_mask", "mask_worn_incorrect")), scheme(("helmet", "head"))
    (Scheme(scored=(0, 1), ignored=(2,)), Scheme(scored=(0, 1), ignored=()))
    """
    return Scheme(TWO_CLASS, (2,)) if tuple(classes) == CLASSES else Scheme(tuple(range(len(classes))), ())


def figure_name(classes: Sequence[str]) -> str:
    """What the figure is called."""
    return "two-class mAP50" if tuple(classes) == CLASSES else "mAP50"


def has_scored(truths: Sequence[Truth], classes: Sequence[str] = CLASSES) -> bool:
    """Whether there is a box that the figure counts."""
    scored = scheme(classes).scored
    return any(np.isin(truth.labels, scored).any() for truth in truths)


def categories(split_dir: str) -> List[str]:
    """The class names of SPLIT_DIR/annotations.json in the order of their ids; BadInput where there are none."""
    path = os.path.join(split_dir, "annotations.json")
    if not os.path.isdir(split_dir):
        raise BadInput("the data folder does not exist", split_dir, "a folder with images/ and annotations.json")
    data = files.read_json(path)
    try:
        return [str(entry["name"]) for entry in sorted(data["categories"], key=lambda entry: entry["id"])]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"no list of categories ({error})", path, "a COCO file with id and name for each") from error


def load_split(split_dir: str, classes: Sequence[str] = CLASSES) -> List[Truth]:
    """The labelled images of SPLIT_DIR/annotations.json (COCO), in the file's order; BadInput says what is wrong.

    `classes`: the names, in the order of the labels; a file that has others is refused. `ignore_boxes` of an image, and
    annotations with iscrowd, become ignore regions.
    """
    path = os.path.join(split_dir, "annotations.json")
    if not os.path.isdir(split_dir):
        raise BadInput("the data folder does not exist", split_dir, "a folder with images/ and annotations.json")
    data = files.read_json(path)
    shape = "a COCO file: an object with the lists images, annotations and categories"
    if not isinstance(data, dict) or not all(
        isinstance(data.get(k), list) for k in ("images", "annotations", "categories")
    ):
        raise BadInput("not a COCO file", path, shape)
    at = "categories"
    try:
        label_of = {}
        numbers = {name: number for number, name in enumerate(classes)}
        for entry in data["categories"]:
            if entry["name"] not in numbers:
                raise BadInput(
                    f"unknown class {entry['name']!r}",
                    path + ", categories",
                    "only " + ", ".join(classes),
                    "rename or map it with `jetmask data import`, or use a model of these classes",
                )
            label_of[entry["id"]] = numbers[entry["name"]]
        rows = {}  # type: Dict[Any, Tuple[List[Any], List[int], List[Any]]]
        for number, entry in enumerate(data["images"]):
            at = f"images[{number}]"
            if entry["id"] in rows:
                raise BadInput(f"image id {entry['id']!r} appears twice", f"{path}, {at}")
            rows[entry["id"]] = ([], [], [_corners(box) for box in entry.get("ignore_boxes") or ()])
        for number, entry in enumerate(data["annotations"]):
            at = f"annotations[{number}]"
            boxes, labels, ignore = rows[entry["image_id"]]
            if entry.get("iscrowd"):
                ignore.append(_corners(entry["bbox"]))
            else:
                boxes.append(_corners(entry["bbox"]))
                labels.append(label_of[entry["category_id"]])
        at = "images"
        return [
            Truth(
                entry["id"],
                paths.below(split_dir, entry["file_name"]),
                (int(entry["width"]), int(entry["height"])),
                _rows(rows[entry["id"]][0]),
                np.array(rows[entry["id"]][1], np.int64),
                _rows(rows[entry["id"]][2]),
                str(entry.get("source", "")),
            )
            for entry in data["images"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)
        raise BadInput(
            "not a COCO entry: " + reason,
            f"{path}, {at}",
            shape,
            "`jetmask data import` checks and converts a data set",
        ) from error


def _corners(box: Sequence[float]) -> List[float]:
    x, y, width, height = (float(side) for side in box)
    if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
        raise ValueError(f"the box {list(box)} is not [x, y, width, height] with a positive size")
    return [x, y, x + width, y + height]


def _rows(boxes: List[Any]) -> np.ndarray:
    return np.array(boxes, np.float64).reshape(-1, 4)


def read_image(truth: Truth) -> np.ndarray:
    """The image of a Truth, uint8 (h, w, 3) BGR; BadInput when it is not there or has not the stated size."""
    # The labels are in pixels of the stored image, so an orientation tag must not turn it.
    frame = imagefile.read(truth.file, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if frame is None:
        problem = "cannot be decoded" if os.path.isfile(truth.file) else "is missing"
        raise BadInput(f"an image {problem}", truth.file, "the image that annotations.json lists")
    if (frame.shape[1], frame.shape[0]) != tuple(truth.wh):
        raise BadInput(
            f"the image is {frame.shape[1]} x {frame.shape[0]}",
            truth.file,
            "{} x {}, as annotations.json says".format(*truth.wh),
        )
    return frame


def _match(truths: np.ndarray, skipped: np.ndarray, regions: np.ndarray, found: np.ndarray) -> Tuple[Any, Any]:
    """COCO's greedy matching in one image at IoU .5: (matched (D,), ignored (D,)), bool.

    `truths` (N, 4), of which `skipped` (N,) are out of the size range; `regions` (M, 4) ignore regions; `found`
    (D, 4), best score first.
    """
    matched = np.zeros(len(found), bool)
    ignored = np.zeros(len(found), bool)
    order = np.argsort(skipped, kind="stable")
    truths, skipped = truths[order], skipped[order]
    own = area(found)[:, None]
    common = intersection(found, truths)
    union = own + area(truths)[None] - common
    inside = intersection(found, regions)
    # As in COCO, an overlap with a region is the share of the detection's own area.
    overlap = np.concatenate(
        [
            np.divide(common, union, out=np.zeros_like(common), where=union > 0),
            np.divide(inside, np.broadcast_to(own, inside.shape), out=np.zeros_like(inside), where=own > 0),
        ],
        axis=1,
    )
    real = int((~skipped).sum())
    free = np.ones(overlap.shape[1], bool)
    for row in np.flatnonzero((overlap >= IOU).any(axis=1)):
        values = np.where(free & (overlap[row] >= IOU), overlap[row], -1)
        # A countable truth is preferred to anything ignored, whatever the overlap; of equal ones the last is taken.
        part = values[:real] if real and values[:real].max() > 0 else values
        if not len(part) or part.max() < 0:
            continue
        best = len(part) - 1 - int(np.argmax(part[::-1]))
        matched[row] = True
        ignored[row] = best >= real
        free[best] = best >= len(truths)  # a region takes any number, a truth one
    return matched, ignored


def tally(
    truths: Sequence[Truth],
    detections: Sequence[Any],
    label: int,
    ignored_labels: Sequence[int] = (),
    area_range: Tuple[float, float] = _ALL,
) -> Tally:
    """Match all detections of class `label` with the truth.

    `detections`: per image a pair (xyxy (D, 4) in pixels of the stored image, scores (D, C)), as `Faces`.
    `ignored_labels`: classes whose truth boxes are ignore regions. `area_range`: square pixels of the truth box, both
    ends included; truth outside it is ignored, and so is an unmatched detection outside it.
    """
    all_scores, all_hits, all_images, positives = [], [], [], []
    for number, (truth, (xyxy, scores)) in enumerate(zip(truths, detections)):
        scores = np.asarray(scores, np.float64)
        scores = scores[:, label] if scores.ndim == 2 else scores.reshape(-1)[:0]  # an empty list has no columns
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > MIN_SCORE][:MAX_DETECTIONS]
        found = np.asarray(xyxy, np.float64).reshape(-1, 4)[order]
        boxes = truth.xyxy[truth.labels == label]
        areas = area(boxes)
        skipped = (areas < area_range[0]) | (areas > area_range[1])
        regions = np.concatenate([truth.xyxy[truth.labels == other] for other in ignored_labels] + [truth.ignore])
        positives.append(int((~skipped).sum()))
        if not len(found):
            continue
        matched, ignored = _match(boxes, skipped, regions, found)
        own = area(found)
        ignored |= ~matched & ((own < area_range[0]) | (own > area_range[1]))
        all_scores.append(scores[order][~ignored])
        all_hits.append(matched[~ignored])
        all_images.append(np.full(int((~ignored).sum()), number))
    if not all_scores:
        return Tally(np.zeros(0), np.zeros(0, bool), np.zeros(0, np.int64), np.array(positives, np.int64))
    scores = np.concatenate(all_scores)
    order = np.argsort(-scores, kind="stable")
    return Tally(
        scores[order], np.concatenate(all_hits)[order], np.concatenate(all_images)[order], np.array(positives, np.int64)
    )


def average_precision(counted: Tally, weights: Optional[np.ndarray] = None) -> Optional[float]:
    """AP in points 0..100; None without any truth. `weights` (images,): how often each image counts (bootstrap)."""
    if weights is None:
        hits = np.cumsum(counted.hit, dtype=np.float64)
        seen = np.arange(1, len(hits) + 1, dtype=np.float64)
        positives = float(counted.positives.sum())
    else:
        weight = weights[counted.image]
        hits = np.cumsum(weight * counted.hit, dtype=np.float64)
        seen = np.cumsum(weight, dtype=np.float64)
        positives = float((weights * counted.positives).sum())
    if positives == 0:
        return None
    precision = hits / (seen + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    where = np.searchsorted(hits / positives, _RECALLS, side="left")
    return 100 * float(np.append(precision, 0.0)[where].mean())


def curve(counted: Tally) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score, precision, recall), each (D,): what holds when everything down to that score is shown."""
    hits = np.cumsum(counted.hit, dtype=np.float64)
    return (counted.scores, hits / np.arange(1, len(hits) + 1), hits / max(1, int(counted.positives.sum())))


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _scored(
    truths: Sequence[Truth], detections: Sequence[Any], classes: Sequence[str], area_range: Tuple[float, float] = _ALL
) -> List[Tally]:
    scored, ignored = scheme(classes)
    return [tally(truths, detections, label, ignored, area_range) for label in scored]


def map50(truths: Sequence[Truth], detections: Sequence[Any], classes: Sequence[str] = CLASSES) -> Optional[float]:
    """The figure alone (two-class for the mask classes), in points; None when there is no truth that it counts."""
    return _mean([average_precision(counted) for counted in _scored(truths, detections, classes)])


def evaluate(truths: Sequence[Truth], detections: Sequence[Any], classes: Sequence[str] = CLASSES) -> Dict[str, Any]:
    """All figures, AP in points 0..100 (None without truth).

    `detections`: per image (xyxy (D, 4), scores (D, C)), in the order of `truths`. Returns `map50` (the gating figure),
    `per_class` (its parts), `by_size` {small, medium, large}, for the mask classes `three_class` {map50, per_class},
    and `counts` of truth boxes per class, and per size for the classes that the figure counts.
    """
    if len(truths) != len(detections):
        raise ValueError(f"{len(truths)} images, {len(detections)} detections")
    counted = scheme(classes).scored
    parts = _scored(truths, detections, classes)
    by_size, size_counts = {}, {}
    for name, area_range in SIZES.items():
        sized = _scored(truths, detections, classes, area_range)
        by_size[name] = _mean([average_precision(part) for part in sized])
        size_counts[name] = int(sum(part.positives.sum() for part in sized))
    per_class = [average_precision(part) for part in parts]
    labels = np.concatenate([truth.labels for truth in truths]) if len(truths) else np.zeros(0, np.int64)
    result: Dict[str, Any] = {
        "map50": _mean(per_class),
        "per_class": {classes[label]: value for label, value in zip(counted, per_class)},
        "by_size": by_size,
    }
    if tuple(classes) == CLASSES:
        three = [average_precision(tally(truths, detections, label)) for label in range(len(CLASSES))]
        result["three_class"] = {"map50": _mean(three), "per_class": dict(zip(CLASSES, three))}
    result["counts"] = {
        "images": len(truths),
        "ignore_regions": int(sum(len(truth.ignore) for truth in truths)),
        "per_class": {name: int((labels == label).sum()) for label, name in enumerate(classes)},
        "by_size": size_counts,
    }
    return result


def every_class(result: Mapping[str, Any]) -> Dict[str, Optional[float]]:
    """AP of each class of what `evaluate` gave, all of them: for the mask classes that of mask_worn_incorrect too."""
    return dict(result.get("three_class", {}).get("per_class", {}), **result["per_class"])


def interval(
    truths: Sequence[Truth],
    detections: Sequence[Any],
    classes: Sequence[str] = CLASSES,
    resamples: int = 200,
    seed: int = 0,
) -> Optional[Tuple[float, float]]:
    """95 % bounds of the figure by a bootstrap over images (percentiles 2.5 and 97.5); None without truth."""
    return bounds(_scored(truths, detections, classes), resamples, seed)


def bounds(parts: Sequence[Tally], resamples: int = 200, seed: int = 0) -> Optional[Tuple[float, float]]:
    """95 % bounds of the mean AP of these tallies of the same images; None without truth."""
    if not parts or not any(part.positives.any() for part in parts):
        return None
    values = _resampled(parts, _draws(len(parts[0].positives), resamples, seed))
    low, high = np.percentile(values[np.isfinite(values)], [2.5, 97.5])
    return float(low), float(high)


def _draws(size: int, resamples: int, seed: int) -> np.ndarray:
    random = np.random.RandomState(seed)
    return np.stack([np.bincount(random.randint(0, size, size), minlength=size) for _ in range(resamples)])


def _resampled(parts: Sequence[Tally], draws: np.ndarray) -> np.ndarray:
    """The mean AP for each row of `draws` (resamples, images), how often each image was drawn; nan if no truth."""
    trimmed = []
    for part in parts:
        # Misses after the last hit change nothing in any resample.
        last = int(np.flatnonzero(part.hit)[-1]) + 1 if part.hit.any() else 0
        trimmed.append(Tally(part.scores[:last], part.hit[:last], part.image[:last], part.positives))
    values = [_mean([average_precision(part, weights) for part in trimmed]) for weights in draws]
    return np.array([np.nan if value is None else value for value in values])


def paired_bootstrap(
    truths: Sequence[Truth],
    before: Sequence[Any],
    after: Sequence[Any],
    resamples: int = 1000,
    seed: int = 0,
    classes: Sequence[str] = CLASSES,
) -> Dict[str, float]:
    """How sure a change of the figure is (see `scheme`): both detectors on the same resampled images.

    `before`, `after`: detections as for `evaluate`. Returns points: `before`, `after`, `difference` (after - before),
    and its 95 % bounds `low` and `high` (percentiles 2.5 and 97.5 over images drawn with replacement; Efron 1979).
    """
    if not truths:
        raise ValueError("no images")
    size = len(truths)
    draws = _draws(size, resamples, seed)
    parts = [_scored(truths, detections, classes) for detections in (before, after)]
    old, new = (_mean([average_precision(part) for part in pair]) for pair in parts)
    if old is None or new is None:
        raise ValueError("no truth of any class")
    spread = _resampled(parts[1], draws) - _resampled(parts[0], draws)
    low, high = np.percentile(spread[np.isfinite(spread)], [2.5, 97.5])
    return {
        "before": old,
        "after": new,
        "difference": new - old,
        "low": float(low),
        "high": float(high),
        "resamples": resamples,
        "images": size,
    }
