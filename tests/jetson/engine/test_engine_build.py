"""`python3 -m jetson build` from outside: real processes on the driver stand-in and the TensorRT double."""

import glob
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time

import machine
import pytest

from jetson import files
from jetson.bundle import manifest
from jetson.engine import build_process, calibration

ONE = ["--variant", "t-320x192-fp32"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return machine.driver(str(tmp_path_factory.mktemp("driver")))


@pytest.fixture
def nano(library, tmp_path):
    return machine.Machine(library, str(tmp_path / "engines"))


def build(where, bundle, *arguments, **options):
    """(status, rows, stderr) of `jetson build --json`."""
    status, out, err = where.run("-m", "jetson", "build", bundle, "--json", *arguments, **options)
    return status, json.loads(out)["engines"] if out.strip() else [], err


def pairs(folder):
    """Stems of plans and of sidecars."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return tuple({name[: -len(end)] for name in names if name.endswith(end)} for end in (".plan", ".json"))


def check_folder(folder):
    """Whatever happened: no plan without its sidecar, and the sidecar's hash is the plan's."""
    plans, sidecars = pairs(folder)
    assert plans <= sidecars
    for stem in plans:
        facts = files.read_json(os.path.join(folder, stem + ".json"))
        assert facts["plan"]["sha256"] == files.sha256(os.path.join(folder, stem + ".plan"))


def with_table(bundle, name="t-320x192-int8-calibrated", **changes):
    """Give the bundle an int8 variant of its float file; return the calibration table's path."""
    path = os.path.join(bundle, "manifest.json")
    value = files.read_json(path)
    base = next(v for v in value["variants"] if v["name"] == "t-320x192-fp32")
    value["variants"].append(dict(base, name=name, precision="int8", runtimes=["tensorrt"]))
    files.write_json(path, value)
    table_path = os.path.join(bundle, "calibration", "t.json")
    calibration.write(table_path, calibration.read(table_path)._replace(**changes))
    return table_path


# ------------------------------------------------------------------------------------------- what gets built


@pytest.mark.parametrize("version, int8", [("8.2.1", False), ("8.5.3", True), ("10.3.0", True), ("11.1", True)])
def test_every_precision_of_a_bundle_on_every_tensorrt(library, tmp_path, tiny_copy, version, int8):
    there = machine.Machine(library, str(tmp_path / "engines"), version)
    path = os.path.join(tiny_copy, "manifest.json")
    value = files.read_json(path)
    files.write_json(
        path,
        dict(
            value,
            variants=[v for v in value["variants"] if v["input_wh"] == [320, 192]],
            default_variant="t-320x192-fp32",
        ),
    )
    status, rows, err = build(there, tiny_copy)
    assert status == 0, err
    built = {row["variant"]: row for row in rows if "path" in row}
    refused = {row["variant"]: row["reason"] for row in rows if "reason" in row}
    assert set(built) == {"t-320x192-" + p for p in ("fp32", "fp16") + (("int8",) if int8 else ())}
    assert all("no INT8 hardware" in reason for reason in refused.values()) and len(refused) == (0 if int8 else 1)
    check_folder(there.engines)
    facts = files.read_json(built["t-320x192-fp16"]["path"][: -len("plan")] + "json")
    assert facts["machine"]["capability"] == [int(n) for n in machine.MATRIX[version][1].split(".")]
    assert facts["machine"]["tensorrt"].startswith(version)
    assert facts["built"]["inputs"] == {"image": [1, 3, 192, 320]}
    assert facts["built"]["outputs"]["box_32"] == [1, 4, 6, 10]
    model = "t.fp16.onnx" if version == "11.1" else "t.onnx"  # 11 has no FP16 flag: precision is in the file
    assert facts["recipe"]["onnx_sha256"] == files.sha256(os.path.join(tiny_copy, "models", model))
    assert facts["built"]["typed"] is (version == "11.1")
    assert facts["built"]["flags"] == ([] if version == "11.1" else ["FP16"])
    assert os.path.isfile(
        os.path.join(
            there.engines,
            "timing-{}-{}-{}.cache".format(
                facts["machine"]["tensorrt"], machine.MATRIX[version][0].replace(" ", "_"), machine.MATRIX[version][1]
            ),
        )
    )


@pytest.mark.parametrize("version, skips", [("8.2.1", False), ("8.5.3", False), ("10.3.0", True), ("11.1", True)])
def test_sparse_weights_are_told_to_the_builder_where_the_gpu_can_skip_zeros(
    library, tmp_path, tiny_copy, version, skips
):
    """A Nano and a Xavier cannot, an Orin and newer cards can; and never for fp32."""
    there = machine.Machine(library, str(tmp_path / "engines"), version)
    path = os.path.join(tiny_copy, "manifest.json")
    value = files.read_json(path)
    for variant in value["variants"]:
        variant["sparsity"] = "2:4"
    files.write_json(path, value)
    for precision in ("fp32", "fp16"):
        status, rows, err = build(there, tiny_copy, "--variant", "t-320x192-" + precision)
        assert status == 0, err
        wanted = skips and precision == "fp16"
        with open(rows[0]["path"], "rb") as file:  # what the builder was given
            assert (b'"SPARSE_WEIGHTS"' in file.read(4000)) is wanted
        facts = files.read_json(rows[0]["path"][: -len("plan")] + "json")
        assert ("SPARSE_WEIGHTS" in facts["built"]["flags"]) is wanted
        assert facts["recipe"]["flags"] == (["sparse-weights"] if wanted else [])
    # Another engine than that of dense weights.
    for variant in value["variants"]:
        del variant["sparsity"]
    files.write_json(path, value)
    assert build(there, tiny_copy, "--variant", "t-320x192-fp16")[1][0]["cached"] is not skips
    value["variants"][0]["sparsity"] = "1:2"
    files.write_json(path, value)
    status, _, err = build(there, tiny_copy)
    assert status == 3 and "sparsity" in err and "2:4" in err


def test_second_build_comes_from_the_cache_and_force_builds_again(nano, tiny_bundle):
    assert [row["cached"] for row in build(nano, tiny_bundle, *ONE)[1]] == [False]
    plan = glob.glob(nano.engines + "/*.plan")[0]
    first = os.stat(plan).st_mtime_ns
    assert [row["cached"] for row in build(nano, tiny_bundle, *ONE)[1]] == [True]
    assert os.stat(plan).st_mtime_ns == first
    assert [row["cached"] for row in build(nano, tiny_bundle, "--force", *ONE)[1]] == [False]
    assert os.stat(plan).st_mtime_ns != first
    assert stat.S_IMODE(os.stat(nano.engines).st_mode) == 0o700


def test_workspace_reaches_the_builder(nano, tiny_bundle):
    status, rows, err = build(nano, tiny_bundle, "--workspace-mb", "64", *ONE)
    assert status == 0, err
    with open(rows[0]["path"], "rb") as file:
        head = json.loads(file.read().split(b"\n")[1].decode())
    assert head["workspace"] == 64 << 20
    assert "TF32" not in head["flags"], "fp32 means fp32"
    assert build(nano, tiny_bundle, "--workspace-mb", "0", *ONE)[0] == 2


def test_progress_names_the_phases_and_the_time(nano, tiny_bundle):
    _, _, err = build(nano, tiny_bundle, *ONE)
    for phase in ("loading TensorRT", "parsing", "building", "saving"):
        assert f"t-320x192-fp32: {phase} (" in err


# ------------------------------------------------------------------------------------------- never a stale one


@pytest.mark.parametrize(
    "damage", ["plan", "sidecar", "no sidecar", "other machine", "plan emptied", "writable", "link"]
)
def test_a_pair_that_is_not_whole_is_built_again(nano, tiny_bundle, tmp_path, damage):
    plan = build(nano, tiny_bundle, *ONE)[1][0]["path"]
    sidecar = plan[: -len("plan")] + "json"
    if damage == "plan":
        with open(plan, "r+b") as file:
            file.seek(200)
            file.write(b"\x90\x90")
    elif damage == "plan emptied":
        open(plan, "wb").close()
    elif damage == "sidecar":
        with open(sidecar, "w") as file:
            file.write('{"half')
    elif damage == "no sidecar":
        os.unlink(sidecar)
    elif damage == "writable":
        os.chmod(plan, 0o666)
    elif damage == "link":
        shutil.move(plan, str(tmp_path / "elsewhere"))
        os.symlink(str(tmp_path / "elsewhere"), plan)
    else:
        facts = files.read_json(sidecar)
        facts["machine"]["tensorrt"] = "8.0.1.6"
        files.write_json(sidecar, facts)
    status, rows, err = build(nano, tiny_bundle, *ONE)
    assert status == 0 and rows[0]["cached"] is False, err
    check_folder(nano.engines)
    assert not os.path.islink(plan)
    assert build(nano, tiny_bundle, *ONE)[1][0]["cached"] is True


def test_another_gpu_another_tensorrt_another_size_has_an_engine_of_its_own(nano, tiny_bundle):
    build(nano, tiny_bundle, *ONE)
    for other in (
        nano.but(FAKECUDA_CC="8.7"),
        nano.but(FAKECUDA_NAME="NVIDIA Tegra X2"),
        nano.but(TENSORRT_DOUBLE="8.5.3"),
    ):
        assert build(other, tiny_bundle, *ONE)[1][0]["cached"] is False
    assert build(nano, tiny_bundle, "--workspace-mb", "128", *ONE)[1][0]["cached"] is False
    assert build(nano, tiny_bundle, *ONE)[1][0]["cached"] is True
    assert len(pairs(nano.engines)[0]) == 5


def test_a_cache_that_others_can_reach_is_not_used(nano, tiny_bundle):
    os.mkdir(nano.engines)
    os.chmod(nano.engines, 0o755)
    status, _, err = build(nano, tiny_bundle, *ONE)
    assert status == 1 and "mode is 755" in err and "chmod 700" in err and not os.listdir(nano.engines)
    os.chmod(nano.engines, 0o700)
    if os.geteuid() == 0:
        os.chown(nano.engines, 12345, -1)
        status, _, err = build(nano, tiny_bundle, *ONE)
        assert status == 1 and "belongs to user 12345" in err
    os.rmdir(nano.engines)
    open(nano.engines, "w").close()
    assert build(nano, tiny_bundle, *ONE)[0] == 1


# ------------------------------------------------------------------------------------------- refusals


def test_int8_on_a_nano_is_refused_with_evidence_and_the_way_out(nano, tiny_bundle):
    status, _, err = build(nano, tiny_bundle, "--variant", "t-320x192-int8")
    assert status == 4
    for words in (
        "has no INT8 hardware",
        "5.3",
        "Jetson Nano",
        "NVIDIA/TensorRT#3399",
        "same size and speed as FP16",
        "--precision fp16",
        "int8-cpu",
    ):
        assert words in " ".join(err.split()), words
    assert not glob.glob(nano.engines + "/*")


def test_int8_by_calibrator_is_refused_on_a_tx2_too(library, tmp_path, tiny_copy):
    with_table(tiny_copy)
    tx2 = machine.Machine(library, str(tmp_path / "e"), FAKECUDA_CC="6.2", FAKECUDA_NAME="NVIDIA Tegra X2")
    status, _, err = build(tx2, tiny_copy, "--variant", "t-320x192-int8-calibrated")
    assert status == 4 and "no INT8 hardware" in err and "6.2" in err and "--target tx2" in err


def test_a_variant_for_another_runtime_and_a_misspelt_one(nano, tiny_bundle):
    status, _, err = build(nano, tiny_bundle, "--variant", "t-320x192-int8-cpu")
    assert status == 2 and "not for TensorRT" in err
    status, _, err = build(nano, tiny_bundle, "--variant", "t-320x192-fp23")
    assert status == 2 and "did you mean" in err


def test_no_gpu_no_tensorrt(nano, tiny_bundle, tmp_path):
    status, _, err = build(nano.but(FAKECUDA_DEVICES=0), tiny_bundle, *ONE)
    assert status == 4 and "no CUDA-capable device" in err
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):  # the host's environment may hold one
        (tmp_path / (name + ".py")).write_text("raise ImportError('libnvinfer.so.8: cannot open shared object file')")
    status, _, err = build(nano.but(PYTHONPATH=str(tmp_path)), tiny_bundle, *ONE)
    assert status == 4 and "TensorRT cannot be imported" in err and "libnvinfer.so.8" in err and "JetPack" in err


def test_a_changed_model_file_is_refused(nano, tiny_copy):
    with open(os.path.join(tiny_copy, "models", "t.onnx"), "ab") as file:
        file.write(b"\x00")
    status, _, err = build(nano, tiny_copy, *ONE)
    assert status == 3 and "verify the bundle" in err


def test_too_little_memory_is_said_before_the_build(nano, tiny_bundle):
    status, _, err = build(nano, tiny_bundle, "--workspace-mb", "99999999", *ONE)
    assert status == 1 and "not enough free memory" in err and "--workspace-mb" in err
    assert pairs(nano.engines) == (set(), set())


def meminfo(path, available_mib, swap_mib=0):
    """A kernel's /proc/meminfo, replaced in one step."""
    files.write_text(
        path,
        "MemTotal: 4059316 kB\nMemFree: 90000 kB\nMemAvailable: {} kB\nSwapTotal: 0 kB\nSwapFree: {} kB\n".format(
            available_mib << 10, swap_mib << 10
        ),
    )


BY_MEMINFO = """
import sys
from jetson.engine import build; from jetson.engine import cache as engine_cache; from jetson.bundle import manifest
from jetson.engine import tensorrt_module
from jetson.errors import JetmaskError
contents, trt = manifest.load(sys.argv[1]), tensorrt_module.load()
machine = build.machine_of(trt)
job = build.job_for(contents, contents.variant("t-320x192-fp32"), trt, machine)
try:
    build.build(job, machine, engine_cache.default_folder(), build.say("t"), meminfo=sys.argv[2])
except JetmaskError as error:
    sys.exit(str(error))
"""


def test_the_preflight_counts_memory_and_swap(nano, tiny_bundle, tmp_path):
    path = str(tmp_path / "meminfo")
    meminfo(path, 300)
    status, _, err = nano.run("-c", BY_MEMINFO, tiny_bundle, path)
    assert status == 1 and "not enough free memory for a build: 300 MiB" in err and "656 MiB" in err
    meminfo(path, 300, 1000)
    status, _, err = nano.run("-c", BY_MEMINFO, tiny_bundle, path)
    assert status == 0, err
    check_folder(nano.engines)


def test_a_build_that_eats_the_memory_is_stopped_before_the_kernel_does(nano, tiny_bundle, tmp_path):
    path = str(tmp_path / "meminfo")
    meminfo(path, 2000)
    process = nano.but(TENSORRT_DOUBLE_BUILD_S=120).start("-c", BY_MEMINFO, tiny_bundle, path)
    log = nano.engines + "/*.log"
    wait_until(lambda: any("timing tactics" in read(found) for found in glob.glob(log)))
    (child,) = children(process.pid)
    score, own = (int(read(f"/proc/{pid}/oom_score_adj")) for pid in (child, process.pid))
    assert score == 900 and score > own, "the kernel would kill another process first"
    meminfo(path, 40)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "stopped while building" in err and "only 40 MiB of memory were left" in err
    assert "add swap" in err
    wait_until(lambda: not alive(child))
    assert pairs(nano.engines)[0] == set() and not glob.glob(nano.engines + "/.*.part")
    meminfo(path, 2000)
    assert nano.run("-c", BY_MEMINFO, tiny_bundle, path)[0] == 0


# ------------------------------------------------------------------------------------------- calibration


def test_int8_from_a_calibration_table(library, tmp_path, tiny_copy):
    with_table(tiny_copy)
    there = machine.Machine(library, str(tmp_path / "e"), "8.5.3")
    status, rows, err = build(there, tiny_copy, "--variant", "t-320x192-int8-calibrated")
    assert status == 0, err
    facts = files.read_json(rows[0]["path"][: -len("plan")] + "json")
    assert facts["built"]["flags"] == ["FP16", "INT8"]
    assert facts["recipe"]["calibration_sha256"] == files.sha256(os.path.join(tiny_copy, "calibration", "t.json"))


def test_a_cache_that_tensorrt_does_not_take_is_an_error_never_made_up_ranges(library, tmp_path, tiny_copy):
    with_table(tiny_copy)
    there = machine.Machine(library, str(tmp_path / "e"), "8.5.3", TENSORRT_DOUBLE_CACHE_VERSION="8599")
    status, _, err = build(there, tiny_copy, "--variant", "t-320x192-int8-calibrated")
    assert status == 1 and "did not take the calibration cache" in err and "TRT-8503-MinMaxCalibration" in err
    assert pairs(there.engines)[0] == set()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"onnx_sha256": "0" * 64}, "belongs to a different model"),
        ({"preprocessing": "stretch"}, "another preprocessing"),
    ],
)
def test_a_table_of_another_model_or_preprocessing_is_refused(library, tmp_path, tiny_copy, changes, words):
    with_table(tiny_copy, **changes)
    there = machine.Machine(library, str(tmp_path / "e"), "8.5.3")
    status, _, err = build(there, tiny_copy, "--variant", "t-320x192-int8-calibrated")
    assert status == 3 and words in err


def test_int8_without_a_table_and_on_a_tensorrt_without_calibrators(library, tmp_path, tiny_copy):
    os.unlink(with_table(tiny_copy))
    status, _, err = build(
        machine.Machine(library, str(tmp_path / "e"), "8.5.3"), tiny_copy, "--variant", "t-320x192-int8-calibrated"
    )
    assert status == 3 and "INT8 needs a calibration table" in err
    status, _, err = build(
        machine.Machine(library, str(tmp_path / "e"), "11.1"), tiny_copy, "--variant", "t-320x192-int8-calibrated"
    )
    assert status == 4 and "no calibrators" in err and "int8.onnx" in err


def test_layers_kept_in_higher_precision(library, tmp_path, tiny_copy):
    table_path = with_table(tiny_copy, layer_precisions={"int8": {"level_4": "fp16", "cls_8": "fp32"}, "fp16": {}})
    there = machine.Machine(library, str(tmp_path / "e"), "8.5.3")
    status, rows, err = build(there, tiny_copy, "--variant", "t-320x192-int8-calibrated")
    assert status == 0, err
    with open(rows[0]["path"], "rb") as file:
        head = json.loads(file.read().split(b"\n")[1].decode())
    assert "OBEY_PRECISION_CONSTRAINTS" in head["flags"]
    assert sorted(precision for _, precision in head["pinned"]) == ["DataType.FLOAT", "DataType.HALF"]
    calibration.write(table_path, calibration.read(table_path)._replace(layer_precisions={"int8": {"levl_4": "fp16"}}))
    status, _, err = build(there, tiny_copy, "--variant", "t-320x192-int8-calibrated")
    assert status == 3 and "the network has no layer 'levl_4'" in err and "did you mean 'level_4" in err


def test_calibration_from_images_through_the_runners_preprocessing(tmp_path, tiny_copy):
    library, site = machine.pycuda()
    with_table(tiny_copy)
    there = machine.Machine(library, str(tmp_path / "e"), "8.5.3", site)
    golden = os.path.join(tiny_copy, "golden")
    status, rows, err = build(
        there, tiny_copy, "--variant", "t-320x192-int8-calibrated", "--calibration-images", golden
    )
    assert status == 0, err
    assert "calibrating, image 4 of 4" in err
    facts = files.read_json(rows[0]["path"][: -len("plan")] + "json")
    assert calibration.parse_cache(facts["built"]["calibration_cache"]).scales["cls_8"] == 2.0
    with open(os.path.join(golden, "drawn_1.png"), "ab") as file:
        file.write(b"x")
    status, _, err = build(
        there, tiny_copy, "--variant", "t-320x192-int8-calibrated", "--calibration-images", golden, "--force"
    )
    assert status == 3 and "missing or has changed" in err and "drawn_1.png" in err
    assert pairs(there.engines)[0] == set()


# ------------------------------------------------------------------------------------------- broken models


def test_an_answer_larger_than_a_pipe_holds_is_no_hang(tmp_path, monkeypatch):
    """A calibration cache has a line per tensor: 64 KiB are soon full."""
    program = tmp_path / "worker"
    program.write_text(
        '#!/bin/sh\nexec {} -c "import json, sys; sys.stdin.read(); print(json.dumps('
        "{{'done': {{'calibration_cache': 'x' * 300000}}}}))\"\n".format(sys.executable)
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    done = build_process.run({}, str(tmp_path / "log"), lambda phase, seconds: None, 20.0, "/proc/meminfo")
    assert len(done["calibration_cache"]) == 300000


def test_a_file_that_tensorrt_cannot_parse_names_the_node_and_the_mend(library, tmp_path, tiny_copy):
    """The bundle's CPU file has int32 biases behind DequantizeLinear, which 8.2 cannot take."""
    path = os.path.join(tiny_copy, "manifest.json")
    value = files.read_json(path)
    base = next(v for v in value["variants"] if v["name"] == "t-320x192-int8-cpu")
    value["variants"].append(dict(base, name="t-320x192-wrong", precision="int8", runtimes=["tensorrt"]))
    files.write_json(path, value)
    there = machine.Machine(library, str(tmp_path / "e"), "8.2.1", FAKECUDA_CC="7.2")
    status, _, err = build(there, tiny_copy, "--variant", "t-320x192-wrong")
    assert status == 3
    assert "The bias tensor is required to be an initializer for the Conv operator" in err
    assert "leave the bias in float" in err and ", node " in err


# ------------------------------------------------------------------------------------------- killed, full, at once


def test_a_child_that_dies_is_told_with_its_phase_and_leaves_nothing(nano, tiny_bundle):
    status, _, err = build(nano.but(TENSORRT_DOUBLE_DIE=9), tiny_bundle, *ONE)
    assert status == 1 and "was killed while building" in err and "out of memory" in err
    status, _, err = build(nano.but(TENSORRT_DOUBLE_DIE=11), tiny_bundle, *ONE)
    assert status == 1 and "ended with status -11 while building" in err
    assert pairs(nano.engines)[0] == set()
    assert build(nano, tiny_bundle, *ONE)[0] == 0


def test_time_limit(nano, tiny_bundle):
    status, _, err = build(nano.but(TENSORRT_DOUBLE_BUILD_S=60), tiny_bundle, "--timeout", "6", *ONE)
    assert status == 1 and "longer than 6 s" in err
    assert pairs(nano.engines)[0] == set() and not glob.glob(nano.engines + "/.*.part")


def children(pid):
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            if int(read(path).rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.split("/")[2]))
        except OSError:  # ended meanwhile
            pass
    return found


def read(path):
    with open(path) as file:
        return file.read()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_builders_process_dies_with_its_parent(nano, tiny_bundle, how):
    process = nano.but(TENSORRT_DOUBLE_BUILD_S=120).start("-m", "jetson", "build", tiny_bundle, *ONE)
    born = []  # of one look: the process may have none a moment later, and another one after that
    wait_until(lambda: born.append(children(process.pid)) or born[-1])
    (child,) = born[-1]
    log = nano.engines + "/*.log"
    wait_until(lambda: any("timing tactics" in read(path) for path in glob.glob(log)))
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), err
    wait_until(lambda: not alive(child))
    check_folder(nano.engines)
    assert build(nano, tiny_bundle, *ONE)[0] == 0
    assert not glob.glob(nano.engines + "/.*.part"), "what the killed one left aside is swept"


def kill_at(where, bundle, moment):
    process = where.start("-m", "jetson", "build", bundle, *ONE)
    try:
        process.communicate(timeout=moment)
        done = True
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        done = False
    return done


def kill_many(nano, bundle, count, capsys):
    """Kill at moments spread over a build's measured duration; the seed is printed."""
    slow = nano.but(TENSORRT_DOUBLE_BUILD_S="0.4")
    started = time.monotonic()
    assert build(slow, bundle, *ONE)[0] == 0
    duration = time.monotonic() - started
    seed = random.randrange(1 << 30)
    with capsys.disabled():
        print(f"\nkill seed {seed}, build {duration:.2f} s")
    drawn = random.Random(seed)
    finished = 0
    for index in range(count):
        if index % 3 == 0:  # also over an engine that is there and is being replaced
            for path in glob.glob(nano.engines + "/*.plan"):
                with open(path, "ab") as file:
                    file.write(b"x")
        else:
            for path in glob.glob(nano.engines + "/*.plan"):
                os.unlink(path)
        moment = duration * (index + drawn.random()) / count
        finished += kill_at(slow, bundle, moment)
        plans, sidecars = pairs(nano.engines)
        assert plans <= sidecars, (seed, moment)
    status, rows, err = build(nano, bundle, *ONE)
    assert status == 0, err
    check_folder(nano.engines)
    assert len(pairs(nano.engines)[0]) == 1 and not glob.glob(nano.engines + "/.*.part")
    return finished


def test_killed_at_five_moments_never_leaves_a_plan_without_its_sidecar(nano, tiny_bundle, capsys):
    assert kill_many(nano, tiny_bundle, 5, capsys) < 5


@pytest.mark.full
def test_killed_at_forty_moments(nano, tiny_bundle, capsys):
    assert kill_many(nano, tiny_bundle, 40, capsys) < 40


@pytest.mark.parametrize("call", ["before sidecar", "after sidecar", "after plan"])
def test_killed_between_the_two_renames(nano, tiny_bundle, call):
    """The narrow moments that random kills seldom meet: stop exactly there."""
    code = """
import os, signal, sys
from jetson import __main__, cli, files
replace, seen = os.replace, []
def stop(source, target):
    if target.endswith(".json") and CALL == "before sidecar":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if (target.endswith(".json") and CALL == "after sidecar") or (target.endswith(".plan") and CALL == "after plan"):
        os.kill(os.getpid(), signal.SIGKILL)
CALL = {!r}
os.replace = stop
sys.exit(cli.main(sys.argv[1:], "jetson", __main__.VERBS))
""".format(call)
    status, _, _ = nano.run("-c", code, "build", tiny_bundle, *ONE)
    assert status == -9
    plans, sidecars = pairs(nano.engines)
    assert (len(plans), len(sidecars)) == {"before sidecar": (0, 0), "after sidecar": (0, 1), "after plan": (1, 1)}[
        call
    ]
    status, rows, err = build(nano, tiny_bundle, *ONE)
    assert status == 0 and rows[0]["cached"] is (call == "after plan"), err
    check_folder(nano.engines)


def test_two_builds_of_one_engine_at_once_build_it_once(nano, tiny_bundle):
    slow = nano.but(TENSORRT_DOUBLE_BUILD_S=1)
    both = [slow.start("-m", "jetson", "build", tiny_bundle, "--json", *ONE) for _ in range(2)]
    outs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    assert sorted(json.loads(out)["engines"][0]["cached"] for out, _ in outs) == [False, True]
    check_folder(nano.engines)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("kib", [4, 16])
def test_full_disk(nano, tiny_bundle, tmp_path, kib):
    """A file system of a few KiB under the cache: exit 1, a clear message, nothing half-written that is used."""
    folder = str(tmp_path / "small")
    os.mkdir(folder)
    mount = [
        "unshare",
        "-m",
        "sh",
        "-c",
        f'mount -t tmpfs -o size={kib}k,mode=700 none "$1" && shift && "$@"; s=$?; ls -A "$0"; exit $s',
        folder,
        folder,
    ]
    if subprocess.run(mount + ["true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE).returncode:
        pytest.skip("no mount namespace here")
    done = subprocess.run(
        mount + [sys.executable, "-m", "jetson", "build", tiny_bundle, "--engines", folder] + ONE,
        env=nano.env,
        cwd=machine.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert done.returncode == 1, done.stderr
    assert "no space left on the disk" in done.stderr and "internal error" not in done.stderr
    assert ".plan\n" not in done.stdout.replace(".plan.", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_an_engine_that_is_there_needs_no_disk_to_write_to(nano, tiny_bundle):
    """An SD card that the kernel has set to read-only must not keep the runner from starting."""
    assert build(nano, tiny_bundle, *ONE)[1][0]["cached"] is False
    mount = [
        "unshare",
        "-m",
        "sh",
        "-c",
        'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"',
        nano.engines,
    ]
    if subprocess.run(mount + ["true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE).returncode:
        pytest.skip("no mount namespace here")
    done = subprocess.run(
        mount + [sys.executable, "-m", "jetson", "build", tiny_bundle, "--json"] + ONE,
        env=nano.env,
        cwd=machine.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["engines"][0]["cached"] is True


def test_the_bundles_own_int8_file_is_in_the_manifest(tiny_bundle):
    """The matrix above rests on these variants being there."""
    names = {v.name: v.precision for v in manifest.load(tiny_bundle).variants if "tensorrt" in v.runtimes}
    assert names == {f"t-{wh}-{p}": p for wh in ("320x192", "416x256") for p in ("fp32", "fp16", "int8")}


# ------------------------------------------------------------------------------------------------- INT8 anyway


def test_int8_on_a_nano_is_refused_and_calibrated_where_somebody_asks_for_it(nano, tiny_bundle):
    words = ("--variant", "t-320x192-int8")
    status, _, errors = build(nano, tiny_bundle, *words)
    assert status == 4 and "no INT8 hardware" in errors and "--int8-anyway" in errors
    status, rows, errors = build(nano, tiny_bundle, *words, "--int8-anyway")
    assert status == 0, errors
    assert "no INT8 arithmetic" in rows[0]["note"] and "torch2trt#255" in rows[0]["note"]
    facts = files.read_json(rows[0]["path"][: -len("plan")] + "json")
    assert facts["recipe"]["onnx_sha256"] == files.sha256(os.path.join(tiny_bundle, "models", "t.onnx"))
    assert facts["recipe"]["flags"] == ["int8-anyway"] and facts["built"]["flags"] == ["FP16", "INT8"]
    assert facts["recipe"]["calibration_sha256"], "by the bundle's table, which the calibrator gives as its cache"
    assert "no INT8 arithmetic" in nano.run("-m", "jetson", "build", tiny_bundle, *words, "--int8-anyway")[1]


def test_int8_anyway_changes_nothing_where_the_gpu_has_it(library, tmp_path, tiny_bundle):
    there = machine.Machine(library, str(tmp_path / "engines"), "8.5.3")
    status, rows, errors = build(there, tiny_bundle, "--variant", "t-320x192-int8", "--int8-anyway")
    assert status == 0 and "note" not in rows[0], errors
    facts = files.read_json(rows[0]["path"][: -len("plan")] + "json")
    assert facts["recipe"]["flags"] == []
    assert facts["recipe"]["onnx_sha256"] == files.sha256(os.path.join(tiny_bundle, "models", "t.int8.onnx"))


def test_int8_anyway_needs_the_float_file_and_its_calibration(nano, tiny_copy):
    os.unlink(os.path.join(tiny_copy, "calibration", "t.json"))
    status, _, errors = build(nano, tiny_copy, "--variant", "t-320x192-int8", "--int8-anyway")
    assert status == 3 and "calibration" in errors


def test_the_timings_of_a_build_that_failed_are_kept(nano, tiny_bundle, tmp_path):
    got = nano.python(
        """
import json, sys
import tensorrt
from jetson.engine import tensorrt_network
from jetson.errors import JetmaskError
kept = []
try:
    tensorrt_network.build_plan(tensorrt, sys.argv[1], (320, 192), "fp32", 1000, keep_timings=kept.append)
except JetmaskError as error:
    print(json.dumps([str(error.what), len(kept), bool(kept[0])]))
""",
        os.path.join(tiny_bundle, "models", "t.onnx"),
    )
    assert "workspace" in got[0] and got[1:] == [1, True]
