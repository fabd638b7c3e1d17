"""The report's HTML: sections from data, styled by report.css, figures by report_plots."""

import base64
from html import escape
from pathlib import Path
from typing import Any

from jetson.errors import BadInput
from pipeline.choose.pareto import front
from pipeline.report import device as report_device
from pipeline.report import layers, plots, studies
from pipeline.report.html import figure, number, table
from pipeline.report.rows import table_rows

CSS = Path(__file__).with_name("report.css")


def page(data: dict[str, Any], folder: Path, with_table: bool = True) -> str:
    """The whole page. Pictures that `data` names are read from `folder`; `with_table`: report.csv is beside it."""
    ap = "AP (drawn)" if (data.get("data") or {}).get("kind") == "drawn" else "mAP50"
    sections = [
        ("variants", "Variants", _variants(data, ap)),
        ("devices", "Measured on a device", "".join(map(report_device.section, data.get("devices") or ()))),
        ("stages", "Before and after each stage", _stages(data, ap)),
        ("detections", "Detections", _detections(data, folder)),
        ("training", "Training", _curves(data)),
        ("pruning", "Pruning", studies.pruning(data) + studies.prunings(data, ap)),
        ("scan", "Sensitivity to pruning", studies.scan(data, ap)),
        ("agreement", "Predicted against measured", studies.agreement(data)),
        ("layers", "Predicted time per layer", layers.layers(data)),
        ("sensitivity", "Sensitivity to int8", layers.sensitivity(data)),
        ("sweep", "Sweep", studies.sweep(data, ap)),
        ("ablations", "Ablations and comparisons", studies.comparisons(data, ap)),
        ("live", "Live run", _pairs(data.get("live"))),
        ("commands", "Commands of this run", _commands(data.get("commands"))),
        ("environment", "Environment", _pairs(data.get("environment"))),
        ("next", "Next steps", _commands(data.get("next"))),
    ]
    sections = [section for section in sections if section[2]]
    title = escape(data.get("title") or data.get("name") or "jetmask report")
    body = "".join(
        f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{escape(name)}</h2>{content}</section>'
        for key, name, content in sections
    )
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections)
    when = f" on {escape(data['created'])}" if data.get("created") else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{CSS.read_text(encoding='utf-8')}</style></head><body>"
        f'<header><h1>{title}</h1>{_head(data)}<nav aria-label="Sections">{links}</nav></header>'
        f"<main>{body}</main><footer><p>Written by jetmask{when}. The same figures: report.json"
        f"{' and report.csv' if with_table else ''} beside this file.</p></footer></body></html>\n"
    )


def _head(data: dict) -> str:
    out = []
    summary = data.get("summary") or ()
    out += [f"<p>{escape(text)}</p>" for text in ([summary] if isinstance(summary, str) else summary)]
    source = data.get("data") or {}
    if source:
        counted = source.get("images") and source.get("split")
        words = [f"{source['images']} images of {source['split']}" if counted else "", source.get("note") or ""]
        text = "; ".join(word for word in words if word)
        if text:
            out.append(f'<p class="quiet">Data: {escape(text)}</p>')
    warnings = list(data.get("warnings") or ())
    if source.get("kind") == "drawn" and not any("drawn" in text for text in warnings):
        warnings.insert(
            0,
            "Every AP on this page was measured on drawn images. It says that the stages work and how "
            "they compare, and nothing about photographs.",
        )
    out += [f'<p class="notice" role="note">{escape(text)}</p>' for text in warnings]
    facts = "".join(f"<li><b>{number(value)}</b> {escape(str(label))}</li>" for label, value in data.get("facts") or ())
    return "".join(out) + (f'<ul class="facts">{facts}</ul>' if facts else "")


def _variants(data: dict, ap: str) -> str:
    rows = table_rows(data)
    if not rows:
        return ""
    machine = data.get("machine") or "this machine"
    measured = [i for i, row in enumerate(rows) if row["measured"] == "measured"]
    usable = [i for i in measured if rows[i]["map50"] is not None and rows[i]["p50_ms"] is not None]
    best = {usable[i] for i in front([(rows[i]["p50_ms"], -rows[i]["map50"]) for i in usable])}
    columns = [
        ("variant", ""),
        ("runs on", "text"),
        (ap, "ap"),
        ("mask", "ap"),
        ("no mask", "ap"),
        ("<32 px", "ap"),
        ("32–96", "ap"),
        (">96", "ap"),
        ("p50 ms", "ms"),
        ("p95", "ms"),
        ("p99", "ms"),
        ("frames/s", "fps"),
        ("size", "bytes"),
        ("MACs", "macs"),
    ]
    order = sorted(measured, key=lambda i: rows[i]["p50_ms"] if rows[i]["p50_ms"] is not None else float("inf"))
    lines = [
        (
            "front" if i in best else "",
            [
                row["name"],
                _where(row),
                row["map50"],
                row["with_mask"],
                row["without_mask"],
                row["small"],
                row["medium"],
                row["large"],
                row["p50_ms"],
                row["p95_ms"],
                row["p99_ms"],
                row["fps"],
                row["bytes"],
                row["macs"],
            ],
        )
        for i, row in ((i, rows[i]) for i in order)
    ]
    out = []
    if lines:
        # A column without a figure says nothing, and on paper it costs another one its place.
        used = [i for i in range(len(columns)) if any(values[i] is not None for _, values in lines)]
        lines = [(css, [values[i] for i in used]) for css, values in lines]
        out.append(
            table(
                [columns[i] for i in used],
                lines,
                f"Measured on {machine}, AP in points; ★ marks the front: "
                "nothing measured is both faster and more accurate",
            )
        )
    predicted = [row for row in rows if row["measured"] == "predicted"]
    if predicted:
        lines = [
            (
                "predicted",
                [
                    row["name"],
                    row["target"],
                    row["precision"],
                    row["map50"],
                    row["p50_ms"],
                    f"{number(row['low_ms'], 'ms')} to {number(row['high_ms'], 'ms')}"
                    if row["low_ms"] is not None
                    else "error unknown",
                    row["fps"],
                    row["bytes"],
                ],
            )
            for row in predicted
        ]
        out.append(
            "<h3>Predicted, not measured</h3>"
            + table(
                [
                    ("variant", ""),
                    ("target", ""),
                    ("precision", ""),
                    (ap, "ap"),
                    ("ms", "ms"),
                    ("9 of 10 within, ms", ""),
                    ("frames/s", "fps"),
                    ("size", "bytes"),
                ],
                lines,
                "From the graph alone; the AP is that of the same variant where it could be run. Engine time only.",
            )
        )
    return "".join(out) + _fronts(rows, ap, machine)


def _where(row: dict) -> str:
    threads = f", {row['threads']} thread{'s' if row['threads'] != 1 else ''}" if row["threads"] else ""
    return f"{row['runtime'] or '–'}{threads}"


def _fronts(rows: list, ap: str, machine: str) -> str:
    points = [
        {
            "name": row["name"],
            "ap": row["map50"],
            "ms": row["p50_ms"],
            "mb": row["bytes"] / 1e6 if row["bytes"] else None,
            "low": row["low_ms"],
            "high": row["high_ms"],
            "group": (row["runtime"] or "?") if row["measured"] == "measured" else str(row["target"]),
            "device": machine if row["measured"] == "measured" else str(row["target"]),
            "predicted": row["measured"] != "measured",
        }
        for row in rows
    ]
    timed = [p for p in points if p["ap"] is not None and p["ms"] is not None]
    sized = [p for p in points if p["ap"] is not None and p["mb"] is not None and not p["predicted"]]
    out = []
    if len(timed) > 1:
        words = f"{ap} against time. " + ". ".join(
            f"Front of {device}{', predicted' if part[0]['predicted'] else ''}: "
            + "; ".join(f"{p['name']} {p['ap']:.1f} at {p['ms']:.3g} ms" for p in plots.best(part, "ms"))
            for device, part in plots.by_device(timed)
        )
        wide = max(p["ms"] for p in timed) > 12 * min(p["ms"] for p in timed) > 0
        label = "ms per image" + (", log scale" if wide else "")
        out.append(
            figure(
                plots.trade_off(timed, "ms", label, ap, words, wide),
                f"Up and left is better. Filled: measured on {machine}, p50. Hollow: predicted for another "
                "device, with the interval that holds 9 of 10. Each device has its own front.",
            )
        )
    if len({p["mb"] for p in sized}) > 1:
        words = f"{ap} against file size. Front: " + "; ".join(
            f"{p['name']} {p['ap']:.1f} at {p['mb']:.2f} MB" for p in plots.best(sized, "mb")
        )
        out.append(
            figure(
                plots.trade_off(sized, "mb", "model file, MB", ap, words),
                "The same against the size of the model's file.",
            )
        )
    return f'<div class="plots">{"".join(out)}</div>' if out else ""


def _stages(data: dict, ap: str) -> str:
    rows = data.get("stages") or ()
    if not rows:
        return ""
    optional = [
        (key, column)
        for key, column in (
            ("macs", ("MACs", "macs")),
            ("bytes", ("size", "bytes")),
            ("latency_ms", ("ms", "ms")),
            ("minutes", ("minutes", "ms")),
        )
        if any(row.get(key) is not None for row in rows)
    ]
    lines, previous = [], None
    for row in rows:
        value = row.get("map50")
        change = value - previous if value is not None and previous is not None else None
        previous = value if value is not None else previous
        figures = [row.get(key) for key, _ in optional]
        lines.append(("", [row.get("name"), value, change, *figures, row.get("note") or " "]))
    columns = [("stage", ""), (ap, "ap"), ("change", "delta"), *(column for _, column in optional), ("", "text")]
    content = table(columns, lines, "Each stage against the one before it")
    known = [(row.get("name") or "", row["map50"]) for row in rows if row.get("map50") is not None]
    if len(known) > 1:
        words = f"{ap} after each stage: " + ", ".join(f"{name} {value:.1f}" for name, value in known)
        content += figure(plots.bars(known, f"{ap}, points", words, form=".1f"), "The same as bars.")
    return content


def _detections(data: dict, folder: Path) -> str:
    out, group = [], None
    for item in data.get("detections") or ():
        path = (folder / item.get("file", "")).resolve()
        if folder.resolve() not in path.parents or not path.is_file():
            raise BadInput(
                f"the picture {item.get('file')!r} is not there",
                str(folder / "report.json"),
                "a file inside the run folder",
            )
        kind = "png" if path.suffix.lower() == ".png" else "jpeg"
        source = f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        if item.get("group") and item["group"] != group:
            end = "" if group is None else "</div>"
            out.append(f'{end}<h3>{escape(item["group"])}</h3><div class="sheet beside">')
            group = item["group"]
        elif group is None:
            out.append('<div class="sheet">')
            group = ""
        caption = escape(str(item.get("caption") or ""))
        found = f"<br>{escape(item['found'])}" if item.get("found") else ""
        out.append(
            f'<figure><img src="{source}" alt="{escape(str(item.get("alt") or caption))}" loading="lazy">'
            f"<figcaption>{caption}{found}</figcaption></figure>"
        )
    if not out:
        return ""
    return (
        "<p>Green: mask; red: no mask; yellow: mask worn wrong. The number is the score.</p>" + "".join(out) + "</div>"
    )


def _curves(data: dict) -> str:
    series = []
    for curve in data.get("curves") or ():
        rows, name = curve.get("rows") or (), curve.get("name") or ""
        for key, axis, label in (
            ("cls_loss", "loss", "class loss"),
            ("box_loss", "loss", "box loss"),
            ("loss", "loss", "loss"),
            ("map50", "ap", "val mAP50"),
        ):
            known = [
                (row["epoch"], row[key]) for row in rows if row.get(key) is not None and row.get("epoch") is not None
            ]
            if known:
                series.append(
                    {
                        "name": f"{name}: {label}" if name else label,
                        "axis": axis,
                        "x": [epoch for epoch, _ in known],
                        "y": [value for _, value in known],
                    }
                )
    if not series:
        return ""
    ends = [f"{s['name']} from {s['y'][0]:.3g} to {s['y'][-1]:.3g}" for s in series]
    return figure(plots.curves(series, "Training curves: " + "; ".join(ends)), "Losses and validation AP by epoch.")


def _pairs(pairs: Any) -> str:
    if not pairs:
        return ""
    lines = (f"<dt>{escape(str(key))}</dt><dd>{number(value)}</dd>" for key, value in pairs.items())
    return f"<dl>{''.join(lines)}</dl>"


def _commands(commands: Any) -> str:
    return "".join(
        f"<h3>{escape(item.get('title') or '')}</h3><pre>{escape(item.get('command') or '')}</pre>"
        for item in commands or ()
    )
