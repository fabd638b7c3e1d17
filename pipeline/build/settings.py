"""The settings of `jetmask build`."""

from dataclasses import dataclass

from jetson.engine.build import WORKSPACE_BYTES
from pipeline import targets
from pipeline.evaluation import gate


@dataclass(frozen=True)
class Settings:
    """What to make of `model`: of a float32 ONNX its reduced-precision files in `out`, of a bundle its engines here.

    `precision` None: all that the target has hardware for. `max_drop`: points of two-class mAP50. `input_wh`: pixels.
    `threads`: of the CPU, for measuring. The other fields are options of the verb; its help says what they mean.
    """

    model: str
    target: str = targets.THIS_MACHINE
    precision: str | None = None
    out: str | None = None
    calibration: str | None = None
    calibration_data: str | None = None
    method: str = "percentile"
    data: str | None = None
    max_drop: float = gate.MAX_DROP
    input_wh: tuple[int, int] = (416, 256)
    variant: str | None = None
    engines: str | None = None
    workspace_bytes: int = WORKSPACE_BYTES
    threads: int = 1
    int8_anyway: bool = False
