"""What each Keras layer does to channels, for the pass in pipeline/pruning/channels.py.

A rule takes (pass, record, inputs, output shape, args, kwargs) and returns the channel numbers of the output's last
axis, having told the pass which axes of which variables run along which channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from pipeline.pruning.channel_numbers import Numbers, Record, Unknown, Value

# Activations that look at one value at a time. Softmax and GLU do not.
ELEMENTWISE = {
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "celu",
    "selu",
    "gelu",
    "silu",
    "swish",
    "mish",
    "tanh",
    "sigmoid",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "log_sigmoid",
    "softplus",
    "softsign",
    "exponential",
    "squareplus",
    "sparse_plus",
    "tanh_shrink",
    "hard_shrink",
    "soft_shrink",
    "threshold",
}
PASSING = (
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.Identity,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.UpSampling3D,
    layers.Resizing,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
)
MERGES = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
# Bare operations (`x + y`, `keras.ops.relu(x)`) have no public classes; these are their names, in lower case.
MERGING_OPERATIONS = {"add", "subtract", "multiply", "maximum", "minimum", "divide", "truedivide"}
PASSING_OPERATIONS = {name.replace("_", "") for name in ELEMENTWISE} | {
    "exp",
    "sqrt",
    "square",
    "abs",
    "absolute",
    "negative",
    "clip",
    "cast",
    "identity",
    "stopgradient",
}


def rule_for(operation: Any) -> Callable[..., Any]:
    """The rule of a layer or operation; unknown ones get a rule that says so."""
    for classes, rule in RULES:
        if isinstance(operation, classes):
            return rule
    if not isinstance(operation, keras.Layer) and type(operation).__module__.startswith("keras.src.ops"):
        name = type(operation).__name__.lower()
        if name in MERGING_OPERATIONS:
            return _merge_operation
        if name in PASSING_OPERATIONS:
            return _pass_operation
    return _refuse("not known to the pruner")


def _refuse(reason: str) -> Callable[..., None]:
    def rule(*_: Any) -> None:
        raise Unknown(reason)

    return rule


def _channels_last(layer: Any) -> None:
    if getattr(layer, "data_format", "channels_last") not in (None, "channels_last"):
        raise Unknown(f"its channels are not the last axis (data_format={layer.data_format!r})")
    # Weights in other forms than a plain kernel: cutting them is not understood.
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise Unknown("its kernel is quantized or carries LoRA weights")


def _activated(channels: Numbers, record: Record, ids: np.ndarray) -> np.ndarray:
    """The numbers themselves; fixed where the layer's own activation mixes them."""
    reason = _mixes(record.layer.activation)
    if reason:
        channels.fix(ids, f"layer {record.layer.name!r} ({type(record.layer).__name__}): {reason}")
    return ids


def _mixes(activation: Any) -> str | None:
    if activation is None or isinstance(activation, PASSING):
        return None
    name = getattr(activation, "__name__", type(activation).__name__)
    known = getattr(activation, "__module__", "").startswith("keras.src.") and name in ELEMENTWISE
    return None if known else f"activation {name!r} may mix channels"


def _conv(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> np.ndarray:
    layer, ids = record.layer, inputs[0].ids
    _channels_last(layer)
    groups = layer.groups
    if groups > 1 and groups == len(ids):  # depthwise in the guise of a grouped convolution
        out = np.repeat(ids, layer.filters // groups)
        channels.carries(record, out, ("kernel", -1), ("bias", 0))
        record.counts.update(filters=out, groups=ids)
        return _activated(channels, record, out)
    out = channels.opens(record, layer.filters, ("kernel", -1), ("bias", 0))
    if groups > 1:
        # Every group keeps as many channels as the others: those at the same place in each go together.
        for own in (ids.reshape(groups, -1), out.reshape(groups, -1)):
            for other in own[1:]:
                channels.tie(own[0], other)
    channels.reads(record, ids[: len(ids) // groups], ("kernel", -2))
    record.counts.update(filters=out)
    return _activated(channels, record, out)


def _conv_transpose(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> np.ndarray:
    _channels_last(record.layer)
    out = channels.opens(record, record.layer.filters, ("kernel", -2), ("bias", 0))
    channels.reads(record, inputs[0].ids, ("kernel", -1))
    record.counts.update(filters=out)
    return _activated(channels, record, out)


def _depthwise(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> np.ndarray:
    _channels_last(record.layer)
    ids = inputs[0].ids
    out = np.repeat(ids, record.layer.depth_multiplier)
    channels.carries(record, ids, ("kernel", -2))
    channels.carries(record, out, ("bias", 0))
    return _activated(channels, record, out)


def _separable(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> np.ndarray:
    layer, ids = record.layer, inputs[0].ids
    _channels_last(layer)
    out = channels.opens(record, layer.filters, ("pointwise_kernel", -1), ("bias", 0))
    channels.carries(record, ids, ("depthwise_kernel", -2))
    channels.reads(record, np.repeat(ids, layer.depth_multiplier), ("pointwise_kernel", -2))
    record.counts.update(filters=out)
    return _activated(channels, record, out)


def _dense(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> np.ndarray:
    _channels_last(record.layer)
    out = channels.opens(record, record.layer.units, ("kernel", -1), ("bias", 0))
    channels.reads(record, inputs[0].ids, ("kernel", -2))
    record.counts.update(units=out)
    return _activated(channels, record, out)


def _batch_norm(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> np.ndarray:
    axis = record.layer.axis
    if axis not in (-1, len(shape) - 1):
        raise Unknown(f"it normalises axis {axis!r}, not the last one")
    variables = ("gamma", "beta", "moving_mean", "moving_variance")
    channels.carries(record, inputs[0].ids, *((name, 0) for name in variables))
    return inputs[0].ids


def _prelu(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> np.ndarray:
    if record.layer.alpha.shape[-1] == len(inputs[0].ids):
        channels.carries(record, inputs[0].ids, ("alpha", -1))
    return inputs[0].ids


def _pass(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> np.ndarray:
    _channels_last(record.layer)
    if (getattr(record.layer, "noise_shape", None) or (None,))[-1] not in (None, 1):
        raise Unknown("its noise_shape counts channels")
    return inputs[0].ids


def _activation(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> np.ndarray:
    reason = _mixes(record.layer.activation)
    if reason:
        raise Unknown(reason)
    return inputs[0].ids


def _rescaling(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> np.ndarray:
    if np.size(record.layer.scale) != 1 or np.size(record.layer.offset) != 1:
        raise Unknown("it scales each channel by its own constant")
    return inputs[0].ids


def _merge(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if len({value.rank for value in inputs}) != 1:
        raise Unknown("its inputs differ in rank")
    wide = [value.ids for value in inputs if len(value.ids) == shape[-1]]
    if not wide:
        raise Unknown("none of its inputs has the channels of its output")
    for value in inputs:
        if len(value.ids) != shape[-1]:  # one channel broadcast over all
            channels.fix(value.ids, f"layer {record.layer.name!r}: broadcast over all channels")
    for ids in wide[1:]:
        channels.tie(wide[0], ids)
    return wide[0]


def _merge_operation(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    flat = keras.tree.flatten((args, kwargs))
    if len(inputs) == 1 and any(np.size(v) != 1 for v in flat if v is not inputs[0] and v is not None):
        raise Unknown("it combines channels with a constant array")
    return _merge(channels, record, inputs, shape, args, kwargs)


def _pass_operation(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if len(inputs) != 1 or len(inputs[0].ids) != shape[-1]:
        raise Unknown("it changes the last axis")
    settings = [
        v
        for v in keras.tree.flatten((args, kwargs, vars(record.layer).get("x_min"), vars(record.layer).get("x_max")))
        if v is not inputs[0]
    ]
    if any(np.size(v) != 1 for v in settings if v is not None):
        raise Unknown("it combines channels with a constant array")
    return inputs[0].ids


def _concatenate(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if record.layer.axis in (-1, len(shape) - 1):
        return np.concatenate([value.ids for value in inputs])
    for value in inputs[1:]:
        channels.tie(inputs[0].ids, value.ids)
    return inputs[0].ids


def _flatten(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    _channels_last(record.layer)
    return _tiled(inputs[0].ids, shape[-1])


def _tiled(ids: np.ndarray, length: Any) -> np.ndarray:
    if not length or length % len(ids):
        raise Unknown("the size of its input is not fixed")
    return np.tile(ids, length // len(ids))


def _reshape(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    ids = inputs[0].ids
    if len(shape) == 2:
        out = _tiled(ids, shape[-1])
    elif shape[-1] == len(ids):
        out = ids
    else:
        raise Unknown("it moves channels to another axis")
    known = record.counts.setdefault("target_shape", out)
    channels.tie(known, out)  # the target is written into the layer: used twice, it holds for both
    return out


def _permute(
    channels: Numbers,
    record: Record,
    inputs: list[Value],
    shape: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if record.layer.dims[-1] != len(record.layer.dims):
        raise Unknown("it moves the channel axis")
    return inputs[0].ids


RULES = (
    (layers.DepthwiseConv1D, _depthwise),
    (layers.DepthwiseConv2D, _depthwise),
    (layers.SeparableConv1D, _separable),
    (layers.SeparableConv2D, _separable),
    ((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), _conv_transpose),
    ((layers.Conv1D, layers.Conv2D, layers.Conv3D), _conv),
    (layers.Dense, _dense),
    (layers.BatchNormalization, _batch_norm),
    (layers.PReLU, _prelu),
    (layers.Activation, _activation),
    (layers.Rescaling, _rescaling),
    (MERGES, _merge),
    (layers.Concatenate, _concatenate),
    (layers.Flatten, _flatten),
    (layers.Reshape, _reshape),
    (layers.Permute, _permute),
    (
        (
            layers.Softmax,
            layers.LayerNormalization,
            layers.GroupNormalization,
            layers.UnitNormalization,
            layers.SpectralNormalization,
        ),
        _refuse("it computes across channels"),
    ),
    (PASSING, _pass),
)
