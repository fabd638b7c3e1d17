"""Ed25519 signatures checked with the standard library alone (RFC 8032, section 5.1), and the keys to check with.

A signature is over the bytes of SHA256SUMS, as `openssl pkeyutl -sign -rawin` makes it: 64 bytes in SHA256SUMS.sig.
Only verification lives here: it handles no secret, so it need not run in constant time. One check takes some
milliseconds on a workstation.
"""

import base64
import hashlib
import os
import re
from typing import List, Optional, Tuple

from jetson.bundle.manifest import SIGNATURE, SUMS
from jetson.errors import BadInput

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)
# The fixed first 12 bytes of an Ed25519 key as SubjectPublicKeyInfo (RFC 8410, section 4).
_SPKI = bytes.fromhex("302a300506032b6570032100")

Point = Tuple[int, int, int, int]  # extended coordinates X, Y, Z, T: x = X/Z, y = Y/Z, xy = T/Z


def _add(a: Point, b: Point) -> Point:
    e = (a[1] - a[0]) * (b[1] - b[0]) % _P
    f = (a[1] + a[0]) * (b[1] + b[0]) % _P
    g = 2 * a[3] * b[3] * _D % _P
    h = 2 * a[2] * b[2] % _P
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


_NEUTRAL = (0, 1, 1, 0)


def _times(scalar: int, point: Point) -> Point:
    total = _NEUTRAL
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point = _add(point, point)
        scalar >>= 1
    return total


def _same(a: Point, b: Point) -> bool:
    return (a[0] * b[2] - b[0] * a[2]) % _P == 0 and (a[1] * b[2] - b[1] * a[2]) % _P == 0


def _decompress(data: bytes) -> Optional[Point]:
    """The point that 32 bytes stand for; None when they stand for none, or are not its one canonical spelling."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


_BASE = _decompress((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))  # type: Point  # type: ignore


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) over `message` was made by the holder of `public_key` (32 bytes).

    Stricter than RFC 8032 where libraries differ: S must be below the group's order, both points must have their
    canonical spelling, and neither may be of small order (such a key would accept almost any message).
    """
    if len(public_key) != 32 or len(signature) != 64:
        return False
    key, commitment = _decompress(public_key), _decompress(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or s >= _L:
        return False
    if _same(_times(8, key), _NEUTRAL) or _same(_times(8, commitment), _NEUTRAL):
        return False
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    k = int.from_bytes(digest, "little") % _L
    return _same(_times(s, _BASE), _add(commitment, _times(k, key)))


def read_keys(path: str) -> List[bytes]:
    """The public keys in a file: PEM blocks (`openssl pkey -pubout`), or lines of 64 hex digits. BadInput otherwise."""
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 20).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the public key: {error}", path) from error
    keys = []
    for block in re.findall(r"-----BEGIN PUBLIC KEY-----\s(.*?)-----END PUBLIC KEY-----", text, re.S):
        try:
            data = base64.b64decode("".join(block.split()), validate=True)
        except ValueError:
            data = b""
        if len(data) != 44 or data[:12] != _SPKI:
            raise BadInput(
                "not an Ed25519 public key",
                path,
                "PEM of an Ed25519 public key, or 64 hex digits",
                "make a key pair with `jetmask bundle key FILE` and use FILE.pub",
            )
        keys.append(data[12:])
    rest = re.sub(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", "", text, flags=re.S)
    for number, line in enumerate(rest.splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        if not re.match(r"^[0-9a-fA-F]{64}$", line):
            raise BadInput(
                f"not a public key: {repr(line):.60}",
                f"{path}, line {number}",
                "PEM of an Ed25519 public key, or 64 hex digits",
                "this may be the private key; use its .pub" if "PRIVATE" in line else None,
            )
        keys.append(bytes.fromhex(line))
    if not keys:
        raise BadInput("no public key in the file", path, "PEM of an Ed25519 public key, or 64 hex digits")
    return keys


def check_bundle(bundle_dir: str, keys: List[bytes]) -> None:
    """BadInput unless one of `keys` signed this bundle's SHA256SUMS. Says nothing about the other files."""
    try:
        with open(os.path.join(bundle_dir, SIGNATURE), "rb") as file:
            signature = file.read(65)
    except FileNotFoundError:
        raise BadInput(
            "the bundle is not signed",
            bundle_dir,
            f"a signature by a trusted key in {SIGNATURE}",
            "sign it with `jetmask bundle sign DIR --key FILE`",
        ) from None
    with open(os.path.join(bundle_dir, SUMS), "rb") as file:
        message = file.read()
    if not any(verify(key, message, signature) for key in keys):
        raise BadInput(
            "the signature is not by a trusted key, or the bundle was changed after it was signed",
            os.path.join(bundle_dir, SIGNATURE),
            f"a signature by one of {len(keys)} trusted keys",
            "get the bundle again from its maker, or sign it with a key that this device trusts",
        )
