"""What a network costs as a function of its channel counts, without building the smaller network.

Both costs take {group name: channels} when called, and many such rows at once (K, groups) in `many`.
"""

import os
import tempfile
from typing import Any

import keras
import numpy as np
from keras import layers

from jetson.errors import UsageError
from pipeline.models.functional import walk
from pipeline.pruning.channel_numbers import Record
from pipeline.pruning.channels import Channels

# The kernel and where its input and output channels are; the spatial size that it is applied to is the output's.
CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)


class _Cost:
    """Sum of terms factor * inputs * outputs, where both counts are linear in the groups' channels."""

    def __init__(self, channels: Channels) -> None:
        self.channels = channels

    def __call__(self, widths: dict[str, int]) -> float:
        row = [widths.get(group.name, group.size) for group in self.channels.groups]
        return float(self.many(np.array([row], float))[0])

    def many(self, table: np.ndarray) -> np.ndarray:
        """(K,) costs of K rows of channels, (K, groups)."""
        raise NotImplementedError


class Macs(_Cost):
    """Multiply-adds of all convolutions and dense layers for one image of input_wh (width, height)."""

    name = "macs"

    def __init__(self, model: keras.Model | Channels, input_wh: tuple[int, int]) -> None:
        super().__init__(model if isinstance(model, Channels) else Channels(model))
        factors, reads, makes = [], [], []
        groups = len(self.channels.groups)
        for record, taken, given in applications(self.channels, input_wh):
            for factor, ids_in, ids_out in _products(record, taken, given):
                factors.append(factor)
                reads.append(self.channels.counts(ids_in) if ids_in is not None else None)
                makes.append(self.channels.counts(ids_out))
        self.factors = np.array(factors)
        self.alone = np.array([r is None for r in reads], float)  # depthwise: no sum over inputs
        self.reads = np.array([np.zeros(groups) if r is None else r for r in reads]).reshape(-1, groups)
        self.makes = np.array(makes).reshape(-1, groups)

    def many(self, table: np.ndarray) -> np.ndarray:
        """Multiply-adds (K,) of K plans; table (K, groups): how many channels of each group stay."""
        return ((table @ self.reads.T + self.alone) * (table @ self.makes.T)) @ self.factors


def applications(
    channels: Channels, input_wh: tuple[int, int]
) -> list[tuple[Record, tuple[int, ...], tuple[int, ...]]]:
    """Every use of a layer with its shapes at input_wh: [(Record, input shape, output shape)], batch 1."""
    width, height = input_wh
    sizes = {2: (1,), 3: (1, width), 4: (1, height, width), 5: (1, height, width, width)}
    inputs = []
    for tensor in channels.graph.inputs:
        default = (*sizes.get(len(tensor.shape), ()), 1)
        shape = [d if own is None else own for own, d in zip(tensor.shape, default)]
        inputs.append(keras.KerasTensor([1, *shape[1:]], dtype=tensor.dtype))
    found = []

    def call(operation: Any, args: Any, kwargs: Any, path: Any, outputs: Any) -> Any:
        result = operation.compute_output_spec(*args, **kwargs)
        first = next((t for t in keras.tree.flatten((args, kwargs)) if isinstance(t, keras.KerasTensor)), None)
        record = channels.records[id(operation)]
        if first is not None and not record.unknown:
            found.append((record, first.shape, keras.tree.flatten(result)[0].shape))
        return result

    walk(channels.graph, inputs, call)
    return found


def _products(record: Record, taken: tuple[int, ...], given: tuple[int, ...]) -> list[tuple[float, Any, Any]]:
    """(factor, input numbers or None, output numbers) of a layer's sums of products."""
    layer = record.layer
    cuts = {(cut.variable, cut.reads): cut.ids for cut in record.slices}
    if None in given[1:-1] or None in taken[1:-1]:
        raise UsageError(
            "the size of what this layer gives is not known",
            f"layer {layer.name!r}",
            "a model whose shapes are determined by its input",
            "give the layers before it their sizes, or build the model with a fixed input",
        )
    spatial = float(np.prod(given[1:-1]))
    if isinstance(layer, SEPARABLE):
        between = cuts["pointwise_kernel", True]
        window = float(np.prod(layer.kernel_size))
        return [(spatial * window, None, between), (spatial, between, record.opens)]
    if isinstance(layer, DEPTHWISE):
        return [(spatial * float(np.prod(layer.kernel_size)), None, record.carries)]
    if isinstance(layer, TRANSPOSED):
        return [(float(np.prod(taken[1:-1])) * float(np.prod(layer.kernel_size)), cuts["kernel", True], record.opens)]
    if isinstance(layer, CONVOLUTIONS):
        # A grouped kernel has only its own group's inputs on that axis.
        return [(spatial * float(np.prod(layer.kernel_size)), cuts.get(("kernel", True)), record.carries)]
    if isinstance(layer, layers.Dense):
        return [(spatial, cuts["kernel", True], record.opens)]
    return []


class PredictedLatency(_Cost):
    """Predicted milliseconds on a device (pipeline/latency/roofline.py) as channel counts change.

    The model is exported once; then the channels of each launched layer are scaled. Only for models that
    pipeline/export/onnx.py takes. target, precision: as in predict.predict_ms.
    """

    def __init__(
        self, model: keras.Model | Channels, input_wh: tuple[int, int], target: str = "nano", precision: str = "fp16"
    ) -> None:
        from pipeline import targets
        from pipeline.export import onnx
        from pipeline.graphs import edit, fusion, shapes
        from pipeline.latency import roofline

        super().__init__(model if isinstance(model, Channels) else Channels(model))
        self.name = f"predicted {target} {precision}"
        self.rates = roofline.rates(targets.target(target), precision)
        with tempfile.TemporaryDirectory(prefix="jetmask-prune-") as folder:
            path = os.path.join(folder, "model.onnx")
            edit.write(onnx.to_onnx(self.channels.graph)[0], path)
            fused = fusion.layers(shapes.read(path, (input_wh[0], input_wh[1])))
        described = roofline.describe(fused, self.rates.tile)
        self.fixed = described[:, None, :]  # (7, 1, layers)
        groups = len(self.channels.groups)
        records = {record.layer.name: record for record in self.channels.records.values()}
        # Channels read and written by each launched layer as linear maps; those of no known layer stay as they are.
        self.reads, self.writes = np.zeros((len(fused), groups)), np.zeros((len(fused), groups))
        for row, layer in enumerate(fused):
            # A node is named after its Keras layer; one that has none adds what it is to the name before it.
            record = records.get(layer.nodes[0].split(".")[0]) if layer.nodes else None
            if record is not None and record.carries is not None:
                taken = next((cut.ids for cut in record.slices if cut.reads), record.carries)
                if layer.kind != "conv":
                    taken = record.carries
                self.reads[row] = self.channels.counts(taken)
                self.writes[row] = self.channels.counts(record.carries)
        sizes = np.array([group.size for group in self.channels.groups], float)
        self.known = (self.writes @ sizes) > 0
        self.taken, self.given = (np.where(self.known, m @ sizes, 1) for m in (self.reads, self.writes))
        self.conv = np.array([layer.kind == "conv" for layer in fused])
        self.read, self.written = (
            np.array([getattr(layer, name) for layer in fused], float) for name in ("read", "written")
        )
        self.rows = np.array([layer.rows * layer.groups for layer in fused], float)
        self.dense_window = np.array([roofline.uses_winograd(layer._replace(depth=10**9)) for layer in fused])

    def many(self, table: np.ndarray) -> np.ndarray:
        """Predicted milliseconds (K,) of K plans; table (K, groups): how many channels of each group stay."""
        from pipeline.latency import roofline

        reads = np.where(self.known, table @ self.reads.T, 1) / self.taken  # shares of the channels, (K, layers)
        gives = np.where(self.known, table @ self.writes.T, 1) / self.given
        tile = self.rates.tile
        outputs, depth, dense, depthwise, _, _, weights = self.fixed
        columns = np.ceil(np.round(gives * self.given, 6) / tile) * tile
        depth = depth * reads
        described = np.stack(
            [
                np.where(self.conv & self.known, self.rows * columns, outputs),
                depth,
                dense * np.ones_like(depth),
                depthwise * gives,
                self.dense_window & (depth >= 9 * roofline.WINOGRAD_CHANNELS),
                self.read * reads + self.written * gives,
                weights * reads * gives,
            ]
        )
        compute, memory = roofline.seconds(described, self.rates, roofline.FITTED)
        launches = described.shape[2] * roofline.FITTED.launch_us * 1e-3
        return roofline.FITTED.call_ms + 1e3 * np.hypot(compute, memory).sum(axis=1) + launches
