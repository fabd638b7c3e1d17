"""What the PATHs of `jetmask detect` name: photographs and videos, each with the name that its results bear."""

import glob
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from jetson.errors import BadInput

PHOTOS = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"))
VIDEOS = frozenset((".mp4", ".mkv", ".avi", ".mov", ".m4v", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".3gp", ".wmv"))


class Item(NamedTuple):
    """One photograph or video. `name`: its path below the folder that all inputs share, with `/`."""

    path: str
    name: str
    video: bool


def find(paths: Iterable[str], leave_out: str) -> list[Item]:
    """The photographs and videos that `paths` name, each once, in order: files, folders with all below them, and
    patterns such as `photos/**/*.jpg`. Nothing below the folder `leave_out` (where the results go) is taken.

    BadInput where a path is not there, is neither a photograph nor a video, or is `leave_out`; where nothing is found.
    """
    found: dict[str, bool] = {}
    roots = []
    own = os.path.realpath(leave_out)
    for given in paths:
        there = [given] if os.path.exists(given) else sorted(glob.glob(given, recursive=True))
        if not there:
            raise BadInput(
                "no such file or folder",
                given,
                "photographs, videos, folders of them, or a pattern such as 'photos/*.jpg'",
            )
        for path in there:
            if os.path.isdir(path):
                if os.path.realpath(path) == own:
                    raise BadInput("the results would lie among the photographs", path, "another folder for --out")
                roots.append(os.path.abspath(path))
                found.update(_below(path, own))
            elif (kind := _kind(path)) is not None:
                roots.append(os.path.dirname(os.path.abspath(path)))
                found[os.path.abspath(path)] = kind
            elif path == given:
                raise BadInput(
                    "neither a photograph nor a video, by its name",
                    given,
                    "a name that ends in " + ", ".join(sorted(PHOTOS | VIDEOS)),
                )
    if not found:
        raise BadInput(
            "no photograph or video found",
            ", ".join(paths),
            "files whose names end in " + ", ".join(sorted(PHOTOS | VIDEOS)),
        )
    top = os.path.commonpath(roots)
    return [Item(path, os.path.relpath(path, top).replace(os.sep, "/"), video) for path, video in found.items()]


def _kind(path: str) -> bool | None:
    """Whether the name is a video's (True) or a photograph's (False); None for another."""
    suffix = os.path.splitext(path)[1].lower()
    return False if suffix in PHOTOS else True if suffix in VIDEOS else None


def _below(folder: str, own: str) -> Iterator[tuple[str, bool]]:
    for here, folders, names in os.walk(folder):
        # In a fixed order, so that a second run finds the same; hidden folders hold thumbnails and settings.
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and os.path.realpath(os.path.join(here, name)) != own
        )
        for name in sorted(names):
            kind = _kind(name)
            if kind is not None and not name.startswith("."):
                yield os.path.abspath(os.path.join(here, name)), kind
