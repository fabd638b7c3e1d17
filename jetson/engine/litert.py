"""LiteRT (TensorFlow Lite) on the CPU, one .tflite file per input size; from Python 3.10 on."""

import os
import sys
import time
from typing import Any, Dict, Optional, Tuple

import numpy as np

from jetson.bundle import paths
from jetson.bundle.manifest import Manifest, Variant
from jetson.errors import BadInput


def reason() -> Optional[str]:
    """Why LiteRT cannot run here; None when it can."""
    if sys.version_info < (3, 10):
        return "LiteRT needs Python 3.10 or newer, this is {}.{}".format(*sys.version_info[:2])
    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ImportError as error:
        return f"ai_edge_litert cannot be imported ({error}); install it with pip install ai-edge-litert"
    return None


def open_variant(bundle_dir: str, manifest: Manifest, variant: Variant, threads: int = 1) -> "LiteRtEngine":
    """The engine of one variant of a bundle."""
    return LiteRtEngine(paths.inside(bundle_dir, variant.file), variant.input_wh, threads)


class _Tensor:
    """One output: where it lies, and how its numbers are read."""

    def __init__(self, detail: Dict[str, Any]) -> None:
        self.index = detail["index"]
        self.quantized = detail["dtype"] != np.float32
        self.scale, self.zero = detail["quantization"]
        self.shape = tuple(int(size) for size in detail["shape"])


class LiteRtEngine:
    """One .tflite file. NHWC inside; takes and gives NCHW like every engine.

    `path`: a file with one input (1, H, W, 3), float32, or int8/uint8 with a scale. `input_wh`: the size it was made
    for. BadInput when it is missing, is no LiteRT model, or has another input.
    """

    runtime = "litert"

    def __init__(self, path: str, input_wh: Tuple[int, int], threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        width, height = (int(side) for side in input_wh)
        if not os.path.isfile(path):
            raise BadInput("the model file is missing", path, "a .tflite file", "verify the bundle")
        try:
            self._interpreter = Interpreter(model_path=path, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BadInput(
                f"LiteRT cannot load the model: {str(error).splitlines()[0]}",
                path,
                "a .tflite model",
                "verify the bundle, or build the variant again",
            ) from error
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1 or list(inputs[0]["shape"]) != [1, height, width, 3]:
            found = ", ".join(f"{i['name']} {list(i['shape'])}" for i in inputs)
            raise BadInput(
                "unexpected model input: " + found,
                path,
                f"one input {[1, height, width, 3]}",
                "a .tflite file is for one size: choose the variant with that size",
            )
        self._input_index = inputs[0]["index"]
        self._input_type = inputs[0]["dtype"]
        self._input_scale, self._input_zero = inputs[0]["quantization"]
        self._outputs = _name_outputs(self._interpreter, path)
        self.input_wh = (width, height)
        self.input = np.zeros((1, 3, height, width), np.float32)
        self.timings = {"infer_ms": 0.0}  # type: Dict[str, float]

    def infer(self, image: Optional[np.ndarray] = None) -> Dict[str, np.ndarray]:
        """Run `image` (default: `.input`), float32 (1, 3, H, W); {output name: float32 NCHW array}."""
        started = time.perf_counter()
        pixels = (self.input if image is None else image).transpose(0, 2, 3, 1)
        if self._input_type != np.float32:
            limits = np.iinfo(self._input_type)
            pixels = np.clip(np.rint(pixels / self._input_scale) + self._input_zero, limits.min, limits.max)
        # `tensor` is a view of the interpreter's own memory: one strided copy instead of two.
        self._interpreter.tensor(self._input_index)()[...] = pixels
        self._interpreter.invoke()
        outputs = {}
        for name, tensor in self._outputs.items():
            value = self._interpreter.get_tensor(tensor.index)
            if tensor.quantized:
                value = (value.astype(np.float32) - tensor.zero) * np.float32(tensor.scale)
            outputs[name] = value.transpose(0, 3, 1, 2)
        self.timings = {"infer_ms": (time.perf_counter() - started) * 1e3}
        return outputs

    def close(self) -> None:
        """Free the interpreter; the engine cannot be used afterwards."""
        self._interpreter = None

    def __enter__(self) -> "LiteRtEngine":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _name_outputs(interpreter: Any, path: str) -> Dict[str, _Tensor]:
    """The contract's names (`cls_<s>`, `box_<s>`) for a model's outputs.

    Converters keep the names in the signature; where there is none, each output is known by its tensor's own name.
    """
    details = {detail["name"]: detail for detail in interpreter.get_output_details()}
    for signature in interpreter.get_signature_list().values():
        if all(name.split("_")[0] in ("cls", "box") for name in signature["outputs"]):
            runner = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
            details = runner.get_output_details()
    named = {name: _Tensor(detail) for name, detail in details.items() if name.split("_")[0] in ("cls", "box")}
    if len(named) < 2:
        raise BadInput(
            "the model's outputs are not the detector's: " + ", ".join(sorted(details)),
            path,
            "cls_<stride> and box_<stride> for each stride",
            "build the variant again",
        )
    return named
