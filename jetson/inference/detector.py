"""The one way from a frame to faces: letterbox, engine, decoding, suppression, merging. All callers go through here."""

import time
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from jetson.bundle import manifest
from jetson.engine import open_engine
from jetson.vision import boxes, letterbox


class Faces(NamedTuple):
    """Faces of one frame, best first: `xyxy` float32 (N, 4) in frame pixels, `scores` float32 (N, C) per class."""

    xyxy: np.ndarray
    scores: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The class shown for each face, int (N,): the one that scores best."""
        return self.scores.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The best class score of each face, float32 (N,)."""
        return self.scores.max(axis=1)

    def __len__(self) -> int:
        return len(self.xyxy)


def find(
    outputs: Mapping[str, np.ndarray],
    recipe: Mapping[str, Any],
    frame_wh: Tuple[int, int],
    scale: Tuple[float, float],
    score: float,
) -> Faces:
    """Faces over `score`, in frame pixels, from the network's outputs (jetson.vision.boxes.decode says their shapes).

    `recipe`: the manifest's `decode`; `frame_wh`: the frame's size; `scale` (x, y): as `prepare` gives it.

    What is found over a score does not depend on the score that was asked for.
    """
    return find_in(pick(outputs, recipe, score), recipe, frame_wh, scale, score)


def pick(outputs: Mapping[str, np.ndarray], recipe: Mapping[str, Any], score: float) -> boxes.Cells:
    """The cells that faces over `score` are made of: a copy, and all that `find_in` needs of a network's outputs."""
    return boxes.pick(outputs, recipe, score if recipe.get("vote_iou") is None else score * boxes.VOTE_SHARE)


def find_in(
    picked: boxes.Cells, recipe: Mapping[str, Any], frame_wh: Tuple[int, int], scale: Tuple[float, float], score: float
) -> Faces:
    """`find`, from the cells that `pick` found over the same score."""
    vote_iou = recipe.get("vote_iou")
    xyxy, scores = boxes.decode_cells(picked)
    if not len(xyxy):
        return Faces(xyxy, scores)
    # Suppression works on the boxes as they are shown; what lies wholly in the padding clips to nothing.
    xyxy = letterbox.to_frame(xyxy, scale, frame_wh)
    inside = xyxy[:, 2:] > xyxy[:, :2]
    if not inside.all():
        whole = inside.all(axis=1)
        xyxy, scores = xyxy[whole], scores[whole]
    best = np.maximum.reduce(scores, 1)
    shown = int(np.count_nonzero(best > score))  # the first, for the best come first
    if not shown:
        return Faces(xyxy[:0], scores[:0])
    kept = boxes.suppress(xyxy[:shown], recipe["iou"], recipe["max_detections"])
    if vote_iou is None:
        return Faces(xyxy[kept], scores[kept])
    xyxy, scores = boxes.merge(xyxy, scores, kept, vote_iou, best)
    return Faces(letterbox.to_frame(xyxy, (1, 1), frame_wh), scores)  # a mean may round to beyond the edge


class Detector:
    """An engine with its decoding recipe.

    `detect` does it all; `prepare`, `infer` and `finish` are its three steps, for a caller that overlaps them.
    `timings` holds preprocess_ms, infer_ms and postprocess_ms of the last call of each.
    """

    def __init__(self, engine: Any, decode: Mapping[str, Any]) -> None:
        self.engine = engine
        self.decode = decode
        self._inputs = list(getattr(engine, "spare_inputs", []))
        self._submitted = None  # type: Optional[np.ndarray]
        self.timings = {"preprocess_ms": 0.0, "infer_ms": 0.0, "postprocess_ms": 0.0}  # type: Dict[str, float]

    @property
    def input_wh(self) -> Tuple[int, int]:
        """The network's input size in pixels."""
        return self.engine.input_wh

    def detect(self, frame: np.ndarray, score: Optional[float] = None) -> Faces:
        """The faces in `frame`, uint8 (h, w, 3) BGR, that score over `score` (default: the manifest's)."""
        _, scale = self.prepare(frame, self.engine.input)
        return self.finish(self.infer(), (frame.shape[1], frame.shape[0]), scale, score)

    def borrow_input(self) -> np.ndarray:
        """A buffer to `prepare` into, float32 (1, 3, h, w), for one who prepares a frame while another is inferred."""
        if self._inputs:
            return self._inputs.pop()
        return np.empty((1, 3, self.input_wh[1], self.input_wh[0]), np.float32)

    def return_input(self, blob: np.ndarray) -> None:
        """A borrowed buffer is free again."""
        self._inputs.append(blob)

    def prepare(
        self, frame: np.ndarray, out: Optional[np.ndarray] = None, filled: Optional[Tuple[int, int]] = None
    ) -> Tuple[np.ndarray, Tuple[float, float]]:
        """Letterbox `frame`, uint8 (h, w, 3) BGR, into `out`, float32 (1, 3, H, W) (made when None).

        Gives the blob and the scale (x, y), input pixels for one of the frame, that `finish` needs.
        `filled`: see jetson.vision.letterbox.letterbox.
        """
        started = time.perf_counter()
        result = letterbox.letterbox(frame, self.engine.input_wh, out, filled)
        self.timings["preprocess_ms"] = (time.perf_counter() - started) * 1e3
        return result

    def infer(self, blob: Optional[np.ndarray] = None) -> Dict[str, np.ndarray]:
        """The outputs {name: float32 (1, C, h, w)} on `blob`, float32 (1, 3, H, W) (default: the engine's buffer)."""
        started = time.perf_counter()
        outputs = self.engine.infer(blob)
        self.timings["infer_ms"] = (time.perf_counter() - started) * 1e3
        return outputs

    @property
    def ahead(self) -> bool:
        """Whether an image can be given to the engine while it computes another."""
        return hasattr(self.engine, "submit")

    def submit(self, blob: np.ndarray) -> None:
        """Begin with `blob`; `collect` waits for it. Where the engine is not `ahead`, it begins only then."""
        if self.ahead:
            self.engine.submit(blob)
        else:
            self._submitted = blob

    def collect(self) -> Dict[str, np.ndarray]:
        """The outputs of what was submitted first."""
        if not self.ahead:
            return self.infer(self._submitted)
        started = time.perf_counter()
        outputs = self.engine.collect()
        self.timings["infer_ms"] = (time.perf_counter() - started) * 1e3
        return outputs

    def pick(self, outputs: Mapping[str, np.ndarray], score: float) -> boxes.Cells:
        """What `finish_picked` needs of `outputs`, which the engine overwrites with the next inference."""
        return pick(outputs, self.decode, score)

    def finish_picked(
        self, picked: boxes.Cells, frame_wh: Tuple[int, int], scale: Tuple[float, float], score: float
    ) -> Faces:
        """`finish`, of what was picked over the same score."""
        return find_in(picked, self.decode, frame_wh, scale, score)

    def finish(
        self,
        outputs: Mapping[str, np.ndarray],
        frame_wh: Tuple[int, int],
        scale: Tuple[float, float],
        score: Optional[float] = None,
    ) -> Faces:
        """Decode and suppress; boxes xyxy (N, 4) in frame pixels, clipped to the frame."""
        started = time.perf_counter()
        recipe = self.decode
        faces = find(outputs, recipe, frame_wh, scale, recipe["score"] if score is None else score)
        self.timings["postprocess_ms"] = (time.perf_counter() - started) * 1e3
        return faces

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def __enter__(self) -> "Detector":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def open_detector(
    bundle_dir: str, variant: Optional[str] = None, runtime: Optional[str] = None, threads: int = 1
) -> Detector:
    """The detector of a bundle's variant (default: its default one), on `runtime` or the first that is here."""
    contents = manifest.load(bundle_dir)
    chosen = contents.variant(variant)
    return Detector(open_engine(bundle_dir, contents, chosen, runtime, threads), contents.decode)
