"""A check of ONNX files by NVIDIA's own parser and builder where TensorRT for RTX is installed; it needs no GPU.

It says that the graph is one that TensorRT builds with typed networks. It does not say that 8.2 takes it (see
pipeline/graphs/lint.py for that), and nothing about speed.
"""

import json
import subprocess
import sys
from typing import Any

from jetson.engine import tensorrt_module
from jetson.errors import DeviceMismatch, JetmaskError

NAMES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
GPU = "SM86"  # any that it knows: a plan for it is built, not run


def module() -> Any:
    """The TensorRT for RTX module, or None."""
    for name in NAMES:
        try:
            return tensorrt_module.load(name)
        except DeviceMismatch:
            continue
    return None


def check(path: str, input_wh: tuple[int, int], precision: str) -> dict[str, Any] | None:
    """Build one file. Returns {"plan_bytes", "version"}, {"error"}, or None where the package is not installed.

    In a process of its own: a fault in the library must not end the caller.
    """
    if module() is None:
        return None
    job = json.dumps([path, list(input_wh), precision])
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.graphs.rtx", job], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        return {"error": f"the builder ended with {done.returncode}: {done.stderr.strip()[-300:]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    from jetson.engine import tensorrt_network

    path, input_wh, precision = json.loads(sys.argv[1])
    trt = module()
    try:
        result = tensorrt_network.build_plan(
            trt, path, tuple(input_wh), precision, 256 << 20, target_capabilities=(GPU,)
        )
        print(json.dumps({"plan_bytes": len(result.plan), "version": trt.__version__}))
    except JetmaskError as error:
        print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main()
