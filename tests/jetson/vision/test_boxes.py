import math

import numpy as np
import pytest

from jetson.vision import boxes

RECIPE = {"strides": [4, 8, 16, 32], "box": "exp", "score": 0.4, "iou": 0.5, "max_detections": 300}


def heads(seed, wh=(160, 96), classes=3):
    random = np.random.RandomState(seed)
    outputs = {}
    for stride in RECIPE["strides"]:
        shape = (wh[1] // stride, wh[0] // stride)
        outputs[f"cls_{stride}"] = random.normal(-3, 2, (1, classes) + shape).astype(np.float32)
        outputs[f"box_{stride}"] = random.normal(0.5, 0.5, (1, 4) + shape).astype(np.float32)
    return outputs


def slow_decode(outputs, recipe, score):
    """One cell at a time, as the contract reads."""
    found = []
    for stride in recipe["strides"]:
        logits, box = outputs[f"cls_{stride}"][0], outputs[f"box_{stride}"][0]
        for i in range(logits.shape[1]):
            for j in range(logits.shape[2]):
                scores = [1 / (1 + math.exp(-float(v))) for v in logits[:, i, j]]
                if max(scores) > score:
                    left, top, right, bottom = (stride * math.exp(float(v)) for v in box[:, i, j])
                    x, y = (j + 0.5) * stride, (i + 0.5) * stride
                    found.append(([x - left, y - top, x + right, y + bottom], scores))
    found.sort(key=lambda face: -max(face[1]))
    return found[:1000]


def plain_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def slow_nms(xyxy, scores, iou, max_detections):
    xyxy = xyxy.tolist()
    left = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept = []
    while left and len(kept) < max_detections:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if plain_iou(xyxy[best], xyxy[i]) <= iou]
    return kept


def slow_merge(xyxy, scores, kept, iou):
    """One kept face at a time, one candidate at a time."""
    out = []
    for k in kept:
        total, box, classes = 0.0, [0.0] * 4, [0.0] * scores.shape[1]
        for i in range(len(xyxy)):
            weight = float(scores[i].max())
            if i != k and (plain_iou(xyxy[k], xyxy[i]) < iou or weight < 0.5 * float(scores[k].max())):
                continue
            total += weight
            box = [a + weight * float(b) for a, b in zip(box, xyxy[i])]
            classes = [a + weight * float(b) for a, b in zip(classes, scores[i])]
        factor = float(scores[k].max()) / max(classes)
        out.append(([v / total for v in box], [v * factor for v in classes]))
    return out


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("score", [0.01, 0.4, 0.9])
def test_decode_equals_the_slow_one(seed, score):
    outputs = heads(seed)
    xyxy, scores = boxes.decode(outputs, RECIPE, score)
    expected = slow_decode(outputs, RECIPE, score)
    assert len(xyxy) == len(expected)
    assert xyxy.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(xyxy, np.array([face[0] for face in expected]).reshape(-1, 4), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(scores, np.array([face[1] for face in expected]).reshape(-1, 3), atol=1e-5)


def test_decode_finds_nothing_in_an_empty_frame():
    outputs = heads(0)
    for stride in RECIPE["strides"]:
        outputs[f"cls_{stride}"][:] = -20
    xyxy, scores = boxes.decode(outputs, RECIPE, 0.01)
    assert xyxy.shape == (0, 4) and scores.shape == (0, 3)


def test_decode_keeps_the_thousand_best():
    outputs = heads(1, (640, 384))
    xyxy, scores = boxes.decode(outputs, RECIPE, 0.0)
    best = np.sort(np.concatenate([outputs[f"cls_{s}"].max(axis=1).ravel() for s in RECIPE["strides"]]))[::-1]
    assert len(xyxy) == 1000
    np.testing.assert_allclose(scores.max(axis=1), 1 / (1 + np.exp(-best[:1000])), atol=1e-6)


def test_decode_survives_wild_outputs():
    outputs = heads(2)
    outputs["cls_8"][:] = 1e6
    outputs["box_8"][:] = 1e6
    outputs["cls_4"][:] = -1e6
    xyxy, scores = boxes.decode(outputs, RECIPE, 0.5)
    assert np.isfinite(xyxy).all() and np.isfinite(scores).all()
    assert scores.max() == 1


def test_decode_takes_outputs_that_are_views_of_nhwc():
    outputs = heads(3)
    views = {
        name: np.ascontiguousarray(value.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for name, value in outputs.items()
    }
    for got, expected in zip(boxes.decode(views, RECIPE, 0.2), boxes.decode(outputs, RECIPE, 0.2)):
        np.testing.assert_array_equal(got, expected)


def test_sigmoid_does_not_overflow():
    values = boxes.sigmoid(np.array([-1e4, -1, 0, 1, 1e4], np.float32))
    np.testing.assert_allclose(values, [0, 0.26894142, 0.5, 0.7310586, 1], atol=1e-7)


@pytest.mark.parametrize("seed", range(8))
def test_nms_equals_the_slow_one(seed):
    random = np.random.RandomState(seed)
    centre = random.uniform(0, 60, (80, 2))
    size = random.uniform(10, 30, (80, 2))
    xyxy = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    scores = random.rand(80).astype(np.float32)
    for iou in (0.3, 0.5, 0.7):
        assert boxes.nms(xyxy, scores, iou, 300).tolist() == slow_nms(xyxy, scores, iou, 300)
    assert boxes.nms(xyxy, scores, 0.5, 7).tolist() == slow_nms(xyxy, scores, 0.5, 7)


def test_nms_of_nothing_and_of_equal_boxes():
    assert boxes.nms(np.zeros((0, 4)), np.zeros(0), 0.5, 10).shape == (0,)
    same = np.array([[1, 1, 5, 5]] * 3, np.float32)
    assert boxes.nms(same, np.array([0.5, 0.5, 0.5]), 0.5, 10).tolist() == [0]
    apart = np.array([[0, 0, 4, 4], [10, 10, 14, 14]], np.float32)
    assert boxes.nms(apart, np.array([0.0, 0.9]), 0.5, 10).tolist() == [1, 0]


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1),
        ([0, 0, 2, 2], [0, 0, 2, 1], 0.5),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0),
        ([0, 0, 2, 2], [5, 5, 9, 9], 0),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0),
        ([3, 3, 1, 1], [0, 0, 4, 4], 0),
    ],
)
def test_iou(a, b, expected):
    assert boxes.iou_matrix(a, b)[0, 0] == pytest.approx(expected)
    assert boxes.iou_matrix(b, a)[0, 0] == pytest.approx(expected)


def test_iou_of_no_boxes():
    assert boxes.iou_matrix(np.zeros((0, 4)), [[0, 0, 1, 1]]).shape == (0, 1)
    assert boxes.intersection(np.zeros((2, 4)), np.zeros((0, 4))).shape == (2, 0)


@pytest.mark.parametrize("seed", range(6))
def test_merge_equals_the_slow_one(seed):
    random = np.random.RandomState(seed)
    centres = random.uniform(0, 300, (12, 2))
    corners = (centres + random.uniform(-4, 4, (10, 12, 2))).reshape(-1, 2)
    sides = random.uniform(25, 35, (120, 2))
    xyxy = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    scores = random.uniform(0.01, 0.9, (120, 3)).astype(np.float32)
    order = np.argsort(-scores.max(axis=1))
    xyxy, scores = xyxy[order], scores[order]
    kept = boxes.nms(xyxy, scores.max(axis=1), 0.5, 300)
    merged, classes = boxes.merge(xyxy, scores, kept, 0.7)
    assert merged.dtype == classes.dtype == np.float32
    expected = slow_merge(xyxy, scores, kept, 0.7)
    np.testing.assert_allclose(merged, [box for box, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(classes, [values for _, values in expected], rtol=1e-5)
    assert (np.abs(merged - xyxy[kept]) > 0.1).any()  # somebody did vote


def test_merge_of_nothing_and_of_a_loner():
    empty = np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32)
    merged, classes = boxes.merge(empty[0], empty[1], np.zeros(0, np.int64), 0.7)
    assert merged.shape == (0, 4) and classes.shape == (0, 3)
    alone = np.array([[5, 5, 25, 30]], np.float32), np.array([[0.2, 0.7, 0.1]], np.float32)
    merged, classes = boxes.merge(alone[0], alone[1], np.array([0]), 0.7)
    np.testing.assert_allclose(merged, alone[0], rtol=1e-6)
    np.testing.assert_allclose(classes, alone[1], rtol=1e-6)


def test_the_majority_decides_the_class():
    """One cell is a little surer of a mask than two beside it are of a bare face."""
    xyxy = np.array([[10, 10, 40, 50], [11, 10, 41, 50], [10, 11, 40, 51]], np.float32)
    scores = np.array([[0.62, 0.10, 0], [0.15, 0.60, 0], [0.12, 0.58, 0]], np.float32)
    _, classes = boxes.merge(xyxy, scores, np.array([0]), 0.7)
    assert classes[0].argmax() == 1
    assert classes[0].max() == pytest.approx(0.62)
