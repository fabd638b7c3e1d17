"""What must be known of an ONNX file before a builder sees it, read from its bytes: a Jetson has no onnx package.

Field numbers: onnx.proto3 of ONNX. Only messages needed here are entered; weights are skipped, not copied.
"""

import struct
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from jetson.errors import BadInput

FLOAT, UINT8, INT8, FLOAT16 = 1, 2, 3, 10
TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "double"}


class Node(NamedTuple):
    name: str
    op: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]


class Value(NamedTuple):
    name: str
    type: int
    shape: Tuple[Any, ...]  # int, str or None


class Facts(
    NamedTuple(
        "Facts",
        [
            ("ir_version", int),
            ("opset", int),
            ("nodes", Tuple[Node, ...]),
            ("inputs", Tuple[Value, ...]),
            ("outputs", Tuple[Value, ...]),
            ("initializers", Dict[str, int]),
        ],
    )
):
    """An ONNX model's facts; `initializers`: name -> element type; `inputs` without initializers."""

    __slots__ = ()

    @property
    def quantized(self) -> bool:
        """Whether the graph holds Q/DQ nodes."""
        return any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in self.nodes)

    @property
    def half(self) -> bool:
        """Whether the graph carries FP16 itself: weights, inputs or outputs."""
        return FLOAT16 in self.initializers.values() or any(v.type == FLOAT16 for v in self.inputs + self.outputs)


class _Broken(Exception):
    pass


def _varint(data: memoryview, at: int) -> Tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _Broken(f"a number is cut off at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: memoryview) -> Iterator[Tuple[int, Any]]:
    """(field number, int or memoryview) of one protobuf message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            if at + size > len(data):
                raise _Broken(f"a number is cut off at byte {at}")
            (value,) = struct.unpack("<Q" if kind == 1 else "<I", data[at : at + size])
            at += size
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise _Broken(f"{size} bytes are announced, {len(data) - at} are left")
            value = data[at : at + size]  # type: ignore[assignment]
            at += size
        else:
            raise _Broken(f"wire type {kind}")
        if not tag >> 3:
            raise _Broken("field number 0")
        yield tag >> 3, value


def _message(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise _Broken("a number where a message is due")
    return value


def _text(value: Any) -> str:
    return bytes(_message(value)).decode("utf-8", "replace")


def _number(value: Any) -> int:
    if isinstance(value, memoryview):
        raise _Broken("a message where a number is due")
    return value - (1 << 64) if value >> 63 else value


def _node(data: memoryview) -> Node:
    inputs: List[str] = []
    outputs: List[str] = []
    name = op = ""
    for field, value in _fields(data):
        if field == 1:
            inputs.append(_text(value))
        elif field == 2:
            outputs.append(_text(value))
        elif field == 3:
            name = _text(value)
        elif field == 4:
            op = _text(value)
    return Node(name, op, tuple(inputs), tuple(outputs))


def _dimension(data: memoryview) -> Any:
    for field, value in _fields(data):
        if field == 1:
            return _number(value)
        if field == 2:
            return _text(value)
    return None


def _value(data: memoryview) -> Value:
    name, kind = "", 0
    shape: List[Any] = []
    for field, value in _fields(data):
        if field == 1:
            name = _text(value)
        elif field == 2:
            for case, tensor in _fields(_message(value)):
                if case != 1:
                    continue
                for part, inner in _fields(_message(tensor)):
                    if part == 1:
                        kind = _number(inner)
                    elif part == 2:
                        shape = [_dimension(_message(d)) for number, d in _fields(_message(inner)) if number == 1]
    return Value(name, kind, tuple(shape))


def _initializer(data: memoryview) -> Tuple[str, int]:
    name, kind = "", 0
    for field, value in _fields(data):
        if field == 2:
            kind = _number(value)
        elif field == 8:
            name = _text(value)
    return name, kind


def parse(data: bytes, where: str = "model") -> Facts:
    """The facts of a serialised ONNX model; BadInput when it is none."""
    ir_version = opset = 0
    graph: Optional[memoryview] = None
    nodes: List[Node] = []
    inputs: List[Value] = []
    outputs: List[Value] = []
    initializers: Dict[str, int] = {}
    try:
        for field, value in _fields(memoryview(data)):
            if field == 1:
                ir_version = _number(value)
            elif field == 7:
                graph = _message(value)
            elif field == 8:
                fields = dict(_fields(_message(value)))
                if _text(fields.get(1, memoryview(b""))) in ("", "ai.onnx"):
                    opset = _number(fields.get(2, 0))
        if graph is None:
            raise _Broken("it holds no graph")
        for field, value in _fields(graph):
            if field == 1:
                nodes.append(_node(_message(value)))
            elif field == 5:
                name, kind = _initializer(_message(value))
                initializers[name] = kind
            elif field == 11:
                inputs.append(_value(_message(value)))
            elif field == 12:
                outputs.append(_value(_message(value)))
    except _Broken as error:
        raise BadInput(
            f"not an ONNX model: {error}", where, "an ONNX file", "verify the bundle, or export the model again"
        ) from error
    given = tuple(value for value in inputs if value.name not in initializers)
    return Facts(ir_version, opset, tuple(nodes), given, tuple(outputs), initializers)
