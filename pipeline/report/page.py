"""The report's sections from data, put into pipeline/pages/templates/report.html; figures by report/plots.py."""

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from jetson.bundle import classes as class_list
from jetson.bundle.classes import MASK_CLASSES
from jetson.errors import BadInput
from pipeline.choose.pareto import front
from pipeline.pages import render
from pipeline.pages.render import (
    NOTHING,
    Section,
    commands,
    data_uri,
    details,
    figure,
    heading,
    legend,
    number,
    pairs,
    paragraph,
    sheet,
    table,
    together,
)
from pipeline.report import accuracy, layers, plots, studies
from pipeline.report import device as report_device
from pipeline.report.contact_sheet import numbered
from pipeline.report.rows import table_rows


def page(data: dict[str, Any], folder: Path, with_table: bool = True) -> str:
    """The whole page. Pictures that `data` names are read from `folder`; `with_table`: report.csv is beside it."""
    ap = "AP (drawn)" if (data.get("data") or {}).get("kind") == "drawn" else "mAP50"
    sections = [
        Section("variants", "Variants", _variants(data, ap)),
        Section("devices", "Measured on a device", together(map(report_device.section, data.get("devices") or ()))),
        Section("stages", "Before and after each stage", _stages(data, ap)),
        Section("accuracy", "Average precision", accuracy.figures(data)),
        Section("confusion", "Which class is taken for which", accuracy.confusion(data)),
        Section("detections", "Detections", _detections(data, folder)),
        Section("training", "Training", _curves(data)),
        Section("pruning", "Pruning", studies.pruning(data) + studies.prunings(data, ap)),
        Section("scan", "Sensitivity to pruning", studies.scan(data, ap)),
        Section("agreement", "Predicted against measured", studies.agreement(data)),
        Section("layers", "Predicted time per layer", layers.layers(data)),
        Section("sensitivity", "Sensitivity to int8", layers.sensitivity(data)),
        Section("sweep", "Sweep", studies.sweep(data, ap)),
        Section("ablations", "Ablations and comparisons", studies.comparisons(data, ap)),
        Section("live", "Live run", pairs(data.get("live"))),
        Section("commands", "Commands of this run", commands(data.get("commands"))),
        Section("config", "Configuration", _config(data)),
        Section("environment", "Environment", pairs(data.get("environment"))),
        Section("next", "Next steps", commands(data.get("next"))),
    ]
    summary = data.get("summary") or ()
    return render.page(
        "report.html",
        data.get("title") or data.get("name") or "jetmask report",
        sections,
        summary=[summary] if isinstance(summary, str) else summary,
        source=_source(data.get("data") or {}),
        warnings=_warnings(data),
        facts=data.get("facts") or (),
        created=data.get("created"),
        with_table=with_table,
    )


def _source(source: dict[str, Any]) -> str:
    counted = source.get("images") and source.get("split")
    words = [f"{source['images']} images of {source['split']}" if counted else "", source.get("note") or ""]
    return "; ".join(word for word in words if word)


def _warnings(data: dict[str, Any]) -> list[str]:
    warnings = list(data.get("warnings") or ())
    if (data.get("data") or {}).get("kind") == "drawn" and not any("drawn" in text for text in warnings):
        warnings.insert(
            0,
            "Every AP on this page was measured on drawn images. It shows that the stages work and "
            "how they compare; it says nothing about photographs.",
        )
    return warnings


def _config(data: dict[str, Any]) -> Markup:
    """Every key, behind a click: most are the defaults."""
    flat = {
        f"{section}.{key}": json.dumps(value) if isinstance(value, (list, dict)) else value
        for section, values in (data.get("config") or {}).items()
        for key, value in values.items()
    }
    return details(f"All {len(flat)} keys", pairs(flat)) if flat else NOTHING


def _variants(data: dict, ap: str) -> Markup:
    rows = table_rows(data)
    if not rows:
        return NOTHING
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
            heading("Predicted, not measured")
            + table(
                [
                    ("variant", ""),
                    ("target", ""),
                    ("precision", ""),
                    (ap, "ap"),
                    ("ms", "ms"),
                    ("90 % interval, ms", ""),
                    ("frames/s", "fps"),
                    ("size", "bytes"),
                ],
                lines,
                "Predicted from the graph alone, engine time only. The AP was measured on the same "
                "variant where it could be run.",
            )
        )
    return together(out) + _fronts(rows, ap, machine)


def _where(row: dict) -> str:
    threads = f", {row['threads']} thread{'s' if row['threads'] != 1 else ''}" if row["threads"] else ""
    return f"{row['runtime'] or '–'}{threads}"


def _fronts(rows: list, ap: str, machine: str) -> Markup:
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
                "device, with its 90 % interval. Each device has its own front.",
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
    return render.plots(out)


def _stages(data: dict, ap: str) -> Markup:
    rows = data.get("stages") or ()
    if not rows:
        return NOTHING
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
    lines: list[tuple[str, list[Any]]] = []
    previous = None
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


def _detections(data: dict, folder: Path) -> Markup:
    groups: dict[str, list[dict[str, str]]] = {}
    for item in data.get("detections") or ():
        path = (folder / item.get("file", "")).resolve()
        if folder.resolve() not in path.parents or not path.is_file():
            raise BadInput(
                f"the picture {item.get('file')!r} is not there",
                str(folder / "report.json"),
                "a file inside the run folder",
            )
        caption = str(item.get("caption") or "")
        picture = {
            "source": data_uri(path.read_bytes(), "png" if path.suffix.lower() == ".png" else "jpeg"),
            "alt": str(item.get("alt") or caption),
            "caption": caption,
            "found": item.get("found") or "",
        }
        groups.setdefault(item.get("group") or "", []).append(picture)
    if not groups:
        return NOTHING
    names = (data.get("classes") or {}) or dict(zip(*MASK_CLASSES, strict=True))
    colours = class_list.make(list(names), names)
    marks = numbered(colours)
    words = [mark + word for mark, word in zip(marks, colours.words(), strict=True)]
    shown = list(zip(map(render.css_colour, colours.colours()), words, strict=True))
    at_box = "At a box: the number of its class, and its score" if any(marks) else "The number at a box is its score"
    note = f"{at_box}; white: labelled and not found."
    out = [legend(shown), paragraph(note, "quiet")]
    for group, pictures in groups.items():
        out += [heading(group) if group else NOTHING, sheet(pictures, beside=bool(group))]
    return together(out)


def _curves(data: dict) -> Markup:
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
        return NOTHING
    ends = [f"{s['name']} from {s['y'][0]:.3g} to {s['y'][-1]:.3g}" for s in series]
    return figure(plots.curves(series, "Training curves: " + "; ".join(ends)), "Losses and validation AP by epoch.")
