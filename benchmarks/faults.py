"""From a fault to the notice on the page, and to the picture again: real processes, real kills.

    python -m benchmarks.faults --bundle jetson/models --clip CLIP

Each row is the median of some tries; appended to benchmarks/results/faults.csv with the machine in it.
"""

import argparse
import csv
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "doubles"))

from serving import Serving, children, wait_for

from jetson import board

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "faults.csv")
FIELDS = ["date", "machine", "cores", "fault", "tries", "notice_s", "picture_again_s"]


def until(check: Callable[[], object], what: str) -> float:
    """Seconds until `check()` is true."""
    began = time.monotonic()
    wait_for(check, what)
    return time.monotonic() - began


def fresh(made: Serving, results: int) -> bool:
    """Whether there is a live picture with results beyond `results`."""
    camera = made.camera()
    return camera["status"] == "live" and camera["results"] > results


def capture_fault(made: Serving, number: int) -> tuple[float, float]:
    """Signal the capture process; (seconds to the notice, seconds to the picture)."""
    camera = made.camera()
    lost = camera["times_lost"]
    began = time.monotonic()
    os.kill(camera["capture_pid"], number)
    notice = until(lambda: made.camera()["times_lost"] > lost, "notice")
    results = made.camera()["results"]
    wait_for(lambda: fresh(made, results + 1), "the picture")
    return notice, time.monotonic() - began


def killed_runner(bundle: str, clip: str) -> tuple[float, float]:
    """kill -9 of the runner, started again at once, as systemd does; the notice is the end of the process."""
    with Serving(bundle, clip, options=["--tradeoff", "off"]) as made:
        made.wait_results(2)
        began = time.monotonic()
        captures = children(made.process.pid)
        made.end(signal.SIGKILL)
        notice = time.monotonic() - began
        assert captures
    with Serving(bundle, clip, options=["--tradeoff", "off"]) as made:
        made.wait_results(1)
        return notice, time.monotonic() - began


def absent_then_there(bundle: str, clip: str) -> tuple[float, float]:
    """A source that is not there at the start; times from the start and from its coming."""
    with tempfile.TemporaryDirectory() as folder:
        late = os.path.join(folder, "late" + os.path.splitext(clip)[1])
        with Serving(bundle, late, options=["--wait-for-source", "--tradeoff", "off"]) as made:
            notice = until(lambda: made.camera()["status"] == "lost", "notice")
            shutil.copy(clip, late + ".part")
            os.rename(late + ".part", late)
            return notice, until(lambda: fresh(made, 0), "the picture")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="jetson/models")
    parser.add_argument("--clip", required=True)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--out", default=OUT)
    args = parser.parse_args()
    measured: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.tries):
        with Serving(args.bundle, args.clip, options=["--tradeoff", "off"]) as made:
            for fault, number in (("capture process killed", signal.SIGKILL), ("camera frozen", signal.SIGSTOP)):
                made.wait_results(5)
                measured.setdefault(fault, []).append(capture_fault(made, number))
        measured.setdefault("source absent at the start", []).append(absent_then_there(args.bundle, args.clip))
        measured.setdefault("runner killed (kill -9), started again", []).append(killed_runner(args.bundle, args.clip))
    machine = board.describe()
    fresh_file = not os.path.exists(args.out)
    with open(args.out, "a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if fresh_file:
            writer.writeheader()
        for fault, times in measured.items():
            row = {"date": date.today().isoformat(), "machine": machine["machine"], "cores": machine["cores"],
                   "fault": fault, "tries": len(times), "notice_s": round(statistics.median(t[0] for t in times), 2),
                   "picture_again_s": round(statistics.median(t[1] for t in times), 2)}
            writer.writerow(row)
            print("{fault}: noticed after {notice_s} s, picture again after {picture_again_s} s".format(**row))


if __name__ == "__main__":
    main()
