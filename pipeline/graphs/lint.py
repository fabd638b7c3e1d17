"""What a target's TensorRT would refuse, found on the workstation: node, rule, source and mend.

Sources: onnx-tensorrt, branches release/8.2-GA to 10.1-GA (docs/operators.md and the importers), TensorRT's headers
8.2.1 to 11.1. Each rule names its own. Rules hold from the first version to the one named, so that a newer TensorRT
is not warned about what only an old one lacks.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
import onnx

from jetson.errors import UsageError
from pipeline import targets
from pipeline.graphs import edit as graphs
from pipeline.graphs.inline import walk

LATEST = (99,)
OPERATORS_MD = "onnx-tensorrt docs/operators.md"

# docs/operators.md of 8.2 and 8.4 (opset 13), without the loops, recurrences and random numbers no detector holds.
OPERATORS = frozenset(
    (
        "Abs",
        "Acos",
        "Acosh",
        "Add",
        "And",
        "ArgMax",
        "ArgMin",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "ConvTranspose",
        "Cos",
        "Cosh",
        "CumSum",
        "DepthToSpace",
        "DequantizeLinear",
        "Div",
        "Dropout",
        "Einsum",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "GatherElements",
        "GatherND",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "Identity",
        "If",
        "InstanceNormalization",
        "IsNaN",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "LogSoftmax",
        "Loop",
        "LRN",
        "MatMul",
        "Max",
        "MaxPool",
        "Mean",
        "Min",
        "Mul",
        "Neg",
        "NonMaxSuppression",
        "Not",
        "Or",
        "Pad",
        "PRelu",
        "Pow",
        "QuantizeLinear",
        "Range",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Relu",
        "Reshape",
        "Resize",
        "Round",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "Selu",
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Size",
        "Slice",
        "Softmax",
        "Softplus",
        "Softsign",
        "SpaceToDepth",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Sum",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
        "Tile",
        "TopK",
        "Transpose",
        "Unsqueeze",
        "Upsample",
        "Where",
    )
)
# First version whose parser takes it.
LATER_OPERATORS = {
    "NonZero": (8, 5),
    "GridSample": (8, 5),
    "OneHot": (8, 5),
    "Mod": (8, 5),
    "RoiAlign": (8, 5),
    "HardSwish": (8, 6),
    "GroupNormalization": (10, 0),
    "LayerNormalization": (10, 0),
    "Gelu": (10, 0),
}
MENDS = {
    "HardSwish": "write it as x * HardSigmoid(x) with alpha 1/6 and beta 0.5, or use ReLU",
    "NonMaxSuppression": "leave NMS out of the graph: jetson.vision.boxes does it on the CPU",
    "QLinearConv": "this is the int8-cpu form: give TensorRT the .int8.onnx file",
    "QLinearMatMul": "quantise with Q/DQ: pipeline.quantization.quantize.int8_tensorrt",
    "DynamicQuantizeLinear": "quantise statically: pipeline.quantization.quantize.int8_tensorrt",
    "ConvInteger": "quantise with Q/DQ: pipeline.quantization.quantize.int8_tensorrt",
}
OPSETS = (((8, 2), 13), ((8, 4), 13), ((8, 6), 17), ((10, 12), 20), (LATEST, 24))
RESIZE_COORDINATES = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")


class Finding(NamedTuple):
    """One thing that the TensorRT of a target would refuse. node: its name, or "" for the whole file."""

    node: str
    rule: str
    what: str
    source: str
    mend: str


def describe(finding: Finding) -> str:
    """One finding as the lines a user reads."""
    return "{}: {}\n  rule: {} ({})\n  do: {}".format(
        finding.node or "the file",
        finding.what,
        finding.rule,
        finding.source,
        finding.mend,
    )


def require_tensorrt(device: targets.Target) -> None:
    """UsageError where a target has no TensorRT whose rules could be asked."""
    if not device.tensorrt:
        raise UsageError(
            f"{device.name} has no TensorRT to lint for",
            where="--target",
            expected="one of " + ", ".join(t.name for t in targets.TARGETS.values() if t.tensorrt),
        )


def lint(onnx_path: str, target: str | targets.Target = "nano") -> list[Finding]:
    """What the oldest TensorRT of a target refuses in a model: a list of Finding, empty when it is fine.

    target: a name of pipeline.targets, or a Target. BadInput where the file is no ONNX model.
    """
    device = target if isinstance(target, targets.Target) else targets.target(target)
    require_tensorrt(device)
    model = graphs.read(onnx_path)
    version = min(tuple(int(part) for part in text.split(".")[:2]) for text in device.tensorrt)
    return _Linter(model, version, device).findings()


class _Linter:
    def __init__(self, model: onnx.ModelProto, version: tuple[int, ...], device: targets.Target) -> None:
        self.model, self.graph, self.version, self.device = model, model.graph, version, device
        self.fixed: dict[str, np.ndarray] = {}
        self.made: dict[str, onnx.NodeProto] = {}
        self.found: list[Finding] = []

    def add(self, node: onnx.NodeProto | None, rule: str, what: str, source: str, mend: str) -> None:
        name = "" if node is None else node.name or node.output[0]
        self.found.append(Finding(name, rule, what, source, mend))

    def findings(self) -> list[Finding]:
        self._file()
        # The parser reads every branch and body too, whichever is to run; they see the names outside of them.
        for graph in (*walk(self.graph), *self.model.functions):
            self.fixed.update(graphs.constants(graph))
            self.made.update(graphs.producers(graph))
            for node in graph.node:
                if self._known(node):
                    check = getattr(self, "_" + node.op_type.lower(), None)
                    if check is not None:
                        check(node)
        return self.found

    def _named(self) -> str:
        return f"TensorRT {self.version[0]}.{self.version[1]}"

    def _file(self) -> None:
        limit = next(opset for until, opset in OPSETS if self.version <= until)
        for entry in self.model.opset_import:
            if entry.domain in ("", "ai.onnx") and entry.version > limit:
                self.add(
                    None,
                    f"opset at most {limit} for {self._named()}",
                    f"opset {entry.version}",
                    OPERATORS_MD,
                    "export with opset 13: jetmask export",
                )
        stored = set(graphs.input_names(self.graph))
        for entry in self.graph.input:
            kind = entry.type.tensor_type.elem_type
            if entry.name in stored and kind == onnx.TensorProto.UINT8 and self.version < (8, 5):
                self.add(
                    None,
                    "no uint8 input before 8.5",
                    f"input {entry.name} is uint8",
                    "onnx-tensorrt 8.2 convertDtype: 'Unsupported ONNX data type: UINT8 (2)'",
                    "feed float32, raw 0..255",
                )
        doubled = [name for name, count in Counter(n.name for n in self.graph.node if n.name).items() if count > 1]
        everything = [node for graph in walk(self.graph) for node in graph.node]
        for name in doubled:
            self.add(
                None,
                "layer names are unique",
                f"two nodes are called {name}",
                "TensorRT network validation",
                "export again: jetmask export names them",
            )
        if "int8" not in self.device.fast_precisions and any(n.op_type == "QuantizeLinear" for n in everything):
            self.add(
                None,
                "no Q/DQ without INT8 hardware",
                f"{self.device.title} has no INT8: {self.device.slow_precision_reason}",
                "NVIDIA/TensorRT issue 3399: 'Networks with QuantizeLayer/DequantizeLayer layers require hardware "
                "with Int8 support'",
                "use the float32 file with FP16 there",
            )

    def _known(self, node: onnx.NodeProto) -> bool:
        since = LATER_OPERATORS.get(node.op_type)
        ours = node.domain in ("", "ai.onnx")
        if ours and (node.op_type in OPERATORS or (since and self.version >= since)):
            return True
        name = node.op_type if ours else f"{node.domain}.{node.op_type}"
        self.add(
            node,
            f"only operators that {self._named()} parses",
            "operator {} {}".format(
                name, f"comes with {since[0]}.{since[1]}" if since else "is not known to be parsed"
            ),
            OPERATORS_MD,
            MENDS.get(node.op_type, "build the model from Conv, Relu, Add and Resize"),
        )
        return False

    def _weights(self, node: onnx.NodeProto, bias: bool) -> None:
        weight = node.input[1]
        maker = self.made.get(weight)
        if weight not in self.fixed:
            behind = maker is not None and maker.op_type == "DequantizeLinear"
            source = maker.input[0] if maker is not None and behind else ""
            inner = self.made.get(source)
            float_behind = inner is not None and inner.op_type == "QuantizeLinear" and inner.input[0] in self.fixed
            if not behind or not (float_behind or source in self.fixed):
                self.add(
                    node,
                    "weights are an initializer, or Q/DQ of one",
                    f"weights come from {maker.op_type if maker is not None else 'an input'}",
                    OPERATORS_MD + ", Conv",
                    "fold them into a constant",
                )
            elif source in self.fixed and self.version < (8, 6):
                self.add(
                    node,
                    "weights are float32 behind a Q/DQ pair",
                    "weights are stored as int8",
                    "NvInfer.h 8.2.1, IConstantLayer: no INT8 output",
                    "keep float32 weights and add Q and DQ: pipeline.quantization.quantize.int8_tensorrt",
                )
        dims = self.fixed[weight].ndim if weight in self.fixed else 4
        if dims not in (4, 5):
            self.add(
                node,
                "2D or 3D only",
                f"its weights have {dims} dimensions",
                OPERATORS_MD + ", Conv",
                "use 2D convolutions",
            )
        if bias and len(node.input) > 2 and node.input[2] and node.input[2] not in self.fixed:
            self.add(
                node,
                "the bias is an initializer",
                "its bias is computed (int32 behind DequantizeLinear?)",
                "onnx-tensorrt 8.2 importConv: 'The bias tensor is required to be an initializer for the Conv "
                "operator'",
                "leave biases in float: no Q/DQ on them",
            )

    def _conv(self, node: onnx.NodeProto) -> None:
        self._weights(node, bias=True)

    def _convtranspose(self, node: onnx.NodeProto) -> None:
        self._weights(node, bias=True)

    def _maxpool(self, node: onnx.NodeProto) -> None:
        if len(node.output) > 1 and node.output[1]:
            self.add(node, "no Indices output", "it gives indices", OPERATORS_MD + ", MaxPool", "drop that output")

    def _cast(self, node: onnx.NodeProto) -> None:
        if graphs.attribute(node, "to") == onnx.TensorProto.UINT8 and self.version < (8, 6):
            self.add(
                node,
                "no cast to uint8 before 8.6",
                "it casts to uint8",
                OPERATORS_MD + ", Cast",
                "keep images in float32",
            )

    def _resize(self, node: onnx.NodeProto) -> None:
        mode = graphs.attribute(node, "mode", "nearest")
        coordinates = graphs.attribute(node, "coordinate_transformation_mode", "half_pixel")
        nearest = graphs.attribute(node, "nearest_mode", "round_prefer_floor")
        source, mend = OPERATORS_MD + ", Resize", "resize by scales, nearest, asymmetric, floor"
        if mode not in ("nearest", "linear"):
            self.add(node, "nearest or linear only", f"its mode is {mode}", source, mend)
        if coordinates not in RESIZE_COORDINATES:
            self.add(node, "known coordinates only", f"its coordinates are {coordinates}", source, mend)
        if coordinates == "tf_half_pixel_for_nn" and nearest != "round_prefer_floor":
            self.add(
                node,
                "tf_half_pixel_for_nn rounds round_prefer_floor",
                f"it rounds {nearest}",
                "onnx-tensorrt 8.2 importResize",
                mend,
            )
        by_scales = len(node.input) > 2 and node.input[2]
        by_sizes = len(node.input) > 3 and node.input[3]
        if by_scales and node.input[2] not in self.fixed and not by_sizes:
            self.add(node, "scales are an initializer", "its scales are computed", source, mend)

    def _topk(self, node: onnx.NodeProto) -> None:
        count = self.fixed.get(node.input[1]) if len(node.input) > 1 else None
        if count is None or count.size != 1:
            self.add(node, "K is one initializer", "its K is computed", OPERATORS_MD + ", TopK", "fix K at export")
        elif int(count.reshape(-1)[0]) > 3840:
            self.add(
                node,
                "K at most 3840",
                f"its K is {int(count.reshape(-1)[0])}",
                "NvInfer.h, ITopKLayer",
                "choose candidates on the CPU: jetson.vision.boxes does",
            )

    def _slice(self, node: onnx.NodeProto) -> None:
        if len(node.input) > 3 and node.input[3] and node.input[3] not in self.fixed:
            self.add(node, "axes are an initializer", "its axes are computed", OPERATORS_MD + ", Slice", "fix the axes")

    def _squeeze(self, node: onnx.NodeProto) -> None:
        if len(node.input) > 1 and node.input[1] and node.input[1] not in self.fixed:
            self.add(node, "axes are an initializer", "its axes are computed", OPERATORS_MD, "fix the axes")

    _unsqueeze = _squeeze

    def _nonmaxsuppression(self, node: onnx.NodeProto) -> None:
        if self.version < (8, 5):
            self.add(
                node,
                "no NMS layer before 8.5",
                "it becomes an experimental plugin with padded output",
                OPERATORS_MD + ", NonMaxSuppression",
                MENDS["NonMaxSuppression"],
            )

    def _quantizelinear(self, node: onnx.NodeProto) -> None:
        self._scale(node)

    def _dequantizelinear(self, node: onnx.NodeProto) -> None:
        self._scale(node)

    def _scale(self, node: onnx.NodeProto) -> None:
        source = "onnx-tensorrt 8.2 QuantDequantLinearHelper"
        mend = "write Q/DQ with pipeline.quantization.quantize.int8_tensorrt"
        zero = self.fixed.get(node.input[2]) if len(node.input) > 2 else None
        scale = self.fixed.get(node.input[1])
        if len(node.input) != 3:
            if self.version < (8, 6):
                self.add(
                    node,
                    "three inputs: x, scale and zero point",
                    f"it has {len(node.input)}",
                    source + f": 'This version of TensorRT requires 3 inputs for the {node.op_type} operator'",
                    mend,
                )
        elif zero is None:
            self.add(node, "the zero point is a constant", "its zero point is computed", source, mend)
        elif np.any(zero):
            self.add(
                node,
                "symmetric only",
                "its zero point is not 0",
                source + ": 'TRT only supports symmetric quantization - zeroPt must be all zeros'",
                mend,
            )
        elif zero.dtype != np.int8:
            self.add(node, "signed int8 only", f"its type is {zero.dtype}", "NvInfer.h 8.2.1, IQuantizeLayer", mend)
        if scale is None:
            self.add(node, "scales are build-time constants", "its scale is computed", source, mend)
            return
        if not np.all(scale > 0):
            self.add(node, "scales are positive", f"a scale is {float(scale.min()):g}", source, mend)
        if zero is not None and zero.size != scale.size:
            self.add(node, "scale and zero point have the same size", f"{scale.size} and {zero.size}", source, mend)
        if scale.size > 1:
            of_weights = node.input[0] in self.fixed or (
                node.input[0] in self.made
                and self.made[node.input[0]].op_type == "QuantizeLinear"
                and self.made[node.input[0]].input[0] in self.fixed
            )
            if not of_weights:
                self.add(node, "one scale per activation", f"it has {scale.size} scales", source, mend)
            elif graphs.attribute(node, "axis", 1) != 0:
                self.add(
                    node,
                    "weights are scaled along axis 0",
                    f"axis {int(graphs.attribute(node, 'axis', 1))}",
                    "onnx-tensorrt 8.2 takes axis 0 for a vector; ONNX's default is 1",
                    mend,
                )
