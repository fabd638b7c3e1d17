"""A paho client, 1.6.1 or 2.x, for one connection: what the broker answers, in one form, whatever the protocol."""

import ssl
from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple, Optional

from jetson.mqtt import reasons

if TYPE_CHECKING:
    from typing import Protocol

    class Account(Protocol):
        """What a link needs to know of its broker (jetson.mqtt.settings.Settings, jetson.alerts.broker.Broker)."""

        @property
        def host(self) -> str: ...
        @property
        def port(self) -> int: ...
        @property
        def tls(self) -> bool: ...
        @property
        def username(self) -> str: ...
        @property
        def password(self) -> str: ...
        def context(self) -> ssl.SSLContext: ...


KEEPALIVE_S = 30


class Gone(Exception):
    """The connection to the broker ended, or did not come about; `code`: the broker's reason, 0: none."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Will(NamedTuple):
    """What the broker publishes when we are gone."""

    topic: str
    payload: str
    qos: int
    retain: bool


class Link:
    """`acknowledged(answer)` gets each PUBACK, `subscribed(answer)` each SUBACK, `heard(message)` what comes to us; all
    are called from inside `loop`. `answer`: the broker's to our CONNECT; `limits`: what it takes.
    """

    def __init__(
        self,
        paho: Any,
        settings: "Account",
        name: str,
        version: int,
        will: Optional[Will],
        acknowledged: Callable[[reasons.Answer], None],
        subscribed: Callable[[reasons.Answer], None],
        heard: Callable[[Any], None],
    ) -> None:
        self.answer: Optional[reasons.Answer] = None
        self.limits = reasons.Limits()
        self.ended = False
        self._parting: Optional[reasons.Answer] = None  # the broker's reason to end the connection
        self._paho = paho
        self._settings = settings
        self._version = version
        self._acknowledged = acknowledged
        self._subscribed = subscribed
        words: Dict[str, Any] = {"client_id": name, "protocol": version}
        if version < 5:
            words["clean_session"] = True
        if hasattr(paho, "CallbackAPIVersion"):  # paho 2
            words["callback_api_version"] = paho.CallbackAPIVersion.VERSION2
        client = self._client = paho.Client(**words)
        if settings.username:
            client.username_pw_set(settings.username, settings.password)
        if settings.tls:
            client.tls_set_context(settings.context())
        client.max_inflight_messages_set(0)  # the session counts them
        if will is not None:
            client.will_set(*will)
        client.on_disconnect = self._on_disconnect
        client.on_message = lambda client, user, message: heard(message)
        handle = client._packet_handle

        def look_first() -> Any:
            packet = client._in_packet
            kind = packet["command"] & 0xF0
            if kind in reasons.KINDS:
                self._take(kind, reasons.read(kind, bytes(packet["packet"]), version))
            return handle()

        client._packet_handle = look_first

    def _on_disconnect(self, *_: Any) -> None:
        self.ended = True

    def _take(self, kind: int, answer: reasons.Answer) -> None:
        if kind == reasons.CONNACK:
            self.answer, self.limits = answer, answer.limits
        elif kind == reasons.DISCONNECT:
            self._parting = answer
        elif kind == reasons.PUBACK:
            self._acknowledged(answer)
        else:
            self._subscribed(answer)

    def connect(self) -> None:
        """Reach the broker; its answer comes in `loop`. OSError."""
        words = {"clean_start": True} if self._version == 5 else {}
        self._client.connect(self._settings.host, self._settings.port, KEEPALIVE_S, **words)

    def loop(self, timeout_s: float) -> None:
        """Send and receive what there is; Gone when the connection is over."""
        try:
            code = self._client.loop(timeout_s)
        except Exception as error:  # paho gives up on packets that it does not know
            told = self._parting or self.answer
            if told is None or not told.refused:
                raise Gone(f"the connection is lost ({error})") from error
            code = 0
        if self.answer is not None and self.answer.refused:
            raise Gone(f"the broker refuses: {self.answer.text}", self.answer.code)
        if self._parting is not None and self._parting.refused:
            raise Gone(f"the broker has ended the connection: {self._parting.text}", self._parting.code)
        if code or self.ended:
            raise Gone(f"the connection is lost ({self._paho.error_string(code) if code else 'closed'})")

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> int:
        """Hand a message over; its number. Gone."""
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc != 0:
            raise Gone(f"the connection is lost ({self._paho.error_string(info.rc)})")
        return int(info.mid)

    def subscribe(self, topic: str) -> None:
        """Ask for what is published on `topic`."""
        self._client.subscribe(topic, 1)

    def idle(self) -> bool:
        """Whether everything is handed to the network."""
        return not self._client.want_write()

    def part(self, patience: Callable[[], bool]) -> None:
        """Say goodbye, and let it go out while there is `patience()`."""
        self._client.disconnect()
        while not self.ended and patience():
            self._client.loop(0.05)

    def close(self) -> None:
        """Let go of the socket."""
        sock = self._client.socket()
        if sock is not None:
            sock.close()
