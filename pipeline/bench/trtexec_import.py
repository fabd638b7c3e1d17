"""`jetmask bench --import-trtexec LOG`: what trtexec measured elsewhere, beside what is measured and predicted here.

trtexec times the engine on random input: GPU compute is the inference, its "Latency" adds both copies. Letterboxing and
the decoding of boxes are not in it, and there is no AP. Such rows are marked as imported wherever they are shown.
"""

import csv
import io
import json
import os
from typing import Any

from jetson import files
from jetson.bundle import manifest
from jetson.bundle.manifest import Manifest, Variant
from jetson.cli import table
from jetson.errors import BadInput, UsageError
from pipeline.bench import trtexec_log
from pipeline.bench.trtexec_log import Run
from pipeline.deploy.device_bench import beside_predictions, text_predictions

IMPORTED = "imported"
# The columns of benchmarks/results/*.csv (benchmarks/ledger.py).
LEDGER = (
    "system",
    "precision",
    "runtime",
    "threads",
    "input_wh",
    "split",
    "images",
    "map50",
    "with_mask",
    "without_mask",
    "small",
    "medium",
    "large",
    "infer_p50_ms",
    "infer_p95_ms",
    "total_p50_ms",
    "cpu_ms",
    "bytes",
    "macs",
    "ap_difference",
    "time_ratio",
    "cpu_ratio",
    "size_ratio",
    "macs_ratio",
    "machine",
    "load",
)


def run(log: str, bundle: str, variants: list[str], target: str | None, out: str | None, as_json: bool) -> int:
    """Read a log, predict where that is possible, write and print.

    out: a .csv ledger is added to, another file is written as JSON; None: neither. target: a kind of device (None: the
    log's own).
    """
    found = imported(log, bundle, variants)
    matched = [row for row in found["rows"] if row["bytes"] is not None]
    target = target or found["board"]["kind"]
    if target and matched:
        beside_predictions({"rows": matched}, bundle, target)
        found["predicted_for"] = target
    if out and out.endswith(".csv"):
        append(out, found)
    elif out:
        files.write_json(out, found)
    if as_json:
        print(json.dumps(found))
        return 0
    print(text_table(found))
    if found.get("predicted_for"):
        print(text_predictions(found))
    return 0


def imported(path: str, bundle_dir: str, names: list[str]) -> dict[str, Any]:
    """A log in the form of `jetmask bench --json`, with `"source": "imported"` and the log's SHA-256.

    A run is a variant of the bundle where model file, size and precision agree, or where `names` (one) says so;
    else its row has no bytes and no MACs. BadInput for a log that cannot be used.
    """
    runs, digest = trtexec_log.read(path)
    gpus = sorted({run.gpu or "an unnamed GPU" for run in runs})
    if len(gpus) > 1:
        raise BadInput("the log holds runs of several GPUs: " + ", ".join(gpus), path, "one device in a log")
    if len(names) > 1:
        raise UsageError("several variants are named for one log", "--variant", "one name")
    contents = manifest.load(bundle_dir)
    rows = [_row(run, contents, names[0] if names else None, path) for run in runs]
    version = next((run.version for run in runs if run.version), None)
    return {
        "bundle": contents.name,
        "source": IMPORTED,
        "log": os.path.basename(path),
        "log_sha256": digest,
        "measured_on": f"random input by trtexec{' ' + version if version else ''}, {IMPORTED} from "
        f"{os.path.basename(path)}: without letterboxing and decoding",
        "frames": 1,
        "threads": None,
        "images": None,
        "board": {
            "machine": gpus[0],
            "model": f"{gpus[0]} ({IMPORTED})",
            "kind": trtexec_log.kind_of(runs[0]),
            "capability": runs[0].capability,
            "tensorrt": version,
            "power_mode": None,
        },
        "rows": rows,
    }


def _row(run: Run, contents: Manifest, name: str | None, path: str) -> dict[str, Any]:
    variant = _named(run, contents, name, path) if name else _matching(run, contents)
    size = run.input_wh or (variant.input_wh if variant else None)
    compute, host = run.times["compute"], run.times.get("host", run.times["compute"])
    precision = variant.precision if variant else run.precision
    shape = f"{size[0]}x{size[1]}" if size else None
    label = "-".join(filter(None, (trtexec_log.name_of(run), shape, precision)))
    return {
        "variant": variant.name if variant else label,
        "model": os.path.basename(run.onnx) if run.onnx else None,
        "runtime": "tensorrt",
        "precision": precision,
        "input_wh": list(size) if size else None,
        "macs": variant.macs if variant else None,
        "bytes": variant.bytes if variant else None,
        "reference": False,
        "skipped": None,
        "latency_ms": _percentiles(host, run),
        "infer_ms": _percentiles(compute, run),
        "fps": round(run.throughput_qps * (run.batch or 1), 2),
        "agreement": None,
        "ap": None,
        "end_to_end": None,
        "predicted": None,
        "source": IMPORTED,
        "batch": run.batch,
        "notes": _notes(run),
        "layers": [layer._asdict() for layer in run.layers],
    }


def _percentiles(times: dict[str, float], run: Run) -> dict[str, Any]:
    return {**{key: times.get(key) for key in ("p50", "p95", "p99")}, "n": run.queries}


def _named(run: Run, contents: Manifest, name: str, path: str) -> Variant:
    variant = contents.variant(name)
    for what, here, there in (
        ("precision", variant.precision, run.precision),
        ("input size", variant.input_wh, run.input_wh),
        ("batch", 1, run.batch),
    ):
        if there is not None and here != there:
            raise UsageError(f"the log is not one of {name}: its {what} is {there}", path, str(here))
    return variant


def _matching(run: Run, contents: Manifest) -> Variant | None:
    if run.onnx is None or run.batch not in (None, 1):
        return None
    file = run.onnx.replace("\\", "/").rsplit("/", 1)[-1]
    fitting = [
        variant
        for variant in contents.variants
        if os.path.basename(variant.file) == file
        and "tensorrt" in variant.runtimes
        and variant.precision == run.precision
        and variant.input_wh == run.input_wh
    ]
    return fitting[0] if len(fitting) == 1 else None


def _notes(run: Run) -> list[str]:
    """What makes a run's figures something else than one inference at a time."""
    notes = []
    if run.batch not in (None, 1):
        notes.append(f"batch {run.batch}: the times are of {run.batch} images")
    if (run.settings["streams"] or 1) > 1:
        notes.append(f"{run.settings['streams']} streams: a time holds waiting for the others")
    if run.settings["cuda_graph"]:
        notes.append("CUDA graph: launches cost less than here")
    if run.settings["transfers"] is False:
        notes.append("copies are not in its latency")
    if run.settings["dla"]:
        notes.append(f"on DLA core {run.settings['dla']}")
    if run.precision is None:
        notes.append("the log does not say the precision")
    return notes


def text_table(found: dict[str, Any]) -> str:
    """The rows for people."""
    cells = []
    for row in found["rows"]:
        infer, latency = row["infer_ms"], row["latency_ms"]
        cells.append(
            [
                row["variant"],
                f"{infer['p50']:.3f}",
                "-" if infer["p99"] is None else f"{infer['p99']:.3f}",
                f"{latency['p50']:.3f}" if latency["p50"] is not None else "-",
                f"{row['fps']:.1f}",
                "-" if infer["n"] is None else infer["n"],
                len(row["layers"]) or "-",
            ]
        )
    lines = [
        f"{found['board']['model']}: {found['measured_on']}",
        table(["variant", "inference p50 ms", "p99", "with copies", "1/s", "runs", "layers"], cells),
    ]
    return "\n".join(lines + [f"- {row['variant']}: {note}" for row in found["rows"] for note in row["notes"]])


def append(path: str, found: dict[str, Any]) -> None:
    """Add the rows to a CSV with the columns of the committed ledgers; a row that is there already is not doubled."""
    old: list[dict[str, Any]] = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != LEDGER:
                raise BadInput("this CSV has other columns", path, ", ".join(LEDGER), "give a new file to --out")
            old = list(reader)
    board = found["board"]
    machine = (
        f"{IMPORTED}: {board['machine']}, compute capability {board['capability'] or 'unknown'}; TensorRT "
        f"{board['tensorrt'] or 'unknown'}; trtexec; log {found['log_sha256'][:16]}"
    )
    for row in found["rows"]:
        new = dict.fromkeys(LEDGER, "") | {
            "system": row["variant"],
            "precision": row["precision"] or "",
            "runtime": "tensorrt",
            "input_wh": "x".join(map(str, row["input_wh"])) if row["input_wh"] else "",
            "infer_p50_ms": _figure(row["infer_ms"]["p50"]),
            "infer_p95_ms": _figure(row["infer_ms"]["p95"]),
            "total_p50_ms": _figure(row["latency_ms"]["p50"]),
            "bytes": str(row["bytes"] or ""),
            "macs": str(row["macs"] or ""),
            "machine": machine,
        }
        if new not in old:
            old.append(new)
    handle = io.StringIO()
    writer = csv.DictWriter(handle, LEDGER, lineterminator="\n")
    writer.writeheader()
    writer.writerows(old)
    files.write_text(path, handle.getvalue())


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
