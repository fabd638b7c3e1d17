"""An ONNX file read as what a planner needs: its computing nodes in order, with every shape known.

Of weights only the dimensions matter, so a graph whose initializers carry no data is as good as a trained one.
"""

import os
from typing import Any, NamedTuple

import onnx
from onnx import TensorProto, helper, shape_inference

from jetson.errors import BadInput, UsageError
from pipeline.graphs.inline import inlined
from pipeline.graphs.load import load

# Tensors above this many elements are never shape arguments, so their data is not needed to infer shapes.
_SHAPE_DATA_LIMIT = 4096
# Operators on integers as what they compute, and where weights and bias stand among their inputs.
INTEGER = {
    "QLinearConv": ("Conv", {3: 1, 8: 2}),
    "ConvInteger": ("Conv", {1: 1}),
    "QLinearMatMul": ("MatMul", {0: 0, 3: 1}),
    "MatMulInteger": ("MatMul", {0: 0, 1: 1}),
    "MatMulIntegerToFloat": ("MatMul", {0: 0, 1: 1, 6: 2}),
    "DynamicQuantizeMatMul": ("MatMul", {1: 1, 4: 2}),
    "QGemm": ("Gemm", {0: 0, 3: 1, 6: 2}),
    "QLinearAdd": ("Add", {}),
    "QLinearMul": ("Mul", {}),
    "QLinearConcat": ("Concat", {}),
    "QLinearSigmoid": ("Sigmoid", {}),
    "QLinearLeakyRelu": ("LeakyRelu", {}),
    "QLinearSoftmax": ("Softmax", {}),
    "QLinearAveragePool": ("AveragePool", {}),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", {}),
}


class Node(NamedTuple):
    """A computing node. `inputs`: activations only; `weights`: the dimensions of its constant inputs, by position.

    An operator on integers stands as what it computes (a QLinearConv as Conv), `stored` as it is called in the file.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: dict[int, tuple[int, ...]]
    attributes: dict[str, Any]
    stored: str = ""


class Graph(NamedTuple):
    """nodes in topological order, those of If, Loop and Scan bodies among them; shapes: tensor name -> tuple of ints;
    input_wh: (width, height) that was assumed; notes: what was assumed of If, Loop and Scan."""

    nodes: tuple[Node, ...]
    shapes: dict[str, tuple[int, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_wh: tuple[int, int] | None
    notes: tuple[str, ...] = ()


def read(path: str, input_wh: tuple[int, int] | None = None) -> Graph:
    """The graph in the ONNX file `path`, batch 1, its image input at `input_wh` = (width, height).

    Without `input_wh` the file's own size is taken. BadInput: not an ONNX file, or a shape that cannot be known;
    UsageError: the file leaves its size open and none was given.
    """
    if not os.path.exists(path):
        raise BadInput("the model does not exist", path, "an ONNX file")
    if os.path.isdir(path):
        raise BadInput("the model is a folder", path, "an ONNX file", "name the .onnx file in it")
    model = load(path)
    if not model.graph.node:
        raise BadInput("the file holds no graph", path, "an ONNX model", "export it again")
    return from_model(model, input_wh, where=path)


def from_model(model: onnx.ModelProto, input_wh: tuple[int, int] | None = None, where: str = "model") -> Graph:
    """As `read`, for a model in memory; the model is not changed."""
    model, notes = inlined(model)
    light = onnx.ModelProto()
    light.CopyFrom(model)
    size = _fix_input(light, input_wh, where)
    shapes = _infer(light, where)
    constant = {tensor.name for tensor in light.graph.initializer}
    nodes = []
    for position, node in enumerate(light.graph.node):
        given = [name for name in node.input if name]
        if node.op_type in ("Constant", "Shape", "Size") or all(name in constant for name in given):
            constant.update(node.output)  # folded when the engine is built; Shape too, as every shape is fixed
            continue
        weights = {i: shapes[n] for i, n in enumerate(node.input) if n in constant and n in shapes}
        op, places = INTEGER.get(node.op_type, (node.op_type, None))
        if places is not None:  # scales and zero points are left out
            weights = {places[i]: dims for i, dims in weights.items() if i in places}
        nodes.append(
            Node(
                name=node.name or f"{node.op_type}_{position}",
                op=op,
                inputs=tuple(name for name in given if name not in constant),
                outputs=tuple(name for name in node.output if name),
                weights=weights,
                attributes={item.name: helper.get_attribute_value(item) for item in node.attribute},
                stored=node.op_type,
            )
        )
    needed = {name for node in nodes for name in node.inputs + node.outputs[:1]}
    unknown = sorted(name for name in needed if name not in shapes)
    if unknown:
        shapes.update(_run_for_shapes(model, size, unknown, where))
    inputs = tuple(item.name for item in light.graph.input if item.name not in constant)
    return Graph(tuple(nodes), shapes, inputs, tuple(item.name for item in light.graph.output), size, notes)


def _fix_input(model: onnx.ModelProto, input_wh: tuple[int, int] | None, where: str) -> tuple[int, int] | None:
    """Give every input fixed dimensions, batch 1; returns the image's (width, height), None without an image."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    size = None
    for value in model.graph.input:
        if value.name in initializers:
            continue
        dims = value.type.tensor_type.shape.dim
        wh_axes = None
        if len(dims) == 4:
            channels_last = dims[3].dim_value in (1, 3) and dims[1].dim_value not in (1, 3)
            wh_axes = (2, 1) if channels_last else (3, 2)
        for axis, dim in enumerate(dims):
            if wh_axes and axis in wh_axes and size is None:
                wanted = input_wh[wh_axes.index(axis)] if input_wh else dim.dim_value
                if wanted <= 0:
                    raise UsageError(
                        "the model leaves its input size open",
                        f"{where}, input {value.name}",
                        "a width and a height",
                        "add --input-wh, for instance --input-wh 416x256",
                    )
                dim.Clear()
                dim.dim_value = int(wanted)
            elif axis == 0 or dim.dim_value <= 0:
                dim.Clear()
                dim.dim_value = 1
        if wh_axes and size is None:
            size = (dims[wh_axes[0]].dim_value, dims[wh_axes[1]].dim_value)
    return size


def _infer(model: onnx.ModelProto, where: str) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors that shape inference can tell; empties the big initializers of `model`."""
    graph = model.graph
    for tensor in graph.initializer:
        elements = 1
        for dim in tensor.dims:
            elements *= dim
        if elements > _SHAPE_DATA_LIMIT:
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "external_data"):
                tensor.ClearField(field)
            tensor.data_location = TensorProto.DEFAULT
    del graph.value_info[:]
    for value in graph.output:  # a size written down for another input size would contradict
        value.type.tensor_type.ClearField("shape")
    try:
        model = shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    except Exception as error:
        raise BadInput(
            f"the graph's shapes contradict each other: {error}",
            where,
            "a valid ONNX graph",
            "check the input size, and export it again",
        ) from None
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in list(model.graph.value_info) + list(model.graph.input) + list(model.graph.output):
        kind = value.type.tensor_type
        if value.name not in shapes and kind.HasField("shape"):
            dims = tuple(dim.dim_value for dim in kind.shape.dim)
            # Symbolic leftovers have dim_value 0; a rank-0 tensor is complete.
            if all(dim > 0 for dim in dims):
                shapes[value.name] = dims
    return shapes


def _run_for_shapes(
    model: onnx.ModelProto, size: tuple[int, int] | None, names: list[str], where: str
) -> dict[str, tuple[int, ...]]:
    """Shapes that inference could not tell, from one run on zeros."""
    import numpy as np
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    _fix_input(probe, size, where)
    del probe.graph.value_info[:]
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds = {
            "tensor(float)": np.float32,
            "tensor(float16)": np.float16,
            "tensor(int64)": np.int64,
            "tensor(int32)": np.int32,
            "tensor(uint8)": np.uint8,
            "tensor(bool)": np.bool_,
        }
        feeds: dict[str, np.ndarray] = {
            value.name: np.zeros([dim if isinstance(dim, int) else 1 for dim in value.shape], kinds[value.type])
            for value in session.get_inputs()
        }
        return dict(zip(names, (np.shape(value) for value in session.run(names, feeds))))
    except Exception as error:
        raise BadInput(
            f"the shape of {names[0]} cannot be known at this input size: {str(error).splitlines()[0]}",
            where,
            "a graph whose shapes follow from its input, and the input size that it was made for",
            "omit --input-wh, or simplify the model (onnxslim), then try again",
        ) from None
