"""Frames that the tiny bundle's net understands."""

import cv2
import numpy as np

COLOURS = {0: (255, 40, 40), 1: (40, 40, 255), 2: (40, 255, 40)}  # BGR


def draw(frame_wh, squares, seed=0):
    """A grey frame with a faint pattern and coloured squares (label, centre x, centre y, side), all in pixels."""
    random = np.random.RandomState(seed)
    tiles = random.randint(90, 130, (frame_wh[1] // 16 + 1, frame_wh[0] // 16 + 1, 1)).astype(np.uint8)
    frame = tiles.repeat(16, 0).repeat(16, 1).repeat(3, 2)[: frame_wh[1], : frame_wh[0]].copy()
    for label, x, y, side in squares:
        cv2.rectangle(
            frame,
            (int(x - side / 2), int(y - side / 2)),
            (int(x + side / 2) - 1, int(y + side / 2) - 1),
            COLOURS[label],
            -1,
        )
    return frame
