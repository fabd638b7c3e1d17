"""`jetmask doctor` from outside: what this workstation has, what it lacks, and what to do about it."""

import json
import os
import subprocess
import sys


def _ask(*words, **variables):
    env = {key: value for key, value in dict(os.environ, **variables).items() if value is not None}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "doctor", *words], capture_output=True, text=True, env=env
    )
    assert "Traceback" not in done.stderr
    return done


def _found(done):
    return {finding["topic"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_this_workstation(tmp_path):
    done = _ask()
    assert done.returncode == 0 and "of" in done.stdout and "need something done" in done.stdout
    found = _found(_ask("--json", JETMASK_DATA=None))
    for topic in ("python", "numpy", "opencv-python-headless", "onnxruntime", "cpu", "disk", "shipped bundle", "clock"):
        assert found[topic]["level"] == "ok", found[topic]
    assert "JETMASK_DATA=DIR" in found["data"]["remedy"]
    assert all(f["remedy"] for f in found.values() if f["level"] in ("warn", "bad"))


def test_what_is_missing_is_named_with_the_command_that_brings_it(tmp_path):
    found = _found(_ask("--json", PATH=str(tmp_path), JETMASK_DATA=str(tmp_path)))
    assert found["ssh"]["remedy"] == "sudo apt-get install openssh-client"
    assert found["rsync"]["remedy"] == "sudo apt-get install rsync"
    assert "gstreamer1.0-tools" in found["gst-launch-1.0"]["remedy"]
    assert found["data"]["level"] == "warn" and "jetmask data import" in found["data"]["remedy"]
    assert found["images"]["level"] == "info"


def test_a_missing_library_is_bad_and_has_its_remedy(tmp_path):
    """Python's own list of what is installed, without onnxruntime and TensorFlow."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name in ('onnxruntime', 'tensorflow-cpu', 'tensorflow'):\n"
        "        raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
    )
    done = _ask("--json", PYTHONPATH=str(tmp_path))
    found = _found(done)
    assert done.returncode == 4
    assert found["onnxruntime"]["level"] == "bad" and found["onnxruntime"]["remedy"] == "pip install ."
    text = _ask(PYTHONPATH=str(tmp_path)).stdout
    assert "tensorflow-cpu" in text and "pip install '.[train]'" in text
