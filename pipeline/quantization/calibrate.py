"""Calibration: which of the user's photographs are shown to the network, and the range of each tensor they give.

The photographs go through the runner's own preprocessing (jetson.vision.letterbox.letterbox). The table
(jetson.engine.calibration.Table) holds one largest absolute value per tensor; all int8 files are made from it.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jetson import files, imagefile
from jetson.engine import calibration as tables
from jetson.errors import BadInput, UsageError
from jetson.evaluation import average_precision
from jetson.vision.letterbox import PREPROCESSING, letterbox
from pipeline.graphs import edit as graphs

BINS = 2048
LEVELS = 128  # of a symmetric int8, positive side
PERCENTILE = 99.99
MIN_IMAGES = 8  # below this the ranges are those of single pictures


def select(split_dir: str, count: int, seed: int, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Choose `count` images of a SPLIT_DIR that stand for all of it; their paths, sorted.

    Images are grouped by source, brightness (thirds) and size of their faces (none, thirds); the groups are visited
    in turn, in an order and with picks drawn by `seed`, so each kind is there before any comes twice. The same
    split, count and seed give the same list. progress: called with (done, total) images that were looked at.
    BadInput where an image cannot be read.
    """
    if count < 1:
        raise UsageError("no calibration image asked for", where=f"count {count}", expected="1 or more")
    if seed < 0:
        raise UsageError("a seed below zero", where=f"seed {seed}", expected="a whole number of 0 or more")
    truths = average_precision.load_split(split_dir, average_precision.categories(split_dir))  # whatever they are of
    if not truths:
        raise BadInput("a split without images", where=split_dir, expected="images to calibrate on")
    brightness = np.zeros(len(truths))
    for done, truth in enumerate(truths):
        brightness[done] = average_precision.read_image(truth).mean()
        if progress:
            progress(done + 1, len(truths))
    sizes = np.array([_median_face(t) for t in truths])
    bright = _thirds(brightness)
    large = np.where(sizes > 0, 1 + _thirds(np.where(sizes > 0, sizes, np.median(sizes))), 0)
    groups = defaultdict(list)
    for i, truth in enumerate(truths):
        groups[(truth.source, int(bright[i]), int(large[i]))].append(i)
    rng = np.random.default_rng(seed)
    queues = [list(rng.permutation(groups[key])) for key in sorted(groups)]
    queues = [queues[i] for i in rng.permutation(len(queues))]
    picked: list[int] = []
    while queues and len(picked) < count:
        for queue in queues:
            picked.append(queue.pop())
            if len(picked) == count:
                break
        queues = [queue for queue in queues if queue]
    return sorted(truths[i].file for i in picked)


def _median_face(truth: average_precision.Truth) -> float:
    """Side of the image's median face relative to its longer side; 0 without faces."""
    if not len(truth.xyxy):
        return 0.0
    side = np.sqrt((truth.xyxy[:, 2] - truth.xyxy[:, 0]) * (truth.xyxy[:, 3] - truth.xyxy[:, 1]))
    return float(np.median(side) / max(truth.wh))


def _thirds(values: np.ndarray) -> np.ndarray:
    return np.digitize(values, np.quantile(values, (1 / 3, 2 / 3)))


def collect(
    onnx_path: str,
    images: Sequence[str],
    input_wh: tuple[int, int],
    method: str = "percentile",
    progress: Callable[[int, int], None] | None = None,
) -> tables.Table:
    """Run the images through the model and keep one range per tensor. Returns jetson.engine.calibration.Table.

    onnx_path: a float32 model as jetmask export writes it. images: paths; input_wh: (width, height).
    method: "minmax", "entropy" (Kullback-Leibler, as TensorRT's), "percentile" (99.99 of |x|) or "mse".
    progress: called with (done, total). The order of the images does not change the table.
    """
    if method not in tables.METHODS:
        raise UsageError(f"unknown calibration method {method!r}", expected="one of " + ", ".join(tables.METHODS))
    images = [str(path) for path in images]
    if not images:
        raise BadInput("no images to calibrate with", expected=f"{MIN_IMAGES} or more")
    digests = tuple((os.path.basename(path), _digest(path)) for path in images)
    session, names = observed(onnx_path, input_wh)
    passes = 1 if method == "minmax" else 2
    total = passes * len(images)
    largest = dict.fromkeys(names, 0.0)
    for done, values in enumerate(_activations(session, names, images, input_wh), 1):
        for name, value in values.items():
            largest[name] = float(np.maximum(largest[name], np.abs(value).max()))  # a NaN stays; max() would drop it
        if progress:
            progress(done, total)
    bad = sorted(name for name, value in largest.items() if not np.isfinite(value))
    if bad:
        raise BadInput(
            f"tensor {bad[0]} is not finite on these images",
            where=onnx_path,
            expected="finite activations",
            remedy="check the weights; train again",
        )
    ranges = dict(largest)
    if method != "minmax":
        histograms = {name: np.zeros(BINS, np.int64) for name in names}
        for done, values in enumerate(_activations(session, names, images, input_wh), 1 + len(images)):
            for name, value in values.items():
                histograms[name] += _histogram(value, largest[name])
            if progress:
                progress(done, total)
        choose = {"entropy": _entropy, "percentile": _percentile, "mse": _mse}[method]
        ranges = {name: choose(histograms[name]) * largest[name] / BINS for name in names}
    ranges["image"] = 255.0  # what the preprocessing can give, whatever these pictures hold
    name = os.path.splitext(os.path.basename(str(onnx_path)))[0]
    return tables.Table(
        name, files.sha256(str(onnx_path)), PREPROCESSING, method, (input_wh[0], input_wh[1]), digests, ranges, {}
    )


def _digest(path: str) -> str:
    try:
        return files.sha256(path)
    except OSError as error:
        raise BadInput(
            f"cannot read a calibration image: {error.strerror}",
            where=path,
            expected="a photograph",
            remedy="remove it from the list",
        ) from error


def observed(onnx_path: str, input_wh: tuple[int, int]) -> tuple[Any, list[str]]:
    """A session that gives every activation of the model, unfused, and their names."""
    import onnx
    import onnxruntime as ort

    model = graphs.read(onnx_path)
    fixed = graphs.constants(model.graph)
    names = [name for node in model.graph.node for name in node.output if name not in fixed]
    known = {output.name for output in model.graph.output}
    for name in names:
        if name not in known:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # fusions would hide tensors
    settings.log_severity_level = 3
    settings.add_free_dimension_override_by_name("height", input_wh[1])
    settings.add_free_dimension_override_by_name("width", input_wh[0])
    try:
        session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes have no public base
        raise BadInput(
            f"ONNX Runtime does not take the model: {str(error).splitlines()[0]}",
            where=onnx_path,
            expected="a float32 model written by jetmask export",
        ) from error
    taken = [(value.name, value.type) for value in session.get_inputs()]
    if taken != [("image", "tensor(float)")]:
        raise BadInput(
            "unexpected model input: " + ", ".join("{} {}".format(*pair) for pair in taken),
            where=onnx_path,
            expected="one float32 input called image, as jetmask export writes it",
            remedy="rename the input, or export the model again",
        )
    shape, wanted = session.get_inputs()[0].shape, [1, 3, input_wh[1], input_wh[0]]
    if len(shape) != 4 or any(isinstance(n, int) and n != want for n, want in zip(shape, wanted)):
        raise BadInput(
            f"the model's input is {' x '.join(map(str, shape))}",
            where=onnx_path,
            expected=f"{' x '.join(map(str, wanted))} for --input-wh {input_wh[0]}x{input_wh[1]}",
            remedy="give the size that the model was made for, or export it for all sizes",
        )
    return session, names


def _activations(
    session: Any, names: list[str], images: Sequence[str], input_wh: tuple[int, int]
) -> Iterator[dict[str, np.ndarray]]:
    """{tensor: float32 array} per image."""
    for path in images:
        frame = imagefile.read(path)
        if frame is None:
            raise BadInput(
                "not a photograph that OpenCV can read",
                where=path,
                expected="JPEG or PNG",
                remedy="replace it or remove it from the list",
            )
        blob, _ = letterbox(frame, input_wh)
        yield dict(zip(names, session.run(names, {"image": blob})))


def _histogram(value: np.ndarray, largest: float) -> np.ndarray | int:
    if largest == 0:
        return 0
    bins = np.minimum((np.abs(value).reshape(-1) * (BINS / largest)).astype(np.int32), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    return counts


def _percentile(histogram: np.ndarray) -> int:
    """The number of bins that hold PERCENTILE of all values other than zero."""
    counts = histogram.astype(np.float64)
    counts[0] = 0
    if not counts.sum():
        return BINS
    return 1 + int(np.searchsorted(np.cumsum(counts), counts.sum() * PERCENTILE / 100))


def _mse(histogram: np.ndarray) -> int:
    """The number of bins whose clipping and rounding together cost least, for LEVELS steps."""
    counts = histogram.astype(np.float64)
    centres = np.arange(BINS) + 0.5
    best, cost = BINS, np.inf
    for kept in range(LEVELS, BINS + 1, 8):
        step = kept / (LEVELS - 1)
        error = centres - np.minimum(np.rint(centres / step), LEVELS - 1) * step
        here = float((counts * error * error).sum())
        if here < cost:
            best, cost = kept, here
    return best


def _entropy(histogram: np.ndarray) -> int:
    """The number of bins whose LEVELS-step version diverges least from the distribution (Kullback-Leibler).

    As described by NVIDIA (Migacz, "8-bit Inference with TensorRT", GTC 2017). The first bin is left out: it counts
    the zeros of every ReLU, which int8 holds exactly.
    """
    counts = histogram.astype(np.float64)
    counts[0] = 0
    if not counts.sum():
        return BINS
    best, cost = BINS, np.inf
    for kept in range(LEVELS, BINS + 1, 8):
        reference = counts[:kept].copy()
        reference[-1] += counts[kept:].sum()
        level = np.arange(kept) * LEVELS // kept
        inside = counts[:kept]
        filled = inside > 0
        mass = np.bincount(level, weights=inside, minlength=LEVELS)
        number = np.bincount(level, weights=filled.astype(np.float64), minlength=LEVELS)
        spread = np.where(filled, (mass / np.maximum(number, 1))[level], 0)
        if not spread.sum():
            continue
        p, q = reference / reference.sum(), spread / spread.sum()
        both = (p > 0) & (q > 0)
        lost = p[(p > 0) & (q == 0)].sum()  # what only the clipped tail put there
        here = float((p[both] * np.log(p[both] / q[both])).sum() + lost * np.log(1e12))
        if here < cost:
            best, cost = kept, here
    return best


def size(text: str) -> tuple[int, int]:
    """(width, height) of WxH, multiples of 32. UsageError otherwise."""
    parts = str(text).lower().split("x")
    if len(parts) != 2 or not all(p.isdecimal() and int(p) >= 32 and int(p) % 32 == 0 for p in parts):
        raise UsageError(
            f"not an input size: {text!r}", expected="WIDTHxHEIGHT, multiples of 32", remedy="for instance 416x256"
        )
    return int(parts[0]), int(parts[1])
