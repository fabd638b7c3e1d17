import numpy as np
import pytest
from refusals import refused

from jetson import engine
from jetson.bundle import manifest
from jetson.engine.litert import LiteRtEngine
from jetson.errors import BadInput
from jetson.inference.detector import open_detector

pytestmark = pytest.mark.skipif(engine.reason("litert") is not None, reason=str(engine.reason("litert")))


def test_litert_gives_what_onnx_runtime_gives(tiny_bundle, draw):
    frame = draw((640, 480), [(0, 100, 100, 24), (2, 300, 200, 48), (1, 500, 400, 96)])
    name = "t-416x256-fp32-litert"
    with open_detector(tiny_bundle, "t-416x256-fp32") as onnx, open_detector(tiny_bundle, name, threads=2) as litert:
        assert litert.engine.runtime == "litert"
        blob, _ = onnx.prepare(frame)
        expected = {name: value.copy() for name, value in onnx.infer(blob).items()}
        found = litert.infer(blob)
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name].shape == value.shape and found[name].dtype == np.float32
            np.testing.assert_allclose(found[name], value, atol=1e-4)
        a, b = onnx.detect(frame), litert.detect(frame)
        assert len(a) == len(b) >= 2
        np.testing.assert_allclose(a.xyxy, b.xyxy, atol=1e-2)


def test_litert_refuses_another_size_and_other_files(tiny_bundle, tmp_path):
    path = manifest.load(tiny_bundle).variant("t-416x256-fp32-litert").file
    with refused(BadInput, where="t-416x256.fp32.tflite", names="[1, 192, 320, 3]"):
        LiteRtEngine(f"{tiny_bundle}/{path}", (320, 192))
    with refused(BadInput, where="no.tflite"):
        LiteRtEngine(str(tmp_path / "no.tflite"), (320, 192))
    (tmp_path / "bad.tflite").write_bytes(b"not a model" * 10)
    with refused(BadInput, where="bad.tflite", names="LiteRT"):
        LiteRtEngine(str(tmp_path / "bad.tflite"), (320, 192))
