"""`python3 -m jetson bench` from outside."""

import json
import os
import subprocess
import sys
import time

import machine
from serving import ROOT

from jetson import files

VARIANT = "t-320x192-fp32"


def run(*words, **variables):
    done = subprocess.run(
        [sys.executable, "-m", "jetson", "bench"] + [str(word) for word in words],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=ROOT, **{key: str(value) for key, value in variables.items()}),
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
        (["--variant", "x"], 2, "unknown variant"),
        (["--runtime", "x"], 2, "runtime"),
        (["--source", "/nowhere"], 3, "does not exist"),
        (["--seconds", "0"], 2, "seconds"),
        (["--data", tmp_path], 3, "annotations.json"),
    ):
        code, _, errors = run(tiny_bundle, *words)
        assert code == expected and told in errors and "Traceback" not in errors, errors


def test_by_default_the_front_is_measured_one_engine_at_a_time_and_all_on_request(tiny_copy, tmp_path):
    path = os.path.join(tiny_copy, "manifest.json")
    value = files.read_json(path)
    for variant in value["variants"]:  # fp32 at 416 is beaten by int8-cpu at 416: cheaper, no less AP
        ap = {"t-320x192-int8-cpu": 70.0, "t-416x256-int8-cpu": 80.0, "t-416x256-fp32": 79.0, VARIANT: 75.0}
        if variant["name"] in ap:
            variant["ap"]["onnxruntime"] = {"map50": ap[variant["name"]], "split": "val", "images": 9}
    files.write_json(path, value)
    code, out, errors = run(tiny_copy, "--seconds", "0.1", "--json", XDG_CACHE_HOME=tmp_path)
    assert code == 0, errors
    result = json.loads(out)
    assert [row["variant"] for row in result["rows"]] == ["t-416x256-int8-cpu", "t-320x192-int8-cpu"]
    assert result["rows"][0]["reference"] and "2 of " in errors and "min" in errors
    code, out, errors = run(tiny_copy, "--seconds", "0.1", "--json", "--all", XDG_CACHE_HOME=tmp_path)
    assert code == 0 and len(json.loads(out)["rows"]) == result["combinations"] > 6


def test_no_more_than_one_engine_is_open_at_a_time(tiny_bundle, tmp_path):
    """On a Nano each costs some hundred MB; all of the shipped bundle at once were 0.85 GB."""
    code = (
        "import sys\n"
        "from jetson.bench import measure as module\n"
        "opened, most, real = 0, 0, module.open_detector\n"
        "def counted(*words):\n"
        "    global opened, most\n"
        "    made = real(*words); opened += 1; most = max(most, opened); close = made.close\n"
        "    def closed():\n"
        "        global opened\n"
        "        opened -= 1; close()\n"
        "    made.close = closed\n"
        "    return made\n"
        "module.open_detector = counted\n"
        "found = module.measure(module.Settings(sys.argv[1], seconds=0.05, everything=True), lambda text: None)\n"
        "measured = sum(row['latency_ms'] is not None for row in found['rows'])\n"
        "print(most, opened, measured)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_bundle],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=ROOT, XDG_CACHE_HOME=str(tmp_path)),
        stdout=subprocess.PIPE,
        check=True,
    )
    most, left, measured = (int(word) for word in done.stdout.split())
    assert most == 1 and left == 0 and measured > 3


def test_a_run_that_was_cut_off_goes_on(tiny_bundle, tmp_path):
    words = [tiny_bundle, "--seconds", "0.2", "--json", "--all"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jetson", "bench"] + words,
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=ROOT, XDG_CACHE_HOME=str(tmp_path)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = tmp_path / "jetmask" / "bench"
    end = time.monotonic() + 60
    kept = {}
    while len(kept) < 2 and time.monotonic() < end:
        time.sleep(0.02)
        for path in folder.glob("*.json") if folder.is_dir() else ():
            kept = json.loads(path.read_text())["steps"]
    process.kill()
    process.wait()
    kept = json.loads(next(folder.glob("*.json")).read_text())["steps"]
    assert len(kept) >= 2
    code, out, errors = run(
        tiny_bundle, "--seconds", "0.2", "--variant", "t-320x192-int8-cpu", "--json", XDG_CACHE_HOME=tmp_path
    )
    assert code == 0 and "had measured" not in errors, "another choice has another reference"
    code, out, errors = run(*words, XDG_CACHE_HOME=tmp_path)
    assert code == 0 and f"had measured {len(kept)} of these passes" in errors, errors
    rows = {f"{row['variant']} {row['runtime']}": row for row in json.loads(out)["rows"]}
    first = next(iter(kept)).rpartition(" ")[0]
    assert rows[first]["reference"] and rows[first]["latency_ms"]["n"] > len(kept[first + " 0"]["total_ms"])
    assert sum(row["reference"] for row in rows.values()) == 1
    assert not list(folder.glob("*.json")), "all is measured: the next run begins anew"


def test_the_plan_tells_how_many_engines_are_built_first(tiny_bundle, tmp_path):
    library, site = machine.pycuda()
    nano = machine.Machine(library, str(tmp_path / "engines"), site=site)
    words = ["-m", "jetson", "bench", tiny_bundle, "--seconds", "0.1", "--json"]
    status, out, errors = nano.run(*words)
    assert status == 0, errors
    rows = json.loads(out)["rows"]
    assert {(row["precision"], row["runtime"]) for row in rows} == {("fp16", "tensorrt")}, (
        "no INT8 and no fp32 on a Nano"
    )
    assert f"{len(rows)} engines are built first" in errors and "assumed" in errors and "about 8 min" in errors
    assert "engines are built first" not in nano.run(*words)[2], "they are in the cache now"


def test_int8_on_a_nano_is_measured_where_somebody_asks_and_every_figure_says_what_it_is(tiny_bundle, tmp_path):
    library, site = machine.pycuda()
    nano = machine.Machine(library, str(tmp_path / "engines"), site=site)
    words = ["-m", "jetson", "bench", tiny_bundle, "--seconds", "0.1", "--runtime", "tensorrt", "--int8-anyway"]
    words += ["--variant", "t-320x192-int8", "--variant", "t-320x192-fp16"]
    status, out, errors = nano.run(*words, "--json")
    assert status == 0, errors
    rows = {row["precision"]: row for row in json.loads(out)["rows"]}
    assert rows["int8"]["latency_ms"] and rows["int8"]["agreement"] and rows["fp16"]["note"] is None
    assert "no INT8 arithmetic" in rows["int8"]["note"]
    assert "no INT8 arithmetic" in nano.run(*words)[1]
