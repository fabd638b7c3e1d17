"""What rules look at, put together from the journal's events: who is where since when, and which cameras are lost."""

from collections import OrderedDict, deque
from typing import Any, Deque, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from jetson.monitor.journal import unstamp

Key = Union[int, str]  # of a camera: its name, or its position where it has none
GONE, RENAMED = "camera no longer watched", "camera renamed"  # of a reload; not in the journal
FORGOTTEN = 100_000  # persons of the compliance window at each camera, so that memory is bounded
_GONE_S = 3600.0  # somebody who never left, because the event was lost


class Person(NamedTuple):
    """Somebody in a picture: `label` since `since` (Unix seconds), and in which zones since when."""

    number: int
    label: str
    role: str
    since: float
    zones: Dict[str, float]
    heard: float


class Passed(NamedTuple):
    """Somebody who has entered a camera's picture, or one of its zones ("" for the picture), at `at`."""

    at: float
    number: int
    zone: str


class Camera:
    """One camera's scene."""

    def __init__(self) -> None:
        self.lost: Optional[Tuple[float, str]] = None  # since when, and why
        self.drifted: Optional[Tuple[float, str]] = None
        self.persons: Dict[int, Person] = {}
        self.stepped = 0.0  # s that the wall clock was set by in all: a case is known by its time without them
        self._passed: Deque[Passed] = deque(maxlen=FORGOTTEN)
        self._roles: OrderedDict[int, str] = OrderedDict()  # what each was at last, also after leaving

    def take(self, event: Dict[str, Any], now: float) -> None:
        """One event of this camera, received at `now`."""
        kind = event["kind"]
        if kind == "camera lost":
            self.lost = (unstamp(event["at"]), str(event.get("reason", "")))
            self.persons.clear()
        elif kind == "camera back":
            self.lost = None
        elif kind == "camera drifted":
            self.drifted = (unstamp(event["at"]), str(event.get("reason", "")))
        elif kind == "camera as before":
            self.drifted = None
        elif "person" in event:
            self._person(event, now)

    def _person(self, event: Dict[str, Any], now: float) -> None:
        number, kind, at = int(event["person"]), event["kind"], unstamp(event["at"])
        if kind == "leave":
            self.persons.pop(number, None)
            return
        known = self.persons.get(number)
        label, role, zone = event["label"], event["role"], event.get("zone")
        self._roles[number] = role
        self._roles.move_to_end(number)
        while len(self._roles) > FORGOTTEN:
            self._roles.popitem(last=False)
        if kind == "enter":
            self._passed.append(Passed(at, number, ""))
        elif kind == "zone entered" and zone:
            self._passed.append(Passed(at, number, zone))
        if known is None:
            # A person is told of when it is confirmed; it has been what it is since it was first seen.
            since = unstamp(event["began"]) if kind == "enter" else at
            known = Person(number, label, role, since, {}, now)
        elif label != known.label:
            known = known._replace(label=label, role=role, since=at)
        zones = dict(known.zones)
        if kind == "zone entered" and zone:
            zones[zone] = at
        elif kind == "zone left" and zone:
            zones.pop(zone, None)
        self.persons[number] = known._replace(zones=zones, heard=now)

    def seen(self, labels: Sequence[str], zone: str) -> Iterator[Tuple[Person, float]]:
        """(person, since when) of those of these classes in a zone ("": anywhere)."""
        for one in self.persons.values():
            if one.label in labels and (not zone or zone in one.zones):
                yield one, max(one.since, one.zones[zone]) if zone else one.since

    def compliance(self, since: float, zone: str) -> Tuple[int, int]:
        """(persons, how many of them as they should be) of those who entered from `since` on; of roles that count."""
        last: Dict[int, str] = {}
        for one in self._passed:
            if one.at >= since and one.zone == zone and one.number in self._roles:
                last[one.number] = self._roles[one.number]
        counted = [role for role in last.values() if role != "ignore"]
        return len(counted), sum(role == "ok" for role in counted)

    def case(self, since: float) -> float:
        """What something that began at `since` is known by, however the clock is set."""
        return round(since - self.stepped, 2)

    def moved(self, by_s: float) -> None:
        """The wall clock was set by so much."""
        self.stepped += by_s
        if self.lost:
            self.lost = (self.lost[0] + by_s, self.lost[1])
        if self.drifted:
            self.drifted = (self.drifted[0] + by_s, self.drifted[1])
        for number, one in self.persons.items():
            zones = {zone: at + by_s for zone, at in one.zones.items()}
            self.persons[number] = one._replace(since=one.since + by_s, zones=zones, heard=one.heard + by_s)
        self._passed = deque((one._replace(at=one.at + by_s) for one in self._passed), maxlen=FORGOTTEN)

    def tidy(self, now: float) -> None:
        """Forget who has not been heard of for an hour."""
        for number in [one.number for one in self.persons.values() if now - one.heard > _GONE_S]:
            del self.persons[number]


class Scene:
    """All cameras, by key. Not safe for several threads: one takes the events and evaluates the rules."""

    def __init__(self) -> None:
        self.cameras: Dict[Key, Camera] = {}

    def take(self, events: List[Dict[str, Any]], now: float) -> None:
        """Events of the journal, in their order."""
        for event in events:
            if event["kind"] == "clock stepped":
                for camera in self.cameras.values():
                    camera.moved(float(event["by_s"]))
            elif event["kind"] == GONE:
                self.cameras.pop(event["camera"], None)
            elif event["kind"] == RENAMED:
                if event["was"] in self.cameras:
                    self.cameras[event["camera"]] = self.cameras.pop(event["was"])
            elif "camera" in event:
                self.cameras.setdefault(event["camera"], Camera()).take(event, now)
