"""What `bench` measures when nobody says: the variants worth comparing on this machine, and how long that takes."""

import glob
import os
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from jetson import files
from jetson.adapt.candidates import Entry
from jetson.bundle.manifest import RUNTIMES, Manifest, Variant
from jetson.engine import available, cache, cuda
from jetson.errors import JetmaskError, UsageError

MOST = 6
# Multiply-adds count less in a precision that the hardware has: only to order variants before anything is measured.
_WEIGHT = {"fp32": 1.0, "fp16": 0.5, "int8": 0.25, "int8-cpu": 0.5}
# An engine's build, where none was built on this machine yet. Assumptions: none was timed on a board by us.
BUILD_S = 60.0
BUILD_S_NANO = 240.0
OPEN_S = 5.0


class Plan(NamedTuple):
    """`entries` in the order in which they are measured, the most accurate first; `of`: how many there are in all."""

    entries: List[Entry]
    of: int
    to_build: int
    minutes: float
    build_basis: str

    def lines(self) -> List[str]:
        """The plan in words, before it begins."""
        if all(entry.error for entry in self.entries):
            return []
        count = sum(not entry.error for entry in self.entries)
        text = f"{count} of {self.of} combinations of variant and runtime, about {self.minutes:.0f} min"
        if self.to_build:
            text += f" (predicted; {self.to_build} engines are built first, {self.build_basis})"
        names = [f"{entry.variant.name} ({entry.runtime})" for entry in self.entries if not entry.error]
        more = f" and {len(names) - 2 * MOST} more" if len(names) > 2 * MOST else ""
        return [f"{text}: {', '.join(names[: 2 * MOST])}{more}"]


def pairs(contents: Manifest, names: Sequence[str], runtime: Optional[str]) -> List[Entry]:
    """Every (variant, runtime) of the bundle that is asked for; those that cannot run here carry the reason in `error`.

    UsageError for a runtime or a variant that is not there.
    """
    here = available()
    if runtime is not None and runtime not in here:
        raise UsageError(f"unknown runtime {runtime!r}", "--runtime", "one of " + ", ".join(here))
    chosen = [contents.variant(name) for name in names] if names else list(contents.variants)
    found = []
    for variant in chosen:
        for name in variant.runtimes:
            if runtime in (None, name):
                entry = Entry(variant, name)
                entry.error = here[name] or ""
                found.append(entry)
    if not found:
        raise UsageError(f"no variant of this bundle is for {runtime}", "--runtime")
    return found


def accuracy(contents: Manifest, entry: Entry) -> Optional[float]:
    """The manifest's AP of this variant on its runtime; else that of the same model and size in fp32, or None.

    An engine that nobody has built yet has no AP of its own, and what it is chosen by need not be exact.
    """
    if entry.ap:
        return float(entry.ap["map50"])
    for other in contents.variants:
        if (other.model, other.input_wh, other.precision) == (entry.variant.model, entry.variant.input_wh, "fp32"):
            for name in RUNTIMES:
                found = (other.ap or {}).get(name)
                if found:
                    return float(found["map50"])
    return None


def _suits(variant: Variant, runtime: str, capability: Optional[Tuple[int, int]], int8_anyway: bool) -> bool:
    """Whether this machine has arithmetic for the variant's precision."""
    if runtime != "tensorrt":
        return variant.precision != "fp16"  # a CPU computes it in fp32, with conversions
    if capability is None:
        return True
    if variant.precision == "int8":
        return int8_anyway or cuda.has_int8(capability)
    return variant.precision == "fp16" or not cuda.has_fp16(capability)


def cost(entry: Entry) -> float:
    """Multiply-adds, weighted by precision: an order, not a time."""
    return entry.variant.macs * _WEIGHT.get(entry.variant.precision, 1.0)


def front(contents: Manifest, entries: Sequence[Entry], int8_anyway: bool = False) -> List[Entry]:
    """At most MOST entries: those that no other beats in both AP and cost, spread over the cost.

    Of each variant its first runtime that is here, in a precision that this machine has arithmetic for. The cheapest,
    the most accurate and the form of the bundle's default variant are always among them.
    """
    usable = [entry for entry in entries if not entry.error]
    first = min((RUNTIMES.index(entry.runtime) for entry in usable), default=0)
    usable = [entry for entry in usable if RUNTIMES.index(entry.runtime) == first]
    capability = _capability() if RUNTIMES[first] == "tensorrt" else None
    suited = [e for e in usable if _suits(e.variant, e.runtime, capability, int8_anyway)] or usable
    ap = {id(entry): accuracy(contents, entry) for entry in suited}
    if all(value is not None for value in ap.values()):
        suited = [e for e in suited if not any(_beats(o, e, ap) for o in suited if o is not e)]
    suited = sorted(suited, key=cost)
    if len(suited) <= MOST:
        return suited
    default = contents.variant(None)
    best = max(suited, key=lambda e: (ap[id(e)] or 0.0, cost(e)))
    keep = [suited[0], best]
    keep += [e for e in suited if (e.variant.model, e.variant.input_wh) == (default.model, default.input_wh)][:1]
    rest = [e for e in suited if not any(e is kept for kept in keep)]
    room = MOST - len({id(e) for e in keep})
    picks = keep + [rest[(number * (len(rest) - 1)) // max(1, room - 1)] for number in range(room)]
    return [e for e in suited if any(e is pick for pick in picks)]


def _beats(one: Entry, other: Entry, ap: Dict[int, Optional[float]]) -> bool:
    left, right = (ap[id(one)] or 0.0, -cost(one)), (ap[id(other)] or 0.0, -cost(other))
    return left[0] >= right[0] and left[1] >= right[1] and left != right


def _capability() -> Optional[Tuple[int, int]]:
    try:
        return cuda.gpu().capability
    except JetmaskError:
        return None


def make(
    contents: Manifest,
    entries: Sequence[Entry],
    everything: bool,
    seconds: float,
    cached: Callable[[Variant], bool],
    int8_anyway: bool = False,
) -> Plan:
    """The plan over `pairs`' entries. `everything`: all of them, not the front alone.

    `seconds`: how long each is measured; `cached`: whether a TensorRT engine of the variant is there already.
    """
    chosen = list(entries) if everything else front(contents, entries, int8_anyway) or list(entries)
    known = all(accuracy(contents, entry) for entry in chosen)

    def rank(entry: Entry) -> Tuple[bool, float, float, int]:
        ap = accuracy(contents, entry) if known else None
        return not entry.error, ap or 0.0, _WEIGHT.get(entry.variant.precision, 1.0), entry.variant.macs

    # The most accurate first: it is what the others' agreement is counted against.
    chosen.sort(key=rank, reverse=True)
    usable = [entry for entry in chosen if not entry.error]
    missing = [entry for entry in usable if entry.runtime == "tensorrt" and not cached(entry.variant)]
    each, basis = build_seconds() if missing else (0.0, "")
    total = each * len(missing) + 2 * (OPEN_S + 1.5 * seconds) * len(usable)
    return Plan(chosen, len(entries), len(missing), max(1.0, total / 60), basis)


def build_seconds() -> Tuple[float, str]:
    """(seconds that an engine's build takes here, where that is from): the mean of those in the cache, or assumed."""
    times = []
    for path in glob.glob(os.path.join(cache.default_folder(), "*.json")):
        try:
            times.append(float(files.read_json(path)["built"]["seconds"]))
        except (JetmaskError, OSError, KeyError, TypeError, ValueError):
            continue
    if times:
        return sum(times) / len(times), "by the builds on this machine so far"
    nano = _capability() in cuda.NO_INT8
    return (BUILD_S_NANO if nano else BUILD_S), f"{BUILD_S_NANO if nano else BUILD_S:.0f} s each, assumed"
