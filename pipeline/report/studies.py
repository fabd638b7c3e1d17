"""A report's sections on studies: prunings, what each group of channels is worth, how predictions compare with
measurements, sweeps, and choices of training compared."""

from typing import Any

from markupsafe import Markup

from pipeline.choose.pareto import front
from pipeline.pages.render import LONGEST, NOTHING, details, figure, heading, number, paragraph, table, together
from pipeline.report import plots


def pruning(data: dict) -> Markup:
    """One pruning: what it changed, and the channels it left in each layer."""
    found = data.get("pruning")
    if not found:
        return NOTHING
    out = [paragraph(found.get("note"))]
    before, after = found.get("before") or {}, found.get("after") or {}
    kinds = {"macs": "macs", "bytes": "bytes", "map50": "ap", "latency_ms": "ms"}
    words = {"macs": "multiply-adds", "bytes": "bytes of weights", "map50": "mAP50", "latency_ms": "latency, ms"}
    keys = [key for key in before if key in after]
    if keys:
        lines = []
        for key in keys:
            a, b = before[key], after[key]
            known = isinstance(a, (int, float)) and isinstance(b, (int, float)) and a
            ratio = "–" if not known else f"{b - a:+.1f} points" if key == "map50" else f"x {b / a:.2f}"
            kind = kinds.get(key, "")
            lines.append(("", [words.get(key, key), number(a, kind), number(b, kind), ratio]))
        out.append(table([("", ""), ("before", ""), ("after", ""), ("", "")], lines))
    channels = [row for row in found.get("channels") or () if row.get("before")]
    if channels:
        cut = sorted(channels, key=lambda row: row["after"] / row["before"])[:LONGEST]
        shown = [row for row in channels if any(row is other for other in cut)]
        spoken = "Channels before and after pruning: " + ", ".join(
            f"{row['layer']} {row['before']} to {row['after']}" for row in shown
        )
        pairs = [(row["layer"], (row["before"], row["after"])) for row in shown]
        out.append(
            figure(
                plots.bars(pairs, "channels", spoken, ("before", "after")),
                "Channels by layer, in the order of the network.",
            )
        )
    return together(out)


def prunings(data: dict, ap: str) -> Markup:
    """AP against what pruning leaves, before and after fine-tuning."""
    rows = [row for row in data.get("prunings") or () if row.get("macs_share") is not None]
    if not rows:
        return NOTHING
    series: list[dict[str, Any]] = []
    for method in dict.fromkeys(row.get("method") or "" for row in rows):
        own = sorted((row for row in rows if (row.get("method") or "") == method), key=lambda row: -row["macs_share"])
        for key, words, dashed in (("map50", "fine-tuned", False), ("before", "not fine-tuned", True)):
            known = [(100 * row["macs_share"], row[key]) for row in own if row.get(key) is not None]
            if known:
                series.append(
                    {
                        "name": f"{method}, {words}",
                        "x": [x for x, _ in known],
                        "y": [y for _, y in known],
                        "dashed": dashed,
                        "colour": method,
                    }
                )
    words = f"{ap} against the share of multiply-adds left: " + "; ".join(
        f"{s['name']}: " + ", ".join(f"{y:.1f} at {x:.0f} %" for x, y in zip(s["x"], s["y"], strict=True))
        for s in series
    )
    out = (
        figure(
            plots.lines(series, "multiply-adds left, %", f"{ap}, points", words, falling=True),
            "AP against what is left of the multiply-adds; dashed: before any fine-tuning.",
        )
        if series
        else ""
    )
    columns = [
        ("network", ""),
        ("MACs left, %", "ap"),
        ("before fine-tuning", "ap"),
        (ap, "ap"),
        ("time, ratio", ""),
        ("images of fine-tuning", ""),
        ("", "text"),
    ]
    lines = [
        (
            row.get("name") or row.get("method"),
            100 * row["macs_share"],
            row.get("before"),
            row.get("map50"),
            row.get("time_ratio"),
            row.get("images"),
            row.get("note") or " ",
        )
        for row in rows
    ]
    # Where several lines of the figure start, one row is enough.
    return out + table(columns, [("", list(line)) for line in dict.fromkeys(lines)])


def scan(data: dict, ap: str) -> Markup:
    """AP lost by each group of channels alone, without fine-tuning."""
    found = data.get("scan") or {}
    groups, baseline = found.get("groups") or {}, found.get("baseline")
    if not groups or baseline is None:
        return NOTHING
    shares = sorted({share for row in groups.values() for share in row}, key=float)
    middle = shares[len(shares) // 2]
    known = [(name, baseline - row[middle]) for name, row in groups.items() if middle in row]
    dropped = f"{100 * float(middle):.0f} %"
    words = f"Points of {ap} lost when {dropped} of one group's channels are dropped: " + ", ".join(
        f"{name} {drop:.1f}" for name, drop in sorted(known, key=lambda row: -row[1])
    )
    out = figure(
        plots.bars(known, f"points of {ap} lost", words, form=".1f"),
        f"What is lost when {dropped} of this group's channels alone are dropped, without fine-tuning, in the order of "
        "the network.",
    )
    note = paragraph(found.get("note"))
    whole = table(
        [("group", ""), *((f"{100 * float(share):.0f} % dropped", "ap") for share in shares)],
        [("", [name, *(row.get(share) for share in shares)]) for name, row in groups.items()],
        f"{ap} with that share of one group's channels dropped; {baseline:.1f} with all",
    )
    return note + out + details(f"All {len(groups)} groups", whole)


def agreement(data: dict) -> Markup:
    """Predictions held against measurements of networks that they were not fitted on."""
    rows = [row for row in data.get("agreement") or () if row.get("measured_ms") and row.get("predicted_ms")]
    if not rows:
        return NOTHING
    points = [
        {"x": row["measured_ms"], "y": row["predicted_ms"], "group": str(row.get("device") or "")} for row in rows
    ]
    errors: dict[str, list] = {}
    for row in rows:
        errors.setdefault(str(row.get("device") or ""), []).append(abs(row["predicted_ms"] / row["measured_ms"] - 1))
    means = "; ".join(
        f"{device}: {100 * sum(part) / len(part):.1f} % over {len(part)}" for device, part in errors.items()
    )
    words = f"Predicted against measured milliseconds. Mean absolute error: {means}"
    out = figure(
        plots.against(points, "measured ms", "predicted ms", words),
        f"On the line they agree. Mean absolute error: {means}.",
    )
    columns = [
        ("network", ""),
        ("device", "text"),
        ("precision", "text"),
        ("measured ms", "ms"),
        ("predicted ms", "ms"),
        ("error, %", "delta"),
    ]
    whole = table(
        columns,
        [
            (
                "",
                [
                    row.get("network"),
                    row.get("device"),
                    row.get("precision"),
                    row["measured_ms"],
                    row["predicted_ms"],
                    100 * (row["predicted_ms"] / row["measured_ms"] - 1),
                ],
            )
            for row in rows
        ],
    )
    return out + details(f"All {len(rows)} networks", whole)


def sweep(data: dict, ap: str) -> Markup:
    """A sweep's trials and their front."""
    found = data.get("sweep") or {}
    trials = [
        {"number": "?"} | t for t in found.get("trials") or () if t.get("map50") is not None and t.get("latency_ms")
    ]
    if not trials:
        return NOTHING
    target = found.get("target") or "the target"
    points = [
        {
            "name": f"#{t['number']}",
            "ap": t["map50"],
            "ms": t["latency_ms"],
            "group": "trials",
            "device": target,
            "predicted": True,
        }
        for t in trials
    ]
    best = front([(p["ms"], -p["ap"]) for p in points])
    words = f"{len(trials)} trials; front: " + ", ".join(
        f"#{trials[i]['number']} {points[i]['ap']:.1f} at {points[i]['ms']:.3g} ms" for i in best
    )
    names = list(dict.fromkeys(key for t in trials for key in t.get("params") or {}))
    rows = [
        (
            "front" if i in best else "",
            [
                f"#{t['number']}",
                t["map50"],
                t["latency_ms"],
                t.get("bytes"),
                *((t.get("params") or {}).get(name) for name in names),
            ],
        )
        for i, t in sorted(enumerate(trials), key=lambda item: item[1]["latency_ms"])
    ]
    columns = [("trial", ""), (ap, "ap"), (f"ms on {target}, predicted", "ms"), ("size", "bytes")]
    columns += [(name, "") for name in names]
    note = paragraph(found.get("note"))
    return (
        note
        + figure(
            plots.trade_off(points, "ms", f"ms on {target}, predicted", ap, words),
            f"AP measured on val after the trial's training, time predicted for {target}.",
        )
        + table(columns, rows, "★ marks the front")
    )


def comparisons(data: dict, ap: str) -> Markup:
    """Choices switched one by one, and tables of alternatives."""
    out = []
    rows = data.get("ablations") or ()
    changes = [(r.get("name") or "", r["delta"]) for r in rows if r.get("delta")]
    if len(changes) > 1:
        words = f"Change of {ap} by each choice: " + ", ".join(f"{name} {delta:+.1f}" for name, delta in changes)
        out.append(
            figure(
                plots.bars(changes, f"change of {ap}, points", words, form="+.1f"),
                "What changes when this choice alone is changed.",
            )
        )
    if rows:
        out.append(
            table(
                [("what", ""), (ap, "ap"), ("change", "delta"), ("", "text")],
                [("", [r.get("name"), r.get("map50"), r.get("delta"), r.get("note") or ""]) for r in rows],
            )
        )
    for item in data.get("comparisons") or ():
        rows = item.get("rows") or ()
        if not rows:
            continue
        names = list(dict.fromkeys(key for row in rows for key in row))
        kinds = {"map50": "ap", "bytes": "bytes", "macs": "macs", "latency_ms": "ms", "ms": "ms"}
        out.append(
            heading(item.get("title") or "")
            + paragraph(item.get("note"))
            + table(
                [(name, kinds.get(name, "")) for name in names],
                [("", [row.get(name) for name in names]) for row in rows],
            )
        )
    return together(out)
