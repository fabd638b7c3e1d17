"""The verb `bench`: what `python3 -m jetson bench` measures, here or on a device over SSH."""

import argparse

from jetson.bench import cli as bench
from pipeline.bench import trtexec_import
from pipeline.deploy import device_bench
from pipeline.paths import SHIPPED


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask bench`."""
    parser.add_argument(
        "--bundle",
        metavar="DIR",
        default=SHIPPED,
        help="the bundle's folder (default: the one that ships with jetmask)",
    )
    device_bench.options(parser)
    bench.bench_options(parser)
    parser.add_argument(
        "--import-trtexec",
        metavar="LOG",
        help="measure nothing: read what NVIDIA's trtexec printed "
        "elsewhere, beside the predictions for that device; --out FILE.json for `jetmask report "
        "--device`, --out FILE.csv for a ledger",
    )
    parser.epilog = (
        "examples:\n  jetmask bench --source clip.mp4\n  jetmask bench --import-trtexec trtexec.log --out nano.json"
    )


def command(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.import_trtexec:
        return trtexec_import.command(args)
    if args.device:
        return device_bench.command(args)
    return bench.command(args)
