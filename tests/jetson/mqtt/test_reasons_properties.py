"""What a broker may send, from any broker: read as far as it goes, never a crash."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.mqtt import reasons


@settings(deadline=None)
@given(st.sampled_from(reasons.KINDS), st.binary(max_size=80), st.sampled_from((4, 5)))
def test_any_packet_is_read_or_is_no_packet(kind, body, version):
    try:
        answer = reasons.read(kind, body, version)
    except ValueError:
        assert len(body) < 2
        return
    assert 0 <= answer.code <= 255 and answer.text and answer.limits.window > 0
    assert answer.refused == (answer.code >= 0x80)


def text(words):
    data = words.encode()
    return struct.pack(">H", len(data)) + data


@settings(deadline=None)
@given(
    st.integers(0, 255),
    st.integers(1, 65535),
    st.integers(1, 2**32 - 1),
    st.integers(0, 1),
    st.integers(0, 1),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
def test_limits_and_words_of_a_whole_answer(code, window, most, qos, retain, said):
    properties = (
        b"\x12" + text("given") + b"\x21" + struct.pack(">H", window) + b"\x26" + text("a") + text("b")
        + b"\x27" + struct.pack(">I", most) + bytes([0x24, qos, 0x25, retain]) + b"\x1f" + text(said)
    )  # fmt: skip
    answer = reasons.read(reasons.CONNACK, bytes([0, code, len(properties)]) + properties, 5)
    assert answer.limits == reasons.Limits(window, most, qos, bool(retain)) and answer.code == code
    assert said.strip() == "" or f"({said})" in answer.text


@pytest.mark.parametrize(
    "kind, body, version, code, number",
    [
        (reasons.PUBACK, b"\x00\x07", 5, 0, 7),
        (reasons.PUBACK, b"\x00\x07\x87", 5, 0x87, 7),
        (reasons.PUBACK, b"\x01\x00\x10\x00", 5, 0x10, 256),
        (reasons.PUBACK, b"\x00\x07", 4, 0, 7),
        (reasons.SUBACK, b"\x00\x02\x80", 4, 0x80, 2),
        (reasons.SUBACK, b"\x00\x02\x00\x87", 5, 0x87, 2),
        (reasons.SUBACK, b"\x00\x02\x00\x01", 5, 1, 2),
        (reasons.CONNACK, b"\x00\x05", 4, 0x87, 0),
        (reasons.CONNACK, b"\x00\x00", 4, 0, 0),
        (reasons.CONNACK, b"\x00\x63", 4, 0x80, 0),
        (reasons.CONNACK, b"\x00\x01", 5, 0x84, 0),
        (reasons.CONNACK, b"\x00\x00", 5, 0x84, 0),
        (reasons.CONNACK, b"\x00\x00\x00", 5, 0, 0),
        (reasons.DISCONNECT, b"", 5, 0, 0),
        (reasons.DISCONNECT, b"\x8e", 5, 0x8E, 0),
    ],
)
def test_short_forms(kind, body, version, code, number):
    answer = reasons.read(kind, body, version)
    assert (answer.code, answer.number) == (code, number)


@settings(deadline=None)
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200), st.binary(max_size=20000)
)
def test_the_size_of_a_packet_is_what_paho_sends(topic, payload):
    """Against the encoding as the standard has it."""
    rest = text(topic) + b"\0\1" + b"\0" + payload
    size, length = len(rest), b""
    while True:
        size, byte = divmod(size, 128)
        length += bytes([byte | (128 if size else 0)])
        if not size:
            break
    assert reasons.packet_bytes(topic, payload) == len(b"\x32" + length + rest)
