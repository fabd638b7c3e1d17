"""Rate and latency of a runner with everything on against everything off, in one run.

    python -m benchmarks.everything [--rounds 5] [--seconds 6]

On: events in a JSON file and in SQLite with a picture of each person, clips around alerts, alerts and MQTT to a
mosquitto on this machine, drift, lines and zones, counts, and a page with a stream, the state and the stored events
open. Off: none of these, nobody looks. The live trade-off is off in both: it takes the share of the time that it is
given (benchmarks/runner.py measures that). A clip of drawn scenes with 6 faces is read
as fast as it goes for the rate, and at 20 frames/s for the latency from arrival to result. Each round
measures off, on, off; a ratio is that of one round, against the mean of the two around it; `control` is the second off
against the first, which would be 1 on a quiet machine. The row has the median. The engine has one thread. Under
`chrt -r 1` another load on the machine does not decide it, and the row says so.
"""

import argparse
import csv
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.frame_cost import draw
from benchmarks.machine import describe
from benchmarks.page import Viewer
from jetson import files
from jetson.net import listen

ROOT = Path(__file__).resolve().parent.parent
OUT = Path(__file__).parent / "results" / "everything.csv"
# `serve`, which forgets the latencies of its start when it is told to.
SERVE = """
import gc, signal, sys
from jetson import __main__ as verbs, cli
from jetson.inference.histogram import Histogram
def clear(*_):
    for one in gc.get_objects():
        if isinstance(one, Histogram):
            one.clear()
signal.signal(signal.SIGUSR1, clear)
sys.exit(cli.main(sys.argv[1:], "jetson", verbs.VERBS))
"""
RATE: tuple[str, float | None] = ("frames/s, as fast as it goes", None)
LATENCY: tuple[str, float | None] = ("p99 ms at 20 frames/s", 20.0)
CASES = {"rate": (RATE,), "latency": (LATENCY,), "both": (RATE, LATENCY)}
SCHEDULERS = {os.SCHED_OTHER: "normal", os.SCHED_RR: "real-time", os.SCHED_FIFO: "real-time"}
FIELDS = ("case", "off", "on", "ratio", "ratio_min", "ratio_max", "control", "control_min", "control_max")
MORE = ("rounds", "seconds", "variant", "commit", "date", "machine", "scheduler", "load")


def free_port() -> int:
    """A port that nobody has just now."""
    listener = listen("127.0.0.1", 0)
    try:
        return int(listener.getsockname()[1])
    finally:
        listener.close()


class Broker:
    """A mosquitto that takes everything."""

    def __init__(self, folder: str) -> None:
        self.port = free_port()
        path = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        config = os.path.join(folder, "mosquitto.conf")
        files.write_text(config, f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self._process = subprocess.Popen([path, "-c", config], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)


def configuration(folder: str, clip: str, variant: str, fps: float | None, broker: int | None) -> str:
    """The file of one run; `broker`: its port where everything is on."""
    camera: dict[str, Any] = {"source": clip}
    if fps:
        camera["fps"] = fps
    value: dict[str, Any] = {
        "cameras": {"clip": camera},
        "engine": {"variant": variant, "runtime": "onnxruntime", "threads": 1},
        "compare": {"variants": "off"},
        "events": {"history": "off"},
        "drift": {"file": "off"},
        "page": {"port": 0},
    }
    if broker is not None:
        camera["lines"] = {"middle": [[0.5, 0], [0.5, 1]]}
        camera["zones"] = {"left": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]}
        value["events"] = {"file": "events.jsonl", "history": "events.sqlite3", "pictures": "crop", "clips": True}
        value["alerts"] = {
            "rules": [{"when": "no_mask > 2 s", "cool_down": "10 s"}],
            "receivers": {"house": {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{broker}", "topic": "alerts"}},
        }
        value["drift"] = {"file": "drift.json"}
        value["mqtt"] = {"broker": f"mqtt://127.0.0.1:{broker}", "spool": "mqtt"}
    path = os.path.join(folder, "jetmask.json")
    files.write_json(path, value)
    return path


class Onlooker:
    """A page that is open: its stream, its state, and the stored events every second."""

    def __init__(self, port: int) -> None:
        self._viewers = [Viewer(port, path) for path in ("/api/events", "/stream.mjpg?camera=clip")]
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._stop.wait(1.0):
            for path in ("api/v1/events?count=50", "api/v1/hours"):
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/{path}", timeout=10) as answer:
                    answer.read()

    def close(self) -> None:
        """Go."""
        self._stop.set()
        self._thread.join(15.0)
        for viewer in self._viewers:
            viewer.close()


def once(bundle: str, clip: str, variant: str, fps: float | None, seconds: float, broker: int | None) -> float:
    """Frames/s where `fps` is None, else the 99th percentile of arrival to result in ms."""
    with tempfile.TemporaryDirectory() as folder:
        ready = os.path.join(folder, "ready.json")
        words = [sys.executable, "-c", SERVE, "serve", bundle, "--ready-file", ready, "--config"]
        words.append(configuration(folder, clip, variant, fps, broker))
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        environment.pop("JETMASK_STATE", None)
        if broker is not None:
            environment["JETMASK_STATE"] = folder
        if fps is None:
            words.append("--every-frame")
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 60
            while not os.path.exists(ready) and process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
            url = json.loads(Path(ready).read_text())["url"]

            def state() -> dict[str, Any]:
                with urllib.request.urlopen(url + "api/state", timeout=10) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found

            while state()["results"] < 20 and time.monotonic() < end:
                time.sleep(0.1)
            onlooker = Onlooker(int(url.rstrip("/").rpartition(":")[2])) if broker is not None else None
            time.sleep(2.0)
            process.send_signal(signal.SIGUSR1)
            first, began = state()["results"], time.monotonic()
            time.sleep(seconds)
            last, took = state(), time.monotonic() - began
            if onlooker is not None:
                onlooker.close()
            if broker is not None and not (last["mqtt"] or {}).get("connected"):
                raise RuntimeError(f"MQTT was not connected: {last['mqtt']}")
            return (last["results"] - first) / took if fps is None else float(last["latency_ms"]["total"]["p99"])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=str(ROOT / "jetson" / "models"))
    parser.add_argument("--variant", default="s-640x384-fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--only", choices=tuple(CASES), default="both")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        clip, broker = os.path.join(folder, "clip.avi"), Broker(folder)
        draw(clip)
        try:
            for case, fps in CASES[args.only]:
                found = []
                for number in range(args.rounds):
                    words = (args.bundle, clip, args.variant, fps, args.seconds)
                    found.append((once(*words, None), once(*words, broker.port), once(*words, None)))
                    print(f"{case}, round {number + 1}: off, on, off: {found[-1]}", file=sys.stderr)
                ratios = sorted(2 * on / (before + after) for before, on, after in found)
                control = sorted(after / before for before, _, after in found)
                rows.append(
                    {
                        "case": case,
                        "off": f"{statistics.median((before + after) / 2 for before, _, after in found):.2f}",
                        "on": f"{statistics.median(on for _, on, _ in found):.2f}",
                        "ratio": f"{statistics.median(ratios):.3f}",
                        "ratio_min": f"{ratios[0]:.3f}",
                        "ratio_max": f"{ratios[-1]:.3f}",
                        "control": f"{statistics.median(control):.3f}",
                        "control_min": f"{control[0]:.3f}",
                        "control_max": f"{control[-1]:.3f}",
                        "rounds": args.rounds,
                        "seconds": args.seconds,
                        "variant": args.variant,
                        "commit": os.popen("git rev-parse --short HEAD").read().strip(),
                        "date": date.today().isoformat(),
                        "machine": describe("onnxruntime"),
                        "scheduler": SCHEDULERS.get(os.sched_getscheduler(0), "other"),
                        "load": f"{os.getloadavg()[0]:.1f}",
                    }
                )
        finally:
            broker.close()
    if args.write and OUT.exists():  # rows of what was not measured now stay
        with open(OUT, newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["case"] not in [new["case"] for new in rows]] + rows
    handle = io.StringIO()
    writer = csv.DictWriter(handle, (*FIELDS, *MORE), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    print(handle.getvalue(), end="")
    if args.write:
        files.write_text(str(OUT), handle.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
