"""The report's HTML: sections from data, styled by report.css, figures by report_plots."""

import base64
from html import escape
from pathlib import Path
from typing import Any

from jetson.errors import BadInput
from pipeline import report_device, report_plots
from pipeline.front import front
from pipeline.report import table_rows

CSS = Path(__file__).with_name("report.css")
LONGEST = 24  # bars in one figure; the table below it holds all


def page(data: dict[str, Any], folder: Path) -> str:
    """The whole page. Pictures that `data` names are read from `folder`."""
    from pipeline import report_studies  # which writes its tables with this module's

    ap = "AP (drawn)" if (data.get("data") or {}).get("kind") == "drawn" else "mAP50"
    sections = [
        ("variants", "Variants", _variants(data, ap)),
        ("devices", "Measured on a device", "".join(map(report_device.section, data.get("devices") or ()))),
        ("stages", "Before and after each stage", _stages(data, ap)),
        ("detections", "Detections", _detections(data, folder)),
        ("training", "Training", _curves(data)),
        ("pruning", "Pruning", _pruning(data) + report_studies.prunings(data, ap)),
        ("scan", "Sensitivity to pruning", report_studies.scan(data, ap)),
        ("agreement", "Predicted against measured", report_studies.agreement(data)),
        ("layers", "Predicted time per layer", _layers(data)),
        ("sensitivity", "Sensitivity to int8", _sensitivity(data)),
        ("sweep", "Sweep", _sweep(data, ap)),
        ("ablations", "Ablations and comparisons", _comparisons(data, ap)),
        ("live", "Live run", _pairs(data.get("live"))),
        ("commands", "Commands of this run", _commands(data.get("commands"))),
        ("environment", "Environment", _pairs(data.get("environment"))),
        ("next", "Next steps", _commands(data.get("next"))),
    ]
    sections = [section for section in sections if section[2]]
    title = escape(data.get("title") or data.get("name") or "jetmask report")
    body = "".join(
        f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{escape(name)}</h2>{content}</section>'
        for key, name, content in sections)
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections)
    when = f" on {escape(data['created'])}" if data.get("created") else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{CSS.read_text(encoding='utf-8')}</style></head><body>"
        f"<header><h1>{title}</h1>{_head(data)}<nav aria-label=\"Sections\">{links}</nav></header>"
        f"<main>{body}</main><footer><p>Written by jetmask{when}. The same figures: report.json and report.csv "
        "beside this file.</p></footer></body></html>\n"
    )


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

    head = "".join(f'<th scope="col"{_text_class(kind)}>{escape(name)}</th>' for name, kind in columns)
    lines = "".join(
        f"<tr{f' class={chr(34)}{css}{chr(34)}' if css else ''}>"
        + "".join(cell(value, kind) for value, (_, kind) in zip(values, columns, strict=True)) + "</tr>"
        for css, values in rows)
    # Not a <caption>: that would be as wide as the table, and cut off on a phone.
    words = f'<p class="caption">{escape(caption)}</p>' if caption else ""
    label = escape(caption or ", ".join(name for name, _ in columns[:3] if name))
    return (f'{words}<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>")


def _text_class(kind: str) -> str:
    return ' class="text"' if kind == "text" else ""


def figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


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
        warnings.insert(0, "Every AP on this page was measured on drawn images. It says that the stages work and how "
                           "they compare, and nothing about photographs.")
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
    columns = [("variant", ""), ("runs on", "text"), (ap, "ap"), ("mask", "ap"), ("no mask", "ap"), ("<32 px", "ap"),
               ("32–96", "ap"), (">96", "ap"), ("p50 ms", "ms"), ("p95", "ms"), ("p99", "ms"), ("frames/s", "fps"),
               ("size", "bytes"), ("MACs", "macs")]
    order = sorted(measured, key=lambda i: rows[i]["p50_ms"] if rows[i]["p50_ms"] is not None else float("inf"))
    lines = [("front" if i in best else "", [
        row["name"], _where(row), row["map50"], row["with_mask"], row["without_mask"], row["small"], row["medium"],
        row["large"], row["p50_ms"], row["p95_ms"], row["p99_ms"], row["fps"], row["bytes"], row["macs"]])
        for i, row in ((i, rows[i]) for i in order)]
    out = []
    if lines:
        # A column without a figure says nothing, and on paper it costs another one its place.
        used = [i for i in range(len(columns)) if any(values[i] is not None for _, values in lines)]
        lines = [(css, [values[i] for i in used]) for css, values in lines]
        out.append(table([columns[i] for i in used], lines, f"Measured on {machine}, AP in points; ★ marks the front: "
                                                            "nothing measured is both faster and more accurate"))
    predicted = [row for row in rows if row["measured"] == "predicted"]
    if predicted:
        lines = [("predicted", [row["name"], row["target"], row["precision"], row["map50"], row["p50_ms"],
                                f"{number(row['low_ms'], 'ms')} to {number(row['high_ms'], 'ms')}"
                                if row["low_ms"] is not None else "error unknown", row["fps"], row["bytes"]])
                 for row in predicted]
        out.append("<h3>Predicted, not measured</h3>" + table(
            [("variant", ""), ("target", ""), ("precision", ""), (ap, "ap"), ("ms", "ms"), ("9 of 10 within, ms", ""),
             ("frames/s", "fps"), ("size", "bytes")], lines,
            "From the graph alone; the AP is that of the same variant where it could be run. Engine time only."))
    return "".join(out) + _fronts(rows, ap, machine)


def _where(row: dict) -> str:
    threads = f", {row['threads']} thread{'s' if row['threads'] != 1 else ''}" if row["threads"] else ""
    return f"{row['runtime'] or '–'}{threads}"


def _fronts(rows: list, ap: str, machine: str) -> str:
    points = [{"name": row["name"], "ap": row["map50"], "ms": row["p50_ms"],
               "mb": row["bytes"] / 1e6 if row["bytes"] else None, "low": row["low_ms"], "high": row["high_ms"],
               "group": (row["runtime"] or "?") if row["measured"] == "measured" else str(row["target"]),
               "device": machine if row["measured"] == "measured" else str(row["target"]),
               "predicted": row["measured"] != "measured"} for row in rows]
    timed = [p for p in points if p["ap"] is not None and p["ms"] is not None]
    sized = [p for p in points if p["ap"] is not None and p["mb"] is not None and not p["predicted"]]
    out = []
    if len(timed) > 1:
        words = f"{ap} against time. " + ". ".join(
            f"Front of {device}{', predicted' if part[0]['predicted'] else ''}: "
            + "; ".join(f"{p['name']} {p['ap']:.1f} at {p['ms']:.3g} ms" for p in report_plots.best(part, "ms"))
            for device, part in report_plots.by_device(timed))
        wide = max(p["ms"] for p in timed) > 12 * min(p["ms"] for p in timed) > 0
        label = "ms per image" + (", log scale" if wide else "")
        out.append(figure(report_plots.trade_off(timed, "ms", label, ap, words, wide),
                          f"Up and left is better. Filled: measured on {machine}, p50. Hollow: predicted for another "
                          "device, with the interval that holds 9 of 10. Each device has its own front."))
    if len({p["mb"] for p in sized}) > 1:
        words = f"{ap} against file size. Front: " + "; ".join(
            f"{p['name']} {p['ap']:.1f} at {p['mb']:.2f} MB" for p in report_plots.best(sized, "mb"))
        out.append(figure(report_plots.trade_off(sized, "mb", "model file, MB", ap, words),
                          "The same against the size of the model's file."))
    return f'<div class="plots">{"".join(out)}</div>' if out else ""


def _stages(data: dict, ap: str) -> str:
    rows = data.get("stages") or ()
    if not rows:
        return ""
    optional = [(key, column) for key, column in (("macs", ("MACs", "macs")), ("bytes", ("size", "bytes")),
                                                  ("latency_ms", ("ms", "ms")), ("minutes", ("minutes", "ms")))
                if any(row.get(key) is not None for row in rows)]
    lines, previous = [], None
    for row in rows:
        value = row.get("map50")
        change = value - previous if value is not None and previous is not None else None
        previous = value if value is not None else previous
        figures = [row.get(key) for key, _ in optional]
        lines.append(("", [row.get("name"), value, change, *figures, row.get("note") or " "]))
    columns = [("stage", ""), (ap, "ap"), ("change", "delta"), *(column for _, column in optional), ("", "text")]
    content = table(columns, lines, "Each stage against the one before it")
    known = [(row["name"], row["map50"]) for row in rows if row.get("map50") is not None]
    if len(known) > 1:
        words = f"{ap} after each stage: " + ", ".join(f"{name} {value:.1f}" for name, value in known)
        content += figure(report_plots.bars(known, f"{ap}, points", words, form=".1f"), "The same as bars.")
    return content


def _detections(data: dict, folder: Path) -> str:
    out, group = [], None
    for item in data.get("detections") or ():
        path = (folder / item.get("file", "")).resolve()
        if folder.resolve() not in path.parents or not path.is_file():
            raise BadInput(f"the picture {item.get('file')!r} is not there", str(folder / "report.json"),
                           "a file inside the run folder")
        kind = "png" if path.suffix.lower() == ".png" else "jpeg"
        source = f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        if item.get("group") and item["group"] != group:
            out.append(f"{'</div>' if group else ''}<h3>{escape(item['group'])}</h3><div class=\"sheet beside\">")
            group = item["group"]
        elif group is None:
            out.append('<div class="sheet">')
            group = ""
        caption = escape(str(item.get("caption") or ""))
        found = f"<br>{escape(item['found'])}" if item.get("found") else ""
        out.append(f'<figure><img src="{source}" alt="{escape(str(item.get("alt") or caption))}" loading="lazy">'
                   f"<figcaption>{caption}{found}</figcaption></figure>")
    if not out:
        return ""
    return ("<p>Green: mask; red: no mask; yellow: mask worn wrong. The number is the score.</p>"
            + "".join(out) + "</div>")


def _curves(data: dict) -> str:
    series = []
    for curve in data.get("curves") or ():
        rows, name = curve.get("rows") or (), curve.get("name") or ""
        for key, axis, label in (("cls_loss", "loss", "class loss"), ("box_loss", "loss", "box loss"),
                                 ("loss", "loss", "loss"), ("map50", "ap", "val mAP50")):
            known = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
            if known:
                series.append({"name": f"{name}: {label}" if name else label, "axis": axis,
                               "x": [epoch for epoch, _ in known], "y": [value for _, value in known]})
    if not series:
        return ""
    ends = [f"{s['name']} from {s['y'][0]:.3g} to {s['y'][-1]:.3g}" for s in series]
    return figure(report_plots.curves(series, "Training curves: " + "; ".join(ends)),
                  "Losses and validation AP by epoch.")


def _pruning(data: dict) -> str:
    pruning = data.get("pruning")
    if not pruning:
        return ""
    out = [f"<p>{escape(pruning['note'])}</p>"] if pruning.get("note") else []
    before, after = pruning.get("before") or {}, pruning.get("after") or {}
    kinds = {"macs": "macs", "bytes": "bytes", "map50": "ap", "latency_ms": "ms"}
    keys = [key for key in before if key in after]
    if keys:
        lines = []
        for key in keys:
            a, b = before[key], after[key]
            known = isinstance(a, (int, float)) and isinstance(b, (int, float)) and a
            ratio = "–" if not known else f"{b - a:+.1f} points" if key == "map50" else f"x {b / a:.2f}"
            kind = kinds.get(key, "")
            lines.append(("", [key.replace("_", " "), number(a, kind), number(b, kind), ratio]))
        out.append(table([("", ""), ("before", ""), ("after", ""), ("", "")], lines))
    channels = [row for row in pruning.get("channels") or () if row.get("before")]
    if channels:
        cut = sorted(channels, key=lambda row: row["after"] / row["before"])[:LONGEST]
        shown = [row for row in channels if any(row is other for other in cut)]
        words = "Channels before and after pruning: " + ", ".join(
            f"{row['layer']} {row['before']} to {row['after']}" for row in shown)
        pairs = [(row["layer"], (row["before"], row["after"])) for row in shown]
        out.append(figure(report_plots.bars(pairs, "channels", words, ("before", "after")),
                          "Channels by layer, in the order of the network."))
    return "".join(out)


def _layers(data: dict) -> str:
    out = []
    for model in data.get("layers") or ():
        layers = model.get("layers") or ()
        if not isinstance(layers, list) or not layers:
            continue
        title = model.get("title") or f"{model.get('precision', '')} on {model.get('target', '')}"
        total = model.get("latency_ms") or sum(layer["ms"] for layer in layers)
        bound = (f", 9 of 10 within {number(model['low_ms'], 'ms')} to {number(model['high_ms'], 'ms')} ms"
                 if model.get("low_ms") is not None else ", error unknown")
        slow = sorted(layers, key=lambda layer: -layer["ms"])[:LONGEST]
        shown = [layer for layer in layers if any(layer is other for other in slow)]
        rows = [(_short(layer["name"]), layer["ms"], layer["kind"]) for layer in shown]
        words = f"{title}: predicted {total:.3g} ms. Slowest: " + ", ".join(
            f"{_short(layer['name'])} {layer['ms']:.2g} ms" for layer in slow[:6])
        body = figure(report_plots.bars(rows, "ms, predicted", words),
                      f"{title}: {number(total, 'ms')} ms in all{bound}; the {len(rows)} slowest of {len(layers)} "
                      "launched layers, in the order of the network.")
        columns = [("layer", ""), ("kind", ""), ("ms", ""), ("compute ms", ""), ("memory ms", ""), ("MACs", "macs")]
        whole = table(columns, [
            ("", [_short(layer["name"], 60), layer["kind"], f"{layer['ms']:.3f}", f"{layer.get('compute_ms', 0):.3f}",
                  f"{layer.get('memory_ms', 0):.3f}", layer.get("macs")]) for layer in layers])
        out.append(f"{body}<details><summary>All {len(layers)} layers of {escape(title)}</summary>{whole}</details>")
    return "".join(out)


def _short(name: str, most: int = 30) -> str:
    """A fused layer's name by its first node, with how many more it swallowed."""
    parts = name.split(" + ")
    first = parts[0] if len(parts[0]) <= most else "…" + parts[0][-(most - 1):]
    return first + (f" +{len(parts) - 1}" if len(parts) > 1 else "")


def _sensitivity(data: dict) -> str:
    noisy = [row for row in data.get("sensitivity") or () if row.get("snr_db") is not None]
    if noisy:
        top = sorted(noisy, key=lambda row: row["snr_db"])[:LONGEST]
        words = "Signal-to-noise ratio at the worst head with one layer in int8: " + ", ".join(
            f"{r['layer']} {r['snr_db']:.1f} dB" for r in top)
        return figure(report_plots.bars([(_short(r["layer"]), r["snr_db"]) for r in top], "dB at the worst head", words,
                                        form=".1f"),
                      "Signal-to-noise ratio at the worst head when this layer alone runs in int8; lower is worse, "
                      f"the {len(top)} worst of {len(noisy)}.")
    rows = [row for row in data.get("sensitivity") or () if row.get("drop") is not None]
    if not rows:
        return ""
    top = sorted(rows, key=lambda row: -row["drop"])[:LONGEST]
    words = "Points of mAP50 lost with one layer in int8: " + ", ".join(f"{r['layer']} {r['drop']:.2g}" for r in top)
    return figure(report_plots.bars([(_short(r["layer"]), r["drop"]) for r in top], "points of mAP50 lost", words),
                  "What is lost when this layer alone runs in int8; the most sensitive first.")


def _sweep(data: dict, ap: str) -> str:
    sweep = data.get("sweep")
    trials = [t for t in (sweep or {}).get("trials") or () if t.get("map50") is not None and t.get("latency_ms")]
    if not trials:
        return ""
    target = sweep.get("target") or "the target"
    points = [{"name": f"#{t['number']}", "ap": t["map50"], "ms": t["latency_ms"], "group": "trials", "device": target,
               "predicted": True} for t in trials]
    best = front([(p["ms"], -p["ap"]) for p in points])
    words = f"{len(trials)} trials; front: " + ", ".join(f"#{trials[i]['number']} {points[i]['ap']:.1f} at "
                                                         f"{points[i]['ms']:.3g} ms" for i in best)
    names = list(dict.fromkeys(key for t in trials for key in t.get("params") or {}))
    rows = [("front" if i in best else "", [f"#{t['number']}", t["map50"], t["latency_ms"], t.get("bytes"),
                                           *((t.get("params") or {}).get(name) for name in names)])
            for i, t in sorted(enumerate(trials), key=lambda item: item[1]["latency_ms"])]
    columns = [("trial", ""), (ap, "ap"), (f"ms on {target}, predicted", "ms"), ("size", "bytes")]
    columns += [(name, "") for name in names]
    note = f"<p>{escape(sweep['note'])}</p>" if sweep.get("note") else ""
    return (note + figure(report_plots.trade_off(points, "ms", f"ms on {target}, predicted", ap, words),
                          f"AP measured on val after the trial's training, time predicted for {target}.")
            + table(columns, rows, "★ marks the front"))


def _comparisons(data: dict, ap: str) -> str:
    out = []
    rows = data.get("ablations") or ()
    changes = [(r.get("name") or "", r["delta"]) for r in rows if r.get("delta")]
    if len(changes) > 1:
        words = f"Change of {ap} by each choice: " + ", ".join(f"{name} {delta:+.1f}" for name, delta in changes)
        out.append(figure(report_plots.bars(changes, f"change of {ap}, points", words, form="+.1f"),
                          "What changes when this choice alone is changed."))
    if rows:
        out.append(table([("what", ""), (ap, "ap"), ("change", "delta"), ("", "text")],
                         [("", [r.get("name"), r.get("map50"), r.get("delta"), r.get("note") or ""]) for r in rows]))
    for item in data.get("comparisons") or ():
        rows = item.get("rows") or ()
        if not rows:
            continue
        names = list(dict.fromkeys(key for row in rows for key in row))
        kinds = {"map50": "ap", "bytes": "bytes", "macs": "macs", "latency_ms": "ms", "ms": "ms"}
        note = f"<p>{escape(item['note'])}</p>" if item.get("note") else ""
        out.append(f"<h3>{escape(item.get('title') or '')}</h3>{note}"
                   + table([(name, kinds.get(name, "")) for name in names],
                           [("", [row.get(name) for name in names]) for row in rows]))
    return "".join(out)


def _pairs(pairs: Any) -> str:
    if not pairs:
        return ""
    lines = (f"<dt>{escape(str(key))}</dt><dd>{number(value)}</dd>" for key, value in pairs.items())
    return f"<dl>{''.join(lines)}</dl>"


def _commands(commands: Any) -> str:
    return "".join(f"<h3>{escape(item.get('title') or '')}</h3><pre>{escape(item.get('command') or '')}</pre>"
                   for item in commands or ())
