"""The verb `build`: its options and its table; what is built is in jetson.engine.build."""

import argparse
import json
from typing import Any, Dict, List, NamedTuple, Optional

from jetson import cli
from jetson.bundle import manifest
from jetson.engine import cache, int8
from jetson.engine.build import TIMEOUT_S, WORKSPACE_BYTES, build_all
from jetson.errors import DeviceMismatch, UsageError

INT8_HELP = (
    "INT8 also on a GPU without INT8 arithmetic, such as a Nano's: calibrated from the float32 file, to see it measured"
)


class Settings(NamedTuple):
    """What to build. `variant` None: all for TensorRT. `int8_anyway`: INT8 on a GPU without INT8 arithmetic too."""

    bundle: str
    variant: Optional[str] = None
    engines: Optional[str] = None
    workspace_bytes: int = WORKSPACE_BYTES
    calibration_images: Optional[str] = None
    timeout_s: float = TIMEOUT_S
    force: bool = False
    int8_anyway: bool = False


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `python3 -m jetson build`."""
    parser.add_argument("bundle", help="the bundle's folder")
    parser.add_argument("--variant", help="build only this one (default: all TensorRT variants this machine can run)")
    parser.add_argument("--engines", help="the engine cache (default: $JETMASK_ENGINES or ~/.cache/jetmask/engines)")
    parser.add_argument(
        "--workspace-mb", type=int, default=WORKSPACE_BYTES >> 20, help="the builder's workspace (default 256)"
    )
    parser.add_argument(
        "--calibration-images",
        metavar="FOLDER",
        help="calibrate INT8 with images from FOLDER, which must hold every file of the bundle's calibration list",
    )
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="S", help="stop a build after S seconds")
    parser.add_argument("--force", action="store_true", help="build again even if the cache has the engine")
    parser.add_argument("--int8-anyway", action="store_true", help=int8.HELP)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.epilog = "example: python3 -m jetson build /opt/jetmask/bundle --variant s-416x256-fp16"


def command(args: argparse.Namespace) -> int:
    """Build the engines and print a table."""
    if args.workspace_mb < 1:
        raise UsageError(f"--workspace-mb is {args.workspace_mb}", None, "at least 1")
    settings = Settings(
        args.bundle,
        args.variant,
        args.engines,
        args.workspace_mb << 20,
        args.calibration_images,
        args.timeout,
        args.force,
        args.int8_anyway,
    )
    rows = build(settings)
    print(json.dumps({"engines": rows}, indent=1) if args.json else table(rows))
    if not any("path" in row for row in rows):
        raise DeviceMismatch(
            "no engine could be built",
            settings.bundle,
            "a variant that this machine can run",
            "; ".join(f"{row['variant']}: {row['reason']}" for row in rows)
            or "use the onnxruntime variants: this bundle has none for TensorRT",
        )
    return 0


def build(settings: Settings) -> List[Dict[str, Any]]:
    """Build what is asked for; rows as of jetson.engine.build.build_all."""
    if settings.int8_anyway:
        int8.ask_anyway()
    contents = manifest.load(settings.bundle)
    if settings.variant:
        chosen = [contents.variant(settings.variant)]
    else:
        chosen = [variant for variant in contents.variants if "tensorrt" in variant.runtimes]
    return build_all(
        contents,
        chosen,
        settings.engines or cache.default_folder(),
        settings.workspace_bytes,
        settings.calibration_images,
        settings.force,
        settings.timeout_s,
        strict=bool(settings.variant),
    )


def table(rows: List[Dict[str, Any]]) -> str:
    """The rows of `build` as text, and under it what must be said beside them."""
    text = cli.table(
        ["variant", "precision", "bytes", "build s", "engine"],
        [
            [
                row["variant"],
                row["precision"],
                row.get("bytes", "-"),
                "-" if "reason" in row else "cached" if row["cached"] else row["seconds"],
                row.get("path") or "not built: " + row["reason"],
            ]
            for row in rows
        ],
    )
    notes = sorted({f"- {row['variant']}: {row['note']}" for row in rows if row.get("note")})
    return "\n".join([text] + notes)
