"""A pretended NVIDIA machine for child processes: the driver stand-in, the TensorRT double, a real pycuda.

The dynamic loader looks for libcuda when a process starts, so what needs it runs in a child: `Machine.python(code)`.
"""

import json
import os
import signal
import subprocess
import sys

import pytest

DOUBLES = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(DOUBLES))
# What each TensorRT of the matrix runs on: a Nano, an AGX Xavier (8.5: both interfaces), an Orin Nano, an x86 card.
MATRIX = {
    "8.2.1": ("NVIDIA Tegra X1", "5.3"),
    "8.5.3": ("Xavier", "7.2"),
    "10.3.0": ("Orin", "8.7"),
    "11.1": ("NVIDIA L4", "8.9"),
}


def cache():
    """The folder for what is slow to make: $JETMASK_CACHE, else the user's cache."""
    return os.environ.get("JETMASK_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "jetmask"
    )


def _last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def driver(folder):
    """Build the driver stand-in into `folder`; skips where there is no C compiler."""
    done = subprocess.run(
        ["sh", os.path.join(DOUBLES, "fakecuda", "build.sh"), folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    if done.returncode:
        pytest.skip("the driver stand-in cannot be built: " + _last_line(done.stdout))
    return folder


def pycuda():
    """(library folder, site folder) of a real pycuda for this interpreter; skips where it cannot be built."""
    try:
        done = subprocess.run(
            ["sh", os.path.join(DOUBLES, "build_pycuda.sh"), sys.executable, cache()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            timeout=1500,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("building pycuda took over 25 minutes; do it beforehand: sh tests/doubles/build_pycuda.sh PYTHON")
    if done.returncode:
        pytest.skip("pycuda cannot be built here: " + _last_line(done.stderr))
    out = _last_line(done.stdout)
    return os.path.join(out, "lib"), os.path.join(out, "site")


class Machine:
    """Environment of a pretended machine. `engines`: its engine cache."""

    def __init__(self, library, engines, tensorrt="8.2.1", site=None, **variables):
        name, capability = MATRIX[tensorrt]
        path = [ROOT, os.path.join(DOUBLES, "tensorrt_double")] + ([site] if site else [])
        self.env = dict(
            os.environ,
            LD_LIBRARY_PATH=library,
            PYTHONPATH=os.pathsep.join(path),
            JETMASK_ENGINES=engines,
            TENSORRT_DOUBLE=tensorrt,
            FAKECUDA_NAME=name,
            FAKECUDA_CC=capability,
            OMP_NUM_THREADS="1",
        )
        self.env.update({key: str(value) for key, value in variables.items()})
        self.engines = engines

    def but(self, **variables):
        """The same machine with other variables; None removes one."""
        other = object.__new__(Machine)
        other.engines = variables.get("JETMASK_ENGINES", self.engines)
        other.env = {key: value for key, value in self.env.items() if variables.get(key, "") is not None}
        other.env.update({key: str(value) for key, value in variables.items() if value is not None})
        return other

    def start(self, *arguments):
        """A child process on this machine, its output in pipes; Ctrl-C reaches it even if we were started without."""
        return subprocess.Popen(
            [sys.executable] + list(arguments),
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            cwd=ROOT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments, timeout=120):
        """Run a child; (exit status, stdout, stderr)."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"no end after {timeout} s: {out}\n{err}") from None
        return process.returncode, out, err

    def python(self, code, *arguments, timeout=120):
        """Run Python code that prints one JSON value last; that value."""
        status, out, err = self.run("-c", code, *arguments, timeout=timeout)
        assert status == 0, f"status {status}\n{out}\n{err}"
        return json.loads(out.splitlines()[-1])
