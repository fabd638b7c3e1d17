"""The verb `jetmask first-light`: its options, and what it prints."""

import argparse
import json
import math
import os

from jetson.errors import QualityGate, UsageError
from jetson.firstlight.cli import NAMES
from pipeline import targets
from pipeline.deploy import cli as deploy_cli
from pipeline.deploy import layout
from pipeline.deploy import options as deploy_options
from pipeline.deploy.deployment import parcel
from pipeline.deploy.ssh import Remote
from pipeline.firstlight import trial

_EXAMPLES = """examples:
  jetmask first-light user@nano
  jetmask first-light user@nano --source csi://0 --minutes 30 --out nano.json
  jetmask first-light user@nano --no-container --only imports,engines,golden"""
# What the way to the device takes from `jetmask deploy`: {option: its metavar, None for a switch}.
_ON_THE_WAY = {
    "--no-container": None,
    "--use-python": None,
    "--python": "PROGRAM",
    "--wheels": "DIR",
    "--image-tar": "FILE",
    "--build-arg": "K=V",
    "--docker": "PROGRAM",
    "--no-gpu": None,
    "--root": "DIR",
    "--state": "DIR",
    "--ssh": "'...'",
    "--retries": "N",
    "--dry-run": None,
}


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask first-light`."""
    add = parser.add_argument
    parser.epilog = _EXAMPLES
    add("target", metavar="USER@HOST", help="the device")
    add(
        "--bundle",
        default=os.path.join(layout.package_folder(), "models"),
        metavar="BUNDLE",
        help="what is tried there (default: the bundle that ships)",
    )
    add("--source", action="append", default=[], metavar="URI", help="a camera there (default: the one that it has)")
    add("--variant", action="append", default=[], metavar="NAME", help="engines to build (default: two in fp16)")
    add("--minutes", type=float, default=10.0, metavar="M", help="how long the load lasts (default %(default)g)")
    add("--only", default="", metavar="STEPS", help="only these, with commas: " + ", ".join(NAMES))
    add("--rebuild", action="store_true", help="build the engines although they are there")
    add("--predict-for", metavar="KIND", help="whose predictions the times are held against (default: by the board)")
    add("--out", default="first-light.json", metavar="FILE", help="the report (default: %(default)s), a .txt beside it")
    add("--json", action="store_true", help="print the report as JSON")
    way = parser.add_argument_group("the way there, as in `jetmask deploy`")
    for name, metavar in _ON_THE_WAY.items():
        if metavar is None:
            way.add_argument(name, action="store_true")
        elif name == "--build-arg":
            way.add_argument(name, action="append", default=[], metavar=metavar)
        else:
            way.add_argument(name, metavar=metavar)


def _way(args: argparse.Namespace) -> argparse.Namespace:
    """The options of `jetmask deploy` for the way there, its defaults where nothing was said."""
    parser = argparse.ArgumentParser(prog="jetmask first-light")
    deploy_cli.options(parser)
    words = []
    for name, metavar in _ON_THE_WAY.items():
        value = getattr(args, name.lstrip("-").replace("-", "_"))
        if metavar is None:
            words += [name] if value else []
        elif value is not None:
            for each in value if isinstance(value, list) else [value]:
                words.append(f"{name}={each}")
    if args.no_container:
        words += ["--service", "process"]  # nothing is set up there: no systemd, no root
    return parser.parse_args([*words, args.bundle, args.target])


def _settings(args: argparse.Namespace) -> trial.Settings:
    if not (math.isfinite(args.minutes) and 0 <= args.minutes <= 24 * 60):
        raise UsageError(f"--minutes {args.minutes:g}", None, "0 to 1440")
    unknown = [name for name in args.only.split(",") if name and name not in NAMES]
    if unknown:
        raise UsageError(f"there is no step {unknown[0]!r}", "--only", "some of " + ", ".join(NAMES))
    if args.predict_for:
        targets.target(args.predict_for)
    folder = os.path.dirname(os.path.abspath(args.out))
    if not os.path.isdir(folder):
        raise UsageError("there is no such folder for the report", folder, None, "make it first, or give --out")
    return trial.Settings(
        tuple(args.source), tuple(args.variant), args.minutes, args.only, args.rebuild, args.predict_for
    )


def command(args: argparse.Namespace) -> int:
    """Run it there, write the report here, print it; 5 where a step failed."""
    settings, way = _settings(args), _way(args)
    deploy_options.check(way, sends=not args.dry_run)
    with (
        Remote(args.target, deploy_options.words(way.ssh, "ssh"), way.retries, args.dry_run) as remote,
        parcel(args.bundle) as contents,
    ):
        found = trial.Trial(remote, way, contents, settings).run()
    if args.dry_run:
        return 0
    trial.write(found, args.out)
    print(json.dumps(found, indent=1) if args.json else f"{trial.text_of(found)}\nreport: {args.out}")
    return 0 if found["ok"] else QualityGate.exit_code
