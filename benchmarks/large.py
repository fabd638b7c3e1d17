"""Large faces: AP on the people of benchmarks/held_out.py's `large` split, at several input sizes.

    python -m benchmarks.large --data DIR [--bundle jetson/models] [--also NAME=FILE.onnx …] [--write]

A photograph that a network enlarges to its input has a face of 300 to 600 pixels in it: what a visitor in front of a
terminal looks like. test/ has no such faces. `extra2` is the figure on that collection alone, of whose people the
models have seen nobody; those of crops/ were in the training of the weights that today's began with.
Rows replace benchmarks/results/large.csv.
"""

import argparse
import csv
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import held_out, machine
from benchmarks.readme_table import RESULTS
from jetson import files
from jetson.bundle import manifest
from jetson.evaluation import average_precision
from pipeline.evaluation import gate
from pipeline.training.dataset import HELD_OUT

FIELDS = ("model", "input_wh", "images", "map50", "with_mask", "without_mask", "large", "extra2", "machine")
WHS = ((320, 320), (416, 416), (640, 384), (640, 640))


def rows_of(name: str, onnx: str, split: Path) -> list[dict[str, str]]:
    """A row for each input size of one ONNX file."""
    truths = average_precision.load_split(str(split))
    extra2 = [i for i, truth in enumerate(truths) if Path(truth.file).name.startswith("extra2_")]
    rows = []
    for wh in WHS:
        found = gate.of_onnx(onnx, truths, wh)
        result = average_precision.evaluate(truths, found)
        part = average_precision.map50([truths[i] for i in extra2], [found[i] for i in extra2])
        points = (result["map50"], *result["per_class"].values(), result["by_size"]["large"], part)
        figures = ["" if value is None else f"{value:.1f}" for value in points]
        row = (name, "{}x{}".format(*wh), str(len(truths)), *figures, machine.describe("onnxruntime"))
        rows.append(dict(zip(FIELDS, row, strict=True)))
        print(" ".join(f"{value:>8}" for value in row[:-1]), flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--bundle", default="jetson/models")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FILE.onnx", help="other weights beside")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/large.csv")
    args = parser.parse_args(argv)
    contents = manifest.load(args.bundle)
    models = {v.model: str(Path(args.bundle) / v.file) for v in contents.variants if v.precision == "fp32"}
    models.update(text.split("=", 1) for text in args.also)
    rows = []
    with tempfile.TemporaryDirectory() as aside:
        held_out.write_split(args.data, Path(aside), json.loads(HELD_OUT.read_text(encoding="utf-8"))["large"])
        for name, path in models.items():
            rows += rows_of(name, path, Path(aside))
    if args.write:
        text = io.StringIO()
        writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write_text(str(RESULTS / "large.csv"), text.getvalue())


if __name__ == "__main__":
    main()
