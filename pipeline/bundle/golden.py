"""The drawn inputs of a bundle's self-test, and what its fp32 models find in them."""

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from jetson import engine, files
from jetson.bundle import manifest
from jetson.errors import BadInput
from jetson.inference import golden
from jetson.inference.detector import open_detector

log = logging.getLogger(__name__)

IMAGES = 4
_CANDIDATES = 12


def draw(count: int, wh: tuple[int, int] = (480, 320), seed: int = 20) -> list[np.ndarray]:
    """`count` frames, uint8 (h, w, 3) BGR: heads with and without masks on uneven ground, always the same for a seed.

    They need not look like photographs: the self-test compares a model with itself on another engine.
    """
    width, height = wh
    frames = []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        coarse = rng.integers(40, 200, (6, 8, 3), np.uint8)
        frame = cv2.resize(coarse, wh, interpolation=cv2.INTER_CUBIC)
        for _ in range(int(rng.integers(2, 6))):
            size = int(rng.integers(24, 110))
            centre = (int(rng.integers(size, width - size)), int(rng.integers(size, height - size)))
            _head(frame, rng, centre, size)
        frames.append(cv2.GaussianBlur(frame, (3, 3), 0))
    return frames


def _head(frame: np.ndarray, rng: np.random.Generator, centre: tuple[int, int], size: int) -> None:
    x, y = centre
    skin = tuple(int(v) for v in np.array([120, 160, 215]) * rng.uniform(0.35, 1.1, 1).clip(0, 1))
    hair = tuple(int(v) for v in rng.integers(10, 90, 3))
    cv2.ellipse(frame, (x, y - size // 6), (size // 2, size * 3 // 5), 0, 0, 360, hair, -1, cv2.LINE_AA)
    cv2.ellipse(frame, centre, (size * 2 // 5, size // 2), 0, 0, 360, skin, -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.circle(frame, (x + side * size // 6, y - size // 8), max(1, size // 22), (30, 30, 30), -1, cv2.LINE_AA)
    if rng.random() < 0.6:
        mask = np.array([(-0.38, 0.02), (0, -0.05), (0.38, 0.02), (0.3, 0.36), (0, 0.48), (-0.3, 0.36)]) * size + centre
        colour = ((235, 235, 230), (190, 150, 90), (40, 40, 40))[int(rng.integers(3))]
        cv2.fillPoly(frame, [mask.astype(np.int32)], colour, cv2.LINE_AA)
    else:
        cv2.line(frame, (x, y), (x, y + size // 8), tuple(v // 2 for v in skin), max(1, size // 30), cv2.LINE_AA)
        cv2.ellipse(frame, (x, y + size // 4), (size // 8, size // 18), 0, 0, 360, (70, 70, 170), -1, cv2.LINE_AA)


def write(bundle_dir: str, frames: Sequence[np.ndarray] | None = None) -> dict[str, str]:
    """Write golden/ into a bundle whose manifest.json and models are there; returns {variant: note}.

    Per model and input size the fp32 model's faces are recorded. A variant that this machine can run and that already
    differs here from fp32 by more than its tolerance gets its own record, with a note: on the device the question is
    whether the same file gives the same faces, and what the difference costs is AP's matter.
    """
    contents = manifest.load(bundle_dir)
    references = {}
    for variant in contents.variants:
        size = "{}-{}x{}".format(variant.model, *variant.input_wh)
        if variant.precision == "fp32" and "onnxruntime" in variant.runtimes:
            references[size] = variant.name
    chosen: list[np.ndarray] = list(frames) if frames is not None else _choose(bundle_dir, references)
    folder = os.path.join(bundle_dir, "golden")
    os.makedirs(folder, exist_ok=True)
    names = [f"drawn_{number}.png" for number in range(len(chosen))]
    for name, frame in zip(names, chosen, strict=True):
        files.write_bytes(os.path.join(folder, name), cv2.imencode(".png", frame)[1].tobytes())
    document: dict[str, Any] = {"schema_version": 1, "images": names, "tolerance": golden.TOLERANCE, "expected": {}}
    for size, name in sorted(references.items()):
        document["expected"][size] = _record(bundle_dir, name, chosen)
    if not any(entry["faces"] for entries in document["expected"].values() for entry in entries):
        print(
            "note: on the inputs of the self-test nothing is found: it shows that an engine runs, "
            "not that it detects correctly"
            + ("" if contents.class_list.are_masks else "; --include-photos takes photographs for it"),
            file=sys.stderr,
        )
    notes = {}
    for variant in contents.variants:
        own = _own_record(bundle_dir, variant, document, chosen)
        if own:
            document["expected"][variant.name], notes[variant.name] = own
    if notes:
        document["notes"] = notes
    files.write_json(os.path.join(folder, "golden.json"), document)
    return notes


def _record(
    bundle_dir: str, name: str, frames: Sequence[np.ndarray], runtime: str | None = None
) -> list[dict[str, Any]]:
    classes = manifest.load(bundle_dir).classes
    with open_detector(bundle_dir, name, runtime or "onnxruntime") as detector:
        given = detector.detect(frames[0], 0.0).scores.shape[1] if len(frames) else len(classes)
        if given != len(classes):
            raise BadInput(
                f"the model gives {given} classes, and the bundle has {len(classes)}",
                f"{bundle_dir}, variant {name}",
                ", ".join(classes),
                "give the files of one training",
            )
        return [golden.record(detector, frame) for frame in frames]


def _own_record(
    bundle_dir: str, variant: manifest.Variant, document: dict[str, Any], frames: Sequence[np.ndarray]
) -> tuple[list[dict[str, Any]], str] | None:
    runtime = next((r for r in variant.runtimes if r != "tensorrt" and engine.reason(r) is None), None)
    expected = golden.expected_for(document, variant)
    if runtime is None:
        return None
    if expected is None:
        return _record(bundle_dir, variant.name, frames, runtime), "no fp32 model of this size in the bundle"
    with open_detector(bundle_dir, variant.name, runtime) as detector:
        lines = [
            line
            for frame, want in zip(frames, expected, strict=True)
            for line in golden.differences(detector, frame, want, variant.precision)
        ]
    if not lines:
        return None
    log.warning(f"golden: {variant.name} on {runtime} differs from fp32 on drawn inputs: {lines[0]}")
    return _record(bundle_dir, variant.name, frames, runtime), "differs from fp32 on the drawn inputs: " + lines[0]


def _choose(bundle_dir: str, references: dict[str, str]) -> list[np.ndarray]:
    """Of some drawn frames those on which the models are surest, so that the self-test hangs on no borderline face."""
    candidates = draw(_CANDIDATES)
    sureness = np.zeros(len(candidates))
    for name in references.values():
        records = _record(bundle_dir, name, candidates)
        sureness += [
            min((max(face["scores"]) for face in entry["faces"]), default=0.0) - entry["score"] for entry in records
        ]
    best = sorted(np.argsort(-sureness, kind="stable")[:IMAGES])
    return [candidates[index] for index in best]
