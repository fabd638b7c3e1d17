"""Goals that the board's own readings decide: so many watts, so many degrees; with hysteresis, nothing pretended."""

from collections import deque
from typing import Any, Callable, Deque, Dict, NamedTuple, Optional, Tuple

from jetson.monitor import board

PATIENCE_S = 10.0  # the first reading of tegrastats takes a second or two
_MEMORY_S = 600.0  # for so long it is believed what a variant took


# over_s: too much for so long, then a cheaper variant. settle_s: after a switch, until a reading tells of the new one.
# room: so far below the goal, for room_s, before a more accurate one is tried.
class Kind(NamedTuple):
    name: str
    unit: str
    most: float
    over_s: float
    settle_s: float
    room: Callable[[float], float]
    room_s: float
    read: Callable[[Dict[str, Any]], Optional[float]]
    lack: str


def _watts(reading: Dict[str, Any]) -> Optional[float]:
    value = reading.get("total_mw")
    return None if value is None else value / 1000.0


def _celsius(reading: Dict[str, Any]) -> Optional[float]:
    return board.hottest(reading.get("temperature_c") or {})


WATTS = Kind(
    "watts",
    "W",
    1000.0,
    5.0,
    5.0,
    lambda goal: 0.07 * goal,
    20.0,
    _watts,
    "this board does not report its power: neither tegrastats nor an INA3221 monitor names the input rails",
)
# Heat comes and goes slowly: what a variant does to the temperature is seen after half a minute, not at once.
CELSIUS = Kind(
    "celsius",
    "°C",
    150.0,
    5.0,
    30.0,
    lambda goal: 5.0,
    60.0,
    _celsius,
    "this board tells no temperature: neither tegrastats nor a thermal zone of the kernel",
)
KINDS = {kind.name: kind for kind in (WATTS, CELSIUS)}


class Limit:
    """One goal. `look` once a second or two; the answers hold for the newest look."""

    def __init__(self, kind: Kind, goal: float, now: float) -> None:
        self.kind = kind
        self.goal = goal
        self.value: Optional[float] = None  # the mean since over_s, None without a reading
        self.ever = False
        self._started = now
        self._quiet_until = now
        self._readings: Deque[Tuple[float, float]] = deque(maxlen=64)
        self._over_since: Optional[float] = None
        self._room_since: Optional[float] = None
        self._taken: Dict[str, Tuple[float, float]] = {}

    def look(self, now: float, reading: Dict[str, Any], variant: str) -> None:
        """Take the board's reading while `variant` runs."""
        found = self.kind.read(reading)
        if found is None:
            self._readings.clear()
            self.value = self._over_since = self._room_since = None
            return
        self.ever = True
        self._readings.append((now, found))
        while now - self._readings[0][0] > self.kind.over_s:
            self._readings.popleft()
        self.value = sum(value for _, value in self._readings) / len(self._readings)
        if now < self._quiet_until:
            return
        self._taken[variant] = (self.value, now)
        over, roomy = self.value > self.goal, self.value <= self.goal - self.kind.room(self.goal)
        self._over_since = (now if self._over_since is None else self._over_since) if over else None
        self._room_since = (now if self._room_since is None else self._room_since) if roomy else None

    def switched(self, now: float) -> None:
        """Another variant runs: readings so far say nothing of it."""
        self._readings.clear()
        self._over_since = self._room_since = None
        self._quiet_until = now + self.kind.settle_s

    def over(self, now: float) -> bool:
        """Whether it has been too much for long enough."""
        return self._over_since is not None and now - self._over_since >= self.kind.over_s

    def roomy(self, now: float) -> bool:
        """Whether there has been room for long enough; a goal that this board cannot tell about does not hold back."""
        if self.lacking(now):
            return True
        return self._room_since is not None and now - self._room_since >= self.kind.room_s

    def refuses(self, variant: str, now: float) -> bool:
        """Whether this variant took too much when it last ran, not long ago."""
        value, at = self._taken.get(variant, (0.0, now))
        return value > self.goal and now - at < _MEMORY_S

    def lacking(self, now: float) -> bool:
        """Whether this board has never told what this goal needs, although there was time."""
        return not self.ever and now - self._started >= PATIENCE_S

    def words(self) -> str:
        """ "4.8 of 5 W"."""
        value = "?" if self.value is None else f"{self.value:.1f}"
        return f"{value} of {self.goal:g} {self.kind.unit}"

    def state(self, now: float) -> Dict[str, Any]:
        """For the page, /api/state and /metrics."""
        return {
            "goal": self.kind.name,
            "limit": self.goal,
            "unit": self.kind.unit,
            "value": None if self.value is None else round(self.value, 2),
            "kept": not self.lacking(now),
        }
