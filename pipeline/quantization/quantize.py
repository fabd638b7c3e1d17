"""From one float32 ONNX and one calibration table to the typed fp16 and both int8 files.

`int8` is for TensorRT (Q/DQ, symmetric), `int8-cpu` for ONNX Runtime (see pipeline/quantization/int8_cpu.py): what
makes one fast makes the other slow or refuses to parse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from jetson import files
from jetson.engine import calibration as tables
from jetson.errors import BadInput, UsageError
from pipeline.graphs import edit as graphs
from pipeline.quantization import int8_cpu as cpu

if TYPE_CHECKING:
    import onnx

    from jetson.engine.calibration import Table

LEVELS = 127  # symmetric int8 leaves -128 out, so that a scale serves both signs


def fp16(src: str, dst: str, keep: Iterable[str] = ()) -> str:
    """Write the typed fp16 version: weights and activations half, input and outputs float32 behind casts.

    keep: names of nodes that stay float32 (pipeline.quantization.sensitivity.overflows lists those at risk). For
    runtimes that have no weak typing; TensorRT up to 10 makes its own fp16 from the float32 file.
    """
    model = graphs.read(src)
    graph = model.graph
    kept = set(keep)
    require_nodes(graph, kept, src)
    values = graphs.constants(graph)
    outputs = {output.name for output in graph.output}
    is_half = dict.fromkeys(graphs.input_names(graph), False)
    nodes, casts = [], {}

    def form(name: str, half: bool) -> str:
        """The name of an activation in the wanted type; a cast is added where it has the other."""
        if is_half[name] == half:
            return name if not (half and name in outputs) else name + ".half"
        if (name, half) not in casts:
            # The half form of an output is called .half from the start: its own name is the float one's.
            casts[name, half] = name + ".half" if half else name if name in outputs else name + ".float"
            made = name + ".half" if name in outputs and is_half[name] else name
            nodes.append(
                helper.make_node(
                    "Cast",
                    [made],
                    [casts[name, half]],
                    name=casts[name, half] + "/cast",
                    to=TensorProto.FLOAT16 if half else TensorProto.FLOAT,
                )
            )
        return casts[name, half]

    for node in list(graph.node):
        half = node.name not in keep
        for i, name in enumerate(node.input):
            if name in is_half:
                node.input[i] = form(name, half)
            elif half and name in values and values[name].dtype == np.float32 and node.op_type != "Resize":
                node.input[i] = name + ".half"
                graphs.set_constant(graph, name + ".half", _halved(values[name], node.name, src))
        for i, name in enumerate(node.output):
            is_half[name] = half
            if half and name in outputs:
                node.output[i] = name + ".half"
        nodes.append(node)
    for output in graph.output:
        form(output.name, False)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    graphs.tidy(graph)
    graphs.write(model, dst)
    return dst


def _halved(value: np.ndarray, node: onnx.NodeProto, where: str) -> np.ndarray:
    if np.abs(value).max(initial=0) > np.finfo(np.float16).max:
        raise BadInput(
            f"a weight of node {node!r} is too large for fp16",
            where=where,
            expected="weights up to 65504",
            remedy="keep that node in float32",
        )
    return value.astype(np.float16)


def image_readers(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Names of the convolutions that read the image."""
    inputs = set(graphs.input_names(graph))
    return tuple(node.name for node in graph.node if node.op_type == "Conv" and node.input[0] in inputs)


def float_ends(graph: onnx.GraphProto) -> tuple[str, ...]:
    """The convolutions that TensorRT's int8 leaves in float by default: that read the image, or give the outputs.

    A symmetric scale over raw 0..255 loses a bit, and logits are what is compared; together they are few MACs.
    """
    outputs = {output.name for output in graph.output}
    return image_readers(graph) + tuple(
        node.name for node in graph.node if node.op_type == "Conv" and node.output[0] in outputs
    )


def int8_cpu(src: str, table: Table, dst: str, keep: Sequence[str] | None = None) -> str:
    """Write the int8 version that ONNX Runtime runs fastest on a CPU. Returns dst.

    table: jetson.engine.calibration.Table of this very file. keep: names of nodes that stay float32 (default: the
    convolutions that read the image; the outputs leave int8 unrounded anyway).
    """
    model = _checked(src, table)
    keep = image_readers(model.graph) if keep is None else tuple(keep)
    require_nodes(model.graph, keep, src)
    graphs.write(cpu.quantized(model, table.ranges, keep), dst)
    return dst


def int8_tensorrt(src: str, table: Table, dst: str, keep: Sequence[str] | None = None) -> str:
    """Write the Q/DQ version in the shape that TensorRT 8.2 takes. Returns dst.

    Three inputs on every Q and DQ, zero points 0; weights float32 behind a Q/DQ pair of their own, per channel on
    axis 0; biases plain float initializers; both inputs of an Add; nothing between a convolution and its ReLU.
    """
    model = _checked(src, table)
    graph = model.graph
    kept = set(float_ends(graph) if keep is None else keep)
    require_nodes(graph, kept, src)
    values = graphs.constants(graph)
    made = graphs.producers(graph)
    nodes, quantized = [], {}

    def pair(source: str, scale: Any, zero: Any, name: str, axis: int | None = None) -> str:
        extra: dict[str, Any] = {} if axis is None else {"axis": axis}
        graphs.set_constant(graph, name + ".scale", scale)
        graphs.set_constant(graph, name + ".zero", zero)
        for op, start, end in (
            ("QuantizeLinear", source, name + ".q"),
            ("DequantizeLinear", name + ".q", name + ".dq"),
        ):
            nodes.append(helper.make_node(op, [start, name + ".scale", name + ".zero"], [end], name=end, **extra))
        return name + ".dq"

    def activation(name: str) -> str:
        if name not in quantized:
            scale = np.float32(max(range_of(table, name), 1e-8) / LEVELS)
            quantized[name] = pair(name, scale, np.int8(0), name)
        return quantized[name]

    for node in list(graph.node):
        if node.name not in kept:
            if node.op_type == "Conv":
                weight = values[node.input[1]]
                largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
                scale = (np.maximum(largest, 1e-8) / LEVELS).astype(np.float32)
                node.input[0] = activation(node.input[0])
                node.input[1] = pair(node.input[1], scale, np.zeros(len(scale), np.int8), node.input[1], axis=0)
            elif node.op_type == "Add":
                for i, name in enumerate(node.input):
                    # A resized map is on its source's grid already: one scale for both sides of the Resize.
                    source = made.get(name)
                    if source is not None and source.op_type == "Resize":
                        table.ranges.setdefault(name, range_of(table, source.input[0]))
                    node.input[i] = activation(name)
        nodes.append(node)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    graphs.tidy(graph)
    graphs.write(model, dst)
    return dst


def range_of(table: Table, name: str) -> float:
    """The range of a tensor; BadInput where the table has none."""
    try:
        return table.ranges[name]
    except KeyError:
        raise BadInput(
            f"the calibration table has no range for tensor {name!r}",
            where=f"table of {table.model}",
            expected="a table of this model",
            remedy="calibrate again: jetmask calibrate",
        ) from None


def require_nodes(graph: onnx.GraphProto, names: Iterable[str], where: str) -> None:
    """UsageError where a name is not that of a node."""
    unknown = sorted(set(names) - {node.name for node in graph.node})
    if unknown:
        raise UsageError(
            f"unknown node {unknown[0]!r}",
            where=where,
            expected="names of nodes of the model",
            remedy="jetmask predict MODEL.onnx --layers lists them",
        )


def _checked(src: str, table: Table) -> onnx.ModelProto:
    model = graphs.read(src)
    tables.require(table, f"the table given for {src}", onnx_sha256=files.sha256(str(src)))
    return model
