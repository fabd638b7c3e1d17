"""`jetmask prune`: remove channels from a trained model and fine-tune what is left."""

import argparse
import json
import logging
import math
from typing import Any

from jetson import files
from jetson.cli import add_meanings, table
from jetson.errors import UsageError
from pipeline import targets

log = logging.getLogger(__name__)
KINDS = ("l1", "l2", "bn_scale", "taylor", "activation", "geometric_median", "random")
DESCRIPTION = """Remove channels from a trained model and fine-tune what is left.

One of --macs-ratio, --ratio, --max-drop, --two-four or --scan is required. Run the same command again to resume an
interrupted run. --two-four keeps all channels and zeroes two of every four weights along the input channels: only GPUs
from Ampere on (Orin) can skip them, and only where TensorRT finds its sparse kernels faster."""
EXAMPLES = """examples:
  jetmask prune --model runs/train/best.keras --out runs/half --macs-ratio 0.5 --rounds 2 --epochs 6
  jetmask prune --model runs/train/best.keras --out runs/gate --max-drop 1.0 --epochs 8
  jetmask prune --model runs/train/best.keras --out runs/sparse --two-four --epochs 8
  jetmask prune --model mine.keras --out runs/mine --ratio 0.5 --epochs 0     any Keras model, without data"""
# A short warm-up and no long flat part, but training's own rate: `s` with half of its multiply-adds gone has, after
# 12,000 images with a teacher, a val mAP50 of 75.3 (mean of 320 to 640) by 2e-3 and of 71.7 by 5e-4.
TUNE = ["train.learning_rate=2e-3", "train.schedule=cosine", "train.warmup_steps=50", "train.closing_epochs=1"]


def options(parser: argparse.ArgumentParser) -> None:
    from pipeline.config import option_meanings

    add_meanings(parser, {**option_meanings(), "--amount": "--ratio SHARE", "--sparsity": "--ratio SHARE"})
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE",
        help="a .keras file (a model trained by jetmask; "
        "with --epochs 0 any functional Keras model), or s for the shipped weights",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "--macs-ratio",
        type=float,
        metavar="SHARE",
        help="prune until this share of the cost is left, 0 to 1; channels are ranked over all layers",
    )
    way.add_argument("--ratio", type=float, metavar="SHARE", help="drop this share of every group's channels")
    way.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="the largest pruning that costs at most this much val mAP50, by bisection",
    )
    way.add_argument(
        "--two-four",
        action="store_true",
        help="zero two of each four weights, for sparse tensor cores; "
        "a Nano, a TX2, a Xavier and every CPU gain nothing by it",
    )
    way.add_argument("--scan", action="store_true", help="AP against ratio for each group, as scan.json and scan.svg")
    parser.add_argument(
        "--importance",
        choices=KINDS,
        help="criterion for channels (default: taylor, which uses the loss; l1 with --epochs 0, which needs no data)",
    )
    parser.add_argument(
        "--save",
        choices=("macs", "latency"),
        default="macs",
        help="the cost to be saved: multiply-adds, or predicted latency on --target",
    )
    parser.add_argument("--target", default="nano", help="device kind for --save latency (default nano)")
    parser.add_argument("--precision", default="fp16", help="its precision; int8 also sets --multiple-of 32")
    parser.add_argument("--input-wh", default="320x320", metavar="WxH", help="size that the cost is counted at")
    parser.add_argument(
        "--multiple-of",
        type=int,
        metavar="N",
        help="channel counts become multiples of N (default 8, "
        "which fp16 and fp32 kernels like; 32 for int8 on tensor cores, 16 for int8-cpu)",
    )
    parser.add_argument(
        "--floor", type=float, default=0.1, metavar="SHARE", help="smallest share of channels that each group keeps"
    )
    parser.add_argument(
        "--rounds", type=int, default=1, help="with --macs-ratio: number of rounds of pruning and fine-tuning"
    )
    parser.add_argument("--probes", type=int, default=5, help="with --max-drop: steps of the bisection")
    parser.add_argument(
        "--epochs", type=int, help="epochs of fine-tuning after each pruning; 0: none (default: as --config says, or 8)"
    )
    parser.add_argument(
        "--distill",
        type=float,
        default=0.0,
        nargs="?",
        const=1.0,
        metavar="WEIGHT",
        help="also distil from the unpruned model (weight, default 1)",
    )
    parser.add_argument(
        "--config", help="YAML file or preset for fine-tuning; keys that it does not set keep their defaults"
    )
    parser.add_argument("--data", help="folder with the split folders (default: data.root, then JETMASK_DATA)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one config key")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def command(args: argparse.Namespace) -> None:
    _check(args)
    from pipeline import config as configuration
    from pipeline.latency.cli import parse_wh
    from pipeline.pruning.plot import plot_scan
    from pipeline.pruning.pruner import MULTIPLE_OF, Plan, describe
    from pipeline.pruning.schedule import Pruning, Settings

    epochs = [] if args.epochs is None else [f"train.epochs={args.epochs}"]
    config = configuration.load(args.config, [*epochs, *args.set], configuration.load(None, ["train.epochs=8", *TUNE]))
    if args.data:
        config.data.root = args.data
    settings = Settings(
        importance=args.importance or ("taylor" if config.train.epochs else "l1"),
        multiple_of=args.multiple_of or MULTIPLE_OF.get(args.precision, 8),
        floor=args.floor,
        input_wh=parse_wh(args.input_wh) or (320, 320),
        save=args.save,
        target=args.target,
        precision=args.precision,
        distill=args.distill,
    )
    pruning = Pruning(
        configuration.weights(args.model),
        args.out,
        config,
        settings,
        say=log.info,
        progress=1,
    )
    if args.scan:
        found = pruning.scan()
        plot_scan(found, pruning.folder / "scan.svg")
        print(json.dumps(found) if args.json else _scan_table(found))
        return
    if args.two_four:
        from pipeline.pruning.two_four import two_four

        result = two_four(pruning)
    elif args.max_drop is not None:
        result = pruning.gate(args.max_drop, args.probes)
    elif args.ratio is not None:
        result = pruning.uniform(args.ratio)
    else:
        result = pruning.rounds(args.macs_ratio, args.rounds)
    if args.json:
        print(json.dumps(result))
        return
    if args.two_four:
        print(_sparse_text(result))
    else:
        print(describe(Plan.from_dict(files.read_json(result["plan"]))))
        print(f"\nmultiply-adds  {result['macs'] / 1000000.0:.1f} M, {100 * result['macs_share']:.1f} % of before")
    if result["map50"] is not None:
        change = result["change"]
        print(
            "val mAP50      {:.1f}, before {:.1f} (change {:+.1f}, 95 % bounds {:+.1f} to {:+.1f})".format(
                change["after"], change["before"], change["difference"], change["low"], change["high"]
            )
        )
    print(f"model          {result['model']}")


def _sparse_text(result: dict[str, Any]) -> str:
    from pipeline.graphs.sparsity import dense_lines

    lines = [f"2:4 pattern in {len(result['sparse'])} layers, {100 * result['zeros']:.1f} % of all weights are zero"]
    return "\n".join(
        [
            *lines,
            *dense_lines([tuple(row) for row in result["dense"]]),
            "no faster on a Nano, a TX2, a Xavier or a CPU; on an Orin untested",
        ]
    )


def _check(args: argparse.Namespace) -> None:
    for name, value, low, high in (
        ("--macs-ratio", args.macs_ratio, 0, 1),
        ("--ratio", args.ratio, -1e-9, 1),
        ("--floor", args.floor, -1e-9, 1),
    ):
        if value is not None and not low < value <= high:
            raise UsageError(f"{name} {value:g}", expected=f"a share from {max(low, 0):g} to 1")
    if args.ratio == 1:
        raise UsageError("--ratio 1 leaves no channel", expected="a share from 0 to under 1")
    for name, value in (("--max-drop", args.max_drop), ("--distill", args.distill)):
        if value is not None and not math.isfinite(value):
            raise UsageError(f"{name} {value:g}", name, "a number")
    for name, value, least in (
        ("--rounds", args.rounds, 1),
        ("--probes", args.probes, 1),
        ("--epochs", args.epochs, 0),
        ("--multiple-of", args.multiple_of, 1),
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} {int(value)}", expected=f"{least} or more")
    if args.save == "latency" and args.macs_ratio is None and args.max_drop is None:
        raise UsageError(
            "--save latency needs --macs-ratio or --max-drop",
            "--save",
            None,
            "give one of them, or omit --save",
        )
    if args.save == "latency" or args.target != "nano":
        targets.target(args.target)
    if args.precision not in ("fp32", "fp16", "int8", "int8-cpu"):
        raise UsageError(f"--precision {args.precision}", "--precision", "fp32, fp16, int8 or int8-cpu")
    if args.two_four and args.importance:
        raise UsageError("--two-four judges single weights by their size", "--importance", None, "omit it")
    if args.rounds > 1 and args.macs_ratio is None:
        raise UsageError("--rounds needs --macs-ratio", remedy="give --macs-ratio, or omit --rounds")


def _scan_table(found: dict[str, Any]) -> str:
    ratios = sorted({float(ratio) for row in found["groups"].values() for ratio in row})
    rows = [
        [name, *[f"{row[str(r)]:.1f}" if str(r) in row else "-" for r in ratios]]
        for name, row in found["groups"].items()
    ]
    return "val mAP50 {:.1f}; with this share of one group's channels dropped:\n\n{}".format(
        found["baseline"],
        table(["group", *[f"{r:g}" for r in ratios]], rows),
    )
