"""`jetmask data draw`: a labelled set from nothing, so that everything runs without any photograph."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import cv2

from jetson import files
from jetson.cli import table
from jetson.errors import UsageError
from jetson.synthetic import scene
from pipeline.data import check, layout
from pipeline.data.classes import CLASSES

log = logging.getLogger(__name__)

LICENSE = {"id": 1, "name": "none needed: drawn by jetmask, not a photograph", "url": ""}


@dataclass(frozen=True)
class Settings:
    """What to draw: `images` of size `wh`, `faces` heads in each (None: by lot)."""

    out: Path
    images: int = 200
    seed: int = 0
    wh: tuple[int, int] = (480, 360)
    faces: int | None = None
    json: bool = False


def write(
    folder: Path,
    images: int,
    seed: int = 0,
    wh: tuple[int, int] = (480, 360),
    faces: int | None = None,
    quiet: bool = True,
) -> list[check.Entry]:
    """Draw `images` scenes of `wh` into `folder` (there, and empty) as a split. The same for the same arguments; one
    seed's images are not another's."""
    (folder / "images").mkdir()
    entries = []
    for number in range(images):
        frame, xyxy, labels = scene.scene((seed * 1_000_003 + number) % 2**32, wh, faces)
        name = f"drawn_{seed}_{number:05d}.jpg"
        # Quality drawn too: photographs come at every quality, and a clean edge is a hint that no photograph gives.
        quality = [cv2.IMWRITE_JPEG_QUALITY, 70 + number * 7 % 28]
        path = folder / "images" / name
        files.write_bytes(str(path), cv2.imencode(".jpg", frame, quality)[1].tobytes())
        boxes = [[round(float(v), 2) for v in (x1, y1, x2 - x1, y2 - y1)] for x1, y1, x2, y2 in xyxy]
        extra = {"source": "drawn", "license": 1, "tags": ["drawn"]}
        entries.append(check.Entry(path, name, wh, boxes, [int(v) for v in labels], extra=extra))
        if not quiet and ((number + 1) % 100 == 0 or number + 1 == images):
            log.info(f"drew {number + 1}/{images}")
    files.write_text(
        str(folder / "annotations.json"),
        layout.document(
            entries, [LICENSE], f"{images} drawn scenes, seed {seed}; figures measured on them hold for drawings only"
        ),
    )
    return entries


def run(settings: Settings) -> int:
    """Draw a split folder, and say how many of each class are in it."""
    if settings.images < 1 or (settings.faces is not None and not 0 <= settings.faces <= 200):
        raise UsageError("--images or --faces is out of range", None, "at least one image, 0 to 200 faces")
    with layout.folder_aside(settings.out) as part:
        entries = write(part, settings.images, settings.seed, settings.wh, settings.faces, quiet=False)
    counts = [sum(e.labels.count(k) for e in entries) for k in range(len(CLASSES))]
    if settings.json:
        print(json.dumps({"images": len(entries), **dict(zip(CLASSES, counts, strict=True))}))
    else:
        print(table(["drawn", "images", *CLASSES], [[str(settings.out), len(entries), *counts]]))
    return 0
