"""The live trade-off: what each variant of the bundle costs and what it loses, measured here, beside the work.

In a stated share of the time (default 5 %), a sampled frame goes through every variant that runs on this machine, one
inference at a time, between two inferences of the live picture. The most accurate variant is the reference.
"""

import contextlib
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from jetson.adapt.candidates import Entry, accuracy_ranks, choose, engine_is_cached, most_accurate
from jetson.bundle.manifest import CLASSES, Variant
from jetson.errors import JetmaskError
from jetson.evaluation import average_precision
from jetson.evaluation.agreement import KEPT
from jetson.inference.detector import Detector, Faces

__all__ = ["BUDGET", "Entry", "TradeOff", "accuracy_ranks", "choose", "engine_is_cached", "most_accurate"]

BUDGET = 0.05
FAILURES = 3  # in a row: then an engine is taken for dead (its process was killed for memory, for instance)
REOPEN_S = 60.0  # and is opened again after this long
_WARM_RUNS = 2  # the first inferences of an engine are slower and not counted


class TradeOff:
    """Samples and keeps the figures. `spare(idle)` is the runner's hook; `offer(image)` gives it frames.

    `open_variant(variant, runtime) -> Detector`; detectors are opened in a thread of their own and belong to this
    object. `truths`: a labelled split (metrics.load_split) to measure true AP on, image by image, in the same budget.
    """

    def __init__(
        self,
        entries: List[Entry],
        open_variant: Callable[[Variant, str], Detector],
        score: float,
        budget: float = BUDGET,
        truths: Sequence[average_precision.Truth] = (),
        power: Callable[[], Optional[float]] = lambda: None,
        classes: Sequence[str] = CLASSES,
    ) -> None:
        self.entries = entries
        self.reference = most_accurate(entries)
        self.budget = budget
        self.active = ""
        self.samples = 0
        # Called in the inferring thread with (camera, height of the frame, reference's faces, [other's faces, …]).
        self.on_sample: Callable[[int, int, Faces, List[Faces]], None] = lambda *sample: None
        # Whether the runner works with this detector, so that it cannot be closed yet.
        self.in_use: Callable[[Detector], bool] = lambda detector: False
        self._open_variant = open_variant
        self._score = score
        self._truths = list(truths)
        self._power = power
        self._classes = tuple(classes)
        self._frame: Optional[np.ndarray] = None
        self._camera = 0
        self._wants = True
        self._job: List[Entry] = []
        self._found: Dict[str, Faces] = {}
        self._eval: List[Any] = []
        self._eval_turn = False
        self._eval_error = ""
        self._broken: List[Detector] = []
        self._credit = 0.0
        self._most_credit = 0.5  # seconds
        self._last = time.monotonic()
        self._spent = 0.0
        self._started = self._last
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._opener = threading.Thread(target=self._open_all, name="tradeoff", daemon=True)

    def start(self) -> "TradeOff":
        """Begin to open the variants' engines."""
        self._opener.start()
        return self

    def stop(self) -> None:
        """Open no more engines; close those there are (the runner has stopped)."""
        self._stop.set()
        self._opener.join(1.0)  # one that is still at work closes what it gets
        with self._lock:
            held = self._broken + [entry.detector for entry in self.entries if entry.detector is not None]
            self._broken = []
            for entry in self.entries:
                entry.detector = None
        for detector in held:
            detector.close()

    def _open_all(self) -> None:
        for entry in sorted(self.entries, key=lambda e: e is not self.reference):
            if not self._stop.is_set():
                self._open(entry)

    def _open(self, entry: Entry) -> bool:
        try:
            detector = self._open_variant(entry.variant, entry.runtime)
        except Exception as error:  # whatever a runtime throws: the other variants are opened all the same
            entry.error = _line(error)
            return False
        with self._lock:
            late = self._stop.is_set()
            if not late:
                entry.detector, entry.error, entry.runs, entry.failures = detector, "", 0, 0
        if late:
            detector.close()
        return True

    def _open_again(self, entry: Entry) -> None:
        wait_s = REOPEN_S
        while not self._stop.wait(wait_s):
            self._close_broken()
            if self._open(entry):
                return
            wait_s = min(2 * wait_s, 10 * REOPEN_S)

    def _close_broken(self) -> None:
        """Each engine holds memory and descriptors, a dead one too: they go but for one that the runner still uses."""
        with self._lock:
            gone = [detector for detector in self._broken if not self.in_use(detector)]
            self._broken = [detector for detector in self._broken if detector not in gone]
        for detector in gone:
            with contextlib.suppress(Exception):  # it is broken
                detector.close()

    def _failed(self, entry: Entry, error: Exception) -> None:
        """An inference failed: the others go on; after the third in a row this variant is left out and opened anew."""
        entry.failures += 1
        if entry.failures < FAILURES:
            return
        with self._lock:
            # Not closed at once: it may be the one that the runner uses.
            self._broken += [entry.detector] if entry.detector is not None else []
            entry.detector = None
        entry.error = _line(error)
        threading.Thread(target=self._open_again, args=(entry,), name="reopen", daemon=True).start()

    def entry(self, name: str) -> Optional[Entry]:
        """The entry of a variant."""
        return next((entry for entry in self.entries if entry.variant.name == name), None)

    def offer(self, image: np.ndarray, camera: int = 0) -> None:
        """A live frame of a camera; copied when a sample is due. Called in the finishing thread."""
        if self._wants:
            self._wants = False
            self._camera = camera
            self._frame = image.copy()

    # -- in the inferring thread --------------------------------------------------------------------------------

    def spare(self, idle: bool) -> bool:
        """Do one inference if the budget allows; whether the time was used."""
        now = time.monotonic()
        # What is saved up is bounded: after a long idle night the day must not begin with a minute of sampling.
        self._credit = min(self._credit + self.budget * (now - self._last), self._most_credit)
        self._last = now
        if self._credit <= 0:
            return False
        work = self._next()
        if work is None:
            return False
        entry, image, done = work
        detector = entry.detector
        if detector is None:  # closed meanwhile
            done.skip(entry)
            return False
        cost = (entry.percentile(entry.total_ms, 90) or 0.0) / 1e3
        self._most_credit = max(self._most_credit, 2.5 * cost)
        # While frames wait, twice the price is saved up first: idle moments get the first chance.
        if self._credit < cost * (1.0 if idle else 2.0):
            return False
        began = time.monotonic()
        try:
            # Reading a labelled image takes its time too.
            image = done.image() if image is None else image
        except JetmaskError as error:
            self._end_eval(error)
            return True
        ran = time.monotonic()
        try:
            faces = detector.detect(image, done.score)
        except Exception as error:  # whatever a runtime throws
            self._failed(entry, error)
            done.skip(entry)
        else:
            total_ms = (time.monotonic() - ran) * 1e3
            entry.runs += 1
            entry.failures = 0
            if entry.runs > _WARM_RUNS and done.live:
                entry.total_ms.append(total_ms)
                entry.infer_ms.append(detector.timings["infer_ms"])
            done.take(entry, faces)
        spent = time.monotonic() - began
        self._credit -= spent
        self._spent += spent
        return True

    def _next(self) -> Any:
        if self._eval_turn or not (self._job or self._frame is not None):
            work = self._next_eval()
            if work is not None:
                return work
        if not self._job:
            if self._frame is None:
                self._wants = True
                return None
            ready = [entry for entry in self.entries if entry.detector is not None]
            if self.reference not in ready:
                return None
            # The reference first: without it the others' results mean nothing.
            self._job = sorted(ready, key=lambda e: e is not self.reference)
            self._found = {}
        return self._job[0], self._frame, _Live(self)

    def _next_eval(self) -> Any:
        for entry in self.entries:
            if entry.detector is not None and entry.eval_result is None and len(entry.eval_faces) < len(self._truths):
                return entry, None, _Evaluation(self, self._truths[len(entry.eval_faces)])
        return None

    def _took_live(self, entry: Entry, faces: Faces) -> None:
        self._found[entry.variant.name] = faces
        if entry is not self.reference:
            with self._lock:
                entry.agreement.add(self._found[self.reference.variant.name], faces)
        self._done_live(entry)

    def _done_live(self, entry: Entry) -> None:
        """An entry had its turn, well or badly; with the last one the sample is over, without the reference at once."""
        self._job.pop(0)
        reference = self._found.get(self.reference.variant.name)
        if self._job and reference is not None:
            return
        if reference is not None and self._frame is not None:
            self.on_sample(
                self._camera,
                self._frame.shape[0],
                reference,
                [other for name, other in self._found.items() if name != self.reference.variant.name],
            )
            self.samples += 1
        self._job = []
        self._frame = None
        self._wants = True
        self._eval_turn = bool(self._truths)

    def _took_eval(self, entry: Entry, faces: Faces) -> None:
        entry.eval_faces.append(faces)
        self._eval_turn = len(entry.eval_faces) % 4 != 0
        if len(entry.eval_faces) == len(self._truths):
            result = average_precision.evaluate(self._truths, entry.eval_faces, self._classes)
            entry.eval_result = {
                "map50": result["map50"],
                "per_class": result["per_class"],
                "images": len(self._truths),
            }

    def _skip_eval(self, entry: Entry) -> None:
        self._eval_turn = False

    def _end_eval(self, error: JetmaskError) -> None:
        """A labelled image cannot be read: without it no AP would be that of the whole split."""
        self._truths, self._eval_turn = [], False
        self._eval_error = f" True AP is not measured: {error.what} ({error.where})."
        for entry in self.entries:
            entry.eval_faces = []

    # -- what it says ----------------------------------------------------------------------------------------------

    def note_power(self) -> None:
        """Put the board's present power on the running variant's account (called every second or two)."""
        power = self._power()
        entry = self.entry(self.active)
        if power is not None and entry is not None:
            entry.power_mw.append(power)

    def rows(self) -> List[Dict[str, Any]]:
        """A row per variant, fastest first; `front`: no other is both faster and better."""
        rows = []
        for entry in self.entries:
            with self._lock:
                value = entry.agreement.value()
            p50 = entry.percentile(entry.total_ms, 50)
            row = dict(
                value,
                name=entry.variant.name,
                runtime=entry.runtime,
                precision=entry.variant.precision,
                input_wh=list(entry.variant.input_wh),
                macs=entry.variant.macs,
                bytes=entry.variant.bytes,
                reference=entry is self.reference,
                active=entry.variant.name == self.active,
                latency_p50_ms=p50,
                latency_p95_ms=entry.percentile(entry.total_ms, 95),
                infer_p50_ms=entry.percentile(entry.infer_ms, 50),
                runs=len(entry.total_ms),
                fps=round(1e3 / p50, 2) if p50 else None,
                ap=entry.ap,
                ap_here=entry.eval_result,
                eval_images=len(entry.eval_faces),
                error=entry.error,
                note=entry.note,
                front=False,
                power_mw=round(float(np.mean(entry.power_mw)), 0) if entry.power_mw else None,
            )
            if row["reference"]:
                row.update(agreement=1.0, low=1.0, high=1.0)
            rows.append(row)
        measured = [row for row in rows if row["latency_p50_ms"] and row["agreement"] is not None]
        for row in measured:
            row["front"] = not any(
                other["latency_p50_ms"] < row["latency_p50_ms"] and other["agreement"] >= row["agreement"]
                for other in measured
                if other is not row
            )
        return sorted(rows, key=lambda row: row["latency_p50_ms"] or 1e9)

    def state(self) -> Dict[str, Any]:
        """For the page and /api/state."""
        elapsed = max(time.monotonic() - self._started, 1e-6)
        done = [len(entry.eval_faces) for entry in self.entries]
        # Older samples no longer count (jetson.evaluation.agreement).
        note = (
            f"Agreement with {self.reference.variant.name} on the last {min(self.samples, KEPT)} sampled frames, 95 % "
            "interval beside it; latency of one frame at a time, measured here. Sampling takes "
            f"{100 * self._spent / elapsed:.1f} % of the time (budget {100 * self.budget:.0f} %)."
        )
        if self._truths and min(done) < len(self._truths):
            note += f" Labelled images so far: {sum(done)} of {len(done) * len(self._truths)}."
        note += self._eval_error
        note += "".join(
            f" {entry.variant.name} is left out: {entry.error.rstrip('.')}." for entry in self.entries if entry.error
        )
        note += "".join(f" {entry.variant.name}: {entry.note}." for entry in self.entries if entry.note)
        return {
            "reference": self.reference.variant.name,
            "samples": self.samples,
            "budget": self.budget,
            "share_used": round(self._spent / elapsed, 4),
            "variants": self.rows(),
            "note": note,
        }


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


class _Live:
    """A sampled frame of the camera."""

    live = True

    def __init__(self, owner: TradeOff) -> None:
        self.score = owner._score
        self.take = owner._took_live
        self.skip = owner._done_live


class _Evaluation:
    """A labelled image."""

    live = False
    score = average_precision.MIN_SCORE

    def __init__(self, owner: TradeOff, truth: average_precision.Truth) -> None:
        self.image = lambda: average_precision.read_image(truth)
        self.take = owner._took_eval
        self.skip = owner._skip_eval
