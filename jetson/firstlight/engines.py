"""Steps about engines: two are built with the memory watched, tested on the golden inputs, timed."""

import threading
import time
from typing import Any, Dict, List, Optional

import numpy as np

from jetson import engine, memory
from jetson.bundle.manifest import Manifest, Variant
from jetson.engine import build, cache, tensorrt_module
from jetson.errors import JetmaskError
from jetson.firstlight.machine import has_gpu, short
from jetson.firstlight.step import FAIL, PASS, SKIPPED, Known, Outcome, Say, Settings
from jetson.inference import golden
from jetson.inference.detector import open_detector

WARM_UP = 10
TIME_S = 5.0


def choose(contents: Manifest, names: Any = ()) -> List[Variant]:
    """The variants to build: those named, else the cheapest in FP16, and the FP16 form of the bundle's default."""
    if names:
        return [contents.variant(name) for name in names]
    fitting = [one for one in contents.variants if one.precision == "fp16" and "tensorrt" in one.runtimes]
    fitting.sort(key=lambda one: (one.macs, one.input_wh[0] * one.input_wh[1]))
    if len(fitting) < 3:
        return fitting
    default = contents.variant(None)
    same = [one for one in fitting[1:] if (one.model, one.input_wh) == (default.model, default.input_wh)]
    return [fitting[0], same[0] if same else fitting[-1]]


class _Watch:
    """The least memory that was left while a block ran, in bytes."""

    def __init__(self) -> None:
        self.before = self.least = memory.left()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def _run(self) -> None:
        while not self._end.wait(0.2):
            now = memory.left()
            if now is not None and self.least is not None:
                self.least = min(self.least, now)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.set()
        self._thread.join()

    def taken(self) -> Optional[int]:
        """Bytes that went meanwhile, at most."""
        return None if self.before is None or self.least is None else self.before - self.least


def building(settings: Settings, known: Known, say: Say) -> Outcome:
    """Build them, one after the other, as `python3 -m jetson build` does."""
    why = engine.reason("tensorrt")
    chosen = choose(known.contents, settings.variants)
    if why is not None or not chosen:
        text = why or "the bundle has no fp16 variant for TensorRT"
        return Outcome(FAIL if has_gpu(settings.root) and chosen else SKIPPED, text)
    trt = tensorrt_module.load()
    machine = build.machine_of(trt)
    rows: List[Dict[str, Any]] = []
    for variant in chosen:
        row: Dict[str, Any] = {"variant": variant.name, "error": None}
        rows.append(row)

        def progress(phase: str, seconds: float, name: str = variant.name) -> None:
            say(f"{name}: {phase} ({seconds:.0f} s)")

        try:
            with _Watch() as watch:
                job = build.job_for(known.contents, variant, trt, machine)
                made = build.build(job, machine, settings.engines or cache.default_folder(), progress, settings.rebuild)
        except (JetmaskError, OSError) as error:
            row["error"] = str(error.what if isinstance(error, JetmaskError) else error).splitlines()[0]
            continue
        known.built.append(variant)
        taken = watch.taken()
        row.update(
            seconds=round(made.seconds, 1),
            cached=made.cached,
            bytes=len(made.plan),
            memory_taken_mib=None if taken is None else taken >> 20,
            memory_left_mib=None if watch.least is None else watch.least >> 20,
        )
    measured = {"tensorrt": machine.tensorrt, "gpu": machine.gpu, "engines": rows}
    wrong = [f"{row['variant']}: {row['error']}" for row in rows if row["error"]]
    if wrong:
        return Outcome(FAIL, "; ".join(wrong), measured)
    if all(row["cached"] for row in rows):
        return Outcome(SKIPPED, "the engines were there already (--rebuild builds them again)", measured)
    text = ", ".join(
        f"{row['variant']} in {row['seconds']:.0f} s, {row['memory_taken_mib']} MiB taken, "
        f"{row['memory_left_mib']} MiB left at least"
        for row in rows
        if not row["cached"]
    )
    return Outcome(PASS, f"TensorRT {short(machine.tensorrt)} on {machine.gpu}: {text}", measured)


def equal(settings: Settings, known: Known, say: Say) -> Outcome:
    """The golden inputs through each engine, and through ONNX Runtime on this processor."""
    rows: List[Dict[str, Any]] = []
    pairs = [(variant, "tensorrt") for variant in known.built]
    default = known.contents.variant(None)
    if "onnxruntime" in default.runtimes and engine.reason("onnxruntime") is None:
        pairs.append((default, "onnxruntime"))
    if not pairs:
        return Outcome(SKIPPED, "no engine runs here")
    for variant, runtime in pairs:
        say(f"{variant.name} on {runtime}")
        row: Dict[str, Any] = {"variant": variant.name, "runtime": runtime, "faces": 0, "differences": []}
        try:
            row.update(golden.check(settings.bundle, variant.name, runtime))
        except (JetmaskError, RuntimeError) as error:
            row["differences"] = [str(error).splitlines()[0]]
        rows.append(row)
    wrong = [f"{row['variant']} on {row['runtime']}: {row['differences'][0]}" for row in rows if row["differences"]]
    if wrong:
        return Outcome(FAIL, "; ".join(wrong), {"tests": rows})
    text = ", ".join(f"{row['variant']} on {row['runtime']} ({row['faces']} faces)" for row in rows)
    return Outcome(PASS, "as fp32 on the workstation: " + text, {"tests": rows})


def latency(settings: Settings, known: Known, say: Say) -> Outcome:
    """The median of one inference against what was predicted for this kind of device."""
    if not known.built:
        return Outcome(SKIPPED, "no engine was built")
    frame = golden.read(settings.bundle).frames[0]
    rows: List[Dict[str, Any]] = []
    for variant in known.built:
        say(variant.name)
        with open_detector(settings.bundle, variant.name, "tensorrt") as detector:
            times: List[float] = []
            for _ in range(WARM_UP):
                detector.detect(frame)
            end = time.monotonic() + TIME_S
            while time.monotonic() < end or len(times) < 20:
                detector.detect(frame)
                times.append(detector.timings["infer_ms"])
        row: Dict[str, Any] = {"variant": variant.name, "n": len(times)}
        row.update((f"p{q}", round(float(np.percentile(times, q)), 3)) for q in (50, 95, 99))
        guess = settings.predictions.get(variant.name)
        row["predicted"] = guess
        row["inside"] = None
        if guess and guess.get("low_ms") is not None:
            row["inside"] = bool(guess["low_ms"] <= row["p50"] <= guess["high_ms"])
        rows.append(row)
    text = "; ".join(_in_words(row) for row in rows)
    if any(row["inside"] is False for row in rows):
        return Outcome(FAIL, text, {"latency": rows})
    if all(row["inside"] is None for row in rows):
        return Outcome(
            SKIPPED,
            f"measured; there is no prediction with an error interval to compare with: {text}",
            {"latency": rows},
        )
    return Outcome(PASS, text, {"latency": rows})


def _in_words(row: Dict[str, Any]) -> str:
    text = f"{row['variant']} {row['p50']:.2f} ms (p99 {row['p99']:.2f})"
    guess = row["predicted"]
    if guess:
        text += f", predicted {guess['latency_ms']:.2f}"
        if guess.get("low_ms") is not None:
            text += f" ({guess['low_ms']:.2f} to {guess['high_ms']:.2f})"
    return text
