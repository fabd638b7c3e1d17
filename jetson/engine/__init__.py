"""The engines behind one interface: what this machine can run is asked, never assumed.

An engine has `.runtime`, `.input_wh`, `.input` (float32 (1, 3, H, W), to be filled with raw 0..255 BGR),
`infer(image=None)` -> {output name: float32 NCHW array, valid until the next call}, `.timings` (ms per stage of the
last call), `close()`, and is a context manager; it may have `.spare_inputs`, further buffers like `.input`, and
`submit(image)` with `collect()`, the two halves of `infer`, where the next image may be given ahead. A runtime is
imported, and the device touched, only by opening one.
"""

import importlib
from typing import Any, Dict, Optional

from jetson.bundle.manifest import RUNTIMES, Manifest, Variant
from jetson.errors import DeviceMismatch, UsageError

__all__ = ["RUNTIMES", "available", "open_engine", "reason"]

_MODULES = {"tensorrt": "jetson.engine.tensorrt", "onnxruntime": "jetson.engine.onnx", "litert": "jetson.engine.litert"}


def reason(runtime: str) -> Optional[str]:
    """Why `runtime` cannot run here, in words with what to do; None when it can."""
    if runtime not in _MODULES:
        raise UsageError(f"unknown runtime {runtime!r}", None, "one of " + ", ".join(RUNTIMES))
    try:
        return importlib.import_module(_MODULES[runtime]).reason()
    except ImportError as error:
        return f"its module cannot be imported: {error}"


def available() -> Dict[str, Optional[str]]:
    """{runtime: None, or the reason why it cannot run on this machine}, best first."""
    return {runtime: reason(runtime) for runtime in RUNTIMES}


def open_engine(
    bundle_dir: str, manifest: Manifest, variant: Variant, runtime: Optional[str] = None, threads: int = 1
) -> Any:
    """Open `variant` on `runtime`, or on the first of its runtimes that this machine has.

    `threads`: CPU threads inside one inference (TensorRT ignores it). DeviceMismatch when no runtime fits;
    BadInput when the model file is not usable.
    """
    wanted = [name for name in RUNTIMES if name in variant.runtimes] if runtime is None else [runtime]
    if runtime is not None and runtime not in variant.runtimes:
        if runtime not in RUNTIMES:
            raise UsageError(f"unknown runtime {runtime!r}", None, "one of " + ", ".join(RUNTIMES))
        fitting = [other.name for other in manifest.variants if runtime in other.runtimes]
        raise UsageError(
            f"variant {variant.name} does not run on {runtime}",
            bundle_dir,
            "one of " + ", ".join(variant.runtimes),
            f"choose a variant for {runtime}: {', '.join(fitting) or 'this bundle has none'}",
        )
    reasons = []
    for name in wanted:
        why = reason(name)
        if why is None:
            return importlib.import_module(_MODULES[name]).open_variant(bundle_dir, manifest, variant, threads)
        reasons.append(f"{name}: {why}")
    raise DeviceMismatch(
        f"no engine on this machine can run variant {variant.name}",
        "; ".join(reasons),
        "a machine with " + " or ".join(wanted),
        "choose another variant, or install what is missing",
    )
