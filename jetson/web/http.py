"""One HTTP request read strictly, and what is answered to it."""

from http.client import responses
from typing import Dict, NamedTuple, Optional
from urllib.parse import parse_qsl, unquote, urlsplit


class Request(NamedTuple):
    method: str
    path: str
    query: Dict[str, str]
    headers: Dict[str, str]
    peer: str
    keep_alive: bool


class Response:
    """What to send: a whole body, or a stream when `topic` is set (parts come through `Server.publish`).

    `latest_only`: a viewer who is still busy with one part misses the next (pictures). `once`: the answer's body is the
    next part of the topic, 503 when none comes in time.
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
    ) -> None:
        self.status = status
        self.body = body
        self.kind = kind
        self.headers = headers or {}
        self.topic = topic
        self.latest_only = latest_only
        self.once = once


class BadRequest(Exception):
    """A request that is not HTTP as this server speaks it; `status` is the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def compose(
    response: Response, headers: Dict[str, str], request: Optional[Request], keep: bool, stream: bool = False
) -> bytes:
    """The bytes to send: status line, fields and, unless `request` was HEAD, the body. `stream`: of unknown length."""
    fields = dict(headers)
    fields.update(response.headers)
    fields["Content-Type"] = response.kind
    fields["Connection"] = "keep-alive" if keep else "close"
    if not stream:
        fields["Content-Length"] = str(len(response.body))
    lines = [f"HTTP/1.1 {response.status} {responses.get(response.status, 'Error')}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    return head if request is not None and request.method == "HEAD" else head + response.body


def parse_request(head: bytes, peer: str = "") -> Request:
    """Parse a request's head (without the empty line). BadRequest with the status to answer.

    Strict where laxness is how requests are smuggled (RFC 9112): no body, no folded or doubled lines that matter.
    """
    try:
        lines = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        raise BadRequest(400, "the head is not ASCII")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[0].isalpha() or not parts[0].isupper():
        raise BadRequest(400, "not an HTTP request line")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(505 if version.startswith("HTTP/") else 400, "HTTP/1.1 only")
    headers: Dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or not all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in name):
            raise BadRequest(400, "not a header line")
        if any(ord(c) < 32 and c != "\t" or ord(c) == 127 for c in value):
            raise BadRequest(400, "a control character in a header")
        name = name.lower()
        if name in headers and name in ("host", "content-length", "transfer-encoding", "authorization"):
            raise BadRequest(400, "a header stands there twice")
        headers[name] = headers[name] + ", " + value.strip() if name in headers else value.strip()
    if version == "HTTP/1.1" and not headers.get("host"):
        raise BadRequest(400, "no Host header")
    if method not in ("GET", "HEAD"):
        raise BadRequest(405, "only GET and HEAD: nothing can be changed through this server")
    if headers.get("transfer-encoding") or headers.get("content-length", "0") != "0":
        raise BadRequest(413, "no request here has a body")
    if not target.startswith("/") or len(target) > 2048 or any(ord(c) < 33 for c in target):
        raise BadRequest(400, "not a path")
    try:
        split = urlsplit("http://x" + target)
        path = unquote(split.path, errors="strict")
        query = dict(parse_qsl(split.query, keep_blank_values=True, errors="strict"))
    except (ValueError, UnicodeDecodeError):
        raise BadRequest(400, "not a path")
    if "\0" in path:
        raise BadRequest(400, "not a path")
    wish = headers.get("connection", "").lower()
    keep = "close" not in wish if version == "HTTP/1.1" else "keep-alive" in wish
    return Request(method, path, query, headers, peer, keep)
