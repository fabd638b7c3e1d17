"""The verb `jetmask first-light`: its options, and what it prints."""

import argparse
import json
import math
import os

from jetson.errors import QualityGate, UsageError
from jetson.firstlight.cli import NAMES
from pipeline import targets
from pipeline.deploy import layout
from pipeline.deploy import options as deploy_options
from pipeline.deploy.deployment import parcel
from pipeline.deploy.settings import Settings
from pipeline.deploy.ssh import Remote
from pipeline.firstlight import trial

_EXAMPLES = """examples:
  jetmask first-light user@nano
  jetmask first-light user@nano --source csi://0 --minutes 30 --out nano.json
  jetmask first-light user@nano --no-container --only imports,engines,golden"""


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask first-light`."""
    add = parser.add_argument
    parser.epilog = _EXAMPLES
    add("target", metavar="USER@HOST", help="the device")
    add(
        "--bundle",
        default=os.path.join(layout.package_folder(), "models"),
        metavar="BUNDLE",
        help="the bundle to test on the device (default: the one shipped with jetmask)",
    )
    add("--source", action="append", default=[], metavar="URI", help="a camera there (default: the one that it has)")
    add("--variant", action="append", default=[], metavar="NAME", help="engines to build (default: two in fp16)")
    add("--minutes", type=float, default=10.0, metavar="M", help="how long the load lasts (default %(default)g)")
    add("--only", default="", metavar="STEPS", help="only these steps, separated by commas: " + ", ".join(NAMES))
    add("--rebuild", action="store_true", help="rebuild engines that are cached already")
    add(
        "--predict-for",
        metavar="KIND",
        help="device kind whose predicted times the measured ones are compared with (default: detected)",
    )
    add("--out", default="first-light.json", metavar="FILE", help="the report (default: %(default)s), a .txt beside it")
    add("--json", action="store_true", help="print the report as JSON")
    way = parser.add_argument_group("connection and installation, as in `jetmask deploy`")
    to = way.add_argument
    to("--no-container", action="store_true", help="a venv instead of a container; no service is set up")
    to("--use-python", action="store_true", help="with --no-container: use --python as it is, without a venv")
    to("--python", default=Settings.python, metavar="PROGRAM", help="Python there (default: %(default)s)")
    to("--wheels", metavar="DIR", help="with --no-container: wheels for a device without internet")
    to("--image-tar", metavar="FILE", help="a saved image (docker save) for a device without internet")
    to("--build-arg", action="append", default=[], metavar="K=V", help="for building the image on the device")
    to("--docker", default=Settings.docker, metavar="PROGRAM", help="docker there (default: %(default)s)")
    to("--no-gpu", action="store_true", help="run on the CPU alone")
    to("--root", default=Settings.root, help="where programs are put there (default: %(default)s)")
    to("--state", default=Settings.state, help="where bundles and engines are kept there (default: %(default)s)")
    to("--ssh", default=Settings.ssh, metavar="'...'", help="options for ssh, for instance '-p 2222' or '-F FILE'")
    to("--retries", type=int, default=Settings.retries, help="how often a broken connection is tried again")
    to("--dry-run", action="store_true", help="print each command for the device instead of running it")


def _way(args: argparse.Namespace) -> Settings:
    """The deployment that brings everything there, and sets up no service."""
    return Settings(
        source=tuple(args.source),
        no_container=args.no_container,
        service="process" if args.no_container else None,
        use_python=args.use_python,
        python=args.python,
        wheels=args.wheels,
        image_tar=args.image_tar,
        build_arg=tuple(args.build_arg),
        docker=args.docker,
        no_gpu=args.no_gpu,
        root=args.root,
        state=args.state,
        ssh=args.ssh,
        retries=args.retries,
    )


def _tried(args: argparse.Namespace) -> trial.Settings:
    if not (math.isfinite(args.minutes) and 0 <= args.minutes <= 24 * 60):
        raise UsageError(f"--minutes {args.minutes:g}", None, "0 to 1440")
    unknown = [name for name in args.only.split(",") if name and name not in NAMES]
    if unknown:
        raise UsageError(f"unknown step {unknown[0]!r}", "--only", "some of " + ", ".join(NAMES))
    if args.predict_for:
        targets.target(args.predict_for)
    folder = os.path.dirname(os.path.abspath(args.out))
    if not os.path.isdir(folder):
        raise UsageError("no such folder for the report", folder, None, "make it first, or give --out")
    return trial.Settings(
        tuple(args.source), tuple(args.variant), args.minutes, args.only, args.rebuild, args.predict_for
    )


def command(args: argparse.Namespace) -> int:
    """Run it there, write the report here, print it; 5 where a step failed."""
    settings, way = _tried(args), _way(args)
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
