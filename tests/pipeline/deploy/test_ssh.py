"""A machine over ssh: what is a broken link and what is not, on a real sshd."""

import os
import shlex
import signal
import tempfile
import time
from contextlib import suppress

import pytest
from refusals import refused
from sshd import Sshd, missing

from jetson.errors import JetmaskError, UsageError
from pipeline.deploy import ssh as remote_of
from pipeline.deploy.ssh import Remote, Unreachable

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed here: {missing()}")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    found = Sshd(tmp_path_factory.mktemp("sshd") / "device")
    yield found
    found.close()


@pytest.mark.parametrize("follow", [None, lambda line: None])
def test_a_command_that_is_killed_there_is_no_broken_link(sshd, follow):
    """The kernel ends a command for lack of memory: trying it four times more, or the host's key, would not help."""
    said = []
    with Remote("device", ["-F", sshd.config], retries=1, say=said.append) as remote:
        with refused(JetmaskError, where="kill -9", names="device") as caught:
            remote.run("cd / && exec sh -c 'kill -9 $$'", follow=follow)
        assert not isinstance(caught.value, Unreachable) and "memory" in caught.value.remedy
        assert remote.code("exec sh -c 'kill -9 $$'") == 137 and remote.code("exit 7") == 7
        assert remote.run("set -e\necho a; (exit 3) || echo b  # and no more") == "a\nb\n"
        assert remote.run("cat", stdin="in and out") == "in and out"
    assert said == []


def test_a_name_that_was_known_a_moment_ago_is_asked_for_again(sshd, tmp_path):
    """The network of this machine is away, or the device starts anew: neither is a misspelt name."""
    said = []
    with open(sshd.config) as file:
        text = file.read()
    config = tmp_path / "config"
    config.write_text(text)
    with Remote("device", ["-F", str(config), "-o", "ControlMaster=no"], retries=1, say=said.append) as remote:
        assert remote.run("echo here") == "here\n"
        config.write_text(text.replace(f"HostName {sshd.address}", "HostName device.invalid"))
        with pytest.raises(Unreachable, match="Could not resolve"):
            remote.run("echo here")
    assert len(said) == 1
    with Remote("device", ["-F", str(config)], retries=1, say=said.append) as remote, pytest.raises(Unreachable):
        remote.run("echo here")
    assert len(said) == 1


def test_a_long_folder_for_temporary_files_is_no_obstacle(sshd, tmp_path, monkeypatch):
    folder = tempfile.mkdtemp(prefix="t" * 50)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    try:
        with Remote("device", ["-F", sshd.config], retries=0) as remote:
            assert remote.run("echo here") == "here\n"
    finally:
        os.rmdir(folder)


def test_an_ipv6_address_is_copied_to(tmp_path, capsys):
    for target, there in (("me@fd00::5", "me@[fd00::5]:/x"), ("::1", "[::1]:/x"), ("me@nano", "me@nano:/x")):
        with Remote(target, dry_run=True) as remote:
            remote.copy(str(tmp_path), "/x")
        assert there in shlex.split(capsys.readouterr().out)


def test_no_password_is_in_an_error(sshd):
    with Remote("device", ["-F", sshd.config], retries=0) as remote, pytest.raises(JetmaskError) as caught:
        remote.run("false --proxy http://me:secret@10.0.0.2:3128")
    assert "secret" not in str(caught.value) and "--proxy" in str(caught.value)


def test_a_negative_number_of_retries_is_refused():
    with refused(UsageError, names="--retries -1"):
        Remote("device", retries=-1)


def _processes(*words):
    """The processes whose command line has all of `words` in it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read()
            if int(pid) != os.getpid() and all(word.encode() in line for word in words):
                found.append(int(pid))
    return found


def _gone(*words, within_s=20):
    end = time.monotonic() + within_s
    while _processes(*words) and time.monotonic() < end:
        time.sleep(0.1)
    return not _processes(*words)


@pytest.mark.parametrize("follow", [None, lambda line: None])
def test_a_command_that_hangs_is_ended_there_and_here(sshd, follow):
    mark = f"9{os.getpid()}"
    with Remote("device", ["-F", sshd.config], retries=1) as remote:
        for command in (f"echo so far; sleep {mark}", f"trap '' TERM; echo so far; sleep {mark}"):
            with refused(JetmaskError, names=["device", "2 s"]) as caught:
                remote.run(command, follow=follow, limit_s=2)
            assert not isinstance(caught.value, Unreachable) and "so far" in str(caught.value)
            assert mark in caught.value.where and "run the same command again" in caught.value.remedy
            assert _gone("sleep", mark), "nothing of it may be in the way of the next try"
        with refused(JetmaskError, where="sleep 923117", names=["device", "1 s"]):
            remote.code(f"sleep {mark}", limit_s=1)
        assert remote.run("echo here", follow=follow) == "here\n"


def test_every_question_has_a_limit_that_nobody_asked_for(sshd, monkeypatch):
    monkeypatch.setattr(remote_of, "QUICK_S", 1)
    with Remote("device", ["-F", sshd.config], retries=0) as remote:
        for ask in (remote.run, remote.code):
            with refused(JetmaskError, where="sleep 60", names="1 s"):
                ask("sleep 60")
        assert remote.code("exit 124") == 124, "in time, it is the command's own"


def _stopped(words):
    """Stop the one process with these words, as a frozen device or a hung ssh would stand still."""
    found = _processes(*words)
    assert found
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    return found


@pytest.mark.parametrize("follow", [None, lambda line: None])
def test_a_connection_that_hangs_is_given_up_and_made_anew(sshd, tmp_path, monkeypatch, follow):
    monkeypatch.setattr(remote_of, "GRACE_S", 1)
    monkeypatch.setattr(remote_of, "STALL_S", 2)
    said = []
    with Remote("device", ["-F", sshd.config], retries=1, say=said.append) as remote:
        scratch = remote._scratch
        assert remote.run("echo here") == "here\n"
        _stopped(["ssh: ", scratch])
        with refused(Unreachable, where="echo where", names=["device", "1 s"]) as caught:
            remote.run("echo where", follow=follow, limit_s=1)
        assert "echo where" in caught.value.where and "`ssh device true`" in caught.value.remedy
        assert _gone(scratch), "no ssh stays behind"
        assert remote.run("echo here", follow=follow) == "here\n"

        _stopped(["ssh: ", scratch])
        (tmp_path / "file").write_text("sent")
        remote.copy(str(tmp_path / "file"), f"{sshd.home}/file")
        assert remote.run(["cat", f"{sshd.home}/file"]) == "sent" and len(said) == 1 and "timeout" in said[0]

        _stopped(["ssh: ", scratch])
    assert _gone(scratch) and not os.path.exists(scratch)


def test_a_device_that_freezes_is_told(sshd, monkeypatch):
    """Its kernel still answers, its programs do not: ssh notices that by its own questions, or the limit ends it."""
    monkeypatch.setattr(remote_of, "GRACE_S", 1)
    with Remote("device", ["-F", sshd.config, "-o", "ServerAliveInterval=0"], retries=0) as remote:
        assert remote.run("echo here") == "here\n"
        # The session's own sshd: the newest one, since the listener is older.
        frozen = [pid for pid in _processes("sshd: ") if _parent(pid) == sshd.process.pid]
        assert frozen
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            with refused(Unreachable, where="echo here", names="device"):
                remote.run("echo here", limit_s=1)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        assert remote.run("echo here") == "here\n"


def _parent(pid):
    with suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
    return None
