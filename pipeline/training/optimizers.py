"""How the weights move: optimizers, learning-rate schedules, and the average of the weights over time."""

from typing import Any

import keras
import numpy as np

from jetson.errors import UsageError
from pipeline.config import Train


class Trapezoid(keras.optimizers.schedules.LearningRateSchedule):
    """Warm-up, flat, then a fall to 1 % along 1 - sqrt: the fall can be put off, so a run can be made longer."""

    def __init__(self, peak: float, warmup: int, total: float, decay_share: float) -> None:
        self.peak, self.warmup, self.total, self.decay_share = peak, warmup, total, decay_share

    def __call__(self, step: Any) -> Any:
        step = keras.ops.cast(step, "float32")
        rise = keras.ops.minimum((step + 1.0) / max(1, self.warmup), 1.0)
        span = max(1.0, self.total * self.decay_share)
        fallen = keras.ops.clip((step - (self.total - span)) / span, 0.0, 1.0)
        return self.peak * rise * (1.0 - 0.99 * keras.ops.sqrt(fallen))

    def get_config(self) -> dict[str, float]:
        return {"peak": self.peak, "warmup": self.warmup, "total": self.total, "decay_share": self.decay_share}


class Cosine(Trapezoid):
    """Warm-up, then half a cosine to 1 %."""

    def __call__(self, step: Any) -> Any:
        step = keras.ops.cast(step, "float32")
        rise = keras.ops.minimum((step + 1.0) / max(1, self.warmup), 1.0)
        share = keras.ops.clip(step / max(1, self.total), 0.0, 1.0)
        return self.peak * rise * (0.01 + 0.99 * (1 + keras.ops.cos(np.pi * share)) / 2)


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Keras' own, on the epochs that were validated; what it counts goes into the checkpoint."""

    KEPT = ("best", "wait", "cooldown_counter")

    def __init__(self) -> None:
        super().__init__("val_map50", mode="max", factor=0.3, patience=3)
        self.before: dict[str, Any] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)  # which forgets everything
        self.__dict__.update(self.before)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if "val_map50" in (logs or {}):
            super().on_epoch_end(epoch, logs)

    def state(self) -> dict[str, Any]:
        """What has to be known to go on counting."""
        return {name: getattr(self, name) for name in self.KEPT}


def make_optimizer(train: Train, total_steps: int) -> Any:
    """The optimizer and schedule that the config's `train` section names."""
    rate = train.learning_rate
    schedules = {
        "trapezoid": lambda: Trapezoid(rate, train.warmup_steps, total_steps, train.decay_share),
        "cosine": lambda: Cosine(rate, train.warmup_steps, total_steps, 1.0),
        "fixed": lambda: Trapezoid(rate, train.warmup_steps, total_steps * 1e9, 1e-9),
        "plateau": lambda: rate,
    }
    optimizers = {
        "adamw": keras.optimizers.AdamW,
        "adam": keras.optimizers.Adam,
        "rmsprop": keras.optimizers.RMSprop,
        "adagrad": keras.optimizers.Adagrad,
        "sgd": keras.optimizers.SGD,
    }
    for what, name, known in (("optimizer", train.optimizer, optimizers), ("schedule", train.schedule, schedules)):
        if name not in known:
            raise UsageError(
                f"unknown {what} {name!r}",
                where="train." + what,
                expected="one of " + ", ".join(known),
                remedy=f"change train.{what}",
            )
    decays = train.weight_decay and train.optimizer in ("adamw", "sgd")
    options: dict[str, Any] = {"weight_decay": train.weight_decay} if decays else {}
    if train.optimizer == "sgd":
        options.update(momentum=0.9, nesterov=True)
    optimizer = optimizers[train.optimizer](
        schedules[train.schedule](), global_clipnorm=train.clip_norm or None, **options
    )
    if options.get("weight_decay"):
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


class Average(keras.callbacks.Callback):
    """Exponential average of the trainable weights; batch statistics are taken as they are."""

    EVERY = 4  # steps between updates: the average of every fourth step is as good and costs a quarter

    def __init__(self, net: Any, decay: float) -> None:
        super().__init__()
        self.net, self.decay, self.step = net, decay, 0
        self.values = [np.array(w) for w in net.trainable_variables]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += 1
        if self.decay and self.step % self.EVERY == 0:
            # Early on the average follows closely; a fixed decay would carry the random start along for long.
            keep = min(self.decay, (1 + self.step) / (10 + self.step)) ** self.EVERY
            for value, variable in zip(self.values, self.net.trainable_variables, strict=True):
                value *= keep
                value += (1 - keep) * np.asarray(variable)

    def write_to(self, net: Any) -> None:
        """Copy the averaged weights (the plain ones without averaging) and the batch statistics into net."""
        source = self.values if self.decay else [np.array(w) for w in self.net.trainable_variables]
        for variable, value in zip(net.trainable_variables, source, strict=True):
            variable.assign(value)
        for variable, own in zip(net.non_trainable_variables, self.net.non_trainable_variables, strict=True):
            if "seed_generator" not in variable.path:
                variable.assign(own)
