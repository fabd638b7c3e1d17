"""A small detector in ONNX with seeded weights: stem, two stages, a residual, an upsampled sum, two output levels."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """Nodes are added one by one; `save` writes the file."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights, self.outputs = [], {}, []

    def node(self, op, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(self, x, name, channels, out, kernel=3, stride=1, relu=True, weight=None, bias=None):
        shape = (out, channels, kernel, kernel)
        if weight is None:
            weight = self.random.normal(0, np.sqrt(2 / (channels * kernel * kernel)), shape)
        self.weights[name + ".weight"] = np.asarray(weight, np.float32).reshape(shape)
        self.weights[name + ".bias"] = np.asarray(self.random.normal(0, 0.1, out) if bias is None else bias, np.float32)
        pads = [0, 0, 1, 1] if stride == 2 else [kernel // 2] * 4
        self.node(
            "Conv",
            [x, name + ".weight", name + ".bias"],
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=pads,
            dilations=[1, 1],
            group=1,
        )
        return self.node("Relu", [name], name + "_relu") if relu else name

    def upsample(self, x, name):
        self.weights["scales"] = np.array([1, 1, 2, 2], np.float32)
        return self.node(
            "Resize",
            [x, "", "scales"],
            name,
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )

    def model(self, opset=13):
        shapes = {"image": (3, "height", "width")}
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, *shapes["image"]])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, f"h{i}", f"w{i}"])
                for i, (name, channels) in enumerate(self.outputs)
            ],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 7
        return model

    def save(self, path, opset=13):
        onnx.save(self.model(opset), str(path))
        return str(path)


def detector(seed=0):
    """The net: strides 4 and 8, 3 + 4 channels each; one shared branch at stride 4, two at stride 8."""
    net = Net(seed)
    x = net.conv("image", "stem", 3, 16, stride=2, weight=net.random.normal(0, 0.003, (16, 3, 3, 3)))
    x = net.conv(x, "down_4", 16, 24, stride=2)
    y = net.conv(x, "block_4", 24, 24, relu=False)
    four = net.node("Relu", [net.node("Add", [y, x], "block_4_add")], "block_4_relu")
    eight = net.conv(four, "down_8", 24, 32, stride=2)
    eight = net.conv(eight, "lateral_8", 32, 16, kernel=1)
    up = net.upsample(net.conv(eight, "up_4", 16, 16, kernel=1, relu=False), "up_4_resize")
    side = net.conv(four, "lateral_4", 24, 16, kernel=1, relu=False)
    fused = net.node("Relu", [net.node("Add", [side, up], "fuse_4")], "fuse_4_relu")
    head = net.conv(fused, "head_4", 16, 16)
    net.conv(head, "cls_4", 16, 3, kernel=1, relu=False)
    net.conv(head, "box_4", 16, 4, kernel=1, relu=False)
    net.conv(net.conv(eight, "head_8_0", 16, 16), "cls_8", 16, 3, kernel=1, relu=False)
    net.conv(net.conv(eight, "head_8_1", 16, 16), "box_8", 16, 4, kernel=1, relu=False)
    net.outputs = [("cls_4", 3), ("box_4", 4), ("cls_8", 3), ("box_8", 4)]
    return net


def run(path, image, optimised=True):
    """Outputs of an ONNX file by ONNX Runtime: {name: array}."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name("height", image.shape[2])
    options.add_free_dimension_override_by_name("width", image.shape[3])
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = path if isinstance(path, str) else path.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image})))


def snr_db(reference, other):
    noise = float(np.square(reference.astype(np.float64) - other).sum())
    return 10 * np.log10(float(np.square(reference.astype(np.float64)).sum()) / max(noise, 1e-30))


def picture(seed=0, wh=(96, 64)):
    """A blob as the preprocessing gives it: whole numbers 0..255, the lower rows padding."""
    image = np.random.default_rng(seed).integers(0, 256, (1, 3, wh[1], wh[0])).astype(np.float32)
    image[:, :, -8:] = 114
    return image
