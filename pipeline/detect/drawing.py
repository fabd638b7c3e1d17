"""Faces drawn into a picture, cut out of it, or made unrecognisable."""

from collections.abc import Sequence

import cv2
import numpy as np

from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.inference.detector import Faces
from jetson.web import picture

QUALITY = 92


def draw(image: np.ndarray, faces: Faces, names: Sequence[str], classes: Classes = MASK_CLASSES) -> None:
    """Draw each face's box, class and score into `image`, uint8 (h, w, 3) BGR, in place.

    names: what to call each class; classes: their roles, which set the colours, the same as on the live page. In a
    crowd words would hide the faces: there the score stands alone, or nothing but the box.
    """
    side = max(image.shape[:2])
    thickness = max(1, round(side / 420))
    size = max(0.35, side / 1600)
    colours = classes.colours()
    boxes = [tuple(round(float(v)) for v in xyxy) for xyxy in faces.xyxy]
    for box, label in zip(boxes, faces.labels, strict=True):
        cv2.rectangle(image, box[:2], box[2:], colours[label], thickness, cv2.LINE_AA)
    taken = list(boxes)
    for box, label, score in zip(boxes, faces.labels, faces.confidence, strict=True):
        for text in (f"{names[label]} {score:.2f}", f"{score:.2f}"):
            spot = _free_spot(image.shape, text, size, box, [other for other in taken if other is not box])
            if spot is not None:
                left, top, right, bottom = spot
                taken.append(spot)
                cv2.rectangle(image, (left, top), (right, bottom), colours[label], -1)
                _, base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
                at = (left + 3, bottom - base - 1)
                cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (20, 20, 20), 1, cv2.LINE_AA)
                break


def _free_spot(
    shape: tuple[int, ...], text: str, size: float, box: tuple[int, ...], taken: list[tuple[int, ...]]
) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom for `text` above the box or below it, where it covers nothing of `taken`."""
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    width, height = width + 6, height + base + 2
    left = max(0, min(box[0], shape[1] - width))
    for top in (box[1] - height, box[3] + 1, box[1]):  # above, below, or inside where the face fills the picture
        spot = (left, top, left + width, top + height)
        inside = top >= 0 and top + height <= shape[0]
        if inside and not any(
            spot[0] < x1 and x0 < spot[2] and spot[1] < y1 and y0 < spot[3] for x0, y0, x1, y1 in taken
        ):
            if top == box[1] and (box[3] - box[1] < 4 * height or box[2] - box[0] < width):
                continue
            return spot
    return None


def crop(image: np.ndarray, xyxy: np.ndarray, margin: float = 0.15) -> np.ndarray:
    """The part of `image` inside one box, (4,) in pixels, grown by `margin` of its sides."""
    x0, y0, x1, y1 = (float(v) for v in xyxy)
    grow_x, grow_y = margin * (x1 - x0), margin * (y1 - y0)
    height, width = image.shape[:2]
    left, top = int(max(0, x0 - grow_x)), int(max(0, y0 - grow_y))
    right, bottom = int(min(width, np.ceil(x1 + grow_x))), int(min(height, np.ceil(y1 + grow_y)))
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]


def as_jpeg(image: np.ndarray) -> bytes:
    """`image`, uint8 (h, w, 3) BGR, as the bytes of a JPEG."""
    return picture.encode(image, QUALITY)
