"""LiteRT files: equal to the ONNX of the same model, with its names, and honest int8."""

import cv2
import keras
import numpy as np
import pytest
from refusals import refused
from small_net import run, snr_db
from test_export import SMALL, randomised

from jetson.errors import BadInput, UsageError
from jetson.vision.letterbox import letterbox
from pipeline.export import litert
from pipeline.export import onnx as export
from pipeline.models import detector as models

WH = (96, 64)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(model, ONNX in memory, images)."""
    folder = tmp_path_factory.mktemp("litert")
    keras.utils.set_random_seed(2)
    net = randomised(models.build(SMALL), seed=2)
    images = []
    for seed in range(4):
        images.append(str(folder / (f"{seed}.png")))
        cv2.imwrite(images[-1], np.random.default_rng(seed).integers(0, 256, (64, 96, 3)).astype(np.uint8))
    return net, export.to_onnx(net)[0], images


def invoke(path, blob):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    outputs = runner(image=np.ascontiguousarray(blob.transpose(0, 2, 3, 1)))
    operations = {entry["op_name"] for entry in interpreter._get_ops_details()} - {"DELEGATE"}
    types = {detail["dtype"] for detail in interpreter.get_tensor_details()}
    return {name: value.transpose(0, 3, 1, 2).copy() for name, value in outputs.items()}, operations, types


@pytest.mark.parametrize("precision, least", [("fp32", 90), ("fp16", 50), ("int8", 15)])
def test_equal_to_onnx(made, tmp_path, precision, least):
    net, onnx, images = made
    path = litert.convert(net, WH, precision, images, str(tmp_path / "net.tflite"))
    blob, _ = letterbox(cv2.imread(images[0]), WH)
    expected = run(onnx, blob)
    got, operations, types = invoke(path, blob)
    assert set(got) == set(expected)
    assert min(snr_db(expected[name], got[name]) for name in expected) > least
    assert operations <= {"CONV_2D", "ADD", "RESIZE_NEAREST_NEIGHBOR", "QUANTIZE", "DEQUANTIZE"}
    assert (np.int8 in types) == (precision == "int8") and (np.float16 in types) == (precision == "fp16")


def test_refusals(made, tmp_path):
    net, _, images = made
    out = str(tmp_path / "net.tflite")
    with refused(UsageError, names="'int4'"):
        litert.convert(net, WH, "int4", images, out)
    with refused(BadInput, where="net.tflite", names="int8"):
        litert.convert(net, WH, "int8", [], out)
    (tmp_path / "text.jpg").write_text("no picture")
    with refused(BadInput, where="text.jpg"):
        litert.convert(net, WH, "int8", [str(tmp_path / "text.jpg")], out)
    assert not (tmp_path / "net.tflite").exists()
