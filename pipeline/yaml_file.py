"""YAML of others, within bounds: aliases of aliases and brackets in brackets cost far more than their size."""

import re
from typing import Any

import yaml

from jetson.errors import BadInput

MOST_BYTES = 4 << 20
MOST_DEPTH = 50
MOST_VALUES = 1_000_000  # with every alias written out


def parse(text: str, where: str) -> Any:
    """The value of a YAML text. yaml.YAMLError or ValueError where it is none, as of yaml.safe_load; BadInput where it
    is too long, nested too deeply, or stands for far more than is written."""
    if len(text) > MOST_BYTES:
        raise BadInput("the YAML file is too long", where, f"at most {MOST_BYTES} characters")
    # A number of thousands of digits takes the square of their count; Python from 3.11 on says so by itself.
    if re.search(r"[0-9_]{1000}", text):
        raise BadInput("a number of over a thousand digits", where, "a number that a setting can have")
    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise _too_deep(where) from None
    _size(value, where, {}, 0)
    return value


def lines(text: str) -> dict[str, int]:
    """{dotted key of nested tables: the line, from 1, it stands in}, for the errors about a text that `parse` took."""
    found: dict[str, int] = {}

    def visit(node: Any, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{prefix}{key.value}"
                found[name] = key.start_mark.line + 1
                if value.start_mark.index > key.start_mark.index:  # an alias points back: no tables in a circle
                    visit(value, name + ".")

    visit(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return found


def _too_deep(where: str) -> BadInput:
    return BadInput("the YAML file is nested too deeply", where, f"at most {MOST_DEPTH} lists or tables deep")


def _size(value: Any, where: str, known: dict[int, int], depth: int) -> int:
    """How many values this is with every alias written out; BadInput for too many, too deep, or one inside itself."""
    if not isinstance(value, (dict, list, set)):
        return 1
    if id(value) in known:
        if known[id(value)] < 0:
            raise BadInput("a list or table of the YAML file holds itself", where, "plain values", "remove the alias")
        return known[id(value)]
    if depth >= MOST_DEPTH:
        raise _too_deep(where)
    known[id(value)] = -1
    inner = value.values() if isinstance(value, dict) else value
    total = 1 + sum(_size(each, where, known, depth + 1) for each in inner)
    if total > MOST_VALUES:
        raise BadInput(
            f"the YAML file stands for over {MOST_VALUES} values", where, "plain values", "remove aliases of aliases"
        )
    known[id(value)] = total
    return total
