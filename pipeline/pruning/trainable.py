"""Whether a Keras model is a detector as jetmask trains it: asked before minutes are spent on one that is not."""

from typing import Any

import keras

from jetson.errors import BadInput
from pipeline.models.detector import STRIDES

PROBE_PX = 64


def reason(model: keras.Model) -> str | None:
    """Why a model cannot be trained or judged on labelled photographs; None where it can.

    It takes one picture, (batch, height, width, 3), of every size that 32 divides, and gives for each stride s of
    STRIDES `cls_s` (batch, height / s, width / s, classes) and `box_s` (batch, height / s, width / s, 4).
    """
    try:
        inputs = keras.tree.flatten(model.inputs)
        names = list(model.output_names)
    except (AttributeError, ValueError, TypeError):  # a subclassed model knows neither
        return f"a {type(model).__name__} without known inputs and outputs"
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] != 3:
        return "its inputs are " + ", ".join(_shape(tensor) for tensor in inputs)
    if any(side is not None for side in inputs[0].shape[1:3]):
        return f"it takes pictures of one size, {_shape(inputs[0])}"
    wanted = [f"{kind}_{stride}" for stride in STRIDES for kind in ("cls", "box")]
    if names != wanted:
        return "its outputs are " + ", ".join(names)
    shapes = [shape[1:] for shape in _shapes_at(model)]
    for name, stride, shape in zip(names[1::2], STRIDES, shapes[1::2], strict=True):
        if shape != (PROBE_PX // stride, PROBE_PX // stride, 4):
            return f"its output {name} is {shape} for a picture of {PROBE_PX} x {PROBE_PX}"
    for name, stride, shape in zip(names[::2], STRIDES, shapes[::2], strict=True):
        if len(shape) != 3 or shape[:2] != (PROBE_PX // stride,) * 2 or shape[2] != shapes[0][2]:
            return f"its output {name} is {shape} for a picture of {PROBE_PX} x {PROBE_PX}"
    return None


def require(model: keras.Model, where: str) -> None:
    """BadInput where photographs cannot train or judge a model, with the way that needs none."""
    found = reason(model)
    if found is not None:
        raise BadInput(
            f"this model is not a jetmask detector: {found}",
            where,
            f"one input (batch, height, width, 3) of any size; outputs cls_s and box_s for s in {STRIDES}",
            "prune it without data: --epochs 0 --importance l1, with --ratio or --macs-ratio; then train it as you did",
        )


def _shape(tensor: Any) -> str:
    return "(" + ", ".join("any" if side is None else str(side) for side in tensor.shape) + ")"


def _shapes_at(model: keras.Model) -> list[tuple[int, ...]]:
    spec = keras.KerasTensor((1, PROBE_PX, PROBE_PX, 3))
    return [tuple(tensor.shape) for tensor in keras.tree.flatten(model.compute_output_spec(spec))]
