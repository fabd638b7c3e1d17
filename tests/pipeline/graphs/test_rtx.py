"""The check by NVIDIA's TensorRT for RTX, where it is installed: a good file, and one that it refuses."""

import os

import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.graphs import rtx


@pytest.fixture(autouse=True)
def installed():
    if rtx.module() is None:
        pytest.skip("TensorRT for RTX is not installed")


def test_a_shipped_file_builds(tiny_bundle):
    outcome = rtx.check(os.path.join(tiny_bundle, "models", "t.onnx"), (416, 256), "fp32")
    assert outcome["plan_bytes"] > 1000 and outcome["version"]


def test_a_file_it_cannot_parse_is_said_so(tmp_path):
    node = helper.make_node("NoSuchOperator", ["image"], ["cls_4"], name="strange")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("cls_4", TensorProto.FLOAT, [1, 3, 32, 32])],
    )
    path = str(tmp_path / "strange.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)
    assert "NoSuchOperator" in rtx.check(path, (32, 32), "fp32")["error"]
