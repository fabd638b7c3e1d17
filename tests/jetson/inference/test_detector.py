import numpy as np
import pytest

from jetson.inference.detector import Faces, open_detector
from jetson.vision.boxes import iou_matrix


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    with open_detector(tiny_bundle) as opened:
        yield opened


SQUARES = [(0, 76, 68, 16), (1, 184, 120, 32), (2, 276, 44, 16), (0, 362, 202, 8)]


def box(square):
    _, x, y, side = square
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


@pytest.mark.parametrize("variant", ["t-416x256-fp32", "t-416x256-fp16-typed", "t-416x256-int8-cpu"])
def test_every_square_is_found_once_with_its_class(tiny_bundle, draw, variant):
    frame = draw((416, 256), SQUARES)
    with open_detector(tiny_bundle, variant) as opened:
        faces = opened.detect(frame)
    assert len(faces) == len(SQUARES)
    overlap = iou_matrix(faces.xyxy, [box(square) for square in SQUARES])
    assert sorted(overlap.argmax(axis=1)) == [0, 1, 2, 3]
    assert (overlap.max(axis=1) > 0.9).all()
    assert [SQUARES[i][0] for i in overlap.argmax(axis=1)] == faces.labels.tolist()
    assert (np.diff(faces.confidence) <= 1e-6).all()


def test_boxes_are_in_pixels_of_the_frame(detector, draw):
    twice = [(label, x * 2, y * 2, side * 2) for label, x, y, side in SQUARES]
    faces = detector.detect(draw((832, 512), twice))
    overlap = iou_matrix(faces.xyxy, [box(square) for square in twice])
    assert len(faces) == 4 and (overlap.max(axis=1) > 0.9).all()


def test_a_portrait_frame_is_padded_and_nothing_is_found_in_the_padding(detector, draw):
    faces = detector.detect(draw((192, 256), [(0, 76, 68, 16), (1, 120, 184, 32)]), 0.01)
    assert len(faces) >= 2
    assert (faces.xyxy[:, 2] <= 192).all() and (faces.xyxy[:, 0] < faces.xyxy[:, 2]).all()


def test_an_empty_frame_has_no_face(detector):
    faces = detector.detect(np.full((100, 100, 3), 110, np.uint8))
    assert len(faces) == 0
    assert faces.xyxy.shape == (0, 4) and faces.scores.shape == (0, 3)
    assert faces.labels.shape == (0,) and faces.confidence.shape == (0,)


def test_the_threshold_is_the_manifests_unless_given(detector, draw):
    frame = draw((416, 256), SQUARES)
    assert len(detector.detect(frame, 0.999)) == 0
    assert len(detector.detect(frame, 0.01)) >= len(detector.detect(frame)) == 4


def test_the_steps_give_what_the_whole_gives(detector, draw):
    frame = draw((640, 480), [(0, 100, 100, 24), (2, 300, 200, 48)])
    whole = detector.detect(frame)
    blob, scale = detector.prepare(frame)
    steps = detector.finish(detector.infer(blob), (640, 480), scale)
    np.testing.assert_array_equal(steps.xyxy, whole.xyxy)
    np.testing.assert_array_equal(steps.scores, whole.scores)
    assert set(detector.timings) == {"preprocess_ms", "infer_ms", "postprocess_ms"}
    assert all(value > 0 for value in detector.timings.values())


def test_faces_are_a_plain_pair():
    xyxy, scores = Faces(np.zeros((1, 4)), np.array([[0.2, 0.1, 0.7]]))
    assert Faces(xyxy, scores).labels.tolist() == [2]
    assert Faces(xyxy, scores).confidence.tolist() == [0.7]


def test_every_variant_agrees_with_the_golden_results(tiny_bundle):
    from jetson import engine
    from jetson.bundle import manifest
    from jetson.inference import golden

    checked = 0
    for variant in manifest.load(tiny_bundle).variants:
        if any(engine.reason(runtime) is None for runtime in variant.runtimes):
            result = golden.check(tiny_bundle, variant.name)
            assert result["differences"] == [] and result["faces"] > 0
            checked += 1
    assert checked >= 6
