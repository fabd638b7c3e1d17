"""CPU time that pictures and clips of events cost for each frame, by the threads that pay it.

    python -m benchmarks.recording [--frames 1500] [--write]

Drawn scenes of 1280x720 at 25 frames/s pass the recorder as fast as it takes them; its clock goes by the frames.
`inferring_ms` is what the thread of the results pays, `own_ms` the recorder's thread, both divided by all frames of the
camera; files go to a folder in memory where there is one. Rows replace benchmarks/results/recording.csv.
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
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.machine import describe
from jetson import files
from jetson.config.settings import NO_CLIPS, ClipSettings
from jetson.events.media import Media
from jetson.serve.recorder import Recorder
from jetson.synthetic.scene import Scene
from jetson.web.picture import Studio

OUT = Path(__file__).parent / "results" / "recording.csv"
WH, FPS = (1280, 720), 25.0
FIELDS = ("what", "frames", "inferring_ms", "own_ms", "ring_mb", "commit", "date", "machine", "load")
CASES = {
    "pictures crop": ("crop", NO_CLIPS, False),
    "pictures frame": ("frame", NO_CLIPS, False),
    "clips 5+5 s, 5 frames/s, 640 px": ("off", ClipSettings(), False),
    "clips, blurred": ("off", ClipSettings(), True),
    "pictures frame and clips, blurred": ("frame", ClipSettings(), True),
}


def measure(pictures: str, clips: ClipSettings, blurred: bool, count: int) -> dict[str, Any]:
    """One case: milliseconds of CPU a frame. A person of two seconds at each, an alert each ten."""
    scene = Scene(1, WH)
    images = [scene.frame(number / 2.0)[0] for number in range(20)]
    now = [0.0]
    offered = own = 0.0
    ring = 0
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    studio = Studio(1, lambda *args: None)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        recorder = Recorder(Media(folder), studio, clips, blurred, lambda: now[0])
        recorder.film(0, pictures, True)
        view = SimpleNamespace(camera=SimpleNamespace(index=0))
        for number in range(count):
            person, step = divmod(number, int(2 * FPS))
            side = 60.0 + 2 * step  # it comes nearer, so that its picture becomes better now and then
            box = np.array([600.0, 200.0, 600.0 + side, 200.0 + side])
            track = SimpleNamespace(
                confirmed=True, seen=0.0, number=person, confidence=0.9, box=box, xyxy=box, predict=lambda at, b=box: b
            )
            faces = SimpleNamespace(xyxy=box[None], confidence=np.array([0.9]))
            result: Any = SimpleNamespace(tracks=[track], faces=faces, at=0.0)
            frame: Any = SimpleNamespace(image=images[number % len(images)])
            began = time.thread_time()
            if not step:
                recorder.enter(0, person, 1.79e9 + now[0])
            recorder.offer(view, frame, result)  # type: ignore[arg-type]
            if step == int(2 * FPS) - 1:
                recorder.leave(0, person)
            middle = time.thread_time()
            if number % int(10 * FPS) == int(5 * FPS):
                recorder.alert(0, None, 1.79e9 + now[0])
            while recorder.work():
                pass
            offered += middle - began
            own += time.thread_time() - middle
            now[0] += 1.0 / FPS
            ring = max(ring, recorder.ring_bytes())
    studio.stop()
    return {
        "inferring_ms": f"{offered / count * 1e3:.3f}",
        "own_ms": f"{own / count * 1e3:.3f}",
        "ring_mb": f"{ring / 1e6:.1f}",
    }


def main() -> int:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    common = {
        "frames": args.frames,
        "commit": os.popen("git rev-parse --short HEAD").read().strip(),
        "date": date.today().isoformat(),
        "machine": describe("numpy"),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    handle = io.StringIO()
    writer = csv.DictWriter(handle, FIELDS, lineterminator="\n")
    writer.writeheader()
    for name, case in CASES.items():
        writer.writerow({"what": name, **measure(*case, args.frames), **common})
    print(handle.getvalue(), end="")
    if args.write:
        files.write_text(str(OUT), handle.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
