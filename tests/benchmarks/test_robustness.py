"""Corruptions of photographs: the same in every run, as strong as their names say, with labels that still fit."""

import csv

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import robustness
from benchmarks.readme_table import RESULTS
from jetson.evaluation.average_precision import Truth

PICTURE = cv2.resize(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8), (160, 120))


def made(name, picture=PICTURE, seed=1):
    return robustness.CORRUPTIONS[name](picture, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "name", [n for n, change in robustness.CORRUPTIONS.items() if not isinstance(change, robustness.Turn)]
)
def test_a_corruption_keeps_the_picture_s_shape_and_is_the_same_again(name):
    before = PICTURE.copy()
    first = made(name)
    assert first.shape == PICTURE.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, made(name))
    np.testing.assert_array_equal(PICTURE, before)
    assert (name == "clean") == np.array_equal(first, PICTURE)


@pytest.mark.parametrize("name, share", [("half the light", 1 / 2), ("a third of the light", 1 / 3)])
def test_darkness_is_as_dark_as_it_says(name, share):
    assert made(name).mean() == pytest.approx(PICTURE.mean() * share, rel=0.02)


@pytest.mark.parametrize(
    "weak, strong",
    [
        ("blur, sigma 1 px", "blur, sigma 2 px"),
        ("JPEG, quality 20", "JPEG, quality 10"),
        ("noise, sigma 10", "noise, sigma 25"),
        ("half the resolution", "a third of the resolution"),
    ],
)
def test_the_stronger_of_two_changes_more(weak, strong):
    def far(name):
        return np.abs(made(name).astype(float) - PICTURE).mean()

    assert 0 < far(weak) < far(strong)


@given(
    angle=st.sampled_from([-20, 20, 7, 90]),
    x=st.integers(20, 60),
    y=st.integers(20, 60),
    w=st.integers(20, 60),
    h=st.integers(20, 60),
)
@settings(max_examples=40, deadline=None)
def test_a_turned_label_is_the_box_round_its_turned_ellipse(angle, x, y, w, h):
    """Drawn as a white ellipse, turned as a picture: the white pixels' own box is the label's."""
    turn = robustness.Turn(angle)
    image = np.zeros((140, 180, 3), np.uint8)
    centre, axes = (x + w / 2, y + h / 2), (w / 2, h / 2)
    cv2.ellipse(image, (round(centre[0] * 256), round(centre[1] * 256)), (round(axes[0] * 256), round(axes[1] * 256)),
                0, 0, 360, (255, 255, 255), -1, cv2.LINE_8, 8)  # fmt: skip
    box = np.array([[x, y, x + w, y + h]], float)
    turned = turn.image(image)
    ys, xs = np.nonzero(turned[..., 0] > 127)
    ((x0, y0, x1, y1),) = turn.boxes(box, (180, 140))
    np.testing.assert_allclose([x0, y0, x1, y1], [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=2.0)
    truth = Truth(1, "", (180, 140), box, np.array([0]), np.zeros((0, 4)), "")
    assert turn.truth(truth).wh == turned.shape[1::-1] and turn.truth(truth).ignore.shape == (0, 4)


def test_the_committed_table_has_every_model_beside_its_clean_figure():
    with open(RESULTS / "robustness.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    groups = {}
    for row in rows:
        groups.setdefault((row["model"], row["split"], row["input_wh"]), []).append(row)
    assert {"s", "sp", "n"} <= {model for model, _, _ in groups}
    for group in groups.values():
        assert [row["corruption"] for row in group] == list(robustness.CORRUPTIONS)
        clean = float(group[0]["map50"])
        assert all(float(row["difference"]) == pytest.approx(float(row["map50"]) - clean, abs=0.011) for row in group)
