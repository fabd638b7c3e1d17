"""A report's sections on accuracy: AP per class and size with how sure it is, and which class is taken for which."""

from typing import Any

from markupsafe import Markup

from pipeline.pages.render import NOTHING, figure, paragraph, table
from pipeline.report import plots


def figures(data: dict[str, Any]) -> Markup:
    """data["accuracy"]: {"note", "rows": [{"name", "ap", "low", "high", "boxes"}]}, AP in points with 95 % bounds."""
    found = data.get("accuracy") or {}
    rows = found.get("rows") or ()
    if not rows:
        return NOTHING
    lines = [("", [row["name"], row.get("ap"), _bounds(row), row.get("boxes")]) for row in rows]
    known = [row for row in rows if row.get("ap") is not None]
    words = "AP50: " + ", ".join(f"{row['name']} {row['ap']:.1f} ({_bounds(row)})" for row in known)
    content = paragraph(found.get("note"), "quiet")
    content += table([("", ""), ("AP50", "ap"), ("95 % bounds", ""), ("boxes", "")], lines, "AP at IoU .5 in points")
    if len(known) > 1:
        bars = [(row["name"], row["ap"], row.get("low"), row.get("high")) for row in known]
        content += plots_figure(bars, words)
    return content


def plots_figure(bars: list[tuple[str, float, float | None, float | None]], words: str) -> Markup:
    """The same as bars, with their intervals."""
    return figure(plots.intervals(bars, "AP50, points", words), "The same as bars; the lines are 95 % intervals.")


def _bounds(row: dict[str, Any]) -> str:
    return f"{row['low']:.1f} to {row['high']:.1f}" if row.get("low") is not None else "–"


def confusion(data: dict[str, Any]) -> Markup:
    """data["confusion"]: {"note", "names", "counts"}: rows of truth, columns of what is shown, the last each none."""
    found = data.get("confusion") or {}
    counts, names = found.get("counts") or (), found.get("names") or ()
    if not counts or not names:
        return NOTHING
    rows = []
    for number, (name, row) in enumerate(zip([*names, "no face"], counts, strict=True)):
        values = [name, *row]
        if number == len(names):
            values[-1] = None
        rows.append(("", values))
    columns = [("true, shown as", ""), *((name, "") for name in names), ("not found", "")]
    return paragraph(found.get("note"), "quiet") + table(columns, rows, "Boxes", diagonal=1)
