"""`jetmask calibrate`: measure the ranges that int8 needs."""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Callable

from jetson import files
from jetson.engine import calibration as tables
from jetson.errors import UsageError
from pipeline.graphs import edit as graphs
from pipeline.paths import for_file
from pipeline.quantization import calibrate

log = logging.getLogger(__name__)


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask calibrate`."""
    parser.description = (
        "Select representative photographs, run the model on them and save the range of every "
        "tensor.\n\nexample: jetmask calibrate --onnx s.onnx --data data/train --out s.json"
    )
    parser.add_argument("--onnx", required=True, metavar="FILE", help="the float32 model")
    parser.add_argument("--data", required=True, metavar="SPLIT_DIR", help="labelled photographs, never the test ones")
    parser.add_argument("--out", required=True, metavar="FILE.json", help="where to write the table")
    parser.add_argument("--count", type=int, default=128, help="how many photographs (default 128)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", choices=tables.METHODS, default="percentile", help="default percentile")
    parser.add_argument("--input-wh", default="416x256", metavar="WxH", help="input size (default 416x256)")
    parser.add_argument("--cache", metavar="FILE", help="also write NVIDIA's calibration cache text")
    parser.add_argument("--tensorrt", default="8.2.1", help="TensorRT version in that cache's header (default 8.2.1)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def command(args: argparse.Namespace) -> int:
    """Choose, measure, write the table."""
    input_wh = calibrate.size(args.input_wh)
    for path in filter(None, (args.out, args.cache)):
        for_file(path)
    if args.cache and os.path.realpath(args.cache) == os.path.realpath(args.out):
        raise UsageError("the cache would overwrite the table", "--cache", "a file other than --out")
    if not re.match(r"^[0-9]+(\.[0-9]+)*$", args.tensorrt):
        raise UsageError(
            f"not a version of TensorRT: {args.tensorrt!r}", "--tensorrt", "numbers with dots, such as 8.2.1"
        )
    graphs.read(args.onnx)

    def progress(what: str) -> Callable[[int, int], None]:
        def told(done: int, total: int) -> None:
            terminal = sys.stderr.isatty()
            if log.isEnabledFor(logging.INFO) and (terminal or done == total):
                again = "\r" if terminal else ""
                print(f"{again}{what} {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

        return told

    images = calibrate.select(args.data, args.count, args.seed, progress("looking at photographs"))
    if len(images) < calibrate.MIN_IMAGES:
        log.warning("only %d images: the ranges will depend on single pictures", len(images))
    table = calibrate.collect(args.onnx, images, input_wh, args.method, progress("calibrating"))
    tables.write(args.out, table)
    if args.cache:
        algorithm = "MinMaxCalibration" if args.method == "minmax" else "EntropyCalibration2"
        files.write_text(args.cache, tables.format_cache(tables.cache_of(table.ranges, args.tensorrt, algorithm)))
    result = {
        "path": args.out,
        "tensors": len(table.ranges),
        "images": len(images),
        "method": table.method,
        "data_sha256": tables.data_hash(table.images),
        "onnx_sha256": table.onnx_sha256,
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{args.out}: {len(table.ranges)} tensors from {len(table.images)} images by {table.method}")
    return 0
