"""How long a question to a million stored events takes, and how fast they are written.

    python -m benchmarks.events [--events 1000000] [--write]

Each question is asked five times; the slowest is kept. Rows replace benchmarks/results/events.csv.
"""

import argparse
import csv
import io
import os
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from benchmarks.machine import describe
from jetson import files
from jetson.events.store import Query, Store
from jetson.monitor.journal import stamp

OUT = Path(__file__).parent / "results" / "events.csv"
BASE, STEP = 1_790_000_000.0, 2.0
FIELDS = ("question", "events", "found", "slowest_ms", "commit", "date", "machine", "load")


def fill(store: Store, count: int) -> float:
    """Events of 20 cameras, one each two seconds; events a second that were written."""
    started = time.perf_counter()
    for first in range(0, count, 1000):
        store._write(
            [
                {
                    "at": stamp(BASE + STEP * number),
                    "kind": "enter",
                    "camera": f"camera-{number % 20}",
                    "label": "without_mask" if number % 3 == 0 else "with_mask",
                    "zone": "queue" if number % 7 == 0 else None,
                    "person": number,
                    "number": number + 1,
                }
                for number in range(first, min(first + 1000, count))
            ]
        )
    return count / (time.perf_counter() - started)


def main() -> int:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    end = BASE + STEP * args.events
    middle = (BASE + end) / 2
    questions = {
        "newest": Query(),
        "one camera": Query(camera="camera-3"),
        "one class, second half": Query(label="without_mask", since=middle),
        "one zone, first half": Query(zone="queue", until=middle),
        "camera, class, one day": Query(camera="camera-3", label="with_mask", since=middle, until=middle + 86400),
        "a page in the middle": Query(before=args.events // 2),
        "no such camera": Query(camera="nowhere"),
        "no such kind": Query(kind="left"),
        "a thousand for export": Query(camera="camera-3", most=1000),
    }
    common = {
        "events": args.events,
        "commit": os.popen("git rev-parse --short HEAD").read().strip(),
        "date": date.today().isoformat(),
        "machine": describe("numpy"),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(os.path.join(folder, "events.sqlite3"), 36500, 10_000)
        rate = fill(store, args.events)
        print(f"written: {rate:.0f} events/s, {os.path.getsize(store.path) / 1e6:.0f} MB", file=sys.stderr)
        for name, query in questions.items():
            times = []
            for _ in range(5):
                started = time.perf_counter()
                found = len(store.find(query))
                times.append((time.perf_counter() - started) * 1e3)
            rows.append({"question": name, "found": found, "slowest_ms": f"{max(times):.1f}", **common})
        times = []
        for _ in range(5):
            started = time.perf_counter()
            found = len(store.hours(BASE, end))
            times.append((time.perf_counter() - started) * 1e3)
        rows.append({"question": "persons by hour, all", "found": found, "slowest_ms": f"{max(times):.1f}", **common})
        store.close()
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
