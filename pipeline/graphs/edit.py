"""Reading and editing the ONNX graphs of detectors: constants, consumers, folding, order and names."""

import os
import re
from collections import defaultdict
from collections.abc import Container
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from jetson import files
from jetson.errors import BadInput
from pipeline.graphs.load import load

OPSET = 13  # the newest that TensorRT 8.2 parses
IR_VERSION = 7  # the newest that ONNX Runtime 1.10 (Python 3.6) reads


def read(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The ONNX model in a file; BadInput where it is none."""
    model = load(path)
    if not model.graph.node or not model.graph.output:
        raise BadInput(
            "an ONNX model without nodes or outputs",
            where=path,
            expected="a detector written by `jetmask export`",
            remedy="export the model again",
        )
    return model


def write(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Write a model as one file, aside and renamed; checked by ONNX's own checker before."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BadInput(
            f"the graph is not what ONNX allows: {str(error).splitlines()[0]}",
            where=path,
            expected="a valid ONNX model, outputs with their shapes among it",
            remedy="export the model again: jetmask export",
        ) from error
    files.write_bytes(str(path), model.SerializeToString(deterministic=True))


def constants(graph: onnx.GraphProto | onnx.FunctionProto) -> dict[str, np.ndarray]:
    """{name: array, in the tensor's own shape and type} of all initializers and Constant nodes."""
    found = {i.name: numpy_helper.to_array(i) for i in getattr(graph, "initializer", ())}  # a function has none
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def set_constant(graph: onnx.GraphProto, name: str, value: npt.ArrayLike) -> None:
    """Give the initializer `name` another value; it is added where it is not there yet."""
    tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
    for initializer in graph.initializer:
        if initializer.name == name:
            initializer.CopyFrom(tensor)
            return
    graph.initializer.append(tensor)


def producers(graph: onnx.GraphProto | onnx.FunctionProto) -> dict[str, onnx.NodeProto]:
    """{tensor name: the node that makes it}."""
    return {output: node for node in graph.node for output in node.output if output}


def consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """{tensor name: [the nodes that read it]}, a node once per input that does."""
    found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            if name:
                found[name].append(node)
    return found


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute; text as str."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [entry for entry in node.attribute if entry.name != name] + [helper.make_attribute(name, value)]
    kept.sort(key=lambda entry: entry.name)
    del node.attribute[:]
    node.attribute.extend(kept)


def input_names(graph: onnx.GraphProto) -> list[str]:
    """Names of the true inputs, without initializers that old files list among them."""
    stored = {i.name for i in graph.initializer}
    return [i.name for i in graph.input if i.name not in stored]


def replace_input(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let every reader of tensor `old` read `new`."""
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename tensors everywhere: {old: new}."""
    for node in graph.node:
        for listed in (node.input, node.output):
            for i, name in enumerate(listed):
                listed[i] = names.get(name, name)
    for listed in (graph.initializer, graph.input, graph.output, graph.value_info):
        for entry in listed:
            entry.name = names.get(entry.name, entry.name)


def tidy(graph: onnx.GraphProto) -> None:
    """Drop what no output needs, order nodes from the outputs back (so equal graphs are equal files), drop shapes."""
    made = producers(graph)
    ordered, seen = [], set()
    for output in graph.output:
        stack = [(made[output.name], False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                ordered.append(node)
            elif node.output[0] not in seen:
                seen.add(node.output[0])
                stack.append((node, True))
                stack.extend((made[name], False) for name in reversed(node.input) if name in made)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)
    used = {name for node in graph.node for name in node.input}
    kept = sorted((i for i in graph.initializer if i.name in used), key=lambda i: i.name)
    kept = [onnx.TensorProto.FromString(i.SerializeToString()) for i in kept]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]


def fold_input_scale(graph: onnx.GraphProto) -> None:
    """Fold `image * scale` (and `+ 0`) into the convolutions that read it.

    Exact, borders included: the padding is zero before and after. An offset is not, so it is left for the caller's
    check to find.
    """
    for node in list(graph.node):  # what layers.Rescaling leaves of an offset of 0
        value, source = _single_constant(graph, node)
        if node.op_type == "Add" and value == 0.0 and source is not None:
            replace_input(graph, node.output[0], source)
            graph.node.remove(node)
    for node in list(graph.node):
        value, source = _single_constant(graph, node)
        if node.op_type != "Mul" or value is None or source not in input_names(graph):
            continue
        readers = consumers(graph)[node.output[0]]
        if any(reader.op_type != "Conv" for reader in readers):
            continue
        values = constants(graph)
        for name in {reader.input[1] for reader in readers}:
            set_constant(graph, name, (values[name].astype(np.float64) * value).astype(values[name].dtype))
        replace_input(graph, node.output[0], source)
        graph.node.remove(node)


def _single_constant(graph: onnx.GraphProto, node: onnx.NodeProto) -> tuple[float, str] | tuple[None, None]:
    """(value, the other input) of a node with one constant operand that is the same number everywhere."""
    values = constants(graph)
    fixed = [name for name in node.input if name in values]
    if len(node.input) != 2 or len(fixed) != 1 or np.unique(values[fixed[0]]).size != 1:
        return None, None
    return float(values[fixed[0]].reshape(-1)[0]), next(name for name in node.input if name not in values)


def fold_identities(graph: onnx.GraphProto) -> int:
    """Fold `conv(x) + x` into the convolution: 1 is added to the centre of each channel's own kernel.

    Returns how many were folded. Exact in real numbers; in float32 it differs by rounding only.
    """
    count = 0
    for node in [n for n in graph.node if n.op_type == "Add"]:
        made, read_by = producers(graph), consumers(graph)
        for own, other in ((0, 1), (1, 0)):
            conv = made.get(node.input[own])
            if conv is None or conv.op_type != "Conv" or conv.input[0] != node.input[other]:
                continue
            weight = constants(graph).get(conv.input[1])
            if (
                weight is None
                or not _keeps_shape(conv, weight)
                or len(read_by[conv.output[0]]) != 1
                or len(read_by[conv.input[1]]) != 1
            ):
                continue
            weight = weight.copy()
            diagonal = np.arange(weight.shape[0])
            weight[diagonal, diagonal, weight.shape[2] // 2, weight.shape[3] // 2] += 1
            set_constant(graph, conv.input[1], weight)
            replace_input(graph, node.output[0], conv.output[0])
            graph.node.remove(node)
            count += 1
            break
    return count


def _keeps_shape(conv: onnx.NodeProto, weight: np.ndarray) -> bool:
    size = weight.shape[2:]
    centred = [k // 2 for k in size] * 2
    return (
        weight.shape[0] == weight.shape[1]
        and attribute(conv, "group", 1) == 1
        and all(k % 2 for k in size)
        and list(attribute(conv, "strides", [1, 1])) == [1, 1]
        and list(attribute(conv, "dilations", [1, 1])) == [1, 1]
        and list(attribute(conv, "pads", [0, 0, 0, 0])) == centred
    )


def own_constants(graph: onnx.GraphProto) -> None:
    """Give every convolution weights and a bias of its own: tf2onnx shares equal ones, and int8 must not (the scale of
    a bias is its convolution's)."""
    values = constants(graph)
    seen = set()
    for node in graph.node:
        for i in range(1, len(node.input)) if node.op_type == "Conv" else ():
            name = node.input[i]
            if name in seen and name in values:
                node.input[i] = f"{name}.of.{node.output[0]}"
                set_constant(graph, node.input[i], values[name])
            seen.add(name)


def make_symbolic(graph: onnx.GraphProto, input_wh: tuple[int, int]) -> None:
    """Make height and width of the inputs and outputs symbolic: `height` and `width`, `height_4` and `width_4` …

    input_wh: the (width, height) that the graph was traced with. Shapes of the outputs are read from the graph.
    """
    for entry in list(graph.input) + list(graph.output):
        for axis, name, full in ((2, "height", input_wh[1]), (3, "width", input_wh[0])):
            dim = entry.type.tensor_type.shape.dim[axis]
            stride = full // dim.dim_value
            dim.dim_param = name if stride == 1 else f"{name}_{stride}"


def layer_names(graph: onnx.GraphProto, known: Container[str]) -> dict[str, str]:
    """Rename what a TensorFlow trace calls `net_1/stem_1/convolution…` after its layer: {old: new}, given layer names.

    A convolution's output carries its layer's name, its constants add `.weight` and `.bias`; what follows it is named
    after the layer that made it. Names that would be taken twice get a number.
    """
    taken = set(input_names(graph)) | {o.name for o in graph.output}
    names: dict[str, str] = {}

    def free(name: str) -> str:
        unique, count = name, 1
        while unique in taken:
            count += 1
            unique = f"{name}.{count}"
        taken.add(unique)
        return unique

    for node in graph.node:
        is_conv = node.op_type == "Conv"
        layer = _layer_of(node.input[1] if is_conv else node.name, known)
        if layer is None:
            source = names.get(node.input[0], node.input[0])
            layer = f"{source.split('.')[0]}.{node.op_type.lower()}"
        if node.output[0] not in taken:
            names[node.output[0]] = free(layer)
        parts = ("weight", "bias") if is_conv else ("roi", "scales")
        for part, name in zip(parts, node.input[1:] if is_conv or node.op_type == "Resize" else ()):
            if name and name not in names and name not in taken:
                names[name] = free(f"{layer if is_conv else 'upsample'}.{part}")
        node.name = layer if is_conv or node.output[0] in taken else names[node.output[0]]
    return names


def _layer_of(text: str, known: Container[str]) -> str | None:
    for part in text.split("/"):
        for candidate in (re.sub(r"_\d+$", "", part), part):
            if candidate in known:
                return candidate
    return None
