"""Download a file so that it can be broken off and gone on with, and unpack a zip that is not trusted."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from jetson import files
from jetson.errors import BadInput, JetmaskError
from pipeline.data import layout

Progress = Callable[[int, int | None], None]  # bytes that are there, and of how many (None: not told)

_WAIT_S = 20
_TRIES = 5


def fetch(url: str, path: Path, sha256: str | None = None, progress: Progress | None = None) -> str:
    """Download `url` to `path`, going on from what an earlier try left in `path`.part; -> its sha256.

    The part is taken up only where the server answers with the same ETag or date, else it begins anew. A connection
    that breaks is tried five times. BadInput: the checksum is another. JetmaskError: no way there.
    """
    path = Path(path)
    part, note = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.lock(str(path.with_name("." + path.name + ".lock")), wait=False):
        failures = 0
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                _append(url, part, note, progress)
                break
            except (urllib.error.HTTPError, ValueError) as error:
                raise JetmaskError(
                    f"the download was refused: {error}", url, None, f"save the file by hand as {path}"
                ) from None
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.errno in (
                    28,
                    122,
                ):  # the disk is full: the command line says it
                    raise
                # Any progress starts the count again: a bad line may break a large download very often.
                failures = 0 if part.exists() and part.stat().st_size > before else failures + 1
                if failures >= _TRIES or _no_network(error):
                    reason = getattr(error, "reason", None) or error
                    raise JetmaskError(
                        f"the download failed: {reason}",
                        url,
                        "a network",
                        f"run the command again, it resumes; or save the file by hand as {path}",
                    ) from None
                time.sleep(min(2**failures * 0.1, 5))
        digest = files.sha256(str(part))
        if sha256 is not None and digest != sha256:
            part.unlink()
            raise BadInput(
                f"the download's sha256 is {digest}",
                url,
                sha256,
                "the file has changed or was tampered with: check it before you use it",
            )
        os.replace(part, path)
        note.unlink(missing_ok=True)
    return digest


def _no_network(error: BaseException) -> bool:
    return isinstance(getattr(error, "reason", None), socket.gaierror)


def _append(url: str, part: Path, note: Path, progress: Progress | None) -> None:
    known = json.loads(note.read_text()) if note.exists() and part.exists() else {}
    request = urllib.request.Request(url, headers={"User-Agent": "jetmask"})
    start = part.stat().st_size if known.get("url") == url and known.get("version") else 0
    if start:
        request.add_header("Range", f"bytes={start}-")
        # Without it a server whose file has changed would send the tail of another file.
        request.add_header("If-Range", known["version"])
    try:
        answer = urllib.request.urlopen(request, timeout=_WAIT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start == known.get("bytes"):
            return
        if error.code in (408, 416, 429, 500, 502, 503, 504):
            if error.code == 416:
                part.unlink()
            raise ConnectionError(f"HTTP {error.code}") from None
        raise
    with answer:
        if answer.status != 206:
            start = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise ConnectionError("the server sent a different range than requested")
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        # A weak ETag does not promise the same bytes, so it cannot hold two halves together.
        tag = answer.headers.get("ETag", "")
        version = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
        if not start:  # a kill just after the next line must not leave another file's bytes beside this one's name
            part.unlink(missing_ok=True)
        files.write_json(str(note), {"url": url, "version": version, "bytes": total})
        with open(part, "ab" if start else "wb") as file:
            while True:
                block = answer.read(1 << 16)
                if not block:
                    break
                file.write(block)
                if progress:
                    progress(file.tell(), total)
            file.flush()
            os.fsync(file.fileno())
            if total is not None and file.tell() != total:
                raise ConnectionError(f"the connection ended after {file.tell()} of {total} bytes")


def unpack(archive: Path, out: Path, limit_bytes: int = 20 << 30) -> int:
    """Unpack a zip into the new folder `out`; -> number of files. BadInput: no zip, damaged, a path that leads out of
    the folder, a link, or more than `limit_bytes` when unpacked."""
    try:
        with zipfile.ZipFile(archive) as content, layout.folder_aside(out) as part:
            entries = [e for e in content.infolist() if not e.is_dir()]
            if sum(e.file_size for e in entries) > limit_bytes:
                raise BadInput("the archive is too large when unpacked", archive, f"at most {limit_bytes} bytes")
            for entry in entries:
                name = PurePosixPath(entry.filename.replace("\\", "/"))
                if name.is_absolute() or ".." in name.parts or stat.S_ISLNK(entry.external_attr >> 16):
                    raise BadInput(f"the archive holds {entry.filename!r}", archive, "plain files inside one folder")
                target = part / name
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open(target, "xb") as file, content.open(entry) as source:
                        shutil.copyfileobj(source, file)
                except (FileExistsError, NotADirectoryError, IsADirectoryError):
                    raise BadInput(f"the archive holds {entry.filename!r} twice", archive, "unique names") from None
            return len(entries)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise BadInput(
            f"not a usable zip: {error}", archive, "the archive as downloaded from its page", "download it again"
        ) from None
