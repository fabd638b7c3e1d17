"""The events file: what is there already, what a power cut left, a disk that takes no more."""

import json
import os
import resource
import signal

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
