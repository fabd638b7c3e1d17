"""What int8 costs in AP: by the number of calibration images, by method, by the precision of the first convolution, and
by whether residuals are folded into their convolutions.

    python -m benchmarks.calibration --onnx s.onnx --kept s-with-residuals.onnx --data TRAIN_DIR --val VAL_DIR

Images are chosen from TRAIN_DIR; every file is measured on VAL_DIR against float32 on the same images (two-class mAP50,
paired bootstrap). `int8` is TensorRT's Q/DQ form, whose arithmetic ONNX Runtime simulates in float32 here: no TensorRT
ran. Rows replace benchmarks/results/calibration.csv.
"""

import argparse
import csv
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from jetson import files
from jetson.evaluation import average_precision
from pipeline.evaluation import gate
from pipeline.graphs import edit as graphs
from pipeline.quantization import calibrate, quantize

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "calibration.csv")
FIELDS = [
    "question",
    "form",
    "method",
    "images",
    "seed",
    "first_conv",
    "map50",
    "difference",
    "low",
    "high",
    "val_images",
    "input_wh",
    "onnx_sha256",
    "machine",
]
COUNTS, SEEDS, USUAL = (2, 8, 32, 128), (0, 1), 64
METHOD = "percentile"  # the default of `jetmask calibrate`
METHODS = ("minmax", "percentile", "mse", "entropy")
FORMS = {"int8-cpu": quantize.int8_cpu, "int8": quantize.int8_tensorrt}


def measure(args: argparse.Namespace, folder: Path | str) -> Any:
    """Yield the rows, one by one as they are measured."""
    truths = average_precision.load_split(args.val)
    input_wh = calibrate.size(args.input_wh)
    before = gate.of_onnx(args.onnx, truths, input_wh)
    graph = graphs.read(args.onnx).graph
    common = {
        "val_images": len(truths),
        "input_wh": args.input_wh,
        "onnx_sha256": files.sha256(args.onnx)[:16],
        "machine": machine.describe("onnxruntime"),
    }
    yield {"question": "reference", "form": "fp32", "map50": average_precision.map50(truths, before), **common}
    half = quantize.fp16(args.onnx, os.path.join(folder, "fp16.onnx"))
    found = gate.compare(truths, before, gate.of_onnx(half, truths, input_wh))
    yield {
        "question": "reference",
        "form": "fp16 typed",
        "map50": found.after,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        **common,
    }

    def row(question: Any, form: Any, table: Any, seed: int, keep: Any = None) -> dict[str, Any]:
        path = FORMS[form](args.onnx, table, os.path.join(folder, "int8.onnx"), keep=keep)
        verdict = gate.compare(truths, before, gate.of_onnx(path, truths, input_wh))
        return {
            "question": question,
            "form": form,
            "method": table.method,
            "images": len(table.images),
            "seed": seed,
            "first_conv": "int8" if keep is not None else "float32",
            "map50": verdict.after,
            "difference": verdict.difference,
            "low": verdict.low,
            "high": verdict.high,
            **common,
        }

    def table(count: Any, seed: int, method: Any) -> Any:
        return calibrate.collect(args.onnx, calibrate.select(args.data, count, seed), input_wh, method)

    for method in METHODS:
        usual = table(USUAL, 0, method)
        for form in FORMS:
            yield row("method", form, usual, 0)
        if method == METHOD:
            first = set(quantize.image_readers(graph))
            for form, kept in (("int8-cpu", ()), ("int8", tuple(set(quantize.float_ends(graph)) - first))):
                yield row("first convolution", form, usual, 0, keep=kept)
    for count in COUNTS:
        for seed in SEEDS:
            yield row("images", "int8-cpu", table(count, seed, METHOD), seed)
    if args.kept:
        args.onnx = args.kept
        kept = table(USUAL, 0, METHOD)
        for form in FORMS:
            yield row("residuals kept", form, kept, 0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", required=True)
    parser.add_argument("--kept", help="the same model exported with --keep-residuals")
    parser.add_argument("--data", required=True, help="SPLIT_DIR to calibrate on")
    parser.add_argument("--val", required=True, help="SPLIT_DIR to measure on")
    parser.add_argument("--input-wh", default="416x256")
    parser.add_argument("--out", default=OUT)
    args = parser.parse_args(argv)
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    with tempfile.TemporaryDirectory(prefix="jetmask-calibration-") as folder:
        for row in measure(args, folder):
            row = {key: f"{value:.2f}" if isinstance(value, float) else value for key, value in row.items()}
            writer.writerow(row)
            print({key: value for key, value in row.items() if key in FIELDS[:10]}, file=sys.stderr, flush=True)
    files.write_text(args.out, text.getvalue())


if __name__ == "__main__":
    main()
