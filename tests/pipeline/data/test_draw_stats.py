"""`data draw` and `data stats`: a drawn set is a clean split, and the statistics are those of a plain count."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from jetson import cli
from jetson.errors import UsageError
from jetson.evaluation.average_precision import load_split
from pipeline.cli import VERBS
from pipeline.data import check, draw, layout, stats
from pipeline.data.classes import CLASSES


def run(*words):
    return cli.main(["data", *map(str, words)], "jetmask", VERBS)


@pytest.fixture(scope="module")
def drawn_set(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "train"
    assert run("draw", out, "--images", 12, "--seed", 3, "--size", "200x160") == 0
    return out


def test_a_drawn_set_is_a_clean_split_that_says_what_it_is(drawn_set, capsys):
    assert run("check", drawn_set, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["errors"] == found["notes"] == 0 and found["images"] == 12 and sum(found["boxes"].values()) > 10
    truths = load_split(str(drawn_set))
    assert len(truths) == 12 and {t.source for t in truths} == {"drawn"}
    for truth in truths:
        assert cv2.imread(truth.file).shape == (160, 200, 3)
    assert "drawings" in json.loads((drawn_set / "annotations.json").read_text())["info"]["description"]


def test_the_same_seed_draws_the_same_set_and_another_another(drawn_set, tmp_path):
    draw.write(tmp_path, 3, seed=3, wh=(200, 160))
    other = tmp_path / "other"
    other.mkdir()
    draw.write(other, 3, seed=4, wh=(200, 160))
    first = [sorted((folder / "images").glob("*00001.jpg"))[0].read_bytes() for folder in (drawn_set, tmp_path, other)]
    assert first[0] == first[1] != first[2]


@pytest.mark.parametrize("words", [["--size", "big"], ["--size", "8x8"], ["--images", "0"], ["--faces", "-1"]])
def test_draw_refuses_what_makes_no_sense_and_leaves_nothing(words, tmp_path, capsys):
    assert run("draw", tmp_path / "out", *words) == UsageError.exit_code
    assert "expected" in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_draw_does_not_write_over_a_folder(drawn_set, capsys):
    before = (drawn_set / "annotations.json").read_bytes()
    assert run("draw", drawn_set, "--images", 1) == UsageError.exit_code
    assert "already exists" in capsys.readouterr().err and (drawn_set / "annotations.json").read_bytes() == before


def test_kill_while_drawing_leaves_no_set_and_the_next_run_clears_up(tmp_path):
    words = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "data",
        "draw",
        str(tmp_path / "out"),
        "--size",
        "64x64",
        "--faces",
        "0",
    ]
    process = subprocess.Popen([*words, "--images", "100000"], stderr=subprocess.PIPE, text=True)
    assert "drew 100/100000" in process.stderr.readline()
    process.kill()
    process.communicate(timeout=30)
    assert not (tmp_path / "out").exists() and len(list(tmp_path.iterdir())) == 1
    assert run(*words[4:], "--images", 2) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_numbers_are_those_of_a_plain_count(drawn_set):
    entries, _, _ = layout.load(drawn_set)
    found = stats.counts(entries)
    document = json.loads((drawn_set / "annotations.json").read_text())
    for number, name in enumerate(CLASSES, 1):
        boxes = [a for a in document["annotations"] if a["category_id"] == number]
        areas = [a["bbox"][2] * a["bbox"][3] for a in boxes]
        one = found["classes"][name]
        assert one["boxes"] == len(boxes) and one["images"] == len({a["image_id"] for a in boxes})
        assert one["small"] == sum(a < 1024 for a in areas) and one["large"] == sum(a >= 9216 for a in areas)
        assert one["small"] + one["medium"] + one["large"] == len(boxes)
        assert (one["height_px"] is None) == (not boxes)
        if boxes:
            assert one["height_px"]["p50"] == round(float(np.median([a["bbox"][3] for a in boxes])), 1)
    assert found["images"] == 12 and found["sources"] == {"drawn": 12} and found["tags"] == {"drawn": 12}
    labelled = {a["image_id"] for a in document["annotations"]}
    assert found["images_without_boxes"] == 12 - len(labelled)


def test_the_table_and_the_plots_are_written(drawn_set, tmp_path, capsys):
    assert run("stats", drawn_set, "--plot", tmp_path / "s.png") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in CLASSES) and shown.count(str(drawn_set)) == 1
    picture = cv2.imread(str(tmp_path / "s.png"))
    assert picture.shape[0] > 500 and picture.std() > 10 and [p.name for p in tmp_path.iterdir()] == ["s.png"]


def test_an_empty_set_has_statistics_too(tmp_path):
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((9, 9, 3), np.uint8))
    entries = [check.Entry(image, "a.png", (9, 9))]
    assert stats.counts(entries)["classes"]["with_mask"]["boxes"] == 0
    stats.plot(entries, "one", tmp_path / "p.png")
    assert cv2.imread(str(tmp_path / "p.png")) is not None


def test_a_set_with_errors_is_refused_by_name(drawn_set, tmp_path, capsys):
    document = json.loads((drawn_set / "annotations.json").read_text())
    document["annotations"][0]["bbox"] = [5000, 0, 4, 4]
    (tmp_path / "images").symlink_to(drawn_set / "images")
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    assert run("stats", tmp_path) == 3
    shown = capsys.readouterr().err
    assert "box outside" in shown and "annotations.json:1" in shown and "data check" in shown
