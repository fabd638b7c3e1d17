"""The verb `bench`: what `python3 -m jetson bench` measures, here or on a device over SSH."""

import argparse

from jetson.bench import cli as bench
from jetson.errors import UsageError
from pipeline.bench import trtexec_import
from pipeline.deploy import device_bench, layout
from pipeline.deploy.device_bench import DeviceBench
from pipeline.paths import SHIPPED


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask bench`."""
    parser.add_argument(
        "--bundle",
        metavar="DIR",
        default=SHIPPED,
        help="the bundle's folder (default: the one that ships with jetmask)",
    )
    _device_options(parser)
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


def _device_options(parser: argparse.ArgumentParser) -> None:
    """The arguments that concern the device."""
    parser.add_argument("--device", metavar="USER@HOST", help="measure there, with the bundle that is deployed there")
    parser.add_argument("--ssh", default="", metavar="'...'", help="options for ssh, as in `jetmask deploy`")
    parser.add_argument("--state", default=layout.STATE, help="where bundles are kept there (default: %(default)s)")
    parser.add_argument(
        "--target",
        metavar="KIND",
        help="also predict for this kind of device (nano, orin-nano, ...) from --bundle, and say how far off that was",
    )


def command(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.import_trtexec:
        if args.source or args.data or args.device:
            raise UsageError("--import-trtexec measures nothing here", "--source, --data, --device", None, "omit them")
        return trtexec_import.run(args.import_trtexec, args.bundle, args.variant, args.target, args.out, args.json)
    if args.device:
        where = DeviceBench(args.device, args.bundle, args.ssh, args.state, args.target, args.out, args.json)
        return device_bench.run(where, bench.settings_of(args))
    return bench.command(args)
