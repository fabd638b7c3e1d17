"""mask_worn_incorrect as a figure: AP on held-out people and on drawings, with 95 % intervals.

    python -m benchmarks.incorrect --data DIR [--bundle jetson/models] [--input-wh 640x640] [--write]

Three sets, told apart: `incorrect` (the people of benchmarks/held_out.py beside all of val/: 78 boxes), `test`
(23 boxes), and drawn scenes (no photographs: what they show is whether the class is told from a mask worn well at all).
The interval is a bootstrap over images. Training leaves the held-out people out (pipeline/training/held_out.json); a
model that began from weights older than that list has seen them, and its figure on `incorrect` is too good: the column
`people_seen` says which. Rows replace benchmarks/results/incorrect.csv.
"""

import argparse
import csv
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import held_out, machine
from benchmarks.readme_table import RESULTS
from jetson import files
from jetson.bundle import manifest
from jetson.bundle.manifest import CLASSES
from jetson.engine.onnx import OnnxEngine
from jetson.evaluation import average_precision
from jetson.evaluation.average_precision import Truth
from jetson.inference.detector import Detector, Faces
from jetson.synthetic import scene
from pipeline.data import leak
from pipeline.latency.cli import parse_wh
from pipeline.training.dataset import HELD_OUT

FIELDS = ("model", "input_wh", "set", "images", "boxes", "ap", "low", "high", "people_seen", "machine")
THIRD = CLASSES.index("mask_worn_incorrect")
DRAWN = 150
# Models whose training began from weights that had been trained before the people were held out.
BEGAN_EARLIER = ("n", "s", "m", "sp")


def interval(truths: list[Truth], found: list[Faces], resamples: int = 1000) -> tuple[float, float, float]:
    """AP of the third class in points and its 95 % bounds over images drawn with replacement."""
    counted = average_precision.tally(truths, found, THIRD)
    value = average_precision.average_precision(counted)
    if value is None:
        raise ValueError("no box of mask_worn_incorrect")
    random = np.random.RandomState(0)
    size = len(truths)
    draws = (np.bincount(random.randint(0, size, size), minlength=size) for _ in range(resamples))
    values = [average_precision.average_precision(counted, draw) for draw in draws]
    low, high = np.percentile([v for v in values if v is not None], [2.5, 97.5])
    return value, float(low), float(high)


def drawn_scenes() -> Iterator[tuple[Truth, np.ndarray]]:
    """Drawn scenes of 640x480 with their truth; the third class is as frequent as the drawing makes it."""
    for number in range(DRAWN):
        image, boxes, labels = scene.scene(7000 + number, (640, 480))
        none = np.zeros((0, 4))
        yield Truth(number, "", (640, 480), np.asarray(boxes, float), np.asarray(labels, int), none, "drawn"), image


def photographs(split: Path) -> Iterator[tuple[Truth, np.ndarray]]:
    """The labelled images of a split with their pixels."""
    for truth in average_precision.load_split(str(split)):
        yield truth, average_precision.read_image(truth)


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--bundle", default="jetson/models")
    parser.add_argument("--input-wh", default="640x640")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/incorrect.csv")
    args = parser.parse_args(argv)
    wh = parse_wh(args.input_wh)
    assert wh is not None
    contents = manifest.load(args.bundle)
    rows = []
    with tempfile.TemporaryDirectory() as aside:
        chosen = json.loads(HELD_OUT.read_text(encoding="utf-8"))["incorrect"]
        val = [path.name for path in leak.images_of(args.data / "val")]
        held_out.write_split(args.data, Path(aside), {**chosen, "val": val})
        for model in dict.fromkeys(v.model for v in contents.variants):
            file = next(v.file for v in contents.variants if v.model == model and v.precision == "fp32")
            with OnnxEngine(str(Path(args.bundle) / file), wh, 1) as engine:
                detector = Detector(engine, contents.decode)
                sets = (("incorrect", photographs(Path(aside))), ("test", photographs(args.data / "test")),
                        ("drawn", drawn_scenes()))  # fmt: skip
                for name, pictures in sets:
                    truths, found = [], []
                    for truth, image in pictures:
                        truths.append(truth)
                        found.append(detector.detect(image, average_precision.MIN_SCORE))
                    ap, low, high = interval(truths, found)
                    boxes = sum(int((truth.labels == THIRD).sum()) for truth in truths)
                    seen = "yes" if name == "incorrect" and model in BEGAN_EARLIER else "no"
                    row = (model, args.input_wh, name, len(truths), boxes, f"{ap:.1f}", f"{low:.1f}", f"{high:.1f}",
                           seen, machine.describe("onnxruntime"))  # fmt: skip
                    rows.append(dict(zip(FIELDS, row, strict=True)))
                    print(f"{model:3} {name:10} {boxes:4} boxes  AP {ap:5.1f} ({low:.1f} to {high:.1f})", flush=True)
    if args.write:
        text = io.StringIO()
        writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write_text(str(RESULTS / "incorrect.csv"), text.getvalue())


if __name__ == "__main__":
    main()
