"""Read a JSON file with the line of every entry of its top, so that a finding can be found again.

The json module tells no positions, so the top object or list, and the lists in the top object, are walked here, and
each element is decoded where it begins.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable
from json import JSONDecodeError
from pathlib import Path
from typing import Any, NamedTuple

from jetson.errors import BadInput
from pipeline.data import textfile

_SPACE = re.compile(r"[ \t\n\r]*")


class Document(NamedTuple):
    """`top`: {key: (value or [(element, offset), ...], offset)} of an object, [(element, offset), ...] of a list."""

    top: Any
    line_of: Callable[[int], int]  # offset -> line

    def value(self, key: str) -> Any:
        """The plain value of a key of the top object; None where it is not there."""
        value = self.top.get(key, (None, 0))[0]
        return [element for element, _ in value] if isinstance(value, list) else value


class _Walker:
    def __init__(self, text: str) -> None:
        self.text, self.decoder = text, json.JSONDecoder()

    def skip(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return found.end() if found else at

    def expect(self, sign: str, at: int) -> int:
        if self.text[at : at + 1] != sign:
            raise JSONDecodeError(f"expected {sign!r}", self.text, at)
        return self.skip(at + 1)

    def elements(self, at: int) -> tuple[list[tuple[Any, int]], int]:
        found: list[tuple[Any, int]] = []
        at = self.expect("[", at)
        while self.text[at : at + 1] != "]":
            at = at if not found else self.expect(",", at)
            element, end = self.decoder.raw_decode(self.text, at)
            found.append((element, at))
            at = self.skip(end)
        return found, self.skip(at + 1)

    def entries(self, at: int) -> tuple[dict[str, tuple[Any, int]], int]:
        found: dict[str, tuple[Any, int]] = {}
        at = self.expect("{", at)
        while self.text[at : at + 1] != "}":
            at = at if not found else self.expect(",", at)
            if self.text[at : at + 1] != '"':
                raise JSONDecodeError("expected a key in quotes", self.text, at)
            key, at = self.decoder.raw_decode(self.text, at)
            start = at = self.expect(":", self.skip(at))
            if self.text[at : at + 1] == "[":
                value, at = self.elements(at)
            else:
                value, end = self.decoder.raw_decode(self.text, at)
                at = self.skip(end)
            found[key] = value, start
        return found, self.skip(at + 1)


def read(path: Path, expected: str) -> Document:
    """BadInput with the line where the file is no JSON, or its top is neither an object nor a list."""
    text = textfile.read(path, expected)
    text = text.removeprefix("\ufeff")
    breaks = [m.start() for m in re.finditer("\n", text)]

    def line_of(offset: int) -> int:
        return bisect.bisect_left(breaks, offset) + 1

    walker = _Walker(text)
    top: Any
    try:
        at = walker.skip(0)
        if text[at : at + 1] == "{":
            top, at = walker.entries(at)
        elif text[at : at + 1] == "[":
            top, at = walker.elements(at)
        else:
            json.loads(text)
            raise BadInput("the top is neither an object nor a list", path, expected)
        if at != len(text):
            raise JSONDecodeError("something follows the end", text, at)
    except JSONDecodeError as error:
        raise BadInput(
            f"not JSON: {error.msg}",
            f"{path}, line {error.lineno}",
            expected,
            "export the labels again, or mend the file at that line",
        ) from None
    except ValueError as error:  # a number of thousands of digits
        raise BadInput(f"not usable JSON: {error}", path, expected) from None
    except RecursionError:
        raise BadInput("not usable JSON: nested too deeply", path, expected) from None
    return Document(top, line_of)
