"""From a camera frame to the network's input: the one preprocessing, on the device and on the host."""

import functools
import threading
from typing import Dict, List, Optional, Tuple

import cv2
import numpy as np

from jetson.bundle.manifest import PREPROCESSING  # noqa: F401  (the name of what this module does)

PAD = 114


@functools.lru_cache(maxsize=256)
def fit(frame_wh: Tuple[int, int], input_wh: Tuple[int, int]) -> Tuple[int, int]:
    """The (width, height) a frame gets inside the input: the largest that keeps its shape, at least 1 x 1.

    >>> fit((1280, 720), (416, 256))
    (416, 234)
    """
    scale = min(input_wh[0] / frame_wh[0], input_wh[1] / frame_wh[1])
    return (
        min(max(1, int(round(frame_wh[0] * scale))), input_wh[0]),
        min(max(1, int(round(frame_wh[1] * scale))), input_wh[1]),
    )


class _Scratch(threading.local):
    """Memory for what is between a frame and the input, used again: fresh pages cost more than the work on them."""

    def __init__(self) -> None:
        self._images: Dict[Tuple[int, int], np.ndarray] = {}
        self._planes: Dict[Tuple[int, int], List[np.ndarray]] = {}

    def image(self, wh: Tuple[int, int]) -> np.ndarray:
        """uint8 (h, w, 3), whatever is in it."""
        found = self._images.get(wh)
        if found is None:
            if len(self._images) >= 16:
                self._images.clear()
            found = self._images[wh] = np.empty((wh[1], wh[0], 3), np.uint8)
        return found

    def planes(self, wh: Tuple[int, int]) -> List[np.ndarray]:
        """Three of uint8 (h, w), whatever is in them."""
        found = self._planes.get(wh)
        if found is None:
            if len(self._planes) >= 16:
                self._planes.clear()
            found = self._planes[wh] = list(np.empty((3, wh[1], wh[0]), np.uint8))
        return found


_scratch = _Scratch()


def shrink(frame: np.ndarray, wh: Tuple[int, int], reuse: bool = False) -> np.ndarray:
    """`frame` resized to `wh` without aliasing: every pixel counts, also far below half size.

    Exact halves are averaged first, then the rest is interpolated: linear interpolation alone skips pixels below a
    half, and cv2.INTER_AREA at an odd ratio takes ten times longer (4 ms for 1280x720 to 416x234). `reuse`: the result
    is valid until this thread's next call.
    """

    height, width = frame.shape[:2]
    while wh[0] * 2 <= width and wh[1] * 2 <= height:
        if width % 2 or height % 2:
            return cv2.resize(frame, wh, _scratch.image(wh) if reuse else None, interpolation=cv2.INTER_AREA)
        size = width, height = width // 2, height // 2
        frame = cv2.resize(frame, size, _scratch.image(size) if reuse else None, interpolation=cv2.INTER_AREA)
    if (width, height) == tuple(wh):
        return frame
    return cv2.resize(frame, wh, _scratch.image(wh) if reuse else None, interpolation=cv2.INTER_LINEAR)


def letterbox(
    frame: np.ndarray,
    input_wh: Tuple[int, int],
    out: Optional[np.ndarray] = None,
    filled: Optional[Tuple[int, int]] = None,
) -> Tuple[np.ndarray, Tuple[float, float]]:
    """Fit a frame into the input's top-left corner and fill the rest with 114.

    `frame`: uint8 (h, w, 3) BGR. `out`: float32 (1, 3, H, W), written in place; made when None. `filled`: what `fit`
    gave for the frame that `out` was filled with last, where nobody has written to it since: the rest is 114 already.
    Returns the blob (1, 3, H, W), raw 0..255 BGR, and the scale (sx, sy) from frame to input pixels: true per axis,
    since the fitted size is rounded. Frame coordinates are input coordinates divided by it.
    ValueError when the frame is not uint8 (h, w, 3).
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(f"a frame is uint8 (h, w, 3), not {frame.dtype} {frame.shape}")
    width, height = input_wh
    frame_h, frame_w, _ = frame.shape
    fitted = fit_w, fit_h = fit((frame_w, frame_h), input_wh)
    small = shrink(frame, fitted, True)
    if out is None:
        out = np.empty((1, 3, height, width), np.float32)
    elif out.shape != (1, 3, height, width) or out.dtype != np.float32:
        raise ValueError(f"out is float32 {(1, 3, height, width)}, not {out.dtype} {out.shape}")
    planes = out[0]
    parts = _scratch.planes(fitted)
    cv2.split(small, parts)
    if filled == fitted:
        for part, plane in zip(parts, planes[:, :fit_h, :fit_w]):
            # plane = plane * 0 + part * 1, the quickest way to float32; exact, for the plane holds a picture already.
            cv2.accumulateWeighted(part, plane, 1.0)
    else:
        for part, plane in zip(parts, planes):
            plane[:fit_h, :fit_w] = part
        planes[:, fit_h:, :] = PAD
        planes[:, :fit_h, fit_w:] = PAD
    return out, (fit_w / frame_w, fit_h / frame_h)


def to_frame(xyxy: np.ndarray, scale: Tuple[float, float], frame_wh: Tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) in input pixels as boxes in frame pixels, float32, clipped to the frame."""
    factors, limits = _to_frame(scale, frame_wh)
    found: np.ndarray = np.asarray(xyxy, np.float32).reshape(-1, 4) * factors
    np.maximum(found, 0, out=found)
    return np.minimum(found, limits, out=found)


@functools.lru_cache(maxsize=64)
def _to_frame(scale: Tuple[float, float], frame_wh: Tuple[int, int]) -> Tuple[np.ndarray, np.ndarray]:
    """What boxes are multiplied with, and the most that they may be, float32 (4,)."""
    factors = np.array([1 / scale[0], 1 / scale[1], 1 / scale[0], 1 / scale[1]], np.float32)
    return factors, np.array([frame_wh[0], frame_wh[1], frame_wh[0], frame_wh[1]], np.float32)
