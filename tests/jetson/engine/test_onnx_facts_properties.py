"""jetson/engine/onnx_facts.py against the onnx package: on the shipped files, on drawn models, on damaged bytes."""

import glob
import os

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from jetson.engine import onnx_facts
from jetson.errors import BadInput

NAMES = st.text(max_size=12)


def told_by_onnx(model):
    given_names = {tensor.name for tensor in model.graph.initializer}

    def value(info):
        tensor = info.type.tensor_type
        shape = tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param if d.HasField("dim_param") else None
            for d in tensor.shape.dim
        )
        return onnx_facts.Value(info.name, tensor.elem_type, shape)

    return onnx_facts.Facts(
        model.ir_version,
        max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0),
        tuple(onnx_facts.Node(n.name, n.op_type, tuple(n.input), tuple(n.output)) for n in model.graph.node),
        tuple(value(info) for info in model.graph.input if info.name not in given_names),
        tuple(value(info) for info in model.graph.output),
        {tensor.name: tensor.data_type for tensor in model.graph.initializer},
    )


def test_equal_to_onnx_on_every_file_in_the_tree(root):
    paths = glob.glob(os.path.join(root, "tests", "data", "tiny_bundle", "models", "*.onnx"))
    paths += glob.glob(os.path.join(root, "jetson", "models", "**", "*.onnx"), recursive=True)
    assert len(paths) >= 4
    for path in paths:
        with open(path, "rb") as file:
            assert onnx_facts.parse(file.read(), path) == told_by_onnx(onnx.load(path)), path


@st.composite
def models(draw):
    infos = [
        helper.make_tensor_value_info(
            draw(NAMES),
            draw(st.sampled_from([TensorProto.FLOAT, TensorProto.UINT8, TensorProto.FLOAT16])),
            draw(st.lists(st.one_of(st.integers(0, 2**40), st.text(min_size=1, max_size=6), st.none()), max_size=4)),
        )
        for _ in range(draw(st.integers(0, 4)))
    ]
    nodes = [
        helper.make_node(
            draw(st.sampled_from(["Conv", "Relu", "QuantizeLinear", "X"])),
            draw(st.lists(NAMES, max_size=3)),
            draw(st.lists(NAMES, max_size=2)),
            name=draw(NAMES),
            number=draw(st.integers(0, 99)),
        )
        for _ in range(draw(st.integers(0, 4)))
    ]
    tensors = [
        helper.make_tensor(draw(NAMES), TensorProto.FLOAT, [2], [1.0, 2.0]) for _ in range(draw(st.integers(0, 2)))
    ]
    middle = draw(st.integers(0, len(infos)))
    graph = helper.make_graph(nodes, "g", infos[:middle], infos[middle:], tensors)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", draw(st.integers(1, 30)))], ir_version=draw(st.integers(3, 12))
    )


@given(models())
@settings(max_examples=150, deadline=None)
def test_equal_to_onnx_on_drawn_models(model):
    assert onnx_facts.parse(model.SerializeToString()) == told_by_onnx(model)


@given(models(), st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_bytes_are_refused_or_read(model, data):
    raw = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(onnx_facts.parse(bytes(raw)), onnx_facts.Facts)
    except BadInput as error:
        assert "ONNX" in str(error)
