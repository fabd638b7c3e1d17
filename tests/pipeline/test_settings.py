"""argparse ends at the verb: below its cli.py everything takes typed settings."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Verbs that are one file at the top level, and so their own cli.py.
VERBS_OF_ONE_FILE = {"pipeline/demo.py", "pipeline/run.py", "pipeline/doctor.py"}
# Still there when this test was written; each goes when its module is worked on.
KNOWN = {"jetson/mqtt/settings.py", "pipeline/firstlight/trial.py"}


def takes_a_namespace(source):
    """Lines on which a name or an attribute called Namespace stands in a module's code."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name)
        and node.id == "Namespace"
        or isinstance(node, ast.Attribute)
        and node.attr == "Namespace"
    ]


@pytest.mark.parametrize("package", ["jetson", "pipeline"])
def test_no_namespace_outside_a_cli(package):
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        lines = takes_a_namespace(path.read_text(encoding="utf-8"))
        if lines and path.name != "cli.py" and name not in VERBS_OF_ONE_FILE | KNOWN:
            found[name] = lines
    assert not found


def test_what_the_test_finds():
    assert takes_a_namespace("import argparse\ndef f(args: argparse.Namespace): ...") == [2]
    assert takes_a_namespace("from argparse import Namespace\nx: Namespace = Namespace()") == [2, 2]
    assert takes_a_namespace("def f(args: Settings): ...") == []
