"""Pictures and clips of events: one file each in a folder beside the events, bounded in days and megabytes.

The folder is the list: a name says when its event was, so nothing has to agree with anything after a kill -9. A picture
goes with its event, by age or by size; what goes over the megabytes goes alone, the oldest first, and its event stays
without it.
"""

import contextlib
import os
import re
import secrets
import shutil
import threading
from collections import OrderedDict
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Set

from jetson import files
from jetson.errors import BadInput

CROP, FRAME, CLIP = ".jpg", ".frame.jpg", ".avi"
KINDS = {CROP: "image/jpeg", FRAME: "image/jpeg", CLIP: "video/x-msvideo"}
LEAST_FREE = 100 << 20  # bytes of the disk that pictures leave to events, logs and everything else
_NAME = re.compile(r"^([0-9a-f]{12})-[0-9a-f]{8}(\.jpg|\.frame\.jpg|\.avi)\Z")


def new_key(at: float) -> str:
    """What the files of an event at `at` (Unix seconds) are called, without their endings."""
    return f"{max(0, int(at * 1000)) & 0xFFFFFFFFFFFF:012x}-{secrets.token_hex(4)}"


def time_of(name: str) -> float:
    """Unix seconds of the event that a file or key belongs to."""
    return int(name[:12], 16) / 1000.0


def kind_of(name: str) -> Optional[str]:
    """The media type of a file's name; None for what is no such name."""
    match = _NAME.match(name)
    return KINDS[match.group(2)] if match else None


class Kept(NamedTuple):
    """What there is of an alert: the person's JPEG, and the names of files without their endings."""

    jpeg: Optional[bytes] = None
    picture: Optional[str] = None
    clip: Optional[str] = None


class Media:
    """The folder, made if need be, its remains of killed writers removed. BadInput where that cannot be.

    `put` is for one thread, everything else for any. What a full disk does not take is counted in `dropped`.
    """

    def __init__(self, folder: str, megabytes: float = 500.0) -> None:
        self.folder = folder
        self.megabytes = megabytes
        self.dropped = 0
        self.error = ""
        self.bytes = 0
        self._lock = threading.Lock()
        self._expected: Set[str] = set()
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            files.sweep_aside(folder)
            found = {name: os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder) if kind_of(name)}
        except OSError as error:
            raise BadInput(
                f"pictures of events cannot be kept: {error.strerror}", folder, "a folder that this user may write to"
            ) from error
        self._sizes: OrderedDict[str, int] = OrderedDict((name, found[name]) for name in sorted(found))
        self.bytes = sum(found.values())

    def has(self, name: str) -> bool:
        """Whether it is there."""
        return name in self._sizes

    def expect(self, name: str) -> None:
        """It is being recorded."""
        with self._lock:
            self._expected.add(name)

    def expected(self, name: str) -> bool:
        """Whether it is being recorded, and not there yet."""
        return name in self._expected

    def cancel(self, name: str) -> None:
        """It will not come."""
        with self._lock:
            self._expected.discard(name)

    def put(self, name: str, data: bytes) -> bool:
        """Keep a file, in place of the one of this name; whether it could be."""
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)  # somebody may have removed it to remove all pictures
            if shutil.disk_usage(self.folder).free < LEAST_FREE + len(data):
                raise OSError(0, f"less than {LEAST_FREE >> 20} MB of the disk are free")
            files.write_bytes(os.path.join(self.folder, name), data)
        except (OSError, BadInput) as error:
            self.error = f"a picture of an event was not kept: {getattr(error, 'strerror', None) or error}"
            self.dropped += 1
            self.cancel(name)
            return False
        with self._lock:
            self.error = ""
            self._expected.discard(name)
            self.bytes += len(data) - self._sizes.get(name, 0)
            self._sizes[name] = len(data)
        self._remove(self._over())
        return True

    def read(self, name: str) -> Optional[bytes]:
        """Its bytes; None where it is not there (any more)."""
        if not self.has(name):
            return None
        try:
            with open(os.path.join(self.folder, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            self._remove([name])  # by somebody else
        except OSError:
            pass
        return None

    def tidy(self, oldest: float) -> None:
        """Remove what belongs to events before `oldest` (Unix seconds): they are gone."""
        with self._lock:
            old = [name for name in self._sizes if time_of(name) < oldest]
        self._remove(old)

    def sweep(self, since: float, known: Iterable[str]) -> List[str]:
        """After a kill: remove what is of `since` or later and no event has, by its key; the names removed."""
        keys = set(known)
        with self._lock:
            lost = [name for name in self._sizes if time_of(name) >= since and name.partition(".")[0] not in keys]
        self._remove(lost)
        return lost

    def urls(self, event: Dict[str, Any]) -> Dict[str, str]:
        """The addresses of what is kept of an event: picture_url, frame_url, clip_url, as far as there are such."""
        wanted = (("picture_url", "picture", CROP), ("frame_url", "picture", FRAME), ("clip_url", "clip", CLIP))
        return {
            name: url_of(f"{event[key]}{end}")
            for name, key, end in wanted
            if event.get(key) and self.has(f"{event[key]}{end}")
        }

    def state(self) -> Dict[str, Any]:
        """For the page and /metrics."""
        return {"files": len(self._sizes), "bytes": self.bytes, "dropped": self.dropped, "error": self.error}

    def _over(self) -> List[str]:
        """The oldest files, so many that the others are within the bound."""
        with self._lock:
            found, total = [], self.bytes
            # Names are added in the order of their time but for a person's, which is that of its coming.
            for name in sorted(self._sizes) if total > self.megabytes * 1e6 else ():
                if total <= self.megabytes * 1e6:
                    break
                total -= self._sizes[name]
                found.append(name)
        return found

    def _remove(self, names: List[str]) -> None:
        for name in names:
            with self._lock:
                self.bytes -= self._sizes.pop(name, 0)
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder, name))


def url_of(name: str) -> str:
    """The path of a file on the runner's page."""
    return "/api/v1/media/" + name
