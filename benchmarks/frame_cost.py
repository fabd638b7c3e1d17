"""What a frame costs beside the engine: CPU time of an older tree and of this one in turns, in one run.

    python -m benchmarks.frame_cost --old DIR [--python PATH …] [--rounds 3] [--seconds 10]

`--old`: a working tree of the commit to compare with (`git worktree add DIR COMMIT`). A clip of drawn scenes is read by
`jetson serve` at 30 frames/s, with an engine that answers at once with what the real one gave for each frame, so that
the process's CPU time is that of all else: letterbox, decode, suppress, track, zones, journal, state, threads; its
capture process has a row of its own. What a newer tree does besides (the scene's time of each frame, drift, events in
a file of their own where there is a place for one, named cameras) is in its figure. Each round measures both trees; a
ratio is that of one round, and the row has the median. The stages alone are the least of five. Both trees must find the
same, to the bit: the sha256 of all inputs, boxes, scores and tracks. Rows are appended to
benchmarks/results/frame_cost.csv.
"""

import argparse
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import date
from typing import Any, NamedTuple

import cv2

from jetson.bundle import manifest
from jetson.monitor import board
from jetson.synthetic import scene

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
OUT = os.path.join(HERE, "results", "frame_cost.csv")
SCRIPT = os.path.join(HERE, "frame_stages.py")
FIELDS = [
    "date",
    "machine",
    "cores",
    "python",
    "old_commit",
    "commit",
    "bundle",
    "variant",
    "model_sha256",
    "frame_wh",
    "faces",
    "stage",
    "old_us",
    "new_us",
    "ratio",
    "ratio_min",
    "ratio_max",
    "rounds",
    "seconds",
    "same_results",
]
WHOLE, CAPTURE = "whole process at 30 frames/s", "its capture process (reads and decodes the video)"
WH, FACES, FRAMES, FPS = (640, 480), 6, 120, 30


class Settings(NamedTuple):
    old: str
    pythons: list[str]
    bundle: str
    variant: str
    rounds: int
    seconds: float
    out: str


def draw(path: str) -> None:
    """The clip: moving faces at 30 frames/s."""
    drawn = scene.Scene(1, WH, FACES)
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), FPS, WH)
    for number in range(FRAMES):
        writer.write(drawn.frame(number / FPS)[0])
    writer.release()


def commit_of(tree: str) -> str:
    """Its commit, with a + where files were changed since."""
    name = subprocess.check_output(["git", "-C", tree, "rev-parse", "--short=12", "HEAD"], text=True).strip()
    changed = subprocess.check_output(["git", "-C", tree, "status", "--porcelain", "--", "jetson"], text=True)
    return name + ("+" if changed.strip() else "")


def stages(python: str, tree: str, words: list[str]) -> dict[str, Any]:
    return json.loads(subprocess.check_output([python, SCRIPT, tree, "stages", *words]))


def _spent(pid: int) -> float:
    """CPU seconds of a process without its children, to the nanosecond: /proc counts in hundredths."""
    return time.clock_gettime(~pid << 3 | 2)  # its CPUCLOCK_SCHED, linux/posix-timers.h


def whole(python: str, tree: str, settings: Settings, clip: str, outputs: str, folder: str) -> tuple[float, float]:
    """CPU microseconds per frame of a `serve` at 30 frames/s, and of its capture process."""
    ready, zones = os.path.join(folder, "ready.json"), os.path.join(folder, "zones.txt")
    if os.path.exists(ready):
        os.remove(ready)
    with open(zones, "w") as file:
        file.write("line 0 door 0.5,0 0.5,1\npolygon 0 left 0,0 0.5,0 0.5,1 0,1\npolygon 0 right 0.5,0 1,0 1,1 0.5,1\n")
    command = [python, SCRIPT, tree, "serve", outputs, settings.bundle, "--source", clip, "--variant", settings.variant]
    command += ["--runtime", "onnxruntime", "--tradeoff", "off", "--port", "0", "--ready-file", ready, "--zones", zones]
    environment = dict(os.environ, PYTHONPATH=tree, OMP_NUM_THREADS="1")
    # The capture process takes `jetson` from the folder that it is started in.
    process = subprocess.Popen(command, cwd=tree, env=environment, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not os.path.exists(ready) and time.monotonic() < end:
            time.sleep(0.1)
        with open(ready) as file:
            url = json.load(file)["url"]

        def state() -> tuple[int, int]:
            with urllib.request.urlopen(url + "api/state") as answer:
                found = json.load(answer)
                return int(found["results"]), int(found["cameras"][0]["capture_pid"])

        while state()[0] < 2 * FPS and time.monotonic() < end:
            time.sleep(0.2)
        first, capture = state()
        began = [_spent(pid) for pid in (process.pid, capture)]
        time.sleep(settings.seconds)
        spent = [_spent(pid) - before for pid, before in zip((process.pid, capture), began, strict=True)]
        frames = state()[0] - first
        return 1e6 * spent[0] / frames, 1e6 * spent[1] / frames
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def measure(settings: Settings, python: str, folder: str) -> list[dict[str, Any]]:
    """A row per stage and one for the whole."""
    clip, outputs = os.path.join(folder, "clip.avi"), os.path.join(folder, "outputs.npz")
    if not os.path.exists(outputs):
        draw(clip)
        words = [SCRIPT, ROOT, "record", settings.bundle, settings.variant, clip, outputs]
        subprocess.check_call([sys.executable, *words])
    words = [settings.bundle, settings.variant, clip, outputs]
    alone = {tree: [stages(python, tree, words) for _ in range(settings.rounds)] for tree in (settings.old, ROOT)}
    same = len({found["sha256"] for rounds in alone.values() for found in rounds}) == 1
    pairs: dict[str, list[tuple[float, float]]] = {
        name: [
            (old["stages"][name], new["stages"][name])
            for old, new in zip(alone[settings.old], alone[ROOT], strict=True)
        ]
        for name in alone[ROOT][0]["stages"]
    }
    pairs[WHOLE], pairs[CAPTURE] = [], []
    for number in range(settings.rounds):
        print(f"{python}: round {number + 1}", file=sys.stderr)
        found = [whole(python, tree, settings, clip, outputs, folder) for tree in (settings.old, ROOT)]
        for name, (old, new) in zip((WHOLE, CAPTURE), zip(*found, strict=True), strict=True):
            pairs[name].append((old, new))
    machine, contents = board.describe(), manifest.load(settings.bundle)
    version = subprocess.check_output([python, "-c", "import platform; print(platform.python_version())"], text=True)
    rows = []
    for stage, figures in pairs.items():
        ratios = sorted(new / old for old, new in figures)
        rows.append(
            {
                "date": date.today().isoformat(),
                "machine": machine["machine"],
                "cores": machine["cores"],
                "python": version.strip(),
                "old_commit": commit_of(settings.old),
                "commit": commit_of(ROOT),
                "bundle": contents.name,
                "variant": settings.variant,
                "model_sha256": contents.variant(settings.variant).sha256[:12],
                "frame_wh": "{}x{}".format(*WH),
                "faces": FACES,
                "stage": stage,
                "old_us": round(statistics.median(old for old, _ in figures), 1),
                "new_us": round(statistics.median(new for _, new in figures), 1),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_min": round(ratios[0], 3),
                "ratio_max": round(ratios[-1], 3),
                "rounds": len(figures),
                "seconds": settings.seconds,
                "same_results": same,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="a working tree of the commit to compare with")
    parser.add_argument("--python", action="append", help="interpreters to measure with (default: this one)")
    parser.add_argument("--bundle", default=os.path.join(ROOT, "jetson", "models"))
    parser.add_argument("--variant", default="s-640x384-fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", default=OUT)
    args = parser.parse_args()
    settings = Settings(
        os.path.abspath(args.old),
        args.python or [sys.executable],
        os.path.abspath(args.bundle),
        args.variant,
        args.rounds,
        args.seconds,
        args.out,
    )
    with tempfile.TemporaryDirectory() as folder:
        for python in settings.pythons:
            rows = measure(settings, python, folder)
            fresh = not os.path.exists(settings.out)
            with open(settings.out, "a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                if fresh:
                    writer.writeheader()
                writer.writerows(rows)
            for row in rows:
                print(
                    "{python} {stage}: {old_us} to {new_us} us a frame, ratio {ratio}; same: {same_results}".format(
                        **row
                    )
                )


if __name__ == "__main__":
    main()
