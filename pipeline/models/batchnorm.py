"""Batch normalisation as the detectors use it."""

from typing import Any

import keras
import numpy as np
from keras import layers

from pipeline.models import rebuild


@keras.saving.register_keras_serializable("jetmask")
class FusedBatchNorm(layers.BatchNormalization):
    """Batch normalisation whose training step is TensorFlow's fused kernel.

    Keras composes it from many small operations; on a CPU the fused kernel makes a whole training step about a third
    faster. Elsewhere, and at inference, it is exactly `keras.layers.BatchNormalization`.
    """

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if not (training and self.trainable and keras.backend.backend() == "tensorflow"):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        gamma, beta = tf.cast(self.gamma, "float32"), tf.cast(self.beta, "float32")
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=gamma, offset=beta, mean=[], variance=[], epsilon=self.epsilon, is_training=True
        )
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + mean * (1 - keep))
        self.moving_variance.assign(self.moving_variance * keep + variance * (1 - keep))
        return y


def folded(net: Any) -> Any:
    """A copy of a Keras functional model for inference alone: each batch normalisation that follows a convolution, and
    nothing else does, is in that convolution's weights. Exact but for rounding.

    A teacher answers so in .6 to .8 of the time (`mobilenetv2` .63, `s` .82: TensorFlow, two cores of an AMD EPYC).
    """
    plain = rebuild.cloned(net)  # its layers are in no other graph
    ends = {id(tensor) for tensor in plain.outputs}
    into = {}  # convolution -> the normalisation that goes into it
    for norm in plain.layers:
        if not isinstance(norm, layers.BatchNormalization) or len(norm._inbound_nodes) > 1:
            continue
        before = norm.input._keras_history.operation
        if (
            type(before) in (layers.Conv2D, layers.DepthwiseConv2D)
            and before.activation is keras.activations.linear
            and len(before._inbound_nodes) == len(before._outbound_nodes) == 1
            and id(before.output) not in ends
            and norm.axis in (-1, len(norm.input.shape) - 1)
        ):
            into[before.name] = norm
    gone = {norm.name for norm in into.values()}

    def with_bias(layer: Any) -> Any:
        config = layer.get_config()
        return layer.__class__.from_config(dict(config, use_bias=True) if layer.name in into else config)

    copy = keras.models.clone_model(
        plain,
        clone_function=with_bias,
        call_function=lambda layer, x, *args, **words: x if layer.name in gone else layer(x, *args, **words),
    )
    for layer in plain.layers:
        if layer.weights and layer.name not in gone:
            copy.get_layer(layer.name).set_weights(
                _folded(layer, into[layer.name]) if layer.name in into else layer.get_weights()
            )
        if layer.name not in gone:
            rebuild.settle(layer, copy.get_layer(layer.name))
    return copy


def _folded(conv: Any, norm: Any) -> list[Any]:
    """[kernel, bias] of the convolution and the normalisation behind it."""
    ones, zeros = np.ones(norm.moving_mean.shape, "float32"), np.zeros(norm.moving_mean.shape, "float32")
    gamma, beta = (np.array(norm.gamma) if norm.scale else ones), (np.array(norm.beta) if norm.center else zeros)
    gain = gamma / np.sqrt(np.array(norm.moving_variance) + norm.epsilon)
    kernel, *bias = conv.get_weights()
    shape = kernel.shape[-2:] if isinstance(conv, layers.DepthwiseConv2D) else kernel.shape[-1:]
    return [kernel * gain.reshape(shape), ((bias[0] if bias else zeros) - np.array(norm.moving_mean)) * gain + beta]
