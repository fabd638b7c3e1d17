"""Faces called masked where nobody wears a mask, at the bundle's own threshold.

    python -m benchmarks.false_alarms --bundle jetson/models --data DIR [--variant NAME …]

Three sets: the third of negatives/ that training never sees; every second frame of the clips in which nobody wears a
mask (one has a skull printed on the shirt); drawn bare heads with beards, hands, scarves and cups at the mouth (a
figure on drawings, named so). Rows replace benchmarks/results/false_alarms.csv.
"""

import argparse
import csv
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks import machine
from jetson import files
from jetson.evaluation import average_precision
from jetson.inference.detector import open_detector
from jetson.synthetic import heads, scene
from pipeline.training.dataset import held_out

OUT = Path(__file__).parent / "results" / "false_alarms.csv"
FIELDS = (
    "set",
    "variant",
    "threshold",
    "images",
    "with_mask",
    "with_mask_per_image",
    "mask_worn_incorrect",
    "without_mask",
    "machine",
)
CLIPS = ("one_person_no_mask_640x480.mkv", "two_people_no_mask.mp4")
EVERY = 2
DRAWN = 200


def negatives(data: Path) -> Iterator[np.ndarray]:
    """The held-out hard negatives: scenes, workers with helmets and gloves."""
    for truth in average_precision.load_split(str(data / "negatives")):
        if held_out(truth.file):
            yield average_precision.read_image(truth)


def clip(path: Path) -> Iterator[np.ndarray]:
    """Every EVERYth frame."""
    capture = cv2.VideoCapture(str(path))
    number = 0
    while True:
        there, frame = capture.read()
        if not there:
            return
        if number % EVERY == 0:
            yield frame
        number += 1


def bare_heads() -> Iterator[np.ndarray]:
    """Drawn scenes of 640x480 with five bare heads of 16 to 200 px, whatever they have at the mouth."""
    random = np.random.RandomState(7)
    for _ in range(DRAWN):
        frame = scene.ground(random, (640, 480))
        for px in sorted(np.exp(random.uniform(np.log(16), np.log(200), 5))):
            sprite = heads.head(random, px, heads.WITHOUT_MASK)
            heads.paste(frame, sprite, int(random.randint(-40, 560)), int(random.randint(-40, 360)))
        yield frame


def main(argv: list[str] | None = None) -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="jetson/models")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument(
        "--variant",
        nargs="+",
        default=[
            "s-416x256-fp32",
            "s-640x384-fp32",
            "s-416x256-int8-cpu",
            "m-640x384-fp32",
            "sp-416x256-fp32",
            "sp-640x384-fp32",
            "n-320x192-fp32",
        ],
    )
    args = parser.parse_args(argv)
    sets: list[tuple[str, Callable[[], Iterator[np.ndarray]]]] = [
        ("negatives/, the third that is held out", partial(negatives, args.data))
    ]
    sets += [("clip " + name, partial(clip, args.data / "clips" / name)) for name in CLIPS]
    sets.append(("drawn bare heads with beards, hands, scarves, cups", bare_heads))
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for variant in args.variant:
        with open_detector(args.bundle, variant) as detector:
            score = float(detector.decode["score"])
            for title, frames in sets:
                counts, images = np.zeros(3, int), 0
                for frame in frames():
                    counts += np.bincount(detector.detect(frame).labels, minlength=3)
                    images += 1
                row = dict(
                    zip(
                        FIELDS,
                        (
                            title,
                            variant,
                            f"{score:.2f}",
                            images,
                            counts[0],
                            f"{counts[0] / max(1, images):.3f}",
                            counts[2],
                            counts[1],
                            machine.describe("onnxruntime"),
                        ),
                        strict=True,
                    )
                )
                writer.writerow(row)
                print(f"{variant:22} {title:55} {counts[0]} with_mask in {images} images", flush=True)
    files.write_text(str(OUT), text.getvalue())


if __name__ == "__main__":
    main()
