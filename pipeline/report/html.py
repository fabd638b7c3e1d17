"""The pieces of HTML that a report's sections are made of."""

from html import escape
from typing import Any

LONGEST = 24  # bars in one figure; the table below it holds all


def number(value: Any, kind: str = "") -> str:
    """A figure as text. kind: ap, ms, fps, bytes, macs or nothing."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return escape(str(value))
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


def table(columns: list, rows: list, caption: str = "", marked: tuple = ()) -> str:
    """columns: (title, kind); rows: (class, values). Wrapped, so that a phone scrolls it sideways."""

    def cell(value, kind):
        return f'<td class="text">{number(value)}</td>' if kind == "text" else f"<td>{number(value, kind)}</td>"

    head = "".join(f'<th scope="col"{text_class(kind)}>{escape(name)}</th>' for name, kind in columns)
    lines = "".join(
        f"<tr{f' class={chr(34)}{css}{chr(34)}' if css else ''}>"
        + "".join(cell(value, kind) for value, (_, kind) in zip(values, columns, strict=True))
        + "</tr>"
        for css, values in rows
    )
    # Not a <caption>: that would be as wide as the table, and cut off on a phone.
    words = f'<p class="caption">{escape(caption)}</p>' if caption else ""
    label = escape(caption or ", ".join(name for name, _ in columns[:3] if name))
    return (
        f'{words}<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def text_class(kind: str) -> str:
    """The attribute of a column that holds words."""
    return ' class="text"' if kind == "text" else ""


def figure(svg: str, caption: str) -> str:
    """An SVG with the sentence under it."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
