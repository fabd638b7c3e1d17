"""jetmask for Python: what a notebook or a program of one's own needs (docs/python.md shows each with an example).

Nothing heavy is imported before it is used: `train`, `prune` and `export` load TensorFlow, the others do not.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jetmask import own

if TYPE_CHECKING:
    from jetmask.api import Bundle, Detector, detect, evaluate, export, load_config, prune, train
    from jetson import __version__
    from jetson.errors import BadInput, DeviceMismatch, JetmaskError, QualityGate, UsageError
    from jetson.inference.detector import Faces

__all__ = [
    "BadInput",
    "Bundle",
    "Detector",
    "DeviceMismatch",
    "Faces",
    "JetmaskError",
    "QualityGate",
    "UsageError",
    "__version__",
    "detect",
    "evaluate",
    "export",
    "load_config",
    "prune",
    "train",
]
_ELSEWHERE = {
    "__version__": "jetson",
    "Faces": "jetson.inference.detector",
    **dict.fromkeys(("BadInput", "DeviceMismatch", "JetmaskError", "QualityGate", "UsageError"), "jetson.errors"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jetmask' has no attribute {name!r}")
    own.check()
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "jetmask.api")), name)


def __dir__() -> list[str]:
    return __all__
