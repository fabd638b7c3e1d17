"""Measure variants one after the other, one engine open at a time: a Nano has no room for more.

In two passes, there and back, so that a machine that gets warm or busy meanwhile hurts all alike: of a drift that is
steady every variant gets the same share.
"""

import gc
import os
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from jetson import __version__, files
from jetson.adapt.candidates import Entry, engine_is_cached
from jetson.bench import end_to_end, plan, result
from jetson.bench.frames import frames_of, golden_frames, labelled_frames
from jetson.bench.progress import Progress
from jetson.bundle import manifest
from jetson.capture import source
from jetson.capture.address import shown
from jetson.engine import int8
from jetson.errors import JetmaskError
from jetson.evaluation import average_precision
from jetson.evaluation.agreement import Agreement
from jetson.inference.detector import Detector, Faces, open_detector
from jetson.monitor import board

WARM_UP = 5
PASSES = 2
Say = Callable[[str], None]


class Settings(NamedTuple):
    """What is measured. `source` and `data` exclude each other; without both the bundle's golden images serve.

    `variants`: only these (then all their runtimes); `everything`: all of the bundle, not its front alone; `seconds`:
    how long each is timed; `fresh`: forget what a run that was cut off had measured; `int8_anyway`: TensorRT's INT8
    also on a GPU without INT8 arithmetic.
    """

    bundle: str
    variants: Tuple[str, ...] = ()
    runtime: Optional[str] = None
    threads: int = 1
    seconds: float = 2.0
    source: Optional[str] = None
    data: Optional[str] = None
    everything: bool = False
    fresh: bool = False
    int8_anyway: bool = False


class _Reference(NamedTuple):
    entry: Entry
    faces: List[Faces]


def measure(settings: Settings, say: Say, tell: Say = lambda text: None) -> Dict[str, Any]:
    """Everything `bench` measures, ready for JSON. `say`: progress, line by line; `tell`: what must be seen."""
    if settings.int8_anyway:
        int8.ask_anyway()
    contents = manifest.load(settings.bundle)
    planned = plan.make(
        contents,
        plan.pairs(contents, settings.variants, settings.runtime),
        settings.everything or bool(settings.variants),
        settings.seconds,
        engine_is_cached(contents),
        int8.anyway(),
    )
    truths = average_precision.load_split(settings.data, contents.classes) if settings.data else []
    if truths:
        frames = labelled_frames(truths)
    else:
        frames = frames_of(settings.source) if settings.source else golden_frames(settings.bundle)
    for line in planned.lines():
        tell(line)
    about = board.describe()
    progress = Progress(_identity(settings, about), settings.fresh)
    if progress.resumed:
        tell(
            f"an interrupted run had measured {progress.resumed} of these passes and is resumed (--fresh: start again)"
        )
    run = _Run(settings, frames, truths, progress, say)
    for number in range(PASSES):
        for entry in planned.entries if number == 0 else planned.entries[::-1]:
            if not entry.error:
                run.turn(entry, number)
    progress.finish()
    reference = None if run.reference is None else run.reference.entry
    what = (
        "labelled images of " + os.path.basename(os.path.abspath(settings.data))
        if settings.data
        else (shown(settings.source) if settings.source else "the bundle's drawn golden images")
    )
    return {
        "bundle": contents.name,
        "measured_on": what,
        "frames": len(frames),
        "threads": settings.threads,
        "images": len(truths) or None,
        "board": about,
        "combinations": planned.of,
        "rows": [result.row_of(entry, entry is reference, run.turns.get(id(entry), [])) for entry in planned.entries],
    }


def _identity(settings: Settings, about: Dict[str, Any]) -> Dict[str, Any]:
    """What must be the same for a run to go on where one was cut off.

    The choice of variants too: agreement is with the most accurate of them.
    """
    return {
        "bundle": files.sha256(os.path.join(settings.bundle, "manifest.json")),
        "settings": settings._replace(bundle="", fresh=False)._asdict(),
        "machine": about["machine"],
        "power_mode": about["power_mode"],
        "version": __version__,
    }


class _Run:
    """One `bench`: `turns` holds what each pass measured of each entry, by the entry's identity."""

    def __init__(
        self,
        settings: Settings,
        frames: Sequence[np.ndarray],
        truths: Sequence[average_precision.Truth],
        progress: Progress,
        say: Say,
    ) -> None:
        self.settings, self.frames, self.truths, self.progress, self._say = settings, frames, truths, progress, say
        self.turns: Dict[int, List[Dict[str, Any]]] = {}
        self.reference: Optional[_Reference] = None

    def turn(self, entry: Entry, number: int) -> None:
        """One pass over one entry; where its engine cannot be opened, its `error` says why."""
        step = f"{entry.variant.name} {entry.runtime} {number}"
        found = self.progress.get(step)
        if found is None:
            try:
                found = self._first(entry) if number == 0 else self._second(entry)
            except JetmaskError as error:  # a Nano refuses every TensorRT INT8 variant; the others are measured
                entry.error = str(error.what).splitlines()[0]
                return
            self.progress.put(step, found)
        elif number == 0 and self.reference is None:
            self.reference = _Reference(entry, [])
        self.turns.setdefault(id(entry), []).append(found)

    def _first(self, entry: Entry) -> Dict[str, Any]:
        if self.reference is not None and not self.reference.faces:  # known from a run that was cut off
            with self._open(self.reference.entry) as detector:
                self.reference = self.reference._replace(faces=[detector.detect(frame) for frame in self.frames])
        with self._open(entry) as detector:
            found = self._times(entry, detector)
            self._say(f"{entry.variant.name}: agreement")
            faces = [detector.detect(frame) for frame in self.frames]
            if self.reference is None:
                self.reference = _Reference(entry, faces)
            agreement = Agreement()
            for want, have in zip(self.reference.faces, faces):
                agreement.add(want, have)
            found.update(agreement=agreement.value(), ap=self._average_precision(entry, detector))
            found["note"] = int8.note(entry.variant, entry.runtime) or None
        if self.settings.source:
            self._say(f"{entry.variant.name}: end to end")
            found["through"] = self._through(entry, self.settings.source)
        return found

    def _second(self, entry: Entry) -> Dict[str, Any]:
        with self._open(entry) as detector:
            return self._times(entry, detector)

    def _open(self, entry: Entry) -> Detector:
        gc.collect()  # what the last engine left in cycles, before the next one takes its room
        self._say(f"opening {entry.variant.name} on {entry.runtime}")
        return open_detector(self.settings.bundle, entry.variant.name, entry.runtime, self.settings.threads)

    def _times(self, entry: Entry, detector: Detector) -> Dict[str, Any]:
        self._say(f"{entry.variant.name}: latency")
        total_ms, infer_ms = time_frames(detector, self.frames, self.settings.seconds / PASSES)
        found: Dict[str, Any] = {"total_ms": total_ms, "infer_ms": infer_ms}
        if self.settings.source:
            found["bare_fps"] = end_to_end.bare(detector, self.frames[0], self.settings.seconds / PASSES)
        return found

    def _average_precision(self, entry: Entry, detector: Detector) -> Optional[Dict[str, Any]]:
        if not self.truths:
            return None
        found: List[Faces] = []
        for number, truth in enumerate(self.truths):
            found.append(detector.detect(average_precision.read_image(truth), average_precision.MIN_SCORE))
            if number % 20 == 0:
                self._say(f"{entry.variant.name}: image {number + 1} of {len(self.truths)}")
        return average_precision.evaluate(self.truths, found, manifest.load(self.settings.bundle).classes)

    def _through(self, entry: Entry, uri: str) -> Dict[str, Any]:
        where = source.parse(uri)
        return end_to_end.through_runner(
            self.settings.bundle,
            entry.variant,
            entry.runtime,
            [uri],
            self.settings.seconds,
            self.settings.threads,
            every_frame=not where.live,
            fps=0.0 if where.kind == "synthetic" else None,
        )


def time_frames(detector: Detector, frames: Sequence[np.ndarray], seconds: float) -> Tuple[List[float], List[float]]:
    """(total ms, inference ms) of the whole detector on `frames` in turn, for so long but three times at least."""
    for number in range(WARM_UP):
        detector.detect(frames[number % len(frames)])
    total_ms: List[float] = []
    infer_ms: List[float] = []
    end = time.perf_counter() + seconds
    while len(total_ms) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        detector.detect(frames[len(total_ms) % len(frames)])
        total_ms.append(round((time.perf_counter() - began) * 1e3, 4))
        infer_ms.append(round(detector.timings["infer_ms"], 4))
    return total_ms, infer_ms
