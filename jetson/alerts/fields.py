"""A plain mapping, as YAML or JSON gives it, read key by key; BadInput names the key's path."""

import difflib
import os
import re
from typing import Any, Dict, Iterable, List, Optional, Sequence, Set

from jetson.alerts.secret import Secret
from jetson.errors import BadInput

_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SPELLINGS = {
    "s": "s", "sec": "s", "second": "s", "seconds": "s", "min": "min", "minute": "min", "minutes": "min",
    "h": "h", "hour": "h", "hours": "h", "d": "d", "day": "d", "days": "d",
}  # fmt: skip
_DURATION = re.compile(r"^\s*([0-9]{1,7}(?:\.[0-9]{1,3})?)\s*([a-z]{1,8})\s*$")
NAME = re.compile(r"^\w[\w.-]{0,39}$")


def duration(text: str) -> Optional[float]:
    """Seconds of a number and a unit (s, min, h, d), or None.

    >>> duration("5 s"), duration("1.5h"), duration("soon")
    (5.0, 5400.0, None)
    """
    match = _DURATION.match(text)
    unit = _SPELLINGS.get(match.group(2)) if match else None
    return float(match.group(1)) * _UNITS[unit] if match and unit else None


def in_units(seconds: float) -> str:
    """Seconds in the largest unit that gives a whole number.

    >>> in_units(5400), in_units(3600), in_units(5), in_units(0.5)
    ('90 min', '1 h', '5 s', '0.5 s')
    """
    for unit in ("d", "h", "min"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f} {unit}"
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + " s"


def did_you_mean(word: str, known: Iterable[str]) -> Optional[str]:
    """A question for the nearest of the known words, or None."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]}?" if near else None


class Fields:
    """The mapping `data` at the key path `where`. Each key is asked for once; `done` refuses what nobody asked for."""

    def __init__(self, data: Any, where: str, folder: str = "") -> None:
        if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
            raise BadInput("not a mapping of names to values", where, "`key: value` lines")
        self.data: Dict[str, Any] = data
        self.where = where
        self.folder = folder  # relative paths are seen from here
        self._asked: Set[str] = set()

    def at(self, key: str) -> str:
        """The path of a key."""
        return f"{self.where}.{key}"

    def get(self, key: str, default: Any = None) -> Any:
        """The raw value."""
        self._asked.add(key)
        value = self.data.get(key)
        return default if value is None else value

    def needed(self, key: str, expected: str) -> Any:
        """The raw value of a key that must be there."""
        value = self.get(key)
        if value is None:
            raise BadInput(f"{key} is missing", self.where, expected)
        return value

    def text(self, key: str, default: Optional[str] = None, expected: str = "a text") -> str:
        """A text of one line; with no default it must be there."""
        value = self.needed(key, expected) if default is None else self.get(key, default)
        if not isinstance(value, str) or (default is None and not value) or not value.isprintable() or len(value) > 500:
            raise BadInput(f"{key} is not {expected}", self.at(key), expected)
        return value

    def choice(self, key: str, known: Sequence[str], default: str) -> str:
        """One of the known words."""
        value = self.get(key, default)
        if value is False and "off" in known:  # YAML 1.1 reads `off` so
            value = "off"
        if value not in known:
            raise BadInput(
                f"{key} is {value!r:.60}", self.at(key), "one of " + ", ".join(known), did_you_mean(str(value), known)
            )
        return str(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise BadInput(f"{key} is {value!r:.60}", self.at(key), "true or false")
        return value

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number within bounds."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise BadInput(f"{key} is {value!r:.60}", self.at(key), f"a whole number from {least} to {most}")
        return value

    def seconds(self, key: str, default: float, least: float, most: float) -> float:
        """A duration: `10 min`, or a number of seconds."""
        value = self.get(key, default)
        found = duration(value) if isinstance(value, str) else value
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not least <= found <= most:
            raise BadInput(
                f"{key} is {value!r:.60}",
                self.at(key),
                f"a duration from {in_units(least)} to {in_units(most)}, such as 30 s",
            )
        return float(found)

    def texts(self, key: str, expected: str) -> List[str]:
        """A list of texts, or one text; [] where the key is missing."""
        value = self.get(key, [])
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(one, str) and one and "\0" not in one for one in found):
            raise BadInput(f"{key} is not {expected}", self.at(key), expected)
        return list(found)

    def path(self, key: str) -> str:
        """A file's path, seen from the settings' folder; "" where the key is missing."""
        value = self.text(key, "", "the path of a file")
        return os.path.join(self.folder, value) if value else ""

    def secret(self, key: str) -> Optional[Secret]:
        """A reference to a secret, {"file": PATH} or {"env": NAME}. It is not read here: that is for the device."""
        value = self.get(key)
        if value is None:
            return None
        expected = "a reference: {file: PATH} or {env: NAME}"
        if not isinstance(value, dict) or len(value) != 1:
            # Not the value: it may be the secret itself.
            raise BadInput(
                f"{key} is not a reference to a secret",
                self.at(key),
                expected,
                "put the secret into a file that only this user can read, and name the file",
            )
        inner = Fields(value, self.at(key), self.folder)
        found = Secret(inner.path("file"), inner.text("env", ""))
        inner.done()
        if bool(found.file) == bool(found.env):
            raise BadInput(f"{key} names nothing", self.at(key), expected)
        return found

    def done(self) -> None:
        """BadInput where a key stands that is not known."""
        for key in self.data:
            if key not in self._asked:
                raise BadInput(
                    f"unknown key {key:.60}",
                    self.at(f"{key:.60}"),
                    "one of " + ", ".join(sorted(self._asked)),
                    did_you_mean(key, self._asked),
                )
