"""`jetmask train`: train or fine-tune the detector."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from jetson.cli import add_meanings
from pipeline import config as configuration


class Settings(NamedTuple):
    """What was asked for. `config`: a YAML file or preset, None for the defaults; `overrides`: key=value."""

    config: str | None
    overrides: tuple[str, ...]
    data: str | None
    out: Path
    resume: bool
    json: bool


def options(parser: Any) -> None:
    """The arguments of `jetmask train`."""
    presets = ", ".join(sorted(path.stem for path in configuration.PRESETS.glob("*.yaml")))
    parser.epilog = "example: jetmask train s --data data/facemask --set train.epochs=5 --out runs/s"
    add_meanings(parser, configuration.option_meanings())
    parser.add_argument("config", nargs="?", help="YAML file, or preset: " + presets)
    parser.add_argument("--data", help="folder with the split folders (default: data.root, then JETMASK_DATA)")
    parser.add_argument("--out", default="runs/train", help="run folder")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where a stopped run in --out was, by its own config where none is named",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one config key")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def command(args: Any) -> None:
    """Train, and say what came of it."""
    run(Settings(args.config, tuple(args.set), args.data, Path(args.out), args.resume, args.json))


def run(settings: Settings) -> None:
    """Train as the settings say."""
    from pipeline.training.train import fit  # TensorFlow with it: --help need not wait for that

    own = settings.out / "config.json"
    start = configuration.load(own) if settings.resume and not settings.config and own.exists() else None
    config = configuration.load(settings.config, settings.overrides, start)
    if settings.data:
        config.data.root = settings.data
    result = fit(config, settings.out, resume=settings.resume, progress=1)
    if settings.json:
        print(json.dumps(result))
    else:
        print(
            f"val mAP50 {result['map50']:.1f} (two-class, epoch {result['best_epoch']} of {result['epochs']})\n"
            f"model     {result['best']}"
        )
