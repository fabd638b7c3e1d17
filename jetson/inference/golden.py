"""A bundle's self-test: a few drawn inputs, and the faces that the fp32 model found in them on the workstation.

What is compared is the end of the whole way (letterbox, engine, decoding, suppression), so that a wrong colour order, a
saturated int8 engine or a plan built from another file all show.
"""

import os
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from jetson import files, imagefile
from jetson.bundle import manifest, paths
from jetson.errors import BadInput, QualityGate
from jetson.inference.detector import Detector, Faces, open_detector
from jetson.vision import boxes

FILE = "golden/golden.json"
# IoU from which two boxes are the same, and how far the scores of one face may lie apart.
TOLERANCE = {
    "fp32": {"iou": 0.9, "score": 0.02},
    "fp16": {"iou": 0.9, "score": 0.02},
    "int8": {"iou": 0.9, "score": 0.1},
    "int8-cpu": {"iou": 0.9, "score": 0.1},
}
MIN_SCORE = 0.05
MAX_FACES = 20
# What is read of a bundle's golden files at most; those that are written hold 4 drawings of 480 x 320.
MOST_IMAGES = 16
MOST_PIXELS = 4 << 20
MOST_BYTES = 4 << 20


class Golden(NamedTuple):
    """`names`: of the drawn inputs; `frames`: uint8 (h, w, 3) BGR; `expected`: {variant, or model-WxH: an entry}."""

    names: List[str]
    frames: List[np.ndarray]
    expected: Dict[str, Any]


def record(detector: Detector, frame: np.ndarray) -> Dict[str, Any]:
    """What is expected of `frame` (uint8 (h, w, 3) BGR): {"score": threshold, "faces": [{xyxy, scores}]}.

    The threshold stands in the widest gap between two faces' confidences, so that a small difference in arithmetic
    does not move a face over it.
    """
    faces = detector.detect(frame, MIN_SCORE)
    confidence = np.concatenate([faces.confidence[: MAX_FACES + 1], [MIN_SCORE]])
    count = min(len(faces), MAX_FACES)
    threshold = MIN_SCORE
    if count:
        gaps = confidence[:count] - confidence[1 : count + 1]
        kept = int(gaps.argmax()) + 1
        threshold = float(confidence[kept - 1] + confidence[kept]) / 2
        faces = Faces(faces.xyxy[:kept], faces.scores[:kept])
    return {
        "score": round(threshold, 5),
        "faces": [
            {"xyxy": [round(float(v), 2) for v in xyxy], "scores": [round(float(v), 5) for v in scores]}
            for xyxy, scores in zip(faces.xyxy, faces.scores)
        ],
    }


def differences(detector: Detector, frame: np.ndarray, expected: Dict[str, Any], precision: str) -> List[str]:
    """How the faces found in `frame` differ from `expected`, one line each; empty when within the tolerance."""
    tolerance = TOLERANCE[precision]
    threshold = expected["score"]
    found = detector.detect(frame, max(0.0, threshold - tolerance["score"]))
    wanted_xyxy = np.array([face["xyxy"] for face in expected["faces"]], np.float32).reshape(-1, 4)
    wanted_scores = np.array([face["scores"] for face in expected["faces"]], np.float32)
    wanted_scores = wanted_scores.reshape(len(wanted_xyxy), found.scores.shape[1])
    overlap = boxes.iou_matrix(wanted_xyxy, found.xyxy)
    apart = np.abs(wanted_scores[:, None] - found.scores[None]).max(axis=2) if len(found) else overlap
    same = (overlap >= tolerance["iou"]) & (apart <= tolerance["score"])
    lines = []
    for number in np.flatnonzero(~same.any(axis=1)):
        best = int(overlap[number].argmax()) if len(found) else -1
        nearest = "nothing" if best < 0 else f"IoU {overlap[number, best]:.2f}, scores off by {apart[number, best]:.3f}"
        lines.append(f"the face at {[int(v) for v in wanted_xyxy[number]]} was not found (nearest: {nearest})")
    sure = found.confidence > threshold + tolerance["score"]
    # A second box on a face that was matched is the suppression's matter, not a wrong engine.
    stray = sure & ~((overlap > 0.3).any(axis=0) if len(wanted_xyxy) else np.zeros(len(found), bool))
    for number in np.flatnonzero(stray):
        lines.append(
            f"a face at {[int(v) for v in found.xyxy[number]]} that fp32 does not see, "
            f"score {found.confidence[number]:.2f}"
        )
    return lines


def expected_for(golden: Dict[str, Any], variant: manifest.Variant) -> Optional[List[Dict[str, Any]]]:
    """The expectations for one variant, an entry per image; None when there are none."""
    size = "{}-{}x{}".format(variant.model, *variant.input_wh)
    return golden["expected"].get(variant.name) or golden["expected"].get(size)


def _wrong(path: str, what: str) -> BadInput:
    return BadInput(
        f"the golden results are not usable: {what}", path, "`images` and `expected`", "write the bundle again"
    )


def read(bundle_dir: str) -> Golden:
    """The drawn inputs and what is expected of them; BadInput where anything of it is wrong, too large or not listed.

    An image is named by its file in golden/, which SHA256SUMS lists like any other: nothing else is read.
    """
    path = paths.inside(bundle_dir, FILE)
    golden = files.read_json(path, MOST_BYTES)
    names = golden.get("images") if isinstance(golden, dict) else None
    if not isinstance(names, list) or not 0 < len(names) <= MOST_IMAGES:
        raise _wrong(path, f"`images` is not a list of 1 to {MOST_IMAGES} names")
    expected = golden.get("expected")
    if not isinstance(expected, dict):
        raise _wrong(path, "`expected` is not an object")
    for key, entries in expected.items():
        if not isinstance(entries, list) or len(entries) != len(names) or not all(map(_is_entry, entries)):
            raise _wrong(path, f"expected[{key!r:.60}] is not an entry per image: score and faces")
    listed = manifest.read_sums(os.path.join(bundle_dir, manifest.SUMS))
    frames = []
    for name in names:
        if not isinstance(name, str) or "/" in name or "golden/" + name not in listed:
            raise _wrong(path, f"the image {name!r:.100} is not listed in {manifest.SUMS}")
        frames.append(_image(paths.inside(bundle_dir, "golden/" + name)))
    return Golden(names, frames, expected)


def _image(path: str) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"a golden image cannot be read: {error.strerror}", path) from error
    frame = None
    if len(data) <= MOST_BYTES and imagefile.size_of(data) is not None:
        frame = imagefile.decode(data, path, most_pixels=MOST_PIXELS)
    if frame is None:
        raise BadInput("a golden image cannot be read", path, f"a PNG or JPEG file of at most {MOST_BYTES} bytes")
    return frame


def _is_entry(entry: Any) -> bool:
    """Whether this is what `record` writes."""
    if not isinstance(entry, dict) or not _numbers([entry.get("score")], 1, 0, 1):
        return False
    faces = entry.get("faces")
    return (
        isinstance(faces, list)
        and len(faces) <= 10 * MAX_FACES
        and all(
            isinstance(face, dict)
            and _numbers(face.get("xyxy"), 4, -1e5, 1e5)
            and isinstance(face.get("scores"), list)
            and 0 < len(face["scores"]) <= 1000
            and len(face["scores"]) == len(faces[0]["scores"])
            and _numbers(face["scores"], len(face["scores"]), 0, 1)
            for face in faces
        )
    )


def _numbers(values: Any, count: int, low: float, high: float) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) and low <= v <= high for v in values)
    )


def check(bundle_dir: str, variant: Optional[str] = None, runtime: Optional[str] = None) -> Dict[str, Any]:
    """Run the self-test of one variant (default: the default one) on this machine.

    Returns {"variant", "runtime", "images", "faces", "differences": [..]}; BadInput where the golden files are wrong.
    """
    golden = read(bundle_dir)
    chosen = manifest.load(bundle_dir).variant(variant)
    expected = expected_for({"expected": golden.expected}, chosen)
    if expected is None:
        raise _wrong(os.path.join(bundle_dir, FILE), f"none for variant {chosen.name}")
    lines: List[str] = []
    with open_detector(bundle_dir, chosen.name, runtime) as detector:
        for name, frame, want in zip(golden.names, golden.frames, expected):
            try:
                found = differences(detector, frame, want, chosen.precision)
            except ValueError as error:  # scores for another number of classes than the network has
                raise _wrong(os.path.join(bundle_dir, FILE), f"{name}: {error}") from error
            lines += [f"{name}: {line}" for line in found]
        used = detector.engine.runtime
    return {
        "variant": chosen.name,
        "runtime": used,
        "images": len(golden.names),
        "faces": sum(len(want["faces"]) for want in expected),
        "differences": lines,
    }


def require(bundle_dir: str, variant: Optional[str] = None, runtime: Optional[str] = None) -> Dict[str, Any]:
    """`check`, with QualityGate where anything differs."""
    result = check(bundle_dir, variant, runtime)
    if result["differences"]:
        raise QualityGate(
            "{} on {} does not find what fp32 found:\n    {}".format(
                result["variant"], result["runtime"], "\n    ".join(result["differences"][:8])
            ),
            os.path.join(bundle_dir, FILE),
            "IoU and scores within the tolerance of the precision",
            "use another variant or runtime; `python3 -m jetson doctor` shows what this machine lacks",
        )
    return result
