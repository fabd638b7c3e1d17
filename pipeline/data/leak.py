"""Near-duplicates: the same photograph, reduced, compressed again, a little cropped or mirrored.

What is in val/ or test/ must not be trained on, and what belongs together must not be parted by a split. The hash is
the 64-bit difference hash (N. Krawetz, "Kind of Like That", 2013): is each pixel of a 9x8 grey picture darker than its
right neighbour? Two pictures are near when at most 10 bits differ. That is meant to be too careful rather than too
lenient: of the collections used here it keeps 32 training images away from val/ and test/, all studio portraits of
other people in the same pose when looked at.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from jetson.errors import BadInput
from pipeline.data.labels import Finding
from pipeline.data.tree import images_in

NEAR_BITS = 10
_BLOCK = 1 << 22  # pairs of hashes that are compared at once: some 40 MB


class Leak(NamedTuple):
    image: Path  # the one that must stay out
    twin: Path  # the one it is near to
    bits: int  # in which the hashes differ


def dhash(image: np.ndarray) -> int:
    """uint8 (h, w) or (h, w, 3) -> 64 bits."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = small[:, :-1] < small[:, 1:]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hashes(paths: Iterable[Path]) -> tuple[np.ndarray, np.ndarray]:
    """-> uint64 (N,) of image files as stored, and (N,) of their mirror images; each is decoded once, on all cores.
    BadInput for one that cannot be decoded."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_both, paths))
    return np.array([plain for plain, _ in found], np.uint64), np.array([mirror for _, mirror in found], np.uint64)


def _both(path: Path) -> tuple[int, int]:
    try:
        known = os.stat(path)
    except OSError:
        known = None
    return _decoded(str(path), known and (known.st_mtime_ns, known.st_size))


@functools.cache  # the trainings of one pruning ask for the same photographs again and again
def _decoded(path: str, _version: tuple[int, int] | None) -> tuple[int, int]:
    grey = cv2.imread(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if grey is None:
        raise BadInput("not a readable image", path, "JPEG or PNG", "`jetmask data check` lists all such files")
    return dhash(grey), dhash(grey[:, ::-1])


def apart(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Hashes uint64 (N,), (M,) -> (first row, uint8 (n, M): differing bits) block by block: of many images not even
    the near pairs fit in memory, since all frames of a camera that stands still are near to one another."""
    rows = max(1, _BLOCK // max(1, len(b)))
    for start in range(0, len(a), rows):
        yield start, np.bitwise_count(a[start : start + rows, None] ^ b[None])


def leaks(images: Sequence[Path], held_out: Sequence[Path], bits: int = NEAR_BITS) -> list[Leak]:
    """Those of `images` that are near to, or a mirror image of, one of `held_out` (image files): one Leak each, the
    nearest."""
    images, held_out = list(images), list(held_out)
    theirs, _ = hashes(held_out)
    nearest: dict[int, tuple[int, int]] = {}
    for ours in hashes(images) if held_out else ():
        for start, differing in apart(ours, theirs):
            closest = differing.argmin(axis=1)
            for row in np.flatnonzero(differing.min(axis=1) <= bits).tolist():
                found = int(differing[row, closest[row]]), int(closest[row])
                nearest[start + row] = min(nearest.get(start + row, (65, 0)), found)
    return [Leak(images[i], held_out[j], bits_apart) for i, (bits_apart, j) in sorted(nearest.items())]


def images_of(split_dir: Path) -> list[Path]:
    """The image files of a split, or of a plain folder of images."""
    folder = Path(split_dir) / "images" if (Path(split_dir) / "images").is_dir() else Path(split_dir)
    if not folder.is_dir():
        raise BadInput("the data folder does not exist", split_dir, "a folder with images/ and annotations.json")
    return images_in(folder)


def keep_out(split_dir: Path, held_out_dirs: Sequence[Path], bits: int = NEAR_BITS) -> dict[str, Leak]:
    """What training must leave out of `split_dir`: {file name in images/: Leak} for near-duplicates of any image in
    `held_out_dirs` (val/, test/)."""
    held_out = [image for folder in held_out_dirs for image in images_of(folder)]
    return {leak.image.name: leak for leak in leaks(images_of(split_dir), held_out, bits)}


def findings(images: Sequence[Path], held_out_dirs: Sequence[Path]) -> list[Finding]:
    """The same as findings of `data check --against`."""
    found = leaks(images, [image for folder in held_out_dirs for image in images_of(folder)]) if held_out_dirs else []
    return [
        Finding(
            str(leak.image),
            None,
            "near-duplicate",
            f"{leak.bits} of 64 bits from {leak.twin}",
            "training leaves it out",
            True,
        )
        for leak in found
    ]
