"""The verb `bench`: what `python3 -m jetson bench` measures, here or on a device over SSH."""

import argparse
import json

from jetson import bench, files
from jetson.errors import UsageError
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

        extra = [f"--{name}={value}" for name, value in (
            ("runtime", args.runtime), ("threads", args.threads), ("seconds", args.seconds)) if value is not None]
        extra += [word for name in args.variant for word in ("--variant", name)]
        if args.source or args.data:
            raise UsageError("--source and --data name things on this machine", "jetmask bench --device",
                             "the bundle alone is measured there",
                             "log in there and run `python3 -m jetson bench` for the others")
        result = deploy.bench_device(args.device, extra=extra)
        if args.out:
            files.write_json(args.out, result)
        print(json.dumps(result) if args.json else bench.text_table(result))
        return 0
    return bench.command(args)
