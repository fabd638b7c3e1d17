"""`variant: auto`: the most accurate variant that keeps the cameras' rate on this machine, measured before the start.

Which one that is cannot be told from its precision: fp32 beats int8 on some CPUs. The choice is kept in the state
folder, and made anew when bundle, rate, threads or runtime are others.
"""

import hashlib
import json
import os
import statistics
import time
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from jetson import files
from jetson.adapt.candidates import Entry, accuracy_ranks
from jetson.bundle.manifest import Manifest, Variant
from jetson.errors import JetmaskError
from jetson.inference.detector import Detector

AUTO = "auto"
USUAL_FPS = 15.0  # of a camera whose rate nobody has said
SHARE = 0.8  # of the time that inference may take: the rest is for capture, tracking and the page
_WARM, _RUNS = 2, 7


class Choice(NamedTuple):
    """`reason`: in words, for the log."""

    variant: Variant
    detector: Detector
    reason: str


def default_path() -> Optional[str]:
    """Where the choice is kept: in the state folder that a deployed runner is given."""
    state = os.environ.get("JETMASK_STATE")
    return os.path.join(state, "variant.json") if state else None


def wanted_fps(rates: Sequence[Optional[float]]) -> float:
    """Frames/s of all cameras together.

    >>> wanted_fps([5, None])
    20.0
    """
    return sum(float(rate) if rate else USUAL_FPS for rate in rates)


def choose(
    contents: Manifest,
    entries: Sequence[Entry],
    open_variant: Callable[[Variant, Optional[str]], Detector],
    fps: float,
    threads: int,
    path: Optional[str],
) -> Choice:
    """Of `entries` the most accurate that keeps `fps` frames/s; the fastest where none does.

    `open_variant(variant, runtime)` opens an engine. JetmaskError of the last where none can be opened.
    """
    ranks = accuracy_ranks(entries)
    ordered = sorted(entries, key=lambda entry: ranks[id(entry)], reverse=True)
    key = _key(contents, ordered, fps, threads)
    known = _kept(path, key, ordered)
    if known is not None:
        return Choice(
            known.variant,
            open_variant(known.variant, known.runtime),
            "chosen from measurements saved by an earlier run",
        )
    measured: List[Tuple[float, Entry]] = []
    trouble: Optional[JetmaskError] = None
    for entry in ordered:
        try:
            detector = open_variant(entry.variant, entry.runtime)
        except JetmaskError as error:
            trouble = error
            continue
        ms = _measure(detector)
        measured.append((ms, entry))
        if SHARE * 1e3 / ms >= fps:
            _keep(path, key, entry)
            return Choice(entry.variant, detector, f"{ms:.1f} ms per frame, fast enough for {fps:g} frames/s")
        detector.close()
    if not measured:
        raise trouble or JetmaskError("no variant of the bundle runs here", contents.name)
    ms, entry = min(measured, key=lambda each: each[0])
    _keep(path, key, entry)
    reason = f"no variant reaches {fps:g} frames/s; this is the fastest, {ms:.1f} ms per frame"
    return Choice(entry.variant, open_variant(entry.variant, entry.runtime), reason)


def _measure(detector: Detector) -> float:
    """The median time of a frame in ms, on a picture of noise of the net's own size."""
    width, height = detector.input_wh
    image = np.random.RandomState(0).randint(0, 255, (height, width, 3)).astype(np.uint8)
    times = []
    for number in range(_WARM + _RUNS):
        began = time.monotonic()
        detector.detect(image)
        if number >= _WARM:
            times.append(1e3 * (time.monotonic() - began))
    return max(statistics.median(times), 1e-3)


def _key(contents: Manifest, entries: Sequence[Entry], fps: float, threads: int) -> str:
    here = [(entry.variant.name, entry.variant.sha256, entry.runtime) for entry in entries]
    facts = [contents.name, contents.created, here, round(fps, 3), threads, len(os.sched_getaffinity(0))]
    return hashlib.sha256(json.dumps(facts).encode("utf-8")).hexdigest()


def _kept(path: Optional[str], key: str, entries: Sequence[Entry]) -> Optional[Entry]:
    try:
        found: Any = files.read_json(path) if path else None
        if found is None or found["key"] != key:
            return None
        return next((entry for entry in entries if entry.variant.name == found["variant"]), None)
    except (JetmaskError, KeyError, TypeError):
        return None  # not there yet, or damaged: it is measured


def _keep(path: Optional[str], key: str, entry: Entry) -> None:
    try:
        if path:
            files.write_json(path, {"key": key, "variant": entry.variant.name})
    except OSError:
        pass  # a full disk: it is measured again the next time
