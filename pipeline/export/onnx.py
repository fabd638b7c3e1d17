"""From a Keras detector to one ONNX file for all input sizes: opset 13, NCHW, symbolic height and width.

The way there: batch normalisation folds into its convolution, the scale of the input into the first one, the identity
of `conv(x) + x` into that convolution's kernel; upsampling becomes one Resize by scales. Afterwards the file is run
beside the Keras model at two sizes, borders included, and a difference is an error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jetson import files
from jetson.errors import BadInput, JetmaskError, UsageError
from pipeline.graphs import classes as onnx_classes
from pipeline.graphs import edit as graphs

if TYPE_CHECKING:
    import keras
    import onnx

INPUT = "image"
PARITY_WHS = ((320, 192), (416, 256))
TOLERANCE = 1e-3
OPERATORS = ("Conv", "Relu", "Add", "Resize", "Concat", "MaxPool")


class Exported(NamedTuple):
    """What was written. parity: {(width, height): largest absolute difference to Keras over all outputs}."""

    path: str
    sha256: str
    size_bytes: int
    nodes: int
    folded_identities: int
    parity: dict


def export(
    model: keras.Model,
    path: str,
    input_whs: Sequence[tuple[int, int]] = PARITY_WHS,
    tolerance: float = TOLERANCE,
    fold_residuals: bool = True,
) -> Exported:
    """Write a Keras detector as ONNX and prove it equal. Returns Exported.

    model: keras.Model as pipeline.models.detector builds it (input NHWC raw 0..255 BGR; outputs cls_s, box_s).
    input_whs: the sizes (width, height), multiples of 32, at which both are run; at least two, so that a size baked
    into the graph shows. Raises JetmaskError where the graph cannot be brought to the contract or differs from
    Keras by more than `tolerance`; nothing is written then.
    """
    input_whs = [(int(width), int(height)) for width, height in input_whs]
    if len(set(input_whs)) < 2 or any(v < 32 or v % 32 for wh in input_whs for v in wh):
        raise UsageError(
            "parity is checked at two input sizes or more",
            where=input_whs,
            expected="different (width, height), multiples of 32",
            remedy="give such sizes",
        )
    model = _detector(model, path)
    proto, folded = to_onnx(model, fold_residuals, input_whs[0], path)
    parity = _compare(proto, model, input_whs, tolerance, path)
    graphs.write(proto, path)
    return Exported(str(path), files.sha256(path), os.path.getsize(path), len(proto.graph.node), folded, parity)


def to_onnx(
    model: keras.Model, fold_residuals: bool = True, input_wh: tuple[int, int] = PARITY_WHS[0], where: str = "the model"
) -> tuple[onnx.ModelProto, int]:
    """The ONNX of a Keras detector, in memory and not yet compared, and the number of identities folded."""
    model = _detector(model, where)
    try:
        proto = _trace(model, input_wh)
    except ValueError as error:  # Keras, of layers that hold for one size only
        raise BadInput(
            f"the model does not work at {input_wh[0]}x{input_wh[1]}: {str(error).splitlines()[0]}",
            where=where,
            expected="layers that work at every size: no Flatten, Reshape or Dense over the whole map",
            remedy="build the model from the layers that pipeline/models/detector.py uses",
        ) from error
    graphs.fold_input_scale(proto.graph)
    folded = graphs.fold_identities(proto.graph) if fold_residuals else 0
    graphs.own_constants(proto.graph)
    graphs.tidy(proto.graph)
    graphs.rename(proto.graph, graphs.layer_names(proto.graph, {layer.name for layer in model.layers}))
    graphs.tidy(proto.graph)
    _settle(proto.graph, where)
    graphs.tidy(proto.graph)
    graphs.make_symbolic(proto.graph, input_wh)
    _head(proto, model)
    return proto, folded


def _detector(model: keras.Model, where: str) -> keras.Model:
    """The functional graph of a Keras model that takes a picture and gives maps; BadInput for another one."""
    import keras

    from pipeline.models.functional import functional

    def shapes(tensors: Any) -> str:
        return ", ".join(str(tuple(t.shape)) for t in keras.tree.flatten(tensors))

    graph = functional(model)
    picture = graph is not None and len(graph.inputs) == 1 and len(graph.inputs[0].shape) == 4
    if not picture or graph.inputs[0].shape[-1] != 3 or any(len(t.shape) != 4 for t in graph.outputs):
        what = (
            f"inputs {shapes(model.inputs)}, outputs {shapes(model.outputs)}"
            if graph is not None
            else (type(model).__name__)
        )
        raise BadInput(
            f"not a detector that can be exported: {what}",
            where=where,
            expected="a functional model of one input (batch, height, width, 3) that gives maps (batch, "
            "height, width, channels)",
            remedy="take a .keras file of jetmask train or prune",
        )
    return graph


def _trace(model: keras.Model, input_wh: tuple[int, int]) -> onnx.ModelProto:
    """The ONNX of the model at one size, in float32 whatever it was trained in, outputs by the model's names."""
    import keras
    import tensorflow as tf
    import tf2onnx

    width, height = input_wh
    fixed = keras.models.clone_model(
        model, input_tensors=keras.Input(batch_shape=(1, height, width, 3), name=INPUT), clone_function=_exportable
    )
    fixed.set_weights(model.get_weights())
    names = list(model.output_names)

    def run(image: Any) -> dict[str, Any]:
        return {
            name: tf.identity(t, name=name) for name, t in zip(names, keras.tree.flatten(fixed(image, training=False)))
        }

    signature = [tf.TensorSpec((1, height, width, 3), tf.float32, name=INPUT)]
    proto, _ = tf2onnx.convert.from_function(
        tf.function(run, autograph=False),
        input_signature=signature,
        opset=graphs.OPSET,
        inputs_as_nchw=[INPUT],
        outputs_as_nchw=names,
    )
    order = {name: i for i, name in enumerate(names)}
    outputs = sorted(proto.graph.output, key=lambda o: order[o.name])
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)
    return proto


def _exportable(layer: Any) -> Any:
    """A layer as it is exported: float32, and upsampling as one resize operation rather than Keras' repeats."""
    import keras
    import tensorflow as tf

    class Nearest2x(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            size = [x.shape[1] * 2, x.shape[2] * 2]
            return tf.raw_ops.ResizeNearestNeighbor(images=x, size=size, half_pixel_centers=False)

    if isinstance(layer, keras.layers.UpSampling2D):
        if tuple(layer.size) != (2, 2) or layer.interpolation != "nearest":
            raise JetmaskError(
                "this upsampling cannot be exported",
                where=f"layer {layer.name}",
                expected="UpSampling2D(2, interpolation='nearest')",
                remedy="change the model",
            )
        return Nearest2x(name=layer.name)
    if isinstance(layer, keras.layers.SpatialDropout2D):  # a no-op at inference
        return keras.layers.Activation("linear", name=layer.name)
    config = layer.get_config()
    config["dtype"] = "float32"
    return layer.__class__.from_config(config)


def _settle(graph: onnx.GraphProto, path: str) -> None:
    """Spell out what tf2onnx leaves to defaults, and refuse what must not be left in the graph."""
    values = graphs.constants(graph)
    for node in graph.node:
        if node.op_type not in OPERATORS:
            raise JetmaskError(
                f"export left a {node.op_type} in the graph",
                where=f"{path}, node {node.name}",
                expected="only " + ", ".join(OPERATORS),
                remedy="build the model from the layers that pipeline/models/detector.py uses",
            )
        if node.op_type == "Conv":
            _settle_conv(node, values[node.input[1]].shape, path)
        elif node.op_type == "Resize":
            scales = values[node.input[2]] if len(node.input) > 2 else np.empty(0)
            if list(scales) != [1, 1, 2, 2]:
                raise JetmaskError(
                    "a Resize that is not by constant scales",
                    where=f"{path}, node {node.name}",
                    expected="scales 1, 1, 2, 2",
                    remedy="upsample by UpSampling2D(2)",
                )
            node.input[1] = ""  # a region of interest nobody reads; TensorRT warns about an empty one
            for name, value in (
                ("mode", "nearest"),
                ("coordinate_transformation_mode", "asymmetric"),
                ("nearest_mode", "floor"),
            ):
                graphs.set_attribute(node, name, value)


def _settle_conv(node: onnx.NodeProto, weight_shape: tuple[int, ...], path: str) -> None:
    kernel = list(weight_shape[2:])
    strides = list(graphs.attribute(node, "strides", [1, 1]))
    pads = list(graphs.attribute(node, "pads", [0, 0, 0, 0]))
    # Keras' "same" at stride 2 pads (0, 1) where the side is even, (1, 1) where it is odd. Every map that a stride
    # of 2 reads is even when the input is a multiple of 32, so the traced pads hold for all sizes; this checks it.
    total = [pads[i] + pads[i + 2] for i in (0, 1)]
    if graphs.attribute(node, "auto_pad", "NOTSET") != "NOTSET" or total != [k - s for k, s in zip(kernel, strides)]:
        where = f"{path}, node {node.name}: kernel {kernel}, strides {strides}, pads {pads}"
        raise JetmaskError(
            "a convolution whose padding does not hold for all sizes",
            where=where,
            expected="explicit pads that keep size / stride exact",
            remedy='use padding="same"',
        )
    for name, value in (
        ("kernel_shape", kernel),
        ("strides", strides),
        ("pads", pads),
        ("dilations", [1, 1]),
        ("group", graphs.attribute(node, "group", 1)),
    ):
        graphs.set_attribute(node, name, value)


def _head(proto: onnx.ModelProto, model: keras.Model) -> None:
    """The parts of the file outside the graph: versions, and nothing that changes from run to run."""
    import onnx

    from pipeline.models import classes as keras_classes

    proto.ir_version = graphs.IR_VERSION
    del proto.opset_import[:]
    proto.opset_import.extend([onnx.helper.make_opsetid("", graphs.OPSET)])
    proto.producer_name, proto.producer_version = "jetmask", ""
    proto.doc_string = ""
    proto.graph.name = model.name
    proto.graph.doc_string = ""
    del proto.metadata_props[:]
    if any(layer.name.startswith(keras_classes.PREFIX) for layer in model.layers):
        onnx_classes.write(proto, keras_classes.classes_of(model))


def _compare(
    proto: onnx.ModelProto, model: keras.Model, input_whs: Sequence[tuple[int, int]], tolerance: float, path: str
) -> dict[tuple[int, int], float]:
    """Largest difference per size between ONNX Runtime and Keras, on noise and on pictures with marked borders."""
    import keras

    parity = {}
    names = list(model.output_names)
    reference = _as_float32(model)
    for width, height in input_whs:
        session = _session(proto, (width, height))
        worst, where = 0.0, ""
        for image in _probes(width, height):
            expected = keras.tree.flatten(reference(image, training=False))
            got = session.run(names, {INPUT: np.ascontiguousarray(image.transpose(0, 3, 1, 2))})
            for name, theirs, ours in zip(names, expected, got):
                theirs = np.asarray(theirs).transpose(0, 3, 1, 2)
                if theirs.shape != ours.shape:
                    raise JetmaskError(
                        f"an output's shape differs from Keras: {ours.shape}, not {theirs.shape}",
                        where=f"{path}, output {name} at {width}x{height}",
                    )
                difference = float(np.abs(theirs - ours).max())
                if not difference <= worst:  # NaN counts as worse
                    worst, where = difference, f"output {name} at {width}x{height}"
        if not worst <= tolerance:
            raise JetmaskError(
                f"the exported model differs from Keras by {worst:.3g}",
                where=f"{path}, {where}",
                expected=f"at most {tolerance:g}",
                remedy="report the model's layers; nothing was written",
            )
        parity[(width, height)] = worst
    return parity


def _as_float32(model: keras.Model) -> keras.Model:
    """The model itself, or a float32 copy of one that was trained in mixed precision."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    import keras

    def plain(layer: Any) -> Any:
        config = layer.get_config()
        config["dtype"] = "float32"
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=plain)
    copy.set_weights(model.get_weights())
    return copy


def _probes(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(width * 10000 + height)
    noise = rng.uniform(0, 255, (1, height, width, 3)).astype(np.float32)
    smooth = np.full((1, height, width, 3), 114, np.float32)
    smooth[:, :, :, 1] = np.linspace(0, 255, width, dtype=np.float32)
    smooth[:, [0, -1]] = 255
    smooth[:, :, [0, -1]] = (0, 128, 255)
    return noise, smooth


def _session(proto: onnx.ModelProto, input_wh: tuple[int, int]) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name("height", input_wh[1])
    options.add_free_dimension_override_by_name("width", input_wh[0])
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
