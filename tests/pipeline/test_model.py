"""The network: budget, shapes, and the fused batch normalisation against Keras' own."""
import keras
import numpy as np
import pytest

from jetson.errors import BadInput, UsageError
from pipeline import model


@pytest.mark.parametrize("size,budget", [("n", 95e6), ("s", 250e6), ("m", 620e6)])
def test_each_size_keeps_its_budget(size, budget):
    assert model.macs(model.build(size), (320, 320)) <= budget


def test_outputs_are_one_map_of_logits_and_distances_per_stride():
    net = model.build("n")
    outputs = net(np.zeros((2, 64, 96, 3), np.float32))
    shapes = [tuple(o.shape) for o in outputs]
    assert shapes == [(2, 64 // s, 96 // s, c) for s in model.STRIDES for c in (3, 4)]
    assert list(net.output_names) == ["%s_%d" % (k, s) for s in model.STRIDES for k in ("cls", "box")]


def test_macs_by_hand():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, 2, "same", use_bias=False)(image)
    x = keras.layers.UpSampling2D(2)(x)
    net = keras.Model(image, keras.layers.Conv2D(4, 1)(x))
    assert model.macs(net, (64, 32)) == 32 * 16 * 9 * 3 * 8 + 64 * 32 * 8 * 4


def test_fused_batch_norm_is_batch_norm():
    x = np.random.default_rng(0).normal(2, 3, (4, 6, 5, 7)).astype(np.float32)
    fused, plain = model.FusedBatchNorm(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    np.testing.assert_allclose(fused(x, training=True), plain(x, training=True), atol=1e-4)
    np.testing.assert_allclose(fused.moving_mean, plain.moving_mean, atol=1e-5)
    # The fused kernel keeps the unbiased variance, as TensorFlow and cuDNN do; Keras' composed one the biased.
    n = x.size / x.shape[-1]
    expected = (np.asarray(plain.moving_variance) - 0.9) * n / (n - 1)
    np.testing.assert_allclose(np.asarray(fused.moving_variance) - 0.9, expected, rtol=1e-3)


def test_unknown_size_and_broken_file_say_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="one of n, s, m"):
        model.build("xl")
    (tmp_path / "x.keras").write_bytes(b"not a model")
    with pytest.raises(BadInput, match="jetmask train"):
        model.load(str(tmp_path / "x.keras"))
