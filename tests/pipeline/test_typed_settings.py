"""argparse ends at the verb: below its cli.py everything takes typed settings."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Verbs that are one file, and so their own cli.py: only these functions of theirs see the command line.
VERBS_OF_ONE_FILE = {"pipeline/run.py", "pipeline/doctor.py"}
OF_THE_VERB = {"options", "command"}


def takes_a_namespace(source, apart_from=frozenset()):
    """Lines on which a name or an attribute called Namespace stands in a module's code, without some functions'."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if getattr(node, "name", None) not in apart_from]
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name)
        and node.id == "Namespace"
        or isinstance(node, ast.Attribute)
        and node.attr == "Namespace"
    ]


@pytest.mark.parametrize("package", ["jetson", "pipeline", "benchmarks", "jetmask"])
def test_no_namespace_outside_a_cli(package):
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        verb = OF_THE_VERB if name in VERBS_OF_ONE_FILE else frozenset()
        lines = takes_a_namespace(path.read_text(encoding="utf-8"), verb)
        if lines and path.name != "cli.py":
            found[name] = lines
    assert not found


def test_what_the_test_finds():
    assert takes_a_namespace("import argparse\ndef f(args: argparse.Namespace): ...") == [2]
    assert takes_a_namespace("from argparse import Namespace\nx: Namespace = Namespace()") == [2, 2]
    assert takes_a_namespace("def f(args: Settings): ...") == []
    verb = "def command(args: argparse.Namespace): ...\ndef other(args: argparse.Namespace): ..."
    assert takes_a_namespace(verb, OF_THE_VERB) == [2]
