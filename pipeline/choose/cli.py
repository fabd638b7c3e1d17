"""`jetmask choose`: one variant for a target and its limits, the reason, and the runner-up."""

import argparse
import csv
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jetson.bundle import manifest
from jetson.cli import table
from jetson.errors import BadInput, DeviceMismatch, QualityGate, UsageError
from pipeline import targets
from pipeline.choose.choice import Candidate, Choice, Limits, broken, choose

PRECISION = {"fp32": "fp32", "fp16": "fp16", "int8": "int8", "int8-cpu": "int8"}


def from_csv(path: str, target: str | None = None) -> list[Candidate]:
    """Candidates of a CSV with the columns name, map50, bytes and ms (or p50_ms, latency_ms), as a report writes it.

    With a `target` column, only rows of `target` (or, for this-machine, rows without one). Where a `measured` column
    tells them apart, what was measured takes the place of what was predicted for the same name, and has its AP and
    bytes where it brings none. Rows without an AP or a time are left out: nothing can be said about them.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:  # spreadsheets put a byte order mark before it
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"the table cannot be read: {error}", path, "a CSV file") from None
    if not rows:
        raise BadInput("the table has no rows", path, "one row a variant")
    time = next((name for name in ("ms", "p50_ms", "latency_ms") if name in rows[0]), None)
    if "map50" not in rows[0] and any(";" in str(name) for name in rows[0]):
        raise BadInput(
            "the columns are separated by semicolons", path, "commas between the columns", "save it as CSV with commas"
        )
    missing = [name for name in ("name", "map50", "bytes") if name not in rows[0]] + ([] if time else ["ms"])
    if missing:
        raise BadInput(f"columns are missing: {', '.join(missing)}", path, "name, map50, bytes and ms")
    ours = [
        (line, row)
        for line, row in enumerate(rows, 2)
        if not target or "target" not in row or (row["target"] or targets.THIS_MACHINE) == target
    ]
    predicted = {row["name"]: row for _, row in ours if row.get("measured") == "predicted"}
    timed = {row["name"] for _, row in ours if row.get("measured") != "predicted" and row[time]}
    out = []
    for line, row in ours:
        if row.get("measured") != "predicted":
            row = row | {key: row[key] or predicted.get(row["name"], row)[key] for key in ("map50", "bytes")}
        elif row["name"] in timed:
            continue
        if not row["map50"] or not row[time]:
            continue
        try:
            values = float(row["map50"]), float(row[time]), int(float(row["bytes"])) if row["bytes"] else None
            high = float(row["high_ms"]) if row.get("high_ms") else None
        except (TypeError, ValueError, OverflowError):
            raise BadInput("map50, ms and bytes must be numbers", f"{path}, line {line}", "for instance 77.3") from None
        if not all(0 <= value < math.inf for value in (*values, high) if value is not None):
            raise BadInput(
                "map50, ms and bytes must be finite and not negative", f"{path}, line {line}", "for instance 77.3"
            )
        out.append(Candidate(row["name"], *values, row.get("measured") or "given", high))
    return out


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


def accuracy(contents: Any, variant: Any, runtime: str) -> tuple[float | None, str]:
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


def explain(choice: Choice, candidates: Sequence[Candidate], limits: Limits) -> str:
    """The answer in sentences."""
    if choice.best is None:
        return nothing(choice, candidates, limits)
    best = choice.best
    lines = [
        f"{best.name}: mAP50 {best.map50:.1f}, {best.ms:.1f} ms, {_megabytes(best)} ({best.how})",
        f"reason: the most accurate of {choice.within} within the limits ({said(limits)}), of {len(candidates)} in all",
    ]
    if choice.runner_up:
        other = choice.runner_up
        lines.append(
            f"runner-up: {other.name}: mAP50 {other.map50:.1f} ({other.map50 - best.map50:+.1f}), "
            f"{other.ms:.1f} ms ({other.ms - best.ms:+.1f}), {_megabytes(other)}"
        )
    if best.high_ms is not None and limits.max_ms is not None and best.high_ms > limits.max_ms:
        lines.append(
            f"note: 9 of 10 such predictions hold within {best.high_ms:.1f} ms, which is over the limit; "
            "--sure chooses by that bound"
        )
    return "\n".join(lines)


def nothing(choice: Choice, candidates: Sequence[Candidate], limits: Limits) -> str:
    """Which limit binds, and what would do."""
    if not candidates:
        return "there is nothing to choose from"
    lines = [f"nothing of {len(candidates)} meets all limits ({said(limits)})"]
    for name, other in choice.loosened.items():
        fps = _down(1000 / other.ms)
        need = {
            "max_ms": f"--max-ms {_up(other.ms)}" if fps == "0" else f"--fps {fps} (or --max-ms {_up(other.ms)})",
            "max_bytes": f"--max-bytes {other.bytes}",
            "min_ap": f"--min-ap {_down(other.map50)}",
        }[name]
        lines.append(
            f"{LIMIT[name]} binds: with {need} it would be {other.name} "
            f"(mAP50 {other.map50:.1f}, {other.ms:.1f} ms, {_megabytes(other)})"
        )
    if not choice.loosened:
        lines.append("no single limit is to blame: at least two must be loosened")
    return "\n".join(lines)


LIMIT = {"max_ms": "the time", "max_bytes": "the size", "min_ap": "the accuracy"}


def _megabytes(candidate: Candidate) -> str:
    return "size unknown" if candidate.bytes is None else f"{candidate.bytes / 1e6:.2f} MB"


def said(limits: Limits) -> str:
    parts = []
    if limits.max_ms is not None:
        parts.append(f"at most {limits.max_ms:.4g} ms")
    if limits.max_bytes is not None:
        parts.append(f"at most {limits.max_bytes} bytes")
    if limits.min_ap is not None:
        parts.append(f"mAP50 at least {limits.min_ap:g}")
    return ", ".join(parts) or "none given"


def _down(value: float) -> str:
    return _short(math.floor(value * 100) / 100)


def _up(value: float) -> str:
    return _short(math.ceil(value * 100) / 100)


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Choose the most accurate variant that a target runs fast enough. Times are predicted unless "
        "a table of measurements is given; they are the engine's, without camera and page."
    )
    parser.epilog = "example: jetmask choose --bundle jetson/models --target nano --fps 30 --min-ap 70"
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--bundle", metavar="DIR", help="choose among its variants (default: the shipped bundle)")
    source.add_argument("--table", metavar="FILE.csv", help="choose among its rows, for instance a run's report.csv")
    parser.add_argument("--target", default="nano", help="device kind (default: %(default)s)")
    parser.add_argument("--fps", type=float, help="frames a second that must be reached")
    parser.add_argument("--max-ms", type=float, help="or: milliseconds that one image may take")
    parser.add_argument("--max-bytes", type=int, help="bytes that the model's file may have")
    parser.add_argument("--min-ap", type=float, help="mAP50 in points that must be reached")
    parser.add_argument("--sure", action="store_true", help="count with the slow end of each prediction's interval")
    parser.add_argument(
        "--accept-unknown-error",
        action="store_true",
        help="also choose on predictions that no published measurement backs",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def command(args: argparse.Namespace) -> None:
    limits = limits_of(args)
    device = targets.target(args.target)
    if args.table:
        candidates = from_csv(args.table, device.name)
    else:
        from pipeline.latency.roofline import BACKED

        backed = device.name == targets.THIS_MACHINE or device.name in BACKED
        if not backed and not args.accept_unknown_error:
            raise DeviceMismatch(
                f"no published measurement backs predictions for {device.title}",
                "--target",
                "a target with known error: " + ", ".join([*BACKED, targets.THIS_MACHINE]),
                "add --accept-unknown-error to choose on data-sheet scaling all the same",
            )
        if not backed and args.sure:
            raise UsageError(
                f"predictions for {device.title} have no interval whose slow end could count",
                "--sure",
                "a target with known error: " + ", ".join([*BACKED, targets.THIS_MACHINE]),
            )
        shipped = Path(__file__).resolve().parents[2] / "jetson" / "models"
        candidates = from_bundle(args.bundle or os.fspath(shipped), device.name)
    if args.sure:
        candidates = [c._replace(ms=c.high_ms) if c.high_ms is not None else c for c in candidates]
    choice = choose(candidates, limits)
    if args.json:
        print(
            json.dumps(
                {
                    "target": device.name,
                    "limits": limits._asdict(),
                    "best": choice.best and choice.best._asdict(),
                    "runner_up": choice.runner_up and choice.runner_up._asdict(),
                    "within": choice.within,
                    "loosened": {name: other._asdict() for name, other in choice.loosened.items()},
                    "candidates": [c._asdict() for c in candidates],
                }
            )
        )
    elif candidates:
        rows = [
            [
                c.name,
                f"{c.map50:.1f}",
                f"{c.ms:.1f}",
                "-" if c.bytes is None else f"{c.bytes / 1e6:.2f}",
                "chosen" if c == choice.best else ", ".join(LIMIT[name] for name in broken(c, limits)) or "within",
            ]
            for c in sorted(candidates, key=lambda c: c.ms)
        ]
        print(
            table(["variant", "mAP50", f"ms on {device.name}{', slow end' if args.sure else ''}", "MB", ""], rows)
            + "\n"
        )
    if choice.best is None:
        if not candidates and args.table:
            raise BadInput(
                f"the table has no row for {device.name} with both an AP and a time",
                args.table,
                f"rows with map50 and ms, and {device.name} in the column target if there is one",
                "name the device that was measured: --target",
            )
        raise QualityGate(
            nothing(choice, candidates, limits),
            args.table or args.bundle,
            said(limits),
            "loosen a limit, or train and prune for it: jetmask sweep"
            if candidates
            else "the manifest holds no AP: write the bundle with jetmask bundle create ... --data "
            "SPLIT_DIR, which measures it",
        )
    if not args.json:
        print(explain(choice, candidates, limits))


def limits_of(args: argparse.Namespace) -> Limits:
    """The limits of the command line; UsageError for impossible ones."""
    for name, value in (("--fps", args.fps), ("--max-ms", args.max_ms), ("--max-bytes", args.max_bytes)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{name} is {value:g}", name, "a number over zero")
    if args.min_ap is not None and not 0 <= args.min_ap <= 100:
        raise UsageError(f"--min-ap is {args.min_ap:g}", "--min-ap", "points between 0 and 100")
    times = [value for value in (args.max_ms, 1000 / args.fps if args.fps else None) if value is not None]
    return Limits(min(times) if times else None, args.max_bytes, args.min_ap)
