"""Logs of trtexec in the lines of its versions: what is read from them, what is refused, and where it is shown."""

import csv
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from benchmarks import ledger
from jetson import files
from jetson.errors import BadInput
from pipeline.bench import trtexec_import, trtexec_log

COMMAND = "/usr/src/tensorrt/bin/trtexec --onnx=/data/t.onnx --fp16 --shapes=image:1x3x192x320"
BANNERS = {"8.2.1": "8201", "8.4.1": "8401", "8.5.2": "8502", "8.6.2": "8602", "10.3.0": "100300"}


def times(p50, version):
    """A line's figures; up to 8.4 with one percentile."""
    shares = (99,) if version < "8.5" and version[:2] != "10" else (90, 95, 99)
    tail = ", ".join(f"percentile({share}%) = {p50 * (1 + share / 1000):g} ms" for share in shares)
    return f"min = {p50 * 0.9:g} ms, max = {p50 * 1.3:g} ms, mean = {p50 * 1.01:g} ms, median = {p50:g} ms, {tail}"


def profile(version):
    """The table of --dumpProfile: the name comes first up to 8.5, and last from 8.6 on."""
    rows = [
        ("Reformatting CopyNode for Input Tensor 0 to c1 + r1", 2.5, 0.025, 0.0247, 2.1),
        ("c1 + r1", 100.25, 1.0025, 0.9987, 97.9),
        ("Total", 102.75, 1.0275, 1.0234, 100.0),
    ]
    if version[:3] in ("8.6", "10."):
        header = "   Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer"
        lines = [f"{t:11.2f} {a:12.4f} {m:12.4f} {s:9.1f}   {name}" for name, t, a, m, s in rows]
    else:
        median = "   Median Time (ms)" if version >= "8.5" else ""
        header = f"{'Layer':>52}   Time (ms)   Avg. Time (ms){median}   Time %"
        lines = [
            f"{name:>52}{t:12.2f}{a:17.4f}" + (f"{m:19.4f}" if median else "") + f"{s:9.1f}"
            for name, t, a, m, s in rows
        ]
    return ["", "=== Profile (100 iterations ) ===", header, *lines, ""]


def log(
    version,
    command=COMMAND,
    p50=4.0,
    ended="PASSED",
    gpu="NVIDIA Tegra X1",
    capability="5.3",
    sms=1,
    shape="1x3x192x320",
    more=(),
    precision="FP32+FP16",
    summary=True,
):
    """What a run prints, abridged, in the lines of `version`; every figure is made up."""
    banner = f"TensorRT.trtexec [TensorRT v{BANNERS[version]}] # {command}"
    new = version[:2] == "10"
    binding = (
        f"Input binding for image with dimensions {shape} and type fp32 is created."
        if new
        else f"Created input binding for image with dimensions {shape}"
    )
    lines = [
        "=== Model Options ===",
        "Format: ONNX",
        "Model: /data/t.onnx",
        "Output:",
        "=== Build Options ===",
        f"Precision: {precision}",
        "Calibration: ",
        "Sparsity: Disabled",
        "=== Inference Options ===",
        "Batch: Explicit",
        "Iterations: 10",
        "Duration: 3s (+ 200ms warm up)",
        "Streams: 1",
        "Data transfers: Enabled",
        "Spin-wait: Disabled",
        "CUDA Graph: Disabled",
        "Inputs:",
        "=== Device Information ===",
        f"Selected Device: {gpu}",
        f"Compute Capability: {capability}",
        f"SMs: {sms}",
        "",
        f"TensorRT version: {version}",
        "[TRT] Loaded engine size: 3 MiB",
        binding,
        "Created output binding for cls_4 with dimensions 1x3x48x80",
        "Starting inference",
        "Timing trace has 731 queries over 3.01 s",
        "",
        "=== Trace details ===",
        "Average on 10 runs - GPU latency: 3.9 ms - Host latency: 4.1 ms (enqueue 0.9 ms)",
        *more,
    ]
    if summary:
        lines += [
            "",
            "=== Performance summary ===",
            f"Throughput: {1000 / (p50 + 0.2):g} qps",
            f"Latency: {times(p50 + 0.2, version)}",
        ]
        lines += [f"End-to-End Host Latency: {times(p50 + 0.3, version)}"] if version == "8.2.1" else []
        lines += [
            f"Enqueue Time: {times(1.0, version)}",
            f"H2D Latency: {times(0.15, version)}",
            f"GPU Compute Time: {times(p50, version)}",
            f"D2H Latency: {times(0.05, version)}",
            "Total Host Walltime: 3.01 s",
            "Total GPU Compute Time: 2.9 s",
            "Explanations of the performance metrics are printed in the verbose logs.",
            "",
        ]
    stamped = [f"[11/25/2026-10:00:00] [I] {line}" for line in lines]
    return "\n".join([f"&&&& RUNNING {banner}", *stamped, f"&&&& {ended} {banner}"]) + "\n"


@pytest.mark.parametrize("version", BANNERS)
def test_a_run_of_each_version(version):
    (run,) = trtexec_log.parse(log(version, more=profile(version)), "a.log")
    assert (run.version, run.gpu, run.capability, run.sms) == (version, "NVIDIA Tegra X1", "5.3", 1)
    assert (run.onnx, run.precision, run.input_wh, run.batch, run.queries) == (
        "/data/t.onnx",
        "fp16",
        (320, 192),
        1,
        731,
    )
    assert run.times["compute"]["p50"] == 4.0 and run.times["compute"]["p99"] == pytest.approx(4.396)
    assert run.times["host"]["p50"] == 4.2 and run.times["h2d"]["p50"] == 0.15
    assert ("p95" in run.times["compute"]) == (version not in ("8.2.1", "8.4.1"))
    assert run.throughput_qps == pytest.approx(238.1, abs=0.1)
    assert [layer.name for layer in run.layers] == ["Reformatting CopyNode for Input Tensor 0 to c1 + r1", "c1 + r1"]
    assert run.layers[1].average_ms == 1.0025
    assert run.layers[1].median_ms == (0.9987 if version not in ("8.2.1", "8.4.1") else None)
    assert run.settings["cuda_graph"] is False and run.settings["sparsity"] is None
    assert trtexec_log.kind_of(run) == "nano"


def test_several_runs_and_other_programs_words_between_them():
    text = "docker: pulling\n" + log("8.2.1") + "make: done\n" + log("10.3.0", p50=2.0) + "bye\n"
    runs = trtexec_log.parse("".join("2026-11-25 10:00:00 | INFO | " + line + "\n" for line in text.splitlines()), "a")
    assert [(run.version, run.times["compute"]["p50"]) for run in runs] == [("8.2.1", 4.0), ("10.3.0", 2.0)]


def test_what_was_cut_off_is_taken_from_the_command(tmp_path):
    """Only the summary and the last line, as people paste it; and as PowerShell writes it."""
    text = log("10.3.0")
    text = text[text.index("[11/25/2026-10:00:00] [I] === Performance") :]
    path = tmp_path / "a.log"
    path.write_bytes(text.encode("utf-16"))
    (run,) = trtexec_log.read(str(path))[0]
    assert (run.version, run.onnx, run.input_wh, run.precision) == ("10.3.0", "/data/t.onnx", (320, 192), "fp16")
    assert run.gpu is None and trtexec_log.kind_of(run) is None


@pytest.mark.parametrize(
    "command,said,wanted",
    [
        ("trtexec --onnx=a.onnx", "FP32", "fp32"),
        ("trtexec --onnx=a.onnx --int8 --fp16", "FP32+FP16+INT8", "int8"),
        ("trtexec --onnx=a.onnx --best", "FP32+FP16+INT8", "int8"),
        ("trtexec --loadEngine=a.plan", "FP32", None),
        ("trtexec --loadEngine=a.plan --fp16", "FP32+FP16", "fp16"),
        ("trtexec --onnx=a.onnx --stronglyTyped", "FP32", None),
    ],
)
def test_the_precision_is_told_only_where_it_is_known(command, said, wanted):
    assert trtexec_log.parse(log("8.6.2", command, precision=said), "a")[0].precision == wanted


def test_a_capability_alone_names_no_target():
    orin = {"gpu": "Orin", "capability": "8.7"}
    assert trtexec_log.kind_of(trtexec_log.parse(log("10.3.0", sms=8, **orin), "a")[0]) == "orin-nano"
    assert trtexec_log.kind_of(trtexec_log.parse(log("10.3.0", sms=16, **orin), "a")[0]) is None  # an AGX Orin


@pytest.mark.parametrize(
    "text,where,what",
    [
        ("", "a.log", "trtexec"),
        ("hello\nworld\n", "a.log", "trtexec.log"),
        (log("8.2.1", summary=False), "line 1", "--skipInference"),
        (log("8.5.2", summary=False, more=profile("8.5.2")), "line 1", "--separateProfileRun"),
        (log("10.3.0", ended="FAILED").replace("[I] Starting", "[E] no plan; Starting"), "a.log, line 45", "no plan"),
        (log("8.2.1").replace("median = 4 ms", "median = -4 ms"), "line 40", "-4"),
        (log("8.2.1").replace("median = 4 ms", "median = nan ms"), "line 40", "nan"),
    ],
)
def test_what_cannot_be_used_is_told(text, where, what):
    with refused(BadInput, where=where, names=[what, "a.log"]):
        trtexec_log.parse(text, "a.log")


PIECES = [line + "\n" for version in BANNERS for line in log(version, more=profile(version)).splitlines()]


@given(
    st.lists(
        st.one_of(
            st.sampled_from(PIECES),
            st.text(max_size=40),
            st.sampled_from(
                [
                    "&&&& RUNNING TensorRT.trtexec [TensorRT v",
                    "median = ",
                    " ms",
                    "1e999",
                    "x" * 30,
                    "Input binding for a with dimensions 0x3x-1",
                    "SMs: 99999999999",
                    "=== Profile (1 iterations ) ===\n",
                    "Throughput: . qps\n",
                    "\x00",
                    "\r",
                    "GPU Compute Time: min = 1 ms, median = 2 ms\n",
                    " --shapes=a:1x3x99999999999999999999x1",
                    "'",
                ]
            ),
        ),
        max_size=60,
    ).map("".join)
)
def test_any_text_is_read_or_refused(text):
    try:
        runs = trtexec_log.parse(text, "a.log")
    except BadInput as error:
        assert "a.log" in str(error.where)
        return
    for run in runs:
        assert run.times["compute"]["p50"] >= 0 and run.throughput_qps >= 0
        json.dumps(run._asdict(), allow_nan=False)


def jetmask(*words):
    done = subprocess.run([sys.executable, "-m", "pipeline.cli", *map(str, words)], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_log_becomes_measurements_beside_predictions(tiny_bundle, tmp_path):
    path, out = tmp_path / "nano.log", tmp_path / "nano.json"
    path.write_text(log("8.2.1", p50=1.5, more=profile("8.2.1")) + log("8.2.1", p50=9.0, shape="8x3x192x320"))
    code, shown, err = jetmask("bench", "--import-trtexec", path, "--bundle", tiny_bundle, "--out", out)
    assert code == 0, err
    assert "t-320x192-fp16" in shown and "imported" in shown and "batch 8" in shown and "predicted" in shown
    found = files.read_json(str(out))
    first, second = found["rows"]
    assert found["source"] == "imported" and "imported" in found["board"]["model"] and len(found["log_sha256"]) == 64
    assert (first["variant"], first["infer_ms"], first["fps"]) == (
        "t-320x192-fp16",
        {"p50": 1.5, "p95": None, "p99": pytest.approx(1.6485), "n": 731},
        588.24,
    )
    assert first["predicted"]["basis"] and first["bytes"] == os.path.getsize(os.path.join(tiny_bundle, "models/t.onnx"))
    assert (second["bytes"], second["predicted"], second["fps"]) == (None, None, 869.57)

    model = os.path.join(tiny_bundle, "models/t.onnx")
    code, shown, err = jetmask(
        "predict", model, "--target", "nano", "--input-wh", "320x192", "--measured", out, "--layers"
    )
    assert code == 0 and "measured 1.50 ms on NVIDIA Tegra X1 (imported)" in shown and "c1 + r1" in shown, err
    code, shown, err = jetmask("predict", model, "--input-wh", "64x64", "--measured", out)
    assert code == 2 and "no measurement of" in err and "at 64x64" in err and "fp16 320x192" in err

    from pipeline.report import cli as report

    run = tmp_path / "run"
    report.write(run, {"title": "t"})
    code, shown, err = jetmask("report", run, "--device", out)
    assert code == 0, err
    page = (run / "report.html").read_text()
    assert "NVIDIA Tegra X1 (imported)" in page and "imported from nano.log" in page and "t-320x192-fp16" in page


def test_layers_stand_beside_each_other_by_their_nodes_names():
    from pipeline.latency import measured
    from pipeline.latency.roofline import LayerTime, Prediction

    guess = Prediction(
        3.0,
        None,
        None,
        [LayerTime("c1 + r1", "conv", 2.0, 1, 1, 5), LayerTime("c2", "conv", 1.0, 1, 1, 5)],
        "nano",
        "fp16",
        (320, 192),
        10,
        20,
        "",
        (),
    )
    rows = measured.layers(
        guess,
        [
            {"name": "c1 + r1", "average_ms": 1.0, "median_ms": None},
            {"name": "Reformatting CopyNode", "average_ms": 0.5, "median_ms": 0.4},
            {"name": "PWN(x) + c2", "average_ms": 0.5, "median_ms": 0.4},
        ],
    )
    assert [(row["ms"], row["predicted_ms"]) for row in rows] == [(1.0, 2.0), (0.4, None), (0.4, 1.0)]


def test_the_ledger_has_the_committed_columns_and_no_row_twice(tiny_bundle, tmp_path):
    assert trtexec_import.LEDGER == ledger.FIELDS
    path, out = tmp_path / "a.log", tmp_path / "a.csv"
    for p50 in (4.0, 4.0, 5.0):
        path.write_text(log("10.3.0", p50=p50, gpu="Orin", capability="8.7", sms=8))
        assert jetmask("bench", "--import-trtexec", path, "--bundle", tiny_bundle, "--out", out)[0] == 0
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["infer_p50_ms"] for row in rows] == ["4.000", "5.000"]
    assert all(row["machine"].startswith("imported: Orin, compute capability 8.7; TensorRT 10.3.0") for row in rows)
    out.write_text("a,b\n1,2\n")
    code, _, err = jetmask("bench", "--import-trtexec", path, "--bundle", tiny_bundle, "--out", out)
    assert code == 3 and "other columns" in err and out.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    "words,code,text",
    [
        (("--variant", "t-320x192-fp32"), 2, "precision is fp16"),
        (("--variant", "nope"), 2, "expected: one of"),
        (("--source", "a.mp4"), 2, "measures nothing"),
        (("--variant", "t-320x192-fp16"), 0, "t-320x192-fp16"),
    ],
)
def test_naming_the_variant(tiny_bundle, tmp_path, words, code, text):
    path = tmp_path / "a.log"
    path.write_text(log("8.6.2"))
    found = jetmask("bench", "--import-trtexec", path, "--bundle", tiny_bundle, *words)
    assert found[0] == code and text in found[1] + found[2]


def test_a_missing_log_and_two_devices_in_one(tiny_bundle, tmp_path):
    code, _, err = jetmask("bench", "--import-trtexec", tmp_path / "none.log")
    assert code == 3 and "cannot read the log" in err
    path = tmp_path / "two.log"
    path.write_text(log("8.6.2") + log("8.6.2", gpu="Orin"))
    code, _, err = jetmask("bench", "--import-trtexec", path, "--bundle", tiny_bundle)
    assert code == 3 and "several GPUs" in err
