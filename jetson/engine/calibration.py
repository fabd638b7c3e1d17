"""Calibration: the table of ranges and what it is bound to, NVIDIA's cache text, and TensorRT's calibrators.

A table holds the largest absolute value kept for each tensor, and belongs to one ONNX file, one list of images and
one preprocessing; it is refused when any of them differs. Sources: NVIDIA's trtexec 8.2.1 and ONNX Runtime's TensorRT
provider (readers of the cache text), TensorRT's Python bindings 8.2.1 (calibrators).
"""

import hashlib
import math
import re
import struct
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from jetson import files
from jetson.bundle.manifest import PREPROCESSING
from jetson.errors import BadInput, JetmaskError

SCHEMA_VERSION = 1
METHODS = ("entropy", "minmax", "percentile", "mse")


class Table(NamedTuple):
    model: str
    onnx_sha256: str
    preprocessing: str
    method: str
    input_wh: Tuple[int, int]
    images: Tuple[Tuple[str, str], ...]
    ranges: Dict[str, float]
    layer_precisions: Dict[str, Dict[str, str]]


class Cache(NamedTuple):
    version: str
    algorithm: str
    scales: Dict[str, float]


def data_hash(images: Iterable[Tuple[str, str]]) -> str:
    """One SHA-256 for a list of (file, sha256): the same whatever the order."""
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(images))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


# ------------------------------------------------------------------------------------------------- the table


def write(path: str, table: Table) -> None:
    """Write a table as JSON. ValueError when a range is no finite number from 0 up."""
    for name, value in table.ranges.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"the range of tensor {name!r} is {value}")
    files.write_json(
        path,
        {
            "schema_version": SCHEMA_VERSION,
            "model": table.model,
            "onnx_sha256": table.onnx_sha256,
            "preprocessing": table.preprocessing,
            "method": table.method,
            "input_wh": list(table.input_wh),
            "data": {
                "sha256": data_hash(table.images),
                "images": [{"file": name, "sha256": digest} for name, digest in table.images],
            },
            "ranges": {name: float(value) for name, value in table.ranges.items()},
            "layer_precisions": table.layer_precisions,
        },
    )


def _hash(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"^[0-9a-f]{64}$", value) is not None


def _range(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _layers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(layers, dict) and all(kept in ("fp32", "fp16") for kept in layers.values())
        for layers in value.values()
    )


def _images(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("images"), list)
        and len(value["images"]) > 0
        and all(
            isinstance(image, dict) and isinstance(image.get("file"), str) and _hash(image.get("sha256"))
            for image in value["images"]
        )
    )


_RULES = (
    ("schema_version", lambda v: v == SCHEMA_VERSION and v is not True, str(SCHEMA_VERSION)),
    ("model", lambda v: isinstance(v, str) and v, "a name"),
    ("onnx_sha256", _hash, "64 hex digits"),
    ("preprocessing", lambda v: isinstance(v, str) and v, "a name"),
    ("method", lambda v: v in METHODS, "one of " + ", ".join(METHODS)),
    (
        "input_wh",
        lambda v: isinstance(v, list) and len(v) == 2 and all(type(n) is int and n > 0 for n in v),
        "[width, height]",
    ),
    ("data", _images, "sha256, and images with file and sha256 each"),
    (
        "ranges",
        lambda v: isinstance(v, dict) and len(v) > 0 and all(_range(r) for r in v.values()),
        "a finite number from 0 up for each tensor",
    ),
    ("layer_precisions", _layers, "{precision: {layer: fp32 or fp16}}"),
)


def read(path: str) -> Table:
    """Read a table. BadInput names the file and the key that is wrong, or says that the list was edited."""
    value = files.read_json(path)
    remedy = "calibrate again: jetmask calibrate"
    if not isinstance(value, dict):
        raise BadInput("not a calibration table", path, "a JSON object", remedy)
    value.setdefault("layer_precisions", {})
    for key, right, expected in _RULES:
        if key not in value or not right(value[key]):
            raise BadInput(
                "the calibration table's {} is {}".format(
                    key, "missing" if key not in value else f"{repr(value[key]):.60}"
                ),
                path,
                expected,
                remedy,
            )
    images = tuple((image["file"], image["sha256"]) for image in value["data"]["images"])
    if value["data"].get("sha256") != data_hash(images):
        raise BadInput(
            "the calibration table's list of images does not match its own hash", path, data_hash(images), remedy
        )
    return Table(
        value["model"],
        value["onnx_sha256"],
        value["preprocessing"],
        value["method"],
        (value["input_wh"][0], value["input_wh"][1]),
        images,
        {name: float(r) for name, r in value["ranges"].items()},
        value["layer_precisions"],
    )


def require(
    table: Table,
    where: str,
    onnx_sha256: Optional[str] = None,
    images: Optional[Iterable[Tuple[str, str]]] = None,
    preprocessing: str = PREPROCESSING,
) -> None:
    """BadInput unless the table was made for this ONNX file, this list of images and this preprocessing.

    `onnx_sha256`, `images`: not compared when None. Ranges of another model or another preprocessing give an INT8
    engine that runs and is wrong, so nothing here is only a warning.
    """
    remedy = "calibrate again: jetmask calibrate"
    if onnx_sha256 is not None and table.onnx_sha256 != onnx_sha256:
        raise BadInput(
            "the calibration table belongs to a different model",
            where,
            f"ONNX sha256 {onnx_sha256}, not {table.onnx_sha256}",
            remedy,
        )
    if table.preprocessing != preprocessing:
        raise BadInput(
            "the calibration table was made with another preprocessing",
            where,
            f"{preprocessing}, not {table.preprocessing}",
            remedy,
        )
    if images is not None and data_hash(images) != data_hash(table.images):
        raise BadInput(
            "the calibration table was made from other images",
            where,
            f"data sha256 {data_hash(images)}, not {data_hash(table.images)}",
            remedy,
        )


# ------------------------------------------------------------------------------- NVIDIA's calibration cache text


def header_version(tensorrt_version: str) -> str:
    """The digits in a cache's first line: major*1000 + minor*100 + patch up to 8, longer from 10 on.

    >>> header_version("8.2.1.8"), header_version("10.14.1.48")
    ('8201', '101401')
    """
    major, minor, patch = (int(part) for part in (tensorrt_version.split(".") + ["0", "0"])[:3])
    return str(major * 1000 + minor * 100 + patch if major < 10 else major * 10000 + minor * 100 + patch)


def format_cache(cache: Cache) -> str:
    """The cache's text: `TRT-<version>-<algorithm>`, then `name: <float32 bits of the scale, hex>` per tensor.

    >>> print(format_cache(Cache("8201", "EntropyCalibration2", {"image": 255 / 127, "zero": 0.0})), end="")
    TRT-8201-EntropyCalibration2
    image: 40008102
    zero: 0
    """
    lines = [f"TRT-{cache.version}-{cache.algorithm}"]
    for name, scale in cache.scales.items():
        if "\n" in name or "\r" in name:
            raise ValueError(f"a tensor's name with a line break cannot be in a cache: {name!r}")
        (bits,) = struct.unpack(">I", struct.pack(">f", scale))
        lines.append(f"{name}: {bits:x}")
    return "\n".join(lines) + "\n"


def parse_cache(text: str, where: str = "calibration cache") -> Cache:
    """Read a cache's text; BadInput names the line."""
    lines = text.split("\n")
    header = re.match(r"^TRT-([0-9]+)-([A-Za-z0-9]+)$", lines[0].rstrip("\r"))
    if not header:
        raise BadInput(
            f"not a TensorRT calibration cache: {lines[0]!r:.60}",
            where + ", line 1",
            "TRT-<version>-EntropyCalibration2 or TRT-<version>-MinMaxCalibration",
        )
    scales: Dict[str, float] = {}
    for number, line in enumerate(lines[1:], 2):
        line = line.rstrip("\r")
        if not line:
            continue
        name, colon, digits = line.rpartition(": ")  # the last one: names may hold colons
        if not colon or not name or not re.match(r"^[0-9a-f]{1,8}$", digits):
            raise BadInput(
                f"not a line of a calibration cache: {line!r:.60}",
                f"{where}, line {number}",
                "name: <1 to 8 hex digits>",
            )
        (scale,) = struct.unpack(">f", struct.pack(">I", int(digits, 16)))
        if not math.isfinite(scale) or scale < 0 or name in scales:
            raise BadInput(
                f"tensor {name!r} {('is there twice' if name in scales else f'has the scale {scale}')}",
                f"{where}, line {number}",
                "one finite scale from 0 up per tensor",
            )
        scales[name] = scale
    return Cache(header.group(1), header.group(2), scales)


def read_cache(path: str) -> Cache:
    """Read a cache file."""
    try:
        with open(path, "rb") as file:
            return parse_cache(file.read().decode("utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the calibration cache: {error}", path, "a text file") from error


def cache_of(ranges: Dict[str, float], tensorrt_version: str, algorithm: str = "EntropyCalibration2") -> Cache:
    """Ranges as a cache for this TensorRT: scale = range / 127. The same scales serve Q/DQ nodes (symmetric int8)."""
    return Cache(
        header_version(tensorrt_version),
        algorithm,
        {name: struct.unpack(">f", struct.pack(">f", value / 127))[0] for name, value in ranges.items()},
    )


# ------------------------------------------------------------------------------------------ TensorRT's calibrators


def make_calibrator(
    trt: Any,
    algorithm: str = "EntropyCalibration2",
    cache: Optional[Cache] = None,
    blobs: Optional[Iterable[Any]] = None,
    upload: Optional[Callable[[Any], int]] = None,
    input_name: str = "image",
) -> Any:
    """A calibrator of the `tensorrt` module `trt`, fed from a cache, or from `blobs` (float32 (1, 3, H, W) each).

    `upload`: copies a blob to the device and returns its address; the memory must stay until the next call.
    Keep the object until the build has ended, then call its `finish()`: it returns the Cache that TensorRT wrote (None
    when it only read ours) and raises whatever went wrong. No callback ever raises: in TensorRT 8.2 an exception there
    ends the process, and later versions take it for the end of the data and calibrate on what they have.
    """
    import numpy as np  # only here: who merely reads tables should start fast

    base: Any = trt.IInt8MinMaxCalibrator if algorithm == "MinMaxCalibration" else trt.IInt8EntropyCalibrator2

    class Calibrator(base):  # the base is known only when the module is
        def __init__(self) -> None:
            base.__init__(self)
            self.failure: Optional[BaseException] = None
            self.given = None if cache is None else format_cache(cache).encode("utf-8")
            self.written: Optional[bytes] = None
            self.batches = 0
            self.refused = False
            self._blobs: Iterator[Any] = iter(blobs if blobs is not None else ())

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: List[str], *_: Any) -> Optional[List[int]]:
            try:
                if self.failure is not None:
                    return None
                if blobs is None:
                    self.refused = True  # it asks for data although it was given a cache: it did not take it
                    return None
                if list(names) != [input_name]:
                    raise BadInput(f"TensorRT asks for the inputs {list(names)}", None, input_name)
                blob = next(self._blobs, None)
                if blob is None:
                    return None
                assert upload is not None, "blobs come with an upload"
                self.batches += 1
                return [int(upload(np.ascontiguousarray(blob, np.float32)))]
            except BaseException as error:
                self.failure = error
                return None

        def read_calibration_cache(self, *_: Any) -> Optional[bytes]:
            return self.given

        def write_calibration_cache(self, memory: Any, *_: Any) -> None:
            try:
                self.written = bytes(memory)  # it is gone after this call
            except BaseException as error:
                self.failure = error

        def finish(self) -> Optional[Cache]:
            if self.failure is not None:
                raise self.failure
            if self.refused:
                raise JetmaskError(
                    f"TensorRT {trt.__version__} did not take the calibration cache",
                    self.given.split(b"\n")[0].decode() if self.given else "no cache and no images",
                    "a cache of this TensorRT version",
                    "calibrate on this machine: --calibration-images FOLDER",
                )
            if blobs is not None and not self.batches and self.written is None:
                raise JetmaskError("TensorRT took no calibration image", None, "at least one", "give more images")
            return None if self.written is None else parse_cache(self.written.decode("utf-8"), "TensorRT's cache")

    return Calibrator()
