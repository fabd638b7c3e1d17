"""What the stages of a frame beside the engine cost: CPU time of one thread, for benchmarks.frame_cost.

    python benchmarks/frame_stages.py TREE record BUNDLE VARIANT CLIP OUTPUTS.npz     the engine's outputs of each frame
    python benchmarks/frame_stages.py TREE stages BUNDLE VARIANT CLIP OUTPUTS.npz     {stage: microseconds} as JSON
    python benchmarks/frame_stages.py TREE serve OUTPUTS.npz ARGS…                    `jetson serve` on those outputs

TREE is the working tree whose `jetson` is measured; this file only calls what older trees have too. `serve` runs the
whole service with an engine that answers at once with what was recorded, so that its CPU time is that of all else.
Runs under Python 3.6.
"""

import hashlib
import inspect
import json
import math
import sys
import time
from typing import Any, Callable, Dict, List


def frames_of(clip: str) -> List[Any]:
    """All frames of a clip."""
    import cv2

    capture = cv2.VideoCapture(clip)
    frames: List[Any] = []
    while True:
        good, frame = capture.read()
        if not good:
            return frames
        frames.append(frame)


def recorded(path: str) -> List[Dict[str, Any]]:
    """[{name: array}], a dict for each frame."""
    import numpy as np

    with np.load(path) as file:
        names = sorted({key.partition(" ")[2] for key in file.files})
        count = len(file.files) // len(names)
        return [{name: file[f"{number} {name}"] for name in names} for number in range(count)]


def record(bundle: str, variant: str, clip: str, path: str) -> None:
    import numpy as np

    from jetson.inference.detector import open_detector

    found: Dict[str, Any] = {}
    with open_detector(bundle, variant, "onnxruntime") as detector:
        for number, frame in enumerate(frames_of(clip)):
            blob, _ = detector.prepare(frame)
            for name, value in detector.infer(blob).items():
                found[f"{number} {name}"] = value.copy()
    save: Any = np.savez
    save(path, **found)


def stages(bundle: str, variant: str, clip: str, path: str) -> None:
    import cv2
    import numpy as np

    from jetson.bundle import manifest
    from jetson.inference import detector
    from jetson.inference.histogram import Histogram
    from jetson.tracking import tracker, zones
    from jetson.vision import boxes, letterbox

    cv2.setNumThreads(1)
    contents = manifest.load(bundle)
    recipe, wh = contents.decode, contents.variant(variant).input_wh
    frames, outputs = frames_of(clip), recorded(path)
    out = np.empty((1, 3, wh[1], wh[0]), np.float32)
    frame_wh = (frames[0].shape[1], frames[0].shape[0])
    _, scale = letterbox.letterbox(frames[0], wh, out)
    low = tracker.LOW_SCORE
    clock = (
        time.thread_time if hasattr(time, "thread_time") else lambda: time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
    )
    digest = hashlib.sha256()
    spent: Dict[str, float] = {}

    def timed(name: str, count: int, work: Callable[[], Any]) -> None:
        best = math.inf
        for _ in range(5):
            began = clock()
            work()
            best = min(best, clock() - began)
        spent[name] = 1e6 * best / count

    # A buffer that is used again, as in the runner: newer trees are told that its padding is there already.
    known = "filled" in inspect.signature(letterbox.letterbox).parameters
    again = (letterbox.fit(frame_wh, wh),) if known else ()

    def letterboxes() -> None:
        for frame in frames:
            letterbox.letterbox(frame, wh, out, *again)

    def decodes() -> None:
        for one in outputs:
            boxes.decode(one, recipe, low * boxes.VOTE_SHARE)

    def finds() -> None:
        for one in outputs:
            detector.find(one, recipe, frame_wh, scale, low)

    found = [detector.find(one, recipe, frame_wh, scale, low) for one in outputs]
    for faces in found:
        digest.update(faces.xyxy.tobytes() + faces.scores.tobytes())
    for frame in frames:
        letterbox.letterbox(frame, wh, out)
        digest.update(out.tobytes())

    def tracks(note: Any = None) -> float:
        made = tracker.Tracker(recipe["score"])
        counter = zones.Counter(zones.parse(ZONES))
        spent_zones = 0.0
        for number, faces in enumerate(found):
            events = made.update(faces.xyxy, faces.scores, number / 30)
            shown = made.visible(number / 30)
            began = clock()
            passed = counter.update(made.tracks, frame_wh, number / 30)
            spent_zones += clock() - began
            if note is not None:
                note.update(repr((events, passed)).encode())
                for one in shown:
                    note.update(one.xyxy.tobytes() + np.asarray(one.votes).tobytes())
        return spent_zones

    tracks(digest)
    timed("letterbox", len(frames), letterboxes)
    timed("decode", len(outputs), decodes)
    timed("decode, suppress, merge", len(outputs), finds)
    spent["zones"] = 1e6 * min(tracks() for _ in range(5)) / len(found)
    timed("track and zones", len(found), tracks)
    histogram = Histogram()

    def histograms() -> None:
        for number in range(1000):
            for _ in range(6):
                histogram.add(number * 0.01)

    timed("histograms", 1000, histograms)
    print(json.dumps({"stages": spent, "sha256": digest.hexdigest(), "frames": len(frames)}))


ZONES = "line 0 door 0.5,0 0.5,1\npolygon 0 left 0,0 0.5,0 0.5,1 0,1\npolygon 0 right 0.5,0 1,0 1,1 0.5,1\n"


def serve(path: str, arguments: List[str]) -> int:
    from jetson import cli
    from jetson.__main__ import VERBS
    from jetson.engine import onnx
    from jetson.inference import isolated

    outputs = recorded(path)
    calls = [0]

    def infer(self: Any, image: Any = None) -> Dict[str, Any]:
        calls[0] += 1
        self.timings = {"infer_ms": 0.0}
        return outputs[calls[0] % len(outputs)]

    setattr(onnx.OnnxEngine, "infer", infer)  # noqa: B010
    setattr(isolated, "holds_the_lock", lambda runtime: False)  # noqa: B010
    # (the engine that is left out is in this process)
    return cli.main(["serve"] + arguments, "python3 -m jetson", VERBS)


if __name__ == "__main__":
    tree, what = sys.argv[1:3]
    sys.path[0] = tree
    if what == "serve":
        sys.exit(serve(sys.argv[3], sys.argv[4:]))
    {"record": record, "stages": stages}[what](*sys.argv[3:])
