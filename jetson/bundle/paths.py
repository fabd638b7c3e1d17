"""The names that a bundle's content may use, and the one way from such a name to a path on this machine.

Manifest, checksums, golden inputs, calibration and tar members all name files. Whoever wrote them may be anybody, so
a name becomes a path nowhere else: it is relative, stays inside, has one spelling on every file system, meets no link.
"""

import os
import re
from typing import Any

from jetson.errors import BadInput

LONGEST = 100  # characters: what the one tar header of a bundle holds
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=-]*(/[A-Za-z0-9_][A-Za-z0-9._+@=-]*)*\Z")


def name_problem(name: Any) -> str:
    """Why `name` may not be a file of a bundle; "" when it may.

    >>> name_problem("models/s.onnx"), name_problem("../s.onnx"), name_problem("/s.onnx")
    ('', 'a name that leaves the bundle', 'an absolute name')
    """
    if not isinstance(name, str) or not name:
        return "not a valid name"
    if name.startswith("/"):
        return "an absolute name"
    if ".." in name.split("/"):
        return "a name that leaves the bundle"
    if len(name) > LONGEST:
        return f"a name of over {LONGEST} characters"
    if not _NAME.match(name):
        return "a name with a character that bundles do not use"
    return ""


def inside(bundle_dir: str, name: Any) -> str:
    """The path of the file `name` of a bundle; BadInput where the name is none, or meets a link on its way.

    `bundle_dir` itself may be a link (`current` is one). Whether the file is there is the caller's to see.
    """
    problem = name_problem(name)
    if problem:
        raise _outside(problem, name, bundle_dir)
    path = bundle_dir
    for part in name.split("/"):
        path = os.path.join(path, part)
        if os.path.islink(path):
            raise BadInput("a bundle holds only plain files and folders", path, "not a link", "remove it")
    return path


def below(folder: str, name: Any) -> str:
    """The path of `name` in a folder of the user's own photographs, whose names have any characters and may be links.

    A list of them may have come with a bundle; BadInput where a name in it leads out of the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise _outside("not a valid name", name, folder)
    if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
        raise _outside("a name that leaves the folder", name, folder)
    return os.path.join(folder, name)


def _outside(problem: str, name: Any, folder: str) -> BadInput:
    return BadInput(
        f"{problem} is given as a file: {repr(name):.110}",
        folder,
        "the names of files inside it, as models/s.onnx",
        "do not use it; get it again from its maker",
    )
