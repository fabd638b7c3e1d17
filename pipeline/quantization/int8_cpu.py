"""The int8 graph that ONNX Runtime's CPU provider runs fastest: uint8 activations, int8 weights, channels last.

What was found by measuring (ONNX Runtime 1.32, benchmarks/int8_shape.py):
- operators in their quantised form, channels last from end to end: ONNX Runtime brings Q/DQ files to nearly the same
  form when it opens them, but leaves a slow Resize in it;
- upsampling by concatenating a map with itself, along the width and along the height: it is copying, where Resize
  computes an index per element;
- the first convolution in float32: with three input channels the int8 kernel cannot be used;
- the 1x1 convolutions of the outputs as MatMulIntegerToFloat: their few channels are too narrow for the int8
  convolution, and their result is never rounded to 8 bits; two that read the same map are one product;
- a ReLU is the clamp at zero point 0 of the convolution or Add before it and costs nothing.
- Output channels in multiples of 16 (at least 8) use the kernel fully.

Without VNNI (x86 before Ice Lake and Zen 4) two products are added in 16 bits, which saturates silently when both
weights are large. The weights here are scaled so that no pair can: one file, the same results on every machine.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from jetson.errors import BadInput
from pipeline.graphs import edit as graphs

MICROSOFT = "com.microsoft"
LEVELS = 255
PAIR_LIMIT = 128  # 255 * 128 = 32640 is the most that fits 16 bits


def quantized(model: onnx.ModelProto, ranges: dict[str, float], keep: Iterable[str]) -> onnx.ModelProto:
    """The int8 model of a float32 one. ranges: {tensor: largest absolute value}; keep: nodes that stay float32."""
    return _Writer(model, ranges, set(keep)).write()


def weight_scales(weight: np.ndarray) -> np.ndarray:
    """Scale per output channel (O,) for weights (O, I, kh, kw), such that neither a weight leaves +-127 nor the sum of
    a pair that is added in 16 bits leaves +-128. Pairs are neighbours along the input channels."""
    flat = np.abs(weight).transpose(0, 2, 3, 1)
    largest = flat.reshape(len(weight), -1).max(axis=1) / 127
    signed = weight.transpose(0, 2, 3, 1)
    if signed.shape[3] % 2:
        signed = np.concatenate([signed, np.zeros_like(signed[..., :1])], axis=3)
    pairs = np.abs(signed[..., 0::2] + signed[..., 1::2]).reshape(len(weight), -1)
    # Half a step on each side is what rounding can add to the sum of two.
    return np.maximum(np.maximum(largest, pairs.max(axis=1) / (PAIR_LIMIT - 1)), 1e-9)


class _Writer:
    """Each tensor can be had in float32 NCHW or in uint8 NHWC; what is missing is made when it is asked for."""

    def __init__(self, model: onnx.ModelProto, ranges: dict[str, float], keep: Iterable[str]) -> None:
        self.model, self.graph, self.ranges, self.keep = model, model.graph, ranges, keep
        self.values = graphs.constants(self.graph)
        self.readers = graphs.consumers(self.graph)
        self.outputs = [output.name for output in self.graph.output]
        self.relu_of = {
            n.input[0]: n.output[0]
            for n in self.graph.node
            if n.op_type == "Relu" and len(self.readers[n.input[0]]) == 1
        }
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.floats = {name: name for name in graphs.input_names(self.graph)}
        self.bytes: dict[str, str] = {}
        self.unsigned = set(self.floats)  # tensors that are never negative: zero point 0
        self.same_scale: dict[str, str] = {}  # a resized map uses its source's
        self.waiting: dict[
            str, Any
        ] = {}  # upsampling, done where its result is read: then the size it must have is known

    def write(self) -> onnx.ModelProto:
        for node in self.graph.node:
            if node.op_type == "Relu" and node.input[0] in self.relu_of and self._clamped(node.output[0]):
                continue  # went into the node before it
            kept = node.name in self.keep
            if node.op_type == "Conv" and not kept and node.output[0] in self.floats:
                continue  # computed together with another output
            if node.op_type == "Conv" and not kept:
                (self._heads if self._is_head(node) else self._conv)(node)
            elif node.op_type == "Add" and not kept:
                self._add(node)
            elif node.op_type == "Resize" and node.input[0] in self.bytes and not kept:
                self.waiting[node.output[0]] = node
                source = node.input[0]
                self.same_scale[node.output[0]] = self.same_scale.get(source, source)
            else:
                self._plain(node)
        for name in self.outputs:
            self.as_float(name)
        graph = helper.make_graph(
            self.nodes,
            self.graph.name,
            self.graph.input,
            self.graph.output,
            [numpy_helper.from_array(np.asarray(v, order="C"), k) for k, v in self.constants.items()],
        )
        model = helper.make_model(
            graph,
            producer_name="jetmask",
            opset_imports=[helper.make_opsetid("", graphs.OPSET), helper.make_opsetid(MICROSOFT, 1)],
        )
        model.ir_version = graphs.IR_VERSION
        graphs.tidy(model.graph)
        return model

    def _emit(self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}/{op}", domain=domain, **attributes))
        return output

    def _constant(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def _clamped(self, name: str) -> bool:
        return name in self.bytes

    def _fused(self, node: onnx.NodeProto) -> str:
        """The tensor that a quantised node writes: its ReLU's, where one follows."""
        output = node.output[0]
        if output in self.relu_of and output not in self.outputs:
            self.unsigned.add(self.relu_of[output])
            return self.relu_of[output]
        return output

    def _scale(self, name: str) -> tuple[np.float32, Any]:
        """(scale, zero point) of a tensor's uint8 form."""
        name = self.same_scale.get(name, name)
        if name not in self.ranges:
            raise BadInput(
                f"the calibration table has no range for tensor {name!r}",
                expected="a table of this model",
                remedy="calibrate again: jetmask calibrate",
            )
        largest = max(self.ranges[name], 1e-6)
        if name in self.unsigned:  # the image too: 0..255, scale 1, nothing is lost
            return np.float32(largest / LEVELS), np.uint8(0)
        return np.float32(2 * largest / LEVELS), np.uint8(128)

    def _scale_inputs(self, name: str) -> tuple[str, str]:
        scale, zero = self._scale(name)
        source = self.same_scale.get(name, name)
        return self._constant(source + ".scale", scale), self._constant(source + ".zero", zero)

    def as_bytes(self, name: str) -> str:
        """The uint8 NHWC form of a tensor."""
        if name in self.waiting:
            self._upsample(self.waiting.pop(name))
        if name not in self.bytes:
            last = self._emit("Transpose", [self.floats[name]], name + ".nhwc", perm=[0, 2, 3, 1])
            self.bytes[name] = self._emit("QuantizeLinear", [last, *self._scale_inputs(name)], name + ".u8")
        return self.bytes[name]

    def as_float(self, name: str) -> str:
        """The float32 NCHW form of a tensor."""
        if name not in self.floats:
            first = self._emit("Transpose", [self.as_bytes(name)], name + ".nchw", perm=[0, 3, 1, 2])
            self.floats[name] = self._emit(
                "DequantizeLinear",
                [first, *self._scale_inputs(name)],
                name if name in self.outputs else name + ".float",
            )
        return self.floats[name]

    def _weight(self, node: onnx.NodeProto) -> tuple[np.ndarray, Any]:
        """(weights, bias) of a convolution in float64."""
        weight = self.values[node.input[1]].astype(np.float64)
        bias = self.values[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(len(weight))
        return weight, bias

    def _is_head(self, node: onnx.NodeProto) -> bool:
        plain = graphs.attribute(node, "group", 1) == 1 and list(graphs.attribute(node, "strides", [1, 1])) == [1, 1]
        return plain and node.output[0] in self.outputs and self.values[node.input[1]].shape[2:] == (1, 1)

    def _heads(self, node: onnx.NodeProto) -> None:
        """All outputs that 1x1 convolutions make of one map: uint8 in, float32 out."""
        source = node.input[0]
        group = [
            n
            for n in self.graph.node
            if n.op_type == "Conv" and n.input[0] == source and n.name not in self.keep and self._is_head(n)
        ]
        weight, bias = (np.concatenate(parts) for parts in zip(*(self._weight(n) for n in group)))
        steps = weight_scales(weight)
        rounded = np.clip(np.rint(weight / steps[:, None, None, None]), -127, 127).astype(np.int8)
        data, (scale, zero) = self.as_bytes(source), self._scale_inputs(source)
        name = group[0].name
        made = self._emit(
            "MatMulIntegerToFloat",
            [
                data,
                self._constant(name + ".weight", rounded[:, :, 0, 0].T),
                scale,
                self._constant(name + ".weight.scale", steps.astype(np.float32)),
                zero,
                self._constant(name + ".weight.zero", np.zeros(len(weight), np.int8)),
                self._constant(name + ".bias", bias.astype(np.float32)),
            ],
            name + ".nhwc",
            domain=MICROSOFT,
        )
        outputs = [n.output[0] for n in group]
        first = self._emit("Transpose", [made], outputs[0] if len(group) == 1 else name + ".nchw", perm=[0, 3, 1, 2])
        if len(group) > 1:
            sizes = self._constant(name + ".split", np.array([len(self._weight(n)[0]) for n in group], np.int64))
            self.nodes.append(helper.make_node("Split", [first, sizes], outputs, name=name + "/Split", axis=1))
        self.floats.update({output: output for output in outputs})

    def _conv(self, node: onnx.NodeProto) -> None:
        source, output = node.input[0], self._fused(node)
        weight, bias = self._weight(node)
        steps = weight_scales(weight)
        rounded = np.clip(np.rint(weight / steps[:, None, None, None]), -127, 127).astype(np.int8)
        data = self.as_bytes(source)
        accumulator = float(self._scale(source)[0]) * steps
        whole_bias = np.clip(np.rint(bias / accumulator), -(2**31), 2**31 - 1).astype(np.int32)
        name = node.name
        self.bytes[output] = self._emit(
            "QLinearConv",
            [
                data,
                *self._scale_inputs(source),
                self._constant(name + ".weight", rounded),
                self._constant(name + ".weight.scale", steps.astype(np.float32)),
                self._constant(name + ".weight.zero", np.zeros(len(weight), np.int8)),
                *self._scale_inputs(output),
                self._constant(name + ".bias", whole_bias),
            ],
            output + ".u8",
            domain=MICROSOFT,
            channels_last=1,
            kernel_shape=list(weight.shape[2:]),
            strides=list(graphs.attribute(node, "strides", [1, 1])),
            pads=list(graphs.attribute(node, "pads", [0] * 4)),
            group=graphs.attribute(node, "group", 1),
        )

    def _add(self, node: onnx.NodeProto) -> None:
        output = self._fused(node)
        inputs = []
        for name in sorted(node.input, key=lambda name: name in self.waiting):
            inputs += [self.as_bytes(name), *self._scale_inputs(name)]
        self.bytes[output] = self._emit(
            "QLinearAdd", inputs + list(self._scale_inputs(output)), output + ".u8", domain=MICROSOFT
        )

    def _upsample(self, node: onnx.NodeProto) -> None:
        """Nearest, twice: (1, h, w, c) -> (1, h, 2w, c) -> (1, 2h, 2w, c), by copying.

        The last shape is that of the map it is added to; where there is none, Resize does it.
        """
        source, output = node.input[0], node.output[0]
        data = self.bytes[source]
        partner = self._partner(output)
        if partner is None:
            scales = self._constant("upsample.scales", np.array([1, 2, 2, 1], np.float32))
            self.bytes[output] = self._emit(
                "Resize",
                [data, "", scales],
                output + ".u8",
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
            return
        channels = self._channels(source)
        twice = self._emit("Concat", [data, data], output + ".wide", axis=3)
        shape = self._constant(f"upsample.rows.{channels}", np.array([0, 0, -1, channels], np.int64))
        rows = self._emit("Reshape", [twice, shape], output + ".rows")
        both = self._emit("Concat", [rows, rows], output + ".tall", axis=2)
        size = self._emit("Shape", [partner], output + ".shape")
        self.bytes[output] = self._emit("Reshape", [both, size], output + ".u8")

    def _partner(self, resized: str) -> str | None:
        """The uint8 form of what a resized map is added to, where there is such a map."""
        for reader in self.readers[resized]:
            for other in reader.input if reader.op_type == "Add" else ():
                if other != resized and other in self.bytes:
                    return self.bytes[other]
        return None

    def _channels(self, name: str) -> int:
        made = graphs.producers(self.graph)
        while made[name].op_type != "Conv":
            name = made[name].input[0]
        return len(self.values[made[name].input[1]])

    def _plain(self, node: onnx.NodeProto) -> None:
        """A node that stays float32."""
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        for i, name in enumerate(node.input):
            if name in self.values:
                self._constant(name, self.values[name])
            elif name:
                copy.input[i] = self.as_float(name)
        self.nodes.append(copy)
        for name in node.output:
            self.floats[name] = name
            if node.op_type == "Relu":
                self.unsigned.add(name)
