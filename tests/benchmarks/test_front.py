"""The front: its committed table is of the committed AP, and what is marked as front is not beaten by anything."""

import csv
import os
from pathlib import Path

import pytest

from benchmarks import front
from benchmarks.readme_table import RESULTS, ROOT, read
from pipeline.graphs import shapes
from pipeline.latency.cli import predict_graph

PEERS = os.environ.get("JETMASK_PEERS")


@pytest.fixture(scope="module")
def rows():
    with open(RESULTS / "front.csv", newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_the_table_is_what_the_committed_figures_and_files_make(rows):
    """Except for the peer, whose file is not here: its line is taken over."""
    assert [dict(row) for row in front.rows_of(str(ROOT / "jetson" / "models"), None)] == rows
    tested = {
        (r["model"], r["input_wh"]) for r in read("detector") if r["split"] == "test" and r["precision"] == "fp32"
    }
    assert {(r["system"], r["input_wh"]) for r in rows if r["system"] != "AIZOO"} == tested


def test_nothing_on_the_front_is_beaten_and_all_else_is(rows):
    def beaten(row):
        return any(
            float(r["predicted_ms"]) <= float(row["predicted_ms"]) and float(r["map50"]) >= float(row["map50"])
            for r in rows
            if r is not row
        )

    assert {beaten(r) for r in rows if r["on_front"] == "yes"} == {False}
    assert {beaten(r) for r in rows if r["on_front"] == "no"} == {True}


def test_the_picture_says_what_was_not_measured_and_is_the_same_again(rows, tmp_path):
    front.draw(rows, tmp_path)
    text = (tmp_path / "front.svg").read_text(encoding="utf-8")
    assert "predicted" in text and "not measured" in text and "AIZOO" in text
    assert text == (RESULTS / "front.svg").read_text(encoding="utf-8")
    first = (tmp_path / "front.png").read_bytes()
    front.draw(rows, tmp_path)
    assert (tmp_path / "front.png").read_bytes() == first


@pytest.mark.skipif(not PEERS, reason="JETMASK_PEERS names no folder with the peer's model")
def test_the_peer_s_graph_has_the_arithmetic_that_its_authors_state(rows):
    graph = shapes.from_model(front.peer_graph(str(Path(PEERS) / front.AIZOO)))
    found = predict_graph(graph, "nano", "fp16")
    assert 0.5 < found.macs / 759e6 < 1.2
    (line,) = [r for r in rows if r["system"] == "AIZOO"]
    assert float(line["predicted_ms"]) == pytest.approx(found.latency_ms, abs=0.01)
