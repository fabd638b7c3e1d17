"""The device's tests once more, under the Python and the pinned packages of the device."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON36 = os.environ.get("JETMASK_PYTHON36")


@pytest.mark.py36
@pytest.mark.skipif(not PYTHON36, reason="JETMASK_PYTHON36 is not set (make setup36 makes one)")
def test_device_tests_pass_under_python36():
    code = "import sys, numpy, cv2; print(sys.version_info[:2], numpy.__version__, cv2.__version__)"
    found = subprocess.run([PYTHON36, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.startswith("(3, 6) 1.19.5 4.6"), found
    paths = sorted(
        str(path)
        for path in (ROOT / "tests" / "jetson").rglob("test_*.py")
        if not path.stem.endswith(("_properties", "_host"))
    )
    # Two at once: many of them wait for processes and clocks.
    halves = [
        subprocess.Popen(
            [PYTHON36, "-m", "pytest", "-q", "-rs", "--durations=5", *paths[first::2]],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for first in (0, 1)
    ]
    try:
        with ThreadPoolExecutor(2) as both:
            said = [one[0] for one in both.map(lambda half: half.communicate(timeout=900), halves)]
    finally:
        for half in halves:
            half.kill()
    for half, text in zip(halves, said, strict=True):
        print(text[-4000:])
        assert half.returncode == 0, text[-8000:]
        assert " passed" in text
