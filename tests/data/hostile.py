"""Files that mean harm, made by code: ONNX messages byte by byte, pictures that announce what they do not hold."""

import struct
import zlib


def varint(number):
    data = b""
    while True:
        number, low = number >> 7, number & 0x7F
        data += bytes([low | (0x80 if number else 0)])
        if not number:
            return data


def field(number, value):
    """A protobuf field: a whole number, or bytes and text with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(*extra, name="w"):
    """TensorProto: float32 (1,) with its value, and further fields."""
    return field(1, 1) + field(2, 1) + field(8, name) + field(9, struct.pack("<f", 1.0)) + b"".join(extra)


def entry(key, value):
    """StringStringEntryProto."""
    return field(1, key) + field(2, value)


def outside(location, name="w"):
    """TensorProto whose values lie in the file `location`."""
    return field(1, 1) + field(2, 1) + field(8, name) + field(13, entry("location", location)) + field(14, 1)


def value(name, *dims):
    shape = b"".join(field(1, field(2, d) if isinstance(d, str) else field(1, d)) for d in dims)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def node(op, inputs, outputs, *attributes, name="n"):
    parts = [field(1, one) for one in inputs] + [field(2, one) for one in outputs]
    return b"".join(parts + [field(3, name), field(4, op)] + [field(5, one) for one in attributes])


def attribute(number, content, name="a"):
    return field(1, name) + field(number, content)


def graph(*nodes, extra=b""):
    """A GraphProto: image -> out, `nodes` besides, `extra` fields at the end."""
    body = b"".join(field(1, one) for one in (node("Identity", ["image"], ["out"]),) + nodes)
    return (
        body + field(2, "g") + field(11, value("image", 1, 3, 32, 32)) + field(12, value("out", 1, 3, 32, 32)) + extra
    )


def model(graph_bytes, *extra):
    return field(1, 7) + field(8, field(1, "") + field(2, 13)) + field(7, graph_bytes) + b"".join(extra)


LOCATIONS = (
    "../../secret.bin",
    "/etc/passwd",
    "../secret.bin",
    "secret.bin",
    "s.onnx",
    "",
    ".",
    "..",
    "~/secret.bin",
    "C:\\secret.bin",
    "..\\..\\secret.bin",
    "a/../../secret.bin",
    "//host/share/secret.bin",
    "file:///etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "x" * 5000,
    "\u202esecret",
    "secret.bin\n",
    "%2e%2e/secret.bin",
)


def external_models():
    """{what it is: an ONNX model that keeps values in another file}, one for each place and each spelling."""
    there = outside("../../secret.bin")
    inner = graph(extra=field(5, there))
    found = {"location " + repr(place)[:40]: model(graph(extra=field(5, outside(place)))) for place in LOCATIONS}
    both = field(13, entry("location", "../x"))
    cases = {
        "only the flag": graph(extra=field(5, tensor(field(14, 1)))),
        "only the location": graph(extra=field(5, tensor(both))),
        "a flag of 64 bits": graph(extra=field(5, tensor(both, field(14, (1 << 32) + 1)))),
        "another flag": graph(extra=field(5, tensor(field(14, 2)))),
        "the flag twice": graph(extra=field(5, tensor(field(14, 1), field(14, 0)))),
        "offset and length": graph(extra=field(5, tensor(both, field(13, entry("offset", "0")), field(14, 1)))),
        "the second tensor": graph(extra=field(5, tensor()) + field(5, there)),
        "sparse values": graph(extra=field(15, field(1, there))),
        "sparse indices": graph(extra=field(15, field(1, tensor()) + field(2, there))),
        "a constant": graph(node("Constant", [], ["c"], attribute(5, there))),
        "tensors of an attribute": graph(node("X", [], ["c"], attribute(10, there))),
        "a sparse constant": graph(node("Constant", [], ["c"], attribute(22, field(1, there)))),
        "sparse tensors of an attribute": graph(node("X", [], ["c"], attribute(23, field(2, there)))),
        "a branch of an If": graph(node("If", ["b"], ["c"], attribute(6, inner))),
        "graphs of an attribute": graph(node("X", ["b"], ["c"], attribute(11, inner))),
        "a branch of a branch": graph(node("If", [], [], attribute(6, graph(node("If", [], [], attribute(6, inner)))))),
        "a constant in a branch": graph(
            node("Loop", [], [], attribute(6, graph(node("Constant", [], ["c"], attribute(5, there)))))
        ),
    }
    found.update((what, model(one)) for what, one in cases.items())
    plain = graph()
    function = field(25, field(1, "f") + field(7, node("Constant", [], ["c"], attribute(5, there))))
    found["a function"] = model(plain, function)
    found["a function's default"] = model(plain, field(25, field(1, "f") + field(11, attribute(5, there))))
    found["training, first graph"] = model(plain, field(20, field(1, inner)))
    found["training, second graph"] = model(plain, field(20, field(2, inner)))
    found["a graph that goes on"] = model(plain, field(7, field(5, there)))  # protobuf makes one of the two
    found["a graph that began before"] = field(7, field(5, there)) + model(plain)
    return found


def broken_models():
    """{what it is: bytes that are no ONNX model, or one made to keep its reader busy}."""
    deep = graph()
    for _ in range(60):
        deep = graph(node("If", [], [], attribute(6, deep)))
    return {
        "empty": b"",
        "no graph": field(1, 7),
        "text": b"not a model" * 10,
        "cut off": model(graph())[:-5],
        "length of 2^60": field(1, 7) + varint(7 << 3 | 2) + varint(1 << 60),
        "a number without an end": b"\x08" + b"\xff" * 20,
        "a group": b"\x3b\x08\x01\x3c",
        "field 0": b"\x00\x01",
        "wire type 7": b"\x0f\x01",
        "a number for a graph": field(7, 5),
        "graphs nested over": model(deep),
        "two million fields": model(graph(), field(100, 0) * 2000001),
        "a name that is a number": model(graph(extra=field(5, field(8, 5)))),
        "a double cut off": b"\x09\x00\x00",
        "a float cut off": b"\x0d\x00",
        "zeros": b"\0" * 64,
        "a zip": b"PK\x03\x04" + b"\0" * 40,
        "a node that is a number": model(field(1, 3)),
        "an input that is a number": model(field(11, 3)),
        "an attribute that is a number": model(graph(field(5, 4))),
    }


# ------------------------------------------------------------------------------------------------ pictures


def png(width, height, data=None, bits=8, colour=2):
    """A PNG that announces width x height; its data are `data`, zeros that compress to nothing where None."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100000) if data is None else data
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg(width, height, marker=0xC0, before=b""):
    """The head of a JPEG that announces width x height."""
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    return b"\xff\xd8" + before + bytes([0xFF, marker]) + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


def bmp(width, height):
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def webp(kind, body):
    return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBP" + kind + struct.pack("<I", len(body)) + body


def large_pictures():
    """{what it is: a picture of under a megabyte that announces over 100 million pixels}."""
    comment = b"\xff\xfe" + struct.pack(">H", 500) + b"\xc0" * 498  # looks like a frame header inside
    found = {
        "png 26000": png(26000, 26000),
        "png 2^31-1": png(2**31 - 1, 2**31 - 1),
        "png 2^31": png(2**31, 1),
        "png wide": png(2**30, 1),
        "png tall": png(1, 2**30),
        "png grey 1 bit": png(60000, 60000, bits=1, colour=0),
        "png 16 bit alpha": png(12000, 12000, bits=16, colour=6),
        "png palette": png(20000, 20000, colour=3),
        "png just over": png(10001, 10000),
        "png with nothing in it": png(26000, 26000, b""),
        "bmp": bmp(30000, 30000),
        "bmp upside down": bmp(30000, -30000),
        "bmp wide": bmp(2**31 - 1, 1),
        "webp VP8X": webp(b"VP8X", b"\0" * 4 + b"\xff\xff\xff" * 2),
        "webp VP8": webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383)),
        "webp VP8L": webp(b"VP8L", b"\x2f" + struct.pack("<I", 16383 | 16383 << 14)),
    }
    for marker, name in ((0xC0, "baseline"), (0xC1, "extended"), (0xC2, "progressive"), (0xC9, "arithmetic")):
        found["jpeg " + name] = jpeg(65500, 65500, marker)
    found["jpeg behind a comment"] = jpeg(65500, 65500, before=comment)
    found["jpeg with fill bytes"] = jpeg(65500, 65500, before=b"\xff\xff\xff")
    found["jpeg with a restart"] = jpeg(65500, 65500, before=b"\xff\xd0")
    return found
