"""Who may look in, and how far: names, roles and tokens, from a file that only its owner can read."""

import os
import re
import secrets
from typing import Dict, FrozenSet, List, NamedTuple, Optional, Tuple

from jetson.errors import BadInput

LEAST_TOKEN = 16
OPERATOR, VIEWER, SCRAPER = "operator", "viewer", "scraper"
ROLES = (OPERATOR, VIEWER, SCRAPER)
_NAME = re.compile(r"^[A-Za-z0-9_-]{1,32}$")
_FORM = "NAME ROLE TOKEN, where ROLE is one of " + ", ".join(ROLES)
_MAKE = "python3 -c 'import secrets; print(secrets.token_urlsafe(24))'"
# A scraper's token often stands in another machine's settings: it opens figures and no picture.
_SCRAPED: FrozenSet[str] = frozenset(("/metrics",))


class User(NamedTuple):
    """`role`: operator: everything; viewer: all but changes and /api/crops/; scraper: /metrics."""

    name: str
    role: str
    token: str

    def __repr__(self) -> str:
        return f"User({self.name!r}, {self.role!r})"

    def may(self, path: str) -> bool:
        """Whether this one's role opens `path`."""
        if self.role == SCRAPER:
            return path in _SCRAPED
        return self.role == OPERATOR or not path.startswith("/api/crops/")


def new_owner() -> User:
    """An operator with a token that was made just now."""
    return User("owner", OPERATOR, secrets.token_urlsafe(24))


def owner(path: str) -> User:
    """The operator whose token is the one line of a file. BadInput when there is no good one."""
    token = _text(path).strip()
    if not _good(token):
        raise BadInput(
            "the token is too short or has blanks",
            path,
            f"a line of at least {LEAST_TOKEN} characters",
            _MAKE + " > FILE",
        )
    return User("owner", OPERATOR, token)


def read(path: str) -> List[User]:
    """The users of a file, one a line: NAME ROLE TOKEN; what follows a '#' at a line's beginning is left out.

    BadInput names the line; never the token.
    """
    found: Dict[str, User] = {}
    tokens: Dict[str, str] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}, line {number}"
        if len(words) != 3:
            raise BadInput(f"{len(words)} words where three belong", where, _FORM)
        name, role, token = words
        if not _NAME.match(name):
            raise BadInput(f"not a user's name: {name[:40]!r}", where, "1 to 32 letters, digits, '_' and '-'")
        if role not in ROLES:
            raise BadInput(f"unknown role {role[:40]!r}", where, "one of " + ", ".join(ROLES))
        if not _good(token):
            raise BadInput("the token is too short", where, f"at least {LEAST_TOKEN} characters", _MAKE)
        if name in found:
            raise BadInput(f"the user {name} appears twice", where, "each name once")
        if token in tokens:
            raise BadInput(f"{name} and {tokens[token]} have the same token", where, "each user's own", _MAKE)
        found[name], tokens[token] = User(name, role, token), name
    if not found:
        raise BadInput("no user in the file", path, "one a line: " + _FORM)
    return list(found.values())


def exposed(path: str) -> Optional[str]:
    """A warning where others on this machine may read a file of tokens."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    return f"warning: others may read the tokens in {path}: chmod 600" if mode & 0o077 else None


def gather(token_file: Optional[str], users_file: Optional[str]) -> Tuple[List[User], List[str]]:
    """All users of a command line, and what the log should say about their files."""
    found = ([owner(token_file)] if token_file else []) + (read(users_file) if users_file else [])
    names = [one.name for one in found]
    if len(set(names)) < len(names) or len({one.token for one in found}) < len(found):
        raise BadInput(
            "a name or token in the users file is already used by the token file, whose user is named owner",
            users_file,
            "other names and tokens",
        )
    # The token file has always been allowed to be readable: a container's secret is. It is told all the same.
    return found, [text for text in (exposed(path) for path in (token_file, users_file) if path) if text]


def _good(token: str) -> bool:
    return len(token) >= LEAST_TOKEN and token.isprintable() and " " not in token


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise BadInput(f"the file of tokens cannot be read: {error.strerror}", path) from error
    except UnicodeDecodeError as error:
        raise BadInput("the file of tokens is not text", path, _FORM) from error
