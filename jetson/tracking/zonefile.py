"""Replace one camera's lines and polygons in the file of `--zones`, and leave what else stands there as it is."""

import os
import re
import stat
from typing import Any, Dict, List, Sequence, Tuple

from jetson import files
from jetson.errors import BadInput
from jetson.tracking import zones as zones_of

_KINDS = {"line": "line", "zone": "polygon", "polygon": "polygon"}
_NAME = re.compile(r"^\w[\w.-]{0,39}$")


def save(path: str, camera: int, wanted: Sequence[Dict[str, Any]], cameras: int) -> None:
    """Write [{"kind": "line" | "zone", "name", "points": [[x, y], …]}] for the camera of that number.

    Points are shares of the picture, 0 to 1. BadInput for what would not be read again, or a file that cannot be read;
    nothing is written then.
    """
    path = os.path.realpath(path)  # of a link, the file that it leads to
    zones_of.load(path, cameras)  # what is wrong now is not made worse
    with open(path, "rb") as file:
        before = file.read()
    after = replaced(before.decode("utf-8"), camera, wanted)
    zones_of.parse(after.lstrip("\ufeff"), path, cameras)
    if after.encode("utf-8") == before:
        return
    mode = stat.S_IMODE(os.stat(path).st_mode)
    with files.aside(path) as part:
        with open(part, "wb") as made:
            made.write(after.encode("utf-8"))
        os.chmod(part, mode)


def replaced(text: str, camera: int, wanted: Sequence[Dict[str, Any]]) -> str:
    """The file's text with these lines and polygons for `camera`; one that has not changed keeps its line."""
    end = "\r\n" if "\r\n" in text else "\n"
    missing = {str(one["name"]): one for one in wanted}
    if len(missing) < len(wanted):
        raise BadInput("two have the same name", None, "each name once")
    for name in missing:
        if not _NAME.match(name):
            raise BadInput(f"not a name: {name[:60]!r}", None, "letters, digits, '_', '-' and '.', at most 40")
    scale = (1.0, 1.0)
    kept: List[str] = []
    for line in text.split("\n"):
        words = line.lstrip("\ufeff").partition("#")[0].split()
        match = re.match(r"^(\d{1,5})x(\d{1,5})$", words[1]) if words[:1] == ["pixels"] and len(words) == 2 else None
        if match:
            scale = (float(match.group(1)), float(match.group(2)))
        if len(words) > 2 and words[0] in ("line", "polygon") and words[1].isdigit() and int(words[1]) == camera:
            one = missing.get(words[2])
            if one is None:
                continue
            if _KINDS[one["kind"]] != words[0] or not _same(one["points"], words[3:], scale):
                cut = line.partition("#")
                line = _line(camera, one, scale) + (" " + cut[1] + cut[2].rstrip("\r") if cut[1] else "")
                line += "\r" if end == "\r\n" else ""
            del missing[words[2]]
        kept.append(line)
    if missing:
        tail = kept.pop() if kept and not kept[-1] else None  # the file ends with a line's end, as it should
        if kept and tail is None and end == "\r\n" and not kept[-1].endswith("\r"):
            kept[-1] += "\r"
        mark = "\r" if end == "\r\n" else ""
        kept += [_line(camera, one, scale) + mark for one in missing.values()] + [""]
    return "\n".join(kept)


def _line(camera: int, one: Dict[str, Any], scale: Tuple[float, float]) -> str:
    points = " ".join(
        ",".join(_number(float(part), side, scale) for part, side in zip(point, scale)) for point in one["points"]
    )
    return f"{_KINDS[one['kind']]} {camera} {one['name']} {points}"


def _number(share: float, side: float, scale: Tuple[float, float]) -> str:
    return f"{share:.4f}" if scale == (1.0, 1.0) else f"{share * side:.1f}"


def _same(points: Sequence[Sequence[float]], words: Sequence[str], scale: Tuple[float, float]) -> bool:
    try:
        old = [[float(part) / side for part, side in zip(word.split(","), scale)] for word in words]
    except ValueError:
        return False
    return len(old) == len(points) and all(
        abs(a - b) < 1e-6 for one, other in zip(old, points) for a, b in zip(one, other)
    )
