"""The members of each TensorRT version, and how NVIDIA's bindings (pybind11) treat them.

members.json: names per version and class, derived from NVIDIA/TensorRT's python/src at the tags named. Held against the
real modules 8.4.1, 8.5.3 and RTX 1.7.1 by tests/pipeline/build/test_tensorrt_surface.py.
"""

import json
import os

VERSION = os.environ.get("TENSORRT_DOUBLE", "8.2.1")
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "members.json")) as _file:
    _VERSIONS = {
        version: {name: members.split() for name, members in classes.items()}
        for version, classes in json.load(_file).items()
    }
MEMBERS = _VERSIONS[VERSION]
MAJOR_MINOR = tuple(int(part) for part in VERSION.split(".")[:2])

# Values that matter outside: bit positions and order. The rest is numbered as it comes.
VALUES = {
    "Severity": ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"],
    "DataType": ["FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"],
    "NetworkDefinitionCreationFlag": ["EXPLICIT_BATCH", "STRONGLY_TYPED"],
    "TensorIOMode": ["NONE", "INPUT", "OUTPUT"],
}


class Enum:
    """A value of a pybind11 enum: int(), .name, str "Owner.NAME", equal by value."""

    def __init__(self, owner, name, value):
        self.owner, self.name, self.value = owner, name, value

    def __int__(self):
        return self.value

    __index__ = __int__

    def __str__(self):
        return f"{self.owner}.{self.name}"

    __repr__ = __str__

    def __eq__(self, other):
        return isinstance(other, Enum) and (self.owner, self.value) == (other.owner, other.value)

    def __hash__(self):
        return hash((self.owner, self.value))


def enum(name):
    """The enum `name` of this version as a class, or None when the version has none."""
    if name not in MEMBERS:
        return None
    first = [member for member in VALUES.get(name, []) if member in MEMBERS[name]]
    members = first + [member for member in MEMBERS[name] if member not in first and member != "log"]
    return type(name, (), {member: Enum(name, member, i) for i, member in enumerate(members)})


class _Strict(type):
    """Calls check that a subclass in Python has called the base's __init__, as pybind11 does."""

    def __call__(cls, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        if not made.__dict__.get("_made"):
            raise TypeError(f"{cls.__mro__[1].__name__}.__init__() must be called when overriding __init__")
        return made


class Base(metaclass=_Strict):
    """An object of the bindings: only members of this version can be read or set."""

    def __init__(self):
        object.__setattr__(self, "_made", True)

    def __setattr__(self, name, value):
        # Python subclasses have a __dict__; the bindings' own classes have not.
        ours = type(self).__module__ == __name__.rpartition(".")[0] + ".behaviour"
        if ours and not name.startswith("_") and name not in MEMBERS.get(type(self).__name__, ()):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        object.__setattr__(self, name, value)


def _not_done(owner, name):
    def absent(self):
        raise NotImplementedError(f"the double does not do {owner}.{name}")

    return property(absent)


def expose(cls):
    """Cut a class down to this version's members; None when the version has no such class.

    What the version has and the double does not is there too, and says so when it is used.
    """
    if cls.__name__ not in MEMBERS:
        return None
    names = set(MEMBERS[cls.__name__])
    for name in [name for name in vars(cls) if not name.startswith("_")]:
        if name not in names:
            delattr(cls, name)
    for name in names:
        there = name in vars(cls) or hasattr(Base, name) or name in getattr(cls, "_settable", ())
        if not there and not name.startswith("__"):
            setattr(cls, name, _not_done(cls.__name__, name))
    return cls
