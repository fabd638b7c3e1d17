"""Requests of real programs and of attackers against a whole runner: each is answered as HTTP says, none with 500."""

import random
import socket

import pytest
from serving import Serving

from jetson.web.http import BadRequest, parse_request

SCENE = "synthetic://?size=320x240&fps=5&seed=1"
TOKEN = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def runner(tiny_bundle):
    with Serving(tiny_bundle, SCENE, options=["--tradeoff", "off"]) as made:
        made.wait_results(1)
        yield made


def talk(port, data, timeout=20.0, most=1 << 20):
    """Send bytes; what comes back until the server closes, or `most` bytes of it."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
        sock.sendall(data)
        try:
            while len(got) < most:
                part = sock.recv(65536)
                if not part:
                    break
                got += part
        except (ConnectionResetError, socket.timeout):
            pass
    return got


def split(reply):
    """(status, headers in small letters, body)."""
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    return (
        int(lines[0].split(" ")[1]),
        {k.lower(): v.strip() for k, _, v in (x.partition(":") for x in lines[1:])},
        body,
    )


CLOSE = b"Connection: close\r\n\r\n"
CASES = {
    # Another site's cookie on the same host, set by a script in UTF-8.
    "cookie in UTF-8": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: name=\xc3\xa4\r\n" + CLOSE, 200),
    "cookie in Latin-1": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: a=\xe4\r\n" + CLOSE, 200),
    # The absolute form, RFC 9112, 3.2.2.
    "absolute health": (b"GET http://127.0.0.1:8101/healthz HTTP/1.1\r\nHost: 127.0.0.1:8101\r\n" + CLOSE, 200),
    "absolute page": (b"GET HTTP://127.0.0.1:8101/ HTTP/1.1\r\nHost: elsewhere\r\n" + CLOSE, 200),
    "absolute without a path": (b"GET http://127.0.0.1 HTTP/1.1\r\nHost: x\r\n" + CLOSE, 200),
    "absolute with a query": (b"GET https://127.0.0.1?a=b/c HTTP/1.1\r\nHost: x\r\n" + CLOSE, 200),
    "absolute of a rebound name": (b"GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CLOSE, 421),
    "absolute with a user": (b"GET http://a@127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CLOSE, 400),
    "absolute and broken": (b"GET http://[ HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CLOSE, 400),
    "another scheme": (b"GET ftp://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CLOSE, 400),
    "health without a name": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "health under another name": (b"GET /healthz HTTP/1.1\r\nHost: nano.lan\r\n" + CLOSE, 200),
    "a page under another name": (b"GET / HTTP/1.1\r\nHost: nano.lan\r\n" + CLOSE, 421),
    "a broken origin": (b"GET /api/state HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://[\r\n" + CLOSE, 403),
    "a broken host": (b"GET /api/state HTTP/1.1\r\nHost: [\r\n" + CLOSE, 421),
    "letters as a method": (b"G\xc4T / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CLOSE, 400),
    "a path in UTF-8": (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CLOSE, 400),
    "a line break in a path": (b"GET /a%0d%0ab HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CLOSE, 400),
    "a header name in UTF-8": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nN\xc3\xa4me: x\r\n" + CLOSE, 400),
    "a camera in superscript": (b"GET /snapshot.jpg?camera=%C2%B2 HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CLOSE, 404),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_programs_send(runner, name):
    data, wanted = CASES[name]
    assert split(talk(runner.port, data))[0] == wanted


@pytest.mark.parametrize("number", [b"9" * 5000, b"9" * 16, b"-1", b"\xb2", b"1e9", b"\xd9\xa3", b"0x1", b""])
def test_any_last_event_id_gets_the_events(runner, number):
    data = b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: " + number + b"\r\n\r\n"
    status, headers, body = split(talk(runner.port, data, most=200))
    assert status == 200 and headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize(
    "path", ["/stream.mjpg", "/snapshot.jpg", "/api/events", "/", "/metrics", "/healthz", "/api/state"]
)
def test_head_of_everything_ends_and_says_what_get_would(runner, path):
    head = talk(runner.port, f"HEAD {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    status, headers, body = split(head)
    whole = talk(
        runner.port, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode(), most=2000
    )
    known = split(whole)
    assert (status, body) == (200, b"") and headers["content-type"] == known[1]["content-type"]
    if path in ("/stream.mjpg", "/snapshot.jpg", "/api/events"):
        assert "content-length" not in headers  # nobody knows it (RFC 9110, 9.3.2: may be left out)
    elif path == "/":
        assert headers["content-length"] == known[1]["content-length"]


def test_head_of_a_stream_leaves_the_connection_for_the_next(runner):
    data = (
        b"HEAD /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nHEAD /snapshot.jpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    )
    reply = talk(runner.port, data + b"GET /page.css HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CLOSE)
    assert reply.count(b"HTTP/1.1 200 OK") == 3 and b"--s1" in reply


WORDS = [
    b"GET ", b"HEAD ", b"/", b"/healthz", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"Host: ", b"127.0.0.1",
    b"Cookie: ", b"jetmask=", b"a.b.c", b":", b"%00", b"%ff", b"?code=", b"camera=0", b"/snapshot.jpg", b"/stream.mjpg",
    b"/api/events", b"Last-Event-ID: ", b"-1", b"\xff", b"\0", b"[", b"]", b"@", b"#", b"//", b"http://", b"https://[",
    b"Connection: keep-alive", b"Origin: ", b"http://[", b"Authorization: Bearer ", b"Authorization: Basic ",
    b"\xc3\xa4",
    b"X-Forwarded-Prefix: /a", b"X-Forwarded-Proto: https", b"Sec-Fetch-Site: cross-site", b"\xb2", b"9" * 30,
]  # fmt: skip


def drawn(seed):
    """A request put together from what requests are made of, some of it whole, some not."""
    draw = random.Random(seed)
    if draw.randrange(4) == 0:
        return bytes(draw.randrange(256) for _ in range(draw.randrange(200)))
    if draw.randrange(3) == 0:
        return b"".join(draw.choice(WORDS) for _ in range(draw.randrange(14))) + b"\r\n\r\n"
    path = b"/" + b"".join(
        draw.choice(
            [b"a", b"%2e", b"..", b"/", b"?", b"&", b"=", b"[", b"]", b"%e2%82", b";", b"#", b"@", b":"]
            + [b"api/state", b"code=", b"camera=", b"9" * 30, b"%C2%B2", b"api/crops/", b"enter"]
        )
        for _ in range(draw.randrange(6))
    )
    names = [
        b"Origin",
        b"Cookie",
        b"Last-Event-ID",
        b"Authorization",
        b"Accept",
        b"X-Forwarded-Prefix",
        b"Sec-Fetch-Site",
    ]
    fields = b"".join(
        draw.choice(names) + b": "
        + b"".join(draw.choice(WORDS) for _ in range(draw.randrange(3))).replace(b"\r\n", b"")
        + b"\r\n"
        for _ in range(draw.randrange(4))
    )  # fmt: skip
    return b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + fields + b"Connection: close\r\n\r\n"


def test_nothing_drawn_gets_500(tiny_bundle, tmp_path):
    """600 requests, against a runner that demands a token; afterwards it still serves."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with Serving(tiny_bundle, SCENE, options=["--tradeoff", "off", "--token-file", str(token)]) as made:
        for seed in range(600):
            data = drawn(seed)
            with socket.create_connection(("127.0.0.1", made.port), timeout=20) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                try:
                    reply = sock.recv(65536)
                except ConnectionResetError:
                    reply = b""
            assert not reply.startswith(b"HTTP/1.1 5"), (seed, data)
        assert made.get("/api/state", {"Authorization": "Bearer " + TOKEN})[0] == 200
        assert "fault in" not in made.log()


@pytest.mark.parametrize("seed", range(20))
def test_a_parser_that_says_bad_request_or_gives_a_request(seed):
    for number in range(200):
        head = drawn(1000 + 200 * seed + number).split(b"\r\n\r\n")[0]
        try:
            request = parse_request(head)
        except BadRequest as error:
            assert 400 <= error.status < 600
            continue
        assert request.path.startswith("/") and request.method in ("GET", "HEAD")
        assert not any(ord(c) < 32 for c in request.path)
