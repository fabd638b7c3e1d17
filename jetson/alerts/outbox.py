"""Alerts on their way, in one SQLite file: what a receiver has not taken outlives a restart, in order and bounded.

WAL with synchronous=FULL, as jetson.events.store: an alert that was added survives kill -9 and a power cut. Only SQL
that SQLite 3.22 knows, which JetPack 4 has.
"""

import contextlib
import errno
import json
import os
import sqlite3
import tempfile
import threading
import time
from typing import Any, Dict, Iterable, List, NamedTuple, Optional

from jetson.errors import BadInput

KEPT = 500  # alerts that the page can show, whoever was told of them
_VERSION = 1
_TABLES = """
    CREATE TABLE alerts (number INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL, picture BLOB);
    CREATE TABLE waiting (
        number INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, alert INTEGER NOT NULL);
    CREATE INDEX waiting_receiver ON waiting (receiver, number);
    CREATE TABLE dropped (receiver TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
"""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class Waiting(NamedTuple):
    """An alert that a receiver has not taken. `picture`: a JPEG, or None."""

    number: int
    body: Dict[str, Any]
    picture: Optional[bytes]


class Outbox:
    """The file `path`, made if need be. `keep`: at most so many wait for one receiver; then its oldest goes, counted.

    A damaged file is put aside (`damaged` says where) and a new one begun. On a disk that is full or read-only alerts
    are in memory (`in_memory` says why), and what waits in the file waits there for the next start. BadInput where no
    file can be made for another reason. Safe to call from several threads; sqlite3.Error where the disk takes nothing.
    """

    def __init__(self, path: str, keep: int = 1000) -> None:
        self.path = path
        self.damaged = ""
        self.in_memory = ""
        self.keep = keep
        self._lock = threading.Lock()
        try:
            os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
            try:
                self._connection = self._open()
            except sqlite3.DatabaseError as error:
                # A disk that is full or read-only, a lock: the file is whole, and what waits in it must not be lost.
                if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
                    raise
                self.damaged = f"{path}.damaged-{int(time.time())}"
                for end in ("", "-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(path + end, self.damaged + end)
                self._connection = self._open()
        except (OSError, sqlite3.Error) as error:
            reason = str(getattr(error, "strerror", None) or error)
            if not _takes_nothing(error, os.path.dirname(path) or "."):
                raise BadInput(
                    f"alerts cannot be kept: {reason}", path, "a file in a folder that this user may write to"
                ) from error
            # A camera that is watched, and alerts that are sent, matter more than that they outlive a restart.
            self.in_memory = reason
            self._connection = self._open(":memory:")

    def _open(self, path: str = "") -> sqlite3.Connection:
        connection = sqlite3.connect(path or self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")  # a picture that is gone is not in the file any more
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > _VERSION:
                raise BadInput("the file of alerts is a newer jetmask's", self.path, f"version {_VERSION} at most")
            if version == 0:
                connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
            connection.execute("SELECT count(*) FROM waiting, dropped").fetchone()
        except BaseException:
            connection.close()
            raise
        if not path:
            with contextlib.suppress(OSError):
                os.chmod(self.path, 0o600)
        return connection

    def add(self, receivers: Iterable[str], body: Dict[str, Any], picture: Optional[bytes] = None) -> int:
        """Keep an alert for these receivers, all or none; its number, which its body has as `number` from then on."""
        with self._lock, self._transaction() as sql:
            number = int(sql.execute("INSERT INTO alerts (body, picture) VALUES ('', ?)", (picture,)).lastrowid or 0)
            sql.execute("UPDATE alerts SET body = ? WHERE number = ?", (json.dumps(dict(body, number=number)), number))
            for receiver in receivers:
                sql.execute("INSERT INTO waiting (receiver, alert) VALUES (?, ?)", (receiver, number))
                over = self._count(receiver) - self.keep
                if over > 0:
                    sql.execute(
                        "DELETE FROM waiting WHERE number IN "
                        "(SELECT number FROM waiting WHERE receiver = ? ORDER BY number LIMIT ?)",
                        (receiver, over),
                    )
                    self._drop(receiver, over)
            self._forget_pictures()
            sql.execute(
                "DELETE FROM alerts WHERE number <= ? AND number NOT IN (SELECT alert FROM waiting)", (number - KEPT,)
            )
        return number

    def first(self, receiver: str) -> Optional[Waiting]:
        """The oldest alert that waits for a receiver."""
        with self._lock:
            found = self._connection.execute(
                "SELECT waiting.number, body, picture FROM waiting JOIN alerts ON alerts.number = alert "
                "WHERE receiver = ? ORDER BY waiting.number LIMIT 1",
                (receiver,),
            ).fetchone()
        return None if found is None else Waiting(int(found[0]), json.loads(found[1]), found[2])

    def over(self, receiver: str, number: int, taken: bool = True) -> None:
        """An alert no longer waits for a receiver: it was taken, or (`taken` False) never will be."""
        with self._lock, self._transaction() as sql:
            gone = sql.execute("DELETE FROM waiting WHERE number = ? AND receiver = ?", (number, receiver)).rowcount
            if gone and not taken:
                self._drop(receiver, 1)
            self._forget_pictures()

    def forget(self, receivers: Iterable[str]) -> Dict[str, int]:
        """Drop and count what waits for receivers other than these: they are in no file any more. {name: how many}."""
        with self._lock, self._transaction() as sql:
            known = list(receivers)
            marks = ",".join("?" * len(known))
            where = f"FROM waiting WHERE receiver NOT IN ({marks})"
            gone = dict(sql.execute(f"SELECT receiver, count(*) {where} GROUP BY receiver", known).fetchall())
            sql.execute(f"DELETE {where}", known)
            for receiver, count in gone.items():
                self._drop(receiver, count)
            self._forget_pictures()
        return gone

    def all_dropped(self) -> Dict[str, int]:
        """`dropped` of every receiver there ever was."""
        with self._lock:
            return dict(self._connection.execute("SELECT receiver, count FROM dropped").fetchall())

    def waiting(self, receiver: str) -> int:
        """How many wait for a receiver."""
        with self._lock:
            return self._count(receiver)

    def dropped(self, receiver: str) -> int:
        """How many a receiver will never get, over all runs."""
        with self._lock:
            found = self._connection.execute("SELECT count FROM dropped WHERE receiver = ?", (receiver,)).fetchone()
        return int(found[0]) if found else 0

    def latest(self, count: int = 50) -> List[Dict[str, Any]]:
        """The newest alerts, newest first, whoever has taken them."""
        with self._lock:
            rows = self._connection.execute("SELECT body FROM alerts ORDER BY number DESC LIMIT ?", (count,)).fetchall()
        return [json.loads(row[0]) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _count(self, receiver: str) -> int:
        found = self._connection.execute("SELECT count(*) FROM waiting WHERE receiver = ?", (receiver,)).fetchone()
        return int(found[0])

    def _drop(self, receiver: str, count: int) -> None:
        self._connection.execute("INSERT OR IGNORE INTO dropped VALUES (?, 0)", (receiver,))
        self._connection.execute("UPDATE dropped SET count = count + ? WHERE receiver = ?", (count, receiver))

    def _forget_pictures(self) -> None:
        """A picture is kept as long as somebody is to get it, and no longer."""
        self._connection.execute(
            "UPDATE alerts SET picture = NULL WHERE picture IS NOT NULL AND number NOT IN (SELECT alert FROM waiting)"
        )

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise


def _takes_nothing(error: Exception, folder: str) -> bool:
    """Whether it is the disk, which may take something again, and not a wrong path or a missing right."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    words = str(error)
    if any(part in words for part in ("full", "disk I/O", "readonly")):
        return os.access(folder, os.W_OK) or not os.access(folder, os.F_OK) or _no_room(folder)
    return "unable to open" in words and _no_room(folder)


def _no_room(folder: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        return error.errno in _NO_ROOM
    return False
