"""Make tests/data/tiny_bundle: a whole, valid bundle around a hand-made net of a few kilobytes.

The net finds coloured squares instead of faces: blue is with_mask, red without_mask, green mask_worn_incorrect. At
stride s it answers to squares of about 2 s pixels, with a box of 2 s pixels round the cell. So a test can draw a frame
and know what must be found, and the operators are those of the real detector: Conv, Relu, Add, one Resize.

Needs the extras `train` and `dev`. Run: python tests/data/make_tiny_bundle.py
"""

import glob
import os
import shutil
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT, os.path.dirname(os.path.abspath(__file__))]

from squares import draw  # noqa: E402

from jetson import files  # noqa: E402
from jetson.bundle import manifest  # noqa: E402
from jetson.engine import calibration as tables  # noqa: E402
from jetson.vision import letterbox as image  # noqa: E402
from pipeline.bundle import golden, writer  # noqa: E402
from pipeline.quantization import calibrate  # noqa: E402

BUNDLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiny_bundle")
STRIDES = [4, 8, 16, 32]
SIZES = [(320, 192), (416, 256)]


class _Graph:
    def __init__(self):
        self.nodes, self.weights = [], []

    def weight(self, name, value):
        self.weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def conv(self, name, source, kernel, bias, stride=1, relu=False):
        kernel = np.asarray(kernel, np.float32)
        pad = kernel.shape[2] // 2 if stride == 1 else 0
        self.nodes.append(
            helper.make_node(
                "Conv",
                [source, self.weight(name + "/w", kernel), self.weight(name + "/b", bias)],
                [name + ("/pre" if relu else "")],
                name,
                kernel_shape=kernel.shape[2:],
                strides=[stride, stride],
                pads=[pad] * 4,
            )
        )
        if relu:
            self.nodes.append(helper.make_node("Relu", [name + "/pre"], [name], name + "/relu"))
        return name


def _per_channel(kernel):
    """(3, 3, k, k) that applies `kernel` (k, k) to each of three channels by itself."""
    kernel = np.asarray(kernel, np.float32)
    return np.eye(3, dtype=np.float32)[:, :, None, None] * kernel[None, None]


def build():
    """The fp32 ONNX model: symbolic height and width, opset 13, IR 7."""
    graph = _Graph()
    # Colour opponents, averaged over 4x4 px: 1 for a saturated square of the class's colour, 0 for grey.
    opponent = np.full((3, 3), -0.5)
    for label, channel in ((0, 0), (1, 2), (2, 1)):
        opponent[label, channel] = 1
    stem = np.repeat(np.repeat(opponent[:, :, None, None], 4, 2), 4, 3) / (16 * 215.0)
    levels = {4: graph.conv("level_4", "image", stem, [0, 0, 0], 4, relu=True)}
    for stride in STRIDES[1:]:
        levels[stride] = graph.conv(
            f"level_{stride}", levels[stride // 2], _per_channel(np.full((2, 2), 0.25)), [0, 0, 0], 2, relu=True
        )
    # The top-down step of the real net, here at 16 only: what the coarse level sees whole is damped a little.
    graph.weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    graph.conv("context", levels[32], _per_channel([[-0.05]]), [0, 0, 0])
    graph.nodes.append(
        helper.make_node(
            "Resize",
            ["context", "", "scales"],
            ["context_up"],
            "resize",
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )
    )
    graph.nodes.append(helper.make_node("Add", [levels[16], "context_up"], ["fused_16"], "fuse"))
    levels[16] = "fused_16"
    ring = np.ones((3, 3))
    ring[1, 1] = 0
    centre = 1 - ring
    across = np.array([[-1, 0, 1]] * 3)
    for stride in STRIDES:
        # A square of 2 s px round a cell fills the cell (1) and 3 cells' worth of the ring; the logit falls with
        # |ring - 3|, with what the centre lacks, and with |right - left| and |bottom - top|.
        kernels = [ring, -ring, -centre, across, -across, across.T, -across.T]
        hidden = np.concatenate([_per_channel(kernel) for kernel in kernels])
        bias = np.repeat([-3, 3, 1, 0, 0, 0, 0], 3)
        name = graph.conv(f"hidden_{stride}", levels[stride], hidden, bias, relu=True)
        mix = np.concatenate([np.eye(3) * -w for w in (1, 1, 5, 1, 1, 1, 1)], axis=1)[:, :, None, None]
        graph.conv(f"cls_{stride}", name, mix, [3] * 3)
        graph.conv(f"box_{stride}", levels[stride], np.zeros((4, 3, 1, 1)), [0] * 4)
    outputs = [
        helper.make_tensor_value_info(
            f"{kind}_{stride}",
            TensorProto.FLOAT,
            [1, channels, f"height_{stride}", f"width_{stride}"],
        )
        for stride in STRIDES
        for kind, channels in (("cls", 3), ("box", 4))
    ]
    source = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "height", "width"])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "tiny", [source], outputs, graph.weights),
        opset_imports=[helper.make_opsetid("", 13)],
        producer_name="jetmask-tests",
    )
    model.ir_version = 7
    onnx.checker.check_model(model)
    return model


def half(model):
    """Typed fp16 inside, float32 at the borders."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    for weight in graph.initializer:
        if weight.name != "scales":
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    names = {output.name for output in graph.output}
    nodes = [helper.make_node("Cast", ["image"], ["image_half"], "cast_in", to=TensorProto.FLOAT16)]
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = "image_half" if name == "image" else name
        for i, name in enumerate(node.output):
            node.output[i] = name + "_half" if name in names else name
        nodes.append(node)
    nodes += [helper.make_node("Cast", [n + "_half"], [n], "cast_" + n, to=TensorProto.FLOAT) for n in sorted(names)]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


class _Frames(quantization.CalibrationDataReader):
    def __init__(self):
        self.frames = iter([{"image": image.letterbox(frame, (416, 256))[0]} for frame in golden_frames()])

    def get_next(self):
        return next(self.frames, None)


def golden_frames():
    """The drawn frames of golden/, uint8 BGR."""
    return [
        draw((416, 256), [(0, 76, 68, 16), (1, 184, 120, 32), (2, 276, 44, 16), (0, 362, 202, 8)], 1),
        draw((416, 256), [(0, 104, 72, 32), (1, 304, 176, 64)], 2),
        draw((832, 512), [(0, 176, 176, 64), (2, 424, 248, 32), (1, 632, 72, 32)], 3),
        draw((200, 300), [], 4),
    ]


def tflite(model, wh):
    """The same net as a .tflite for one input size, NHWC, with the contract's output names in a signature."""
    import tensorflow as tf

    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}

    @tf.function(input_signature=[tf.TensorSpec([1, wh[1], wh[0], 3], tf.float32, name="image")])
    def run(image):
        values = {"image": image}
        for node in model.graph.node:
            source = values[node.input[0]]
            if node.op_type == "Conv":
                stride = next(a.ints[0] for a in node.attribute if a.name == "strides")
                kernel = weights[node.input[1]].transpose(2, 3, 1, 0)
                value = tf.nn.conv2d(source, kernel, stride, "SAME" if stride == 1 else "VALID")
                value = value + weights[node.input[2]]
            elif node.op_type == "Relu":
                value = tf.nn.relu(source)
            elif node.op_type == "Add":
                value = source + values[node.input[1]]
            else:
                wanted = [source.shape[1] * 2, source.shape[2] * 2]
                value = tf.compat.v1.image.resize_nearest_neighbor(source, wanted)
            values[node.output[0]] = value
        return {output.name: values[output.name] for output in model.graph.output}

    module = tf.Module()
    module.run = run
    # By way of a SavedModel: only that route keeps the names in a signature.
    with tempfile.TemporaryDirectory() as saved:
        tf.saved_model.save(module, saved, {"serving_default": run})
        return tf.lite.TFLiteConverter.from_saved_model(saved).convert()


def _shape(path):
    """Make height and width symbolic again after the quantizer, with nothing inferred left inside."""
    model = onnx.load(path)
    model.ir_version = 7
    del model.graph.value_info[:]
    onnx.save(model, path)


def write(folder):
    """Write the bundle into the empty `folder`."""
    for name in ("models", "golden", "calibration"):
        os.makedirs(os.path.join(folder, name))
    fp32 = os.path.join(folder, "models", "t.onnx")
    model = build()
    onnx.save(model, fp32)
    onnx.save(half(model), os.path.join(folder, "models", "t.fp16.onnx"))
    cpu = os.path.join(folder, "models", "t.int8-cpu.onnx")
    quantization.quantize_static(
        fp32,
        cpu,
        _Frames(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    typed = os.path.join(folder, "models", "t.int8.onnx")
    quantization.quantize_static(
        fp32,
        typed,
        _Frames(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["Conv", "Add"],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
        },
    )
    _shape(cpu)
    _shape(typed)
    files.write_bytes(os.path.join(folder, "models", "t-416x256.fp32.tflite"), tflite(model, (416, 256)))

    variants = []
    for wh in SIZES:
        # The sum over all Conv nodes.
        macs = wh[0] * wh[1] // 16 * 3 * 3 * 16
        for stride in STRIDES:
            cells = wh[0] * wh[1] // stride**2
            macs += cells * (3 * 3 * 4 * (stride > 4) + 21 * 3 * 9 + 21 * 3 + 3 * 4 + 9 * (stride == 32))
        for suffix, file, precision, runtimes in (
            ("fp32", "t.onnx", "fp32", ["onnxruntime", "tensorrt"]),
            ("fp16", "t.onnx", "fp16", ["tensorrt"]),
            ("fp16-typed", "t.fp16.onnx", "fp16", ["onnxruntime"]),
            ("int8-cpu", "t.int8-cpu.onnx", "int8-cpu", ["onnxruntime"]),
            ("int8", "t.int8.onnx", "int8", ["tensorrt"]),
            ("fp32-litert", "t-416x256.fp32.tflite", "fp32", ["litert"]),
        ):
            if runtimes == ["litert"] and wh != (416, 256):
                continue
            path = os.path.join(folder, "models", file)
            variants.append(
                {
                    "name": f"t-{wh[0]}x{wh[1]}-{suffix}",
                    "model": "t",
                    "file": "models/" + file,
                    "sha256": files.sha256(path),
                    "bytes": os.path.getsize(path),
                    "input_wh": list(wh),
                    "precision": precision,
                    "runtimes": runtimes,
                    "macs": macs,
                    "ap": dict.fromkeys(runtimes),
                    "ap_reason": dict.fromkeys(runtimes, "a test fixture, not measured on photographs"),
                    "targets": [],
                }
            )
    files.write_json(
        os.path.join(folder, "manifest.json"),
        {
            "schema_version": 1,
            "name": "tiny",
            "created": "2026-01-01T00:00:00Z",
            "classes": list(manifest.CLASSES),
            "decode": {"strides": STRIDES, "box": "exp", "score": 0.4, "iou": 0.5, "max_detections": 300},
            "preprocessing": image.PREPROCESSING,
            "default_variant": "t-416x256-fp32",
            "variants": variants,
            "provenance": {"made_by": "tests/data/make_tiny_bundle.py", "onnxruntime": onnxruntime.__version__},
        },
    )
    golden.write(folder, golden_frames())
    drawn = sorted(glob.glob(os.path.join(folder, "golden", "*.png")))
    tables.write(os.path.join(folder, "calibration", "t.json"), calibrate.collect(fp32, drawn, (416, 256), "minmax"))
    files.write_text(
        os.path.join(folder, "MODEL_CARD.md"),
        "# tiny\n\nA hand-made net that finds coloured squares, for tests. It knows nothing of faces.\n",
    )
    writer.seal(folder)
    manifest.verify(folder)


def main():
    """Write the bundle anew; the old one stays until the new one is whole."""
    with tempfile.TemporaryDirectory() as parent:
        folder = os.path.join(parent, "bundle")
        write(folder)
        shutil.rmtree(BUNDLE, ignore_errors=True)
        shutil.copytree(folder, BUNDLE)


if __name__ == "__main__":
    main()
