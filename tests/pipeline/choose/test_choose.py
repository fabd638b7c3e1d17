"""The choice against a brute-force reading of its table; what is said when nothing fits; the verb's exit codes."""

import argparse
import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from jetson.errors import BadInput, DeviceMismatch, QualityGate, UsageError
from pipeline.choose import candidates
from pipeline.choose import cli as choose
from pipeline.choose.choice import Candidate, Limits
from pipeline.latency import cli as predict

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(1, 4)), max_size=9)
LIMIT = st.one_of(st.none(), st.integers(1, 6))


def written(folder, rows):
    path = Path(folder) / "table.csv"
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["name", "map50", "ms", "bytes"])
        writer.writerows([f"v{i}", ap, ms, size] for i, (ap, ms, size) in enumerate(rows))
    return str(path)


@settings(deadline=None)
@given(rows=ROWS.filter(bool), max_ms=LIMIT, max_bytes=LIMIT, min_ap=LIMIT)
def test_the_choice_is_the_brute_force_one(tmp_path_factory, rows, max_ms, max_bytes, min_ap):
    path = written(tmp_path_factory.mktemp("choose"), rows)
    choice = choose.choose(candidates.from_csv(path), Limits(max_ms, max_bytes, min_ap))
    with open(path) as handle:  # a second reading, with nothing of the module's
        lines = [line.split(",") for line in handle.read().splitlines()[1:]]
    best = None
    for name, ap, ms, size in lines:
        fits = (
            (max_ms is None or float(ms) <= max_ms)
            and (max_bytes is None or int(size) <= max_bytes)
            and (min_ap is None or float(ap) >= min_ap)
        )
        key = (float(ap), -float(ms), -int(size))
        if fits and (best is None or key > best[0]):
            best = (key, name)
    assert (choice.best and choice.best.name) == (best and best[1])


@settings(deadline=None)
@given(rows=ROWS.filter(bool), max_ms=LIMIT, max_bytes=LIMIT, min_ap=LIMIT)
def test_what_is_advised_would_do(rows, max_ms, max_bytes, min_ap):
    candidates = [Candidate(f"v{i}", float(ap), float(ms), size) for i, (ap, ms, size) in enumerate(rows)]
    limits = Limits(max_ms, max_bytes, min_ap)
    choice = choose.choose(candidates, limits)
    for name, other in choice.loosened.items():
        value = {"max_ms": other.ms, "max_bytes": other.bytes, "min_ap": other.map50}[name]
        looser = limits._replace(**{name: value})
        assert choose.choose(candidates, looser).best is not None
        step = -1 if name != "min_ap" else 1
        assert choose.choose(candidates, limits._replace(**{name: value + step})).best is None
    if choice.best is None:
        needed = [
            name
            for name in Limits._fields
            if getattr(limits, name) is not None
            and choose.choose(candidates, limits._replace(**{name: None})).best is not None
        ]
        assert set(choice.loosened) == set(needed)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    choose.options(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def test_the_answer_names_reason_and_runner_up(tmp_path, capsys):
    path = written(tmp_path, [(70, 10, 5), (75, 20, 5), (80, 40, 5)])
    choose.command(parse("--table", path, "--fps", "30"))
    out = capsys.readouterr().out
    assert "v1: mAP50 75.0" in out and "runner-up: v0" in out and "2 within the limits" in out
    choose.command(parse("--table", path, "--fps", "30", "--json"))
    answer = json.loads(capsys.readouterr().out)
    assert answer["best"]["name"] == "v1" and answer["runner_up"]["name"] == "v0"


def test_nothing_meets_it_says_what_would(tmp_path):
    path = written(tmp_path, [(70, 10, 500), (75, 20, 5)])
    with refused(QualityGate, where="table.csv", names=["--fps 50", "--max-ms 20", "v1", "--max-bytes 500", "v0"]):
        choose.command(parse("--table", path, "--fps", "60", "--max-bytes", "100"))
    with refused(QualityGate, where="table.csv", names=["5 ms", "90"]):
        choose.command(parse("--table", path, "--fps", "200", "--min-ap", "90"))


@pytest.mark.parametrize(
    ("text", "where", "names"),
    [
        ("", "bad.csv", ()),
        ("name,map50,ms\na,1,2\n", "bad.csv", "bytes"),
        ("name,map50,ms,bytes\na,x,2,3\n", "bad.csv, line 2", "77.3"),
        ("name,map50,ms,bytes\na,1,inf,3\n", "bad.csv, line 2", "77.3"),
        ("name,map50,ms,bytes\na,1,2,1e400\n", "bad.csv, line 2", "77.3"),
        ("name,map50,ms,bytes\na,1,-2,3\n", "bad.csv, line 2", "77.3"),
        ("name,map50,ms,bytes,high_ms\na,1,2,3,nan\n", "bad.csv, line 2", "77.3"),
        ("name;map50;ms;bytes\na;1;2;3\n", "bad.csv", "commas"),
        ('name,map50,ms,bytes\n"' + "a" * 200000, "bad.csv", ()),
    ],
)
def test_tables_that_are_none(tmp_path, text, where, names):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with refused(BadInput, where, names):
        candidates.from_csv(str(path))
    with refused(BadInput, where="none.csv"):
        candidates.from_csv(str(tmp_path / "none.csv"))


def test_a_table_that_a_spreadsheet_saved(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfname,map50,ms,bytes\r\na,70,5,9\r\n")
    assert [c.name for c in candidates.from_csv(str(path))] == ["a"]


def test_a_table_without_the_target_says_so(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("name,map50,ms,bytes,target\na,70,5,9,nano\n")
    with refused(BadInput, where="table.csv", names=["tx2", "--target"]):
        choose.command(parse("--table", path, "--target", "tx2"))


@pytest.mark.parametrize("ms", [12345.62, 1e6])
def test_a_very_slow_candidate_is_advised_with_a_limit_that_it_keeps(tmp_path, ms):
    path = written(tmp_path, [(70, ms, 5)])
    with refused(QualityGate, where="table.csv", names="--max-ms ") as caught:
        choose.command(parse("--table", path, "--fps", "30"))
    advised = re.search("--max-ms ([0-9.]+)", str(caught.value))[1]
    choose.command(parse("--table", path, "--max-ms", advised))
    assert "--fps 0 " not in str(caught.value)


def test_rows_of_other_targets_are_left_out(tmp_path):
    path = tmp_path / "report.csv"
    path.write_text("name,map50,p50_ms,bytes,target,high_ms\na,70,5,9,,\nb,71,6,9,nano,7.5\nc,72,,9,nano,\n")
    assert [c.name for c in candidates.from_csv(str(path), "nano")] == ["b"]
    assert [c.name for c in candidates.from_csv(str(path), "this-machine")] == ["a"]
    choose.command(parse("--table", path, "--max-ms", "7"))
    with pytest.raises(QualityGate):
        choose.command(parse("--table", path, "--max-ms", "7", "--sure"))


def test_what_was_measured_takes_the_place_of_its_prediction(tmp_path, capsys):
    """The table of a report that has both: a device's bench often brings a time without an AP."""
    path = tmp_path / "report.csv"
    path.write_text(
        "name,map50,p50_ms,bytes,measured,target,high_ms\n"
        "a,80,20,9,predicted,nano,25\nb,70,10,8,predicted,nano,12\n"
        "a,,50,,a Jetson Nano,nano,\nc,75,5,,a Jetson Nano,nano,\n"
    )
    found = {c.name: (c.map50, c.ms, c.bytes, c.how) for c in candidates.from_csv(str(path), "nano")}
    assert found == {
        "a": (80, 50, 9, "a Jetson Nano"),
        "b": (70, 10, 8, "predicted"),
        "c": (75, 5, None, "a Jetson Nano"),
    }
    choose.command(parse("--table", path, "--max-ms", "30"))
    assert "c: mAP50 75.0, 5.0 ms, size unknown" in capsys.readouterr().out
    choose.command(parse("--table", path, "--max-ms", "30", "--max-bytes", "100"))  # c may be any size
    assert "b: mAP50 70.0" in capsys.readouterr().out
    with pytest.raises(QualityGate) as caught:
        choose.command(parse("--table", path, "--min-ap", "75", "--max-ms", "30", "--max-bytes", "5"))
    assert "--max-bytes" not in str(caught.value)  # no number would let c in


@pytest.mark.parametrize(
    "arguments", [("--fps", "0"), ("--fps", "nan"), ("--max-ms", "-3"), ("--max-bytes", "0"), ("--min-ap", "101")]
)
def test_impossible_limits(arguments):
    with refused(UsageError, where=arguments[0], names=arguments[1]):
        choose.command(parse(*arguments))


def test_targets_without_published_rows_are_not_used_unless_asked():
    with refused(DeviceMismatch, where="--target", names=["--accept-unknown-error", "nano", "this-machine"]):
        choose.command(parse("--target", "orin-nano", "--fps", "30"))


def test_the_slow_end_is_asked_for_only_where_there_is_one():
    with refused(UsageError, where="--sure", names=["nano", "this-machine"]):
        choose.command(parse("--target", "orin-nano", "--fps", "30", "--accept-unknown-error", "--sure"))


def test_a_bundle_without_ap_is_told_what_measures_it():
    bundle = Path(__file__).parents[2] / "data" / "tiny_bundle"
    with refused(QualityGate, where="tiny_bundle", names=["jetmask bundle create", "--data"]) as caught:
        choose.command(parse("--bundle", bundle, "--fps", "1"))
    assert "jetmask evaluate" not in str(caught.value)


@pytest.mark.parametrize("target", ["nano", "this-machine", "xavier-nx"])
def test_names_are_those_of_the_bundle(target, tmp_path, monkeypatch):
    """What is chosen can be handed to --variant, and its time is that of its own file and precision."""
    monkeypatch.setattr(
        predict,
        "predict_graph",
        lambda graph, target, precision: SimpleNamespace(
            latency_ms=len(asked.append(precision) or asked), high_ms=None
        ),
    )
    asked = []
    bundle = tmp_path / "bundle"
    shutil.copytree(Path(__file__).parents[2] / "data" / "tiny_bundle", bundle)
    document = json.loads((bundle / "manifest.json").read_text())
    for variant in document["variants"]:
        variant["ap"] = {runtime: {"map50": 61.0} for runtime in variant["runtimes"]}
    (bundle / "manifest.json").write_text(json.dumps(document))
    found = candidates.from_bundle(str(bundle), target)
    variants = {variant["name"]: variant for variant in document["variants"]}
    runtime = "onnxruntime" if target == "this-machine" else "tensorrt"
    assert found and all(runtime in variants[candidate.name]["runtimes"] for candidate in found)
    assert asked == [variants[candidate.name]["precision"].removesuffix("-cpu") for candidate in found]


def test_a_bundle_is_predicted_for_the_target(tmp_path, capsys):
    bundle = tmp_path / "bundle"
    shutil.copytree(Path(__file__).parents[2] / "data" / "tiny_bundle", bundle)
    document = json.loads((bundle / "manifest.json").read_text())
    for variant in document["variants"]:
        if variant["precision"] == "fp32" and "onnxruntime" in variant["ap"]:
            variant["ap"]["onnxruntime"] = {"map50": 61.0, "split": "val", "images": 9, "per_class": {}}
    (bundle / "manifest.json").write_text(json.dumps(document))
    found = candidates.from_bundle(str(bundle), "nano")
    assert any(candidate.name.endswith("-fp16") for candidate in found)
    for candidate in found:
        assert candidate.map50 == 61.0 and candidate.high_ms > candidate.ms > 0
        assert "time predicted, AP measured on onnxruntime as fp32" in candidate.how
        assert "int8" not in candidate.name  # a Nano has none
    choose.command(parse("--bundle", bundle, "--fps", "10"))
    assert "time predicted" in capsys.readouterr().out
