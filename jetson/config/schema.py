"""schema.json, and what of JSON Schema it uses: whether values are as it says, with file, line and the nearest name.

The words of JSON Schema that are known here: type, enum, pattern, min-/maxLength, minimum, maximum, exclusiveMinimum,
exclusiveMaximum, items, min-/maxItems, properties, required, additionalProperties, propertyNames, min-/maxProperties,
and $ref to $defs (https://json-schema.org/draft/2020-12). A test compares with a whole implementation.
"""

import os
import re
from typing import Any, Dict, List, Optional

from jetson import files, hints
from jetson.config.document import Document, Path
from jetson.errors import BadInput

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.json")
_TYPES: Dict[str, Any] = {
    "object": (dict, "keys and values"),
    "array": (list, "a list"),
    "string": (str, "a text"),
    "boolean": (bool, "true or false"),
    "number": ((int, float), "a number"),
    "integer": (int, "a whole number"),
    "null": (type(None), "nothing"),
}
# What others call it.
_SYNONYMS = {
    "url": "source",
    "uri": "source",
    "address": "source",
    "path": "source",
    "input": "source",
    "input_args": "source",
    "rate": "fps",
    "framerate": "fps",
    "resolution": "size",
    "rotation": "rotate",
    "rotate_deg": "rotate",
    "region": "roi",
    "crop": "roi",
    "threshold": "score",
    "confidence": "score",
    "conf": "score",
    "min_score": "score",
    "privacy": "blur",
    "camera": "cameras",
    "streams": "cameras",
    "model": "engine",
    "detector": "engine",
    "detectors": "engine",
    "record": "events",
    "retain": "days",
    "retention": "days",
    "notifications": "alerts",
    "host": "broker",
    "server": "page",
    "web": "page",
    "ui": "page",
}
# Keys that stand at the top of its file and of none of ours.
_FRIGATE = ("detectors", "go2rtc", "ffmpeg", "record", "snapshots", "birdseye", "objects", "camera_groups", "motion")


def load() -> Dict[str, Any]:
    """The schema."""
    found: Dict[str, Any] = files.read_json(PATH)
    return found


def check(document: Document, schema: Optional[Dict[str, Any]] = None) -> None:
    """BadInput with file, line and key for the first value that is not as the schema says."""
    schema = load() if schema is None else schema
    _Check(document, schema).value(document.data, schema, ())


class _Check:
    def __init__(self, document: Document, schema: Dict[str, Any]) -> None:
        self._document = document
        self._definitions = schema.get("$defs", {})

    def _whole(self, rule: Dict[str, Any]) -> Dict[str, Any]:
        """A rule with what it refers to; what stands beside the reference comes first."""
        name = rule.get("$ref")
        return dict(self._definitions[name.rpartition("/")[2]], **rule) if name else rule

    def _bad(self, what: str, keys: Path, rule: Dict[str, Any], remedy: Optional[str] = None) -> BadInput:
        return BadInput(what, self._document.where(keys), rule.get("description"), remedy)

    def value(self, value: Any, rule: Dict[str, Any], keys: Path) -> None:
        rule = self._whole(rule)
        name = _name(keys)
        if "type" in rule and not _is_a(value, rule["type"]):
            types = [each for each in [rule["type"]] if isinstance(each, str)] or list(rule["type"])
            wanted = " or ".join(_TYPES[each][1] for each in types if each != "null")
            said = f"{name} has no value" if value is None else f"{name} is not {wanted}: {_shown(value)}"
            plain = types if set(types) <= {"number", "integer", "boolean", "null"} else []
            meant = f"{wanted}: {rule['description']}" if plain and "description" in rule else rule.get("description")
            remedy = "a blank after the colon" if _glued(value) else None
            said = said if keys or value is not None else "the file is empty"
            raise self._bad(said, keys, {"description": meant or wanted}, remedy)
        if "enum" in rule and not any(_same(value, each) for each in rule["enum"]):
            near = hints.nearest(str(value), [str(each) for each in rule["enum"]], most=1)
            raise BadInput(
                f"{name} is {_shown(value)}",
                self._document.where(keys),
                hints.listed(str(each) for each in rule["enum"]),
                hints.question(near),
            )
        if isinstance(value, str):
            self._text(value, rule, keys, name)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            self._number(value, rule, keys, name)
        elif isinstance(value, list):
            self._list(value, rule, keys, name)
        elif isinstance(value, dict):
            self._mapping(value, rule, keys, name)

    def _text(self, value: str, rule: Dict[str, Any], keys: Path, name: str) -> None:
        if len(value) < rule.get("minLength", 0):
            raise self._bad(f"{name} is empty", keys, rule)
        if len(value) > rule.get("maxLength", len(value)):
            raise self._bad(f"{name} is too long", keys, rule)
        if "pattern" in rule and not re.search(rule["pattern"], value):
            raise self._bad(f"{name} is {_shown(value)}", keys, rule)

    def _number(self, value: float, rule: Dict[str, Any], keys: Path, name: str) -> None:
        low, high = rule.get("minimum"), rule.get("maximum")
        over, under = rule.get("exclusiveMinimum"), rule.get("exclusiveMaximum")
        good = (low is None or value >= low) and (high is None or value <= high)
        if good and (over is None or value > over) and (under is None or value < under):
            return
        bounds = [f"{low:g}" if low is not None else "", f"over {over:g}" if over is not None else ""]
        ends = [f"to {high:g}" if high is not None else "", f"below {under:g}" if under is not None else ""]
        wanted = " ".join(part for part in bounds + ends if part)
        raise BadInput(f"{name} is {_shown(value)}", self._document.where(keys), wanted)

    def _list(self, value: List[Any], rule: Dict[str, Any], keys: Path, name: str) -> None:
        least, most = rule.get("minItems", 0), rule.get("maxItems", len(value))
        if not least <= len(value) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            said = rule.get("description") or f"a list of {wanted}"
            raise BadInput(f"{name} has {len(value)} items, not {wanted}", self._document.where(keys), said)
        for number, each in enumerate(value):
            if "items" in rule:
                self.value(each, rule["items"], keys + (number,))

    def _mapping(self, value: Dict[str, Any], rule: Dict[str, Any], keys: Path, name: str) -> None:
        known = rule.get("properties", {})
        others = rule.get("additionalProperties", True)
        if len(value) < rule.get("minProperties", 0):
            raise self._bad(f"{name} is empty", keys, rule)
        if len(value) > rule.get("maxProperties", len(value)):
            raise self._bad(f"too many {name}: {len(value)}", keys, {"description": f"at most {rule['maxProperties']}"})
        foreign = [key for key in value if not keys and key in _FRIGATE]
        if foreign:
            raise BadInput(
                f"{foreign[0]} is a key of a Frigate configuration",
                self._document.where((foreign[0],)),
                "a configuration of jetmask",
                "docs/from-frigate.md says what is what; jetmask config new writes one to begin with",
            )
        for key, each in value.items():
            inner = keys + (key,)
            if "propertyNames" in rule:
                names = self._whole(rule["propertyNames"])
                if not re.search(names["pattern"], key):
                    raise self._bad(f"not a name: {_shown(key)}", inner, names)
            if key not in known and others is False:
                near = hints.nearest(key.replace("-", "_"), known, {k: v for k, v in _SYNONYMS.items() if v in known})
                raise BadInput(
                    f"unknown key {_shown(key)}",
                    self._document.where(inner),
                    "one of " + ", ".join(known),
                    hints.question(near),
                )
            inner_rule = known.get(key, others)
            if isinstance(inner_rule, dict):
                self.value(each, inner_rule, inner)
        for key in rule.get("required", ()):
            if key not in value:
                what = self._whole(known[key]).get("description")
                raise BadInput(
                    f"{key} is missing" + (f" in {name}" if keys else ""), self._document.where(keys), f"{key}: {what}"
                )


def _name(keys: Path) -> str:
    """How a value is called: its key, with its place where it is one of a list.

    >>> _name(("cameras", "door", "roi", 2)), _name(())
    ('roi[2]', 'the file')
    """
    places = [number for number in keys if isinstance(number, int)]
    words = [key for key in keys if not isinstance(key, int)]
    return str(words[-1]) + "".join(f"[{number}]" for number in places) if words else "the file"


def _glued(value: Any) -> bool:
    """`key:value`, which YAML takes for one text."""
    return isinstance(value, str) and re.match(r"[a-z_]+:[^ ]", value) is not None


def _is_a(value: Any, types: Any) -> bool:
    if not isinstance(types, str):
        return any(_is_a(value, each) for each in types)
    if isinstance(value, bool):
        return types == "boolean"
    if types == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[types][0])


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _shown(value: Any) -> str:
    # An address may hold a password, and a long text is no help.
    text = repr(value)
    return "…" if "://" in text else text if len(text) <= 60 else text[:57] + "…"
