import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from refusals import refused

from jetson import files
from jetson.errors import BadInput, JetmaskError


def leftovers(folder):
    return [name for name in os.listdir(str(folder)) if name.endswith(".part")]


def test_writes_replace_the_whole_file(tmp_path):
    path = str(tmp_path / "a.json")
    files.write_text(path, "a long first content\n" * 100)
    files.write_json(path, {"grün": [1, 2.5, None]})
    assert files.read_json(path) == {"grün": [1, 2.5, None]}
    files.write_bytes(path, b"\x00\x01")
    assert Path(path).read_bytes() == b"\x00\x01"
    assert leftovers(tmp_path) == []


def test_a_written_file_can_be_read_by_others_as_the_umask_says(tmp_path):
    path = str(tmp_path / "a")
    before = os.umask(0o022)
    try:
        files.write_text(path, "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644


def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = str(tmp_path / "a")
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.aside(path) as part:
        with open(part, "w") as file:
            file.write("half")
        raise RuntimeError("no")
    with pytest.raises(KeyboardInterrupt), files.aside(path):
        raise KeyboardInterrupt
    assert Path(path).read_text() == "old"
    assert os.listdir(str(tmp_path)) == ["a"]


def test_a_missing_folder_is_bad_input_before_anything_is_done(tmp_path):
    with refused(BadInput, names=tmp_path / "no"):
        files.write_text(str(tmp_path / "no" / "a"), "x")


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError):
        files.write_json(str(tmp_path / "a"), {"ap": float("nan")})
    assert os.listdir(str(tmp_path)) == []


def test_the_longest_name_a_folder_allows_can_be_written(tmp_path):
    path = str(tmp_path / ("ü" * 127))
    files.write_text(path, "x")
    assert Path(path).read_text() == "x"


@pytest.mark.parametrize(
    "content, line",
    [
        (b'{\n "a": 1,\n}', 3),
        (b"", 1),
        (b"\n\n\xff", 3),
        (b"[" * 100000, None),
    ],
)
def test_bad_json_is_named_with_its_line(tmp_path, content, line):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with refused(BadInput, where=path, names="JSON") as caught:
        files.read_json(str(path))
    if line:
        assert f"line {line}" in caught.value.where


def test_a_missing_json_file_is_bad_input(tmp_path):
    with refused(BadInput, names="no.json"):
        files.read_json(str(tmp_path / "no.json"))


def test_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3000000)
    assert files.sha256(str(path)) == hashlib.sha256(b"x" * 3000000).hexdigest()


def child(code, *arguments, **popen):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return subprocess.Popen(
        [sys.executable, "-c", code] + list(arguments),
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **popen,
    )


HOLD = """
import sys, time
from jetson import files
with files.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_excludes_and_dies_with_its_holder(tmp_path):
    path = str(tmp_path / "lock")
    holder = child(HOLD, path)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(JetmaskError), files.lock(path, wait=False):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with files.lock(path, wait=False):
        assert os.path.exists(path)


WRITE_FOR_EVER = """
import sys
from jetson import files
for number in range(10 ** 9):
    files.write_text(sys.argv[1], str(number % 10) * 200000)
    if number == 0:
        print("going", flush=True)
"""


def kill_a_writer(folder, delay):
    path = str(folder / "a")
    writer = child(WRITE_FOR_EVER, path)
    try:
        assert writer.stdout.readline() == b"going\n"
        time.sleep(delay)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    text = Path(path).read_text()
    assert len(text) == 200000 and len(set(text)) == 1
    left = leftovers(folder)
    assert len(left) <= 1
    assert files.sweep_aside(str(folder)) == left
    assert leftovers(folder) == []


def test_kill_9_leaves_a_whole_file(tmp_path):
    for number in range(6):
        kill_a_writer(tmp_path, 0.003 * number)


@pytest.mark.full
def test_kill_9_leaves_a_whole_file_two_hundred_times(tmp_path):
    for number in range(200):
        kill_a_writer(tmp_path, 0.0007 * number)


def test_sweeping_spares_the_living_and_what_is_not_ours(tmp_path):
    mine = tmp_path / f".a.{os.getpid()}.0123abcd.part"
    dead = tmp_path / ".a.4194303.0123abcd.part"
    for path in (mine, dead, tmp_path / "b.part", tmp_path / ".hidden"):
        path.write_text("x")
    assert files.sweep_aside(str(tmp_path)) == [dead.name]
    assert sorted(os.listdir(str(tmp_path))) == sorted([mine.name, "b.part", ".hidden"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_an_os_error_that_leaves_nothing(tmp_path):
    # RLIMIT_FSIZE stands in for a full disk: write() fails part of the way.
    code = """
import resource, signal, sys
from jetson import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write_bytes(sys.argv[1], b"x" * 100000)
except OSError as error:
    print(error.errno)
"""
    out, _ = child(code, str(tmp_path / "a")).communicate()
    assert out.strip().isdigit()
    assert os.listdir(str(tmp_path)) == []
