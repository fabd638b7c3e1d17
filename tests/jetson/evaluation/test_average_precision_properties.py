"""Average precision against COCO's own tools (faster-coco-eval) on random cases, ignore regions included."""

import contextlib
import io

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.evaluation import average_precision

WH = (400, 300)


def random_case(seed, images=6, ties=True):
    """Truths and detections with crowds of near-ties: jittered truths, duplicates, strays, equal scores."""
    random = np.random.RandomState(seed)

    def boxes(count, low=4, high=140):
        xy = random.uniform(0, 1, (count, 2)) * np.array(WH) * 0.8
        return np.concatenate([xy, xy + random.uniform(low, high, (count, 2))], axis=1)

    truths, detections = [], []
    for number in range(images):
        real = boxes(random.randint(0, 9))
        if random.rand() < 0.5:
            real = np.rint(real)
        ignore = boxes(random.randint(0, 4), 20, 200)
        source = [np.zeros((0, 4)), boxes(random.randint(0, 6))]
        for group in (real, ignore):
            for _ in range(random.randint(0, 3)):
                source.append(group + random.normal(0, 6, group.shape))
        if random.rand() < 0.3:
            source.append(real.copy())
        found = np.concatenate(source)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        found = found.astype(np.float32)
        scores = random.rand(len(found), 3).astype(np.float32)
        if ties and random.rand() < 0.5:
            scores = np.round(scores, 1)
        truths.append(average_precision.Truth(number + 1, "", WH, real, random.randint(0, 3, len(real)), ignore, ""))
        detections.append((found, scores))
    return truths, detections


def coco_ap(truths, detections, label, ignored_labels, area_range):
    """AP50 in points by faster-coco-eval; None when it has no truth to count."""
    dataset = {"info": {}, "images": [], "annotations": [], "categories": [{"id": 1, "name": "face"}]}
    results = []
    for truth, (xyxy, scores) in zip(truths, detections):
        dataset["images"].append({"id": truth.image_id, "width": truth.wh[0], "height": truth.wh[1]})
        rows = [(box, 0) for box in truth.xyxy[truth.labels == label]]
        rows += [(box, 1) for box in truth.xyxy[np.isin(truth.labels, ignored_labels)]]
        rows += [(box, 1) for box in truth.ignore]
        for box, crowd in rows:
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            dataset["annotations"].append(
                {
                    "id": len(dataset["annotations"]) + 1,
                    "image_id": truth.image_id,
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": crowd,
                }
            )
        for box, score in zip(xyxy.astype(np.float64), scores[:, label].astype(np.float64)):
            if score > 0.01:
                results.append(
                    {
                        "image_id": truth.image_id,
                        "category_id": 1,
                        "score": float(score),
                        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    }
                )
    if not results:
        return None if not any((t.labels == label).any() for t in truths) else 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(dataset)
        run = COCOeval_faster(truth, truth.loadRes(results), "bbox")
        run.params.iouThrs = np.array([0.5])
        run.params.maxDets = [1, 10, 300]
        run.params.areaRng = [list(area_range)]
        run.params.areaRngLbl = ["all"]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][0, :, 0, 0, -1]
    return None if (precision < 0).all() else 100 * float(precision.mean())


def agree(truths, detections):
    for label, ignored in ((0, (2,)), (1, (2,)), (0, ()), (2, ())):
        for area_range in ((0, 1e10), *average_precision.SIZES.values()):
            ours = average_precision.average_precision(
                average_precision.tally(truths, detections, label, ignored, area_range)
            )
            theirs = coco_ap(truths, detections, label, ignored, area_range)
            if theirs is None or ours is None:
                assert ours == theirs
            else:
                assert ours == pytest.approx(theirs, abs=1e-6)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**31 - 1), st.integers(1, 8))
def test_ap_equals_coco_on_random_cases(seed, images):
    agree(*random_case(seed, images))


@pytest.mark.full
def test_ap_equals_coco_on_a_thousand_random_cases():
    for seed in range(1000):
        agree(*random_case(seed))


def test_ap_equals_coco_with_more_detections_than_count():
    random = np.random.RandomState(0)
    truths, detections = random_case(3, 2)
    crowd = random.uniform(0, 200, (700, 2)).astype(np.float32)
    many = np.concatenate([crowd, crowd + 30], axis=1)
    detections[0] = (many, random.rand(700, 3).astype(np.float32))
    agree(truths, detections)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**31 - 1))
def test_weights_count_an_image_as_often_as_it_was_drawn(seed):
    # Without ties: the copies of one detection are then neighbours with one outcome, as a weight has it.
    truths, detections = random_case(seed, 5, ties=False)
    drawn = sorted(np.random.RandomState(seed).randint(0, 5, 5))
    copies = average_precision.tally([truths[i] for i in drawn], [detections[i] for i in drawn], 0, (2,))
    counted = average_precision.tally(truths, detections, 0, (2,))
    weighted = average_precision.average_precision(counted, np.bincount(drawn, minlength=5))
    assert weighted == pytest.approx(average_precision.average_precision(copies), abs=1e-9)
