"""The device's tests once more, under the Python and the pinned packages of the device."""

import os
import subprocess
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
    done = subprocess.run([PYTHON36, "-m", "pytest", "-q", "-rs", "--durations=5", "tests/jetson"], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900)
    print(done.stdout[-4000:])
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
