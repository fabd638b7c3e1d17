"""`jetmask bundle`: write, pack, unpack, sign and check bundles."""

import argparse
import json
import os

from jetson.bundle import manifest, tarball
from jetson.errors import UsageError
from jetson.install import cli as install
from pipeline.bundle import writer
from pipeline.bundle.create import Settings, create
from pipeline.paths import replaced_folder

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
    new = verbs.add_parser("create", help="write a bundle from model files")
    new.add_argument("folder", metavar="DIR", help="the folder to write the bundle to")
    for kind, flag in (("fp32", "--onnx"), ("fp16", "--fp16"), ("int8", "--int8"), ("int8-cpu", "--int8-cpu")):
        new.add_argument(
            flag, action="append", default=[], metavar="MODEL=FILE", dest=kind, help=f"the {kind} file of a model"
        )
    new.add_argument(
        "--tflite",
        action="append",
        default=[],
        metavar="MODEL-WxH-PRECISION=FILE",
        help="a LiteRT file, one per input size",
    )
    new.add_argument("--sizes", default="320x192,416x256,640x384", metavar="WxH,...", help="input sizes")
    new.add_argument(
        "--data",
        metavar="SPLIT_DIR",
        help="measure every variant that runs here on these labelled "
        "photographs: its AP is written to the bundle, and variants that lose too much accuracy are left out",
    )
    new.add_argument(
        "--max-drop",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="with --data: points of two-class mAP50 that a variant may lose against its fp32 (default %(default)s)",
    )
    new.add_argument("--calibration", metavar="DIR", help="folder with <model>.json and <model>.cache")
    new.add_argument("--card", metavar="FILE", help="the MODEL_CARD.md to put in")
    new.add_argument(
        "--include-photos",
        metavar="SPLIT_DIR",
        help="put these labelled photographs in as eval/ (without it, no photograph is in a bundle)",
    )
    new.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="CLASS=ROLE",
        help="the role of a class: ok, alert, attention or ignore; it sets colours and alarms",
    )
    new.add_argument("--name", default="facemask", help="the bundle's name (default: %(default)s)")
    new.add_argument("--default-variant", metavar="NAME")
    new.add_argument("--key", metavar="FILE", help="private key (PEM) to sign with")
    pack = verbs.add_parser(
        "pack", help="pack a bundle into one reproducible tar file: the same bundle gives the same bytes"
    )
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
    install.verify_options(verify)
    for each in (new, pack, unpack, sign):
        each.add_argument("--json", action="store_true", help="print the result as JSON")


def command(args: argparse.Namespace) -> int:
    """Run the chosen sub-verb."""
    if args.what == "verify":
        return install.verify_command(args)
    if args.what == "key":
        public = writer.make_key(args.file)
        print(f"private key: {args.file} (keep it secret)\npublic key:  {public} (for the devices)")
        return 0
    if args.what == "create":
        digest, place = create(_settings(args)), args.folder
    elif args.what == "pack":
        if os.path.realpath(args.tar).startswith(os.path.realpath(args.bundle) + os.sep):
            raise UsageError("the tar file would lie inside the bundle that it packs", args.tar, "a place outside")
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
    found: dict[str, str] = {}
    for value in values:
        name, equals, path = value.partition("=")
        example = "s-416x256-int8=runs/mine/s.tflite" if flag == "--tflite" else "s=runs/mine/s.onnx"
        if not equals or not name or not path or "/" in name or name.startswith("."):
            raise UsageError(f"{flag} {value}: not NAME=FILE", None, f"for instance {flag} {example}")
        if found.setdefault(name, path) != path:
            raise UsageError(f"{flag} names two files for {name}", None, "one file per model", "rename one of them")
    return found


def _wh(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdecimal() and 32 <= int(p) <= 8192 and int(p) % 32 == 0 for p in parts):
        raise UsageError(f"{text!r} is not a size", None, "WIDTHxHEIGHT, multiples of 32, for instance 416x256")
    return int(parts[0]), int(parts[1])


def _sized(text: str) -> tuple[str, int, int, str]:
    """MODEL-WxH-PRECISION as (model, width, height, precision)."""
    parts = text.rsplit("-", 2)
    if len(parts) != 3 or parts[2] not in manifest.PRECISIONS:
        raise UsageError(f"--tflite {text}: not MODEL-WxH-PRECISION", None, "for instance s-416x256-int8")
    return parts[0], *_wh(parts[1]), parts[2]


def _settings(args: argparse.Namespace) -> Settings:
    """What `create` was asked for."""
    flags = {kind: "--onnx" if kind == "fp32" else "--" + kind for kind in writer.KINDS}
    return Settings(
        folder=args.folder,
        onnx={kind: _pairs(getattr(args, kind), flag) for kind, flag in flags.items()},
        tflite={_sized(name): path for name, path in _pairs(args.tflite, "--tflite").items()},
        sizes=tuple(_wh(size) for size in args.sizes.split(",") if size),
        data=args.data,
        max_drop=args.max_drop,
        calibration=args.calibration,
        card=args.card,
        photos=args.include_photos,
        roles=tuple(args.role),
        name=args.name,
        default_variant=args.default_variant,
        key=args.key,
    )
