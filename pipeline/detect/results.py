"""What `jetmask detect` writes: one line of JSON a photograph or frame, and the forms that other tools read."""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jetson import files
from jetson.errors import BadInput
from jetson.inference.detector import Faces

LINES = "detections.jsonl"
SETTINGS = "detect.json"


FOLDERS = ("pictures", "videos", "labels", "crops")


def sweep(out: str) -> None:
    """Remove the half files that killed processes left below `out`: NAME.PID.part, and NAME.PID.part.mp4 of videos."""
    for folder in FOLDERS:
        for here, _, names in os.walk(os.path.join(out, folder)):
            for name in names:
                if re.search(r"\.\d+\.part(\.mp4)?$", name):
                    os.unlink(os.path.join(here, name))


def row(name: str, wh: tuple[int, int], faces: Faces, names: Sequence[str], **more: Any) -> dict[str, Any]:
    """One line: the file, its size, and its faces, best first, boxes as left, top, right, bottom in pixels.

    A photograph that EXIF turns is told as it is seen: `width`, `height` and boxes are of the upright picture.
    """
    return {
        "file": name,
        **more,
        "width": wh[0],
        "height": wh[1],
        "faces": [
            {
                "class": names[label],
                "score": round(float(score), 4),
                "xyxy": [round(float(v), 1) for v in xyxy],
            }
            for xyxy, label, score in zip(faces.xyxy, faces.labels, faces.confidence, strict=True)
        ],
    }


def as_yolo(line: Mapping[str, Any], names: Sequence[str]) -> str:
    """A YOLO label file: class number, centre and size as shares of the picture, and the score, one face a line."""
    width, height = line["width"], line["height"]
    rows = []
    for face in line["faces"]:
        x0, y0, x1, y1 = face["xyxy"]
        box = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
        rows.append(" ".join([str(names.index(face["class"])), *(f"{v:.6f}" for v in box), f"{face['score']:.4f}"]))
    return "".join(text + "\n" for text in rows)


def as_coco(lines: Iterator[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The photographs' faces as a COCO file with a score beside each box; `jetmask data import` reads it."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for line in lines:
        if "error" in line or "frame" in line:
            continue
        number = len(images) + 1
        images.append({"id": number, "file_name": line["file"], "width": line["width"], "height": line["height"]})
        for face in line["faces"]:
            x0, y0, x1, y1 = face["xyxy"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": names.index(face["class"]) + 1,
                    "bbox": [x0, y0, round(x1 - x0, 1), round(y1 - y0, 1)],
                    "area": round((x1 - x0) * (y1 - y0), 1),
                    "iscrowd": 0,
                    "score": face["score"],
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def read_lines(path: str) -> Iterator[dict[str, Any]]:
    """The lines of a detections.jsonl."""
    with open(path, encoding="utf-8") as file:
        for text in file:
            yield json.loads(text)


_PART = re.compile(r"\.(\d+)\.part(\.mp4)?$")  # pipeline/detect/worker.py writes these, then renames them


def _sweep(folder: str) -> None:
    """Remove half pictures, labels and videos that killed workers left; those of living processes stay."""
    for place, _, names in os.walk(folder):
        for name in names:
            found = _PART.search(name)
            if found and not files.is_alive(int(found.group(1))):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(place, name))


class Log:
    """The lines of a run, appended as they come. A run that ended early goes on: what is there is not done again.

    `settings`: what the results depend on. BadInput where the folder holds the results of other settings.
    """

    def __init__(self, folder: str, settings: Mapping[str, Any]) -> None:
        self.path = os.path.join(folder, LINES)
        path = os.path.join(folder, SETTINGS)
        if os.path.exists(path):
            before = files.read_json(path)
            other = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
            if other:
                told = "; ".join(f"{key}: {before.get(key)!r}, now {settings.get(key)!r}" for key in other)
                raise BadInput(
                    f"the folder has results of other settings ({told})",
                    folder,
                    "the same settings, to resume",
                    "name another folder with --out, or give --restart to start again",
                )
        else:
            files.write_json(path, dict(settings))
        _sweep(folder)
        self.done = self._whole_lines()
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115  (kept open for the whole run)

    def _whole_lines(self) -> set[str]:
        """Files whose results are there; a line that a kill cut off is removed, and a video's frames before it too."""
        done: set[str] = set()
        if not os.path.exists(self.path):
            return done
        kept, waiting, end = 0, "", 0
        with open(self.path, "rb") as file:
            for raw in file:
                end += len(raw)
                line = None
                if raw.endswith(b"\n"):
                    with contextlib.suppress(ValueError):
                        line = json.loads(raw)
                if line is None:
                    break
                # A video is done with its last frame, which says so.
                if "frame" in line and not line.get("last"):
                    waiting = line["file"]
                    continue
                waiting = ""
                kept = end
                done.add(line["file"])
        if kept < os.path.getsize(self.path) or waiting:
            os.truncate(self.path, kept)
        return done

    def add(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append the lines of one photograph or video; they are in the file when this returns."""
        self._file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
