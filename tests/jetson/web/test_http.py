"""A request's head, read strictly, and the bytes of an answer."""

import pytest

from jetson.web.http import BadRequest, Request, Response, compose, parse_request


def parse(line="GET / HTTP/1.1", *fields, host="Host: h"):
    return parse_request("\r\n".join([line, *([host] if host else []), *fields]).encode("latin-1"))


@pytest.mark.parametrize(
    "version, field, keep",
    [
        ("HTTP/1.1", None, True),
        ("HTTP/1.1", "Connection: close", False),
        ("HTTP/1.1", "Connection: Close", False),
        ("HTTP/1.1", "Connection: upgrade, close", False),
        ("HTTP/1.1", "Connection: keep-alive", True),
        ("HTTP/1.0", None, False),
        ("HTTP/1.0", "Connection: keep-alive", True),
        ("HTTP/1.0", "Connection: Keep-Alive", True),
        ("HTTP/1.0", "Connection: close", False),
    ],
)
def test_a_connection_is_kept_as_the_version_and_the_client_say(version, field, keep):
    assert parse("GET / " + version, *([field] if field else [])).keep_alive is keep


@pytest.mark.parametrize(
    "line, fields, status",
    [
        ("GET /", [], 400),
        ("GET  / HTTP/1.1", [], 400),
        ("get / HTTP/1.1", [], 400),
        ("G3T / HTTP/1.1", [], 400),
        ("GET / HTTP/2.0", [], 505),
        ("GET / SPDY/1", [], 400),
        ("GET / HTTP/1.1", ["no colon"], 400),
        ("GET / HTTP/1.1", [": no name"], 400),
        ("GET / HTTP/1.1", ["A b: c"], 400),
        ("GET / HTTP/1.1", [" folded: x"], 400),
        ("GET / HTTP/1.1", ["A: \x01"], 400),
        ("GET / HTTP/1.1", ["A: \x1f"], 400),
        ("GET / HTTP/1.1", ["A: \x7f"], 400),
        ("GET / HTTP/1.1", ["Host: other"], 400),
        ("GET / HTTP/1.1", ["Authorization: a", "authorization: b"], 400),
        ("GET / HTTP/1.1", ["Content-Length: 0", "Content-Length: 0"], 400),
        ("GET / HTTP/1.1", ["Transfer-Encoding: a", "Transfer-Encoding: a"], 400),
        ("POST / HTTP/1.1", [], 405),
        ("OPTIONS * HTTP/1.1", [], 405),
        ("GET / HTTP/1.1", ["Content-Length: 1"], 413),
        ("GET / HTTP/1.1", ["Transfer-Encoding: chunked"], 413),
        ("GET x HTTP/1.1", [], 400),
        ("GET /" + "a" * 2048 + " HTTP/1.1", [], 400),
        ("GET /%00 HTTP/1.1", [], 400),
        ("GET /%ff HTTP/1.1", [], 400),
        ("GET /?a=%ff HTTP/1.1", [], 400),
    ],
)
def test_what_is_refused(line, fields, status):
    with pytest.raises(BadRequest) as told:
        parse(line, *fields)
    assert told.value.status == status and str(told.value)


@pytest.mark.parametrize(
    "line, fields",
    [
        ("GET / HTTP/1.1", ["A: \t b", "X-!#$%&'*+-.^_`|~: 1", "Content-Length: 0", "Accept: a", "Accept: b"]),
        ("HEAD /" + "a" * 2047 + " HTTP/1.1", []),
    ],
)
def test_what_is_allowed(line, fields):
    assert parse(line, *fields).method == line.split(" ")[0]


def test_a_host_is_asked_of_http_1_1_alone():
    assert parse("GET / HTTP/1.0", host="").headers == {}
    for host in ("", "Host:", "Host:  "):
        with pytest.raises(BadRequest):
            parse(host=host)


def test_bytes_beyond_ascii_are_allowed_in_values_alone():
    """As other sites' cookies have them (RFC 9110, 5.5)."""
    assert parse("GET / HTTP/1.1", "Cookie: \xe4").headers["cookie"] == "\xe4"
    for line, field in (("GET /\xe4 HTTP/1.1", "A: b"), ("GET / HTTP/1.1", "\xe4: b")):
        with pytest.raises(BadRequest):
            parse(line, field)


@pytest.mark.parametrize(
    "target, host, path, query",
    [
        ("http://cam:8080/a?b=1", "cam:8080", "/a", {"b": "1"}),
        ("HTTPS://cam/", "cam", "/", {}),
        ("http://cam", "cam", "/", {}),
        ("http://cam?b=/c", "cam", "/", {"b": "/c"}),
        ("http://[::1]:80/a", "[::1]:80", "/a", {}),
    ],
)
def test_the_absolute_form_names_the_host(target, host, path, query):
    request = parse(f"GET {target} HTTP/1.1")
    assert (request.headers["host"], request.path, request.query) == (host, path, query)


@pytest.mark.parametrize("target", ["http://", "http:///a", "http://a@b/", "http://a b/", "ftp://a/", "http://[x/"])
def test_what_is_no_absolute_form(target):
    with pytest.raises(BadRequest) as told:
        parse(f"GET {target} HTTP/1.1")
    assert told.value.status == 400


def test_a_request_is_read_whole():
    request = parse_request(b"GET /a%20b?x=1&y=&x=2 HTTP/1.1\r\nHost: h\r\nAccept: a\r\nACCEPT: b ", "1.2.3.4")
    assert request == Request("GET", "/a b", {"x": "2", "y": ""}, {"host": "h", "accept": "a, b"}, "1.2.3.4", True)


def test_an_answer_has_its_fields_and_a_body_where_it_was_asked_for():
    response = Response(404, b"gone", headers={"A": "1"})
    head = b"HTTP/1.1 404 Not Found\r\nA: 1\r\nB: 2\r\n"
    end = b"Content-Type: text/plain; charset=utf-8\r\nConnection: %s\r\nContent-Length: 4\r\n\r\n"

    def lines(data):
        first, _, body = data.partition(b"\r\n\r\n")
        return first.split(b"\r\n")[0], set(first.split(b"\r\n")[1:]), body

    wanted = lines(head + end % b"close" + b"gone")
    assert lines(compose(response, {"B": "2"}, None, False)) == wanted
    assert lines(compose(response, {"B": "2"}, parse(), False)) == wanted
    kept = compose(response, {"B": "2"}, parse("HEAD / HTTP/1.1"), True)
    assert lines(kept) == (*lines(head + end % b"keep-alive")[:2], b"")
    assert b"Content-Length" not in compose(response, {}, None, False, stream=True)
    assert compose(Response(299), {}, None, False).startswith(b"HTTP/1.1 299 Error\r\n")
