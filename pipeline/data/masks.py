"""Draw a face mask on a bare face, knowing nothing but the face's box.

The collections show few kinds of mask, and hardly any that is badly worn. A drawn one need not look real to a
person; it must keep a detector from learning "light blue below the eyes". So shape, colour, pattern, straps and fit
all vary, while the light and the colourlessness of the picture are taken from the face beneath.

Positions are fractions of the face box, brow (0) to chin (1): eyes at about .17, the bridge of the nose at .3, its
tip at .58, the mouth at .76, judged by eye on boxes of the training set. Everything is 8-bit and drawn at about the
face's own size, because this runs in the training's data path.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np

WITH_MASK, WITHOUT_MASK, MASK_WORN_INCORRECT = range(3)  # indices into the manifest's classes
SMALLEST_FACE_PX = 4

# What is drawn on, around the face box and in fractions of it: straps reach the ears, a slipped mask hangs lower.
LEFT, TOP, RIGHT, BOTTOM = -0.10, 0.15, 1.10, 1.32
LONGEST_CANVAS_PX = 112  # a larger face gets an enlarged drawing: cloth has no finer detail worth the time
SHORTEST_CANVAS_PX = 32  # a smaller one a reduced drawing: thin lines need room to be averaged away

SURGICAL, FFP2, CLOTH = range(3)
KIND_ODDS = (0.55, 0.15, 0.30)
# BGR. Blue and white lead on photographs, so they do here.
COLOURS = (
    np.array(
        [
            (226, 196, 150),
            (214, 178, 120),
            (236, 214, 180),
            (240, 240, 238),
            (232, 236, 240),
            (206, 214, 160),
            (190, 200, 130),
            (206, 180, 236),
            (48, 46, 44),
            (32, 30, 30),
            (220, 160, 90),
            (200, 170, 190),
        ],
        float,
    ),
    np.array(
        [(240, 240, 240), (232, 234, 238), (225, 228, 226), (40, 40, 42), (216, 200, 180), (190, 196, 214)], float
    ),
    np.array(
        [
            (24, 24, 26),
            (36, 34, 40),
            (60, 56, 58),
            (96, 60, 36),
            (120, 40, 30),
            (40, 40, 150),
            (60, 60, 200),
            (70, 110, 50),
            (110, 90, 70),
            (150, 140, 130),
            (200, 200, 200),
            (190, 140, 220),
            (80, 170, 230),
            (70, 200, 240),
            (140, 60, 110),
            (130, 150, 185),
            (110, 140, 190),
            (70, 90, 130),
            (210, 190, 80),
        ],
        float,
    ),
)
GREY = np.array([0.114, 0.587, 0.299], np.float32)
AVERAGE_SKIN = np.array([112, 135, 172], np.float32)  # BGR under neutral light; only its tint is used


def draw_mask(image: np.ndarray, xyxy: np.ndarray, rng: np.random.Generator, incorrect: float = 0.2) -> int:
    """Draw one mask into `image` (uint8 (h, w, 3) BGR), in place; -> the face's new label.

    `xyxy`: the bare face, brow to chin, in pixels of the image; it may reach over the edge. With probability
    `incorrect` the mask leaves the nose out or hangs under the chin: label 2 (mask_worn_incorrect), else 0 (with_mask).
    A face under 4 px, or mostly out of the picture, stays bare (1): what it wore could not be seen.
    """
    x1, y1, x2, y2 = (float(v) for v in xyxy)
    w, h = x2 - x1, y2 - y1
    left, top = int(np.floor(x1 + LEFT * w)), int(np.floor(y1 + TOP * h))
    right, bottom = int(np.ceil(x1 + RIGHT * w)), int(np.ceil(y1 + BOTTOM * h))
    rows = slice(max(top, 0), max(0, min(bottom, image.shape[0])))
    columns = slice(max(left, 0), max(0, min(right, image.shape[1])))
    patch = image[rows, columns]
    # Half of the lower face must be there, or the label would speak of a mask that nobody sees.
    if min(w, h) < SMALLEST_FACE_PX or patch.shape[0] < 0.45 * (y2 - top) or patch.shape[1] < 0.5 * w:
        return WITHOUT_MASK

    whole = right - left, bottom - top
    zoom = min(max(max(whole), SHORTEST_CANVAS_PX), LONGEST_CANVAS_PX) / max(whole)
    size = max(4, round(whole[0] * zoom)), max(4, round(whole[1] * zoom))
    per_px = np.array([size[0] / whole[0], size[1] / whole[1]])
    worn = _fit(rng, incorrect, room_below=(image.shape[0] - y2) / h)
    kind = int(rng.choice(3, p=KIND_ODDS))
    shape = _shape(rng, worn, kind, per_px * (w, h), per_px * (x1 - left, y1 - top))
    colour, alpha = _drawing(rng, kind, shape, size)
    colour = cv2.multiply(colour, cv2.resize(_light(rng, patch), size), scale=1 / 128)
    if patch.size > 3 * 12 * 12 and _is_grey(patch):
        colour = cv2.cvtColor(cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)

    method = cv2.INTER_AREA if zoom > 1 else cv2.INTER_LINEAR
    shown = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    colour = cv2.resize(colour, whole, interpolation=method)[shown]
    weight = cv2.resize(alpha, whole, interpolation=method)[shown].astype(np.float32)
    weight *= float(rng.uniform(0.94, 1.0)) / 255
    colour = _grain(rng, np.ascontiguousarray(colour))
    patch[:] = cv2.blendLinear(colour, np.ascontiguousarray(patch), weight, 1 - weight)
    return WITH_MASK if worn == "well" else MASK_WORN_INCORRECT


def _fit(rng: np.random.Generator, incorrect: float, room_below: float) -> str:
    if rng.random() >= incorrect:
        return "well"
    return "nose out" if room_below < 0.15 or rng.random() < 0.6 else "under chin"


class _Shape(NamedTuple):
    outline: np.ndarray  # this and all that follows: (n, 2) float, in canvas px
    straps: list[np.ndarray]
    folds: list[np.ndarray]
    wire: list[np.ndarray]
    line_px: float  # a thin line


def _shape(rng: np.random.Generator, worn: str, kind: int, scale: np.ndarray, origin: np.ndarray) -> _Shape:
    """The mask in lines and outlines: designed in fractions of the face box, turned as a head turns, scaled."""
    # the upper edge at the nose, at the sides; the mouth, the chin; half the width
    nose, side, mouth, chin, half = {
        "well": (0.335, 0.43, 0.82, 1.03, 0.47),
        "nose out": (0.67, 0.66, 0.92, 1.08, 0.45),
        "under chin": (0.93, 0.87, 1.06, 1.20, 0.42),
    }[worn] + rng.uniform(-1, 1, 5) * (0.06, 0.07, 0.01, 0.05, 0.045)
    peak = rng.uniform(0.02, 0.09) if worn != "under chin" else 0.0
    low = half * rng.uniform(0.7, 0.92)
    flat = rng.uniform(0.25, 0.6) * low
    if kind == FFP2:
        peak, flat = peak + 0.04, flat * 0.7
    right = np.array(
        [
            (0.10, nose),
            (0.28, nose + peak * 1.4),
            (half, side + peak),
            (half, side + peak + 0.4 * (mouth - side)),
            (low, mouth),
            (flat, chin - 0.03),
            (flat * 0.4, chin),
        ]
    )
    right[:, 0] += rng.normal(0, 0.008, len(right))
    outline = np.concatenate([right, (right * (-1, 1))[::-1]]) + (0.5, 0)

    ear = rng.uniform(0.2, 0.4) + (0.3 if worn == "under chin" else 0)
    out, bend = rng.uniform(0, 0.08), rng.uniform(0, 0.05)
    straps = [
        [(0.5 + half, side + peak), (1 + out, ear)],
        [(0.5 - half, side + peak), (-out, ear)],
        [(0.5 + low, mouth), (1 + out, ear + 0.2)],
        [(0.5 - low, mouth), (-out, ear + 0.2)],
    ]
    straps = straps[: rng.choice((0, 2, 4), p=(0.25, 0.3, 0.45))]
    folds: list[list[tuple[float, float]]] = []
    wire: list[list[tuple[float, float]]] = []
    if kind == SURGICAL:
        for y in nose + (chin - nose) * (np.array([0.3, 0.5, 0.7]) + rng.uniform(-0.03, 0.03, 3)):
            folds.append([(0.1, y), (0.3, y + bend), (0.5, y + 1.3 * bend), (0.7, y + bend), (0.9, y)])
    elif kind == FFP2 or rng.random() < 0.5:
        folds.append([(0.5, nose), (0.5, chin)])
    if kind != CLOTH and rng.random() < 0.5:
        wire.append([(0.38, nose + 0.05), (0.62, nose + 0.05)])

    yaw, roll = rng.normal(0, 0.10), rng.normal(0, 0.05)
    lines = [np.asarray(line, float) for line in (outline, *straps, *folds, *wire)]
    points = np.concatenate(lines) - (0.5, 0.6)
    points[:, 0] += yaw * (1 - (2 * points[:, 0]).clip(-1, 1) ** 2)  # the middle moves, the sides stay on the box
    points = points @ np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]]) + (0.5, 0.6)
    lines = np.split(points * scale + origin, np.cumsum([len(line) for line in lines])[:-1])
    s, f = 1 + len(straps), 1 + len(straps) + len(folds)
    return _Shape(_rounded(lines[0]), lines[1:s], lines[s:f], lines[f:], 0.012 * scale[0])


def _rounded(polygon: np.ndarray) -> np.ndarray:
    """Corners cut once (Chaikin): (n, 2) -> (2n, 2)."""
    following = np.roll(polygon, -1, 0)
    return np.stack([0.8 * polygon + 0.2 * following, 0.2 * polygon + 0.8 * following], 1).reshape(-1, 2)


def _drawing(
    rng: np.random.Generator, kind: int, shape: _Shape, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """-> colour uint8 (h, w, 3), alpha uint8 (h, w): the mask, evenly lit."""
    base = _colour(rng, kind)
    cloth = _cloth(rng, kind, base, size)
    shade = float(rng.uniform(0.75, 0.93))
    thin = max(1, round(shape.line_px))
    for lines, strength in ((shape.folds, shade), (shape.wire, 2 - shade)):
        for line in lines:
            x, y = (int(v) for v in line[len(line) // 2].clip(0, np.array(size) - 1))
            value = (cloth[y, x] * strength).clip(0, 255).tolist()
            cv2.polylines(cloth, [_sixteenths(line)], False, value, thin, cv2.LINE_AA, 4)
    body = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(body, [_sixteenths(shape.outline)], 255, cv2.LINE_AA, 4)
    if not shape.straps:
        return cloth, body
    value = base.tolist() if rng.random() < 0.4 else [float(rng.choice((30, 235)))] * 3
    thick = max(1, round(shape.line_px * float(rng.uniform(1.2, 3))))
    colour, alpha = np.empty_like(cloth), body.copy()
    colour[:] = np.array(value, np.uint8)
    for strap in shape.straps:
        cv2.polylines(alpha, [_sixteenths(strap)], False, 255 if thick > 1 else 180, thick, cv2.LINE_AA, 4)
    cv2.copyTo(cloth, body, colour)
    return colour, alpha


def _sixteenths(points: np.ndarray) -> np.ndarray:
    return np.round(points * 16).astype(np.int32)


def _colour(rng: np.random.Generator, kind: int) -> np.ndarray:
    if kind == CLOTH and rng.random() < 0.25:
        return rng.uniform(15, 245, 3)  # any colour at all
    return (COLOURS[kind][rng.integers(len(COLOURS[kind]))] + rng.normal(0, 8, 3)).clip(8, 250)


def _cloth(rng: np.random.Generator, kind: int, base: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """-> uint8 (h, w, 3): what the material looks like, flat and evenly lit."""
    w, h = size
    colour = np.empty((h, w, 3), np.uint8)
    colour[:] = base.astype(np.uint8)
    if kind != CLOTH or rng.random() < 0.4:
        return colour
    x = np.linspace(0, 1, w, dtype=np.float32)[None]
    y = np.linspace(0, 1, h, dtype=np.float32)[:, None]
    pattern, f = rng.choice(("stripes", "checks", "dots", "blots", "print")), float(rng.uniform(3, 14))
    if pattern == "stripes":
        angle = rng.uniform(0, np.pi)
        which = (x * np.float32(f * np.cos(angle)) + y * np.float32(f * np.sin(angle))) % 1 < rng.uniform(0.25, 0.6)
    elif pattern == "checks":
        which = (x * f % 1 < 0.5) ^ (y * f % 1 < 0.5)
    elif pattern == "dots":
        which = (x * f % 1 - 0.5) ** 2 + (y * f % 1 - 0.5) ** 2 < rng.uniform(0.03, 0.12)
    elif pattern == "blots":  # camouflage, flowers
        cells = int(rng.integers(4, 12))
        level = cv2.resize(rng.random((cells, cells), np.float32), size, interpolation=cv2.INTER_CUBIC)
        colour[level > 0.75] = _colour(rng, CLOTH).astype(np.uint8)
        which = level < 0.4
    else:  # on the front: a logo, teeth, a grin
        print_ = np.zeros((h, w), np.uint8)
        middle = int(rng.uniform(0.35, 0.65) * w), int(rng.uniform(0.45, 0.7) * h)
        axes = max(1, int(rng.uniform(0.06, 0.22) * w)), max(1, int(rng.uniform(0.02, 0.1) * h))
        arc, thick = int(rng.choice((180, 360))), int(rng.choice((-1, max(1, w // 40))))
        cv2.ellipse(print_, middle, axes, 0, 0, arc, 1, thick)
        which = print_ > 0
    colour[which] = _colour(rng, CLOTH).astype(np.uint8)
    return colour


def _light(rng: np.random.Generator, patch: np.ndarray) -> np.ndarray:
    """-> uint8 (16, 16, 3), 128 means 1: the brightness, the lit side and the tint of the face, round like a face."""
    small = cv2.resize(patch, (4, 4), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = small @ GREY
    level = float(np.clip(grey[:3].mean() / 125, 0.3, 1.12)) ** 0.8
    field = (cv2.GaussianBlur(grey, (3, 3), 0) / max(float(grey.mean()), 8.0)).clip(0.55, 1.35)
    light = cv2.resize(field, (16, 16), interpolation=cv2.INTER_LINEAR) ** float(rng.uniform(0.4, 1.0)) * level
    u, v = np.linspace(-1, 1, 16, dtype=np.float32)[None], np.linspace(0, 1, 16, dtype=np.float32)[:, None]
    light *= (1 - float(rng.uniform(0.1, 0.35)) * u * u) * (1 - float(rng.uniform(0.0, 0.25)) * v * v)
    tint = (small.mean((0, 1)) + 30) / (AVERAGE_SKIN + 30)
    tint = (tint / tint.mean()).clip(0.85, 1.15) ** 0.5
    return (light[..., None] * tint * 128).clip(0, 255).astype(np.uint8)


def _is_grey(patch: np.ndarray) -> bool:
    small = cv2.resize(patch, (6, 6), interpolation=cv2.INTER_AREA).astype(np.int16)
    return bool(np.ptp(small, axis=2).mean() < 5)


@functools.cache
def _grain_tile() -> np.ndarray:
    noise = np.random.default_rng(0).normal(128, 24, (512, 512)).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(noise[..., None], 3, 2))


def _grain(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Grain of the weave and of the sensor: a smooth patch on a noisy photograph would give the drawing away."""
    tile = _grain_tile()
    h, w = colour.shape[:2]
    if h > tile.shape[0] or w > tile.shape[1]:
        grain = cv2.resize(tile, (w, h), interpolation=cv2.INTER_NEAREST)
    else:
        y, x = int(rng.integers(tile.shape[0] - h + 1)), int(rng.integers(tile.shape[1] - w + 1))
        grain = tile[y : y + h, x : x + w]
    strength = float(rng.uniform(0.02, 0.16))
    return cv2.addWeighted(colour, 1.0, grain, strength, -128 * strength)
