"""ONNX Runtime on the CPU: the engine that every machine has."""

import os
import time
from typing import Any, Dict, Optional, Tuple

import numpy as np

from jetson.bundle import paths
from jetson.bundle.manifest import Manifest, Variant
from jetson.engine import onnx_facts
from jetson.errors import BadInput


def reason() -> Optional[str]:
    """Why ONNX Runtime cannot run here; None when it can."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return f"onnxruntime cannot be imported ({error}); install it with pip"
    return None


def open_variant(bundle_dir: str, manifest: Manifest, variant: Variant, threads: int = 1) -> "OnnxEngine":
    """The engine of one variant of a bundle."""
    return OnnxEngine(paths.inside(bundle_dir, variant.file), variant.input_wh, threads)


class OnnxEngine:
    """One ONNX file at one input size.

    `path`: the file, symbolic `height` and `width` or fixed ones. `input_wh`: pixels. `threads`: inside one
    inference. BadInput when the file is missing, is no ONNX model, or has another input.
    """

    runtime = "onnxruntime"

    def __init__(self, path: str, input_wh: Tuple[int, int], threads: int = 1) -> None:
        import onnxruntime

        width, height = input_wh
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # warnings of the optimiser say nothing to a user
        options.add_free_dimension_override_by_name("height", height)
        options.add_free_dimension_override_by_name("width", width)
        # A pool that spins between frames costs a whole core of a small board and gains microseconds.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not os.path.isfile(path):
            raise BadInput("the model file is missing", path, "an ONNX file", "verify the bundle")
        # The bytes that were looked at, not the path: what a model keeps in other files is never read.
        data, _ = onnx_facts.read(path)
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exception classes have no common public base
            raise BadInput(
                f"ONNX Runtime cannot load the model: {str(error).splitlines()[0]}",
                path,
                "an ONNX model",
                "verify the bundle, or export the model again",
            ) from error
        inputs = self._session.get_inputs()
        shape = [1, 3, height, width]
        if len(inputs) != 1 or list(inputs[0].shape) != shape or inputs[0].type != "tensor(float)":
            found = ", ".join(f"{i.name} {i.type} {list(i.shape)}" for i in inputs)
            raise BadInput("unexpected model input: " + found, path, f"one float input {shape}")
        self.input_wh = (int(width), int(height))
        self.input = np.zeros(shape, np.float32)
        self.timings = {"infer_ms": 0.0}  # type: Dict[str, float]
        self._name = inputs[0].name
        # The first run plans the memory, and tells the output shapes, which are symbolic in the file.
        names = [output.name for output in self._session.get_outputs()]
        try:
            values = self._session.run(names, {self._name: self.input})
        except Exception as error:
            raise BadInput(
                f"ONNX Runtime cannot run the model: {str(error).splitlines()[0]}",
                path,
                f"a model for {width} x {height}",
                "verify the bundle",
            ) from error
        other = [f"{name} {value.dtype}" for name, value in zip(names, values) if value.dtype != np.float32]
        if other:
            raise BadInput(
                "unexpected type of model outputs: " + ", ".join(other), path, "float32", "export the model again"
            )
        self._outputs = {name: np.zeros(value.shape, np.float32) for name, value in zip(names, values)}
        self._binding = self._session.io_binding()
        for name, buffer in self._outputs.items():
            self._binding.bind_output(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)

    def infer(self, image: Optional[np.ndarray] = None) -> Dict[str, np.ndarray]:
        """Run `image` (default: `.input`), float32 (1, 3, H, W); {output name: float32 NCHW array}.

        The arrays are the engine's own: the next call overwrites them. ValueError when `image` has another shape.
        """
        image = self.input if image is None else np.ascontiguousarray(image, np.float32)
        if image.shape != self.input.shape:
            raise ValueError(f"the input is {self.input.shape}, not {image.shape}")
        started = time.perf_counter()
        self._binding.bind_input(self._name, "cpu", 0, np.float32, image.shape, image.ctypes.data)
        self._session.run_with_iobinding(self._binding)
        self.timings = {"infer_ms": (time.perf_counter() - started) * 1e3}
        return self._outputs

    def close(self) -> None:
        """Free the session; the engine cannot be used afterwards."""
        self._binding = self._session = None

    def __enter__(self) -> "OnnxEngine":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
