"""Writes docs/config.md: every key of a training's configuration, from the code and its comments, and the presets.

python docs/config_reference.py
"""

import ast
import io
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import config  # noqa: E402

TARGET = ROOT / "docs" / "config.md"
SECTIONS = {"Data": "data", "Model": "model", "Augment": "augment", "Train": "train"}
HEAD = """# Configuration of a training

Written from pipeline/config.py by `python docs/config_reference.py`. A key is set by `--set SECTION.KEY=VALUE` or in a
YAML file that is named instead of a preset: `jetmask train mine.yaml`. An unknown key is an error naming the nearest
one. Without a preset or a file, `jetmask train` sets `model.init` and most of `train` by the
photographs ([training](train.md)).

## Presets

AP is the two-class mAP50 on test/ at input sizes 320 to 640; times are on two cores that did other work too.

| preset | multiply-adds at 320x320 | time of the whole training | AP |
|---|---|---|---|
"""


def comments(source: str) -> dict[int, str]:
    """The comment of each line, with those of the following lines that hold nothing else."""
    found: dict[int, str] = {}
    alone = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found[token.start[0]] = token.string.lstrip("# ")
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    for line in sorted(found):
        if line in alone:
            before = line - 1
            while before in alone:
                before -= 1
            if before in found:
                found[before] += " " + found[line]
    return found


def entries() -> list[tuple[str, str, str]]:
    """(key, default as text, what it is) of every key, in the order of the code."""
    source = (ROOT / "pipeline" / "config.py").read_text(encoding="utf-8")
    notes = comments(source)
    defaults = config.to_dict(config.Config())
    rows = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name in SECTIONS:
            section = SECTIONS[node.name]
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    name = field.target.id
                    default = defaults[section][name]
                    text = notes.get(field.end_lineno or field.lineno, "")
                    rows.append((f"{section}.{name}", '""' if default == "" else str(default), text))
    return rows


def markdown() -> str:
    """The whole page."""
    lines = [HEAD.rstrip("\n")]
    for name, about in config.presets():
        lines.append(f"| `{name}` | {about.get('macs', '–')} | {about.get('time', '–')} | {about.get('ap', '–')} |")
    section = ""
    for key, default, text in entries():
        if key.partition(".")[0] != section:
            section = key.partition(".")[0]
            lines += ["", f"## {section}", "", "| key | default | meaning |", "|---|---|---|"]
        lines.append(f"| `{key}` | `{default}` | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(markdown(), encoding="utf-8")
