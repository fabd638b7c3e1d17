"""The 2:4 pattern: of every four weights that follow each other along the input channels, at most two are not zero.

It is what NVIDIA's tensor cores from Ampere on can skip, for each output channel and each place of the kernel ("for
every output channel and every spatial pixel, every four input channels must have at least two zeros": NVIDIA's
TensorRT guide, Structured Sparsity). Older GPUs, and every CPU engine here, compute the zeros like any other weight.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

PATTERN = "2:4"
GROUP = 4


class Layer(NamedTuple):
    """A convolution or matrix of an ONNX file. `reason`: why it cannot have the pattern, or None; `holds`: it has."""

    name: str
    channels: tuple[int, int]  # in, out
    reason: str | None
    holds: bool


def mask(weight: np.ndarray, axis: int, keep: np.ndarray | None = None) -> np.ndarray:
    """Which weights stay: bool, True for the two largest of each four along `axis`, whose length is a multiple of 4.

    `keep`: bool of the same shape; what it marks stays before all else (at most two of each four).
    """
    size = np.abs(np.moveaxis(np.asarray(weight, np.float64), axis, -1))
    if keep is not None:
        size = np.where(np.moveaxis(keep, axis, -1), np.inf, size)
    groups = size.reshape(*size.shape[:-1], -1, GROUP)
    order = np.argsort(-groups, axis=-1, kind="stable")
    stays = np.zeros(groups.shape, bool)
    np.put_along_axis(stays, order[..., :2], True, -1)
    return np.moveaxis(stays.reshape(size.shape), -1, axis)


def holds(weight: np.ndarray, axis: int) -> bool:
    """Whether every four along `axis` of a weight of any shape have two zeros or more; False where its length is no
    multiple of 4."""
    moved = np.moveaxis(np.asarray(weight), axis, -1)
    if moved.shape[-1] % GROUP:
        return False
    return bool(((moved.reshape(-1, GROUP) != 0).sum(axis=1) <= 2).all())


def why_not(channels_in: int, groups: int, is_output: bool) -> str | None:
    """Why a layer is left dense, or None."""
    if is_output:
        return "an output of the network"
    if groups != 1:
        return f"{groups} groups"
    if channels_in % GROUP:
        return f"{channels_in} input channels, not a multiple of {GROUP}"
    return None


def onnx_layers(path: str) -> list[Layer]:
    """The convolutions and matrices of an ONNX file, float or with Q/DQ; BadInput where it is no ONNX file."""
    from pipeline.graphs import edit as graphs  # onnx comes with the extra `train`

    graph = graphs.read(path).graph
    values, made, read_by = graphs.constants(graph), graphs.producers(graph), graphs.consumers(graph)
    outputs = {output.name for output in graph.output}
    found = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.input) < 2:
            continue
        weight = _weight(node.input[1], values, made)
        if weight is None or weight.ndim < 2:
            continue
        axis = 1 if node.op_type == "Conv" or graphs.attribute(node, "transB", 0) else 0
        groups = graphs.attribute(node, "group", 1) if node.op_type == "Conv" else 1
        reason = why_not(weight.shape[axis] * groups, groups, _reaches_output(node.output[0], outputs, read_by))
        found.append(
            Layer(
                node.name or node.output[0],
                (weight.shape[axis] * groups, weight.shape[1 - axis]),
                reason,
                reason is None and holds(weight, axis),
            )
        )
    return found


def _weight(name: str, values: dict[str, np.ndarray], made: dict[str, Any]) -> np.ndarray | None:
    """The constant behind a weight's input, through the nodes that quantise or cast it: zeros stay zeros there."""
    while name not in values:
        node = made.get(name)
        if node is None or node.op_type not in ("DequantizeLinear", "QuantizeLinear", "Cast", "Identity"):
            return None
        name = node.input[0]
    return values[name]


def _reaches_output(name: str, outputs: set[str], read_by: dict[str, list]) -> bool:
    """Whether a tensor is an output of the network, at most quantised or cast on the way."""
    while name not in outputs:
        after = read_by.get(name, [])
        if len(after) != 1 or after[0].op_type not in ("DequantizeLinear", "QuantizeLinear", "Cast", "Identity"):
            return False
        name = after[0].output[0]
    return True


def pattern_of(path: str) -> str | None:
    """ "2:4" where every layer of an ONNX file that can have the pattern has it, else None."""
    able = [layer for layer in onnx_layers(path) if layer.reason is None]
    return PATTERN if able and all(layer.holds for layer in able) else None


def dense_lines(layers: list[tuple[str, str]]) -> Iterator[str]:
    """One line for each reason, with the layers' names: [(name, reason)]."""
    for reason in dict.fromkeys(reason for _, reason in layers):
        yield f"dense ({reason}): " + ", ".join(name for name, why in layers if why == reason)
