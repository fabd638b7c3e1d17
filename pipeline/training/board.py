"""What TensorBoard shows of a training: losses, learning rate, AP per class, sample pictures. In logs/ of its folder.

Keras' own callback writes losses of steps or of epochs, not both, and knows nothing of AP and pictures.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from jetson.bundle.classes import Classes
from jetson.inference.detector import Faces
from pipeline.models.decode import DECODE

EVERY = 50  # steps between two points of a step's loss
PICTURES = 6
SIDE = 480  # px, the longer one


class Board(keras.callbacks.Callback):
    """Writes events for TensorBoard. samples(): [(frame, truth boxes, Faces)] of some validation photographs; asked
    after an epoch that was validated."""

    def __init__(
        self,
        folder: Path,
        classes: Classes,
        samples: Callable[[], Sequence[tuple[np.ndarray, np.ndarray, Faces]]],
        steps: int,
        done: int = 0,
    ) -> None:
        super().__init__()
        self.folder, self.classes, self.samples = folder, classes, samples
        self.steps, self.at = steps, done * steps
        self.writer: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.writer = EventFileWriter(str(self.folder))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.at += 1
        if self.at % EVERY == 0:
            self._scalars({f"step/{key}": float(value) for key, value in (logs or {}).items()}, self.at)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._scalars({tag: value for tag, value in tags(logs or {}).items() if value is not None}, epoch + 1)
        if (logs or {}).get("val_map50") is not None:
            for number, (frame, truth, faces) in enumerate(self.samples()):
                self._picture(f"val/{number}", drawn(frame, truth, faces, self.classes), epoch + 1)
        self.writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left and close the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]), step)

    def _picture(self, tag: str, image: np.ndarray, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        _, data = cv2.imencode(".png", image)
        shown = Summary.Image(
            height=image.shape[0], width=image.shape[1], colorspace=3, encoded_image_string=data.tobytes()
        )
        self._write(Summary(value=[Summary.Value(tag=tag, image=shown)]), step)

    def _write(self, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def tags(logs: Mapping[str, Any]) -> dict[str, float | None]:
    """The names that TensorBoard groups by, from an epoch's logs."""
    known = {"cls_loss": "loss/class", "box_loss": "loss/box", "learning_rate": "learning_rate"}
    known |= {"val_map50": "val/mAP50", "val_loss": "val/loss", "val_precision": "val/precision"}
    known |= {"val_recall": "val/recall"}
    out = {tag: logs.get(key) for key, tag in known.items()}
    prefix = "val_ap_"
    out.update({"AP/" + key[len(prefix) :]: value for key, value in logs.items() if key.startswith(prefix)})
    return out


def drawn(frame: np.ndarray, truth: np.ndarray, faces: Faces, classes: Classes) -> np.ndarray:
    """A photograph, uint8 (h, w, 3) BGR, with its labelled boxes in white and what is found in the classes' colours."""
    scale = SIDE / max(frame.shape[:2])
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    image = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    for box in truth:
        x0, y0, x1, y1 = (round(float(v) * scale) for v in box)
        cv2.rectangle(image, (x0 - 1, y0 - 1), (x1 + 1, y1 + 1), (255, 255, 255), 1, cv2.LINE_AA)
    colours = classes.colours()
    for box, label, score in zip(faces.xyxy, faces.labels, faces.confidence, strict=True):
        if score >= DECODE["score"]:
            x0, y0, x1, y1 = (round(float(v) * scale) for v in box)
            cv2.rectangle(image, (x0, y0), (x1, y1), colours[int(label)], 2, cv2.LINE_AA)
    return image
