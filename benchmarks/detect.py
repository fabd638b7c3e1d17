"""How much of the cores' rate `jetmask detect` keeps over a folder of photographs.

    python -m benchmarks.detect --data DIR [--photos 500] [--write]

The bare engine runs on one thread; its rate times the number of cores is the limit. In turns with it, three times each,
the command as a process of its own: with drawn pictures written, and with data alone. Reading, decoding, drawing,
writing and the start of the processes are in its time (`detect_per_s`); `command_per_s` has the start of Python too.
`share_of_cores` is the median of the turns' shares. Rows replace benchmarks/results/detect.csv.
"""

import argparse
import csv
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

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
    "model_sha256",
    "commit",
    "date",
    "machine",
    "load",
)
TURNS = 3


def engine_rate(variant: str, seconds: float) -> float:
    """Inferences a second of the bare engine on one thread."""
    with open_detector(SHIPPED, variant, "onnxruntime") as detector:
        detector.infer()
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            detector.infer()
            count += 1
        return count / (time.perf_counter() - started)


def detect_rates(variant: str, folder: str, jobs: int, pictures: bool) -> tuple[float, float]:
    """Photographs a second of `jetmask detect`: by its own clock, and with the start of Python."""
    out = tempfile.mkdtemp()
    words = ["detect", folder, "--out", out, "--variant", variant, "--runtime", "onnxruntime", "--jobs", str(jobs)]
    try:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "jetmask", *words, "--json", *([] if pictures else ["--no-pictures"])],
            capture_output=True,
            check=True,
        )
        wall = time.perf_counter() - started
        told = json.loads(done.stdout)
        return told["photographs"] / told["seconds"], told["photographs"] / wall
    finally:
        shutil.rmtree(out)


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
    engine: list[float] = []
    turns: dict[str, list[tuple[float, float, float]]] = {"with pictures": [], "data alone": []}
    with tempfile.TemporaryDirectory() as folder:
        photographs(args.data, args.photos, folder)
        for turn in range(TURNS):
            engine.append(engine_rate(variant.name, 5.0))
            for what, values in turns.items():
                rate, command = detect_rates(variant.name, folder, jobs, what == "with pictures")
                engine.append(engine_rate(variant.name, 5.0))
                # The engine before and after: what else the machine does changes meanwhile.
                values.append((rate, command, rate / (jobs * (engine[-2] + engine[-1]) / 2)))
                print(f"{turn} {what}: {rate:.1f} a second, {values[-1][2]:.2f} of the cores", file=sys.stderr)
    rows = [
        {
            "variant": variant.name,
            "what": what,
            "photographs": args.photos,
            "jobs": jobs,
            "engine_per_s": f"{statistics.median(engine):.1f}",
            "detect_per_s": f"{statistics.median(value[0] for value in values):.1f}",
            "command_per_s": f"{statistics.median(value[1] for value in values):.1f}",
            "share_of_cores": f"{statistics.median(value[2] for value in values):.2f}",
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
