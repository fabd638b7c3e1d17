"""The places that a command is to write to: looked at before the work, not after it."""

import os
from pathlib import Path

from jetson.errors import BadInput


def made(path: str | os.PathLike) -> Path:
    """Make the folder where it is not there, with those above it; BadInput where a file stands in its place."""
    try:
        os.makedirs(path, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BadInput("a file is where a folder is to be", error.filename, "a new folder, or one that is there",
                       "name another, or move the file away") from None
    return Path(path)


def for_file(path: str | os.PathLike) -> None:
    """BadInput where no file can be written as `path`: its folder is not there, or it is a folder or device itself."""
    if os.path.isdir(path):
        raise BadInput("this is a folder", path, "the name of a file", "name a file in it")
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/stdout, /dev/null: a rename would take their place
        raise BadInput("this is no plain file", path, "the name of a file", "name one in a folder of yours")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise BadInput("there is no such folder to write the file into", path, "a folder", f"make it first: {folder}")
