"""What `jetmask choose` chooses among: the rows of a table of measurements, or the variants of a bundle."""

import csv
import math
from collections.abc import Callable
from typing import NamedTuple

from jetson.bundle import manifest
from jetson.bundle.manifest import Manifest, Variant
from jetson.errors import BadInput
from pipeline import targets
from pipeline.choose.choice import Candidate

PRECISION = {"fp32": "fp32", "fp16": "fp16", "int8": "int8", "int8-cpu": "int8"}
TIMES = ("ms", "p50_ms", "latency_ms")  # the column of the time, by the first of these that is there


class _Row(NamedTuple):
    """A row of the table, by its number in the file (the header is line 1)."""

    line: int
    values: dict[str, str]

    @property
    def name(self) -> str:
        return self.values["name"]

    @property
    def predicted(self) -> bool:
        return self.values.get("measured") == "predicted"


def from_csv(path: str, target: str | None = None) -> list[Candidate]:
    """Candidates of a CSV with the columns name, map50, bytes and ms (or p50_ms, latency_ms), as a report writes it.

    With a `target` column, only rows of `target` (or, for this-machine, rows without one). Where a `measured` column
    tells them apart, what was measured takes the place of what was predicted for the same name, and has its AP and
    bytes where it brings none. Rows without an AP or a time are left out: nothing can be said about them.
    """
    rows = _rows(path)
    time = _time_column(rows[0], path)
    ours = [_Row(line, row) for line, row in enumerate(rows, 2) if not target or _is_for(row, target)]
    return [
        _candidate(row, time, path) for row in _measured_first(ours, time) if row.values["map50"] and row.values[time]
    ]


def _rows(path: str) -> list[dict[str, str]]:
    """The table's rows by their columns, at least one."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:  # spreadsheets put a byte order mark before it
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"the table cannot be read: {error}", path, "a CSV file") from None
    if not rows:
        raise BadInput("the table has no rows", path, "one row per variant")
    return rows


def _time_column(columns: dict[str, str], path: str) -> str:
    """Which column holds the time; BadInput where one that is needed is missing."""
    time = next((name for name in TIMES if name in columns), None)
    if "map50" not in columns and any(";" in str(name) for name in columns):
        raise BadInput(
            "the columns are separated by semicolons", path, "commas between the columns", "save it as CSV with commas"
        )
    missing = [name for name in ("name", "map50", "bytes") if name not in columns] + ([] if time else ["ms"])
    if time is None or missing:
        raise BadInput(f"columns are missing: {', '.join(missing)}", path, "name, map50, bytes and ms")
    return time


def _is_for(row: dict[str, str], target: str) -> bool:
    return "target" not in row or (row["target"] or targets.THIS_MACHINE) == target


def _measured_first(rows: list[_Row], time: str) -> list[_Row]:
    """Without predictions of what was measured, whose AP and bytes a measured row that brings none takes."""
    predicted = {row.name: row.values for row in rows if row.predicted}
    timed = {row.name for row in rows if not row.predicted and row.values[time]}
    out = []
    for row in rows:
        if not row.predicted:
            stand_in = predicted.get(row.name, row.values)
            found = {key: row.values[key] or stand_in[key] for key in ("map50", "bytes")}
            out.append(row._replace(values={**row.values, **found}))
        elif row.name not in timed:
            out.append(row)
    return out


def _candidate(row: _Row, time: str, path: str) -> Candidate:
    where, text = f"{path}, line {row.line}", row.values
    try:
        map50, ms = float(text["map50"]), float(text[time])
        size = int(float(text["bytes"])) if text["bytes"] else None
        high = float(text["high_ms"]) if text.get("high_ms") else None
    except (TypeError, ValueError, OverflowError):
        raise BadInput("map50, ms and bytes must be numbers", where, "for instance 77.3") from None
    if not all(0 <= value < math.inf for value in (map50, ms, size, high) if value is not None):
        raise BadInput("map50, ms and bytes must be finite and not negative", where, "for instance 77.3")
    return Candidate(row.name, map50, ms, size, text.get("measured") or "given", high)


def from_bundle(folder: str, target: str, progress: Callable[[str], None] = lambda text: None) -> list[Candidate]:
    """Candidates of a bundle's variants, timed by prediction for `target`.

    The AP is the manifest's: on the runtime that the target uses where it was measured there, else that of the same
    model and input size at the nearest precision, since FP16 engines of TensorRT cannot be run where there is none.
    The names are the bundle's, save for the FP16 engine of a plain fp32 file that the bundle lists no variant for.
    """
    from pipeline.graphs.shapes import read
    from pipeline.latency.cli import predict_graph

    contents = manifest.load(folder)
    device = targets.target(target)
    runtime = "onnxruntime" if device.name == targets.THIS_MACHINE else "tensorrt"
    usable = [
        variant
        for variant in contents.variants
        if contents.path(variant).endswith(".onnx") and runtime in variant.runtimes
    ]
    recipes = [(variant, PRECISION[variant.precision], variant.name) for variant in usable]
    if runtime == "tensorrt":  # a plain fp32 file is also what a weakly typed FP16 engine is built from
        recipes += [
            (v, "fp16", f"{v.model}-{v.input_wh[0]}x{v.input_wh[1]}-fp16") for v in usable if v.precision == "fp32"
        ]
    out, seen = [], set()
    for variant, precision, name in recipes:
        ap, source = accuracy(contents, variant, runtime)
        key = (variant.model, tuple(variant.input_wh), precision)
        if ap is None or key in seen or precision not in device.fast_precisions:
            continue
        seen.add(key)
        progress(name)
        result = predict_graph(
            read(contents.path(variant), (variant.input_wh[0], variant.input_wh[1])), target, precision
        )
        out.append(
            Candidate(
                name, ap, result.latency_ms, variant.bytes, f"time predicted, AP measured on {source}", result.high_ms
            )
        )
    return out


def accuracy(contents: Manifest, variant: Variant, runtime: str) -> tuple[float | None, str]:
    """mAP50 of a variant on `runtime`, or of what stands in for it, and where that was measured."""
    own = variant.ap.get(runtime) if variant.ap else None
    if own:
        return own["map50"], runtime
    near = [
        other
        for other in contents.variants
        if other.model == variant.model and tuple(other.input_wh) == tuple(variant.input_wh)
    ]
    own_precision = PRECISION[variant.precision]
    near.sort(
        key=lambda other: (
            other.name != variant.name,
            PRECISION[other.precision] != own_precision,
            (PRECISION[other.precision] == "int8") != (own_precision == "int8"),
            other.precision != "fp32",
        )
    )
    for other in near:
        for name, value in (other.ap or {}).items():
            if value:
                return value["map50"], f"{name} as {other.precision}"
    return None, ""
