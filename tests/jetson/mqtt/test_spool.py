"""The spool from outside: real files, killed processes, a disk that takes no more."""

import glob
import json
import os
import subprocess
import sys

import pytest
from refusals import refused
from serving import ROOT, wait_for

from jetson.errors import BadInput, JetmaskError
from jetson.mqtt import segment
from jetson.mqtt.spool import Spool


def wait_written(spool):
    wait_for(lambda: not spool._pending and not spool._batch, "everything is written")


def fill(spool, low, high):
    """Offer records low..high, whose payload tells their number."""
    for number in range(low, high + 1):
        assert spool.offer(b"event %d" % number) == number
    wait_written(spool)


def read_all(spool, step=7):
    found = []
    spool.rewind()
    while True:
        part = spool.read(step)
        if not part:
            return found
        found += part


def numbers(records):
    for number, payload in records:
        assert payload == b"event %d" % number
    return [number for number, _ in records]


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "spool")


def opened(folder, **limits):
    return Spool(folder, **limits).start()


def test_in_order_until_acknowledged_and_over_a_restart(folder):
    spool = opened(folder, segment_bytes=500)
    fill(spool, 1, 100)
    assert numbers(spool.read(10)) == list(range(1, 11)) and numbers(spool.read(3)) == [11, 12, 13]
    spool.acknowledge(5)
    assert numbers(read_all(spool)) == list(range(6, 101))
    spool.close()
    again = opened(folder, segment_bytes=500)
    assert numbers(read_all(again)) == list(range(6, 101))
    fill(again, 101, 120)
    assert numbers(read_all(again)) == list(range(6, 121))
    again.acknowledge(120)
    assert again.read(5) == [] and again.state()["waiting"] == 0
    again.close()
    last = opened(folder)
    assert last.state()["published"] == 120 and last.offer(b"event 121") == 121
    last.close()
    assert len(glob.glob(os.path.join(folder, "*.seg"))) == 1


def test_over_the_limit_the_oldest_goes_and_is_counted(folder):
    spool = opened(folder, max_records=100, segment_bytes=700)
    fill(spool, 1, 100)
    assert spool.state()["dropped"] == {"limit": 0, "disk": 0, "damaged": 0, "refused": 0}
    fill(spool, 101, 257)
    wait_for(lambda: spool.state()["waiting"] == 100, "the limit is held")
    assert numbers(read_all(spool)) == list(range(158, 258))
    assert spool.state()["dropped"]["limit"] == 157
    spool.close()
    again = opened(folder, max_records=30)
    wait_for(lambda: again.state()["waiting"] == 30, "the lower limit is held")
    assert again.state()["dropped"]["limit"] == 227 and numbers(read_all(again)) == list(range(228, 258))
    again.close()


def test_what_is_dropped_while_it_is_read_is_not_given_out(folder):
    spool = opened(folder, max_records=50)
    fill(spool, 1, 50)
    assert numbers(spool.read(2)) == [1, 2]  # the rest was read ahead
    fill(spool, 51, 80)
    wait_for(lambda: spool.state()["dropped"]["limit"] == 30, "the limit is held")
    assert numbers(spool.read(100)) == list(range(31, 81))
    spool.acknowledge(2)  # too late: already counted as dropped
    assert spool.state()["published"] == 0 and spool.state()["waiting"] == 50
    spool.close()


def test_the_disks_share_is_bounded(folder):
    spool = opened(folder, max_bytes=20000)
    for number in range(1, 2001):
        spool.offer((b"event %d" % number).ljust(100))
        if number % 100 == 0:
            wait_written(spool)
            used = sum(os.path.getsize(path) for path in glob.glob(os.path.join(folder, "*.seg")))
            assert used <= 20000 + 2 * 5000 + 100 * 120, used  # a segment being begun, and one batch
    state = spool.state()
    assert state["waiting"] + state["dropped"]["limit"] == 2000 and state["waiting"] > 50
    assert state["disk_bytes"] <= 20000
    spool.close()


def test_one_process_at_a_time(folder):
    spool = opened(folder)
    with refused(JetmaskError, where="lock"):
        Spool(folder)
    spool.close()
    Spool(folder).close()


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with refused(BadInput, where=tmp_path / "file"):
        Spool(str(tmp_path / "file"))


# -- damage -----------------------------------------------------------------------------------------------------------


def only_segment(folder):
    paths = glob.glob(os.path.join(folder, "*.seg"))
    assert len(paths) == 1
    return paths[0]


def reopened(folder, data, cursor):
    """Write `data` and `cursor` as the only segment and the cursor; (numbers, damaged, next number), opened twice."""
    with open(only_segment(folder), "wb") as file:
        file.write(data)
    with open(os.path.join(folder, "cursor"), "wb") as file:
        file.write(cursor)
    spool = Spool(folder)
    found = numbers(read_all(spool)), spool.state()["dropped"]["damaged"]
    spool.start()
    spool.close()
    again = Spool(folder).start()
    assert (numbers(read_all(again)), again.state()["dropped"]["damaged"]) == found  # not counted twice
    following = again.offer(b"event")
    again.close()
    os.unlink(sorted(glob.glob(os.path.join(folder, "*.seg")))[-1])
    return found + (following,)


@pytest.fixture
def three(folder):
    """A folder with records 1 to 3; (folder, the segment's bytes, the cursor's bytes before they were written)."""
    spool = opened(folder)
    wait_for(lambda: os.path.getsize(os.path.join(folder, "cursor")) >= 1024, "a cursor")
    with open(os.path.join(folder, "cursor"), "rb") as file:
        cursor = file.read()
    fill(spool, 1, 3)
    spool.close()
    with open(only_segment(folder), "rb") as file:
        return folder, file.read(), cursor


def test_a_torn_end_is_cut_off_wherever_it_is(three):
    folder, data, cursor = three
    size = (len(data) - segment.HEADER.size) // 3
    for end in range(len(data) - size, len(data)):
        assert reopened(folder, data[:end], cursor) == ([1, 2], 0, 3), end
    assert reopened(folder, data + b"JMR1" + b"\0" * 9, cursor) == ([1, 2, 3], 0, 4)


def test_a_flipped_byte_costs_one_record_and_is_counted(three):
    folder, data, cursor = three
    size = (len(data) - segment.HEADER.size) // 3
    for at in range(segment.HEADER.size + size, segment.HEADER.size + 2 * size):
        broken = bytearray(data)
        broken[at] ^= 0x41
        assert reopened(folder, bytes(broken), cursor) == ([1, 3], 1, 4), at


def test_what_the_cursor_knows_of_and_the_disk_lost_is_counted(three):
    folder, data, _ = three
    with open(os.path.join(folder, "cursor"), "rb") as file:
        late = file.read()
    size = (len(data) - segment.HEADER.size) // 3
    assert reopened(folder, data[:-size], late) == ([1, 2], 1, 4)
    os.unlink(only_segment(folder))
    for _ in range(2):
        spool = Spool(folder).start()
        assert spool.state()["waiting"] == 0 and spool.state()["dropped"]["damaged"] == 4  # 1, 2 and "event", too
        spool.close()
    spool = Spool(folder)
    assert spool.offer(b"") == 5
    spool.close()


def test_a_record_that_rots_while_it_waits_is_counted(folder):
    spool = opened(folder)
    fill(spool, 1, 9)
    path = only_segment(folder)
    with open(path, "r+b") as file:
        data = file.read()
        file.seek(data.index(b"event 4"))
        file.write(b"E")
    assert numbers(read_all(spool)) == [1, 2, 3, 5, 6, 7, 8, 9]
    spool.acknowledge(9)
    state = spool.state()
    assert state["dropped"]["damaged"] == 1 and state["published"] == 8 and state["waiting"] == 0
    spool.close()


def test_a_torn_cursor_leaves_the_one_before(tmp_path):
    path = str(tmp_path / "cursor")
    cursor = segment.Cursor(path)
    for head in range(1, 6):
        cursor.write({"head": head})
    cursor.close()
    with open(path, "rb") as file:
        whole = file.read()
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 0xFF
        with open(path, "wb") as file:
            file.write(bytes(broken))
        again = segment.Cursor(path)
        assert again.values.get("head") in (4, 5), at
        again.close()
    with open(path, "wb") as file:
        file.write(b"\xff" * 1024)
    lost = segment.Cursor(path)
    assert lost.values == {}
    lost.close()


def test_without_a_cursor_everything_is_given_out_again(folder):
    spool = opened(folder, segment_bytes=300)
    fill(spool, 1, 50)
    spool.acknowledge(20)
    spool.close()
    os.unlink(os.path.join(folder, "cursor"))
    again = Spool(folder)
    found = numbers(read_all(again))
    assert found == list(range(found[0], 51)) and found[0] <= 21 and again.offer(b"") == 51
    again.close()


# -- kill -9 ----------------------------------------------------------------------------------------------------------

VICTIM = """
import sys, time
from jetson.mqtt.spool import Spool
spool = Spool(sys.argv[1], segment_bytes=2000).start()
while True:
    for _ in range(5):
        number = spool.offer(b"event %d" % spool._next)
    found = spool.read(100)
    if found:  # what is read was written
        print("written", *[number for number, _ in found], flush=True)
        if len(found) > 3 and sys.argv[2] == "drain":
            spool.acknowledge(found[-3][0])
    time.sleep(0.001)
"""


def kill_rounds(folder, mode, rounds):
    written = set()
    for turn in range(rounds):
        process = subprocess.Popen(
            [sys.executable, "-c", VICTIM, folder, mode], stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=ROOT)
        )
        try:
            said = [process.stdout.readline() for _ in range(20 + 7 * turn)]
        finally:
            process.kill()
            process.wait()
        said += process.stdout.readlines()
        process.stdout.close()
        for line in said:
            if line.startswith(b"written") and line.endswith(b"\n"):
                written.update(int(number) for number in line.split()[1:])
        spool = Spool(folder, segment_bytes=2000)
        found = numbers(read_all(spool))
        # Numbers that were offered and not written yet when it was killed may be missing, and no others.
        assert found == sorted(set(found)) and {number for number in written if number >= found[0]} <= set(found)
        assert found[0] < max(written)  # it acknowledges up to two less than it has read
        assert spool.state()["dropped"] == {"limit": 0, "disk": 0, "damaged": 0, "refused": 0}
        spool.close()
    return found


@pytest.mark.parametrize("mode", ["keep", "drain"])
def test_killed_again_and_again_nothing_written_is_lost(folder, mode):
    found = kill_rounds(folder, mode, 4)
    assert mode == "drain" or found[0] == 1


@pytest.mark.full
@pytest.mark.parametrize("mode", ["keep", "drain"])
def test_killed_forty_times(folder, mode):
    kill_rounds(folder, mode, 40)


# -- a disk that takes no more ----------------------------------------------------------------------------------------

FULL_DISK = """
import json, resource, sys, time
from jetson.mqtt import spool as module
from jetson.mqtt.spool import Spool

def wait(check):
    end = time.monotonic() + 50
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)

module.MEMORY = 300
spool = Spool(sys.argv[1]).start()
for number in range(1, 51):
    spool.offer(b"event %d" % number)
wait(lambda: not spool._pending and not spool._batch)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # from here on each write fails
for number in range(51, 61):
    spool.offer(b"event %d" % number)
wait(lambda: spool.error)
said = spool.error
wait(lambda: len(spool._pending) == 10)
found = spool.read(20) + spool.read(100)
assert [number for number, _ in found] == list(range(1, 61)), found
spool.acknowledge(55)
for number in range(61, 461):
    spool.offer(b"event %d" % number)
wait(lambda: spool.state()["dropped"]["disk"])
wait(lambda: len(spool._pending) == 300)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
wait(lambda: not spool.error and not spool._pending and not spool._batch)
spool.rewind()
left = []
while True:
    part = spool.read(50)
    if not part:
        break
    left += [number for number, _ in part]
spool.close()
print(json.dumps({"said": said, "left": left, "state": Spool(sys.argv[1]).state()}))
"""


def test_a_full_disk_costs_nothing_while_memory_lasts(folder):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=ROOT),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout.decode())
    assert "not kept on disk" in result["said"]
    # 56..60 and 61..460 wait, 300 have room: 105 are dropped, the oldest.
    assert result["left"] == list(range(161, 461))
    assert result["state"]["dropped"] == {"limit": 0, "disk": 105, "damaged": 0, "refused": 0}
    assert result["state"]["published"] == 55 and result["state"]["waiting"] == 300
