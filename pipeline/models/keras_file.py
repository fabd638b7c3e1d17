"""A .keras file looked at before Keras builds what it announces: a zip of a configuration and of weights.

The configuration is a kilobyte that may ask for a layer of 2^31 filters, which Keras would make before it finds that
the weights do not fit. So what each layer asks for is held against the weights that are in the file.
"""

import os
import zipfile
from collections.abc import Iterator
from typing import Any

from jetson import files
from jetson.errors import BadInput

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
CONFIG_BYTES = 32 << 20
UNPACKED_BYTES = 4 << 30
# Settings that multiply the size of what a layer holds; each filter or unit has at least one weight of its own.
_COUNTS = ("filters", "units", "depth_multiplier", "input_dim", "output_dim", "num_heads", "key_dim")
_SIDES = ("kernel_size", "pool_size", "size", "strides", "padding", "cropping", "dilation_rate")
MOST_SIDE = 4096


def check(path: str | os.PathLike[str]) -> None:
    """BadInput where the file asks for far more than it holds. What is no zip is left to whoever opens it."""
    path = os.fspath(path)
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            if sum(sizes.values()) > UNPACKED_BYTES:
                raise BadInput(f"the file unpacks to {sum(sizes.values())} bytes", path, f"at most {UNPACKED_BYTES}")
            if CONFIG not in sizes:
                return
            if sizes[CONFIG] > CONFIG_BYTES:
                raise BadInput(f"its {CONFIG} has {sizes[CONFIG]} bytes", path, f"at most {CONFIG_BYTES}")
            with archive.open(CONFIG) as entry:  # a zip may lie about sizes; no more than the bound is unpacked
                text = entry.read(CONFIG_BYTES + 1)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
        return
    if len(text) > CONFIG_BYTES:
        raise BadInput(f"its {CONFIG} is longer than it says", path, f"at most {CONFIG_BYTES} bytes")
    config = files.parse_json(text, f"{path}, {CONFIG}", CONFIG_BYTES)
    held = sizes.get(WEIGHTS, 0) // 2  # half precision takes the least room
    for name, settings in _layers(config):
        _check_layer(path, name, settings, held)


def _layers(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, settings) of every object that has a `class_name` and a `config`, at any depth."""
    if isinstance(value, dict):
        settings = value.get("config")
        if isinstance(settings, dict) and "class_name" in value:
            yield str(settings.get("name", value["class_name"])), settings
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _layers(inner)


def _check_layer(path: str, name: str, settings: dict[str, Any], held: int) -> None:
    where = f"{path}, layer {name!r:.80}"
    for key in _COUNTS:
        wanted = settings.get(key)
        if isinstance(wanted, int) and wanted > held:
            raise BadInput(
                f"a layer asks for {key} = {wanted:.6g}, and the file holds {held} weights at most",
                where,
                "a model saved by jetmask train or jetmask prune",
                "copy the file again, or train again",
            )
    for key in _SIDES:
        for side in _flat(settings.get(key)):
            if side > MOST_SIDE:
                raise BadInput(f"a layer asks for {key} = {side:.6g}", where, f"at most {MOST_SIDE}")


def _flat(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _flat(inner)
