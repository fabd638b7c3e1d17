"""`jetmask bundle`: write, pack, unpack, sign and check bundles."""

import argparse
import json
import os
import sys
import tempfile
from typing import Any

from jetson import files
from jetson.bundle import manifest, tarball
from jetson.bundle.classes import Classes
from jetson.engine import calibration as tables
from jetson.errors import BadInput, QualityGate, UsageError
from jetson.evaluation import average_precision
from jetson.install import cli as install_cli
from pipeline.bundle import writer
from pipeline.evaluation.gate import finite
from pipeline.paths import replaced_folder, require_free

_EXAMPLES = """examples:
  jetmask bundle create mine/bundle --onnx s=mine/s.onnx --int8-cpu s=mine/s.int8-cpu.onnx --data data/val
  jetmask bundle key ~/jetmask.key
  jetmask bundle sign runs/mine/bundle --key ~/jetmask.key
  jetmask bundle pack runs/mine/bundle mine.tar
  jetmask bundle verify mine.tar --key ~/jetmask.key.pub"""


def options(parser: argparse.ArgumentParser) -> None:
    """The sub-verbs of `jetmask bundle` and their arguments."""
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="what", metavar="create|pack|unpack|key|sign|verify", required=True)
    create = verbs.add_parser("create", help="write a bundle from model files")
    create.add_argument("folder", metavar="DIR", help="where the bundle is to be")
    for kind, flag in (("fp32", "--onnx"), ("fp16", "--fp16"), ("int8", "--int8"), ("int8-cpu", "--int8-cpu")):
        create.add_argument(
            flag, action="append", default=[], metavar="MODEL=FILE", dest=kind, help=f"the {kind} file of a model"
        )
    create.add_argument(
        "--tflite",
        action="append",
        default=[],
        metavar="MODEL-WxH-PRECISION=FILE",
        help="a LiteRT file, one per input size",
    )
    create.add_argument("--sizes", default="320x192,416x256,640x384", metavar="WxH,...", help="input sizes")
    create.add_argument(
        "--data",
        metavar="SPLIT_DIR",
        help="measure every variant that runs here on these labelled "
        "photographs: its AP goes into the bundle, and one that loses too much does not",
    )
    create.add_argument(
        "--max-drop",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="with --data: points of two-class mAP50 that a variant may lose against its fp32 (default %(default)s)",
    )
    create.add_argument("--calibration", metavar="DIR", help="folder with <model>.json and <model>.cache")
    create.add_argument("--card", metavar="FILE", help="the MODEL_CARD.md to put in")
    create.add_argument(
        "--include-photos",
        metavar="SPLIT_DIR",
        help="put these labelled photographs in as eval/ (without it, no photograph is in a bundle)",
    )
    create.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="CLASS=ROLE",
        help="what a class means to who watches: ok, alert, attention or ignore; it sets colours and alarms",
    )
    create.add_argument("--name", default="facemask", help="the bundle's name (default: %(default)s)")
    create.add_argument("--default-variant", metavar="NAME")
    create.add_argument("--key", metavar="FILE", help="private key (PEM) to sign with")
    pack = verbs.add_parser("pack", help="make one tar file: the same bundle gives the same bytes")
    pack.add_argument("bundle", metavar="DIR")
    pack.add_argument("tar", metavar="FILE.tar")
    unpack = verbs.add_parser("unpack", help="unpack and check a tar file")
    unpack.add_argument("tar", metavar="FILE.tar")
    unpack.add_argument("folder", metavar="DIR")
    key = verbs.add_parser("key", help="make a key pair to sign bundles with")
    key.add_argument("file", metavar="FILE", help="the private key; the public one is FILE.pub")
    sign = verbs.add_parser("sign", help="sign a bundle")
    sign.add_argument("bundle", metavar="DIR")
    sign.add_argument("--key", required=True, metavar="FILE", help="private key (PEM)")
    verify = verbs.add_parser("verify", help="check a bundle, a folder or a tar file")
    install_cli.verify_options(verify)
    for each in (create, pack, unpack, sign):
        each.add_argument("--json", action="store_true", help="print the result as JSON")


def command(args: argparse.Namespace) -> int:
    """Run the chosen sub-verb."""
    if args.what == "verify":
        return install_cli.verify_command(args)
    if args.what == "key":
        public = writer.make_key(args.file)
        print(f"private key: {args.file} (keep it; nobody else may read it)\npublic key:  {public} (for the devices)")
        return 0
    if args.what == "create":
        digest, place = _create(args), args.folder
    elif args.what == "pack":
        if os.path.realpath(args.tar).startswith(os.path.realpath(args.bundle) + os.sep):
            raise UsageError("the tar file would be a part of the bundle that it packs", args.tar, "a place outside")
        manifest.verify(args.bundle)
        tarball.pack(args.bundle, args.tar)
        digest, place = writer.root_digest(args.bundle), args.tar
    elif args.what == "unpack":
        with replaced_folder(args.folder) as part:
            os.rmdir(part)
            tarball.extract(args.tar, part)
            manifest.verify(part)
        digest, place = writer.root_digest(args.folder), args.folder
    else:
        manifest.verify(args.bundle)
        writer.sign(args.bundle, args.key)
        digest, place = writer.root_digest(args.bundle), args.bundle
    print(json.dumps({"path": place, "digest": digest}) if args.json else f"{place}\nroot digest {digest}")
    return 0


def _pairs(values: list[str], flag: str) -> dict[str, str]:
    found = {}
    for value in values:
        name, equals, path = value.partition("=")
        example = "s-416x256-int8=runs/mine/s.tflite" if flag == "--tflite" else "s=runs/mine/s.onnx"
        if not equals or not name or not path or "/" in name or name.startswith("."):
            raise UsageError(f"{flag} {value}: not NAME=FILE", None, f"for instance {flag} {example}")
        if found.setdefault(name, path) != path:
            raise UsageError(f"{flag} names two files for {name}", None, "one file a model", "call one by another name")
    return found


def _wh(text: str) -> list[int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdecimal() and 32 <= int(p) <= 8192 and int(p) % 32 == 0 for p in parts):
        raise UsageError(f"{text!r} is not a size", None, "WIDTHxHEIGHT, multiples of 32, for instance 416x256")
    return [int(part) for part in parts]


def _create(args: argparse.Namespace) -> str:
    models: dict[str, dict[str, Any]] = {}
    for kind in writer.KINDS:
        for model, path in _pairs(getattr(args, kind), "--onnx" if kind == "fp32" else "--" + kind).items():
            models.setdefault(model, {})[kind] = path
    finite(args.max_drop)
    variants: list[dict] = []
    sizes = [_wh(size) for size in args.sizes.split(",") if size]
    for model, kinds in models.items():
        for wh in sizes:
            name = "{}-{}x{}-".format(model, *wh)
            if "fp32" in kinds:
                variants.append({"name": name + "fp32", "precision": "fp32", "runtimes": ["onnxruntime", "tensorrt"]})
                variants.append(
                    {
                        "name": name + "fp16",
                        "precision": "fp16",
                        "runtimes": ["tensorrt"],
                        "file": "models/" + writer.KINDS["fp32"].format(model),
                    }
                )
            if "fp16" in kinds:
                variants.append({"name": name + "fp16-typed", "precision": "fp16", "runtimes": ["onnxruntime"]})
            if "int8" in kinds:
                variants.append({"name": name + "int8", "precision": "int8", "runtimes": ["tensorrt"]})
            if "int8-cpu" in kinds:
                variants.append({"name": name + "int8-cpu", "precision": "int8-cpu", "runtimes": ["onnxruntime"]})
            for variant in variants:
                variant.setdefault("model", model)
                variant.setdefault("input_wh", wh)
    for name, path in _pairs(args.tflite, "--tflite").items():
        parts = name.rsplit("-", 2)
        if len(parts) != 3 or parts[2] not in manifest.PRECISIONS:
            raise UsageError(f"--tflite {name}: not MODEL-WxH-PRECISION", None, "for instance s-416x256-int8")
        width, height = _wh(parts[1])
        models.setdefault(parts[0], {}).setdefault("tflite", {})[(width, height, parts[2])] = path
        variants.append(
            {
                "name": name + "-litert",
                "model": parts[0],
                "input_wh": [width, height],
                "precision": parts[2],
                "runtimes": ["litert"],
            }
        )
    if not variants:
        raise UsageError("no model is given", None, "at least one --onnx MODEL=FILE", "see `jetmask bundle --help`")
    card = ""
    if args.card:
        try:
            with open(args.card, encoding="utf-8") as file:
                card = file.read()
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise BadInput(f"the model card cannot be read: {error}", args.card, "a text file in UTF-8") from None
    names = [variant["name"] for variant in variants]
    if args.default_variant and args.default_variant not in names:
        raise UsageError(
            f"no variant is called {args.default_variant!r}", "--default-variant", "one of " + ", ".join(names)
        )
    classes = writer.classes_of(models, args.role)
    # Told now, not after the last variant was measured.
    require_free(args.folder)
    if args.key:
        writer.private_key(args.key)
    if args.include_photos:
        average_precision.load_split(args.include_photos, classes.names)
    _count_macs(models, variants)
    calibration = _calibration(args.calibration, models) if args.calibration else {}
    failed = _measure(models, variants, args.data, args.max_drop, classes) if args.data else {}
    default = None if args.default_variant in failed else args.default_variant
    variants = [variant for variant in variants if variant["name"] not in failed]
    print(f"writing {len(variants)} variants ...", file=sys.stderr)
    digest = writer.write(
        args.folder,
        models,
        variants,
        calibration,
        card=card,
        name=args.name,
        default_variant=default,
        photos=args.include_photos,
        key=args.key,
        classes=classes,
    )
    if failed:
        raise QualityGate(
            "left out of the bundle: "
            + "; ".join(
                f"{name} {lost['difference']:+.2f} ({lost['low']:+.2f} to {lost['high']:+.2f})"
                for name, lost in failed.items()
            ),
            args.folder,
            f"at most {args.max_drop:g} points of two-class mAP50 lost against fp32",
            "make these again (jetmask build --precision auto), or allow more with --max-drop; the "
            "bundle holds the others",
        )
    return digest


def _calibration(folder: str, models: dict) -> dict[str, str]:
    """{file name: path} of the models' tables and caches; BadInput where one is none, or of another model.

    A device reads the table of a model whatever it builds, and would find out only then.
    """
    if not os.path.isdir(folder):
        raise BadInput("there is no such folder", folder, "a folder with <model>.json and <model>.cache")
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


def _count_macs(models: dict, variants: list[dict]) -> None:
    """Fill in the multiply-adds of every variant, from an ONNX file of its model at its size."""
    try:
        from pipeline.graphs import fusion, shapes
    except ModuleNotFoundError as error:
        print(f"MACs are not counted: the Python module {error.name} is not installed", file=sys.stderr)
        return
    counts: dict[tuple, int] = {}
    for variant in variants:
        kinds, size = models[variant["model"]], tuple(variant["input_wh"])
        path = next((kinds[kind] for kind in writer.KINDS if kind in kinds), None)
        if path and (path, size) not in counts:
            counts[path, size] = sum(layer.macs for layer in fusion.layers(shapes.read(path, size)))
        variant["macs"] = counts.get((path, size), 0)


def _measure(models: dict, variants: list[dict], data: str, max_drop: float, classes: Classes) -> dict[str, dict]:
    """Fill in the AP of every variant that runs here; {name: its loss} of those that lose more than max_drop points."""
    from pipeline.bundle.variants import NO_GPU, ap_entries, lost_too_much, measure, stderr

    split = os.path.basename(os.path.abspath(data))
    if not average_precision.has_scored(average_precision.load_split(data, classes.names), classes.names):
        raise BadInput("there is nothing labelled to measure AP on", data, "boxes of a class that the figure counts")
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
