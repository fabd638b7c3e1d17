"""Judging a Keras model on a labelled split: AP, precision and recall, loss. The metric is the device's."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jetson.bundle.classes import Classes
from jetson.evaluation import average_precision
from jetson.inference.detector import Faces, find
from jetson.vision import letterbox
from pipeline.models.classes import classes_of
from pipeline.models.decode import DECODE
from pipeline.models.detector import STRIDES
from pipeline.training import dataset
from pipeline.training.losses import detection_loss

NAMES = [f"{kind}_{int(s)}" for s in STRIDES for kind in ("cls", "box")]  # the outputs, in their order
FEW = 0.01  # scores at or under this do not count in the metric
BATCH = 8


def predict(net: Any, photos: Sequence[dataset.Photo], input_wh: Sequence[int], batch: int = BATCH) -> list[Faces]:
    """Faces of every photo by a Keras model, boxes in photo pixels, scores (N, C); the plain way that training
    validates by. Decoding and NMS are the device's."""
    return [faces for faces, _ in _answers(net, photos, input_wh, batch)]


def _answers(
    net: Any, photos: Sequence[dataset.Photo], input_wh: Sequence[int], batch: int, with_loss: bool = False
) -> Iterator[tuple[Faces, float]]:
    width, height = input_wh
    for start in range(0, len(photos), batch):
        part = photos[start : start + batch]
        frames = [photo.image() for photo in part]
        boxed = [letterbox.letterbox(frame, (width, height)) for frame in frames]
        x = np.concatenate([blob for blob, _ in boxed]).transpose(0, 2, 3, 1)
        raw = net.predict_on_batch(x)
        loss = _loss(raw, part, [scale for _, scale in boxed]) if with_loss else 0.0
        outputs = [np.asarray(o).transpose(0, 3, 1, 2) for o in raw]
        for i, (frame, (_, scale)) in enumerate(zip(frames, boxed, strict=True)):
            found = {n: o[i : i + 1] for n, o in zip(NAMES, outputs, strict=True)}
            yield find(found, DECODE, (frame.shape[1], frame.shape[0]), scale, FEW), loss


def _loss(outputs: Sequence[Any], photos: Sequence[dataset.Photo], scales: Sequence[tuple[float, float]]) -> float:
    """The training's loss of one batch, class and box together."""
    factors = [np.array([*scale, *scale], np.float32) for scale in scales]
    boxes = dataset.pad([photo.boxes * f for photo, f in zip(photos, factors, strict=True)], 0)
    ignore = dataset.pad([photo.ignore * f for photo, f in zip(photos, factors, strict=True)], 0)
    labels = dataset.pad([photo.labels for photo in photos], -1)
    return float(sum(detection_loss(outputs, boxes, labels, ignore)))


class Judged(NamedTuple):
    """`result`: of average_precision.evaluate, with precision, recall (shares 0..1 over the counted classes, at the
    bundle's usual threshold) and loss added; `faces`: per photograph."""

    result: dict[str, Any]
    faces: list[Faces]


class Judge:
    """The photographs of one split and what is measured on them."""

    def __init__(self, split_dir: str | Path, input_wh: Sequence[int], classes: Classes) -> None:
        self.classes, self.input_wh = classes, tuple(input_wh)
        self.truths = average_precision.load_split(str(split_dir), classes.names)
        self.photos = [
            dataset.Photo(
                Path(t.file),
                t.xyxy.astype(np.float32),
                t.labels.astype(np.int32),
                t.ignore.astype(np.float32),
                t.wh,
            )
            for t in self.truths
        ]

    def find(self, net: Any) -> list[Faces]:
        """What a model finds in each photograph."""
        return predict(net, self.photos, self.input_wh)

    def judge(self, net: Any) -> Judged:
        """AP, precision, recall and loss of a model."""
        answers = list(_answers(net, self.photos, self.input_wh, BATCH, with_loss=True))
        faces = [found for found, _ in answers]
        result = average_precision.evaluate(self.truths, faces, self.classes.names)
        result["loss"] = float(np.mean([loss for _, loss in answers])) if answers else None
        result.update(self._at_threshold(faces))
        return Judged(result, faces)

    def _at_threshold(self, faces: Sequence[Faces]) -> dict[str, float | None]:
        scored, ignored = average_precision.scheme(self.classes.names)
        parts = [average_precision.tally(self.truths, faces, label, ignored) for label in scored]
        shown = [part.scores >= DECODE["score"] for part in parts]
        hits = sum(int(part.hit[seen].sum()) for part, seen in zip(parts, shown, strict=True))
        count = sum(int(seen.sum()) for seen in shown)
        positives = sum(int(part.positives.sum()) for part in parts)
        return {"precision": hits / count if count else None, "recall": hits / positives if positives else None}

    def interval(self, faces: Sequence[Faces]) -> tuple[float, float] | None:
        """95 % bounds of the figure, by a bootstrap over the photographs."""
        return average_precision.interval(self.truths, faces, self.classes.names)


def validate(net: Any, split_dir: str | Path, input_wh: Sequence[int]) -> dict[str, Any]:
    """The metric of jetson/evaluation/average_precision.py for a Keras model on a split folder."""
    classes = classes_of(net)
    truths = average_precision.load_split(str(split_dir), classes.names)
    photos = [dataset.Photo(Path(t.file), np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4)), t.wh) for t in truths]
    return average_precision.evaluate(truths, predict(net, photos, input_wh), classes.names)
