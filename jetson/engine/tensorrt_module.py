"""The TensorRT module of this machine: finding it, its one logger, and what its words mean."""

import contextlib
import importlib
import sys
from typing import Any, Callable, Dict, List, Optional, TextIO, Tuple

from jetson.errors import DeviceMismatch

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")  # the last two: TensorRT for RTX

# What NVIDIA's parser and builder say -> what to do about it. First match wins; the words are theirs, typos included.
REMEDIES = (
    ("require hardware with Int8 support", "use the FP16 variant: this GPU has no INT8, and Q/DQ cannot even be built"),
    ("Unsupported ONNX data type: UINT8", "export with a float32 input: `jetmask export` does"),
    ("Failed to convert ONNX date type", "export with a float32 input: `jetmask export` does"),
    ("requires 3 inputs for the", "write an explicit zero point of 0: `jetmask build` makes Q/DQ files in this shape"),
    ("zeroPt must be all zeros", "quantise symmetrically: `jetmask build` makes Q/DQ files in this shape"),
    ("bias tensor is required to be an initializer", "leave the bias in float: no Q/DQ on it"),
    (
        "No importer registered for op",
        "this TensorRT has no such operator: `jetmask predict MODEL --target ...` lists "
        "what the target takes; export with other layers",
    ),
    ("Plugin not found", "this TensorRT has no such operator: export with other layers"),
    ("creator && ", "this TensorRT has no such operator: export with other layers"),
    ("opset", "export with opset 13: `jetmask export` does"),
    ("out of memory", "stop other programs that use the GPU, or reduce --workspace-mb"),
    ("OutOfMemory", "stop other programs that use the GPU, or reduce --workspace-mb"),
    ("workspace limit", "raise --workspace-mb"),
    ("increase the workspace memory", "raise --workspace-mb"),
    ("insufficient workspace", "raise --workspace-mb"),
    ("Could not find any implementation for node", "raise --workspace-mb: every way to run this layer needs more"),
    ("does not have any outputs", "the file has no usable output: export the model again"),
    ("must have same input types", "the file mixes FP16 and FP32: `jetmask build` writes typed files with casts"),
    ("Failed to sort the model topologically", "the graph has a cycle: export the model again"),
    ("Node input was not registered", "a node reads a tensor that nothing makes: export the model again"),
    ("Non-zero zero point", "quantise symmetrically: `jetmask build` makes Q/DQ files in this shape"),
    (
        "has type Int32 but must have type",
        "leave the bias in float: no Q/DQ on it (`jetmask build` makes such files; "
        "the int8-cpu file is for ONNX Runtime only)",
    ),
    ("must have at least one output", "the file has no usable output: export the model again"),
    ("Failed to parse the ONNX model", "the file is not a complete ONNX model: verify the bundle"),
)


def load(name: Optional[str] = None) -> Any:
    """The TensorRT module of this machine; DeviceMismatch with the reasons when there is none."""
    reasons = []
    for candidate in MODULES if name is None else (name,):
        try:
            return importlib.import_module(candidate)
        except ImportError as error:
            reasons.append(f"{candidate}: {error}")
    raise DeviceMismatch(
        "TensorRT cannot be imported",
        "; ".join(reasons),
        "the Python module tensorrt",
        "on a Jetson it is part of JetPack (container: --runtime nvidia); elsewhere use the onnxruntime variants",
    )


def reason() -> Optional[str]:
    """Why TensorRT cannot be used here; None when its module can be imported."""
    try:
        load()
    except DeviceMismatch as error:
        return f"{error.what} ({error.where})"
    return None


_logs: Dict[str, Any] = {}


def log_for(trt: Any) -> Any:
    """The one logger of this process for `trt` (the library keeps the first it gets, whatever comes later).

    `.sink` takes each line as it comes; `errors(since)` gives the texts of the errors after `since`, an earlier value
    of `.count`. It never raises: in TensorRT 8.2
    an exception in a callback ends the process.
    """
    if trt.__name__ not in _logs:

        class Log(trt.ILogger):  # the base is known only when the module is
            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self.count = 0  # of all lines; only errors are kept: at its most talkative it says thousands
                self._errors: List[Tuple[int, str]] = []
                self.sink: Optional[Callable[[str, str], None]] = None

            def log(self, severity: Any, text: str, *_: Any) -> None:
                with contextlib.suppress(BaseException):
                    name = str(severity).rpartition(".")[2]
                    self.count += 1
                    if name in ("ERROR", "INTERNAL_ERROR"):
                        self._errors.append((self.count, text))
                        del self._errors[:-100]
                    if self.sink is not None:
                        self.sink(name, text)

            def errors(self, since: int = 0) -> List[str]:
                return [text for count, text in self._errors if count > since]

        _logs[trt.__name__] = Log()
    return _logs[trt.__name__]


def remedy_for(words: str) -> Optional[str]:
    """What to do about an error text of TensorRT; None when it is not one we know."""
    return next((remedy for part, remedy in REMEDIES if part in words), None)


def echo_log(trt: Any, stream: Optional[TextIO] = None) -> Any:
    """Send the log's lines to `stream` (default: stderr) as they come; the log."""
    log = log_for(trt)
    out = sys.stderr if stream is None else stream

    def write(severity: str, text: str) -> None:
        if severity != "VERBOSE":
            out.write(f"[TRT] [{severity[0]}] {text}\n")
            out.flush()

    log.sink = write
    return log
