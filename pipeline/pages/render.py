"""The templates filled in: the pieces that sections are made of, and whole pages. What is put in is escaped."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

FOLDER = Path(__file__).parent
CSS = FOLDER / "page.css"
LONGEST = 24  # bars in one figure; the table below it holds all
NOTHING = Markup("")


class Section(NamedTuple):
    """A part of a page; without content it is left out."""

    key: str
    name: str
    content: Markup


def number(value: Any, kind: str = "") -> str:
    """A figure as text. kind: ap, delta, ms, fps, bytes, macs or nothing."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if kind == "ap":
        return f"{value:.1f}"
    if kind == "delta":
        return f"{value:+.1f}"
    if kind in ("ms", "fps"):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    if kind == "bytes":
        return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"
    if kind == "macs":
        return f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.0f} M"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_ENVIRONMENT.filters["number"] = number
_PIECES: Any = _ENVIRONMENT.get_template("pieces.html").module


def page(template: str, title: str, sections: Iterable[Section], **values: Any) -> str:
    """A whole page from a template of the folder; sections without content are left out."""
    css = Markup(CSS.read_text(encoding="utf-8"))
    shown = [section for section in sections if section.content]
    return _ENVIRONMENT.get_template(template).render(title=title, sections=shown, css=css, **values) + "\n"


def together(parts: Iterable[Any]) -> Markup:
    """Pieces one after the other."""
    return Markup("").join(parts)


def table(
    columns: Sequence[tuple[str, str]], rows: Sequence[tuple[str, Sequence[Any]]], caption: str = "", diagonal: int = 0
) -> Markup:
    """columns: (title, kind); rows: (class, values). diagonal: the column from which on each row marks its own."""
    kinds = [kind for _, kind in columns]

    def kind_of(row: int, column: int) -> str:
        own = diagonal and column == row + diagonal and rows[row][1][column] is not None
        return "hit" if own else kinds[column]

    filled = [
        (css, [(value, kind_of(row, column)) for column, value in enumerate(values)])
        for row, (css, values) in enumerate(rows)
    ]
    label = caption or ", ".join(name for name, _ in columns[:3] if name)
    return _PIECES.table(columns, filled, caption, label)


def figure(svg: str, caption: str) -> Markup:
    """An SVG with the sentence under it."""
    return _PIECES.figure(Markup(svg), caption)


def plots(figures: Sequence[Markup]) -> Markup:
    """Figures side by side where there is room."""
    return _PIECES.plots(figures) if figures else NOTHING


def paragraph(text: Any, css: str = "") -> Markup:
    """A paragraph; nothing where there is no text."""
    return _PIECES.paragraph(text, css) if text else NOTHING


def heading(text: str) -> Markup:
    """A heading inside a section."""
    return _PIECES.heading(text)


def details(summary: str, content: Markup) -> Markup:
    """What is shown on a click."""
    return _PIECES.details(summary, content)


def pairs(values: Mapping[str, Any] | None) -> Markup:
    """Names with their values."""
    return _PIECES.pairs(list(values.items())) if values else NOTHING


def commands(items: Sequence[Mapping[str, Any]] | None) -> Markup:
    """Command lines with a title each."""
    return _PIECES.commands([{"title": i.get("title"), "command": i.get("command")} for i in items or ()])


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """(CSS colour, name) of what is drawn."""
    return _PIECES.legend(entries)


def sheet(pictures: Sequence[Mapping[str, str]], beside: bool = False) -> Markup:
    """Pictures as {source, alt, caption, found}; beside: smaller, so that variants stand side by side."""
    return _PIECES.sheet(pictures, beside) if pictures else NOTHING


def css_colour(bgr: Sequence[int]) -> str:
    """A BGR colour as CSS writes it.

    >>> css_colour((255, 110, 92))
    '#5c6eff'
    """
    blue, green, red = bgr
    return f"#{red:02x}{green:02x}{blue:02x}"


def data_uri(data: bytes, kind: str) -> str:
    """A picture inside the page. kind: jpeg, png."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
