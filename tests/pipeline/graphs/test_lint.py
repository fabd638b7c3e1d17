"""What a target's TensorRT would refuse is found, named and explained; what it takes gives no finding."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from refusals import refused
from small_net import Net, detector

from jetson.errors import BadInput, UsageError
from pipeline.graphs import lint


def _save(tmp_path, edit=lambda model: None, opset=13):
    model = detector().model(opset)
    edit(model)
    path = str(tmp_path / "net.onnx")
    onnx.save(model, path)
    return path


def _insert(op, after="down_4_relu", inputs=(), constants=(), domain="", **attributes):
    """An edit that puts a node behind a tensor."""

    def edit(model):
        for name, value in constants:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        for node in model.graph.node:
            for i, name in enumerate(node.input):
                if name == after:
                    node.input[i] = "inserted"
        at = next(i for i, n in enumerate(model.graph.node) if after in n.output) + 1
        model.graph.node.insert(
            at, helper.make_node(op, [after, *inputs], ["inserted"], name="odd", domain=domain, **attributes)
        )

    return edit


def _resize(name, value):
    def edit(model):
        node = next(n for n in model.graph.node if n.op_type == "Resize")
        for attribute in node.attribute:
            if attribute.name == name:
                attribute.CopyFrom(helper.make_attribute(name, value))
        node.name = "odd"

    return edit


def _uint8_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def _computed_bias(model):
    model.graph.node.insert(0, helper.make_node("Identity", ["down_4.bias"], ["bias.made"], name="made"))
    node = next(n for n in model.graph.node if n.name == "down_4")
    node.input[2], node.name = "bias.made", "odd"


def _computed_weight(model):
    model.graph.node.insert(0, helper.make_node("Identity", ["down_4.weight"], ["weight.made"], name="made"))
    node = next(n for n in model.graph.node if n.name == "down_4")
    node.input[1], node.name = "weight.made", "odd"


def _int8_weight(model):
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.ones((24, 16, 3, 3), np.int8), "w8"),
            numpy_helper.from_array(np.float32(0.1), "s8"),
            numpy_helper.from_array(np.int8(0), "z8"),
        ]
    )
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["w8", "s8", "z8"], ["w.dq"], name="dq"))
    node = next(n for n in model.graph.node if n.name == "down_4")
    node.input[1], node.name = "w.dq", "odd"


ONE = ("one", np.float32(0.1))
CASES = {
    "hardswish": (_insert("HardSwish"), "operator HardSwish comes with 8.6"),
    "unknown": (_insert("FancyOp"), "operator FancyOp is not known"),
    "foreign domain": (_insert("QLinearAdd", domain="com.microsoft"), "operator com.microsoft.QLinearAdd"),
    "dynamic quantisation": (_insert("DynamicQuantizeLinear"), "operator DynamicQuantizeLinear"),
    "two inputs": (_insert("QuantizeLinear", inputs=["one"], constants=[ONE]), "it has 2"),
    "asymmetric": (
        _insert("QuantizeLinear", inputs=["one", "zero"], constants=[ONE, ("zero", np.int8(3))]),
        "its zero point is not 0",
    ),
    "uint8 zero point": (
        _insert("QuantizeLinear", inputs=["one", "zero"], constants=[ONE, ("zero", np.uint8(0))]),
        "its type is uint8",
    ),
    "scale 0": (
        _insert("QuantizeLinear", inputs=["one", "zero"], constants=[("one", np.float32(0)), ("zero", np.int8(0))]),
        "a scale is 0",
    ),
    "computed scale": (
        _insert("QuantizeLinear", inputs=["stem.bias.x", "zero"], constants=[("zero", np.int8(0))]),
        "its scale is computed",
    ),
    "scales per channel": (
        _insert(
            "QuantizeLinear",
            inputs=["many", "zeros"],
            axis=1,
            constants=[("many", np.ones(24, np.float32)), ("zeros", np.zeros(24, np.int8))],
        ),
        "it has 24 scales",
    ),
    "sizes differ": (
        _insert(
            "QuantizeLinear",
            inputs=["many", "zero"],
            constants=[("many", np.ones(24, np.float32)), ("zero", np.int8(0))],
        ),
        "24 and 1",
    ),
    "cubic": (_resize("mode", "cubic"), "its mode is cubic"),
    "coordinates": (_resize("coordinate_transformation_mode", "tf_crop_and_resize"), "its coordinates are"),
    "tensorflow's nearest": (_resize("coordinate_transformation_mode", "tf_half_pixel_for_nn"), "it rounds floor"),
    "to uint8": (_insert("Cast", to=TensorProto.UINT8), "it casts to uint8"),
    "topk": (_insert("TopK", inputs=["k"], constants=[("k", np.array([4000]))]), "its K is 4000"),
    "topk computed": (_insert("TopK", inputs=["image"]), "its K is computed"),
    "computed bias": (_computed_bias, "its bias is computed"),
    "computed weight": (_computed_weight, "weights come from Identity"),
    "int8 weight": (_int8_weight, "weights are stored as int8"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_node_that_is_refused_is_named(tmp_path, name):
    edit, words = CASES[name]
    findings = lint.lint(_save(tmp_path, edit), "xavier-nx")
    found = [f for f in findings if f.node == "odd" and words in f.what]
    assert found, findings
    assert all(f.rule and f.source and f.mend for f in findings)
    assert "odd" in lint.describe(found[0]) and found[0].mend in lint.describe(found[0])


def test_only_the_odd_node_is_found(tmp_path):
    assert [f.node for f in lint.lint(_save(tmp_path, CASES["hardswish"][0]), "nano")] == ["odd"]


def test_a_newer_tensorrt_is_not_warned_about_what_it_takes(tmp_path):
    path = _save(tmp_path, CASES["hardswish"][0])
    assert lint.lint(path, "nano") and not lint.lint(path, "orin-nano")


@pytest.mark.parametrize("target", ["nano", "tx2", "xavier-nx", "orin-nano"])
def test_a_right_file_has_no_finding(tmp_path, target):
    assert lint.lint(_save(tmp_path), target) == []


def test_file_wide_rules(tmp_path):
    assert "opset 17" in lint.lint(_save(tmp_path, opset=17), "nano")[0].what
    assert not lint.lint(_save(tmp_path, opset=17), "orin-nano")
    assert "uint8" in lint.lint(_save(tmp_path, _uint8_input), "nano")[0].what


def test_quantised_file_on_hardware_without_int8(tmp_path):
    edit = _insert("QuantizeLinear", inputs=["one", "zero"], constants=[ONE, ("zero", np.int8(0))])
    findings = lint.lint(_save(tmp_path, edit), "nano")
    assert any(f.node == "" and "INT8" in f.what and "FP16" in f.mend for f in findings)


def test_two_nodes_of_one_name(tmp_path):
    net = Net()
    net.conv("image", "stem", 3, 8, relu=False)
    net.outputs = [("stem", 8)]
    model = net.model()
    model.graph.node.append(helper.make_node("Relu", ["stem"], ["other"], name="stem"))
    path = str(tmp_path / "net.onnx")
    onnx.save(model, path)
    assert any("two nodes are called stem" in f.what for f in lint.lint(path, "nano"))


def test_wrong_asked(tmp_path):
    path = _save(tmp_path)
    with refused(UsageError, names=["'nanno'", "nano?"]):
        lint.lint(path, "nanno")
    with refused(UsageError, where="--target", names=["this-machine", "TensorRT"]):
        lint.lint(path, "this-machine")
    with refused(BadInput, where="missing.onnx"):
        lint.lint(str(tmp_path / "missing.onnx"), "nano")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(BadInput):
        lint.lint(str(tmp_path / "text.onnx"), "nano")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(BadInput):
        lint.lint(str(tmp_path / "empty.onnx"), "nano")
