"""Which layers int8 or fp16 costs most, and the fewest to keep in higher precision.

One layer at a time is quantised and the signal-to-noise ratio at the heads taken (cheap, on a few images); the gate
(AP, slow) is asked only while layers are given back, the worst first.
"""

import os
import tempfile
from typing import NamedTuple

import cv2
import numpy as np
import onnx

from jetson.errors import BadInput, QualityGate
from jetson.image import letterbox
from pipeline import calibrate, quantize
from pipeline import graph as graphs

FP16_LARGEST = 65504.0
FP16_SMALLEST_NORMAL = 2.0 ** -14
HEADROOM = 0.5  # of fp16's range: photographs that calibration did not see may go further


class Layer(NamedTuple):
    """What quantising one layer alone costs. snr_db: the worst head's signal-to-noise ratio, per head in `heads`."""

    name: str
    snr_db: float
    heads: dict


class Mixed(NamedTuple):
    """The outcome of `auto`. keep: nodes left in higher precision; verdict: what the gate said at last; asked: how
    often it was asked."""

    keep: tuple
    verdict: object
    asked: int


class Half(NamedTuple):
    """How fp16 bears one tensor. largest: max |x|; subnormal: share of nonzero values below 2**-14."""

    tensor: str
    node: str
    largest: float
    subnormal: float

    @property
    def at_risk(self):
        return not self.largest <= FP16_LARGEST * HEADROOM


def blobs(images, input_wh):
    """The network's input for each photograph, through the runner's preprocessing."""
    made = []
    for path in images:
        frame = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if frame is None:
            raise BadInput("not a photograph that OpenCV can read", where=path, expected="JPEG or PNG")
        made.append(letterbox(frame, input_wh)[0].copy())
    return made


def snr_db(reference, other):
    """10 log10 of signal over noise power, for two arrays; infinite where they are equal."""
    noise = float(np.square(reference.astype(np.float64) - other).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return np.inf if noise == 0 else 10 * np.log10(max(signal, 1e-30) / noise)


def layers(src, table, images, input_wh, progress=None):
    """The sensitivity of every convolution and Add of a float32 ONNX to int8: list of Layer, the worst first.

    table: jetson.calibrate.Table of the file; images: paths, some 8 are enough for a ranking.
    progress: called with (done, total).
    """
    graph = graphs.read(src).graph
    names = [node.name for node in graph.node if node.op_type in ("Conv", "Add")]
    heads = [output.name for output in graph.output]
    inputs = blobs(images, input_wh)
    reference = _run(onnx.load(str(src)), inputs, input_wh)
    found = []
    with tempfile.TemporaryDirectory(prefix="jetmask-sensitivity-") as folder:
        path = os.path.join(folder, "one.onnx")
        for done, name in enumerate(names, 1):
            # The Q/DQ form holds either runtime's rounding, and its float parts are exactly float.
            quantize.int8_tensorrt(src, table, path, keep=[other for other in names if other != name])
            outputs = _run(onnx.load(path), inputs, input_wh)
            ratios = {head: snr_db(reference[i], outputs[i]) for i, head in enumerate(heads)}
            found.append(Layer(name, min(ratios.values()), ratios))
            if progress:
                progress(done, len(names))
    return sorted(found, key=lambda layer: layer.snr_db)


def _run(model, inputs, input_wh):
    """Outputs over all inputs, stacked per head."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = 1
    settings.add_free_dimension_override_by_name("height", input_wh[1])
    settings.add_free_dimension_override_by_name("width", input_wh[0])
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    results = [session.run(None, {name: blob}) for blob in inputs]
    return [np.concatenate(parts) for parts in zip(*results)]


def auto(ranking, ask, start=()):
    """The fewest layers kept in higher precision that pass the gate, and what it said. Returns Mixed.

    ranking: list of Layer, the worst first. ask: function of a tuple of kept node names that builds, measures and
    returns an object with `.passed` (pipeline.gate.Verdict); asked once per set. start: nodes kept in any case.
    The number kept is found by doubling and halving, then each kept layer is given back where the gate still
    passes. QualityGate where even all layers kept do not pass.
    """
    order = [layer.name for layer in ranking if layer.name not in start]
    verdicts = {}

    def verdict(keep):
        keep = tuple(sorted(set(keep) | set(start)))
        if keep not in verdicts:
            verdicts[keep] = ask(keep)
        return verdicts[keep]

    if verdict(()).passed:
        return Mixed(tuple(sorted(start)), verdict(()), len(verdicts))
    failed, count = 0, 1
    while count < len(order) and not verdict(order[:count]).passed:
        failed, count = count, count * 2
    count = min(count, len(order))
    if not verdict(order[:count]).passed:
        raise QualityGate("no mix of precisions holds the gate: %s" % verdict(order[:count]),
                          expected="a model that passes with every layer in higher precision",
                          remedy="calibrate on other images, or allow a larger --max-drop")
    while count - failed > 1:
        middle = (failed + count) // 2
        if verdict(order[:middle]).passed:
            count = middle
        else:
            failed = middle
    keep = order[:count]
    for name in reversed(order[:count - 1]):  # the last one is needed: without it the gate failed
        fewer = [other for other in keep if other != name]
        if verdict(fewer).passed:
            keep = fewer
    return Mixed(tuple(sorted(set(keep) | set(start))), verdict(keep), len(verdicts))


def fp16_scan(src, images, input_wh):
    """How fp16 bears each tensor of a float32 ONNX on these photographs: list of Half, the largest first."""
    session, names = calibrate.observed(src, input_wh)
    producer = {name: node.name for node in graphs.read(src).graph.node for name in node.output}
    largest, small, nonzero = (dict.fromkeys(names, 0.0) for _ in range(3))
    for blob in blobs(images, input_wh):
        for name, value in zip(names, session.run(names, {"image": blob})):
            size = np.abs(value)
            largest[name] = max(largest[name], float(size.max())) if np.isfinite(size).all() else float("inf")
            small[name] += float(((size > 0) & (size < FP16_SMALLEST_NORMAL)).sum())
            nonzero[name] += float((size > 0).sum())
    found = [Half(name, producer[name], largest[name], small[name] / max(nonzero[name], 1.0)) for name in names]
    return sorted(found, key=lambda half: -half.largest)


def overflows(src, images, input_wh):
    """Names of the nodes to keep in float32: those that make or read a tensor at risk in fp16."""
    risky = {half.tensor for half in fp16_scan(src, images, input_wh) if half.at_risk}
    return tuple(node.name for node in graphs.read(src).graph.node
                 if any(name in risky for name in list(node.output) + list(node.input)))
