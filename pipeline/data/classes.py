"""Class names: which of the three mask classes a source's name means, or which classes a data set has of its own.

A name is known only by table: whatever is left of it but case, spaces, `_` and `-` between letters may turn its meaning
("!mask", "mask-"), so a name with any such thing is unknown, and asked about.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jetson.errors import BadInput, UsageError
from pipeline.data.class_words import ABOUT_MASKS, BEARERS, NEGATION, RIGHT, SAYS_NOTHING, WORDS, WRONG

CLASSES = ("with_mask", "without_mask", "mask_worn_incorrect")
IGNORE = "ignore"  # as a class: a region that neither rewards nor punishes a detector
MOST = 80  # classes

_UNKNOWN_NUMBER = re.compile(r"(class|category) -?\d+$")  # a number that the source gives no name
_OF_ANOTHER_WIDTH = re.compile("[\uff01-\uffef]+")  # Latin letters as wide as Chinese ones, kana of half the width
_LATIN = re.compile(r"[a-z]+$")


def normalised(name: str) -> str:
    """A name without case, and without spaces, `_` and `-` between its letters. What else it holds, stays."""
    usual = _OF_ANOTHER_WIDTH.sub(lambda found: unicodedata.normalize("NFKC", found.group()), name)
    folded = unicodedata.normalize("NFC", usual.strip().casefold()).replace("\u0307", "")  # the dot of a Turkish I
    joined = re.sub(r"[\s_]+", "", folded)
    return re.sub(r"(?<=\w)-+(?=\w)", "", joined)


def _table() -> dict[str, str]:
    table: dict[str, str] = {}
    for name, words in WORDS.items():
        for word in words:
            table[normalised(word)] = name
    for word, name in list(table.items()):  # "máscara" is often written without its accent
        bare = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c)).replace("ı", "i")
        if bare.isascii():
            table.setdefault(bare, name)
    return table


_CLASS_OF = _table()


def class_of(name: str, mapping: Mapping[str, str]) -> str | None:
    """-> one of CLASSES or IGNORE for a source's class name; None for one that nobody knows."""
    if name in mapping:
        return mapping[name]
    return _CLASS_OF.get(normalised(name))


def nearest_class(name: str) -> str | None:
    """The class to suggest for `name`; None where none is near, or where the name might mean the opposite of it."""
    plain = normalised(name)
    if not _LATIN.match(plain):  # digits, signs, another script: "mask_0", "mask+"
        return None
    words = [w for w in re.split(r"[\s_-]+", name.strip().casefold()) if w and w not in BEARERS]
    inner = _CLASS_OF.get("".join(words))
    if inner and words and inner == _meant(plain):
        return inner
    near = difflib.get_close_matches(plain, [w for w in _CLASS_OF if w.isascii()], 1, 0.8)
    # With letters before or after a known word ("maskless", "maskesiz") it is another word, no slip of the finger.
    if not near or near[0] in plain:
        return None
    return _CLASS_OF[near[0]] if _CLASS_OF[near[0]] == _meant(plain) else None


def _meant(plain: str) -> str | None:
    """What the words in a name that turn its meaning leave possible; None where they contradict one another."""
    wrong = any(word in plain for word in WRONG)
    rest = plain.replace("nose", "").replace("incorrect", "")
    negated = any(word in rest for word in NEGATION)
    if negated and (wrong or any(word in rest for word in RIGHT)):
        return None
    return CLASSES[2] if wrong else CLASSES[1] if negated else CLASSES[0]


class ClassSet(NamedTuple):
    """The classes that a data set is imported into."""

    names: tuple[str, ...]
    own: bool = False  # the names are those of the source, letter by letter; else the three mask classes, by table

    def of(self, name: str, mapping: Mapping[str, str]) -> str | None:
        """-> one of `names` or IGNORE; None for a name that is unknown here."""
        if not self.own:
            return class_of(name, mapping)
        name = mapping.get(name, name)
        if name in self.names:
            return name
        return IGNORE if name == IGNORE or _CLASS_OF.get(normalised(name)) == IGNORE else None

    def suggest(self, name: str) -> str | None:
        """The class to suggest for an unknown name; None where none is near."""
        if not self.own:
            return nearest_class(name)
        near = [own for own in self.names if normalised(own) == normalised(name)]
        return near[0] if len(near) == 1 else None


MASKS = ClassSet(CLASSES)


def chosen(
    option: str | None, declared: Sequence[str], used: Iterable[str], mapping: Mapping[str, str]
) -> tuple[ClassSet, str | None]:
    """-> the classes to import into, and a note where they were not asked for and are not the three.

    `option`: "mask", "all" (every name of the source is a class), names with commas between, or None: the three mask
    classes, but where no name of the source is about masks or faces, its own. `declared`: the names that the source
    lists; `used`: those of its boxes. UsageError for names that cannot be classes, BadInput for too many of them.
    """
    if option == "mask":
        return MASKS, None
    names = list(dict.fromkeys(declared)) or sorted(set(used))
    names = [mapping.get(name, name) for name in names]
    names = [
        name for name in dict.fromkeys(names) if name and name.casefold() != IGNORE and not _UNKNOWN_NUMBER.match(name)
    ]
    names = [name for name in names if _CLASS_OF.get(normalised(name)) != IGNORE]
    if option is None:
        if not names or set(names) <= set(CLASSES) or any(_about_masks(n) or class_of(n, {}) for n in names):
            return MASKS, None
        own = ClassSet(tuple(names), True)
        _require(own.names)
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        return (
            own,
            f"no class name mentions masks, so these classes are used: {shown}; with --classes mask they would be "
            "errors",
        )
    if option != "all":
        names = [name.strip() for name in option.split(",") if name.strip()]
        if not names or len(set(names)) != len(names) or IGNORE in names:
            raise UsageError(
                f"--classes {option!r}", None, "mask, all, or different names separated by commas: helmet,no_helmet"
            )
    if not names:
        raise BadInput(
            "no label has a class name", None, "at least one class", "give the names with --classes NAME,NAME"
        )
    _require(names)
    return ClassSet(tuple(names), set(names) != set(CLASSES) or option == "all" and list(names) != list(CLASSES)), None


def _require(names: Sequence[str]) -> None:
    if len(names) > MOST:
        raise BadInput(
            f"{len(names)} classes",
            None,
            f"1 to {MOST} classes",
            "choose the classes to keep, for instance --classes helmet,no_helmet, and turn the "
            "others into ignore regions with --map",
        )


def _about_masks(name: str) -> bool:
    plain = normalised(name)
    says_nothing = plain in SAYS_NOTHING or not any(c.isalpha() for c in plain)
    return says_nothing or any(word in plain for word in ABOUT_MASKS) or nearest_class(name) is not None


def of_split(names: Sequence[str], own: bool) -> ClassSet:
    """The classes of a split folder, by the names of its categories: the three, or its own (`own`: it says so)."""
    if not own and (set(names) <= set(CLASSES) or any(class_of(name, {}) is not None for name in names)):
        return MASKS
    return ClassSet(tuple(dict.fromkeys(names)), True)
