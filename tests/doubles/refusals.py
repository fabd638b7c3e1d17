"""Errors held against their class and the facts in them - where, and which names and numbers - not their sentences.

A sentence may be mended at any time; the file, line, key, option or number that it tells is what a user acts upon.
"""

import contextlib
import os

import pytest


@contextlib.contextmanager
def refused(error, where=None, names=()):
    """`with refused(BadInput, where="a.json, line 3", names=["with_mask"]) as caught:` - the block raises that error.

    `where`: what its `where` has in it (a path, a line, a key); `names`: what stands anywhere in its message.
    """
    with pytest.raises(error) as caught:
        yield caught
    tells(caught.value, where, names)


def tells(error, where=None, names=()):
    """Asserts that an error names these facts; no error of ours is an internal one."""
    if where is not None:
        assert os.fspath(where) in str(error.where), f"where is {error.where!r}, expected {where!r}"
    text = str(error)
    missing = [name for name in _several(names) if str(name) not in text]
    assert not missing, f"{missing} not told by: {text}"


def failed(done, code, where=None, names=()):
    """Asserts that an ended process (text mode) was refused with this exit code and told these facts on stderr."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr, done.stderr
    if where is not None:
        lines = [line for line in done.stderr.splitlines() if line.startswith("  where: ")]
        assert any(os.fspath(where) in line for line in lines), done.stderr
    missing = [name for name in _several(names) if str(name) not in done.stderr]
    assert not missing, f"{missing} not told by: {done.stderr}"


def _several(names):
    return [names] if isinstance(names, (str, os.PathLike)) else names
