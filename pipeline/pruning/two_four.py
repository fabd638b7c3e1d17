"""Pruning to the 2:4 pattern (pipeline/graphs/sparsity.py): masks for a Keras model, held while it is fine-tuned.

The shapes stay, and so does the time on every device without sparse tensor cores: a Nano, a TX2, a Xavier and all CPUs
gain nothing. On an Orin TensorRT may take sparse kernels; NVIDIA's developers see gains from about 256 channels up
(NVIDIA/TensorRT#4065), and this detector's widest layer has 96 (size m: 128). Nothing of it was run on hardware.

What it costs, measured once with pipeline/weights/s.keras (SHA-256 c3c3a56a8f84...) on val/ at 416x416: two-class mAP50
76.5 before, 59.3 with the zeros alone, 68.2 after 20 steps of 16 photographs at 320 px. No longer fine-tuning was run.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from jetson import files
from jetson.errors import UsageError
from pipeline.graphs import sparsity
from pipeline.models import rebuild
from pipeline.models.detector import save
from pipeline.pruning import cost
from pipeline.training import train


class Choice(NamedTuple):
    """masks: {layer: bool array of the kernel's shape, False where it becomes zero}; dense: [(layer, why)]."""

    masks: dict
    dense: list


def choose(model: keras.Model) -> "Choice":
    """The masks for every convolution and dense layer of a Keras model that can have the pattern."""
    masks, dense = {}, []
    kept = _identities(model)
    outputs = {t._keras_history.operation.name for t in keras.tree.flatten(model.outputs)}
    for layer in model.layers:
        if not isinstance(layer, (layers.Conv2D, layers.Dense)) or isinstance(layer, layers.DepthwiseConv2D):
            continue
        kernel = np.asarray(layer.kernel)
        axis = kernel.ndim - 2
        groups = getattr(layer, "groups", 1)
        reason = sparsity.why_not(kernel.shape[axis] * groups, groups, layer.name in outputs)
        if reason is not None:
            dense.append((layer.name, reason))
            continue
        keep = None
        if layer.name in kept:  # export adds 1 to these taps: counted as zeros, they would be a third one in their four
            keep = np.zeros(kernel.shape, bool)
            diagonal = np.arange(kernel.shape[axis])
            keep[kernel.shape[0] // 2, kernel.shape[1] // 2, diagonal, diagonal] = True
        masks[layer.name] = sparsity.mask(kernel, axis, keep)
    if not masks:
        raise UsageError(
            "no layer of this model can have the 2:4 pattern", None, "convolutions with a multiple of 4 input channels"
        )
    return Choice(masks, dense)


def _identities(model: keras.Model) -> Any:
    """Names of the convolutions whose own input is added to what they give: `jetmask export` folds that in."""
    found = set()
    for operation in model.operations:
        if not isinstance(operation, layers.Add) or len(operation._inbound_nodes[0].input_tensors) != 2:
            continue
        first, second = operation._inbound_nodes[0].input_tensors
        for own, other in ((first, second), (second, first)):
            before = own._keras_history.operation
            while isinstance(before, layers.BatchNormalization):
                before = before._inbound_nodes[0].input_tensors[0]._keras_history.operation
            if isinstance(before, layers.Conv2D) and before._inbound_nodes[0].input_tensors[0] is other:
                found.add(before.name)
    return found


def apply(model: keras.Model, masks: dict[str, np.ndarray]) -> None:
    """Zero, in place, what the masks hold back."""
    for name, mask in masks.items():
        kernel = model.get_layer(name).kernel
        kernel.assign(np.asarray(kernel) * mask)


class Held(keras.callbacks.Callback):
    """Puts the zeros back after each step; the averaged weights then have them too."""

    def __init__(self, net: keras.Model, masks: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.net, self.masks = net, masks

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        apply(self.net, self.masks)


def two_four(pruning: Any) -> dict[str, Any]:
    """Prune a `Pruning`'s model to the pattern and fine-tune it as its config says; what `Pruning.rounds` returns,
    with {"sparse": layers, "dense": [[layer, why]], "zeros": share of all kernel weights} and without a plan."""
    pruning.claim("wanted.json", {"sparsity": sparsity.PATTERN})
    choice = choose(pruning.original)
    pruning.begin()
    folder = pruning.folder / "sparse"
    folder.mkdir(exist_ok=True)
    path = folder / "result.json"
    if not path.exists():
        model = rebuild.cloned(pruning.original)
        apply(model, choice.masks)
        save(model, folder / "pruned.keras")
        result = {"model": "pruned.keras", "map50": None, "epochs": 0, "minutes": 0.0}
        if pruning.config.train.epochs:
            run = folder / "train"
            tuned = train.fit(
                pruning.config,
                run,
                model=model,
                resume=(run / "checkpoint.npz").exists(),
                progress=pruning.progress,
                learner=pruning.learner(),
                callbacks=[Held(model, choice.masks)],
            )
            result.update({key: tuned[key] for key in ("map50", "epochs", "minutes")}, model="train/best.keras")
        files.write_json(str(path), result)
    result = files.read_json(str(path))
    counts = [(int((~mask).sum()), mask.size) for mask in choice.masks.values()]
    result.update(
        model=str(folder / result["model"]),
        sparse=sorted(choice.masks),
        dense=[list(row) for row in choice.dense],
        zeros=round(
            sum(zeros for zeros, _ in counts)
            / sum(np.asarray(v).size for v in pruning.original.trainable_variables if v.name.endswith("kernel")),
            4,
        ),
        macs=int(cost.Macs(pruning.original, pruning.settings.input_wh)({})),
        macs_share=1.0,
    )
    return pruning.finish(result)
