"""A report's sections on studies: prunings beside each other, what each group of channels is worth, and how predictions
compare with measurements."""

from html import escape
from typing import Any

from pipeline import report_page, report_plots


def prunings(data: dict, ap: str) -> str:
    """AP against what pruning leaves, before and after fine-tuning."""
    rows = [row for row in data.get("prunings") or () if row.get("macs_share") is not None]
    if not rows:
        return ""
    series: list[dict[str, Any]] = []
    for method in dict.fromkeys(row.get("method") or "" for row in rows):
        own = sorted((row for row in rows if (row.get("method") or "") == method), key=lambda row: -row["macs_share"])
        for key, words, dashed in (("map50", "fine-tuned", False), ("before", "not fine-tuned", True)):
            known = [(100 * row["macs_share"], row[key]) for row in own if row.get(key) is not None]
            if known:
                series.append({"name": f"{method}, {words}", "x": [x for x, _ in known], "y": [y for _, y in known],
                               "dashed": dashed, "colour": method})
    words = f"{ap} against the share of multiply-adds left: " + "; ".join(
        f"{s['name']}: " + ", ".join(f"{y:.1f} at {x:.0f} %" for x, y in zip(s["x"], s["y"], strict=True))
        for s in series)
    out = report_page.figure(
        report_plots.lines(series, "multiply-adds left, %", f"{ap}, points", words, falling=True),
        "AP against what is left of the multiply-adds; dashed: before any fine-tuning.") if series else ""
    columns = [("network", ""), ("MACs left, %", "ap"), ("before fine-tuning", "ap"), (ap, "ap"), ("time, ratio", ""),
               ("images of fine-tuning", ""), ("", "text")]
    lines = [(row.get("name") or row.get("method"), 100 * row["macs_share"], row.get("before"), row.get("map50"),
              row.get("time_ratio"), row.get("images"), row.get("note") or " ") for row in rows]
    # Where several lines of the figure start, one row is enough.
    return out + report_page.table(columns, [("", list(line)) for line in dict.fromkeys(lines)])


def scan(data: dict, ap: str) -> str:
    """AP lost by each group of channels alone, without fine-tuning."""
    found = data.get("scan") or {}
    groups, baseline = found.get("groups") or {}, found.get("baseline")
    if not groups or baseline is None:
        return ""
    shares = sorted({share for row in groups.values() for share in row}, key=float)
    middle = shares[len(shares) // 2]
    known = [(name, baseline - row[middle]) for name, row in groups.items() if middle in row]
    dropped = f"{100 * float(middle):.0f} %"
    words = (f"Points of {ap} lost when {dropped} of one group's channels are dropped: "
             + ", ".join(f"{name} {drop:.1f}" for name, drop in sorted(known, key=lambda row: -row[1])))
    out = report_page.figure(
        report_plots.bars(known, f"points of {ap} lost", words, form=".1f"),
        f"What is lost when {dropped} of this group's channels alone are dropped, without fine-tuning, in the order of "
        "the network.")
    note = f"<p>{escape(found['note'])}</p>" if found.get("note") else ""
    whole = report_page.table(
        [("group", ""), *((f"{100 * float(share):.0f} % dropped", "ap") for share in shares)],
        [("", [name, *(row.get(share) for share in shares)]) for name, row in groups.items()],
        f"{ap} with that share of one group's channels dropped; {baseline:.1f} with all")
    return note + out + f"<details><summary>All {len(groups)} groups</summary>{whole}</details>"


def agreement(data: dict) -> str:
    """Predictions held against measurements of networks that they were not fitted on."""
    rows = [row for row in data.get("agreement") or () if row.get("measured_ms") and row.get("predicted_ms")]
    if not rows:
        return ""
    points = [{"x": row["measured_ms"], "y": row["predicted_ms"], "group": str(row.get("device") or "")}
              for row in rows]
    errors: dict[str, list] = {}
    for row in rows:
        errors.setdefault(str(row.get("device") or ""), []).append(abs(row["predicted_ms"] / row["measured_ms"] - 1))
    means = "; ".join(f"{device}: {100 * sum(part) / len(part):.1f} % over {len(part)}"
                      for device, part in errors.items())
    words = f"Predicted against measured milliseconds. Mean absolute error: {means}"
    out = report_page.figure(report_plots.against(points, "measured ms", "predicted ms", words),
                             f"On the line they agree. Mean absolute error: {means}.")
    columns = [("network", ""), ("device", "text"), ("precision", "text"), ("measured ms", "ms"),
               ("predicted ms", "ms"), ("error, %", "delta")]
    whole = report_page.table(columns, [
        ("", [row.get("network"), row.get("device"), row.get("precision"), row["measured_ms"], row["predicted_ms"],
              100 * (row["predicted_ms"] / row["measured_ms"] - 1)]) for row in rows])
    return out + f"<details><summary>All {len(rows)} networks</summary>{whole}</details>"
