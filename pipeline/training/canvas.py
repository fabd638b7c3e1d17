"""A training image being put together, with its truth: photographs placed, cut, covered and flipped."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from jetson.vision.letterbox import PAD
from pipeline.config import Augment

Region = tuple[float, float, float, float]


class Sheet:
    """A canvas being filled, with its truth."""

    def __init__(self, size: int, config: Augment) -> None:
        self.size, self.config = size, config
        self.image = np.full((size, size, 3), PAD, np.uint8)
        self.boxes: list[np.ndarray] = []
        self.labels: list[int] = []
        self.ignore: list[np.ndarray] = []

    def place(
        self, photo: Any, rng: np.random.Generator, scale: tuple[float, float], region: tuple[int, int, int, int]
    ) -> None:
        """Draw a photo scaled by scale (x, y) at a random offset into region (x0, y0, x1, y1), cut at its edges."""
        image, boxes, labels = photo.image(), photo.boxes, photo.labels
        image, labels = draw_masks(image, boxes, labels, self.config.drawn_masks, rng)
        x0, y0, x1, y1 = region
        h, w = image.shape[:2]
        width, height = max(2, round(w * scale[0])), max(2, round(h * scale[1]))
        sx, sy = width / w, height / h
        # Where the picture is larger than the region, a random part of it; where smaller, a random place in it.
        ox, oy = _offset(x1 - x0, width, rng), _offset(y1 - y0, height, rng)
        left, top = max(0, -ox), max(0, -oy)
        right, bottom = min(width, x1 - x0 - ox), min(height, y1 - y0 - oy)
        if right - left < 2 or bottom - top < 2:
            return
        # Only the visible part is resized: a zoomed photo would otherwise cost many times its share.
        u0, v0 = int(left / sx), int(top / sy)
        u1, v1 = min(w, int(np.ceil(right / sx))), min(h, int(np.ceil(bottom / sy)))
        part = cv2.resize(
            image[v0:v1, u0:u1],
            (max(1, round((u1 - u0) * sx)), max(1, round((v1 - v0) * sy))),
            interpolation=cv2.INTER_AREA if sx < 0.7 else cv2.INTER_LINEAR,
        )
        px, py = x0 + ox + round(u0 * sx), y0 + oy + round(v0 * sy)
        cx0, cy0 = max(x0, px), max(y0, py)
        cx1, cy1 = min(x1, px + part.shape[1]), min(y1, py + part.shape[0])
        if cx1 <= cx0 or cy1 <= cy0:
            return
        self.image[cy0:cy1, cx0:cx1] = part[cy0 - py : cy1 - py, cx0 - px : cx1 - px]
        shift = np.array([x0 + ox, y0 + oy] * 2, np.float32)
        factor = np.array([sx, sy] * 2, np.float32)
        self.add(boxes * factor + shift, labels, photo.ignore * factor + shift, (cx0, cy0, cx1, cy1))

    def add(self, boxes: np.ndarray, labels: Sequence[int] | np.ndarray, ignore: np.ndarray, region: Region) -> None:
        """Truth in canvas pixels, boxes and ignore xyxy (N, 4), labels (N,), cut to region (x0, y0, x1, y1).

        What is too small or too much cut becomes an ignore region.
        """
        x0, y0, x1, y1 = region
        limit = np.array([x1, y1, x1, y1], np.float32)
        low = np.array([x0, y0, x0, y0], np.float32)
        for box, label in zip(boxes, labels, strict=True):
            cut = np.minimum(np.maximum(box, low), limit)
            w, h = cut[2:] - cut[:2]
            if w <= 0 or h <= 0:
                continue
            visible = w * h / max(1e-6, (box[2] - box[0]) * (box[3] - box[1]))
            if visible < 0.5 or min(w, h) < self.config.min_face_px:
                self.ignore.append(cut)
            else:
                self.boxes.append(cut)
                self.labels.append(label)
        for box in ignore:
            cut = np.minimum(np.maximum(box, low), limit)
            if (cut[2:] > cut[:2]).all():
                self.ignore.append(cut)

    def cover(self, region: Region) -> None:
        """Something was drawn over region: truth mostly under it is no longer there."""
        x0, y0, x1, y1 = region
        keep_boxes, keep_labels = [], []
        for box, label in zip(self.boxes, self.labels, strict=True):
            w = min(box[2], x1) - max(box[0], x0)
            h = min(box[3], y1) - max(box[1], y0)
            share = max(0, w) * max(0, h) / max(1e-6, (box[2] - box[0]) * (box[3] - box[1]))
            if share < 0.15:
                keep_boxes.append(box)
                keep_labels.append(label)
            elif share < 0.8:
                self.ignore.append(box)
        self.boxes, self.labels = keep_boxes, keep_labels

    def flip(self) -> None:
        """Left becomes right."""
        self.image = self.image[:, ::-1]
        for boxes in (self.boxes, self.ignore):
            for i, box in enumerate(boxes):
                boxes[i] = np.array([self.size - box[2], box[1], self.size - box[0], box[3]], np.float32)

    def truth(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (N, 4) float32 xyxy, labels (N,) int32, ignore regions (M, 4) float32, in canvas pixels."""
        return (
            np.array(self.boxes, np.float32).reshape(-1, 4),
            np.array(self.labels, np.int32),
            np.array(self.ignore, np.float32).reshape(-1, 4),
        )


def _offset(room: int, length: int, rng: np.random.Generator) -> int:
    return int(rng.integers(min(0, room - length), max(0, room - length) + 1))


def overlap(box: Any, region: Any) -> float:
    """Share of box that lies in region."""
    w = min(box[2], region[2]) - max(box[0], region[0])
    h = min(box[3], region[3]) - max(box[1], region[1])
    return max(0.0, w) * max(0.0, h) / max(1e-6, float((box[2] - box[0]) * (box[3] - box[1])))


def draw_masks(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Bare faces of at least 24 px may get a drawn mask. Returns image and labels, copied only where changed."""
    if not share or not (labels == 1).any() or rng.random() >= share:
        return image, labels
    from pipeline.data.masks import draw_mask

    image, labels = image.copy(), labels.copy()
    for i, box in enumerate(boxes):
        if labels[i] == 1 and (box[2:] - box[:2]).min() >= 24 and rng.random() < 0.8:
            labels[i] = draw_mask(image, box, rng)
    return image, labels
