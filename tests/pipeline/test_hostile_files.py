"""Files that mean harm, opened on the workstation: Keras, YAML, ONNX. Each is refused in one line, before it costs."""

import io
import json
import os
import zipfile

import hostile
import numpy as np
import pytest
import yaml
from refusals import refused

from jetson.errors import BadInput
from pipeline import config, yaml_file
from pipeline.models import keras_file

EXTERNAL = hostile.external_models()


@pytest.mark.parametrize("what", sorted(EXTERNAL))
def test_every_way_to_open_an_onnx_file_refuses_external_data(what, tmp_path):
    from pipeline.graphs import edit, shapes
    from pipeline.graphs.load import load

    (tmp_path.parent / "secret.bin").write_bytes(b"\0" * 64)
    path = tmp_path / "m.onnx"
    path.write_bytes(EXTERNAL[what])
    for opened in (load, edit.read, shapes.read):
        with refused(BadInput, names="save_as_external_data"):
            opened(str(path))


def test_what_onnx_itself_writes_with_external_data_is_refused_and_as_one_file_read(tmp_path):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from pipeline.graphs import shapes

    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["out"])],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4, 30, 30])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    path = str(tmp_path / "m.onnx")
    onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(BadInput) as caught:
        shapes.read(path)
    assert "w.bin" in caught.value.where and "save_as_external_data=False" in caught.value.remedy
    onnx.save_model(onnx.load(path), path, save_as_external_data=False)
    assert shapes.read(path).shapes["out"] == (1, 4, 30, 30)


# ---------------------------------------------------------------------------------------------------------- Keras


def _layer(name="Conv2D", **settings):
    return {"class_name": name, "config": {"name": "c", **settings}}


def _keras(path, config_text, weights=b"\0" * 4096, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("metadata.json", "{}")
        if config_text is not None:
            archive.writestr("config.json", config_text)
        archive.writestr("model.weights.h5", weights)
    return str(path)


def _nested(layer, depth):
    for _ in range(depth):
        layer = {"class_name": "Functional", "config": {"layers": [layer]}}
    return layer


KERAS = {
    "2^31 filters": _layer(filters=2**31),
    "2^63 filters": _layer(filters=2**63),
    "filters of 40 digits": _layer(filters=10**40),
    "a million filters": _layer(filters=1000000),
    "units": _layer("Dense", units=2**31),
    "units of a recurrent layer": _layer("LSTM", units=2**20),
    "an embedding": _layer("Embedding", input_dim=2**40, output_dim=8),
    "an embedding's other side": _layer("Embedding", input_dim=2, output_dim=2**33),
    "depth": _layer("DepthwiseConv2D", depth_multiplier=2**31),
    "heads": _layer("MultiHeadAttention", num_heads=2**30, key_dim=4),
    "keys": _layer("MultiHeadAttention", num_heads=2, key_dim=2**30),
    "kernel": _layer(filters=4, kernel_size=[2**20, 2**20]),
    "kernel, one number": _layer(filters=4, kernel_size=2**31),
    "padding": _layer("ZeroPadding2D", padding=[[2**31, 0], [0, 0]]),
    "upsampling": _layer("UpSampling2D", size=[2**20, 2**20]),
    "strides": _layer(filters=4, strides=[2**31, 1]),
    "pool": _layer("MaxPooling2D", pool_size=[2**31, 1]),
    "in a model in a model": _nested(_layer(filters=2**31), 5),
    "beside a good one": {"class_name": "F", "config": {"layers": [_layer(filters=8), _layer(filters=2**31)]}},
    "dilation": _layer(filters=4, dilation_rate=[2**31, 2**31]),
}
KERAS_TEXT = {
    "digits": '{"class_name": "F", "config": {"filters": ' + "9" * 300000 + "}}",
    "nested": "[" * 100000 + "]" * 100000,
    "in a model, 100 deep": json.dumps(_nested(_layer(filters=8), 100)),
    "not JSON": "{",
    "a million lists": "[" + "[]," * 3000000 + "[]]",
}


@pytest.mark.parametrize("what", sorted(KERAS))
def test_a_keras_file_that_asks_for_more_than_it_holds_is_refused(what, tmp_path):
    path = _keras(tmp_path / "m.keras", json.dumps(KERAS[what]))
    with pytest.raises(BadInput) as caught:
        keras_file.check(path)
    assert "layer" in caught.value.where and "\n" not in caught.value.what and len(caught.value.what) < 300


@pytest.mark.parametrize("what", sorted(KERAS_TEXT))
def test_the_configuration_of_a_keras_file_is_bounded(what, tmp_path):
    path = _keras(tmp_path / "m.keras", KERAS_TEXT[what], method=zipfile.ZIP_DEFLATED)
    with refused(BadInput, where="m.keras, config.json"):
        keras_file.check(path)


def test_a_zip_that_unpacks_to_much_more_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_file, "UNPACKED_BYTES", 1 << 20)
    with refused(BadInput, where="a.keras", names=["2097156", "1048576"]):
        keras_file.check(_keras(tmp_path / "a.keras", "{}", b"\0" * (2 << 20), zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(keras_file, "CONFIG_BYTES", 1000)
    with refused(BadInput, where="b.keras", names=["config.json", "5000", "1000"]):
        keras_file.check(_keras(tmp_path / "b.keras", " " * 5000))
    _keras(tmp_path / "c.keras", " " * 5000, method=zipfile.ZIP_DEFLATED)
    lying = bytearray((tmp_path / "c.keras").read_bytes())
    at = lying.rindex(b"config.json") - 46  # the size in the central directory, which the reader goes by
    lying[at + 24 : at + 28] = (10).to_bytes(4, "little")
    (tmp_path / "c.keras").write_bytes(bytes(lying))
    with pytest.raises((BadInput, zipfile.BadZipFile)):
        keras_file.check(str(tmp_path / "c.keras"))
        zipfile.ZipFile(io.BytesIO(bytes(lying))).read("config.json")


def test_models_that_are_ours_pass(root):
    for name in ("n", "s", "sp"):
        keras_file.check(os.path.join(root, "pipeline", "weights", name + ".keras"))
    keras_file.check(os.path.join(root, "README.md"))  # no zip: whoever opens it says so


def test_loading_a_hostile_keras_file_is_bad_input(tmp_path):
    from pipeline.models import detector

    path = _keras(tmp_path / "m.keras", json.dumps(KERAS["2^31 filters"]))
    with refused(BadInput, where="m.keras, layer 'c'", names="filters"):
        detector.load(path)


# ----------------------------------------------------------------------------------------------------------- YAML


def _aliases(depth, first="x", each=9):
    lines = [f"a0: &a0 [{', '.join([first] * each)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * each)}]" for i in range(1, depth)]
    return "\n".join(lines) + "\n"


YAML = {
    "aliases of aliases": _aliases(9),
    "aliases as epochs": _aliases(8) + "train:\n  epochs: *a7\n",
    "aliases in tables": "\n".join(
        ["a0: &a0 {x: 1, y: 2}"] + [f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}" for i in range(1, 25)]
    ),
    "lists in lists": "train: " + "[" * 60 + "]" * 60,
    "lists in lists, 100,000": "train: " + "[" * 100000,
    "tables in tables": "train: " + "{a: " * 60 + "1" + "}" * 60,
    "by indentation": "\n".join(" " * i + "a:" for i in range(60)),
    "lists by dashes": "- " * 60 + "a",
    "holds itself": "a: &a [*a]",
    "a table that holds itself": "a: &a {b: *a}",
    "holds itself far below": "a: &a [[[[[{x: [*a]}]]]]]",
    "a number of 300,000 digits": "train:\n  epochs: " + "7" * 300000,
    "with underscores": "train:\n  epochs: " + "7_" * 2000,
    "of base 60": "train:\n  epochs: " + "1" * 1500 + ":30",
    "binary": "train:\n  epochs: 0b" + "1" * 3000,
    "too long": "a: '" + "x" * (5 << 20) + "'",
    "a million values": "a: &a [" + "1, " * 1000 + "1]\nb: [" + "*a, " * 1100 + "1]",
    "code": "!!python/object/apply:os.system ['true']",
    "a module": "a: !!python/name:os.system",
    "a tab": "a:\n\t- b",
    "two documents": "a: 1\n---\nb: 2\n",
    "an unknown alias": "a: *b",
    "an open quote": "a: 'x",
}


@pytest.mark.parametrize("what", sorted(YAML))
def test_yaml_is_bounded(what, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(YAML[what])
    with pytest.raises((BadInput, yaml.YAMLError)):
        yaml_file.parse(YAML[what], str(path))
    with pytest.raises(BadInput) as caught:
        config.load(str(path))
    assert str(path) in caught.value.where and len(str(caught.value)) < 1500


def test_plain_yaml_with_aliases_is_read():
    text = "a: &a {x: [1, 2]}\nb: *a\nc: " + "[" * 40 + "]" * 40
    assert yaml_file.parse(text, "x")["b"] == {"x": [1, 2]}
    assert min(len(KERAS), len(YAML), len(EXTERNAL)) >= 20
