"""The outbox: order, bound and counts, over a restart, a kill -9, a full disk and a damaged file."""

import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from jetson.alerts.outbox import Outbox
from jetson.errors import BadInput


def drain(outbox, receiver):
    """What waits for a receiver, in order."""
    found = []
    while True:
        one = outbox.first(receiver)
        if one is None:
            return found
        found.append(one.body["n"])
        outbox.over(receiver, one.number)


def test_each_receiver_gets_all_in_order_also_after_a_restart(tmp_path):
    path = str(tmp_path / "state" / "alerts.sqlite3")
    outbox = Outbox(path)
    for number in range(5):
        outbox.add(["a", "b"], {"n": number}, b"jpeg" if number == 0 else None)
    assert outbox.first("a").picture == b"jpeg"
    assert drain(outbox, "a") == [0, 1, 2, 3, 4]
    assert outbox.first("b").picture == b"jpeg"
    outbox.close()
    again = Outbox(path)
    assert drain(again, "a") == [] and drain(again, "b") == [0, 1, 2, 3, 4]
    # Nobody waits for the picture any more.
    assert again._connection.execute("SELECT count(*) FROM alerts WHERE picture IS NOT NULL").fetchone()[0] == 0
    assert [body["n"] for body in again.latest(3)] == [4, 3, 2]
    assert os.stat(path).st_mode & 0o077 == 0
    again.close()


def test_over_the_bound_the_oldest_go_and_are_counted(tmp_path):
    outbox = Outbox(str(tmp_path / "a.sqlite3"), keep=10)
    for number in range(25):
        outbox.add(["a"], {"n": number})
    assert (outbox.waiting("a"), outbox.dropped("a")) == (10, 15)
    assert drain(outbox, "a") == list(range(15, 25))
    outbox.add(["a"], {"n": 25})
    outbox.over("a", outbox.first("a").number, taken=False)
    assert outbox.dropped("a") == 16
    outbox.add(["gone"], {"n": 26})
    outbox.forget(["a"])
    assert outbox.waiting("gone") == 0
    outbox.close()


WRITER = """
import sys
from jetson.alerts.outbox import Outbox
outbox = Outbox(sys.argv[1], keep=100000)
number = int(sys.argv[2])
while True:
    outbox.add(["a"], {"n": number})
    print(number, flush=True)
    number += 1
"""


def test_what_was_kept_before_a_kill_is_there(tmp_path, root):
    path, kept = str(tmp_path / "a.sqlite3"), -1
    for moment in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(kept + 1)], cwd=root, stdout=subprocess.PIPE
        )
        for _ in range(5 + moment):
            kept = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        kept = int(([str(kept).encode()] + process.stdout.read().split())[-1])
        process.stdout.close()
        process.wait()
        outbox = Outbox(path)
        # One more may be there: committed, but not yet acknowledged.
        last = outbox.latest(1)[0]["n"]
        assert last in (kept, kept + 1) and outbox.waiting("a") == last + 1
        kept = last
        outbox.close()
    outbox = Outbox(path)
    assert drain(outbox, "a") == list(range(kept + 1))
    outbox.close()


def test_a_full_disk_takes_all_of_an_alert_or_nothing(tmp_path):
    outbox = Outbox(str(tmp_path / "a.sqlite3"))
    outbox.add(["a"], {"n": 0})
    pages = outbox._connection.execute("PRAGMA page_count").fetchone()[0]
    outbox._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    taken = 1
    with pytest.raises(sqlite3.OperationalError):
        for taken in range(1, 1000):
            outbox.add(["a", "b"], {"n": taken, "text": "x" * 1000})
    assert outbox.waiting("a") == taken and outbox.waiting("b") == taken - 1
    outbox.over("a", outbox.first("a").number)  # there is room to go on
    outbox.close()


def test_a_file_that_is_only_locked_is_not_put_aside(tmp_path, monkeypatch):
    path = str(tmp_path / "a.sqlite3")
    outbox = Outbox(path)
    outbox.add(["a"], {"n": 0})
    outbox.close()
    held = sqlite3.connect(path, isolation_level=None)
    held.execute("PRAGMA locking_mode = EXCLUSIVE")
    held.execute("UPDATE dropped SET count = 0")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout, **more: connect(path, timeout=0.01, **more))
    with pytest.raises(BadInput) as told:
        Outbox(path)
    assert "locked" in told.value.what
    held.close()
    outbox = Outbox(path)
    assert not outbox.damaged and drain(outbox, "a") == [0]
    outbox.close()


def test_a_damaged_file_is_put_aside_and_a_newer_one_refused(tmp_path):
    path = str(tmp_path / "a.sqlite3")
    with open(path, "wb") as file:
        file.write(b"no database at all" * 100)
    outbox = Outbox(path)
    assert outbox.damaged and os.path.exists(outbox.damaged) and outbox.waiting("a") == 0
    outbox.add(["a"], {"n": 1})
    outbox._connection.execute("PRAGMA user_version = 99")
    outbox.close()
    with pytest.raises(BadInput) as told:
        Outbox(path)
    assert told.value.where == path
    with pytest.raises(BadInput):
        Outbox(os.path.join("/proc", "nowhere", "a.sqlite3"))
