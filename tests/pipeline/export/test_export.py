"""Keras to ONNX: the contract's form, equal to Keras at sizes it was not traced at, and what it refuses."""

import json

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from refusals import refused
from small_net import picture, run

from jetson.errors import BadInput, JetmaskError, UsageError
from pipeline import cli
from pipeline.export import onnx as export
from pipeline.graphs import lint
from pipeline.models import detector as models

SMALL = models.Architecture(8, ((8, 1), (12, 1), (16, 1), (16, 2)), (8, 8, 12, 16), ((8,), (8, 8), (8, 8), (8, 8)))


def randomised(model, seed=0):
    """A model whose batch normalisations are as after a training: no statistic at its initial value."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [
                    random.uniform(0.5, 1.5, shape),
                    random.normal(0, 0.3, shape),
                    random.normal(0, 0.3, shape),
                    random.uniform(0.5, 2, shape),
                ]
            )
        elif layer.name.startswith(("cls", "box")):
            layer.set_weights([random.normal(0, 0.3, w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(1)
    return randomised(models.build(SMALL))


@pytest.fixture(scope="module")
def made(net, tmp_path_factory):
    return export.export(net, str(tmp_path_factory.mktemp("export") / "net.onnx"))


def shape_of(value):
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_the_files_form(net, made):
    model = onnx.load(made.path)
    assert model.ir_version <= 7 and [(o.domain, o.version) for o in model.opset_import] == [("", 13)]
    assert [(i.name, shape_of(i)) for i in model.graph.input] == [("image", [1, 3, "height", "width"])]
    assert [o.name for o in model.graph.output] == net.output_names
    assert shape_of(model.graph.output[2]) == [1, 3, "height_8", "width_8"]
    assert {n.op_type for n in model.graph.node} == {"Conv", "Relu", "Add", "Resize"}
    assert not model.graph.value_info
    names = [n.name for n in model.graph.node]
    assert len(set(names)) == len(names) and {"stem", "down_32_relu", "fuse_4", "box_16"} <= set(names)
    assert made.folded_identities == 5 and sum(n.op_type == "Add" for n in model.graph.node) == 3
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert "auto_pad" not in attributes
        if node.op_type == "Conv":
            assert attributes["pads"] == {1: [0] * 4, 3: [1] * 4}[attributes["kernel_shape"][0]] or (
                attributes["strides"] == [2, 2] and attributes["pads"] == [0, 0, 1, 1]
            )
        if node.op_type == "Resize":
            assert (attributes["mode"], attributes["coordinate_transformation_mode"], attributes["nearest_mode"]) == (
                b"nearest",
                b"asymmetric",
                b"floor",
            )
    assert not lint.lint(made.path, "nano")


@pytest.mark.parametrize("wh", [(32, 32), (96, 64), (64, 224)])
def test_equal_to_keras_at_sizes_it_was_not_traced_at(net, made, wh):
    image = picture(4, wh)
    image[:, :, 0], image[:, :, -1], image[:, 1, :, 0], image[:, 2, :, -1] = 255, 255, 255, 255
    expected = dict(zip(net.output_names, net(image.transpose(0, 2, 3, 1), training=False)))
    for name, value in run(made.path, image).items():
        theirs = np.asarray(expected[name]).transpose(0, 3, 1, 2)
        assert value.shape == theirs.shape
        assert np.abs(value - theirs).max() < 1e-4, name  # the border's cells are in this maximum


def test_same_model_same_file(net, made, tmp_path):
    assert export.export(net, str(tmp_path / "again.onnx")).sha256 == made.sha256


def test_residuals_can_be_kept(net, tmp_path):
    kept = export.export(net, str(tmp_path / "kept.onnx"), fold_residuals=False)
    assert kept.folded_identities == 0
    assert sum(n.op_type == "Add" for n in onnx.load(kept.path).graph.node) == 8


def test_a_model_in_mixed_precision_is_exported_in_float32(net, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = models.build(SMALL, dropout=0.1)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(net.get_weights())
    made = export.export(mixed, str(tmp_path / "mixed.onnx"))
    assert max(made.parity.values()) < 1e-4
    expected = net(picture().transpose(0, 2, 3, 1), training=False)[0]
    assert np.abs(run(made.path, picture())["cls_4"] - np.asarray(expected).transpose(0, 3, 1, 2)).max() < 1e-4


def test_a_difference_is_an_error_and_writes_nothing(net, tmp_path):
    with refused(JetmaskError, where="net.onnx, output ", names="1e-12"):
        export.export(net, str(tmp_path / "net.onnx"), tolerance=1e-12)
    assert not list(tmp_path.iterdir())


def _with(layer):
    image = keras.Input((None, None, 3), name="image")
    return keras.Model(image, layer(image))


@pytest.mark.parametrize(
    "layer, where, names",
    [
        (
            lambda x: layers.Conv2D(3, 3, padding="same", name="cls_4")(layers.Rescaling(1 / 255, -0.5)(x)),
            "net.onnx, node rescaling",
            "Mul",
        ),
        (lambda x: layers.Conv2D(3, 3, 2, name="cls_4")(x), "net.onnx, node cls_4", 'padding="same"'),
        (
            lambda x: layers.Conv2D(3, 1, name="cls_4")(layers.UpSampling2D(2, interpolation="bilinear")(x)),
            "layer up_sampling2d",
            "nearest",
        ),
        (lambda x: layers.Activation("tanh", name="cls_4")(layers.Conv2D(3, 1)(x)), "net.onnx, node cls_4", "Tanh"),
    ],
    ids=["offset", "valid", "bilinear", "tanh"],
)
def test_what_the_contract_does_not_allow(layer, where, names, tmp_path):
    with refused(JetmaskError, where, names):
        export.export(_with(layer), str(tmp_path / "net.onnx"))
    assert not list(tmp_path.iterdir())


def _classifier(inputs, flat=True, **more):
    image = keras.Input(inputs)
    x = layers.Conv2D(4, 3, padding="same")(image)
    return keras.Model(image, layers.Dense(3, **more)(layers.Flatten()(x) if flat else x))


@pytest.mark.parametrize(
    "model, names",
    [
        (lambda: _classifier((28, 28, 1)), ["(None, 28, 28, 1)", "(None, 3)"]),
        (
            lambda: keras.Model(two := [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))], layers.Add()(two)),
            "(None, 8, 8, 3), (None, 8, 8, 3)",
        ),
        (
            lambda: keras.Sequential([keras.Input((32, 32, 3)), layers.Flatten(), layers.Dense(2)]),
            "(None, 2)",
        ),
        (lambda: keras.Sequential([keras.Input((32, 32, 3)), layers.Reshape((32, 96, 1))]), ["320x192", "Reshape"]),
    ],
    ids=["grey", "two", "sequential", "one size"],
)
def test_another_keras_model_is_told_what_it_lacks(model, names, tmp_path):
    with refused(BadInput, where="net.onnx", names=names):
        export.export(model(), str(tmp_path / "net.onnx"))
    assert not list(tmp_path.iterdir())


def test_a_sequential_detector_is_exported_too(tmp_path):
    model = keras.Sequential([keras.Input((None, None, 3), name="image"), layers.Conv2D(3, 3, padding="same")])
    assert max(export.export(model, str(tmp_path / "net.onnx")).parity.values()) < 1e-3


@pytest.mark.parametrize("sizes", [[(64, 64)], [(64, 64), (64, 64)], [(64, 64), (65, 64)], [(64, 64), (0, 32)]])
def test_parity_needs_two_right_sizes(net, tmp_path, sizes):
    with pytest.raises(UsageError):
        export.export(net, str(tmp_path / "net.onnx"), input_whs=sizes)


def test_command(net, tmp_path, capsys):
    net.save(tmp_path / "net.keras")
    arguments = ["export", "--model", str(tmp_path / "net.keras"), "--out", str(tmp_path / "net.onnx"), "--json"]
    assert cli.cli.main(arguments, "jetmask", cli.VERBS) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["findings"] == [] and result["bytes"] == (tmp_path / "net.onnx").stat().st_size
    assert set(result["parity"]) == {"320x192", "416x256"}


@pytest.mark.parametrize(
    "change, code, words",
    [
        ({"--model": "missing.keras"}, 3, "no such model"),
        ({"--model": "text.keras"}, 3, "not a .keras file"),
        ({"--out": "net.pb"}, 2, "ends in .onnx"),
        ({"--target": "nanno"}, 2, "did you mean nano"),
        ({"--target": "this-machine"}, 2, "no TensorRT to lint for"),
        ({"--out": "no/net.onnx"}, 3, "no such folder"),  # said before the model is traced
    ],
    ids=["missing", "text", "name", "target", "no tensorrt", "folder"],
)
def test_command_says_what_is_wrong(tmp_path, capsys, change, code, words):
    (tmp_path / "text.keras").write_text("hello")
    given = {"--model": "text.keras", "--out": "net.onnx", **change}
    arguments = ["export"]
    for key, value in given.items():
        arguments += [key, value if key == "--target" else str(tmp_path / value)]
    assert cli.cli.main(arguments, "jetmask", cli.VERBS) == code
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert not (tmp_path / "net.onnx").exists()
