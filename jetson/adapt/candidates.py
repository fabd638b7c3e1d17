"""The variants that are compared on this machine, what was measured of each, and which one is the reference."""

from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Sequence

import numpy as np

from jetson.bundle.manifest import RUNTIMES, Manifest, Variant
from jetson.engine import available, int8
from jetson.errors import JetmaskError, UsageError
from jetson.evaluation.agreement import Agreement
from jetson.inference.detector import Detector, Faces

MOST = 8  # variants held open: each costs memory


class Entry:
    """One variant with all that was measured of it."""

    def __init__(self, variant: Variant, runtime: str) -> None:
        self.variant = variant
        self.runtime = runtime
        self.detector: Optional[Detector] = None
        self.error = ""
        self.runs = self.failures = 0
        self.total_ms: Deque[float] = deque(maxlen=200)
        self.infer_ms: Deque[float] = deque(maxlen=200)
        self.agreement = Agreement()
        self.power_mw: Deque[float] = deque(maxlen=600)
        self.eval_faces: List[Faces] = []
        self.eval_result: Optional[Dict[str, Any]] = None

    @property
    def note(self) -> str:
        """What must be said beside every figure of this entry, or ""."""
        return int8.note(self.variant, self.runtime)

    def percentile(self, times: Sequence[float], share: float) -> Optional[float]:
        """A percentile of the times in ms; None before the first."""
        return round(float(np.percentile(list(times), share)), 3) if times else None

    @property
    def ap(self) -> Optional[Dict[str, Any]]:
        """The manifest's AP of this variant on this runtime."""
        return (self.variant.ap or {}).get(self.runtime)


def accuracy_ranks(entries: Sequence[Entry]) -> Dict[int, Any]:
    """{id(entry): key} by which the most accurate entry is the largest.

    The manifest's AP where every entry has one; where some have none, figures cannot be compared, and precision, MACs
    per pixel and input size decide.
    """
    known = [entry.ap for entry in entries]
    measured = all(known)
    ranks = {}
    for entry, ap in zip(entries, known):
        pixels = entry.variant.input_wh[0] * entry.variant.input_wh[1]
        precision = {"fp32": 3, "fp16": 2, "int8": 1, "int8-cpu": 1}.get(entry.variant.precision, 0)
        ranks[id(entry)] = (ap["map50"] if ap and measured else 0.0, precision, entry.variant.macs / pixels, pixels)
    return ranks


def most_accurate(entries: Sequence[Entry]) -> Entry:
    """The reference among these entries."""
    ranks = accuracy_ranks(entries)
    return max(entries, key=lambda entry: ranks[id(entry)])


def choose(
    manifest: Manifest,
    wanted: str,
    runtime: Optional[str],
    active: Variant,
    cached: Callable[[Variant], bool] = lambda variant: True,
) -> List[Entry]:
    """The variants to compare. `wanted`: "auto" or names with commas; the active one is always among them.

    `cached`: whether a TensorRT engine of the variant is there already: measuring must not start builds by itself.
    """
    here = [name for name, why in available().items() if why is None]
    explicit = [name.strip() for name in wanted.split(",") if name.strip()] if wanted != "auto" else []
    for name in explicit:
        manifest.variant(name)
    found = []
    for variant in manifest.variants:
        runtimes = [name for name in RUNTIMES if name in variant.runtimes and name in here and runtime in (None, name)]
        if not runtimes or (explicit and variant.name not in explicit and variant.name != active.name):
            continue
        if variant.name != active.name and not explicit and runtimes[0] == "tensorrt" and not cached(variant):
            continue
        found.append(Entry(variant, runtimes[0]))
    if explicit and len(found) > MOST:
        raise UsageError("too many variants at once", "--tradeoff", f"at most {MOST}")
    if len(found) > MOST:
        # The reference and the running one stay; of the others an even choice along the cost.
        keep = {most_accurate(found).variant.name, active.name}
        rest = sorted((e for e in found if e.variant.name not in keep), key=lambda e: e.variant.macs)
        picks = {rest[int(i)].variant.name for i in np.linspace(0, len(rest) - 1, MOST - len(keep))}
        found = [e for e in found if e.variant.name in keep | picks]
    return found


def engine_is_cached(manifest: Manifest) -> Callable[[Variant], bool]:
    """A function that says whether a variant's TensorRT engine was built on this machine before."""

    def cached(variant: Variant) -> bool:
        try:
            from jetson.engine import build, cache, tensorrt_module

            trt = tensorrt_module.load()
            machine = build.machine_of(trt)
            recipe = build.job_for(manifest, variant, trt, machine).recipe
            return cache.load(cache.default_folder(), recipe, machine)[0] is not None
        except (ImportError, JetmaskError):
            return False

    return cached
