"""The latency model: what each launched layer of a fused graph costs on a device.

The graph is fused as an engine builder would (pipeline/graphs/fusion.py); each launched layer is a roofline:

    t = launch + sqrt(compute**2 + memory**2)
    compute = 2 * MACs / (peak * efficiency),    memory = activations / bandwidth + weights / weight bandwidth

with seven numbers for the efficiencies and one for the call itself. None belongs to a network. They are fitted to
published measurements (benchmarks/latency_model.py prints the errors and reproduces the numbers below).
"""

import math
from typing import NamedTuple

import numpy as np

from pipeline import targets
from pipeline.graphs.fusion import Layer

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
    convolution=0.6122,
    winograd=1.644,
    depth=41.96,
    depthwise=0.04,
    bandwidth=0.5789,
    weight_bandwidth=0.4746,
    launch_us=12.95,
    call_ms=0.7995,
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
        rows.append(
            (
                layer.rows * columns * layer.groups if dense else 0,
                layer.depth if dense else 0,
                layer.macs if layer.kind == "fc" else 0,
                layer.macs if layer.kind == "depthwise" else 0,
                uses_winograd(layer),
                layer.read + layer.written,
                layer.weights,
            )
        )
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
    return (
        layer.kind == "conv"
        and layer.window == (3, 3)
        and layer.groups == 1
        and set(layer.stride) == {1}
        and set(layer.dilation) == {1}
        and layer.depth >= 9 * WINOGRAD_CHANNELS
    )


def layer_times(fused: list, rates: Rates, p: Parameters) -> list:
    """The time of each fused layer."""
    compute, memory = seconds(describe(fused, rates.tile), rates, p)
    launch = p.launch_us * 1e-6
    return [
        LayerTime(layer.name, layer.kind, (math.hypot(c, m) + launch) * 1e3, c * 1e3, m * 1e3, layer.macs)
        for layer, c, m in zip(fused, compute.tolist(), memory.tolist(), strict=True)
    ]


def total_ms(described: np.ndarray, rates: Rates, p: Parameters) -> float:
    """Milliseconds of one inference over layers as `describe` gives them, (7, layers)."""
    compute, memory = seconds(described, rates, p)
    return p.call_ms + 1e3 * float(np.hypot(compute, memory).sum()) + 1e-3 * p.launch_us * described.shape[1]


def rates(device: targets.Target, precision: str) -> Rates:
    """What the data sheet of `device` says for `precision`."""
    targets.check_precision(device, precision)
    # Halving the element doubles a plain core's rate; more than that comes from tensor cores, which do no Winograd.
    tensor_cores = device.peak_flops[precision] * ELEMENT_BYTES[precision] > 4.1 * device.peak_flops["fp32"]
    return Rates(device.peak_flops[precision], device.bandwidth, ELEMENT_BYTES[precision], winograd=not tensor_cores)
