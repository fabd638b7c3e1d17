"""The step that lets the detector run for minutes, with power, heat, memory and the camera watched."""

import time
from typing import Any, Dict, List, Optional

from jetson import memory
from jetson.capture import source
from jetson.firstlight.step import FAIL, PASS, SKIPPED, Known, Outcome, Say, Settings
from jetson.inference.isolated import open_for_threads
from jetson.inference.runner import Runner
from jetson.monitor.board import Board, hottest

SAMPLE_S = 2.0
FIRST_RESULT_S = 60.0
SLOWER = 0.75  # of the rate of the first fifth that the last must have
JUDGED_S = 100.0  # what is shorter says nothing about it: a fifth would be a few frames


def run(settings: Settings, known: Known, say: Say) -> Outcome:
    """Fails where results end, the engine or the camera errs, or the board slows itself down."""
    if settings.minutes <= 0:
        return Outcome(SKIPPED, "--minutes 0")
    variant, runtime = known.best
    uri = known.source()
    detector = open_for_threads(settings.bundle, variant, runtime, 1)
    used = detector.engine.runtime
    runner = Runner([source.parse(uri)], variant, detector)
    board = Board(settings.root).start()
    runner.start()
    try:
        samples, problem = _watched(settings, runner, board, say)
    finally:
        runner.stop()
        board.stop()
    camera = runner.views[0].camera
    measured: Dict[str, Any] = {
        "variant": variant.name,
        "runtime": used,
        "source": source.parse(uri).kind,
        "results": runner.results,
        "engine_errors": runner.engine_errors,
        "camera_lost": camera.lost_count,
        "camera_dropped": camera.dropped,
        "latency_ms": {name: stage.percentiles() for name, stage in runner.histograms.items()},
        "samples": samples,
    }
    measured.update(_summary(samples))
    text = _in_words(measured)
    if problem is None:
        problem = _problem(measured, runner.engine_error, camera.last_error)
    return Outcome(PASS if problem is None else FAIL, text if problem is None else f"{problem}; {text}", measured)


def _watched(settings: Settings, runner: Runner, board: Board, say: Say) -> Any:
    samples: List[Dict[str, Any]] = []
    end = time.monotonic() + FIRST_RESULT_S
    while not runner.results:
        if time.monotonic() > end:
            reason = runner.engine_error or runner.views[0].camera.last_error or "the reason is unknown"
            return samples, f"no result within {FIRST_RESULT_S:.0f} s: {reason}"
        time.sleep(0.05)
    began = told = time.monotonic()
    before, last = runner.results, began
    while last - began < settings.minutes * 60:
        time.sleep(min(SAMPLE_S, max(0.1, settings.minutes * 6)))
        now, state = time.monotonic(), board.state()
        count = runner.results
        left = memory.left()
        samples.append(
            {
                "s": round(now - began, 1),
                "fps": round((count - before) / (now - last), 2),
                "celsius": hottest(state.get("temperature_c") or {}),
                "mw": state.get("total_mw"),
                "throttled": state.get("throttled"),
                "memory_left_mib": None if left is None else left >> 20,
            }
        )
        before, last = count, now
        if now - told > 15:
            told = now
            say(f"{(now - began) / 60:.1f} of {settings.minutes:g} min, {samples[-1]['fps']:.1f} results/s")
    return samples, None


def _summary(samples: List[Dict[str, Any]]) -> Dict[str, Any]:
    def values(key: str) -> List[float]:
        return [sample[key] for sample in samples if sample[key] is not None]

    part = max(1, len(samples) // 5)
    rates, watts, heat, free = values("fps"), values("mw"), values("celsius"), values("memory_left_mib")
    return {
        "fps_first": _mean(rates[:part]),
        "fps_last": _mean(rates[-part:]),
        "fps_least": min(rates, default=None),
        "mw_mean": _mean(watts),
        "mw_most": max(watts, default=None),
        "celsius_first": heat[0] if heat else None,
        "celsius_most": max(heat, default=None),
        "throttled_samples": sum(bool(sample["throttled"]) for sample in samples),
        "memory_left_mib_least": min(free, default=None),
        "memory_left_mib_last": free[-1] if free else None,
    }


def _mean(values: List[float]) -> Optional[float]:
    return round(sum(values) / len(values), 2) if values else None


def _problem(measured: Dict[str, Any], engine_error: str, camera_error: str) -> Optional[str]:
    if measured["engine_errors"]:
        return f"{measured['engine_errors']} errors of the engine, the last: {engine_error}"
    if measured["camera_lost"]:
        return f"the camera was lost {measured['camera_lost']} times: {camera_error}"
    if measured["throttled_samples"]:
        return (
            f"the board slowed itself down in {measured['throttled_samples']} of {len(measured['samples'])} samples: "
            "it was too hot or took too much power (a 5 V 4 A supply, a fan)"
        )
    if not measured["fps_last"]:
        return "no results after a while"
    if measured["samples"][-1]["s"] >= JUDGED_S and measured["fps_last"] < SLOWER * measured["fps_first"]:
        return "it became slower while it ran"
    return None


def _in_words(measured: Dict[str, Any]) -> str:
    parts = [f"{measured['variant']} on {measured['runtime']}, {measured['source']}, {measured['results']} results"]
    if measured["fps_first"] is not None:
        parts.append(f"{measured['fps_first']:.1f} results/s at first, {measured['fps_last']:.1f} at last")
    if measured["mw_mean"] is not None:
        parts.append(f"{measured['mw_mean'] / 1000:.1f} W, at most {measured['mw_most'] / 1000:.1f}")
    if measured["celsius_most"] is not None:
        parts.append(f"{measured['celsius_first']:.0f} to {measured['celsius_most']:.0f} C")
    return ", ".join(parts)
