"""Which layers int8 or fp16 costs most, and the fewest to keep in higher precision.

One layer at a time is quantised and the signal-to-noise ratio at the heads taken (cheap, on a few images); the gate
(AP, slow) is asked only while layers are given back, the worst first.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from jetson import files
from jetson.errors import BadInput, QualityGate, UsageError
from jetson.vision.letterbox import letterbox
from pipeline.evaluation import gate
from pipeline.graphs import classes as onnx_classes
from pipeline.graphs import edit as graphs
from pipeline.graphs.load import load
from pipeline.quantization import calibrate, quantize

if TYPE_CHECKING:
    import onnx

FP16_LARGEST = 65504.0
FP16_SMALLEST_NORMAL = 2.0**-14
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
    def at_risk(self) -> bool:
        return not self.largest <= FP16_LARGEST * HEADROOM


def blobs(images: Sequence[str], input_wh: tuple[int, int]) -> list[np.ndarray]:
    """The network's input for each photograph, through the runner's preprocessing."""
    made = []
    for path in images:
        frame = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if frame is None:
            raise BadInput("not a photograph that OpenCV can read", where=path, expected="JPEG or PNG")
        made.append(letterbox(frame, input_wh)[0].copy())
    return made


def snr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """10 log10 of signal over noise power, for two arrays; infinite where they are equal."""
    noise = float(np.square(reference.astype(np.float64) - other).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return np.inf if noise == 0 else 10 * np.log10(max(signal, 1e-30) / noise)


def layers(
    src: str,
    table: Any,
    images: Sequence[str],
    input_wh: tuple[int, int],
    progress: Callable[[int, int], None] | None = None,
) -> list[Layer]:
    """The sensitivity of every convolution and Add of a float32 ONNX to int8: list of Layer, the worst first.

    table: jetson.engine.calibration.Table of the file; images: paths, some 8 are enough for a ranking.
    progress: called with (done, total).
    """
    graph = graphs.read(src).graph
    names = [node.name for node in graph.node if node.op_type in ("Conv", "Add")]
    heads = [output.name for output in graph.output]
    inputs = blobs(images, input_wh)
    reference = _run(load(src), inputs, input_wh)
    found = []
    with tempfile.TemporaryDirectory(prefix="jetmask-sensitivity-") as folder:
        path = os.path.join(folder, "one.onnx")
        for done, name in enumerate(names, 1):
            # The Q/DQ form holds either runtime's rounding, and its float parts are exactly float.
            quantize.int8_tensorrt(src, table, path, keep=[other for other in names if other != name])
            outputs = _run(load(path), inputs, input_wh)
            ratios = {head: snr_db(reference[i], outputs[i]) for i, head in enumerate(heads)}
            found.append(Layer(name, min(ratios.values()), ratios))
            if progress:
                progress(done, len(names))
    return sorted(found, key=lambda layer: layer.snr_db)


def _run(model: onnx.ModelProto, inputs: list[np.ndarray], input_wh: tuple[int, int]) -> list[np.ndarray]:
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


def auto(ranking: Sequence[str], ask: Callable[[tuple[str, ...]], Any], start: Sequence[str] = ()) -> Mixed:
    """The fewest layers kept in higher precision that pass the gate, and what it said. Returns Mixed.

    ranking: names of nodes, the most sensitive first. ask: function of a tuple of kept node names that builds,
    measures and returns an object with `.passed` (pipeline.evaluation.gate.Verdict); asked once per set. start: nodes
    kept in any case. The number kept is found by doubling and halving, then each kept layer is given back where the
    gate still passes. QualityGate where even all layers kept do not pass.
    """
    order = [name for name in ranking if name not in start]
    verdicts = {}

    def verdict(keep: Iterable[str]) -> Any:
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
        raise QualityGate(
            f"no mix of precisions passes the gate: {verdict(order[:count])}",
            expected="a model that passes with every layer in higher precision",
            remedy="calibrate on other images, or allow a larger --max-drop",
        )
    while count - failed > 1:
        middle = (failed + count) // 2
        if verdict(order[:middle]).passed:
            count = middle
        else:
            failed = middle
    keep = order[:count]
    for name in reversed(order[: count - 1]):  # the last one is needed: without it the gate failed
        fewer = [other for other in keep if other != name]
        if verdict(fewer).passed:
            keep = fewer
    return Mixed(tuple(sorted(set(keep) | set(start))), verdict(keep), len(verdicts))


FORMS = {"int8-cpu": quantize.int8_cpu, "int8": quantize.int8_tensorrt}


def mix(
    src: str,
    dst: str,
    form: str,
    table: Any,
    images: Sequence[str],
    truths: Any,
    input_wh: tuple[int, int],
    max_drop: float = gate.MAX_DROP,
    cache: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Mixed:
    """Write the int8 file that keeps the fewest layers in float and holds the gate. Returns Mixed.

    form: "int8-cpu" or "int8" (Q/DQ; its figure is a simulation here). images: paths for the ranking; truths: as
    metrics.load_split gives them, for the gate. cache: a JSON file that remembers rankings and figures by the
    model, the table and the data, so that a broken or repeated search goes on where it was. progress: called with
    a line of text. QualityGate where no mix holds the gate; `dst` is not written then.
    """
    if form not in FORMS:
        raise UsageError(f"unknown int8 form {form!r}", expected="one of " + ", ".join(FORMS))

    def say(text: str) -> None:
        if progress:
            progress(text)

    labels = [(truth.file, truth.xyxy.tolist(), truth.labels.tolist(), truth.ignore.tolist()) for truth in truths]
    known = _Known(cache, src, table, form, input_wh, labels, [str(path) for path in images])
    write, graph = FORMS[form], graphs.read(src).graph
    start = quantize.float_ends(graph) if form == "int8" else quantize.image_readers(graph)
    ranking = known.get("ranking", lambda: [layer.name for layer in layers(src, table, images, input_wh)])
    say("most sensitive: " + ", ".join(ranking[:5]))
    before = gate.of_onnx(src, truths, input_wh)
    names = onnx_classes.of_file(str(src)).names

    def ask(keep: Sequence[str]) -> Any:
        def measured() -> Any:
            with tempfile.TemporaryDirectory(prefix="jetmask-mix-") as folder:
                path = write(src, table, os.path.join(folder, "mixed.onnx"), keep=keep)
                after = gate.of_onnx(path, truths, input_wh)
            return list(gate.compare(truths, before, after, max_drop, classes=names))

        verdict = gate.Verdict(*known.get("keep " + " ".join(keep), measured))._replace(max_drop=max_drop)
        say(f"{len(keep)} layers kept in float: {verdict}")
        return verdict

    mixed = auto(ranking, ask, start)
    write(src, table, dst, keep=mixed.keep)
    return mixed


class _Known:
    """Figures that were measured before, in a JSON file; only those of the same model, table, images and labels count.

    Those of other questions stay in the file: a build asks for two forms in turn.
    """

    def __init__(self, path: str | None, *what: Any) -> None:
        self.path = path
        table = what[1]._replace(layer_precisions={})  # an outcome of the search, not a part of the question
        self.key = hashlib.sha256(
            json.dumps([files.sha256(str(what[0])), table._asdict(), *what[2:]], sort_keys=True, default=str).encode()
        ).hexdigest()
        stored = files.read_json(path) if path and os.path.exists(path) else {}
        self.stored = stored if isinstance(stored, dict) else {}
        self.values = self.stored.setdefault(self.key, {})

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        if name not in self.values:
            self.values[name] = measure()
            if self.path:
                files.write_json(self.path, self.stored)
        return self.values[name]


def fp16_scan(src: str, images: Sequence[str], input_wh: tuple[int, int]) -> list[Half]:
    """How fp16 bears each tensor of a float32 ONNX on these photographs: list of Half, the largest first.

    ONNX Runtime's CPU provider computes fp16 files in float32 between the nodes, so an overflow does not show in
    its results: this scan is what there is to see it with before a GPU does.
    """
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


def overflows(src: str, images: Sequence[str], input_wh: tuple[int, int]) -> tuple[str, ...]:
    """Names of the nodes to keep in float32: those that make or read a tensor at risk in fp16."""
    risky = {half.tensor for half in fp16_scan(src, images, input_wh) if half.at_risk}
    return tuple(
        node.name
        for node in graphs.read(src).graph.node
        if any(name in risky for name in list(node.output) + list(node.input))
    )
