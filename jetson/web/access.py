"""Who may look: nobody needs a password on the machine itself; from elsewhere a token, or a cookie got through it.

Pictures and event streams of a page cannot send headers, so a one-time address sets a cookie (HttpOnly, SameSite).
Host and Origin are checked, so that no foreign web page reaches a server on the user's own machine (DNS rebinding).
"""

import hashlib
import hmac
import ipaddress
import secrets
import socket
import threading
import time
from typing import FrozenSet, Iterable, Optional
from urllib.parse import urlsplit

from jetson.web.http import Request, Response

COOKIE = "jetmask"
COOKIE_S = 30 * 24 * 3600
CODE_PATH = "/enter"
_PAGES = ("/", "/drift", CODE_PATH)  # what a link in a message or on a dashboard may lead to

# Sent with every answer. The page brings nothing from elsewhere and nothing may frame or embed it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Access:
    """Decides about each request. `token` None: open to whoever reaches the port (loopback, or --insecure)."""

    def __init__(self, token: Optional[str] = None, hosts: Iterable[str] = ()) -> None:
        self._token = token
        self._hosts: FrozenSet[str] = frozenset(name.lower() for name in hosts) | _own_names()
        self._lock = threading.Lock()
        self.code = secrets.token_urlsafe(16) if token else ""

    def refuse(self, request: Request) -> Optional[Response]:
        """The refusal to send, or None when the request is welcome."""
        host = _hostname(request.headers.get("host", ""))
        if not self._known(host):
            return Response(
                421,
                "this server is not called {}; start it with --allow-host {}\n".format(
                    host or "that", host or "NAME"
                ).encode(),
            )
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
            return Response(403, b"requests from other sites are not answered\n")
        if request.headers.get("sec-fetch-site") == "cross-site" and request.path not in _PAGES:
            return Response(403, b"requests from other sites are not answered\n")
        if self._token is None or request.path == "/healthz":
            return None
        if request.path == CODE_PATH:
            return self._enter(request)
        if self._bearer(request) or self._cookie(request):
            return None
        return Response(
            401,
            b"a token is needed: use the address that the server printed when it started, or send "
            b"Authorization: Bearer TOKEN\n",
            headers={"WWW-Authenticate": 'Bearer realm="jetmask"'},
        )

    def _known(self, host: str) -> bool:
        try:
            ipaddress.ip_address(host)
            return True  # a rebound name is a name; an address is what was really asked
        except ValueError:
            return host in self._hosts or host.endswith(".localhost")

    def _bearer(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode())

    def _sign(self, text: str) -> str:
        return hmac.new(self._token.encode(), ("cookie " + text).encode(), hashlib.sha256).hexdigest()

    def _cookie(self, request: Request) -> bool:
        for part in request.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            text, _, signature = value.rpartition(".")
            if name == COOKIE and hmac.compare_digest(signature.encode(), self._sign(text).encode()):
                expires = text.partition(".")[0]
                return expires.isdigit() and int(expires) > time.time()
        return False

    def _enter(self, request: Request) -> Response:
        with self._lock:
            given = request.query.get("code", "")
            if request.method != "GET" or not hmac.compare_digest(given.encode(), self.code.encode()):
                return Response(
                    403, b"this address was used already or is not right; the server has printed a new one to its log\n"
                )
            self.code = secrets.token_urlsafe(16)
        text = f"{int(time.time()) + COOKIE_S}.{secrets.token_hex(8)}"
        cookie = f"{COOKIE}={text}.{self._sign(text)}; Max-Age={COOKIE_S}; Path=/; HttpOnly; SameSite=Strict"
        # A redirect by refresh, not 303: with SameSite=Strict a browser that came from a mail program's link would
        # not send the new cookie along the redirect chain.
        return Response(
            200,
            b'<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>jetmask</title>'
            b'<a href="/">to the live page</a>\n',
            "text/html; charset=utf-8",
            {"Set-Cookie": cookie},
        )


def _own_names() -> FrozenSet[str]:
    names = {"localhost", "ip6-localhost"}
    try:
        name = socket.gethostname().lower()
        names.update((name, name.split(".")[0], name.split(".")[0] + ".local"))
    except OSError:
        pass
    return frozenset(names)


def _hostname(host: str) -> str:
    """The name in a Host header, without the port and brackets."""
    try:
        return (urlsplit("//" + host).hostname or "").lower()
    except ValueError:
        return ""
