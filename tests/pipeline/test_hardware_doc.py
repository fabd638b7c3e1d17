"""docs/hardware.md: each assumption has its source, what happens when it is wrong, a test that exists, and a step."""

import re
from pathlib import Path

from jetson.firstlight.cli import NAMES

ROOT = Path(__file__).resolve().parents[2]


def _rows():
    text = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "assumption":
            yield cells


def test_each_assumption_is_whole():
    rows = list(_rows())
    assert len(rows) >= 30
    for cells in rows:
        assert len(cells) == 5 and all(cells), cells
        path, _, name = cells[3].strip("`").partition("::")
        assert (ROOT / path).is_file(), cells[3]
        if name:
            assert re.search(rf"^def {re.escape(name)}\(", (ROOT / path).read_text(encoding="utf-8"), re.M), cells[3]
        for step in cells[4].split(", "):
            assert step in NAMES or step == "–", cells[4]


def test_each_step_looks_at_an_assumption():
    assert {step for cells in _rows() for step in cells[4].split(", ")} - {"–"} == set(NAMES)


def test_the_report_template_asks_for_the_file():
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "hardware_report.md").read_text(encoding="utf-8")
    assert text.startswith("---\nname: ") and "first-light.json" in text and "jetmask first-light" in text


def test_security_says_what_the_sudoers_line_means():
    text = " ".join((ROOT / "SECURITY.md").read_text(encoding="utf-8").split())
    assert "root without a password" in text and "--service systemd-user" in text
