"""What all receivers have in common: what is sent, how a delivery fails, and how it is said without secrets."""

import socket
import ssl
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence

from jetson.alerts.secret import Secret, without
from jetson.errors import BadInput

Picture = Callable[[str], Optional[bytes]]  # the JPEG of a name, None where it is not kept (any more)


class Message(NamedTuple):
    """One alert on its way: `body` as docs/alerts.md lists it; `picture`: a JPEG where one is asked for and kept."""

    body: Dict[str, Any]
    picture: Optional[bytes] = None

    @property
    def key(self) -> str:
        """The same for each attempt to deliver this alert, and no other's."""
        return str(self.body["id"])


class Failed(Exception):
    """The receiver did not take it; it is tried again. The text holds no secret."""


class Refused(Failed):
    """The receiver will never take this one alert, whatever happens; the next may be fine."""


class Receiver:
    """`send` hands one alert over, or raises Failed; it may wait, for `timeout_s` at each step.

    `name`: its owner's for it; `secrets`: what must not be shown. Making one touches nothing, so that a file can be
    checked on another machine; `prepare` finds out whether it can work on this one.
    """

    kind = ""

    def __init__(self, name: str, timeout_s: float = 10.0, picture: bool = False) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.picture = picture
        self.secrets: Sequence[Optional[Secret]] = ()

    @property
    def place(self) -> str:
        """Where it is, as pages may show it."""
        return ""

    def prepare(self, where: str) -> None:
        """BadInput or DeviceMismatch, with the key path `where`, when it cannot work here."""
        for one in self.secrets:
            if one is not None:
                one.read(where)

    def send(self, message: Message) -> None:
        """Deliver it. Failed, or any OSError."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what it holds."""

    def words(self, error: BaseException) -> str:
        """Why it failed, for logs and pages."""
        return without(_words(error), self.secrets)[:300]

    def warnings(self) -> Sequence[str]:
        """What the log should say about its settings."""
        return [text for text in (one.exposed() for one in self.secrets if one is not None) if text]


def _words(error: BaseException) -> str:
    if isinstance(error, Failed):
        return str(error)
    # A wrong name is a CertificateError of its own in Python 3.6.
    if isinstance(error, ssl.CertificateError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "its certificate is not trusted"
    if isinstance(error, socket.timeout):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    # What a library says may hold an address with a token in it.
    return type(error).__name__


def context(ca_file: str) -> ssl.SSLContext:
    """TLS as it is used: certificate and name are checked, nothing below TLS 1.2."""
    found = ssl.create_default_context(cafile=ca_file or None)
    if hasattr(found, "minimum_version"):
        found.minimum_version = ssl.TLSVersion.TLSv1_2
    else:  # Python 3.6
        found.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    return found


def check_ca(ca_file: str, where: str) -> None:
    """BadInput when the file of certificates is no use."""
    try:
        context(ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise BadInput(
            f"the certificates cannot be used: {getattr(error, 'strerror', None) or type(error).__name__}",
            f"{where}.ca_file",
            "a file of certificates in PEM form",
        ) from error
