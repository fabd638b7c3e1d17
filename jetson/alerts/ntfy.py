"""ntfy (https://docs.ntfy.sh/publish/): a message to a topic, with the picture where it is asked for."""

import email.header
import json
from typing import Dict, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from jetson.alerts.address import Url, post, url_of
from jetson.alerts.body import title
from jetson.alerts.fields import Fields
from jetson.alerts.receiver import Message, Receiver
from jetson.alerts.secret import Secret
from jetson.errors import BadInput

PRIORITIES = ("min", "low", "default", "high", "max")


class Ntfy(Receiver):
    """`url`: the topic's, as https://ntfy.sh/TOPIC; where there is no access control the topic is a secret itself."""

    kind = "ntfy"

    def __init__(
        self,
        name: str,
        url: Url,
        token: Optional[Secret] = None,
        priority: str = "high",
        picture: bool = False,
        timeout_s: float = 10.0,
    ) -> None:
        super().__init__(name, timeout_s, picture)
        self._url = url
        self._token = token
        self._priority = priority
        self.secrets = (url.secret, token)

    @classmethod
    def of(cls, name: str, fields: Fields) -> "Ntfy":
        """From its settings: url, token, priority, picture, ca_file, timeout."""
        url = url_of(fields)
        if url.secret is None and not _topic(url.text)[1]:
            raise BadInput("no topic in the address", fields.at("url"), "https://HOST/TOPIC")
        return cls(
            name,
            url,
            fields.secret("token"),
            fields.choice("priority", PRIORITIES, "high"),
            fields.flag("picture"),
            fields.seconds("timeout", 10.0, 0.1, 120),
        )

    @property
    def place(self) -> str:
        """Scheme, host and port of its address."""
        return self._url.place

    def prepare(self, where: str) -> None:
        """See Receiver."""
        super().prepare(where)
        self._url.prepare(where)

    def warnings(self) -> Sequence[str]:
        """See Receiver."""
        said = self._url.warning()
        return [*super().warnings(), *([said] if said else [])]

    def send(self, message: Message) -> None:
        """Deliver it."""
        body = message.body
        headers: Dict[str, str] = {"User-Agent": "jetmask"}
        if self._token is not None:
            headers["Authorization"] = "Bearer " + self._token.read()
        link = next((body[key] for key in ("clip_url", "picture_url") if "://" in (body.get(key) or "")), None)
        if message.picture is None:
            folder, topic = _topic(self._url.read())
            level = 1 + PRIORITIES.index(self._priority)
            value = {"topic": topic, "title": title(body), "message": body["text"], "priority": level}
            if link is not None:
                value["click"] = link
            headers["Content-Type"] = "application/json"
            post(self._url, folder, json.dumps(dict(value, tags=["mask"])).encode(), headers, self.timeout_s)
            return
        headers.update(
            {"Title": _ascii(title(body)), "Message": _ascii(body["text"]), "Priority": self._priority}, Tags="mask"
        )
        headers["Filename"] = "alert.jpg"
        if link is not None:
            headers["Click"] = link
        post(self._url, None, message.picture, headers, self.timeout_s)


def _topic(url: str) -> Tuple[str, str]:
    folder, _, topic = urlsplit(url).path.rpartition("/")
    return folder + "/", topic


def _ascii(text: str) -> str:
    """A header's value; other letters as RFC 2047 has it, which ntfy reads."""
    return (
        text
        if all(ord(letter) < 128 for letter in text)
        else email.header.Header(text, "utf-8", maxlinelen=100000).encode()
    )
