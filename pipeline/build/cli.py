"""`jetmask build`: from a float32 ONNX to its reduced-precision files, and from a bundle to this machine's engines.

What was built is held against float32 on labelled photographs where it can run here; what loses too much does not stay.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from jetson import cli, files
from jetson.bundle import manifest
from jetson.engine import calibration as tables
from jetson.engine import cuda, onnx_facts, tensorrt_network
from jetson.engine.build import WORKSPACE_BYTES
from jetson.errors import BadInput, JetmaskError, QualityGate, UsageError
from jetson.evaluation import average_precision
from pipeline import paths, targets
from pipeline.build import engines, trtexec
from pipeline.bundle import writer
from pipeline.evaluation import gate
from pipeline.graphs import classes as onnx_classes
from pipeline.graphs import lint, sparsity
from pipeline.quantization import calibrate, quantize, sensitivity

PRECISIONS = ("fp32", "fp16", "int8", "int8-cpu")
CALIBRATION_IMAGES = 128
SENSITIVITY_IMAGES = 16


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


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


# ------------------------------------------------------------------------------------ files of one model


def _table(args: Any, onnx: str, name: str) -> tuple[tables.Table, list[str]]:
    """The calibration table and the photographs it may be ranked on."""
    images = []
    if args.calibration_data:
        images = calibrate.select(args.calibration_data, CALIBRATION_IMAGES, 0)
    if args.calibration:
        table = tables.read(args.calibration)
        tables.require(table, args.calibration, files.sha256(onnx))
        return table, images
    if not images:
        raise UsageError(
            "int8 needs calibration",
            None,
            "--calibration TABLE.json or --calibration-data SPLIT_DIR",
            "for instance --calibration-data data/facemask/train",
        )
    say(f"{name}: calibrating on {len(images)} photographs")
    return calibrate.collect(onnx, images, calibrate.size(args.input_wh), args.method), images


def _make(
    precision: str, onnx: str, path: str, table: tables.Table | None, images: Sequence[str], truths: Any, args: Any
) -> dict[str, Any]:
    """Write one file; {"kept": layers left in higher precision}."""
    input_wh = calibrate.size(args.input_wh)
    if precision == "fp16":
        keep = sensitivity.overflows(onnx, images[:SENSITIVITY_IMAGES], input_wh) if images else ()
        quantize.fp16(onnx, path, keep)
        if table is not None and keep:
            table.layer_precisions["fp16"] = dict.fromkeys(keep, "fp32")
        return {"kept": len(keep)}
    if args.precision == "auto":
        mixed = sensitivity.mix(
            onnx,
            path,
            precision,
            table,
            images[:SENSITIVITY_IMAGES],
            truths,
            input_wh,
            args.max_drop,
            os.path.join(args.out, ".sensitivity.json"),
            say,
        )
        if precision == "int8":  # for engines that TensorRT calibrates itself from the float32 file
            table.layer_precisions["int8"] = dict.fromkeys(mixed.keep, "fp16")
        return {"kept": len(mixed.keep)}
    write = quantize.int8_tensorrt if precision == "int8" else quantize.int8_cpu
    write(onnx, table, path)
    return {}


def make_files(args: Any, device: targets.Target) -> list[dict[str, Any]]:
    """Write the files of one ONNX into args.out, each held against the lint and, with --data, the gate.

    One row each: precision, file, bytes, kept, map50, difference, low, high, note; `failed` where the gate was not
    held: that file is not in the folder.
    """
    onnx = args.model
    name = os.path.splitext(os.path.basename(onnx))[0]
    _, facts = onnx_facts.read(onnx)
    if facts.quantized or facts.half:
        raise BadInput("the file is not a float32 model", onnx, "what `jetmask export` writes", "give <model>.onnx")
    precisions = wanted(device, args.precision)
    if args.precision == "auto" and not (args.data and args.calibration_data):
        raise UsageError(
            "--precision auto searches by AP and by sensitivity",
            None,
            "--data SPLIT_DIR to measure on and --calibration-data SPLIT_DIR to rank on",
        )
    if not args.out:
        raise UsageError("where to?", None, "--out DIR")
    names = onnx_classes.of_file(onnx).names
    truths = average_precision.load_split(args.data, names) if args.data else None
    if truths is not None and not truths:
        raise BadInput("there is no image to measure on", args.data)
    paths.made(args.out)
    table, images = None, []
    if args.calibration_data:
        images = calibrate.select(args.calibration_data, CALIBRATION_IMAGES, 0)
    if any(precision.startswith("int8") for precision in precisions):
        table, images = _table(args, onnx, name)
        tables.write(os.path.join(args.out, name + ".json"), table)
    input_wh = calibrate.size(args.input_wh)
    before = gate.of_onnx(onnx, truths, input_wh, args.threads) if truths else None
    rows = []
    for precision in precisions:
        say(f"{name}: {precision}")
        path = os.path.join(args.out, writer.KINDS[precision].format(name))
        part = path + ".new.onnx"  # under its own name only when it has passed
        row: dict[str, Any] = {"precision": precision, "file": path}
        try:
            if precision == "fp32":
                shutil.copyfile(onnx, part)
            else:
                row.update(_make(precision, onnx, part, table, images, truths, args))
            _lint(part, device, precision)
            if before is not None:
                after = gate.of_onnx(part, truths, input_wh, args.threads)
                verdict = gate.compare(truths, before, after, args.max_drop, classes=names)
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
        tables.write(os.path.join(args.out, name + ".json"), table)
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


# ------------------------------------------------------------------------------------ trtexec


def trtexec_lines(args: Any, device: targets.Target) -> list[str]:
    """The commands for each TensorRT version of the target, with a comment line before each."""
    lines = []
    for version in trtexec.versions(device):
        label = ".".join(map(str, version))
        for title, onnx, input_wh, precision in _recipes(args, device):
            _, facts = onnx_facts.read(onnx)
            cache = args.calibration if args.calibration and args.calibration.endswith(".cache") else None
            lines.append(f"# {title}, {device.title}, TensorRT {label}")
            lines.append(
                trtexec.command(
                    version,
                    onnx,
                    f"{title}.plan",
                    input_wh,
                    precision,
                    args.workspace_mb << 20,
                    quantized=facts.quantized,
                    half=facts.half,
                    cache=cache,
                    timing_cache=f"timing-{label}.cache",
                    sparse=device.skips_zeros and sparsity.pattern_of(onnx) is not None,
                )
            )
    return lines


def _recipes(args: Any, device: targets.Target) -> list[tuple[str, str, Sequence[int], str]]:
    """(title, ONNX path, input size, precision) of what is asked for."""
    if os.path.isdir(args.model):
        contents = manifest.load(args.model)
        found: list[tuple[str, str, Sequence[int], str]] = [
            (v.name, contents.path(v), v.input_wh, v.precision)
            for v in contents.variants
            if "tensorrt" in v.runtimes
            and args.precision in (None, v.precision)
            and args.variant in (None, v.name)
            and (not v.targets or device.name in v.targets)
            and (v.precision != "int8" or "int8" in device.fast_precisions)
        ]
        if not found:
            raise UsageError("the bundle has no such variant for TensorRT on this target", args.model)
        return found
    precision = args.precision or "fp16"
    name = os.path.splitext(os.path.basename(args.model))[0]
    wh = calibrate.size(args.input_wh)
    return [(f"{name}-{wh[0]}x{wh[1]}-{precision}", args.model, wh, precision)]


# ------------------------------------------------------------------------------------ the verb


def options(parser: Any) -> None:
    """The options of `jetmask build`."""
    parser.epilog = (
        "examples:\n  jetmask build s.onnx --out runs/s --calibration-data data/facemask/train --data "
        "data/facemask/val\n  jetmask build s.onnx --target nano --precision fp16 --print-trtexec\n"
        "  jetmask build jetson/models --data data/facemask/val       (engines, on a machine with a GPU)"
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL.onnx|BUNDLE",
        help="a float32 ONNX: write its reduced-precision files; a bundle: build its engines here",
    )
    parser.add_argument(
        "--target",
        default=targets.THIS_MACHINE,
        metavar="NAME",
        help="whose hardware counts: " + ", ".join(targets.TARGETS),
    )
    parser.add_argument(
        "--precision",
        choices=[*PRECISIONS, "auto"],
        help="default: all the target has hardware for; auto: int8 with the fewest layers kept in "
        "float that hold --max-drop",
    )
    parser.add_argument("--out", metavar="DIR", help="where the files go")
    parser.add_argument("--calibration", metavar="FILE", help="a table of `jetmask calibrate` (a .cache for trtexec)")
    parser.add_argument(
        "--calibration-data", metavar="SPLIT_DIR", help="calibrate on these photographs, never the test ones"
    )
    parser.add_argument(
        "--method", choices=tables.METHODS, default="percentile", help="how ranges are chosen (default percentile)"
    )
    parser.add_argument("--data", metavar="SPLIT_DIR", help="measure each result here against float32")
    parser.add_argument(
        "--max-drop",
        type=float,
        default=gate.MAX_DROP,
        metavar="POINTS",
        help="points of two-class mAP50 that may be lost (default %(default)s)",
    )
    parser.add_argument(
        "--input-wh", default="416x256", metavar="WxH", help="input size to measure at (default 416x256)"
    )
    parser.add_argument("--variant", metavar="NAME", help="of a bundle: only this one")
    parser.add_argument("--engines", metavar="DIR", help="the engine cache")
    parser.add_argument(
        "--workspace-mb",
        type=int,
        default=WORKSPACE_BYTES >> 20,
        metavar="MB",
        help="the builder's workspace (default 256)",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads for measuring")
    parser.add_argument(
        "--print-trtexec", action="store_true", help="print the equivalent trtexec command, build nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def command(args: Any) -> int:
    """Refuse what cannot be, then build or print."""
    gate.finite(args.max_drop)
    device = targets.target(args.target)
    if args.precision:
        refuse(device, args.precision)
    if not args.model:
        raise UsageError("build what?", None, "MODEL.onnx or a bundle's folder", "jetmask build --help has examples")
    if not os.path.exists(args.model):
        raise BadInput("there is no such file or folder", args.model, "MODEL.onnx or a bundle's folder")
    if args.print_trtexec:
        lines = trtexec_lines(args, device)
        print(json.dumps({"commands": [line for line in lines if line[0] != "#"]}) if args.json else "\n".join(lines))
        return 0
    if os.path.isdir(args.model):
        rows = engines.build(args)
    else:
        rows = make_files(args, device)
    if args.json:
        print(json.dumps({"built": rows}))
    else:
        print(_summary(rows))
    failed = [row for row in rows if "failed" in row]
    if failed:
        said = "; ".join(f"{row.get('variant', row['precision'])}: {row['failed']}" for row in failed)
        raise QualityGate(
            said,
            None,
            f"at most {args.max_drop:g} points of two-class mAP50 lost",
            "keep the sensitive layers in float (--precision auto), calibrate on more photographs, or "
            "allow more with --max-drop; what failed was not kept",
        )
    if not any("bytes" in row for row in rows):
        raise JetmaskError(
            "nothing was built",
            args.model,
            None,
            "; ".join(f"{row['variant']}: {row['reason']}" for row in rows if "reason" in row) or None,
        )
    return 0


def _summary(rows: Sequence[dict[str, Any]]) -> str:
    def change(row: dict[str, Any]) -> str:
        if "difference" not in row:
            return "not measured"
        return f"{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"

    return cli.table(
        ["result", "precision", "bytes", "mAP50", "against fp32", ""],
        [
            [
                row.get("path") or row.get("file") or row["variant"],
                row["precision"],
                row.get("bytes", "-"),
                row.get("map50", "-"),
                change(row),
                "failed" if "failed" in row else row.get("reason") or row.get("note", ""),
            ]
            for row in rows
        ],
    )
