"""A webhook: each alert as one POST of JSON, signed where a key is given; `picture: true` puts the JPEG into it.

Headers: Idempotency-Key, the same at each attempt; with a key X-Jetmask-Timestamp (Unix seconds) and
X-Jetmask-Signature, "sha256=" and the HMAC-SHA256 of timestamp, "." and body in hex. Whoever checks it refuses a
timestamp that is minutes old, so that nobody can send a recorded alert again.
"""

import base64
import hashlib
import hmac
import json
import re
import time
from typing import Any, Callable, Dict, Optional, Sequence

from jetson.alerts.address import Url, post, url_of
from jetson.alerts.body import KEYS
from jetson.alerts.fields import Fields, did_you_mean
from jetson.alerts.receiver import Message, Receiver
from jetson.alerts.secret import Secret
from jetson.errors import BadInput

_PLACE = re.compile(r"\{([a-z_]{1,30})\}")


class Webhook(Receiver):
    """`template`: JSON in whose texts {key} stands for the alert's value of that key; None: the whole alert."""

    kind = "webhook"

    def __init__(
        self,
        name: str,
        url: Url,
        key: Optional[Secret] = None,
        template: Any = None,
        timeout_s: float = 10.0,
        clock: Callable[[], float] = time.time,
        picture: bool = False,
    ) -> None:
        super().__init__(name, timeout_s, picture)
        self._url = url
        self._key = key
        self._template = template
        self._clock = clock
        self.secrets = (url.secret, key)

    @classmethod
    def of(cls, name: str, fields: Fields) -> "Webhook":
        """From its settings: url, hmac_key, template, picture, ca_file, timeout."""
        template = fields.get("template")
        if template is not None:
            check(template, fields.at("template"))
        timeout_s = fields.seconds("timeout", 10.0, 0.1, 120)
        url, key = url_of(fields), fields.secret("hmac_key")
        return cls(name, url, key, template, timeout_s, picture=fields.flag("picture"))

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
        told = message.body
        if message.picture is not None:
            told = dict(told, picture_base64=base64.b64encode(message.picture).decode())
        body = json.dumps(told if self._template is None else filled(self._template, told)).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "jetmask",
            "Idempotency-Key": message.key,
        }
        if self._key is not None:
            headers.update(signed(self._key.read(), body, int(self._clock())))
        post(self._url, None, body, headers, self.timeout_s)


def signed(key: str, body: bytes, at: int) -> Dict[str, str]:
    """The headers that prove who has sent `body`, and when."""
    digest = hmac.new(key.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Jetmask-Timestamp": str(at), "X-Jetmask-Signature": "sha256=" + digest}


def check(template: Any, where: str, depth: int = 0) -> None:
    """BadInput where a template names what an alert does not have."""
    if depth > 20:
        raise BadInput("the template is nested too deep", where, "20 levels at most")
    if isinstance(template, dict):
        for key, value in template.items():
            check(value, f"{where}.{key}", depth + 1)
    elif isinstance(template, list):
        for number, value in enumerate(template):
            check(value, f"{where}[{number}]", depth + 1)
    elif isinstance(template, str):
        for key in _PLACE.findall(template):
            if key not in KEYS:
                expected = "one of " + ", ".join("{" + one + "}" for one in KEYS)
                raise BadInput(f"an alert has no {key}", where, expected, did_you_mean(key, KEYS))
    elif template is not None and not isinstance(template, (bool, int, float)):
        raise BadInput("not JSON", where, "texts, numbers, true, false, lists and mappings")


def filled(template: Any, body: Dict[str, Any]) -> Any:
    """The template with the alert's values.

    >>> filled({"text": "at {camera}", "s": "{seconds}"}, {"camera": "gate", "seconds": 5.0})
    {'text': 'at gate', 's': 5.0}
    """
    if isinstance(template, dict):
        return {key: filled(value, body) for key, value in template.items()}
    if isinstance(template, list):
        return [filled(value, body) for value in template]
    if not isinstance(template, str):
        return template
    whole = _PLACE.match(template)
    if whole is not None and whole.group() == template and whole.group(1) in KEYS:
        return body.get(whole.group(1))  # a number stays one

    def value(match: Any) -> str:
        found = body.get(match.group(1))
        return match.group() if match.group(1) not in KEYS else "" if found is None else str(found)

    return _PLACE.sub(value, template)
