"""All files below a folder, listed once: what the importers look through."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from jetson.errors import BadInput

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_LEFT_OUT = {"__MACOSX", "node_modules", "__pycache__", "$RECYCLE.BIN", "@eaDir"}


def shown(name: str) -> bool:
    """Whether a file or folder counts: macOS puts a "._NAME" beside every file that it zips or copies to another file
    system, or all into one folder."""
    return not name.startswith(".") and name not in _LEFT_OUT


def images_in(folder: Path) -> list[Path]:
    """The image files directly in `folder`, by name; not the hidden ones."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and shown(p.name) and p.is_file())


class Tree:
    """The files below `root`, sorted, hidden ones left out; linked folders are followed, each once.

    BadInput where a folder cannot be listed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @functools.cached_property
    def files(self) -> list[Path]:
        found: list[Path] = []
        seen: set[tuple[int, int]] = set()

        def refuse(error: OSError) -> None:
            raise BadInput(
                f"a folder cannot be listed: {error.strerror}",
                error.filename,
                "readable folders",
                "change its permissions",
            )

        for folder, folders, names in os.walk(self.root, onerror=refuse, followlinks=True):
            known = os.stat(folder)
            if (known.st_dev, known.st_ino) in seen:  # a link back up
                folders.clear()
                continue
            seen.add((known.st_dev, known.st_ino))
            folders[:] = sorted(name for name in folders if shown(name))
            found += [Path(folder, name) for name in sorted(names) if shown(name)]
        return found

    @functools.cached_property
    def images(self) -> list[Path]:
        return [path for path in self.files if path.suffix.lower() in IMAGE_SUFFIXES]

    def ending(self, *suffixes: str) -> list[Path]:
        """The files with one of the suffixes (".xml"), whatever their case."""
        return [path for path in self.files if path.suffix.lower() in suffixes]

    def named(self, *names: str) -> list[Path]:
        """The files with one of the names, whatever their case."""
        return [path for path in self.files if path.name.lower() in names]

    def shown(self, path: Path) -> str:
        """A path for a message: below the root, where it is."""
        try:
            return str(path.relative_to(self.root))
        except ValueError:
            return str(path)
