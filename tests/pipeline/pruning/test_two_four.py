"""The 2:4 pattern: masks against a plain count, in the weights of the exported ONNX, through `jetmask prune`."""

import itertools
import os
import subprocess
import sys

import cv2
import keras
import numpy as np
import onnx
import pytest
import test_schedule
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper

from jetson import files
from jetson.bundle import manifest
from pipeline import config as configuration
from pipeline.build import trtexec
from pipeline.bundle import writer
from pipeline.export import onnx as export
from pipeline.graphs import sparsity
from pipeline.models import detector as models
from pipeline.pruning import two_four
from pipeline.pruning.schedule import Pruning, Settings
from pipeline.quantization import calibrate, quantize

drawn = test_schedule.drawn
NET = models.Architecture(8, ((8, 1), (12, 2), (8, 1), (8, 1)), (8, 8, 6, 8), ((8,), (8, 8), (8,), (8,)))


def fours(weight):
    """All fours along the input channels of a convolution's weight (out, in, h, w), in plain loops."""
    out, channels, height, width = weight.shape
    for k, y, x in itertools.product(range(out), range(height), range(width)):
        for c in range(0, channels, 4):
            yield [weight[k, c + i, y, x] for i in range(4)]


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=3).map(lambda s: (*s, 8)),
        elements=st.floats(-4, 4, width=32),
    ),
    st.randoms(use_true_random=False),
)
def test_a_mask_keeps_the_two_largest_of_each_four(weight, random):
    axis = random.randrange(weight.ndim)
    turned = np.moveaxis(weight, -1, axis)
    found = np.moveaxis(sparsity.mask(turned, axis), axis, -1).reshape(-1, 4)
    for row, stays in zip(np.abs(weight).reshape(-1, 4), found, strict=True):
        assert stays.sum() == 2
        assert min(row[stays]) >= max(row[~stays])
    assert sparsity.holds(turned * sparsity.mask(turned, axis), axis)
    assert sparsity.holds(turned, axis) == all((row != 0).sum() <= 2 for row in weight.reshape(-1, 4))


def test_what_must_stay_stays():
    keep = np.zeros((1, 8), bool)
    keep[0, 3] = True
    found = sparsity.mask(np.array([[9.0, 8, 7, 0, 1, 2, 3, 4]]), 1, keep)
    assert found.tolist() == [[True, False, False, True, False, False, True, True]]
    assert not sparsity.holds(np.zeros((2, 6)), 1), "6 is no multiple of 4"


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """(model, choice, path of its ONNX): a small detector with residual blocks, all weights random, pruned."""
    keras.utils.set_random_seed(3)
    model = models.build(NET)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    choice = two_four.choose(model)
    two_four.apply(model, choice.masks)
    path = str(tmp_path_factory.mktemp("sparse") / "p.onnx")
    export.export(model, path)
    return model, choice, path


def test_the_exported_weights_have_the_pattern_with_identities_folded(sparse):
    _, choice, path = sparse
    graph = onnx.load(path).graph
    assert not any(node.op_type == "Add" and "block" in node.name for node in graph.node), "identities are folded"
    weights = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    seen, ones = set(), 0
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        weight = weights[node.input[1]]
        if node.name in choice.masks:
            seen.add(node.name)
            counts = [sum(value != 0 for value in four) for four in fours(weight)]
            assert max(counts) <= 2, node.name
            ones += sum(count < 2 for count in counts)
        elif weight.shape[1] % 4 == 0:
            assert max(sum(value != 0 for value in four) for four in fours(weight)) > 2, node.name
    assert seen == set(choice.masks) and ones == 0, "no weight is given away"
    assert {name: reason for name, reason in choice.dense if not name.startswith(("cls", "box"))} == {
        "stem": "3 input channels, not a multiple of 4",
        "up_8": "6 input channels, not a multiple of 4",
        "head_16_0": "6 input channels, not a multiple of 4",
    }
    assert {name for name, reason in choice.dense if reason == "an output of the network"} == {
        f"{kind}_{stride}" for kind in ("cls", "box") for stride in models.STRIDES
    }
    assert sparsity.pattern_of(path) == "2:4"
    found = {layer.name: layer for layer in sparsity.onnx_layers(path)}
    assert {name for name, layer in found.items() if layer.holds} == seen
    assert {name: layer.reason for name, layer in found.items() if layer.reason} == dict(choice.dense)


def test_half_precision_and_quantised_files_keep_it_and_a_bundle_says_so(sparse, tmp_path, tiny_bundle):
    _, _, path = sparse
    rng = np.random.default_rng(1)
    images = []
    for number in range(2):
        images.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(images[-1], rng.integers(0, 255, (64, 64, 3), np.uint8))
    table = calibrate.collect(path, images, (64, 64), "minmax")
    half, eight = str(tmp_path / "p.fp16.onnx"), str(tmp_path / "p.int8.onnx")
    quantize.fp16(path, half, [])
    quantize.int8_tensorrt(path, table, eight)
    assert sparsity.pattern_of(half) == sparsity.pattern_of(eight) == "2:4"
    dense = os.path.join(tiny_bundle, "models", "t.onnx")
    assert sparsity.pattern_of(dense) is None
    made = str(tmp_path / "bundle")
    writer.write(
        made,
        {"p": {"fp32": path}, "t": {"fp32": dense}},
        [
            {
                "name": f"{model}-fp16",
                "model": model,
                "input_wh": (64, 64),
                "precision": "fp16",
                "runtimes": ["tensorrt"],
            }
            for model in ("p", "t")
        ]
        + [{"name": "t-fp32", "model": "t", "input_wh": (320, 192), "precision": "fp32", "runtimes": ["onnxruntime"]}],
    )
    found = manifest.load(made)
    assert [variant.sparsity for variant in found.variants] == ["2:4", None, None]


def test_trtexec_is_told():
    words = trtexec.command((8, 6), "m.onnx", "e", (64, 64), "fp16", 1 << 28, sparse=True)
    assert " --sparsity=enable" in words
    assert "sparsity" not in trtexec.command((8, 6), "m.onnx", "e", (64, 64), "fp32", 1 << 28, sparse=True)


@pytest.mark.slow
def test_the_zeros_are_held_while_it_learns(drawn, tmp_path):
    model, source, folder = models.build(NET), str(tmp_path / "m.keras"), tmp_path / "out"
    models.save(model, source)
    config = configuration.load(None, [*test_schedule.SETTINGS, "train.epochs=5"])  # an epoch is one step here
    config.data.root = str(drawn)

    def pruned():
        return two_four.two_four(Pruning(source, str(folder), config, Settings(input_wh=(64, 64))))

    result = pruned()
    start, best = models.load(source), models.load(str(folder / "best.keras"))
    last = models.load(str(folder / "sparse" / "train" / "last.keras"))
    choice = two_four.choose(start)
    for name, mask in choice.masks.items():
        for found in (best, last):
            assert not np.asarray(found.get_layer(name).kernel)[~mask].any(), name
        # The average of the weights, which is what is kept, has moved; and only where the masks let it.
        now, before = (np.asarray(found.get_layer(name).kernel) for found in (last, start))
        assert np.abs(now - before * mask).max() > 0
    assert files.read_json(str(folder / "result.json")) == result
    assert result["dense"] and set(result["sparse"]) == set(choice.masks) and 0.3 < result["zeros"] < 0.5
    assert result["map50"] is not None and "difference" in result["change"] and "plan" not in result
    stamp = os.stat(folder / "sparse" / "train" / "last.keras").st_mtime_ns
    assert pruned() == result and os.stat(folder / "sparse" / "train" / "last.keras").st_mtime_ns == stamp


@pytest.mark.slow
def test_the_verb_says_what_it_brings(tmp_path):
    source = str(tmp_path / "m.keras")
    models.save(models.build(NET), source)
    words = ["prune", "--model", source, "--out", str(tmp_path / "out"), "--two-four", "--epochs", "0"]
    code, out, err = _jetmask(*words)
    assert code == 0, err
    assert "2:4 pattern in" in out and "dense (3 input channels, not a multiple of 4): stem" in out
    assert "no faster on a Nano, a TX2, a Xavier or a CPU" in out
    code, _, err = _jetmask(*words, "--importance", "l1")
    assert code == 2 and "--two-four judges" in err


def _jetmask(*words):
    done = subprocess.run([sys.executable, "-m", "pipeline.cli", *words], capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_model_that_cannot_have_it_is_told(tmp_path):
    image = keras.Input((8, 8, 3))
    path = str(tmp_path / "m.keras")
    keras.Model(image, keras.layers.Conv2D(2, 3)(image)).save(path)
    code, _, err = _jetmask("prune", "--model", path, "--out", str(tmp_path / "o"), "--two-four", "--epochs", "0")
    assert code == 2 and "multiple of 4" in err
