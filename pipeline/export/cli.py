"""`jetmask export`: write the ONNX file of a trained model and check it."""

import argparse
import json
import logging
import os

from jetson.errors import BadInput, UsageError
from pipeline import targets
from pipeline.paths import for_file

log = logging.getLogger(__name__)


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask export`."""
    parser.description = (
        "Write a trained model as one ONNX file for all input sizes, and check that it gives the "
        "same results as Keras.\n\n"
        "example: jetmask export --model runs/train/best.keras --out s.onnx --target nano"
    )
    parser.add_argument("--model", required=True, metavar="FILE", help="a .keras file from train or prune")
    parser.add_argument("--out", required=True, metavar="FILE.onnx", help="where to write the ONNX")
    parser.add_argument("--target", default="nano", help="lint for this target's TensorRT (default nano)")
    parser.add_argument("--keep-residuals", action="store_true", help="do not fold conv(x) + x into the convolution")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def command(args: argparse.Namespace) -> int:
    """Write, compare with Keras, lint; 4 where the target's TensorRT would refuse the file."""
    from pipeline.export.onnx import export
    from pipeline.graphs import lint
    from pipeline.models import detector as models

    if not str(args.out).endswith(".onnx"):
        raise UsageError("not the name of an ONNX file", where=args.out, expected="a name that ends in .onnx")
    if not os.path.isfile(args.model):
        raise BadInput("no such model", where=args.model, expected="a .keras file", remedy="jetmask train")
    lint.require_tensorrt(targets.target(args.target))
    for_file(args.out)
    result = export(models.load(args.model), args.out, fold_residuals=not args.keep_residuals)
    findings = lint.lint(args.out, args.target)
    if args.json:
        print(
            json.dumps(
                {
                    "path": result.path,
                    "sha256": result.sha256,
                    "bytes": result.size_bytes,
                    "nodes": result.nodes,
                    "folded_identities": result.folded_identities,
                    "parity": {f"{wh[0]}x{wh[1]}": d for wh, d in result.parity.items()},
                    "findings": [f._asdict() for f in findings],
                }
            )
        )
    else:
        print(f"{result.path}  {result.size_bytes} bytes, {result.nodes} nodes, sha256 {result.sha256[:16]}")
        for (width, height), difference in result.parity.items():
            print(f"equal to Keras at {width}x{height} within {difference:.2g}")
        print(f"{args.target}: {len(findings) or 'no'} findings")
    for finding in findings:
        log.warning("%s", lint.describe(finding))
    return 4 if findings else 0
