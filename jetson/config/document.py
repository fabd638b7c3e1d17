"""Text to plain values, with the line of each: YAML where PyYAML is installed, JSON everywhere.

Of YAML only what JSON has too: mappings with text keys, lists, texts, numbers, true, false and null, with anchors,
aliases and merge keys (`<<`). Plain words are read as YAML 1.2 reads them, so that `on` and `8:30` are texts. Whoever
wrote the file may mean harm, so aliases are counted as if they were written out, and depth is bounded.
"""

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from jetson.errors import BadInput, DeviceMismatch

MOST_BYTES = 256 << 10
MOST_VALUES = 20000  # with every alias written out
MOST_DEPTH = 20
Path = Tuple[Any, ...]
_INTEGER = re.compile(r"^[-+]?[0-9]{1,18}$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?$")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS.update({"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False})  # type: ignore[dict-item]
_SPACE = re.compile(r"[ \t\r\n]*")
_LITERAL = re.compile(r"true|false|null|-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,3})?(?![0-9.eE])")


class Document(NamedTuple):
    """The values of a file. `lines`: of each value by its path from the top; of a mapping's, the line of the key."""

    path: str
    data: Any
    lines: Dict[Path, int]

    def where(self, keys: Path) -> str:
        """File, line and key of a value, or of the nearest one around it.

        >>> Document("a.yaml", {}, {(): 1, ("cameras", "door"): 3}).where(("cameras", "door", "fps"))
        'a.yaml, line 3, cameras.door.fps'
        """
        near = keys
        while near and near not in self.lines:
            near = near[:-1]
        name = ".".join(str(key) for key in keys)
        return f"{self.path}, line {self.lines.get(near, 1)}" + (f", {name}" if name else "")


def is_yaml(path: str) -> bool:
    """Whether a file is to be read as YAML: everything that is not called .json."""
    return not path.lower().endswith(".json")


def read(path: str) -> Document:
    """The values of a file. BadInput names file and line; DeviceMismatch for YAML where PyYAML is not installed."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"the configuration cannot be read: {error.strerror}", path, "a YAML or JSON file") from error
    return parse(data, path)


def parse(data: bytes, path: str) -> Document:
    """`read` of a file's content."""
    if len(data) > MOST_BYTES:
        raise BadInput("the configuration is too long", path, f"at most {MOST_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")  # Windows editors put a mark before it
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput("the configuration is not text in UTF-8", f"{path}, line {line}") from error
    reader = _Yaml(path) if is_yaml(path) else _Json(path)
    return Document(path, reader.document(text), reader.lines)


class _Reader:
    """What both have in common: bounds, and the lines of what was read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: Dict[Path, int] = {}
        self._values = 0

    def document(self, text: str) -> Any:
        raise NotImplementedError

    def bad(self, what: str, line: int, expected: str = "a YAML or JSON file", remedy: Any = None) -> BadInput:
        return BadInput(what, f"{self.path}, line {line}", expected, remedy)

    def count(self, keys: Path, line: int) -> None:
        self._values += 1
        if self._values > MOST_VALUES:
            raise self.bad(f"the file expands to over {MOST_VALUES} values", line, "fewer", "remove aliases of aliases")
        if len(keys) > MOST_DEPTH:
            raise self.bad("nested too deeply", line, f"at most {MOST_DEPTH} mappings or lists deep")

    def twice(self, key: str, line: int, first: int) -> BadInput:
        return self.bad(f"{key} appears twice, first in line {first}", line, "each key once")


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise DeviceMismatch(
            "reading YAML needs the Python package PyYAML, which is not installed",
            None,
            "the same settings as JSON work without it",
            "apt install python3-yaml, or on the workstation: jetmask config json FILE > jetmask.json",
        ) from error
    return yaml


class _Yaml(_Reader):
    def document(self, text: str) -> Any:
        self._yaml = _yaml()
        try:
            node = self._yaml.compose(text, Loader=self._yaml.SafeLoader)
        except RecursionError:
            raise self.bad("nested too deeply", 1, f"at most {MOST_DEPTH} mappings or lists deep") from None
        except self._yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", None) or 0) + 1
            said = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
            raise self.bad(f"not YAML: {said}", line) from error
        except (ValueError, OverflowError) as error:  # an escape that is no character
            raise self.bad(f"not YAML: {error}", 1) from error
        return None if node is None else self._value(node, ())

    def _value(self, node: Any, keys: Path) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(keys, line)
        self.count(keys, line)
        if isinstance(node, self._yaml.MappingNode):
            return self._mapping(node, keys)
        if isinstance(node, self._yaml.SequenceNode):
            return [self._value(each, keys + (number,)) for number, each in enumerate(node.value)]
        return self._scalar(node, line)

    def _scalar(self, node: Any, line: int) -> Any:
        text = str(node.value)
        if node.style is not None:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.match(text):
            return int(text)
        if _FLOAT.match(text):
            return _finite(self, text, line)
        return text

    def _mapping(self, node: Any, keys: Path) -> Dict[str, Any]:
        found: Dict[str, Any] = {}
        first: Dict[str, int] = {}
        merged: List[Any] = []
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, self._yaml.ScalarNode):
                raise self.bad("a key that is not a word", line, "a key such as `source`")
            key = str(key_node.value)
            if key == "<<" and key_node.style is None:
                merged += value.value if isinstance(value, self._yaml.SequenceNode) else [value]
                continue
            if key in found:
                raise self.twice(key, line, first[key])
            first[key] = line
            self.lines[keys + (key,)] = line
            found[key] = self._value(value, keys + (key,))
        for other in merged:
            if not isinstance(other, self._yaml.MappingNode):
                raise self.bad("<< merges mappings alone", other.start_mark.line + 1, "<<: *NAME")
            self.count(keys + ("<<",), other.start_mark.line + 1)
            for key, value in self._mapping(other, keys + ("<<",)).items():
                found.setdefault(key, value)
        return found


class _Json(_Reader):
    def document(self, text: str) -> Any:
        self._text = text
        value, end = self._value(self._skip(0), ())
        end = self._skip(end)
        if end != len(text):
            raise self.bad("not JSON: something follows", self._line(end))
        return value

    def _skip(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found else at

    def _line(self, at: int) -> int:
        return self._text.count("\n", 0, at) + 1

    def _value(self, at: int, keys: Path) -> Tuple[Any, int]:
        line = self._line(at)
        self.lines.setdefault(keys, line)
        self.count(keys, line)
        mark = self._text[at : at + 1]
        if mark == "{":
            return self._mapping(at + 1, keys)
        if mark == "[":
            items: List[Any] = []
            for begin in self._parts(at + 1, "]"):
                value, self._end = self._value(begin, keys + (len(items),))
                items.append(value)
            return items, self._end
        if mark == '"':
            return self._string(at)
        found = _LITERAL.match(self._text, at)
        if not found:
            raise self.bad("not JSON: a value was expected", line)
        text = found.group()
        if text in ("true", "false", "null"):
            return json.loads(text), found.end()
        return (int(text) if _INTEGER.match(text) else _finite(self, text, line)), found.end()

    def _string(self, at: int) -> Tuple[str, int]:
        if self._text[at : at + 1] != '"':
            raise self.bad("not JSON: a key in quotes was expected", self._line(at))
        try:
            value, end = scanstring(self._text, at + 1, True)
        except ValueError as error:
            raise self.bad("not JSON: a text that does not end, or has a line break in it", self._line(at)) from error
        return value, end

    def _parts(self, at: int, closing: str) -> Iterator[int]:
        """Where each item begins; whoever takes them says in `_end` where it ended."""
        at = self._skip(at)
        if self._text[at : at + 1] == closing:
            self._end = at + 1
            return
        while True:
            yield at
            at = self._skip(self._end)
            mark = self._text[at : at + 1]
            if mark == closing:
                self._end = at + 1
                return
            if mark != ",":
                raise self.bad(f"not JSON: ',' or '{closing}' was expected", self._line(at))
            at = self._skip(at + 1)

    def _mapping(self, at: int, keys: Path) -> Tuple[Dict[str, Any], int]:
        found: Dict[str, Any] = {}
        for begin in self._parts(at, "}"):
            key, end = self._string(begin)
            line = self._line(begin)
            if key in found:
                raise self.twice(key, line, self.lines[keys + (key,)])
            end = self._skip(end)
            if self._text[end : end + 1] != ":":
                raise self.bad("not JSON: ':' was expected", self._line(end))
            self.lines[keys + (key,)] = line
            found[key], self._end = self._value(self._skip(end + 1), keys + (key,))
        return found, self._end


def _finite(reader: _Reader, text: str, line: int) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise reader.bad(f"the number {text} is too large", line, "a number that a setting can have")
    return value


def as_json(data: Any) -> str:
    """Values as JSON for a device without PyYAML, in the order of the file."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
