"""A small writer of ONNX graphs, for networks whose weights do not matter.

With `weights="empty"` the initializers carry dimensions and no data: a VGG-16 is then a few kilobytes, enough for the
latency model. With `weights="random"` the file runs.
"""

from math import prod, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper


class GraphWriter:
    """Writes nodes one after the other; every method takes and returns tensor names. `shape` tells (channels, h, w)."""

    def __init__(
        self, name: str, channels: int, height: int, width: int, weights: str = "empty", seed: int = 0
    ) -> None:
        self.name = name
        self.weights = weights
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.shape: dict[str, tuple[int, ...]] = {"image": (channels, height, width)}

    def node(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        """Any operator; `shape`: (channels, height, width) of what it gives."""
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        self.shape[output] = shape
        return output

    def weight(self, *dims: int, scale: float | None = None) -> str:
        name = f"weight_{len(self.initializers)}"
        if self.weights == "empty":
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims)
        else:
            deviation = sqrt(2 / max(1, prod(dims[1:]))) if scale is None else scale
            values = self.random.standard_normal(dims, dtype=np.float32) * np.float32(deviation)
            tensor = numpy_helper.from_array(values, name)
        self.initializers.append(tensor)
        return name

    def constant(self, values: npt.ArrayLike) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def conv(
        self,
        x: str,
        out: int,
        kernel: int | tuple[int, int] = 3,
        stride: int = 1,
        pad: int | tuple[int, int] | None = None,
        groups: int = 1,
        act: str | None = "relu",
        bias: bool = True,
    ) -> str:
        """Convolution (its batch normalisation folded) and activation: None, relu, leaky, relu6, silu, hswish."""
        channels, height, width = self.shape[x]
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        ph, pw = (kh // 2, kw // 2) if pad is None else (pad, pad) if isinstance(pad, int) else pad
        shape = (out, (height + 2 * ph - kh) // stride + 1, (width + 2 * pw - kw) // stride + 1)
        inputs = [x, self.weight(out, channels // groups, kh, kw)] + ([self.weight(out, scale=0.01)] if bias else [])
        y = self.node(
            "Conv", inputs, shape, kernel_shape=[kh, kw], strides=[stride, stride], pads=[ph, pw, ph, pw], group=groups
        )
        return self.act(y, act)

    def act(self, x: str, kind: str | None) -> str:
        shape = self.shape[x]
        if kind is None:
            return x
        if kind == "relu":
            return self.node("Relu", [x], shape)
        if kind == "leaky":
            return self.node("LeakyRelu", [x], shape, alpha=0.1)
        if kind == "relu6":
            return self.node("Clip", [x, self.constant(np.float32(0)), self.constant(np.float32(6))], shape)
        if kind == "silu":
            return self.node("Mul", [x, self.node("Sigmoid", [x], shape)], shape)
        if kind == "hswish":
            return self.node("Mul", [x, self.node("HardSigmoid", [x], shape, alpha=1 / 6, beta=0.5)], shape)
        raise ValueError(kind)

    def norm(self, x: str, act: str | None = "relu") -> str:
        channels = self.shape[x][0]
        rest = [self.weight(channels, scale=0.1), self.weight(channels, scale=0.1), self.weight(channels, scale=0.1)]
        positive = self.constant(np.ones(channels, np.float32))
        return self.act(self.node("BatchNormalization", [x, *rest, positive], self.shape[x]), act)

    def pool(
        self, x: str, kernel: int = 2, stride: int = 2, pad: int = 0, kind: str = "MaxPool", ceil: bool = False
    ) -> str:
        channels, height, width = self.shape[x]
        extra = stride - 1 if ceil else 0
        shape = (channels, *((side + 2 * pad - kernel + extra) // stride + 1 for side in (height, width)))
        return self.node(
            kind,
            [x],
            shape,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            ceil_mode=int(ceil),
        )

    def mean(self, x: str) -> str:
        return self.node("GlobalAveragePool", [x], (self.shape[x][0], 1, 1))

    def add(self, a: str, b: str, act: str | None = None) -> str:
        return self.act(self.node("Add", [a, b], self.shape[a]), act)

    def concat(self, *xs: str) -> str:
        _, height, width = self.shape[xs[0]]
        return self.node("Concat", list(xs), (sum(self.shape[x][0] for x in xs), height, width), axis=1)

    def upsample(self, x: str) -> str:
        channels, height, width = self.shape[x]
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        return self.node(
            "Resize",
            [x, "", scales],
            (channels, 2 * height, 2 * width),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def part(self, x: str, first: int, last: int) -> str:
        _, height, width = self.shape[x]
        inputs = [x, *(self.constant(np.array([value], np.int64)) for value in (first, last, 1))]
        return self.node("Slice", inputs, (last - first, height, width))

    def flatten(self, x: str) -> str:
        return self.node("Flatten", [x], (prod(self.shape[x]), 1, 1))

    def dense(self, x: str, out: int, act: str | None = "relu") -> str:
        inputs = [x, self.weight(out, self.shape[x][0]), self.weight(out, scale=0.01)]
        return self.act(self.node("Gemm", inputs, (out, 1, 1), transB=1), act)

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The network so far, with `outputs`; IR 7, opset 13."""

        def value(name: str, shape: tuple[int, ...] | None) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            self.nodes,
            self.name,
            [value("image", (1, *self.shape["image"]))],
            [value(name, None) for name in outputs],
            self.initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
