"""Decoded photographs, kept in memory while there is room for them: a data set of large ones is larger than any memory,
and a training that is killed by the kernel after an hour says nothing."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jetson import memory

SHARE = 0.5  # of the memory that this process may have
LEFT = 0.25  # of it must stay free, for whatever else runs here: other trials of a sweep, say
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def total() -> int:
    """Bytes of memory that this process may have: the machine's, or what its control group allows."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in LIMITS:
        with contextlib.suppress(OSError, ValueError), open(path) as file:  # ValueError: "max"
            found.append(int(file.read()))
    return min(found)


class Kept:
    """{path: read-only image}, as long as there is room. What does not fit is decoded again at every use: to drop
    another for it would gain nothing, since all are asked for equally often."""

    def __init__(self) -> None:
        self.images: dict[Path, np.ndarray] = {}
        self.bytes, self.told = 0, False
        self.last: tuple[Path | None, np.ndarray | None] = None, None
        # what was decoded last is mostly asked for again at once, for its size first

    def get(self, path: Path, decode: Callable[[Path], np.ndarray]) -> np.ndarray:
        """The image of `path`, by `decode(path)` where it is not kept."""
        image = self.images.get(path)
        if image is None:
            known, image = self.last
            if known == path and image is not None:
                return image
            image = decode(path)
            image.setflags(write=False)  # so that no augmentation edits a photograph
            self.last = path, image
            if self._room(image.nbytes):
                self.images[path] = image
                self.bytes += image.nbytes
        return image

    def _room(self, more: int) -> bool:
        limit, free = total(), memory.left()
        if self.bytes + more <= SHARE * limit and (free is None or free - more >= LEFT * limit):
            return True
        if not self.told:
            self.told = True
            print(
                f"note: memory holds {len(self.images)} of the photographs ({self.bytes / 1e9:.1f} "
                "GB decoded); the others are decoded at every use. Copies of about 1000 px train faster",
                file=sys.stderr,
            )
        return False
