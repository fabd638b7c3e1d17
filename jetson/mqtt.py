"""Counts and events over MQTT, with Home Assistant's discovery; a broker that is away costs no event up to the limit.

Topics, under <prefix>/<node>:
    status        retained: online, or offline (also by the last will, when the connection breaks)
    event         QoS 1, each event of the journal as JSON; `seq` counts up by one over all restarts, `boot` is this
                  run: a step of more than one is what was dropped, a (boot, seq) seen before is a repetition
    camera/<i>    retained, the newest counts; at most once in `counts_every_s`, and only when something changed
    state         retained, the same for the whole device
An event passes through a spool on the disk (jetson.spool) and leaves it when the broker has acknowledged it. The
inferring thread only appends to a list; connecting and publishing have a thread of their own, the disk another.
"""

import json
import os
import random
import secrets
import ssl
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional

from jetson import files, homeassistant
from jetson.errors import DeviceMismatch, JetmaskError
from jetson.journal import stamp
from jetson.mqtt_settings import Settings
from jetson.spool import Spool

KEEPALIVE_S = 30
WINDOW = 200  # events under way that the broker has not acknowledged yet
REFRESH_S = 60.0  # counts are sent again after this long even when nothing changed
_CONNECT_S = 10.0
_FAREWELL_S = 0.7
_LONGEST_WAIT_S = 15.0


def _paho() -> Any:
    try:
        import paho.mqtt.client as paho
    except ImportError:
        raise DeviceMismatch("--mqtt needs the Python package paho-mqtt, which is not here", None, None,
                             "python3 -m pip install 'paho-mqtt>=1.6,<3'")
    return paho


class Gone(Exception):
    """The connection to the broker ended, or did not come about."""


class Mqtt:
    """Publishes for one runner. `say`: writes a line to the log. JetmaskError when paho or the spool is not usable."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._paho = _paho()
        self.settings = settings
        self._say = say
        self.boot = secrets.token_hex(4)
        self._since = stamp(time.time())
        self.spool = Spool(settings.spool, settings.spool_events, settings.spool_mb << 20)
        self._remembered = self.spool.folder + "/device.json"
        self._load_device()
        self.connected = False
        self.error = "not connected yet"
        self.connects = 0
        self._cameras: List[homeassistant.Places] = []
        self._model = ""
        self._newest: Optional[Dict[str, Any]] = None
        self._types = set(homeassistant.EVENT_TYPES)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def _load_device(self) -> None:
        """The id under which brokers and Home Assistant know this device, made once; and what was announced."""
        try:
            kept = files.read_json(self._remembered)
            self.device, self._announced = str(kept["device"]), [str(topic) for topic in kept["announced"]]
        except Exception:  # not there yet, or damaged
            self.device, self._announced = "jetmask_" + secrets.token_hex(6), []

    def start(self, cameras: List[homeassistant.Places], model: str = "") -> "Mqtt":
        """Begin to connect. `cameras`: the names of each one's lines and zones; `model`: the board's."""
        self._cameras, self._model = cameras, model
        for note in self.settings.notes:
            self._say(note)
        self.spool.start()
        self._thread.start()
        return self

    # -- called by others; none of these waits ----------------------------------------------------------------------

    def event(self, event: Dict[str, Any]) -> None:
        """Publish an event of the journal, now or when the broker is back."""
        # event_type: the key that Home Assistant reads.
        body = dict(event, event_type=event["kind"], boot=self.boot, device=self.device)
        self.spool.offer(json.dumps(body).encode())

    def counts(self, state: Dict[str, Any]) -> None:
        """The newest state (jetson.status); what came before and is not sent yet is forgotten."""
        self._newest = state

    def state(self) -> Dict[str, Any]:
        """For the page, /api/state and /metrics: the spool's state, and {broker, connected, error, connects, node}."""
        return dict(self.spool.state(), broker=self.settings.broker, node=self.settings.node, boot=self.boot,
                    connected=self.connected, error=self.error, connects=self.connects,
                    spool_error=self.spool.error)

    def warnings(self) -> List[str]:
        """What an operator should look at, in words."""
        found = []
        if not self.connected:
            found.append("MQTT: no connection to {}: {}".format(self.settings.broker, self.error))
        if self.spool.error:
            found.append("MQTT: " + self.spool.error)
        return found

    def stop(self) -> None:
        """Send what can still be sent, say goodbye, close the spool."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_FAREWELL_S + 0.5)
        self.spool.close()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wait, told, connects = 0.5, "", 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                Session(self).run()
            except Exception as error:  # whatever happens to a connection: the next one is tried
                self.error = _words(error)
            self.connected = False
            if self._stop.is_set():
                return
            if self.error != told or self.connects != connects:
                self._say("mqtt: {}: {}; events are kept meanwhile".format(self.settings.broker, self.error))
            told, connects = self.error, self.connects
            if time.monotonic() - began > 30.0:
                wait = 0.5
            # Spread, so that a broker that comes back is not met by all devices at once.
            self._stop.wait(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, _LONGEST_WAIT_S)

    def remember(self, announced: List[str]) -> None:
        """Keep what was announced, so that it can be taken back when a camera is no longer there."""
        if announced == self._announced and os.path.exists(self._remembered):
            return  # a broker that comes and goes must not wear out the flash
        self._announced = announced
        try:
            files.write_json(self._remembered, {"device": self.device, "announced": announced})
        except (OSError, JetmaskError) as error:  # a full disk: events can be published all the same
            self._say("mqtt: cannot remember what was announced: {}".format(error))


def _words(error: BaseException) -> str:
    # A wrong name is a CertificateError of its own in Python 3.6.
    if isinstance(error, ssl.CertificateError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "its certificate is not trusted ({}); name its CA as ca_file in --mqtt-config".format(error)
    return str(error) or type(error).__name__


class Session:
    """One connection. It lives in the thread of `Mqtt`; paho calls back only from inside `loop`."""

    def __init__(self, owner: Mqtt) -> None:
        self.owner = owner
        self.settings = owner.settings
        self.base = "{}/{}".format(self.settings.prefix, self.settings.node)
        self._answer: Any = None  # of the broker to our CONNECT
        self._ended = False
        self._under_way: OrderedDict = OrderedDict()  # message id -> [number in the spool, acknowledged]
        self._sent: Dict[str, Any] = {}  # topic -> (time, what counted as its content)
        self._known: set = set()
        self._due = 0.0

    def _client(self) -> Any:
        paho, settings = self.owner._paho, self.settings
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
            self.owner._say("mqtt: connected to {}".format(self.settings.broker))
            while not self.owner._stop.is_set():
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
            text = self._answer if hasattr(self._answer, "value") else self.owner._paho.connack_string(self._answer)
            raise Gone("the broker refuses: {}".format(text))
        if code or self._ended:
            raise Gone("the connection is lost ({})".format(self.owner._paho.error_string(code) if code else "closed"))

    def _wait_for_answer(self, client: Any) -> None:
        end = time.monotonic() + _CONNECT_S
        while self._answer is None:
            self._loop(client, 0.1)
            if time.monotonic() > end or self.owner._stop.is_set():
                raise Gone("the broker does not answer")

    def _publish(self, client: Any, topic: str, payload: bytes, qos: int, retain: bool) -> int:
        info = client.publish(topic, payload, qos, retain)
        if info.rc != 0:
            raise Gone("the connection is lost ({})".format(self.owner._paho.error_string(info.rc)))
        return info.mid

    def _announce(self, client: Any) -> None:
        """Tell Home Assistant of every entity, take back those that are no more, and say that we are here."""
        owner = self.owner
        self._known = set(owner._types)
        found: Dict[str, bytes] = {}
        if self.settings.discovery:
            found = homeassistant.configs(self.settings.node, owner.device, self.base, self.settings.discovery,
                                          owner._cameras, owner._model, self._known)
        for topic in owner._announced:
            if topic not in found:
                self._publish(client, topic, b"", 1, True)
        for topic, payload in found.items():
            self._publish(client, topic, payload, 1, True)
        owner.remember(sorted(found))
        self._publish(client, self.base + "/status", b"online", 1, True)

    def _step(self, client: Any, timeout_s: float) -> None:
        for number, payload in self.owner.spool.read(WINDOW - len(self._under_way)):
            event = json.loads(payload.decode())
            if event["event_type"] not in self._known:
                self.owner._types.add(event["event_type"])
                self._announce(client)
            event["seq"] = number
            mid = self._publish(client, self.base + "/event", json.dumps(event).encode(), 1, False)
            self._under_way[mid] = [number, False]
        now = time.monotonic()
        # Counts are worth nothing later: none are sent into a connection that does not take what was sent before.
        if now >= self._due and self.owner._newest is not None and not client.want_write():
            self._due = now + self.settings.counts_every_s
            self._send_counts(client, self.owner._newest, now)
        self._loop(client, timeout_s)

    def _send_counts(self, client: Any, state: Dict[str, Any], now: float) -> None:
        owner, board = self.owner, state["board"] or {}
        for camera in state["cameras"]:
            value = {key: camera[key] for key in ("source", "status", "now", "persons", "frozen", "dark")}
            for kind in ("lines", "zones"):  # where they are does not change; only their counts are sent
                value[kind] = [{key: field for key, field in place.items() if key != "points"}
                               for place in camera.get(kind, ())]
            self._send(client, "camera/{}".format(camera["index"]), value, now, {
                "fps": camera["result_fps"], "since": owner._since})
        temperatures = (board.get("temperature_c") or {}).values()
        value = {"status": state["health"]["status"], "reason": state["health"]["reason"],
                 "variant": state["variant"]["name"], "warnings": state["warnings"],
                 "throttled": bool(board.get("throttled")), "bundle": state["bundle"], "version": state["version"],
                 "events_dropped": sum(owner.spool.dropped.values())}
        self._send(client, "state", value, now, {
            "fps": state["fps"], "temperature_c": max(temperatures) if temperatures else None,
            "power_mw": board.get("total_mw"), "boot": owner.boot, "since": owner._since})

    def _send(self, client: Any, name: str, value: Dict[str, Any], now: float, more: Dict[str, Any]) -> None:
        """`more` goes along, but its change alone is no reason to send."""
        at, before = self._sent.get(name, (-1e9, None))
        if value != before or now - at >= REFRESH_S:
            self._sent[name] = (now, value)
            self._publish(client, "{}/{}".format(self.base, name), json.dumps(dict(value, **more)).encode(), 0, True)

    def _say_goodbye(self, client: Any) -> None:
        end = time.monotonic() + _FAREWELL_S
        while time.monotonic() < end:
            self._step(client, 0.02)
            if not self._under_way and not self.owner.spool.state()["waiting"]:
                break
        self._publish(client, self.base + "/status", b"offline", 1, True)
        client.disconnect()
        while not self._ended and time.monotonic() < end + 0.3:
            client.loop(0.05)
