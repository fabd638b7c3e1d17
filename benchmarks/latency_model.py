"""Fit the latency model to the published Jetson Nano rows and say how far off it is on rows it was not fitted to.

    python -m benchmarks.latency_model            prints the fit and its errors
    python -m benchmarks.latency_model --write    also writes benchmarks/results/latency_model.csv

Engine rows (a latency was measured around the engine) decide the fit. End-to-end rows (frames/s of a whole program)
are never mixed in: what is shown for them is the time that is left for camera, drawing and decoding.
"""

import argparse
import csv
import io
from pathlib import Path
from typing import Any

from benchmarks.networks import build
from jetson import files
from pipeline import targets
from pipeline.graphs import shapes
from pipeline.graphs.fusion import layers
from pipeline.latency import fit
from pipeline.latency.roofline import FITTED, SPREAD, describe, rates, total_ms

HERE = Path(__file__).parent
PUBLISHED = HERE / "published" / "nano.csv"
RESULT = HERE / "results" / "latency_model.csv"
FIELDS = (
    "network",
    "input_wh",
    "precision",
    "source",
    "measured_ms",
    "fitted_ms",
    "fitted_error_pct",
    "leave_one_out_ms",
    "leave_one_out_error_pct",
    "leave_network_out_error_pct",
    "leave_source_out_ms",
    "leave_source_out_error_pct",
    "outside_engine_ms",
    "kind",
)


def published() -> list[dict[str, Any]]:
    """The rows of nano.csv as dicts, with `wh`, `ms` and `kind` ("engine" or "end to end") added."""
    with open(PUBLISHED, newline="") as handle:
        rows: list[dict[str, Any]] = list(csv.DictReader(handle))
    for row in rows:
        height, width = map(int, row["input_hw"].split("x"))
        row["wh"] = (width, height)
        row["kind"] = "engine" if row["latency_ms"] else "end to end"
        row["ms"] = float(row["latency_ms"]) if row["latency_ms"] else 1000 / float(row["throughput_fps"])
        row["layers"] = describe(layers(shapes.from_model(build(row["network"], row["wh"]))))
        row["rates"] = rates(targets.target("nano"), row["precision"])
        row["family"] = row["network"].rstrip("0123456789.").rstrip("-") if row["kind"] == "engine" else row["network"]
    return rows


def evaluate(rows: list) -> list:
    """Rows for the CSV: fitted and held-out errors of the engine rows, then the end-to-end rows."""
    engine = [row for row in rows if row["kind"] == "engine"]
    data = [(row["layers"], row["rates"], row["ms"]) for row in engine]
    parameters = fit.fit(data)
    one = fit.leave_out(data, list(range(len(data))))
    network = fit.leave_out(data, [row["network"] for row in engine])
    source = fit.leave_out(data, [row["source"] for row in engine])
    out = []
    for row, loo, lno, lso in zip(engine, one, network, source, strict=True):
        fitted = total_ms(row["layers"], row["rates"], parameters)
        out.append(
            _line(row, fitted)
            | {
                "fitted_error_pct": _percent(fitted, row["ms"]),
                "leave_source_out_ms": f"{lso:.2f}",
                "leave_one_out_ms": f"{loo:.2f}",
                "leave_one_out_error_pct": _percent(loo, row["ms"]),
                "leave_network_out_error_pct": _percent(lno, row["ms"]),
                "leave_source_out_error_pct": _percent(lso, row["ms"]),
            }
        )
    for row in rows:
        if row["kind"] != "engine":
            fitted = total_ms(row["layers"], row["rates"], parameters)
            out.append(_line(row, fitted) | {"outside_engine_ms": f"{row['ms'] - fitted:.2f}"})
    return out


def _percent(predicted: float, measured: float) -> str:
    return f"{(predicted / measured - 1) * 100:+.1f}"


def _line(row: dict, fitted: float) -> dict:
    return dict.fromkeys(FIELDS, "") | {
        "network": row["network"],
        "input_wh": "x".join(map(str, row["wh"])),
        "precision": row["precision"],
        "source": row["source"],
        "measured_ms": f"{row['ms']:.2f}",
        "fitted_ms": f"{fitted:.2f}",
        "kind": row["kind"],
    }


def text(lines: list) -> str:
    handle = io.StringIO()
    writer = csv.DictWriter(handle, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return handle.getvalue()


def mean_error(lines: list, field: str) -> float:
    """Mean absolute error in per cent over the lines that have `field`."""
    values = [abs(float(line[field])) for line in lines if line[field]]
    return sum(values) / len(values)


def held_out_spread(lines: list) -> float:
    """The 90 % factor from leave-one-source-out errors: a reader's measurement comes from yet another source."""
    inside = [line for line in lines if line["kind"] == "engine"]
    return fit.spread(
        [float(line["leave_source_out_ms"]) for line in inside], [float(line["measured_ms"]) for line in inside]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    rows = published()
    engine = [row for row in rows if row["kind"] == "engine"]
    data = [(row["layers"], row["rates"], row["ms"]) for row in engine]
    parameters = fit.fit(data)
    lines = evaluate(rows)
    print("fitted:  ", {name: float(f"{value:.4g}") for name, value in parameters._asdict().items()})
    print("shipped: ", FITTED._asdict())
    print(f"spread for 90 %: {held_out_spread(lines):.3f} (shipped {SPREAD})")
    for line in lines:
        print(
            f"{line['network'][:24]:24} {line['input_wh']:8} {line['precision']} {line['measured_ms']:>7} ms  "
            f"fit {line['fitted_error_pct']:>6} %  one out {line['leave_one_out_error_pct']:>6} %  "
            f"network out {line['leave_network_out_error_pct']:>6} %  "
            f"source out {line['leave_source_out_error_pct']:>6} %  {line['kind']}"
        )
    print("mean absolute error in %, engine rows:")
    inside = [line for line in lines if line["kind"] == "engine"]
    for field in (
        "fitted_error_pct",
        "leave_one_out_error_pct",
        "leave_network_out_error_pct",
        "leave_source_out_error_pct",
    ):
        print(f"  {field:30} {mean_error(inside, field):5.1f}")
    families = dict.fromkeys(row["family"] for row in engine)
    for family in families:
        part = [line for line, row in zip(inside, engine, strict=True) if row["family"] == family]
        print(f"  leave one out, {family:15} {mean_error(part, 'leave_one_out_error_pct'):5.1f}  ({len(part)} rows)")
    for line in lines:
        if line["outside_engine_ms"]:
            print(
                f"  end to end, {line['network'][:24]:24} {line['measured_ms']:>7} ms a frame, "
                f"{line['outside_engine_ms']:>7} ms outside the engine"
            )
    if args.write:
        files.write_text(str(RESULT), text(lines))
        print(f"wrote {RESULT}")


if __name__ == "__main__":
    main()
