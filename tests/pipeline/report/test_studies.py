"""The report's study sections: figures with their text, tables, and nothing where there is nothing."""

import csv
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmarks import readme_table
from benchmarks import report as gathering
from pipeline.report import cli as report
from pipeline.report import studies


def written(folder, data):
    return Path(report.write(folder, data)).read_text(encoding="utf-8")


def test_prunings_are_drawn_and_listed(tmp_path):
    rows = [
        {
            "name": name,
            "method": name,
            "macs_share": share,
            "before": before,
            "map50": after,
            "time_ratio": share,
            "images": 1600,
        }
        for name, share, before, after in (
            ("taylor", 1.0, 77.0, 77.0),
            ("taylor", 0.5, 34.7, 50.7),
            ("l1", 1.0, 77.0, 77.0),
            ("l1", 0.5, 9.5, 35.5),
        )
    ]
    text = written(tmp_path, {"prunings": rows})
    assert '<section id="pruning"' in text and text.count('role="img"') == 1
    assert "taylor, fine-tuned: 77.0 at 100 %, 50.7 at 50 %" in text and "l1, not fine-tuned" in text
    assert text.count("<td>1,600</td>") == 4


def test_a_scan_names_the_group_that_bears_least_first(tmp_path):
    found = {
        "baseline": 70.0,
        "groups": {"stem": {"0.25": 68.0, "0.5": 40.0, "0.75": 1.0}, "neck": {"0.25": 70.0, "0.5": 69.5}},
    }
    text = written(tmp_path, {"scan": found})
    assert "50 % of one group&#x27;s channels are dropped: stem 30.0, neck 0.5" in text
    assert "<td>–</td>" in text, "what was not asked has no figure"


def test_predictions_stand_against_measurements(tmp_path):
    rows = [
        {"network": "a", "device": "one", "precision": "fp16", "measured_ms": 10.0, "predicted_ms": 11.0},
        {"network": "b", "device": "one", "precision": "fp16", "measured_ms": 20.0, "predicted_ms": 19.0},
        {"network": "c", "device": "one", "precision": "fp16", "measured_ms": None, "predicted_ms": 19.0},
    ]
    text = written(tmp_path, {"agreement": rows})
    assert "one: 7.5 % over 2" in text and "<td>+10.0</td>" in text and "All 2 networks" in text


def test_the_machine_is_named_and_empty_columns_left_out(tmp_path):
    row = {"name": "a", "map50": 70.0, "latency_ms": {"total_ms": {"p50": 5.0}}, "bytes": 1000}
    text = written(tmp_path, {"variants": [row], "machine": "a Nano"})
    assert "Measured on a Nano" in text and ">p95<" not in text and ">size<" in text


def test_sensitivity_in_decibels_the_worst_first(tmp_path):
    text = written(tmp_path, {"sensitivity": [{"layer": "a", "snr_db": 30.0}, {"layer": "b", "snr_db": 12.0}]})
    assert "b 12.0 dB, a 30.0 dB" in text


@pytest.mark.parametrize(
    "data",
    [{"prunings": [{}]}, {"scan": {}}, {"scan": {"baseline": 1.0, "groups": {}}}, {"agreement": [{"network": "a"}]}],
)
def test_what_is_empty_has_no_section(tmp_path, data):
    assert "<main></main>" in written(tmp_path, data)


def test_names_of_the_front_do_not_lie_on_one_another(tmp_path):
    rows = [
        {"name": f"variant-{i}", "map50": 70 + 0.1 * i, "latency_ms": 5 + 0.01 * i, "bytes": 1000 + i}
        for i in range(12)
    ]
    rows.append({"name": "far", "map50": 1.0, "latency_ms": 1.0, "bytes": 1000})  # so that those twelve lie together
    text = written(tmp_path, {"variants": rows})
    figure = text[text.index("<svg") : text.index("</svg>")]
    assert 0 < len(re.findall(r">variant-\d+<", figure)) < 12, "twelve names do not fit there"


def test_the_page_of_all_measurements_has_what_the_csv_files_have(tmp_path, tiny_bundle, monkeypatch):
    from benchmarks.ablation import FIELDS

    real = readme_table.read

    def read(name):
        if name != "detector_ablation":
            return real(name)
        row = dict.fromkeys(FIELDS, "1") | {
            "choice": "baseline",
            "value": "b",
            "map50_320": "50",
            "map50_416": "55",
            "difference": "0",
        }
        return [
            row,
            row | {"choice": "optimizer", "value": "sgd", "difference": "-3.0"},
            row | {"choice": "mosaic", "value": "off", "difference": "1.5"},
        ]

    monkeypatch.setattr(gathering, "read", read)
    data = gathering.gathered(tiny_bundle)
    text = written(tmp_path, data)
    for section in ("variants", "pruning", "agreement", "layers", "ablations", "environment"):
        assert f'<section id="{section}"' in text, section
    assert "mosaic off" in text and "<h3>Optimizers</h3>" in text and "-3.0" in text
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert {row["measured"] for row in rows} == {"measured", "predicted"}


def test_a_long_front_is_drawn_in_one_pass(monkeypatch):
    """Names are placed without drawing the whole figure for each: a hundred took half a minute."""
    draws = []
    plain = Figure.draw_without_rendering
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda self: draws.append(1) or plain(self))
    trials = [{"number": i, "map50": 50 + i, "latency_ms": 5.0 + i} for i in range(40)]
    html = studies.sweep({"sweep": {"target": "nano", "trials": trials}}, "mAP50")
    assert "#39" in html and len(draws) <= 2
