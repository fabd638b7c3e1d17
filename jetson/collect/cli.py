"""The verb `collect`: frames of a camera as photographs to be labelled, for a detector that knows this place."""

import argparse
import json
import logging
import os
import signal
import sys
from typing import Any, List, Optional

import jetson
from jetson import doctor
from jetson.bundle import manifest
from jetson.capture import source
from jetson.capture.check import check
from jetson.collect.collector import Collector, Settings
from jetson.engine import available
from jetson.errors import DeviceMismatch, UsageError
from jetson.inference.detector import Detector, open_detector

log = logging.getLogger(__name__)

SHIPPED = os.path.join(os.path.dirname(os.path.abspath(jetson.__file__)), "models")


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python3 -m jetson collect`."""
    add = parser.add_argument
    add(
        "--source", action="append", required=True, metavar="URI", help=source.EXAMPLES + "; may be given several times"
    )
    add("--out", required=True, metavar="DIR", help="the folder for the photographs; existing ones are kept")
    add("--every", type=float, default=2.0, metavar="S", help="seconds between two saved frames (default 2)")
    add("--limit", type=float, default=500.0, metavar="MB", help="end at so many megabytes in the folder (default 500)")
    add("--count", type=int, default=0, metavar="N", help="end after so many photographs (default: no end)")
    add(
        "--only",
        action="append",
        default=[],
        choices=("unsure", "disagree"),
        help="keep only frames that the detector is unsure about, or that two variants disagree on; may be given twice",
    )
    add("--blur-faces", action="store_true", help="make faces unrecognisable in what is kept")
    add(
        "--bundle",
        metavar="DIR",
        help="the detector for --only and --blur-faces (default: the one installed here, else the one that ships)",
    )
    add("--variant", metavar="NAME", help="its variant (default: the bundle's default)")
    add("--against", metavar="NAME", help="the variant to compare with (default: the largest other that runs here)")
    add("--runtime", metavar="R", help="tensorrt, onnxruntime or litert (default: the first that is installed)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads of one inference (default 1)")
    add("--size", metavar="WxH", help="frame size to ask a camera for (default: its own, or 640x480)")
    add("--json", action="store_true", help="print the result as JSON")
    parser.epilog = (
        "Photographs of people are kept in DIR, readable by you alone; nothing leaves the device.\n"
        "example: python3 -m jetson collect --source csi://0 --every 2 --out collected --only unsure"
    )


def command(args: argparse.Namespace) -> int:
    """Collect until the limit, the end of the source, or SIGINT or SIGTERM; 0 then."""
    if not 0.05 <= args.every <= 86400:
        raise UsageError(f"--every {args.every:g}", "--every", "seconds, 0.05 to 86400")
    if not 1 <= args.limit <= 1e6:
        raise UsageError(f"--limit {args.limit:g}", "--limit", "megabytes, 1 to 1000000")
    if args.count < 0 or not 1 <= args.threads <= 64:
        raise UsageError("--count or --threads is out of range", None, "0 or more; 1 to 64")
    size = source.parse_size(args.size) if args.size else None
    addresses: List[str] = []
    for uri in args.source:
        addresses += source.read_list(uri) if source.is_list(uri) else [uri]
    where = [source.parse(uri, size, loop=False) for uri in addresses]
    for one in where:
        check(one)
    bundle = args.bundle or _installed()
    needed = bool(args.only or args.blur_faces)
    score = float(manifest.load(bundle).decode["score"]) if needed else 0.4
    settings = Settings(
        where, args.out, args.every, int(args.limit * 1e6), tuple(args.only), args.blur_faces, args.count, score
    )
    detectors = _detectors(bundle, args.variant, args.against, args.runtime, args.threads, settings)
    try:
        collector = Collector(settings, detectors, log.info)
        _tell(settings)
        return _run(collector, args.json, args.out)
    finally:
        for detector in detectors:
            detector.close()


def _installed() -> str:
    """The bundle that runs on this device; the shipped one where none is installed (a device has no other)."""
    current = os.path.join(doctor.state_folder(), "current")
    return current if os.path.isdir(current) else SHIPPED


def _detectors(
    bundle: str, name: Optional[str], against: Optional[str], runtime: Optional[str], threads: int, settings: Settings
) -> List[Detector]:
    """The detectors that the settings need, open: none, one, or two to compare."""
    if not settings.only and not settings.blur:
        return []
    contents = manifest.load(bundle)
    chosen = [contents.variant(name)]
    if "disagree" in settings.only:
        chosen.append(contents.variant(against) if against else _largest_other(contents, chosen[0], runtime))
    found: List[Detector] = []
    try:
        for variant in chosen:
            found.append(open_detector(bundle, variant.name, runtime, threads))
    except BaseException:
        for detector in found:
            detector.close()
        raise
    return found


def _largest_other(contents: manifest.Manifest, first: Any, runtime: Optional[str]) -> Any:
    reasons = available()
    others = [
        variant
        for variant in contents.variants
        if variant.name != first.name
        and any(reasons[name] is None and runtime in (None, name) for name in variant.runtimes)
    ]
    if not others:
        raise DeviceMismatch("no second variant runs on this machine", first.name, "two variants to compare")
    return max(others, key=lambda variant: variant.macs)


def _tell(settings: Settings) -> None:
    kept = "every frame that is saved" if not settings.only else " or ".join(settings.only) + " frames"
    faces = "faces blurred" if settings.blur else "faces as they are (--blur-faces makes them unrecognisable)"
    print(
        f"keeping {kept}, one every {settings.every_s:g} s, up to {settings.limit_bytes / 1e6:g} MB, {faces}, in "
        f"{settings.out}; Ctrl-C ends it",
        file=sys.stderr,
        flush=True,
    )


def _run(collector: Collector, as_json: bool, out: str) -> int:
    before = {number: signal.signal(number, lambda *_: collector.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        outcome = collector.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if as_json:
        print(json.dumps({"out": out, **outcome._asdict()}))
    else:
        print(
            f"{outcome.ended}: kept {outcome.kept} of {outcome.looked_at} frames; {out} holds "
            f"{outcome.folder_bytes / 1e6:.1f} MB"
        )
    return 0
