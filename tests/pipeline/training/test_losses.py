"""Assigner and losses against slow plain versions."""

import math

import numpy as np
import pytest
from keras import ops

from pipeline.models.detector import STRIDES
from pipeline.training import losses

SIZE = 128
GRIDS = [(SIZE // s, SIZE // s) for s in STRIDES]
CELLS = sum(h * w for h, w in GRIDS)


def plain_iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    area = lambda r: (r[2] - r[0]) * (r[3] - r[1])  # noqa: E731
    return inter / (area(a) + area(b) - inter + 1e-6)


def cells():
    start, out = 0, []
    for (h, w), s in zip(GRIDS, STRIDES):
        out += [(start + i * w + j, s, (j + 0.5) * s, (i + 0.5) * s, i, j) for i in range(h) for j in range(w)]
        start += h * w
    return out


def plain_assign(boxes, labels, logits, distances):
    """One image, loop by loop, from the assigner's description: {cell: (truth, IoU)}."""
    wishes = {}
    for g, (box, label) in enumerate(zip(boxes, labels)):
        if label < 0:
            continue
        size = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        found = []
        for index, s, x, y, i, j in cells():
            low, high = losses.SIZE_RANGES[s]
            ci, cj = int((box[1] + box[3]) / 2 // s), int((box[0] + box[2]) / 2 // s)
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if not low <= size < high or abs(i - ci) > 1 or abs(j - cj) > 1 or not (inside or (i, j) == (ci, cj)):
                continue
            d = np.exp(np.clip(distances[index], -5, 5)) * s
            iou = plain_iou((x - d[0], y - d[1], x + d[2], y + d[3]), box)
            p = 1 / (1 + math.exp(-logits[index][label]))
            found.append((math.sqrt(p) * iou**4 + 1e-9 * (1 + iou), iou, index))
        k = max(1, min(9, round(sum(sorted((f[1] for f in found), reverse=True)[:9]))))
        for align, iou, index in sorted(found, reverse=True)[:k]:
            wishes.setdefault(index, []).append((align, g, iou))
    return {index: max(w)[1:] for index, w in wishes.items()}


def drawn_case(seed):
    rng = np.random.default_rng(seed)
    count = 6
    wh = np.exp(rng.uniform(math.log(6), math.log(110), (count, 2)))
    xy = rng.uniform(0, SIZE - 10, (count, 2))
    boxes = np.concatenate([xy, np.minimum(xy + wh, SIZE)], axis=1).astype(np.float32)
    labels = rng.integers(-1, 3, count).astype(np.int32)
    logits = rng.normal(-2, 2, (CELLS, 3)).astype(np.float32)
    distances = rng.normal(0.7, 0.5, (CELLS, 4)).astype(np.float32)
    return boxes, labels, logits, distances


@pytest.mark.parametrize("seed", range(8))
def test_assignment_is_the_plain_one(seed):
    boxes, labels, logits, distances = drawn_case(seed)
    expected = plain_assign(boxes, labels, logits, distances)
    index, centre, stride, good = losses.candidates(boxes[None], GRIDS)
    good = ops.logical_and(good, ops.expand_dims(labels[None] >= 0, -1))
    near = distances[np.asarray(index)[0]][None]
    iou, _ = losses.iou_and_giou(losses.decode(centre, stride, near), boxes[None, :, None])
    near_logits = logits[np.asarray(index)[0]]
    p = 1 / (1 + np.exp(-np.take_along_axis(near_logits, np.maximum(labels, 0)[:, None, None], axis=2)[..., 0]))
    quality = np.clip(np.asarray(iou), 0, 1)
    align = np.sqrt(p)[None] * quality**4 + 1e-9 * (1 + quality)
    positive = np.asarray(losses.assign(align.astype(np.float32), quality, good, index, CELLS))[0]
    got = {int(np.asarray(index)[0, g, k]): (g, float(quality[0, g, k])) for g, k in zip(*np.nonzero(positive))}
    assert got.keys() == expected.keys() and len(expected) > 0
    for cell, (g, iou) in expected.items():
        assert got[cell][0] == g
        assert got[cell][1] == pytest.approx(iou, abs=1e-4)


def as_outputs(logits, distances):
    maps, start = [], 0
    for h, w in GRIDS:
        for values in (logits, distances):
            maps.append(values[start : start + h * w].reshape(1, h, w, -1))
        start += h * w
    return maps


def test_loss_by_hand():
    boxes, labels, logits, distances = drawn_case(3)
    cls, box = losses.detection_loss(
        [ops.convert_to_tensor(m) for m in as_outputs(logits, distances)],
        boxes[None],
        labels[None],
        np.zeros((1, 8, 4), np.float32),
    )
    assigned = plain_assign(boxes, labels, logits, distances)
    target = np.zeros((CELLS, 3))
    giou_loss = 0.0
    where = {index: (s, x, y) for index, s, x, y, _, _ in cells()}
    for cell, (g, iou) in assigned.items():
        target[cell, labels[g]] = iou
        s, x, y = where[cell]
        d = np.exp(distances[cell].astype(float)) * s
        a, b = (x - d[0], y - d[1], x + d[2], y + d[3]), boxes[g]
        hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        union -= max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        giou_loss += 1 - (iou - (hull - union) / hull)
    p = 1 / (1 + np.exp(-logits.astype(float)))
    entropy = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    n = len(assigned)
    assert float(cls) == pytest.approx(1.5 * ((target - p) ** 2 * entropy).sum() / n, rel=1e-3)
    assert float(box) == pytest.approx(2.0 * giou_loss / n, rel=1e-3)


def test_ignore_regions_silence_the_background_only():
    boxes, labels, logits, distances = drawn_case(3)
    outputs = [ops.convert_to_tensor(m) for m in as_outputs(logits, distances)]
    whole = np.array([[[0, 0, SIZE, SIZE]]], np.float32)
    none = np.zeros((1, 1, 4), np.float32)
    with_all, box_a = losses.detection_loss(outputs, boxes[None], labels[None], none)
    with_ignore, box_b = losses.detection_loss(outputs, boxes[None], labels[None], whole)
    assert float(with_ignore) < float(with_all) and float(box_a) == float(box_b)
    empty, box = losses.detection_loss(outputs, boxes[None], np.full((1, len(boxes)), -1, np.int32), whole)
    assert float(empty) == 0.0 and float(box) == 0.0


def test_box_gradient_is_the_numerical_one():
    import tensorflow as tf

    truth = tf.constant([[10.0, 12.0, 40.0, 50.0]])
    centre, stride = tf.constant([[24.0, 28.0]]), tf.constant([8.0])
    start = np.array([[0.3, 0.5, 0.9, 1.1]], np.float64)

    def loss(d):
        _, giou = losses.iou_and_giou(
            losses.decode(tf.cast(centre, d.dtype), tf.cast(stride, d.dtype), d), tf.cast(truth, d.dtype)
        )
        return tf.reduce_sum(1 - giou)

    x = tf.Variable(start)
    with tf.GradientTape() as tape:
        value = loss(x)
    gradient = tape.gradient(value, x).numpy()
    for k in range(4):
        step = np.zeros_like(start)
        step[0, k] = 1e-6
        slope = (loss(tf.constant(start + step)) - loss(tf.constant(start - step))).numpy() / 2e-6
        assert gradient[0, k] == pytest.approx(slope, abs=1e-6)


def test_a_network_of_nans_gives_a_loss_of_nan_and_no_cast_of_nan(monkeypatch):
    """What a cast makes of NaN depends on the processor; without AVX-512 TensorFlow dies of the gather that follows."""
    cast = ops.cast

    def checked(x, dtype):
        if "int" in str(dtype) and "int" not in str(getattr(x, "dtype", "int")) and "bool" not in str(x.dtype):
            assert np.isfinite(np.asarray(x)).all(), "NaN or infinity cast to an integer"
        return cast(x, dtype)

    monkeypatch.setattr(losses.ops, "cast", checked)
    boxes, labels = np.array([[[10, 10, 40, 40]]], np.float32), np.zeros((1, 1), np.int32)
    outputs = []
    for h, w in GRIDS:
        outputs += [np.full((1, h, w, c), np.nan, np.float32) for c in (3, 4)]
    cls, box = losses.detection_loss(outputs, boxes, labels, np.zeros((1, 1, 4), np.float32))
    assert math.isnan(float(cls)) and math.isnan(float(box))
