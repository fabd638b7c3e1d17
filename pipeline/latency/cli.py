"""`jetmask predict`: how long a network takes on a device, from its ONNX graph alone, and how far off that was."""

import argparse
import json
from pathlib import Path

from jetson.cli import add_meanings
from jetson.errors import BadInput, UsageError
from pipeline import targets
from pipeline.graphs import shapes
from pipeline.graphs.fusion import ONNXRUNTIME, TENSORRT, counted, layers
from pipeline.latency import end_to_end, measured, this_machine
from pipeline.latency.roofline import BACKED, FITTED, SPREAD, Prediction, layer_times, rates


def predict_ms(
    onnx_path: str, target: str = "nano", precision: str = "fp16", input_wh: tuple | None = None
) -> Prediction:
    """Predict one inference (batch 1) of the ONNX file on `target`: GPU work, without camera or decoding of boxes.

    Example: `predict_ms("model.onnx", "nano", "fp16", (416, 256)).latency_ms`.
    BadInput for a file that is no ONNX graph, DeviceMismatch for a precision that the target does not run, UsageError
    for an int8 file that is to run in another one.
    """
    return predict_graph(shapes.read(str(onnx_path), input_wh), target, precision)


def predict_graph(graph: shapes.Graph, target: str = "nano", precision: str = "fp16") -> Prediction:
    """As `predict_ms`, for a graph that was read already."""
    device = targets.target(target)
    if device.name != targets.THIS_MACHINE:
        _require_no_integers(graph, device)
    targets.check_precision(device, precision)
    if is_int8(graph) and precision != "int8":
        raise UsageError(
            f"an int8 file does not run in {precision}",
            "--precision",
            "int8, or no --precision",
            "predict the float file that it was made from",
        )
    if device.name == targets.THIS_MACHINE:
        device_rates, parameters, spread, basis = this_machine.calibrated(precision)
        rules = ONNXRUNTIME
        notes: tuple = ("holds for ONNX Runtime with one thread on this machine as it was calibrated",)
    else:
        device_rates, parameters = rates(device, precision), FITTED
        backed = precision in BACKED.get(device.name, ())
        spread = SPREAD if backed else None
        basis = (
            "fitted to published TensorRT measurements"
            if backed
            else "scaled from the data sheet; no published row backs it, error unknown"
        )
        rules, notes = TENSORRT, tuple(what_would_change(device))
    notes += graph.notes
    uncounted = sorted({node.stored for node in graph.nodes if not counted(node)})
    if uncounted:
        notes += ("the arithmetic of these operators is not known and not in it: " + ", ".join(uncounted),)
    fused = layers(graph, rules)
    times = layer_times(fused, device_rates, parameters)
    latency = parameters.call_ms + sum(item.ms for item in times)
    depthwise = sum(item.ms for item in times if item.kind == "depthwise") / latency
    if depthwise > 0.1 and device.name != targets.THIS_MACHINE:
        notes += (
            f"{depthwise:.0%} of the time is in depthwise layers, which no published engine row has: there the "
            "interval is a guess",
        )
    return Prediction(
        latency_ms=latency,
        low_ms=latency / spread if spread else None,
        high_ms=latency * spread if spread else None,
        layers=times,
        target=device.name,
        precision=precision,
        input_wh=graph.input_wh,
        macs=sum(layer.macs for layer in fused),
        weight_bytes=sum(layer.weights for layer in fused) * device_rates.element,
        basis=basis,
        notes=notes,
    )


def is_int8(graph: shapes.Graph) -> bool:
    """Whether a file is int8 already: by operators on integers, or by Q/DQ pairs."""
    return any(node.stored in shapes.INTEGER or node.stored == "QuantizeLinear" for node in graph.nodes)


def _require_no_integers(graph: shapes.Graph, device: targets.Target) -> None:
    integer = next((node for node in graph.nodes if node.stored in shapes.INTEGER), None)
    if integer is not None:
        raise BadInput(
            f"{integer.stored} is an operator that TensorRT does not parse",
            f"node {integer.name}",
            f"a float or a Q/DQ file for {device.title}",
            f"this is the int8-cpu form, for --target {targets.THIS_MACHINE}; predict the .onnx it came from",
        )


def what_would_change(device: targets.Target) -> list:
    """Sentences on what moves a figure on this device."""
    out = []
    for mode, clock in device.power_modes.items():
        if clock == 1:
            out.append(f"assumes power mode {mode} with clocks locked (jetson_clocks)")
        else:
            out.append(f"power mode {mode} runs the GPU at {clock:.0%} of that clock: up to {1 / clock:.2f} x the time")
    out.append(
        f"assumes JetPack {device.jetpack} (TensorRT {device.tensorrt[-1]}); the camera, decoding of boxes and "
        "the page are not in it"
    )
    return out


def parse_wh(text: str | None) -> tuple[int, int] | None:
    """(width, height) of "416x256"; UsageError otherwise."""
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) == 2 and all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[1])
    raise UsageError(f"not a size: {text!r}", "--input-wh", "WIDTHxHEIGHT in pixels, for instance 416x256")


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Predict how long a network takes on a device, from its ONNX graph alone."
    parser.epilog = "example: jetmask predict model.onnx --target nano --precision fp16 --input-wh 416x256 --layers"
    add_meanings(parser, dict.fromkeys(("--source", "--conf", "--save-txt", "--show"), "jetmask detect"))
    parser.add_argument("model", help="an ONNX file")
    parser.add_argument("--target", default="nano", help="device kind (default: %(default)s)")
    parser.add_argument(
        "--precision",
        default=None,
        help="fp32, fp16 or int8 (default: int8 for an int8 file, else fp16, on this-machine fp32)",
    )
    parser.add_argument("--input-wh", help="WIDTHxHEIGHT; needed when the file leaves its size open")
    parser.add_argument("--layers", action="store_true", help="show every launched layer")
    parser.add_argument(
        "--measured",
        metavar="FILE.json",
        help="say how far off that is from what `jetmask bench --out` measured, or imported from trtexec",
    )
    parser.add_argument("--calibrate", action="store_true", help="with --target this-machine: measure it again")
    parser.add_argument(
        "--end-to-end",
        action="store_true",
        help="also how many cameras at which frame rate a complete runner can serve (predicted; nano)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def command(args: argparse.Namespace) -> None:
    size = parse_wh(args.input_wh)
    device = targets.target(args.target)
    graph = shapes.read(args.model, size)
    plain = "fp32" if device.name == targets.THIS_MACHINE else "fp16"
    precision = args.precision or ("int8" if is_int8(graph) else plain)
    if args.calibrate:
        if device.name != targets.THIS_MACHINE:
            raise UsageError("only this machine can be calibrated", "--calibrate", f"--target {targets.THIS_MACHINE}")
        targets.check_precision(device, precision)  # before half a minute of measuring
        this_machine.calibrate(precision)
    result = predict_graph(graph, device.name, precision)
    whole = end_to_end.end_to_end(result) if args.end_to_end else None
    found = None
    if args.measured:
        found = measured.beside(result, args.measured, args.model)
    if args.json:
        more = {"measured": found} if found else {}
        more |= {"end_to_end": whole.as_json()} if whole else {}
        print(json.dumps(result.as_json(args.layers) | more, indent=1))
        return
    if args.layers:
        print(f"{'layer':58} {'kind':10} {'ms':>8} {'MMACs':>8}")
        for layer in result.layers:
            name = layer.name if len(layer.name) <= 58 else layer.name[:55] + "..."
            print(f"{name:58} {layer.kind:10} {layer.ms:8.3f} {layer.macs / 1e6:8.1f}")
        print()
    bound = (
        f"{result.low_ms:.1f} to {result.high_ms:.1f} ms (90 % interval)"
        if result.low_ms is not None
        else "error unknown"
    )
    shape = "x".join(map(str, result.input_wh)) if result.input_wh else "no image input"
    print(f"{Path(args.model).name}  {shape}  {result.precision} on {result.target}")
    print(f"predicted {result.latency_ms:.2f} ms ({bound}), {result.macs / 1e6:.0f} MMACs, {len(result.layers)} layers")
    print(f"basis: {result.basis}")
    for note in result.notes:
        print(f"  - {note}")
    if whole:
        print(end_to_end.text(whole, result.target))
    if found:
        print(measured.text(found, args.layers))
