"""The verb `run`: the device's runner in the foreground, on this machine."""

import argparse

from jetson.cli import add_meanings
from jetson.serve import cli as serve
from pipeline.paths import SHIPPED


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask run`."""
    parser.add_argument(
        "--bundle",
        metavar="DIR",
        default=SHIPPED,
        help="the bundle's folder (default: the one that ships with jetmask)",
    )
    serve.serve_options(parser)
    add_meanings(
        parser,
        {
            "--model": "--bundle DIR with --variant NAME",
        },
    )
    parser.epilog = "example: jetmask run --source clip.mp4"


def command(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    return serve.command(args)
