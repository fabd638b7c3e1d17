"""A report's sections on single layers: predicted time, and sensitivity to int8."""

from markupsafe import Markup

from pipeline.pages.render import LONGEST, NOTHING, details, figure, number, table, together
from pipeline.report import plots


def layers(data: dict) -> Markup:
    """The predicted time of each launched layer."""
    out = []
    for model in data.get("layers") or ():
        launched = model.get("layers") or ()
        if not isinstance(launched, list) or not launched:
            continue
        title = model.get("title") or f"{model.get('precision', '')} on {model.get('target', '')}"
        total = model.get("latency_ms") or sum(layer["ms"] for layer in launched)
        bound = (
            f", 90 % within {number(model['low_ms'], 'ms')} to {number(model['high_ms'], 'ms')} ms"
            if model.get("low_ms") is not None
            else ", error unknown"
        )
        slow = sorted(launched, key=lambda layer: -layer["ms"])[:LONGEST]
        shown = [layer for layer in launched if any(layer is other for other in slow)]
        rows = [(_short(layer["name"]), layer["ms"], layer["kind"]) for layer in shown]
        words = f"{title}: predicted {total:.3g} ms. Slowest: " + ", ".join(
            f"{_short(layer['name'])} {layer['ms']:.2g} ms" for layer in slow[:6]
        )
        body = figure(
            plots.bars(rows, "ms, predicted", words),
            f"{title}: {number(total, 'ms')} ms in all{bound}; the {len(rows)} slowest of {len(launched)} "
            "launched layers, in the order of the network.",
        )
        columns = [("layer", ""), ("kind", ""), ("ms", ""), ("compute ms", ""), ("memory ms", ""), ("MACs", "macs")]
        whole = table(
            columns,
            [
                (
                    "",
                    [
                        _short(layer["name"], 60),
                        layer["kind"],
                        f"{layer['ms']:.3f}",
                        f"{layer.get('compute_ms', 0):.3f}",
                        f"{layer.get('memory_ms', 0):.3f}",
                        layer.get("macs"),
                    ],
                )
                for layer in launched
            ],
        )
        out.append(body + details(f"All {len(launched)} layers of {title}", whole))
    return together(out)


def _short(name: str, most: int = 30) -> str:
    """A fused layer's name by its first node, with how many more it swallowed."""
    parts = name.split(" + ")
    first = parts[0] if len(parts[0]) <= most else "…" + parts[0][-(most - 1) :]
    return first + (f" +{len(parts) - 1}" if len(parts) > 1 else "")


def sensitivity(data: dict) -> Markup:
    """What each layer loses when it alone is int8."""
    noisy = [row for row in data.get("sensitivity") or () if row.get("snr_db") is not None]
    if noisy:
        top = sorted(noisy, key=lambda row: row["snr_db"])[:LONGEST]
        words = "Signal-to-noise ratio at the worst head with one layer in int8: " + ", ".join(
            f"{r['layer']} {r['snr_db']:.1f} dB" for r in top
        )
        return figure(
            plots.bars([(_short(r["layer"]), r["snr_db"]) for r in top], "dB at the worst head", words, form=".1f"),
            "Signal-to-noise ratio at the worst head when this layer alone runs in int8; lower is worse, "
            f"the {len(top)} worst of {len(noisy)}.",
        )
    rows = [row for row in data.get("sensitivity") or () if row.get("drop") is not None]
    if not rows:
        return NOTHING
    top = sorted(rows, key=lambda row: -row["drop"])[:LONGEST]
    words = "Points of mAP50 lost with one layer in int8: " + ", ".join(f"{r['layer']} {r['drop']:.2g}" for r in top)
    return figure(
        plots.bars([(_short(r["layer"]), r["drop"]) for r in top], "points of mAP50 lost", words),
        "What is lost when this layer alone runs in int8; the most sensitive first.",
    )
