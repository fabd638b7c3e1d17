"""Read an XML file with the line of every element, which ElementTree does not keep."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.parsers import expat

from jetson.errors import BadInput

_KNOWN = ("utf-8", "utf8", "utf-16", "iso-8859-1", "us-ascii")  # to expat


class Element:
    """An XML element and the line it begins on."""

    def __init__(self, tag: str, attributes: Mapping[str, str], line: int) -> None:
        self.tag, self.attributes, self.line = tag, dict(attributes), line
        self.text = ""
        self.children: list[Element] = []

    def child(self, tag: str) -> Element | None:
        return next((c for c in self.children if c.tag == tag), None)

    def value(self, tag: str) -> str | None:
        """The text of a child; None where it is not there."""
        found = self.child(tag)
        return None if found is None else found.text.strip()

    def all(self, *tags: str) -> Iterator[Element]:
        return (c for c in self.children if c.tag in tags)


def read(path: Path, expected: str) -> Element:
    """The top element. BadInput: no XML, an encoding that the parser does not know, entities."""
    data, encoding = _decoded(path, expected)
    parser, stack = expat.ParserCreate(encoding), [Element("", {}, 0)]

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def text(data: str) -> None:
        stack[-1].text += data

    def end(_: str) -> None:
        stack.pop()

    def entity(*_: object) -> None:
        # Labels need none, and a few nested ones can fill the memory.
        raise BadInput("the XML declares entities", path, expected)

    parser.buffer_text = True
    parser.StartElementHandler, parser.CharacterDataHandler, parser.EndElementHandler = start, text, end
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise BadInput(f"not XML: {error}", path, expected) from None
    except (ValueError, LookupError) as error:  # an encoding that the parser does not know, such as GBK
        raise BadInput(f"cannot be read: {error}", path, f"{expected} in UTF-8") from None
    return stack[0].children[0]


def _decoded(path: Path, expected: str) -> tuple[bytes, str | None]:
    """The file's bytes; in UTF-8, which is then said, where it declares one of the encodings that expat does not know
    (labelImg on a Chinese or Japanese Windows writes some)."""
    data = path.read_bytes()
    declared = re.match(rb"""\s*<\?xml[^>]*encoding\s*=\s*["']([\w.-]+)["']""", data)
    name = declared.group(1).decode("ascii").lower() if declared else "utf-8"
    if name in _KNOWN:
        return data, None
    try:
        return data.decode(name).encode(), "utf-8"
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"line {line} is not in the encoding {name} that it declares", path, expected) from None
    except LookupError:
        raise BadInput(f"cannot be read: unknown encoding {name}", path, f"{expected} in UTF-8") from None


def number(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
