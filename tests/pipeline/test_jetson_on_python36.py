"""The device's tests once more, under the Python and the pinned packages of the device."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON36 = os.environ.get("JETMASK_PYTHON36")


# What differs most between the two Pythons and their numpy and OpenCV, and is quick: the way of a frame, and files.
CORE = (
    "bundle",
    "config",
    "evaluation",
    "events",
    "tracking",
    "vision",
    "test_cli.py",
    "test_files.py",
    "test_logs.py",
)

needs_python36 = pytest.mark.skipif(not PYTHON36, reason="JETMASK_PYTHON36 is not set (make setup36 makes one)")


@pytest.mark.py36
@needs_python36
def test_the_core_passes_under_python36():
    _passes(_paths(*CORE), processes=1)


@pytest.mark.py36
@pytest.mark.slow
@needs_python36
def test_the_rest_of_the_device_passes_under_python36():
    core = set(_paths(*CORE))
    # Two at once: many of them wait for processes and clocks.
    _passes([path for path in _paths(".") if path not in core], processes=2)


def _paths(*parts):
    here = ROOT / "tests" / "jetson"
    found = []
    for part in parts:
        found += [here / part] if part.endswith(".py") else (here / part).rglob("test_*.py")
    assert found
    return sorted(str(path) for path in found if not path.stem.endswith(("_properties", "_host")))


def _passes(paths, processes):
    code = "import sys, numpy, cv2; print(sys.version_info[:2], numpy.__version__, cv2.__version__)"
    found = subprocess.run([PYTHON36, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.startswith("(3, 6) 1.19.5 4.6"), found
    parts = [
        subprocess.Popen(
            [PYTHON36, "-m", "pytest", "-q", "-rs", "--durations=5", *paths[first::processes]],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for first in range(processes)
    ]
    try:
        with ThreadPoolExecutor(processes) as pool:
            said = [one[0] for one in pool.map(lambda part: part.communicate(timeout=900), parts)]
    finally:
        for part in parts:
            part.kill()
    for part, text in zip(parts, said, strict=True):
        print(text[-4000:])
        assert part.returncode == 0, text[-8000:]
        assert " passed" in text
