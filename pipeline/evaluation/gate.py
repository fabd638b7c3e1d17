"""The gate: what a reduced precision costs on labelled photographs, against float32 on the same ones.

An engine that was built is run through the detector that ships, and its two-class mAP50 is compared with the
float32 engine's by a paired bootstrap over images. What cannot run here has no figure, never a guess.
"""

import math
from typing import NamedTuple

from jetson.engine.onnx import OnnxEngine
from jetson.errors import QualityGate, UsageError
from jetson.evaluation import average_precision
from jetson.inference.detector import Detector
from pipeline.models.decode import DECODE

MAX_DROP = 0.5  # points of two-class mAP50


def finite(points):
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
    def passed(self):
        return -self.difference <= self.max_drop

    def __str__(self):
        return "mAP50 %.2f -> %.2f (%+.2f, 95 %% bounds %+.2f to %+.2f, %d images, at most %.2f may be lost): %s" % (
            self.before,
            self.after,
            self.difference,
            self.low,
            self.high,
            self.images,
            self.max_drop,
            "passed" if self.passed else "failed",
        )


def detections(engine, truths, decode=DECODE):
    """What an engine finds on labelled images: a Faces per image, every face over metrics.MIN_SCORE."""
    detector = Detector(engine, decode)
    return [detector.detect(average_precision.read_image(truth), average_precision.MIN_SCORE) for truth in truths]


def of_onnx(path, truths, input_wh, threads=1, decode=DECODE):
    """`detections` of an ONNX file by ONNX Runtime.

    A Q/DQ file for TensorRT gives what its arithmetic gives in float32 here: a simulation, to be called that.
    """
    with OnnxEngine(str(path), tuple(input_wh), threads) as engine:
        return detections(engine, truths, decode)


def compare(truths, before, after, max_drop=MAX_DROP, resamples=1000, seed=0):
    """The Verdict on two lists of detections over the same images."""
    found = average_precision.paired_bootstrap(truths, before, after, resamples, seed)
    return Verdict(
        found["before"], found["after"], found["difference"], found["low"], found["high"], len(truths), max_drop
    )


def require(verdict, name):
    """QualityGate (exit 5) with the figures, unless the verdict is passed."""
    if not verdict.passed:
        raise QualityGate(
            f"{name} loses too much: {verdict}",
            where=name,
            expected=f"at most {verdict.max_drop:.2f} points of two-class mAP50 lost",
            remedy="keep the sensitive layers in higher precision (--precision auto), calibrate on more "
            "images or with another method, or allow more with --max-drop",
        )
