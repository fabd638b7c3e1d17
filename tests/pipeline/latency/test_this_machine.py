"""The calibration: its fit on times made by known parameters, its memory, and one short real run."""

import json

import pytest

from pipeline.graphs import shapes
from pipeline.graphs.writer import GraphWriter
from pipeline.latency import cli as predict
from pipeline.latency import fit, this_machine
from pipeline.latency.roofline import Parameters, total_ms

TRUTH = Parameters(
    convolution=0.7,
    winograd=1.0,
    depth=16,
    depthwise=0.3,
    bandwidth=2.0,
    weight_bandwidth=0.7,
    launch_us=2.0,
    call_ms=0.02,
)


@pytest.fixture(scope="module")
def models():
    return this_machine.samples()


def test_fit_finds_the_parameters_that_made_the_times(models):
    rows = [(this_machine.described(model), this_machine.NOMINAL) for model in models.values()]
    made = [(described, rates, total_ms(described, rates, TRUTH)) for described, rates in rows]
    found = fit.fit(made, prior=this_machine.PRIOR, width=this_machine.WIDTH, noise=0.01)
    for described, rates, ms in made:
        assert total_ms(described, rates, found) == pytest.approx(ms, rel=0.02)


def test_one_real_run_is_remembered_and_predicts(models, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    g = GraphWriter("unseen", 3, 160, 160, weights="random")
    model = g.model(g.conv(g.conv(g.conv("image", 24, stride=2), 40), 40))
    few = {name: models[name] for name in ("plain", "separable", "residual-small", "pyramid")}
    monkeypatch.setattr(this_machine, "samples", lambda: few)
    result = this_machine.calibrate("fp32", rounds=1)
    monkeypatch.setattr(this_machine, "calibrate", None)  # from here on it must be remembered
    prediction = predict.predict_graph(shapes.from_model(model), "this-machine", "fp32")
    measured = this_machine.measure({"unseen": model}, rounds=1)["unseen"]
    assert measured / 5 < prediction.latency_ms < measured * 5  # a busy machine, one round: only the order of magnitude
    assert prediction.low_ms <= prediction.latency_ms <= prediction.high_ms
    assert set(result["measured_ms"]) == set(few)


def test_a_broken_or_foreign_memory_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def calibrate(precision, rounds=7):
        calls.append(precision)
        return {"parameters": TRUTH._asdict(), "spread": 1.1, "measured_ms": {"a": 1.0}}

    monkeypatch.setattr(this_machine, "calibrate", calibrate)
    folder = tmp_path / "jetmask"
    folder.mkdir()
    here = json.dumps(this_machine.machine())
    older = f'{{"machine": {here}, "spread": 1.1, "measured_ms": {{}}, "parameters": {{"former": 1.0}}}}'
    contents = ("not json", "[]", '{"machine": {"cpu": "another"}}', f'{{"machine": {here}}}', older)
    for content in contents:
        (folder / "this-machine-fp32.json").write_text(content)
        assert this_machine.calibrated("fp32")[1] == TRUTH
    assert calls == ["fp32"] * len(contents)
