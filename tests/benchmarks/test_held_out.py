"""The people whom training never sees: the committed list, and the splits made of it."""

import json
import os

import pytest

from benchmarks import held_out
from jetson.evaluation import average_precision
from pipeline.training import dataset

DATA = os.environ.get("JETMASK_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="JETMASK_DATA names no photographs")


@pytest.fixture(scope="module")
def committed():
    return json.loads(dataset.HELD_OUT.read_text(encoding="utf-8"))


def test_all_that_is_judged_on_is_not_trained_on(committed):
    for split in ("large", "incorrect"):
        for folder, names in committed[split].items():
            assert names and set(names) <= set(committed["not_trained_on"][folder])
    assert all(names == sorted(set(names)) for part in committed.values() for names in part.values())


@pytest.mark.parametrize(
    "count, most, kept", [(3, 5, [0, 1, 2]), (10, 2, [0, 5]), (5, 5, [0, 1, 2, 3, 4]), (7, 3, [0, 2, 4])]
)
def test_what_is_shown_of_one_person_is_spread_over_the_video(count, most, kept):
    names = [str(i) for i in range(count)]
    assert held_out.spread(names, most) == [str(i) for i in kept]


@pytest.mark.parametrize("name, at", [("cd7_n_3205.jpg", 3205), ("cd7_m_3205.jpg", -1), ("cd7_n_x.jpg", -1)])
def test_the_number_of_a_file(name, at):
    assert held_out.number(name, "cd7_n_") == at


@pytest.mark.slow
@needs_data
def test_the_list_is_what_the_command_makes_of_the_photographs(committed, tmp_path):
    from pathlib import Path

    assert held_out.lists(Path(DATA)) == committed
    written = held_out.write_split(Path(DATA), tmp_path / "incorrect", committed["incorrect"])
    truths = average_precision.load_split(str(tmp_path / "incorrect"))
    assert len(truths) == written == sum(map(len, committed["incorrect"].values()))
    assert sum((t.labels == 2).sum() for t in truths) >= 60
    assert all(average_precision.read_image(t).shape[:2] == t.wh[::-1] for t in truths[:5])
