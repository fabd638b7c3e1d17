"""Which channels a plan drops: counted by hand on a network of three groups, without training or TensorFlow's graph."""

import keras
import numpy as np
import pruning
import pytest
from keras import layers
from refusals import refused

from jetson.errors import BadInput, UsageError
from pipeline.pruning import pruner
from pipeline.pruning.channels import Channels


@pytest.fixture(scope="module")
def model():
    """Groups a (8 channels), b (16) and c (8); the output's group is fixed."""
    x = image = keras.Input((4, 4, 3))
    for name, width in (("a", 8), ("b", 16), ("c", 8)):
        x = layers.ReLU()(layers.Conv2D(width, 1, name=name)(x))
    return keras.Model(image, layers.Conv2D(1, 1, name="out")(x))


def rising(**starts):
    """Scores that rise within each group: channel i of a group costs start * (i + 1)."""
    sizes = {"a": 8, "b": 16, "c": 8}
    return {name: float(starts.get(name, 1.0)) * np.arange(1, size + 1) for name, size in sizes.items()}


class Sum:
    """A cost that is the sum of all channels but the output's, each weighing what it is given."""

    name = "sum"

    def __init__(self, model, tile=1, **weights):
        names = [group.name for group in Channels(model).groups]
        self.weights = np.array([weights.get(n, 1.0) if n in ("a", "b", "c") else 0.0 for n in names])
        self.tile = tile

    def many(self, table):
        return (np.ceil(np.asarray(table) / self.tile) * self.tile) @ self.weights


def counts(plan):
    return {name: len(kept) for name, kept in plan.kept.items()}


def test_the_cheapest_loss_per_saving_goes_first(model):
    """In steps of 4 a loses 10 and may not lose more; b loses 20 and then 52; c loses 30."""
    scores = rising(a=1, b=2, c=3)
    plan = pruner.plan_global(model, 28 / 32, scores, multiple_of=4, floor=0, cost=Sum(model))
    assert counts(plan) == {"a": 4} and plan.kept["a"] == [4, 5, 6, 7]
    plan = pruner.plan_global(model, 20 / 32, scores, multiple_of=4, floor=0, cost=Sum(model))
    assert counts(plan) == {"a": 4, "b": 12, "c": 4}
    assert plan.kept["b"] == list(range(4, 16))
    assert plan.how["reached"] == 20 / 32 and plan.how["cost"] == "sum" and plan.how["kind"] == "global"
    assert plan.sizes == {"a": 8, "b": 16, "c": 8}


def test_the_last_move_is_the_one_that_loses_least_of_those_that_reach(model):
    """Cheapest per cost saved is b's large step; where c's small one is enough too, it loses less."""
    scores = {"a": np.full(8, 100.0), "b": np.full(16, 1.0), "c": np.full(8, 1.5)}
    # A channel of b weighs 10, one of c 4: of 224 at most 223 may stay, so one channel of either is enough.
    plan = pruner.plan_global(model, 0.999, scores, multiple_of=1, floor=0, cost=Sum(model, a=4, b=10, c=4))
    assert counts(plan) == {"b": 15}
    # Where b gives nothing but by twos, two lose 2 and give 60; one of c loses 1.5 and gives 4: enough.
    plan = pruner.plan_global(model, 0.999, scores, multiple_of=1, floor=0, cost=Step(model))
    assert counts(plan) == {"c": 7}


class Step(Sum):
    """b is cheaper in steps only, as a kernel's tile makes it."""

    def many(self, table):
        names = [group.name for group in Channels(self.model).groups]
        a, b, c = (np.asarray(table)[:, names.index(n)] for n in "abc")
        return 4 * a + np.where(b > 14, 160, np.where(b > 12, 100, 80)) + 4 * c

    def __init__(self, model):
        self.model = model


def test_a_gain_that_a_tile_hides_is_looked_for_four_steps_down(model):
    """One channel less saves nothing in a tile of 4; five steps down is too far to see."""
    scores = rising(a=100, b=1, c=100)
    for tile, reachable in ((4, True), (5, True), (8, False)):
        cost = Sum(model, tile)
        whole = float(cost.many([[g.size for g in Channels(model).groups]])[0])
        words = {"multiple_of": 1, "floor": 0, "cost": cost}
        if reachable:
            plan = pruner.plan_global(model, (whole - 1) / whole, scores, **words)
            assert counts(plan) == {"b": 12 if tile == 4 else 15}
        else:
            with pytest.raises(UsageError) as told:
                pruner.plan_global(model, (whole - 1) / whole, scores, **words)
            assert told.value.exit_code == 2 and "floor" in told.value.remedy


def test_equal_to_the_target_is_enough(model):
    cost = Sum(model)
    assert counts(pruner.plan_global(model, 1.0, rising(), multiple_of=1, floor=0, cost=cost)) == {}
    plan = pruner.plan_global(model, 31 / 32, rising(), multiple_of=1, floor=0, cost=cost)
    assert sum(counts(plan).values()) in (7, 15)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none(model, share):
    with pytest.raises(UsageError) as told:
        pruner.plan_global(model, share)
    assert told.value.where == "macs_ratio"


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan")])
def test_a_ratio_that_is_none(model, ratio):
    with pytest.raises(UsageError) as told:
        pruner.plan_uniform(model, ratio)
    assert told.value.where == "ratio"


@pytest.mark.parametrize(
    "size, multiple_of, floor, whole, allowed",
    [
        (16, 8, 0.0, None, [8, 16]),
        (16, 4, 0.0, None, [4, 8, 12, 16]),
        (16, 4, 0.5, None, [8, 12, 16]),
        (16, 4, 0.51, None, [12, 16]),
        (16, 4, 1.0, None, [16]),
        (18, 8, 0.0, None, [8, 16, 18]),
        (4, 8, 0.0, None, [4]),
        (16, 4, 0.5, 32, [16]),  # the floor is a share of what it was before any pruning
        (16, 4, 0.25, 32, [8, 12, 16]),
        (3, 1, 0.0, None, [1, 2, 3]),
    ],
)
def test_counts_that_a_group_may_have(size, multiple_of, floor, whole, allowed):
    assert pruner.counts_allowed(size, multiple_of, floor, whole) == allowed


@pytest.mark.parametrize("multiple_of, floor", [(0, 0.1), (8, -0.1), (8, 1.1)])
def test_multiples_and_floors_that_are_none(multiple_of, floor):
    with pytest.raises(UsageError):
        pruner.counts_allowed(16, multiple_of, floor)


def test_a_uniform_plan_takes_the_nearest_count_and_of_two_the_larger(model):
    for ratio, wanted in (
        (0.0, {}),
        (0.2, {"b": 12}),  # 6.4 of 8 is nearest to 8, 12.8 of 16 to 12
        (0.25, {"b": 12}),  # 6 of 8 is between 4 and 8: 8
        (0.5, {"a": 4, "b": 8, "c": 4}),
        (0.9, {"a": 4, "b": 4, "c": 4}),
    ):
        plan = pruner.plan_uniform(model, ratio, rising(), multiple_of=4)
        assert counts(plan) == wanted, ratio
        assert plan.how == {"kind": "uniform", "ratio": ratio, "multiple_of": 4, "importance": "given"}
    assert pruner.plan_uniform(model, 0.5, "l1").how["importance"] == "l1"
    # The most important ones stay.
    assert pruner.plan_uniform(model, 0.5, rising(), multiple_of=4).kept["a"] == [4, 5, 6, 7]
    assert counts(pruner.plan_uniform(model, 0.9, rising(), multiple_of=4, floor=0.5)) == {"a": 4, "b": 8, "c": 4}


@pytest.mark.parametrize(
    "plan",
    [{"a": []}, {"a": [0, 0]}, {"a": [-1]}, {"a": [8]}, {"a": [0.5]}, {"no": [0]}, pruner.Plan({"a": [0]}, {"a": 9})],
)
def test_plans_that_do_not_fit(model, plan):
    with pytest.raises(UsageError) as told:
        pruner.keep_mask(Channels(model), plan)
    assert "plan" in told.value.where


def test_a_fixed_group_may_be_named_as_long_as_all_of_it_stays():
    x = image = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 1, name="a")(x)
    channels = Channels(keras.Model(image, layers.Conv2D(2, 1, name="out")(x)))
    fixed = next(group for group in channels.groups if group.fixed and group.size > 1)
    assert pruner.keep_mask(channels, {fixed.name: list(range(fixed.size))}).all()
    with refused(UsageError, where=f"group '{fixed.name}'"):
        pruner.keep_mask(channels, {fixed.name: [0]})


def test_a_plan_fits_up_to_its_last_channel(model):
    channels = Channels(model)
    mask = pruner.keep_mask(channels, pruner.Plan({"a": [0, 7], "c": [3]}, {"a": 8, "c": 8}))
    by_group = {g.name: mask[channels.group_of == i] for i, g in enumerate(channels.groups)}
    assert np.flatnonzero(by_group["a"]).tolist() == [0, 7] and np.flatnonzero(by_group["c"]).tolist() == [3]
    assert by_group["b"].all()


@pytest.mark.parametrize(
    "document",
    [{}, None, {"kept": {"a": [0.5]}, "sizes": {}}, {"kept": {"a": [True]}, "sizes": {}}, {"kept": [], "sizes": {}}],
)
def test_what_is_no_plan(document):
    with pytest.raises(BadInput):
        pruner.Plan.from_dict(document)


def test_scores_must_be_finite_and_of_the_groups_size(model):
    for change in ({"b": np.full(16, np.nan)}, {"b": np.append(np.ones(15), np.inf)}, {"b": np.ones(15)}):
        with pytest.raises(UsageError) as told:
            pruner.plan_uniform(model, 0.5, {**rising(), **change})
        assert "'b'" in told.value.where


@pytest.fixture(scope="module")
def shared():
    """A layer that is used twice, a model as a layer beside one of the same names, biases, statistics of all kinds."""
    image = keras.Input((6, 6, 3), name="picture")
    twice = layers.Conv2D(8, 3, padding="same", name="twice")
    x = layers.Conv2D(8, 1, name="a")(image)
    x = layers.BatchNormalization(name="norm")(twice(layers.ReLU()(twice(x))))
    block = keras.Sequential([keras.Input((6, 6, 8)), layers.Conv2D(8, 1, name="a"), layers.ReLU()], name="block")
    return pruning.shake(keras.Model(image, layers.Conv2D(2, 1, name="out")(block(x)), name="whole"))


def test_pruned_is_what_zeroed_gives(shared):
    """In the smaller network, in the silenced one, and in the one whose channels are multiplied by zero."""
    x = np.random.default_rng(1).normal(0, 1, (2, 6, 6, 3)).astype(np.float32)
    before = [np.array(w) for w in shared.get_weights()]
    plan = pruning.drop_at_random(shared, np.random.default_rng(2), 0.5)
    smaller = pruner.prune(shared, plan)
    assert smaller.count_params() < shared.count_params() and smaller.name == "whole"
    assert [layer.name for layer in smaller.layers][0] == "picture"
    ours = pruning.outputs(smaller, x)
    assert pruning.difference(ours, pruning.zeroed(shared, plan, x)) < 1e-5
    assert all(np.array_equal(a, b) for a, b in zip(before, shared.get_weights(), strict=True))
    names = [layer.name for layer in smaller.layers]
    assert names.count("twice") == 1 and len(set(names)) == len(names) and {"a", "block_a"} <= set(names)
    silenced = pruner.silence(keras.models.clone_model(shared), {})
    silenced.set_weights(before)
    assert pruner.silence(silenced, plan) is silenced
    assert pruning.difference(ours, pruning.outputs(silenced, x)) < 1e-5


def test_a_plan_that_drops_nothing_changes_nothing(shared):
    x = np.random.default_rng(1).normal(0, 1, (2, 6, 6, 3)).astype(np.float32)
    same = pruner.prune(shared, pruner.plan_uniform(shared, 0.0))
    assert pruning.difference(pruning.outputs(same, x), pruning.outputs(shared, x)) == 0


def test_names_that_are_taken_get_a_number():
    taken = {"a", "block_a", "a_1"}
    assert pruner._free("block/a", "a", taken) == "a_2" and "a_2" in taken
    assert pruner._free("block/b", "b", taken) == "b"
    assert pruner._free("block/b", "b", taken) == "block_b"


def test_a_plan_survives_json():
    plan = pruner.Plan({"a": [1, 3]}, {"a": 8}, {"kind": "own"})
    assert pruner.Plan.from_dict(plan.to_dict()) == plan
    assert pruner.Plan.from_dict({"kept": {"a": [3, 1]}, "sizes": {"a": 8}}) == plan._replace(how={})
