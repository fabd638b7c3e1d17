"""Batch normalisation that goes into the convolutions: the same answers, and nothing folded that may not be."""

import keras
import numpy as np
import pytest
from keras import layers

from pipeline.models import detector
from pipeline.models.batchnorm import folded


def drawn_statistics(net, seed=0):
    """Random statistics and weights of every normalisation, as training would leave them."""
    rng = np.random.default_rng(seed)
    for layer in net.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.3, 2, value.shape) for value in layer.get_weights()])
    return net


def left(net):
    return [layer.name for layer in net.layers if isinstance(layer, layers.BatchNormalization)]


def close(net, copy, wh=(64, 96)):
    image = np.random.default_rng(1).uniform(0, 255, (2, wh[1], wh[0], 3)).astype("float32")
    for one, other in zip(net(image, training=False), copy(image, training=False), strict=True):
        one, other = np.array(one), np.array(other)
        assert np.abs(one - other).max() <= 1e-4 * max(1.0, np.abs(one).max())


@pytest.mark.parametrize("size", ["n", "mobilenetv2"])
def test_a_detector_answers_as_before_without_one_normalisation(size):
    net = drawn_statistics(detector.build(size))
    weights = net.get_weights()
    copy = folded(net)
    assert left(net) and not left(copy)
    close(net, copy)
    assert all(np.array_equal(a, b) for a, b in zip(weights, net.get_weights(), strict=True))  # a copy


def test_what_may_not_be_folded_stays():
    x = image = keras.Input((None, None, 3))
    x = layers.BatchNormalization(name="first")(x)
    x = layers.BatchNormalization(scale=False, name="gone")(layers.Conv2D(6, 3, use_bias=False)(x))
    grouped = layers.Conv2D(6, 3, padding="same", groups=2)(x)
    x = layers.BatchNormalization(center=False, name="gone_grouped")(grouped)
    x = layers.BatchNormalization(name="active")(layers.Conv2D(6, 1, activation="relu")(x))
    twice = layers.Conv2D(6, 1)(x)
    x = layers.Add()([twice, layers.BatchNormalization(name="read_twice")(twice)])
    x = layers.BatchNormalization(name="after_add")(x)
    shared = layers.BatchNormalization(name="shared")
    x = layers.Add()([shared(layers.Conv2D(6, 1)(x)), shared(x)])
    deep = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.BatchNormalization(name="gone_deep")(deep)
    out = layers.Conv2D(4, 1, name="out")(x)
    net = drawn_statistics(keras.Model(image, [out, layers.BatchNormalization(name="of_an_output")(out)]))
    copy = folded(net)
    assert left(copy) == ["first", "active", "read_twice", "after_add", "shared", "of_an_output"]
    close(net, copy)
