"""The pruner against the plain oracle: channels multiplied by zero in the unpruned network."""

import keras
import numpy as np
import pruning
import pytest
from keras import layers
from refusals import refused

from jetson.errors import BadInput, JetmaskError, UsageError
from pipeline.models import detector as models
from pipeline.pruning import cost as prune_cost
from pipeline.pruning import importance
from pipeline.pruning.compose import compose
from pipeline.pruning.pruner import Plan, channel_groups, describe, plan_global, plan_uniform, prune, silence

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def detector():
    return pruning.shake(models.build("n"))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).uniform(0, 255, (1, 32, 64, 3)).astype(np.float32)


def prove(model, x, rng, share=0.4, ratio_0=True):
    """Ratio 0 changes nothing; a pruned model gives what zeroed channels give. Returns the pruned model."""
    if ratio_0:
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


def graph_is_refused(seed, ratio_0=True):
    """Prove one drawn graph; whether anything but inputs and outputs had to stay."""
    model = pruning.drawn_graph(seed)
    x = np.random.default_rng(seed).normal(0, 1, (2, 8, 8, 3)).astype(np.float32)
    fixed = [g.fixed for g in channel_groups(model) if g.fixed and not g.fixed.endswith("of the model")]
    assert all("LayerNormalization" in reason or "softmax" in reason for reason in fixed), fixed
    prove(model, x, np.random.default_rng(seed), ratio_0=ratio_0)
    keras.utils.clear_session()
    return any("LayerNormalization" in reason for reason in fixed)


@pytest.mark.slow
def test_drawn_graphs():
    refused = [graph_is_refused(seed, ratio_0=seed % 5 == 0) for seed in range(25)]
    assert sum(refused) < 5


@pytest.mark.full
def test_many_drawn_graphs():
    refused = [graph_is_refused(seed) for seed in range(1000, 1250)]
    assert 0 < sum(refused) / len(refused) < 0.1


FOREIGN = {
    "MobileNetV2": lambda: keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=10, classifier_activation=None
    ),
    "ResNet50": lambda: keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None
    ),
    "EfficientNetB0": lambda: keras.applications.EfficientNetB0(
        weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None
    ),
    "DenseNet121": lambda: keras.applications.DenseNet121(
        weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        "ResNet50",
        *(pytest.param(name, marks=pytest.mark.full) for name in ("EfficientNetB0", "DenseNet121")),
    ],
)
def test_foreign_architectures(name):
    model = pruning.shake(FOREIGN[name]())
    before = prune_cost.Macs(model, (32, 32))({})
    x = np.random.default_rng(3).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    fixed = {g.fixed for g in channel_groups(model) if g.fixed}
    assert all(reason.endswith("of the model") or "Normalization" in reason for reason in fixed), fixed
    smaller = prove(model, x, np.random.default_rng(4))
    assert prune_cost.Macs(smaller, (32, 32))({}) < 0.7 * before
    keras.utils.clear_session()


# Kinds of layers that a user may have.


@keras.saving.register_keras_serializable("jetmask-tests")
class Normed(layers.Conv2D):
    """A convolution of somebody's own, with a call of its own."""

    def call(self, inputs):
        return super().call(inputs) * 2.0


@keras.saving.register_keras_serializable("jetmask-tests")
class Scaled(layers.Dense):
    """A subclass with one weight more than its base class has."""

    def build(self, input_shape):
        super().build(input_shape)
        self.extra = self.add_weight(shape=(self.units,), name="extra")


@keras.saving.register_keras_serializable("jetmask-tests")
class Mixing(layers.Layer):
    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("jetmask-tests")
class Standardised(layers.Conv2D):
    """Weight standardisation: each kernel's mean is taken over all of its input channels."""

    def convolution_op(self, inputs, kernel):
        mean = keras.ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        return super().convolution_op(inputs, (kernel - mean) / keras.ops.std(kernel, axis=(0, 1, 2), keepdims=True))


@keras.saving.register_keras_serializable("jetmask-tests")
class Competing(layers.Activation):
    def call(self, inputs):
        return keras.ops.softmax(inputs)


@keras.saving.register_keras_serializable("jetmask-tests")
class Divided(layers.Dense):
    """Its own width is in what it computes."""

    def call(self, inputs):
        return super().call(inputs) / self.units


@keras.saving.register_keras_serializable("jetmask-tests")
class AlwaysDropped(layers.Dropout):
    """Monte Carlo dropout: at random at inference, too, so nothing can be compared."""

    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


@keras.saving.register_keras_serializable("jetmask-tests")
class Learning(layers.BatchNormalization):
    pass


def small(middle, last=None):
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(image)
    x = middle(x)
    return pruning.shake(keras.Model(image, layers.Conv2D(2, 1, name="out")(x)))


def noise(*shape):
    return np.random.default_rng(5).normal(0, 1, shape).astype(np.float32)


def test_a_subclass_is_known_by_its_base_class():
    smaller = prove(small(Normed(8, 3, name="own")), noise(1, 8, 8, 3), np.random.default_rng(0))
    assert type(smaller.get_layer("own")) is Normed


def test_what_is_not_understood_stays_with_its_name():
    model = small(Mixing(name="odd"))
    groups = {g.name: g for g in channel_groups(model)}
    assert "odd" in groups["first"].fixed and "Mixing" in groups["first"].fixed
    with refused(UsageError, where="group 'first'", names="layer 'odd'"):
        prune(model, {"first": [0, 1]})
    plan_uniform(model, 0.5)  # asks for nothing that cannot be done
    assert plan_uniform(model, 0.5).kept == {}


@pytest.mark.parametrize(
    "layer, fixed, free",
    [
        (Standardised(8, 3, name="odd"), "first", "odd"),
        (Competing("relu", name="odd"), "first", None),
        (Divided(8, name="odd"), "odd", "first"),
    ],
)
def test_a_subclass_that_is_not_like_its_base_class_stays(layer, fixed, free):
    """Cut as its base class is, it would give other numbers, and nobody would be told."""
    model = small(layer)
    groups = {g.name: g for g in channel_groups(model)}
    assert f"'odd' ({type(layer).__name__})" in groups[fixed].fixed
    with refused(UsageError, where=f"group '{fixed}'", names="layer 'odd'"):
        prune(model, {fixed: [0, 1]})
    if free:  # what it does allow is still done
        assert groups[free].fixed is None
    prove(model, noise(1, 8, 8, 3), np.random.default_rng(0))


def test_trying_a_layer_of_ones_own_leaves_no_trace():
    model = small(lambda x: Learning(name="own")(x, training=True))
    before = [np.array(np.asarray(v)) for v in model.variables]
    assert {g.name: g.fixed for g in channel_groups(model)}["first"] is None
    assert all(np.array_equal(a, b) for a, b in zip(model.variables, before))
    dropped = small(AlwaysDropped(0.5, name="own"))
    assert {g.name: g.fixed for g in channel_groups(dropped)}["first"] is None


def nested(call):
    """A model of two inputs as a layer, called in the way of `call(model, a, b)`."""
    sides = [keras.Input((8, 8, 4), name=name) for name in ("second", "early")]
    inner = keras.Model(
        sides,
        layers.Concatenate()(
            [layers.Conv2D(4, 3, padding="same")(sides[0]), layers.Conv2D(6, 1)(layers.ReLU()(sides[1]))]
        ),
    )
    image = keras.Input((8, 8, 3))
    a, b = (layers.Conv2D(4, kernel, padding="same")(image) for kernel in (3, 1))
    return pruning.shake(keras.Model(image, layers.Conv2D(2, 1)(call(inner, a, b))))


@pytest.mark.parametrize(
    "call",
    [
        lambda inner, a, b: inner([a, b]),
        lambda inner, a, b: inner(inputs=[a, b]),
        lambda inner, a, b: inner({"second": a, "early": b}),
        lambda inner, a, b: inner({"early": b, "second": a}),
    ],
)
def test_a_model_as_a_layer_is_called_in_every_way(call):
    prove(nested(call), noise(2, 8, 8, 3), np.random.default_rng(3))


def own_swish(x):
    """A function that nobody registered with Keras."""
    return x * keras.ops.sigmoid(x)


@pytest.mark.parametrize(
    "middle",
    [
        layers.Lambda(lambda x: 2 * x, name="odd"),
        layers.Lambda(own_swish, name="odd"),
        layers.Conv2D(8, 1, activation=lambda x: 2 * x, name="odd"),
        layers.Dense(8, activation=own_swish, name="odd"),
        lambda x: keras.ops.clip(x, -1.0, np.arange(8, dtype="float32")),
    ],
)
def test_functions_of_ones_own_stay_and_do_not_stop_the_rest(middle):
    model = small(lambda x: layers.ReLU()(layers.Conv2D(8, 1, name="free")(middle(x))))
    fixed = {g.name: g.fixed for g in channel_groups(model)}
    assert fixed["free"] is None and ("odd" in (fixed["first"] or fixed["odd"]) or "clip" in fixed["first"])
    smaller = prove(model, noise(1, 8, 8, 3), np.random.default_rng(0))
    assert smaller.get_layer("free").filters < 8


def test_a_weight_that_cannot_be_cut_is_refused_by_name():
    model = small(Scaled(8, name="odd"))
    with refused(JetmaskError, where="group 'odd'", names="layer 'odd'"):
        prune(model, {"odd": [0, 1, 2]})
    assert (
        pruning.difference(
            pruning.outputs(prune(model, {"first": [1, 2]}), noise(1, 8, 8, 3)),
            pruning.zeroed(model, {"first": [1, 2]}, noise(1, 8, 8, 3)),
        )
        < TOLERANCE
    )


@pytest.mark.parametrize("plan", [{"no such": [0]}, {"first": []}, {"first": [8]}, {"first": [0, 0]}, {"out": [0]}])
def test_a_plan_that_does_not_fit_is_refused(plan):
    model = small(layers.ReLU())
    with refused(UsageError, where="plan" if plan.keys() <= {"no such", "first"} else "group", names=next(iter(plan))):
        prune(model, plan)


def test_a_frozen_model_as_a_layer_stays_frozen():
    """`base.trainable = False`, `base(x, training=False)`, as in every transfer-learning guide."""
    inside = keras.Input((8, 8, 3))
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, name="first")(inside))
    base = keras.Model(inside, layers.ReLU()(y), name="base")
    base.trainable = False
    image = keras.Input((8, 8, 3))
    model = pruning.shake(keras.Model(image, layers.Dense(3)(base(image, training=False))))
    smaller = prove(model, noise(2, 8, 8, 3), np.random.default_rng(1))
    assert np.array_equal(smaller(noise(2, 8, 8, 3), training=True), smaller(noise(2, 8, 8, 3), training=False))
    assert [v.name for v in smaller.trainable_variables] == ["kernel", "bias"]


def test_a_sequential_model_with_one_dimension():
    model = keras.Sequential(
        [
            keras.Input((16, 2)),
            layers.Conv1D(8, 3),
            layers.DepthwiseConv1D(3, depth_multiplier=2),
            layers.SeparableConv1D(6, 3),
            layers.MaxPooling1D(),
            layers.Flatten(),
            layers.Dense(9, activation="relu"),
            layers.Dense(2),
        ]
    )
    prove(pruning.shake(model), noise(2, 16, 2), np.random.default_rng(2))


def test_unbuilt_and_subclassed_models_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    for model in (Own(), keras.Sequential([layers.Dense(3)])):
        with refused(UsageError, where=model.name, names=type(model).__name__):
            channel_groups(model)


# Plans.


@pytest.mark.parametrize("multiple_of", [2, 8, 64])
def test_counts_are_multiples_and_above_the_floor(detector, multiple_of):
    plan = plan_uniform(detector, 0.5, "l2", multiple_of, floor=0.3)
    for name, size in plan.sizes.items():
        count = len(plan.kept.get(name, range(size)))
        assert count == size or count % multiple_of == 0 and count >= max(multiple_of, 0.3 * size)
        assert count == size or abs(count - size / 2) <= multiple_of
    assert bool(plan.kept) == (multiple_of < 64)  # nothing in `n` is wider than 64


@pytest.mark.parametrize("kind", importance.FROM_WEIGHTS)
def test_global_plans_reach_the_wanted_share(detector, kind):
    plan = plan_global(detector, 0.5, kind, (320, 320), multiple_of=2)
    cost = prune_cost.Macs(detector, (320, 320))
    share = cost({name: len(kept) for name, kept in plan.kept.items()}) / cost({})
    assert 0.45 < share <= 0.5 and share == pytest.approx(plan.how["reached"])
    assert "-> " in describe(plan)


@pytest.mark.slow
def test_predicted_costs_are_those_of_the_pruned_network(detector, tmp_path):
    """Without building it: multiply-adds exactly, predicted latency as of its own ONNX file."""
    from pipeline.export import onnx
    from pipeline.latency import cli as predict

    plan = plan_global(detector, 0.45, "l1", (416, 256), multiple_of=2)
    smaller = prune(detector, plan)
    widths = {name: len(kept) for name, kept in plan.kept.items()}
    assert prune_cost.Macs(detector, (416, 256))(widths) == models.macs(smaller, (416, 256))
    onnx.export(smaller, str(tmp_path / "s.onnx"), input_whs=[(64, 32), (32, 32)])
    cost = prune_cost.PredictedLatency(detector, (416, 256))
    wanted = predict.predict_ms(str(tmp_path / "s.onnx"), "nano", "fp16", (416, 256)).latency_ms
    assert cost(widths) == pytest.approx(wanted, rel=1e-3)
    assert cost({}) > cost(widths)


def test_a_cost_can_be_any_function(detector):
    """What is to be saved decides: here only the stem counts."""
    plan = plan_global(detector, 0.5, multiple_of=2, cost=lambda widths: widths["stem"])
    assert list(plan.kept) == ["stem"] and len(plan.kept["stem"]) == plan.sizes["stem"] // 2
    with refused(UsageError, where="a share of 0.01", names=["0.5", "multiple_of", "floor"]):
        plan_global(detector, 0.01, floor=0.5)


def test_plans_survive_json_and_compose(detector, picture):
    first = plan_uniform(detector, 0.3, "random", multiple_of=2)
    once = prune(detector, first)
    second = plan_uniform(once, 0.4, "l1", multiple_of=2)
    both = compose(detector, first, second)
    both = Plan.from_dict(both.to_dict())
    assert both.sizes == first.sizes
    expected = pruning.outputs(prune(once, second), picture)
    assert pruning.difference(pruning.outputs(prune(detector, both), picture), expected) == 0
    with pytest.raises(BadInput):
        Plan.from_dict({"kept": {"a": "x"}, "sizes": {}})


# Importance.


def chain():
    """A network in which channel 1 of `first` does nothing for the output and channel 2 does the most."""
    image = keras.Input((4, 4, 2))
    x = layers.Conv2D(4, 1, name="first")(image)
    x = layers.BatchNormalization(name="norm")(x)
    model = keras.Model(image, layers.Conv2D(1, 1, use_bias=False)(layers.ReLU()(x)))
    size = np.array([1.0, 1e-3, 5.0, 1.2], np.float32)
    model.layers[1].kernel.assign(np.ones((1, 1, 2, 4), np.float32) * size)
    model.get_layer("norm").gamma.assign(np.array([1.0, 1e-3, 5.0, 1.2], np.float32))
    model.layers[-1].kernel.assign(np.ones((1, 1, 4, 1), np.float32))
    return model


@pytest.mark.parametrize("kind", ["l1", "l2", "bn_scale", "activation", "taylor", "geometric_median"])
def test_importance_finds_the_channel_that_does_nothing(kind):
    model = chain()
    before = model.get_weights()
    rng = np.random.default_rng(0)
    pairs = [(rng.uniform(0, 1, (2, 4, 4, 2)).astype(np.float32), np.zeros((2, 4, 4, 1), np.float32)) for _ in range(3)]
    batches = {"activation": [x for x, _ in pairs], "taylor": pairs}.get(kind)
    values = importance.score(model, kind, batches, lambda y, out: keras.ops.mean(keras.ops.square(out - y)))
    assert set(values) == {"first"} and values["first"].argmax() == 2
    if kind != "geometric_median":  # that one asks how replaceable a channel is
        assert values["first"].argmin() == 1
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_taylor_is_the_change_of_the_loss():
    """With a loss that is linear in the output, the first order is exact: (loss without the channel - loss)^2."""
    model = chain()
    x = np.random.default_rng(1).uniform(0, 1, (2, 4, 4, 2)).astype(np.float32)
    values = importance.score(model, "taylor", [(x, x)], lambda y, out: keras.ops.sum(out))["first"]
    whole = float(np.sum(model(x)))
    for channel in range(4):
        without = prune(model, {"first": [c for c in range(4) if c != channel]})
        assert values[channel] == pytest.approx((float(np.sum(without(x))) - whole) ** 2, rel=1e-3, abs=1e-6)


def test_random_is_seeded_and_data_is_asked_for(detector):
    a, b = (importance.score(detector, "random", seed=s)["stem"] for s in (3, 3))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, importance.score(detector, "random", seed=4)["stem"])
    for kind in ("taylor", "no such"):
        with refused(UsageError, names=kind):
            importance.score(detector, kind)
