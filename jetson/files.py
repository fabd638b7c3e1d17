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
        raise BadInput(f"there is no such folder to write {name} into", folder, "a folder", "make it first")
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


def read_json(path: str) -> Any:
    """Read a JSON file; BadInput names the file and the line."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadInput(f"cannot read the file: {error.strerror}", path, "a JSON file") from error
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"not JSON: byte {error.start} is not UTF-8",
            f"{path}, line {line}",
            "a JSON file in UTF-8",
        ) from error
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        reason = getattr(error, "msg", str(error))
        raise BadInput(f"not JSON: {reason}", f"{path}, line {line}", "a JSON file") from error
    except RecursionError as error:
        raise BadInput("not usable JSON: nested too deeply", path, "a JSON file") from error


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
                "another process is using this",
                path,
                "nobody else at work here",
                "wait until it has ended, then start again",
            ) from error
        yield
    finally:
        os.close(handle)


def _alive(pid: int) -> bool:
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
        if match and not _alive(int(match.group(1))):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
                removed.append(name)
    return removed
