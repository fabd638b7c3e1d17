"""A web address of a receiver, which may itself be a secret, and one POST to it."""

import http.client
from typing import Dict, NamedTuple, Optional, Union
from urllib.parse import urlsplit

from jetson.alerts.fields import Fields
from jetson.alerts.receiver import Failed, Refused, check_ca, context
from jetson.alerts.secret import Secret
from jetson.errors import BadInput
from jetson.net import loopback

_FORM = "https://HOST/PATH, or a reference to it: {file: PATH}"
_NEVER = (400, 413, 414, 415, 422)  # it is this message that the receiver does not want
_MOST = 65536


class Url(NamedTuple):
    """An http or https address; `secret`: where it stands, if it is not shown."""

    text: str
    secret: Optional[Secret]
    ca_file: str = ""

    def read(self) -> str:
        """The address as it is now."""
        return _checked(self.secret.read(), "alerts") if self.secret is not None else self.text

    @property
    def place(self) -> str:
        """Scheme, host and port: what may be shown. A path may be a token (Slack, ntfy)."""
        try:
            parts = urlsplit(self.read())
        except BadInput:
            return "an address that cannot be read"
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")

    def prepare(self, where: str) -> None:
        """BadInput when the address that is referred to, or the certificates, are no use."""
        if self.secret is not None:
            _checked(self.secret.read(where), f"{where}.url")
        check_ca(self.ca_file, where)

    def warning(self) -> Optional[str]:
        """What the log should say where alerts go over a network unencrypted."""
        parts = urlsplit(self.read())
        if parts.scheme != "http" or loopback(parts.hostname or ""):
            return None
        return f"warning: alerts go to {self.place} unencrypted; https:// would encrypt them"


def url_of(fields: Fields, key: str = "url") -> Url:
    """The address under `key`, plain or by reference."""
    value = fields.needed(key, _FORM)
    ca_file = fields.path("ca_file")
    if isinstance(value, dict):
        return Url("", fields.secret(key), ca_file)
    return Url(_checked(value, fields.at(key)), None, ca_file)


def _checked(value: object, where: str) -> str:
    try:
        parts = urlsplit(value) if isinstance(value, str) else urlsplit("")
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        plain = all(32 < ord(letter) < 127 for letter in str(value)) and len(str(value)) <= 2000
    except ValueError:
        good = plain = False
    if not good or not plain:
        raise BadInput("not a web address", where, _FORM)  # not itself: it may hold a token
    if parts.username is not None or parts.password is not None:
        raise BadInput(
            "a name or password in the address",
            where,
            _FORM,
            "give the token or password by its own key, as a reference",
        )
    return str(value)


def post(url: Url, path: Optional[str], body: bytes, headers: Dict[str, str], timeout_s: float) -> bytes:
    """POST `body` there (`path` None: the address's own); what was answered. Refused, Failed or OSError.

    Redirects are not followed: they would carry tokens to where nobody has sent them.
    """
    parts = urlsplit(url.read())
    host = parts.hostname or ""
    connection: Union[http.client.HTTPConnection, http.client.HTTPSConnection]
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context(url.ca_file))
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    own = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", own if path is None else path, body, headers)
        answer = connection.getresponse()
        status, said = answer.status, answer.read(_MOST)
    except http.client.HTTPException as error:
        raise Failed(f"not an HTTP answer ({type(error).__name__})") from error
    finally:
        connection.close()
    if status in _NEVER:
        raise Refused(f"answered with {status}")
    if not 200 <= status < 300:
        raise Failed(f"answered with {status}")
    return said
