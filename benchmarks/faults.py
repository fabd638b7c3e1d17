"""From a fault to the notice on the page, and to the picture again: real processes, real kills.

    python -m benchmarks.faults --bundle jetson/models --clip CLIP [--tries 3] [--only WORD]

Each row is the median of some tries, appended to benchmarks/results/faults.csv with the machine in it. The notice is
counted from the fault; the picture from the fault too, or from the mending where somebody has to mend it (a server
started again, a camera plugged in): `picture_again_from` says which. Both are seen from outside, through /api/state,
which is asked every 0.05 s. The CSI and USB cameras and the RTSP server are those of the tests (tests/doubles).
`counted_twice` and `lost`: frames, outages, persons and events (benchmarks.fault_kinds.counted); the most of the tries.
Disks need root.
"""

import argparse
import csv
import functools
import os
import signal
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import fault_kinds as kinds
from benchmarks.fault_kinds import Bench, Times
from jetson.monitor import board

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = os.path.join(ROOT, "benchmarks", "results", "faults.csv")
FIELDS = [
    "date",
    "machine",
    "cores",
    "commit",
    "fault",
    "tries",
    "notice_s",
    "picture_again_s",
    "picture_again_from",
    "counted_twice",
    "lost",
    "scheduler",
]
# A machine that does other work at the same time measures at real-time priority; the row says so.
SCHEDULERS = {os.SCHED_OTHER: "normal", os.SCHED_RR: "real-time", os.SCHED_FIFO: "real-time"}
SOURCES = ("file", "RTSP", "CSI", "USB")
TEN_YEARS = 10 * 365 * 86400.0
Run = Callable[[Bench], Times]


def on(kind: str, fault: Callable[..., Times], *words: Any) -> Run:
    """`fault` with a source of this kind."""

    def run(bench: Bench) -> Times:
        with kinds.source(bench, kind) as (uri, env):
            return fault(bench, uri, env, *words)

    return run


def once(fault: Callable[[Any, str], None], told: str, rest: int | None = 150) -> Run:
    """`fault` while a file is read once."""
    return lambda bench: kinds.once(bench, fault, told, rest)


def faults() -> dict[str, tuple[str, Run]]:
    """{name: (whence the picture is counted, what to run)}."""
    found: dict[str, tuple[str, Run]] = {}
    for kind in SOURCES:
        found[f"{kind}: capture process killed"] = ("fault", on(kind, kinds.signalled, signal.SIGKILL))
        found[f"{kind}: capture process frozen"] = ("fault", on(kind, kinds.signalled, signal.SIGSTOP))
        found[f"{kind}: the clock is set ahead"] = ("fault", on(kind, kinds.clock_set, TEN_YEARS))
        found[f"{kind}: the clock is set back"] = ("fault", on(kind, kinds.clock_set, -TEN_YEARS))
        found[f"{kind}: the disk is full, then not"] = ("mending", on(kind, kinds.disk_fault, True))
        found[f"{kind}: the disk is read-only, then not"] = ("mending", on(kind, kinds.disk_fault, False))
    found.update(
        {
            "file read once: reader killed": ("fault", once(kinds.to_reader(signal.SIGKILL), "lost")),
            "file read once: reader frozen": ("fault", once(kinds.to_reader(signal.SIGSTOP), "lost")),
            "file read once: reader pauses": ("fault", once(kinds.paused, "")),
            "file read once: cut to two thirds": ("fault", once(kinds.cut, "breaks off", None)),
            "file read once: removed": ("fault", once(lambda made, path: os.remove(path), "")),
            "file read once: another in its place": ("fault", once(kinds.replaced, "")),
            "file absent at the start, then there": ("mending", kinds.absent),
            "file cut to a third while it plays": ("fault", kinds.truncated),
            "file: another size": ("fault", functools.partial(kinds.file_changed, wh=(320, 240))),
            "file: another rate": ("fault", functools.partial(kinds.file_changed, fps=10)),
            "file: another codec": ("fault", functools.partial(kinds.file_changed, codec="XVID")),
            "RTSP: another size": ("fault", lambda bench: kinds.rtsp_changed(bench, "320x240", "30", "h264")),
            "RTSP: another rate": ("fault", lambda bench: kinds.rtsp_changed(bench, "640x360", "5", "h264")),
            "RTSP: another codec": ("fault", lambda bench: kinds.rtsp_changed(bench, "640x360", "30", "mjpeg")),
            "RTSP server absent at the start, then there": ("mending", kinds.rtsp_absent),
            "RTSP server killed, started again": ("mending", kinds.rtsp_killed),
            "RTSP server frozen, going on": ("mending", kinds.rtsp_frozen),
            "CSI sensor missing at the start, then there": ("mending", kinds.csi_missing),
            "CSI source dies, then back": ("mending", kinds.csi_dies),
            "CSI camera repeats one picture": ("fault", kinds.csi_repeats),
            "USB camera missing at the start, then there": ("mending", kinds.usb_missing),
            "USB camera unplugged, plugged in": ("mending", kinds.usb_unplugged),
            "engine raises, then not": ("mending", kinds.engine_raises),
            "bundle swapped for a broken one, reloaded": ("fault", kinds.bundle_broken),
            "runner killed (kill -9), started again": ("fault", kinds.runner_killed),
        }
    )
    return found


def measure(bundle: str, clip: str, tries: int, only: Sequence[str] = ()) -> Iterator[dict[str, object]]:
    """A row per fault; `only`: those with one of these words in their name."""
    machine = board.describe()
    commit = subprocess.check_output(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], text=True).strip()
    for fault, (since, run) in faults().items():
        if only and not any(word in fault for word in only):
            continue
        times = []
        for _ in range(tries):
            with tempfile.TemporaryDirectory() as folder:
                times.append(run(Bench(bundle, clip, Path(folder))))
        yield {
            "date": date.today().isoformat(),
            "machine": machine["machine"],
            "cores": machine["cores"],
            "commit": commit,
            "fault": fault,
            "tries": len(times),
            "notice_s": round(statistics.median(t[0] for t in times), 2),
            "picture_again_s": round(statistics.median(t[1] for t in times), 2),
            "picture_again_from": since,
            "counted_twice": max(t[2] for t in times),
            "lost": max(t[3] for t in times),
            "scheduler": SCHEDULERS.get(os.sched_getscheduler(0), "other"),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="jetson/models")
    parser.add_argument("--clip", required=True)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="only the faults with one of these in their name"
    )
    parser.add_argument("--out", default=OUT)
    args = parser.parse_args()
    fresh = not os.path.exists(args.out)
    with open(args.out, "a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        for row in measure(args.bundle, args.clip, args.tries, args.only):
            writer.writerow(row)
            file.flush()
            print(
                "{fault}: noticed after {notice_s} s, picture again {picture_again_s} s after the "
                "{picture_again_from}; twice {counted_twice}, lost {lost}".format(**row),
                flush=True,
            )


if __name__ == "__main__":
    main()
