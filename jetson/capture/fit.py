"""A frame at another size, never squeezed: scaled as far as it fits, the rest is black."""

from typing import Sequence

import cv2
import numpy as np


def fit(frame: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """`frame`, uint8 (h, w, 3), as uint8 (size[1], size[0], 3): in its own shape, in the middle.

    As GStreamer's `videoscale add-borders=true` does for cameras.
    """
    width, height = int(size[0]), int(size[1])
    have_h, have_w = frame.shape[:2]
    if (have_w, have_h) == (width, height):
        return frame
    scale = min(width / have_w, height / have_h)
    wide, high = max(1, min(width, round(have_w * scale))), max(1, min(height, round(have_h * scale)))
    scaled = np.asarray(cv2.resize(frame, (wide, high)))
    if (wide, high) == (width, height):
        return scaled
    made = np.zeros((height, width, 3), np.uint8)
    left, top = (width - wide) // 2, (height - high) // 2
    made[top : top + high, left : left + wide] = scaled
    return made
