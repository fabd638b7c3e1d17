"""What `bench` found, as rows for JSON and as a table for people."""

from typing import Any, Dict, Sequence

import numpy as np

from jetson.adapt.candidates import Entry
from jetson.cli import table


def percentiles(times_ms: Sequence[float]) -> Dict[str, float]:
    """{p50, p95, p99, n} of times in ms."""
    values = {f"p{q}": round(float(np.percentile(times_ms, q)), 3) for q in (50, 95, 99)}
    return dict(values, n=len(times_ms))


def row_of(entry: Entry, reference: bool, turns: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """One row for JSON. `turns`: what the passes of jetson.bench.measure found of it; none if it was skipped."""
    variant = entry.variant
    row: Dict[str, Any] = {
        "variant": variant.name,
        "runtime": entry.runtime,
        "precision": variant.precision,
        "input_wh": list(variant.input_wh),
        "macs": variant.macs,
        "bytes": variant.bytes,
        "reference": reference,
        "skipped": entry.error or None,
        "latency_ms": None,
        "infer_ms": None,
        "fps": None,
        "agreement": None,
        "ap": None,
        "end_to_end": None,
        "note": None,
    }
    if entry.error or not turns:
        return row
    row["latency_ms"] = percentiles([ms for turn in turns for ms in turn["total_ms"]])
    row["infer_ms"] = percentiles([ms for turn in turns for ms in turn["infer_ms"]])
    row["fps"] = round(1e3 / row["latency_ms"]["p50"], 2)
    row.update(agreement=turns[0]["agreement"], ap=turns[0]["ap"], note=turns[0]["note"])
    through = turns[0].get("through")
    if through is not None:
        limit = sum(turn["bare_fps"] for turn in turns) / len(turns)
        row["end_to_end"] = {
            "fps": through["fps"],
            "bare_fps": round(limit, 2),
            "ratio": round(through["fps"] / round(limit, 2), 3),
            "latency_ms": through["latency_ms"]["total"],
        }
    return row


def text_table(result: Dict[str, Any]) -> str:
    """The result for people."""
    rows = []
    for row in result["rows"]:
        if row["skipped"]:
            rows.append([row["variant"], row["runtime"]] + ["-"] * 5)
            continue
        agreement, end = row["agreement"]["agreement"], row["end_to_end"]
        rows.append(
            [
                row["variant"],
                row["runtime"],
                "{p50:.2f}".format(**row["latency_ms"]),
                "{p99:.2f}".format(**row["latency_ms"]),
                f"{(end['fps'] if end else row['fps']):.1f}",
                "reference" if row["reference"] else "-" if agreement is None else f"{100 * agreement:.1f} %",
                f"{row['ap']['map50']:.1f}" if row["ap"] and row["ap"]["map50"] is not None else "-",
            ]
        )
    machine = result["board"]
    lines = [
        "measured on {} ({} frames), {}, {} thread{}{}".format(
            result["measured_on"],
            result["frames"],
            machine["machine"],
            result["threads"],
            "" if result["threads"] == 1 else "s",
            ", power mode " + machine["power_mode"] if machine["power_mode"] else "",
        )
    ]
    lines.append(table(["variant", "runtime", "p50 ms", "p99 ms", "frames/s", "agreement", "AP50"], rows))
    reasons = sorted({f"{row['runtime']}: {row['skipped']}" for row in result["rows"] if row["skipped"]})
    lines += ["- not run here: " + reason for reason in reasons]
    lines += sorted({f"- {row['variant']}: {row['note']}" for row in result["rows"] if row.get("note")})
    left = result.get("combinations", len(result["rows"])) - len(result["rows"])
    if left > 0:
        lines.append(f"- {left} further combinations of variant and runtime are left out; --all measures them too")
    return "\n".join(lines)
