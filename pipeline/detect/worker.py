"""One photograph or video to its lines and pictures: what each process of `jetmask detect` does."""

import os
import signal
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from jetson.bundle import manifest
from jetson.inference.detector import Detector, Faces, open_detector
from jetson.web import picture
from pipeline.data import imagefile
from pipeline.detect import drawing, processes, results
from pipeline.detect.inputs import Item


@dataclass(frozen=True)
class Settings:
    """What is detected with, and what is written. `score`: None for the bundle's own threshold."""

    bundle: str
    variant: str
    runtime: str
    out: str
    score: float | None = None
    threads: int = 1
    pictures: bool = True
    txt: bool = False
    crops: bool = False
    blur: bool = False


class Worker:
    """A detector with the folders that it writes to."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._made: set[str] = set()
        self.classes = manifest.load(settings.bundle).class_list
        self.names = list(self.classes.names)
        self.detector: Detector = open_detector(settings.bundle, settings.variant, settings.runtime, settings.threads)

    def close(self) -> None:
        """Close the detector."""
        self.detector.close()

    def run(self, item: Item) -> list[dict[str, Any]]:
        """The lines of one item: one for a photograph, one a frame for a video; one with `error` where it cannot be
        read."""
        return self._video(item) if item.video else [self._photo(item)]

    def _photo(self, item: Item) -> dict[str, Any]:
        try:
            with open(item.path, "rb") as file:
                data = file.read()
        except OSError as error:
            return {"file": item.name, "error": f"cannot be read: {error.strerror}"}
        more = {}
        try:
            imagefile.whole(data)
        except imagefile.BrokenImage as error:
            more["warning"] = f"the file {error}"
        try:
            frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        except cv2.error:  # more pixels than OpenCV is willing to decode
            frame = None
        if frame is None:
            return {"file": item.name, "error": more.get("warning", "it cannot be decoded")}
        faces = self.detector.detect(frame, self.settings.score)
        line = results.row(item.name, frame.shape[1::-1], faces, self.names, **more)
        if self.settings.txt:
            self._write("labels", os.path.splitext(item.name)[0] + ".txt", results.as_yolo(line, self.names).encode())
        if self.settings.crops:
            self._crops(item.name, frame, faces)
        if self.settings.pictures:
            self._show(frame, faces)
            self._write("pictures", _as_jpeg(item.name), drawing.as_jpeg(frame))
        return line

    def _show(self, frame: np.ndarray, faces: Faces) -> None:
        if self.settings.blur:
            picture.blur(frame, faces.xyxy)
        drawing.draw(frame, faces, self.names, self.classes)

    def _crops(self, name: str, frame: np.ndarray, faces: Faces) -> None:
        for number, (xyxy, label) in enumerate(zip(faces.xyxy, faces.labels, strict=True), 1):
            cut = drawing.crop(frame, xyxy).copy()
            if self.settings.blur:
                picture.blur(cut, np.array([[0, 0, cut.shape[1], cut.shape[0]]]))
            folder = os.path.join("crops", self.names[label])
            self._write(folder, f"{os.path.splitext(name)[0]}-{number}.jpg", drawing.as_jpeg(cut))

    def _video(self, item: Item) -> list[dict[str, Any]]:
        capture = cv2.VideoCapture(item.path)
        lines: list[dict[str, Any]] = []
        writer: cv2.VideoWriter | None = None
        target = os.path.join(self.settings.out, "videos", os.path.splitext(item.name)[0] + ".mp4")
        part = f"{target}.{os.getpid()}.part.mp4"
        try:
            if not capture.isOpened():
                return [{"file": item.name, "error": "it cannot be decoded as a video"}]
            fps = capture.get(cv2.CAP_PROP_FPS) or 25.0
            announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            while True:
                good, frame = capture.read()
                if not good:
                    break
                at_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
                faces = self.detector.detect(frame, self.settings.score)
                seconds = round(at_ms / 1000, 3)
                name = f"{item.name}#{len(lines):06d}"
                line = results.row(item.name, frame.shape[1::-1], faces, self.names, frame=len(lines), time_s=seconds)
                lines.append(line)
                if self.settings.crops:
                    self._crops(name.replace("#", "-"), frame, faces)
                if self.settings.pictures:
                    self._show(frame, faces)
                    if writer is None:
                        os.makedirs(os.path.dirname(target), exist_ok=True)
                        writer = cv2.VideoWriter(part, cv2.VideoWriter.fourcc(*"mp4v"), fps, frame.shape[1::-1])
                    writer.write(frame)
            if writer is not None:
                writer.release()
                os.replace(part, target)
        finally:
            capture.release()
            if writer is not None:
                writer.release()
            if os.path.exists(part):  # an error on the way: no half video stays
                os.unlink(part)
        if not lines:
            return [{"file": item.name, "error": "no frame of it can be decoded"}]
        # Containers announce a frame more or less than they hold; a tenth less is a file that breaks off.
        if announced > 0 and len(lines) < 0.9 * announced:
            lines[-1]["warning"] = f"it breaks off after {len(lines)} of {announced} frames"
        lines[-1]["last"] = True
        return lines

    def _write(self, folder: str, name: str, data: bytes) -> None:
        # Renamed, so that no half picture is left; not synced: it can be made again, and a sync costs more than a face.
        path = os.path.join(self.settings.out, folder, name)
        if os.path.dirname(path) not in self._made:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._made.add(os.path.dirname(path))
        part = f"{path}.{os.getpid()}.part"
        try:
            with open(part, "wb") as file:
                file.write(data)
            os.replace(part, path)
        except OSError:
            if os.path.exists(part):
                os.unlink(part)
            raise


def _as_jpeg(name: str) -> str:
    """The name of a photograph's picture: its own, with .jpg added to what does not end so (a.png beside a.jpg)."""
    return name if name.lower().endswith(".jpg") else name + ".jpg"


_worker: Worker | None = None


def start(settings: Settings) -> None:
    """Begin as a process of a pool: Ctrl-C is the parent's to answer, and whoever kills it kills this too."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    processes.end_with_parent()
    cv2.setNumThreads(1)
    _worker = Worker(settings)


def work(items: list[Item]) -> list[list[dict[str, Any]]]:
    """The lines of each item, in a process that `start` began."""
    assert _worker is not None
    return [_worker.run(item) for item in items]


class Each:
    """The lines of one item after the other, by a worker of a cluster."""

    def __init__(self, settings: Settings) -> None:
        self.worker = Worker(settings)

    def __call__(self, item: Item) -> list[dict[str, Any]]:
        return self.worker.run(item)
