"""The verb `doctor`: its options; what is asked is in jetson.doctor."""

import argparse

from jetson.doctor import ENVIRONMENT_STATE, STATE, answer, findings, gpu, state_folder


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python3 -m jetson doctor`."""
    parser.add_argument(
        "--state", metavar="DIR", help=f"where bundles are kept (default: {ENVIRONMENT_STATE}, {STATE})"
    )
    parser.add_argument(
        "--gpu", action="store_true", help="only whether the GPU is visible; the container's start-up probe"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.epilog = "example: python3 -m jetson doctor"


def command(args: argparse.Namespace) -> int:
    """Say what this device has and lacks."""
    if args.gpu:
        return answer(gpu(), args.json, "gpu")
    return answer(findings(state_folder(args.state)), args.json, "device")
