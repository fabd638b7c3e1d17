"""The second figure of `jetmask evaluate --align`: one constant offset per collection is undone, and nothing else."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.evaluation.average_precision import Truth
from jetson.evaluation.average_precision import evaluate as plain
from jetson.inference.detector import Faces
from pipeline.evaluation import align
from tests.pipeline.evaluation.test_evaluate import run, split  # noqa: F401  the fixture


def collection(source, faces, seed, stretch=(0, 0, 0, 0)):
    """`faces` images of one face each and perfect detections of them, whose labels are `stretch`ed in shares of the
    found box's sides."""
    random = np.random.RandomState(seed)
    truths, found = [], []
    for number in range(faces):
        x, y, w, h = random.uniform((50, 50, 20, 20), (200, 200, 90, 90))
        box = np.array([[x, y, x + w, y + h]])
        label = number % 2
        scores = np.zeros((1, 3))
        scores[0, label] = random.uniform(0.5, 1)
        truths.append(
            Truth(
                number,
                "",
                (400, 400),
                box + np.array(stretch) * [w, h, w, h],
                np.array([label]),
                np.zeros((0, 4)),
                source,
            )
        )
        found.append(Faces(box, scores))
    return truths, found


@given(st.tuples(*[st.floats(-0.25, 0.25)] * 4))
@settings(max_examples=30, deadline=None)
def test_a_constant_offset_is_undone_whatever_it_is(stretch):
    truths, found = collection("one", 40, 1, stretch)
    result = align.evaluate(truths, found)
    assert result["map50"] == pytest.approx(100)
    got = [result["offsets"]["one"][edge] for edge in align.EDGES]
    np.testing.assert_allclose(got, stretch, atol=1e-3)


def test_each_collection_has_its_own_offset():
    high, low = collection("hairline", 30, 1, (0, -0.7, 0, 0.5)), collection("brow", 30, 2)
    truths, found = high[0] + low[0], high[1] + low[1]
    assert plain(truths, found)["map50"] < 95
    result = align.evaluate(truths, found)
    assert result["map50"] == pytest.approx(100)
    assert result["offsets"]["hairline"]["top"] == pytest.approx(-0.7, abs=1e-3)
    assert result["offsets"]["brow"]["top"] == 0


def test_what_is_not_one_offset_is_not_forgiven():
    """Boxes that miss to all sides by chance stay as bad: four numbers cannot bring them back."""
    random = np.random.RandomState(3)
    truths, found = collection("one", 60, 3)
    found = [Faces(f[0] + random.uniform(-40, 40, (1, 4)), f[1]) for f in found]
    before = plain(truths, found)["map50"]
    assert before < 80 and abs(align.evaluate(truths, found)["map50"] - before) < 12


def test_few_faces_are_not_fitted_to():
    truths, found = collection("few", align.FEWEST - 1, 4, (0, -0.9, 0, 0))
    result = align.evaluate(truths, found)
    assert result["map50"] == plain(truths, found)["map50"] and result["offsets"]["few"]["faces"] == align.FEWEST - 1
    assert "not moved" in align.summary(plain(truths, found), result)


def test_a_weak_or_second_box_says_nothing_about_the_convention():
    truths, found = collection("one", 40, 5)
    noisy = [
        Faces(np.concatenate([f[0], f[0] + [0, 20, 0, 20], f[0] + 15]), np.concatenate([f[1], f[1] * 0.2, f[1] * 0.99]))
        for f in found
    ]
    assert [align.offsets(truths, noisy)["one"].shares.tolist()] == [[0.0] * 4]


@pytest.mark.parametrize("found", [Faces(np.zeros((0, 4)), np.zeros((0, 3)))])
def test_images_without_faces(found):
    empty = Truth(1, "", (9, 9), np.zeros((0, 4)), np.zeros(0, int), np.zeros((0, 4)), "")
    result = align.evaluate([empty], [found])
    assert result["map50"] is None and result["offsets"][""]["faces"] == 0
    json.dumps(result, allow_nan=False)


def test_the_command_names_both_figures(split, tiny_bundle):  # noqa: F811
    done = run("--bundle", tiny_bundle, "--data", split, "--variant", "t-416x256-fp32", "--align", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["aligned"]["offsets"]) == {"s0", "s1"}
    assert result["aligned"]["map50"] == pytest.approx(result["map50"])  # too few faces: nothing is moved
    told = run("--bundle", tiny_bundle, "--data", split, "--align").stdout
    assert "mAP50, plain" in told and "mAP50, aligned" in told
