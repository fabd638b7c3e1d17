"""What an engine builder makes of a graph: nodes merged into the layers that are really launched.

The rules are those of NVIDIA's TensorRT developer guide, "Types of fusions" (8.2): convolution + batch normalisation +
residual sum + ReLU or Clip in one kernel, other activations as pointwise kernels, chains of pointwise operations
merged, concatenation along channels written in place, reshapes free.
"""

from collections import Counter
from math import prod
from typing import Any, NamedTuple

from jetson.errors import BadInput
from pipeline.graphs.shapes import Graph, Node

FREE = {
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Dropout",
    "Cast",
    "QuantizeLinear",
    "DequantizeLinear",
}
SCALE = {"BatchNormalization", "Mul", "Add", "Sub", "Div"}
POINTWISE = SCALE | {
    "Relu",
    "Clip",
    "LeakyRelu",
    "PRelu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Elu",
    "Selu",
    "Softplus",
    "Mish",
    "Gelu",
    "Softsign",
    "Exp",
    "Log",
    "Sqrt",
    "Pow",
    "Neg",
    "Abs",
    "Erf",
    "Max",
    "Min",
    "Sum",
    "Where",
    "Floor",
    "Ceil",
    "Reciprocal",
    "Swish",
}
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
KINDS = {
    "MaxPool": "pool",
    "AveragePool": "pool",
    "LpPool": "pool",
    "GlobalAveragePool": "reduce",
    "GlobalMaxPool": "reduce",
    "ReduceMean": "reduce",
    "ReduceMax": "reduce",
    "ReduceSum": "reduce",
    "Softmax": "reduce",
    "LogSoftmax": "reduce",
    "ArgMax": "reduce",
    "Resize": "copy",
    "Upsample": "copy",
    "Transpose": "copy",
    "Slice": "copy",
    "Split": "copy",
    "Pad": "copy",
    "Gather": "copy",
    "Expand": "copy",
    "Tile": "copy",
    "DepthToSpace": "copy",
    "SpaceToDepth": "copy",
    "Concat": "copy",
}


class Rules(NamedTuple):
    """How an engine merges nodes. conversions: it converts inputs and outputs to its own layout."""

    activations: frozenset[str]
    merges_pointwise: bool
    concat_in_place: bool
    conversions: bool


TENSORRT = Rules(frozenset({"Relu", "Clip"}), merges_pointwise=True, concat_in_place=True, conversions=True)
# ONNX Runtime's ConvActivationFusion and ConvAddFusion; it copies at every Concat.
ONNXRUNTIME = Rules(
    frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid"}),
    merges_pointwise=False,
    concat_in_place=False,
    conversions=False,
)


class Layer(NamedTuple):
    """One launched kernel.

    kind: conv, depthwise, fc, matmul, pointwise, pool, reduce, copy or other.
    read, written, weights: elements (activations in and out, parameters); macs: multiply-adds.
    rows x columns x depth, `groups` times, is the matrix product that it amounts to
    (output pixels x output channels x window), zero for what is none. window: (height, width), stride likewise.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    macs: int
    read: int
    written: int
    weights: int
    rows: int = 0
    columns: int = 0
    depth: int = 0
    groups: int = 1
    window: tuple[int, ...] = (1, 1)
    stride: tuple[int, ...] = (1, 1)
    dilation: tuple[int, ...] = (1, 1)


def counted(node: Node) -> bool:
    """Whether the products of a node are counted; those of an LSTM, say, with weights but no rule here, are not."""
    return (
        node.op in WEIGHTED
        or node.op in POINTWISE
        or node.op in FREE
        or node.op in KINDS
        or all(len(dims) < 2 for dims in node.weights.values())
    )


def layers(graph: Graph, rules: Rules = TENSORRT) -> list[Layer]:
    """The launched layers of `graph`, in order."""
    return _Fusion(graph, rules).run()


def _gemm_depth(node: Node) -> int | None:
    """The inner dimension that the constant operand of a Gemm or MatMul asks for."""
    if len(node.weights.get(1, ())) != 2:
        return None
    return node.weights[1][1 if node.op == "Gemm" and node.attributes.get("transB", 0) else 0]


class _Fusion:
    def __init__(self, graph: Graph, rules: Rules) -> None:
        self.rules = rules
        self.graph = graph
        self.size = {name: prod(shape) for name, shape in graph.shapes.items()}
        self.alias: dict[str, str] = {}  # the output of a free node -> the tensor whose memory it is
        live = []
        for node in graph.nodes:
            if node.op in FREE and node.inputs:
                self.alias[node.outputs[0]] = self.root(node.inputs[0])
            else:
                live.append(node)
        self.nodes = live
        self.consumers: dict[str, list[Node | None]] = {}
        for node in live:
            for name in node.inputs:
                self.consumers.setdefault(self.root(name), []).append(node)
        for name in graph.outputs:
            self.consumers.setdefault(self.root(name), []).append(None)
        self.done: set[int] = set()
        self.ready = {self.root(name) for name in graph.inputs}
        self.placed: set[str] = set()  # tensors that already live inside a concatenation's buffer
        self.prefixes: dict[tuple[str, ...], str] = {}  # inputs of an earlier concatenation -> its output

    def root(self, name: str) -> str:
        return self.alias.get(name, name)

    def run(self) -> list[Layer]:
        out = []
        for name in self.graph.inputs if self.rules.conversions else ():
            size = self.size.get(name, 0)
            out.append(Layer(f"convert {name}", "copy", (), 0, size, size, 0))
        for node in self.nodes:
            if id(node) in self.done:
                continue
            if node.op == "Concat":
                out.extend(self.concat(node))
            elif node.op in WEIGHTED:
                out.append(self.weighted(node))
            elif node.op in POINTWISE:
                out.append(self.chain(node))
            else:
                out.append(self.single(node))
        for name in self.graph.outputs if self.rules.conversions else ():
            size = self.size.get(self.root(name), 0)
            out.append(Layer(f"convert {name}", "copy", (), 0, size, size, 0))
        return out

    def take(self, node: Node) -> None:
        self.done.add(id(node))
        self.ready.update(self.root(name) for name in node.outputs)

    def read(self, node: Node) -> int:
        return sum(self.size.get(name, 0) for name in {self.root(name) for name in node.inputs})

    def only_consumer(self, tensor: str) -> Node | None:
        users = self.consumers.get(tensor, [])
        return users[0] if len(users) == 1 and users[0] is not None else None

    def others(self, node: Node, tensor: str) -> list[str]:
        return [self.root(name) for name in node.inputs if self.root(name) != tensor]

    def weighted(self, node: Node) -> Layer:
        self.take(node)
        taken, tensor, extra, summed = [node], self.root(node.outputs[0]), 0, False
        while True:
            after = self.only_consumer(tensor)
            if after is None:
                break
            others = self.others(after, tensor)
            if after.op in SCALE and not others:
                pass
            elif after.op in ("Add", "Sum") and len(others) == 1 and not summed:
                # The residual sum goes into the convolution that runs last; the other branch must exist by then.
                if others[0] not in self.ready or self.size.get(others[0]) != self.size.get(tensor):
                    break
                extra, summed = self.size[others[0]], True
            elif after.op in self.rules.activations:
                self.take(after)
                taken.append(after)
                tensor = self.root(after.outputs[0])
                break
            else:
                break
            self.take(after)
            taken.append(after)
            tensor = self.root(after.outputs[0])
        shape_in = self.graph.shapes[node.inputs[0]]
        shape_out = self.graph.shapes[node.outputs[0]]
        names = tuple(item.name for item in taken)
        read, written = self.read(node) + extra, self.size[tensor]
        weights = sum(prod(dims) for dims in node.weights.values())
        common: dict[str, Any] = {
            "name": " + ".join(names),
            "nodes": names,
            "read": read,
            "written": written,
            "weights": weights,
        }
        if node.op in ("Conv", "ConvTranspose"):
            groups = node.attributes.get("group", 1)
            kernel = node.weights.get(1) or self.graph.shapes[node.inputs[1]]
            window = tuple(kernel[2:])
            transposed = node.op == "ConvTranspose"
            # A transposed convolution does its products once per *input* pixel.
            over = shape_in if transposed else shape_out
            rows = prod(over[1:-1] if node.attributes.get("channels_last", 0) else over[2:])
            columns = kernel[1] * prod(window) if transposed else kernel[0] // groups
            depth = kernel[0] // groups if transposed else kernel[1] * prod(window)
            stride = tuple(node.attributes.get("strides", [1] * len(window)))
            dilation = tuple(node.attributes.get("dilations", [1] * len(window)))
            depthwise = groups > 1 and kernel[1] == 1 and not transposed
            return Layer(
                kind="depthwise" if depthwise else "conv",
                macs=rows * columns * depth * groups,
                rows=rows,
                columns=columns,
                depth=depth,
                groups=groups,
                window=window,
                stride=stride,
                dilation=dilation,
                **common,
            )
        columns, depth = shape_out[-1], shape_in[-1]
        if node.op == "Gemm" and node.attributes.get("transA", 0):
            depth = shape_in[0]
        expected = _gemm_depth(node)
        if expected is not None and expected != depth:
            raise BadInput(
                f"{node.name} takes {expected} numbers and gets {depth} at this input size",
                "model",
                "the size that its fully connected layers were made for",
                "omit --input-wh",
            )
        rows = prod(shape_out) // columns
        kind = "fc" if 1 in node.weights or 0 in node.weights else "matmul"
        return Layer(kind=kind, macs=rows * columns * depth, rows=rows, columns=columns, depth=depth, **common)

    def chain(self, node: Node) -> Layer:
        """Pointwise nodes that follow each other; operands from elsewhere count once."""
        self.take(node)
        taken, sources = [node], {self.root(name) for name in node.inputs}
        weights = sum(prod(dims) for dims in node.weights.values())
        tensor = self.root(node.outputs[0])
        while True:
            after = self.only_consumer(tensor)
            if after is None or after.op not in POINTWISE or not self.rules.merges_pointwise:
                break
            others = self.others(after, tensor)
            if any(name not in self.ready for name in others):
                break
            self.take(after)
            taken.append(after)
            sources.update(others)
            weights += sum(prod(dims) for dims in after.weights.values())
            tensor = self.root(after.outputs[0])
        names = tuple(item.name for item in taken)
        return Layer(
            " + ".join(names),
            "pointwise",
            names,
            0,
            sum(self.size.get(name, 0) for name in sources),
            self.size.get(tensor, 0),
            weights,
        )

    def concat(self, node: Node) -> list[Layer]:
        self.take(node)
        inputs = [self.root(name) for name in node.inputs]
        output = self.root(node.outputs[0])
        shape = self.graph.shapes.get(node.outputs[0], ())
        axis = node.attributes.get("axis", 1) % max(len(shape), 1)
        # Batch 1, along channels: every part is one run of memory.
        in_place = self.rules.concat_in_place and prod(shape[:axis]) == 1
        # [a, b, c] after [a, b] is the growing buffer of a dense block: the first part is one tensor.
        for length in range(len(inputs) - 1, 1, -1):
            if tuple(inputs[:length]) in self.prefixes:
                self.prefixes[tuple(inputs)] = output
                inputs = [self.prefixes[tuple(inputs[:length])]] + inputs[length:]
                break
        self.prefixes.setdefault(tuple(inputs), output)
        copies = []
        seen: Counter[str] = Counter()
        for name in inputs:
            seen[name] += 1
            if in_place and name not in self.placed and name not in self.graph.inputs and seen[name] == 1:
                self.placed.add(name)
                continue
            size = self.size.get(name, 0)
            copies.append(Layer(f"{node.name} copy of {name}", "copy", (node.name,), 0, size, size, 0))
        return copies

    def single(self, node: Node) -> Layer:
        self.take(node)
        read, written = self.read(node), sum(self.size.get(name, 0) for name in node.outputs)
        window = tuple(node.attributes.get("kernel_shape", (1, 1)))
        if node.op in ("Slice", "Gather", "Split"):
            read = min(read, written)  # only what is taken is touched
        stride = tuple(node.attributes.get("strides", [1] * len(window)))
        return Layer(
            node.name,
            KINDS.get(node.op, "other"),
            (node.name,),
            0,
            read,
            written,
            sum(prod(dims) for dims in node.weights.values()),
            window=window,
            stride=stride,
        )
