"""Which classes a detector tells apart: written into its class layers, so that a copy, a pruning and a file keep them.

The three mask classes with their usual roles need no word: their layers are plain convolutions, as they always were.
"""

from typing import Any

import keras
from keras import layers

from jetson.bundle import classes as class_list
from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.errors import BadInput

PREFIX = "cls_"  # of the layers that give class logits
PRIOR = -4.6  # bias: the prior of an object at a cell is about 1 %; without it the first steps go to the background


@keras.saving.register_keras_serializable("jetmask")
class ClassConv(layers.Conv2D):
    """A convolution that gives class logits and knows what they are called.

    classes: [[name, role], ...], one for each output channel.
    """

    def __init__(self, *args: Any, classes: Any = (), **words: Any) -> None:
        super().__init__(*args, **words)
        self.classes = [list(pair) for pair in classes]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes}


def head(name: str, classes: Classes) -> Any:
    """A new layer of class logits (1 x 1, linear, float32 outputs)."""
    words = {
        "bias_initializer": keras.initializers.Constant(PRIOR),
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.01),
        "dtype": "float32",
        "name": name,
    }
    if classes == MASK_CLASSES:
        return layers.Conv2D(len(classes.names), 1, **words)
    return ClassConv(len(classes.names), 1, classes=zip(*classes, strict=True), **words)


def classes_of(net: Any) -> Classes:
    """The classes of a detector. BadInput where it has class layers of another number and no word on them."""
    layer = next((each for each in net.layers if each.name.startswith(PREFIX)), None)
    told = getattr(layer, "classes", None)
    if told:
        names, roles = zip(*told, strict=True)
        return Classes(tuple(names), tuple(roles))
    if layer is not None and getattr(layer, "filters", len(MASK_CLASSES.names)) != len(MASK_CLASSES.names):
        raise BadInput(
            f"the model has {layer.filters} classes and does not say which",
            where=f"layer {layer.name}",
            expected=f"names in the layer, or the {len(MASK_CLASSES.names)} mask classes",
            remedy="train it with jetmask train, which writes them in",
        )
    return MASK_CLASSES


def with_classes(net: Any, classes: Classes) -> Any:
    """The detector for these classes: itself where they are its own, else a copy with new class layers.

    Output channels of a class that both know keep their weights; those of a new class begin as in a new network.
    """
    before = classes_of(net)
    if before == classes:
        return net

    def own(layer: Any) -> Any:
        return (
            head(layer.name, classes) if layer.name.startswith(PREFIX) else type(layer).from_config(layer.get_config())
        )

    copy = keras.models.clone_model(net, clone_function=own)
    kept = [(before.names.index(name), number) for number, name in enumerate(classes.names) if name in before.names]
    for layer in net.layers:
        if not layer.weights:
            continue
        values, new = layer.get_weights(), copy.get_layer(layer.name)
        if layer.name.startswith(PREFIX):
            fresh = new.get_weights()
            for old_number, number in kept:
                for old, value in zip(values, fresh, strict=True):
                    value[..., number] = old[..., old_number]
            values = fresh
        new.set_weights(values)
    return copy


def checked(names: Any, roles: Any, where: str) -> Classes:
    """Classes from names and {name: role}; BadInput names what is wrong."""
    found = class_list.problems(list(names), roles)
    if found:
        raise BadInput(
            "the classes are wrong: " + "; ".join(found[:5]),
            where=where,
            expected=f"1 to {class_list.MOST} names, each once, and roles from {', '.join(class_list.ROLES)}",
            remedy="set data.classes and data.roles, or rename them with `jetmask data import --map`",
        )
    return class_list.make(names, roles)
