"""Alerts when something else goes wrong: a disk that is full, a receiver that is away for long, a reload, a clock."""

import json
import os
import signal
import sqlite3

import pytest
from serving import Serving, wait_for

from jetson.alerts import alerts as alerts_module
from jetson.alerts import outbox as outbox_module
from jetson.alerts import settings
from jetson.alerts.alerts import Alerts
from jetson.alerts.outbox import Outbox
from jetson.alerts.sender import Sender
from jetson.bundle.classes import MASK_CLASSES
from jetson.errors import BadInput
from jetson.events.media import Kept
from jetson.monitor.journal import stamp

NOW = 1764590400.0
LOST = {"name": "lost", "when": "camera lost > 1 s", "cool_down": 0}


def hook(server, **more):
    return dict({"kind": "webhook", "url": f"http://127.0.0.1:{server.port}/x"}, **more)


def asked(tmp_path, receivers, rules=(LOST,), **more):
    return settings.alerts_of(
        dict({"rules": list(rules), "receivers": receivers, "retry": 0.02, "longest_retry": 0.1}, **more),
        "alerts",
        str(tmp_path),
    )


def lost(camera="gate", at=0.0):
    return {"kind": "camera lost", "at": stamp(NOW + at), "camera": camera, "reason": "no route"}


class Made:
    """Alerts whose looks at the rules are asked for, at a time that is set."""

    def __init__(self, tmp_path, found, **more):
        self.now, self.said = NOW + 10, []
        path = str(tmp_path / "a.sqlite3")
        self.alerts = Alerts(found, MASK_CLASSES, path, self.said.append, clock=lambda: self.now, **more)
        for sender in self.alerts.senders.values():
            sender.start()

    def close(self):
        for sender in self.alerts.senders.values():
            sender.stop()
        self.alerts._outbox.close()


@pytest.fixture
def made(tmp_path):
    started = []

    def start(found, **more):
        started.append(Made(tmp_path, found, **more))
        return started[-1]

    yield start
    for one in started:
        one.close()


def cameras(server):
    return [json.loads(body.decode())["camera"] for _, _, body in server.got]


def test_ten_minutes_without_a_receiver_by_a_clock_that_is_played(tmp_path, takes):
    """Attempts at 0, 1, 3, 7, … s, at most a minute apart; what came meanwhile is taken in order, each once."""
    server = takes()
    found = asked(tmp_path, {"office": hook(server)}, retry=1, longest_retry=60)
    outbox = Outbox(str(tmp_path / "a.sqlite3"))
    played, waits = [0.0], []

    def wait(seconds):
        waits.append(seconds)
        played[0] += seconds
        if len(waits) < 20:
            outbox.add(["office"], {"id": f"later {len(waits)}", "camera": len(waits)})
        if played[0] < 600:
            server.answers.append(503)

    server.answers.append(503)
    outbox.add(["office"], {"id": "first", "camera": 0})
    sender = Sender(found.receivers[0], outbox, found.retry_s, found.longest_retry_s, lambda text: None, wait)
    sender.start()
    wait_for(lambda: played[0] >= 600 and sender.sent == len(waits) + 1, "everything to be taken")
    sender.stop()
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0] + [60.0] * 9 and played[0] == 603
    assert cameras(server) == list(range(len(waits) + 1))
    assert len({headers["Idempotency-Key"] for _, headers, _ in server.got}) == len(server.got)
    assert outbox.waiting("office") == outbox.dropped("office") == 0
    outbox.close()


def test_an_alert_that_a_full_disk_does_not_take_is_sent_when_it_does_in_order(tmp_path, takes, made, monkeypatch):
    server = takes()
    one = made(asked(tmp_path, {"office": hook(server)}))
    real = one.alerts._outbox.add

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(one.alerts._outbox, "add", full)
    monkeypatch.setattr(alerts_module, "WAITING_ALERTS", 3)
    for name in "abcd":
        one.alerts.event(lost(name))
        one.alerts.turn()
    state = one.alerts.state()
    assert (state["unstored"], state["lost"]) == (3, 1) and "full" in state["error"]
    assert any("1 alerts were lost" in text for text in one.alerts.warnings())
    monkeypatch.setattr(one.alerts._outbox, "add", real)
    one.alerts.turn()
    wait_for(lambda: len(server.got) == 3, "the three")
    assert cameras(server) == ["b", "c", "d"] and one.alerts.state()["error"] == ""


def test_a_disk_that_is_full_at_the_start_keeps_alerts_in_memory_and_says_so(tmp_path, takes, made, monkeypatch):
    server, real = takes(), Outbox._open

    def full(self, path=""):
        if not path:
            raise sqlite3.OperationalError("database or disk is full")
        return real(self, path)

    monkeypatch.setattr(outbox_module.Outbox, "_open", full)
    one = made(asked(tmp_path, {"office": hook(server)}))
    assert any("memory alone" in text for text in one.alerts.warnings()) and any("memory alone" in t for t in one.said)
    one.alerts.event(lost())
    one.alerts.turn()
    wait_for(lambda: cameras(server) == ["gate"], "the alert")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_wrong_path_is_still_a_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput):
        Outbox(str(tmp_path / "file" / "a.sqlite3"))


def test_alerts_of_a_receiver_that_is_gone_are_counted(tmp_path, takes, made):
    outbox = Outbox(str(tmp_path / "a.sqlite3"))
    for number in range(3):
        outbox.add(["old"], {"id": str(number)})
    outbox.close()
    one = made(asked(tmp_path, {"office": hook(takes())}))
    assert any("3 alerts for old were dropped" in text for text in one.said)
    assert one.alerts.state()["gone"] == {"old": 3}


def test_a_camera_that_is_removed_while_it_is_lost_is_told_of_no_more(tmp_path, takes, made):
    one = made(asked(tmp_path, {"office": hook(takes())}))
    one.alerts.event(lost("gate"))
    one.alerts.event(lost("yard"))
    one.alerts.forget("gate")
    one.alerts.rename("yard", "court")
    one.alerts.turn()
    assert [alert["camera"] for alert in one.alerts.newest()] == ["court"]
    one.alerts.rename("court", "yard")
    one.alerts.turn()
    assert one.alerts.told == 1  # it was told of under its other name


@pytest.mark.parametrize("by_s", [3600.0, -3600.0])
def test_a_clock_that_is_set_repeats_no_alert(tmp_path, takes, made, by_s):
    rule = dict(LOST, cool_down="10 min")
    one = made(asked(tmp_path, {"office": hook(takes())}, [rule, dict(rule, name="again", cool_down=0)]))
    one.alerts.event(lost())
    one.alerts.turn()
    assert one.alerts.told == 2
    one.now += by_s
    one.alerts.event({"kind": "clock stepped", "by_s": by_s, "at": stamp(one.now)})
    one.alerts.turn()
    assert one.alerts.told == 2
    # Another case within the cool-down stays kept back, too.
    one.alerts.event({"kind": "camera back", "at": stamp(one.now), "camera": "gate"})
    one.alerts.event(dict(lost(), at=stamp(one.now - 5)))
    one.alerts.turn()
    assert one.alerts.told == 3  # of the rule without a cool-down alone


def test_other_rules_and_receivers_while_it_runs(tmp_path, takes, made):
    first, second = takes(), takes()
    one = made(asked(tmp_path, {"office": hook(first), "gone": hook(first)}))
    one.alerts.event(lost())
    one.alerts.turn()
    wait_for(lambda: len(first.got) == 2, "both")
    one.alerts.apply(asked(tmp_path, {"office": hook(first), "gone": hook(first)}, [LOST, dict(LOST, name="new")]))
    one.alerts.turn()
    wait_for(lambda: len(first.got) == 4, "the new rule's")
    assert one.alerts.told == 2  # the same rule does not tell again what it has told
    kept = one.alerts.senders["gone"]
    one.alerts.apply(asked(tmp_path, {"office": hook(second), "gone": hook(first)}, []))
    assert one.alerts.senders["gone"] is kept  # goes on undisturbed
    one.alerts.apply(asked(tmp_path, {"office": hook(second)}))
    one.alerts._scene.cameras.clear()
    one.alerts.event(lost("yard"))
    one.alerts.turn()
    wait_for(lambda: cameras(second) == ["yard"], "the other receiver")
    assert len(first.got) == 4
    with pytest.raises(BadInput):
        one.alerts.apply(asked(tmp_path, {"office": hook(second, hmac_key={"file": "none"})}))
    one.alerts.event(lost("court"))
    one.alerts.turn()
    wait_for(lambda: cameras(second) == ["yard", "court"], "the old one, which stays")


def test_pictures_and_clips_are_in_the_message_as_addresses_and_as_base64(tmp_path, takes, made):
    server = takes()
    key = "0123456789ab-01234567"
    found = asked(
        tmp_path, {"office": hook(server, picture=True), "plain": hook(server)}, page="https://nano.example.org/"
    )
    kept = []
    one = made(found, kept=lambda camera, person, at: kept.append((camera, person, at)) or Kept(b"jpeg", key, key))
    one.alerts.event(lost())
    one.alerts.turn()
    wait_for(lambda: len(server.got) == 2, "both")
    bodies = [json.loads(body.decode()) for _, _, body in server.got]
    for body in bodies:
        assert body["picture_url"] == f"https://nano.example.org/api/v1/media/{key}.jpg"
        assert body["clip_url"] == f"https://nano.example.org/api/v1/media/{key}.avi"
    assert sorted("picture_base64" in body for body in bodies) == [False, True]
    assert kept == [("gate", None, one.now)]


def test_a_tap_on_a_message_opens_the_clip(tmp_path, takes, made):
    server, key = takes(), "0123456789ab-01234567"
    topic = f"http://127.0.0.1:{server.port}/topic"
    receivers = {"words": {"kind": "ntfy", "url": topic}, "shown": {"kind": "ntfy", "url": topic, "picture": True}}
    found = asked(tmp_path, receivers, page="https://nano.example.org/door")
    one = made(found, kept=lambda camera, person, at: Kept(b"jpeg", key, key))
    one.alerts.event(lost())
    one.alerts.turn()
    wait_for(lambda: len(server.got) == 2, "both")
    link = f"https://nano.example.org/door/api/v1/media/{key}.avi"
    by_path = {path: (headers, body) for path, headers, body in server.got}
    assert json.loads(by_path["/"][1].decode())["click"] == link
    assert by_path["/topic"][0]["Click"] == link and by_path["/topic"][1] == b"jpeg"


@pytest.mark.parametrize("page", ["nano", "ftp://nano", "https://user@nano", "https://nano/?x=1"])
def test_a_page_that_is_no_address_is_refused(tmp_path, page):
    with pytest.raises(BadInput):
        asked(tmp_path, {"office": {"kind": "command", "command": ["true"]}}, page=page)


def test_a_service_that_is_killed_sends_its_alerts_at_the_next_start(tiny_bundle, clip, takes, tmp_path):
    """kill -9 of a running serve whose receiver is down: its alerts come after the restart, in order, each once."""
    server = takes()
    server.close()
    value = {
        "cameras": {"gate": {"source": clip}, "away": {"source": "/dev/video-not-there"}},
        "engine": {"variant": "t-320x192-fp32"},
        "compare": {"variants": "off"},
        "events": {
            "history": str(tmp_path / "events.sqlite3"),
            "pictures": "crop",
            "clips": {"before": 1, "after": 0.5},
        },
        "alerts": {
            "rules": [{"when": "camera lost > 0.1 s"}, {"name": "bare", "when": "no_mask > 0.1 s", "cool_down": "1 h"}],
            "receivers": {"office": hook(server)},
            "outbox": str(tmp_path / "alerts.sqlite3"),
            "retry": 0.1,
            "longest_retry": 0.2,
        },
    }
    path = tmp_path / "jetmask.json"
    path.write_text(json.dumps(value))
    with Serving(tiny_bundle, options=["--config", str(path)]) as made:
        waiting = wait_for(lambda: made.state()["alerts"]["receivers"][0]["waiting"] >= 2, "two alerts that wait")
        assert waiting
        newest = json.loads(made.get("/api/v1/alerts")[2].decode())["alerts"]
        os.kill(made.process.pid, signal.SIGKILL)
        made.process.wait()
    server = takes(server.port)
    with Serving(tiny_bundle, options=["--config", str(path)]) as made:
        wait_for(lambda: made.state()["alerts"]["receivers"][0]["waiting"] == 0 and len(server.got) >= 2, "both")

        def with_media():
            found = json.loads(made.get("/api/v1/events?kind=enter")[2].decode())["events"]
            return [event for event in found if "picture_url" in event]

        event = wait_for(with_media, "an event with its picture")[0]
        status, headers, body = made.get(event["picture_url"])
        assert status == 200 and headers["Content-Type"] == "image/jpeg" and body[:2] == b"\xff\xd8"
        assert made.get(event["picture_url"].replace(".jpg", ".avi"))[0] == 404

        def clips():
            found = json.loads(made.get("/api/v1/alerts")[2].decode())["alerts"]
            return [alert["clip_url"] for alert in found if "clip_url" in alert]

        url = wait_for(clips, "a clip")[0]
        assert made.get(url)[2][8:12] == b"AVI "
        assert made.state()["privacy"]["pictures_stored"] is True and made.state()["media"]["files"] >= 2
        # A person's picture that has no event is none: the folder was swept at the start.
        value["alerts"]["rules"] = [{"name": "other", "when": "no_mask > 0.2 s", "cool_down": "1 h"}]
        path.write_text(json.dumps(value))
        wait_for(lambda: made.state()["alerts"]["rules"][0]["name"] == "other", "the reload")
        wait_for(lambda: "other" in [json.loads(body.decode())["rule"] for _, _, body in server.got], "the new rule")
    told = [json.loads(body.decode()) for _, _, body in server.got]
    ids = [body["id"] for body in told]
    assert len(set(ids)) == len(ids) and set(ids) >= {alert["id"] for alert in newest}
    numbers = [body["number"] for body in told]
    assert numbers == sorted(numbers)
