"""Prediction from the graph alone: fusion counts, physics that must hold, errors, and the verb from outside."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from refusals import refused

from benchmarks.networks import build
from jetson.errors import BadInput, DeviceMismatch, UsageError
from pipeline import targets
from pipeline.graphs import shapes
from pipeline.graphs.fusion import ONNXRUNTIME, layers
from pipeline.graphs.writer import GraphWriter
from pipeline.latency import cli as predict
from pipeline.latency import roofline, this_machine


def fused(model, wh=None):
    return layers(shapes.from_model(model, wh))


def kinds(model, wh=None):
    return [layer.kind for layer in fused(model, wh)][1:-1]  # without the conversions at both ends


def saved(tmp_path, model, name="model.onnx"):
    path = tmp_path / name
    onnx.save(model, str(path))
    return str(path)


def writer(channels=3, side=32):
    return GraphWriter("test", channels, side, side)


# Published multiply-adds and parameters of the papers' networks (torchvision's table and the Darknet files).
@pytest.mark.parametrize(
    ("name", "wh", "gmacs", "millions"),
    [
        ("AlexNet", (224, 224), 0.714, 61.10),
        ("VGG-16", (224, 224), 15.47, 138.36),
        ("ResNet-18", (224, 224), 1.814, 11.69),
        ("ResNet-50", (224, 224), 4.089, 25.56),
        ("ResNet-101", (224, 224), 7.801, 44.55),
        ("DenseNet-121", (224, 224), 2.834, 7.98),
        ("DenseNet-201", (224, 224), 4.291, 20.01),
        ("SqueezeNet1.0", (224, 224), 0.819, 1.248),
        ("SqueezeNet1.1", (224, 224), 0.349, 1.236),
        ("MobileNetV2", (224, 224), 0.301, 3.505),
        ("GoogLeNet", (224, 224), 1.498, 6.62),
        ("YOLOv4-tiny", (416, 416), 3.454, 6.06),
        ("YOLOv3-tiny", (416, 416), 2.784, 8.86),
    ],
)
def test_networks_have_the_size_of_the_published_ones(name, wh, gmacs, millions):
    parts = fused(build(name, wh))
    assert sum(layer.macs for layer in parts) / 1e9 == pytest.approx(gmacs, rel=0.01)
    assert sum(layer.weights for layer in parts) / 1e6 == pytest.approx(millions, rel=0.02)


def test_residual_block_is_two_layers():
    g = writer(16)
    y = g.conv(g.conv("image", 16), 16, act=None)
    assert kinds(g.model(g.add(y, "image", "relu"))) == ["conv", "conv"]


def test_unfolded_batch_normalisation_changes_nothing():
    folded, unfolded = writer(16), writer(16)
    a = fused(folded.model(folded.conv("image", 24, bias=False)))
    b = fused(unfolded.model(unfolded.norm(unfolded.conv("image", 24, act=None, bias=False))))
    assert [layer.kind for layer in a] == [layer.kind for layer in b]
    assert [(layer.macs, layer.read, layer.written) for layer in a] == [(x.macs, x.read, x.written) for x in b]


def test_activations_that_no_convolution_kernel_has_are_pointwise_layers():
    for act, expected in (("relu", 1), ("relu6", 1), ("leaky", 2), ("silu", 2), ("hswish", 2)):
        g = writer()
        assert len(kinds(g.model(g.conv("image", 8, act=act)))) == expected, act


def test_concat_is_written_in_place_and_copied_only_when_it_must_be():
    g = writer(8)
    a, b = g.conv("image", 8), g.conv("image", 8)
    assert kinds(g.model(g.concat(a, b))) == ["conv", "conv"]
    g = writer(8)
    a, b = g.conv("image", 8), g.conv("image", 8)
    both = g.concat(a, b)
    again = g.concat(b, a)  # the same parts in another order cannot share the buffer
    assert sorted(kinds(g.model(g.conv(both, 8, act=None), g.conv(again, 8, act=None)))[:-1]).count("copy") == 2


def test_dense_block_costs_the_same_whether_its_lists_are_nested_or_flat():
    def block(flat):
        g = writer(8)
        x = g.conv("image", 8)
        features = [x]
        for _ in range(4):
            new = g.conv(x, 4, act=None)
            features.append(new)
            x = g.concat(*features) if flat else g.concat(x, new)
        return sum(layer.read + layer.written for layer in fused(g.model(x)))

    assert block(True) == block(False)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_more_work_never_takes_less_time(precision):
    """More channels, more pixels, more layers: each costs time."""

    def ms(channels, side, depth):
        g = GraphWriter("test", 3, side, side)
        x = "image"
        for _ in range(depth):
            x = g.conv(x, channels)
        return predict.predict_graph(shapes.from_model(g.model(x)), "nano", precision).latency_ms

    for channels in (8, 16, 24, 31, 33, 64, 100):
        assert ms(channels + 8, 64, 3) >= ms(channels, 64, 3)
        assert ms(channels, 96, 3) > ms(channels, 64, 3)
        assert ms(channels, 64, 4) > ms(channels, 64, 3)


def test_layers_add_up_and_the_interval_holds_the_figure(tmp_path):
    result = predict.predict_ms(saved(tmp_path, build("SqueezeNet1.1", (224, 224))), "nano", "fp16")
    assert result.latency_ms == pytest.approx(sum(layer.ms for layer in result.layers) + roofline.FITTED.call_ms)
    assert result.low_ms < result.latency_ms < result.high_ms
    assert result.input_wh == (224, 224)


def test_targets_without_published_rows_say_so(tmp_path):
    path = saved(tmp_path, build("ResNet-18", (224, 224)))
    for name in ("tx2", "xavier-nx", "orin-nano"):
        result = predict.predict_ms(path, name, "fp16")
        assert result.low_ms is None and result.high_ms is None
        assert "error unknown" in result.basis
        assert result.latency_ms < predict.predict_ms(path, "nano", "fp16").latency_ms


def test_symbolic_size_needs_one_and_takes_any(tmp_path):
    g = GraphWriter("test", 3, 64, 96)
    model = g.model(g.conv(g.upsample(g.conv("image", 8, stride=2)), 8))
    for axis, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    path = saved(tmp_path, model)
    with refused(UsageError, where="input image", names="--input-wh"):
        predict.predict_ms(path)
    small, large = (predict.predict_ms(path, input_wh=wh) for wh in ((96, 64), (192, 128)))
    assert large.macs == 4 * small.macs


def test_shapes_that_inference_cannot_tell_come_from_a_run(tmp_path):
    """A reshape to a computed shape, as careless exporters write it."""
    g = GraphWriter("test", 3, 32, 32, weights="random")
    x = g.conv("image", 8)
    absolute = g.node("Abs", [x], g.shape[x])
    count = g.node("NonZero", [absolute], (4, 1))
    y = g.node("ReduceMax", [g.node("Cast", [count], (4, 1), to=1)], (1, 1, 1), keepdims=1)
    assert predict.predict_ms(saved(tmp_path, g.model(y))).latency_ms > 0


def test_fully_connected_layers_pin_the_size(tmp_path):
    path = saved(tmp_path, build("AlexNet", (224, 224)))
    with refused(BadInput, where="model.onnx", names=["gemm_14", "--input-wh"]):
        predict.predict_ms(path, input_wh=(320, 320))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07" * 40])
def test_a_file_that_is_no_model(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with refused(BadInput, where="broken.onnx", names="ONNX"):
        predict.predict_ms(str(path))


def test_missing_file_and_folder(tmp_path):
    with refused(BadInput, where="none.onnx"):
        predict.predict_ms(str(tmp_path / "none.onnx"))
    with refused(BadInput, where=tmp_path, names=".onnx"):
        predict.predict_ms(str(tmp_path))


def test_int8_on_a_nano_is_refused_with_the_reason(tmp_path):
    with refused(DeviceMismatch, names=["Jetson Nano 4 GB", "int8", "fp16"]):
        predict.predict_ms(saved(tmp_path, build("ResNet-18", (224, 224))), "nano", "int8")


def test_nearest_target_is_named():
    with refused(UsageError, names=["'orin_nano'", "orin-nano?"]):
        targets.target("orin_nano")
    assert targets.target("nano").compute_capability == "5.3"


@pytest.mark.parametrize("text", ["416", "0x3", "ax4", "4x4x4", "-1x5", "", "²x3"])
def test_sizes_that_are_none(text):
    with refused(UsageError, where="--input-wh", names="416x256"):
        predict.parse_wh(text)


def test_quantise_nodes_are_free():
    g = writer(16)
    plain = fused(g.model(g.conv("image", 16)))
    g = writer(16)
    scale, zero = g.constant(np.float32(0.1)), g.constant(np.int8(0))
    quantised = g.node("QuantizeLinear", ["image", scale, zero], g.shape["image"])
    x = g.node("DequantizeLinear", [quantised, scale, zero], g.shape["image"])
    assert [layer.kind for layer in fused(g.model(g.conv(x, 16)))] == [layer.kind for layer in plain]


def test_the_verb_from_outside(tmp_path):
    path = saved(tmp_path, build("ResNet-18", (224, 224)))
    code = (
        "import argparse, sys; from pipeline.latency import cli as predict; p = argparse.ArgumentParser(); "
        "predict.options(p);"
        "predict.command(p.parse_args(sys.argv[1:]))"
    )

    def run(*arguments):
        line = [sys.executable, "-c", code, path, *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=True)

    answer = json.loads(run("--target", "nano", "--precision", "fp16", "--layers", "--json").stdout)
    assert answer["kind"] == "predicted"
    assert answer["latency_ms"] == pytest.approx(11.4, rel=0.2)  # the published figure
    assert len(answer["layers"]) > 20
    shown = run("--layers").stdout
    assert "predicted" in shown and "ms (90 % interval)" in shown


def test_depthwise_layers_are_said_to_be_outside_the_published_rows(tmp_path):
    notes = predict.predict_ms(saved(tmp_path, build("MobileNetV2", (224, 224)))).notes
    assert any("depthwise" in note for note in notes)
    assert not any("depthwise" in n for n in predict.predict_ms(saved(tmp_path, build("ResNet-18", (224, 224)))).notes)


SHIPPED = Path(__file__).resolve().parents[3] / "jetson" / "models" / "models"


@pytest.mark.parametrize("name", ["s", "sp"])
def test_operators_on_integers_are_counted_as_what_they_compute(name):
    """The int8 file that ONNX Runtime runs has the float file's products, up to the halves that it shares."""
    wh = (320, 192)
    floats, integers = (
        layers(shapes.read(str(SHIPPED / (name + end)), wh), ONNXRUNTIME) for end in (".onnx", ".int8-cpu.onnx")
    )
    assert sum(layer.macs for layer in integers) == sum(layer.macs for layer in floats)
    weights = [sum(layer.weights for layer in found) for found in (integers, floats)]
    assert weights[0] == pytest.approx(weights[1], rel=0.02)


def test_the_integer_form_is_refused_where_tensorrt_would_have_to_run_it():
    path = str(SHIPPED / "s.int8-cpu.onnx")
    with refused(BadInput, where="node down_4_relu", names=["TensorRT", "--target"]):
        predict.predict_ms(path, "nano", "fp16", (320, 192))


@pytest.mark.parametrize("name", ["s.int8.onnx", "s.int8-cpu.onnx"])
def test_an_int8_file_is_not_timed_as_a_float_one(name, capsys, monkeypatch, tmp_path):
    """Without --precision it is int8's figure; with another one there is none, and a Nano has none at all."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []
    parameters = roofline.Parameters(0.7, 1.0, 16, 0.3, 2.0, 0.7, 2.0, 0.02)
    monkeypatch.setattr(
        this_machine,
        "calibrated",
        lambda precision: asked.append(precision) or (this_machine.NOMINAL, parameters, 1.2, "made up"),
    )

    def answer(*arguments):
        parser = argparse.ArgumentParser()
        predict.options(parser)
        predict.command(parser.parse_args([str(SHIPPED / name), "--input-wh", "320x192", *arguments, "--json"]))
        return json.loads(capsys.readouterr().out)

    assert answer("--target", "this-machine")["precision"] == "int8" and asked == ["int8"]
    with refused(UsageError, where="--precision", names=["int8", "fp32"]):
        answer("--target", "this-machine", "--precision", "fp32")
    with refused((DeviceMismatch, BadInput), names="Jetson Nano 4 GB"):
        answer("--target", "nano")
    if name == "s.int8.onnx":
        assert answer("--target", "xavier-nx")["precision"] == "int8"


def test_nothing_is_measured_for_a_command_that_cannot_work(monkeypatch):
    monkeypatch.setattr(this_machine, "calibrate", None)
    for model, precision, error in (
        (SHIPPED / "s.onnx", "quick", UsageError),
        (SHIPPED / "s.onnx", "fp16", DeviceMismatch),
        ("none.onnx", "fp32", BadInput),
    ):
        parser = argparse.ArgumentParser()
        predict.options(parser)
        with pytest.raises(error):
            predict.command(
                parser.parse_args(
                    [
                        str(model),
                        "--target",
                        "this-machine",
                        "--input-wh",
                        "64x64",
                        "--calibrate",
                        "--precision",
                        precision,
                    ]
                )
            )


def test_arithmetic_that_is_not_known_is_told(tmp_path):
    g = onnx.helper
    floats = onnx.TensorProto.FLOAT
    weights = [
        onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)
        for name, shape in (("w", (1, 16, 3)), ("r", (1, 16, 4)))
    ]
    graph = g.make_graph(
        [g.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)],
        "lstm",
        [g.make_tensor_value_info("x", floats, [5, 1, 3])],
        [g.make_tensor_value_info("y", floats, None)],
        weights,
    )
    model = g.make_model(graph, opset_imports=[g.make_opsetid("", 13)])
    notes = predict.predict_ms(saved(tmp_path, model), "nano").notes
    assert any("LSTM" in note for note in notes)
    conv = writer()
    known = predict.predict_ms(saved(tmp_path, conv.model(conv.conv("image", 8))), "nano")
    assert not any("not known" in note for note in known.notes)


def test_a_layers_compute_and_memory_add_as_the_sides_of_a_right_angle():
    """sqrt(compute^2 + memory^2): neither hides the other wholly. The total is that of the layers and of the call."""
    parts = fused(build("SqueezeNet1.1", (224, 224)))
    rates, p = roofline.rates(targets.target("nano"), "fp16"), roofline.FITTED
    times = roofline.layer_times(parts, rates, p)
    for one in times:
        assert one.ms == pytest.approx(np.hypot(one.compute_ms, one.memory_ms) + p.launch_us / 1000)
    total = roofline.total_ms(roofline.describe(parts), rates, p)
    assert total == pytest.approx(sum(one.ms for one in times) + p.call_ms, rel=1e-9)


def convolution(**changes):
    """A 1x1 convolution of 64 to 64 channels on 10 x 10, as the fusion describes it."""
    values = dict.fromkeys(roofline.Layer._fields)
    values.update(
        name="c", kind="conv", macs=64 * 64 * 100, read=6400, written=6400, weights=4096,
        rows=100, columns=64, depth=64, groups=1, window=(1, 1), stride=(1, 1), dilation=(1, 1),
    )  # fmt: skip
    values.update(changes)
    return roofline.Layer(**values)


PLAIN = roofline.Parameters(
    convolution=0.5, winograd=2.0, depth=16, depthwise=0.1, bandwidth=0.5, weight_bandwidth=0.25, launch_us=0, call_ms=0
)


@pytest.mark.parametrize(
    "changes, winograd, compute, memory",
    [
        # 2 * outputs * (depth + half depth) / efficiency / peak; (activations / .5 + weights / .25) * bytes / bandwidth
        ({}, True, 2 * 6400 * (64 + 16) / 0.5, (12800 / 0.5 + 4096 / 0.25) * 2),
        ({"columns": 33}, True, 2 * 6400 * 80 / 0.5, None),  # a tile is 32 wide: 33 columns cost 64
        ({"columns": 32}, True, 2 * 3200 * 80 / 0.5, None),
        ({"groups": 2}, True, 2 * 12800 * 80 / 0.5, None),
        ({"kind": "matmul"}, True, 2 * 6400 * 80 / 0.5, None),
        ({"kind": "fc", "macs": 1000}, True, 2 * 1000 / 0.5, None),
        ({"kind": "depthwise", "macs": 1000}, True, 2 * 1000 / 0.1, None),
        ({"kind": "pool"}, True, 0, None),
        # Winograd: half of the products, 16/9 of the weights; not where the device has none, nor for few channels
        ({"window": (3, 3), "depth": 144}, True, 2 * 6400 * 160 / 2 / 0.5, (25600 + 4096 * 16 / 9 * 4) * 2),
        ({"window": (3, 3), "depth": 144}, False, 2 * 6400 * 160 / 0.5, (25600 + 4096 * 4) * 2),
        ({"window": (3, 3), "depth": 143}, True, 2 * 6400 * 159 / 0.5, None),
        ({"window": (3, 3), "depth": 144, "stride": (2, 2)}, True, 2 * 6400 * 160 / 0.5, None),
        ({"window": (3, 3), "depth": 144, "stride": (1, 2)}, True, 2 * 6400 * 160 / 0.5, None),
        ({"window": (3, 3), "depth": 144, "dilation": (2, 2)}, True, 2 * 6400 * 160 / 0.5, None),
        ({"window": (3, 3), "depth": 144, "groups": 2}, True, 2 * 12800 * 160 / 0.5, None),
        ({"window": (5, 5), "depth": 144}, True, 2 * 6400 * 160 / 0.5, None),
    ],
)
def test_the_formula_of_one_layer(changes, winograd, compute, memory):
    rates = roofline.Rates(peak=1e9, bandwidth=1e6, element=2, winograd=winograd)
    found, moved = roofline.seconds(roofline.describe([convolution(**changes)]), rates, PLAIN)
    assert found[0] == pytest.approx(compute / 1e9)
    if memory is not None:
        assert moved[0] == pytest.approx(memory / 1e6)


def test_tensor_cores_do_no_winograd():
    """Half of the bytes doubles a plain core's rate; what is faster than that comes from tensor cores."""
    for name, winograd in (("nano", True), ("tx2", True), ("xavier-nx", False), ("orin-nano", False)):
        assert roofline.rates(targets.target(name), "fp16").winograd is winograd, name
        assert roofline.rates(targets.target(name), "fp32").winograd, name
