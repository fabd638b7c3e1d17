"""A bundle's self-test: a few drawn inputs, and the faces that the fp32 model found in them on the workstation.

What is compared is the end of the whole way (letterbox, engine, decoding, suppression), so that a wrong colour order, a
saturated int8 engine or a plan built from another file all show.
"""

import os
from typing import Any, Dict, List, Optional

import cv2
import numpy as np

from jetson import files
from jetson.bundle import manifest
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
            f"a face at {[int(v) for v in found.xyxy[number]]} that fp32 does not see, score {found.confidence[number]:.2f}"
        )
    return lines


def expected_for(golden: Dict[str, Any], variant: manifest.Variant) -> Optional[List[Dict[str, Any]]]:
    """The expectations for one variant, an entry per image; None when there are none."""
    size = "{}-{}x{}".format(variant.model, *variant.input_wh)
    return golden["expected"].get(variant.name) or golden["expected"].get(size)


def check(bundle_dir: str, variant: Optional[str] = None, runtime: Optional[str] = None) -> Dict[str, Any]:
    """Run the self-test of one variant (default: the default one) on this machine.

    Returns {"variant", "runtime", "images", "faces", "differences": [..]}; BadInput where the golden files are wrong.
    """
    path = os.path.join(bundle_dir, FILE)
    golden = files.read_json(path)
    chosen = manifest.load(bundle_dir).variant(variant)
    try:
        names, expected = golden["images"], expected_for(golden, chosen)
        if expected is None or len(expected) != len(names):
            raise KeyError(chosen.name)
        frames = [cv2.imread(os.path.join(bundle_dir, "golden", name)) for name in names]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"no golden results for this variant ({error})",
            path,
            "`images` and `expected`",
            "write the bundle again",
        ) from error
    if any(frame is None for frame in frames):
        raise BadInput("a golden image cannot be read", path)
    lines = []
    with open_detector(bundle_dir, chosen.name, runtime) as detector:
        for name, frame, want in zip(names, frames, expected):
            lines += [f"{name}: {line}" for line in differences(detector, frame, want, chosen.precision)]
        used = detector.engine.runtime
    return {
        "variant": chosen.name,
        "runtime": used,
        "images": len(names),
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
