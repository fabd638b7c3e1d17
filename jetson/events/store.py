"""The events of all cameras in one SQLite file: they outlive a restart, and are bounded in days and megabytes.

One thread writes, in transactions of what came meanwhile; whoever adds an event never waits for the disk. In WAL mode
with synchronous=FULL a committed event survives kill -9 and a power cut (https://www.sqlite.org/wal.html,
https://www.sqlite.org/pragma.html#pragma_synchronous). Only SQL that SQLite 3.22 knows, which JetPack 4 has.
"""

import calendar
import json
import os
import sqlite3
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Set, Tuple

from jetson.errors import BadInput

VERSION = 1
WAITING = 20000  # events in memory while the disk takes none; then the oldest go, and are counted
PAUSE_S = 0.2
TIDY_S = 60.0
BATCH = 1000
_MIGRATIONS = (
    # From version 0, an empty file, to 1.
    """
    CREATE TABLE events (
        number INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, camera TEXT, label TEXT, zone TEXT,
        body TEXT NOT NULL);
    CREATE INDEX events_at ON events (at);
    CREATE INDEX events_camera ON events (camera, at);
    CREATE INDEX events_label ON events (label, at);
    CREATE INDEX events_kind ON events (kind, at);
    CREATE INDEX events_camera_label ON events (camera, label, at);
    CREATE INDEX events_zone ON events (zone, at) WHERE zone IS NOT NULL;
    CREATE TABLE hours (
        hour INTEGER NOT NULL, camera TEXT NOT NULL, label TEXT NOT NULL, persons INTEGER NOT NULL,
        PRIMARY KEY (hour, camera, label)) WITHOUT ROWID;
    """,
)


class Query(NamedTuple):
    """What is looked for; None: any. `since` and `until`: Unix seconds, the first included, the second not.

    `before`: only what comes after the event of this number, to go on with the next page. `most`: at most so many.
    """

    camera: Optional[str] = None
    label: Optional[str] = None
    zone: Optional[str] = None
    kind: Optional[str] = None
    since: Optional[float] = None
    until: Optional[float] = None
    before: Optional[int] = None
    most: int = 100


ANY = Query()


class Store:
    """The file `path`, made if need be. `days`, `megabytes`: what is older, or over the size, goes, the oldest first.

    BadInput where the file is a newer jetmask's. A damaged file is put aside (`damaged` says where) and a new one
    begun: a runner that cannot start because of its history would be worse.
    """

    def __init__(self, path: str, days: float = 30.0, megabytes: float = 200.0) -> None:
        self.path = path
        self.days = days
        self.megabytes = megabytes
        self.dropped = 0
        self.error = ""
        self.damaged = ""
        self.tidied: Callable[[float], None] = lambda oldest: None  # told before which time (Unix s) no event is kept
        self._waiting: Deque[Dict[str, Any]] = deque()
        self._change = threading.Condition()
        self._stop = False
        self._tidied = 0.0
        self._connection = self._opened()
        self.number = self._connection.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()[0]
        self.kept = self.number  # the last number that is on the disk
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> "Store":
        """Begin to write."""
        self._thread.start()
        return self

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._migrated(_connect(self.path))
        except sqlite3.OperationalError as error:  # a disk that is read-only or full, a folder that is not there
            raise BadInput(
                f"the file of events cannot be written: {error}", self.path, "a folder that this user may write to"
            ) from error
        except sqlite3.DatabaseError:  # not a database, or damaged
            self.damaged = f"{self.path}.damaged-{int(time.time())}"
            for end in ("", "-wal", "-shm"):
                if os.path.exists(self.path + end):
                    os.replace(self.path + end, self.damaged + end)
            return self._migrated(_connect(self.path))

    def _migrated(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            connection.close()
            raise BadInput(
                f"the file of events is of version {version}",
                self.path,
                f"version {VERSION} or older",
                "serve with the jetmask that wrote it, or move the file away",
            )
        for number in range(version, VERSION):
            # With the version in one transaction: a kill leaves the old file or the new one.
            connection.executescript(f"BEGIN; {_MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")
        connection.execute("SELECT 1 FROM events LIMIT 1").fetchone()
        connection.execute("SELECT 1 FROM hours LIMIT 1").fetchone()
        return connection

    def add(self, event: Dict[str, Any]) -> int:
        """Keep an event: `at` (ISO 8601, UTC) and `kind`, maybe `camera`, `label`, `zone`, and more. Its number."""
        with self._change:
            self.number += 1
            self._waiting.append(dict(event, number=self.number))
            if len(self._waiting) > WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._change.notify_all()
            return self.number

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything that was added is on the disk; whether it is."""
        end = time.monotonic() + timeout_s
        with self._change:
            wanted = self.number
            while self.kept < wanted and time.monotonic() < end and self._thread.is_alive():
                self._change.wait(0.1)
            return self.kept >= wanted

    def _run(self) -> None:
        while True:
            with self._change:
                if not self._waiting and not self._stop:
                    self._change.wait(TIDY_S)
                if self._stop and not self._waiting:
                    break
                batch = [self._waiting[i] for i in range(min(len(self._waiting), BATCH))]
            try:
                if batch:
                    self._write(batch)
                if time.monotonic() - self._tidied > TIDY_S:
                    self._tidied = time.monotonic()
                    self.tidy()
                self.error = ""
            except sqlite3.Error as error:
                # A full disk, a card gone read-only: what waits stays in memory, up to its bound.
                self.error = f"events are not written: {error}"
                if self._stop:
                    break
                time.sleep(1.0)
                continue
            with self._change:
                while batch and self._waiting and self._waiting[0]["number"] <= batch[-1]["number"]:
                    self._waiting.popleft()
                if batch:
                    self.kept = batch[-1]["number"]
                self._change.notify_all()
            time.sleep(PAUSE_S if not self._stop else 0.0)  # so that a burst is few transactions
        self._connection.close()

    def _write(self, batch: List[Dict[str, Any]]) -> None:
        rows: List[Tuple[Any, ...]] = []
        persons: Dict[Tuple[int, str, str], int] = {}
        for event in batch:
            at = _seconds(event["at"])
            camera = None if event.get("camera") is None else str(event["camera"])
            label, zone = event.get("label"), event.get("zone")
            body = json.dumps({key: value for key, value in event.items() if key != "number"})
            rows.append((event["number"], at, event["kind"], camera, label, zone, body))
            if event["kind"] == "enter" and label is not None:
                key = (int(at // 3600), camera or "", label)
                persons[key] = persons.get(key, 0) + 1
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            for key, count in persons.items():
                self._connection.execute("INSERT OR IGNORE INTO hours VALUES (?, ?, ?, 0)", key)
                self._connection.execute(
                    "UPDATE hours SET persons = persons + ? WHERE hour = ? AND camera = ? AND label = ?", (count,) + key
                )

    def tidy(self, now: Optional[float] = None) -> None:
        """Remove what is too old or too much; called by the writing thread."""
        now = time.time() if now is None else now
        with self._connection:
            self._connection.execute("DELETE FROM events WHERE at < ?", (now - 86400 * self.days,))
            self._connection.execute("DELETE FROM hours WHERE hour < ?", (int((now - 86400 * self.days) // 3600),))
        while self._size() > self.megabytes * 1e6:
            with self._connection:
                done = self._connection.execute(
                    "DELETE FROM events WHERE number IN (SELECT number FROM events ORDER BY number LIMIT 200)"
                )
            if not done.rowcount:
                break
        (first,) = self._connection.execute("SELECT coalesce(min(at), 0) FROM events").fetchone()
        self.tidied(max(first, now - 86400 * self.days))
        self._connection.executescript("PRAGMA incremental_vacuum")  # goes on to its end, a page a step
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _size(self) -> float:
        """Bytes of what is used; free pages are used again."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return float((pages - free) * size)

    def find(self, query: Query = ANY) -> List[Dict[str, Any]]:
        """The events that fit, newest first; each as it was added, with its `number`. For any thread."""
        wanted = [
            ("camera = ?", query.camera),
            ("label = ?", query.label),
            ("zone = ?", query.zone),
            ("kind = ?", query.kind),
            ("at >= ?", query.since),
            ("at < ?", query.until),
            ("(at, number) < ((SELECT at FROM events WHERE number = ?1), ?1)", query.before),
        ]
        # In the order of time, not of numbers: each index ends with it, so that nothing has to be sorted.
        chosen = [
            (text.replace("?1", f"?{i}") if "?1" in text else text.replace("?", f"?{i}"), value)
            for i, (text, value) in enumerate(((t, v) for t, v in wanted if v is not None), 1)
        ]
        where = " WHERE " + " AND ".join(text for text, _ in chosen) if chosen else ""
        values = [value for _, value in chosen] + [max(0, query.most)]
        text = f"SELECT number, body FROM events{where} ORDER BY at DESC, number DESC LIMIT ?{len(values)}"
        with _reading(self.path) as connection:
            return [dict(json.loads(body), number=number) for number, body in connection.execute(text, values)]

    def keys(self, since: float) -> Set[str]:
        """What events from `since` on (Unix seconds) call their pictures and clips."""
        with _reading(self.path) as connection:
            found = connection.execute(
                "SELECT body FROM events WHERE at >= ? AND (body LIKE '%\"picture\": %' OR body LIKE '%\"clip\": %')",
                (since,),
            )
            bodies = [json.loads(row[0]) for row in found]
        return {body[name] for body in bodies for name in ("picture", "clip") if isinstance(body.get(name), str)}

    def newest(self) -> float:
        """Unix seconds of the newest event; 0 without one."""
        with _reading(self.path) as connection:
            return float(connection.execute("SELECT coalesce(max(at), 0) FROM events").fetchone()[0])

    def hours(self, since: float, until: float, camera: Optional[str] = None) -> List[Dict[str, Any]]:
        """Persons that entered, by hour and class, oldest first: [{"at": Unix seconds, "persons": {label: count}}]."""
        text = "SELECT hour, label, sum(persons) FROM hours WHERE hour >= ? AND hour < ?"
        values: List[Any] = [int(since // 3600), int(-(-until // 3600))]
        if camera is not None:
            text, values = text + " AND camera = ?", values + [camera]
        found: Dict[int, Dict[str, int]] = {}
        with _reading(self.path) as connection:
            for hour, label, count in connection.execute(text + " GROUP BY hour, label ORDER BY hour", values):
                found.setdefault(hour, {})[label] = count
        return [{"at": hour * 3600, "persons": persons} for hour, persons in sorted(found.items())]

    def state(self) -> Dict[str, Any]:
        """Counters for the page and /metrics."""
        with self._change:
            waiting = len(self._waiting)
        return {"waiting": waiting, "dropped": self.dropped, "error": self.error, "damaged": self.damaged}

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, and end."""
        with self._change:
            self._stop = True
            self._change.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        else:
            self._connection.close()


class _reading:
    """A connection of its own for one query: SQLite's are not for several threads, and WAL lets it read meanwhile."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, timeout=10.0)
        self.connection.execute("PRAGMA query_only = 1")

    def __enter__(self) -> sqlite3.Connection:
        return self.connection

    def __exit__(self, *_: Any) -> None:
        self.connection.close()


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _seconds(stamp: str) -> float:
    """Unix seconds of an ISO 8601 time in UTC, as jetson.monitor.journal.stamp writes it.

    >>> _seconds("2026-12-01T00:00:01.500Z") - _seconds("2026-12-01T00:00:00.000Z")
    1.5
    """
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + (fraction or "0"))
