"""Read the text of a label file, whatever program saved it."""

from __future__ import annotations

import codecs
from pathlib import Path

from jetson.errors import BadInput

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read(path: Path, expected: str) -> str:
    """The whole text, in UTF-8 or with a byte order mark in UTF-16. BadInput: not readable, or where it is no UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", path, expected) from None
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"cannot be read: byte {error.start} is not UTF-8",
            f"{path}, line {line}",
            f"{expected} in UTF-8",
            "save the file as UTF-8",
        ) from None


def lines(path: Path) -> list[str]:
    """The lines of a file of numbers; a byte that is no UTF-8 is replaced, and then its line is told as broken."""
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, "replace").splitlines()


def head(path: Path, size: int = 1 << 16) -> str:
    """The beginning of a file as text, to tell a format by; "" where it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(size)
    except OSError:
        return ""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, "replace")
