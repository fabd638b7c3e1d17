"""AP under what cameras meet, beside AP on the clean photographs, for every model of a bundle.

    python -m benchmarks.robustness --data DIR/test [--bundle jetson/models] [--input-wh 416x416] [--write]

Darkness, backlight, blur, compression, noise, low resolution, rotation and lost colour, each made from the photographs
themselves by a rule that is the same in every run. Labels stay as they are, except under rotation: there a label
becomes the box round its turned ellipse, since the box round its turned corners would be larger than the face. Not
here: glasses, hats and headscarves, since no collection at hand labels them.

Each model is measured at the largest size that it ships with. Rows replace those of the same model and split in
benchmarks/results/robustness.csv.
"""

import argparse
import csv
import io
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks import machine
from benchmarks.readme_table import RESULTS, read
from jetson import files
from jetson.bundle import manifest
from jetson.engine.onnx import OnnxEngine
from jetson.evaluation import average_precision
from jetson.evaluation.average_precision import Truth
from jetson.inference.detector import Detector
from pipeline.latency.cli import parse_wh

FIELDS = ("model", "input_wh", "split", "images", "corruption", "map50", "difference", "with_mask", "without_mask",
          "machine")  # fmt: skip
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def light(share: float) -> Change:
    """As a camera with too little light gives it: levels are lost."""
    table = np.clip(np.arange(256) * share, 0, 255).astype(np.uint8)
    return lambda image, _: np.asarray(cv2.LUT(image, table))


def backlight(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A lamp or window behind the people: they are dark, and its glare lies over a part of the picture."""
    h, w = image.shape[:2]
    x, y = random.uniform(0.2, 0.8) * w, random.uniform(0.0, 0.4) * h
    gy, gx = np.mgrid[:h, :w].astype(np.float32)
    glare = 200 * np.exp(-((gx - x) ** 2 + (gy - y) ** 2) / (2 * (0.3 * max(h, w)) ** 2))
    return np.clip(0.4 * image + glare[..., None], 0, 255).astype(np.uint8)


def blur(sigma: float) -> Change:
    """Out of focus; sigma in pixels of the photograph."""
    return lambda image, _: cv2.GaussianBlur(image, (0, 0), sigma)


def motion(length: int) -> Change:
    """Moved while exposed, in some direction."""

    def change(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        kernel = np.zeros((length, length), np.float32)
        angle, middle = random.uniform(0, math.pi), (length - 1) / 2
        for t in np.linspace(-middle, middle, 4 * length):
            kernel[round(middle + t * math.sin(angle)), round(middle + t * math.cos(angle))] = 1
        return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)

    return change


def noise(sigma: float) -> Change:
    """Gaussian, in grey levels, each pixel and channel by itself."""
    return lambda image, random: np.clip(image + random.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def jpeg(quality: int) -> Change:
    """Compressed once more."""

    def change(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))

    return change


def low_resolution(share: float) -> Change:
    """Taken with fewer pixels and enlarged again."""

    def change(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
        h, w = image.shape[:2]
        small = cv2.resize(image, (max(1, round(w * share)), max(1, round(h * share))), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)

    return change


def grey(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Without colour, as an infrared camera gives it."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)


class Turn(NamedTuple):
    """A rotation about the middle of the picture, which grows so that nothing is cut off."""

    degrees: float

    def matrix(self, wh: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
        """2x3 affine matrix and the new (width, height) for a picture of `wh`."""
        angle = math.radians(self.degrees)
        c, s = abs(math.cos(angle)), abs(math.sin(angle))
        w, h = round(wh[0] * c + wh[1] * s), round(wh[0] * s + wh[1] * c)
        matrix = cv2.getRotationMatrix2D((wh[0] / 2, wh[1] / 2), self.degrees, 1.0)
        matrix[:, 2] = matrix[:, 2] + np.array([w - wh[0], h - wh[1]]) / 2
        return matrix, (w, h)

    def image(self, image: np.ndarray) -> np.ndarray:
        matrix, wh = self.matrix(image.shape[1::-1])
        return cv2.warpAffine(image, matrix, wh, flags=cv2.INTER_LINEAR, borderValue=(114, 114, 114))

    def boxes(self, xyxy: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
        """The boxes (N, 4) round the turned ellipses of boxes (N, 4)."""
        matrix, _ = self.matrix(wh)
        centre = (xyxy[:, :2] + xyxy[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
        half = np.sqrt(((xyxy[:, 2:] - xyxy[:, :2]) / 2) ** 2 @ (matrix[:, :2] ** 2).T)
        return np.concatenate([centre - half, centre + half], axis=1)

    def truth(self, truth: Truth) -> Truth:
        wh = self.matrix(truth.wh)[1]
        return truth._replace(wh=wh, xyxy=self.boxes(truth.xyxy, truth.wh), ignore=self.boxes(truth.ignore, truth.wh))


CORRUPTIONS: dict[str, Change | Turn] = {
    "clean": lambda image, _: image,
    "half the light": light(1 / 2),
    "a third of the light": light(1 / 3),
    "a quarter of the light": light(1 / 4),
    "1.5 times the light": light(1.5),
    "backlight": backlight,
    "grey": grey,
    "blur, sigma 1 px": blur(1),
    "blur, sigma 2 px": blur(2),
    "motion, 9 px": motion(9),
    "JPEG, quality 20": jpeg(20),
    "JPEG, quality 10": jpeg(10),
    "noise, sigma 10": noise(10),
    "noise, sigma 25": noise(25),
    "half the resolution": low_resolution(1 / 2),
    "a third of the resolution": low_resolution(1 / 3),
    "turned by 20 degrees": Turn(20),
    "turned by -20 degrees": Turn(-20),
}


def corrupted(name: str, truths: list[Truth]) -> Iterator[tuple[Truth, np.ndarray]]:
    """Each image with its truth, changed; what is random depends on the image's number and the corruption alone."""
    change = CORRUPTIONS[name]
    for number, truth in enumerate(truths):
        image = average_precision.read_image(truth)
        if isinstance(change, Turn):
            yield change.truth(truth), change.image(image)
        else:
            yield truth, change(image, np.random.default_rng([number, zlib.crc32(name.encode())]))


def measure(bundle: str, model: str, wh: tuple[int, int], truths: list[Truth], names: list[str]) -> Iterator[dict]:
    """A row per corruption of the float32 file of one model; `difference` is to the first of `names`."""
    contents = manifest.load(bundle)
    file = next(v.file for v in contents.variants if v.model == model and v.precision == "fp32")
    first = None
    with OnnxEngine(str(Path(bundle) / file), wh, 1) as engine:
        detector = Detector(engine, contents.decode)
        for name in names:
            changed, found = [], []
            for truth, image in corrupted(name, truths):
                changed.append(truth)
                found.append(detector.detect(image, average_precision.MIN_SCORE))
            result = average_precision.evaluate(changed, found)
            first = result["map50"] if first is None else first
            yield {
                "model": model,
                "input_wh": "{}x{}".format(*wh),
                "images": len(truths),
                "corruption": name,
                "map50": f"{result['map50']:.2f}",
                "difference": f"{result['map50'] - first:.2f}",
                **{key: f"{value:.2f}" for key, value in result["per_class"].items()},
            }


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, metavar="SPLIT_DIR")
    parser.add_argument("--bundle", default="jetson/models")
    parser.add_argument("--model", nargs="+", help="default: all of the bundle")
    parser.add_argument("--input-wh", help="default: the largest that a model ships with")
    parser.add_argument("--corruption", nargs="+", choices=CORRUPTIONS, help="default: all; clean is always there")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/robustness.csv")
    args = parser.parse_args(argv)
    truths = average_precision.load_split(str(args.data))
    split = args.data.resolve().name
    variants = manifest.load(args.bundle).variants
    models = args.model or list(dict.fromkeys(v.model for v in variants))
    names = ["clean", *(name for name in args.corruption or CORRUPTIONS if name != "clean")]
    rows = []
    for model in models:
        largest = max((v.input_wh for v in variants if v.model == model), key=math.prod)
        wh = parse_wh(args.input_wh) if args.input_wh else (largest[0], largest[1])
        assert wh is not None
        for row in measure(args.bundle, model, wh, truths, names):
            rows.append({**row, "split": split, "machine": machine.describe("onnxruntime")})
            print(f"{model:3} {row['corruption']:26} {float(row['map50']):5.1f} {float(row['difference']):+5.1f}")
            sys.stdout.flush()
    if args.write:
        kept = [r for r in read("robustness") if (r["model"], r["split"]) not in {(model, split) for model in models}]
        text = io.StringIO()
        writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + rows)
        files.write_text(str(RESULTS / "robustness.csv"), text.getvalue())


if __name__ == "__main__":
    main()
