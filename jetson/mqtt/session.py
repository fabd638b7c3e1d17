"""One connection of jetson.mqtt.publisher to its broker: what is announced, sent, acknowledged and refused on it.

An event that a broker refuses is not lost: it and those after it stay in the spool, the reason is told, and it is tried
again now and then, by itself. MQTT 5 tells each refusal. MQTT 3.1.1 tells none: there we subscribe to our own status,
and send events only once it has come back.
"""

import json
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from jetson.monitor.board import hottest
from jetson.mqtt import homeassistant, reasons
from jetson.mqtt.link import Gone, Link, Will
from jetson.mqtt.spool import Spool

if TYPE_CHECKING:
    from typing import Protocol

    from jetson.mqtt.settings import Settings
    from jetson.mqtt.standing import Standing

    class Owner(Protocol):
        """What a session needs of jetson.mqtt.publisher.Mqtt."""

        paho: Any
        settings: Settings
        spool: Spool
        device: str
        boot: str
        since: str
        standing: Standing
        announced: List[str]
        cameras: List[homeassistant.Places]
        model: str
        classes: Sequence[str]
        newest: Optional[Dict[str, Any]]
        types: Set[str]
        say: Callable[[str], None]

        def stopped(self) -> bool: ...

        def remember(self, announced: List[str]) -> None: ...


WINDOW = 200  # events under way that the broker has not acknowledged yet
ACKNOWLEDGE_S = 60.0  # a broker that has not acknowledged an event for so long is left and asked anew
REFRESH_S = 60.0  # counts are sent again after this long even when nothing changed
REFUSED_S = 60.0  # what was refused is tried again after this long
READ_BACK_S = 10.0
_CONNECT_S = 10.0
FAREWELL_S = 0.7


class _Sent:
    """A message under way: `number`: in the spool, None: no event; `answer`: None until there is one."""

    __slots__ = ("topic", "number", "answer", "at")

    def __init__(self, topic: str, number: Optional[int]) -> None:
        self.topic = topic
        self.number = number
        self.answer: Optional[reasons.Answer] = None
        self.at = time.monotonic()


class Session:
    """One connection of `owner`, in its thread; paho calls back only from inside `loop`."""

    def __init__(self, owner: "Owner") -> None:
        self.owner = owner
        self.settings = owner.settings
        self.standing = owner.standing
        self.base = f"{self.settings.prefix}/{self.settings.node}"
        self._under_way: OrderedDict[int, _Sent] = OrderedDict()  # by paho's message id
        self._sent: Dict[str, Any] = {}  # topic -> (time, what counted as its content)
        self._known: Set[str] = set()
        self._cameras: Any = None  # as announced
        self._due = 0.0
        self._held_until = 0.0  # no event before
        self._probing = False  # one event alone, to see whether it is taken now
        self._echoed: Optional[bool] = None  # our own status has come back; None: nobody waits for it
        self._asked_at = 0.0
        self._link = Link(
            owner.paho,
            self.settings,
            owner.device,
            self.standing.version,
            Will(self.base + "/status", "offline", self.standing.qos, self.standing.retain),
            self._acknowledged,
            self._subscribed,
            self._heard,
        )

    @property
    def answered(self) -> bool:
        """Whether the broker has answered our CONNECT at all."""
        return self._link.answer is not None

    # -- what goes out ------------------------------------------------------------------------------------------------

    def _heard(self, message: Any) -> None:
        # A retained one may be of another day; what we publish now comes without that mark.
        if not message.retain and message.topic == self.base + "/status" and self._echoed is False:
            self._echoed = True
            self.standing.problems.pop("read back", None)

    def _subscribed(self, answer: reasons.Answer) -> None:
        if answer.refused and self._echoed is False:
            self._asked_at = time.monotonic() - READ_BACK_S  # it will not come back

    def _acknowledged(self, answer: reasons.Answer) -> None:
        if answer.number in self._under_way:
            self._under_way[answer.number].answer = answer

    def _loop(self, timeout_s: float) -> None:
        try:
            self._link.loop(timeout_s)
        finally:
            self._settle()

    def _publish(self, topic: str, payload: bytes, qos: int, retain: bool, number: Optional[int] = None) -> bool:
        """Hand a message over; False where it is larger than the broker takes."""
        limits = self._link.limits
        most = limits.packet_bytes
        if most and reasons.packet_bytes(topic, payload) > most:
            self._complain(topic, f"it takes packets of up to {most} bytes, and {len(payload)} were to be sent")
            return False
        qos = min(qos, limits.qos, 1)
        while qos and len(self._under_way) >= min(WINDOW, limits.window):
            if self.owner.stopped():
                raise Gone("the runner ended before the broker acknowledged all messages")
            self._loop(0.1)
        mid = self._link.publish(topic, payload, qos, retain and limits.retain)
        if qos:
            self._under_way[mid] = _Sent(topic, number)
        return True

    # -- what is acknowledged and what is refused ---------------------------------------------------------------------

    def _about(self, topic: str) -> str:
        """What a problem with `topic` is called: the many of Home Assistant are one."""
        prefix = self.settings.discovery
        return f"{prefix}/+/{self.owner.device}/#" if prefix and topic.startswith(prefix + "/") else topic

    def _complain(self, topic: str, text: str) -> None:
        about = self._about(topic)
        self.standing.problems[about] = f"the broker refuses {about}: {text}"

    def _settle(self) -> None:
        """Take the answers in order: what is acknowledged leaves the spool, what is refused stays there."""
        done = None
        for mid in list(self._under_way):
            sent = self._under_way[mid]
            if sent.answer is None:
                if sent.number is not None:
                    break
                continue
            del self._under_way[mid]
            if sent.answer.refused:
                self.standing.refused += 1
                self._complain(sent.topic, sent.answer.text)
            else:
                self.standing.problems.pop(self._about(sent.topic), None)
            if sent.number is None:
                continue
            if not sent.answer.refused:
                done, self._probing = sent.number, False
            elif sent.answer.code == reasons.PACKET_TOO_LARGE:
                self._acknowledge(done)
                done = None
                self.owner.spool.drop(sent.number)  # never taken, however often it is sent
            else:
                self._hold()
                break
        self._acknowledge(done)
        oldest = next(iter(self._under_way.values()), None)
        if oldest is not None and time.monotonic() - oldest.at > ACKNOWLEDGE_S:
            raise Gone(f"the broker has not acknowledged {oldest.topic} for {ACKNOWLEDGE_S:.0f} s")

    def _acknowledge(self, number: Optional[int]) -> None:
        if number is not None:
            self.owner.spool.acknowledge(number)

    def _hold(self) -> None:
        """Stop sending events for a while; they stay in the spool, from the first that was not taken."""
        self._held_until, self._probing = time.monotonic() + REFUSED_S, True
        for mid in [mid for mid, sent in self._under_way.items() if sent.number is not None]:
            del self._under_way[mid]
        self.owner.spool.rewind()

    def _ask_back(self) -> None:
        """MQTT 3.1.1: ask for our own status, before it is published, and wait for it with every event."""
        if self.standing.version < 5 and self.settings.read_back:
            self._echoed, self._asked_at = False, time.monotonic()
            self._link.subscribe(self.base + "/status")

    def _may_send(self, now: float) -> bool:
        if self._link.limits.qos < 1:
            self.standing.problems["qos"] = "the broker takes QoS 0 alone, which acknowledges nothing: no event is sent"
            return False
        if self._echoed is False and now - self._asked_at > READ_BACK_S:
            self.standing.problems["read back"] = (
                f"own messages on {self.base}/status are not received: the broker's access list may deny this user. "
                "Let it publish and subscribe there, or set read_back to false"
            )
            if now - self._asked_at > READ_BACK_S + REFUSED_S:
                self._ask_back()
                self._publish(self.base + "/status", b"online", 1, True)
        return self._echoed is not False and now >= self._held_until

    # -- the connection's life ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Connect, publish until the connection ends (Gone, OSError) or the owner stops."""
        owner, standing = self.owner, self.standing
        standing.problems.clear()
        try:
            self._link.connect()
            self._wait_for_answer()
            if not self._link.limits.retain:
                standing.problems["retain"] = (
                    "the broker keeps no retained messages: Home Assistant finds the cameras only while it listens"
                )
            self._ask_back()
            self._announce()
            owner.spool.rewind()
            standing.is_connected()
            owner.say(f"mqtt: connected to {self.settings.broker} (MQTT {'5' if standing.version == 5 else '3.1.1'})")
            told: Tuple[str, ...] = ()
            while not owner.stopped():
                self._step(0.1)
                problems = tuple(sorted(standing.problems.values()))
                for text in [one for one in problems if one not in told]:
                    owner.say(f"mqtt: {text}; {owner.spool.state()['waiting']} events wait")
                told = problems
            self._say_goodbye()
        finally:
            self._link.close()

    def _wait_for_answer(self) -> None:
        end = time.monotonic() + _CONNECT_S
        while self._link.answer is None:
            self._loop(0.1)
            if time.monotonic() > end or self.owner.stopped():
                raise Gone("the broker does not answer")

    def _announce(self) -> None:
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
            for end in ["/status", "/state"]
            + [
                f"/camera/{homeassistant.segment(places.get('name', ''), number)}"
                for number, places in enumerate(owner.cameras)
            ]
        ]
        for topic in owner.announced:
            if topic not in found and topic not in own:
                self._publish(topic, b"", 1, True)
        for topic, payload in found.items():
            self._publish(topic, payload, 1, True)
        owner.remember(sorted(found) + own)
        self._publish(self.base + "/status", b"online", 1, True)

    def _step(self, timeout_s: float) -> None:
        now = time.monotonic()
        if self._may_send(now):
            room = 1 if self._probing else min(WINDOW, self._link.limits.window)
            self._send_events(room - len(self._under_way))
        if self.owner.cameras is not self._cameras:  # a reload has brought other lines and zones
            self._announce()
        # Counts are worth nothing later: none are sent into a connection that does not take what was sent before.
        if now >= self._due and self.owner.newest is not None and self._link.idle():
            self._due = now + self.settings.counts_every_s
            self._send_counts(self.owner.newest, now)
        self._loop(timeout_s)

    def _send_events(self, room: int) -> None:
        for number, payload in self.owner.spool.read(room) if room > 0 else ():
            event = json.loads(payload.decode())
            if event["event_type"] not in self._known:
                self.owner.types.add(event["event_type"])
                self._announce()
            event["seq"] = number
            topic = self.base + "/event"
            if time.monotonic() < self._held_until:
                return  # one before it was refused meanwhile: all are read again from there
            if not self._publish(topic, json.dumps(event).encode(), 1, False, number):
                while self._under_way:  # those before it first: the spool lets go in order
                    self._loop(0.1)
                if time.monotonic() < self._held_until:
                    return
                self.owner.spool.drop(number)

    def _send_counts(self, state: Dict[str, Any], now: float) -> None:
        owner, board = self.owner, state["board"] or {}
        known = {homeassistant.segment(places.get("name", ""), number) for number, places in enumerate(owner.cameras)}
        for camera in state["cameras"]:
            name = homeassistant.segment(camera.get("name", ""), camera["index"])
            if name not in known:
                continue  # it was renamed or is gone since this state was put together
            value = {key: camera[key] for key in ("source", "status", "now", "persons", "frozen", "dark")}
            for kind in ("lines", "zones"):  # where they are does not change; only their counts are sent
                value[kind] = [
                    {key: field for key, field in place.items() if key != "points"} for place in camera.get(kind, ())
                ]
            self._send(f"camera/{name}", value, now, {"fps": camera["result_fps"], "since": owner.since})
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
        more = {
            "fps": state["fps"],
            "temperature_c": hottest(board.get("temperature_c") or {}),
            "power_mw": board.get("total_mw"),
            "boot": owner.boot,
            "since": owner.since,
        }
        self._send("state", value, now, more)

    def _send(self, name: str, value: Dict[str, Any], now: float, more: Dict[str, Any]) -> None:
        """`more` goes along, but its change alone is no reason to send."""
        at, before = self._sent.get(name, (None, None))
        if at is None or value != before or now - at >= REFRESH_S:
            self._sent[name] = (now, value)
            # The first with QoS 1, whose answer tells whether we may write there; the others are worth no answer.
            qos = 1 if at is None else 0
            self._publish(f"{self.base}/{name}", json.dumps(dict(value, **more)).encode(), qos, True)

    def _say_goodbye(self) -> None:
        end = time.monotonic() + FAREWELL_S
        while time.monotonic() < end:
            self._step(0.02)
            waiting = self.owner.spool.state()["waiting"] and self._may_send(time.monotonic())
            if not self._under_way and not waiting:
                break
        self._publish(self.base + "/status", b"offline", 1, True)
        self._link.part(lambda: time.monotonic() < end + 0.3)
