"""Models of others through the pruner: models as layers, layers with a state of their own, plans of another model."""

import keras
import numpy as np
import pruning
import pytest
from keras import layers
from refusals import refused

from jetson.errors import BadInput, JetmaskError, UsageError
from pipeline.models import rebuild
from pipeline.models.batchnorm import folded
from pipeline.pruning import importance
from pipeline.pruning.compose import compose, sizes_before
from pipeline.pruning.pruner import Plan, channel_groups, plan_global, plan_uniform, prune


def noise(*shape):
    return np.random.default_rng(5).normal(0, 1, shape).astype(np.float32)


def between(*middle, width=16):
    """An image, a convolution called `first`, what is asked for, a convolution of two channels."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(width, 3, name="first")(image)
    for layer in middle:
        x = layer(x)
    return pruning.shake(keras.Model(image, layers.Conv2D(2, 1, name="out")(x)))


def branch(name, width=16):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(width, 3, padding="same", name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
        ],
        name=name,
    )


def two_branches():
    """Two models as layers, whose layers have the same names."""
    image = keras.Input((8, 8, 3))
    sides = branch("left")(image), branch("right")(image)
    return pruning.shake(keras.Model(image, layers.Conv2D(2, 1)(layers.Concatenate()(sides))))


def residual():
    """A model as a layer beside a convolution: inlined, its layers are at other depths."""
    image = keras.Input((8, 8, 3))
    block = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(32, 3, padding="same", name="body"),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    )
    x = layers.Add()([layers.Conv2D(32, 1, name="short")(image), block(image)])
    return pruning.shake(keras.Model(image, layers.Conv2D(2, 1)(x)))


# What a layer knows besides its variables.


def test_an_adapted_normalization_stays_adapted():
    normal = layers.Normalization()
    normal.adapt(noise(50, 8, 8, 3) * 4 + 7)
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.Conv2D(2, 1)(layers.Conv2D(16, 3, name="c")(normal(image))))
    x = noise(2, 8, 8, 3)
    wanted = pruning.outputs(model, x)
    for copy in (prune(model, {}), rebuild.cloned(model), folded(model)):
        assert pruning.difference(pruning.outputs(copy, x), wanted) < 1e-6


def adapted(layer, x=None):
    layer.adapt(noise(50, 8, 8, 3) * 4 + 7 if x is None else x)
    return layer


class Prepared(layers.Layer):
    """A layer with a layer in it."""

    def __init__(self, **words):
        super().__init__(**words)
        self.inner = layers.Normalization()

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize(
    "first",
    [
        lambda x: layers.Rescaling(1.0)(adapted(layers.Discretization(num_bins=4))(x)),
        lambda x: layers.TimeDistributed(adapted(layers.Normalization(), noise(50, 8, 3) * 4 + 7))(x),
        lambda x: inside(x),
    ],
)
def test_what_was_adapted_stays_so_wherever_it_is(first):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.Conv2D(2, 1)(layers.Conv2D(16, 3, name="c")(first(image))))
    x = noise(2, 8, 8, 3)
    plan = plan_uniform(model, 0.5)
    assert plan.kept
    assert pruning.difference(pruning.outputs(prune(model, plan), x), pruning.zeroed(model, plan, x)) < 1e-5
    assert pruning.difference(pruning.outputs(folded(model), x), pruning.outputs(model, x)) < 1e-5


def inside(x):
    layer = Prepared(name="own")
    adapted(layer.inner)
    return layer(x)


@pytest.mark.parametrize("words", [["a", "b\nc", ""], []])
def test_words_stay_as_they_are(words):
    """A vocabulary's own file has a word a line."""
    text = keras.Input((1,), dtype="string")
    known = layers.StringLookup()
    if words:
        known.adapt(words)
    x = layers.Flatten()(layers.Embedding(5, 8)(known(text)))
    model = keras.Model(text, layers.Dense(2)(layers.Dense(8, name="d")(x)))
    smaller = prune(model, plan_uniform(model, 0.5, multiple_of=2))
    assert smaller.get_layer("d").units == 4
    copy = next(layer for layer in smaller.layers if isinstance(layer, layers.StringLookup))
    assert copy.get_vocabulary() == known.get_vocabulary()


def test_words_keep_their_weights():
    text = keras.Input((1,), dtype="string")
    known = layers.TextVectorization(output_mode="tf_idf")
    known.adapt(["a b", "b c", "b"])
    model = keras.Model(text, layers.Dense(2)(layers.Dense(8, name="d")(known(text))))
    plan = plan_uniform(model, 0.5, multiple_of=2)
    copy = next(layer for layer in prune(model, plan).layers if isinstance(layer, layers.TextVectorization))
    given = np.array([["a b"], ["c z"]])
    np.testing.assert_allclose(copy(given), known(given), rtol=1e-6)
    assert float(np.abs(known(given)).max()) > 0


def test_a_lookup_keeps_its_vocabulary():
    word = keras.Input((4,), dtype="int64")
    known = layers.IntegerLookup()
    known.adapt([3, 5, 5, 9])
    model = keras.Model(word, layers.Dense(2)(layers.Embedding(8, 4)(known(word))))
    x = np.array([[3, 5, 9, 1]])
    assert pruning.difference(pruning.outputs(prune(model, {}), x), pruning.outputs(model, x)) == 0


class Leaky(layers.ReLU):
    """What is set on it later is in no configuration."""

    slope = 0.0

    def call(self, x):
        return keras.ops.where(x > 0, x, self.slope * x)


def test_a_layer_that_is_not_itself_when_made_anew_is_refused():
    odd = Leaky(name="odd")
    model = between(odd)
    prune(model, {})
    odd.slope = 3.0
    for plan in ({}, {"out": [0, 1]}):
        with refused(JetmaskError, where="layer 'odd'", names="get_config"):
            prune(model, plan)


class Factor(layers.Layer):
    """Not known to the pruner at all; what is set on it later is in no configuration."""

    factor = 1.0

    def call(self, x):
        return x * self.factor


def test_a_layer_that_is_not_understood_is_not_lost_in_silence():
    odd = Factor(name="odd")
    model = between(odd)
    prune(model, {})
    odd.factor = 3.0
    with refused(JetmaskError, where="layer 'odd'", names="get_config"):
        prune(model, {})


class Big(layers.Conv2D):
    """Does not run on the small pictures that layers are tried on."""


def test_a_layer_that_cannot_be_tried_stays_and_does_not_stop_the_rest():
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(16, 1, name="free")(Big(4, 30, name="big")(image))
    model = keras.Model(image, layers.Conv2D(2, 1)(x))
    smaller = prove(model, noise(1, 40, 40, 3))
    assert smaller.get_layer("free").filters == 8


def prove(model, x):
    plan = plan_uniform(model, 0.5)
    smaller = prune(model, plan)
    assert pruning.difference(pruning.outputs(smaller, x), pruning.zeroed(model, plan, x)) < 1e-5
    return smaller


def test_a_grouped_convolution_that_became_depthwise_is_told_by_name():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", groups=2, name="grouped")(layers.Conv2D(8, 3, name="a")(image))
    model = keras.Model(image, layers.Conv2D(2, 1)(x))
    with refused(UsageError, where="layer 'grouped'", names=["--multiple-of", "--floor"]):
        sizes_before(model, {"a": [1]})


class ModReLU(layers.ReLU):
    """Takes channel i and i + C/2 for one complex number."""

    def call(self, x):
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        length = keras.ops.sqrt(a * a + b * b + 1e-6)
        gain = keras.ops.relu(length - 0.3) / length
        return keras.ops.concatenate([a * gain, b * gain], -1)


def test_channels_that_a_layer_pairs_over_its_halves_stay():
    assert "odd" in {g.name: g.fixed for g in channel_groups(between(ModReLU(name="odd")))}["first"]


def test_what_counts_channels_in_its_settings_is_not_copied_as_it_is():
    model = between(layers.Dropout(0.5, noise_shape=(None, 1, 1, 16), name="odd"))
    assert "odd" in {g.name: g.fixed for g in channel_groups(model)}["first"]
    free = between(layers.Dropout(0.5, noise_shape=(None, 1, 1, 1)))
    assert {g.name: g.fixed for g in channel_groups(free)}["first"] is None


def test_functions_and_initializers_of_ones_own_are_no_hindrance_or_are_named():
    model = between(layers.Conv2D(8, 1, name="free", kernel_regularizer=lambda w: 0.0))
    assert prune(model, {"free": [0, 3]}).get_layer("free").filters == 2
    odd = between(layers.Conv2D(8, 1, name="odd", bias_initializer=keras.initializers.Constant(np.arange(8.0))))
    with refused(JetmaskError, where="layer 'odd'"):
        prune(odd, {"odd": [0, 3]})


def test_an_input_may_still_be_left_away():
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3), optional=True)

    class Sum(layers.Layer):
        def call(self, x, y=None):
            return x if y is None else x + y

    model = keras.Model([first, second], layers.Conv2D(2, 1)(Sum()(layers.Conv2D(3, 1)(first), second)))
    x = noise(1, 8, 8, 3)
    assert pruning.difference(pruning.outputs(prune(model, {}), [x, None]), pruning.outputs(model, [x, None])) == 0


# Names.


def test_names_that_come_twice_are_told_apart_in_every_measure():
    """Where the second branch does all the work, the first goes; with equal names each took the other's numbers."""
    model = two_branches()
    left, right = (next(layer for layer in model.layers if layer.name == name) for name in ("left", "right"))
    for side, scale in ((left, 1e-4), (right, 1.0)):
        norm = side.get_layer("bn")
        norm.gamma.assign(np.asarray(norm.gamma) * scale)
        norm.beta.assign(np.asarray(norm.beta) * scale)
    data = [(noise(2, 8, 8, 3), noise(2, 8, 8, 2))]
    taylor = importance.score(model, "taylor", data, lambda y, out: keras.ops.mean(keras.ops.square(out - y)))
    assert taylor["conv#2"].min() > 0 and taylor["conv"].max() < 1e-3 * taylor["conv#2"].max()
    right.get_layer("bn").gamma.assign(np.r_[np.full(8, 1e-6), np.ones(8)].astype(np.float32))
    kept = plan_uniform(model, 0.5, "l1").kept["conv#2"]
    assert kept == list(range(8, 16))
    plan = plan_global(model, 0.6, taylor, (8, 8), multiple_of=2)
    assert len(plan.kept["conv"]) == 2 and "conv#2" not in plan.kept


@pytest.mark.parametrize("make", [residual, two_branches, lambda: between(layers.Conv2D(16, 1, name="second"))])
def test_two_plans_in_one_for_models_in_models(make):
    model, x = make(), noise(2, 8, 8, 3)
    first = plan_uniform(model, 0.25, "random", multiple_of=2)
    once = prune(model, first)
    second = plan_uniform(once, 0.5, "l1", multiple_of=2)
    both = Plan.from_dict(compose(model, first, second).to_dict())
    assert set(both.kept) == set(first.kept) and both.sizes == first.sizes
    assert pruning.difference(pruning.outputs(prune(model, both), x), pruning.outputs(prune(once, second), x)) == 0
    before = sizes_before(model, first)
    assert sorted(before.values()) == sorted(first.sizes.values()) and set(before) == set(second.sizes)


# Plans and numbers that do not fit.


def test_a_plan_of_another_model_is_refused():
    with refused(UsageError, where="plan, group 'first'", names=["16", "32"]):
        prune(between(width=32), plan_uniform(between(width=16), 0.5))


@pytest.mark.parametrize("kept", [[0.2, 1.7], [False, True], ["0"]])
def test_only_whole_numbers_are_channels(kept):
    with refused(UsageError, where="plan, group 'first'"):
        prune(between(), {"first": kept})


@pytest.mark.parametrize("kept", ["123", [1.0], [True], [None]])
def test_a_plan_that_was_edited_by_hand_is_read_strictly(kept):
    with refused(BadInput, names=["kept", "sizes"]):
        Plan.from_dict({"kept": {"first": kept}, "sizes": {"first": 16}})
    assert Plan.from_dict({"kept": {"first": [3, 1]}, "sizes": {"first": 16}}).kept == {"first": [1, 3]}


def test_weights_that_are_no_numbers_are_told():
    model = between(layers.Conv2D(16, 1, name="second"))
    kernel = np.array(model.get_layer("second").kernel)
    kernel[0, 0, 0, 3] = np.nan
    model.get_layer("second").kernel.assign(kernel)
    for plan, group in (
        (lambda: plan_uniform(model, 0.5), "second"),
        (lambda: plan_global(model, 0.5, input_wh=(8, 8)), "second"),
        (lambda: plan_uniform(model, 0.5, {"first": [np.nan] * 16, "second": [1.0] * 16}), "first"),
    ):
        with refused(UsageError, where=f"group '{group}', made by {group}"):
            plan()


@pytest.mark.parametrize("numbers", [{"multiple_of": 0}, {"floor": float("nan")}, {"floor": 1.5}])
def test_numbers_out_of_range_are_told(numbers):
    with refused(UsageError, where="multiple_of, floor"):
        plan_uniform(between(), 0.5, **numbers)
