"""The latency model fitted to this machine: a run of half a minute over small networks in ONNX Runtime, one thread.

It closes the loop that a Jetson at a distance leaves open: the same model, the same fit, and real runs to be wrong
about (benchmarks/this_machine.py compares on networks that the fit never saw).
"""

import logging
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from jetson import files
from jetson.errors import BadInput
from pipeline.graphs import shapes
from pipeline.graphs.fusion import ONNXRUNTIME, layers
from pipeline.graphs.load import load
from pipeline.graphs.writer import GraphWriter
from pipeline.latency import fit as latency_fit
from pipeline.latency.roofline import ELEMENT_BYTES, Parameters, Rates, describe

log = logging.getLogger(__name__)
NOMINAL = Rates(peak=100e9, bandwidth=20e9, element=4, tile=16, winograd=False)
# Wide: unlike a Jetson's, this machine's rates are not known beforehand. `winograd` is not used on a CPU.
PRIOR = Parameters(
    convolution=0.8,
    winograd=1.0,
    depth=8,
    depthwise=0.2,
    bandwidth=1.0,
    weight_bandwidth=1.0,
    launch_us=3,
    call_ms=0.02,
)
WIDTH = Parameters(
    convolution=1.5,
    winograd=0.01,
    depth=1.5,
    depthwise=1.5,
    bandwidth=1.5,
    weight_bandwidth=1.5,
    launch_us=1.5,
    call_ms=1.5,
)


def _plain(g: GraphWriter, widths: Sequence[int], kernel: int = 3, act: str = "relu") -> str:
    x = "image"
    for width in widths:
        x = g.conv(x, width, kernel, stride=2, act=act)
        x = g.conv(x, width, kernel, act=act)
    return x


def _separable(g: GraphWriter, widths: Sequence[int], kernel: int = 3) -> str:
    x = g.conv("image", widths[0], 3, 2)
    for width in widths[1:]:
        x = g.conv(x, g.shape[x][0], kernel, 2, groups=g.shape[x][0], act="relu6")
        x = g.conv(x, width, 1, act=None)
        x = g.conv(x, width * 4, 1, act="relu6")
        x = g.conv(x, width * 4, kernel, groups=width * 4, act="relu6")
        x = g.conv(x, width, 1, act=None)
    return x


def _residual(g: GraphWriter, width: int, blocks: int) -> str:
    x = g.conv("image", width, 3, 4)
    for _ in range(blocks):
        x = g.add(g.conv(g.conv(x, width), width, act=None), x, "relu")
    return x


def _bottleneck(g: GraphWriter, width: int, blocks: int) -> str:
    x = g.conv("image", width * 4, 7, 8)
    for _ in range(blocks):
        x = g.add(g.conv(g.conv(g.conv(x, width, 1), width), width * 4, 1, act=None), x, "relu")
    return x


def _pyramid(g: GraphWriter, width: int) -> str:
    low = _plain(g, (16, width))
    high = g.conv(low, width * 2, stride=2)
    joined = g.concat(g.upsample(g.conv(high, width, 1, act="leaky")), low)
    return g.conv(g.pool(joined), width)


def _dense(g: GraphWriter, width: int) -> str:
    x = g.pool(g.conv("image", 32, 7, 2))
    for _ in range(6):
        x = g.concat(x, g.conv(g.conv(g.norm(x), width * 2, 1), width, act=None))
    return x


def _classifier(g: GraphWriter, width: int) -> str:
    return g.dense(g.dense(g.flatten(g.pool(_plain(g, (16, 32, 64)), 2)), width), width, None)


SAMPLES = {  # name -> (width, height, what to draw); one to fifteen milliseconds each on a desktop core
    "plain-narrow": (320, 192, lambda g: _plain(g, (8, 16, 24, 48))),
    "plain": (320, 192, lambda g: _plain(g, (16, 32, 64, 96))),
    "plain-wide": (128, 128, lambda g: _plain(g, (64, 128, 256))),
    "plain-leaky": (256, 256, lambda g: _plain(g, (16, 32, 64), act="leaky")),
    "five": (160, 160, lambda g: _plain(g, (16, 32, 48), kernel=5)),
    "separable": (224, 224, lambda g: _separable(g, (16, 24, 32, 64))),
    "separable-small": (128, 96, lambda g: _separable(g, (16, 24, 48, 96))),
    "separable-five": (192, 192, lambda g: _separable(g, (16, 40, 80), kernel=5)),
    "residual": (256, 256, lambda g: _residual(g, 48, 3)),
    "residual-small": (96, 96, lambda g: _residual(g, 64, 8)),
    "bottleneck": (256, 256, lambda g: _bottleneck(g, 48, 5)),
    "pyramid": (320, 320, lambda g: _pyramid(g, 32)),
    "dense": (224, 224, lambda g: _dense(g, 24)),
    "classifier": (96, 96, lambda g: _classifier(g, 1536)),
}


def measure(models: dict, precision: str = "fp32", rounds: int = 7) -> dict:
    """Milliseconds of each model in ONNX Runtime with one thread: {name: ModelProto} -> {name: ms}.

    One thread works in the caller, so the caller's CPU time is what a machine without other work would show as wall
    time; what another program takes is not in it. The models take turns, so that a busy cache hits all of them alike.
    """
    sessions: dict[str, tuple[Any, dict[str, np.ndarray], list[float]]] = {}
    for name, model in models.items():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        content = model.SerializeToString()
        if precision == "int8":
            content = _quantised(content, name)
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        value = session.get_inputs()[0]
        image = np.random.default_rng(0).uniform(0, 1, value.shape).astype(np.float32)
        session.run(None, {value.name: image})
        sessions[name] = (session, {value.name: image}, [])
    for _ in range(rounds):
        for session, feed, times in sessions.values():
            best: list[float] = []
            stop = time.perf_counter() + 0.06
            while len(best) < 2 or time.perf_counter() < stop:
                begin = time.thread_time()
                session.run(None, feed)
                best.append(time.thread_time() - begin)
            times.append(statistics.median(best) * 1e3)
    return {name: float(np.median(times)) for name, (_, _, times) in sessions.items()}


def _quantised(content: bytes, name: str) -> bytes:
    """The model with U8S8 weights and activations, ranges from one random image: for timing only."""
    import tempfile

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class OneImage(CalibrationDataReader):
        def __init__(self, shape: list[int], key: str) -> None:
            self.left = [{key: np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / f"{name}.onnx", Path(folder) / f"{name}.int8.onnx"
        source.write_bytes(content)
        value = load(source).graph.input[0]
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        quantize_static(
            str(source),
            str(target),
            OneImage(shape, value.name),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return target.read_bytes()


def described(model: onnx.ModelProto) -> np.ndarray:
    """A model as the fit needs it: float64 (7, layers), the rows that pipeline.latency.roofline.describe gives."""
    return describe(layers(shapes.from_model(model), ONNXRUNTIME), NOMINAL.tile)


def samples() -> dict:
    """The networks of the calibration run, with random weights."""
    out = {}
    for name, (width, height, draw) in SAMPLES.items():
        writer = GraphWriter(name, 3, height, width, weights="random")
        out[name] = writer.model(draw(writer))
    return out


def calibrate(precision: str = "fp32", rounds: int = 7) -> dict:
    """Measure, fit, and remember; returns what `calibrated` will read."""
    log.info("measuring this machine (%s, about half a minute) ...", precision)
    models = samples()
    result = fit(models, measure(models, precision, rounds), precision)
    path = _path(precision)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(str(path), result)
    return result


def fit(models: dict, measured: dict, precision: str) -> dict:
    """What is remembered of a calibration: parameters, spread of left-out networks, the measurements, the machine."""
    rates = NOMINAL._replace(element=ELEMENT_BYTES[precision])
    rows = [(described(model), rates, measured[name]) for name, model in models.items()]
    how: dict[str, Any] = {"prior": PRIOR, "width": WIDTH, "noise": 0.08}
    parameters = latency_fit.fit(rows, **how)
    held = latency_fit.leave_out(rows, list(models), **how)
    return {
        "precision": precision,
        "machine": machine(),
        "parameters": parameters._asdict(),
        "spread": latency_fit.spread(held, [measured[name] for name in models]),
        "measured_ms": measured,
    }


def calibrated(precision: str) -> tuple:
    """(Rates, Parameters, spread, sentence on where they come from); measures when there is nothing, or another CPU."""
    path = _path(precision)
    known = None
    if path.exists():
        try:
            result = files.read_json(str(path))
            if result["machine"] == machine():
                known = _remembered(result)
        except (BadInput, AttributeError, KeyError, TypeError):  # damaged, or of another version of jetmask
            pass
    parameters, spread, count = known or _remembered(calibrate(precision))
    rates = NOMINAL._replace(element=ELEMENT_BYTES[precision])
    return rates, parameters, spread, f"fitted to {count} small networks measured on this machine"


def _remembered(result: dict) -> tuple:
    return Parameters(**result["parameters"]), result["spread"], len(result["measured_ms"])


def machine() -> dict:
    """What the calibration depends on."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as handle:
            name = next((line.split(":", 1)[1].strip() for line in handle if line.startswith("model name")), name)
    except OSError:
        pass
    return {"cpu": name, "onnxruntime": onnxruntime.__version__}


def _path(precision: str) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root) / "jetmask" / f"this-machine-{precision}.json"
