"""The governor: the most accurate variant that keeps the goals, by what was measured here.

Goals: a frame rate, watts, degrees, or several. Too slow, too much or too hot for some seconds: a cheaper variant along
the measured front of speed and agreement. Room for longer: a more accurate one. Every retreat makes the next advance
wait longer.
"""

import time
from typing import Any, Callable, Dict, List, Optional

from jetson.adapt.goals import KINDS, Limit
from jetson.adapt.tradeoff import Entry, TradeOff, accuracy_ranks
from jetson.errors import UsageError
from jetson.inference.runner import Runner

DOWN_S = 3.0  # too slow for this long: a faster variant
UP_S = 10.0  # room for this long: a more accurate one
HEADROOM = 1.15  # what a more accurate variant must be able to do beyond what is asked
_LONGEST_HOLD_S = 600.0


def parse(text: str) -> Dict[str, float]:
    """'fps=25,watts=5' as {"fps": 25.0, "watts": 5.0}; UsageError otherwise."""
    goals: Dict[str, float] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        key = key.strip()
        most = KINDS[key].most if key in KINDS else 1000.0
        try:
            goal = float(value)
        except ValueError:
            goal = 0.0
        if key not in ("fps", *KINDS) or not 0 < goal <= most or key in goals:
            raise UsageError(
                f"not a goal for the governor: {part!r}",
                "--governor",
                "fps=25, watts=5 or celsius=70, each at most once, several with commas",
            )
        goals[key] = goal
    return goals


class Governor:
    """Decides every second or two; `switch(entry, reason)` is called when another variant is due.

    `goals`: as of `parse`. `reading()`: the board's (jetson.monitor.board.Board.state). `tell(text)`: a line for the
    log.
    """

    def __init__(
        self,
        goals: Dict[str, float],
        runner: Runner,
        tradeoff: TradeOff,
        switch: Callable[[Entry, str], None],
        reading: Callable[[], Dict[str, Any]] = dict,
        tell: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fps = goals.get("fps")
        self.limits = [Limit(KINDS[key], goal, clock()) for key, goal in goals.items() if key in KINDS]
        self._reading = reading
        self._tell = tell
        self._told: List[str] = []
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
        self.count = 0
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
        """Frames/s asked of the engine: a camera that gives fewer is not asked for more; without a goal, all."""
        total = 0.0
        for view in self._runner.views:
            camera = view.camera
            if camera.status == "live":
                goal = self.fps or camera.fps or 1.0
                total += min(goal, camera.fps) if camera.fps > 0 else goal
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
        name = self._runner.active.variant.name
        current = self._tradeoff.entry(name)
        reading = self._reading() if self.limits else {}
        for limit in self.limits:
            limit.look(now, reading, name)
        for text in self.warnings():
            if text not in self._told:
                self._told.append(text)
                self._tell(text)
        able = [(self.capacity(entry), entry) for entry in self._tradeoff.entries if entry.detector is not None]
        able = [(capacity, entry) for capacity, entry in able if capacity is not None]
        if demand <= 0 or current is None or not able:
            self._slow_since = self._room_since = None
            self.text = "waiting for a picture" if demand <= 0 else "measuring the variants first"
            return
        words = [limit.words() for limit in self.limits if not limit.lacking(now)]
        if self.fps is not None:
            words.insert(0, f"{min(self._delivered, 1e4):.1f} of {demand:.1f} frames/s requested")
        if not words:
            self.text = f"no goal can be controlled on this device; {name} stays"
            return
        self.text = f"{', '.join(words)} with {name}"
        # Right after a switch the rate still tells of the variant before.
        if now - self._last_switch < 2.0:
            return
        over = [limit for limit in self.limits if limit.over(now)]
        slow = self.fps is not None and self._too_slow(now, demand)
        if over:
            self._relieve(now, current, able, over[0])
        elif slow:
            self._go_down(now, demand, current, able)
        else:
            self._go_up(now, demand, current, able)

    def _relieve(self, now: float, current: Entry, able: List[Any], limit: Limit) -> None:
        """A step along the front: the most accurate variant that takes less time, and so less power."""
        self._room_since = None
        mine = self.capacity(current) or 0.0
        cheaper = [
            entry
            for capacity, entry in able
            if capacity > mine
            and entry is not current
            and not any(one.refuses(entry.variant.name, now) for one in self.limits)
        ]
        if not cheaper:
            self.text += "; no variant takes less"
            return
        self._retreat(now)
        self._go(now, max(cheaper, key=self._quality), f"{limit.words()} for {limit.kind.over_s:.0f} s")

    def _retreat(self, now: float) -> None:
        # Back and forth costs more than it brings: each retreat makes the next advance wait longer.
        self._hold_s = min(self._hold_s * 2, _LONGEST_HOLD_S)
        self._hold_until = now + self._hold_s

    def _too_slow(self, now: float, demand: float) -> bool:
        if self._delivered >= 0.93 * demand:
            self._slow_since = None
            return False
        self._slow_since = now if self._slow_since is None else self._slow_since
        self._room_since = None
        return True

    def _go_down(self, now: float, demand: float, current: Entry, able: List[Any]) -> None:
        slow_s = 0.0 if self._slow_since is None else now - self._slow_since
        if slow_s < DOWN_S:
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
        self._retreat(now)
        self._go(
            now,
            target,
            f"{self._delivered:.1f} frames/s instead of {demand:.1f} for {slow_s:.0f} s",
        )

    def _go_up(self, now: float, demand: float, current: Entry, able: List[Any]) -> None:
        mine = self._quality(current)
        better = [
            (capacity, entry)
            for capacity, entry in able
            if self._quality(entry) > mine
            and (self.fps is None or capacity >= HEADROOM * demand)
            and not any(limit.refuses(entry.variant.name, now) for limit in self.limits)
        ]
        # Only along the front: not where another is both faster and better.
        front = [
            entry
            for capacity, entry in better
            if not any(other > capacity and self._quality(one) > self._quality(entry) for other, one in better)
        ]
        if not front or now < self._hold_until or not all(limit.roomy(now) for limit in self.limits):
            self._room_since = None
            return
        # Frame rates are known beforehand; what a variant takes is known when it runs, so that is tried step by step.
        target = (min if self.limits else max)(front, key=self._quality)
        if self._room_since is None or self._room_for != target.variant.name:
            self._room_since, self._room_for = now, target.variant.name
        room_s = now - self._room_since
        if room_s >= UP_S:
            possible = self.capacity(target)
            reason = f"{possible:.1f} frames/s are possible, {demand:.1f} are asked, for {room_s:.0f} s"
            if self.limits:
                words = [limit.words() for limit in self.limits if limit.value is not None]
                reason = "room: " + ", ".join(words + ([reason] if self.fps is not None else []))
            self._go(now, target, reason)

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
        for limit in self.limits:
            limit.switched(now)
        self.count += 1
        self.switches.append({"from": before, "to": target.variant.name, "reason": reason})
        del self.switches[:-50]
        self._switch(target, reason)

    def state(self) -> Dict[str, Any]:
        """For the page and /api/state."""
        now = self._clock()
        return {
            "fps": self.fps,
            "demand": round(self.demand(), 2),
            "delivered": round(self._delivered, 2),
            "limits": [limit.state(now) for limit in self.limits],
            "count": self.count,
            "text": self.text,
            "switches": self.switches[-5:],
        }

    def warnings(self) -> List[str]:
        """Goals that cannot be kept here, and why."""
        now = self._clock()
        return [
            f"The governor does not keep {limit.kind.name}={limit.goal:g}: {limit.kind.lack}."
            for limit in self.limits
            if limit.lacking(now)
        ]
