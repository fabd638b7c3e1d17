"""The events file: what is there already, what a power cut left, a disk that takes no more."""

import contextlib
import json
import os
import random
import resource
import signal

from jetson.monitor import journal
from jetson.monitor.journal import Journal


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_numbers_go_on_and_half_a_line_goes(tmp_path):
    path = tmp_path / "events.jsonl"
    first = Journal(str(path))
    first.add("enter", camera=0)
    first.close()
    path.write_bytes(path.read_bytes() + b'{"number": 2, "kind": "ha')
    second = Journal(str(path))
    second.add("leave", camera=0)
    second.close()
    assert [(row["number"], row["kind"]) for row in rows(path)] == [(1, "enter"), (2, "leave")]


def test_a_file_of_a_year_is_not_read_whole(tmp_path):
    """300 MB of events: its end tells all, and a start may not take that much memory."""
    path = tmp_path / "events.jsonl"
    with open(str(path), "wb") as file:
        file.truncate(300 << 20)
        file.seek(0, 2)
        file.write(b'\n{"number": 41}\n{"number": 42, "ki')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = Journal(str(path))
    assert made.add("enter")["number"] == 42
    made.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10
    with open(str(path), "rb") as file:
        file.seek(-4096, 2)
        assert [json.loads(line)["number"] for line in file.read().split(b"\n")[1:-1]] == [41, 42]


def test_a_file_that_was_rotated_away_is_begun_anew(tmp_path):
    path = tmp_path / "events"
    made = Journal(str(path))
    made.add("enter")
    os.rename(str(path), str(tmp_path / "events.1"))
    made.add("leave")
    made.add("enter")
    assert [row["number"] for row in rows(tmp_path / "events.1")] == [1]
    assert [row["number"] for row in rows(path)] == [2, 3]
    os.unlink(str(path))
    made.add("leave")
    made.close()
    assert [row["number"] for row in rows(path)] == [4] and made.error == ""


def test_a_full_disk_is_told_and_the_end_is_orderly(tmp_path):
    path = tmp_path / "events.jsonl"
    made = Journal(str(path))
    made.add("enter")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
        made.add("leave")
        assert "events are not written" in made.error
        made.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(made.latest()) == 2
    again = Journal(str(path))
    assert again.add("enter")["number"] == 2
    again.close()
    assert [row["number"] for row in rows(path)] == [1, 2]


@contextlib.contextmanager
def full(path, left=0):
    """The disk takes only `left` further bytes of this file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + left, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_is_full_again_and_again_costs_no_event(tmp_path):
    """663 events, of which 360 come while the disk takes nothing, or a part of one."""
    path, draw, count = tmp_path / "events.jsonl", random.Random(1), 0
    made = Journal(str(path))
    for turn in range(6):
        for _ in range(50):
            made.add("enter", pad="z" * draw.randrange(400))
        with full(path, draw.choice([0, 37, 4096])):
            for _ in range(60):
                made.add("enter", pad="z" * draw.randrange(400))
            assert "events are not written" in made.error and "wait in memory" in made.error
            assert 0 < made.state()["waiting"] <= 60
            assert path.read_bytes().endswith(b"}\n")  # no half line, whatever the disk has taken
        made.retry() if turn % 2 else made.add("leave")
        count += 110 if turn % 2 else 111
        assert made.error == "" and made.state() == {"waiting": 0, "dropped": 0, "error": ""}
    made.close()
    assert [row["number"] for row in rows(path)] == list(range(1, count + 1))


def test_what_memory_cannot_hold_is_counted_and_stays_told(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MEMORY", 5)
    path = tmp_path / "events.jsonl"
    made = Journal(str(path))
    made.add("enter")
    with full(path):
        for _ in range(8):
            made.add("enter")
        assert made.state()["waiting"] == 5 and "3 were lost" in made.error
    made.add("leave")
    assert [row["number"] for row in rows(path)] == [1, 5, 6, 7, 8, 9, 10]
    assert made.state() == {"waiting": 0, "dropped": 3, "error": "3 events were lost while the disk took none"}
    made.close()


def test_large_events_are_bounded_by_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MEMORY_BYTES", 10000)
    path = tmp_path / "events.jsonl"
    made = Journal(str(path))
    with full(path):
        for _ in range(50):
            made.add("enter", pad="z" * 1000)
    assert 5 <= made.state()["waiting"] <= 9 and made.dropped == 50 - made.state()["waiting"]
    made.close()


def test_half_a_line_that_cannot_be_cut_off_spoils_no_other(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    made = Journal(str(path))
    made.add("enter")

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch, full(path, 20):
        patch.setattr(os, "ftruncate", refuse)
        made.add("leave")
        assert not path.read_bytes().endswith(b"\n")
    made.add("enter")
    made.close()
    good = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            good.append(json.loads(line)["number"])
    assert good == [1, 2, 3]


def test_the_end_writes_what_waits(tmp_path):
    path = tmp_path / "events.jsonl"
    made = Journal(str(path))
    with full(path):
        made.add("enter")
    made.close()
    assert [row["number"] for row in rows(path)] == [1]
