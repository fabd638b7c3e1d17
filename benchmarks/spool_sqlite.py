"""Would the MQTT spool be better as an SQLite file? Both in one run: time, processor time, bytes, kills, flipped bits.

    python -m benchmarks.spool_sqlite [--write]

The prototype has the spool's interface and its rules of order, limit and counting. Rows replace
benchmarks/results/spool_sqlite.csv; what follows from them is in docs/decisions/own-spool.md.
"""

import argparse
import csv
import io
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import deque
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from jetson import files
from jetson.mqtt.spool import Spool

OUT = Path(__file__).parent / "results" / "spool_sqlite.csv"
FIELDS = ("spool", "what", "value", "date", "machine")
EVENTS, BODY = 20000, b"x" * 150
KILLS, FLIPS = 12, 40


class SqliteSpool:
    """The prototype: one table of records with a checksum each, one of counts; written by a thread, WAL."""

    def __init__(self, folder: str, max_records: int = 100000, max_bytes: int = 64 << 20) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.path = str(Path(folder) / "spool.sqlite3")
        self.max_records, self.max_bytes = max_records, max_bytes
        self.error = ""
        self._lock = threading.Condition()
        self._pending: deque[tuple[int, bytes]] = deque()
        self._closing = False
        self._acknowledged: int | None = None
        self._reader = self._open()
        self._reader.executescript(
            "create table if not exists record(number integer primary key, crc integer, payload blob);"
            "create table if not exists fact(name text primary key, value integer)"
        )
        facts = dict(self._reader.execute("select name, value from fact"))
        self.head = facts.get("head", 1)
        self.published = facts.get("published", 0)
        self.dropped = {name: facts.get(name, 0) for name in ("limit", "damaged")}
        last = self._reader.execute("select max(number) from record").fetchone()[0] or 0
        self._next = max(last + 1, facts.get("next", 1))
        self._position = self.head - 1
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _open(self) -> sqlite3.Connection:
        made = sqlite3.connect(self.path, check_same_thread=False)
        made.execute("pragma journal_mode=wal")
        made.execute("pragma synchronous=normal")
        return made

    def start(self) -> "SqliteSpool":
        """Begin to write."""
        self._thread.start()
        return self

    def offer(self, payload: bytes) -> int:
        """Append a record; its number."""
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._pending.append((number, payload))
            self._lock.notify_all()
        return number

    def read(self, count: int) -> list[tuple[int, bytes]]:
        """The next records."""
        query = "select number, crc, payload from record where number > ? order by number limit ?"
        found = []
        for number, crc, payload in self._reader.execute(query, (self._position, count)).fetchall():
            before = max(self._position, self.head - 1)
            self.dropped["damaged"] += max(0, number - before - 1)
            self._position = number
            if zlib.crc32(payload, number) == crc:
                found.append((number, payload))
            else:
                self.dropped["damaged"] += 1
        return found

    def acknowledge(self, number: int) -> None:
        """Everything up to `number` is done with."""
        with self._lock:
            self._acknowledged = number
            self._lock.notify_all()

    def waiting(self) -> bool:
        """Whether anything is not on the disk."""
        return bool(self._pending)

    def _run(self) -> None:
        made = self._open()
        while True:
            with self._lock:
                if not self._pending and self._acknowledged is None and not self._closing:
                    self._lock.wait()
                batch = [self._pending.popleft() for _ in range(min(1000, len(self._pending)))]
                acknowledged, self._acknowledged, closing = self._acknowledged, None, self._closing
            try:
                with made:
                    self._write(made, batch, acknowledged)
                self.error = ""
            except sqlite3.Error as error:
                self.error = str(error)
                with self._lock:
                    self._pending.extendleft(reversed(batch))
                time.sleep(0.2)
            if closing and (not self._pending or self.error):
                made.close()
                return

    def _write(self, made: sqlite3.Connection, batch: list[tuple[int, bytes]], acknowledged: int | None) -> None:
        rows = [(number, zlib.crc32(payload, number), payload) for number, payload in batch]
        made.executemany("insert into record values(?,?,?)", rows)
        if acknowledged is not None:
            self.published += made.execute("delete from record where number <= ?", (acknowledged,)).rowcount
            self.head = acknowledged + 1
        low, high = made.execute("select min(number), max(number) from record").fetchone()
        pages, page, free = [
            made.execute("pragma " + word).fetchone()[0] for word in ("page_count", "page_size", "freelist_count")
        ]
        cut = high - self.max_records if low is not None else 0
        if low is not None and (pages - free) * page > self.max_bytes:
            cut = max(cut, low + (high - low) // 4)
        if low is not None and cut >= low:
            self.dropped["limit"] += made.execute("delete from record where number <= ?", (cut,)).rowcount
            self.head = max(self.head, cut + 1)
        facts = {"head": self.head, "next": self._next, "published": self.published, **self.dropped}
        made.executemany("insert or replace into fact values(?,?)", list(facts.items()))

    def close(self) -> None:
        """Write what is left."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread.is_alive():
            self._thread.join(10)
        self._reader.close()


MAKERS: dict[str, Any] = {"segments": Spool, "sqlite": SqliteSpool}


def drain(spool: Any) -> list[tuple[int, bytes]]:
    """Everything that comes until nothing has for a fifth of a second."""
    got: list[tuple[int, bytes]] = []
    idle = 0
    while idle < 20:
        rows = spool.read(200)
        if rows:
            got += rows
            spool.acknowledge(rows[-1][0])
            idle = 0
        else:
            idle += 1
            time.sleep(0.01)
    return got


def waits(spool: Any) -> bool:
    """Whether anything is not on the disk."""
    return bool(spool.waiting()) if isinstance(spool, SqliteSpool) else bool(spool._pending or spool._batch)


def fill(spool: Any, count: int) -> dict[int, bytes]:
    """Records by number, all written."""
    sent = {}
    for number in range(count):
        payload = b"%d %s" % (number, BODY)
        sent[spool.offer(payload)] = payload
    while waits(spool):
        time.sleep(0.002)
    return sent


def speed(make: Any, folder: Path) -> dict[str, float]:
    """Seconds to write EVENTS and to read them again, processor seconds of both, bytes on the disk."""
    spool = make(str(folder)).start()
    began, busy = time.perf_counter(), time.process_time()
    fill(spool, EVENTS)
    written = time.perf_counter() - began
    size = sum(path.stat().st_size for path in folder.iterdir())
    began = time.perf_counter()
    got = drain(spool)
    drained = time.perf_counter() - began - 0.2
    assert [number for number, _ in got] == list(range(1, EVENTS + 1))
    spool.close()
    return {"written_s": written, "drained_s": drained, "cpu_s": time.process_time() - busy, "disk_bytes": size}


def kills(name: str, folder: Path) -> float:
    """How many of KILLS kill -9 left something else than one unbroken row."""
    broken = 0
    for number in range(KILLS):
        place = folder / f"kill{number}"
        child = subprocess.Popen([sys.executable, "-m", "benchmarks.spool_sqlite", "--child", name, str(place)])
        while not place.exists() or sum(path.stat().st_size for path in place.iterdir()) < 50000:
            time.sleep(0.05)
        time.sleep(0.3 * random.random())
        child.kill()
        child.wait()
        spool = MAKERS[name](str(place)).start()
        numbers = [found for found, _ in drain(spool)]
        spool.close()
        broken += not numbers or numbers != list(range(1, len(numbers) + 1))
    return float(broken)


def flips(make: Any, folder: Path) -> dict[str, float]:
    """One flipped bit in the largest file, FLIPS times: records lost, in all and at most; and untold."""
    whole, copy = folder / "whole", folder / "copy"
    spool = make(str(whole)).start()
    sent = fill(spool, 2000)
    time.sleep(1.5)
    spool.close()
    draw, lost, untold, wrong = random.Random(3), [], 0, 0
    for _ in range(FLIPS):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        path = max(copy.iterdir(), key=lambda one: one.stat().st_size)
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(data))
        try:
            damaged = make(str(copy)).start()
            got = drain(damaged)
            told = damaged.dropped["damaged"]
            damaged.close()
        except sqlite3.Error:
            got, told = [], 0
        lost.append(len(sent) - len(got))
        untold += told != lost[-1]
        wrong += any(sent.get(number) != payload for number, payload in got)
    return {"flips_lost": sum(lost), "flips_lost_most": max(lost), "flips_not_counted": untold, "flips_wrong": wrong}


def child(name: str, folder: str) -> None:
    """Write until killed."""
    spool = MAKERS[name](folder).start()
    while True:
        for _ in range(50):
            spool.offer(BODY)
        time.sleep(0.005)


def main() -> int:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        found: dict[str, dict[str, float]] = {name: {} for name in MAKERS}
        for turn in range(3):  # in turns, so that both meet the same load
            for name, make in MAKERS.items():
                for what, value in speed(make, Path(place) / f"{name}{turn}").items():
                    found[name][what] = min(value, found[name].get(what, value))
        for name, make in MAKERS.items():
            folder = Path(place) / f"{name}-more"
            folder.mkdir()
            found[name]["kills_broken"] = kills(name, folder)
            found[name].update(flips(make, folder))
        for name, values in found.items():
            for what, value in values.items():
                print(f"{name:10} {what:20} {value:12.3f}")
                shown = f"{value:.3f}" if what.endswith("_s") else f"{value:.0f}"
                rows.append(dict(zip(FIELDS, (name, what, shown, date.today().isoformat(), describe()), strict=True)))
    if args.write:
        text = io.StringIO()
        table = csv.DictWriter(text, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        files.write_text(str(OUT), text.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
