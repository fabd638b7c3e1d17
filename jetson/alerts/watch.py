"""Rules looked at again and again: what of the scene fulfils one, and whether its cool-down lets it be told."""

import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from jetson.alerts import rule
from jetson.alerts.fields import in_units
from jetson.alerts.rule import When
from jetson.alerts.scene import Camera, Key, Scene
from jetson.alerts.settings import Rule, labels_of
from jetson.bundle.classes import Classes


class Found(NamedTuple):
    """A rule is fulfilled. `cause`: the same as long as it is the same case, which is told once."""

    rule: Rule
    camera: Key
    cause: Any
    text: str
    fields: Dict[str, Any]


class Told(NamedTuple):
    """An alert to be sent: `suppressed`: cases of this rule and camera that its cool-down kept back before it."""

    found: Found
    suppressed: int


class Watch:
    """All rules on one scene. `look` returns what is to be told now.

    A case is told once: a person who stays, a camera that stays lost, a compliance that stays low. Another case of the
    same rule at the same camera within the cool-down is counted, and told with the next alert; one of the camera as a
    whole (lost, drift, compliance) that still holds at the end of the cool-down is told then, or it never would be.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        classes: Classes,
        local: Callable[[float], time.struct_time] = time.localtime,
    ) -> None:
        self.rules = rules
        self._classes = classes
        self._local = local
        self._labels = {
            one.name: [classes.names[label] for label in labels_of(one.when.what, classes)] for one in rules
        }
        self._known: Dict[Tuple[str, Key], Set[Any]] = {}  # causes that hold, and were told or kept back
        self._told_at: Dict[Tuple[str, Key], float] = {}
        self._suppressed: Dict[Tuple[str, Key], int] = {}
        self._held: Dict[Tuple[str, Key], Any] = {}  # the cause of a camera as a whole that is kept back now

    def look(self, scene: Scene, now: float) -> List[Told]:
        """`now`: Unix seconds."""
        out = []
        for one in self.rules:
            if not one.when.open_at(self._local(now)):
                continue
            for key, camera in scene.cameras.items():
                if one.cameras and str(key) not in one.cameras:
                    continue
                out += self._of(one, key, list(_fulfilled(one, self._labels[one.name], key, camera, now)), now)
        return out

    def moved(self, by_s: float) -> None:
        """The wall clock was set by so much: what was told was told as long ago as before."""
        for place in self._told_at:
            self._told_at[place] += by_s

    def forget(self, camera: Key) -> None:
        """The camera is watched no longer."""
        for known in self._all():
            for place in [place for place in known if place[1] == camera]:
                del known[place]

    def rename(self, was: Key, camera: Key) -> None:
        """The camera is called otherwise: what was told of it was."""
        self.forget(camera)
        for known in self._all():
            for place in [place for place in known if place[1] == was]:
                known[place[0], camera] = known.pop(place)

    def go_on_from(self, before: "Watch") -> None:
        """Rules that were there before, of the same name and condition, do not tell again what was told."""
        same = {one.name for one in self.rules for old in before.rules if (one.name, one.when) == (old.name, old.when)}
        for mine, known in zip(self._all(), before._all()):
            mine.update({place: value for place, value in known.items() if place[0] in same})

    def _all(self) -> Tuple[Dict[Tuple[str, Key], Any], ...]:
        return self._known, self._told_at, self._suppressed, self._held

    def _of(self, one: Rule, key: Key, found: List[Found], now: float) -> List[Told]:
        place = (one.name, key)
        known = self._known.setdefault(place, set())
        new = [case for case in found if case.cause not in known]
        causes = self._known[place] = {case.cause for case in found}
        if self._held.get(place) not in causes:
            self._held.pop(place, None)
        out = []
        for case in new:
            last = self._told_at.get(place)
            if last is not None and 0 <= now - last < one.cool_down_s:  # a clock that was set back delays nothing
                if self._held.get(place) != case.cause:
                    self._suppressed[place] = self._suppressed.get(place, 0) + 1
                if one.when.kind != rule.SEEN:
                    self._held[place] = case.cause
                    causes.discard(case.cause)  # looked at again until the cool-down is over
                continue
            self._told_at[place] = now
            itself = self._held.pop(place, None) == case.cause  # counted as kept back, and told after all
            out.append(Told(case, self._suppressed.pop(place, 0) - itself))
        return out


def _fulfilled(one: Rule, labels: Sequence[str], key: Key, camera: Camera, now: float) -> Iterator[Found]:
    when = one.when
    name = key if isinstance(key, str) else f"camera {key}"
    where = f" in {when.zone}" if when.zone else ""
    if when.kind == rule.SEEN:
        for person, since in camera.seen(labels, when.zone):
            if now - since > when.seconds:
                text = f"{name}: {person.label.replace('_', ' ')}{where} for over {in_units(when.seconds)}"
                fields = {"label": person.label, "role": person.role, "person": person.number,
                          "seconds": round(now - since, 1)}  # fmt: skip
                yield Found(one, key, (person.number, camera.case(since)), text, fields)
    elif when.kind == rule.LOST:
        if camera.lost and now - camera.lost[0] > when.seconds:
            text = f"{name}: no picture for over {in_units(when.seconds)}"
            fields = {"seconds": round(now - camera.lost[0], 1), "reason": camera.lost[1]}
            yield Found(one, key, camera.case(camera.lost[0]), text, fields)
    elif when.kind == rule.DRIFT:
        if camera.drifted:
            yield Found(
                one,
                key,
                camera.case(camera.drifted[0]),
                f"{name}: looks different from its reference, check the camera",
                {"reason": camera.drifted[1]},
            )
    else:
        yield from _compliance(one, when, key, camera, now, f"{name}{where}")


def _compliance(one: Rule, when: When, key: Key, camera: Camera, now: float, where: str) -> Iterator[Found]:
    persons, good = camera.compliance(now - when.seconds, when.zone)
    if persons >= when.persons and 100.0 * good < when.percent * persons:
        percent = round(100.0 * good / persons, 1)
        text = f"{where}: compliance {percent:g} % of {persons} persons in {in_units(when.seconds)}"
        yield Found(one, key, "low", text, {"percent": percent, "persons": persons, "seconds": when.seconds})


def body_of(told: Told, at: str, device: str, number: Optional[str] = None) -> Dict[str, Any]:
    """The alert as it is sent (jetson.alerts.body.KEYS)."""
    found = told.found
    return {
        "id": number,
        "at": at,
        "rule": found.rule.name,
        "when": found.rule.when.text(),
        "text": found.text,
        "test": False,
        "device": device,
        "camera": found.camera,
        "zone": found.rule.when.zone or None,
        "suppressed": told.suppressed,
        **found.fields,
    }
