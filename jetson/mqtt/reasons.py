"""What a broker says in a packet and paho does not hand on in every version: reasons and limits (MQTT 5.0, OASIS).

paho 1.6.1 tells no reason of a PUBACK, and neither 1.6.1 nor 2.1 that of a DISCONNECT without properties.
"""

import struct
from typing import Dict, NamedTuple, Tuple, Union

CONNACK, PUBACK, SUBACK, DISCONNECT = 0x20, 0x40, 0x90, 0xE0
KINDS = (CONNACK, PUBACK, SUBACK, DISCONNECT)
FIRST_ERROR = 0x80
UNSUPPORTED_VERSION = 0x84
PACKET_TOO_LARGE = 0x95
RETAIN_NOT_SUPPORTED = 0x9A
QOS_NOT_SUPPORTED = 0x9B

# Section 2.4.
_WORDS = {
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    UNSUPPORTED_VERSION: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep alive timeout",
    0x8E: "another client with our identifier has connected",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x93: "receive maximum exceeded",
    0x94: "topic alias invalid",
    PACKET_TOO_LARGE: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format invalid",
    RETAIN_NOT_SUPPORTED: "retained messages not supported",
    QOS_NOT_SUPPORTED: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9F: "connection rate exceeded",
}
# MQTT 3.1.1, table 3.1, as the codes above.
_OLD = {1: UNSUPPORTED_VERSION, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
# Bytes of each property's value, section 2.2.2.2; "text": two bytes of length and as many more.
_SIZES: Dict[int, Union[int, str]] = {
    0x01: 1, 0x02: 4, 0x03: "text", 0x08: "text", 0x09: "text", 0x11: 4, 0x12: "text", 0x13: 2, 0x15: "text",
    0x16: "text", 0x17: 1, 0x18: 4, 0x19: 1, 0x1A: "text", 0x1C: "text", 0x1F: "text", 0x21: 2, 0x22: 2, 0x23: 2,
    0x24: 1, 0x25: 1, 0x26: "pair", 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip


class Limits(NamedTuple):
    """What a broker takes: `window`: QoS 1 messages under way, `packet_bytes`: 0: any, `qos`: the highest."""

    window: int = 65535
    packet_bytes: int = 0
    qos: int = 2
    retain: bool = True


class Answer(NamedTuple):
    """`code`: 0 or one under 0x80 is a success; `number`: which message it is about; `limits`: of a CONNACK."""

    code: int
    text: str = ""
    number: int = 0
    limits: Limits = Limits()

    @property
    def refused(self) -> bool:
        """Whether this is a no."""
        return self.code >= FIRST_ERROR


def read(kind: int, body: bytes, version: int) -> Answer:
    """The answer in a CONNACK, PUBACK, SUBACK or DISCONNECT (`kind`); `version` 5, or 4 for 3.1.1.

    A packet that is cut off or of another shape is read as far as it goes; ValueError when it has not even its number.
    """
    at = {CONNACK: 1, PUBACK: 2, SUBACK: 2, DISCONNECT: 0}[kind]
    if len(body) < at:
        raise ValueError(f"a packet of {len(body)} bytes")
    number = struct.unpack(">H", body[:2])[0] if kind in (PUBACK, SUBACK) else 0
    if version < 5 or (kind == CONNACK and len(body) == 2):  # a broker of 3.1.1 answers so to a CONNECT of 5
        code = body[at] if len(body) > at else 0
        if kind == CONNACK:
            # Taken in, but by a broker that has not understood what was asked.
            code = _OLD.get(code, FIRST_ERROR) if code else 0 if version < 5 else UNSUPPORTED_VERSION
        return Answer(code, words(code), number)
    if kind == SUBACK:
        _, at = _properties(body, at)
        code = max(body[at:], default=0)
        return Answer(code, words(code), number)
    code = body[at] if len(body) > at else 0
    found, _ = _properties(body, at + 1)
    said = found.get(0x1F, b"")
    text = words(code) + (f" ({said.decode('utf-8', 'replace')[:200]})" if isinstance(said, bytes) and said else "")
    return Answer(code, text, number, _limits(found) if kind == CONNACK else Limits())


def words(code: int) -> str:
    """A reason code in plain English.

    >>> words(0x87)
    'not authorized'
    """
    return _WORDS.get(code, f"reason {code}")


def packet_bytes(topic: str, payload: bytes) -> int:
    """How large the packet is that publishes this with QoS 1 in MQTT 5."""
    rest = 2 + len(topic.encode()) + 2 + 1 + len(payload)
    return 1 + (1 if rest < 128 else 2 if rest < 16384 else 3 if rest < 2097152 else 4) + rest


def _limits(found: Dict[int, Union[int, bytes]]) -> Limits:
    def number(key: int, usual: int) -> int:
        value = found.get(key, usual)
        return value if isinstance(value, int) else usual

    return Limits(max(1, number(0x21, 65535)), number(0x27, 0), number(0x24, 2), number(0x25, 1) != 0)


def _properties(body: bytes, at: int) -> Tuple[Dict[int, Union[int, bytes]], int]:
    """{identifier: number or text} of the properties at `at`, and where they end."""
    found: Dict[int, Union[int, bytes]] = {}
    size, shift = 0, 0
    while at < len(body) and shift < 28:
        byte = body[at]
        at, size, shift = at + 1, size | (byte & 127) << shift, shift + 7
        if byte < 128:
            break
    end = min(at + size, len(body))
    while at < end:
        key = body[at]
        how = _SIZES.get(key)
        at += 1
        if isinstance(how, int):
            found[key] = int.from_bytes(body[at : at + how], "big")
            at += how
        elif how is not None:
            for _ in range(2 if how == "pair" else 1):
                length = int.from_bytes(body[at : at + 2], "big")
                found[key] = body[at + 2 : min(at + 2 + length, end)]
                at += 2 + length
        else:
            break  # of a later version: what follows cannot be read
    return found, end
