"""What a detector tells apart: the names of its classes, and the role that each plays for who watches.

A role sets the colour in the picture and on the page, and whether a person of that class is an alarm.
"""

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

MASKS = ("with_mask", "without_mask", "mask_worn_incorrect")
ROLES = ("ok", "alert", "attention", "ignore")
MOST = 80  # as many as COCO has
LONGEST = 60  # characters of a name
_MASK_ROLES = ("ok", "alert", "attention")
_MASK_WORDS = ("mask", "no mask", "mask worn wrong")
# BGR; light enough for dark text, and apart from each other in brightness for those who see no red and green.
_COLOURS = {"ok": (168, 201, 66), "alert": (92, 110, 255), "attention": (60, 190, 250), "ignore": (170, 170, 170)}


class Classes(NamedTuple):
    """`names` and `roles` are of one length and order: that of the network's class outputs."""

    names: Tuple[str, ...]
    roles: Tuple[str, ...]

    @property
    def are_masks(self) -> bool:
        """Whether these are the three mask classes, whose figure is the two-class mAP50."""
        return self.names == MASKS

    def words(self) -> Tuple[str, ...]:
        """How a person calls each class."""
        return words_of(self.names)

    def colours(self) -> Tuple[Tuple[int, int, int], ...]:
        """The BGR colour of each class."""
        return tuple(_COLOURS[role] for role in self.roles)

    def ignored(self) -> Tuple[int, ...]:
        """Numbers of the classes that are found and then neither shown nor counted."""
        return tuple(number for number, role in enumerate(self.roles) if role == "ignore")

    def alarms(self) -> Tuple[int, ...]:
        """Numbers of the classes that are an alarm."""
        return tuple(number for number, role in enumerate(self.roles) if role == "alert")


def default_roles(names: Sequence[str]) -> Tuple[str, ...]:
    """What each class means where nobody has said it: a mask is worn or not, and of anything else nothing is known.

    >>> default_roles(["helmet", "without_mask"])
    ('ok', 'alert')
    """
    known = dict(zip(MASKS, _MASK_ROLES))
    return tuple(known.get(name, "ok") for name in names)


def make(names: Sequence[str], roles: Dict[str, str]) -> Classes:
    """Classes with the roles that are said, the default for the others. The names must be right (see `problems`)."""
    return Classes(tuple(names), tuple(roles.get(n, r) for n, r in zip(names, default_roles(names))))


def words_of(names: Sequence[str]) -> Tuple[str, ...]:
    """How a person calls classes of these names.

    >>> words_of(["without_mask", "safety_vest"])
    ('no mask', 'safety vest')
    """
    known = dict(zip(MASKS, _MASK_WORDS))
    return tuple(known.get(name, name.replace("_", " ")) for name in names)


def problems(names: Any, roles: Any = None) -> List[str]:
    """All that is wrong with class names and {name: role}, one line each; an empty list when they are right."""
    if not isinstance(names, (list, tuple)) or not 1 <= len(names) <= MOST:
        return [f"classes: {repr(names):.80} is not a list of 1 to {MOST} names"]
    found = []
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or name != name.strip() or not name.isprintable():
            found.append(f"classes[{number}]: {repr(name):.80} is not a name: printable, no blank at its ends")
        elif len(name) > LONGEST:
            found.append(f"classes[{number}]: {name[:20]!r}... is longer than {LONGEST} characters")
        elif name == "total":  # stands beside the classes wherever counts are told
            found.append(f"classes[{number}]: 'total' is reserved for the sum of all classes")
        elif name in names[:number]:
            found.append(f"classes[{number}]: {name!r} appears twice")
    if roles is None:
        return found
    if not isinstance(roles, dict):
        return found + [f"roles: {repr(roles):.80} is not an object of class names and roles"]
    for name, role in roles.items():
        if name not in names:
            found.append(f"roles: unknown class {repr(name):.80}")
        if role not in ROLES:
            found.append(f"roles.{name}: {repr(role):.40} is not one of {', '.join(ROLES)}")
    return found


MASK_CLASSES = make(MASKS, {})
