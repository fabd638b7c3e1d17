"""`jetmask bundle create`: from model files that somebody names to a bundle that was measured."""

import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jetson import files
from jetson.bundle.classes import Classes
from jetson.engine import calibration as tables
from jetson.errors import BadInput, QualityGate, UsageError
from jetson.evaluation import average_precision
from pipeline.bundle import writer
from pipeline.evaluation.gate import finite
from pipeline.paths import require_free

log = logging.getLogger(__name__)

Models = dict[str, dict[str, Any]]  # as pipeline.bundle.writer.write takes them
Entries = list[dict[str, Any]]
# What is made of each kind of file: the end of the variant's name, its precision, its runtimes.
_MADE_OF = {
    "fp32": (("fp32", "fp32", ["onnxruntime", "tensorrt"]), ("fp16", "fp16", ["tensorrt"])),
    "fp16": (("fp16-typed", "fp16", ["onnxruntime"]),),
    "int8": (("int8", "int8", ["tensorrt"]),),
    "int8-cpu": (("int8-cpu", "int8-cpu", ["onnxruntime"]),),
}


@dataclass(frozen=True)
class Settings:
    """What a bundle is made of. `onnx`: {kind: {model: path}}, the kinds of pipeline.bundle.writer.KINDS; `tflite`:
    {(model, width, height, precision): path}; `sizes`: (width, height) of the variants of each ONNX file. `data`: a
    SPLIT_DIR to measure on, with `max_drop` the points of mAP50 that may be lost; `photos`: one to put in. `roles`:
    CLASS=ROLE, as the manifest has them.
    """

    folder: str
    onnx: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tflite: Mapping[tuple[str, int, int, str], str] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ()
    data: str | None = None
    max_drop: float = 0.5
    calibration: str | None = None
    card: str | None = None
    photos: str | None = None
    roles: tuple[str, ...] = ()
    name: str = "facemask"
    default_variant: str | None = None
    key: str | None = None


def create(settings: Settings) -> str:
    """Write the bundle; its root digest. All that can be wrong with what was given is told before anything is measured.

    QualityGate, once the bundle is there, where variants lose too much against fp32: they are left out of it.
    """
    finite(settings.max_drop)
    models, variants = _models(settings), _variants(settings)
    if not variants:
        raise UsageError("no model given", None, "at least one --onnx MODEL=FILE", "see `jetmask bundle --help`")
    card = _card(settings.card)
    names = [variant["name"] for variant in variants]
    if settings.default_variant and settings.default_variant not in names:
        raise UsageError(
            f"unknown variant {settings.default_variant!r}", "--default-variant", "one of " + ", ".join(names)
        )
    classes = writer.classes_of(models, settings.roles)
    require_free(settings.folder)
    if settings.key:
        writer.private_key(settings.key)
    if settings.photos:
        average_precision.load_split(settings.photos, classes.names)
    _count_macs(models, variants)
    calibration = _calibration(settings.calibration, models) if settings.calibration else {}
    failed = _measure(models, variants, settings.data, settings.max_drop, classes) if settings.data else {}
    variants = [variant for variant in variants if variant["name"] not in failed]
    log.info(f"writing {len(variants)} variants ...")
    digest = writer.write(
        settings.folder,
        models,
        variants,
        calibration,
        card=card,
        name=settings.name,
        default_variant=None if settings.default_variant in failed else settings.default_variant,
        photos=settings.photos,
        key=settings.key,
        classes=classes,
    )
    if failed:
        raise _left_out(settings, failed)
    return digest


def _models(settings: Settings) -> Models:
    """The files by model, in the order of the kinds."""
    models: Models = {}
    for kind in writer.KINDS:
        for model, path in settings.onnx.get(kind, {}).items():
            models.setdefault(model, {})[kind] = path
    for (model, width, height, precision), path in settings.tflite.items():
        models.setdefault(model, {}).setdefault("tflite", {})[(width, height, precision)] = path
    return models


def _variants(settings: Settings) -> Entries:
    """The manifest's entries: of each model at each size what its ONNX files give, then the LiteRT files."""
    found: Entries = []
    for model, kinds in _models(settings).items():
        for width, height in settings.sizes:
            for kind in kinds:
                for end, precision, runtimes in _MADE_OF.get(kind, ()):
                    found.append(_entry(f"{model}-{width}x{height}-{end}", model, (width, height), precision, runtimes))
    for model, width, height, precision in settings.tflite:
        name = f"{model}-{width}x{height}-{precision}-litert"
        found.append(_entry(name, model, (width, height), precision, ["litert"]))
    return found


def _entry(name: str, model: str, wh: tuple[int, int], precision: str, runtimes: list[str]) -> dict[str, Any]:
    return {"name": name, "model": model, "input_wh": list(wh), "precision": precision, "runtimes": list(runtimes)}


def _card(path: str | None) -> str:
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise BadInput(f"the model card cannot be read: {error}", path, "a text file in UTF-8") from None


def _left_out(settings: Settings, failed: dict[str, dict[str, Any]]) -> QualityGate:
    lost = [
        f"{name} {points['difference']:+.2f} ({points['low']:+.2f} to {points['high']:+.2f})"
        for name, points in failed.items()
    ]
    return QualityGate(
        "left out of the bundle: " + "; ".join(lost),
        settings.folder,
        f"at most {settings.max_drop:g} points of two-class mAP50 lost against fp32",
        "make these again (jetmask build --precision auto), or allow more with --max-drop; the bundle holds the others",
    )


def _calibration(folder: str, models: Models) -> dict[str, str]:
    """{file name: path} of the models' tables and caches; BadInput where one is none, or of another model.

    A device reads the table of a model whatever it builds, and would find out only then.
    """
    if not os.path.isdir(folder):
        raise BadInput("no such folder", folder, "a folder with <model>.json and <model>.cache")
    found = {}
    for model, kinds in models.items():
        table, cache = (os.path.join(folder, model + end) for end in (".json", ".cache"))
        if os.path.isfile(table):
            tables.require(tables.read(table), table, files.sha256(kinds["fp32"]) if "fp32" in kinds else None)
            found[model + ".json"] = table
        if os.path.isfile(cache):
            tables.read_cache(cache)
            found[model + ".cache"] = cache
    if not found:
        raise BadInput(
            "there is no calibration of these models",
            folder,
            "one of " + ", ".join(f"{model}.json" for model in models),
            "jetmask calibrate writes it",
        )
    return found


def _count_macs(models: Models, variants: Entries) -> None:
    """Fill in the multiply-adds of every variant, from an ONNX file of its model at its size."""
    try:
        from pipeline.graphs import fusion, shapes
    except ModuleNotFoundError as error:
        log.warning(f"MACs are not counted: the Python module {error.name} is not installed")
        return
    counts: dict[tuple[str, tuple[int, int]], int] = {}
    for variant in variants:
        kinds, (width, height) = models[variant["model"]], variant["input_wh"]
        path = next((kinds[kind] for kind in writer.KINDS if kind in kinds), None)
        if path is None:
            variant["macs"] = 0
            continue
        key = (path, (width, height))
        if key not in counts:
            counts[key] = sum(layer.macs for layer in fusion.layers(shapes.read(*key)))
        variant["macs"] = counts[key]


def _measure(
    models: Models, variants: Entries, data: str, max_drop: float, classes: Classes
) -> dict[str, dict[str, Any]]:
    """Fill in the AP of every variant that runs here; {name: its loss} of those that lose more than max_drop points."""
    from pipeline.bundle.variants import NO_GPU, ap_entries, lost_too_much, measure, stderr

    split = os.path.basename(os.path.abspath(data))
    if not average_precision.has_scored(average_precision.load_split(data, classes.names), classes.names):
        raise BadInput("no labelled boxes to measure AP on", data, "boxes of a class that the figure counts")
    with tempfile.TemporaryDirectory(prefix="jetmask-bundle-") as aside:
        trial = os.path.join(aside, "trial")
        writer.write(trial, models, variants, classes=classes)
        results = measure(trial, data, split, say=stderr, max_drop=max_drop)
    aps = ap_entries(results)
    for variant in variants:
        variant["ap"] = {runtime: aps.get((variant["name"], runtime)) for runtime in variant["runtimes"]}
        variant["ap_reason"] = {
            runtime: NO_GPU if runtime == "tensorrt" else "its runtime is not installed here"
            for runtime, ap in variant["ap"].items()
            if ap is None
        }
    return lost_too_much(results)
