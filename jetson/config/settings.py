"""What the file says, as typed settings, checked: read once, by `serve`, `config check` and a deployment alike."""

import os
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from jetson.alerts.settings import AlertSettings, alerts_of, check
from jetson.capture import source
from jetson.capture.address import has_password
from jetson.config import document, schema
from jetson.config.document import Document, Path
from jetson.errors import BadInput, UsageError
from jetson.tracking import zones
from jetson.tracking.zones import Zone

Roi = Tuple[float, float, float, float]
_LEAST_ROI = 0.05


class CameraSettings(NamedTuple):
    """One camera. `name` "": it has none, and is known by its position. `roi`: left, top, right, bottom, as shares.

    `was`: its former name, from which counts and drift go on.
    """

    name: str
    source: str
    size: Optional[Tuple[int, int]] = None
    fps: Optional[float] = None
    rotate: int = 0
    roi: Optional[Roi] = None
    score: Optional[float] = None
    blur: bool = False
    zones: Tuple[Zone, ...] = ()
    was: str = ""
    pictures: Optional[str] = None  # kept of its events, off, crop, frame; None: as of all
    clips: bool = True  # around its alerts, where there are clips at all

    def same_frames(self, other: "CameraSettings") -> bool:
        """Whether the same frames come from both, so that nothing has to be started anew."""
        return self._frames() == other._frames()

    def same(self, other: "CameraSettings") -> bool:
        """Whether nothing differs but the former name."""
        return (
            self._frames() == other._frames()
            and self.shown() == other.shown()
            and self.name == other.name
            and [_zone(one) for one in self.zones] == [_zone(one) for one in other.zones]
        )

    def shown(self) -> Tuple[Any, ...]:
        """What can change without the camera being opened again, but for lines and zones."""
        return self.score, self.blur, self.pictures, self.clips

    def _frames(self) -> Tuple[Any, ...]:
        return self.source, self.size, self.fps, self.rotate, self.roi


def _zone(one: Zone) -> Tuple[str, str, List[Any]]:
    return one.kind, one.name, one.points.tolist()


class EngineSettings(NamedTuple):
    """What finds the faces; `variant` "auto": the most accurate that keeps the cameras' rate; None: the bundle's."""

    variant: Optional[str] = "auto"
    runtime: Optional[str] = None
    threads: int = 0
    governor: Optional[str] = None


class CompareSettings(NamedTuple):
    """The live trade-off. `budget`: percent of the time."""

    variants: str = "auto"
    budget: float = 5.0
    eval: Optional[str] = None


class ClipSettings(NamedTuple):
    """Seconds before and after an alert, frames a second, and the longer side in px at most."""

    before: float = 5.0
    after: float = 5.0
    fps: float = 5.0
    width: int = 640

    @property
    def seconds(self) -> float:
        """Of a whole clip; 0: there are none."""
        return self.before + self.after


NO_CLIPS = ClipSettings(0.0, 0.0)


class EventSettings(NamedTuple):
    """Where events are kept, and for how long. `blur`: faces in what is kept, whatever the page shows."""

    file: Optional[str] = None
    history: Optional[str] = None
    days: float = 30.0
    mb: float = 200.0
    crops: bool = False
    pictures: str = "off"
    blur: bool = False
    media_mb: float = 500.0
    clips: ClipSettings = NO_CLIPS


class DriftSettings(NamedTuple):
    """Where it is kept what cameras looked like."""

    file: Optional[str] = None
    days: float = 7.0


class PageSettings(NamedTuple):
    """What serves the page."""

    host: str = "127.0.0.1"
    port: int = 8080
    token_file: Optional[str] = None
    users: Optional[str] = None
    frame_ancestors: Tuple[str, ...] = ()
    allow_hosts: Tuple[str, ...] = ()
    insecure: bool = False
    stream_fps: float = 15.0
    blur_faces: bool = False


class Settings(NamedTuple):
    """A whole file. `mqtt`: keys and values of its section, None without one."""

    path: str
    cameras: Tuple[CameraSettings, ...]
    credentials: Optional[str]
    engine: EngineSettings
    compare: CompareSettings
    events: EventSettings
    drift: DriftSettings
    page: PageSettings
    mqtt: Optional[Dict[str, Any]]
    alerts: AlertSettings
    warnings: Tuple[str, ...]
    document: Document

    def where(self, *keys: Any) -> str:
        """File, line and key of a value."""
        return self.document.where(keys)


def read(path: str) -> Settings:
    """The settings of a file; BadInput names file, line and key of what is wrong. No camera is opened."""
    return settings_of(document.read(path))


def settings_of(found: Document) -> Settings:
    """`read` of what was read."""
    schema.check(found)
    data: Dict[str, Any] = found.data
    base = os.path.dirname(os.path.abspath(found.path))
    engine = EngineSettings(**_known(data.get("engine"), EngineSettings._fields))
    compare = _known(data.get("compare"), CompareSettings._fields)
    events = _known(data.get("events"), EventSettings._fields)
    if isinstance(events.get("clips"), dict):
        events["clips"] = ClipSettings(**events["clips"])
    elif "clips" in events:
        events["clips"] = ClipSettings() if events["clips"] else NO_CLIPS
    drift = _known(data.get("drift"), DriftSettings._fields)
    page = _known(data.get("page"), PageSettings._fields)
    if engine.variant == "default":
        engine = engine._replace(variant=None)
    if engine.governor and compare.get("variants") == "off":
        raise BadInput(
            "the governor needs the comparison of variants, which is off",
            found.where(("engine", "governor")),
            "compare.variants: auto",
        )
    if compare.get("eval") and compare.get("variants") == "off":
        raise BadInput(
            "compare.eval needs the comparison of variants, which is off",
            found.where(("compare", "eval")),
            "compare.variants: auto",
        )
    for section, keys in ((compare, ("eval",)), (events, ("file",)), (page, ("token_file", "users"))):
        section.update(_beside(section, keys, base))
    for section, key in ((events, "history"), (drift, "file")):
        if section.get(key) not in (None, "off"):
            section.update(_beside(section, (key,), base))
    for key in ("frame_ancestors", "allow_hosts"):
        if key in page:
            page[key] = tuple(page[key])
    mqtt = data.get("mqtt")
    if mqtt is not None:
        mqtt = dict(mqtt, **_beside(mqtt, ("ca_file", "cert_file", "key_file", "spool"), base))
    cameras, warnings = _cameras(found, base)
    return Settings(
        found.path,
        cameras,
        _beside(data, ("credentials",), base).get("credentials"),
        engine,
        CompareSettings(**compare),
        EventSettings(**events),
        DriftSettings(**drift),
        PageSettings(**page),
        mqtt,
        _alerts(found, cameras, base),
        warnings,
        found,
    )


def _alerts(found: Document, cameras: Sequence[CameraSettings], base: str) -> AlertSettings:
    try:
        made = alerts_of(found.data.get("alerts") or {}, "alerts", base)
        zones = {one.name: [zone.name for zone in one.zones if zone.kind == "polygon"] for one in cameras}
        check(made, [one.name for one in cameras], zones, None)
    except BadInput as error:
        where = found.where(keys_of(str(error.where or "alerts"), found.data))
        raise BadInput(error.what, where, error.expected, error.remedy) from None
    return made


def keys_of(path: str, data: Any) -> Tuple[Any, ...]:
    """The keys of a path as alerts.rules[0].when in `data`, as far as there are such: a key may have dots in it.

    >>> keys_of("a.b.c[1].d", {"a": {"b.c": [0, {"d": 2}]}})
    ('a', 'b.c', 1, 'd')
    """
    keys: List[Any] = []
    while path:
        if isinstance(data, list):
            number = re.match(r"\[([0-9]+)\]\.?", path)
            if number is None or int(number.group(1)) >= len(data):
                break
            key: Any = int(number.group(1))
            path = path[number.end() :]
        else:
            fits = [one for one in data if re.match(re.escape(str(one)) + r"(?=$|[.[])", path)] if data else []
            if not isinstance(data, dict) or not fits:
                break
            key = max(fits, key=lambda one: len(str(one)))
            path = path[len(str(key)) :].lstrip(".")
        keys.append(key)
        data = data[key]
    return tuple(keys)


def _known(section: Optional[Mapping[str, Any]], names: Sequence[str]) -> Dict[str, Any]:
    return {name: section[name] for name in names if section is not None and name in section}


def _beside(section: Mapping[str, Any], keys: Sequence[str], base: str) -> Dict[str, str]:
    """Those of the keys that there are, as paths that are not absolute seen from the file's folder."""
    return {key: os.path.join(base, os.path.expanduser(section[key])) for key in keys if key in section}


def _cameras(found: Document, base: str) -> Tuple[Tuple[CameraSettings, ...], Tuple[str, ...]]:
    cameras, warnings = [], []
    former: Dict[str, str] = {}
    for name, values in found.data["cameras"].items():
        keys = ("cameras", name)
        was = values.get("was", "")
        if was == name:
            raise BadInput(
                f"`was` of {name} is its own present name", found.where(keys + ("was",)), "the name that it had before"
            )
        if was in former:
            raise BadInput(
                f"cameras {former[was]} and {name} have the same former name, was: {was}",
                found.where(keys + ("was",)),
                "each former name once",
            )
        if was:
            former[was] = name
        if has_password(values["source"]):
            warnings.append(
                f"a password stands in {found.where(keys + ('source',))}: write {{NAME}} there, and a line "
                "`NAME USER:PASSWORD` into the credentials file"
            )
        one = _camera(found, name, values, base)
        if values.get("enabled", True):
            cameras.append(one)
    if not cameras:
        raise BadInput("every camera is switched off", found.where(("cameras",)), "one with `enabled: true` at least")
    return tuple(cameras), tuple(warnings)


def _camera(found: Document, name: str, values: Dict[str, Any], base: str) -> CameraSettings:
    keys: Path = ("cameras", name)
    size = values.get("size")
    try:
        address = _address(values["source"], base)
        where = found.where(keys + ("size",))
        parsed_size = source.parse_size(size) if size else None
        where = found.where(keys + ("source",))
        parsed = source.parse(address, parsed_size, values.get("fps"))
        if source.is_list(address) or source.named(values["source"])[0]:
            raise UsageError(
                "the source is a list file or NAME=ADDRESS, not one address",
                None,
                source.EXAMPLES,
                "write each camera on its own",
            )
    except UsageError as error:
        raise BadInput(error.what, where, error.expected, error.remedy) from error
    if values.get("rotate") and parsed.options.get("flip"):
        raise BadInput("rotate and flip= in the address both turn the picture", found.where(keys + ("rotate",)), "one")
    roi = values.get("roi")
    if roi is not None and (roi[2] - roi[0] < _LEAST_ROI or roi[3] - roi[1] < _LEAST_ROI):
        raise BadInput(
            f"roi is {roi}",
            found.where(keys + ("roi",)),
            "[left, top, right, bottom] with right and bottom larger by 0.05 at least",
        )
    return CameraSettings(
        name,
        address,
        parsed_size,
        values.get("fps"),
        int(values.get("rotate", 0)),
        (float(roi[0]), float(roi[1]), float(roi[2]), float(roi[3])) if roi is not None else None,
        values.get("score"),
        bool(values.get("blur", False)),
        _places(found, keys, values),
        values.get("was", ""),
        values.get("pictures"),
        bool(values.get("clips", True)),
    )


def _address(text: str, base: str) -> str:
    """An address with a path that is not absolute seen from the file's folder."""
    return text if "://" in text or text.startswith("/") else os.path.join(base, os.path.expanduser(text))


def _places(found: Document, keys: Path, values: Dict[str, Any]) -> Tuple[Zone, ...]:
    made: List[Zone] = []
    for kind, section in (("line", "lines"), ("polygon", "zones")):
        for name, points in (values.get(section) or {}).items():
            where = found.where(keys + (section, name))
            if any(one.name == name for one in made):
                raise BadInput(f"{keys[1]} has a line {name} already", where, "another name")
            made.append(zones.made(kind, 0, name, points, where))
    if len(made) > zones.MOST:
        raise BadInput(f"too many lines and zones: {len(made)}", found.where(keys), f"at most {zones.MOST}")
    return tuple(made)
