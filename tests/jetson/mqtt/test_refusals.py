"""What a broker refuses is told, kept and counted: real mosquittos with access lists and limits, by both protocols."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading

import pytest
import stand_ins
from broker import Listener, program
from publishing import numbers, settings
from serving import wait_for

from jetson.mqtt import session

pytest.importorskip("paho.mqtt.client")

DENIES = "user nano\ntopic write jetmask/other/#\n\nuser boss\ntopic readwrite #\n"
ALLOWS = "user nano\ntopic readwrite jetmask/nano/#\ntopic write homeassistant/#\n\nuser boss\ntopic readwrite #\n"
PROTOCOLS = ["5", "3.1.1"]


@pytest.fixture
def quick(monkeypatch):
    """What was refused is tried again at once."""
    monkeypatch.setattr(session, "REFUSED_S", 0.3)
    monkeypatch.setattr(session, "READ_BACK_S", 1.0)


class Denying:
    """A broker whose access list lets nano write elsewhere alone; `mend` lets it write its own."""

    def __init__(self, folder, make_broker):
        self.acl = os.path.join(str(folder), "acl")
        passwords = os.path.join(str(folder), "passwords")
        try:
            tool = program("mosquitto_passwd")
        except stand_ins.Missing as error:
            pytest.skip(str(error))
        for number, name in enumerate(("nano", "boss")):
            subprocess.run([tool, "-b"] + ["-c"] * (not number) + [passwords, name, "right"], check=True)
        self.write(DENIES)
        # With no limit on what is queued, mosquitto 2.0.11 hangs up after a refusal (see the test of that).
        self.lines = ["allow_anonymous false", "password_file " + passwords, "acl_file " + self.acl]
        self.broker = make_broker(*(self.lines + ["max_queued_messages 100000"]))

    def write(self, text):
        with open(self.acl, "w") as file:
            file.write(text)

    def mend(self, text=ALLOWS):
        self.write(text)
        self.broker.process.send_signal(signal.SIGHUP)


@pytest.fixture
def denying(tmp_path, make_broker):
    return Denying(tmp_path, make_broker)


@pytest.fixture
def boss(denying):
    """A listener that may read everything."""
    one = Listener.__new__(Listener)
    one.path, one._at, one._messages = os.path.join(os.path.dirname(denying.broker.path), "boss.log"), 0, []
    words = [program("mosquitto_sub"), "-p", str(denying.broker.port), "-i", "boss", "-u", "boss", "-P", "right"]
    with open(one.path, "wb") as log:
        one.process = subprocess.Popen(
            ["stdbuf", "-oL"] + words + ["-q", "1", "-t", "#", "-d", "-F", "message %r %t %p"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    wait_for(lambda: b"received SUBACK" in one._text(), "it has subscribed")
    yield one
    one.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_events_that_an_access_list_denies_are_kept_and_arrive_when_it_is_mended(
    tmp_path,
    quick,
    denying,
    boss,
    publish,
    protocol,
):
    wish = settings(tmp_path, denying.broker.url, username="nano", password="right", protocol=protocol)
    one = publish(wish).wait()
    one.offer(40)
    told = wait_for(lambda: [text for text in one.mqtt.warnings() if "nano" in text], "the refusal is told")
    assert all(text.startswith("MQTT: ") and "right" not in text for text in told)
    if protocol == "5":
        wait_for(
            lambda: any("jetmask/nano/event: not authorized" in text for text in one.mqtt.warnings()), "the events"
        )
        wait_for(lambda: any("homeassistant/" in text and "not authorized" in text for text in one.said), "discovery")
        assert one.mqtt.state()["refused"] > 0
    else:
        assert any("are not received" in text for text in told)
    state = one.mqtt.state()
    assert (state["waiting"], state["published"], state["connected"]) == (40, 0, True)
    assert not any(state["dropped"].values()) and boss.events() == []
    wait_for(lambda: any("events wait" in text for text in one.said), "it is told in the log, too")
    denying.mend()
    assert numbers(boss.wait_events(40)) == list(range(1, 41))
    one.offer(300)
    assert numbers(boss.wait_events(340)) == list(range(1, 341))
    wait_for(lambda: one.mqtt.state()["waiting"] == 0, "all acknowledged")
    assert one.mqtt.state()["published"] == 340 and not any(one.dropped().values())
    wait_for(
        lambda: not any("jetmask/nano/event" in text or "come back" in text for text in one.mqtt.warnings()), "well"
    )


def test_a_refusal_outlives_the_runner(tmp_path, quick, denying, boss, publish):
    wish = settings(tmp_path, denying.broker.url, username="nano", password="right")
    one = publish(wish).wait()
    one.offer(7)
    wait_for(lambda: one.mqtt.state()["refused"], "the refusal")
    one.mqtt.stop()
    denying.mend()
    two = publish(wish).wait()
    assert numbers(boss.wait_events(7)) == list(range(1, 8)) and not any(two.dropped().values())


def test_without_a_read_back_311_sends_into_the_dark_and_only_on_request(tmp_path, quick, denying, publish):
    words = {"username": "nano", "password": "right", "protocol": "3.1.1", "read_back": False}
    one = publish(settings(tmp_path, denying.broker.url, **words)).wait()
    one.offer(5)
    wait_for(lambda: one.mqtt.state()["published"] == 5, "taken, as far as anybody can tell")


def test_events_alone_are_denied(tmp_path, quick, denying, boss, publish):
    """Counts and discovery go on."""
    denying.mend(
        "user nano\ntopic write jetmask/nano/status\ntopic write homeassistant/#\n\nuser boss\ntopic readwrite #\n"
    )
    one = publish(settings(tmp_path, denying.broker.url, username="nano", password="right")).wait()
    one.offer(3)
    wait_for(lambda: any("nano/event: not authorized" in text for text in one.mqtt.warnings()), "the refusal")
    wait_for(lambda: boss.on("/nano/status"), "its status")
    assert boss.on("/events/config") and not any("homeassistant" in text for text in one.mqtt.warnings())
    assert one.mqtt.connected and one.mqtt.state()["waiting"] == 3


def test_a_broker_without_retained_messages(tmp_path, make_broker, listen, publish):
    broker = make_broker("allow_anonymous true", "retain_available false")
    listener = listen(broker)
    one = publish(settings(tmp_path, broker.url)).wait()
    one.offer(20)
    assert numbers(listener.wait_events(20)) == list(range(1, 21))
    assert any("keeps no retained messages" in text for text in one.mqtt.warnings())
    assert listener.on("/events/config") and one.mqtt.connects == 1


def test_a_broker_of_small_packets(tmp_path, make_broker, listen, publish):
    """What fits is sent; what does not is named, and an event among it counted: it would never be taken."""
    broker = make_broker("allow_anonymous true", "max_packet_size 400")
    listener = listen(broker)
    one = publish(settings(tmp_path, broker.url)).wait()
    one.offer(2)
    one.mqtt.event({"kind": "enter", "camera": 0, "note": "x" * 600})
    one.offer(2)
    wait_for(lambda: one.mqtt.state()["waiting"] == 0, "all done with")
    assert numbers(listener.wait_events(4)) == [1, 2, 4, 5]
    assert one.dropped() == {"limit": 0, "disk": 0, "damaged": 0, "refused": 1} and one.mqtt.state()["published"] == 4
    assert any("homeassistant/" in text and "400 bytes" in text for text in one.mqtt.warnings())


def test_a_broker_of_few_messages_at_once(tmp_path, make_broker, listen, publish):
    broker = make_broker("allow_anonymous true", "max_inflight_messages 5")
    listener = listen(broker)
    one = publish(settings(tmp_path, broker.url)).wait()
    one.offer(500)
    assert numbers(listener.wait_events(500)) == list(range(1, 501))
    assert one.mqtt.connects == 1 and one.mqtt.warnings() == []


def test_a_broker_of_qos_0_gets_no_event(tmp_path, make_broker, listen, publish):
    broker = make_broker("max_qos 0", "allow_anonymous true")
    one = publish(settings(tmp_path, broker.url)).wait()
    one.offer(3)
    wait_for(lambda: any("QoS 0 alone" in text for text in one.mqtt.warnings()), "it is told")
    assert one.mqtt.state()["waiting"] == 3


def packet(stream):
    """(first byte, body) of the next packet; None at the end."""
    kind = stream.read(1)
    if not kind:
        return None
    size, shift = 0, 0
    while True:
        byte = stream.read(1)[0]
        size, shift = size | (byte & 127) << shift, shift + 7
        if byte < 128:
            return kind[0], stream.read(size)


@pytest.mark.parametrize("answer", [b"\x20\x02\x00\x01", b"\x20\x02\x00\x00", b"\x20\x03\x00\x84\x00", b""])
def test_a_broker_that_does_not_know_mqtt_5_is_spoken_to_in_311(tmp_path, publish, answer):
    """It says so, in the words of either version, or takes it for 3.1.1, or hangs up."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(5)
    got, levels = [], []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with contextlib.suppress(OSError), sock, sock.makefile("rb") as stream:
                    talk(sock, stream)

    def talk(sock, stream):
        level = None
        for kind, body in iter(lambda: packet(stream), None):
            if kind == 0x10:
                level = body[6]
                levels.append(level)
                sock.sendall(b"\x20\x02\x00\x00" if level == 4 else answer)
                if level == 5:
                    return
            elif kind == 0xC0:
                sock.sendall(b"\xd0\x00")
            elif kind == 0x82:
                sock.sendall(b"\x90\x03" + body[:2] + b"\x01")
            elif kind >> 4 == 3:
                at = 2 + int.from_bytes(body[:2], "big")
                if kind & 6:
                    sock.sendall(b"\x40\x02" + body[at : at + 2])
                if body[2:at].endswith(b"/nano/status"):  # to who has subscribed, ourselves
                    sock.sendall(bytes([0x30, len(body) - 2]) + body[:at] + body[at + 2 :])
                if body[2:at].endswith(b"/event"):
                    got.append(json.loads(body[at + 2 :].decode())["seq"])

    threading.Thread(target=serve, daemon=True).start()
    one = publish(settings(tmp_path, f"mqtt://127.0.0.1:{listener.getsockname()[1]}", discovery=""))
    one.offer(3)
    wait_for(lambda: one.mqtt.state()["published"] == 3, "the events")
    assert levels[:2] == [5, 4] and set(levels[1:]) == {4} and got[:3] == [1, 2, 3]
    assert one.mqtt.state()["version"] == "3.1.1"
    one.mqtt.stop()
    listener.close()


@pytest.mark.parametrize(
    "parting",
    [b"\xe0\x01\x8e", b"\xe0\x02\x8e\x00", b"\xe0\x09\x8e\x07\x1f\x00\x04gate"],
    ids=["bare", "empty", "text"],
)
def test_why_a_broker_ends_the_connection_is_told(tmp_path, publish, parting):
    """Another device with a copied identifier, for instance; mosquitto 2.0.11 sends no such packet, others do."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(5)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with contextlib.suppress(OSError), sock, sock.makefile("rb") as stream:
                    packet(stream)
                    sock.sendall(b"\x20\x03\x00\x00\x00")
                    packet(stream)
                    sock.sendall(parting)
                    packet(stream)

    threading.Thread(target=serve, daemon=True).start()
    one = publish(settings(tmp_path, f"mqtt://127.0.0.1:{listener.getsockname()[1]}", discovery=""))
    told = wait_for(lambda: [text for text in one.said if "another client with our identifier" in text], "why")
    assert ("(gate)" in told[0]) == (b"gate" in parting)
    one.mqtt.stop()
    listener.close()


def test_a_broker_that_hangs_up_after_a_refusal_costs_no_event(tmp_path, quick, denying, make_broker, publish):
    """mosquitto 2.0.11 does so without a limit on what is queued (max_queued_messages 0)."""
    broker = make_broker(*(denying.lines + ["max_queued_messages 0"]))
    one = publish(settings(tmp_path, broker.url, username="nano", password="right"))
    one.offer(3)
    # Whether the refusal itself still arrives is the broker's chance; where it does, it is told as the cause.
    wait_for(lambda: any("the connection is lost" in text for text in one.said), "it is told")
    assert one.mqtt.state()["waiting"] == 3 and not any(one.dropped().values())


def test_a_fixed_protocol_is_not_left(tmp_path, publish):
    standing = publish(settings(tmp_path, "mqtt://127.0.0.1:1", protocol="5")).mqtt.standing
    assert not standing.has_failed(session.Gone("no", 0x84), True) and standing.version == 5
