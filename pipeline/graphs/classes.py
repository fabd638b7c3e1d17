"""The classes that an ONNX file tells apart, in its metadata: one of the three mask classes says nothing, as ever."""

import json
from typing import Any

from jetson.bundle import classes as class_list
from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.errors import BadInput

KEY = "jetmask.classes"


def write(proto: Any, classes: Classes) -> None:
    """Put the classes into a ModelProto."""
    if classes != MASK_CLASSES:
        entry = proto.metadata_props.add()
        entry.key, entry.value = KEY, json.dumps(dict(zip(*classes, strict=True)), ensure_ascii=False)


def _require_masks(proto: Any, path: str) -> None:
    for output in proto.graph.output:
        dims = output.type.tensor_type.shape.dim
        if output.name.startswith("cls_") and len(dims) == 4 and dims[1].dim_value not in (0, len(MASK_CLASSES.names)):
            raise BadInput(
                f"the file has {dims[1].dim_value} classes and does not say which",
                f"{path}, output {output.name}",
                f"metadata {KEY!r}, or the {len(MASK_CLASSES.names)} mask classes",
                "export it again from the .keras file: jetmask export",
            )


def of_file(path: str) -> Classes:
    """The classes of an ONNX file; the mask classes where it says nothing. BadInput for an entry that is none."""
    try:
        import onnx
    except ModuleNotFoundError:  # of the extra `train`: without it no model of other classes was made here
        return MASK_CLASSES
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception:  # what is no ONNX file is told by who reads the model
        return MASK_CLASSES
    text = next((entry.value for entry in proto.metadata_props if entry.key == KEY), None)
    if text is None:
        _require_masks(proto, path)
        return MASK_CLASSES
    try:
        told = json.loads(text)
        names = list(told)
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"the file's list of classes is damaged: {error}", path, "a JSON object of names and roles"
        ) from None
    wrong = class_list.problems(names, told)
    if wrong:
        raise BadInput("the file's list of classes is wrong: " + "; ".join(wrong[:3]), path, "names and roles")
    return class_list.make(names, told)
