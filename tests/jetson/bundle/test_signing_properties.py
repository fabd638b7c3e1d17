"""The device's Ed25519 against the `cryptography` package's, on arbitrary messages, keys and damage."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.bundle import signing


def _theirs(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _pair(seed: bytes) -> tuple[Ed25519PrivateKey, bytes]:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return private, raw


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_what_the_library_signs_is_accepted(seed, message):
    private, public = _pair(seed)
    assert signing.verify(public, message, private.sign(message))


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=60), st.integers(0, 64 * 8 + 32 * 8 - 1))
def test_one_changed_bit_is_refused_by_both(seed, message, bit):
    private, public = _pair(seed)
    both = bytearray(private.sign(message) + public)
    both[bit // 8] ^= 1 << bit % 8
    signature, key = bytes(both[:64]), bytes(both[64:])
    assert not signing.verify(key, message, signature)
    assert not _theirs(key, message, signature)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=40), st.binary(min_size=64, max_size=64))
def test_never_accepts_what_the_library_refuses(key, message, signature):
    assert not signing.verify(key, message, signature) or _theirs(key, message, signature)
