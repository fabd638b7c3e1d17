"""A bundle's TensorRT engines on this machine: built, measured against float32, and the manifest kept true.

The builder is the device's own (jetson/engine/build.py); this is for a workstation with an NVIDIA GPU.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from typing import Any

from jetson import files
from jetson.bundle import manifest
from jetson.engine import build as device_build
from jetson.engine import cache, int8, tensorrt
from jetson.errors import DeviceMismatch, QualityGate
from jetson.evaluation import average_precision
from pipeline.build.settings import Settings
from pipeline.bundle import writer
from pipeline.evaluation import evaluate, gate
from pipeline.paths import replaced_folder

log = logging.getLogger(__name__)


def build(settings: Settings) -> list[dict[str, Any]]:
    """Build this machine's engines of a bundle's variants; with --data, measure them and keep the manifest true.

    An engine that loses more than --max-drop against float32 in ONNX Runtime leaves the manifest.
    """
    contents = manifest.load(settings.model)
    reason = tensorrt.reason()
    if reason:
        raise DeviceMismatch(
            "no TensorRT engine can be built on this machine: " + reason,
            settings.model,
            "an NVIDIA GPU with TensorRT and pycuda",
            "engines are built on the device itself: jetmask deploy, or there python3 -m jetson build "
            "DIR; --print-trtexec shows the command for a target",
        )
    chosen = [v for v in contents.variants if "tensorrt" in v.runtimes and settings.precision in (None, v.precision)]
    if settings.variant:
        chosen = [contents.variant(settings.variant)]
    if settings.int8_anyway:
        int8.ask_anyway()
    folder = settings.engines or cache.default_folder()
    os.environ["JETMASK_ENGINES"] = folder  # the engine that is opened below looks there
    rows = device_build.build_all(contents, chosen, folder, settings.workspace_bytes, strict=bool(settings.variant))
    if settings.data:
        _measure_engines(settings, settings.data, contents, rows)
    return rows


def _measure_engines(settings: Settings, data: str, contents: manifest.Manifest, rows: list[dict[str, Any]]) -> None:
    truths = average_precision.load_split(data, contents.classes)
    split = os.path.basename(os.path.abspath(data))
    references: dict[tuple[str, tuple[int, int]], Any] = {}
    for row in rows:
        if "path" not in row:
            continue
        variant = contents.variant(row["variant"])
        key = (variant.model, variant.input_wh)
        if key not in references:
            path = next(
                (
                    contents.path(v)
                    for v in contents.variants
                    if v.model == variant.model and v.precision == "fp32" and "onnxruntime" in v.runtimes
                ),
                None,
            )
            references[key] = path and gate.of_onnx(path, truths, variant.input_wh, settings.threads, contents.decode)
        if references[key] is None:
            row["note"] = "no float32 file in the bundle to compare with"
            continue
        measured = evaluate.measure(settings.model, truths, variant.name, "tensorrt", settings.threads)
        verdict = gate.compare(
            truths, references[key], measured.detections, settings.max_drop, classes=contents.classes
        )
        row.update(
            map50=round(verdict.after, 2),
            difference=round(verdict.difference, 2),
            low=round(verdict.low, 2),
            high=round(verdict.high, 2),
            images=verdict.images,
        )
        if not verdict.passed:
            row["failed"] = str(verdict)
    write_measured(settings.model, rows, split)


def write_measured(folder: str, rows: Sequence[dict[str, Any]], split: str) -> None:
    """Put the engines' AP into the bundle's manifest, and take the variants out that failed; whole or not at all."""
    by_name = {row["variant"]: row for row in rows if "map50" in row}
    if not by_name:
        return
    with replaced_folder(folder) as part:
        shutil.copytree(folder, part, dirs_exist_ok=True)
        path = os.path.join(part, "manifest.json")
        document = files.read_json(path)
        for variant in document["variants"]:
            row = by_name.get(variant["name"])
            if row and "failed" not in row:
                variant["ap"]["tensorrt"] = {"map50": row["map50"], "split": split, "images": row["images"]}
                variant["ap_reason"].pop("tensorrt", None)
        kept = [v for v in document["variants"] if "failed" not in by_name.get(v["name"], {})]
        if document["default_variant"] not in [v["name"] for v in kept]:
            raise QualityGate(
                "the bundle's default variant failed", folder, None, "choose another default variant first"
            )
        document["variants"] = kept
        files.write_json(path, document)
        signature = os.path.join(part, manifest.SIGNATURE)
        if os.path.exists(signature):
            os.unlink(signature)
            log.warning("the manifest changed, so its signature was taken away: sign the bundle again")
        writer.seal(part)
        manifest.verify(part)
