"""The pruner against the plain oracle: channels multiplied by zero in the unpruned network."""
import json

import keras
import numpy as np
import pruning
import pytest
from keras import layers

from jetson.errors import BadInput, JetmaskError, UsageError
from pipeline import importance, prune_cost
from pipeline import model as models
from pipeline.prune import Plan, channel_groups, compose, describe, plan_global, plan_uniform, prune, silence

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def detector():
    return pruning.shake(models.build("n"))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).uniform(0, 255, (1, 32, 64, 3)).astype(np.float32)


def prove(model, x, rng, share=0.4):
    """Ratio 0 changes nothing; a pruned model gives what zeroed channels give. Returns the pruned model."""
    same = prune(model, plan_uniform(model, 0.0))
    assert pruning.difference(pruning.outputs(same, x), pruning.outputs(model, x)) == 0
    plan = pruning.drop_at_random(model, rng, share)
    smaller = prune(model, plan)
    ours = pruning.outputs(smaller, x)
    assert pruning.difference(ours, pruning.zeroed(model, plan, x)) < TOLERANCE
    assert smaller.count_params() < model.count_params() or not plan
    silence(model, plan)
    assert pruning.difference(ours, pruning.outputs(model, x)) < TOLERANCE
    return smaller


def test_the_detector(picture):
    model = pruning.shake(models.build("n"))
    smaller = prove(model, picture, np.random.default_rng(1))
    assert smaller.output_names == model.output_names
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    assert type(smaller.get_layer("stem_bn")) is models.FusedBatchNorm
    # The network that comes out can be pruned again.
    prove(smaller, picture, np.random.default_rng(2))


def graph_is_refused(seed):
    """Prove one drawn graph; whether anything but inputs and outputs had to stay."""
    model = pruning.drawn_graph(seed)
    x = np.random.default_rng(seed).normal(0, 1, (2, 8, 8, 3)).astype(np.float32)
    fixed = [g.fixed for g in channel_groups(model) if g.fixed and not g.fixed.endswith("of the model")]
    assert all("LayerNormalization" in reason or "softmax" in reason for reason in fixed), fixed
    prove(model, x, np.random.default_rng(seed))
    keras.utils.clear_session()
    return any("LayerNormalization" in reason for reason in fixed)


def test_drawn_graphs():
    refused = [graph_is_refused(seed) for seed in range(25)]
    assert sum(refused) / len(refused) < 0.1


@pytest.mark.full
def test_many_drawn_graphs():
    refused = [graph_is_refused(seed) for seed in range(1000, 1250)]
    assert 0 < sum(refused) / len(refused) < 0.1


FOREIGN = {
    "MobileNetV2": lambda: keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=10,
                                                          classifier_activation=None),
    "ResNet50": lambda: keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10,
                                                    classifier_activation=None),
    "EfficientNetB0": lambda: keras.applications.EfficientNetB0(weights=None, input_shape=(32, 32, 3), classes=10,
                                                                classifier_activation=None),
    "DenseNet121": lambda: keras.applications.DenseNet121(weights=None, input_shape=(32, 32, 3), classes=10,
                                                          classifier_activation=None)}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_architectures(name):
    model = pruning.shake(FOREIGN[name]())
    before = prune_cost.Macs(model, (32, 32))({})
    x = np.random.default_rng(3).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    fixed = {g.fixed for g in channel_groups(model) if g.fixed}
    assert all(reason.endswith("of the model") or "Normalization" in reason for reason in fixed), fixed
    smaller = prove(model, x, np.random.default_rng(4))
    assert prune_cost.Macs(smaller, (32, 32))({}) < 0.7 * before
    keras.utils.clear_session()
