"""NVIDIA's own parser and builder, for real and without a GPU: TensorRT for RTX.

It is strongly typed only and takes more than 8.2 does: a check of the typed path and of the graphs, not of 8.2. The
expected error texts are what its release 1.7.1.116 really says.
"""

import collections
import glob
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from refusals import refused

from jetson import files
from jetson.engine import onnx_facts, tensorrt_module, tensorrt_network
from jetson.errors import BadInput, DeviceMismatch, JetmaskError

WHS = ((320, 192), (416, 256), (640, 384))
STRIDES = (4, 8, 16, 32)


@pytest.fixture(scope="module")
def trt():
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        try:
            module = tensorrt_module.load(name)
        except DeviceMismatch:
            continue
        if module.__version__ != "1.7.1.116":
            pytest.skip(f"TensorRT for RTX is {module.__version__}, the texts below are of 1.7.1.116")
        return module
    pytest.skip("TensorRT for RTX is not installed: pip install tensorrt-rtx-cu12==1.7.1.116")


def build(trt, path, wh=(416, 256), precision="fp32", workspace=256 << 20, gpus=("SM86",)):
    return tensorrt_network.build_plan(trt, str(path), wh, precision, workspace, target_capabilities=gpus)


def precision_of(path):
    with open(path, "rb") as file:
        facts = onnx_facts.parse(file.read(), path)
    return "int8" if facts.quantized else "fp16" if facts.half else "fp32"


def shipped(root):
    """Every ONNX file for TensorRT in the tree: the test bundle's and, once there, the shipped bundle's."""
    paths = glob.glob(os.path.join(root, "tests", "data", "tiny_bundle", "models", "*.onnx"))
    paths += glob.glob(os.path.join(root, "jetson", "models", "models", "*.onnx"))
    return sorted(path for path in paths if not path.endswith(".int8-cpu.onnx"))


@pytest.mark.slow
def test_every_shipped_file_builds_at_each_size_and_the_shapes_are_ours(trt, root):
    paths = shipped(root)
    assert {precision_of(path) for path in paths} == {"fp32", "fp16", "int8"}
    for path in paths:
        for width, height in WHS if "tiny" in path else WHS[1:2]:
            result = build(trt, path, (width, height), precision_of(path))
            assert len(result.plan) > 10_000 and result.typed and result.flags == (), path
            assert result.inputs == {"image": (1, 3, height, width)}
            assert result.outputs == {
                f"{kind}_{s}": (1, n, height // s, width // s) for s in STRIDES for kind, n in (("cls", 3), ("box", 4))
            }, path


@pytest.mark.full
def test_every_shipped_file_builds_at_every_size(trt, root):
    for path in shipped(root):
        for wh in WHS:
            assert len(build(trt, path, wh, precision_of(path)).plan) > 10_000


def test_the_parser_sees_the_convolutions_that_we_count(trt, root):
    log = tensorrt_module.log_for(trt)
    for path in shipped(root):
        with open(path, "rb") as file:
            data = file.read()
        facts = onnx_facts.parse(data, path)
        network, parser, typed = tensorrt_network.parse(trt, trt.Builder(log), log, facts, data, path)
        seen = collections.Counter(network.get_layer(i).type for i in range(network.num_layers))
        ours = collections.Counter(node.op for node in facts.nodes)
        assert typed and seen[trt.LayerType.CONVOLUTION] == ours["Conv"] > 0, path
        assert seen[trt.LayerType.RESIZE] == ours["Resize"], path
        assert seen[trt.LayerType.QUANTIZE] == ours["QuantizeLinear"], path
        assert parser.num_errors == 0


def test_several_gpus_and_the_timing_cache(trt, tiny_bundle):
    path = os.path.join(tiny_bundle, "models", "t.onnx")
    one, two = build(trt, path), build(trt, path, gpus=("SM75", "SM86", "SM89", "SM120"))
    assert len(two.plan) > len(one.plan)
    again = tensorrt_network.build_plan(
        trt, path, (416, 256), "fp32", 256 << 20, timing_cache=one.timing_cache, target_capabilities=("SM86",)
    )
    assert again.timing_cache
    spoilt = tensorrt_network.build_plan(
        trt, path, (416, 256), "fp32", 256 << 20, timing_cache=b"not a cache", target_capabilities=("SM86",)
    )
    assert len(spoilt.plan) > 10_000


def test_phases_are_told_by_its_progress_monitor(trt, tiny_bundle):
    told = []
    tensorrt_network.build_plan(
        trt,
        os.path.join(tiny_bundle, "models", "t.onnx"),
        (320, 192),
        "fp32",
        256 << 20,
        target_capabilities=("SM86",),
        phase=told.append,
    )
    assert told[:3] == ["reading the model", "parsing", "building"] and told[-1] == "saving"
    assert len(told) > 4, "the monitor's own phases come between"


def test_what_a_typed_world_cannot_do_is_refused_with_the_file_to_use(trt, tiny_bundle):
    models = os.path.join(tiny_bundle, "models")
    with refused(DeviceMismatch, where="t.onnx", names="FP16") as caught:
        build(trt, os.path.join(models, "t.onnx"), precision="fp16")
    assert "fp16.onnx" in caught.value.remedy
    with refused(DeviceMismatch, where="t.onnx", names="INT8") as caught:
        build(trt, os.path.join(models, "t.onnx"), precision="int8")
    assert "int8.onnx" in caught.value.remedy
    with refused(BadInput, where="t.int8.onnx", names=["Q/DQ", "fp16"]):
        build(trt, os.path.join(models, "t.int8.onnx"), precision="fp16")
    with refused(BadInput, where="t.fp16.onnx", names=["FP16", "fp32"]):
        build(trt, os.path.join(models, "t.fp16.onnx"), precision="fp32")
    with refused(BadInput, where="t.onnx"):
        tensorrt_network.build_plan(
            trt,
            os.path.join(models, "t.onnx"),
            (320, 192),
            "fp32",
            256 << 20,
            {"level_4": "fp16"},
            target_capabilities=("SM86",),
        )


# ------------------------------------------------------------------------------------------- broken models

OPEN = (1, 3, "height", "width")


def weights(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def write(path, nodes, initializers=(), inputs=(("image", TensorProto.FLOAT, OPEN),), outputs=("y",)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*given) for given in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        list(initializers),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), str(path))


KERNEL = weights("w", np.ones((4, 3, 3, 3)))


def conv(source="image", target="y", inputs=("w",)):
    return helper.make_node("Conv", [source, *inputs], [target], name="stem", pads=[1, 1, 1, 1])


def qdq(scale, zero_point):
    return [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"], name="quant"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="dequant"),
    ], [weights("s", scale), weights("z", zero_point, np.int8)]


BROKEN = {
    "an operator it does not know": (
        "fp32",
        {"nodes": [helper.make_node("Frobnicate", ["image"], ["y"], name="odd")]},
        "node odd",
        'creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
        "no such operator",
    ),
    "a kernel of other channels": (
        "fp32",
        {"nodes": [conv()], "initializers": [weights("w", np.ones((4, 5, 3, 3)))]},
        "node stem",
        "Assertion failed: (nchan == -1 || kernelWeights.shape.d[1] * ngroup == nchan): Kernel weight dimension failed "
        "to broadcast to input.",
        None,
    ),
    "a tensor that nothing makes": (
        "fp32",
        {"nodes": [helper.make_node("Add", ["image", "ghost"], ["y"], name="plus")]},
        "node plus",
        "Assertion failed: (ctx->tensors().count(inputName)): Node input was not registered.",
        "nothing makes",
    ),
    "tensors of other ranks": (
        "fp32",
        {
            "nodes": [helper.make_node("Concat", ["image", "k"], ["y"], name="join", axis=1)],
            "initializers": [weights("k", np.ones((2, 2)))],
        },
        "node join",
        "Error while computing output extent of node join.",
        None,
    ),
    "a cycle": (
        "fp32",
        {
            "nodes": [
                helper.make_node("Add", ["b", "image"], ["a"], name="first"),
                helper.make_node("Add", ["a", "image"], ["b"], name="second"),
                helper.make_node("Relu", ["b"], ["y"]),
            ]
        },
        "",
        "Failed to sort the model topologically.",
        "cycle",
    ),
    "no output": (
        "fp32",
        {"nodes": [conv(target="c")], "initializers": [KERNEL], "outputs": ()},
        "",
        "Network must have at least one output.",
        "no usable output",
    ),
    "a zero point that is not zero": (
        "int8",
        dict(zip(("nodes", "initializers"), qdq(1, 3))),
        "node quant",
        "Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported.",
        "symmetrically",
    ),
    "a negative scale": (
        "int8",
        dict(zip(("nodes", "initializers"), qdq(-1, 0))),
        "node quant",
        "Assertion failed: (scaleAllPositive || allowNegativeScale): Scale coefficients must all be positive",
        None,
    ),
    "a quantised bias": (
        "int8",
        {
            "nodes": [
                helper.make_node("DequantizeLinear", ["b", "s"], ["bias"], name="bias_dq"),
                conv(inputs=("w", "bias")),
            ],
            "initializers": [KERNEL, weights("b", np.ones(4), np.int32), weights("s", 1)],
        },
        "node bias_dq",
        "bias_dq: input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8.",
        "leave the bias in float",
    ),
    "mixed types": (
        "fp16",
        {
            "nodes": [helper.make_node("Add", ["image", "h"], ["y"], name="plus")],
            "initializers": [weights("h", np.ones((1, 3, 1, 1)), np.float16)],
        },
        "node plus",
        "plus: ElementWiseOperation SUM must have same input types. But they are of types Float and Half.",
        "casts",
    ),
}


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_a_broken_model_gives_nvidias_words_the_node_and_the_mend(trt, tmp_path, case):
    precision, parts, where, words, mend = BROKEN[case]
    path = tmp_path / "broken.onnx"
    write(path, **parts)
    with pytest.raises(JetmaskError) as caught:
        build(trt, path, precision=precision)
    assert words in caught.value.what
    assert "TensorRT 1.7.1.116" in caught.value.what and "\n" not in caught.value.what
    assert str(path) in caught.value.where and caught.value.where.endswith(where)
    if mend:
        assert mend in caught.value.remedy


@pytest.mark.parametrize(
    "inputs, words",
    [
        ([("image", TensorProto.UINT8, OPEN)], "has the type DataType.UINT8"),
        ([("image", TensorProto.FLOAT, (1, 3, 64, 64))], "has the shape (1, 3, 64, 64)"),
        ([("image", TensorProto.FLOAT, OPEN), ("mask", TensorProto.FLOAT, OPEN)], "has 2 inputs: image, mask"),
    ],
)
def test_another_input_is_refused_before_the_build(trt, tmp_path, inputs, words):
    path = tmp_path / "input.onnx"
    nodes = (
        [helper.make_node("Add", ["image", "mask"], ["y"])]
        if len(inputs) == 2
        else [helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT), conv("f")]
    )
    write(path, nodes, [KERNEL], inputs)
    with pytest.raises(BadInput) as caught:
        build(trt, path)
    assert words in str(caught.value)


def test_shapes_that_contradict_each_other(trt, tmp_path):
    path = tmp_path / "shapes.onnx"
    write(
        path,
        [helper.make_node("Reshape", ["image", "sizes"], ["y"], name="flat")],
        [weights("sizes", [7, 11], np.int64)],
    )
    with refused(BadInput, where="shapes.onnx", names="tensor y"):
        build(trt, path)


@pytest.mark.parametrize(
    "workspace, words",
    [
        (0, "Please increase the workspace memory provided to the builder."),
        (1000, "no tactics to implement the operation within workspace limit."),
    ],
)
def test_too_little_workspace(trt, tiny_bundle, workspace, words):
    with pytest.raises(JetmaskError) as caught:
        build(trt, os.path.join(tiny_bundle, "models", "t.onnx"), workspace=workspace)
    assert words in caught.value.what and "--workspace-mb" in caught.value.remedy


def test_a_file_cut_short_never_reaches_the_parser(trt, tiny_bundle, tmp_path):
    path = tmp_path / "cut.onnx"
    with open(os.path.join(tiny_bundle, "models", "t.onnx"), "rb") as file:
        files.write_bytes(str(path), file.read()[:5000])
    with refused(BadInput, where="cut.onnx", names="ONNX"):
        build(trt, path)


def test_the_real_builder_takes_sparse_weights(trt, root, tmp_path):
    """A strongly typed FP16 network whose weights have the 2:4 pattern, for an Ampere GPU."""
    from pipeline.graphs import sparsity

    model = onnx.load(os.path.join(root, "jetson", "models", "models", "s.fp16.onnx"))
    for tensor in model.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.ndim == 4 and weight.shape[1] % 4 == 0:
            tensor.CopyFrom(numpy_helper.from_array(weight * sparsity.mask(weight, 1), tensor.name))
    path = str(tmp_path / "sparse.onnx")
    onnx.save(model, path)
    assert sparsity.pattern_of(path) == "2:4"
    assert tensorrt_network.takes_sparse(trt, "fp16", (8, 7))
    result = tensorrt_network.build_plan(
        trt, path, (320, 192), "fp16", 256 << 20, target_capabilities=("SM86",), sparse=True
    )
    assert result.flags == ("SPARSE_WEIGHTS",) and result.typed and len(result.plan) > 10_000
