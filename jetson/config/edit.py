"""Change a camera's zones or name in the file, and leave every other byte as its owner wrote it.

The text is cut where PyYAML says that values begin and end. What comes out is read again before anything is written:
were anything else changed than what was asked for (a value that an anchor shares with others), nothing is written.
"""

import os
import re
import stat
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from jetson import files
from jetson.config import document, settings
from jetson.errors import BadInput

_SECTIONS = {"line": "lines", "zone": "zones"}
_NAME = re.compile(r"^\w[\w.-]{0,39}$")
_DIGITS = 4  # of a share of the picture: a tenth of a pixel of a picture 1000 wide


def save_zones(path: str, camera: str, zones: Sequence[Dict[str, Any]]) -> None:
    """Replace all lines and zones of one camera in the file `path`.

    zones: [{"kind": "line" | "zone", "name": str, "points": [[x, y], …]}], shares of the picture, 0 to 1. BadInput
    where they are no use, there is no such camera, or the file cannot be changed without changing something else.
    """
    wanted = _sections(zones)

    def change(data: Dict[str, Any]) -> None:
        for section, places in wanted.items():
            data["cameras"][camera].pop(section, None)
            if places:
                data["cameras"][camera][section] = places

    def cut(text: str, top: Any) -> List["_Cut"]:
        found: List[_Cut] = []
        key, node = _camera(top, camera, path)
        for section, places in wanted.items():
            found += _section_cuts(text, key, node, section, places)
        return found

    _edit(path, camera, change, cut)


def save_name(path: str, camera: str, name: str) -> None:
    """Give a camera another name; `was` keeps the former one, so that counts and drift go on. BadInput as above."""

    def change(data: Dict[str, Any]) -> None:
        if name in data["cameras"]:
            raise BadInput(f"there is a camera {name} already", path, "another name")
        values = dict(data["cameras"][camera], was=camera)
        data["cameras"] = {name if key == camera else key: values if key == camera else each
                           for key, each in data["cameras"].items()}  # fmt: skip

    def cut(text: str, top: Any) -> List["_Cut"]:
        key, node = _camera(top, camera, path)
        found = [_Cut(key.start_mark.index, key.end_mark.index, _word(name))]
        was = _entry(node, "was")
        if was is not None:
            return found + [_Cut(was[1].start_mark.index, was[1].end_mark.index, _word(camera))]
        return found + [_inserted(text, key, node, f"was: {_word(camera)}")]

    _edit(path, camera, change, cut)


class _Cut(NamedTuple):
    """`text` takes the place of what stands from `start` to before `end`.

    `last`: behind what others put there, as what ends a camera comes behind what ends its last section.
    """

    start: int
    end: int
    text: str
    last: bool = False


def _sections(zones: Sequence[Dict[str, Any]]) -> Dict[str, Dict[str, Any]]:
    found: Dict[str, Dict[str, Any]] = {"lines": {}, "zones": {}}
    for one in zones:
        name, points = one.get("name"), one.get("points")
        if one.get("kind") not in _SECTIONS:
            raise BadInput(f"unknown kind: {str(one.get('kind'))[:40]!r}", None, "line or zone")
        if not isinstance(name, str) or not _NAME.match(name):
            raise BadInput(f"not a name: {str(name)[:60]!r}", None, "letters, digits, '_', '-' and '.', at most 40")
        if any(name in places for places in found.values()):
            raise BadInput(f"{name} appears twice", None, "each name once")
        if not isinstance(points, list) or not all(_is_point(point) for point in points):
            raise BadInput(f"{name} has invalid points", None, "[[x, y], …], shares of the picture, 0 to 1")
        found[_SECTIONS[one["kind"]]][name] = [[round(float(part), _DIGITS) for part in point] for point in points]
    return found


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, (list, tuple))
        and len(point) == 2
        and all(isinstance(part, (int, float)) and not isinstance(part, bool) and 0 <= part <= 1 for part in point)
    )


def _edit(path: str, camera: str, change: Any, cut: Any) -> None:
    path = os.path.realpath(path)  # of a link, the file that it leads to
    with open(path, "rb") as file:
        before = file.read(document.MOST_BYTES + 1)
    was = document.parse(before, path)
    if not isinstance(was.data, dict) or camera not in (was.data.get("cameras") or {}):
        raise BadInput(f"unknown camera {camera}", path)
    wanted = document.parse(before, path).data  # the same again, to be changed
    change(wanted)
    if document.is_yaml(path):
        after = _yaml_after(before, path, cut)
    else:
        after = document.as_json(wanted).encode("utf-8")
    now = document.parse(after, path)
    settings.settings_of(now)  # all of it must still be right
    if not _equal(now.data, wanted):
        raise BadInput(
            f"{camera} cannot be changed without changing something else",
            path,
            "a camera whose values are written out, not an alias (*) of another's",
            "change the file with an editor",
        )
    _write(path, before, after)


def _equal(one: Any, other: Any) -> bool:
    """Whether both mean the same: an empty section is none, the order of cameras counts, that of keys does not."""
    cameras, others = one["cameras"], other["cameras"]
    return (
        list(cameras) == list(others)
        and all(_filled(cameras[name]) == _filled(others[name]) for name in cameras)
        and {k: v for k, v in one.items() if k != "cameras"} == {k: v for k, v in other.items() if k != "cameras"}
    )


def _filled(values: Dict[str, Any]) -> Dict[str, Any]:
    return {key: value for key, value in values.items() if key not in ("lines", "zones") or value}


def _write(path: str, before: bytes, after: bytes) -> None:
    with open(path, "rb") as file:
        if file.read(document.MOST_BYTES + 1) != before:
            raise BadInput("somebody else has just changed the file", path, None, "try again")
    mode = stat.S_IMODE(os.stat(path).st_mode)
    with files.aside(path) as part:
        with open(part, "wb") as file:
            file.write(after)
        os.chmod(part, mode)


def _yaml_after(before: bytes, path: str, cut: Any) -> bytes:
    import yaml

    mark = b"\xef\xbb\xbf" if before.startswith(b"\xef\xbb\xbf") else b""
    text = before[len(mark) :].decode("utf-8")
    cuts = sorted(cut(text, yaml.compose(text, Loader=yaml.SafeLoader)), key=lambda one: (one.start, one.end, one.last))
    parts, at = [], 0
    for one in cuts:
        if one.start < at:
            raise BadInput("the file cannot be changed in place", path, None, "change it with an editor")
        parts += [text[at : one.start], one.text]
        at = one.end
    made = "".join(parts) + text[at:]
    if "\r\n" in text:
        made = re.sub("(?<!\r)\n", "\r\n", made)
    return mark + made.encode("utf-8")


# -- where things stand in YAML ---------------------------------------------------------------------------------------


def _entry(node: Any, key: str) -> Optional[Tuple[Any, Any]]:
    """(key, value) of a mapping node."""
    pairs = node.value if isinstance(node.value, list) else ()
    return next((pair for pair in pairs if isinstance(pair, tuple) and pair[0].value == key), None)


def _camera(top: Any, camera: str, path: str) -> Tuple[Any, Any]:
    cameras = _entry(top, "cameras")
    found = _entry(cameras[1], camera) if cameras is not None else None
    if found is None or not isinstance(found[1].value, list) or not found[1].value:
        raise BadInput(
            f"camera {camera} is not defined directly in the file", path, None, "change the file with an editor"
        )
    return found


def _end(node: Any) -> int:
    """Where a value ends: of a block, PyYAML's own mark is behind the comments that follow it."""
    if not isinstance(node.value, list) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    """Behind the line break of the line of `at`."""
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def _flow(points: Any) -> str:
    return "[" + ", ".join("[{:g}, {:g}]".format(*point) for point in points) + "]"


def _word(name: str) -> str:
    """A name as a YAML scalar."""
    return name if re.match(r"^[A-Za-z_][\w .-]*[\w.-]$|^[A-Za-z_]$", name) else f'"{name}"'


def _flow_mapping(places: Dict[str, Any]) -> str:
    return "{" + ", ".join(f"{name}: {_flow(points)}" for name, points in places.items()) + "}"


def _inserted(text: str, key: Any, node: Any, entry: str) -> _Cut:
    """`entry` behind the last one of a camera."""
    if node.flow_style:
        end = node.end_mark.index - 1
        return _Cut(end, end, ", " + entry, True)
    end = _line_end(text, _end(node))
    indent = " " * node.value[0][0].start_mark.column
    block = "".join(f"{indent}{line}\n" for line in entry.split("\n"))
    return _Cut(end, end, ("" if text[end - 1 : end] == "\n" else "\n") + block, True)


def _section_cuts(text: str, key: Any, node: Any, section: str, places: Dict[str, Any]) -> List[_Cut]:
    found = _entry(node, section)
    merged = any(pair[0].value == "<<" for pair in node.value)
    step = max(2, node.value[0][0].start_mark.column - key.start_mark.column)
    block = "".join(f"\n{' ' * step}{name}: {_flow(points)}" for name, points in places.items())
    if found is None:
        if not places:
            return [_inserted(text, key, node, f"{section}: {{}}")] if merged else []
        entry = f"{section}: {_flow_mapping(places)}" if node.flow_style else f"{section}:{block}"
        return [_inserted(text, key, node, entry)]
    name_node, value = found
    if not isinstance(value.value, list):  # nothing, as in `zones:`
        if not places:
            return []
        end = name_node.end_mark.index + text[name_node.end_mark.index :].index(":") + 1
        return [_Cut(end, max(end, value.end_mark.index), " " + _flow_mapping(places))]
    if value.flow_style or not places:
        kept = "{}" if not places else _flow_mapping(places)
        if {pair[0].value: _numbers(pair[1]) for pair in value.value} == places:
            return []
        if value.flow_style or merged or node.flow_style or len(node.value) == 1:
            if value.flow_style:
                return [_Cut(value.start_mark.index, _end(value), kept)]
            return [_Cut(_after_colon(text, name_node), _end(value), " " + kept)]
        return [_Cut(_line_start(text, name_node.start_mark.index), _line_end(text, _end(value)), "")]
    cuts = []
    old = {pair[0].value: pair for pair in value.value}
    for name, (place_key, place) in old.items():
        if name not in places:
            cuts.append(_Cut(_line_start(text, place_key.start_mark.index), _line_end(text, _end(place)), ""))
        elif _numbers(place) != places[name]:
            cuts.append(_Cut(_after_colon(text, place_key), _end(place), " " + _flow(places[name])))
    fresh = [name for name in places if name not in old]
    if fresh:
        end = _line_end(text, _end(value))
        indent = " " * value.value[0][0].start_mark.column
        lines = "".join(f"{indent}{name}: {_flow(places[name])}\n" for name in fresh)
        cuts.append(_Cut(end, end, ("" if text[end - 1 : end] == "\n" else "\n") + lines))
    return cuts


def _after_colon(text: str, key: Any) -> int:
    return text.index(":", key.end_mark.index) + 1


def _numbers(node: Any) -> Any:
    """The points of a node, to see whether they have changed; None where they are no plain numbers."""
    try:
        return [[float(part.value) for part in point.value] for point in node.value]
    except (AttributeError, TypeError, ValueError):
        return None
