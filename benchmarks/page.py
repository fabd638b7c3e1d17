"""CPU of the server with 20 cameras at 1 frame/s: nobody looks, the grid of all cameras is open, one camera is open.

python -m benchmarks.page              # a row in benchmarks/results/page.csv
"""

import argparse
import csv
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "page.csv"
CAMERAS = 20
VARIANT = "s-320x192-int8-cpu"
_TICKS = os.sysconf("SC_CLK_TCK")


def config(folder: Path, port: int) -> Path:
    """A file of 20 drawn cameras."""
    cameras = "".join(
        f"  camera-{n}:\n    source: synthetic://?size=1280x720&fps=1&seed={n}\n" for n in range(1, CAMERAS + 1)
    )
    path = folder / "jetmask.yaml"
    path.write_text(
        f"cameras:\n{cameras}engine:\n  variant: {VARIANT}\ncompare:\n  variants: 'off'\npage:\n  port: {port}\n"
    )
    return path


def seconds(pid: int) -> float:
    """CPU seconds of a process so far, user and system; its children, which draw the frames, are not in it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Viewer:
    """Reads one answer that does not end; `read`: bytes so far."""

    def __init__(self, port: int, path: str) -> None:
        self.read = 0
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._connection.request("GET", path)
        self._answer = self._connection.getresponse()
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            part = self._answer.read1(65536)
            if not part:
                return
            self.read += len(part)

    def close(self) -> None:
        """Go."""
        self._stop = True
        self._thread.join(5.0)
        self._connection.close()


def measure(pid: int, port: int, paths: list[str], span_s: float) -> tuple[float, float]:
    """(CPU in percent of one core, bytes/s to the viewer) with these answers open."""
    viewers = [Viewer(port, path) for path in paths]
    time.sleep(2.0)
    began, used, read = time.monotonic(), seconds(pid), sum(one.read for one in viewers)
    time.sleep(span_s)
    took = time.monotonic() - began
    result = (100 * (seconds(pid) - used) / took, (sum(one.read for one in viewers) - read) / took)
    for one in viewers:
        one.close()
    return result


def main() -> None:
    """Measure, alternating, and append a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each span (default %(default).0f)")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    kinds: dict[str, list[str]] = {
        "closed": [],
        "grid": ["/api/events", "/api/v1/pictures"],
        "camera": ["/api/events", "/stream.mjpg?camera=camera-1"],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        port = 8970
        ready = Path(folder) / "ready"
        words = [sys.executable, "-m", "jetson", "serve", str(ROOT / "jetson" / "models"), "--config"]
        process = subprocess.Popen(
            [*words, str(config(Path(folder), port)), "--ready-file", str(ready)], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        try:
            while not ready.exists() and process.poll() is None:
                time.sleep(0.1)
            time.sleep(4.0)
            for _ in range(args.rounds):
                for name, paths in kinds.items():
                    found[name].append(measure(process.pid, port, paths, args.seconds))
        finally:
            process.terminate()
            process.wait(20)
    cpu = {name: sum(one[0] for one in rows) / len(rows) for name, rows in found.items()}
    sent = {name: sum(one[1] for one in rows) / len(rows) for name, rows in found.items()}
    row = {
        "measured": time.strftime("%Y-%m-%d"),
        "cameras": CAMERAS,
        "frames_per_s_each": 1,
        "variant": VARIANT,
        "cpu_closed_percent": f"{cpu['closed']:.1f}",
        "cpu_grid_percent": f"{cpu['grid']:.1f}",
        "cpu_camera_percent": f"{cpu['camera']:.1f}",
        "grid_to_closed": f"{cpu['grid'] / cpu['closed']:.3f}",
        "grid_kb_per_s": f"{sent['grid'] / 1e3:.0f}",
        "rounds": args.rounds,
        "load_1min": f"{os.getloadavg()[0]:.1f}",
    }
    new = not RESULTS.exists()
    with open(RESULTS, "a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == "__main__":
    main()
