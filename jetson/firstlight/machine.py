"""Steps about the machine: what it is, and whether the modules that it needs can be loaded and used."""

import os
import platform
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

from jetson import doctor
from jetson.firstlight.step import FAIL, PASS, Known, Outcome, Say, Settings
from jetson.monitor import board

IMPORT_S = 300.0  # TensorRT's libraries come from an SD card the first time
# name -> (needed: always, on a GPU, or never; what is done with it: a wheel for another processor dies only then)
_MODULES = (
    ("numpy", "always", "a = numpy.ones((64, 64), 'f4'); assert (a @ a)[0, 0] == 64"),
    ("cv2", "always", "import numpy; cv2.resize(numpy.zeros((64, 64, 3), 'u1'), (32, 32))"),
    ("tensorrt", "gpu", "tensorrt.Builder"),
    ("pycuda.driver", "gpu", "pycuda.driver.init(); pycuda.driver.Device(0).compute_capability()"),
    ("onnxruntime", "always", "onnxruntime.SessionOptions()"),
    ("prometheus_client", "never", "prometheus_client.CollectorRegistry()"),
    ("paho.mqtt.client", "never", "paho.mqtt.client.Client"),
    ("ai_edge_litert.interpreter", "never", "ai_edge_litert.interpreter.Interpreter"),
)


def short(version: str) -> str:
    """A version in three parts: with four it looks like an address, which the report has to leave out.

    >>> short("8.2.1.8"), short("1.19.5")
    ('8.2.1', '1.19.5')
    """
    return ".".join(version.split(".")[:3])


def stand_in(root: str = "/") -> Optional[str]:
    """Why what happens here says nothing about a Jetson; None on one."""
    reasons = []
    if platform.machine() != "aarch64":
        reasons.append(f"the processor is {platform.machine()}")
    if doctor.l4t_release(root) is None:
        reasons.append("no L4T release file")
    return "no Jetson: " + ", ".join(reasons) if reasons else None


def has_gpu(root: str = "/") -> bool:
    """Whether this machine is to run TensorRT: a Jetson, or an image that was built for one."""
    return doctor.l4t_release(root) is not None or os.environ.get("JETMASK_EXPECT_GPU") == "1"


def look(settings: Settings, known: Known, say: Say) -> Outcome:
    """Board, system, memory, disk, clock: as doctor sees them."""
    found = doctor.board(settings.root) + doctor.place(doctor.state_folder()) + doctor.clock()
    bad = [finding for finding in found if finding.level == "bad"]
    warned = [finding for finding in found if finding.level == "warn"]
    measured: Dict[str, Any] = dict(board.describe(), findings=[list(finding) for finding in found])
    measured["l4t"] = ".".join(map(str, doctor.l4t_release(settings.root) or ())) or None
    if bad:
        return Outcome(FAIL, "; ".join(f"{finding.found} (do: {finding.remedy})" for finding in bad), measured)
    text = found[0].found
    if measured["power_mode"]:
        text += ", power mode " + measured["power_mode"]
    for finding in warned:
        text += f"; {finding.topic}: {finding.found}"
    return Outcome(PASS, text, measured)


def imports(settings: Settings, known: Known, say: Say) -> Outcome:
    """Load each module in a process of its own and use it: one for another processor ends the process that does."""
    rows: List[Dict[str, Any]] = []
    lacking = []
    for name, need, use in _MODULES:
        say(name)
        row = _tried(name, use)
        rows.append(row)
        if row["error"] and (need == "always" or (need == "gpu" and has_gpu(settings.root))):
            lacking.append(f"{name}: {row['error']}")
    here = ", ".join(f"{row['module']} {short(row['version'])}" for row in rows if not row["error"])
    if lacking:
        return Outcome(FAIL, "; ".join(lacking), {"modules": rows})
    return Outcome(PASS, f"Python {platform.python_version()}, {here}", {"modules": rows})


def _tried(name: str, use: str) -> Dict[str, Any]:
    code = (
        f"import {name}\n{use}\nimport {name.split('.')[0]} as top\n"
        "print('\\n@', getattr(top, '__version__', None) or getattr(top, 'VERSION_TEXT', 'present'))"
    )
    began = time.monotonic()
    status, text = _python(code)
    row: Dict[str, Any] = {
        "module": name,
        "version": None,
        "error": None,
        "seconds": round(time.monotonic() - began, 2),
    }
    if status == 0:
        row["version"] = text.rpartition("@ ")[2].strip()
    else:
        row["error"] = _reason(status, text)
    return row


def _python(code: str) -> Tuple[Optional[int], str]:
    """(exit status, None where it hangs; its output)."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.environ.get("PYTHONPATH")
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=IMPORT_S,
            env=dict(os.environ, PYTHONPATH=here + (os.pathsep + path if path else "")),
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _reason(status: Optional[int], text: str) -> str:
    if status is None:
        return f"it hangs: no end within {IMPORT_S:.0f} s"
    if status < 0:
        return f"it ends the process with signal {-status}" + (" (illegal instruction)" if status == -4 else "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {status}"
