"""One connection of jetson.mqtt.publisher to its broker: what is announced, sent and acknowledged on it."""

import json
import time
from collections import OrderedDict
from typing import Any, Dict

from jetson.monitor.board import hottest
from jetson.mqtt import homeassistant

KEEPALIVE_S = 30
WINDOW = 200  # events under way that the broker has not acknowledged yet
ACKNOWLEDGE_S = 60.0  # a broker that has not acknowledged an event for so long is left and asked anew
REFRESH_S = 60.0  # counts are sent again after this long even when nothing changed
_CONNECT_S = 10.0
FAREWELL_S = 0.7


class Gone(Exception):
    """The connection to the broker ended, or did not come about."""


class Session:
    """One connection of `owner`, a jetson.mqtt.publisher.Mqtt, in its thread; paho calls back only from inside `loop`."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.settings = owner.settings
        self.base = f"{self.settings.prefix}/{self.settings.node}"
        self._answer: Any = None  # of the broker to our CONNECT
        self._ended = False
        self._under_way: OrderedDict = OrderedDict()  # message id -> [number in the spool, acknowledged, sent when]
        self._sent: Dict[str, Any] = {}  # topic -> (time, what counted as its content)
        self._known: set = set()
        self._cameras: Any = None  # as announced
        self._due = 0.0

    def _client(self) -> Any:
        paho, settings = self.owner.paho, self.settings
        words: Dict[str, Any] = {"client_id": self.owner.device, "clean_session": True}
        if hasattr(paho, "CallbackAPIVersion"):  # paho 2
            words["callback_api_version"] = paho.CallbackAPIVersion.VERSION2
        client = paho.Client(**words)
        if settings.username:
            client.username_pw_set(settings.username, settings.password)
        if settings.tls:
            client.tls_set_context(settings.context())
        client.max_inflight_messages_set(WINDOW + 100)
        client.will_set(self.base + "/status", "offline", 1, True)
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: setattr(self, "_ended", True)
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, client: Any, user: Any, flags: Any, code: Any, *_: Any) -> None:
        self._answer = code

    def _on_publish(self, client: Any, user: Any, mid: int, *_: Any) -> None:
        if mid not in self._under_way:
            return  # counts and announcements
        self._under_way[mid][1] = True

    def _acknowledge(self) -> None:
        done = None
        while self._under_way and next(iter(self._under_way.values()))[1]:
            done = self._under_way.popitem(last=False)[1][0]
        if done is not None:
            self.owner.spool.acknowledge(done)
        oldest = next(iter(self._under_way.values()), None)
        if oldest is not None and time.monotonic() - oldest[2] > ACKNOWLEDGE_S:
            raise Gone(f"the broker has not acknowledged an event for {ACKNOWLEDGE_S:.0f} s")

    def run(self) -> None:
        """Connect, publish until the connection ends (Gone, OSError) or the owner stops."""
        client = self._client()
        try:
            client.connect(self.settings.host, self.settings.port, KEEPALIVE_S)
            self._wait_for_answer(client)
            self._announce(client)
            self.owner.spool.rewind()
            self.owner.error, self.owner.connected = "", True
            self.owner.connects += 1
            self.owner.say(f"mqtt: connected to {self.settings.broker}")
            while not self.owner.stopping.is_set():
                self._step(client, 0.1)
            self._say_goodbye(client)
        finally:
            sock = client.socket()
            if sock is not None:
                sock.close()

    def _loop(self, client: Any, timeout_s: float) -> None:
        code = client.loop(timeout_s)
        self._acknowledge()
        refused = self._answer is not None and getattr(self._answer, "value", self._answer) != 0
        if refused:
            text = self._answer if hasattr(self._answer, "value") else self.owner.paho.connack_string(self._answer)
            raise Gone(f"the broker refuses: {text}")
        if code or self._ended:
            raise Gone(f"the connection is lost ({self.owner.paho.error_string(code) if code else 'closed'})")

    def _wait_for_answer(self, client: Any) -> None:
        end = time.monotonic() + _CONNECT_S
        while self._answer is None:
            self._loop(client, 0.1)
            if time.monotonic() > end or self.owner.stopping.is_set():
                raise Gone("the broker does not answer")

    def _publish(self, client: Any, topic: str, payload: bytes, qos: int, retain: bool) -> int:
        info = client.publish(topic, payload, qos, retain)
        if info.rc != 0:
            raise Gone(f"the connection is lost ({self.owner.paho.error_string(info.rc)})")
        return info.mid

    def _announce(self, client: Any) -> None:
        """Tell Home Assistant of every entity, take back those that are no more, and say that we are here."""
        owner = self.owner
        self._known = set(owner.types)
        self._cameras = owner.cameras
        found: Dict[str, bytes] = {}
        if self.settings.discovery:
            found = homeassistant.configs(
                self.settings.node,
                owner.device,
                self.base,
                self.settings.discovery,
                owner.cameras,
                owner.model,
                self._known,
                owner.classes,
            )
        # Counts are retained, too: those of a camera that is no more, or under a former name, would stay for ever.
        own = [
            self.base + end
            for end in ["/status", "/state"] + [f"/camera/{number}" for number in range(len(owner.cameras))]
        ]
        for topic in owner.announced:
            if topic not in found and topic not in own:
                self._publish(client, topic, b"", 1, True)
        for topic, payload in found.items():
            self._publish(client, topic, payload, 1, True)
        owner.remember(sorted(found) + own)
        self._publish(client, self.base + "/status", b"online", 1, True)

    def _step(self, client: Any, timeout_s: float) -> None:
        for number, payload in self.owner.spool.read(WINDOW - len(self._under_way)):
            event = json.loads(payload.decode())
            if event["event_type"] not in self._known:
                self.owner.types.add(event["event_type"])
                self._announce(client)
            event["seq"] = number
            mid = self._publish(client, self.base + "/event", json.dumps(event).encode(), 1, False)
            self._under_way[mid] = [number, False, time.monotonic()]
        if self.owner.cameras is not self._cameras:  # a reload has brought other lines and zones
            self._announce(client)
        now = time.monotonic()
        # Counts are worth nothing later: none are sent into a connection that does not take what was sent before.
        if now >= self._due and self.owner.newest is not None and not client.want_write():
            self._due = now + self.settings.counts_every_s
            self._send_counts(client, self.owner.newest, now)
        self._loop(client, timeout_s)

    def _send_counts(self, client: Any, state: Dict[str, Any], now: float) -> None:
        owner, board = self.owner, state["board"] or {}
        for camera in state["cameras"]:
            value = {key: camera[key] for key in ("source", "status", "now", "persons", "frozen", "dark")}
            for kind in ("lines", "zones"):  # where they are does not change; only their counts are sent
                value[kind] = [
                    {key: field for key, field in place.items() if key != "points"} for place in camera.get(kind, ())
                ]
            self._send(
                client,
                f"camera/{camera['index']}",
                value,
                now,
                {"fps": camera["result_fps"], "since": owner.since},
            )
        value = {
            "status": state["health"]["status"],
            "reason": state["health"]["reason"],
            "variant": state["variant"]["name"],
            "warnings": state["warnings"],
            "throttled": bool(board.get("throttled")),
            "bundle": state["bundle"],
            "version": state["version"],
            "events_dropped": sum(owner.spool.dropped.values()),
        }
        self._send(
            client,
            "state",
            value,
            now,
            {
                "fps": state["fps"],
                "temperature_c": hottest(board.get("temperature_c") or {}),
                "power_mw": board.get("total_mw"),
                "boot": owner.boot,
                "since": owner.since,
            },
        )

    def _send(self, client: Any, name: str, value: Dict[str, Any], now: float, more: Dict[str, Any]) -> None:
        """`more` goes along, but its change alone is no reason to send."""
        at, before = self._sent.get(name, (-1e9, None))
        if value != before or now - at >= REFRESH_S:
            self._sent[name] = (now, value)
            self._publish(client, f"{self.base}/{name}", json.dumps(dict(value, **more)).encode(), 0, True)

    def _say_goodbye(self, client: Any) -> None:
        end = time.monotonic() + FAREWELL_S
        while time.monotonic() < end:
            self._step(client, 0.02)
            if not self._under_way and not self.owner.spool.state()["waiting"]:
                break
        self._publish(client, self.base + "/status", b"offline", 1, True)
        client.disconnect()
        while not self._ended and time.monotonic() < end + 0.3:
            client.loop(0.05)
