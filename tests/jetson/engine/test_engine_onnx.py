import base64
import os
import shutil

import numpy as np
import pytest
from refusals import refused

from jetson import engine
from jetson.bundle import manifest
from jetson.engine.onnx import OnnxEngine
from jetson.errors import BadInput, DeviceMismatch, UsageError


def test_every_runtime_says_why_it_cannot_run():
    reasons = engine.available()
    assert tuple(reasons) == engine.RUNTIMES
    assert reasons["onnxruntime"] is None
    assert all(why is None or len(why) > 10 for why in reasons.values())


@pytest.mark.parametrize("name", ["t-416x256-fp32", "t-416x256-fp16-typed", "t-416x256-int8-cpu", "t-320x192-fp32"])
def test_one_file_opens_at_each_size(tiny_bundle, name):
    contents = manifest.load(tiny_bundle)
    variant = contents.variant(name)
    with engine.open_engine(tiny_bundle, contents, variant) as opened:
        assert opened.runtime == "onnxruntime" and opened.input_wh == variant.input_wh
        width, height = variant.input_wh
        assert opened.input.shape == (1, 3, height, width) and opened.input.dtype == np.float32
        outputs = opened.infer()
        for stride in contents.decode["strides"]:
            assert outputs[f"cls_{stride}"].shape == (1, 3, height // stride, width // stride)
            assert outputs[f"box_{stride}"].shape == (1, 4, height // stride, width // stride)
            assert outputs[f"cls_{stride}"].dtype == np.float32
        assert opened.timings["infer_ms"] > 0


def test_infer_takes_an_image_or_the_own_buffer(tiny_bundle):
    contents = manifest.load(tiny_bundle)
    with engine.open_engine(tiny_bundle, contents, contents.variant(), threads=2) as opened:
        blob = np.random.RandomState(0).uniform(0, 255, opened.input.shape).astype(np.float32)
        given = opened.infer(blob)["cls_4"].copy()
        opened.input[:] = blob
        np.testing.assert_array_equal(opened.infer()["cls_4"], given)


def test_buffers_are_reused_and_a_wrong_shape_is_refused(tiny_bundle):
    contents = manifest.load(tiny_bundle)
    with engine.open_engine(tiny_bundle, contents, contents.variant()) as opened:
        first = opened.infer()["cls_8"]
        opened.input[:] = 200
        assert opened.infer()["cls_8"] is first
        with pytest.raises(ValueError):
            opened.infer(np.zeros((1, 3, 32, 32), np.float32))
        strided = np.zeros((1, 256, 416, 3), np.float32).transpose(0, 3, 1, 2)
        assert opened.infer(strided)["cls_8"].shape == first.shape


@pytest.mark.parametrize("content", [None, b"", b"no model" * 50])
def test_a_file_that_is_no_model_is_bad_input(tmp_path, content):
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with refused(BadInput, where=path, names="ONNX"):
        OnnxEngine(str(path), (320, 192))


# A model of one Cast, image -> cls_8, both float32 (1, 3, 32, 32); the type stands in its bytes 33 and 87.
CAST = base64.b64decode(
    "CAc6ZgofCgVpbWFnZRIFY2xzXzgiBENhc3QqCQoCdG8YAaABAhIBZ1ofCgVpbWFnZRIWChQIARIQCgIIAQoCCAMKAggg"
    "CgIIIGIfCgVjbHNfOBIWChQIARIQCgIIAQoCCAMKAgggCgIIIEIECgAQDQ=="
)


@pytest.mark.parametrize("number, name", [(10, "float16"), (7, "int64"), (11, "float64")])
def test_outputs_of_another_type_are_told_when_it_is_opened(tmp_path, number, name):
    path = tmp_path / "m.onnx"
    path.write_bytes(CAST)
    OnnxEngine(str(path), (32, 32)).close()
    data = bytearray(CAST)
    data[33] = data[87] = number
    path.write_bytes(bytes(data))
    with refused(BadInput, where=path, names=["cls_8", name, "float32"]):  # not at each frame, in the runtime's words
        OnnxEngine(str(path), (32, 32))


def test_a_runtime_that_does_not_fit_the_variant_is_a_usage_error(tiny_bundle):
    contents = manifest.load(tiny_bundle)
    for runtime, word in (("litert", "t-416x256-fp32-litert"), ("cuda", "onnxruntime")):
        with refused(UsageError, names=[runtime, word]):
            engine.open_engine(tiny_bundle, contents, contents.variant(), runtime)


def test_what_no_runtime_here_can_run_says_why(tiny_bundle):
    if engine.reason("tensorrt") is None:
        pytest.skip("this machine has TensorRT")
    contents = manifest.load(tiny_bundle)
    with refused(DeviceMismatch, where="tensorrt", names="t-416x256-int8") as caught:
        engine.open_engine(tiny_bundle, contents, contents.variant("t-416x256-int8"))
    assert caught.value.exit_code == 4


def test_opening_reads_the_file_and_nothing_else_of_the_bundle(tiny_bundle, tmp_path):
    contents = manifest.load(tiny_bundle)
    os.makedirs(str(tmp_path / "models"))
    shutil.copy(os.path.join(tiny_bundle, "models", "t.onnx"), str(tmp_path / "models"))
    with engine.open_engine(str(tmp_path), contents, contents.variant()) as opened:
        assert opened.infer()["cls_4"].shape[1] == 3
