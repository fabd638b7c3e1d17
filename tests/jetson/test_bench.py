"""`python3 -m jetson bench` from outside."""

import json
import os
import subprocess
import sys

import machine
from serving import ROOT

VARIANT = "t-320x192-fp32"


def run(*words):
    done = subprocess.run(
        [sys.executable, "-m", "jetson", "bench"] + [str(word) for word in words],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_golden_images_as_json(tiny_bundle, tmp_path):
    code, out, errors = run(tiny_bundle, "--seconds", "0.2", "--json", "--out", tmp_path / "out.json")
    result = json.loads(out)
    assert code == 0 and result == json.loads((tmp_path / "out.json").read_text()), errors
    rows = {(row["variant"], row["runtime"]): row for row in result["rows"]}
    here = rows[(VARIANT, "onnxruntime")]
    assert 0 < here["latency_ms"]["p50"] <= here["latency_ms"]["p95"] <= here["latency_ms"]["p99"]
    assert here["skipped"] is None and here["agreement"]["frames"] == result["frames"]
    assert sum(row["reference"] for row in result["rows"]) == 1
    assert "power_mode" in result["board"] and "golden" in result["measured_on"]
    for row in result["rows"]:
        assert row["skipped"] or row["latency_ms"], "a row without figures says why"


def test_a_clip_end_to_end(tiny_bundle, clip):
    code, out, errors = run(
        tiny_bundle, "--source", clip, "--seconds", "0.5", "--variant", VARIANT, "--runtime", "onnxruntime", "--json"
    )
    assert code == 0, errors
    (row,) = json.loads(out)["rows"]
    assert row["end_to_end"]["fps"] > 0 and row["end_to_end"]["latency_ms"]["p50"] > 0
    assert row["end_to_end"]["ratio"] == round(row["end_to_end"]["fps"] / row["end_to_end"]["bare_fps"], 3)


def test_a_nano_measures_what_it_has_and_says_what_it_refuses(tiny_bundle, tmp_path):
    library, site = machine.pycuda()
    nano = machine.Machine(library, str(tmp_path / "engines"), site=site)
    status, out, errors = nano.run(
        "-m",
        "jetson",
        "bench",
        tiny_bundle,
        "--seconds",
        "0.1",
        "--runtime",
        "tensorrt",
        "--variant",
        VARIANT,
        "--variant",
        "t-320x192-int8",
        "--json",
    )
    assert status == 0, errors
    refused, measured = sorted(json.loads(out)["rows"], key=lambda row: row["skipped"] is None)
    assert measured["variant"] == VARIANT and measured["latency_ms"]["p50"] > 0
    assert "no INT8 hardware" in refused["skipped"] and refused["latency_ms"] is None


def test_table_and_mistakes(tiny_bundle, tmp_path):
    code, out, _ = run(tiny_bundle, "--seconds", "0.1", "--variant", VARIANT, "--runtime", "onnxruntime")
    assert code == 0 and VARIANT in out and "p99 ms" in out
    for words, expected, told in (
        (["--variant", "x"], 2, "did you mean"),
        (["--runtime", "x"], 2, "runtime"),
        (["--source", "/nowhere"], 3, "does not exist"),
        (["--seconds", "0"], 2, "seconds"),
        (["--data", tmp_path], 3, "annotations.json"),
    ):
        code, _, errors = run(tiny_bundle, *words)
        assert code == expected and told in errors and "Traceback" not in errors, errors
