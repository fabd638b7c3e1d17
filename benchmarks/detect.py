"""How much of the cores' rate `jetmask detect` keeps over a folder of photographs.

    python -m benchmarks.detect --data DIR [--photos 500] [--write]

The bare engine runs the same number of times on one thread; its rate times the number of cores is the limit. In turns
with it, three times each: detection with drawn pictures written, and with data alone. Reading, decoding, drawing and
writing are in detection's time, so the share says what they cost. Rows replace benchmarks/results/detect.csv.
"""

import argparse
import csv
import io
import itertools
import os
import shutil
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from benchmarks.machine import describe
from jetson import files
from jetson.bundle import manifest
from jetson.inference.detector import open_detector
from pipeline.detect import detect, inputs
from pipeline.detect.worker import Settings
from pipeline.paths import SHIPPED

OUT = Path(__file__).parent / "results" / "detect.csv"
FIELDS = (
    "variant",
    "what",
    "photographs",
    "jobs",
    "engine_per_s",
    "detect_per_s",
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


def detect_rate(variant: str, items: list[inputs.Item], jobs: int, pictures: bool) -> float:
    """Photographs a second of a whole run, processes started and ended."""
    out = tempfile.mkdtemp()
    try:
        settings = Settings(SHIPPED, variant, "onnxruntime", out, pictures=pictures)
        started = time.perf_counter()
        detect.run(items, settings, jobs)
        return len(items) / (time.perf_counter() - started)
    finally:
        shutil.rmtree(out)


def photographs(data: Path, count: int) -> list[inputs.Item]:
    """So many photographs, some of them twice where there are fewer."""
    found = inputs.find([str(data / split / "images") for split in ("test", "val", "train")], str(data / "nowhere"))
    several = itertools.islice(itertools.cycle(found), count)
    return [inputs.Item(item.path, f"{number}/{item.name}", False) for number, item in enumerate(several)]


def main() -> int:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--variant", help="default: the bundle's default one")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    variant = manifest.load(SHIPPED).variant(args.variant)
    jobs, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    items = photographs(args.data, args.photos)
    rates: dict[str, list[float]] = {"engine": [], "with pictures": [], "data alone": []}
    for _ in range(TURNS):
        rates["engine"].append(engine_rate(variant.name, 10.0))
        rates["with pictures"].append(detect_rate(variant.name, items, jobs, True))
        rates["data alone"].append(detect_rate(variant.name, items, jobs, False))
        print({name: f"{values[-1]:.1f}" for name, values in rates.items()}, file=sys.stderr)
    engine = sorted(rates.pop("engine"))[TURNS // 2]
    rows = [
        {
            "variant": variant.name,
            "what": what,
            "photographs": len(items),
            "jobs": jobs,
            "engine_per_s": f"{engine:.1f}",
            "detect_per_s": f"{sorted(values)[TURNS // 2]:.1f}",
            "share_of_cores": f"{sorted(values)[TURNS // 2] / (jobs * engine):.2f}",
            "model_sha256": variant.sha256[:16],
            "commit": os.popen("git rev-parse --short HEAD").read().strip(),
            "date": date.today().isoformat(),
            "machine": describe("onnxruntime"),
            "load": f"{load:.1f}",
        }
        for what, values in rates.items()
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
