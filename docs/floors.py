"""Draws docs/floors.svg: the packages as rooms on their floors, from .importlinter and the code itself.

    python docs/floors.py

The floors are those that `make lint` checks: a room imports only from those below it. What it holds is the first line
of its own text.
"""

import ast
import configparser
import html
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TITLES = {"pipeline": "pipeline/: the workstation", "jetson": "jetson/: the device, Python 3.6 and newer"}
COLOURS = {"pipeline": "#dbe9f6", "jetson": "#e2f2df"}
ROOM, HIGH, GAP, LEFT = 172, 52, 8, 20


def floors(package: str) -> list[list[str]]:
    """The modules of each floor, the highest first, as .importlinter has them."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    lines = parser[f"importlinter:contract:{package}"]["layers"].strip().splitlines()
    return [[name.strip() for name in line.replace("|", ":").split(":")] for line in lines]


def purpose(module: str) -> str:
    """The first line of a module's or package's text, up to its first stop."""
    path = ROOT / module.replace(".", "/")
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    line = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    return line.split(": ")[0].split(". ")[0].rstrip(".:")


def room(module: str, x: int, y: int) -> list[str]:
    """One package: its name and what it holds."""
    package, name = module.split(".", 1)
    words, rows = purpose(module).split(), [""]
    for word in words:
        if len(rows[-1]) + len(word) > 26:
            rows.append("")
        rows[-1] = f"{rows[-1]} {word}".strip()
    if len(rows) > 2:
        rows = [rows[0], rows[1] + " …"]
    out = [
        f'<rect x="{x}" y="{y}" width="{ROOM}" height="{HIGH}" rx="5" fill="{COLOURS[package]}" stroke="#555"/>',
        f'<text x="{x + 8}" y="{y + 17}" font-size="14" font-weight="600">{name}</text>',
    ]
    for number, row in enumerate(rows):
        out.append(f'<text x="{x + 8}" y="{y + 31 + 13 * number}" font-size="10.5">{html.escape(row)}</text>')
    return out


def main() -> None:
    """Draw it."""
    out, y = [], 34
    for package in ("pipeline", "jetson"):
        out.append(f'<text x="{LEFT}" y="{y}" font-size="18" font-weight="700">{TITLES[package]}</text>')
        y += 12
        for names in floors(package):
            for number, name in enumerate(names):
                out += room(name, LEFT + number * (ROOM + GAP), y)
            y += HIGH + GAP
        y += 36
    words = "A room imports only from floors below its own. pipeline/ imports jetson/ too; jetson/ never pipeline/."
    out.append(f'<text x="{LEFT}" y="{y - 20}" font-size="13">{words}</text>')
    size = f'width="{2 * LEFT + 5 * (ROOM + GAP)}" height="{y}"'
    style = 'font-family="system-ui, sans-serif" fill="#111"'
    text = "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>',
            '<rect width="100%" height="100%" fill="#fff"/>',
            *out,
            "</svg>",
            "",
        ]
    )
    (ROOT / "docs" / "floors.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
