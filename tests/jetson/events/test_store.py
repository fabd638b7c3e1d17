"""jetson/events/store.py: real files, kills, a full disk, damage, retention, queries."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from serving import ROOT

from jetson.errors import BadInput
from jetson.events import store as module
from jetson.events.store import Query, Store
from jetson.monitor.journal import stamp

NOW = 1_790_000_000.0


def event(number=0, at=None, kind="enter", camera="gate", label="with_mask", **more):
    """An event as the journal gives it."""
    return dict(
        {"at": stamp(NOW + number if at is None else at), "kind": kind, "camera": camera, "label": label}, **more
    )


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "events.sqlite3")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.0)


def filled(path, events, **limits):
    made = Store(path, **dict({"days": 36500}, **limits)).start()
    for one in events:
        made.add(one)
    assert made.flush()
    return made


def test_events_are_found_again_after_a_restart(path):
    first = filled(path, [event(n, person=n) for n in range(50)])
    assert first.find(Query(most=1)) == [dict(event(49, person=49), number=50)]
    first.close()
    again = Store(path, days=36500).start()
    assert again.number == 50 and [e["person"] for e in again.find(Query(most=3))] == [49, 48, 47]
    assert again.add(event(50)) == 51
    again.close()


@pytest.mark.parametrize(
    "query, numbers",
    [
        (Query(), [8, 7, 6, 5, 4, 3, 2, 1]),
        (Query(most=2), [8, 7]),
        (Query(most=3, before=7), [6, 5, 4]),
        (Query(camera="yard"), [8, 6, 4, 2]),
        (Query(label="without_mask"), [8, 7, 4, 3]),
        (Query(zone="queue"), [5]),
        (Query(kind="left"), [8]),
        (Query(since=NOW + 2, until=NOW + 5), [5, 4, 3]),
        (Query(camera="gate", label="with_mask", since=NOW + 1), [5]),
        (Query(camera="nowhere"), []),
        (Query(camera="'; DROP TABLE events; --"), []),
    ],
)
def test_a_query_finds_what_it_names(path, query, numbers):
    made = filled(
        path,
        [
            event(
                n,
                camera="yard" if n % 2 else "gate",
                label="without_mask" if n % 4 > 1 else "with_mask",
                kind="left" if n == 7 else "enter",
                **({"zone": "queue"} if n == 4 else {}),
            )
            for n in range(8)
        ],
    )
    assert [e["number"] for e in made.find(query)] == numbers
    made.close()


def test_persons_by_hour_count_those_who_entered_once_each(path):
    start = NOW - NOW % 3600
    events = [event(at=start + 600 * n, label="with_mask" if n % 3 else "without_mask") for n in range(12)]
    events += [event(at=start, kind="left"), event(at=start, kind="camera lost", label=None)]
    made = filled(path, events)
    found = made.hours(start, start + 7200)
    assert found == [
        {"at": start, "persons": {"with_mask": 4, "without_mask": 2}},
        {"at": start + 3600, "persons": {"with_mask": 4, "without_mask": 2}},
    ]
    assert made.hours(start, start + 1, camera="yard") == [] and len(made.hours(start, start + 1)) == 1
    made.close()


def test_what_is_too_old_or_too_much_goes_the_oldest_first(path):
    made = filled(path, [event(at=NOW - 86400 * n) for n in range(9, -1, -1)], days=36500)
    made.days = 5
    made.tidy(NOW + 1)
    # An hour is kept as long as a part of it is.
    assert len(made.find()) == 5 and len(made.hours(0, NOW + 3600)) == 6
    made.close()
    made = filled(path, [event(n, note="x" * 900) for n in range(6000)], megabytes=1.0)
    made.tidy(NOW)
    left = [e["number"] for e in made.find(Query(most=10000))]
    assert left == list(range(left[0], left[0] - len(left), -1)) and left[0] == made.number and 100 < len(left) < 3000
    assert os.path.getsize(path) < 3e6
    made.close()


WRITER = """
import sys
from jetson.events.store import Store
store = Store(sys.argv[1], days=36500).start()
while True:
    for _ in range(int(sys.argv[2])):
        number = store.add({"at": "2026-12-01T00:00:00.000Z", "kind": "enter", "label": "a", "camera": "0"})
    if store.flush():
        print(number, flush=True)
"""


def killed_after(path, seconds, at_once):
    """The last number that a writer said to be kept, before it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, path, str(at_once)],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=ROOT),
        stdout=subprocess.PIPE,
    )
    first = process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[0]
    return int((first + rest).split(b"\n")[-2])


def check_killed(path, times, at_once):
    """Kill a writer so often, each time at another moment; how many events the file has then, all in their order."""
    kept = 0
    for number in range(times):
        kept = max(kept, killed_after(path, 0.02 * (number % 7), at_once))
    made = Store(path, days=36500)
    numbers = [e["number"] for e in made.find(Query(most=10**6))]
    assert numbers == list(range(len(numbers), 0, -1)) and len(numbers) >= kept and not made.damaged
    assert sum(row["persons"]["a"] for row in made.hours(0, 4e9)) == len(numbers)
    made.close()
    return len(numbers)


def test_nothing_acknowledged_is_lost_by_a_kill(path):
    check_killed(path, 3, 7)


@pytest.mark.full
def test_of_fifty_thousand_events_none_is_lost_by_forty_kills_and_a_full_disk(path):
    # Each of the forty keeps 1,300 at least before it is killed: what it says first, it says after a whole batch.
    count = check_killed(path, 40, 1300)
    assert count >= 50000
    # Retention on the same file: the size is held, the newest stay, none is missing between them.
    made = Store(path, days=36500, megabytes=5.0)
    made.tidy(NOW)
    left = [e["number"] for e in made.find(Query(most=10**6))]
    assert left == list(range(count, count - len(left), -1)) and 1000 < len(left) < count
    made.close()
    assert os.path.getsize(path) < 6e6
    # And a disk that is full, on what is left.
    flushed, error, waiting, dropped, ended, kept, after = on_a_full_disk(path)
    assert not flushed and error and waiting > 0
    assert ended and after == "" and dropped > 0 and kept + dropped == 71 + len(left)


FULL_DISK = """
import json, resource, sys, time
from jetson.events import store as module
module.PAUSE_S, module.WAITING = 0.0, 50
store = module.Store(sys.argv[1], days=36500).start()
event = {"at": "2026-12-01T00:00:00.000Z", "kind": "enter", "label": "a", "camera": "0", "note": "x" * 3000}
store.add(event); assert store.flush()
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
for _ in range(40): store.add(event)
flushed = store.flush(1.5)
error, waiting = store.error, store.state()["waiting"]
for _ in range(30): store.add(event)
dropped = store.dropped
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
ended = store.flush(10)
print(json.dumps([flushed, error, waiting, dropped, ended, len(store.find(module.Query(most=10**6))), store.error]))
store.close()
"""


def on_a_full_disk(path):
    """What FULL_DISK prints."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.decode())


def test_a_full_disk_loses_nothing_up_to_the_bound_and_counts_what_is_over(path):
    flushed, error, waiting, dropped, ended, kept, after = on_a_full_disk(path)
    assert not flushed and error and waiting > 0
    assert ended and after == "" and dropped > 0 and kept + dropped == 71


@pytest.mark.parametrize("damage", [b"this is no database, but a text of some length" * 40, None])
def test_a_damaged_file_is_put_aside_and_a_new_one_begun(path, damage):
    filled(path, [event(n) for n in range(300)]).close()
    with open(path, "r+b") as file:
        file.write(damage if damage is not None else os.urandom(8192))
    made = Store(path, days=36500).start()
    assert os.path.exists(made.damaged) and made.find() == []
    made.add(event())
    assert made.flush() and len(made.find()) == 1
    made.close()


def test_a_newer_file_is_refused_and_left_alone(path):
    filled(path, [event()]).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(BadInput) as caught:
        Store(path)
    assert caught.value.where == path and os.listdir(os.path.dirname(path)) == ["events.sqlite3"]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(BadInput):
        Store(str(tmp_path / "nowhere" / "events.sqlite3"))


def test_an_interrupted_migration_leaves_a_file_that_opens(path):
    connection = sqlite3.connect(path)
    connection.executescript("BEGIN; CREATE TABLE events (number INTEGER PRIMARY KEY);")
    connection.close()  # as a kill does: the transaction is rolled back
    filled(path, [event()]).close()


def test_limits_of_the_system_are_not_touched_by_the_tests():
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
