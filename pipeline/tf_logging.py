"""Keeps TensorFlow's notes on its own start off the screen: its libraries write some before they read any log level."""

import importlib.abc
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import PathFinder
from typing import Any

# "I0000 00:00:1795679298.700837   27633 port.cc:153] oneDNN ... are on", and the line that announces such ones.
_NOTE = re.compile(rb"I\d{4} \d\d:\d\d:|WARNING: All log messages before absl::InitializeLog\(\)")


class _Start(importlib.abc.MetaPathFinder):
    """Loads the package called tensorflow with its notes left out, whoever imports it first."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != "tensorflow":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            with without_notes():
                load(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def tensorflow(cpuinfo: str = "/proc/cpuinfo") -> None:
    """From here on an import of TensorFlow says only what matters. Where it would end the process, because an x86
    processor has no AVX, nothing is held back: its reason would be lost."""
    # Of what it calls errors, most are libraries and instructions that this machine lacks and it does without; what
    # ends an operation is an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # "Tracing is expensive …": each input size of a training is traced once, on purpose.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with suppress(OSError), open(cpuinfo) as file:
        if "flags" in (text := file.read()) and " avx" not in text:
            return
    sys.meta_path.insert(0, _Start())


@contextmanager
def without_notes() -> Iterator[None]:
    """What libraries and Python write to stderr inside comes when the block ends, notes left out. Where stderr is
    closed or no file can be written, everything comes at once, as it would without this."""
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    try:
        aside = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:
        os.close(kept)
        yield
        return
    try:
        os.dup2(aside.fileno(), 2)
        yield
    finally:
        with suppress(OSError, ValueError, AttributeError):  # no sys.stderr, or a closed one
            sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        aside.seek(0)
        with suppress(OSError):
            os.write(2, b"".join(line for line in aside if not _NOTE.match(line)))
        aside.close()
