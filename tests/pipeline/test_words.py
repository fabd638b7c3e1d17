"""No message, help, log line or page says the worst of what CONTRIBUTING's style of words warns of."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# pattern: what to write instead, and why
FORBIDDEN = {
    r"\bstands? (there )?twice\b": "appears twice: text does not stand",
    r"\bleave (it|this|them) away\b": "omit it: 'leave away' is not English",
    r"\b(is|are) no (number|score|size|list|object|time|JPEG|share|file|folder|UTF-8)\b": "is not a …",
    r"\bno number any more\b": "NaN: the field's own word can be searched for",
    r"\brate of learning\b": "learning rate",
    r"\b(everybody|whoever) (who )?(looks? in|reaches)\b": "anyone who reaches … can see …",
    r"\bkeeper\b": "supervisor",
    r"\bwords for ssh\b": "options for ssh",
    r"\bgoes on going back\b": "the rollback is resumed",
    r"\bthere is no such\b": "… does not exist, or no such …: shorter, and found by a search",
    r"^mind: ": "note: …",
    r"\bnobody says\b": "the reason is unknown",
    r"\bmade anew\b": "rebuilt",
}


@pytest.fixture(scope="module")
def strings():
    words = [sys.executable, "docs/strings.py", "jetson", "pipeline", "jetmask"]
    kinds = [word for kind in ("help", "error", "log", "print", "page") for word in ("--kind", kind)]
    listed = subprocess.run(words + kinds, cwd=ROOT, check=True, text=True, capture_output=True).stdout
    return [line.split("\t") for line in listed.splitlines()]


def test_the_list_finds_strings_of_every_kind(strings):
    assert {kind for _, kind, _ in strings} == {"help", "error", "log", "print", "page"}
    assert ("error", "the loss is NaN") in {(kind, text) for _, kind, text in strings}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_string_has_a_forbidden_phrase(strings, pattern):
    found = [f"{where}: {text[:90]}" for where, _, text in strings if re.search(pattern, text)]
    assert not found, FORBIDDEN[pattern]
