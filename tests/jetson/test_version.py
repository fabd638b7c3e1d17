"""What `--version` says: baked in by a build, asked of git in a checkout, and nothing where neither knows."""

import re
import shutil
import subprocess

import pytest

import jetson
from jetson import version


def test_a_build_has_its_commit_baked_in(tmp_path, monkeypatch):
    baked = tmp_path / "commit.txt"
    baked.write_text("1a2b3c4d\n")
    monkeypatch.setattr(version, "BAKED", baked)
    assert version.text() == jetson.__version__ + " (1a2b3c4d)"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkout_names_its_commit_and_says_when_it_has_changes(tmp_path, monkeypatch):
    def git(*words):
        name = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        done = subprocess.run(["git", "-C", str(tmp_path)] + name + list(words), check=True, stdout=subprocess.PIPE)
        return done.stdout.decode().strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    git("tag", "-a", "v9", "-m", "a tag is not a commit")
    monkeypatch.setattr(version, "ROOT", tmp_path)
    monkeypatch.setattr(version, "BAKED", tmp_path / "none.txt")
    commit = git("rev-parse", "HEAD")
    assert commit.startswith(version.commit()) and len(version.commit()) >= 8
    (tmp_path / "file").write_text("two")
    assert re.match("[0-9a-f]{8,}[+]$", version.commit())


def test_a_copy_without_git_gives_the_version_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(version, "ROOT", tmp_path)
    monkeypatch.setattr(version, "BAKED", tmp_path / "none.txt")
    assert version.commit() is None and version.text() == jetson.__version__
