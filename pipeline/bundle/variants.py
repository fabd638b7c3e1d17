"""From trained models to measured variants: ONNX in every precision, LiteRT, calibration, AP, and the bundle of it.

The one path that `jetmask demo` and the shipped bundle take.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jetson.bundle import manifest
from jetson.engine import available
from jetson.engine import calibration as tables
from jetson.errors import BadInput
from jetson.evaluation import average_precision
from pipeline import targets
from pipeline.bundle import writer
from pipeline.evaluation import evaluate, gate
from pipeline.export import litert
from pipeline.export import onnx as export
from pipeline.graphs import lint
from pipeline.quantization import calibrate, quantize, sensitivity

log = logging.getLogger(__name__)

CAMERA_WHS = ((320, 192), (416, 256), (640, 384))
SQUARE_WHS = ((320, 320), (416, 416), (512, 512), (640, 640))
NO_GPU = "TensorRT engines are built on the device; none ran on the machine that made this bundle"


class Made(NamedTuple):
    """The files of one model. kinds: as pipeline.bundle.writer.write takes them; table: the calibration's path."""

    name: str
    kinds: dict[str, Any]
    table: str


OVERFLOW_IMAGES = 16
Say = Callable[[str], None]
Wh = tuple[int, int]
Aps = Mapping[tuple[str, str], Mapping[str, Any]]


def make(
    name: str,
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    images: Sequence[str],
    calibration_wh: Wh,
    litert_whs: Sequence[Wh] = (),
    say: Say = print,
    method: str = "percentile",
) -> tuple[Made, Any]:
    """Export the model in `path` (.keras) to folder as fp32, fp16, int8 (TensorRT) and int8-cpu ONNX, and LiteRT files
    for each of litert_whs. images: paths to calibrate with, by method. Every node is held against TensorRT 8.2's rules
    first; nodes whose tensors come near fp16's largest number on these images stay float32 in the fp16 file and, by the
    table's layer_precisions, in engines that TensorRT builds from the float32 one.
    Returns (Made, the Keras model); BadInput where TensorRT 8.2 would refuse a node."""
    from pipeline.models.detector import load

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = load(str(path))
    onnx = {kind: str(folder / pattern.format(name)) for kind, pattern in writer.KINDS.items()}
    say(f"{name}: ONNX, parity with Keras")
    export.export(model, onnx["fp32"])
    findings = lint.lint(onnx["fp32"], "nano")
    if findings:
        raise BadInput(
            "a Nano's TensorRT would refuse this model:\n" + "\n".join(map(lint.describe, findings)), where=onnx["fp32"]
        )
    say(f"{name}: calibration on {len(images)} images")
    table = calibrate.collect(onnx["fp32"], images, calibration_wh, method)
    keep = sensitivity.overflows(onnx["fp32"], images[:OVERFLOW_IMAGES], calibration_wh)
    if keep:
        say(f"{name}: {len(keep)} nodes stay float32 in fp16: their values come near 65504")
        table.layer_precisions["fp16"] = dict.fromkeys(keep, "fp32")
    table_path = str(folder / (name + ".json"))
    tables.write(table_path, table)
    say(f"{name}: fp16, int8")
    quantize.fp16(onnx["fp32"], onnx["fp16"], keep)
    quantize.int8_cpu(onnx["fp32"], table, onnx["int8-cpu"])
    quantize.int8_tensorrt(onnx["fp32"], table, onnx["int8"])
    kinds: dict[str, Any] = dict(onnx)
    for wh in litert_whs:
        for precision in litert.PRECISIONS:
            say(f"{name}: LiteRT {precision} {wh[0]}x{wh[1]}")
            target = str(folder / writer.tflite_name(name, wh, precision))
            litert.convert(model, wh, precision, images, target)
            kinds.setdefault("tflite", {})[(*wh, precision)] = target
    return Made(name, kinds, table_path), model


def entries(made: Made, model: Any, input_whs: Sequence[Wh], aps: Aps | None = None) -> list[dict[str, Any]]:
    """The manifest's variants of one model at each input size. aps: {(variant, runtime): AP entry} where measured."""
    from pipeline.models.detector import macs  # TensorFlow with it: who only measures need not wait for that

    aps = aps or {}
    recipes = [  # with the kind of file that each is made from
        ("fp32", "fp32", "", ["onnxruntime", "tensorrt"], lambda t: True),
        ("fp32", "fp16", "", ["tensorrt"], lambda t: "fp16" in t.fast_precisions),
        ("fp16", "fp16", "-typed", ["onnxruntime"], lambda t: False),
        ("int8", "int8", "", ["tensorrt"], lambda t: "int8" in t.fast_precisions),
        ("int8-cpu", "int8-cpu", "", ["onnxruntime"], lambda t: True),
    ]
    tflite = made.kinds.get("tflite", {})
    out = []
    for wh in input_whs:
        rows = [(p, suffix, runtimes, fits) for kind, p, suffix, runtimes, fits in recipes if kind in made.kinds]
        rows += [(p, "-litert", ["litert"], lambda t: False) for w, h, p in tflite if (w, h) == tuple(wh)]
        for precision, suffix, runtimes, fits in rows:
            name = f"{made.name}-{wh[0]}x{wh[1]}-{precision}{suffix}"
            ap = {r: aps.get((name, r)) for r in runtimes}
            reason = {r: NO_GPU if r == "tensorrt" else "not evaluated" for r in runtimes if ap[r] is None}
            file = writer.file_of(made.name, wh, precision, runtimes)
            out.append(
                {
                    "name": name,
                    "model": made.name,
                    "file": file,
                    "input_wh": list(wh),
                    "precision": precision,
                    "runtimes": runtimes,
                    "macs": macs(model, wh),
                    "ap": ap,
                    "ap_reason": reason,
                    "targets": sorted(n for n, t in targets.TARGETS.items() if fits(t)),
                }
            )
    return out


def measure(
    bundle_dir: str | os.PathLike[str],
    split_dir: str | os.PathLike[str],
    split_name: str,
    only: Callable[[manifest.Variant], bool] | None = None,
    threads: int | None = None,
    say: Say = print,
    max_drop: float = gate.MAX_DROP,
) -> list[dict[str, Any]]:
    """AP and latency of every variant that can run here: list of evaluate.measure's results, one per runtime.

    `against_fp32` of each: {difference, low, high, passed} to its model's fp32 variant of the same size, in points of
    two-class mAP50 with 95 % bounds (pipeline.evaluation.gate); None for that one itself and where there is none."""
    classes = manifest.load(str(bundle_dir)).classes
    truths = average_precision.load_split(str(split_dir), classes)
    usable = {r for r, reason in available().items() if reason is None}
    contents = manifest.load(str(bundle_dir)).variants
    results: list[dict[str, Any]] = []
    plain: dict[tuple[str, Wh], Any] = {}
    for variant in sorted(contents, key=lambda v: (v.precision != "fp32", "onnxruntime" not in v.runtimes)):
        for runtime in variant.runtimes:
            if runtime not in usable or (only and not only(variant)):
                continue
            result, faces = evaluate.measure(str(bundle_dir), truths, variant.name, runtime, threads)
            result.update(
                split=split_name, macs=variant.macs, bytes=variant.bytes, model=variant.model, against_fp32=None
            )
            if variant.precision == "fp32":
                plain.setdefault((variant.model, variant.input_wh), faces)
            before = plain.get((variant.model, variant.input_wh), faces)
            if before is not faces and result["map50"] is not None:
                verdict = gate.compare(truths, before, faces, max_drop, 200, classes=classes)
                result["against_fp32"] = {
                    "difference": round(verdict.difference, 2),
                    "low": round(verdict.low, 2),
                    "high": round(verdict.high, 2),
                    "passed": verdict.passed,
                }
            results.append(result)
            p50 = result["latency_ms"]["total_ms"]["p50"]
            ap = "    -" if result["map50"] is None else f"{result['map50']:5.1f}"
            say(f"{variant.name:28} {runtime:11} AP {ap}  {p50:6.2f} ms")
    order = {variant.name: number for number, variant in enumerate(contents)}
    return sorted(results, key=lambda r: order[r["variant"]])


def lost_too_much(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{variant: against_fp32} of those in measure's results that the gate does not let pass."""
    return {r["variant"]: r["against_fp32"] for r in results if r["against_fp32"] and not r["against_fp32"]["passed"]}


def ap_entries(results: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """What the manifest keeps of measure's results: {(variant, runtime): entry}. The first two classes of `per_class`
    are the parts of `map50`, as on the model card; the third is of the three-class figures, the only ones with it."""
    return {
        (r["variant"], r["runtime"]): {
            "map50": round(r["map50"], 2),
            "split": r["split"],
            "images": r["counts"]["images"],
            "per_class": _rounded(average_precision.every_class(dict(r))),
            "by_size": _rounded(r["by_size"]),
            "class_counts": r["counts"]["per_class"],
        }
        for r in results
        if r["map50"] is not None
    }


def _rounded(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    return {key: None if value is None else round(value, 2) for key, value in figures.items()}


def write_bundle(
    folder: str | os.PathLike[str],
    models: Sequence[tuple[Made, Any]],
    input_whs: Sequence[Wh] | dict[str, Sequence[Wh]],
    split_dir: str | os.PathLike[str],
    split_name: str,
    decode: Mapping[str, Any],
    card: Callable[[list[dict[str, Any]]], str],
    provenance: Mapping[str, Any],
    default_variant: str | None,
    only: Callable[[manifest.Variant], bool] | None = None,
    threads: int | None = None,
    say: Say = print,
    max_drop: float = gate.MAX_DROP,
    known: Aps | None = None,
    never: Collection[str] = (),
) -> tuple[str, list[dict[str, Any]]]:
    """Write a bundle of models [(Made, keras model)], measure what can run here, and write it again with the AP.

    input_whs: the sizes of every model, or {model's name: its sizes}. known: {(variant, runtime): AP} of those that
    `only` leaves unmeasured; never: names that stay out.

    A variant that loses more than max_drop points against its fp32 is left out, and its figures said.
    card: function of (results) -> markdown. Returns (root digest, results of `measure`)."""
    kinds = {made.name: made.kinds for made, _ in models}
    calibration = {made.name: made.table for made, _ in models}
    whs = input_whs if isinstance(input_whs, dict) else dict.fromkeys(kinds, input_whs)

    def variants(aps: Aps, without: Collection[str] = ()) -> list[dict[str, Any]]:
        return [
            entry
            for made, model in models
            for entry in entries(made, model, whs[made.name], aps)
            if entry["name"] not in without and entry["name"] not in never
        ]

    with tempfile.TemporaryDirectory(prefix="jetmask-bundle-") as aside:
        first = str(Path(aside) / "bundle")
        writer.write(first, kinds, variants({}), calibration, decode, "", provenance, default_variant=default_variant)
        results = measure(first, split_dir, split_name, only, threads, say, max_drop)
    failed = lost_too_much(results)
    for name, lost in failed.items():
        bounds = f"95 % bounds {lost['low']:+.2f} to {lost['high']:+.2f}"
        say(
            f"{name} is left out: mAP50 {lost['difference']:+.2f} against fp32 ({bounds}), "
            f"at most {max_drop:.1f} may be lost"
        )
    digest = writer.write(
        str(folder),
        kinds,
        variants({**(known or {}), **ap_entries(results)}, failed),
        calibration,
        decode,
        card(results),
        provenance,
        default_variant=default_variant,
    )
    return digest, results


def stderr(text: str) -> None:
    """Progress lines go to stderr."""
    log.info(text)
