"""From a Keras detector to .tflite: float32, float16 weights, or full int8 with the ranges of photographs.

The network is taken from its ONNX form, in which scale, batch normalisation and identities are folded already, so
that ONNX Runtime, TensorRT and LiteRT run the same convolutions.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto

from jetson import files, imagefile
from jetson.errors import BadInput, JetmaskError, UsageError
from jetson.vision.letterbox import letterbox
from pipeline.export import onnx
from pipeline.graphs import edit as graphs

PRECISIONS = ("fp32", "fp16", "int8")


def convert(
    model: Any,
    input_wh: tuple[int, int],
    precision: str,
    images: Sequence[str | os.PathLike[str]] | None,
    dst: str | os.PathLike[str],
    fold_residuals: bool = True,
) -> str | os.PathLike[str]:
    """Write a .tflite for one input size. Returns dst.

    model: keras.Model as pipeline.models.detector builds it. input_wh: (width, height), multiples of 32; LiteRT cannot
    leave it open. precision: "fp32", "fp16" (weights; computed in float32 on a CPU) or "int8" (weights and activations;
    input and outputs stay float32). images: paths of photographs for int8's ranges, not read otherwise. The input is
    NHWC here, raw 0..255 BGR; the outputs carry the model's names in the signature.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"LiteRT has no precision {precision!r} here", expected="one of " + ", ".join(PRECISIONS))
    photographs = [str(path) for path in images or ()]
    if precision == "int8" and not photographs:
        raise BadInput(
            "int8 needs photographs to find the ranges with",
            where=dst,
            expected="some images",
            remedy="select them with pipeline.quantization.calibrate.select",
        )
    import tensorflow as tf

    proto, _ = onnx.to_onnx(model, fold_residuals)
    module = tf.Module()
    width, height = input_wh
    signature = tf.TensorSpec((1, height, width, 3), tf.float32, name=onnx.INPUT)
    module.run = tf.function(lambda image: _apply(tf, proto.graph, image), input_signature=[signature], autograph=False)
    with tempfile.TemporaryDirectory(prefix="jetmask-litert-") as folder, _quiet():
        tf.saved_model.save(module, folder, signatures=module.run.get_concrete_function())
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if precision != "fp32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: ([_blob(path, input_wh)] for path in photographs)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        data = converter.convert()
    files.write_bytes(str(dst), data)
    return dst


def _blob(path: str, input_wh: tuple[int, int]) -> np.ndarray:
    frame = imagefile.read(path)
    if frame is None:
        raise BadInput(
            "not a photograph that OpenCV can read",
            where=path,
            expected="JPEG or PNG",
            remedy="replace it or remove it from the list",
        )
    return np.ascontiguousarray(letterbox(frame, input_wh)[0].transpose(0, 2, 3, 1))


def _apply(tf: Any, graph: GraphProto, image: Any) -> dict[str, Any]:
    """The ONNX graph as TensorFlow operations, NHWC."""
    values = graphs.constants(graph)
    tensors = {onnx.INPUT: image}
    for node in graph.node:
        x = tensors[node.input[0]]
        if node.op_type == "Conv":
            y = _conv(tf, node, x, values)
        elif node.op_type == "Relu":
            y = tf.nn.relu(x)
        elif node.op_type == "Add":
            y = x + tensors[node.input[1]]
        elif node.op_type == "Resize":
            y = tf.raw_ops.ResizeNearestNeighbor(images=x, size=[x.shape[1] * 2, x.shape[2] * 2])
        elif node.op_type == "Concat":
            y = tf.concat([tensors[name] for name in node.input], axis=3)
        else:
            raise JetmaskError(f"the graph cannot be converted to LiteRT: {node.op_type}", where="node " + node.name)
        tensors[node.output[0]] = y
    return {output.name: tf.identity(tensors[output.name], name=output.name) for output in graph.output}


def _conv(tf: Any, node: NodeProto, x: Any, values: Mapping[str, np.ndarray]) -> Any:
    weight = values[node.input[1]].transpose(2, 3, 1, 0)
    strides = list(graphs.attribute(node, "strides"))
    top, left, bottom, right = graphs.attribute(node, "pads")
    # LiteRT's SAME is Keras' SAME; an explicit padding would become an operation of its own.
    same = [_same(size, k, s) for size, k, s in zip(x.shape[1:3], weight.shape[:2], strides)]
    padding = "SAME" if same == [(top, bottom), (left, right)] else [[0, 0], [top, bottom], [left, right], [0, 0]]
    y = tf.nn.conv2d(x, tf.constant(weight), strides, padding)
    return tf.nn.bias_add(y, tf.constant(values[node.input[2]])) if len(node.input) > 2 else y


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converter's C++ log lines off stderr; they are shown when it fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log:
        saved = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        except JetmaskError:  # ours, from within: a photograph that cannot be read
            raise
        except Exception as error:
            log.seek(0)
            lines = log.read().decode("utf-8", "replace").splitlines()
            raise JetmaskError(f"LiteRT's converter failed: {error}", where="; ".join(lines[-3:]) or None) from error
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
