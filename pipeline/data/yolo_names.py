"""The class names of a YOLO set, from whichever file holds them: data.yaml, classes.txt, obj.names, notes.json.

Where several hold other names, each number would mean another class: then none is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from jetson.errors import BadInput
from pipeline.data import textfile
from pipeline.data.tree import Tree

_TEXTS = ("classes.txt", "_darknet.labels")
_EXPECTED = "names: [mask, no-mask]"
_LARGEST = 1 << 20  # bytes: a description of a data set is a few lines


class Names(NamedTuple):
    """`names`: {class number: name}, empty where nothing tells them; `points`: how many numbers of key points follow
    each box; `file`: where they stand."""

    names: dict[int, str]
    points: int = 0
    file: Path | None = None


def sources(tree: Tree) -> list[Path]:
    """The files that may hold class names, nearest to the root first."""
    found = [*tree.ending(".yaml", ".yml"), *tree.named(*_TEXTS), *tree.ending(".names")]
    return sorted(
        dict.fromkeys(found), key=lambda path: (len(path.parts), path.suffix.lower() not in (".yaml", ".yml"), path)
    )


def read(tree: Tree, labels: Sequence[Path] = ()) -> Names:
    """The names for `labels`, of the files above or among them; of any in the tree where there is none such.

    BadInput: a file that cannot be read, with its line; several files with other names, both named.
    """
    found: Names | None = None
    above = {folder for label in labels for folder in label.parents}
    paths = sources(tree)
    # A clone of a trainer beside the set brings the names of other sets.
    paths = [path for path in paths if path.parent in above and _has_names(path)] or paths
    if not any(path.suffix.lower() in (".yaml", ".yml") and path.parent == tree.root for path in paths):
        paths += sorted(tree.root.absolute().parent.glob("data.y*ml"))  # beside its splits, for one of them
    for path in paths:
        yaml_file = path.suffix.lower() in (".yaml", ".yml")
        names = _of_yaml(path) if yaml_file else _of_text(path)
        if names is None:
            continue
        if found is None:
            found = names
        elif names.names != found.names:
            raise BadInput(
                f"two files give different class names: {_shown(found)}; {_shown(names)}",
                tree.root,
                "one list of class names",
                "remove the file that does not belong to these labels; import parts with a different numbering "
                "separately",
            )
    return found or Names({})


def _has_names(path: Path) -> bool:
    return path.suffix.lower() not in (".yaml", ".yml") or _mentions_names(path)


def _mentions_names(path: Path) -> bool:
    return path.stat().st_size <= _LARGEST and b"names" in path.read_bytes().replace(b"\0", b"")


def _shown(names: Names) -> str:
    words = [names.names[key] for key in sorted(names.names)]
    return f"{names.file} ({', '.join(words[:6])}{', ...' if len(words) > 6 else ''})"


def _of_text(path: Path) -> Names | None:
    lines = [line.strip() for line in textfile.read(path, "class names, one per line").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return Names(dict(enumerate(lines)), 0, path) if lines else None


def _of_yaml(path: Path) -> Names | None:
    """The names as they are written ("no" is a name, and not false); only scalars are names: nothing of a YAML file is
    built but these, whatever its aliases multiply."""
    if not _mentions_names(path):  # another program's settings
        return None
    text = textfile.read(path, _EXPECTED)
    try:
        top = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).split("\n")[0]
        paths = "\\" in text and "escape" in reason
        raise BadInput(
            f"not YAML: {reason}",
            f"{path}, line {mark.line + 1}" if mark else path,
            _EXPECTED,
            "write a Windows path in 'single quotes', or without quotes" if paths else None,
        ) from None
    except RecursionError:
        raise BadInput("not usable YAML: nested too deeply", path, _EXPECTED) from None
    if not isinstance(top, yaml.MappingNode):
        return None
    found = {key.value: value for key, value in top.value if isinstance(key, yaml.ScalarNode)}
    twice = [key for key, _ in top.value if isinstance(key, yaml.ScalarNode) and key.value == "names"]
    if len(twice) > 1:
        raise BadInput("names is there twice", _at(path, twice[1]), "one list of class names")
    names = found.get("names")
    if names is None or (isinstance(names, yaml.ScalarNode) and not names.value):
        return None
    known, count = _names(names, path), found.get("nc")
    said = int(count.value) if isinstance(count, yaml.ScalarNode) and count.value.isdecimal() else len(known)
    if isinstance(names, yaml.SequenceNode) and said != len(known):
        # A name that was removed gives those behind it other numbers.
        what = f"nc says {said} classes, and names lists {len(known)}"
        raise BadInput(what, _at(path, names), "as many names as classes", "write all names, in their order")
    return Names(known, _points(found.get("kpt_shape"), path), path)


def _names(node: yaml.Node, path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    if isinstance(node, yaml.SequenceNode):
        return {i: _scalar(value, path) for i, value in enumerate(node.value)}
    if not isinstance(node, yaml.MappingNode):
        raise BadInput("names is neither a list nor a table", _at(path, node), _EXPECTED)
    for key, value in node.value:
        number = _scalar(key, path)
        if not (number.isascii() and number.isdecimal()):
            raise BadInput(
                f"the class number {number[:40]!r} is not a number", _at(path, key), "names: {0: mask, 1: no-mask}"
            )
        name = _scalar(value, path)
        if names.setdefault(int(number), name) != name:
            raise BadInput(
                f"class {number} has two names, {names[int(number)]!r} and {name!r}",
                _at(path, key),
                "one name for each",
            )
    return names


def _scalar(node: yaml.Node, path: Path) -> str:
    if not isinstance(node, yaml.ScalarNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "table"
        raise BadInput(f"a class name is a {kind}", _at(path, node), f"a word for each class, such as {_EXPECTED}")
    return str(node.value).strip()


def _points(node: yaml.Node | None, path: Path) -> int:
    """How many numbers the key points of a pose are, by data.yaml's kpt_shape: [points, numbers each]."""
    if node is None:
        return 0
    values = (
        [v.value for v in node.value if isinstance(v, yaml.ScalarNode)] if isinstance(node, yaml.SequenceNode) else []
    )
    if len(values) != 2 or not all(value.isascii() and value.isdecimal() and len(value) < 5 for value in values):
        shown = node.value if isinstance(node, yaml.ScalarNode) else ", ".join(values)
        raise BadInput(f"kpt_shape is {str(shown)[:60]}", _at(path, node), "[points, 2 or 3]")
    return int(values[0]) * int(values[1])


def _at(path: Path, node: yaml.Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"
