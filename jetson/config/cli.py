"""The verb `config`: check a configuration, write a new one with comments, turn YAML into JSON for a device."""

import argparse
import json
import os
import sys
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from jetson import files
from jetson.capture import source
from jetson.capture.address import Credentials, names_in, shown
from jetson.cli import table
from jetson.config import document, schema, settings, template
from jetson.errors import BadInput, JetmaskError, UsageError

DEFAULT = "jetmask.yaml"


class New(NamedTuple):
    """What `config new` was asked for. `cameras`: (name, address); `ask`: whether somebody is there to be asked."""

    path: str
    cameras: Sequence[Tuple[str, str]]
    force: bool
    ask: bool


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python3 -m jetson config`."""
    parts = parser.add_subparsers(dest="part", metavar="PART", required=False)
    check = parts.add_parser("check", help="say whether a file is right, and which line is not")
    check.add_argument("file", nargs="?", default=DEFAULT, metavar="FILE", help="default: %(default)s")
    check.add_argument("--json", action="store_true", help="print the result as JSON")
    new = parts.add_parser("new", help="write a file with comments; on a terminal, ask for the cameras")
    new.add_argument("file", nargs="?", default=DEFAULT, metavar="FILE", help="default: %(default)s; -: print it")
    new.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="NAME=ADDRESS",
        help="a camera; may be given several times: --camera door=rtsp://{door}@10.0.0.20/stream1",
    )
    new.add_argument("--force", action="store_true", help="write over a file that is there")
    parts.add_parser("schema", help="print the JSON Schema, by which editors complete and check the file")
    as_json = parts.add_parser("json", help="print a file as JSON, for a device without PyYAML")
    as_json.add_argument("file", nargs="?", default=DEFAULT, metavar="FILE", help="default: %(default)s")
    parser.epilog = f"examples:\n  {parser.prog} new --camera door=csi://0\n  {parser.prog} check jetmask.yaml"


def command(args: argparse.Namespace) -> int:
    """Check, write or convert."""
    if args.part == "check":
        return _check(args.file, args.json)
    if args.part == "new":
        there = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
        return _new(New(args.file, [_camera(text) for text in args.camera], args.force, there and not args.camera))
    if args.part == "json":
        found = settings.read(args.file)
        print(document.as_json(found.document.data), end="")
        return 0
    if args.part == "schema":
        print(json.dumps(schema.load(), indent=1))
        return 0
    raise UsageError("config what?", None, "check, new, json or schema", "python3 -m jetson config check jetmask.yaml")


def _check(path: str, as_json: bool) -> int:
    found = settings.read(path)
    notes = list(found.warnings) + missing_credentials(found)
    if as_json:
        cameras = {one.name: {"source": shown(one.source), "fps": one.fps} for one in found.cameras}
        print(json.dumps({"ok": True, "cameras": cameras, "warnings": notes}, indent=1))
        return 0
    rows = [
        [
            one.name,
            shown(one.source),
            "{}x{}".format(*one.size) if one.size else "-",
            f"{one.fps:g}" if one.fps else "-",
            sum(zone.kind == "line" for zone in one.zones),
            sum(zone.kind == "polygon" for zone in one.zones),
        ]
        for one in found.cameras
    ]
    print(table(["camera", "source", "size", "frames/s", "lines", "zones"], rows))
    for text in notes:
        print("warning: " + text, file=sys.stderr)
    print(f"{path} is right: {len(found.cameras)} camera{'s' if len(found.cameras) != 1 else ''}")
    return 0


def missing_credentials(found: settings.Settings) -> List[str]:
    """Which credentials are named and not here; on another machine they may be."""
    notes = []
    try:
        known: Optional[Credentials] = Credentials(found.credentials)
    except BadInput as error:
        known = None
        notes.append(f"{error.what} ({error.where})")
    for one in found.cameras:
        for name in names_in(one.source):
            try:
                if known is not None:
                    known.pair(name)
            except BadInput:
                where = found.where("cameras", one.name, "source")
                notes.append(f"there are no credentials called {name} here, which {where} names")
    return notes


def _camera(text: str) -> Tuple[str, str]:
    name, mark, address = text.partition("=")
    if not mark or not name.strip() or not address.strip():
        raise UsageError(f"not a camera: {shown(text)}", "--camera", "NAME=ADDRESS, as door=csi://0")
    return name.strip(), address.strip()


def _new(wanted: New) -> int:
    if wanted.path != "-" and os.path.exists(wanted.path) and not wanted.force:
        raise UsageError(f"{wanted.path} is there already", None, "a new file", "--force writes over it")
    if not document.is_yaml(wanted.path):
        raise UsageError("JSON has no comments", wanted.path, "a name that ends in .yaml", "config json converts it")
    cameras = list(wanted.cameras) or (ask(_answer) if wanted.ask else [("camera", "csi://0")])
    text = template.text(cameras)
    settings.settings_of(document.parse(text.encode("utf-8"), wanted.path))  # a name or an address may be none
    if wanted.path == "-":
        print(text, end="")
        return 0
    files.write_text(wanted.path, text)
    print(f"{wanted.path} is written; python3 -m jetson config check {wanted.path} says whether it is still right")
    return 0


def _answer(question: str) -> str:
    print(question, end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def ask(answer: Callable[[str], str]) -> List[Tuple[str, str]]:
    """The cameras that somebody names; `answer(question)`: what he says, "" for enough."""
    print(f"An address is one of {source.EXAMPLES}.", file=sys.stderr)
    found: List[Tuple[str, str]] = []
    while True:
        name = answer(f"Name of camera {len(found) + 1} (empty: that was all):")
        if not name:
            return found or [("camera", "csi://0")]
        address = answer("Its address:")
        try:
            trial = template.text(found + [(name, address)])
            settings.settings_of(document.parse(trial.encode("utf-8"), "the answers"))
        except JetmaskError as error:
            print(f"{error.what}; expected {error.expected}", file=sys.stderr)
            continue
        found.append((name, address))
