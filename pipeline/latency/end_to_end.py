"""How many frames a second a whole runner serves: the engine's predicted time, and what a frame costs beside it.

The stages of the runner overlap, so that the slower of the two sets the rate: the engine on the GPU, or the work beside
it on the CPU, of which Python's lock lets about one core be used. BESIDE_MS is measured (benchmarks.frame_cost, the row
"whole process at 30 frames/s", Python 3.6: frames of 640x480 with six faces, lines and zones, nobody watching); a
Nano's core (Cortex-A57, 1.43 GHz) is taken to be 6 to 8 times slower than that machine's. Nothing of it was measured on
a Nano: predicted, with the interval that both uncertainties give.
"""

import math
from typing import NamedTuple

from jetson.errors import UsageError
from pipeline.latency.roofline import Prediction

BESIDE_MS = 2.39  # benchmarks/results/frame_cost.csv
MEASURED_ON = "an Intel Xeon, Python 3.6.15, while other work ran there"
SLOWER = {"nano": (6.0, 8.0)}  # a device's core against that machine's
RATES = (30, 15, 10, 5)


class EndToEnd(NamedTuple):
    """Frames/s of all cameras together, with the interval; `limit`: "engine" or "CPU", which is the slower.

    `cameras`: {frames/s of each: how many}, by the low end of the interval, where that is known.
    """

    fps: float
    low_fps: float | None
    high_fps: float
    beside_ms: float
    limit: str
    cameras: dict[int, int]
    basis: str

    def as_json(self) -> dict:
        return self._asdict() | {"kind": "predicted"}


def end_to_end(engine: Prediction, beside_ms: float = BESIDE_MS) -> EndToEnd:
    """What a runner with this engine serves; UsageError for a device whose cores nobody has compared."""
    if engine.target not in SLOWER:
        raise UsageError(
            f"what a frame costs beside the engine is not known for {engine.target}",
            "--end-to-end",
            "--target " + " or ".join(SLOWER),
            "measure it there: python3 -m jetson bench DIR --source CLIP",
        )
    fast, slow = (beside_ms * factor for factor in SLOWER[engine.target])
    middle = math.sqrt(fast * slow)
    fps = 1e3 / max(engine.latency_ms, middle)
    low = None if engine.high_ms is None else 1e3 / max(engine.high_ms, slow)
    return EndToEnd(
        fps=fps,
        low_fps=low,
        high_fps=1e3 / max(engine.latency_ms if engine.low_ms is None else engine.low_ms, fast),
        beside_ms=middle,
        limit="engine" if engine.latency_ms >= middle else "CPU",
        cameras={rate: int((low or fps) // rate) for rate in RATES},
        basis=f"{beside_ms:.2f} ms of CPU a frame measured on {MEASURED_ON}; a core of the device "
        "{:g} to {:g} times slower".format(*SLOWER[engine.target]),
    )


def text(found: EndToEnd, target: str) -> str:
    """The same for people."""
    low = "unknown" if found.low_fps is None else f"{found.low_fps:.0f}"
    cameras = ", ".join(f"{count} at {rate}" for rate, count in found.cameras.items())
    return (
        f"end to end, predicted, untested on hardware: {found.fps:.0f} frames/s on {target} ({low} to "
        f"{found.high_fps:.0f}), limited by the {found.limit}\n"
        f"cameras x frames/s: {cameras}\n"
        f"basis: {found.basis}"
    )
