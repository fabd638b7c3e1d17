"""MQTT against a real mosquitto: outages, TLS, passwords, what Home Assistant is told."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import pytest
import stand_ins
from broker import program
from publishing import numbers, settings
from refusals import refused
from serving import ROOT, Serving, wait_for

from jetson.errors import BadInput, UsageError
from jetson.mqtt import homeassistant, publisher, session
from jetson.mqtt import settings as mqtt_settings
from jetson.mqtt.standing import Standing

pytest.importorskip("paho.mqtt.client")


# -- outages ---------------------------------------------------------------------------------------------------------


def test_fifty_thousand_events_of_an_outage_arrive_in_order(tmp_path, make_broker, listen, publish):
    broker = make_broker()
    one = publish(settings(tmp_path, broker.url, spool_events=50000)).wait()
    listener = listen(broker)
    one.offer(3)
    assert numbers(listener.wait_events(3)) == [1, 2, 3]
    wait_for(lambda: one.mqtt.state()["waiting"] == 0, "all acknowledged")
    broker.kill()
    one.wait(False)
    one.offer(50000)
    one.wait_written()
    state = one.mqtt.state()
    assert state["waiting"] == 50000 and not any(state["dropped"].values()) and not state["connected"]
    assert any("no connection" in text for text in one.mqtt.warnings())
    broker.start()
    events = listener.wait_events(50003, 600.0)
    assert numbers(events) == list(range(1, 50004))
    wait_for(lambda: one.mqtt.state()["waiting"] == 0, "all acknowledged")
    state = one.mqtt.state()
    assert state["published"] == 50003 and not any(state["dropped"].values()) and one.mqtt.warnings() == []


def test_over_the_limit_the_oldest_are_dropped_and_counted(tmp_path, make_broker, listen, publish):
    broker = make_broker()
    wish = settings(tmp_path, broker.url, spool_events=2000)
    one = publish(wish).wait()
    listener = listen(broker)
    broker.kill()
    one.wait(False)
    one.offer(3500)
    wait_for(lambda: one.mqtt.state()["waiting"] == 2000, "the limit is held")
    assert one.dropped() == {"limit": 1500, "disk": 0, "damaged": 0, "refused": 0}
    one.mqtt.stop()  # the counter outlives the process
    two = publish(wish)
    assert two.dropped()["limit"] == 1500
    broker.start()
    listener.wait_events(2000)
    two.offer(1)
    events = listener.wait_events(2001)
    assert numbers(events)[-2001:] == list(range(1501, 3502))  # the gap is seen by the consumer
    assert {event["boot"] for event in events[:-1]} == {one.mqtt.boot} and events[-1]["boot"] == two.mqtt.boot


def test_a_connection_that_breaks_in_the_middle_loses_nothing(tmp_path, make_broker, listen, publish):
    broker = make_broker()
    one = publish(settings(tmp_path, broker.url))
    listener = listen(broker)
    one.offer(6000)
    for turn in range(3):
        one.wait()
        wait_for(lambda: one.mqtt.state()["published"] > 500 * (turn + 1), "some are through")  # noqa: B023
        broker.kill()
        one.wait(False)
        one.offer(500)
        broker.start()
    wait_for(lambda: one.mqtt.state()["waiting"] == 0, "all acknowledged")
    state = one.mqtt.state()
    # What the killed broker had taken and not handed on is its loss; all was acknowledged by some broker, in order.
    assert state["published"] == 7500 and not any(state["dropped"].values())
    arrived = numbers(listener.events())
    assert arrived == sorted(arrived) and set(arrived) <= set(range(1, 7501)) and arrived[-1] == 7500


def test_a_broker_that_stands_still_slows_nobody(tmp_path, make_broker, listen, publish):
    broker = make_broker()
    one = publish(settings(tmp_path, broker.url)).wait()
    listener = listen(broker)
    broker.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    one.offer(5000)
    assert time.monotonic() - began < 20  # some 30 us each here; waiting for the broker would be for ever
    one.wait_written()
    broker.process.send_signal(signal.SIGCONT)
    assert numbers(listener.wait_events(5000)) == list(range(1, 5001))


def test_a_broker_that_acknowledges_nothing_is_left_and_told(tmp_path, monkeypatch, publish):
    """It answers CONNECT and pings; events are acknowledged only on its second connection."""
    monkeypatch.setattr(session, "ACKNOWLEDGE_S", 1.0)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(5)
    got = []

    def serve():
        for connection in range(9):
            sock, _ = listener.accept()
            with contextlib.suppress(OSError), sock, sock.makefile("rb") as stream:
                got.append([])
                while True:
                    kind = stream.read(1)
                    if not kind:
                        break
                    size, shift = 0, 0
                    while True:
                        byte = stream.read(1)[0]
                        size, shift = size | (byte & 127) << shift, shift + 7
                        if byte < 128:
                            break
                    body = stream.read(size)
                    if kind == b"\x10":
                        sock.sendall(b"\x20\x02\x00\x00")
                    elif kind == b"\xc0":
                        sock.sendall(b"\xd0\x00")
                    elif kind[0] >> 4 == 3 and kind[0] & 6:  # PUBLISH with QoS 1: topic, message id, payload
                        at = 2 + int.from_bytes(body[:2], "big")
                        got[-1] += (
                            [json.loads(body[at + 2 :].decode())["seq"]] if body[2:at].endswith(b"/event") else []
                        )
                        if connection:
                            sock.sendall(b"\x40\x02" + body[at : at + 2])

    threading.Thread(target=serve, daemon=True).start()
    url = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
    one = publish(settings(tmp_path, url, discovery="", protocol="3.1.1", read_back=False))
    one.offer(3)
    wait_for(lambda: len(got) > 1 and not one.mqtt.state()["waiting"], "the events acknowledged")
    assert got[:2] == [[1, 2, 3], [1, 2, 3]] and one.mqtt.state()["published"] == 3
    assert any("has not acknowledged jetmask/nano/" in text for text in one.said)
    one.mqtt.stop()
    listener.close()


@pytest.mark.full
def test_ten_minutes_without_a_broker(tmp_path, make_broker, listen, publish):
    broker = make_broker()
    one = publish(settings(tmp_path, broker.url, spool_events=50000)).wait()
    listener = listen(broker)
    broker.kill()
    one.wait(False)
    began = time.monotonic()
    for number in range(50000):
        one.offer(1)
        time.sleep(max(0.0, began + 600.0 * (number + 1) / 50000 - time.monotonic()))
    one.wait_written()
    assert one.mqtt.state()["waiting"] == 50000 and not any(one.dropped().values())
    one.offer(250)  # now over the limit
    wait_for(lambda: one.dropped()["limit"] == 250, "the limit is held")
    broker.start()
    assert numbers(listener.wait_events(50000, 600.0)) == list(range(251, 50251))
    assert one.dropped() == {"limit": 250, "disk": 0, "damaged": 0, "refused": 0}


# -- the runner ------------------------------------------------------------------------------------------------------


def config_file(folder, **values):
    path = os.path.join(str(folder), "runner.json")
    with open(path, "w") as file:
        json.dump(dict({"node": "nano", "spool": "runner"}, **values), file)
    os.chmod(path, 0o600)
    return path


def test_what_a_runner_publishes(tmp_path, tiny_bundle, clip, make_broker, listen):
    broker = make_broker()
    listener = listen(broker)
    (tmp_path / "zones.txt").write_text("line 0 door 0.5,0.0 0.5,1.0\npolygon 0 queue 0.1,0.1 0.9,0.1 0.9,0.9\n")
    options = [
        "--mqtt",
        broker.url,
        "--mqtt-config",
        config_file(tmp_path),
        "--tradeoff",
        "off",
        "--zones",
        str(tmp_path / "zones.txt"),
    ]
    with Serving(tiny_bundle, clip, options=options) as serving:
        wait_for(lambda: any(json.loads(text)["persons"]["total"] for text in listener.on("nano/camera/0")), "counts")
        counts = json.loads(listener.on("nano/camera/0")[-1])
        # What the templates that Home Assistant is given reach into.
        assert counts["lines"][0]["name"] == "door" and counts["lines"][0]["in"]["total"] >= 0
        assert counts["zones"][0]["name"] == "queue" and counts["zones"][0]["now"]["total"] >= 0
        assert len([topic for topic in retained(listener, "homeassistant/") if "/camera0" in topic]) == 11
        first = listener.wait_events(1)[0]
        assert (first["seq"], first["kind"], first["event_type"], first["camera"]) == (1, "enter", "enter", 0)
        assert listener.on("nano/status") == ["online"]
        state = json.loads(wait_for(lambda: listener.on("nano/state"), "the device's state")[-1])
        assert state["status"] == "ok" and state["variant"] == "t-416x256-fp32" and state["events_dropped"] == 0
        told = serving.state()["mqtt"]
        assert told["connected"] and told["broker"] == broker.url and told["dropped"]["limit"] == 0
        metrics = serving.get("/metrics")[2].decode()
        assert "jetmask_mqtt_connected 1.0" in metrics
        assert 'jetmask_mqtt_dropped_events_total{reason="limit"} 0.0' in metrics
        # The broker goes: the runner goes on, keeps its events, and says so on the page.
        broker.kill()
        wait_for(lambda: not serving.state()["mqtt"]["connected"], "the loss is noticed")
        serving.wait_results(10)
        wait_for(lambda: serving.state()["mqtt"]["waiting"] > 0, "events wait")
        assert any("MQTT: no connection" in text for text in serving.state()["warnings"])
        before = serving.state()["mqtt"]["waiting"]
        assert "events are kept meanwhile" in serving.log()
        serving.end(signal.SIGKILL)
    broker.start()
    with Serving(tiny_bundle, clip, options=options) as serving:
        events = listener.wait_events(before)
        order = numbers(events)
        assert order == list(range(1, len(order) + 1)) and len({event["boot"] for event in events}) <= 2
        assert serving.end(signal.SIGTERM)[0] == 0
    wait_for(lambda: listener.on("nano/status")[-1] == "offline", "its goodbye")


def test_the_last_will_of_a_killed_runner(tmp_path, tiny_bundle, make_broker, listen):
    broker = make_broker()
    options = ["--mqtt", broker.url, "--mqtt-config", config_file(tmp_path), "--tradeoff", "off"]
    with Serving(tiny_bundle, "synthetic://?fps=5", options=options) as serving:
        listener = listen(broker)
        wait_for(lambda: listener.on("nano/status") == ["online"], "online")
        serving.process.kill()
        wait_for(lambda: listener.on("nano/status")[-1] == "offline", "the last will")
    late = listen(broker, "late")
    wait_for(lambda: ("jetmask/nano/status", b"offline", True) in late.messages, "it is retained")


def test_a_broker_that_stands_still_does_not_hold_up_frames_or_the_end(tmp_path, tiny_bundle, clip, make_broker):
    broker = make_broker()
    options = ["--mqtt", broker.url, "--mqtt-config", config_file(tmp_path), "--tradeoff", "off"]
    with Serving(tiny_bundle, clip, options=options) as serving:
        wait_for(lambda: serving.state()["mqtt"]["connected"], "connected")
        broker.process.send_signal(signal.SIGSTOP)
        serving.wait_results(30)
        code, took_s = serving.end(signal.SIGTERM)
        assert code == 0 and took_s < 6.0


def serve(tiny_bundle, *options, **env):
    done = subprocess.run(
        [sys.executable, "-m", "jetson", "serve", tiny_bundle, "--source", "synthetic://", "--port", "0"]
        + list(options),
        cwd=ROOT,
        env=dict(dict(os.environ, PYTHONPATH=ROOT), **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    return done.returncode, done.stderr.decode()


def test_without_paho_it_is_told_what_to_install(tmp_path, tiny_bundle):
    (tmp_path / "paho").mkdir()
    (tmp_path / "paho" / "__init__.py").write_text("raise ImportError('not here')")
    code, text = serve(tiny_bundle, "--mqtt", "mqtt://127.0.0.1", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert code == 4 and "pip install" in text and "Traceback" not in text


# -- passwords and TLS -----------------------------------------------------------------------------------------------


def test_username_and_password(tmp_path, make_broker, publish):
    passwords = str(tmp_path / "passwords")
    try:
        subprocess.run([program("mosquitto_passwd"), "-b", "-c", passwords, "nano", "right"], check=True)
    except stand_ins.Missing as error:
        pytest.skip(str(error))
    broker = make_broker("allow_anonymous false", "password_file " + passwords)
    wrong = publish(settings(tmp_path, broker.url, username="nano", password="wrong", spool="other"))
    wait_for(lambda: "refuses" in wrong.mqtt.error, "the refusal")
    assert not wrong.mqtt.connected and "uthori" in wrong.mqtt.error and "wrong" not in repr(wrong.said)
    right = publish(settings(tmp_path, broker.url, username="nano", password="right")).wait()
    right.offer(1)
    wait_for(lambda: right.mqtt.state()["published"] == 1, "an event is through")


def openssl(folder, *words):
    subprocess.run(
        ["openssl"] + list(words), cwd=str(folder), check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with ca.pem, server.pem/.key for 127.0.0.1, other.pem/.key for another name, device.pem/.key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    folder = tmp_path_factory.mktemp("tls")
    for ca in ("ca", "foreign"):
        openssl(
            folder,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "3",
            "-subj",
            "/CN=" + ca,
            "-keyout",
            ca + ".key",
            "-out",
            ca + ".pem",
        )
    for name, subject in (("server", "IP:127.0.0.1"), ("other", "DNS:elsewhere.example"), ("device", "DNS:nano")):
        openssl(
            folder,
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=" + name,
            "-keyout",
            name + ".key",
            "-out",
            name + ".csr",
        )
        (folder / "extensions").write_text("subjectAltName=" + subject)
        openssl(
            folder,
            "x509",
            "-req",
            "-in",
            name + ".csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "3",
            "-extfile",
            "extensions",
            "-out",
            name + ".pem",
        )
    return folder


def tls_lines(folder, name, *more):
    return [
        "allow_anonymous true",
        f"certfile {folder}/{name}.pem",
        f"keyfile {folder}/{name}.key",
        f"cafile {folder}/ca.pem",
    ] + list(more)


def test_tls_with_a_ca_from_a_file_and_a_client_certificate(tmp_path, certificates, make_broker, publish):
    broker = make_broker(*tls_lines(certificates, "server", "require_certificate true"))
    url = f"mqtts://127.0.0.1:{broker.port}"
    paths = {
        key: os.path.join(str(certificates), name)
        for key, name in (("ca_file", "ca.pem"), ("cert_file", "device.pem"), ("key_file", "device.key"))
    }
    one = publish(settings(tmp_path, url, **paths)).wait()
    one.offer(500)
    wait_for(lambda: one.mqtt.state()["published"] == 500, "events are through")
    without = publish(settings(tmp_path, url, ca_file=paths["ca_file"], spool="second"))
    wait_for(lambda: without.mqtt.error not in ("", "not connected yet"), "the refusal")
    assert not without.mqtt.connected


@pytest.mark.parametrize("name, ca", [("server", "foreign.pem"), ("other", "ca.pem"), ("server", "")])
def test_a_broker_that_cannot_show_who_it_is_gets_nothing(tmp_path, certificates, make_broker, publish, name, ca):
    broker = make_broker(*tls_lines(certificates, name))
    values = {"ca_file": os.path.join(str(certificates), ca)} if ca else {}
    one = publish(settings(tmp_path, f"mqtts://127.0.0.1:{broker.port}", **values))
    wait_for(lambda: "ca_file" in one.mqtt.error, "the refusal")
    assert not one.mqtt.connected and "certificate is not trusted" in one.mqtt.error


# -- what Home Assistant is told -------------------------------------------------------------------------------------

# From Home Assistant's documentation of MQTT discovery and of the MQTT sensor, binary sensor and event.
COMMON = {
    "availability_topic",
    "payload_available",
    "payload_not_available",
    "device",
    "origin",
    "unique_id",
    "name",
    "icon",
    "entity_category",
    "qos",
    "value_template",
    "state_topic",
    "json_attributes_topic",
    "device_class",
}
KEYS = {
    "sensor": COMMON | {"state_class", "unit_of_measurement", "last_reset_value_template"},
    "binary_sensor": COMMON | {"payload_on", "payload_off"},
    "event": COMMON | {"event_types"},
}
DEVICE_KEYS = {"identifiers", "name", "manufacturer", "model", "sw_version"}
CLASSES_OF = {"sensor": {"temperature"}, "binary_sensor": {"problem", "connectivity"}, "event": set()}


def test_discovery_is_what_home_assistant_documents():
    configs = homeassistant.configs(
        "nano",
        "jetmask_1f",
        "jetmask/nano",
        "homeassistant",
        [{"lines": [], "zones": []}, {"lines": ["door"], "zones": ["queue"]}],
        "NVIDIA Jetson Nano",
        homeassistant.EVENT_TYPES,
    )
    unique, components = set(), set()
    for topic, payload in configs.items():
        prefix, component, node, thing, end = topic.split("/")
        config = json.loads(payload.decode())
        components.add(component)
        assert (prefix, node, end) == ("homeassistant", "jetmask_1f", "config") and thing.replace("_", "").isalnum()
        assert set(config) <= KEYS[component], topic
        assert config["availability_topic"] == "jetmask/nano/status" and config["state_topic"].startswith("jetmask/")
        assert config["unique_id"] not in unique and config["unique_id"].startswith("jetmask_1f_")
        unique.add(config["unique_id"])
        assert set(config["device"]) <= DEVICE_KEYS and config["device"]["identifiers"] == ["jetmask_1f"]
        assert config["origin"]["name"] and config.get("entity_category") in (None, "diagnostic")
        assert config.get("device_class") in CLASSES_OF[component] | {None}
        if component == "sensor":
            assert config.get("state_class") in (None, "measurement", "total", "total_increasing")
            # "last_reset_value_template: when set, state_class must be total"
            assert ("last_reset_value_template" in config) == (config.get("state_class") == "total")
        if component == "event":
            assert config["event_types"] == sorted(homeassistant.EVENT_TYPES)
    assert components == {"sensor", "binary_sensor", "event"}
    assert sum("/camera0" in topic for topic in configs) == 8
    assert sum("/camera1" in topic for topic in configs) == 11


def test_a_line_is_the_same_sensor_wherever_it_stands_in_the_file():
    def told(*lines):
        found = homeassistant.configs(
            "nano",
            "jetmask_1f",
            "jetmask/nano",
            "homeassistant",
            [{"lines": list(lines), "zones": ["tür.1", "t_r_1"]}],
            "",
            (),
        )
        return {topic: json.loads(payload.decode()) for topic, payload in found.items()}

    one, two = told("door", "gate"), told("gate", "door")
    assert one == two and "homeassistant/sensor/jetmask_1f/camera0_line_door_in/config" in one
    assert len([topic for topic in one if "_zone_" in topic]) == 2  # both names, each an id of its own
    for topic, config in one.items():
        assert all(re.match(r"^[a-zA-Z0-9_-]+$", part) for part in topic.split("/")), topic
        if "_line_" in topic:
            assert f"'{'door' if 'door' in topic else 'gate'}'" in config["value_template"]


def retained(listener, start):
    """The newest retained payload of each topic that begins so and was not taken back."""
    newest = {topic: payload for topic, payload, _ in list(listener.messages) if topic.startswith(start)}
    return {topic for topic, payload in newest.items() if payload}


def test_a_camera_that_is_no_more_is_taken_back(tmp_path, make_broker, listen, publish):
    broker = make_broker()
    wish = settings(tmp_path, broker.url)
    one = publish(wish, cameras=2).wait()
    listener = listen(broker)
    wait_for(lambda: sum("/camera1" in topic for topic in retained(listener, "homeassistant/")) == 8, "two cameras")
    one.mqtt.stop()
    two = publish(wish, cameras=1).wait()
    wait_for(lambda: not any("/camera1" in topic for topic in retained(listener, "homeassistant/")), "one camera")
    assert sum("/camera0" in topic for topic in retained(listener, "homeassistant/")) == 8
    assert two.mqtt.device == one.mqtt.device
    two.mqtt.stop()
    publish(settings(tmp_path, broker.url, discovery="")).wait()
    wait_for(lambda: not retained(listener, "homeassistant/"), "discovery is off")


def test_counts_of_a_camera_that_is_no_more_are_taken_back(tmp_path, make_broker, listen, publish):
    broker = make_broker()
    state = {
        "board": None,
        "health": {"status": "ok", "reason": ""},
        "variant": {"name": "v"},
        "warnings": [],
        "bundle": "b",
        "version": "0",
        "fps": 1.0,
    }
    cameras = [
        {
            "index": number,
            "source": "csi://0",
            "status": "live",
            "persons": {"total": 0},
            "frozen": False,
            "dark": False,
            "result_fps": 1.0,
            "now": {},
        }
        for number in range(2)
    ]
    one = publish(settings(tmp_path, broker.url), cameras=2).wait()
    listener = listen(broker)
    one.mqtt.counts(dict(state, cameras=cameras))
    wait_for(lambda: "jetmask/nano/camera/1" in retained(listener, "jetmask/"), "both cameras")
    one.mqtt.stop()
    two = publish(settings(tmp_path, broker.url)).wait()
    two.mqtt.counts(dict(state, cameras=cameras[:1]))
    wait_for(lambda: "jetmask/nano/camera/1" not in retained(listener, "jetmask/"), "one camera")
    two.mqtt.stop()
    publish(settings(tmp_path, broker.url, node="gate")).wait()  # and under another name nothing stays of the former
    wait_for(lambda: retained(listener, "jetmask/") == {"jetmask/gate/status"}, "the new name alone")


def test_a_kind_of_event_is_announced_before_it_is_sent(tmp_path, make_broker, listen, publish):
    broker = make_broker()
    one = publish(settings(tmp_path, broker.url)).wait()
    listener = listen(broker)
    one.mqtt.event({"kind": "never heard of"})
    listener.wait_events(1)
    order = [
        topic
        for topic, payload, _ in listener.messages
        if topic.endswith("/event") or b"never heard of" in payload and topic.endswith("/events/config")
    ]
    assert len(order) == 2 and order[1].endswith("/event")


def test_other_lines_after_a_reload_are_announced_and_the_former_taken_back(tmp_path, make_broker, listen, publish):
    broker = make_broker()
    one = publish(settings(tmp_path, broker.url)).wait()
    listener = listen(broker)
    one.mqtt.cameras = [{"lines": ["door"], "zones": []}]
    wait_for(lambda: listener.on("/camera0_line_door_in/config"), "the line")
    one.mqtt.cameras = [{"lines": [], "zones": ["queue"]}]
    wait_for(lambda: listener.on("/camera0_zone_queue/config"), "the zone")
    wait_for(lambda: listener.on("/camera0_line_door_in/config")[-1] == "", "the line taken back")


def test_counts_are_sent_on_change_and_not_faster_than_asked(tmp_path, make_broker, listen, publish):
    broker = make_broker()
    one = publish(settings(tmp_path, broker.url, counts_every_s=0.5)).wait()
    listener = listen(broker)
    state = {
        "board": None,
        "health": {"status": "ok", "reason": ""},
        "variant": {"name": "v"},
        "warnings": [],
        "bundle": "b",
        "version": "0",
        "fps": 1.0,
    }
    camera = {
        "index": 0,
        "source": "csi://0",
        "status": "live",
        "persons": {"total": 0},
        "frozen": False,
        "dark": False,
        "result_fps": 1.0,
    }
    began = time.monotonic()
    for number in range(150):
        one.mqtt.counts(dict(state, cameras=[dict(camera, now={"with_mask": number})]))
        time.sleep(0.01)
    changing = len(listener.on("/camera/0"))
    assert 1 <= changing <= (time.monotonic() - began) / 0.5 + 1
    wait_for(lambda: json.loads(listener.on("/camera/0")[-1])["now"]["with_mask"] == 149, "the newest")
    settled = len(listener.on("/camera/0"))
    time.sleep(1.5)
    assert len(listener.on("/camera/0")) == settled and len(listener.on("/nano/state")) == 1


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, names",
    [
        ("http://broker", "http://broker"),
        ("mqtt://", "mqtt://HOST"),
        ("mqtt://a:99999", "mqtt://HOST"),
        ("mqtt://broker/topic", "mqtt://broker/topic"),
        ("mqtt://nano:secret@broker", "--mqtt-config"),
    ],
)
def test_a_wrong_address_is_refused(tmp_path, url, names):
    with refused(UsageError, where="--mqtt", names=names) as caught:
        settings(tmp_path, url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "values, names",
    [
        ({"user_name": "x"}, ["user_name", "username?"]),
        ({"password": "x"}, ["password", "username"]),
        ({"password": 7, "username": "x"}, "password"),
        ({"spool_events": 7}, ["spool_events", "7", "100 to 10000000"]),
        ({"spool_events": "many"}, ["spool_events", "'many'"]),
        ({"counts_every_s": True}, ["counts_every_s", "True"]),
        ({"ca_file": "nowhere.pem"}, ["ca_file", "PEM"]),
        ({"key_file": "x"}, ["key_file", "cert_file"]),
        ({"protocol": "3.1"}, ["protocol", "'3.1'", "auto, 5, 3.1.1"]),
        ({"protocol": 5}, ["protocol", "5"]),
        ({"read_back": "no"}, ["read_back", "'no'", "true", "false"]),
        ({"read_back": 0}, ["read_back", "0", "true", "false"]),
    ],
)
def test_a_wrong_file_is_told(tmp_path, values, names):
    with refused(BadInput, where="mqtt.json", names=names):
        settings(tmp_path, "mqtts://broker", **values)


def test_addresses_and_names(tmp_path):
    one = settings(tmp_path, "mqtts://[::1]", node="Nano 1/a+b")
    assert (one.host, one.port, one.tls, one.broker) == ("::1", 8883, True, "mqtts://[::1]:8883")
    assert one.node == "Nano_1_a_b" and one.spool == str(tmp_path / "spool") and one.notes == []
    assert settings(tmp_path, "mqtt://broker:1885").port == 1885
    assert mqtt_settings.read(None) is None
    with pytest.raises(UsageError):
        mqtt_settings.read(None, "x")
    for prefix in ("", "a/", "/a", "a b", "a/+/b", "#", "$SYS"):
        with pytest.raises(UsageError):
            mqtt_settings.read("mqtt://a", prefix=prefix)


def test_what_the_log_should_say(tmp_path, publish):
    assert "unencrypted" in settings(tmp_path, "mqtt://broker", username="a", password="b").notes[0]
    assert settings(tmp_path, "mqtt://127.0.0.1", username="a", password="b").notes == []
    path = str(tmp_path / "mqtt.json")
    os.chmod(path, 0o644)
    read = mqtt_settings.read("mqtts://127.0.0.1:1", path)
    assert "chmod 600" in read.notes[0]
    one = publish(read)
    assert one.said[0] == read.notes[0]


def test_damaged_memory_of_the_device_is_made_anew(tmp_path, make_broker, publish):
    broker = make_broker()
    wish = settings(tmp_path, broker.url)
    one = publish(wish).wait()
    wait_for(lambda: os.path.exists(os.path.join(wish.spool, "device.json")), "it is remembered")
    one.mqtt.stop()
    with open(os.path.join(wish.spool, "device.json"), "w") as file:
        file.write("{")
    two = publish(wish).wait()
    assert two.mqtt.device.startswith("jetmask_") and two.mqtt.device != one.mqtt.device


def test_a_copied_card_is_another_device_and_takes_nothing_back(tmp_path, monkeypatch, make_broker, listen, publish):
    broker = make_broker()
    wish = settings(tmp_path, broker.url)
    monkeypatch.setattr(publisher, "_addresses", lambda: ["00:04:4b:00:00:01", "00:e0:4c:00:00:01"])
    one = publish(wish).wait()
    listener = listen(broker)
    announced = wait_for(lambda: retained(listener, "homeassistant/"), "what it announced")
    one.mqtt.stop()
    monkeypatch.setattr(publisher, "_addresses", lambda: ["00:04:4b:00:00:01", "00:e0:4c:00:00:02"])
    same = publish(wish).wait()  # another wireless stick
    assert same.mqtt.device == one.mqtt.device and same.mqtt.connects == 1
    same.mqtt.stop()
    monkeypatch.setattr(publisher, "_addresses", lambda: ["00:04:4b:00:00:07"])
    copy = publish(wish._replace(node="gate")).wait()
    assert copy.mqtt.device != one.mqtt.device and any("copied card" in text for text in copy.said)
    wait_for(lambda: any(copy.mqtt.device in topic for topic in retained(listener, "homeassistant/")), "the copy's own")
    assert announced <= retained(listener, "homeassistant/")
    copy.mqtt.stop()
    again = publish(wish._replace(node="gate")).wait()
    assert again.mqtt.device == copy.mqtt.device


def test_only_the_network_devices_of_the_machine_itself_are_known(tmp_path):
    for name, address, own, kind in (
        ("eth0", "00:04:4b:aa:bb:cc", True, 0),
        ("docker0", "02:42:00:00:00:01", False, 0),
        ("wlan0", "00:e0:4c:00:00:01", True, 0),
        ("odd", "00:00:00:00:00:00", True, 0),
        ("eth1", "4a:11:00:00:00:01", True, 1),
        ("eth2", "00:04:4b:00:00:09", True, 3),
    ):  # drawn, and set
        folder = tmp_path / "sys" / "class" / "net" / name
        folder.mkdir(parents=True)
        (folder / "address").write_text(address + "\n")
        (folder / "addr_assign_type").write_text(f"{kind}\n")
        if own:
            (folder / "device").mkdir()
    assert publisher._addresses(str(tmp_path)) == ["00:04:4b:aa:bb:cc", "00:e0:4c:00:00:01"]
    assert publisher._addresses(str(tmp_path / "nowhere")) == []


def test_the_temperature_is_that_which_slows_the_board_down(monkeypatch):
    """A Nano's AO sensor is some degrees hotter than its processors, and throttles nothing."""
    sent = {}
    monkeypatch.setattr(
        session.Session,
        "_publish",
        lambda self, topic, payload, qos, retain: sent.update({topic: json.loads(payload.decode())}),
    )
    import paho.mqtt.client

    settings = types.SimpleNamespace(prefix="jetmask", node="nano", username="", tls=False)
    owner = types.SimpleNamespace(
        cameras=[],
        settings=settings,
        boot="b",
        since="s",
        spool=types.SimpleNamespace(dropped={}),
        paho=paho.mqtt.client,
        device="jetmask_1f",
        standing=Standing("auto"),
    )
    state = {
        "cameras": [],
        "health": {"status": "ok", "reason": ""},
        "variant": {"name": "s"},
        "warnings": [],
        "bundle": "b",
        "version": "0",
        "fps": 1.0,
        "board": {"temperature_c": {"AO": 46, "CPU": 40, "GPU": 41}},
    }
    session.Session(owner)._send_counts(state, 0.0)
    assert sent["jetmask/nano/state"]["temperature_c"] == 41
    session.Session(owner)._send_counts(dict(state, board=None), 0.0)
    assert sent["jetmask/nano/state"]["temperature_c"] is None
