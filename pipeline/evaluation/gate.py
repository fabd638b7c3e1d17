"""The gate: what a reduced precision costs on labelled photographs, against float32 on the same ones.

An engine that was built is run through the detector that ships, and its two-class mAP50 is compared with the
float32 engine's by a paired bootstrap over images. What cannot run here has no figure, never a guess.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jetson.bundle.manifest import CLASSES
from jetson.engine.onnx import OnnxEngine
from jetson.errors import QualityGate, UsageError
from jetson.evaluation import average_precision
from jetson.evaluation.average_precision import Truth
from jetson.inference.detector import Detector, Faces
from pipeline.models.decode import DECODE

MAX_DROP = 0.5  # points of two-class mAP50


def finite(points: float | None) -> None:
    """UsageError for a --max-drop that is no number: nothing is over NaN, and so every gate would hold or none."""
    if points is not None and not math.isfinite(points):
        raise UsageError(f"--max-drop {points!r}", "--max-drop", "points of mAP50, for instance 0.5")


class Verdict(NamedTuple):
    """A comparison in points of two-class mAP50. low and high: 95 % bounds of `difference` (after - before)."""

    before: float
    after: float
    difference: float
    low: float
    high: float
    images: int
    max_drop: float

    @property
    def passed(self) -> bool:
        """Whether no more than max_drop is lost."""
        return -self.difference <= self.max_drop

    def __str__(self) -> str:
        return (
            f"mAP50 {self.before:.2f} -> {self.after:.2f} ({self.difference:+.2f}, 95 % bounds {self.low:+.2f} to "
            f"{self.high:+.2f}, {self.images} images, at most {self.max_drop:.2f} may be lost): "
            f"{'passed' if self.passed else 'failed'}"
        )


def detections(engine: Any, truths: Sequence[Truth], decode: Mapping[str, Any] = DECODE) -> list[Faces]:
    """What an engine finds on labelled images: a Faces per image, every face over metrics.MIN_SCORE."""
    detector = Detector(engine, decode)
    return [detector.detect(average_precision.read_image(truth), average_precision.MIN_SCORE) for truth in truths]


def of_onnx(
    path: Any,
    truths: Sequence[Truth],
    input_wh: Sequence[int],
    threads: int = 1,
    decode: Mapping[str, Any] = DECODE,
) -> list[Faces]:
    """`detections` of an ONNX file by ONNX Runtime.

    A Q/DQ file for TensorRT gives what its arithmetic gives in float32 here: a simulation, to be called that.
    """
    width, height = input_wh
    with OnnxEngine(str(path), (width, height), threads) as engine:
        return detections(engine, truths, decode)


def compare(
    truths: Sequence[Truth],
    before: Sequence[Faces],
    after: Sequence[Faces],
    max_drop: float = MAX_DROP,
    resamples: int = 1000,
    seed: int = 0,
    classes: Sequence[str] = CLASSES,
) -> Verdict:
    """The Verdict on two lists of detections over the same images."""
    found = average_precision.paired_bootstrap(truths, before, after, resamples, seed, classes)
    return Verdict(
        found["before"], found["after"], found["difference"], found["low"], found["high"], len(truths), max_drop
    )


def require(verdict: Verdict, name: str) -> None:
    """QualityGate (exit 5) with the figures, unless the verdict is passed."""
    if not verdict.passed:
        raise QualityGate(
            f"{name} loses too much accuracy: {verdict}",
            where=name,
            expected=f"at most {verdict.max_drop:.2f} points of two-class mAP50 lost",
            remedy="keep the sensitive layers in higher precision (--precision auto), calibrate on more "
            "images or with another method, or allow more with --max-drop",
        )
