"""The governor: the most accurate variant that still holds the asked frame rate, by what was measured here."""

import time
from typing import Any, Callable, Dict, List, Optional

from jetson.errors import UsageError
from jetson.runner import Runner
from jetson.tradeoff import Entry, TradeOff, accuracy_ranks

DOWN_S = 3.0  # too slow for this long: a faster variant
UP_S = 10.0  # room for this long: a more accurate one
HEADROOM = 1.15  # what a more accurate variant must be able to do beyond what is asked
_LONGEST_HOLD_S = 600.0


def parse(text: str) -> float:
    """'fps=25' as 25.0; UsageError otherwise."""
    key, _, value = text.partition("=")
    try:
        fps = float(value)
    except ValueError:
        fps = 0.0
    if key.strip() != "fps" or not 0 < fps <= 1000:
        raise UsageError("not a goal for the governor: {!r}".format(text), "--governor", "fps=25")
    return fps


class Governor:
    """Decides every second or two; `switch(entry, reason)` is called when another variant is due."""

    def __init__(self, fps: float, runner: Runner, tradeoff: TradeOff, switch: Callable[[Entry, str], None],
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.fps = fps
        self._runner = runner
        self._tradeoff = tradeoff
        self._switch = switch
        self._clock = clock
        self._ranks = accuracy_ranks(tradeoff.entries)
        self._slow_since: Optional[float] = None
        self._room_since: Optional[float] = None
        self._room_for = ""
        self._hold_until = 0.0
        self._hold_s = UP_S
        self._last_switch = -1e9
        self._last_results = 0
        self._last_at = clock()
        self._delivered = 0.0
        self.switches: List[Dict[str, Any]] = []
        self.text = "measuring first"

    def capacity(self, entry: Entry) -> Optional[float]:
        """Frames/s of all cameras together that a variant can do; None before it was measured.

        The stages overlap, so the slowest one counts: mostly the inference. What sampling takes is left out.
        """
        slow = entry.percentile(entry.infer_ms, 75)
        if slow is None or len(entry.infer_ms) < 3:
            return None
        return 1e3 / max(slow + 0.3, 1e-3) * (1 - self._tradeoff.budget)

    def demand(self) -> float:
        """Frames/s asked of the engine: a camera that gives fewer is not asked for more."""
        total = 0.0
        for view in self._runner.views:
            camera = view.camera
            if camera.status == "live":
                total += min(self.fps, camera.fps) if camera.fps > 0 else self.fps
        return total

    def step(self) -> None:
        """Look and, if it is due, switch."""
        now = self._clock()
        results, self._last_results = self._runner.results - self._last_results, self._runner.results
        elapsed, self._last_at = now - self._last_at, now
        if elapsed <= 0:
            return
        self._delivered = results / elapsed
        demand = self.demand()
        current = self._tradeoff.entry(self._runner.active.variant.name)
        able = [(self.capacity(entry), entry) for entry in self._tradeoff.entries if entry.detector is not None]
        able = [(capacity, entry) for capacity, entry in able if capacity is not None]
        if demand <= 0 or current is None or not able:
            self._slow_since = self._room_since = None
            self.text = "waiting for a picture" if demand <= 0 else "measuring the variants first"
            return
        self.text = "{:.1f} of {:.1f} asked frames/s with {}".format(
            min(self._delivered, 1e4), demand, current.variant.name)
        # Right after a switch the rate still tells of the variant before.
        if now - self._last_switch < 2.0:
            return
        if self._too_slow(now, demand):
            self._go_down(now, demand, current, able)
        else:
            self._go_up(now, demand, current, able)

    def _too_slow(self, now: float, demand: float) -> bool:
        if self._delivered >= 0.93 * demand:
            self._slow_since = None
            return False
        self._slow_since = now if self._slow_since is None else self._slow_since
        self._room_since = None
        return True

    def _go_down(self, now: float, demand: float, current: Entry, able: List[Any]) -> None:
        if now - self._slow_since < DOWN_S:
            return
        mine = self.capacity(current) or 0.0
        faster = [(capacity, entry) for capacity, entry in able if capacity > mine and entry is not current]
        holding = [(capacity, entry) for capacity, entry in faster if capacity >= demand]
        if holding:
            target = max(holding, key=lambda pair: self._ranks[id(pair[1])])[1]
        elif faster:
            target = max(faster, key=lambda pair: pair[0])[1]
        else:
            self.text += "; no variant is faster"
            return
        # Back and forth costs more than it brings: each retreat makes the next advance wait longer.
        self._hold_s = min(self._hold_s * 2, _LONGEST_HOLD_S)
        self._hold_until = now + self._hold_s
        self._go(now, target, "{:.1f} frames/s instead of {:.1f} for {:.0f} s".format(
            self._delivered, demand, now - self._slow_since))

    def _go_up(self, now: float, demand: float, current: Entry, able: List[Any]) -> None:
        better = [entry for capacity, entry in able if capacity >= HEADROOM * demand
                  and self._quality(entry) > self._quality(current)]
        if not better or now < self._hold_until:
            self._room_since = None
            return
        target = max(better, key=self._quality)
        if self._room_since is None or self._room_for != target.variant.name:
            self._room_since, self._room_for = now, target.variant.name
        if now - self._room_since >= UP_S:
            self._go(now, target, "{:.1f} frames/s are possible, {:.1f} are asked, for {:.0f} s".format(
                self.capacity(target), demand, now - self._room_since))

    def _quality(self, entry: Entry) -> Any:
        """The measured agreement in steps of its uncertainty, then what the manifest says."""
        if entry is self._tradeoff.reference:
            return (1.0,) + tuple(self._ranks[id(entry)])
        value = entry.agreement.value()
        # Below 30 frames the agreement says less than the AP measured on the workstation.
        known = value["agreement"] if value["agreement"] is not None and value["frames"] >= 30 else 0.0
        return (round(known, 2),) + tuple(self._ranks[id(entry)])

    def _go(self, now: float, target: Entry, reason: str) -> None:
        before = self._runner.active.variant.name
        self._last_switch = now
        self._slow_since = self._room_since = None
        self.switches.append({"from": before, "to": target.variant.name, "reason": reason})
        del self.switches[:-50]
        self._switch(target, reason)

    def state(self) -> Dict[str, Any]:
        """For the page and /api/state."""
        return {"fps": self.fps, "demand": round(self.demand(), 2), "delivered": round(self._delivered, 2),
                "text": self.text, "switches": self.switches[-5:]}
