"""An MQTT broker: each alert to one topic with QoS 1, on a connection of its own, since alerts are rare."""

import json
import secrets
import ssl
import time
from typing import List, Optional
from urllib.parse import urlsplit

from jetson.alerts.fields import Fields
from jetson.alerts.receiver import Failed, Message, Receiver, check_ca, context
from jetson.alerts.secret import Secret
from jetson.errors import BadInput
from jetson.mqtt import reasons
from jetson.mqtt.link import Gone, Link
from jetson.mqtt.publisher import load_paho

_FORM = "mqtt://HOST or mqtts://HOST, with :PORT where it is not 1883 or 8883"


class Broker(Receiver):
    """MQTT 5 first, since it tells refusals; 3.1.1 where the broker knows no other. Has what Link needs of settings."""

    kind = "mqtt"

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        tls: bool,
        topic: str,
        username: str = "",
        secret: Optional[Secret] = None,
        ca_file: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        super().__init__(name, timeout_s)
        self.host = host
        self.port = port
        self.tls = tls
        self.username = username
        self._secret = secret
        self._topic = topic
        self._ca_file = ca_file
        self._version = 5
        self.secrets = (secret,)

    @classmethod
    def of(cls, name: str, fields: Fields) -> "Broker":
        """From its settings: url, topic, username, password, ca_file, timeout."""
        try:
            parts = urlsplit(fields.text("url", expected=_FORM))
            port = parts.port
        except ValueError:
            raise BadInput("not a broker's address", fields.at("url"), _FORM) from None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise BadInput("not a broker's address", fields.at("url"), _FORM)
        if parts.username is not None or parts.password is not None:
            raise BadInput("a name or password in the address", fields.at("url"), _FORM, "give username and password")
        topic = fields.text("topic", "jetmask/alerts", "a topic")
        if not topic or any(letter in topic for letter in "+#$\0") or len(topic) > 200:
            raise BadInput(f"not a topic: {topic!r:.60}", fields.at("topic"), "names with / between them")
        tls = parts.scheme == "mqtts"
        username, secret = fields.text("username", ""), fields.secret("password")
        if secret is not None and not username:
            raise BadInput("a password without a username", fields.where, "both")
        return cls(
            name,
            parts.hostname,
            port or (8883 if tls else 1883),
            tls,
            topic,
            username,
            secret,
            fields.path("ca_file"),
            fields.seconds("timeout", 10.0, 0.1, 120),
        )

    @property
    def place(self) -> str:
        """The broker."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"

    def prepare(self, where: str) -> None:
        """See Receiver."""
        super().prepare(where)
        load_paho()
        check_ca(self._ca_file, where)

    @property
    def password(self) -> str:
        """For Link."""
        return self._secret.read() if self._secret is not None else ""

    def context(self) -> ssl.SSLContext:
        """For Link."""
        return context(self._ca_file)

    def send(self, message: Message) -> None:
        """Deliver it."""
        try:
            self._publish(json.dumps(message.body).encode())
        except Gone as error:
            silent = "refuses" not in str(error)
            if self._version == 5 and (error.code == reasons.UNSUPPORTED_VERSION or silent):
                self._version = 4  # an old broker answers so to MQTT 5, or hangs up without a word
            else:
                self._version = 5
            raise Failed(str(error)) from error

    def _publish(self, payload: bytes) -> None:
        answers: List[reasons.Answer] = []
        link = Link(
            load_paho(),
            self,
            "jetmask_alert_" + secrets.token_hex(4),
            self._version,
            None,
            answers.append,
            lambda answer: None,
            lambda message: None,
        )
        end = time.monotonic() + self.timeout_s
        try:
            link.connect()
            while link.answer is None:
                self._turn(link, end)
            link.publish(self._topic, payload, 1, False)
            while not answers:
                self._turn(link, end)
            if answers[0].refused:
                raise Failed(f"the broker refuses: {answers[0].text}")
            link.part(lambda: time.monotonic() < min(end, time.monotonic() + 1.0))
        finally:
            link.close()

    def _turn(self, link: Link, end: float) -> None:
        if time.monotonic() > end:
            raise Failed("no answer in time")
        link.loop(0.1)
