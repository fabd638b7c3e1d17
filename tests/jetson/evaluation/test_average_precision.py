import json

import cv2
import numpy as np
import pytest
from refusals import refused

from jetson.errors import BadInput
from jetson.evaluation import average_precision


def truth(boxes, labels, ignore=(), number=1):
    return average_precision.Truth(
        number,
        "",
        (200, 200),
        np.array(boxes, float).reshape(-1, 4),
        np.array(labels, int),
        np.array(ignore, float).reshape(-1, 4),
        "",
    )


def faces(rows):
    """[(box, label, score)] -> (xyxy, scores)."""
    scores = np.zeros((len(rows), 3), np.float32)
    for row, (_, label, score) in enumerate(rows):
        scores[row, label] = score
    return np.array([row[0] for row in rows], np.float32).reshape(-1, 4), scores


A, B, FAR = [0, 0, 40, 40], [100, 100, 140, 140], [0, 150, 40, 190]
NEAR_A = [0, 0, 40, 30]


def test_a_perfect_detector_has_100():
    result = average_precision.evaluate([truth([A, B], [0, 1])], [faces([(A, 0, 0.9), (B, 1, 0.8)])])
    assert result["map50"] == pytest.approx(100)
    assert result["per_class"] == {"with_mask": pytest.approx(100), "without_mask": pytest.approx(100)}
    assert result["counts"]["per_class"] == {"with_mask": 1, "without_mask": 1, "mask_worn_incorrect": 0}
    assert result["counts"]["by_size"] == {"small": 0, "medium": 2, "large": 0}
    assert result["by_size"]["small"] is None and result["by_size"]["medium"] == pytest.approx(100)
    assert result["three_class"]["per_class"]["mask_worn_incorrect"] is None


def test_no_detection_has_0_and_no_truth_has_none():
    assert average_precision.map50([truth([A], [0])], [faces([])]) == 0
    assert average_precision.map50([truth([], [])], [faces([(A, 0, 0.9)])]) is None
    assert average_precision.evaluate([], [])["map50"] is None
    with pytest.raises(ValueError):
        average_precision.evaluate([truth([A], [0])], [])


def test_a_miss_above_the_hit_halves_the_precision():
    assert average_precision.map50([truth([A], [0])], [faces([(FAR, 0, 0.9), (A, 0, 0.5)])]) == pytest.approx(50)
    assert average_precision.map50([truth([A], [0])], [faces([(FAR, 0, 0.4), (A, 0, 0.5)])]) == pytest.approx(100)


def test_half_the_truth_found_gives_the_recall_points_up_to_a_half():
    # 51 of the 101 recall points are at most .5.
    assert average_precision.map50([truth([A, B], [0, 0])], [faces([(A, 0, 0.9)])]) == pytest.approx(100 * 51 / 101)


def test_a_second_box_on_a_face_is_a_miss():
    counted = average_precision.tally([truth([A], [0])], [faces([(A, 0, 0.9), (NEAR_A, 0, 0.8)])], 0)
    assert counted.hit.tolist() == [True, False]


def test_iou_of_exactly_a_half_is_a_hit():
    assert average_precision.map50([truth([A], [0])], [faces([([0, 0, 40, 20], 0, 0.9)])]) == pytest.approx(100)
    assert average_precision.map50([truth([A], [0])], [faces([([0, 0, 40, 19.9], 0, 0.9)])]) == 0


def test_scores_up_to_a_hundredth_do_not_count():
    assert average_precision.map50([truth([A], [0])], [faces([(A, 0, 0.01)])]) == 0
    assert average_precision.map50([truth([A], [0])], [faces([(A, 0, 0.011)])]) == pytest.approx(100)


def test_ignore_regions_swallow_any_number_and_cost_nothing():
    region = [90, 90, 200, 200]
    rows = [(B, 0, 0.95), ([150, 150, 190, 190], 0, 0.94), (A, 0, 0.5)]
    assert average_precision.map50([truth([A], [0], [region])], [faces(rows)]) == pytest.approx(100)
    assert average_precision.map50([truth([A], [0])], [faces(rows)]) == pytest.approx(100 / 3)


def test_an_ignore_region_takes_boxes_of_which_half_lies_inside():
    region = [100, 0, 200, 200]
    inside, outside = [80, 0, 120, 40], [79, 0, 119, 40]
    assert average_precision.tally([truth([A], [0], [region])], [faces([(inside, 0, 0.9)])], 0).scores.size == 0
    assert average_precision.tally([truth([A], [0], [region])], [faces([(outside, 0, 0.9)])], 0).scores.size == 1


def test_truth_wins_over_an_ignore_region_that_covers_it_better():
    counted = average_precision.tally([truth([A], [0], [[0, 0, 200, 200]])], [faces([(NEAR_A, 0, 0.9)])], 0)
    assert counted.hit.tolist() == [True]


def test_the_third_class_is_ignored_in_the_two_class_figure_and_counts_in_the_other():
    truths = [truth([A, B], [0, 2])]
    found = [faces([(B, 0, 0.95), (B, 2, 0.9), (A, 0, 0.5)])]
    result = average_precision.evaluate(truths, found)
    assert result["map50"] == pytest.approx(100)
    assert result["three_class"]["per_class"]["with_mask"] == pytest.approx(50)
    assert result["three_class"]["per_class"]["mask_worn_incorrect"] == pytest.approx(100)


def test_sizes_are_those_of_the_truth_box_and_ends_count_on_both_sides():
    boxes = [[0, 0, 32, 32], [50, 50, 146, 146]]
    counts = average_precision.evaluate([truth(boxes, [0, 0])], [faces([])])["counts"]["by_size"]
    assert counts == {"small": 1, "medium": 2, "large": 1}


def test_detections_of_another_size_are_no_misses_of_this_size():
    truths = [truth([[0, 0, 20, 20]], [0])]
    found = [faces([([50, 50, 190, 190], 0, 0.9), ([0, 0, 20, 20], 0, 0.5)])]
    result = average_precision.evaluate(truths, found)
    assert result["by_size"]["small"] == pytest.approx(100)
    assert result["per_class"]["with_mask"] == pytest.approx(50)


def test_curve():
    counted = average_precision.tally([truth([A, B], [0, 0])], [faces([(A, 0, 0.9), (FAR, 0, 0.8), (B, 0, 0.7)])], 0)
    score, precision, recall = average_precision.curve(counted)
    np.testing.assert_allclose(score, [0.9, 0.8, 0.7], atol=1e-6)
    np.testing.assert_allclose(precision, [1, 0.5, 2 / 3])
    np.testing.assert_allclose(recall, [0.5, 0.5, 1])


def test_bootstrap_is_certain_of_a_clear_change_and_unsure_of_none():
    truths = [truth([A, B], [0, 1], number=i) for i in range(30)]
    good = [faces([(A, 0, 0.9), (B, 1, 0.8)])] * 30
    bad = [faces([(A, 0, 0.9)])] * 15 + [faces([(A, 0, 0.9), (B, 1, 0.8)])] * 15
    change = average_precision.paired_bootstrap(truths, good, bad, 200)
    assert change["before"] == pytest.approx(100) and change["difference"] < -20
    assert change["low"] <= change["difference"] <= change["high"] < 0
    same = average_precision.paired_bootstrap(truths, bad, bad, 50)
    assert same["low"] == same["high"] == same["difference"] == 0
    assert average_precision.paired_bootstrap(truths, good, bad, 200) == change


def write_split(folder, **changes):
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images" / "a.png"), np.zeros((30, 40, 3), np.uint8))
    data = {
        "categories": [
            {"id": 1, "name": "with_mask"},
            {"id": 7, "name": "without_mask"},
            {"id": 3, "name": "mask_worn_incorrect"},
        ],
        "images": [
            {
                "id": 5,
                "file_name": "images/a.png",
                "width": 40,
                "height": 30,
                "source": "s",
                "ignore_boxes": [[1, 2, 3, 4]],
            }
        ],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 7, "bbox": [2, 3, 10, 20]},
            {"id": 2, "image_id": 5, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        ],
    }
    data.update(changes)
    (folder / "annotations.json").write_text(json.dumps(data))
    return str(folder)


def test_load_split(tmp_path):
    (only,) = average_precision.load_split(write_split(tmp_path))
    assert only.image_id == 5 and only.wh == (40, 30) and only.source == "s"
    assert only.xyxy.tolist() == [[2, 3, 12, 23]] and only.labels.tolist() == [1]
    assert only.ignore.tolist() == [[1, 2, 4, 6], [0, 0, 5, 5]]
    assert average_precision.read_image(only).shape == (30, 40, 3)


@pytest.mark.parametrize(
    "changes, where",
    [
        ({"images": None}, "annotations.json"),
        ({"categories": [{"id": 1, "name": "mask"}]}, "annotations.json, categories"),
        ({"annotations": [{"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1]}]}, "annotations[0]"),
        ({"annotations": [{"image_id": 5, "category_id": 9, "bbox": [0, 0, 1, 1]}]}, "annotations[0]"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [0, 0, 1]}]}, "annotations[0]"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [0, 0, -1, 5]}]}, "annotations[0]"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [0, 0, "x", 5]}]}, "annotations[0]"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [0, 0, 10**400, 5]}]}, "annotations[0]"),
        ({"images": [{"id": 5, "file_name": "images/a.png", "width": float("inf"), "height": 30}]}, "images"),
        ({"annotations": ["x"]}, "annotations[0]"),
        ({"images": [{"id": 5}]}, "images"),
        ({"images": [{"id": 5}, {"id": 5}]}, "images[1]"),
    ],
)
def test_a_wrong_annotation_file_is_named(tmp_path, changes, where):
    with refused(BadInput, where, names="annotations.json"):
        average_precision.load_split(write_split(tmp_path, **changes))


def test_a_missing_split_and_broken_images_are_named(tmp_path):
    with pytest.raises(BadInput):
        average_precision.load_split(str(tmp_path / "no"))
    (only,) = average_precision.load_split(write_split(tmp_path))
    with refused(BadInput, where="a.png", names=["40 x 30", "41 x 30"]):
        average_precision.read_image(only._replace(wh=(41, 30)))
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    with refused(BadInput, where="a.png"):
        average_precision.read_image(only)
    (tmp_path / "images" / "a.png").unlink()
    with refused(BadInput, where="a.png"):
        average_precision.read_image(only)


def test_of_equal_overlaps_the_last_truth_is_taken_as_coco_does():
    """Two truths overlap a detection equally; a second detection fits the first of them only."""
    one, other = [0, 0, 40, 40], [20, 0, 60, 40]
    between, left = [10, 0, 50, 40], [-5, 0, 35, 40]
    matched, ignored = average_precision._match(
        np.array([one, other], float), np.zeros(2, bool), np.zeros((0, 4)), np.array([between, left], float)
    )
    assert matched.tolist() == [True, True] and not ignored.any()


@pytest.mark.parametrize("box, fits", [([3, 4, 0.5, 0.5], True), ([3, 4, 0, 5], False), ([3, 4, 5, 0], False),
                                       ([3, 4, -1, 5], False), ([3, 4, float("nan"), 5], False)])  # fmt: skip
def test_a_box_has_a_size(box, fits):
    if fits:
        assert average_precision._corners(box) == [3, 4, 3.5, 4.5]
    else:
        with pytest.raises(ValueError):
            average_precision._corners(box)
