"""The detector: a plain 3x3 network for hardware that likes dense convolutions.

One-stage, anchor-free, fully convolutional. Residual blocks are `ReLU(BN(conv3x3(x)) + x)`: the identity folds
exactly into the 3x3 (done by pipeline/export/onnx.py), so what is deployed is a plain chain of convolutions and ReLUs.
Depthwise convolutions are avoided on purpose: a Nano reaches 55-70 % of its peak on dense ones, far less on those.
"""

import contextlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import keras
from keras import layers

from jetson import files
from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.errors import BadInput, UsageError
from pipeline.config import SIZES, TRANSFER
from pipeline.models import keras_file, mobilenet
from pipeline.models.batchnorm import FusedBatchNorm
from pipeline.models.classes import head, with_classes

STRIDES = (4, 8, 16, 32)
INPUT_SCALE = 1 / 64  # raw 0..255 to 0..4; a scale alone folds exactly, an offset would change the zero-padded border
MAX_LOG_DISTANCE = 5.0  # exp(5) = 148 strides: beyond any input size; keeps exp() finite on wild logits


class Architecture(NamedTuple):
    """Channel counts of one member of the family.

    stem: output channels of the first convolution (stride 2).
    stages: (channels, residual blocks) at strides 4, 8, 16, 32.
    neck: channels of the fused maps at those strides.
    heads: channels of each level's branches; a single number is one shared convolution, two are class and box.
    """

    stem: int
    stages: tuple[tuple[int, int], ...]
    neck: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]


# Most of the multiply-adds go to strides 4 and 8: a face in a scene is 8 to 30 px at network input, and halving the
# channels of the coarse levels' heads costs nothing (benchmarks/results/pruning_scan.csv).
FAMILY = {
    "n": Architecture(8, ((16, 1), (24, 1), (48, 1), (48, 1)), (16, 16, 24, 24), ((16,), (16, 16), (16, 16), (16, 16))),
    "s": Architecture(
        16, ((24, 1), (48, 1), (80, 1), (96, 1)), (24, 32, 40, 48), ((24,), (24, 24), (32, 32), (32, 32))
    ),
    # The channels of `s` with more residual blocks, so that it can begin as `s` (benchmarks/grow.py).
    "m": Architecture(
        16, ((24, 1), (48, 2), (80, 4), (96, 4)), (24, 32, 40, 48), ((24,), (24, 24), (32, 32), (32, 32))
    ),
}


def _conv_bn(x: Any, channels: int, name: str, kernel: int = 3, stride: int = 1, activate: bool = True) -> Any:
    x = layers.Conv2D(channels, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name)(x)
    x = FusedBatchNorm(momentum=0.97, epsilon=1e-3, name=name + "_bn")(x)
    return layers.ReLU(name=name + "_relu")(x) if activate else x


def _residual(x: Any, channels: int, name: str) -> Any:
    y = _conv_bn(x, channels, name, activate=False)
    y = layers.Add(name=name + "_add")([y, x])
    return layers.ReLU(name=name + "_relu")(y)


def build(size: str | Architecture = "s", dropout: float = 0.0, classes: Classes = MASK_CLASSES) -> Any:
    """The network as a Keras functional model.

    size: a name of FAMILY, an Architecture, the path of a .keras file (that network with new random weights), or
    "mobilenetv2" (pipeline/models/mobilenet.py). dropout: rate of spatial dropout before the last layers (0: none).
    classes: what it tells apart, C of them.
    Input `image`: (batch, height, width, 3) float32, raw 0..255 BGR, height and width multiples of 32.
    Outputs, per stride s of STRIDES, in this order: `cls_s` (batch, h, w, C) logits and `box_s` (batch, h, w, 4)
    logarithms of the distances left, top, right, bottom from the cell's centre, in strides.
    """
    if isinstance(size, str):
        if size.endswith(".keras"):
            return with_classes(keras.models.clone_model(load(size)), classes)
        if size == TRANSFER:
            return detector(*mobilenet.body(), mobilenet.NECK, mobilenet.HEADS, dropout, classes)
        if size not in FAMILY:
            raise UsageError(
                f"unknown model size {size!r}",
                expected="a .keras file or one of " + ", ".join(SIZES),
                remedy="set model.size to one of them",
            )
        size = FAMILY[size]
    image = keras.Input((None, None, 3), name="image")
    x = layers.Rescaling(INPUT_SCALE, name="rescale")(image)
    x = _conv_bn(x, size.stem, "stem", stride=2)
    maps = []
    for stride, (channels, blocks) in zip(STRIDES, size.stages, strict=True):
        x = _conv_bn(x, channels, f"down_{stride}", stride=2)
        for i in range(blocks):
            x = _residual(x, channels, f"block_{stride}_{i}")
        maps.append(x)
    return detector(image, maps, size.neck, size.heads, dropout, classes)


def detector(
    image: Any,
    maps: list[Any],
    neck: tuple[int, ...],
    heads: tuple[tuple[int, ...], ...],
    dropout: float = 0.0,
    classes: Classes = MASK_CLASSES,
) -> Any:
    """The whole network from its input and the feature maps at STRIDES: fusion from coarse to fine, then the heads.
    neck, heads, dropout, classes: as in Architecture and `build`."""
    fused = None
    levels: list[Any] = []
    for stride, feature, channels in reversed(list(zip(STRIDES, maps, neck, strict=True))):
        lateral = _conv_bn(feature, channels, f"lateral_{stride}", kernel=1, activate=False)
        if fused is not None:
            up = _conv_bn(fused, channels, f"up_{stride}", kernel=1, activate=False)
            up = layers.UpSampling2D(2, name=f"upsample_{stride}")(up)
            lateral = layers.Add(name=f"fuse_{stride}")([lateral, up])
        fused = layers.ReLU(name=f"fuse_{stride}_relu")(lateral)
        levels.insert(0, fused)
    outputs = []
    for stride, feature, widths in zip(STRIDES, levels, heads, strict=True):
        branches = [_conv_bn(feature, w, f"head_{stride}_{i}") for i, w in enumerate(widths)]
        if dropout:
            branches = [
                layers.SpatialDropout2D(dropout, name=f"dropout_{stride}_{i}")(b) for i, b in enumerate(branches)
            ]
        outputs.append(head(f"cls_{stride}", classes)(branches[0]))
        box = layers.Conv2D(
            4,
            1,
            bias_initializer=keras.initializers.Constant(0.7),
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            dtype="float32",
            name=f"box_{stride}",
        )
        outputs.append(box(branches[-1]))
    return keras.Model(image, outputs, name="jetmask")


def in_precision(net: Any, policy: str) -> Any:
    """The network computing by Keras' dtype policy ("float32", "mixed_bfloat16"), its outputs in float32: itself, or a
    copy where it was saved by another policy."""
    outputs = {tensor._keras_history.operation.name for tensor in net.outputs}
    inner = [layer for layer in net.layers if not isinstance(layer, layers.InputLayer) and layer.name not in outputs]
    if all(layer.dtype_policy.name == policy for layer in inner):
        return net
    names = {layer.name for layer in inner}

    def own(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in names:
            config["dtype"] = policy
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(net, clone_function=own)
    copy.set_weights(net.get_weights())
    return copy


def load(path: str | Path) -> Any:
    """A model saved by training, pruning or folding (.keras). BadInput where the file is not one."""
    expected = "a .keras file written by jetmask train or jetmask prune"
    if not os.path.isfile(path):
        raise BadInput("the model does not exist", where=path, expected=expected, remedy="check the path")
    if str(path).endswith(".keras") and not zipfile.is_zipfile(path):  # Keras would say that it is not found
        raise BadInput(
            "not a .keras file, or one that was cut off",
            where=path,
            expected=expected,
            remedy='copy it again, or save it with model.save("NAME.keras")',
        )
    keras_file.check(path)
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, zlib.error, zipfile.BadZipFile) as error:
        own = "Lambda" in str(error) or "custom" in str(error)  # code of the user's, which a file alone does not bring
        raise BadInput(
            f"not a model this version can read: {error}",
            where=path,
            expected=expected,
            remedy="load it in Python with its own code and call pipeline.pruning.pruner.prune(model, plan)"
            if own
            else "check the path, or train again",
        ) from error


def save(model: Any, path: str | Path) -> None:
    """Write a model as one .keras file, aside and renamed."""
    with files.aside(str(path)) as aside:
        named = aside + ".keras"  # Keras wants the extension
        try:
            model.save(named)
            os.replace(named, aside)
        finally:
            with contextlib.suppress(OSError):  # what a full disk has left of it
                os.unlink(named)


def macs(model: Any, input_wh: tuple[int, int]) -> int:
    """Multiply-adds of all convolutions and dense layers for one image of input_wh (width, height)."""
    sizes: dict[int, tuple[int, int]] = {}
    total = 0
    width, height = input_wh
    for operation in model.operations:
        node = operation._inbound_nodes[0]
        incoming = [sizes[id(t)] for t in node.input_tensors]
        h, w = incoming[0] if incoming else (height, width)
        if isinstance(operation, layers.DepthwiseConv2D):
            h, w = -(-h // operation.strides[0]), -(-w // operation.strides[1])
            total += h * w * int(operation.kernel.shape[0] * operation.kernel.shape[1] * operation.kernel.shape[2])
        elif isinstance(operation, layers.Conv2D):
            h, w = -(-h // operation.strides[0]), -(-w // operation.strides[1])
            kh, kw, cin, cout = operation.kernel.shape
            total += h * w * int(kh * kw * cin * cout)
        elif isinstance(operation, layers.UpSampling2D):
            h, w = h * operation.size[0], w * operation.size[1]
        for tensor in node.output_tensors:
            sizes[id(tensor)] = (h, w)
    return total
