"""Everything that was measured, as one report: `jetmask report`'s page from the committed CSV files and the bundle.

    python -m benchmarks.report --data DIR --out runs/report [--bundle jetson/models] [--photos 4]

The photographs of val/ with the detections of several variants side by side are in the page, so it stays out of the
repository. Measured times are those of the CSV files, on the machines that these name; nothing is timed here.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from benchmarks.readme_table import ROOT, Row, read
from jetson.bundle import manifest
from jetson.evaluation import average_precision
from jetson.inference.detector import Faces, open_detector
from pipeline.choose import candidates as sources
from pipeline.graphs.shapes import read as read_onnx
from pipeline.latency.cli import predict_graph
from pipeline.report import cli as report
from pipeline.report.contact_sheet import contact_sheet

SIDE_BY_SIDE = ("320x192-fp32", "320x192-int8-cpu", "640x384-fp32", "640x384-int8-cpu")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with val/")
    parser.add_argument("--out", default="runs/report")
    parser.add_argument("--bundle", default=str(ROOT / "jetson" / "models"))
    parser.add_argument("--photos", type=int, default=4)
    args = parser.parse_args(argv)
    data = gathered(args.bundle)
    data["detections"] = side_by_side(args.bundle, Path(args.data) / "val", args.out, args.photos)
    print(report.write(args.out, data))
    return 0


def gathered(bundle: str) -> dict[str, Any]:
    """The report's data from the CSV files of results/ and a bundle; sections without rows are left out."""
    contents = manifest.load(bundle)
    ablation = read("detector_ablation")
    predicted, layers = predictions(contents)
    first = (read("engines") or read("peers") or [{}])[0]
    data = {
        "title": "jetmask: what speed costs",
        "name": "benchmarks",
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "summary": "All measurements of this repository in one page. Each row's machine stands in its CSV file under "
        "benchmarks/results/.",
        "data": {"kind": "photographs", "split": first.get("split"), "images": int(first.get("images") or 0)},
        "machine": (first.get("machine") or "").split(";")[0],
        "variants": variants(),
        "predicted": predicted,
        "layers": layers,
        "prunings": prunings(),
        "scan": scan(),
        "agreement": agreement(),
        "sensitivity": [{"layer": row["layer"], "snr_db": float(row["snr_db"])} for row in read("int8_sensitivity")],
        "ablations": ablations(ablation),
        "comparisons": comparisons(ablation),
        "sweep": sweep(),
        "environment": {"page written on": describe(), "measured on": first.get("machine")},
        "commands": [{"title": "This page again", "command": "python -m benchmarks.report --data DIR"}],
    }
    return {key: value for key, value in data.items() if value}


def number(text: str) -> float | None:
    return float(text) if text else None


def variants() -> list[dict[str, Any]]:
    """What was timed, each once: engines.csv and peers.csv."""
    out: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in read("engines") + read("peers"):
        key = (row["system"], row["precision"], row["runtime"], row["threads"], row["input_wh"])
        out.setdefault(
            key,
            {
                "name": f"{row['system']} {row['input_wh']} {row['precision']}",
                "runtime": row["runtime"],
                "precision": row["precision"],
                "input_wh": [int(n) for n in row["input_wh"].split("x")],
                "threads": int(row["threads"]),
                "map50": number(row["map50"]),
                "per_class": {name: number(row[name]) for name in ("with_mask", "without_mask")},
                "by_size": {name: number(row[name]) for name in ("small", "medium", "large")},
                "latency_ms": {"total_ms": {"p50": number(row["total_p50_ms"])}},
                "bytes": int(row["bytes"]),
                "macs": int(row["macs"]),
            },
        )
    return list(out.values())


def predictions(contents: manifest.Manifest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows, per-layer tables) for a Nano in fp16, which was not run: one row for each model and size."""
    rows, layers = [], []
    for variant in contents.variants:
        if variant.precision != "fp32" or "onnxruntime" not in variant.runtimes:
            continue
        found = predict_graph(read_onnx(contents.path(variant), variant.input_wh), "nano", "fp16")
        name = f"{variant.model}-{variant.input_wh[0]}x{variant.input_wh[1]}-fp16"
        ap, _ = sources.accuracy(contents, variant, "onnxruntime")
        rows.append(
            {
                "name": name,
                "target": "nano",
                "precision": "fp16",
                "input_wh": list(variant.input_wh),
                "map50": ap,
                "latency_ms": found.latency_ms,
                "low_ms": found.low_ms,
                "high_ms": found.high_ms,
                "bytes": variant.bytes,
            }
        )
        if tuple(variant.input_wh) == (416, 256):
            layers.append({**found.as_json(), "title": name})
    return rows, layers


def prunings() -> list[dict[str, Any]]:
    rows = read("pruning")
    whole = next((row for row in rows if row["kind"] == "unpruned"), None)
    out: list[dict[str, Any]] = []
    for row in rows:
        if row["kind"] in ("channels", "pruned", "trained"):
            method = {"channels": row["importance"], "pruned": "pruned", "trained": "trained small"}[row["kind"]]
            out.append(
                {
                    "name": row["importance"],
                    "method": method,
                    "macs_share": float(row["macs_share"]),
                    "before": number(row["map50_untuned"]),
                    "map50": number(row["map50_tuned"]),
                    "time_ratio": number(row["ort_fp32_ratio"]),
                    "images": int(row["tuning_images"]) if row["tuning_images"] else None,
                    "note": "" if row["kind"] == "channels" else method,
                }
            )
    # Lines in the figure: what was fine-tuned, from the unpruned network on; the rest is in the table.
    tuned = {row["method"] for row in out if row["map50"] is not None}
    start: list[dict[str, Any]] = []
    if whole:
        start = [
            {
                "name": "unpruned",
                "method": method,
                "macs_share": 1.0,
                "before": number(whole["map50_untuned"]),
                "map50": number(whole["map50_untuned"]),
            }
            for method in sorted(tuned - {"pruned", "trained small"})
        ]
    return [row for row in start + out if row["method"] in tuned]


def scan() -> dict[str, Any] | None:
    rows = read("pruning_scan")
    if not rows:
        return None
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        groups.setdefault(row["group"], {})[row["dropped"]] = float(row["map50"])
    return {
        "baseline": float(rows[0]["baseline"]),
        "groups": groups,
        "note": f"Channels by {rows[0]['importance']}, val mAP50 at {rows[0]['input_wh']}.",
    }


def agreement() -> list[dict[str, Any]]:
    """Each network as it is predicted by a model fitted without it."""
    out = [
        {
            "network": f"{row['network']} {row['input_wh']}",
            "device": "Jetson Nano, published",
            "precision": row["precision"],
            "measured_ms": number(row["measured_ms"]),
            "predicted_ms": number(row["leave_one_out_ms"]),
        }
        for row in read("latency_model")
        if row["kind"] == "engine"
    ]
    for precision in ("fp32", "int8"):
        out += [
            {
                "network": row["network"],
                "device": "CPU, measured here",
                "precision": row["precision"],
                "measured_ms": number(row["measured_ms"]),
                "predicted_ms": number(row["predicted_ms"]),
            }
            for row in read("this_machine_" + precision)
        ]
    return out


def ablations(rows: list[Row]) -> list[dict[str, Any]]:
    """One line a choice, its seeds averaged; optimizers and schedules stand in tables of their own."""
    out = []
    for choice, value in dict.fromkeys((row["choice"], row["value"]) for row in rows):
        own = [row for row in rows if (row["choice"], row["value"]) == (choice, value)]
        if choice not in ("optimizer", "schedule"):
            out.append(
                {
                    "name": f"{choice} {value}" if choice != "baseline" else "baseline",
                    "map50": _mean(own, "map50_416"),
                    "delta": _mean(own, "difference"),
                    "note": value if choice == "baseline" else f"{len(own)} seeds" if len(own) > 1 else "",
                }
            )
    return out


def comparisons(rows: list[Row]) -> list[dict[str, Any]]:
    out = []
    for title, choice in (("Optimizers", "optimizer"), ("Learning-rate schedules", "schedule")):
        own = [row for row in rows if row["choice"] == choice]
        lines = [
            {
                choice: value,
                "map50 at 320": round(_mean(part, "map50_320"), 1),
                "map50": _mean(part, "map50_416"),
                "to the baseline": f"{_mean(part, 'difference'):+.1f}",
                "seeds": len(part),
            }
            for value in dict.fromkeys(row["value"] for row in own)
            for part in [[row for row in own if row["value"] == value]]
        ]
        if lines:
            out.append(
                {
                    "title": title,
                    "rows": lines,
                    "note": "Trainings of {} images, one choice changed; the "
                    "baseline is adamw with the trapezoid.".format(own[0]["images"]),
                }
            )
    return out


def _mean(rows: list[Row], column: str) -> float:
    return sum(float(row[column]) for row in rows) / len(rows)


def sweep() -> dict[str, Any] | None:
    rows = read("sweep")
    if not rows:
        return None
    known = (
        "number",
        "state",
        "front",
        "map50",
        "latency_ms",
        "bytes",
        "attempt",
        "note",
        "target",
        "split",
        "machine",
    )
    given_up = sum(row["state"] == "given up" for row in rows)
    return {
        "target": rows[0]["target"],
        "note": (
            f"{len(rows)} trials, {given_up} given up early. Each starts from the weights that shipped when it was "
            "run, those of the former `s`, and sees a few hundred photographs: that ranks settings of a short "
            "fine-tuning, and what pruning costs is not made good yet."
        ),
        "trials": [
            {
                "number": int(row["number"]),
                "state": row["state"],
                "map50": number(row["map50"]),
                "latency_ms": number(row["latency_ms"]),
                "bytes": number(row["bytes"]),
                "params": {name: _short(value) for name, value in row.items() if name not in known},
            }
            for row in rows
        ],
    }


def _short(text: str) -> float | str:
    try:
        return float(f"{float(text):.3g}")
    except ValueError:
        return text


def side_by_side(bundle: str, split: Path, out: str, photos: int) -> list[dict[str, Any]]:
    """The same photographs with the detections of several variants, a row each."""
    truths = [truth for truth in average_precision.load_split(str(split)) if 3 <= len(truth.xyxy) <= 15]
    chosen = truths[:: max(1, len(truths) // photos)][:photos]
    names = [v.name for v in manifest.load(bundle).variants]
    found: dict[int, list[tuple[np.ndarray, Faces, str]]] = {}
    for ending in SIDE_BY_SIDE:
        name = next((n for n in names if n.endswith(ending)), None)
        if name:
            with open_detector(bundle, name) as detector:
                for number_, truth in enumerate(chosen):
                    frame = average_precision.read_image(truth)
                    found.setdefault(number_, []).append((frame, detector.detect(frame), name))
    return [
        row for number_, pictures in found.items() for row in contact_sheet(out, pictures, f"photograph {number_ + 1}")
    ]


if __name__ == "__main__":
    sys.exit(main())
