"""`first-light` on the stand-ins: driver, TensorRT and a camera; whole, and with each step made to fail once."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import machine
import pytest

from jetson import files
from jetson.bundle import manifest
from jetson.firstlight import engines, load, report
from jetson.firstlight.cli import NAMES
from jetson.firstlight.step import FAIL, Outcome
from jetson.inference import golden

PROGRAM = os.path.join(machine.DOUBLES, "first_light.py")
GOOD = json.dumps({"t-320x192-fp16": {"latency_ms": 1.0, "low_ms": 1e-6, "high_ms": 1e6}})


class Device:
    def __init__(self, folder, csi_env):
        self.folder = str(folder)
        library, site = machine.pycuda()
        self.machine = machine.Machine(library, os.path.join(self.folder, "engines"), site=site, **csi_env)
        self.out = os.path.join(self.folder, "report.json")

    def run(self, bundle, *words, **variables):
        """(exit code, the report or None, what it said)."""
        with_variables = self.machine.but(**variables) if variables else self.machine
        if os.path.exists(self.out):
            os.unlink(self.out)
        code, out, err = with_variables.run(PROGRAM, "first-light", bundle, "--out", self.out, *words, timeout=280)
        assert "Traceback" not in err, err
        return code, files.read_json(self.out) if os.path.exists(self.out) else None, out + err


@pytest.fixture(scope="module")
def device(tmp_path_factory, csi_env):
    return Device(tmp_path_factory.mktemp("device"), csi_env)


def _steps(found):
    return {step["step"]: step for step in found["steps"]}


def test_the_whole_of_it_on_the_stand_ins(device, tiny_bundle):
    words = ["--source", "csi://0", "--minutes", "0.03", "--predictions", GOOD]
    code, found, said = device.run(tiny_bundle, *words)
    assert code == 0, said
    steps = _steps(found)
    assert tuple(steps) == NAMES and {step["status"] for step in steps.values()} == {"pass"}
    assert [mode["mode"] for mode in steps["camera"]["measured"]["modes"]][0] == "3264x2464 at 21"
    built = steps["engines"]["measured"]["engines"]
    assert [row["variant"] for row in built] == ["t-320x192-fp16", "t-416x256-fp16"]
    assert all(row["bytes"] and row["memory_left_mib"] is not None and not row["cached"] for row in built)
    tests = steps["golden"]["measured"]["tests"]
    assert {row["runtime"] for row in tests} == {"tensorrt", "onnxruntime"} and all(row["faces"] for row in tests)
    assert steps["latency"]["measured"]["latency"][0]["inside"] is True
    load = steps["load"]["measured"]
    assert load["source"] == "csi" and load["runtime"] == "tensorrt" and load["results"] and load["samples"]
    assert steps["return"]["measured"]["second_start_s"] > 0
    # Each line says that this is no Jetson, in the file and on the screen.
    with open(os.path.splitext(device.out)[0] + ".txt") as file:
        text = file.read()
    lines = [line for line in text.splitlines() if line.split()[0] in ("pass", "fail", "skipped")]
    assert len(lines) == len(NAMES) and all("(stand-in)" in line for line in lines)
    assert found["stand_in"] and all(step["stand_in"] for step in steps.values())
    assert all("(stand-in)" in line for line in said.splitlines() if line.startswith("["))
    # What is built is not built again, and says so.
    code, found, _ = device.run(tiny_bundle, "--only", "engines,latency")
    steps = _steps(found)
    assert code == 0 and steps["engines"]["status"] == "skipped" and "there already" in steps["engines"]["what"]
    assert steps["latency"]["status"] == "skipped" and "no prediction" in steps["latency"]["what"]
    assert steps["latency"]["measured"]["latency"][0]["p50"] > 0
    code, found, _ = device.run(tiny_bundle, "--only", "engines", "--rebuild")
    assert _steps(found)["engines"]["status"] == "pass"


# ------------------------------------------------------------------------------------- each step, made to fail


def _fails(device, bundle, step, *words, **variables):
    code, found, said = device.run(bundle, "--minutes", "0.03", *words, **variables)
    assert code == 5 and found["ok"] is False, said
    steps = _steps(found)
    assert steps[step]["status"] == "fail", said
    return steps[step], steps


def test_board_fails_on_a_release_that_is_too_old(device, tiny_bundle, tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R32 (release), REVISION: 6.1, GCID: 1, BOARD: t210ref\n")
    step, _ = _fails(device, tiny_bundle, "board", "--only", "board", FIRST_LIGHT_ROOT=str(tmp_path))
    assert "JetPack 4.6.1" in step["what"] and step["measured"]["l4t"] == "32.6.1"


def test_imports_fail_on_a_module_for_another_processor(device, tiny_bundle, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("import os\nos.kill(os.getpid(), 4)\n")
    path = str(tmp_path) + os.pathsep + device.machine.env["PYTHONPATH"]
    step, _ = _fails(device, tiny_bundle, "imports", "--only", "imports", PYTHONPATH=path)
    assert "onnxruntime" in step["what"] and "illegal instruction" in step["what"]
    assert [row["module"] for row in step["measured"]["modules"] if row["error"]][0] == "onnxruntime"


def test_imports_fail_without_tensorrt_where_there_is_a_gpu(device, tiny_bundle):
    step, _ = _fails(
        device, tiny_bundle, "imports", "--only", "imports", PYTHONPATH=machine.ROOT, JETMASK_EXPECT_GPU="1"
    )
    assert "tensorrt" in step["what"] and "pycuda" in step["what"]


@pytest.mark.parametrize("fault", [{"CSI_SENSORS": 0}, {"CSI_DIE_AFTER": 1}])
def test_camera_fails_where_no_picture_comes_or_it_is_lost(device, tiny_bundle, fault):
    step, steps = _fails(device, tiny_bundle, "camera", "--only", "camera,load", "--source", "csi://0", **fault)
    assert all(row["error"] for row in step["measured"]["modes"]) and step["what"]
    assert steps["load"]["measured"]["source"] == "synthetic", "what comes after goes on without it"


def test_camera_fails_where_the_device_is_not_there_and_is_skipped_without_one(device, tiny_bundle):
    step, _ = _fails(device, tiny_bundle, "camera", "--only", "camera", "--source", "/dev/video77")
    assert "cannot be opened" in step["what"]
    code, found, _ = device.run(tiny_bundle, "--only", "camera")
    assert code == 0 and _steps(found)["camera"]["status"] in ("skipped", "pass")


def test_engines_fail_where_the_kernel_kills_the_build(device, tiny_bundle):
    words = ["--only", "engines,golden,latency", "--rebuild", "--variant", "t-320x192-fp16"]
    step, steps = _fails(device, tiny_bundle, "engines", *words, TENSORRT_DOUBLE_DIE=9)
    assert "was killed" in step["what"]
    assert steps["latency"] == dict(steps["latency"], status="skipped", what="no engine was built")
    assert steps["golden"]["status"] == "pass", "ONNX Runtime is tested all the same"


def test_engines_fail_without_a_gpu_that_should_be_there(device, tiny_bundle):
    step, _ = _fails(device, tiny_bundle, "engines", "--only", "engines", FAKECUDA_DEVICES=0, JETMASK_EXPECT_GPU=1)
    assert step["what"]


def test_golden_fails_where_other_faces_are_found(device, tiny_copy):
    path = os.path.join(tiny_copy, golden.FILE)
    content = files.read_json(path)
    for entries in content["expected"].values():
        for face in entries[0]["faces"]:
            face["xyxy"] = [value + 60 for value in face["xyxy"]]
    files.write_json(path, content)
    manifest.write_sums(tiny_copy)
    step, _ = _fails(device, tiny_copy, "golden", "--only", "engines,golden", "--variant", "t-320x192-fp16")
    assert "was not found" in step["what"] and "on tensorrt" in step["what"]


def test_latency_fails_outside_of_the_prediction(device, tiny_bundle):
    guess = json.dumps({"t-320x192-fp16": {"latency_ms": 5000, "low_ms": 4000, "high_ms": 6000}})
    words = ["--only", "engines,latency", "--variant", "t-320x192-fp16", "--predictions", guess]
    step, _ = _fails(device, tiny_bundle, "latency", *words)
    assert "predicted 5000.00 (4000.00 to 6000.00)" in step["what"]


def test_load_fails_where_the_gpu_is_lost(device, tiny_bundle):
    words = ["--only", "engines,load", "--variant", "t-320x192-fp16"]
    step, _ = _fails(device, tiny_bundle, "load", *words, FAKECUDA_LOSE_AFTER=60)
    assert "errors of the engine" in step["what"] or "no result" in step["what"]


def test_load_fails_where_the_board_slows_itself_down(device, tiny_bundle, tmp_path):
    cooling = tmp_path / "sys/class/thermal/cooling_device0"
    cooling.mkdir(parents=True)
    (cooling / "type").write_text("gpu-balanced\n")
    (cooling / "cur_state").write_text("2\n")
    step, _ = _fails(device, tiny_bundle, "load", "--only", "load", FIRST_LIGHT_ROOT=str(tmp_path))
    assert "slowed itself down" in step["what"] and step["measured"]["throttled_samples"]


def test_return_fails_where_the_runner_does_not_come_up_again(device, tiny_bundle):
    words = ["--only", "engines,return", "--variant", "t-320x192-fp16"]
    step, _ = _fails(device, tiny_bundle, "return", *words, FAKECUDA_LOSE_AFTER=1)
    assert "start: it ended" in step["what"] or "no result" in step["what"]


# ------------------------------------------------------------------------------------------------- the rest of it


def test_a_report_is_there_whenever_it_is_cut_off(device, tiny_bundle):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(device.out)
    process = device.machine.start(
        PROGRAM, "first-light", tiny_bundle, "--out", device.out, "--only", "board,imports,load", "--minutes", "5"
    )
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            if os.path.exists(device.out) and len(files.read_json(device.out)["steps"]) == 2:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert [step["step"] for step in files.read_json(device.out)["steps"]] == ["board", "imports"]


@pytest.mark.parametrize(
    "words",
    [
        ["--only", "engins"],
        ["--minutes", "nan"],
        ["--minutes", "-1"],
        ["--minutes", "1e9"],
        ["--predictions", "{"],
        ["--predictions", "[]"],
        ["--predictions", '{"a": 1}'],
        ["--predictions", '{"a": {"latency_ms": "x"}}'],
        ["--variant", "nothing"],
        ["--out", "/no/such/folder/x.json"],
    ],
)
def test_slips_are_told_before_anything_is_tried(words, tiny_bundle, tmp_path, root):
    done = subprocess.run(
        [sys.executable, "-m", "jetson", "first-light", tiny_bundle, "--out", str(tmp_path / "r.json")] + words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        cwd=root,
    )
    assert done.returncode == 2 and "[1/" not in done.stderr and not os.listdir(str(tmp_path))


def test_names_and_addresses_are_left_out(tmp_path):
    scrub = report.Scrubber(["kitchen-nano", "anna", "1422919034567"])
    text = (
        "anna@kitchen-nano, /home/anna/x, 192.168.1.17:8080, fe80::1c2:33ff:fe44:5566, 00:04:4b:a1:b2:c3, "
        "rtsp://me:secret@10.0.0.2/cam?x=1, https://example.org/a, /dev/v4l/by-id/usb-046d_C920_ABC123-video-index0, "
        "serial 1422919034567, Kitchen-Nano, 2001:db8::7"
    )
    found = scrub.text(text)
    for secret in (
        "anna",
        "kitchen",
        "192.168",
        "fe80",
        "00:04",
        "secret",
        "10.0.0.2",
        "example",
        "ABC123",
        "1422",
        "db8",
    ):
        assert secret not in found.lower(), found
    kept = "TensorRT 8.2.1 in 3.5 s at 12:30:15, 1280x720 at 60: 19.9 frames/s, /dev/video0, L4T r32.7.1, a nano"
    assert scrub.text(kept) == kept
    value = {"tensorrt": "8.2.1.8", "camera": ["10.0.0.2", 5, None, {"anna": True}], "n": 1.5}
    assert scrub.value(value) == {"tensorrt": "8.2.1.8", "camera": ["ADDRESS", 5, None, {"NAME": True}], "n": 1.5}
    one = report.Report(str(tmp_path / "r.json"), {"name": "b"}, None)
    one.add("board", Outcome(FAIL, "on 10.1.2.3", {"url": "http://10.1.2.3/"}), 1.0)
    with open(str(tmp_path / "r.json")) as file, open(str(tmp_path / "r.txt")) as text_file:
        assert "10.1.2.3" not in file.read() + text_file.read()
    assert "(stand-in)" not in one.text() and one.failed == ["board"]


def test_which_variants_are_built(root):
    contents = manifest.load(os.path.join(root, "jetson", "models"))
    chosen = engines.choose(contents)
    assert len(chosen) == 2 and all(one.precision == "fp16" and "tensorrt" in one.runtimes for one in chosen)
    default = contents.variant(None)
    assert chosen[0].macs == min(one.macs for one in contents.variants if one.precision == "fp16")
    assert (chosen[1].model, chosen[1].input_wh) == (default.model, default.input_wh)
    assert [one.name for one in engines.choose(contents, (default.name,))] == [default.name]


def test_argus_modes_are_those_that_it_prints(tmp_path, monkeypatch):
    from jetson.capture import source
    from jetson.firstlight import cameras

    tool = tmp_path / "gst-launch-1.0"
    tool.write_text(
        "#!/bin/sh\necho 'GST_ARGUS: Available Sensor modes :'\n"
        "echo 'GST_ARGUS: 3840 x 2160 FR = 29.999999 fps Duration = 33333334 ; Analog Gain range min 1.0'\n"
        "echo 'GST_ARGUS: 1920 x 1080 FR = 59.999999 fps Duration = 16666667 ; Analog Gain range min 1.0'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    found = cameras.modes(source.parse("csi://0"))
    assert [(mode.width, mode.height) for mode in found] == [(3840, 2160), (1920, 1080)]
    shutil.rmtree(str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    assert [mode[:2] for mode in cameras.modes(source.parse("csi://0"))][0] == (3264, 2464)


def test_what_became_of_the_rate_is_judged_over_minutes_alone():
    def measured(last, seconds):
        samples = [{"s": seconds * n / 50, "throttled": None} for n in range(1, 51)]
        return {
            "engine_errors": 0,
            "camera_lost": 0,
            "throttled_samples": 0,
            "samples": samples,
            "fps_first": 20.0,
            "fps_last": last,
        }

    assert load._problem(measured(14.0, 600), "", "") == "it became slower while it ran"
    assert load._problem(measured(16.0, 600), "", "") is None and load._problem(measured(14.0, 20), "", "") is None
    assert "no results" in load._problem(measured(0.0, 20), "", "")
