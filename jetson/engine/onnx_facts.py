"""What must be known of an ONNX file before anything else sees it, read from its bytes: a Jetson has no onnx package.

Field numbers: onnx.proto3 of ONNX. Weights are skipped, not copied. A tensor may say that its values lie in another
file, anywhere on the machine that opens the model (TensorProto.external_data); wherever a model is opened, that is
refused here, in every graph, attribute and function of it.
"""

import struct
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from jetson.errors import BadInput

FLOAT, UINT8, INT8, FLOAT16 = 1, 2, 3, 10
MOST_BYTES = 1 << 30
MOST_FIELDS = 2000000  # a detector has some thousands; a file made of nothing else would be read for hours
MOST_NESTED = 16  # graphs in attributes of graphs


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


class _External(Exception):
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


class _Reader:
    """Walks a model's messages. A message that stands twice is one to protobuf, so each is looked at."""

    def __init__(self) -> None:
        self.left = MOST_FIELDS
        self.ir_version = self.opset = 0
        self.graphs = 0
        self.nodes: List[Node] = []
        self.inputs: List[Value] = []
        self.outputs: List[Value] = []
        self.initializers: Dict[str, int] = {}

    def fields(self, data: memoryview) -> Iterator[Tuple[int, Any]]:
        """(field number, int or memoryview) of one protobuf message."""
        at = 0
        while at < len(data):
            self.left -= 1
            if self.left < 0:
                raise _Broken(f"it has over {MOST_FIELDS} fields")
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

    def model(self, data: memoryview) -> None:
        """ModelProto."""
        for field, value in self.fields(data):
            if field == 1:
                self.ir_version = _number(value)
            elif field == 7:
                self.graphs += 1
                self.graph(_message(value), 0, True)
            elif field == 8:
                domain = self._opset_import(_message(value))
                if domain[0] in ("", "ai.onnx"):
                    self.opset = domain[1]
            elif field == 20:  # TrainingInfoProto: two graphs
                for part, graph in self.fields(_message(value)):
                    if part in (1, 2):
                        self.graph(_message(graph), 1)
            elif field == 25:  # FunctionProto
                for part, inner in self.fields(_message(value)):
                    if part == 7:
                        self.node(_message(inner), 1)
                    elif part == 11:
                        self.attribute(_message(inner), 1)

    def _opset_import(self, data: memoryview) -> Tuple[str, int]:
        fields = dict(self.fields(data))
        return _text(fields.get(1, memoryview(b""))), _number(fields.get(2, 0))

    def graph(self, data: memoryview, depth: int, main: bool = False) -> None:
        """GraphProto; `main`: the one whose facts are wanted."""
        if depth > MOST_NESTED:
            raise _Broken(f"graphs nested over {MOST_NESTED} deep")
        for field, value in self.fields(data):
            if field == 1:
                node = self.node(_message(value), depth)
                if main:
                    self.nodes.append(node)
            elif field == 5:
                name, kind = self.tensor(_message(value))
                if main:
                    self.initializers[name] = kind
            elif field == 15:
                self.sparse(_message(value))
            elif main and field == 11:
                self.inputs.append(self.value(_message(value)))
            elif main and field == 12:
                self.outputs.append(self.value(_message(value)))

    def node(self, data: memoryview, depth: int) -> Node:
        """NodeProto."""
        inputs: List[str] = []
        outputs: List[str] = []
        name = op = ""
        for field, value in self.fields(data):
            if field == 1:
                inputs.append(_text(value))
            elif field == 2:
                outputs.append(_text(value))
            elif field == 3:
                name = _text(value)
            elif field == 4:
                op = _text(value)
            elif field == 5:
                self.attribute(_message(value), depth)
        return Node(name, op, tuple(inputs), tuple(outputs))

    def attribute(self, data: memoryview, depth: int) -> None:
        """AttributeProto: tensors and graphs may stand in it."""
        for field, value in self.fields(data):
            if field in (5, 10):
                self.tensor(_message(value))
            elif field in (6, 11):
                self.graph(_message(value), depth + 1)
            elif field in (22, 23):
                self.sparse(_message(value))

    def sparse(self, data: memoryview) -> None:
        """SparseTensorProto: two tensors."""
        for field, value in self.fields(data):
            if field in (1, 2):
                self.tensor(_message(value))

    def tensor(self, data: memoryview) -> Tuple[str, int]:
        """TensorProto: (name, element type); _External where its values lie elsewhere."""
        name, kind, location, external = "", 0, "", False
        for field, value in self.fields(data):
            if field == 2:
                kind = _number(value)
            elif field == 8:
                name = _text(value)
            elif field == 13:  # external_data: one entry, key and value
                external = True
                entry = dict(self.fields(_message(value)))
                if _text(entry.get(1, memoryview(b""))) == "location":
                    location = _text(entry.get(2, memoryview(b"")))
            elif field == 14 and value != 0:  # data_location
                external = True
        if external:
            raise _External(f"tensor {name[:80]!r}: {location[:80]!r}")
        return name, kind

    def _dimension(self, data: memoryview) -> Any:
        for field, value in self.fields(data):
            if field == 1:
                return _number(value)
            if field == 2:
                return _text(value)
        return None

    def value(self, data: memoryview) -> Value:
        """ValueInfoProto of a tensor."""
        name, kind = "", 0
        shape: List[Any] = []
        for field, value in self.fields(data):
            if field == 1:
                name = _text(value)
            elif field == 2:
                for case, tensor in self.fields(_message(value)):
                    if case != 1:
                        continue
                    for part, inner in self.fields(_message(tensor)):
                        if part == 1:
                            kind = _number(inner)
                        elif part == 2:
                            dimensions = [_message(d) for number, d in self.fields(_message(inner)) if number == 1]
                            shape = [self._dimension(d) for d in dimensions]
        return Value(name, kind, tuple(shape))


def parse(data: bytes, where: str = "model") -> Facts:
    """The facts of a serialised ONNX model; BadInput when it is none, or keeps values in another file."""
    reader = _Reader()
    try:
        reader.model(memoryview(data))
        if not reader.graphs:
            raise _Broken("it holds no graph")
    except _External as error:
        raise BadInput(
            "the model's weights are in a separate file",
            f"{where}, {error}",
            "an ONNX file that holds all of its weights",
            "do not use a file of unknown origin; if you made it yourself: "
            "onnx.save_model(onnx.load(FILE), FILE, save_as_external_data=False)",
        ) from None
    except _Broken as error:
        raise BadInput(
            f"not an ONNX model: {error}", where, "an ONNX file", "verify the bundle, or export the model again"
        ) from error
    given = tuple(value for value in reader.inputs if value.name not in reader.initializers)
    return Facts(
        reader.ir_version, reader.opset, tuple(reader.nodes), given, tuple(reader.outputs), reader.initializers
    )


def read(path: str) -> Tuple[bytes, Facts]:
    """The bytes of an ONNX file, and its facts: what is opened is what was looked at. BadInput as of `parse`."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"cannot read the model: {error.strerror}", path, "an ONNX file", "check the path") from error
    if len(data) > MOST_BYTES:
        raise BadInput("the model file is too large", path, f"at most {MOST_BYTES} bytes", "export a smaller model")
    return data, parse(data, path)
