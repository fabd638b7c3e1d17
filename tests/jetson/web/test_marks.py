"""Lines and zones changed over HTTP: by an operator alone, into the file, and counted at from then on."""

import http.client
import json

import pytest
from serving import Serving, wait_for

from jetson.web import marks

ZONES = [{"kind": "zone", "name": "area", "points": [[0.1, 0.1], [0.9, 0.1], [0.5, 0.8]]}]
OPERATOR, VIEWER = "operator-0123456789abcdef", "viewer-0123456789abcdef"
JSON = {"Content-Type": "application/json"}


def put(port, body, headers=None, path="/api/v1/zones?camera=0", method="PUT"):
    """(status, what was said)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def bearer(token, **more):
    return dict(JSON, Authorization="Bearer " + token, **more)


@pytest.fixture(scope="module")
def served(tiny_bundle, clip, tmp_path_factory):
    """(serving, path of its file of lines and zones)."""
    folder = tmp_path_factory.mktemp("marks")
    (folder / "users").write_text(f"otto operator {OPERATOR}\nvera viewer {VIEWER}\n")
    (folder / "zones").write_text("# kept\nline 0 door 0.5,0 0.5,1\n")
    options = ["--users", str(folder / "users"), "--zones", str(folder / "zones"), "--tradeoff", "off"]
    with Serving(tiny_bundle, clip, options=options) as made:
        yield made, folder / "zones"


def test_what_an_operator_draws_is_kept_and_counted_at(served):
    made, path = served
    status, said = put(made.port, {"zones": ZONES}, bearer(OPERATOR))
    assert (status, json.loads(said)) == (200, {"camera": "0", "saved": 1})
    assert path.read_text().startswith("# kept\n") and "area" in path.read_text() and "door" not in path.read_text()

    def counted():
        state = json.loads(made.get("/api/state", bearer(VIEWER))[2].decode())["cameras"][0]
        return [one["name"] for one in state["zones"]] == ["area"] and not state["lines"]

    wait_for(counted, "the new zone in the state")


@pytest.mark.parametrize(
    "headers, code",
    [
        (bearer(VIEWER), 403),
        (JSON, 401),
        (bearer(OPERATOR, Origin="http://evil.example"), 403),
        (bearer(OPERATOR, **{"Sec-Fetch-Site": "cross-site"}), 403),
        (bearer(OPERATOR, **{"Sec-Fetch-Site": "same-site"}), 403),
        (dict(bearer(OPERATOR), **{"Content-Type": "text/plain"}), 415),  # what a foreign form could send
    ],
)
def test_others_change_nothing(served, headers, code):
    made, path = served
    before = path.read_text()
    assert put(made.port, {"zones": []}, headers)[0] == code
    assert path.read_text() == before


@pytest.mark.parametrize(
    "body, code",
    [
        (b"", 400),
        (b"[" * 20000, 400),
        (b"\xff", 400),
        ({"zones": 1}, 400),
        ({"zones": [], "source": "rtsp://elsewhere"}, 400),
        ({"zones": [{"kind": "zone", "name": "a b", "points": ZONES[0]["points"]}]}, 400),
        ({"zones": [{"kind": "zone", "name": "a", "points": [[0, float("nan")], [1, 0], [1, 1]]}]}, 400),
        ({"zones": [{"kind": "zone", "name": "a", "points": [[0, 2], [1, 0], [1, 1]]}]}, 400),
        ({"zones": [{"kind": "zone", "name": "a", "points": [[0, 0], [1, 1]]}]}, 400),
        (b" " * 70000, 413),
    ],
)
def test_what_is_no_use_is_told_and_changes_nothing(served, body, code):
    made, path = served
    before = path.read_text()
    assert put(made.port, body, bearer(OPERATOR))[0] == code
    assert path.read_text() == before


@pytest.mark.parametrize(
    "path, code", [("/api/v1/zones", 404), ("/api/v1/zones?camera=9", 404), ("/x/api/v1/zones", 405), ("/", 405)]
)
def test_only_that_of_a_camera_can_be_changed(served, path, code):
    made, _ = served
    assert put(made.port, {"zones": []}, bearer(OPERATOR), path)[0] == code


def test_who_asks_is_told_what_is_open_to_him(served):
    made, _ = served
    told = [json.loads(made.get("/api/v1/me", bearer(token))[2].decode()) for token in (OPERATOR, VIEWER)]
    assert [(one["user"], one["role"], one["changes"]) for one in told] == [
        ("otto", "operator", True),
        ("vera", "viewer", False),
    ]


def test_without_a_file_it_is_told_what_to_do():
    made = marks.Marks(None, lambda topic, answer: None)
    answer = made.put(None, b'{"zones": []}')
    assert answer.status == 409 and b"--zones" in answer.body and made.kept_in is None
