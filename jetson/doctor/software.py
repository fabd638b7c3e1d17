"""The interpreter, the modules it needs, and the engines that can run with them."""

import importlib
import os
import platform
import re
import subprocess
import sys
from typing import List, Optional, Tuple

from jetson.bundle import manifest
from jetson.doctor.finding import Finding

STATIC_TLS = "cannot allocate memory in static TLS block"
LIBGOMP = "/usr/lib/aarch64-linux-gnu/libgomp.so.1"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def import_of(name: str, timeout_s: float = 60) -> Tuple[Optional[str], str]:
    """(the version of a module, "") or (None, why it cannot be imported: the last line that Python says).

    In a process of its own: a wheel built for another processor kills the one that imports it.
    """
    code = f"import {name}; print(getattr({name}, '__version__', 'present'))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return None, str(error)
    lines = (done.stdout if done.returncode == 0 else done.stderr).decode("utf-8", "replace").strip().splitlines()
    if done.returncode == 0:
        return (lines or ["present"])[-1], ""
    return None, f"killed by signal {-done.returncode}" if done.returncode < 0 else (lines or [""])[-1]


def preload(why: str) -> str:
    """What to do where the loader has no room left for a library's thread-local data (glibc before 2.32, aarch64).

    The library that it names must be loaded before all others.

    >>> preload("ImportError: /usr/lib/aarch64-linux-gnu/libgomp.so.1: cannot allocate memory in static TLS block")
    'export LD_PRELOAD=/usr/lib/aarch64-linux-gnu/libgomp.so.1 before Python starts'
    """
    match = re.search(r"(/\S+?\.so[.\d]*): " + STATIC_TLS, why)
    return f"export LD_PRELOAD={match.group(1) if match else LIBGOMP} before Python starts"


def python() -> List[Finding]:
    """The interpreter and the modules it needs, with the foreign `jetson` that another product installs."""
    found = [
        Finding(
            "ok" if sys.version_info >= (3, 6) else "bad",
            "python",
            f"{platform.python_version()} ({sys.executable})",
            "",
        )
    ]
    for name, need in (("numpy", True), ("cv2", True), ("prometheus_client", False), ("paho.mqtt", False)):
        version, why = import_of(name)
        install = f"python3 -m pip install -r {requirements_file()}"
        if version is not None:
            found.append(Finding("ok", name, version, ""))
        elif STATIC_TLS in why:
            found.append(Finding("bad" if need else "warn", name, "cannot be imported: " + why, preload(why)))
        elif need:
            found.append(Finding("bad", name, f"cannot be imported{': ' + why if why else ''}", install))
        else:
            use = "--mqtt" if name == "paho.mqtt" else "/metrics"
            found.append(Finding("info", name, f"not installed; only {use} needs it", install))
    foreign = foreign_package()
    if foreign:
        found.append(
            Finding(
                "warn",
                "package",
                f"another product's `jetson` package is at {foreign}",
                "start ours from its own folder (cd /opt/jetmask/<version>), as the service does",
            )
        )
    return found


def requirements_file() -> str:
    """The list of pinned modules for this interpreter."""
    jetpack = 4 if sys.version_info < (3, 8) else 5 if sys.version_info < (3, 10) else 6
    return os.path.join(_PACKAGE, f"requirements-jetpack{jetpack}.txt")


def foreign_package() -> Optional[str]:
    """Where a `jetson` package that is not this one lies on Python's path; None when there is none."""
    own = _PACKAGE
    for folder in sys.path:
        path = os.path.abspath(os.path.join(folder or ".", "jetson"))
        if (
            os.path.isdir(path)
            and os.path.realpath(path) != os.path.realpath(own)
            and (os.path.isfile(os.path.join(path, "__init__.py")))
            and "packages" in path
        ):
            return path
    return None


def runtimes() -> List[Finding]:
    """Which engines can run here."""
    found, usable = [], 0
    for name in manifest.RUNTIMES:
        try:
            reason = importlib.import_module("jetson.engine").reason(name)  # type: Optional[str]
        except ImportError as error:
            reason = str(error)
        usable += reason is None
        found.append(Finding("info" if reason else "ok", "engine", f"{name}: {reason or 'usable'}", ""))
    if not usable:
        found.append(
            Finding("bad", "engine", "no engine can run here", f"python3 -m pip install -r {requirements_file()}")
        )
    return found
