"""A machine over ssh: what is a broken link and what is not, on a real sshd."""

import os
import shlex
import tempfile

import pytest
from sshd import Sshd, missing

from jetson.errors import JetmaskError, UsageError
from pipeline.remote import Remote, Unreachable

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
        with pytest.raises(JetmaskError, match="was killed there") as caught:
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
    with pytest.raises(UsageError, match="--retries -1"):
        Remote("device", retries=-1)
