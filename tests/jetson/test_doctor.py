"""`python3 -m jetson doctor` from outside, on machines that lack something: each finding with its remedy."""

import json
import os
import shutil
import subprocess
import sys

import machine
import pytest

from jetson import doctor

ROOT = machine.ROOT


def ask(*words, **variables):
    """(exit code, {topic: finding of the highest level}) of the command, with changes of its environment."""
    env = dict(os.environ, PYTHONPATH=variables.pop("PYTHONPATH", ""))
    env.update(variables)
    done = subprocess.run(
        [sys.executable, "-m", "jetson", "doctor", "--json"] + list(words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=env,
        cwd=ROOT,
    )
    assert "Traceback" not in done.stderr, done.stderr
    answer = json.loads(done.stdout)
    found = {}
    for finding in answer["findings"]:
        order = ("bad", "warn", "info", "ok")
        kept = found.get(finding["topic"])
        if kept is None or order.index(finding["level"]) < order.index(kept["level"]):
            found[finding["topic"]] = finding
    assert answer["ok"] == (done.returncode == 0)
    return done.returncode, found


def hide(folder, *modules):
    """A folder for PYTHONPATH in which these modules cannot be imported."""
    for name in modules:
        with open(os.path.join(str(folder), name + ".py"), "w") as file:
            file.write(f"raise ImportError('no {name} here')\n")
    return str(folder)


def test_a_machine_that_has_what_is_needed(tmp_path):
    status, found = ask("--state", str(tmp_path))
    assert status == 0
    assert found["numpy"]["level"] == found["cv2"]["level"] == found["clock"]["level"] == "ok"
    assert "GiB" in found["memory"]["found"] and "GiB free" in found["disk"]["found"]
    assert found["bundle"]["level"] == "info" and "jetmask deploy" in found["bundle"]["remedy"]
    done = subprocess.run(
        [sys.executable, "-m", "jetson", "doctor", "--state", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )
    assert done.returncode == 0 and "0 of " in done.stdout and "need something done" in done.stdout


def test_missing_modules_are_named_with_the_command_that_brings_them(tmp_path):
    status, found = ask(PYTHONPATH=hide(tmp_path, "numpy", "cv2", "prometheus_client"))
    assert status == 4
    for name in ("numpy", "cv2"):
        assert found[name]["level"] == "bad" and "pip install -r" in found[name]["remedy"]
        assert os.path.isfile(found[name]["remedy"].split()[-1])
    assert found["prometheus_client"]["level"] == "info"


def test_warnings_of_a_module_are_not_taken_for_its_version(tmp_path):
    (tmp_path / "tensorrt.py").write_text("import warnings\nwarnings.warn('since 1.20')\n__version__ = '8.5.2.2'\n")
    (tmp_path / "prometheus_client.py").write_text(
        "import atexit, sys\natexit.register(sys.stderr.write, 'late words')\n__version__ = '0.14.1'\n"
    )
    found = ask(
        PYTHONPATH=str(tmp_path),
        LD_LIBRARY_PATH=machine.driver(str(tmp_path / "driver")),
        FAKECUDA_NAME="NVIDIA Tegra X1",
        FAKECUDA_CC="5.3",
    )[1]
    assert found["prometheus_client"]["found"] == "0.14.1"
    assert found["tensorrt"]["level"] != "bad"


def test_a_machine_on_which_no_engine_can_run(tmp_path):
    status, found = ask(PYTHONPATH=hide(tmp_path, "onnxruntime", "ai_edge_litert", "tensorrt", "tensorrt_rtx"))
    assert status == 4
    assert found["engine"]["level"] == "bad" and "pip install -r" in found["engine"]["remedy"]


def test_a_container_without_the_gpu_names_the_library_and_the_flag():
    status, found = ask("--gpu", JETMASK_EXPECT_GPU="1")
    assert status == 4 and "libcuda.so.1" in found["gpu"]["found"]
    assert "--runtime nvidia" in found["gpu"]["remedy"] and "csv-mounts=all" in found["gpu"]["remedy"]


def test_a_gpu_that_is_there_and_a_tensorrt_that_is_too_old(tmp_path):
    library = machine.driver(str(tmp_path / "driver"))
    gpu = {"LD_LIBRARY_PATH": library, "FAKECUDA_NAME": "NVIDIA Tegra X1", "FAKECUDA_CC": "5.3"}
    (tmp_path / "tensorrt.py").write_text("__version__ = '8.0.1.6'\n")
    (tmp_path / "pycuda.py").write_text("raise ImportError('not built')\n")
    status, found = ask("--gpu", PYTHONPATH=str(tmp_path), **gpu)
    assert status == 4 and found["gpu"]["found"] == "NVIDIA Tegra X1, compute capability 5.3"
    assert found["tensorrt"]["level"] == "bad" and "JetPack 4.6.1" in found["tensorrt"]["remedy"]
    assert "pycuda" in found["pycuda"]["remedy"]
    (tmp_path / "tensorrt.py").write_text("__version__ = '8.2.1.8'\n")
    status, found = ask("--gpu", PYTHONPATH=str(tmp_path), **gpu)
    assert status == 0 and found["pycuda"]["level"] == "warn"
    status, found = ask("--gpu", PYTHONPATH=str(tmp_path), **dict(gpu, FAKECUDA_DEVICES="0", JETMASK_EXPECT_GPU="1"))
    assert status == 4 and "no CUDA-capable device" in found["gpu"]["found"]


def test_another_products_package_of_the_same_name(tmp_path):
    other = tmp_path / "site-packages"
    (other / "jetson").mkdir(parents=True)
    (other / "jetson" / "__init__.py").write_text("")
    status, found = ask(PYTHONPATH=str(other))
    assert found["package"]["level"] == "warn" and str(other) in found["package"]["found"]


def test_a_damaged_bundle_and_engines_that_others_can_read(tmp_path, tiny_bundle):
    os.makedirs(str(tmp_path / "bundles"))
    shutil.copytree(tiny_bundle, str(tmp_path / "bundles" / "d1"))
    os.symlink("bundles/d1", str(tmp_path / "current"))
    assert ask("--state", str(tmp_path))[1]["bundle"]["level"] == "ok"
    with open(str(tmp_path / "current" / "models" / "t.onnx"), "ab") as file:
        file.write(b"x")
    (tmp_path / "engines").mkdir(mode=0o755)
    status, found = ask("--state", str(tmp_path))
    assert status == 4 and found["bundle"]["level"] == "bad" and "--rollback" in found["bundle"]["remedy"]
    assert found["engines"]["level"] == "warn" and "chmod 700" in found["engines"]["remedy"]


# A machine's own files, in a folder.
@pytest.mark.parametrize(
    "release,level,words",
    [
        ("# R32 (release), REVISION: 7.1, GCID: 1", "ok", "JetPack 4.6.1 or later, TensorRT 8.2"),
        ("# R32 (release), REVISION: 6.1, GCID: 1", "bad", "JetPack 4.6, TensorRT 8.0"),
        ("# R35 (release), REVISION: 4.1, GCID: 1", "ok", "TensorRT 8.5"),
        ("# R36 (release), REVISION: 4.3, GCID: 1", "ok", "JetPack 6.1 or 6.2, TensorRT 10.3"),
        ("# R31 (release), REVISION: 1.0, GCID: 1", "bad", "unknown"),
    ],
)
def test_l4t_releases(tmp_path, release, level, words):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_text(release + "\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 4059316 kB\nMemAvailable: 500000 kB\nSwapTotal: 0 kB\n")
    board, memory = doctor.board(str(tmp_path))
    assert board.level == level and words in board.found
    assert level == "ok" or "JetPack 4.6.1" in board.remedy
    assert memory.level == "warn" and "add swap" in memory.remedy and "3.9 GiB" in memory.found


def test_cameras(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_text("# R32 (release), REVISION: 7.1\n")
    found = {finding.topic: finding for finding in doctor.camera(str(tmp_path))}
    assert found["camera"].level == "info" and "--device /dev/video0" in found["camera"].remedy
    assert "nvargus-daemon" in found["csi"].remedy
    (tmp_path / "dev" / "video0").write_text("")
    found = {finding.topic: finding for finding in doctor.camera(str(tmp_path))}
    assert found["camera"].level == "ok" and found["camera"].found.endswith("dev/video0")
    if os.geteuid():
        os.chmod(str(tmp_path / "dev" / "video0"), 0)
        found = {finding.topic: finding for finding in doctor.camera(str(tmp_path))}
        assert "usermod -aG video" in found["camera"].remedy


@pytest.mark.parametrize("python, name", [((3, 6, 9), "4"), ((3, 8, 10), "5"), ((3, 10, 12), "6"), ((3, 12, 1), "6")])
def test_the_list_of_modules_fits_the_python_of_each_jetpack(monkeypatch, python, name):
    monkeypatch.setattr(sys, "version_info", python)
    path = doctor.requirements_file()
    assert os.path.basename(path) == f"requirements-jetpack{name}.txt" and os.path.isfile(path)


def test_a_library_without_room_for_its_thread_local_data_is_told_with_the_way_out(tmp_path):
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('/usr/lib/aarch64-linux-gnu/libgomp.so.1: cannot allocate memory in static TLS block')\n"
    )
    status, found = ask(PYTHONPATH=str(tmp_path))
    assert status == 4 and found["cv2"]["level"] == "bad"
    assert found["cv2"]["remedy"].startswith("export LD_PRELOAD=/usr/lib/aarch64-linux-gnu/libgomp.so.1 ")


def test_a_pycuda_that_is_too_old(tmp_path):
    library = machine.driver(str(tmp_path / "driver"))
    (tmp_path / "tensorrt.py").write_text("__version__ = '8.2.1.8'\n")
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").write_text("VERSION = (2019, 1, 2)\n")
    (tmp_path / "pycuda" / "driver.py").write_text("class Device: pass\n")
    _, found = ask("--gpu", PYTHONPATH=str(tmp_path), LD_LIBRARY_PATH=library)
    assert found["pycuda"]["level"] == "warn" and "2019.1.2" in found["pycuda"]["found"]
    assert "2022.1" in found["pycuda"]["remedy"]
    (tmp_path / "pycuda" / "driver.py").write_text("class Device:\n    def retain_primary_context(self): pass\n")
    assert "pycuda" not in ask("--gpu", PYTHONPATH=str(tmp_path), LD_LIBRARY_PATH=library)[1]


@pytest.mark.parametrize(
    "processor, own, expected", [("aarch64", None, "ARMV8"), ("aarch64", "X", "X"), ("x86_64", None, None)]
)
def test_numpy_for_python_36_is_kept_from_an_illegal_instruction_wherever_a_verb_begins(processor, own, expected):
    env = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
    if own:
        env["OPENBLAS_CORETYPE"] = own
    code = (
        f"import platform, sys; platform.machine = lambda: {processor!r}; sys.version_info = (3, 6, 9)\n"
        "import jetson.__main__, os; assert 'numpy' not in sys.modules; print(os.environ.get('OPENBLAS_CORETYPE'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode().strip() == str(expected)
