"""How many frames a whole runner serves."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetson.errors import UsageError
from pipeline.latency import end_to_end
from pipeline.latency.roofline import Prediction

ROOT = Path(__file__).resolve().parents[3]


def engine(ms, low=None, high=None, target="nano"):
    return Prediction(ms, low, high, [], target, "fp16", (640, 384), 1, 1, "", ())


def test_the_slower_of_engine_and_cpu_sets_the_rate():
    quick = end_to_end.end_to_end(engine(8.0, 6.0, 11.0), 3.0)
    assert quick.limit == "CPU" and quick.fps == pytest.approx(1e3 / (3.0 * 48**0.5))
    slow = end_to_end.end_to_end(engine(50.0, 40.0, 70.0), 3.0)
    assert (slow.limit, slow.fps, slow.low_fps, slow.high_fps) == ("engine", 20.0, pytest.approx(1e3 / 70), 25.0)
    assert slow.cameras == {30: 0, 15: 0, 10: 1, 5: 2}  # of 14 frames/s, the low end
    assert "predicted" in end_to_end.text(slow, "nano") and slow.as_json()["kind"] == "predicted"


@given(st.floats(0.5, 500), st.floats(1.0, 3.0), st.floats(0.1, 50))
def test_the_interval_holds_the_figure(ms, spread, beside):
    found = end_to_end.end_to_end(engine(ms, ms / spread, ms * spread), beside)
    assert found.low_fps <= found.fps * (1 + 1e-9) and found.fps <= found.high_fps * (1 + 1e-9)


def test_an_error_that_is_not_known_is_none():
    found = end_to_end.end_to_end(engine(50.0))
    assert found.low_fps is None and found.cameras == {30: 0, 15: 1, 10: 2, 5: 4}


def test_other_devices_are_refused():
    with pytest.raises(UsageError):
        end_to_end.end_to_end(engine(8.0, target="orin-nano"))


def test_the_figure_is_the_measured_one():
    with open(ROOT / "benchmarks" / "results" / "frame_cost.csv") as file:
        rows = [r for r in csv.DictReader(file) if r["python"].startswith("3.6") and r["stage"].startswith("whole")]
    assert pytest.approx(float(rows[-1]["new_us"]) / 1e3, abs=0.01) == end_to_end.BESIDE_MS


def test_the_docs_say_what_the_prediction_says():
    found = end_to_end.end_to_end(engine(8.018, 6.519, 9.862))  # s at 640x384, the slowest of the shipped ones
    text = " ".join((ROOT / "docs" / "sources.md").read_text(encoding="utf-8").split())
    counts = found.cameras
    assert (
        f"about {found.fps:.0f} frames/s of all cameras together ({found.low_fps:.0f} to {found.high_fps:.0f})" in text
    )
    assert f"{counts[30]} camera at 30 frames/s, {counts[15]} at 15, {counts[10]} at 10 or {counts[5]} at 5" in text
    assert f"{end_to_end.BESIDE_MS} ms a frame" in text and found.limit == "CPU"
