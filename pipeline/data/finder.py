"""The detector of a bundle on photographs that have no labels yet: for `data prelabel` and `data select`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from jetson.bundle import manifest
from jetson.engine import available
from jetson.errors import BadInput, DeviceMismatch
from jetson.inference.detector import Detector, Faces, open_detector
from pipeline.data import imagefile
from pipeline.data.labels import Finding
from pipeline.data.tree import Tree

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """A photograph as viewers show it, and the faces on it, in its pixels."""

    path: Path
    suffix: str  # that of the content
    data: bytes  # without an EXIF turn
    wh: tuple[int, int]
    faces: Faces
    frame: np.ndarray


class Finder:
    """A bundle's most accurate variant that runs here, or the one that is named. Use it as a context manager."""

    def __init__(self, bundle: str, variant: str | None = None, threads: int | None = None) -> None:
        contents = manifest.load(bundle)
        self.classes = tuple(contents.classes)
        self.score = float(contents.decode["score"])
        name, runtime = choose(contents, variant)
        self.name = name
        self.detector: Detector = open_detector(bundle, name, runtime, threads or os.cpu_count() or 1)

    def __enter__(self) -> Finder:
        return self

    def __exit__(self, *_: object) -> None:
        self.detector.close()

    def run(self, images: Sequence[Path], score: float, findings: list[Finding]) -> Iterator[Found]:
        """Each readable photograph with its faces over `score`; the others are told in `findings`."""
        for number, path in enumerate(images, 1):
            progress(number, len(images))
            found = self.one(path, score)
            if isinstance(found, Finding):
                findings.append(found)
            else:
                yield found

    def one(self, path: Path, score: float) -> Found | Finding:
        """A photograph with its faces over `score`, or why it cannot be read."""
        try:
            picture = imagefile.read(path)
            data = picture.data if picture.turned == 1 else imagefile.plain(picture.data, upright=True)
        except imagefile.BrokenImage as error:
            return left_out(path, str(error))
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if frame is None:
            return left_out(path, "cannot be decoded")
        wh = (frame.shape[1], frame.shape[0])
        return Found(path, picture.suffix, data, wh, self.detector.detect(frame, score), frame)


def left_out(path: Path, why: str) -> Finding:
    """That a photograph cannot be had."""
    return Finding(str(path), None, "image broken", why, "it is left out", False)


def progress(number: int, total: int) -> None:
    """Tell now and then how far it is."""
    if number % 50 == 0 or number == total:
        log.info(f"looked at {number}/{total} photographs")


def photographs(folder: Path) -> list[Path]:
    """The pictures below a folder; BadInput where there is none."""
    if not folder.is_dir():
        raise BadInput("no such folder", folder, "a folder of photographs")
    found = Tree(folder).images
    if not found:
        raise BadInput("no photographs found", folder, "a folder of photographs: .jpg, .png and the like")
    return found


def choose(contents: manifest.Manifest, name: str | None) -> tuple[str, str]:
    """-> the variant and its runtime: the best measured AP of those that run here. DeviceMismatch: none does."""
    reasons = available()
    variants = contents.variants if name is None else [contents.variant(name)]
    usable = [(v, runtime) for v in variants for runtime in v.runtimes if reasons[runtime] is None]
    if not usable:
        raise DeviceMismatch("no variant of this bundle runs on this machine", name, "ONNX Runtime or LiteRT")

    def rank(pair: tuple[manifest.Variant, str]) -> tuple[float, int]:
        variant, runtime = pair
        measured = (variant.ap.get(runtime) or {}).get("map50", -1.0)
        return float(measured), variant.macs

    variant, runtime = max(usable, key=rank)
    return str(variant.name), str(runtime)


def free_name(path: Path, suffix: str, taken: set[str]) -> str:
    """A name for a copy whose stem no other has (file systems may ignore case): labels are told by it."""
    stem, number = path.stem, 1
    with contextlib.suppress(UnicodeEncodeError):
        stem.encode()
        number = 0
    stem = stem if number == 0 else ascii(stem).strip("'").replace("\\", "_")
    name, number = stem, 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.lower())
    return name + suffix
