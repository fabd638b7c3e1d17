"""jetson.vision.boxes and jetson.vision.letterbox on what hypothesis comes up with."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jetson.inference.detector import find
from jetson.vision import boxes, letterbox

quick = settings(max_examples=60, deadline=None, derandomize=True)
coordinate = st.floats(0, 500, width=32)
box = st.tuples(coordinate, coordinate, st.floats(0.5, 200, width=32), st.floats(0.5, 200, width=32)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)
some_boxes = st.lists(box, max_size=40).map(lambda rows: np.array(rows, np.float32).reshape(-1, 4))


@quick
@given(some_boxes, some_boxes)
def test_iou_is_symmetric_and_between_0_and_1(a, b):
    overlap = boxes.iou_matrix(a, b)
    assert overlap.shape == (len(a), len(b)) and overlap.dtype == np.float32
    assert ((overlap >= 0) & (overlap <= 1)).all()
    np.testing.assert_allclose(overlap, boxes.iou_matrix(b, a).T, atol=1e-6)
    if len(a):
        np.testing.assert_allclose(np.diag(boxes.iou_matrix(a, a)), 1, atol=1e-5)


@quick
@given(some_boxes, st.integers(0, 2**31 - 1), st.floats(0.2, 0.8), st.integers(1, 50))
def test_nms_keeps_the_best_and_nothing_that_overlaps_it(xyxy, seed, iou, most):
    scores = np.random.RandomState(seed).rand(len(xyxy)).astype(np.float32)
    kept = boxes.nms(xyxy, scores, iou, most)
    assert len(kept) <= most and len(set(kept.tolist())) == len(kept)
    assert (np.diff(scores[kept]) <= 0).all()
    overlap = boxes.iou_matrix(xyxy, xyxy)
    among = overlap[np.ix_(kept, kept)] - np.eye(len(kept))
    assert (among <= iou + 1e-5).all()
    if len(xyxy):
        assert kept[0] == scores.argmax()
    if len(kept) < most:
        # Whatever was dropped is covered by something kept that scores at least as well.
        for lost in set(range(len(xyxy))) - set(kept.tolist()):
            rivals = [k for k in kept if scores[k] >= scores[lost]]
            assert overlap[lost, rivals].max() >= iou - 1e-5


@quick
@given(
    arrays.arrays(np.float32, (1, 3, 6, 10), elements=st.floats(-30, 30, width=32)),
    arrays.arrays(np.float32, (1, 4, 6, 10), elements=st.floats(-5, 5, width=32)),
    st.floats(0.001, 0.999),
)
def test_decode_holds_for_any_outputs(classes, box_map, score):
    recipe = {"strides": [8], "box": "exp"}
    xyxy, scores = boxes.decode({"cls_8": classes, "box_8": box_map}, recipe, score)
    logits = classes[0].max(axis=0)
    assert len(xyxy) == (logits > np.float32(np.log(score / (1 - score)))).sum()
    assert (np.diff(scores.max(axis=1)) <= 1e-6).all()
    assert (scores.max(axis=1) >= score - 1e-5).all()
    centres = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    assert (xyxy[:, 2:] > xyxy[:, :2]).all() and np.isfinite(centres).all()


@quick
@given(st.integers(1, 1500), st.integers(1, 1500), st.sampled_from([(320, 192), (416, 256), (640, 384), (32, 32)]))
def test_letterbox_holds_for_any_frame_size(width, height, input_wh):
    fitted = letterbox.fit((width, height), input_wh)
    assert 1 <= fitted[0] <= input_wh[0] and 1 <= fitted[1] <= input_wh[1]
    assert fitted[0] == input_wh[0] or fitted[1] == input_wh[1]
    frame = np.full((height, width, 3), 200, np.uint8)
    blob, scale = letterbox.letterbox(frame, input_wh)
    assert (blob[0, :, : fitted[1], : fitted[0]] == 200).all()
    assert (blob == 200).sum() == 3 * fitted[0] * fitted[1]
    corners = np.array([[0, 0, fitted[0], fitted[1]]], np.float32)
    np.testing.assert_allclose(letterbox.to_frame(corners, scale, (width, height)), [[0, 0, width, height]], rtol=1e-5)


@quick
@given(st.integers(0, 2**31 - 1), st.floats(0.02, 0.9), st.floats(0.02, 0.9), st.sampled_from([None, 0.5, 0.7, 0.9]))
def test_what_is_found_does_not_depend_on_the_threshold_asked_for(seed, one, other, vote_iou):
    """Faces over the higher of two thresholds are the same faces, boxes and classes, whichever was asked for."""
    random = np.random.RandomState(seed)
    recipe = {"strides": [8], "box": "exp", "iou": 0.5, "max_detections": 300}
    if vote_iou is not None:
        recipe["vote_iou"] = vote_iou
    outputs = {
        "cls_8": random.normal(-2, 2, (1, 3, 8, 12)).astype(np.float32),
        "box_8": random.normal(1, 0.3, (1, 4, 8, 12)).astype(np.float32),
    }
    low, high = sorted((one, other))
    many, few = (find(outputs, recipe, (192, 128), (0.5, 0.5), score) for score in (low, high))
    over = many.confidence > high + 1e-6
    assert abs(int(over.sum()) - len(few)) <= int((np.abs(many.confidence - high) <= 1e-6).sum())
    if over.sum() == len(few):
        np.testing.assert_allclose(many.xyxy[over], few.xyxy, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(many.scores[over], few.scores, rtol=1e-4, atol=1e-6)
    assert (np.diff(many.confidence) <= 1e-6).all()
    assert (many.xyxy >= 0).all() and (many.xyxy <= [192, 128, 192, 128]).all()
