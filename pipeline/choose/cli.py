"""`jetmask choose`: one variant for a target and its limits, the reason, and the runner-up."""

import argparse
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from jetson.cli import table
from jetson.errors import BadInput, DeviceMismatch, QualityGate, UsageError
from pipeline import targets
from pipeline.choose.candidates import from_bundle, from_csv
from pipeline.choose.choice import Candidate, Choice, Limits, broken, choose


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
            f"note: 90 % of such predictions are within {best.high_ms:.1f} ms, which is over the limit; "
            "--sure chooses by that bound"
        )
    return "\n".join(lines)


def nothing(choice: Choice, candidates: Sequence[Candidate], limits: Limits) -> str:
    """Which limit binds, and what would do."""
    if not candidates:
        return "nothing to choose from"
    lines = [f"nothing of {len(candidates)} meets all limits ({said(limits)})"]
    for name, other in choice.loosened.items():
        fps = _down(1000 / other.ms)
        need = {
            "max_ms": f"--max-ms {_up(other.ms)}" if fps == "0" else f"--fps {fps} (or --max-ms {_up(other.ms)})",
            "max_bytes": f"--max-bytes {other.bytes}",
            "min_ap": f"--min-ap {_down(other.map50)}",
        }[name]
        lines.append(
            f"the limit is {LIMIT[name]}: with {need}, {other.name} would be chosen "
            f"(mAP50 {other.map50:.1f}, {other.ms:.1f} ms, {_megabytes(other)})"
        )
    if not choice.loosened:
        lines.append("at least two limits must be loosened")
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
    parser.add_argument("--fps", type=float, help="frames per second that must be reached")
    parser.add_argument("--max-ms", type=float, help="largest latency of one image, in ms")
    parser.add_argument("--max-bytes", type=int, help="largest size of the model's file, in bytes")
    parser.add_argument("--min-ap", type=float, help="lowest mAP50, in points")
    parser.add_argument("--sure", action="store_true", help="use the upper bound of each predicted latency")
    parser.add_argument(
        "--accept-unknown-error",
        action="store_true",
        help="also choose on predictions that no published measurement backs",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def command(args: argparse.Namespace) -> None:
    limits = limits_of(args)
    device = targets.target(args.target)
    candidates = from_csv(args.table, device.name) if args.table else _predicted(args, device)
    if args.sure:
        candidates = [c._replace(ms=c.high_ms) if c.high_ms is not None else c for c in candidates]
    choice = choose(candidates, limits)
    if args.json:
        print(_json(device.name, choice, candidates, limits))
    elif candidates:
        time = f"ms on {device.name}{', slow end' if args.sure else ''}"
        print(table(["variant", "mAP50", time, "MB", ""], _lines(choice, candidates, limits)) + "\n")
    if choice.best is None:
        raise _refusal(args, device.name, choice, candidates, limits)
    if not args.json:
        print(explain(choice, candidates, limits))


def _predicted(args: argparse.Namespace, device: targets.Target) -> list[Candidate]:
    """The bundle's variants; DeviceMismatch and UsageError where predictions for the device have no known error."""
    from pipeline.latency.roofline import BACKED

    backed = device.name == targets.THIS_MACHINE or device.name in BACKED
    known = "a target with known error: " + ", ".join([*BACKED, targets.THIS_MACHINE])
    if not backed and not args.accept_unknown_error:
        raise DeviceMismatch(
            f"no published measurement backs predictions for {device.title}",
            "--target",
            known,
            "add --accept-unknown-error to choose on data-sheet scaling all the same",
        )
    if not backed and args.sure:
        raise UsageError(
            f"predictions for {device.title} have no error interval, so --sure cannot be applied", "--sure", known
        )
    shipped = Path(__file__).resolve().parents[2] / "jetson" / "models"
    return from_bundle(args.bundle or os.fspath(shipped), device.name)


def _json(target: str, choice: Choice, candidates: Sequence[Candidate], limits: Limits) -> str:
    return json.dumps(
        {
            "target": target,
            "limits": limits._asdict(),
            "best": choice.best and choice.best._asdict(),
            "runner_up": choice.runner_up and choice.runner_up._asdict(),
            "within": choice.within,
            "loosened": {name: other._asdict() for name, other in choice.loosened.items()},
            "candidates": [c._asdict() for c in candidates],
        }
    )


def _lines(choice: Choice, candidates: Sequence[Candidate], limits: Limits) -> list[list[str]]:
    """A line of the table for each candidate, the fastest first."""
    return [
        [
            c.name,
            f"{c.map50:.1f}",
            f"{c.ms:.1f}",
            "-" if c.bytes is None else f"{c.bytes / 1e6:.2f}",
            "chosen" if c == choice.best else ", ".join(LIMIT[name] for name in broken(c, limits)) or "within",
        ]
        for c in sorted(candidates, key=lambda c: c.ms)
    ]


def _refusal(
    args: argparse.Namespace, target: str, choice: Choice, candidates: Sequence[Candidate], limits: Limits
) -> BadInput | QualityGate:
    """Why nothing was chosen: the table says nothing about this target, or no candidate meets the limits."""
    if not candidates and args.table:
        return BadInput(
            f"the table has no row for {target} with both an AP and a time",
            args.table,
            f"rows with map50 and ms, and {target} in the column target if there is one",
            "name the device that was measured: --target",
        )
    remedy = (
        "loosen a limit, or train and prune for it: jetmask sweep"
        if candidates
        else "the manifest holds no AP: write the bundle with jetmask bundle create ... --data SPLIT_DIR, "
        "which measures it"
    )
    return QualityGate(nothing(choice, candidates, limits), args.table or args.bundle, said(limits), remedy)


def limits_of(args: argparse.Namespace) -> Limits:
    """The limits of the command line; UsageError for impossible ones."""
    for name, value in (("--fps", args.fps), ("--max-ms", args.max_ms), ("--max-bytes", args.max_bytes)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{name} is {value:g}", name, "a number above 0")
    if args.min_ap is not None and not 0 <= args.min_ap <= 100:
        raise UsageError(f"--min-ap is {args.min_ap:g}", "--min-ap", "points between 0 and 100")
    times = [value for value in (args.max_ms, 1000 / args.fps if args.fps else None) if value is not None]
    return Limits(min(times) if times else None, args.max_bytes, args.min_ap)
