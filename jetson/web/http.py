"""One HTTP request read strictly, and what is answered to it."""

import re
from http.client import responses
from typing import Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import parse_qsl, unquote


class Request(NamedTuple):
    method: str
    path: str
    query: Dict[str, str]
    headers: Dict[str, str]
    peer: str
    keep_alive: bool
    body: bytes = b""


class Response:
    """What to send: a whole body, or a stream when `topic` is set (parts come through `Server.publish`).

    `latest_only`: a viewer who is still busy with one part misses the next (pictures). `once`: the answer's body is the
    next part of the topic, 503 when none comes in time. `skips`: one who has many parts to come misses further ones.
    """

    def __init__(
        self,
        status: int = 200,
        body: bytes = b"",
        kind: str = "text/plain; charset=utf-8",
        headers: Optional[Dict[str, str]] = None,
        topic: str = "",
        latest_only: bool = False,
        once: bool = False,
        skips: bool = False,
    ) -> None:
        self.status = status
        self.body = body
        self.kind = kind
        self.headers = headers or {}
        self.topic = topic
        self.latest_only = latest_only
        self.once = once
        self.skips = skips


class BadRequest(Exception):
    """A request that is not HTTP as this server speaks it; `status` is the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def compose(
    response: Response, headers: Dict[str, str], request: Optional[Request], keep: bool, stream: bool = False
) -> bytes:
    """The bytes to send: status line, fields and, unless `request` was HEAD, the body. `stream`: of unknown length.

    HEAD of a stream, or of what is made only when it is asked for, tells no length (RFC 9110, 9.3.2).
    """
    fields = dict(headers)
    fields.update(response.headers)
    fields["Content-Type"] = response.kind
    fields["Connection"] = "keep-alive" if keep else "close"
    if not stream and not (response.topic and request is not None and request.method == "HEAD"):
        fields["Content-Length"] = str(len(response.body))
    lines = [f"HTTP/1.1 {response.status} {responses.get(response.status, 'Error')}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    return head if request is not None and request.method == "HEAD" else head + response.body


CHANGES = (("PUT", "/api/v1/zones"), ("POST", "/api/v1/alerts/test"))  # all that can be changed through this server
BODY_BYTES = 65536
_METHOD = re.compile(r"^[A-Z]{1,20}$")
_NAME = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
_AUTHORITY = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{0,5})?$")
_ONCE = ("host", "content-length", "transfer-encoding", "authorization")


def parse_request(head: bytes, peer: str = "") -> Request:
    """Parse a request's head (without the empty line). BadRequest with the status to answer.

    Strict where laxness is how requests are smuggled (RFC 9112): a body only where one is expected, of a told length,
    no folded or doubled lines that matter.
    A header's value may hold bytes over 127 (RFC 9110, 5.5; other sites' cookies do), read as Latin-1.
    """
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not _METHOD.match(parts[0]):
        raise BadRequest(400, "not an HTTP request line")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(505 if version.startswith("HTTP/") else 400, "HTTP/1.1 only")
    headers = _headers(lines[1:])
    if version == "HTTP/1.1" and not headers.get("host"):
        raise BadRequest(400, "no Host header")
    # A path may stand below a proxy's own; the site looks again at it as a whole.
    changes = any(method == how and target.partition("?")[0].endswith(path) for how, path in CHANGES)
    if method not in ("GET", "HEAD") and not changes:
        raise BadRequest(405, "only GET and HEAD: nothing else can be changed through this server")
    if headers.get("transfer-encoding") or (not changes and headers.get("content-length", "0") != "0"):
        raise BadRequest(413, "no request here has such a body")
    if changes and not re.match(r"^[0-9]{1,9}$", headers.get("content-length", "")):
        raise BadRequest(411, "its length must be told in Content-Length")
    if changes and int(headers["content-length"]) > BODY_BYTES:
        raise BadRequest(413, f"more than {BODY_BYTES} bytes")
    if len(target) > 2048 or any(not 32 < ord(c) < 127 for c in target):
        raise BadRequest(400, "not a path")
    if target[:7].lower() == "http://" or target[:8].lower() == "https://":
        # The absolute form, as to a proxy; its host counts, whatever the header says (RFC 9112, 3.2.2).
        authority, slash, rest = target.partition("://")[2].partition("/")
        authority, mark, query = authority.partition("?")
        if not _AUTHORITY.match(authority):
            raise BadRequest(400, "not an address")
        headers["host"], target = authority, "/" + mark + query + slash * bool(mark) + rest
    path, query_of = _split(target)
    wish = headers.get("connection", "").lower()
    keep = "close" not in wish if version == "HTTP/1.1" else "keep-alive" in wish
    return Request(method, path, query_of, headers, peer, keep)


def _headers(lines: List[str]) -> Dict[str, str]:
    headers: Dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.match(name):
            raise BadRequest(400, "not a header line")
        if any(ord(c) < 32 and c != "\t" or ord(c) == 127 for c in value):
            raise BadRequest(400, "a control character in a header")
        name = name.lower()
        if name in headers and name in _ONCE:
            raise BadRequest(400, "a header appears twice")
        headers[name] = headers[name] + ", " + value.strip() if name in headers else value.strip()
    return headers


def _split(target: str) -> Tuple[str, Dict[str, str]]:
    """The path, unquoted, and the query of an origin-form target."""
    path, _, query = target.partition("#")[0].partition("?")
    try:
        path = unquote(path, errors="strict")
        found = dict(parse_qsl(query, keep_blank_values=True, errors="strict"))
    except (ValueError, UnicodeDecodeError):
        raise BadRequest(400, "not a path") from None
    if not path.startswith("/") or any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise BadRequest(400, "not a path")
    return path, found
