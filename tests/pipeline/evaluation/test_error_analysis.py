"""`jetmask evaluate --report`: its numbers on cases made by hand, its page from outside."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from jetson.bundle.manifest import CLASSES
from jetson.evaluation import average_precision
from jetson.inference.detector import Faces
from pipeline.evaluation import error_analysis, error_page

ROOT = Path(__file__).resolve().parents[3]
A, B, C, FAR = [0, 0, 40, 40], [100, 100, 140, 140], [0, 150, 40, 190], [150, 0, 190, 40]


def truth(rows, ignore=(), number=0, source="s"):
    boxes = np.array([box for box, _ in rows], float).reshape(-1, 4)
    return average_precision.Truth(
        number,
        f"images/{number}.png",
        (200, 200),
        boxes,
        np.array([label for _, label in rows], int),
        np.array(ignore, float).reshape(-1, 4),
        source,
    )


def faces(*rows):
    scores = np.full((len(rows), 3), 0.02, np.float32)
    for row, (_, label, score) in enumerate(rows):
        scores[row, label] = score
    return Faces(np.array([row[0] for row in rows], np.float32).reshape(-1, 4), scores)


def test_outcome_pairs_misses_and_false_faces():
    case = truth([(A, 0), (B, 1), (C, 0)], ignore=[[140, 0, 200, 60]])
    found = faces((B, 0, 0.9), (A, 0, 0.8), (A, 1, 0.7), (FAR, 0, 0.6), ([60, 60, 80, 80], 2, 0.5))
    result = error_analysis.outcome(case, found)
    assert sorted(result.pairs) == [(0, 1), (1, 0)]
    assert result.missed == [2]
    assert result.false == [2, 4]  # the second box on A, and the stray; FAR lies in the ignore region


def test_outcome_of_nothing():
    assert error_analysis.outcome(truth([]), faces()) == ([], [], [])
    assert error_analysis.outcome(truth([(A, 0)]), faces()).missed == [0]
    assert error_analysis.outcome(truth([]), faces((A, 0, 0.9))).false == [0]


def test_confusion_counts_every_truth_and_every_false_face_once():
    cases = [truth([(A, 0), (B, 1), (C, 2)]), truth([(A, 1)])]
    found = [faces((A, 0, 0.9), (B, 0, 0.8), (FAR, 1, 0.7)), faces((A, 1, 0.3))]
    table = np.array(error_analysis.confusion(cases, found, 0.5))
    assert table.tolist() == [[1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0]]
    assert table[:3].sum() == 4


def test_the_recommended_threshold_lies_between_right_and_wrong():
    cases = [truth([(A, 0), (B, 1)], number=i) for i in range(5)]
    found = [faces((A, 0, 0.8), (B, 1, 0.7), (FAR, 0, 0.4))] * 5
    result = error_analysis.analyse(cases, found, 0.3)
    assert 0.4 < result["recommended"]["score"] <= 0.7
    assert result["recommended"]["precision"] == result["recommended"]["recall"] == result["recommended"]["f1"] == 1
    assert result["at_score"]["precision"] == pytest.approx(2 / 3)
    assert result["worst"] == []


def test_false_masks_on_negatives_raise_the_threshold():
    cases = [truth([(A, 0), (B, 0)], number=i) for i in range(5)]
    found = [faces((A, 0, 0.9), (B, 0, 0.5))] * 5
    negatives = [faces((FAR, 0, 0.6))] + [faces()] * 9
    free = error_analysis.analyse(cases, found, 0.4)["recommended"]
    bound = error_analysis.analyse(cases, found, 0.4, negatives)
    assert free["score"] <= 0.5 and not free["limited_by_negatives"]
    assert bound["recommended"]["score"] > 0.6 and bound["recommended"]["limited_by_negatives"]
    at_04 = next(row for row in bound["negatives"]["per_image"] if row["score"] == 0.4)
    assert at_04["with_mask"] == pytest.approx(0.1) and bound["negatives"]["images"] == 10
    hopeless = error_analysis.analyse(cases, found, 0.4, [faces((FAR, 0, 0.99))])["recommended"]
    assert hopeless["too_many_false_masks_everywhere"]


def test_every_set_of_negatives_bounds_the_threshold():
    curve = error_analysis.analyse([truth([(A, 0)])], [faces((A, 0, 0.95))], 0.4)["thresholds"]
    loud, louder = [faces((FAR, 0, 0.5))], [faces((FAR, 0, 0.8))]
    for sets, least in (([], 0), ([loud], 0.5), ([loud, louder], 0.8), ([louder, loud], 0.8), ([None, loud], 0.5)):
        score = error_analysis.recommend(curve, *sets)["score"]
        assert least < score <= 0.95


def test_calibration_compares_scores_with_what_is_right():
    cases = [truth([(A, 0)], number=i) for i in range(10)]
    found = [faces((A if i < 6 else FAR, 0, 0.65)) for i in range(10)]
    result = error_analysis.analyse(cases, found, 0.4)["calibration"]
    entry = next(entry for entry in result["bins"] if entry["count"])
    assert entry["from"] == pytest.approx(0.6) and entry["count"] == 10
    assert entry["right"] == pytest.approx(0.6) and result["expected_error"] == pytest.approx(0.05, abs=1e-6)


def test_sources_are_told_apart():
    cases = [truth([(A, 0)], source="one"), truth([(A, 0)], source="two")]
    result = error_analysis.by_source(cases, [faces((A, 0, 0.9)), faces()])
    assert result["one"]["map50"] == pytest.approx(100) and result["two"]["map50"] == 0


def test_the_worst_images_come_first_and_good_ones_not_at_all():
    cases = [truth([(A, 0)], number=0), truth([(A, 0), (B, 0)], number=1), truth([(A, 0)], number=2)]
    found = [faces((A, 1, 0.9)), faces((FAR, 0, 0.9)), faces((A, 0, 0.9))]
    rows = error_analysis.worst(cases, found, 0.5)
    assert [(row["image"], row["errors"]) for row in rows] == [(1, 3), (0, 1)]
    assert rows[1]["wrong_class"] == 1 and rows[0]["missed"] == 2 and rows[0]["false"] == 1


def test_of_equally_good_thresholds_the_middle_one_is_recommended():
    result = error_analysis.analyse([truth([(A, 0)])], [faces((A, 0, 0.9), (FAR, 0, 0.305))], 0.4)
    assert 0.55 <= result["recommended"]["score"] <= 0.65  # .31 to .9 are the same


def test_a_single_hit_is_a_line_in_the_precision_recall_figure():
    cases = [truth([(A, 0), (B, 0)])]
    axes = Figure().subplots()
    error_page.precision_recall(error_analysis.analyse(cases, [faces((A, 0, 0.9))], 0.4))(axes)
    lines = [line.get_xydata().tolist() for line in axes.lines]
    assert lines == [[[0, 1], [0.5, 1]], [], []]


def test_the_bundles_own_threshold_is_measured_where_it_is():
    """Also between two of the curve's, and beyond its end."""
    cases = [truth([(A, 0), (B, 1)])]
    found = [faces((A, 0, 0.985), (B, 1, 0.404))]
    for score, recall in ((0.4, 1), (0.402, 1), (0.405, 0.5), (0.98, 0.5), (0.99, 0), (0.02, 1)):
        at = error_analysis.analyse(cases, found, score)["at_score"]
        assert (at["score"], at["recall"]) == (score, recall)


def test_without_a_right_face_no_threshold_is_recommended_and_the_bundles_is_shown(tmp_path):
    cases, found = [truth([])], [faces((A, 0, 0.3), (B, 0, 0.9))]
    numbers = error_analysis.analyse(cases, found, 0.4, [faces((A, 0, 0.35))])
    assert numbers["shown_at"] == 0.4 and numbers["confusion"][3] == [1, 0, 0, 0]
    result = {
        "variant": "v",
        "runtime": "onnxruntime",
        "precision": "fp32",
        "input_wh": [32, 32],
        **average_precision.evaluate(cases, found),
    }
    text = error_page.page("val", result, numbers, [], [])
    assert "None can be recommended" in text and "Recommended:" not in text and "at 0.40" in text
    assert "At 0.40 there is no false mask in any of them" in text  # there is one at .3, as the table says
    json.dumps(numbers, allow_nan=False)


def test_many_sources_take_one_look_at_each_image():
    class Counted(str):
        looks = 0

        def __eq__(self, other):
            Counted.looks += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    cases = [truth([], source=Counted(f"photographer {number}")) for number in range(300)]
    assert len(error_analysis.by_source(cases, [faces()] * 300)) == 300
    assert Counted.looks < 10 * 300


def test_a_tile_shows_what_its_caption_counts(tmp_path):
    """Of two truths on one face one is missed, and is drawn; a picture of a few lines is no stumbling block."""
    frame = np.full((200, 200, 3), 128, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), frame)
    near = [4, 4, 44, 44]
    case = truth([(A, 0), (near, 0)])._replace(file=str(tmp_path / "a.png"))
    found = faces((A, 0, 0.9))
    missed = error_analysis.outcome(case, found).missed
    assert missed == [1]

    def picture(missed):
        shown = error_page.tile(case, found, {"missed": len(missed)}, missed)
        data = base64.b64decode(shown["source"].split("base64,")[1])
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int)

    side = error_page.TILE_WH[1] / 200
    where = np.zeros((270, 270), bool)
    where[round(40 * side) : round(47 * side), round(4 * side) : round(48 * side)] = True
    assert np.abs(picture(missed) - picture([]))[where].max() > 60
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((3, 4000, 3), np.uint8))
    wide = average_precision.Truth(
        0, str(tmp_path / "wide.png"), (4000, 3), np.zeros((0, 4)), np.zeros(0, int), np.zeros((0, 4)), ""
    )
    assert "wide.png" in error_page.tile(wide, faces(), {"false": 1}, [])["caption"]


def test_numbers_without_a_single_detection_or_truth():
    empty = error_analysis.analyse([truth([])], [faces()], 0.4)
    assert empty["calibration"]["expected_error"] is None
    missed = error_analysis.analyse([truth([(A, 0)])], [faces()], 0.4)
    assert missed["recommended"]["f1"] == 0
    json.dumps([empty, missed], allow_nan=False)


def write_split(folder, frames):
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, (name, frame, squares) in enumerate(frames):
        cv2.imwrite(str(folder / "images" / "x.png"), frame)
        (folder / "images" / "x.png").rename(folder / "images" / name)
        images.append({"id": number, "file_name": "images/" + name, "width": frame.shape[1], "height": frame.shape[0]})
        for label, x, y, side in squares:
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": [x - side / 2, y - side / 2, side, side],
                }
            )
    (folder / "annotations.json").write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
            }
        )
    )
    return folder


def test_the_page_is_one_file_and_says_it_all(tmp_path, tiny_bundle, draw):
    seen, unseen = (0, 76, 68, 16), (1, 200, 100, 50)
    data = write_split(
        tmp_path / "val",
        [("<b>&.png", draw((416, 256), [seen]), [seen, unseen]), ("b.png", draw((416, 256), [(2, 276, 44, 16)]), [])],
    )
    negatives = write_split(
        tmp_path / "negatives", [("false.png", draw((416, 256), [seen]), []), ("true.png", draw((416, 256), []), [])]
    )
    out = tmp_path / "report"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pipeline.cli",
            "evaluate",
            "--bundle",
            tiny_bundle,
            "--variant",
            "t-416x256-fp32",
            "--data",
            data,
            "--report",
            out,
            "--negatives",
            negatives,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert str(out / "report.html") in done.stdout
    page = (out / "report.html").read_text()
    for words in (
        "Recommended:",
        "jetmask run --score 0.",
        "Which class is taken for which",
        "mask_worn_incorrect",
        "By source",
        "1 missed",
        "The 2 worst images",
        "False masks where nobody wears one",
        "false.png",
        "&lt;b&gt;&amp;.png",
    ):
        assert words in page, words
    assert "<b>&.png" not in page
    assert 'src="http' not in page and not re.search('href="(?!#)', page) and "<script" not in page
    numbers = json.loads((out / "errors.json").read_text())
    assert numbers["negatives"]["images"] == 2
    assert numbers["evaluation"]["counts"]["images"] == 2
    assert sorted(path.name for path in out.iterdir()) == ["errors.json", "report.html"]
