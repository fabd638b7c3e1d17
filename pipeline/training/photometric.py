"""Augmentation that leaves every box where it is: light, colour, blur, noise, compression, and what hides a face."""

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.config import Augment

DARKEST = 0.3  # share of the light that is left


def photometric(image: np.ndarray, config: Augment, rng: np.random.Generator) -> np.ndarray:
    """Light, colour, blur, noise and compression of an image, uint8 (h, w, 3) BGR; a new contiguous array."""
    image = np.ascontiguousarray(image)
    strength = config.photometric
    if strength and rng.random() < 0.9:
        gain = rng.uniform(1 - 0.35 * strength, 1 + 0.35 * strength)
        shift = rng.uniform(-30, 30) * strength
        tint = 1 + rng.uniform(-0.1, 0.1, 3) * strength
        table = np.arange(256)[:, None] * gain * tint[None] + shift
        gamma = np.exp(rng.uniform(-0.35, 0.35) * strength)
        table = 255 * (np.clip(table, 0, 255) / 255) ** gamma
        image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])
        if rng.random() < 0.3:
            gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
            saturation = rng.uniform(0, 1.5) if rng.random() < 0.7 else 0.0
            image = cv2.addWeighted(image, saturation, gray, 1 - saturation, 0)
    if rng.random() < config.grey:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < config.dark:
        # As a camera gives a dark room, before its noise: fewer levels, and no gamma that would save some.
        image = cv2.LUT(image, (np.arange(256) * np.exp(rng.uniform(np.log(DARKEST), 0))).astype(np.uint8))
    if rng.random() < config.low_resolution:
        # A far or cheap camera: detail is lost before the picture reaches the network, as no blur kernel imitates.
        h, w = image.shape[:2]
        share = rng.uniform(0.35, 0.8)
        small = cv2.resize(image, (max(2, int(w * share)), max(2, int(h * share))), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (w, h), interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC])))
    if rng.random() < config.blur:
        k = int(rng.choice([3, 3, 5]))
        if rng.random() < 0.5:
            image = cv2.blur(image, (k, 1) if rng.random() < 0.5 else (1, k))
        else:
            image = cv2.GaussianBlur(image, (k, k), 0)
    if rng.random() < config.noise:
        h, w = image.shape[:2]
        noise = rng.normal(0, rng.uniform(3, 14), (h // 2 + 1, w, 1)).astype(np.float32)
        noise = np.concatenate([noise, noise[::-1]])[:h]
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < config.jpeg:
        quality = int(rng.integers(25, 80))
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return image


def erase(image: np.ndarray, boxes: Sequence[np.ndarray], rng: np.random.Generator) -> None:
    """A flat or noisy rectangle over a quarter of some face, in place: hair, a phone, a hand before it.

    image: uint8 (h, w, 3) BGR; boxes: xyxy in its pixels.
    """
    for box in boxes:
        if rng.random() < 0.4:
            w, h = box[2:] - box[:2]
            x = int(box[0] + rng.uniform(-0.2, 0.8) * w)
            y = int(box[1] + rng.uniform(-0.2, 0.8) * h)
            x1, y1 = x + max(1, int(w * rng.uniform(0.2, 0.4))), y + max(1, int(h * rng.uniform(0.2, 0.4)))
            image[max(0, y) : y1, max(0, x) : x1] = rng.integers(0, 256, 3)
