"""`jetmask detect`: faces on photographs and videos of one's own, as pictures and as data."""

import argparse
import json
import os
import shutil
import sys

from jetson.bundle import manifest
from jetson.bundle.manifest import RUNTIMES
from jetson.engine import available
from jetson.errors import BadInput, UsageError
from pipeline.cluster import Cluster
from pipeline.detect import detect, inputs, processes, results
from pipeline.detect.worker import Settings
from pipeline.evaluation.evaluate import most_accurate, require_engine
from pipeline.paths import SHIPPED


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `jetmask detect`."""
    parser.epilog = (
        "examples: jetmask detect photos --out runs/found\n"
        "          jetmask detect 'photos/**/*.jpg' clip.mp4 --out runs/found --crops --save-txt\n"
        "Run it again after an interruption: what is done is kept."
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="photographs, videos, folders, or quoted patterns")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder for the results")
    parser.add_argument("--bundle", metavar="DIR", default=SHIPPED, help="default: the one that ships with jetmask")
    parser.add_argument("--variant", metavar="NAME", help="default: the most accurate that runs here")
    parser.add_argument(
        "--runtime", choices=RUNTIMES, help="runtime (default: the variant's first one that is installed)"
    )
    parser.add_argument("--score", type=float, metavar="S", help="show faces from this score (default: the bundle's)")
    parser.add_argument("--save-txt", action="store_true", help="write labels/*.txt too, as YOLO has them, with scores")
    parser.add_argument("--save-json", action="store_true", help="write detections.coco.json too")
    parser.add_argument("--crops", action="store_true", help="write each face as a picture of its own too")
    parser.add_argument("--blur", action="store_true", help="make the faces unrecognisable in what is written")
    parser.add_argument("--no-pictures", action="store_true", help="write data alone, no pictures and videos")
    parser.add_argument("--restart", action="store_true", help="remove what the folder has of an earlier run")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--ray", metavar="ADDRESS", help="spread over a Ray cluster (local: one on this machine)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def command(args: argparse.Namespace) -> int:
    """Detect, and print what was found."""
    if args.score is not None and not 0 < args.score < 1:
        raise UsageError(f"--score {args.score:g} is not a score", None, "a number between 0 and 1")
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"--jobs {args.jobs} is not a number of processes", None, "1 or more")
    if args.jobs != 1 and not args.ray:
        processes.prepare()
    contents = manifest.load(args.bundle)
    if args.variant is None:
        variant, runtime = most_accurate(contents, args.runtime)
    else:
        require_engine(contents, args.variant)
        variant = contents.variant(args.variant)
        here = [name for name in variant.runtimes if available()[name] is None]
        if args.runtime not in (None, *here):
            raise UsageError(
                f"variant {variant.name} does not run on {args.runtime} here", None, "one of " + ", ".join(here)
            )
        runtime = args.runtime or here[0]
    settings = Settings(
        os.path.abspath(args.bundle),
        variant.name,
        runtime,
        args.out,
        args.score,
        pictures=not args.no_pictures,
        txt=args.save_txt,
        crops=args.crops,
        blur=args.blur,
    )
    items = inputs.find(args.paths, args.out)
    if args.restart:
        _clear(args.out)
    # One engine fills a GPU; further processes would only take its memory.
    jobs = args.jobs or (1 if runtime == "tensorrt" else os.cpu_count() or 1)
    cluster = Cluster(args.ray, args.jobs) if args.ray else None
    said = f"{len(items)} files, {variant.name} on {runtime}"
    print(said + (f", {jobs} processes" if cluster is None else f", Ray at {args.ray}"), file=sys.stderr)
    try:
        summary = detect.run(items, settings, jobs, cluster, detect.progress, args.save_json)
    finally:
        if cluster is not None:
            cluster.close()
        if sys.stderr.isatty():
            print(file=sys.stderr)
    if args.json:
        print(json.dumps({"out": args.out, "variant": variant.name, "runtime": runtime, **summary._asdict()}))
    else:
        _tell(summary, args.out)
    if summary.failed and not (summary.photographs or summary.videos):
        raise BadInput("none of the files could be read", next(iter(summary.failed)), "photographs or videos")
    return 0


def _tell(summary: detect.Summary, out: str) -> None:
    for name, why in [*summary.failed.items(), *summary.warnings.items()]:
        print(f"{name}: {why}", file=sys.stderr)
    done = [f"{summary.photographs} photographs"] if summary.photographs or not summary.videos else []
    if summary.videos:
        done.append(f"{summary.videos} videos ({summary.frames} frames)")
    if summary.failed:
        done.append(f"{len(summary.failed)} could not be read")
    before = f", {summary.skipped} of them before" if summary.skipped else ""
    print(f"{', '.join(done)}{before}, in {summary.seconds:.1f} s")
    print("faces: " + (", ".join(f"{count} {name}" for name, count in summary.faces.items()) or "none"))
    print(f"results: {os.path.join(out, results.LINES)}")


def _clear(out: str) -> None:
    """Remove an earlier run's results, and nothing else that the folder holds."""
    if not os.path.exists(os.path.join(out, results.SETTINGS)):
        return
    for name in results.FOLDERS:
        shutil.rmtree(os.path.join(out, name), ignore_errors=True)
    for name in (results.LINES, "detections.coco.json", results.SETTINGS):
        if os.path.exists(os.path.join(out, name)):
            os.unlink(os.path.join(out, name))
