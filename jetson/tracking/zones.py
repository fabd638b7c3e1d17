"""Lines that are crossed and polygons that are entered, per camera, from a small file of one line each.

    # kind    camera  name   points, x,y from the top left corner, 0 to 1 of the picture
    line      0       door   0.50,0.00 0.50,1.00
    polygon   0       queue  0.05,0.40 0.45,0.40 0.45,0.95 0.05,0.95

After a line `pixels 1280x720` the points that follow are pixels of a picture of that size. A line is crossed `in`
towards the left hand of one who walks from its first point to its second, and `out` the other way.

What is counted is the middle of the face's box. The detector sees faces; where the feet are would be a guess, and they
are often outside the picture or hidden; and the middle trembles less than an edge of the box. So lines and polygons are
drawn where heads pass, not on the floor.
"""

import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from jetson.bundle.manifest import CLASSES
from jetson.errors import BadInput
from jetson.tracking.tracker import Track
from jetson.vision import geometry

MOST = 32  # of a camera
MOST_POINTS = 64
MARGIN = 0.25  # of the face's height: so far beyond a line it is crossed, so far outside a polygon it is left
_MARGIN_PX = 2.0
_SHORTEST = 0.01
_SMALLEST = 1e-4
_FORM = "line|polygon CAMERA NAME x,y x,y …"


class Zone(NamedTuple):
    kind: str
    camera: int
    name: str
    points: np.ndarray


class ZoneEvent(NamedTuple):
    """ "crossed" with a direction ("in", "out"), "zone entered" or "zone left".

    `began`: of a "zone left", when it was entered; of the others, when the track began. Times are the scene's seconds.
    """

    kind: str
    name: str
    direction: str
    track: int
    label: int
    began: float
    at: float

    def place(self) -> Dict[str, str]:
        """Where it happened, as fields of a journal entry."""
        return {"line": self.name, "direction": self.direction} if self.direction else {"zone": self.name}


def load(path: str, cameras: int) -> List[Zone]:
    """The zones of a file for that many cameras; BadInput names the line that is wrong."""
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8-sig")  # Windows editors put a mark before it
    except OSError as error:
        raise BadInput(f"the file of lines and polygons cannot be read: {error.strerror}", path, _FORM) from error
    except UnicodeDecodeError as error:
        raise BadInput("the file of lines and polygons is not text in UTF-8", path, _FORM) from error
    return parse(text, path, cameras)


def parse(text: str, path: str = "zones", cameras: int = 1000) -> List[Zone]:
    """The zones in `text`; points float64 (M, 2), 0 to 1. BadInput says what is wrong in which line of `path`."""
    found: List[Zone] = []
    scale = (1.0, 1.0)
    names: Dict[Tuple[int, str], int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        where = f"{path}, line {number}"
        if not words:
            continue
        if words[0] == "pixels":
            match = re.match(r"^(\d{1,5})x(\d{1,5})$", words[1]) if len(words) == 2 else None
            if not match or min(int(side) for side in match.groups()) < 16:
                raise BadInput("not the size of a picture", where, "pixels WIDTHxHEIGHT, as pixels 1280x720")
            scale = (float(match.group(1)), float(match.group(2)))
            continue
        if words[0] not in ("line", "polygon"):
            raise BadInput(f"unknown kind: {words[0]}", where, _FORM)
        if len(words) < 3 or not re.match(r"^[0-9]{1,3}$", words[1]):
            raise BadInput(f"no camera's number and name after {words[0]}", where, _FORM)
        camera, name = int(words[1]), words[2]
        if camera >= cameras:
            raise BadInput(
                f"unknown camera {camera}",
                where,
                f"0 to {cameras - 1}: the cameras in the order of --source",
            )
        if not re.match(r"^\w[\w.-]{0,39}$", name):
            raise BadInput(f"not a name: {name}", where, "letters, digits, '_', '-' and '.', at most 40")
        if (camera, name) in names:
            raise BadInput(
                f"camera {camera} has a {name} already",
                where,
                f"another name than in line {names[camera, name]}",
            )
        names[camera, name] = number
        points = np.array([_point(word, scale, where) for word in words[3:]], np.float64).reshape(-1, 2)
        (_check_line if words[0] == "line" else _check_polygon)(points, scale, where)
        found.append(Zone(words[0], camera, name, points))
        if sum(1 for zone in found if zone.camera == camera) > MOST:
            raise BadInput(f"too many for camera {camera}", where, f"at most {MOST}")
    return found


def made(kind: str, camera: int, name: str, points: Sequence[Sequence[float]], where: str) -> Zone:
    """A "line" or "polygon" of points [[x, y], …], shares of the picture; BadInput names `where`."""
    array = np.array(points, np.float64).reshape(-1, 2)
    (_check_line if kind == "line" else _check_polygon)(array, (1.0, 1.0), where)
    return Zone(kind, camera, name, array)


def _point(word: str, scale: Tuple[float, float], where: str) -> List[float]:
    match = re.match(r"^(-?\d{1,6}(?:\.\d{1,9})?),(-?\d{1,6}(?:\.\d{1,9})?)$", word)
    if not match:
        raise BadInput(f"not a point: {word}", where, "x,y without a blank, such as 0.5,0.25")
    point = [float(part) / side for part, side in zip(match.groups(), scale)]
    if not all(0 <= part <= 1 for part in point):
        remedy = "for points in pixels, write a line before it: pixels WIDTHxHEIGHT" if scale == (1.0, 1.0) else None
        raise BadInput(
            f"the point {word} is outside the picture",
            where,
            "x from 0 to {:g}, y from 0 to {:g}".format(*scale),
            remedy,
        )
    return point


def _check_line(points: np.ndarray, scale: Tuple[float, float], where: str) -> None:
    if len(points) != 2:
        raise BadInput(f"a line has two points, not {len(points)}", where, _FORM)
    if np.hypot(*(points[1] - points[0])) < _SHORTEST:
        raise BadInput("the line is too short", where, "at least a hundredth of the picture")


def _check_polygon(points: np.ndarray, scale: Tuple[float, float], where: str) -> None:
    if not 3 <= len(points) <= MOST_POINTS:
        raise BadInput(f"a polygon has 3 to {MOST_POINTS} points, not {len(points)}", where, _FORM)
    pixels = points * scale  # the numbers as they were written, so that exact ones are compared exactly
    for number in range(len(points)):
        if (points[number] == points[number - 1]).all():
            raise BadInput(
                f"a point is repeated: point {number or len(points)}",
                where,
                "each point once; the last is joined to the first by itself",
            )
    crossing = geometry.crossing_edges(pixels)
    if crossing:
        sides = [f"{edge + 1} to {(edge + 1) % len(points) + 1}" for edge in crossing]
        raise BadInput(
            "the polygon crosses itself: the sides from point {} and from point {} meet".format(*sides),
            where,
            "points in the order of a walk around it",
        )
    if geometry.area(points) < _SMALLEST:
        raise BadInput("the polygon has hardly any area", where, "at least a hundredth of each side of the picture")


class _Seen:
    """What is known of a track: its last sure place beside each line, and which polygons it is in since when."""

    __slots__ = ("sides", "places", "since", "counted", "label", "last")

    def __init__(self, lines: int) -> None:
        self.sides = [0] * lines
        self.places = [(0.0, 0.0)] * lines
        self.since: Dict[int, float] = {}
        self.counted: Set[int] = set()
        self.label = 0
        self.last = 0.0


class _Drawn:
    """Lines and polygons in the pixels of a frame of `wh`."""

    def __init__(self, lines: Sequence[Zone], polygons: Sequence[Zone], wh: Tuple[int, int]) -> None:
        self.wh = wh
        size = np.array(wh, np.float64)
        self.lines = []
        for zone in lines:
            a, b = zone.points * size
            self.lines.append((*a.tolist(), *b.tolist(), max(float(np.hypot(*(b - a))), 1e-12)))
        self.polygons = []
        for zone in polygons:
            outline = zone.points * size
            corners = outline.tolist()
            self.polygons.append((outline, list(zip(corners, corners[1:] + corners[:1]))))


def _inside(edges: Sequence[Any], x: float, y: float) -> bool:
    """geometry.inside for one point."""
    within = False
    for (ax, ay), (bx, by) in edges:
        if (ay > y) != (by > y) and (((bx - ax) * (y - ay) - (by - ay) * (x - ax)) > 0) == (ay > by):
            within = not within
    return within


def _far(outline: np.ndarray, place: Tuple[float, float], margin: float) -> bool:
    """Whether a point is further than `margin` from an outline."""
    return bool(geometry.to_outline(outline, np.array([place]))[0] > margin)


def _key(zone: Zone) -> Tuple[str, str, List[Any]]:
    return zone.kind, zone.name, zone.points.tolist()


def _pairs(new: Sequence[Zone], old: Sequence[Zone]) -> List[Tuple[int, int, bool]]:
    """(number in `new`, number in `old`, whether it has not moved) of those with the same name."""
    known = {zone.name: number for number, zone in enumerate(old)}
    return [
        (number, known[zone.name], _key(zone) == _key(old[known[zone.name]]))
        for number, zone in enumerate(new)
        if zone.name in known
    ]


class Counter:
    """Counts at the lines and in the polygons of one camera. `update` once per frame, in the thread of the tracker.

    A line is crossed when the face has been beyond a margin on one side and then is on the other, and the way between
    meets the line: trembling on it counts nothing, walking around its end neither. A polygon is entered by the first
    place inside it and left a margin outside. Only confirmed tracks count; one that crossed before it was confirmed is
    counted then. A person who was lost and found again is another one: counts are of tracks.
    """

    def __init__(self, zones: Sequence[Zone], classes: Sequence[str] = CLASSES) -> None:
        self.classes = tuple(classes)
        self.lines = [zone for zone in zones if zone.kind == "line"]
        self.polygons = [zone for zone in zones if zone.kind == "polygon"]
        self._crossed = np.zeros((len(self.lines), 2, len(classes)), np.int64)
        self._entered = np.zeros((len(self.polygons), len(classes)), np.int64)
        self._present = [[0] * len(classes) for _ in self.polygons]  # replaced as a whole, for other threads
        self._shown: Optional[Set[int]] = None  # who is in the picture; None: whoever is remembered
        self._drawn: Optional[_Drawn] = None
        self._seen: Dict[int, _Seen] = {}

    def update(
        self,
        tracks: Sequence[Track],
        frame_wh: Tuple[int, int],
        now: float,
        shown: Optional[Sequence[Track]] = None,
    ) -> List[ZoneEvent]:
        """Take all tracks of the tracker after a frame of `frame_wh` pixels at `now`; what happened.

        `shown`: those of them that are drawn in the picture, so that its number and a polygon's agree: one who was lost
        is remembered for seconds, to be found again without having left.
        """
        self._shown = None if shown is None else {track.number for track in shown}
        events: List[ZoneEvent] = []
        drawn = self._drawn
        if drawn is None or drawn.wh != frame_wh:
            drawn = self._drawn = _Drawn(self.lines, self.polygons, frame_wh)
        places = []
        for track in tracks:
            if track.seen < now:
                continue
            seen = self._seen.get(track.number)
            if seen is None:
                seen = self._seen[track.number] = _Seen(len(self.lines))
            seen.label, seen.last = track.label, track.seen
            left, top, right, bottom = track.box
            margin = max(MARGIN * (bottom - top), _MARGIN_PX)
            places.append((track, ((left + right) / 2, (top + bottom) / 2), margin))
        # Few persons and few lines: plain numbers are several times faster than arrays of that size.
        for number, (ax, ay, bx, by, length) in enumerate(drawn.lines):
            for track, (x, y), margin in places:
                side = -((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / length
                if abs(side) > margin:
                    line = (np.array((ax, ay)), np.array((bx, by)))
                    self._pass(number, track, 1 if side > 0 else -1, (x, y), line, now, events)
        for number, (outline, edges) in enumerate(drawn.polygons):
            for track, (x, y), margin in places:
                if track.confirmed:
                    self._enter(number, track, _inside(edges, x, y), (outline, (x, y), margin), now, events)
        alive = {track.number for track in tracks}
        for gone in [number for number in self._seen if number not in alive]:
            seen = self._seen.pop(gone)
            events += [
                ZoneEvent("zone left", self.polygons[place].name, "", gone, seen.label, since, seen.last)
                for place, since in sorted(seen.since.items())
            ]
        self._count_present()
        return events

    def finish(self) -> List[ZoneEvent]:
        """The scene is over: whoever is in a polygon leaves it, when it was seen last."""
        return self.update([], (1, 1), 0.0)

    def same_places(self, other: "Counter") -> bool:
        """Whether both have the same lines and polygons in the same order."""
        return [_key(zone) for zone in self.lines + self.polygons] == [
            _key(zone) for zone in other.lines + other.polygons
        ]

    def go_on_from(self, before: "Counter") -> List[ZoneEvent]:
        """Take the place of the counter `before`, whose file was changed; who is no longer in a polygon by that.

        Counts go on under the same name. Where nothing has moved it is also still known who is beside and inside.
        """
        lines = _pairs(self.lines, before.lines)
        polygons = _pairs(self.polygons, before.polygons)
        for new, old, _ in lines:
            self._crossed[new] = before._crossed[old]
        for new, old, _ in polygons:
            self._entered[new] = before._entered[old]
        kept = {old for _, old, still in polygons if still}
        events: List[ZoneEvent] = []
        for number, was in before._seen.items():
            seen = self._seen[number] = _Seen(len(self.lines))
            seen.label, seen.last = was.label, was.last
            for new, old, still in lines:
                if still:
                    seen.sides[new], seen.places[new] = was.sides[old], was.places[old]
            for new, old, still in polygons:
                if old in was.counted:
                    seen.counted.add(new)
                if still and old in was.since:
                    seen.since[new] = was.since[old]
            events += [
                ZoneEvent("zone left", before.polygons[old].name, "", number, was.label, since, was.last)
                for old, since in sorted(was.since.items())
                if old not in kept
            ]
        self._shown = before._shown
        self._count_present()
        return events

    def _count_present(self) -> None:
        present = [[0] * len(self.classes) for _ in self.polygons]
        for number, seen in self._seen.items():
            if self._shown is not None and number not in self._shown:
                continue
            for place in seen.since:
                present[place][seen.label] += 1
        self._present = present

    def _pass(
        self,
        number: int,
        track: Track,
        side: int,
        place: Tuple[float, float],
        line: Tuple[np.ndarray, np.ndarray],
        now: float,
        events: List[ZoneEvent],
    ) -> None:
        seen = self._seen[track.number]
        before = seen.sides[number]
        if before not in (0, side):
            if not track.confirmed:
                return
            if geometry.crosses(np.array([seen.places[number]]), np.array([place]), *line)[0]:
                direction = "in" if side > 0 else "out"
                self._crossed[number, int(side < 0), track.label] += 1
                events.append(
                    ZoneEvent(
                        "crossed", self.lines[number].name, direction, track.number, track.label, track.began, now
                    )
                )
        seen.sides[number], seen.places[number] = side, place

    def _enter(
        self,
        number: int,
        track: Track,
        within: bool,
        place: Tuple[np.ndarray, Tuple[float, float], float],
        now: float,
        events: List[ZoneEvent],
    ) -> None:
        seen = self._seen[track.number]
        name = self.polygons[number].name
        if within and number not in seen.since:
            seen.since[number] = now
            if number not in seen.counted:
                seen.counted.add(number)
                self._entered[number, track.label] += 1
            events.append(ZoneEvent("zone entered", name, "", track.number, track.label, track.began, now))
        elif number in seen.since and not within and _far(*place):
            events.append(ZoneEvent("zone left", name, "", track.number, track.label, seen.since.pop(number), now))

    def names(self) -> Dict[str, List[str]]:
        """{"lines": [name], "zones": [name]}, in the order of `state`."""
        return {"lines": [zone.name for zone in self.lines], "zones": [zone.name for zone in self.polygons]}

    def totals(self) -> Dict[str, Any]:
        """What was counted, to be kept: {"lines": {name: {"in", "out"}}, "zones": {name: …}}, numbers by class."""

        def row(counts: np.ndarray) -> Dict[str, int]:
            return dict(zip(self.classes, (int(n) for n in counts)))

        return {
            "lines": {
                zone.name: {"in": row(self._crossed[number, 0]), "out": row(self._crossed[number, 1])}
                for number, zone in enumerate(self.lines)
            },
            "zones": {zone.name: row(self._entered[number]) for number, zone in enumerate(self.polygons)},
        }

    def restore(self, totals: Dict[str, Any]) -> None:
        """Count on from `totals`, where there is a line or polygon of that name."""

        def row(counts: Dict[str, Any]) -> List[int]:
            return [int(counts.get(name, 0)) for name in self.classes]

        for number, zone in enumerate(self.lines):
            if zone.name in totals["lines"]:
                known = totals["lines"][zone.name]
                self._crossed[number] = [row(known["in"]), row(known["out"])]
        for number, zone in enumerate(self.polygons):
            if zone.name in totals["zones"]:
                self._entered[number] = row(totals["zones"][zone.name])

    def state(self, live: bool = True) -> Dict[str, Any]:
        """{"lines": [{name, points, in, out}], "zones": [{name, points, now, entered}]}; counts by class and "total".

        `live` False: there is no picture now, so nobody is said to be there.
        """

        def counts(row: np.ndarray) -> Dict[str, int]:
            return dict(zip(self.classes, (int(n) for n in row)), total=int(row.sum()))

        crossed, entered = self._crossed.copy(), self._entered.copy()
        present = np.array(self._present, np.int64).reshape(-1, len(self.classes))
        lines = [
            {
                "name": zone.name,
                "points": zone.points.tolist(),
                "in": counts(crossed[number, 0]),
                "out": counts(crossed[number, 1]),
            }
            for number, zone in enumerate(self.lines)
        ]
        zones = [
            {
                "name": zone.name,
                "points": zone.points.tolist(),
                "now": counts(present[number] if live else 0 * present[number]),
                "entered": counts(entered[number]),
            }
            for number, zone in enumerate(self.polygons)
        ]
        return {"lines": lines, "zones": zones}
