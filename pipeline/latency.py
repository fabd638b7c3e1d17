"""How long a network takes on a device, from its ONNX graph alone.

The graph is fused as an engine builder would (pipeline/fusion.py); each launched layer is a roofline:

    t = launch + sqrt(compute**2 + memory**2)
    compute = 2 * MACs / (peak * efficiency),    memory = activations / bandwidth + weights / weight bandwidth

with seven numbers for the efficiencies and one for the call itself. None belongs to a network. They are fitted to
published measurements (benchmarks/latency_model.py prints the errors and reproduces the numbers below).
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jetson.errors import UsageError
from pipeline import onnx_graph, targets
from pipeline.fusion import ONNXRUNTIME, TENSORRT, Layer, layers

GPU_TILE = 32  # the narrowest matrix tile of NVIDIA's convolution kernels (their names: 128x32, 128x64, ...)
WINOGRAD_CHANNELS = 16  # fewer input channels, and the transforms cost more than they save
WINOGRAD_WEIGHTS = 16 / 9  # F(2x2, 3x3) keeps 16 numbers for each 3x3 filter
ELEMENT_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


class Parameters(NamedTuple):
    """What the fit decides; everything else is the graph or the data sheet."""

    convolution: float  # fraction of the peak rate that a dense convolution reaches
    winograd: float  # gain of 3x3 stride-1 convolutions over that; the arithmetic allows at most 2.25
    depth: float  # window size (channels x kernel area) at which half of the efficiency is lost to short inner loops
    depthwise: float  # fraction of the peak rate of a depthwise convolution
    bandwidth: float  # fraction of the memory bandwidth that reading and writing activations reaches
    weight_bandwidth: float  # the same for weights, which a batch of one uses only once
    launch_us: float  # for each launched layer
    call_ms: float  # for each inference


# Fitted to the engine rows of benchmarks/published/nano.csv by benchmarks/latency_model.py; a test refits them.
FITTED = Parameters(
    convolution=0.6122, winograd=1.644, depth=41.96, depthwise=0.04, bandwidth=0.5789, weight_bandwidth=0.4746,
    launch_us=12.95, call_ms=0.7995,
)
# 90 % of predictions are expected within this factor, judging by the rows of the source that a fit had not seen.
SPREAD = 1.23
BACKED = {"nano": ("fp16", "fp32")}  # what published rows exist for


class LayerTime(NamedTuple):
    """One launched layer: its time and the part of it that compute and memory would take alone, in ms."""

    name: str
    kind: str
    ms: float
    compute_ms: float
    memory_ms: float
    macs: int


class Prediction(NamedTuple):
    """latency_ms with its 90 % interval (None: error unknown); `layers` in the order they run."""

    latency_ms: float
    low_ms: float | None
    high_ms: float | None
    layers: list
    target: str
    precision: str
    input_wh: tuple | None
    macs: int
    weight_bytes: int
    basis: str
    notes: tuple

    def as_json(self, with_layers: bool = True) -> dict:
        out = self._asdict()
        out["kind"] = "predicted"
        out["layers"] = [layer._asdict() for layer in self.layers] if with_layers else len(self.layers)
        return out


class Rates(NamedTuple):
    """A device at one precision: operations/s, bytes/s, bytes an element.

    tile: output channels that one kernel computes at a time; winograd: 3x3 convolutions can take the shortcut.
    """

    peak: float
    bandwidth: float
    element: int
    tile: int = GPU_TILE
    winograd: bool = True


def describe(fused: list, tile: int = GPU_TILE) -> np.ndarray:
    """The layers as an array (7, N) of what the cost needs; see `seconds` for its rows."""
    rows = []
    for layer in fused:
        columns = math.ceil(layer.columns / tile) * tile
        dense = layer.kind in ("conv", "matmul")
        rows.append((layer.rows * columns * layer.groups if dense else 0, layer.depth if dense else 0,
                     layer.macs if layer.kind == "fc" else 0, layer.macs if layer.kind == "depthwise" else 0,
                     uses_winograd(layer), layer.read + layer.written, layer.weights))
    return np.array(rows, float).T.reshape(7, -1)


def seconds(described: np.ndarray, rates: Rates, p: Parameters) -> tuple:
    """(compute, memory) of each layer in seconds, each as if the other took no time."""
    outputs, depth, dense_macs, depthwise_macs, winograd, activations, weights = described
    if not rates.winograd:
        winograd = np.zeros_like(winograd)
    gain = np.where(winograd > 0, p.winograd, 1)
    work = (outputs * (depth + p.depth) / gain + dense_macs) / p.convolution + depthwise_macs / p.depthwise
    stored = weights * np.where(winograd > 0, WINOGRAD_WEIGHTS, 1)
    memory = (activations / p.bandwidth + stored / p.weight_bandwidth) * (rates.element / rates.bandwidth)
    return 2 * work / rates.peak, memory


def uses_winograd(layer: Layer) -> bool:
    return (layer.kind == "conv" and layer.window == (3, 3) and layer.groups == 1 and set(layer.stride) == {1}
            and set(layer.dilation) == {1} and layer.depth >= 9 * WINOGRAD_CHANNELS)


def layer_times(fused: list, rates: Rates, p: Parameters) -> list:
    """The time of each fused layer."""
    compute, memory = seconds(describe(fused, rates.tile), rates, p)
    launch = p.launch_us * 1e-6
    return [LayerTime(layer.name, layer.kind, (math.hypot(c, m) + launch) * 1e3, c * 1e3, m * 1e3, layer.macs)
            for layer, c, m in zip(fused, compute.tolist(), memory.tolist(), strict=True)]


def total_ms(described: np.ndarray, rates: Rates, p: Parameters) -> float:
    """Milliseconds of one inference over layers as `describe` gives them."""
    compute, memory = seconds(described, rates, p)
    return p.call_ms + 1e3 * float(np.hypot(compute, memory).sum()) + 1e-3 * p.launch_us * described.shape[1]


def rates(device: targets.Target, precision: str) -> Rates:
    """What the data sheet of `device` says for `precision`."""
    targets.check_precision(device, precision)
    # Halving the element doubles a plain core's rate; more than that comes from tensor cores, which do no Winograd.
    tensor_cores = device.peak_flops[precision] * ELEMENT_BYTES[precision] > 4.1 * device.peak_flops["fp32"]
    return Rates(device.peak_flops[precision], device.bandwidth, ELEMENT_BYTES[precision], winograd=not tensor_cores)


def predict_ms(
    onnx_path: str, target: str = "nano", precision: str = "fp16", input_wh: tuple | None = None
) -> Prediction:
    """Predict one inference (batch 1) of the ONNX file on `target`: GPU work, without camera or decoding of boxes.

    Example: `predict_ms("model.onnx", "nano", "fp16", (416, 256)).latency_ms`.
    BadInput for a file that is no ONNX graph, DeviceMismatch for a precision that the target does not run.
    """
    return predict_graph(onnx_graph.read(str(onnx_path), input_wh), target, precision)


def predict_graph(graph: onnx_graph.Graph, target: str = "nano", precision: str = "fp16") -> Prediction:
    """As `predict_ms`, for a graph that was read already."""
    device = targets.target(target)
    targets.check_precision(device, precision)
    if device.name == targets.THIS_MACHINE:
        from pipeline import this_machine

        device_rates, parameters, spread, basis = this_machine.calibrated(precision)
        rules = ONNXRUNTIME
        notes: tuple = ("holds for ONNX Runtime with one thread on this machine as it was calibrated",)
    else:
        device_rates, parameters = rates(device, precision), FITTED
        backed = precision in BACKED.get(device.name, ())
        spread = SPREAD if backed else None
        basis = ("fitted to published TensorRT measurements" if backed
                 else "scaled from the data sheet; no published row backs it, error unknown")
        rules, notes = TENSORRT, tuple(what_would_change(device))
    fused = layers(graph, rules)
    times = layer_times(fused, device_rates, parameters)
    latency = parameters.call_ms + sum(item.ms for item in times)
    depthwise = sum(item.ms for item in times if item.kind == "depthwise") / latency
    if depthwise > 0.1 and device.name != targets.THIS_MACHINE:
        notes += (f"{depthwise:.0%} of the time is in depthwise layers, which no published engine row has: there the "
                  "interval is a guess",)
    return Prediction(
        latency_ms=latency, low_ms=latency / spread if spread else None, high_ms=latency * spread if spread else None,
        layers=times, target=device.name, precision=precision, input_wh=graph.input_wh,
        macs=sum(layer.macs for layer in fused),
        weight_bytes=sum(layer.weights for layer in fused) * device_rates.element, basis=basis, notes=notes,
    )


def what_would_change(device: targets.Target) -> list:
    """Sentences on what moves a figure on this device."""
    out = []
    for mode, clock in device.power_modes.items():
        if clock == 1:
            out.append(f"assumes power mode {mode} with clocks locked (jetson_clocks)")
        else:
            out.append(f"power mode {mode} runs the GPU at {clock:.0%} of that clock: up to {1 / clock:.2f} x the time")
    out.append(f"assumes JetPack {device.jetpack} (TensorRT {device.tensorrt[-1]}); the camera, decoding of boxes and "
               "the page are not in it")
    return out


def parse_wh(text: str | None) -> tuple | None:
    """(width, height) of "416x256"; UsageError otherwise."""
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) == 2 and all(part.strip().isdigit() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[1])
    raise UsageError(f"not a size: {text!r}", "--input-wh", "WIDTHxHEIGHT in pixels, for instance 416x256")


def options(parser) -> None:
    parser.description = "Predict how long a network takes on a device, from its ONNX graph alone."
    parser.epilog = "example: jetmask predict model.onnx --target nano --precision fp16 --input-wh 416x256 --layers"
    parser.add_argument("model", help="an ONNX file")
    parser.add_argument("--target", default="nano", help="device kind (default: %(default)s)")
    parser.add_argument("--precision", default=None, help="fp32, fp16 or int8 (default: fp16, fp32 on this-machine)")
    parser.add_argument("--input-wh", help="WIDTHxHEIGHT; needed when the file leaves its size open")
    parser.add_argument("--layers", action="store_true", help="show every launched layer")
    parser.add_argument("--measured", metavar="FILE.json", help="say how far off that is from what "
                        "`jetmask bench --out` measured, or imported from trtexec")
    parser.add_argument("--calibrate", action="store_true", help="with --target this-machine: measure it again")
    parser.add_argument("--json", action="store_true", help="print JSON")


def command(args) -> None:
    size = parse_wh(args.input_wh)
    precision = args.precision or ("fp32" if args.target == targets.THIS_MACHINE else "fp16")
    if args.calibrate:
        if args.target != targets.THIS_MACHINE:
            raise UsageError("only this machine can be calibrated", "--calibrate", f"--target {targets.THIS_MACHINE}")
        from pipeline import this_machine

        this_machine.calibrate(precision)
    result = predict_ms(args.model, args.target, precision, size)
    found = None
    if args.measured:
        from pipeline import measured

        found = measured.beside(result, args.measured, args.model)
    if args.json:
        print(json.dumps(result.as_json(args.layers) | ({"measured": found} if found else {}), indent=1))
        return
    if args.layers:
        print(f"{'layer':58} {'kind':10} {'ms':>8} {'MMACs':>8}")
        for layer in result.layers:
            name = layer.name if len(layer.name) <= 58 else layer.name[:55] + "..."
            print(f"{name:58} {layer.kind:10} {layer.ms:8.3f} {layer.macs / 1e6:8.1f}")
        print()
    bound = (f"{result.low_ms:.1f} to {result.high_ms:.1f} ms in 9 of 10 cases" if result.low_ms is not None
             else "error unknown")
    shape = "x".join(map(str, result.input_wh)) if result.input_wh else "no image input"
    print(f"{Path(args.model).name}  {shape}  {result.precision} on {result.target}")
    print(f"predicted {result.latency_ms:.2f} ms ({bound}), {result.macs / 1e6:.0f} MMACs, {len(result.layers)} layers")
    print(f"basis: {result.basis}")
    for note in result.notes:
        print(f"  - {note}")
    if found:
        print(measured.text(found, args.layers))
