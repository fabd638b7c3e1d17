"""Who may look: nobody needs a password on the machine itself; from elsewhere a token, or a cookie got through it.

A token is sent as `Authorization: Bearer TOKEN`, or as the password of Basic (any name: what knows no Bearer).
Pictures and event streams of a page cannot send headers, so /enter sets a cookie (HttpOnly, SameSite): by a one-time
code, or by Basic. Host and Origin are checked, so that no foreign web page reaches a server on the user's own machine
(DNS rebinding). Behind a proxy that serves it below a path nothing needs to be set: all addresses are relative, and
the cookie's path is the browser's own view; a proxy that does not take its path away tells it in X-Forwarded-Prefix.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
import threading
import time
from typing import Dict, FrozenSet, Iterable, List, Optional, Sequence
from urllib.parse import urlsplit

from jetson.errors import UsageError
from jetson.web.http import Request, Response
from jetson.web.users import OPERATOR, User

COOKIE_S = 30 * 24 * 3600
CODE_PATH = "/enter"
HEALTH_PATH = "/healthz"
_PAGES = (
    "/",
    "/history",
    "/alerts",
    "/tradeoff",
    "/drift",
    CODE_PATH,
)  # what a link in a message or on a dashboard may lead to
_ASKED_BY_PROGRAMS = ("/snapshot.jpg", "/stream.mjpg", "/metrics", CODE_PATH)  # told that Basic is understood, too
_HANDED_ON = ("forwarded", "x-forwarded-for", "x-real-ip", "via")  # by a proxy, for somebody elsewhere
_PREFIX = re.compile(r"^(/[A-Za-z0-9._~-]+)+/?$")
_ANCESTOR = re.compile(r"^https?://(\*\.)?[A-Za-z0-9.-]+(:\d{1,5}|:\*)?$|^https?://\[[0-9A-Fa-f:.]+\](:\d{1,5})?$")


def headers(ancestors: Sequence[str] = ()) -> Dict[str, str]:
    """Sent with every answer. The page brings nothing from elsewhere; only `ancestors` may show it in a frame.

    UsageError for an ancestor that is no origin.
    """
    for one in ancestors:
        if not _ANCESTOR.match(one):
            raise UsageError(
                f"not an address that a page can come from: {one[:80]!r}",
                "--frame-ancestors",
                "https://HOST or http://HOST:PORT",
            )
    framed = "'self' " + " ".join(ancestors) if ancestors else "'none'"
    found = {
        "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
        f"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {framed}",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
        "Cache-Control": "no-store",
    }
    if ancestors:
        del found["X-Frame-Options"]  # it knows no list, and would be obeyed by old browsers
    return found


class Access:
    """Decides about each request. No `users`: open to whoever reaches the port (loopback, or --insecure).

    `hosts`: further names this server is called by. `instance`: tells this runner from others on the same host, whose
    cookies a browser sends to every port. `framed`: other sites may show the page in a frame.
    """

    def __init__(
        self, users: Iterable[User] = (), hosts: Iterable[str] = (), instance: str = "", framed: bool = False
    ) -> None:
        self.users: List[User] = list(users)
        self._hosts: FrozenSet[str] = frozenset(name.lower() for name in hosts) | _own_names()
        self._framed = framed
        self._lock = threading.Lock()
        self._boot = _boot()
        digest = hashlib.sha256(f"{socket.gethostname()} {instance}".encode("utf-8", "replace")).hexdigest()
        self.cookie = f"jetmask-{digest[:10]}"
        self.code = secrets.token_urlsafe(16) if self.users else ""

    def refuse(self, request: Request) -> Optional[Response]:
        """The refusal to send, or None when the request is welcome."""
        if request.path == HEALTH_PATH:
            return None  # asked by keepers and balancers, by whatever name; it tells no secret
        refusal = self._foreign(request)
        if refusal is not None or not self.users:
            return refusal
        if request.path == CODE_PATH:
            return self._enter(request)
        user = self.user(request)
        if user is None:
            return _unknown(request)
        if not user.may(request.path):
            return Response(403, f"the role {user.role} does not open this\n".encode())
        return None

    def refuse_change(self, request: Request) -> Optional[Response]:
        """The refusal of a request that would change something, or None. `refuse` has let it in already.

        An operator alone may; where nobody needs a token, whoever is on this machine. Another site's page is kept out
        by more than the cookie's SameSite: what it could send without asking first (CORS) is no JSON.
        """
        if request.method != "GET":
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return Response(415, b"a change is sent as Content-Type: application/json\n")
            if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return Response(403, b"changes from other sites are not taken\n")
        if not self.users:
            if _is_loopback(request.peer) and not any(name in request.headers for name in _HANDED_ON):
                return None
            return Response(403, b"without tokens nothing can be changed from another machine: --users FILE\n")
        user = self.user(request)
        if user is None or user.role != OPERATOR:
            return Response(403, b"only an operator changes something\n")
        return None

    def user(self, request: Request) -> Optional[User]:
        """Whose token or cookie came along; None: nobody's."""
        return self._authorized(request) or self._remembered(request)

    # -- from where ---------------------------------------------------------------------------------------------------

    def _foreign(self, request: Request) -> Optional[Response]:
        given = request.headers.get("host", "")
        host = _hostname(given)
        if not self._known(host):
            text = f"unknown host name {host or 'that'}; start the server with --allow-host {host or 'NAME'}\n"
            return Response(421, text.encode("latin-1", "replace"))
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        # Browsers set Sec-Fetch-Site themselves; it is right where a proxy hands on Host without its port.
        if origin is not None and site != "same-origin" and _authority(origin) != given.lower():
            return Response(403, b"requests from other sites are not answered\n")
        opened = request.path.startswith("/api/v1/media/") and request.headers.get("sec-fetch-dest") == "document"
        if site == "cross-site" and request.path not in _PAGES and not opened:
            return Response(403, b"requests from other sites are not answered\n")
        return None

    def _known(self, host: str) -> bool:
        try:
            ipaddress.ip_address(host)
            return True  # a rebound name is a name; an address is what was really asked
        except ValueError:
            return host in self._hosts or host.endswith(".localhost")

    # -- who ----------------------------------------------------------------------------------------------------------

    def _authorized(self, request: Request) -> Optional[User]:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        token = given.strip().encode("latin-1", "replace")
        if scheme.lower() == "basic":
            try:
                token = base64.b64decode(token, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return None
        elif scheme.lower() != "bearer":
            return None
        found = None
        for user in self.users:  # all of them, so that the time tells nothing
            if hmac.compare_digest(token, user.token.encode()):
                found = user
        return found

    def _sign(self, user: User, text: str) -> str:
        return hmac.new(user.token.encode(), ("cookie " + text).encode(), hashlib.sha256).hexdigest()

    def _remembered(self, request: Request) -> Optional[User]:
        for part in request.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            text, _, signature = value.rpartition(".")
            if name != self.cookie or text.count(".") != 4:
                continue
            owner = text.rpartition(".")[2]
            for user in self.users:
                if user.name == owner and hmac.compare_digest(
                    signature.encode("latin-1", "replace"), self._sign(user, text).encode()
                ):
                    return user if self._lasts(text) else None
        return None

    def _lasts(self, text: str) -> bool:
        """Whether a signed cookie is still good: by the kernel's clock, or where it is of an earlier boot, by the date.

        A board without a battery starts in 1970: by the date alone its cookies would be over as soon as that is set.
        """
        wall, kernel, boot = text.split(".")[:3]
        return int(kernel) > time.monotonic() if boot == self._boot else int(wall) > time.time()

    # -- the cookie ---------------------------------------------------------------------------------------------------

    def _enter(self, request: Request) -> Response:
        user = self._authorized(request)
        if user is None and "code" not in request.query:
            return _unknown(request)
        with self._lock:
            given = request.query.get("code", "").encode("utf-8", "surrogatepass")
            if user is None and request.method == "GET" and hmac.compare_digest(given, self.code.encode()):
                user = next((one for one in self.users if one.role == OPERATOR), self.users[0])
                self.code = secrets.token_urlsafe(16)
        if user is None:
            return Response(
                403, b"this address was used already or is not right; the server has printed a new one to its log\n"
            )
        # A redirect by refresh, not 303: with SameSite=Strict a browser that came from a mail program's link would
        # not send the new cookie along the redirect chain.
        return Response(
            200,
            b'<!doctype html><meta http-equiv="refresh" content="0;url=./"><title>jetmask</title>'
            b'<a href="./">to the live page</a>\n',
            "text/html; charset=utf-8",
            {"Set-Cookie": self._baked(user, request)},
        )

    def _baked(self, user: User, request: Request) -> str:
        wall, kernel = int(time.time()) + COOKIE_S, int(time.monotonic()) + COOKIE_S
        text = f"{wall}.{kernel}.{self._boot}.{secrets.token_hex(8)}.{user.name}"
        parts = [f"{self.cookie}={text}.{self._sign(user, text)}", f"Max-Age={COOKIE_S}", "HttpOnly"]
        prefix = prefix_of(request)
        if prefix:
            parts.append(f"Path={prefix}/")
        # Without a path, a browser takes that of /enter as it sees it: right below any path of a proxy.
        if request.headers.get("x-forwarded-proto", "").lower() != "https":
            parts.append("SameSite=Strict")
        elif self._framed:  # in another site's frame a Strict cookie is not sent, and None is only taken over TLS
            parts += ["Secure", "SameSite=None", "Partitioned"]
        else:
            parts += ["Secure", "SameSite=Strict"]
        return "; ".join(parts)


def prefix_of(request: Request) -> str:
    """The path below which a proxy serves this, as it says; "" when it says none, or something else."""
    text = request.headers.get("x-forwarded-prefix", "")
    return text.rstrip("/") if len(text) < 256 and _PREFIX.match(text) and ".." not in text else ""


def without_prefix(request: Request) -> Request:
    """The request as it is meant, where a proxy has handed its own path on."""
    prefix = prefix_of(request)
    if prefix and request.path.startswith(prefix + "/"):
        return request._replace(path=request.path[len(prefix) :])
    return request


def _unknown(request: Request) -> Response:
    accepted = request.headers.get("accept", "")
    known = {"WWW-Authenticate": 'Bearer realm="jetmask"'}
    # A page's picture must not open a browser's box for a password; a program or a person who asks for it may.
    if request.path in _ASKED_BY_PROGRAMS and not accepted.startswith("image/"):
        known["WWW-Authenticate"] = 'Basic realm="jetmask", charset="UTF-8", Bearer realm="jetmask"'
    if "text/html" in accepted and request.path != CODE_PATH:
        return Response(
            401,
            b"<!doctype html><title>jetmask</title><p>A token is needed. Use the address that the server printed when "
            b'it started, or <a href="./enter">enter with name and token</a>.</p>\n',
            "text/html; charset=utf-8",
            known,
        )
    return Response(
        401,
        b"a token is needed: use the address that the server printed when it started, or send "
        b"Authorization: Bearer TOKEN\n",
        headers=known,
    )


def _boot() -> str:
    """What tells this boot of the kernel from others, 8 letters."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read(8)
    except OSError:
        return secrets.token_hex(4)


def _own_names() -> FrozenSet[str]:
    names = {"localhost", "ip6-localhost"}
    try:
        name = socket.gethostname().lower()
        names.update((name, name.split(".")[0], name.split(".")[0] + ".local"))
    except OSError:
        pass
    return frozenset(names)


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _hostname(host: str) -> str:
    """The name in a Host header, without the port and brackets."""
    try:
        return (urlsplit("//" + host).hostname or "").lower()
    except ValueError:
        return ""
