"""`jetmask train`: fine-tune the shipped detector on labelled photographs, or train one from nothing."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jetson.cli import add_meanings, table
from jetson.errors import UsageError
from jetson.evaluation import average_precision
from pipeline import config as configuration
from pipeline.config import Config

_EXAMPLES = """examples:
  jetmask train --data data/mine                       # fine-tune the shipped s, as long as your photographs are worth
  jetmask train --data data/mine --set model.init=n    # the smaller one
  jetmask train --data data/helmets --set "data.roles={head: alert}"   # own classes: they come from the data
  jetmask train s --data data/facemask --out runs/s    # a preset: the full training of the shipped detector
  jetmask train --out runs/train --resume
every key of --set: docs/config.md"""


@dataclass(frozen=True)
class Settings:
    """One training. output: "words", "json" or "quiet"."""

    config: Config
    out: str
    resume: bool
    output: str


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask train`."""
    parser.epilog = _EXAMPLES
    add_meanings(parser, configuration.option_meanings())
    parser.add_argument("config", nargs="?", help="YAML file or preset (see --presets); default: fine-tuning of s")
    parser.add_argument("--data", help="folder with the split folders (default: data.root, then JETMASK_DATA)")
    parser.add_argument("--out", default="runs/train", help="run folder (default: %(default)s)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume the run in --out, with its own config unless another is given",
    )
    parser.add_argument(
        "--from-scratch", action="store_true", help="start from random weights, with a schedule to match"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one config key")
    parser.add_argument("--presets", action="store_true", help="list the presets: multiply-adds, time, AP")
    parser.add_argument(
        "--json", action="store_true", help="progress as JSON lines on stdout (events start, left, epoch, end)"
    )


def settings(args: argparse.Namespace) -> Settings:
    """What the arguments ask for; UsageError and BadInput where they do not go together."""
    own = Path(args.out) / "config.json"
    if args.from_scratch and args.resume:
        raise UsageError(
            "--from-scratch and --resume are both given",
            None,
            "one of them",
            "a resumed run continues from its own weights",
        )
    if args.from_scratch and any(text.partition("=")[0].strip() == "model.init" for text in args.set):
        raise UsageError("--from-scratch and model.init are both given", "--set", "one of them")
    if args.resume and not args.config and own.exists():
        config = configuration.load(None, args.set, configuration.load(own))
    elif args.config:
        config = configuration.load(args.config, args.set)
        if args.from_scratch:
            config.model.init = ""
    else:
        from pipeline.training import recipe

        config = recipe.config(args.set, args.data or "", args.from_scratch)
    if args.data:
        config.data.root = args.data
    quiet = getattr(args, "verbosity", 0) < 0  # -q, which every verb has
    return Settings(config, args.out, args.resume, "json" if args.json else "quiet" if quiet else "words")


def command(args: argparse.Namespace) -> None:
    """Train, and tell what came of it."""
    if args.presets:
        print(presets())
        return
    asked = settings(args)
    from pipeline.training import train

    try:
        result = train.fit(asked.config, asked.out, resume=asked.resume, output=asked.output)
    except KeyboardInterrupt:
        if (Path(asked.out) / "checkpoint.npz").exists():
            print("\nThe same command with --resume continues after the last finished epoch.", file=sys.stderr)
        raise
    if asked.output != "json":
        print(outcome(result))


def outcome(result: dict[str, Any]) -> str:
    """The last lines."""
    figure = average_precision.figure_name(result["classes"])
    when = f"epoch {result['best_epoch']} of {result['epochs']}"
    before = result.get("map50_before")
    if before is not None and not result["best_epoch"]:
        when = "no epoch was better than the starting weights"
    elif before is not None:
        when += f"; {before:.1f} before"
    return (
        f"val {figure} {result['map50']:.1f} ({when})\nmodel     {result['best']}\n"
        f"next      jetmask report {Path(result['best']).parent}"
    )


def presets() -> str:
    """The presets as a table."""
    rows = [[name, *(about.get(key, "–") for key in ("macs", "time", "ap"))] for name, about in configuration.presets()]
    return table(["preset", "multiply-adds at 320", "time on two cores", "two-class mAP50 on test/"], rows)
