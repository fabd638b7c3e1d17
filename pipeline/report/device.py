"""A report's section on one device: what it measured beside what was predicted for it, and how far off that was."""

from typing import Any

from markupsafe import Markup

from pipeline.pages.render import NOTHING, heading, number, paragraph, table
from pipeline.report.rows import machine_of


def section(device: dict[str, Any]) -> Markup:
    """The HTML of one device's measurements (the JSON of `jetmask bench --device`)."""
    lines, offs, inside = [], [], []
    for row in device.get("rows") or ():
        infer, total, guess = row.get("infer_ms"), row.get("latency_ms"), row.get("predicted")
        if not infer or not total:
            continue
        interval = off = None
        if guess:
            offs.append(guess["off_percent"])
            inside += [guess["inside"]] if guess["inside"] is not None else []
            off = f"{guess['off_percent']:+.1f} %"
            interval = (
                f"{number(guess['low_ms'], 'ms')} to {number(guess['high_ms'], 'ms')}"
                if guess["low_ms"] is not None
                else "error unknown"
            )
        lines.append(
            (
                "",
                [
                    row["variant"],
                    row.get("runtime"),
                    total["p50"],
                    total.get("p99"),
                    row.get("fps"),
                    infer["p50"],
                    guess and guess["latency_ms"],
                    interval,
                    off,
                ],
            )
        )
    if not lines:
        return NOTHING
    columns = [
        ("variant", ""),
        ("runs on", "text"),
        ("whole image p50 ms", "ms"),
        ("p99", "ms"),
        ("frames/s", "fps"),
        ("inference p50 ms", "ms"),
        ("predicted ms", "ms"),
        ("90 % interval, ms", ""),
        ("off by", ""),
    ]
    mode = (device.get("board") or {}).get("power_mode")
    caption = (
        f"Measured there on {device.get('measured_on', 'its bundle')}{', power mode ' + mode if mode else ''}; "
        "the prediction is of inference alone"
    )
    notes = sorted({f"{row['variant']}: {row['note']}" for row in device.get("rows") or () if row.get("note")})
    caption = ". ".join([caption, *notes])
    return heading(machine_of(device)) + paragraph(verdict(device, offs, inside)) + table(columns, lines, caption)


def verdict(device: dict[str, Any], offs: list[float], inside: list[bool]) -> str:
    """How far the predictions were off, in a sentence."""
    target = device.get("predicted_for")
    if not target:
        return "Nothing was predicted for it: jetmask bench --target names the kind of device."
    if not offs:
        return f"No row here is one that the latency model of {target} covers."
    text = (
        f"The predictions for {target} were off by {sum(map(abs, offs)) / len(offs):.1f} % on average over "
        f"{len(offs)} measured row{'s' if len(offs) > 1 else ''}, at most {max(map(abs, offs)):.1f} %"
    )
    return text + (
        f"; {sum(inside)} of {len(inside)} lay inside their interval." if inside else "; their error bound was unknown."
    )
