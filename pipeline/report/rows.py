"""A report's variants, predictions and device measurements as flat rows, one column for each figure."""

from typing import Any

COLUMNS = (
    "name",
    "runtime",
    "precision",
    "input_wh",
    "threads",
    "map50",
    "with_mask",
    "without_mask",
    "small",
    "medium",
    "large",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "fps",
    "bytes",
    "macs",
    "measured",
    "target",
    "low_ms",
    "high_ms",
)


def table_row(row: dict[str, Any], measured: bool) -> dict[str, Any]:
    """One variant or prediction as flat columns (COLUMNS); missing ones are None."""
    latency = row.get("latency_ms")
    latency = latency.get("total_ms", latency) if isinstance(latency, dict) else {"p50": latency}
    p50 = latency.get("p50")
    size = row.get("input_wh")
    fps = row.get("fps")
    if fps is None and p50:
        fps = 1000 / p50
    return (
        dict.fromkeys(COLUMNS)
        | {
            "name": row.get("name") or row.get("variant"),
            "runtime": row.get("runtime"),
            "precision": row.get("precision"),
            "input_wh": "x".join(map(str, size)) if size else None,
            "threads": row.get("threads"),
            "map50": row.get("map50"),
            "with_mask": (row.get("per_class") or {}).get("with_mask"),
            "without_mask": (row.get("per_class") or {}).get("without_mask"),
            "p50_ms": p50,
            "p95_ms": latency.get("p95"),
            "p99_ms": latency.get("p99"),
            "fps": fps,
            "bytes": row.get("bytes"),
            "macs": row.get("macs"),
            "measured": "measured" if measured else "predicted",
            "target": row.get("target"),
            "low_ms": row.get("low_ms"),
            "high_ms": row.get("high_ms"),
        }
        | {size: (row.get("by_size") or {}).get(size) for size in ("small", "medium", "large")}
    )


def table_rows(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Measured variants, then predictions, as `table_row` gives them."""
    return [table_row(row, True) for row in data.get("variants") or ()] + [
        table_row(row, False) for row in data.get("predicted") or ()
    ]


def device_rows(device: dict[str, Any]) -> list[dict[str, Any]]:
    """What one device measured, as `table_row` gives it; "measured" names the machine."""
    rows = []
    for row in device.get("rows") or ():
        if row.get("latency_ms"):
            more = {"threads": device.get("threads"), "target": device.get("predicted_for")}
            flat = table_row(row | (row.get("ap") or {}) | more, True)
            rows.append(flat | {"measured": machine_of(device)})
    return rows


def machine_of(device: dict[str, Any]) -> str:
    """The name of the machine that measured."""
    board = device.get("board") or {}
    return str(board.get("model") or board.get("machine") or "an unnamed device")
