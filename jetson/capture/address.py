"""What of a camera's address may be seen, and where its credentials come from.

An allow-list: of an address in a network only `scheme://host:port` is ever shown; user name, password, path and query
stay out of pages, logs, events, metrics and messages, since cameras take passwords in each of them. In an address
`{NAME}` stands for user name and password, `{NAME.user}` and `{NAME.password}` for one of them. They are looked for in

1. the file that --credentials (or $JETMASK_CREDENTIALS) names: lines of `NAME USER:PASSWORD`,
2. the environment variable JETMASK_CREDENTIALS_NAME, its value USER:PASSWORD (in capitals, '-' as '_'),
3. the file NAME in $CREDENTIALS_DIRECTORY (systemd's LoadCredential=), its content USER:PASSWORD,

so that they need not stand on a command line, which every user of a machine can read.
"""

import os
import re
from typing import Dict, Iterator, List, Mapping, Optional, Tuple
from urllib.parse import quote, unquote

from jetson.errors import BadInput

VARIABLE = "JETMASK_CREDENTIALS"
_LOCAL = ("csi", "synthetic", "file", "v4l2")  # nothing to hide in them
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_PLACE = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(:\d{1,5})?$")
# To the last '@' of the line: a password may have blanks in it.
_WITHIN = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://(?:[^\n]*@)?[^\s\"'<>,;)]*")
_MARK = re.compile(r"\{([A-Za-z0-9_-]{1,64})(?:\.(user|password))?\}")
_HIDDEN = "…"
_LEAST = 4  # letters of a part of an address that is looked for in messages; shorter ones are in every word


def shown(uri: str) -> str:
    """An address as it may be shown.

    >>> shown("rtsp://me:secret@10.0.0.2:554/cam?key=1"), shown("csi://0"), shown("rtsp://me:se/cret@10.0.0.2/cam")
    ('rtsp://10.0.0.2:554', 'csi://0', 'rtsp://…')
    """
    uri = uri.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    found = _SCHEME.match(uri)
    if found is None:
        # A path; but one in which somebody has forgotten rtsp:// is shown as little as with it.
        return _HIDDEN if re.search(r"^[^/]*:.*@|://", uri) else uri
    scheme = found.group(1).lower()
    if scheme in _LOCAL:
        return uri
    rest = uri[found.end() :]
    authority = re.split(r"[/?#\s\\]", rest, maxsplit=1)[0]
    place = authority.rpartition("@")[2]
    # An '@' further on: what looks like host and port may be name and password, of which a '/' is a part.
    if "@" in rest[len(authority) :] or not _PLACE.match(place) or not place:
        return f"{scheme}://{_HIDDEN}"
    return f"{scheme}://{place}"


def names_in(uri: str) -> List[str]:
    """The names of credentials that an address refers to.

    >>> names_in("rtsp://{door}@host/a"), names_in("csi://0")
    (['door'], [])
    """
    return [found.group(1) for found in _MARK.finditer(uri)]


def has_password(uri: str) -> bool:
    """Whether user name and password stand in an address itself, and not as a {NAME}.

    >>> has_password("rtsp://me:secret@host/a"), has_password("rtsp://{cam1}@host/a"), has_password("/dev/video0")
    (True, False, False)
    """
    return bool(re.search(r"://[^/\s{}]*:[^\s{}]*@", uri))


def scrub(text: str) -> str:
    """`text` with every address in it as it may be shown.

    >>> scrub("open rtsp://me:secret@10.0.0.2/cam failed")
    'open rtsp://10.0.0.2 failed'
    """
    return _WITHIN.sub(lambda found: shown(found.group()), text)


def hide(text: str, *uris: str) -> str:
    """`text`, which a program has said about the addresses `uris`, without them and without any part of them."""
    for part in sorted({part for uri in uris for part in _parts(uri)}, key=len, reverse=True):
        text = text.replace(part, _HIDDEN)
    return scrub(text)


def _parts(uri: str) -> Iterator[str]:
    """What of an address must not be seen: the whole, and each part of it but scheme, host and port."""
    found = _SCHEME.match(uri)
    if found is None or found.group(1).lower() in _LOCAL:
        return
    rest = uri[found.end() :]
    place = shown(uri).partition("://")[2]
    user, at, _ = rest.rpartition("@")
    path = rest if place == _HIDDEN else rest.partition(place)[2]
    pieces = [uri, rest, user, path] + user.split(":", 1) + re.split(r"[/?&=#;:_@\s]", f"{user}/{path}")
    for piece in pieces:
        for form in (piece, unquote(piece), quote(piece, safe="")):
            if len(form) >= _LEAST and form != place:
                yield form


class Credentials:
    """Names and passwords of cameras. `environment`: os.environ unless given. BadInput for a file that is no good."""

    def __init__(self, path: Optional[str] = None, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._found: Dict[str, Tuple[str, str]] = {}
        self.path = path or environment.get(VARIABLE) or _beside_state(environment)
        self.warnings: List[str] = []
        if self.path:
            self._read(self.path)

    def __repr__(self) -> str:
        return f"Credentials({self.path!r})"

    def _read(self, path: str) -> None:
        for number, line in enumerate(_text(path).splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, _, value = line.strip().partition(" ")
            where = f"{path}, line {number}"
            if not re.match(r"^[A-Za-z0-9_-]{1,64}$", name):
                raise BadInput("not a name of credentials", where, "NAME USER:PASSWORD")
            if name in self._found:
                raise BadInput(f"{name} appears twice", where, "each name once")
            self._found[name] = _pair(value.strip(), where)
        if os.stat(path).st_mode & 0o077:
            self.warnings.append(f"warning: others may read the passwords in {path}: chmod 600")

    def pair(self, name: str) -> Tuple[str, str]:
        """(user name, password) that are called so. BadInput for an unknown name."""
        return self._of(name, name)

    def fill(self, uri: str) -> str:
        """An address with what its {NAME}s stand for, special characters escaped. BadInput for an unknown name."""
        found = _SCHEME.match(uri)
        if found is None or found.group(1).lower() in _LOCAL:
            return uri

        def one(mark: "re.Match[str]") -> str:
            user, password = self._of(mark.group(1), uri)
            if mark.group(2):
                return quote(user if mark.group(2) == "user" else password, safe="")
            return quote(user, safe="") + ":" + quote(password, safe="")

        return _MARK.sub(one, uri)

    def _of(self, name: str, uri: str) -> Tuple[str, str]:
        if name in self._found:
            return self._found[name]
        variable = f"{VARIABLE}_{name.upper().replace('-', '_')}"
        if variable in self._environment:
            return _pair(self._environment[variable], "$" + variable)
        folder = self._environment.get("CREDENTIALS_DIRECTORY")
        if folder and os.path.exists(os.path.join(folder, name)):
            path = os.path.join(folder, name)
            return _pair(_text(path).strip("\r\n"), path)
        raise BadInput(
            f"no credentials with the name {name}",
            shown(uri),
            f"a line `{name} USER:PASSWORD` in {self.path or 'the file that --credentials names'}, or ${variable}",
        )


def without_credentials(environment: Mapping[str, str]) -> Dict[str, str]:
    """An environment for a child process that needs none of them."""
    return {key: value for key, value in environment.items() if not key.startswith(VARIABLE)}


def _beside_state(environment: Mapping[str, str]) -> Optional[str]:
    path = os.path.join(environment.get("JETMASK_STATE", ""), "credentials")
    return path if environment.get("JETMASK_STATE") and os.path.exists(path) else None


def _pair(text: str, where: str) -> Tuple[str, str]:
    user, colon, password = text.partition(":")
    if not colon or not user:
        raise BadInput("not a user name and a password", where, "USER:PASSWORD")
    return user, password


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise BadInput(f"the file of credentials cannot be read: {error.strerror}", path) from error
    except UnicodeDecodeError as error:
        raise BadInput("the file of credentials is not text in UTF-8", path, "NAME USER:PASSWORD") from error
