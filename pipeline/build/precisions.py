"""From a float32 ONNX to its files in other precisions, each held against the target's parser and against float32."""

import logging
import os
import shutil
from collections.abc import Sequence
from typing import Any

from jetson import files
from jetson.engine import calibration as tables
from jetson.engine import cuda, onnx_facts, tensorrt_network
from jetson.errors import BadInput, QualityGate, UsageError
from jetson.evaluation import average_precision
from pipeline import paths, targets
from pipeline.build.settings import Settings
from pipeline.bundle import writer
from pipeline.evaluation import gate
from pipeline.graphs import classes as onnx_classes
from pipeline.graphs import lint
from pipeline.quantization import calibrate, quantize, sensitivity

log = logging.getLogger(__name__)

PRECISIONS = ("fp32", "fp16", "int8", "int8-cpu")
CALIBRATION_IMAGES = 128
SENSITIVITY_IMAGES = 16


def say(text: str) -> None:
    """Progress goes to stderr."""
    log.info(text)


def refuse(device: targets.Target, precision: str) -> None:
    """DeviceMismatch when a target cannot do what is asked: TensorRT INT8 without INT8 hardware, above all."""
    if precision != "int8" or not device.compute_capability:
        return
    major, minor = (int(part) for part in device.compute_capability.split("."))
    if not cuda.has_int8((major, minor)):
        raise tensorrt_network.int8_refusal(device.title, (major, minor), "TensorRT " + " or ".join(device.tensorrt))


def wanted(device: targets.Target, precision: str | None) -> list[str]:
    """The precisions to make: the one asked for, or all that the target has hardware for."""
    if precision is None or precision == "auto":
        found = ["int8-cpu"]
        if device.name == targets.THIS_MACHINE or "int8" in device.fast_precisions:
            found.insert(0, "int8")
        return found if precision == "auto" else ["fp16", *found]
    refuse(device, precision)
    return [precision]


def _table(settings: Settings, onnx: str, name: str) -> tuple[tables.Table, list[str]]:
    """The calibration table and the photographs it may be ranked on."""
    images = []
    if settings.calibration_data:
        images = calibrate.select(settings.calibration_data, CALIBRATION_IMAGES, 0)
    if settings.calibration:
        table = tables.read(settings.calibration)
        tables.require(table, settings.calibration, files.sha256(onnx))
        return table, images
    if not images:
        raise UsageError(
            "int8 needs calibration",
            None,
            "--calibration TABLE.json or --calibration-data SPLIT_DIR",
            "for instance --calibration-data data/facemask/train",
        )
    say(f"{name}: calibrating on {len(images)} photographs")
    return calibrate.collect(onnx, images, settings.input_wh, settings.method), images


def _make(
    precision: str,
    onnx: str,
    path: str,
    table: tables.Table | None,
    images: Sequence[str],
    truths: Any,
    settings: Settings,
    out: str,
) -> dict[str, Any]:
    """Write one file; {"kept": layers left in higher precision}."""
    input_wh = settings.input_wh
    if precision == "fp16":
        keep = sensitivity.overflows(onnx, images[:SENSITIVITY_IMAGES], input_wh) if images else ()
        quantize.fp16(onnx, path, keep)
        if table is not None and keep:
            table.layer_precisions["fp16"] = dict.fromkeys(keep, "fp32")
        return {"kept": len(keep)}
    assert table is not None, "int8 has its table, made before"
    if settings.precision == "auto":
        mixed = sensitivity.mix(
            onnx,
            path,
            precision,
            table,
            images[:SENSITIVITY_IMAGES],
            truths,
            input_wh,
            settings.max_drop,
            os.path.join(out, ".sensitivity.json"),
            say,
        )
        if precision == "int8":  # for engines that TensorRT calibrates itself from the float32 file
            table.layer_precisions["int8"] = dict.fromkeys(mixed.keep, "fp16")
        return {"kept": len(mixed.keep)}
    write = quantize.int8_tensorrt if precision == "int8" else quantize.int8_cpu
    write(onnx, table, path)
    return {}


def make(settings: Settings, device: targets.Target) -> list[dict[str, Any]]:
    """Write the files of one ONNX into settings.out, each held against the lint and, with --data, the gate.

    One row each: precision, file, bytes, kept, map50, difference, low, high, note; `failed` where the gate was not
    held: that file is not in the folder.
    """
    onnx = settings.model
    name = os.path.splitext(os.path.basename(onnx))[0]
    _, facts = onnx_facts.read(onnx)
    if facts.quantized or facts.half:
        raise BadInput("the file is not a float32 model", onnx, "what `jetmask export` writes", "give <model>.onnx")
    precisions = wanted(device, settings.precision)
    if settings.precision == "auto" and not (settings.data and settings.calibration_data):
        raise UsageError(
            "--precision auto searches by AP and by sensitivity",
            None,
            "--data SPLIT_DIR to measure on and --calibration-data SPLIT_DIR to rank on",
        )
    if not settings.out:
        raise UsageError("--out is missing", None, "--out DIR")
    names = onnx_classes.of_file(onnx).names
    truths = average_precision.load_split(settings.data, names) if settings.data else None
    if truths is not None and not truths:
        raise BadInput("no image to measure on", settings.data)
    paths.made(settings.out)
    table, images = None, []
    if settings.calibration_data:
        images = calibrate.select(settings.calibration_data, CALIBRATION_IMAGES, 0)
    if any(precision.startswith("int8") for precision in precisions):
        table, images = _table(settings, onnx, name)
        tables.write(os.path.join(settings.out, name + ".json"), table)
    input_wh = settings.input_wh
    before = gate.of_onnx(onnx, truths, input_wh, settings.threads) if truths else None
    rows = []
    for precision in precisions:
        say(f"{name}: {precision}")
        path = os.path.join(settings.out, writer.KINDS[precision].format(name))
        part = path + ".new.onnx"  # under its own name only when it has passed
        row: dict[str, Any] = {"precision": precision, "file": path}
        try:
            if precision == "fp32":
                shutil.copyfile(onnx, part)
            else:
                row.update(_make(precision, onnx, part, table, images, truths, settings, settings.out))
            _lint(part, device, precision)
            if before is not None and truths is not None:
                after = gate.of_onnx(part, truths, input_wh, settings.threads)
                verdict = gate.compare(truths, before, after, settings.max_drop, classes=names)
                row.update(
                    map50=round(verdict.after, 2),
                    difference=round(verdict.difference, 2),
                    low=round(verdict.low, 2),
                    high=round(verdict.high, 2),
                    images=verdict.images,
                )
                if precision == "int8":
                    row["note"] = "simulated by ONNX Runtime in float32; no TensorRT engine ran"
                if not verdict.passed:
                    row["failed"] = str(verdict)
                    rows.append(row)
                    continue
            with files.aside(path) as target:
                shutil.copyfile(part, target)
            row["bytes"] = os.path.getsize(path)
            rows.append(row)
        except QualityGate as error:
            rows.append(dict(row, failed=str(error.what)))
        finally:
            if os.path.exists(part):
                os.unlink(part)
    if table is not None:  # again: the layers kept in higher precision are known now
        tables.write(os.path.join(settings.out, name + ".json"), table)
    return rows


def _lint(path: str, device: targets.Target, precision: str) -> None:
    """BadInput when a file meant for TensorRT would be refused by the target's."""
    if precision == "int8-cpu" or not device.tensorrt:
        return
    findings = lint.lint(path, device.name)
    if findings:
        raise BadInput(
            f"the TensorRT of {device.title} would refuse this {precision} file:\n"
            + "\n".join(map(lint.describe, findings)),
            path,
            "a file that its parser takes",
        )
