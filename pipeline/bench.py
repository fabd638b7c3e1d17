"""The verb `bench`: what `python3 -m jetson bench` measures, here or on a device over SSH."""

import argparse

from jetson import bench
from pipeline import device_bench
from pipeline.run import SHIPPED


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask bench`."""
    parser.add_argument("--bundle", metavar="DIR", default=SHIPPED,
                        help="the bundle's folder (default: the one that ships with jetmask)")
    device_bench.options(parser)
    bench.bench_options(parser)
    parser.epilog = "example: jetmask bench --source clip.mp4"


def command(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.device:
        return device_bench.command(args)
    return bench.command(args)
