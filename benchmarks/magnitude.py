"""Magnitude pruning: small weights become zero, the shapes stay (Zhu & Gupta, arXiv:1710.01878).

It makes the file smaller once it is compressed. It makes nothing faster on the engines here: none has sparse kernels
for such patterns (benchmarks/pruning.py has both figures). For speed, remove channels: pipeline/pruning/pruner.py.
"""

import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from jetson.errors import UsageError


class PolynomialSparsity(keras.callbacks.Callback):
    """Zero the smallest weights of each kernel while training, more of them along a cubic ramp.

    net: the model whose kernels are pruned. final: share of zeros at the end, 0 to under 1. begin, end: steps between
    which the share rises from `initial`; every: steps between new masks. Weights that a mask holds stay zero.
    """

    def __init__(self, net: Any, final: Any, begin: Any, end: Any, initial: Any = 0.0, every: Any = 20) -> None:
        super().__init__()
        if not (0 <= initial <= final < 1 and 0 <= begin < end and every >= 1):
            raise UsageError(
                f"not a schedule: sparsity {initial!r} to {final!r} in steps {begin!r} to {end!r}",
                expected="0 <= initial <= final < 1 and 0 <= begin < end",
            )
        self.net, self.initial, self.final, self.begin, self.end, self.every = net, initial, final, begin, end, every
        self.masks: Any = None
        self.last: int | None = None

    def sparsity(self, step: Any) -> Any:
        """The wanted share of zeros at a step."""
        past = min(max((step - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return self.final + (self.initial - self.final) * (1 - past) ** 3

    def on_train_batch_end(self, batch: Any, logs: Any = None) -> None:
        # The optimizer's count goes on where a resumed training was.
        step = int(np.asarray(self.model.optimizer.iterations))
        # Told once per several steps (steps_per_execution), it may miss the very step.
        due = (
            self.last is None
            or self.last < self.end
            and (step // self.every > self.last // self.every or step >= self.end)
        )
        if step >= self.begin and due:
            self.masks, self.last = masks(self.net, self.sparsity(step)), step
        if self.masks:
            apply(self.net, self.masks)


def kernels(model: Any) -> list[Any]:
    """The variables that magnitude pruning may touch: kernels of convolutions and dense layers."""
    return [v for v in model.trainable_variables if v.name.endswith("kernel") and len(v.shape) >= 2]


def masks(model: Any, sparsity: Any) -> Any:
    """Per kernel a bool array, False where the share `sparsity` of smallest magnitudes is."""
    found = []
    for variable in kernels(model):
        size = np.abs(np.asarray(variable)).reshape(-1)
        mask = np.ones(size.size, bool)
        mask[np.argsort(size, kind="stable")[: int(round(sparsity * size.size))]] = False
        found.append(mask.reshape(variable.shape))
    return found


def apply(model: Any, found: Any) -> None:
    """Zero, in place, what the masks hold back."""
    for variable, mask in zip(kernels(model), found):
        variable.assign(np.asarray(variable) * mask)


def sparsify(model: Any, sparsity: Any) -> Any:
    """Zero the smallest weights of each kernel at once, in place. Also for the end of a training with averaged
    weights, whose zeros are only nearly so. Returns the model."""
    apply(model, masks(model, sparsity))
    return model


def share_of_zeros(model: Any) -> Any:
    """Zeros among all kernel weights, 0 to 1."""
    values = [np.asarray(v) for v in kernels(model)]
    return sum(int((v == 0).sum()) for v in values) / max(1, sum(v.size for v in values))


def compressed_bytes(path: Path | str) -> Any:
    """Bytes of a file after zlib's best compression: what sparsity saves in transport and storage."""
    with open(path, "rb") as file:
        return len(zlib.compress(file.read(), 9))
