"""Figures by matplotlib as inline SVG in the page's colours, so that dark mode and print hold."""

import hashlib
import html
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Stand-ins that matplotlib draws with, and the page's variables that take their place in the SVG.
INK, QUIET, LINE, CARD = "#010101", "#020202", "#030303", "#040404"
ACCENT, SECOND, THIRD, FOURTH = "#050505", "#060606", "#070707", "#080808"
VARIABLES = {
    INK: "--ink",
    QUIET: "--quiet",
    LINE: "--line",
    CARD: "--card",
    ACCENT: "--accent",
    SECOND: "--s2",
    THIRD: "--s5",
    FOURTH: "--bare",
}
SERIES = (ACCENT, SECOND, THIRD, FOURTH)
MARKS = ("o", "s", "^", "v", "P", "X")
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": LINE,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "axes.axisbelow": True,
    "text.parse_math": False,  # names are names: a $ in one is no formula
}


def svg(draw: Callable[[Any], None], width: float, height: float, alternative: str) -> str:
    """An <svg> of `width` x `height` inches that says `alternative` to who cannot see it."""
    salt = hashlib.sha256(alternative.encode()).hexdigest()[:12]
    settings: dict = {**STYLE, "svg.hashsalt": salt}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font: (\S+) 'sans-serif'", r"font: \1 inherit", text)
    text = re.sub(r"(font-family: )[^;\"]*", r"\1inherit", text)
    # Names of clip paths and markers must be unique on the page.
    for name in set(re.findall(r'id="([^"]+)"', text)):
        text = re.sub(rf'(id="|url\(#|href="#){re.escape(name)}(?=["\)])', rf"\g<1>{salt}-{name}", text)
    start = text.index(">")
    head = re.sub(r'\s(width|height)="[^"]*"', "", text[:start])
    words = html.escape(alternative, quote=True)
    return f'{head} role="img" aria-label="{words}">{text[start + 1 :]}'


def label(text: object, most: int = 40) -> str:
    """A name as it fits into a figure: a longer one loses its middle; the table beside has it whole."""
    name = str(text)
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most - most // 2) :]}"
