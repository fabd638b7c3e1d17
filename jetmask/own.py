"""Whether `pipeline` and `jetson`, which jetmask is made of, are its own: others have packages of these names too.

Python takes the first `pipeline` on its path. If that is another project's, or a file pipeline.py, every command would
run into it with an error that names nothing, or without one.
"""

import importlib.util
import os
import sys

NAMES = ("jetson", "pipeline")
# A file of ours in each: a folder of this name without it is somebody else's, or one that another wheel wrote over.
_MARKS = {"jetson": ("__init__.py", "jetmask on the device"), "pipeline": ("__init__.py", "jetmask on the workstation")}


class NotOurs(ImportError):
    """Says which file stands in the way and what to do."""


def check() -> None:
    """NotOurs (an ImportError) where `import pipeline` or `import jetson` would load something else than jetmask's."""
    home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for name in NAMES:
        expected = os.path.join(home, name)
        loaded = sys.modules.get(name)
        if loaded is not None:
            found = getattr(loaded, "__file__", None)
        else:
            spec = importlib.util.find_spec(name)
            found = spec.origin if spec else None
        if found is None or os.path.realpath(os.path.dirname(found)) != expected:
            raise NotOurs(_told(name, found or f"no file is found for it ({expected} is missing)", expected))
        mark, words = _MARKS[name]
        with open(os.path.join(expected, mark), encoding="utf-8", errors="replace") as file:
            if words not in file.read(400):
                raise NotOurs(_told(name, os.path.join(expected, mark), "jetmask's own text in that file"))


def _told(name: str, found: str, expected: str) -> str:
    return (
        f"the Python package `{name}` that would be loaded is not jetmask's\n"
        f"  where: {found}\n"
        f"  expected: {expected}\n"
        "  do: install jetmask in a virtual environment of its own (python3 -m venv env; env/bin/pip install jetmask), "
        f"or rename that file; a PYTHONPATH or a working folder that holds a `{name}` also comes first"
    )
