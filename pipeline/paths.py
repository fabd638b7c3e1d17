"""The places that a command is to write to: looked at before the work, not after it."""

import ctypes
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jetson
from jetson import files
from jetson.bundle import tarball
from jetson.errors import BadInput, UsageError

# The bundle that ships with jetmask.
SHIPPED = os.path.join(os.path.dirname(os.path.abspath(jetson.__file__)), "models")


def made(path: str | os.PathLike) -> Path:
    """Make the folder where it is not there, with those above it; BadInput where a file stands in its place."""
    try:
        os.makedirs(path, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BadInput(
            "a file is where a folder is to be",
            error.filename,
            "a new folder, or one that is there",
            "name another, or move the file away",
        ) from None
    return Path(path)


def for_file(path: str | os.PathLike) -> None:
    """BadInput where no file can be written as `path`: its folder is not there, or it is a folder or device itself."""
    if os.path.isdir(path):
        raise BadInput("this is a folder", path, "the name of a file", "name a file in it")
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/stdout, /dev/null: a rename would take their place
        raise BadInput("this is no plain file", path, "the name of a file", "name one in a folder of yours")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise BadInput("no such folder to write the file into", path, "a folder", f"make it first: {folder}")


def require_free(folder: str) -> None:
    """UsageError where something stands in a bundle's place that is no bundle."""
    if os.path.lexists(folder) and not (
        os.path.isdir(folder) and (not os.listdir(folder) or os.path.isfile(os.path.join(folder, tarball.MANIFEST)))
    ):
        raise UsageError(
            "this is there already, and is not a bundle",
            folder,
            "a new folder, or an old bundle",
            "choose another place, or remove it yourself",
        )


@contextmanager
def replaced_folder(folder: str) -> Iterator[str]:
    """Yield a new folder beside `folder`; at the end it takes its place in one step, on an exception it is removed.

    Where `folder` is a link, what it points to is replaced, and the link stays.
    """
    folder = os.path.realpath(folder)
    parent, base = os.path.split(folder)
    require_free(folder)
    made(parent)
    _sweep(parent, base)
    part = os.path.join(parent, f".{base}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    os.mkdir(part)
    try:
        yield part
        if os.path.lexists(folder):
            _exchange(part, folder)
        else:
            os.rename(part, folder)
        files.fsync_folder(parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _exchange(new: str, old: str) -> None:
    """Swap two folders in one step (renameat2), so that a kill in between leaves one whole bundle under the name."""
    at_fdcwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    swap = getattr(libc, "renameat2", None)
    if swap is not None and swap(at_fdcwd, os.fsencode(new), at_fdcwd, os.fsencode(old), rename_exchange) == 0:
        return
    # An older C library, or a file system that cannot: two steps, and for an instant no bundle under the name.
    away = new + ".old"
    os.rename(old, away)
    os.rename(new, old)
    shutil.rmtree(away, ignore_errors=True)


def _sweep(parent: str, base: str) -> None:
    """Remove what killed writers of the same folder left; an old bundle that one had moved away goes back."""
    for name in os.listdir(parent):
        words = name.split(".")
        if name.startswith(f".{base}.") and name.endswith((".partial", ".partial.old")):
            pid = next((word for word in words[::-1] if word.isdigit() and len(word) < 8), "")
            if pid and os.path.exists(f"/proc/{pid}"):
                continue
            if name.endswith(".old") and not os.path.lexists(os.path.join(parent, base)):
                os.rename(os.path.join(parent, name), os.path.join(parent, base))
            else:
                shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
