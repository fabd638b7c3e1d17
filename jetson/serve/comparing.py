"""The live trade-off and the governor of a running service, which a reload replaces by others."""

import functools
import threading
from typing import Callable, List, Optional, Sequence

import numpy as np

from jetson.adapt import governor, tradeoff
from jetson.bundle.manifest import Manifest, Variant
from jetson.evaluation import average_precision
from jetson.inference.detector import Detector
from jetson.inference.runner import Runner
from jetson.monitor import drift
from jetson.monitor.board import Board
from jetson.monitor.journal import Journal
from jetson.monitor.watchdog import say
from jetson.serve.settings import Settings

_LAST_SAMPLE_S = 5.0


class Comparing:
    """What is compared now: `tradeoff` and `governor`, None where there is none (for a moment in a reload, too).

    `open_variant(variant, runtime)` opens an engine; `warn(text)` is for the operator. `alone`: no trade-off samples
    faces for drift. Not the same as `tradeoff` being None: faces of another model, in the moment of a reload, would
    throw away what was learnt.
    """

    def __init__(
        self,
        settings: Settings,
        open_variant: Callable[[Variant, Optional[str]], Detector],
        truths: Sequence[average_precision.Truth],
        board: Board,
        seen: Optional[drift.Drift],
        journal: Journal,
        warn: Callable[[str], None],
    ) -> None:
        self.tradeoff: Optional[tradeoff.TradeOff] = None
        self.governor: Optional[governor.Governor] = None
        self.alone = False
        self._settings = settings
        self._open_variant = open_variant
        self._truths = truths
        self._board = board
        self._drift = seen
        self._journal = journal
        self._warn = warn
        self._look_due = 0.0

    def choose(self, contents: Manifest, variant: Variant) -> List[tradeoff.Entry]:
        """The variants to compare while `variant` runs; UsageError for one that is not in this bundle."""
        wish = self._settings.tradeoff
        if wish == "off":
            return []
        cached = tradeoff.engine_is_cached(contents)
        return tradeoff.choose(contents, wish, self._settings.runtime, variant, cached)

    def start(self, runner: Runner, entries: List[tradeoff.Entry]) -> None:
        """Compare `entries` beside `runner`'s work, and govern it, where that is wanted."""
        settings = self._settings
        self.tradeoff = self.governor = None
        runner.spare = None
        if len(entries) < 2 and settings.governor:
            self._warn("The governor has no second variant to switch to: --governor does nothing.")
        names = [] if settings.tradeoff in ("auto", "off") else [name.strip() for name in settings.tradeoff.split(",")]
        absent = [name for name in names if name and name not in [entry.variant.name for entry in entries]]
        if absent:
            self._warn(f"Not compared, since no engine here runs it: {', '.join(absent)}.")
        self.alone = len(entries) < 2 and not (entries and self._truths)
        if self.alone:
            return
        made = tradeoff.TradeOff(
            entries,
            self._open_variant,
            runner.score,
            settings.budget / 100,
            self._truths,
            lambda: self._board.state().get("total_mw"),
            runner.views[0].classes.names,
        ).start()
        made.in_use = lambda detector: runner.active.detector is detector
        if self._drift is not None:
            reference = made.reference
            made.on_sample = functools.partial(
                self._drift.sample, drift.model_key(reference.variant, reference.runtime)
            )
        self.tradeoff = made
        runner.spare = made.spare
        if settings.governor:
            self.governor = governor.Governor(
                governor.parse(settings.governor),
                runner,
                made,
                functools.partial(self.switch, runner),
                self._board.state,
                say,
            )

    def replace(self, runner: Runner, swap: Callable[[], None], entries: List[tradeoff.Entry]) -> None:
        """Let `swap()` bring the runner another engine, and compare `entries` from then on."""
        runner.spare = None
        # Before the swap: the governor must not switch back to an engine that is put away.
        old, self.tradeoff = self.tradeoff, None
        swap()
        self.start(runner, entries)
        if old is not None:
            # The inferring thread may be inside its last sample; its engines go when it is out.
            closing = threading.Timer(_LAST_SAMPLE_S, old.stop)
            closing.daemon = True
            closing.start()

    def switch(self, runner: Runner, entry: tradeoff.Entry, reason: str) -> None:
        """The governor's word: go over to `entry`."""
        before, comparing, detector = runner.active.variant.name, self.tradeoff, entry.detector
        if detector is None or comparing is None or entry not in comparing.entries:
            return  # its engine has died, or a reload has brought others, since the governor looked
        runner.swap(entry.variant, detector, own=False)
        self._journal.add("switched", reason=f"{before} to {entry.variant.name}: {reason}")
        say(f"governor: {before} to {entry.variant.name}: {reason}")

    def offer(self, image: np.ndarray, camera: int) -> None:
        """A live frame; copied when a sample is due."""
        comparing = self.tradeoff  # a reload may take it away meanwhile
        if comparing is not None:
            comparing.offer(image, camera)

    def turn(self, now: float, running: str) -> None:
        """To be called often from the main loop; `running`: the variant's name."""
        comparing, governing = self.tradeoff, self.governor
        if comparing is None or now < self._look_due:
            return
        self._look_due = now + 1.0
        comparing.active = running
        comparing.note_power()
        if governing is not None:
            governing.step()

    def stop(self) -> None:
        """Close the engines of the comparison; the runner has stopped."""
        if self.tradeoff is not None:
            self.tradeoff.stop()
