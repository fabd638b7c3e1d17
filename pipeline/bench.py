"""The verb `bench`: what `python3 -m jetson bench` measures, here or on a device over SSH."""

import argparse

from jetson import bench
from pipeline.run import SHIPPED


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask bench`."""
    parser.add_argument("--bundle", metavar="DIR", default=SHIPPED,
                        help="the bundle's folder (default: the one that ships with jetmask)")
    parser.add_argument("--device", metavar="USER@HOST", help="measure there, with the bundle that is deployed there")
    bench.bench_options(parser)
    parser.epilog = "example: jetmask bench --source clip.mp4"


def command(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.device:
        from pipeline import deploy

        return deploy.bench(args)
    return bench.command(args)
