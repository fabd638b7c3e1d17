"""From a fault to the notice on the page, and to the picture again: real processes, real kills.

    python -m benchmarks.faults --bundle jetson/models --clip CLIP [--tries 3] [--only WORD]

Each row is the median of some tries, appended to benchmarks/results/faults.csv with the machine in it. The notice is
counted from the fault; the picture from the fault too, or from the mending where somebody has to mend it (a server
started again, a camera plugged in): `picture_again_from` says which. Both are seen from outside, through /api/state,
which is asked every 0.05 s. The CSI and USB cameras and the RTSP server are those of the tests (tests/doubles).
"""

import argparse
import csv
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import cv2

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "doubles"))

import stand_ins
from serving import FAULTY, Serving, wait_for

from jetson.monitor import board
from jetson.synthetic import scene as drawn

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "faults.csv")
FIELDS = [
    "date",
    "machine",
    "cores",
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
OFF = ["--tradeoff", "off"]
# Seconds to the notice, seconds to the picture; of a file that is read once, frames that were counted twice and frames
# that were lost (of those that were there to be read).
Times = tuple[float, float] | tuple[float, float, int, int]


class Bench:
    """What every fault needs: bundle, clip, a folder of its own."""

    def __init__(self, bundle: str, clip: str, folder: Path) -> None:
        self.bundle, self.clip, self.folder = bundle, clip, folder
        self.switch = folder / "switch"  # a file that makes a stand-in fail while it exists

    def serve(self, source: str, **options: Any) -> Serving:
        return Serving(self.bundle, source, options=[*OFF, *options.pop("options", [])], **options)


def until(check: Callable[[], object], what: str) -> float:
    """Seconds until `check()` is true."""
    began = time.monotonic()
    wait_for(check, what, 120)
    return time.monotonic() - began


def until_picture(made: Serving) -> float:
    """Seconds until there is a live picture with two results that are not there yet."""
    results = made.camera()["results"]
    return until(lambda: made.camera()["status"] == "live" and made.camera()["results"] > results + 1, "the picture")


def until_lost(made: Serving, lost: int) -> float:
    return until(lambda: made.camera()["times_lost"] > lost, "the notice")


def signalled(bench: Bench, number: int, source: str = "", env: dict[str, str] | None = None) -> Times:
    """The capture process is killed or stopped; the runner mends it by itself."""
    with bench.serve(source or bench.clip, env=env, options=["--wait-for-source"]) as made:
        made.wait_results(5)
        camera = made.camera()
        os.kill(camera["capture_pid"], number)
        notice = until_lost(made, camera["times_lost"])
        return notice, notice + until_picture(made)


def rtsp_signalled(bench: Bench, number: int) -> Times:
    server = stand_ins.RtspServer()
    try:
        server.start()
        return signalled(bench, number, server.uri)
    finally:
        server.close()


def clock_set(bench: Bench, source: str = "", env: dict[str, str] | None = None) -> Times:
    """The wall clock is set ahead by ten years; the notice is the event of it."""
    how = {"program": [FAULTY], "env": dict(env or {}, FAULTY_CLOCK="1"), "options": ["--wait-for-source"]}
    with bench.serve(source or bench.clip, **how) as made:
        made.wait_results(5)
        lost = made.camera()["times_lost"]
        made.process.send_signal(signal.SIGUSR1)
        stepped = until(lambda: any(one["kind"] == "clock stepped" for one in made.state()["events"]), "the notice")
        again = until_picture(made)
        assert made.camera()["times_lost"] == lost, "a camera was lost by the clock"
        return stepped, stepped + again


def rtsp_clock_set(bench: Bench) -> Times:
    server = stand_ins.RtspServer()
    try:
        server.start()
        return clock_set(bench, server.uri)
    finally:
        server.close()


def once(bench: Bench, fault: Callable[[Serving, str], None], told: str, rest: int | None = None) -> Times:
    """A fault while a file of 150 frames is read with --once; `told`: a word of the log that is the notice.

    `rest`: the frames that are there to be read, None: those up to where the log says that it breaks off.
    """
    path = str(bench.folder / "once.avi")
    scene = drawn.Scene(0, (320, 240))
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 30, (320, 240))
    for number in range(150):
        writer.write(scene.frame(number / 30)[0])
    writer.release()
    with bench.serve(path, options=["--once"]) as made:
        made.wait_results(20)
        began = time.monotonic()
        fault(made, path)
        notice = until(lambda: not told or told in made.log(), "the notice")
        code = made.process.wait(120)
        found = re.search(r"ended after (\d+) results", made.log())
        broken = re.search(r"breaks off at ([\d.]+) s", made.log())
        results = int(found.group(1)) if found else 0
        there = rest if rest is not None else round(float(broken.group(1)) * 30) if broken else 0
        assert code == (3 if broken else 0), made.log()
        return notice if told else 0.0, time.monotonic() - began, max(0, results - there), max(0, there - results)


def paused(made: Serving, path: str) -> None:
    pid = made.camera()["capture_pid"]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.8)
    os.kill(pid, signal.SIGCONT)


def to_reader(number: int) -> Callable[[Serving, str], None]:
    return lambda made, path: os.kill(made.camera()["capture_pid"], number)


def replaced(made: Serving, path: str) -> None:
    shutil.copy(path, path + ".new")
    os.truncate(path + ".new", 1000)
    os.rename(path + ".new", path)


def mended(made: Serving, fault: Callable[[], object], mend: Callable[[], object]) -> Times:
    """A fault that stays until it is mended, one second after the notice."""
    made.wait_results(5)
    lost = made.camera()["times_lost"]
    fault()
    notice = until_lost(made, lost)
    time.sleep(1.0)
    mend()
    return notice, until_picture(made)


def absent(bench: Bench) -> Times:
    """A file that is not there at the start, and comes."""
    late = bench.folder / ("late" + os.path.splitext(bench.clip)[1])
    with bench.serve(str(late), options=["--wait-for-source"]) as made:
        notice = until(lambda: made.camera()["status"] == "lost", "the notice")
        shutil.copy(bench.clip, bench.folder / "part")
        os.rename(bench.folder / "part", late)
        return notice, until_picture(made)


def truncated(bench: Bench) -> Times:
    """A file is cut to a third while it plays; the notice comes when it is read to its end."""
    path = str(bench.folder / "cut.avi")
    scene = drawn.Scene(0, (640, 480))
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 30, (640, 480))
    for number in range(60):
        writer.write(scene.frame(number / 30)[0])
    writer.release()
    with bench.serve(path) as made:
        made.wait_results(5)
        os.truncate(path, os.path.getsize(path) // 3)
        notice = until(lambda: "ends early" in made.camera()["last_error"] or made.camera()["times_lost"], "the notice")
        return notice, notice + until_picture(made)


def rtsp_killed(bench: Bench) -> Times:
    server = stand_ins.RtspServer()
    try:
        first = server.start()
        with bench.serve(server.uri) as made:
            return mended(made, lambda: (first.kill(), first.wait()), server.start)
    finally:
        server.close()


def rtsp_frozen(bench: Bench) -> Times:
    server = stand_ins.RtspServer()
    try:
        first = server.start()
        with bench.serve(server.uri) as made:
            return mended(made, lambda: os.kill(first.pid, signal.SIGSTOP), lambda: os.kill(first.pid, signal.SIGCONT))
    finally:
        server.close()


def rtsp_absent(bench: Bench) -> Times:
    server = stand_ins.RtspServer()
    try:
        with bench.serve(server.uri) as made:
            notice = until(lambda: made.camera()["status"] == "lost", "the notice")
            server.start()
            return notice, until_picture(made)
    finally:
        server.close()


def csi_missing(bench: Bench) -> Times:
    """No sensor at the start; it is connected one second after the notice."""
    env = dict(stand_ins.csi_env(bench.folder), CSI_GONE=str(bench.switch))
    bench.switch.touch()
    with bench.serve("csi://0", env=env, options=["--wait-for-source"]) as made:
        notice = until(lambda: made.camera()["status"] == "lost", "the notice")
        time.sleep(1.0)
        bench.switch.unlink()
        return notice, until_picture(made)


def csi_dies(bench: Bench) -> Times:
    env = dict(stand_ins.csi_env(bench.folder), CSI_GONE=str(bench.switch))
    with bench.serve("csi://0", env=env, options=["--wait-for-source"]) as made:
        return mended(made, bench.switch.touch, bench.switch.unlink)


def csi_repeats(bench: Bench) -> Times:
    """A camera that sends one picture for ever, as a hung sensor does; a new start of the pipeline helps."""
    after = 150
    env = dict(stand_ins.csi_env(bench.folder), CSI_FREEZE_AFTER=str(after))
    with bench.serve("csi://0", env=env, options=["--wait-for-source"]) as made:
        until(lambda: made.camera()["frames"] >= after, "the fault")
        notice = until_lost(made, 0)
        return notice, notice + until_picture(made)


def usb_unplugged(bench: Bench) -> Times:
    env = dict(stand_ins.v4l2_env(bench.folder), SHIM_GONE=str(bench.switch))
    with bench.serve("/dev/video0", env=env, options=["--wait-for-source"]) as made:
        return mended(made, bench.switch.touch, bench.switch.unlink)


def engine_raises(bench: Bench) -> Times:
    """Every inference raises, until the cause is gone one second after the notice."""
    with bench.serve(bench.clip, program=[FAULTY], env={"FAULTY_ENGINE": str(bench.switch)}) as made:
        made.wait_results(5)
        bench.switch.write_text("raise")
        notice = until(lambda: any("engine fails" in text for text in made.state()["warnings"]), "the notice")
        time.sleep(1.0)
        bench.switch.unlink()
        return notice, until_picture(made)


def bundle_broken(bench: Bench) -> Times:
    """The bundle is overwritten with a broken one and reloaded: refused; the old one goes on all the time."""
    copy = bench.folder / "bundle"
    shutil.copytree(bench.bundle, copy)
    with Serving(str(copy), bench.clip, options=OFF) as made:
        made.wait_results(5)
        for model in (copy / "models").iterdir():
            os.truncate(model, model.stat().st_size - 100)
        results = made.camera()["results"]
        began = time.monotonic()
        made.process.send_signal(signal.SIGHUP)
        again = until(lambda: made.camera()["results"] > results + 1, "the picture")
        wait_for(lambda: made.state()["failed_reloads"] == 1, "the notice")
        return time.monotonic() - began, again


def runner_killed(bench: Bench) -> Times:
    """kill -9 of the runner, started again at once, as systemd does; the notice is the end of the process."""
    with bench.serve(bench.clip) as made:
        made.wait_results(2)
        began = time.monotonic()
        made.end(signal.SIGKILL)
        notice = time.monotonic() - began
    with bench.serve(bench.clip) as made:
        until_picture(made)
        return notice, time.monotonic() - began


FAULTS: dict[str, tuple[str, Callable[[Bench], Times]]] = {
    "capture process killed": ("fault", lambda bench: signalled(bench, signal.SIGKILL)),
    "capture process frozen": ("fault", lambda bench: signalled(bench, signal.SIGSTOP)),
    "file read once: reader killed": ("fault", lambda bench: once(bench, to_reader(signal.SIGKILL), "lost", 150)),
    "file read once: reader frozen": ("fault", lambda bench: once(bench, to_reader(signal.SIGSTOP), "lost", 150)),
    "file read once: reader pauses": ("fault", lambda bench: once(bench, paused, "", 150)),
    "file read once: cut to two thirds": (
        "fault",
        lambda bench: once(bench, lambda made, path: os.truncate(path, os.path.getsize(path) * 2 // 3), "breaks off"),
    ),
    "file read once: removed": ("fault", lambda bench: once(bench, lambda made, path: os.remove(path), "", 150)),
    "file read once: another in its place": ("fault", lambda bench: once(bench, replaced, "", 150)),
    "file: the clock is set ahead": ("fault", clock_set),
    "RTSP: the clock is set ahead": ("fault", rtsp_clock_set),
    "RTSP: capture process killed": ("fault", lambda bench: rtsp_signalled(bench, signal.SIGKILL)),
    "RTSP: capture process frozen": ("fault", lambda bench: rtsp_signalled(bench, signal.SIGSTOP)),
    "CSI: the clock is set ahead": (
        "fault",
        lambda bench: clock_set(bench, "csi://0", stand_ins.csi_env(bench.folder)),
    ),
    "CSI: capture process killed": (
        "fault",
        lambda bench: signalled(bench, signal.SIGKILL, "csi://0", stand_ins.csi_env(bench.folder)),
    ),
    "CSI: capture process frozen": (
        "fault",
        lambda bench: signalled(bench, signal.SIGSTOP, "csi://0", stand_ins.csi_env(bench.folder)),
    ),
    "USB: the clock is set ahead": (
        "fault",
        lambda bench: clock_set(bench, "/dev/video0", stand_ins.v4l2_env(bench.folder)),
    ),
    "USB: capture process killed": (
        "fault",
        lambda bench: signalled(bench, signal.SIGKILL, "/dev/video0", stand_ins.v4l2_env(bench.folder)),
    ),
    "USB: capture process frozen": (
        "fault",
        lambda bench: signalled(bench, signal.SIGSTOP, "/dev/video0", stand_ins.v4l2_env(bench.folder)),
    ),
    "file absent at the start, then there": ("mending", absent),
    "file cut to a third while it plays": ("fault", truncated),
    "RTSP server absent at the start, then there": ("mending", rtsp_absent),
    "RTSP server killed, started again": ("mending", rtsp_killed),
    "RTSP server frozen, going on": ("mending", rtsp_frozen),
    "CSI sensor missing at the start, then there": ("mending", csi_missing),
    "CSI source dies, then back": ("mending", csi_dies),
    "CSI camera repeats one picture": ("fault", csi_repeats),
    "USB camera unplugged, plugged in": ("mending", usb_unplugged),
    "engine raises, then not": ("mending", engine_raises),
    "bundle swapped for a broken one, reloaded": ("fault", bundle_broken),
    "runner killed (kill -9), started again": ("fault", runner_killed),
}


def measure(bundle: str, clip: str, tries: int, only: Sequence[str] = ()) -> Iterator[dict[str, object]]:
    """A row per fault; `only`: those with one of these words in their name."""
    machine = board.describe()
    for fault, (since, run) in FAULTS.items():
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
            "fault": fault,
            "tries": len(times),
            "notice_s": round(statistics.median(t[0] for t in times), 2),
            "picture_again_s": round(statistics.median(t[1] for t in times), 2),
            "picture_again_from": since,
            "counted_twice": max((t[2] for t in times if len(t) == 4), default=""),
            "lost": max((t[3] for t in times if len(t) == 4), default=""),
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
                "{picture_again_from}".format(**row)
            )


if __name__ == "__main__":
    main()
