"""How much of the cores' rate `jetmask detect` keeps over a folder of photographs.

    python -m benchmarks.detect --data DIR [--photos 500] [--write]

The bare engine runs on one thread; its rate times the number of cores is the limit. In turns with it, three times each,
the command as a process of its own: with drawn pictures written, and with data alone. Reading, decoding, drawing,
writing and the start of the processes are in its time (`detect_per_s`); `command_per_s` has the start of Python too.
`share_of_cores` is the median of the turns' shares; where other work takes the cores (`load`), it says little.
`engine_share_of_cpu` is what the engine alone would have taken of the CPU time of the command, all processes and their
start in it: what else runs changes it little. Rows replace benchmarks/results/detect.csv.
"""

import argparse
import contextlib
import csv
import ctypes
import io
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import describe
from jetson import files
from jetson.bundle import manifest
from jetson.inference.detector import open_detector
from pipeline.detect import inputs
from pipeline.evaluation.evaluate import most_accurate
from pipeline.paths import SHIPPED

OUT = Path(__file__).parent / "results" / "detect.csv"
FIELDS = (
    "variant",
    "what",
    "photographs",
    "jobs",
    "engine_per_s",
    "detect_per_s",
    "command_per_s",
    "share_of_cores",
    "engine_share_of_cpu",
    "model_sha256",
    "commit",
    "date",
    "machine",
    "load",
)
TURNS = 3


class Engine(NamedTuple):
    """The bare engine on one thread: inferences a second, and CPU seconds of one."""

    per_s: float
    cpu_s: float


class Detect(NamedTuple):
    """`jetmask detect`: photographs a second by its own clock and with the start of Python, CPU seconds of one."""

    per_s: float
    command_per_s: float
    cpu_s: float


def engine_rate(variant: str, seconds: float) -> Engine:
    """Measure the bare engine for so long."""
    with open_detector(SHIPPED, variant, "onnxruntime") as detector:
        detector.infer()
        started, cpu, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - started < seconds:
            detector.infer()
            count += 1
        return Engine(count / (time.perf_counter() - started), (time.process_time() - cpu) / count)


def detect_rates(variant: str, folder: str, jobs: int, pictures: bool) -> Detect:
    """Measure the command."""
    out = tempfile.mkdtemp()
    words = ["detect", folder, "--out", out, "--variant", variant, "--runtime", "onnxruntime", "--jobs", str(jobs)]
    try:
        started, cpu = time.perf_counter(), cpu_of_children()
        done = subprocess.run(
            [sys.executable, "-m", "jetmask", *words, "--json", *([] if pictures else ["--no-pictures"])],
            capture_output=True,
            check=True,
        )
        wall = time.perf_counter() - started
        told = json.loads(done.stdout)
        count = told["photographs"]
        return Detect(count / told["seconds"], count / wall, (cpu_of_children() - cpu) / count)
    finally:
        shutil.rmtree(out)


def cpu_of_children() -> float:
    """CPU seconds of all processes that began below this one, once all have ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def photographs(data: Path, count: int, folder: str) -> None:
    """So many photographs in `folder`, some of them twice where there are fewer."""
    found = inputs.find([str(data / split / "images") for split in ("test", "val", "train")], folder)
    for number, item in enumerate(itertools.islice(itertools.cycle(found), count)):
        os.symlink(item.path, os.path.join(folder, f"{number:05d}-{os.path.basename(item.path)}"))


def main() -> int:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--variant", help="default: what `jetmask detect` takes, the most accurate")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    contents = manifest.load(SHIPPED)
    variant = contents.variant(args.variant) if args.variant else most_accurate(contents, "onnxruntime")[0]
    jobs, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: processes whose parent has ended come here
    engine: list[Engine] = []
    turns: dict[str, list[tuple[Detect, float, float]]] = {"with pictures": [], "data alone": []}
    with tempfile.TemporaryDirectory() as folder:
        photographs(args.data, args.photos, folder)
        for turn in range(TURNS):
            engine.append(engine_rate(variant.name, 5.0))
            for what, values in turns.items():
                done = detect_rates(variant.name, folder, jobs, what == "with pictures")
                engine.append(engine_rate(variant.name, 5.0))
                # The engine before and after: what else the machine does changes meanwhile.
                cores = done.per_s / (jobs * (engine[-2].per_s + engine[-1].per_s) / 2)
                cpu = (engine[-2].cpu_s + engine[-1].cpu_s) / 2 / done.cpu_s
                values.append((done, cores, cpu))
                shares = f"{cores:.2f} of the cores, {cpu:.2f} of the CPU time"
                print(f"{turn} {what}: {done.per_s:.1f} a second, {shares}", file=sys.stderr)
    rows = [
        {
            "variant": variant.name,
            "what": what,
            "photographs": args.photos,
            "jobs": jobs,
            "engine_per_s": f"{statistics.median(one.per_s for one in engine):.1f}",
            "detect_per_s": f"{statistics.median(value[0].per_s for value in values):.1f}",
            "command_per_s": f"{statistics.median(value[0].command_per_s for value in values):.1f}",
            "share_of_cores": f"{statistics.median(value[1] for value in values):.2f}",
            "engine_share_of_cpu": f"{statistics.median(value[2] for value in values):.2f}",
            "model_sha256": variant.sha256[:16],
            "commit": os.popen("git rev-parse --short HEAD").read().strip(),
            "date": date.today().isoformat(),
            "machine": describe("onnxruntime"),
            "load": f"{load:.1f}",
        }
        for what, values in turns.items()
    ]
    handle = io.StringIO()
    writer = csv.DictWriter(handle, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    print(handle.getvalue(), end="")
    if args.write:
        files.write_text(str(OUT), handle.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
