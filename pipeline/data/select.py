"""`jetmask data select`: of many photographs those that are worth labelling.

The detector is unsure about them, they are unlike one another, and none is nearly another.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from jetson import files
from jetson.cli import table
from jetson.errors import BadInput, UsageError
from jetson.evaluation.unsure import LOWEST, unsureness
from pipeline.data import finder, layout, leak
from pipeline.data.labels import Finding

log = logging.getLogger(__name__)

_CELLS = 8  # a side: as coarse as a picture can be and still be told from another place or another light
_SHOWN = 20


class Candidate(NamedTuple):
    """A photograph, how unsure the detector is about it (0 to 1), and what it looks like, float32 (n,), length 1."""

    path: Path
    unsure: float
    looks: np.ndarray


class Chosen(NamedTuple):
    """A photograph that was chosen, and why: `unlike` is the distance to the nearest chosen before (0 to 2)."""

    path: Path
    unsure: float
    unlike: float


@dataclass(frozen=True)
class Settings:
    """How many of which photographs; `against`: split folders whose pictures are labelled already."""

    folder: Path
    out: Path
    count: int
    bundle: str
    variant: str | None = None
    against: tuple[Path, ...] = ()
    json: bool = False


def looks(frame: np.ndarray) -> np.ndarray:
    """What a picture, uint8 (h, w, 3) BGR, looks like from afar: colours on a coarse grid, float32 (192,), length 1."""
    small = cv2.resize(frame, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_BGR2LAB).astype(np.float32).reshape(-1) - 128
    return lab / max(float(np.linalg.norm(lab)), 1e-6)


def choose(
    candidates: Sequence[Candidate],
    count: int,
    hashed: np.ndarray,
    mirrored: np.ndarray,
    known: np.ndarray | None = None,
) -> list[Chosen]:
    """Up to `count` candidates, the most useful first: each step takes the one that is most unsure and most unlike what
    was taken, and none within leak.NEAR_BITS of one of them or of `known`, uint64 (k,).

    `hashed`, `mirrored`: uint64 (N,), see leak.hashes. The same for the same pictures, whatever their order.
    """
    if not candidates:
        return []
    order = sorted(range(len(candidates)), key=lambda i: (int(hashed[i]), str(candidates[i].path)))
    matrix = np.stack([candidates[i].looks for i in order])
    unsure = np.array([candidates[i].unsure for i in order])
    plain, mirror = hashed[order], mirrored[order]
    free = np.ones(len(order), bool)
    for one in np.asarray([] if known is None else known, np.uint64):
        free &= _apart(plain, mirror, one)
    nearest = np.full(len(order), 2.0)
    taken: list[Chosen] = []
    while free.any() and len(taken) < count:
        # The farthest that two pictures can be is 2; half of the worth is how unsure, half how unlike.
        worth = np.where(free, unsure + nearest / 2, -1.0)
        best = int(worth.argmax())
        entry = candidates[order[best]]
        taken.append(Chosen(entry.path, round(float(unsure[best]), 4), round(float(nearest[best]), 4)))
        nearest = np.minimum(nearest, np.linalg.norm(matrix - matrix[best], axis=1))
        free &= _apart(plain, mirror, plain[best])
        free[best] = False
    return taken


def _apart(plain: np.ndarray, mirror: np.ndarray, one: np.uint64) -> np.ndarray:
    near = (np.bitwise_count(plain ^ one) <= leak.NEAR_BITS) | (np.bitwise_count(mirror ^ one) <= leak.NEAR_BITS)
    return np.asarray(~near)


def run(settings: Settings) -> int:
    """Copy the chosen photographs into images/ of a new folder, with selected.json beside them."""
    if settings.count < 1:
        raise UsageError(f"--count {settings.count}", None, "1 or more photographs")
    images = finder.photographs(settings.folder)
    findings: list[Finding] = []
    candidates = []
    with finder.Finder(settings.bundle, settings.variant) as detector:
        for found in detector.run(images, LOWEST, findings):
            candidates.append(Candidate(found.path, unsureness(found.faces, detector.score), looks(found.frame)))
    for finding in findings:
        print(finding, file=sys.stderr)
    if not candidates:
        raise BadInput("no photograph can be read", settings.folder, "JPEG, PNG, BMP, WebP or TIFF")
    hashed, mirrored = leak.hashes([c.path for c in candidates])
    held = [image for folder in settings.against for image in leak.images_of(folder)]
    chosen = choose(candidates, settings.count, hashed, mirrored, leak.hashes(held)[0] if held else None)
    if not chosen:
        raise BadInput(
            "every photograph is a near-duplicate of one that is already labelled", settings.folder, "new photographs"
        )
    rows = []
    taken: set[str] = set()
    with layout.folder_aside(settings.out) as part:
        (part / "images").mkdir()
        for one in chosen:
            name = finder.free_name(one.path, one.path.suffix, taken)
            shutil.copyfile(one.path, part / "images" / name)
            rows.append({"file": name, "from": str(one.path), "unsure": one.unsure, "unlike": one.unlike})
        files.write_text(str(part / "selected.json"), json.dumps(rows, indent=1) + "\n")
    if settings.json:
        print(json.dumps({"out": str(settings.out), "of": len(candidates), "selected": rows}))
        return 0
    print(table(["file", "unsure", "unlike"], [[r["file"], r["unsure"], r["unlike"]] for r in rows[:_SHOWN]]))
    print(
        f"wrote {settings.out}: {len(rows)} of {len(candidates)} photographs; "
        f"next: jetmask data prelabel {settings.out}/images"
    )
    if len(rows) < settings.count:
        log.warning(f"note: {settings.count} were requested; the others are near-duplicates of these")
    return 0
