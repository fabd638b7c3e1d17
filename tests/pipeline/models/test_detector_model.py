"""The network: budget, shapes, and the fused batch normalisation against Keras' own."""

import keras
import numpy as np
import pytest
from refusals import refused

from jetson.errors import BadInput, JetmaskError, UsageError
from pipeline.models import batchnorm, detector, mobilenet


@pytest.mark.parametrize("size,budget", [("n", 95e6), ("s", 250e6), ("m", 620e6)])
def test_each_size_keeps_its_budget(size, budget):
    assert detector.macs(detector.build(size), (320, 320)) <= budget


def test_outputs_are_one_map_of_logits_and_distances_per_stride():
    net = detector.build("n")
    outputs = net(np.zeros((2, 64, 96, 3), np.float32))
    shapes = [tuple(o.shape) for o in outputs]
    assert shapes == [(2, 64 // s, 96 // s, c) for s in detector.STRIDES for c in (3, 4)]
    assert list(net.output_names) == [f"{k}_{int(s)}" for s in detector.STRIDES for k in ("cls", "box")]


def test_macs_by_hand():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, 2, "same", use_bias=False)(image)
    x = keras.layers.UpSampling2D(2)(x)
    net = keras.Model(image, keras.layers.Conv2D(4, 1)(x))
    assert detector.macs(net, (64, 32)) == 32 * 16 * 9 * 3 * 8 + 64 * 32 * 8 * 4


def test_fused_batch_norm_is_batch_norm():
    x = np.random.default_rng(0).normal(2, 3, (4, 6, 5, 7)).astype(np.float32)
    fused, plain = batchnorm.FusedBatchNorm(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    np.testing.assert_allclose(fused(x, training=True), plain(x, training=True), atol=1e-4)
    np.testing.assert_allclose(fused.moving_mean, plain.moving_mean, atol=1e-5)
    # The fused kernel keeps the unbiased variance, as TensorFlow and cuDNN do; Keras' composed one the biased.
    n = x.size / x.shape[-1]
    expected = (np.asarray(plain.moving_variance) - 0.9) * n / (n - 1)
    np.testing.assert_allclose(np.asarray(fused.moving_variance) - 0.9, expected, rtol=1e-3)


def test_unknown_size_and_broken_file_say_what_to_do(tmp_path):
    with refused(UsageError, names=["'xl'", "n, s, m"]):
        detector.build("xl")
    (tmp_path / "x.keras").write_bytes(b"not a model")
    with refused(BadInput, where="x.keras", names="jetmask train"):
        detector.load(str(tmp_path / "x.keras"))
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Conv2D(40, 3)(image)).save(tmp_path / "y.keras")
    damaged = bytearray((tmp_path / "y.keras").read_bytes())
    at = damaged.index(b"\x89HDF") + 3000  # within the weights: a checksum of the archive does not fit then
    damaged[at] ^= 255
    (tmp_path / "y.keras").write_bytes(damaged)
    with refused(BadInput, where="y.keras", names="jetmask train"):
        detector.load(str(tmp_path / "y.keras"))


def test_a_saved_network_computes_in_the_precision_asked_for_and_gives_the_same(tmp_path):
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    net = detector.build("n")
    assert detector.in_precision(net, "float32") is net
    mixed = detector.in_precision(net, "mixed_bfloat16")
    assert mixed.get_layer("stem").compute_dtype == "bfloat16" and mixed.output_names == net.output_names
    detector.save(mixed, str(tmp_path / "mixed.keras"))
    again = detector.in_precision(detector.load(str(tmp_path / "mixed.keras")), "float32")
    for a, b, c in zip(net(image), mixed(image), again(image)):
        assert keras.backend.standardize_dtype(b.dtype) == "float32"
        np.testing.assert_array_equal(a, c)
        np.testing.assert_allclose(a, b, atol=0.1)
        assert np.abs(np.asarray(a) - np.asarray(b)).max() > 0  # it did compute otherwise


@pytest.fixture(scope="module")
def body_weights(tmp_path_factory):
    """MobileNetV2 with drawn weights, and the file of them that Keras reads."""
    keras.utils.set_random_seed(3)
    source = keras.applications.MobileNetV2(input_shape=(None, None, 3), include_top=False, weights=None)
    path = tmp_path_factory.mktemp("weights") / "body.weights.h5"
    source.save_weights(path)
    return source, str(path)


@pytest.mark.slow
def test_transfer_gives_the_features_of_the_other_network_on_the_same_photograph(body_weights):
    source, path = body_weights
    net = mobilenet.transfer(detector.build("mobilenetv2"), path)
    assert list(net.output_names) == list(detector.build("n").output_names)
    bgr = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)
    theirs = keras.Model(source.inputs, [source.get_layer(name).output for name in mobilenet.TAPS])
    ours = keras.Model(net.inputs, [net.get_layer(name).output for name in mobilenet.TAPS])
    for a, b, stride in zip(theirs(bgr[..., ::-1] / 127.5 - 1), ours(bgr), detector.STRIDES):
        assert a.shape[1:3] == (64 // stride, 96 // stride)
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_the_detector_of_transfer_is_saved_and_loaded_whole(tmp_path):
    net = detector.build("mobilenetv2")
    assert detector.macs(net, (320, 320)) < 1e9
    detector.save(net, str(tmp_path / "t.keras"))
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    for a, b in zip(net(image), detector.load(str(tmp_path / "t.keras"))(image)):
        np.testing.assert_array_equal(a, b)


def test_weights_that_are_none_say_what_to_fetch(tmp_path, monkeypatch):
    (tmp_path / "x.h5").write_bytes(b"not weights")
    for path in ("x.h5", "missing.h5"):
        with refused(BadInput, where=path, names=mobilenet.FILE):
            mobilenet.transfer(detector.build("mobilenetv2"), str(tmp_path / path))

    def no_network(*args, **kwargs):
        raise Exception("URL fetch failure on https://example.org: None -- unreachable")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
    with refused(JetmaskError, where="model.init=imagenet", names=mobilenet.FILE):
        mobilenet.transfer(detector.build("mobilenetv2"))
