"""Ed25519 in plain Python: RFC 8032's vectors, and signatures that an attacker would send."""

import pytest
from refusals import refused

from jetson.bundle import signing
from jetson.errors import BadInput

# RFC 8032, section 7.1: (public key, message, signature).
VECTORS = {
    "TEST 1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    "TEST 2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "TEST 3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
}


def _vector(name):
    return tuple(bytes.fromhex(part) for part in VECTORS[name])


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_vectors_of_rfc_8032(name):
    assert signing.verify(*_vector(name))


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_another_message_or_key_or_bit_is_refused(name):
    key, message, signature = _vector(name)
    other = _vector("TEST 3" if name != "TEST 3" else "TEST 1")[0]
    assert not signing.verify(key, message + b"x", signature)
    assert not signing.verify(other, message, signature)
    for bit in (0, 7, 100, 255, 256, 300, 400, 511):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not signing.verify(key, message, bytes(changed))


def test_a_second_spelling_of_s_is_refused():
    key, message, signature = _vector("TEST 2")
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(signature[32:], "little") + order
    assert not signing.verify(key, message, signature[:32] + s.to_bytes(32, "little"))


@pytest.mark.parametrize(
    "point",
    [
        "0100000000000000000000000000000000000000000000000000000000000000",  # the neutral element
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # order 2
        "0000000000000000000000000000000000000000000000000000000000000000",  # order 4
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",  # order 8
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # y = p + 1: not canonical
        "0100000000000000000000000000000000000000000000000000000000000080",  # x = 0 with the sign bit set
        "0200000000000000000000000000000000000000000000000000000000000000",  # not on the curve
    ],
)
def test_a_key_of_small_order_or_odd_spelling_is_refused(point):
    weak = bytes.fromhex(point)
    # R = the key and S = 0 satisfies the equation for the neutral element, whatever the message.
    for signature in (weak + b"\0" * 32, b"\1" + b"\0" * 63):
        assert not signing.verify(weak, b"any message", signature)


@pytest.mark.parametrize(
    "key,signature",
    [
        (b"", b""),
        (b"\0" * 31, b"\0" * 64),
        (b"\0" * 32, b"\0" * 63),
        (b"\xff" * 32, b"\xff" * 64),
        (b"\0" * 32, b"\0" * 65),
    ],
)
def test_wrong_lengths_and_rubbish_are_refused(key, signature):
    assert signing.verify(key, b"", signature) is False


def test_keys_are_read_from_hex_and_pem(tmp_path):
    hexes = tmp_path / "keys"
    hexes.write_text("# trusted\n" + VECTORS["TEST 1"][0] + "  # the maker\n\n" + VECTORS["TEST 2"][0] + "\n")
    assert signing.read_keys(str(hexes)) == [_vector("TEST 1")[0], _vector("TEST 2")[0]]
    pem = tmp_path / "key.pub"
    # RFC 8410, section 10.1.
    pem.write_text(
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
        "-----END PUBLIC KEY-----\n"
    )
    assert signing.read_keys(str(pem)) == [
        bytes.fromhex("19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "abcd\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nMCow!BQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
        "-----END PUBLIC KEY-----\n",
        "\xe9",
    ],
)
def test_other_key_files_are_bad_input(tmp_path, text):
    path = tmp_path / "key"
    path.write_bytes(text.encode("latin-1"))
    with refused(BadInput, where=path):
        signing.read_keys(str(path))


def test_a_missing_key_file_is_bad_input(tmp_path):
    with pytest.raises(BadInput):
        signing.read_keys(str(tmp_path / "none"))
