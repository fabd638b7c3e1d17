"""Learning rates by the step, what decays, and the average of the weights: against the formulas."""

import keras
import numpy as np
import pytest

from jetson.errors import UsageError
from pipeline import config
from pipeline.training import optimizers


@pytest.mark.parametrize(
    "step, rate",
    [(0, 0.01), (4, 0.05), (9, 0.1), (10, 0.1), (60, 0.1), (79, 0.1), (80, 0.1), (85, 0.1 * (1 - 0.99 * 0.5)),
     (100, 0.001), (500, 0.001)],
)  # fmt: skip
def test_trapezoid(step, rate):
    """Ten steps up, flat, and a fall over the last fifth to 1 % along 1 - sqrt."""
    assert float(optimizers.Trapezoid(0.1, 10, 100, 0.2)(step)) == pytest.approx(rate, rel=1e-5)


@pytest.mark.parametrize("step, rate", [(0, 0.01), (9, None), (50, 0.0505), (100, 0.001), (900, 0.001), (25, None)])
def test_cosine(step, rate):
    """Half a cosine from the peak to 1 %, under the same warm-up."""
    wanted = 0.1 * (0.01 + 0.99 * (1 + np.cos(np.pi * step / 100)) / 2) if rate is None else rate
    assert float(optimizers.Cosine(0.1, 10, 100, 1.0)(step)) == pytest.approx(wanted, rel=1e-5)


def test_a_schedule_without_warm_up_or_end_is_no_division_by_zero():
    for schedule in (optimizers.Trapezoid(0.1, 0, 0, 0.0), optimizers.Cosine(0.1, 0, 0, 0.0)):
        assert np.isfinite([float(schedule(step)) for step in (0, 1, 2)]).all()
    for schedule in (optimizers.Trapezoid(0.1, 0, 9, 0.0), optimizers.Cosine(0.1, 0, 9, 0.0)):
        assert float(schedule(0)) == pytest.approx(0.1) and float(schedule(9)) == pytest.approx(0.001)
    again = optimizers.Trapezoid.from_config(optimizers.Trapezoid(0.1, 10, 100, 0.2).get_config())
    assert float(again(85)) == pytest.approx(0.0505, rel=1e-5)


def made(*words, steps=100):
    return optimizers.make_optimizer(config.load(None, [f"train.{w}" for w in words]).train, steps)


def test_each_schedule_by_its_name():
    def rate(name, step):
        optimizer = made("learning_rate=0.1", "warmup_steps=10", "decay_share=0.2", f"schedule={name}")
        schedule = optimizer._learning_rate
        return float(schedule(step)) if callable(schedule) else float(schedule)

    assert rate("trapezoid", 85) == pytest.approx(0.0505, rel=1e-5)
    assert rate("cosine", 50) == pytest.approx(0.0505, rel=1e-5)
    assert rate("fixed", 4) == pytest.approx(0.05) and rate("fixed", 10**6) == pytest.approx(0.1)
    assert rate("plateau", 0) == pytest.approx(0.1)


def test_weights_decay_where_the_optimizer_can_and_never_a_bias():
    for name, decays in (("adamw", True), ("sgd", True), ("adam", False), ("rmsprop", False), ("adagrad", False)):
        optimizer = made(f"optimizer={name}", "weight_decay=0.05", "clip_norm=3")
        assert isinstance(optimizer, getattr(keras.optimizers, {"adamw": "AdamW", "sgd": "SGD", "adam": "Adam",
                          "rmsprop": "RMSprop", "adagrad": "Adagrad"}[name]))  # fmt: skip
        assert (optimizer.weight_decay == 0.05) if decays else not optimizer.weight_decay
        assert optimizer.global_clipnorm == 3
        if decays:
            dense = keras.layers.Dense(2)
            dense.build((None, 2))
            optimizer.build(dense.trainable_variables)
            assert [optimizer._use_weight_decay(v) for v in (dense.kernel, dense.bias)] == [True, False]
    assert made("clip_norm=0").global_clipnorm is None
    sgd = made("optimizer=sgd", "weight_decay=0")
    assert sgd.momentum == 0.9 and sgd.nesterov and not sgd.weight_decay


@pytest.mark.parametrize("what", ["optimizer", "schedule"])
def test_unknown_names(what):
    with pytest.raises(UsageError) as told:
        made(f"{what}=nothing")
    assert told.value.where == "train." + what and told.value.expected.startswith("one of ")


class Net:
    """What `Average` needs of a model: one trainable weight and one statistic."""

    def __init__(self, value):
        self.trainable_variables = [keras.Variable([float(value)], name="w")]
        self.non_trainable_variables = [keras.Variable([float(value) + 100], name="mean")]


def test_the_average_follows_closely_at_first_and_slowly_later():
    net = Net(0)
    average = optimizers.Average(net, 0.99)
    net.trainable_variables[0].assign([1.0])
    value = 0.0
    for step in range(1, 21):
        average.on_train_batch_end(step)
        if step % 4 == 0:
            keep = min(0.99, (1 + step) / (10 + step)) ** 4
            value = keep * value + (1 - keep)
        assert float(average.values[0][0]) == pytest.approx(value, rel=1e-5), step
    average.step = 10**6 - 1 + (4 - (10**6) % 4) % 4
    average.on_train_batch_end(0)
    assert float(average.values[0][0]) == pytest.approx(0.99**4 * value + 1 - 0.99**4, rel=1e-5)


def test_what_is_written_is_the_average_or_without_one_the_weights():
    for decay, wanted in ((0.9, 0.0), (0.0, 1.0)):
        net, other = Net(0), Net(7)
        average = optimizers.Average(net, decay)
        net.trainable_variables[0].assign([1.0])
        net.non_trainable_variables[0].assign([5.0])
        average.on_train_batch_end(0)
        average.write_to(other)
        assert float(other.trainable_variables[0][0]) == wanted
        assert float(other.non_trainable_variables[0][0]) == 5.0


def test_plateau_counts_validated_epochs_alone_and_goes_on_where_it_was():
    plateau = optimizers.Plateau()
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
    plateau.set_model(model)
    plateau.on_train_begin()
    plateau.on_epoch_end(0, {"val_map50": 50.0})
    for epoch in range(1, 9):
        plateau.on_epoch_end(epoch, {"loss": 1.0})  # not validated
    assert plateau.state()["wait"] == 0 and plateau.state()["best"] == 50.0
    for epoch in range(2):
        plateau.on_epoch_end(epoch, {"val_map50": 49.0})
    resumed = optimizers.Plateau()
    resumed.before = plateau.state()
    resumed.set_model(model)
    resumed.on_train_begin()
    assert resumed.state() == plateau.state() and resumed.wait == 2
    resumed.on_epoch_end(3, {"val_map50": 50.0})
    assert float(model.optimizer.learning_rate) == pytest.approx(0.3)
