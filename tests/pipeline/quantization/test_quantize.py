"""fp16, int8-cpu and TensorRT's Q/DQ from one table, against float32 and against an integer oracle."""

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, numpy_helper
from refusals import refused
from small_net import Net, detector, picture, run, snr_db

from jetson.engine import calibration as tables
from jetson.errors import BadInput, UsageError
from pipeline.graphs import edit as graphs
from pipeline.graphs import lint
from pipeline.quantization import calibrate, int8_cpu, quantize


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(path of the float32 file, its table)."""
    folder = tmp_path_factory.mktemp("net")
    path = detector().save(folder / "net.onnx")
    images = []
    for seed in range(4):
        images.append(str(folder / (f"{seed}.png")))
        frame = np.random.default_rng(seed).integers(0, 256, (64, 96, 3)).astype(np.uint8)
        assert cv2.imwrite(images[-1], frame)
    return path, calibrate.collect(path, images, (96, 64), "minmax")


def ops(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def test_a_graph_that_onnx_does_not_allow_is_told_and_not_written(tmp_path):
    """An output without a shape, as some exporters leave it."""
    shape = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["image"], ["y"], name="r")],
        "g",
        [shape("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [shape("y", TensorProto.FLOAT, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(model, str(tmp_path / "own.onnx"))
    with refused(BadInput, where="half.onnx", names="'shape'"):
        quantize.fp16(str(tmp_path / "own.onnx"), str(tmp_path / "half.onnx"))
    assert not (tmp_path / "half.onnx").exists()


def test_fp16_is_close_small_and_keeps_float_ends(made, tmp_path):
    path, _ = made
    half = quantize.fp16(path, str(tmp_path / "half.onnx"))
    model = onnx.load(half)
    types = {i.name: i.data_type for i in model.graph.initializer}
    assert {kind for name, kind in types.items() if name != "scales"} == {TensorProto.FLOAT16}
    ends = list(model.graph.input) + list(model.graph.output)
    assert {end.type.tensor_type.elem_type for end in ends} == {TensorProto.FLOAT}
    assert model.ir_version <= 7
    expected, got = run(path, picture()), run(half, picture())
    assert min(snr_db(expected[name], got[name]) for name in expected) > 50
    assert not lint.lint(half, "nano")


def test_an_output_that_a_half_node_reads_may_stay_float(tmp_path):
    net = detector()
    wide = net.conv("cls_8", "after", 3, 8, kernel=1, relu=False)
    net.outputs.append((wide, 8))
    path = net.save(tmp_path / "net.onnx")
    expected = run(path, picture())
    for keep in ((), ("cls_8",), ("after",), ("cls_8", "after")):
        got = run(quantize.fp16(path, str(tmp_path / "half.onnx"), keep=keep), picture())
        assert min(snr_db(expected[name], got[name]) for name in ("cls_8", "after")) > 50


@pytest.mark.parametrize(
    "keep",
    [
        ["down_4", "down_8"],
        ["down_4", "down_4_relu", "block_4", "block_4_add"],
        ["cls_4", "fuse_4", "up_4_resize"],
        ["stem", "stem_relu"],
    ],
)
def test_fp16_leaves_named_nodes_in_float32(made, tmp_path, keep):
    path, _ = made
    half = quantize.fp16(path, str(tmp_path / "half.onnx"), keep=keep)
    graph = onnx.load(half).graph
    types = {i.name: i.data_type for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            kind = TensorProto.FLOAT if node.name in keep else TensorProto.FLOAT16
            assert {types[name] for name in node.input[1:]} == {kind}, node.name
    expected, got = run(path, picture()), run(half, picture())
    assert min(snr_db(expected[name], got[name]) for name in expected) > 50
    whole = quantize.fp16(path, str(tmp_path / "whole.onnx"), keep=[n.name for n in onnx.load(path).graph.node])
    assert all(np.array_equal(value, expected[name]) for name, value in run(whole, picture()).items())


def test_fp16_refuses_weights_that_do_not_fit(tmp_path):
    net = detector()
    net.weights["down_4.bias"][0] = 1e6
    path = net.save(tmp_path / "net.onnx")
    with refused(BadInput, where="net.onnx", names=["'down_4'", "65504"]):
        quantize.fp16(path, str(tmp_path / "half.onnx"))
    assert quantize.fp16(path, str(tmp_path / "half.onnx"), keep=["down_4"])


def test_int8_cpu_is_close_and_holds_what_runs_fast(made, tmp_path):
    path, table = made
    small = quantize.int8_cpu(path, table, str(tmp_path / "small.onnx"))
    expected, got = run(path, picture(9)), run(small, picture(9))
    assert list(got) == list(expected)
    assert min(snr_db(expected[name], got[name]) for name in expected) > 25
    found = ops(small)
    assert found.count("Conv") == 1 and found.count("MatMulIntegerToFloat") == 3 and found.count("QLinearAdd") == 2
    assert "Resize" not in found and found.count("QuantizeLinear") == 1 and "DequantizeLinear" not in found


@pytest.mark.parametrize("wh", [(32, 32), (96, 64), (64, 160)])
def test_int8_cpu_fits_all_sizes(made, tmp_path, wh):
    path, table = made
    small = quantize.int8_cpu(path, table, str(tmp_path / "small.onnx"))
    expected, got = run(path, picture(3, wh)), run(small, picture(3, wh))
    assert {name: value.shape for name, value in got.items()} == {name: value.shape for name, value in expected.items()}
    assert min(snr_db(expected[name], got[name]) for name in expected) > 20


@pytest.mark.parametrize(
    "keep",
    [
        (),
        ("down_4",),
        ("fuse_4",),
        ("cls_4",),
        ("up_4", "lateral_4", "block_4_add"),
        ("up_4_resize",),
        ("stem", "down_4", "block_4", "block_4_add", "down_8"),
    ],
)
def test_int8_cpu_with_any_node_in_float(made, tmp_path, keep):
    path, table = made
    small = quantize.int8_cpu(path, table, str(tmp_path / "small.onnx"), keep=keep)
    expected, got = run(path, picture(5)), run(small, picture(5))
    assert min(snr_db(expected[name], got[name]) for name in expected) > 20


def oracle(path, image):
    """The quantised file computed node by node in numpy with wide integers: no 16-bit sum can saturate here."""
    graph = onnx.load(path).graph
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    values["image"] = image
    for node in graph.node:
        get = [values.get(name) for name in node.input]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "QLinearConv":
            x, sx, zx, w, sw, _, sy, zy, bias = get
            top, left, bottom, right = attributes["pads"]
            stride = attributes["strides"][0]
            x = np.pad(x.astype(np.int64) - int(zx), ((0, 0), (top, bottom), (left, right), (0, 0)))
            height, width = ((x.shape[i] - w.shape[i + 1]) // stride + 1 for i in (1, 2))
            total = np.zeros((1, height, width, len(w)), np.int64) + bias
            for i in range(w.shape[2]):
                for j in range(w.shape[3]):
                    part = x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
                    total += part @ w[:, :, i, j].T.astype(np.int64)
            y = np.rint(total.astype(np.float32) * (sx * sw / sy).astype(np.float32)) + int(zy)
            result = np.clip(y, 0, 255).astype(np.uint8)
        elif node.op_type == "MatMulIntegerToFloat":
            x, w, sx, sw, zx, _, bias = get
            result = ((x.astype(np.int64) - int(zx)) @ w.astype(np.int64)).astype(np.float32) * (sx * sw) + bias
        elif node.op_type == "QLinearAdd":
            a, sa, za, b, sb, zb, sy, zy = get
            real = (a.astype(np.float32) - int(za)) * sa + (b.astype(np.float32) - int(zb)) * sb
            result = np.clip(np.rint(real / sy) + int(zy), 0, 255).astype(np.uint8)
        elif node.op_type in ("Conv", "Relu", "QuantizeLinear", "Transpose", "Split", "Concat", "Reshape", "Shape"):
            result = reference(node, get)
        else:
            raise AssertionError(node.op_type)
        for name, value in zip(node.output, result if isinstance(result, list) else [result]):
            values[name] = value
    return {output.name: values[output.name] for output in graph.output}


def reference(node, inputs):
    from onnx.reference import ReferenceEvaluator

    names = [name for name in node.input if name]
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in zip(node.input, inputs) if name}
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info(name, kinds[name], None) for name in dict.fromkeys(names)],
        [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    result = ReferenceEvaluator(model).run(None, dict(zip(node.input, inputs)))
    return result if len(result) > 1 else result[0]


def test_int8_cpu_equals_wide_integers(made, tmp_path):
    path, table = made
    small = quantize.int8_cpu(path, table, str(tmp_path / "small.onnx"))
    expected, got = oracle(small, picture(2, (64, 32))), run(small, picture(2, (64, 32)))
    for name in expected:
        # One step may differ where a product lies on a rounding border; a saturated sum is off by dozens.
        assert snr_db(expected[name], got[name]) > 45, name


def test_int8_cpu_never_saturates_on_machines_without_vnni(tmp_path):
    """The worst case: white input, all weights of a channel equal and at their largest."""
    net = Net()
    x = net.conv("image", "stem", 3, 16, kernel=1, weight=np.full((16, 3, 1, 1), 1 / 3), bias=np.zeros(16))
    x = net.conv(x, "wide", 16, 16, weight=np.full((16, 16, 3, 3), 0.5), bias=np.zeros(16))
    net.conv(x, "cls_4", 16, 3, kernel=1, weight=np.full((3, 16, 1, 1), 0.25), bias=np.zeros(3), relu=False)
    net.outputs = [("cls_4", 3)]
    path = net.save(tmp_path / "worst.onnx")
    image = np.full((1, 3, 32, 32), 255, np.float32)
    expected = run(path, image)["cls_4"]
    ranges = {
        "image": 255.0,
        "stem": 255.0,
        "stem_relu": 255.0,
        "wide": 255 * 72.0,
        "wide_relu": 255 * 72.0,
        "cls_4": float(expected.max()),
    }
    table = tables.Table(
        "worst", tables.files.sha256(path), tables.PREPROCESSING, "minmax", (32, 32), (("a", "0" * 64),), ranges, {}
    )
    small = quantize.int8_cpu(path, table, str(tmp_path / "small.onnx"))
    got = run(small, image)["cls_4"]
    assert np.abs(got / expected - 1).max() < 0.02


@settings(deadline=None, max_examples=50)
@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 7), st.just(3), st.just(1)),
        elements=st.floats(-10, 10, width=32),
    )
)
def test_pairs_of_weights_fit_16_bits(weight):
    steps = int8_cpu.weight_scales(weight)
    rounded = np.clip(np.rint(weight / steps[:, None, None, None]), -127, 127)
    assert np.all(np.abs(weight - rounded * steps[:, None, None, None]) <= steps[:, None, None, None] * 0.5001 + 1e-12)
    last = rounded.transpose(0, 2, 3, 1)
    if last.shape[3] % 2:
        last = np.concatenate([last, np.zeros_like(last[..., :1])], axis=3)
    assert np.abs(255 * (last[..., 0::2] + last[..., 1::2])).max() <= 32767


def test_tensorrt_shape(made, tmp_path):
    path, table = made
    wide = quantize.int8_tensorrt(path, table, str(tmp_path / "wide.onnx"))
    assert not lint.lint(wide, "xavier-nx")
    model = onnx.load(wide)
    made_by = graphs.producers(model.graph)
    fixed = graphs.constants(model.graph)
    for node in model.graph.node:
        sources = [made_by[name].op_type for name in node.input if name in made_by]
        if node.op_type == "Conv" and node.name not in ("stem", "cls_4", "box_4", "cls_8", "box_8"):
            assert sources == ["DequantizeLinear", "DequantizeLinear"], node.name
            scale = fixed[made_by[node.input[1]].input[1]]
            assert scale.shape == (len(fixed[made_by[made_by[node.input[1]].input[0]].input[0]]),)
            assert node.input[2] in fixed
        elif node.op_type == "Conv":
            assert "DequantizeLinear" not in sources[1:], node.name
        elif node.op_type == "Add":
            assert sources == ["DequantizeLinear"] * 2
        elif node.op_type == "Relu":
            assert sources[0] in ("Conv", "Add")
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert len(node.input) == 3 and not fixed[node.input[2]].any() and fixed[node.input[2]].dtype == np.int8
    expected, got = run(path, picture(9)), run(wide, picture(9))
    assert min(snr_db(expected[name], got[name]) for name in expected) > 20


def test_cache_scales_are_the_files_scales(made, tmp_path):
    path, table = made
    wide = onnx.load(quantize.int8_tensorrt(path, table, str(tmp_path / "wide.onnx")))
    cache = tables.cache_of(table.ranges, "8.2.1").scales
    fixed = graphs.constants(wide.graph)
    checked = [name for name in cache if name + ".scale" in fixed]
    assert len(checked) > 5
    assert all(float(fixed[name + ".scale"]) == pytest.approx(cache[name], rel=1e-6) for name in checked)


def test_table_of_another_model_is_refused(made, tmp_path):
    path, table = made
    other = detector(seed=1).save(tmp_path / "other.onnx")
    for write in (quantize.int8_cpu, quantize.int8_tensorrt):
        with refused(BadInput, where="other.onnx"):
            write(other, table, str(tmp_path / "out.onnx"))
    assert not (tmp_path / "out.onnx").exists()


def test_table_without_a_tensor_is_refused(made, tmp_path):
    path, table = made
    short = table._replace(ranges={"image": 255.0})
    for write in (quantize.int8_cpu, quantize.int8_tensorrt):
        with refused(BadInput, names="'stem_relu'"):
            write(path, short, str(tmp_path / "out.onnx"))


def test_table_is_not_changed(made, tmp_path):
    path, table = made
    before = dict(table.ranges)
    quantize.int8_tensorrt(path, table, str(tmp_path / "out.onnx"))
    assert table.ranges == before


def test_unknown_node_is_named(made, tmp_path):
    path, table = made
    with refused(UsageError, where="net.onnx", names=["'nothing'", "--layers"]):
        quantize.int8_cpu(path, table, str(tmp_path / "out.onnx"), keep=["nothing"])


def test_same_input_same_file(made, tmp_path):
    path, table = made
    for write in (quantize.int8_cpu, quantize.int8_tensorrt):
        for name in ("a", "b"):
            write(path, table, str(tmp_path / name))
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
