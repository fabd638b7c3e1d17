"""`jetmask build`: from a float32 ONNX to its reduced-precision files, and from a bundle to this machine's engines.

What was built is compared with float32 on labelled photographs where it can run here; what loses too much accuracy
is removed.
"""

import argparse
import json
import os
from collections.abc import Sequence
from typing import Any

from jetson import cli
from jetson.engine import calibration as tables
from jetson.engine import int8
from jetson.engine.build import WORKSPACE_BYTES
from jetson.errors import BadInput, JetmaskError, QualityGate, UsageError
from pipeline import targets
from pipeline.build import engines, precisions, trtexec
from pipeline.build.settings import Settings
from pipeline.evaluation import gate
from pipeline.quantization import calibrate


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `jetmask build`."""
    parser.epilog = (
        "examples:\n  jetmask build s.onnx --out runs/s --calibration-data data/facemask/train --data "
        "data/facemask/val\n  jetmask build s.onnx --target nano --precision fp16 --print-trtexec\n"
        "  jetmask build jetson/models --data data/facemask/val       (engines, on a machine with a GPU)"
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL.onnx|BUNDLE",
        help="a float32 ONNX: write its reduced-precision files; a bundle: build its engines here",
    )
    parser.add_argument(
        "--target",
        default=targets.THIS_MACHINE,
        metavar="NAME",
        help="target device to build for: " + ", ".join(targets.TARGETS),
    )
    parser.add_argument(
        "--precision",
        choices=[*precisions.PRECISIONS, "auto"],
        help="default: every precision that the target has hardware for; auto: int8, with as few layers in "
        "float as keep the loss within --max-drop",
    )
    parser.add_argument("--out", metavar="DIR", help="where the files go")
    parser.add_argument("--calibration", metavar="FILE", help="a table of `jetmask calibrate` (a .cache for trtexec)")
    parser.add_argument(
        "--calibration-data", metavar="SPLIT_DIR", help="calibrate on these photographs, never the test ones"
    )
    parser.add_argument(
        "--method", choices=tables.METHODS, default="percentile", help="how ranges are chosen (default percentile)"
    )
    parser.add_argument("--data", metavar="SPLIT_DIR", help="measure each result here against float32")
    parser.add_argument(
        "--max-drop",
        type=float,
        default=gate.MAX_DROP,
        metavar="POINTS",
        help="points of two-class mAP50 that may be lost (default %(default)s)",
    )
    parser.add_argument(
        "--input-wh", default="416x256", metavar="WxH", help="input size to measure at (default 416x256)"
    )
    parser.add_argument("--variant", metavar="NAME", help="build only this variant of the bundle")
    parser.add_argument("--engines", metavar="DIR", help="the engine cache")
    parser.add_argument(
        "--workspace-mb",
        type=int,
        default=WORKSPACE_BYTES >> 20,
        metavar="MB",
        help="the builder's workspace (default 256)",
    )
    parser.add_argument("--int8-anyway", action="store_true", help="of a bundle: " + int8.HELP)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads for measuring")
    parser.add_argument(
        "--print-trtexec", action="store_true", help="print the equivalent trtexec command, build nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def command(args: argparse.Namespace) -> int:
    """Refuse what cannot be, then build or print."""
    gate.finite(args.max_drop)
    device = targets.target(args.target)
    if args.precision:
        precisions.refuse(device, args.precision)
    if not args.model:
        raise UsageError(
            "nothing to build", None, "MODEL.onnx or a bundle's folder", "jetmask build --help has examples"
        )
    if not os.path.exists(args.model):
        raise BadInput("no such file or folder", args.model, "MODEL.onnx or a bundle's folder")
    settings = Settings(
        args.model,
        args.target,
        args.precision,
        args.out,
        args.calibration,
        args.calibration_data,
        args.method,
        args.data,
        args.max_drop,
        calibrate.size(args.input_wh),
        args.variant,
        args.engines,
        args.workspace_mb << 20,
        args.threads,
        args.int8_anyway,
    )
    if args.print_trtexec:
        lines = trtexec.lines(settings, device)
        if args.json:
            findings = [line[len("# note: ") :] for line in lines if line.startswith("# note: ")]
            print(json.dumps({"commands": [line for line in lines if line[0] != "#"], "findings": findings}))
        else:
            print("\n".join(lines))
        return 0
    if os.path.isdir(args.model):
        rows = engines.build(settings)
    else:
        rows = precisions.make(settings, device)
    if args.json:
        print(json.dumps({"built": rows}))
    else:
        print(_summary(rows))
    failed = [row for row in rows if "failed" in row]
    if failed:
        said = "; ".join(f"{row.get('variant', row['precision'])}: {row['failed']}" for row in failed)
        raise QualityGate(
            said,
            None,
            f"at most {args.max_drop:g} points of two-class mAP50 lost",
            "keep the sensitive layers in float (--precision auto), calibrate on more photographs, or "
            "allow more with --max-drop; files that failed were not kept",
        )
    if not any("bytes" in row for row in rows):
        raise JetmaskError(
            "nothing was built",
            args.model,
            None,
            "; ".join(f"{row['variant']}: {row['reason']}" for row in rows if "reason" in row) or None,
        )
    return 0


def _summary(rows: Sequence[dict[str, Any]]) -> str:
    def change(row: dict[str, Any]) -> str:
        if "difference" not in row:
            return "not measured"
        return f"{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"

    return cli.table(
        ["result", "precision", "bytes", "mAP50", "against fp32", ""],
        [
            [
                row.get("path") or row.get("file") or row["variant"],
                row["precision"],
                row.get("bytes", "-"),
                row.get("map50", "-"),
                change(row),
                "failed" if "failed" in row else row.get("reason") or row.get("note", ""),
            ]
            for row in rows
        ],
    )
