"""The verb `jetmask demo`: its options, and what it prints."""

import argparse
import json
from pathlib import Path

from pipeline.demo.live import clip, manifest_shipped, run_live
from pipeline.demo.stages import Demo, Progress

LIVE_S = 20.0


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="folder with train/ and val/ splits (default: JETMASK_DATA; neither: drawn)")
    parser.add_argument("--out", default="runs/demo", help="folder for everything the demo makes")
    parser.add_argument("--size", default="s", help="model size: n or s")
    parser.add_argument("--run-only", action="store_true", help="no training: run the shipped bundle on a clip")
    parser.add_argument("--seconds", type=float, default=LIVE_S, help="length of the live run")
    parser.add_argument("--json", action="store_true")
    parser.epilog = "example: jetmask demo --data ~/facemask"


def command(args: argparse.Namespace) -> None:
    say = Progress()
    if args.run_only:
        live = run_live(manifest_shipped(), clip(None), args.seconds, say)
        print(json.dumps(live) if args.json else "\n".join(f"{name:22} {value}" for name, value in live.items()))
        return
    # TensorFlow takes seconds to load: not before the options are known to be right.
    from pipeline.training.train import fit  # noqa: F401

    result = Demo(Path(args.out), args.data, args.size, args.seconds, say).run()
    if args.json:
        print(json.dumps(result))
