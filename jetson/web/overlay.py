"""Lines and zones drawn into a picture with their counts, as the live page draws them over it."""

from typing import Any, Dict, Tuple

import cv2
import numpy as np

_DARK, _LINE, _ZONE, _WORDS = (14, 12, 6), (77, 216, 255), (255, 200, 108), (255, 255, 255)  # BGR


def draw(image: np.ndarray, places: Dict[str, Any]) -> None:
    """Draw the state of a jetson.tracking.zones.Counter into `image`, uint8 (h, w, 3) BGR, in place."""
    height, width = image.shape[:2]
    size = np.array([width, height], np.float64)
    thick = max(1, int(round(max(image.shape[:2]) / 420)))
    zones = [(zone, zone["points"] * size) for zone in places["zones"]]
    lines = [(line, line["points"] * size) for line in places["lines"]]
    for zone, outline in zones:
        corners = [np.round(outline).astype(np.int32)]
        filled = cv2.fillPoly(image.copy(), corners, _ZONE)
        share = 0.26 if zone["now"]["total"] else 0.13
        cv2.addWeighted(filled, share, image, 1 - share, 0, dst=image)
        cv2.polylines(image, corners, True, _DARK, thick + 2, cv2.LINE_AA)
        cv2.polylines(image, corners, True, _ZONE, thick, cv2.LINE_AA)
    for _, (a, b) in lines:
        for colour, width_px in ((_DARK, thick + 2), (_LINE, thick)):
            cv2.line(image, _pixel(a), _pixel(b), colour, width_px, cv2.LINE_AA)
        along = (b - a) / max(float(np.hypot(*(b - a))), 1e-9)
        left = np.array([along[1], -along[0]])  # the way in is to the left hand of a -> b
        middle, unit = (a + b) / 2, 8.0 * thick
        arrow = np.array(
            [middle + 2.2 * unit * left] + [middle + 0.6 * unit * left + side * unit * along for side in (0.9, -0.9)]
        )
        cv2.fillPoly(image, [np.round(arrow).astype(np.int32)], _LINE, cv2.LINE_AA)
    for zone, outline in zones:
        at = outline.mean(axis=0)[0], outline[:, 1].min()
        _label(image, f"{zone['name']}: {zone['now']['total']}", at, thick)
    for line, (a, b) in lines:
        low, high = (a, b) if a[1] > b[1] else (b, a)
        _label(
            image,
            f"{line['name']}: {line['in']['total']} in, {line['out']['total']} out",
            tuple(low + 0.1 * (high - low)),
            thick,
        )


def _pixel(point: np.ndarray) -> Tuple[int, int]:
    return int(round(point[0])), int(round(point[1]))


def _label(image: np.ndarray, words: str, at: Tuple[float, float], thick: int) -> None:
    """`words` (what OpenCV cannot write becomes a question mark) centred under `at`, inside the picture."""
    height, width = image.shape[:2]
    text = words.encode("ascii", "replace").decode()
    scale = max(0.4, max(height, width) / 1500)
    (wide, high), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = int(min(max(at[0] - wide / 2, 4), max(width - wide - 5, 4)))
    top = int(min(max(at[1] + 3 * thick, 3), max(height - high - base - 5, 3)))
    cv2.rectangle(image, (left - 3, top - 2), (left + wide + 3, top + high + base + 1), _DARK, -1)
    cv2.putText(image, text, (left, top + high), cv2.FONT_HERSHEY_SIMPLEX, scale, _WORDS, 1, cv2.LINE_AA)
