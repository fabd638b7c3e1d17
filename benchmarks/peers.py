"""AIZOO's FaceMaskDetection beside us: the same images, the same machine, the same run, one image after the other.

    python -m benchmarks.peers --data DIR/test [--bundle jetson/models] [--variant NAME …] [--peers DIR] [--write]

The peer's model (MIT) is not in this repository: --peers, or JETMASK_PEERS, names the folder that holds
aizoo/face_mask_detection.tflite. What is printed is the ratio; the figures are in benchmarks/results/peers.csv.
"""

import argparse
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from benchmarks.ledger import RESULTS, Entry, compare, rows_of, write
from jetson.bundle import manifest
from jetson.errors import BadInput, UsageError
from jetson.evaluation import average_precision
from jetson.inference.detector import Faces, open_detector

AIZOO = "aizoo/face_mask_detection.tflite"
AIZOO_MACS = 759_000_000  # as its README states


class Aizoo:
    """Its detector by its own recipe: plain resize, RGB / 255, SSD anchors, class-agnostic NMS at IoU .4.

    `detect(frame, score)` as jetson.inference.detector.Detector's; it knows two classes, the third never scores.
    """

    SIDE = 260
    MAPS = (33, 17, 9, 5, 3)
    SIZES = ((0.04, 0.056), (0.08, 0.11), (0.16, 0.22), (0.32, 0.45), (0.64, 0.72))
    RATIOS = (1.0, 0.62, 0.42)
    VARIANCES = np.array([0.1, 0.1, 0.2, 0.2], np.float32)

    def __init__(self, path: str, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        if not os.path.isfile(path):
            raise BadInput(
                "the peer's model is missing",
                path,
                f"{AIZOO} in the folder of the peers",
                "give --peers DIR or set JETMASK_PEERS",
            )
        self.interpreter = Interpreter(model_path=path, num_threads=threads)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]["index"]
        self.outputs = {detail["shape"][2]: detail["index"] for detail in self.interpreter.get_output_details()}
        self.anchors = self.make_anchors()
        self.timings = {"preprocess_ms": 0.0, "infer_ms": 0.0, "postprocess_ms": 0.0}

    @classmethod
    def make_anchors(cls) -> np.ndarray:
        """Centre x, centre y, width, height of each anchor (5972, 4), as shares of the image."""
        out = []
        for side, sizes in zip(cls.MAPS, cls.SIZES, strict=True):
            shapes = [(size, size) for size in sizes]
            shapes += [(sizes[0] * ratio**0.5, sizes[0] / ratio**0.5) for ratio in cls.RATIOS[1:]]
            centres = (np.arange(side) + 0.5) / side
            y, x = np.meshgrid(centres, centres, indexing="ij")
            cells = np.stack([x, y], axis=-1)[:, :, None].repeat(len(shapes), axis=2)
            out.append(np.concatenate([cells, np.broadcast_to(shapes, (side, side, len(shapes), 2))], axis=-1))
        return np.concatenate([part.reshape(-1, 4) for part in out]).astype(np.float32)

    def detect(self, frame: np.ndarray, score: float = 0.5) -> Faces:
        marks = [time.perf_counter()]
        small = cv2.cvtColor(cv2.resize(frame, (self.SIDE, self.SIDE)), cv2.COLOR_BGR2RGB)
        self.interpreter.set_tensor(self.input, small[None].astype(np.float32) / 255)
        marks.append(time.perf_counter())
        self.interpreter.invoke()
        marks.append(time.perf_counter())
        faces = self.decode(
            self.interpreter.get_tensor(self.outputs[4])[0],
            self.interpreter.get_tensor(self.outputs[2])[0],
            frame.shape[1::-1],
            score,
        )
        marks.append(time.perf_counter())
        self.timings = {name: (b - a) * 1e3 for name, (a, b) in zip(self.timings, pairwise(marks), strict=True)}
        return faces

    def decode(self, offsets: np.ndarray, scores: np.ndarray, wh: tuple, score: float) -> Faces:
        best = scores.max(axis=1)
        kept = np.flatnonzero(best > score)
        moves, anchors = offsets[kept] * self.VARIANCES, self.anchors[kept]
        centre = anchors[:, :2] + moves[:, :2] * anchors[:, 2:]
        half = anchors[:, 2:] * np.exp(moves[:, 2:]) / 2
        xyxy = np.concatenate([centre - half, centre + half], axis=1).clip(0, 1) * np.tile(wh, 2)
        xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
        left = cv2.dnn.NMSBoxes(xywh.tolist(), best[kept].tolist(), score, 0.4) if len(kept) else []
        order = np.array(left, int).reshape(-1)
        three = np.zeros((len(order), 3), np.float32)
        three[:, :2] = scores[kept][order]
        return Faces(xyxy[order].astype(np.float32), three)

    def close(self) -> None:
        self.interpreter = None


def aizoo_entry(folder: str | None, threads: int) -> Entry:
    """The peer as a line of the ledger."""
    if not folder:
        raise UsageError(
            "where are the peers?", "--peers", f"a folder that holds {AIZOO}", "give --peers DIR or set JETMASK_PEERS"
        )
    path = os.path.join(folder, AIZOO)
    return Entry(
        "AIZOO",
        "fp32",
        "litert",
        threads,
        (Aizoo.SIDE, Aizoo.SIDE),
        Aizoo(path, threads),
        os.path.getsize(path),
        AIZOO_MACS,
    )


def bundle_entry(bundle: str, name: str, runtime: str, threads: int) -> Entry:
    """A variant of a bundle as a line of the ledger."""
    variant = manifest.load(bundle).variant(name)
    detector = open_detector(bundle, name, runtime, threads)
    return Entry(
        "jetmask " + variant.model,
        variant.precision,
        runtime,
        threads,
        tuple(variant.input_wh),
        detector,
        variant.bytes,
        variant.macs,
    )


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="SPLIT_DIR", help="labelled images, for instance …/test")
    parser.add_argument("--bundle", default="jetson/models")
    parser.add_argument(
        "--variant", action="append", metavar="NAME", help="default: all of s and sp in fp32 and int8-cpu"
    )
    parser.add_argument("--peers", default=os.environ.get("JETMASK_PEERS"), metavar="DIR")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, help="only the first so many")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/peers.csv")
    args = parser.parse_args(argv)
    contents = manifest.load(args.bundle)  # an int8 form that lost too much is not in it
    names = args.variant or [
        v.name for v in contents.variants if v.model in ("s", "sp") and v.precision in ("fp32", "int8-cpu")
    ]
    entries = [aizoo_entry(args.peers, args.threads)]
    entries += [bundle_entry(args.bundle, name, "onnxruntime", args.threads) for name in names]
    truths = average_precision.load_split(args.data)[: args.images]
    measured = compare(entries, truths, lambda text: print(text, file=sys.stderr))
    rows = rows_of(measured, Path(args.data).name, len(truths))
    for row in rows:
        print(
            f"{row['system']:12} {row['precision']:9} {row['input_wh']:8} AP {float(row['map50']):5.1f}  "
            f"infer {float(row['infer_p50_ms']):7.2f} ms  {int(row['bytes']) / 1e6:5.2f} MB  "
            f"{int(row['macs']) / 1e6:5.0f} MMACs   against AIZOO: AP {float(row['ap_difference']):+5.1f}, "
            f"time x {float(row['time_ratio']):.2f}, CPU time x {float(row['cpu_ratio']):.2f}, "
            f"size x {float(row['size_ratio']):.2f}"
        )
    if args.write:
        write(RESULTS / "peers.csv", rows)


if __name__ == "__main__":
    main()
