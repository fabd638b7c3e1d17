"""Lists every string that a user can meet: what one reads to check the wording.

python docs/strings.py [PATH ...] [--kind KIND] [--draw 100 --seed 7]

Kinds: `help` (options, verbs, epilogs), `error` (the four fields of a JetmaskError), `log`, `print` (results and other
text a program writes), `page` (HTML, JavaScript and templates), `doc` (Markdown), `docstring`. An f-string's values
are shown as {…}. One line each: path, line, kind, text, with tabs between.
"""

import argparse
import ast
import html.parser
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CODE = ("jetmask", "jetson", "pipeline")
KINDS = ("help", "error", "log", "print", "page", "doc", "docstring")
ERRORS = {"JetmaskError", "UsageError", "BadInput", "DeviceMismatch", "QualityGate"}
LOGS = {"debug", "info", "warning", "error", "exception", "critical"}
WORD = re.compile(r"[A-Za-z]{2,}.*[\s].*[A-Za-z]{2,}", re.DOTALL)


class Text(NamedTuple):
    """One string: its file, relative to the repository, its line, its kind and its words."""

    path: str
    line: int
    kind: str
    text: str


def files(*suffixes: str) -> list[str]:
    """The committed files with these suffixes."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if name.endswith(suffixes) and (ROOT / name).is_file()]


def words(node: ast.expr) -> str:
    """The text of an expression that makes a string, its values as {…}; "" where it makes none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(words(part) if isinstance(part, ast.Constant) else "{…}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)):
        left, right = words(node.left), words(node.right) if isinstance(node.op, ast.Add) else ""
        return (left or "{…}") + (right or "{…}") if isinstance(node.op, ast.Add) and (left or right) else left
    return ""


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def kind_of(node: ast.Call) -> str:
    """What the strings among a call's arguments are for: a kind, or ""."""
    name = called(node)
    if name in ERRORS or name in ("HttpError", "Refused", "error"):
        return "error" if name != "error" or not isinstance(node.func, ast.Attribute) else "log"
    if name in ("add_argument", "add_parser", "add_argument_group", "ArgumentParser"):
        return "help"
    if name in LOGS and isinstance(node.func, ast.Attribute):
        return "log"
    return "print" if name in ("print", "write") else ""


class Reader(ast.NodeVisitor):
    """Walks one module and keeps its strings."""

    def __init__(self, path: str) -> None:
        self.path, self.kinds, self.found = path, [""], []  # type: ignore[var-annotated]
        self.docstrings: set[int] = set()

    def keep(self, node: ast.expr, text: str) -> None:
        """One string, unless it is a docstring or only a name."""
        if id(node) not in self.docstrings and WORD.search(text.replace("{…}", "")):
            kind = self.kinds[-1] or "print"
            self.found.append(Text(self.path, node.lineno, kind, " ".join(text.split())))

    def _body(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> None:
        text = ast.get_docstring(node)
        if text and isinstance(node.body[0], ast.Expr):
            line = node.body[0].lineno
            self.docstrings.add(id(node.body[0].value))
            self.found.append(Text(self.path, line, "docstring", " ".join(text.split())))
        self.generic_visit(node)

    visit_Module = visit_ClassDef = visit_FunctionDef = _body

    def visit_Call(self, node: ast.Call) -> None:
        """A call gives its strings a kind."""
        kind = kind_of(node)
        self.visit(node.func)
        for part in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.kinds.append(kind or self.kinds[-1])
            self.visit(part)
            self.kinds.pop()

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """An f-string, and the strings in its values."""
        self.keep(node, words(node))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A plain string."""
        if isinstance(node.value, str):
            self.keep(node, node.value)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """A string of several pieces is one text."""
        text = words(node)
        if text:
            self.keep(node, text)
        else:
            self.generic_visit(node)


class Page(html.parser.HTMLParser):
    """The text of a page and of the attributes that are read aloud or shown."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.found, self.silent = path, [], 0  # type: ignore[var-annotated]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Attributes with words."""
        self.silent += tag in ("script", "style")
        for name, value in attrs:
            if name in ("title", "alt", "aria-label", "placeholder", "content") and value and WORD.search(value):
                self.found.append(Text(self.path, self.getpos()[0], "page", value))

    def handle_endtag(self, tag: str) -> None:
        """The end of what is not shown."""
        self.silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        """Text."""
        if not self.silent and WORD.search(data):
            self.found.append(Text(self.path, self.getpos()[0], "page", " ".join(data.split())))


SCRIPT = re.compile(r'"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`|\'((?:[^\'\\\n]|\\.)*)\'')
COMMENT = re.compile(r"^\s*//.*$|/\*.*?\*/", re.MULTILINE | re.DOTALL)


def script(path: str, text: str) -> Iterator[Text]:
    """The strings of a JavaScript file, its templates' values as {…}."""
    text = COMMENT.sub(lambda match: "\n" * match.group().count("\n"), text)
    for match in SCRIPT.finditer(text):
        said = re.sub(r"\$\{[^}]*\}", "{…}", next(filter(None, match.groups()), ""))
        if WORD.search(said.replace("{…}", "")) and not re.search(r"^[#.\[]|^use strict$", said):
            yield Text(path, text.count("\n", 0, match.start()) + 1, "page", " ".join(said.split()))


def markdown(path: str, text: str) -> Iterator[Text]:
    """The sentences of a Markdown file, a table's row or a paragraph each; commands and pictures are left out."""
    fenced, start, lines = False, 0, []  # type: ignore[var-annotated]
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        ends = fenced or not line.strip() or line.lstrip().startswith(("|", "#", "-", "<!--", "```", "!["))
        if ends and lines:
            yield Text(path, start, "doc", " ".join(lines))
            lines = []
        if fenced or not WORD.search(line) or line.lstrip().startswith(("```", "<!--", "![")):
            continue
        start = start if lines else number
        lines.append(line.strip())


def everything() -> list[Text]:
    """Every string of the three packages, their pages, and the docs."""
    found: list[Text] = []
    for path in files(".py"):
        if path.split("/")[0] in CODE:
            reader = Reader(path)
            reader.visit(ast.parse((ROOT / path).read_text(encoding="utf-8")))
            found += reader.found
    for path in files(".html", ".js", ".md"):
        text = (ROOT / path).read_text(encoding="utf-8")
        if path.endswith(".md"):
            if not path.startswith(("tests/", "docs/reference/")):
                found += markdown(path, text)
        elif path.split("/")[0] in CODE:
            if path.endswith(".html"):
                page = Page(path)
                page.feed(text)
                found += page.found
            else:
                found += script(path, text)
    return found


def main() -> None:
    """Print them, or some drawn by a seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("paths", nargs="*", help="only files whose path begins with one of these")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; may be given several times")
    parser.add_argument("--draw", type=int, metavar="COUNT", help="as many, drawn at random, instead of all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = [
        text
        for text in everything()
        if (not args.paths or text.path.startswith(tuple(args.paths))) and (not args.kind or text.kind in args.kind)
    ]
    if args.draw:
        found = random.Random(args.seed).sample(found, min(args.draw, len(found)))
    for text in found:
        print(f"{text.path}:{text.line}\t{text.kind}\t{text.text}")


if __name__ == "__main__":
    main()
