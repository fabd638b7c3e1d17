"""From events to receivers: real servers that are down and back, in order, once; nothing waits in the caller."""

import hashlib
import hmac
import json
import os
import socket
import sqlite3
import sys
import threading

import pytest
from broker import Broker
from serving import wait_for
from stand_ins import Missing

from jetson.alerts import settings
from jetson.alerts.alerts import Alerts
from jetson.bundle.classes import MASK_CLASSES
from jetson.errors import BadInput
from jetson.monitor.journal import stamp

NOW = 1764590400.0


def made(tmp_path, receivers, rules=(), said=None, **more):
    data = dict({"rules": list(rules), "receivers": receivers, "retry": 0.02, "longest_retry": 0.1}, **more)
    found = settings.alerts_of(data, "alerts", str(tmp_path))
    log = [] if said is None else said
    return Alerts(found, MASK_CLASSES, str(tmp_path / "a.sqlite3"), log.append, clock=lambda: NOW + 10)


def lost(camera="gate", at=0.0):
    return {"kind": "camera lost", "at": stamp(NOW + at), "camera": camera, "reason": "no route"}


LOST = {"name": "lost", "when": "camera lost > 1 s", "cool_down": 0}


def numbers(server):
    return [json.loads(body.decode())["camera"] for _, _, body in server.got]


def test_a_webhook_that_is_down_gets_all_in_order_and_once_with_its_signature(tmp_path, takes):
    (tmp_path / "key").write_text("geheim\n")
    os.chmod(str(tmp_path / "key"), 0o600)
    server = takes()
    server.close()
    said = []
    hook = {"kind": "webhook", "url": f"http://127.0.0.1:{server.port}/x?y=1", "hmac_key": {"file": "key"}}
    alerts = made(tmp_path, {"office": hook}, [LOST], said).start()
    for number in range(5):
        alerts.event(lost(f"c{number}"))
    wait_for(lambda: alerts.state()["receivers"][0]["error"] and alerts.state()["receivers"][0]["waiting"] == 5, "down")
    assert any("office is down" in line for line in said) and alerts.warnings()
    back = takes(server.port)
    back.answers += [500, 503, 200, 500]
    wait_for(lambda: alerts.state()["receivers"][0]["sent"] == 5, "all of them")
    assert numbers(back) == ["c0", "c1", "c2", "c3", "c4"]
    path, headers, body = back.got[0]
    signed = headers["X-Jetmask-Timestamp"].encode() + b"." + body
    assert headers["X-Jetmask-Signature"] == "sha256=" + hmac.new(b"geheim", signed, hashlib.sha256).hexdigest()
    assert path == "/x?y=1" and len({headers["Idempotency-Key"] for _, headers, _ in back.got}) == 5
    wait_for(lambda: not alerts.warnings(), "all is well")
    alerts.stop()


def test_what_no_receiver_took_is_sent_after_a_restart(tmp_path, takes):
    server = takes()
    server.close()
    hook = {"office": {"kind": "webhook", "url": f"http://127.0.0.1:{server.port}/"}}
    first = made(tmp_path, hook, [LOST])
    first.event(lost("c1"))
    first.turn()  # not started: nobody sends
    first._outbox.close()
    back = takes(server.port)
    second = made(tmp_path, hook, [LOST]).start()
    wait_for(lambda: numbers(back) == ["c1"], "the alert of before")
    assert second.newest()[0]["camera"] == "c1"
    second.stop()


def test_an_alert_that_a_receiver_never_takes_is_dropped_and_the_next_is_sent(tmp_path, takes):
    server = takes()
    server.answers.append(422)
    alerts = made(tmp_path, {"office": {"kind": "webhook", "url": f"http://127.0.0.1:{server.port}/"}}, [LOST]).start()
    alerts.event(lost("c1"))
    alerts.event(lost("c2"))
    wait_for(lambda: numbers(server) == ["c2"], "the second")
    wait_for(lambda: alerts.state()["receivers"][0]["dropped"] == 1, "counted")
    alerts.stop()


@pytest.mark.parametrize("answer, got, dropped", [(200, ["c1", "c2"], 0), (422, ["c2"], 1)])
def test_a_disk_that_takes_no_note_of_a_delivery_makes_no_second_one(tmp_path, takes, answer, got, dropped):
    server, said, tries = takes(), [], []
    server.answers.append(answer)
    hook = {"office": {"kind": "webhook", "url": f"http://127.0.0.1:{server.port}/"}}
    alerts = made(tmp_path, hook, [LOST], said)
    over = alerts._outbox.over

    def full(receiver, number, taken=True):
        tries.append(number)
        if len(tries) <= 3:
            raise sqlite3.OperationalError("database or disk is full")
        over(receiver, number, taken)

    alerts._outbox.over = full
    alerts.start()
    alerts.event(lost("c1"))
    alerts.event(lost("c2"))
    wait_for(lambda: numbers(server) == got, "each once")
    wait_for(lambda: alerts.state()["receivers"][0]["waiting"] == 0, "nothing waits")
    assert numbers(server) == got and alerts.state()["receivers"][0]["dropped"] == dropped
    assert not server.answers and any("disk is full" in line for line in said)
    alerts.stop()


def test_a_receiver_that_hangs_keeps_no_other_from_its_alerts_and_no_caller_waiting(tmp_path, takes):
    server = takes()
    with socket.socket() as silent:  # takes connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        silent_at = "http://127.0.0.1:{}/".format(silent.getsockname()[1])
        receivers = {
            "hangs": {"kind": "webhook", "url": silent_at, "timeout": 30},
            "works": {"kind": "webhook", "url": f"http://127.0.0.1:{server.port}/"},
        }
        alerts = made(tmp_path, receivers, [LOST]).start()
        for number in range(20):
            alerts.event(lost(f"c{number}"))
        wait_for(lambda: len(server.got) == 20, "the other has all")
        wait_for(lambda: alerts.state()["receivers"][0]["waiting"] == 20, "the first still waits")
    alerts.stop()


def test_a_template_ntfy_and_a_command(tmp_path, takes):
    server = takes()
    out = tmp_path / "out"
    script = f"import sys; open({str(out)!r}, 'ab').write(sys.stdin.buffer.read())"
    receivers = {
        "chat": {
            "kind": "webhook",
            "url": f"http://127.0.0.1:{server.port}/chat",
            "template": {"text": "{rule} at {camera}", "n": "{number}"},
        },
        "phone": {"kind": "ntfy", "url": f"http://127.0.0.1:{server.port}/topic", "priority": "max"},
        "horn": {"kind": "command", "command": [sys.executable, "-c", script]},
    }
    alerts = made(tmp_path, receivers, [LOST]).start()
    alerts.event(lost("gate"))
    wait_for(lambda: len(server.got) == 2 and out.exists() and out.read_bytes().endswith(b"\n"), "all three")
    by_path = {path: json.loads(body.decode()) for path, _, body in server.got}
    assert by_path["/chat"] == {"text": "lost at gate", "n": 1}
    assert by_path["/"]["topic"] == "topic" and by_path["/"]["priority"] == 5
    assert json.loads(out.read_text())["reason"] == "no route"
    assert alerts.test("horn") and not alerts.test("nobody")
    wait_for(lambda: out.read_bytes().count(b"\n") == 2, "a test")
    assert json.loads(out.read_text().splitlines()[1])["test"] is True
    alerts.stop()


def test_a_broker_that_comes_late(tmp_path):
    pytest.importorskip("paho.mqtt.client")
    try:
        broker = Broker(tmp_path)
    except Missing as error:
        pytest.skip(str(error))
    receivers = {"hub": {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{broker.port}", "topic": "house/alerts"}}
    alerts = made(tmp_path, receivers, [LOST]).start()
    try:
        alerts.event(lost("c1"))
        wait_for(lambda: alerts.warnings(), "no broker")
        broker.start()
        wait_for(lambda: alerts.state()["receivers"][0]["sent"] == 1, "delivered")
    finally:
        alerts.stop()
        broker.kill()


def test_secrets_are_not_told(tmp_path):
    (tmp_path / "url").write_text("http://127.0.0.1:9/hooks/Geheim71\n")
    os.chmod(str(tmp_path / "url"), 0o600)
    said = []
    alerts = made(tmp_path, {"chat": {"kind": "webhook", "url": {"file": "url"}}}, [LOST], said).start()
    alerts.event(lost())
    wait_for(lambda: said, "down")
    assert "Geheim71" not in json.dumps([said, alerts.state(), alerts.newest(), alerts.warnings()])
    alerts.stop()
    (tmp_path / "url").unlink()
    with pytest.raises(BadInput) as told:
        made(tmp_path, {"chat": {"kind": "webhook", "url": {"file": "url"}}}, [LOST])
    assert "alerts.receivers.chat" in told.value.where


def test_a_flood_of_events_is_bounded_and_its_fault_ends_nothing(tmp_path, takes):
    server, said = takes(), []
    hook = {"office": {"kind": "webhook", "url": f"http://127.0.0.1:{server.port}/"}}
    alerts = made(tmp_path, hook, [LOST], said, keep=10).start()
    alerts.event({"kind": "enter", "camera": "gate", "person": "x", "at": "never"})  # nothing that the journal writes
    wait_for(lambda: alerts.error, "told")
    alerts.event(lost("c1"))
    wait_for(lambda: numbers(server) == ["c1"], "it goes on")
    alerts.stop()
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("alerts")]) == 0
