"""jetson/engine/onnx_facts.py on the tiny bundle's files and on damaged ones."""

import os

import pytest
from refusals import refused

from jetson.engine import onnx_facts
from jetson.errors import BadInput


@pytest.fixture(scope="module")
def model(tiny_bundle):
    def read(name):
        with open(os.path.join(tiny_bundle, "models", name), "rb") as file:
            return file.read()

    return read


def test_facts_of_the_float_file(model):
    facts = onnx_facts.parse(model("t.onnx"))
    assert (facts.opset, facts.ir_version) == (13, 7)
    assert facts.inputs == (onnx_facts.Value("image", onnx_facts.FLOAT, (1, 3, "height", "width")),)
    assert [value.name for value in facts.outputs] == [
        "cls_4",
        "box_4",
        "cls_8",
        "box_8",
        "cls_16",
        "box_16",
        "cls_32",
        "box_32",
    ]
    assert {node.op for node in facts.nodes} == {"Conv", "Relu", "Add", "Resize"}
    assert not facts.half and not facts.quantized
    used = {name for node in facts.nodes for name in node.inputs}
    assert set(facts.initializers) <= used


def test_precision_is_read_from_the_file(model):
    assert onnx_facts.parse(model("t.fp16.onnx")).half
    assert onnx_facts.parse(model("t.int8.onnx")).quantized
    assert onnx_facts.parse(model("t.int8-cpu.onnx")).quantized


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff" * 40,
        b"{}",
        b"\x08\x07",
        b"\x3a\x05\x0a",
        b"\x38\x01",
        b"not an onnx file at all",
        b"\x0b\x0b",
    ],
)
def test_what_is_no_model_is_refused_with_the_files_name(data):
    with refused(BadInput, where="models/x.onnx", names="ONNX"):
        onnx_facts.parse(data, "models/x.onnx")


def test_a_file_cut_anywhere_is_refused_or_read_and_never_anything_else(model):
    data = model("t.onnx")
    refused = 0
    for end in range(0, len(data), 7):
        try:
            onnx_facts.parse(data[:end])
        except BadInput:
            refused += 1
    assert refused > 0.9 * (len(data) / 7)
