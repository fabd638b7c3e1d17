"""The folder that a command is to write into."""

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
