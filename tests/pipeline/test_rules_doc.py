"""docs/rules.md: each rule has a test for every input that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _rows():
    text = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "kind":
            yield cells


def test_each_rule_has_tests_that_exist():
    rows = list(_rows())
    assert len(rows) == 12
    for kind, rule, drawn, cases in rows:
        assert kind and rule and drawn.startswith("`tests/"), kind
        for path, name in re.findall(r"`([^`:]+)::([^`]+)`", drawn + cases):
            text = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"^def {re.escape(name)}\(", text, re.M), f"{path}::{name}"
