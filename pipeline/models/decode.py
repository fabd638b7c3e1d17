"""How the shipped detectors' outputs are decoded: the manifest's `decode`."""

from typing import Any

DECODE: dict[str, Any] = {
    "strides": [4, 8, 16, 32],
    "box": "exp",
    "score": 0.4,
    "iou": 0.5,
    "max_detections": 300,
    "vote_iou": 0.7,
}
