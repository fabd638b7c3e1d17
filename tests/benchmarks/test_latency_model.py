"""The shipped parameters are what the fit gives, and the committed errors are what they give."""

import pytest

from benchmarks import latency_model
from pipeline.latency import fit, roofline


@pytest.fixture(scope="module")
def rows():
    return latency_model.published()


@pytest.fixture(scope="module")
def lines(rows):
    return latency_model.evaluate(rows)


def test_a_refit_gives_the_shipped_parameters(rows):
    engine = [(row["layers"], row["rates"], row["ms"]) for row in rows if row["kind"] == "engine"]
    assert len(engine) == 14
    again = fit.fit(engine)
    assert tuple(again) == pytest.approx(tuple(roofline.FITTED), rel=1e-3)
    assert len(again) <= 8


def test_the_committed_table_is_what_the_fit_gives(lines):
    assert latency_model.RESULT.read_text() == latency_model.text(lines)


def test_held_out_errors(lines):
    engine = [line for line in lines if line["kind"] == "engine"]
    assert latency_model.mean_error(engine, "leave_one_out_error_pct") <= 12
    assert latency_model.mean_error(engine, "leave_network_out_error_pct") <= 12
    assert latency_model.mean_error(engine, "leave_source_out_error_pct") <= 20
    assert latency_model.held_out_spread(lines) == pytest.approx(roofline.SPREAD, abs=0.01)


def test_end_to_end_rows_are_not_in_the_fit(rows, lines):
    whole = [line for line in lines if line["kind"] == "end to end"]
    assert len(whole) == 4
    assert all(line["outside_engine_ms"] and not line["leave_one_out_ms"] for line in whole)


def test_parameters_stay_physical():
    p = roofline.FITTED
    assert 0 < p.convolution <= 1 and 1 <= p.winograd <= 2.25 and 0 < p.depthwise <= 1
    assert 0 < p.bandwidth <= 1 and 0 < p.weight_bandwidth <= 1
    assert 1 <= p.launch_us <= 100 and p.call_ms >= 0
