"""The verb `first-light`: run every step on this device, and write a report that can be attached to an issue."""

import argparse
import json
import math
import os
import sys
import time
from typing import List, Tuple

from jetson import doctor
from jetson.bundle import manifest
from jetson.engine import cache
from jetson.errors import JetmaskError, QualityGate, UsageError
from jetson.firstlight import cameras, comeback, engines, load, machine
from jetson.firstlight.report import Report, line_of
from jetson.firstlight.step import FAIL, Known, Outcome, Run, Settings

STEPS: Tuple[Tuple[str, str, Run], ...] = (
    ("board", "what this device is", machine.look),
    ("imports", "the modules it needs", machine.imports),
    ("camera", "each camera in each mode", cameras.run),
    ("engines", "two engines built, the memory watched", engines.building),
    ("golden", "the same faces as on the workstation", engines.equal),
    ("latency", "one inference against the prediction", engines.latency),
    ("load", "minutes under load: power, heat, rate", load.run),
    ("return", "kill the runner: does it come back?", comeback.run),
)
NAMES = tuple(name for name, _, _ in STEPS)


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python3 -m jetson first-light`."""
    add = parser.add_argument
    add("bundle", metavar="DIR", help="the bundle's folder")
    add("--source", action="append", default=[], metavar="URI", help="a camera to try (default: those that are found)")
    add(
        "--variant",
        action="append",
        default=[],
        metavar="NAME",
        help="build this variant (default: the cheapest in fp16, and the fp16 form of the bundle's default)",
    )
    add(
        "--minutes",
        type=float,
        default=10.0,
        metavar="M",
        help="how long the load lasts (default %(default)g; 0: none)",
    )
    add("--only", default="", metavar="STEPS", help="only these steps, separated by commas: " + ", ".join(NAMES))
    add("--rebuild", action="store_true", help="rebuild engines that are cached already")
    add("--predictions", metavar="JSON", help="what was predicted, {variant: {latency_ms, low_ms, high_ms}}")
    add(
        "--out",
        default="first-light.json",
        metavar="FILE",
        help="the report, without names or addresses; a .txt beside it (default: %(default)s)",
    )
    add("--json", action="store_true", help="print the report as JSON")
    parser.epilog = "example: python3 -m jetson first-light /var/lib/jetmask/current --source csi://0 --minutes 10"


def _settings(args: argparse.Namespace) -> Settings:
    only = tuple(name for name in args.only.split(",") if name)
    unknown = [name for name in only if name not in NAMES]
    if unknown:
        raise UsageError(f"unknown step {unknown[0]!r}", "--only", "some of " + ", ".join(NAMES))
    if not (math.isfinite(args.minutes) and 0 <= args.minutes <= 24 * 60):
        raise UsageError(f"--minutes {args.minutes:g}", None, "0 to 1440")
    try:
        predictions = json.loads(args.predictions) if args.predictions else {}
        if not isinstance(predictions, dict) or not all(isinstance(guess, dict) for guess in predictions.values()):
            raise ValueError("expected a JSON object of objects")
        for guess in predictions.values():
            for key in ("latency_ms", "low_ms", "high_ms"):
                if key == "latency_ms" or guess.get("low_ms") is not None:
                    guess[key] = float(guess[key])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the predictions cannot be read: {error}", "--predictions", "JSON") from error
    return Settings(
        bundle=args.bundle,
        sources=tuple(args.source),
        variants=tuple(args.variant),
        minutes=args.minutes,
        predictions=predictions,
        engines=cache.default_folder(),
        rebuild=args.rebuild,
        only=only,
    )


def run(settings: Settings, report: Report, known: Known) -> None:
    """All steps in order; whatever goes wrong in one is its result, and the next one is tried."""
    chosen: List[Tuple[str, str, Run]] = [step for step in STEPS if not settings.only or step[0] in settings.only]
    for number, (name, title, step) in enumerate(chosen, 1):
        mark = " (stand-in)" if report.stand_in else ""
        print(f"[{number}/{len(chosen)}] {name}{mark}: {title}", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            outcome = step(settings, known, lambda text: print("  " + text, file=sys.stderr, flush=True))
        except JetmaskError as error:
            outcome = Outcome(FAIL, " ".join(str(error).split()))
        except Exception as error:  # what it is, nobody knows: this is the first time that it runs on a device
            outcome = Outcome(FAIL, f"{type(error).__name__}: {error}")
        report.add(name, outcome, time.monotonic() - began)
        print(line_of(report.steps[-1]), file=sys.stderr, flush=True)


def command(args: argparse.Namespace) -> int:
    """Run the steps, write the report, print it."""
    settings = _settings(args)
    contents = manifest.load(settings.bundle)
    for name in settings.variants:
        contents.variant(name)
    folder = os.path.dirname(os.path.abspath(args.out))
    if not os.path.isdir(folder):
        raise UsageError("no such folder for the report", folder, None, "make it first, or give --out")
    reason = machine.stand_in(settings.root)
    if reason:
        print(f"on stand-ins: {reason}; {doctor.STATE} and results are this machine's", file=sys.stderr)
    report = Report(args.out, {"name": contents.name, "variants": len(contents.variants)}, reason)
    run(settings, report, Known(contents))
    print(json.dumps(report.value(), indent=1) if args.json else report.text())
    return QualityGate.exit_code if report.failed else 0
