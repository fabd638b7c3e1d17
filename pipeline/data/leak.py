"""Near-duplicates: the same photograph, reduced, compressed again, a little cropped or mirrored.

What is in val/ or test/ must not be trained on, and what belongs together must not be parted by a split. The hash is
the 64-bit difference hash (N. Krawetz, "Kind of Like That", 2013): is each pixel of a 9x8 grey picture darker than its
right neighbour? Two pictures are near when at most 10 bits differ. That is meant to be too careful rather than too
lenient: of the collections used here it keeps 32 training images away from val/ and test/, all studio portraits of
other people in the same pose when looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from jetson.errors import BadInput
from pipeline.data.labels import Finding, images_in

NEAR_BITS = 10


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


def hashes(paths: Iterable[Path], mirrored: bool = False) -> np.ndarray:
    """-> uint64 (N,) of image files, as stored or mirrored. BadInput for one that cannot be decoded."""
    found = []
    for path in paths:
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        if grey is None:
            raise BadInput("not a readable image", path, "JPEG or PNG", "`jetmask data check` lists all such files")
        found.append(dhash(grey[:, ::-1] if mirrored else grey))
    return np.array(found, np.uint64)


def near_pairs(a: np.ndarray, b: np.ndarray, bits: int = NEAR_BITS) -> list[tuple[int, int, int]]:
    """Hashes uint64 (N,), (M,) -> all (i, j, differing bits) up to `bits`; in blocks, so that many images fit."""
    pairs = []
    for start in range(0, len(a), 512):
        apart = np.bitwise_count(a[start : start + 512, None] ^ b[None])
        pairs += [(start + int(i), int(j), int(apart[i, j])) for i, j in zip(*np.nonzero(apart <= bits), strict=True)]
    return pairs


def leaks(images: Sequence[Path], held_out: Sequence[Path], bits: int = NEAR_BITS) -> list[Leak]:
    """Those of `images` that are near to, or a mirror image of, one of `held_out` (image files): one Leak each, the
    nearest."""
    images, held_out = list(images), list(held_out)
    theirs = hashes(held_out)
    nearest: dict[int, tuple[int, int]] = {}
    for mirrored in (False, True):
        for i, j, apart in near_pairs(hashes(images, mirrored), theirs, bits):
            nearest[i] = min(nearest.get(i, (65, 0)), (apart, j))
    return [Leak(images[i], held_out[j], apart) for i, (apart, j) in sorted(nearest.items())]


def images_of(split_dir: Path) -> list[Path]:
    """The image files of a split, or of a plain folder of images."""
    folder = Path(split_dir) / "images" if (Path(split_dir) / "images").is_dir() else Path(split_dir)
    if not folder.is_dir():
        raise BadInput("there is no such data folder", split_dir, "a folder with images/ and annotations.json")
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
