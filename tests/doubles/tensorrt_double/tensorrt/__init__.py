"""A strict double of NVIDIA's tensorrt module, behaving as the version named by $TENSORRT_DOUBLE (default 8.2.1)."""

from . import behaviour as _behaviour

__version__ = _behaviour.FULL_VERSION

for _name in (
    "BuilderFlag",
    "DataType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "ProfilingVerbosity",
    "TensorIOMode",
    "LayerInformationFormat",
):
    if getattr(_behaviour, _name) is not None:
        globals()[_name] = getattr(_behaviour, _name)
for _name, _class in _behaviour.CLASSES.items():
    if _class is not None:
        globals()[_name] = _class
del _name, _class


def init_libnvinfer_plugins(logger, namespace):
    return True
