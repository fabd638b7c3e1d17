"""The faults that benchmarks.faults measures, one function each: real processes, real kills, real mounts.

Each returns the seconds to the notice, the seconds to the picture (or, of a disk, until all events are on it), what was
counted twice and what was lost without a word.
"""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import cv2

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "doubles"))

import stand_ins
from serving import FAULTY, Serving, wait_for

from jetson.synthetic import scene as drawn

OFF = ["--tradeoff", "off"]
# Seconds to the notice, seconds to the picture, counted twice, lost: of a file that is read once, frames of those that
# were there to be read; else what `counted` says.
Times = tuple[float, float, int, int]
ON_THE_WAY = 6  # frames between their arrival and their result


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


def counted(made: Serving) -> tuple[int, int]:
    """(twice, lost) of a live source: frames, outages and persons.

    A frame that came is a result, is told as dropped, or is on its way; an outage is one event; a person enters once.
    The figures of a state are not of one moment, so the best of a few counts.
    """
    twice, lost = [], []
    for _ in range(8):
        state, camera = made.state(), made.camera()
        away = camera["frames"] - camera["dropped"] - camera["results"]
        outages = sum(1 for event in state["events"] if event["kind"] == "camera lost") - camera["times_lost"]
        entered = Counter(event.get("person") for event in state["events"] if event["kind"] == "enter")
        twice.append(max(0, -away) + max(0, outages) + sum(count - 1 for count in entered.values()))
        lost.append(max(0, away - ON_THE_WAY) + max(0, -outages))
        time.sleep(0.05)
    return min(twice), min(lost)


def signalled(bench: Bench, uri: str, env: dict[str, str], number: int) -> Times:
    """The capture process is killed or stopped; the runner mends it by itself."""
    with bench.serve(uri, env=env, options=["--wait-for-source"]) as made:
        made.wait_results(5)
        camera = made.camera()
        os.kill(camera["capture_pid"], number)
        notice = until_lost(made, camera["times_lost"])
        return (notice, notice + until_picture(made), *counted(made))


@contextmanager
def source(bench: Bench, kind: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(address, environment) of a source of this kind: file, RTSP, CSI or USB."""
    if kind == "RTSP":
        server = stand_ins.RtspServer()
        try:
            server.start()
            yield server.uri, {}
        finally:
            server.close()
    elif kind == "CSI":
        yield "csi://0", stand_ins.csi_env(bench.folder)
    elif kind == "USB":
        yield "/dev/video0", stand_ins.v4l2_env(bench.folder)
    else:
        yield bench.clip, {}


def clock_set(bench: Bench, uri: str, env: dict[str, str], by_s: float) -> Times:
    """The wall clock is set; the notice is the event of it."""
    how = {"program": [FAULTY], "env": dict(env, FAULTY_CLOCK=str(by_s)), "options": ["--wait-for-source"]}
    with bench.serve(uri, **how) as made:
        made.wait_results(5)
        lost = made.camera()["times_lost"]
        made.process.send_signal(signal.SIGUSR1)
        stepped = until(lambda: any(one["kind"] == "clock stepped" for one in made.state()["events"]), "the notice")
        again = until_picture(made)
        assert made.camera()["times_lost"] == lost, "a camera was lost by the clock"
        return (stepped, stepped + again, *counted(made))


def once(bench: Bench, fault: Callable[[Serving, str], None], told: str, rest: int | None = None) -> Times:
    """A fault while a file of 150 frames is read with --once; `told`: a word of the log that is the notice.

    `rest`: the frames that are there to be read, None: those up to where the log says that it breaks off.
    """
    path = drawn_video(str(bench.folder / "once.avi"), (320, 240), frames=150)
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


def cut(made: Serving, path: str) -> None:
    os.truncate(path, os.path.getsize(path) * 2 // 3)


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
    return (notice, until_picture(made), *counted(made))


def absent(bench: Bench) -> Times:
    """A file that is not there at the start, and comes."""
    late = bench.folder / ("late" + os.path.splitext(bench.clip)[1])
    with bench.serve(str(late), options=["--wait-for-source"]) as made:
        notice = until(lambda: made.camera()["status"] == "lost", "the notice")
        shutil.copy(bench.clip, bench.folder / "part")
        os.rename(bench.folder / "part", late)
        return (notice, until_picture(made), *counted(made))


def truncated(bench: Bench) -> Times:
    """A file is cut to a third while it plays; the notice comes when it is read to its end."""
    path = drawn_video(str(bench.folder / "cut.avi"))
    with bench.serve(path) as made:
        made.wait_results(5)
        os.truncate(path, os.path.getsize(path) // 3)
        notice = until(lambda: "ends early" in made.camera()["last_error"] or made.camera()["times_lost"], "the notice")
        return (notice, notice + until_picture(made), *counted(made))


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
            return (notice, until_picture(made), *counted(made))
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
        return (notice, until_picture(made), *counted(made))


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
        return (notice, notice + until_picture(made), *counted(made))


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
        return (notice, until_picture(made), *counted(made))


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
        return (time.monotonic() - began, again, *counted(made))


def runner_killed(bench: Bench) -> Times:
    """kill -9 of the runner, started again at once, as systemd does; the notice is the end of the process."""
    with bench.serve(bench.clip) as made:
        made.wait_results(2)
        began = time.monotonic()
        made.end(signal.SIGKILL)
        notice = time.monotonic() - began
    with bench.serve(bench.clip) as made:
        until_picture(made)
        return (notice, time.monotonic() - began, *counted(made))


def drawn_video(
    path: str, wh: tuple[int, int] = (640, 480), fps: float = 30, codec: str = "MJPG", frames: int = 60
) -> str:
    """A video of moving faces."""
    scene = drawn.Scene(0, wh)
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*codec), fps, wh)
    for number in range(frames):
        writer.write(scene.frame(number / fps)[0])
    writer.release()
    return path


def file_changed(bench: Bench, **other: Any) -> Times:
    """Another video is put in its place while it plays: the next pass is of the new one, and nothing is a fault."""
    path = drawn_video(str(bench.folder / "played.avi"))
    with bench.serve(path) as made:
        made.wait_results(5)
        drawn_video(str(bench.folder / "other.avi"), **other)
        os.replace(bench.folder / "other.avi", path)
        began = time.monotonic()
        if "wh" in other:
            until(lambda: made.camera()["frame_wh"] == list(other["wh"]), "the new size")
        else:
            time.sleep(3.0)
        until_picture(made)
        assert made.camera()["times_lost"] == 0
        return (0.0, time.monotonic() - began, *counted(made))


def rtsp_changed(bench: Bench, *words: str) -> Times:
    """An RTSP camera starts anew with another size, rate or codec, as after a change in its own settings."""
    server = stand_ins.RtspServer()
    try:
        first = server.start()
        with bench.serve(server.uri) as made:
            made.wait_results(5)
            lost = made.camera()["times_lost"]
            first.kill()
            first.wait()
            server.start("ball", *words)
            notice = until_lost(made, lost)
            return (notice, until_picture(made), *counted(made))
    finally:
        server.close()


def usb_missing(bench: Bench) -> Times:
    """No camera at the start; it is plugged in one second after the notice."""
    env = dict(stand_ins.v4l2_env(bench.folder), SHIM_GONE=str(bench.switch))
    bench.switch.touch()
    with bench.serve("/dev/video0", env=env, options=["--wait-for-source"]) as made:
        notice = until(lambda: made.camera()["status"] == "lost", "the notice")
        time.sleep(1.0)
        bench.switch.unlink()
        return (notice, until_picture(made), *counted(made))


@contextmanager
def disk(bench: Bench) -> Iterator[Path]:
    """A disk of 600 KB for the state; needs root."""
    folder = bench.folder / "state"
    folder.mkdir()
    subprocess.check_call(["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(folder)])
    try:
        yield folder
    finally:
        subprocess.check_call(["umount", "-l", str(folder)])


def on_disk(path: Path) -> list[int]:
    """The numbers of the events in the history."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM events ORDER BY number")]


def disk_fault(bench: Bench, uri: str, env: dict[str, str], full: bool) -> Times:
    """The disk of the state is full (or was set to read-only before the start); events come meanwhile.

    The notice is the warning on the page; the disk is mended one second later. What is lost are events that are not in
    the history then and were not told as lost; the second time is that until all are there.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(disk(bench))
        history, events = folder / "events.sqlite3", folder / "events.jsonl"
        options = ["--wait-for-source", "--events", str(events)]
        env = dict(env, JETMASK_STATE=str(folder))

        def change(made: Serving) -> None:
            """An outage, which is two events."""
            lost = made.camera()["times_lost"]
            os.kill(made.camera()["capture_pid"], signal.SIGKILL)
            until_lost(made, lost)
            until_picture(made)

        if not full:
            with bench.serve(uri, env=env, options=options) as made:
                made.wait_results(5)
                change(made)
                made.end()
            subprocess.check_call(["mount", "-o", "remount,ro", str(folder)])
            stack.callback(subprocess.call, ["mount", "-o", "remount,rw", str(folder)])
        with bench.serve(uri, env=env, options=options) as made:
            began = time.monotonic()
            made.wait_results(5)
            filler = folder / "filler"
            if full:
                with open(filler, "wb", buffering=0) as file:
                    try:
                        while True:
                            file.write(b"x" * 4096)
                    except OSError:
                        pass
                began = time.monotonic()
            change(made)
            told = lambda: any("not written" in text or "not kept" in text for text in made.state()["warnings"])  # noqa: E731
            wait_for(told, "the notice", 60)
            notice = time.monotonic() - began
            time.sleep(1.0)
            if full:
                filler.unlink()
            else:
                subprocess.check_call(["mount", "-o", "remount,rw", str(folder)])
            began = time.monotonic()
            change(made)
            numbers = lambda: [int(n) for n in re.findall(rb'"number": (\d+)', events.read_bytes())]  # noqa: E731
            newest = lambda: max(event["number"] for event in made.state()["events"])  # noqa: E731
            until(lambda: numbers() and max(numbers()) >= newest() - 1, "the events on the disk")
            again = time.monotonic() - began
            twice, lost = counted(made)
            made.end()
        found = numbers()
        history_numbers = on_disk(history) if full else []
        for kept in (found, history_numbers):
            if kept:
                twice += len(kept) - len(set(kept))
                lost += kept[-1] - kept[0] + 1 - len(set(kept))
        return notice, again, twice, lost
