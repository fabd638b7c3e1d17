"""Pictures with the detections drawn on them, for a report."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jetson import files
from jetson.bundle.classes import MASK_CLASSES, Classes


def numbered(classes: Classes) -> list[str]:
    """What stands before each class's name and score: nothing, or its number where several have the same colour."""
    alike = len(set(classes.colours())) < len(classes.names)
    return [f"{number} " if alike else "" for number in range(1, len(classes.names) + 1)]


def contact_sheet(
    folder: str | os.PathLike,
    pictures: Iterable[tuple[np.ndarray, Any, str]],
    group: str = "",
    side: int = 560,
    classes: Classes = MASK_CLASSES,
    missed: Sequence[np.ndarray] = (),
) -> list[dict[str, str]]:
    """Draw detections and keep the pictures under `folder`/detections; returns a report's "detections".

    pictures: (frame uint8 (h, w, 3) BGR, Faces in pixels of it, caption). Small frames are enlarged and large ones
    reduced to `side` pixels, so that boxes and names can be read. missed: for each picture, labelled boxes (N, 4) that
    nothing was found on, drawn in white.
    """
    folder = Path(folder)
    (folder / "detections").mkdir(parents=True, exist_ok=True)
    names, colours, marks = classes.words(), classes.colours(), numbered(classes)
    out = []
    for number, (frame, faces, caption) in enumerate(pictures):
        scale = side / max(frame.shape[:2])
        size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
        image = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        counts = [0] * len(names)
        for box in missed[number] if number < len(missed) else ():
            x0, y0, x1, y1 = (round(float(v) * scale) for v in box)
            cv2.rectangle(image, (x0, y0), (x1, y1), (20, 20, 20), 3, cv2.LINE_AA)
            cv2.rectangle(image, (x0, y0), (x1, y1), (255, 255, 255), 1, cv2.LINE_AA)
        for box, label, confidence in zip(faces.xyxy, faces.labels, faces.confidence, strict=True):
            counts[int(label)] += 1
            x0, y0, x1, y1 = (round(float(v) * scale) for v in box)
            cv2.rectangle(image, (x0, y0), (x1, y1), colours[int(label)], 2, cv2.LINE_AA)
            text = f"{marks[int(label)]}{float(confidence):.2f}"
            (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.38, 1)
            if x1 - x0 >= width:  # on a face smaller than its number, the number would hide the face
                cv2.rectangle(image, (x0, y0), (x0 + width + 3, y0 + height + 4), colours[int(label)], -1)
                cv2.putText(
                    image, text, (x0 + 2, y0 + height + 1), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (20, 20, 20), 1, cv2.LINE_AA
                )
        name = f"detections/{group + '-' if group else ''}{number:02d}.jpg".replace(" ", "_")
        ok, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
        assert ok
        files.write_bytes(str(folder / name), jpeg.tobytes())
        found = ", ".join(f"{count} {names[label]}" for label, count in enumerate(counts) if count) or "no face"
        out.append({"file": name, "caption": caption, "group": group, "alt": f"{caption}: {found}", "found": found})
    return out
