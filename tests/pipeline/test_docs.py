"""Every command of docs/ is taken by its own parser; the pages written from the code are up to date; links lead on."""

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jetson import __main__ as device
from jetson import cli
from pipeline import cli as host

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
COMMANDS = [
    (page.relative_to(ROOT).as_posix(), line.partition(" #")[0].strip())
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"(jetmask|python3 -m jetson) ", line)
]


@functools.lru_cache(None)
def parser(prog, verb):
    return cli.parser_for(verb, prog, host.VERBS if prog == "jetmask" else device.VERBS)


@pytest.mark.parametrize("page, line", COMMANDS, ids=[f"{page}: {line[:60]}" for page, line in COMMANDS])
def test_a_command_of_the_docs_is_taken_by_its_parser(page, line):
    words = shlex.split(line)
    prog, rest = ("jetmask", words[1:]) if words[0] == "jetmask" else (" ".join(words[:3]), words[3:])
    assert parser(prog, rest[0]).parse_args(rest[1:])


@pytest.mark.parametrize(
    "script, page",
    [
        ("floors.py", "floors.svg"),
        ("reference.py", "reference/verbs.md"),
        ("tables.py", "reference/metrics.md"),
        ("tables.py", "reference/exit-codes.md"),
        ("tables.py", "reference/manifest.md"),
    ],
)
def test_a_page_written_from_the_code_is_up_to_date(script, page):
    before = (ROOT / "docs" / page).read_text(encoding="utf-8")
    try:
        subprocess.run(
            [sys.executable, str(ROOT / "docs" / script)],
            check=True,
            cwd=ROOT,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            capture_output=True,
        )
        after = (ROOT / "docs" / page).read_text(encoding="utf-8")
    finally:
        (ROOT / "docs" / page).write_text(before, encoding="utf-8")
    assert before == after, f"python docs/{script}"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.name)
def test_a_link_to_a_file_leads_to_one(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
