"""jetson/web/history.py on a real server and a real store."""

import csv
import io
import json
import urllib.error
import urllib.request

import pytest

from jetson.events import store as module
from jetson.events.store import Store
from jetson.monitor.journal import stamp
from jetson.web import history, server
from jetson.web.listener import Door

START = 1_789_948_800.0  # midnight, UTC


@pytest.fixture
def site(tmp_path, monkeypatch):
    """`ask(path)` -> (status, content type, body) of a server that has 60 events of two cameras over two days."""
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    store = Store(str(tmp_path / "events.sqlite3"), days=36500).start()
    for n in range(60):
        store.add(
            {
                "at": stamp(START + 3000 * n),
                "kind": "enter",
                "camera": "gate" if n % 2 else "=yard",
                "label": "without_mask" if n % 3 == 0 else "with_mask",
                "person": n,
            }
        )
    assert store.flush()
    made = {}
    serving = server.Server(lambda request: made["history"].handle(request) or server.Response(404, b"")).start()
    made["history"] = history.History(store, serving.publish)
    door = Door("127.0.0.1", 0, lambda request: server.Response(200), serving.admit).start()

    def ask(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{door.port}{path}", timeout=20) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Content-Type"], error.read()

    yield ask
    door.stop()
    made["history"].close()
    serving.stop()
    store.close()


def test_pages_go_back_to_the_first_event(site):
    seen, before = [], ""
    while True:
        status, kind, body = site(f"/api/v1/events?count=25{before}")
        assert (status, kind) == (200, "application/json")
        found = json.loads(body.decode())
        seen += [event["person"] for event in found["events"]]
        if found["before"] is None:
            break
        before = f"&before={found['before']}"
    assert seen == list(range(59, -1, -1))


@pytest.mark.parametrize(
    "fields, count",
    [
        ("camera=gate", 30),
        ("label=without_mask", 20),
        ("camera=gate&label=without_mask", 10),
        (f"since={START + 3000 * 50}", 10),
        ("since=2026-09-22&until=2026-09-22T00:50Z", 1),
        ("kind=left", 0),
        ("count=3", 3),
    ],
)
def test_a_filter_finds_what_it_names(site, fields, count):
    assert len(json.loads(site("/api/v1/events?" + fields)[2].decode())["events"]) == count


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/events?count=many",
        "/api/v1/events?before=-1",
        "/api/v1/events?since=yesterday",
        "/api/v1/events?since=nan",
        "/api/v1/events?camra=gate",
        "/api/v1/hours?per=week",
        "/api/v1/hours?since=2026-01-02&until=2026-01-01",
    ],
)
def test_a_wrong_field_is_a_400_that_says_so(site, path):
    status, kind, body = site(path)
    assert status == 400 and json.loads(body.decode())["error"]


def test_an_export_is_csv_that_no_spreadsheet_runs(site):
    status, kind, body = site("/api/v1/events.csv?label=with_mask")
    assert status == 200 and kind.startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(body.decode())))
    assert len(rows) == 40 and rows[0]["person"] == "59" and {row["camera"] for row in rows} == {"gate", "'=yard"}


def test_persons_by_hour_and_by_day_add_up(site):
    fields = f"since={START}&until={START + 3 * 86400}"
    hours = json.loads(site(f"/api/v1/hours?{fields}")[2].decode())["rows"]
    days = json.loads(site(f"/api/v1/hours?{fields}&per=day")[2].decode())["rows"]
    total = [sum(sum(row["persons"].values()) for row in rows) for rows in (hours, days)]
    # As far back as events may be kept: ten years.
    whole = json.loads(
        site(f"/api/v1/hours?since={START - 3600 * 86400}&until={START + 3 * 86400}&per=day")[2].decode()
    )
    assert whole["rows"] == days
    assert total == [60, 60] and [row["at"] for row in days] == [START, START + 86400, START + 2 * 86400]
    gate = json.loads(site(f"/api/v1/hours?{fields}&camera=gate&per=day")[2].decode())["rows"]
    assert sum(sum(row["persons"].values()) for row in gate) == 30


def test_without_a_store_it_says_how_to_keep_events():
    made = history.History(None, lambda topic, body: None)
    request = server.Request("GET", "/api/v1/events", {}, {}, "127.0.0.1", True)
    answer = made.handle(request)
    assert answer.status == 404 and b"--history" in answer.body
    assert made.handle(request._replace(path="/other")) is None
    made.close()
