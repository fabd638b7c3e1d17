"""What tools keep beside a class: "mask" with the attribute "worn: no" is no mask that is worn.

Such a box gets a name that no table knows, `mask (worn: no)`: it is asked about, and --map gives it its class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pipeline.data.class_words import ABOUT_MASKS, WRONG
from pipeline.data.classes import CLASSES, class_of, normalised

_OFF = {"0", "false", "no", "none", "off", "n", "absent", "nein", "non", "não", "нет", "否", "いいえ", "아니요"}
_NOT = {"no", "not", "non", "un", "without", "off", "out", "never", "missing", "removed", "absent", "lowered", "down"}
_NOT |= {"sin", "sans", "sem", "ohne", "kein", "keine", "nicht", "senza", "tanpa", "tidak", "yok", "pas", "без", "не"}
_STATE = {"state", "status", "correct", "correctly", "proper", "properly", "position"}


def named(name: str, attributes: Iterable[tuple[Any, Any]]) -> str:
    """The class name of a box, with the first attribute that speaks against a mask that is worn, where it has one."""
    if class_of(name, {}) != CLASSES[0]:
        return name
    for key, value in attributes:
        if value is not None and not isinstance(value, (dict, list)) and _speaks_against(str(key), str(value)):
            return f"{name} ({str(key).strip()}: {str(value).strip()})"
    return name


def _speaks_against(key: str, value: str) -> bool:
    if class_of(value, {}) in CLASSES[1:]:
        return True
    plain_key, plain = normalised(key), normalised(value)
    if not plain or not (plain_key in _STATE or any(word in plain_key + plain for word in ABOUT_MASKS)):
        return False
    turned = _turned(key)
    return not turned if plain in _OFF else turned or _turned(value)


def _turned(text: str) -> bool:
    words = re.findall(r"[^\W\d_]+", text.casefold())
    return any(word in _NOT or word.startswith(WRONG) or word in ("unworn", "unmasked") for word in words)
