"""The networks of the published tables, from their papers' descriptions, as ONNX graphs without trained weights.

`build(name, (width, height))` returns one; `NETWORKS` lists them. Layer widths as in torchvision (classifiers) and
in Darknet's and TensorFlow's configuration files (detectors). Batch normalisation is folded where it follows a
convolution.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import onnx

from pipeline.graphs.writer import GraphWriter


def alexnet(g: GraphWriter) -> list:
    x = g.pool(g.conv("image", 64, 11, 4, 2), 3, 2)
    x = g.pool(g.conv(x, 192, 5), 3, 2)
    x = g.pool(g.conv(g.conv(g.conv(x, 384), 256), 256), 3, 2)
    return [g.dense(g.dense(g.dense(g.flatten(x), 4096), 4096), 1000, None)]


def vgg(g: GraphWriter, depths: tuple) -> list:
    x = "image"
    for depth, width in zip(depths, (64, 128, 256, 512, 512)):
        for _ in range(depth):
            x = g.conv(x, width)
        x = g.pool(x)
    return [g.dense(g.dense(g.dense(g.flatten(x), 4096), 4096), 1000, None)]


def resnet_trunk(g: GraphWriter, depths: tuple, bottleneck: bool, width: float = 1) -> str:
    x = g.pool(g.conv("image", int(64 * width), 7, 2), 3, 2, 1)
    for stage, depth in enumerate(depths):
        wide = int((64 << stage) * width)
        for block in range(depth):
            stride = 2 if stage and not block else 1
            out = wide * 4 if bottleneck else wide
            if bottleneck:
                y = g.conv(g.conv(g.conv(x, wide, 1), wide, 3, stride), out, 1, act=None)
            else:
                y = g.conv(g.conv(x, wide, 3, stride), wide, 3, act=None)
            if stride != 1 or g.shape[x][0] != out:
                x = g.conv(x, out, 1, stride, act=None)
            x = g.add(y, x, "relu")
    return x


def resnet(g: GraphWriter, depths: tuple, bottleneck: bool) -> list:
    return [g.dense(g.flatten(g.mean(resnet_trunk(g, depths, bottleneck))), 1000, None)]


def densenet(g: GraphWriter, depths: tuple, first: int = 64, growth: int = 32) -> list:
    x = g.pool(g.conv("image", first, 7, 2), 3, 2, 1)
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            x = g.concat(x, g.conv(g.conv(g.norm(x), 4 * growth, 1, bias=False), growth, 3, act=None, bias=False))
        if stage < len(depths) - 1:
            x = g.pool(g.conv(g.norm(x), g.shape[x][0] // 2, 1, act=None), kind="AveragePool")
    return [g.dense(g.flatten(g.mean(g.norm(x))), 1000, None)]


def squeezenet(g: GraphWriter, version: str) -> list:
    def fire(x: Any, squeeze: Any, expand: Any) -> Any:
        x = g.conv(x, squeeze, 1)
        return g.concat(g.conv(x, expand, 1), g.conv(x, expand, 3))

    first = (96, 7) if version == "1.0" else (64, 3)
    pools = (0, 3, 7) if version == "1.0" else (0, 2, 4)
    x = g.conv("image", first[0], first[1], 2, 0)
    squeezes = (16, 16, 32, 32, 48, 48, 64, 64)
    for position, squeeze in enumerate(squeezes):
        if position in pools:
            x = g.pool(x, 3, 2, ceil=True)
        x = fire(x, squeeze, squeeze * 4)
    return [g.flatten(g.mean(g.conv(x, 1000, 1)))]


def mobilenet_v1_trunk(g: GraphWriter, width: float = 1, act: Any = "relu6") -> list:
    """All thirteen blocks' outputs."""
    x = g.conv("image", int(32 * width), 3, 2, act=act)
    outputs = []
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    for out, stride in plan:
        x = g.conv(x, g.shape[x][0], 3, stride, groups=g.shape[x][0], act=act)
        x = g.conv(x, int(out * width), 1, act=act)
        outputs.append(x)
    return outputs


def mobilenet_v1(g: GraphWriter, width: float = 1) -> list:
    return [g.dense(g.flatten(g.mean(mobilenet_v1_trunk(g, width)[-1])), 1000, None)]


def mobilenet_v2(g: GraphWriter, width: float = 1) -> list:
    def rounded(value: Any) -> Any:
        return max(8, int(value * width + 4) // 8 * 8)

    x = g.conv("image", rounded(32), 3, 2, act="relu6")
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, out, depth, stride in plan:
        for block in range(depth):
            step, wide, y = (stride if not block else 1), g.shape[x][0] * expand, x
            if expand != 1:
                y = g.conv(y, wide, 1, act="relu6")
            y = g.conv(y, wide, 3, step, groups=wide, act="relu6")
            y = g.conv(y, rounded(out), 1, act=None)
            x = g.add(y, x) if step == 1 and g.shape[x][0] == rounded(out) else y
    x = g.conv(x, max(1280, rounded(1280)), 1, act="relu6")
    return [g.dense(g.flatten(g.mean(x)), 1000, None)]


def googlenet(g: GraphWriter) -> list:
    def inception(x: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
        return g.concat(
            g.conv(x, a, 1), g.conv(g.conv(x, b, 1), c), g.conv(g.conv(x, d, 1), e), g.conv(g.pool(x, 3, 1, 1), f, 1)
        )

    x = g.pool(g.conv("image", 64, 7, 2), 3, 2, ceil=True)
    x = g.pool(g.conv(g.conv(x, 64, 1), 192), 3, 2, ceil=True)
    x = inception(inception(x, 64, 96, 128, 16, 32, 32), 128, 128, 192, 32, 96, 64)
    x = g.pool(x, 3, 2, ceil=True)
    for plan in (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ):
        x = inception(x, *plan)
    x = g.pool(x, 2, 2, ceil=True)
    x = inception(inception(x, 256, 160, 320, 32, 128, 128), 384, 192, 384, 48, 128, 128)
    return [g.dense(g.flatten(g.mean(x)), 1000, None)]


def yolov3_tiny(g: GraphWriter, classes: int = 80) -> list:
    out, x = 3 * (classes + 5), "image"
    for width in (16, 32, 64, 128):
        x = g.pool(g.conv(x, width, act="leaky"))
    fine = g.conv(x, 256, act="leaky")
    x = g.conv(g.pool(fine), 512, act="leaky")
    x = g.pool(
        g.node("Pad", [x, g.constant([0, 0, 0, 0, 0, 0, 1, 1])], (512, g.shape[x][1] + 1, g.shape[x][2] + 1)), 2, 1
    )
    x = g.conv(g.conv(x, 1024, act="leaky"), 256, 1, act="leaky")
    coarse = g.conv(g.conv(x, 512, act="leaky"), out, 1, act=None)
    x = g.concat(g.upsample(g.conv(x, 128, 1, act="leaky")), fine)
    return [coarse, g.conv(g.conv(x, 256, act="leaky"), out, 1, act=None)]


def yolov4_tiny(g: GraphWriter, classes: int = 80) -> list:
    fine: Any = None
    out = 3 * (classes + 5)
    x = g.conv(g.conv("image", 32, 3, 2, act="leaky"), 64, 3, 2, act="leaky")
    for width in (64, 128, 256):
        whole = g.conv(x, width, act="leaky")
        first = g.conv(g.part(whole, width // 2, width), width // 2, act="leaky")
        second = g.conv(first, width // 2, act="leaky")
        fine = g.conv(g.concat(second, first), width, 1, act="leaky")
        x = g.pool(g.concat(whole, fine))
    x = g.conv(g.conv(x, 512, act="leaky"), 256, 1, act="leaky")
    coarse = g.conv(g.conv(x, 512, act="leaky"), out, 1, act=None)
    x = g.concat(g.upsample(g.conv(x, 128, 1, act="leaky")), fine)
    return [coarse, g.conv(g.conv(x, 256, act="leaky"), out, 1, act=None)]


def ssd_mobilenet_v1(g: GraphWriter, classes: int = 91) -> list:
    blocks = mobilenet_v1_trunk(g)
    levels = [blocks[10], blocks[12]]
    for squeeze, out in ((256, 512), (128, 256), (128, 256), (64, 128)):
        levels.append(g.conv(g.conv(levels[-1], squeeze, 1, act="relu6"), out, 3, 2, act="relu6"))
    outputs = []
    for position, x in enumerate(levels):
        anchors = 3 if position == 0 else 6
        outputs += [g.conv(x, anchors * 4, 1, act=None), g.conv(x, anchors * classes, 1, act=None)]
    return outputs


def detectnet_resnet18(g: GraphWriter, classes: int = 2) -> list:
    """DetectNet_v2: ResNet-18 whose last stage keeps stride 16, one 1x1 head for boxes and one for coverage."""
    x = g.conv("image", 64, 7, 2)
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if not block and stage < 3 else 1
            y = g.conv(g.conv(x, width, 3, stride), width, 3, act=None)
            x = g.add(y, g.conv(x, width, 1, stride, act=None) if not block else x, "relu")
    coverage = g.conv(x, classes, 1, act=None)
    return [g.node("Sigmoid", [coverage], g.shape[coverage]), g.conv(x, 4 * classes, 1, act=None)]


NETWORKS: dict[str, Callable[[GraphWriter], Any]] = {
    "AlexNet": alexnet,
    "SqueezeNet1.0": partial(squeezenet, version="1.0"),
    "SqueezeNet1.1": partial(squeezenet, version="1.1"),
    "ResNet-18": partial(resnet, depths=(2, 2, 2, 2), bottleneck=False),
    "ResNet-50": partial(resnet, depths=(3, 4, 6, 3), bottleneck=True),
    "ResNet-101": partial(resnet, depths=(3, 4, 23, 3), bottleneck=True),
    "DenseNet-121": partial(densenet, depths=(6, 12, 24, 16)),
    "DenseNet-201": partial(densenet, depths=(6, 12, 48, 32)),
    "VGG-11": partial(vgg, depths=(1, 1, 2, 2, 2)),
    "VGG-16": partial(vgg, depths=(2, 2, 3, 3, 3)),
    "GoogLeNet": googlenet,
    "MobileNetV1": mobilenet_v1,
    "MobileNetV2": mobilenet_v2,
    "YOLOv3-tiny": yolov3_tiny,
    "YOLOv4-tiny": yolov4_tiny,
    "SSD-MobileNet-v1": ssd_mobilenet_v1,
    "DetectNet_v2-ResNet18-960x544-unpruned": detectnet_resnet18,
}


def build(name: str, input_wh: tuple, weights: str = "empty") -> onnx.ModelProto:
    """The network `name` for an image of `input_wh` = (width, height); weights: empty (dimensions only) or random."""
    writer = GraphWriter(name, 3, input_wh[1], input_wh[0], weights)
    return writer.model(*NETWORKS[name](writer))
