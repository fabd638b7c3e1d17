"""The whole way from camera to result, against the engine alone: what the runner costs."""

import sys
import time
from typing import Any, Dict, Optional, Sequence

import numpy as np

from jetson.adapt import tradeoff
from jetson.bundle import manifest
from jetson.bundle.manifest import Variant
from jetson.capture import source
from jetson.capture.camera import Frame
from jetson.errors import BadInput
from jetson.inference.detector import Detector
from jetson.inference.isolated import open_for_threads
from jetson.inference.runner import Result, Runner, Sink, View
from jetson.vision import letterbox

WARM_UP = 5


def bare(detector: Detector, frame: np.ndarray, seconds: float) -> float:
    """Inferences/s of the engine alone in a loop, on one prepared input: the limit of any runner."""
    blob, _ = letterbox.letterbox(frame, detector.input_wh)
    for _ in range(WARM_UP):
        detector.engine.infer(blob)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        detector.engine.infer(blob)
        count += 1
    return count / (time.perf_counter() - began)


class _Offer(Sink):
    """Gives the live trade-off its frames."""

    def __init__(self, sampling: tradeoff.TradeOff) -> None:
        self._sampling = sampling

    def result(self, view: View, frame: Frame, result: Result) -> None:
        self._sampling.offer(frame.image)


def through_runner(
    bundle_dir: str,
    variant: Variant,
    runtime: Optional[str],
    uris: Sequence[str],
    seconds: float,
    threads: int = 1,
    every_frame: bool = True,
    fps: Optional[float] = None,
    sampling: Optional[tradeoff.TradeOff] = None,
) -> Dict[str, Any]:
    """The whole way for `seconds`: {fps, latency_ms {stage: {p50, p95, p99}}, results, dropped, camera_fps}.

    `every_frame`: files as fast as they are taken (throughput); otherwise at their rate or `fps` (latency). The first
    second, in which processes start, is not counted. `sampling`: the live trade-off works beside it.
    """
    detector = open_for_threads(bundle_dir, variant, runtime, threads)
    runner = Runner(
        [source.parse(uri, fps=fps) for uri in uris],
        variant,
        detector,
        every_frame=every_frame,
        sink=None if sampling is None else _Offer(sampling),
        spare=None if sampling is None else sampling.spare,
        classes=manifest.load(bundle_dir).class_list,
    )
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    runner.start()
    try:
        end = time.monotonic() + 30
        while not all(view.results for view in runner.views):
            if time.monotonic() > end:
                raise BadInput(
                    f"no result in 30 s: {'; '.join(view.camera.last_error for view in runner.views)}",
                    ", ".join(uris),
                )
            time.sleep(0.01)
        time.sleep(1.0)
        for stage in runner.histograms.values():
            stage.clear()
        first, began = runner.results, time.monotonic()
        time.sleep(seconds)
        count, elapsed = runner.results - first, time.monotonic() - began
        return {
            "fps": round(count / elapsed, 2),
            "results": count,
            "sources": len(uris),
            "latency_ms": {name: stage.percentiles() for name, stage in runner.histograms.items()},
            "camera_fps": [round(view.camera.fps, 2) for view in runner.views],
            "dropped": sum(view.camera.dropped for view in runner.views),
        }
    finally:
        runner.stop()
        sys.setswitchinterval(before)
