"""The one way from an ONNX file to a model in memory: looked at first, so that nothing but the file itself is read."""

import os

import onnx

from jetson.engine import onnx_facts
from jetson.errors import BadInput


def load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The ONNX model in a file. BadInput where it is none, is cut off, or keeps weights in another file."""
    path = os.fspath(path)
    data, _ = onnx_facts.read(path)
    try:
        return onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError has no public base class that all its versions share
        raise BadInput(
            f"not an ONNX model: {error}", path, "an ONNX file written by an exporter", "export the model again"
        ) from error
