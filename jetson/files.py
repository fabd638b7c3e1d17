"""The one way to write a file: aside, fsync, rename. A reader sees the old file or the whole new one, never half."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
from typing import Any, Iterator, List, Tuple

from jetson.errors import BadInput, JetmaskError

JSON_BYTES = 256 << 20  # 50,000 labelled photographs have 20 MB
JSON_DEPTH = 64
JSON_DIGITS = 1000
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ASIDE = re.compile(r"^\..+\.(\d+)\.[0-9a-f]{8}\.part(\.keras)?$")


def fsync_folder(folder: str) -> None:
    """Bring a folder's entries to the disk, where its file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a folder; the rename itself is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def aside(path: str) -> Iterator[str]:
    """Yield a temporary path in the folder of `path`; renamed over `path` at the end, removed on any exception.

    The caller writes one file there. The permissions are those of a plain `open(path, "w")`. BadInput when the folder
    is not there.

    >>> with aside("model.onnx") as part:      # doctest: +SKIP
    ...     onnx.save(model, part)
    """
    path = os.path.abspath(os.fspath(path))
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        raise BadInput(f"no such folder to write {name} into", folder, "a folder", "make it first")
    # A name of 255 bytes is legal for the file itself, so the aside name carries only its first part.
    stem = name.encode("utf-8", "surrogateescape")[:180].decode("utf-8", "ignore")
    part = os.path.join(folder, f".{stem}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        yield part
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    fsync_folder(folder)


def write_bytes(path: str, data: bytes) -> None:
    """Write `data` as the whole content of `path`."""
    with aside(path) as part, open(part, "wb") as file:
        file.write(data)


def write_text(path: str, text: str) -> None:
    """Write `text` as UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinities are refused, since JSON has none (ValueError)."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str, limit_bytes: int = JSON_BYTES) -> Any:
    """Read a JSON file of at most `limit_bytes`; BadInput names the file and the line.

    Whoever wrote it may mean harm, so what would cost far more than its size is refused: a whole number of thousands of
    digits, lists in lists in lists, millions of empty ones.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise BadInput(f"cannot read the file: {error.strerror}", path, "a JSON file") from error
    if len(data) > limit_bytes:
        raise BadInput("the JSON file is too long", path, f"at most {limit_bytes} bytes")
    return parse_json(data, path, limit_bytes)


def parse_json(data: bytes, where: str, limit_bytes: int = JSON_BYTES) -> Any:
    """The value of a JSON text, within the bounds of `read_json`; BadInput names `where` and the line."""
    brackets = _brackets(data)
    if len(brackets) > limit_bytes // 8:
        raise BadInput(
            f"not usable JSON: {len(brackets) // 2} lists and objects", where, f"at most {limit_bytes // 16}"
        )
    deep = _nested_deeper(brackets, JSON_DEPTH)
    try:
        value = json.loads(data.decode("utf-8"), parse_int=_whole_number)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"not JSON: byte {error.start} is not UTF-8",
            f"{where}, line {line}",
            "a JSON file in UTF-8",
        ) from error
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        reason = getattr(error, "msg", str(error))
        raise BadInput(f"not JSON: {reason}", f"{where}, line {line}", "a JSON file") from error
    except RecursionError:
        deep = True
    if deep:
        raise BadInput("not usable JSON: nested too deeply", where, f"at most {JSON_DEPTH} lists or objects deep")
    return value


def _whole_number(text: str) -> int:
    if len(text) > JSON_DIGITS:  # the time to read a number grows with the square of its digits
        raise ValueError(f"a whole number of {len(text)} digits (at most {JSON_DIGITS})")
    return int(text)


def _brackets(data: bytes) -> bytes:
    """The brackets of a JSON text in their order, square for all, those in strings left out.

    In time that grows with its length only: a regular expression for strings would not, on a text made for it.
    """
    plain = b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    return plain.translate(_ONE_KIND, _NO_BRACKETS)


def _nested_deeper(brackets: bytes, limit: int) -> bool:
    for _ in range(limit):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def sha256(path: str) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def open_shared(path: str, mode: int) -> Tuple[int, bool]:
    """(descriptor, whether it can be written to) of a file that is made if need be.

    On a disk that has become read-only a file that is there is opened all the same. OSError where it cannot be had.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode), True
    except OSError as error:
        if error.errno != errno.EROFS or not os.path.exists(path):
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC), False


@contextlib.contextmanager
def lock(path: str, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if need be); the kernel drops it when the process dies.

    With `wait=False` a held lock is a JetmaskError at once.
    """
    handle, _ = open_shared(path, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise JetmaskError(
                "locked by another process",
                path,
                "no other process that writes here",
                "wait until it has ended, then start again",
            ) from error
        yield
    finally:
        os.close(handle)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def sweep_aside(folder: str) -> List[str]:
    """Remove what killed writers left aside in `folder`; the names removed. Files of living processes stay."""
    removed = []
    for name in sorted(os.listdir(folder)):
        match = _ASIDE.match(name)
        if match and not is_alive(int(match.group(1))):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
                removed.append(name)
    return removed
