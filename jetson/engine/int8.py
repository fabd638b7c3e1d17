"""INT8 on a GPU without INT8 arithmetic: refused, unless somebody asks to see it measured on his own board."""

import os
from typing import Optional

from jetson.bundle.manifest import Variant
from jetson.engine import cuda
from jetson.errors import DeviceMismatch

# Set by `--int8-anyway`, and inherited by every process that may build or open an engine.
ENVIRONMENT = "JETMASK_INT8_ANYWAY"
HELP = "build INT8 also for a GPU without INT8 hardware, such as a Nano's, from the float32 file, to measure it"
NO_ARITHMETIC = (
    "this GPU has no INT8 arithmetic: the engine is what TensorRT makes of INT8 there, by calibration and with FP16 "
    "beside it; what is shown is measured. Others measured a loss: ResNet-18 on a Nano at 44 frames/s as INT8, 90 as "
    "FP16 (torch2trt#255)"
)


def ask_anyway() -> None:
    """From now on, in this process and its children, such engines are built and opened."""
    os.environ[ENVIRONMENT] = "1"


def anyway() -> bool:
    """Whether somebody has asked for them."""
    return os.environ.get(ENVIRONMENT) == "1"


def note(variant: Variant, runtime: Optional[str]) -> str:
    """What must be said beside every figure of such an engine; "" for all others."""
    if runtime != "tensorrt" or variant.precision != "int8" or not anyway():
        return ""
    try:
        return "" if cuda.has_int8(cuda.gpu().capability) else NO_ARITHMETIC
    except DeviceMismatch:
        return ""
