"""Face-like prints, drawn: skulls, comic faces and lettering on cloth, which are no faces however much they look it.

A skull on a shirt has eyes, a nose and, where the teeth are, something light over the mouth: a detector that has never
seen one finds a mask there. Photographs of such shirts are rare, so they are drawn: proportions, inks, folds and wear
vary, since what is to be learned is that flat ink is no face, not one skull.

Positions are fractions of the print's width: x from the middle, y downwards from the crown.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

CANVAS_PX = 128  # drawn at this width, then brought to size: ink has no finer detail
HEIGHT = 1.35  # of the canvas, in widths
MARGIN = 0.16  # cloth shown around the print, in widths
KIND_ODDS = (0.62, 0.23, 0.15)  # skull, comic face, lettering
SMALLEST_PX = 10
TALLEST = (HEIGHT + 2 * MARGIN) / (1 + 2 * MARGIN)  # height over width of what is drawn
WORDS = ("WILD", "ROCK", "1984", "TEAM", "SKATE", "NO", "X-RAY", "TOUR")


def draw_print(width_px: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A print with the cloth around it, about `width_px` wide: uint8 (h, w, 3) BGR and its weight float32 (h, w).

    Under SMALLEST_PX it is drawn at that size.
    """
    pen = _Pen(rng)
    kind = int(rng.choice(3, p=KIND_ODDS))
    if kind == 0:
        _skull(pen, rng)
    elif kind == 1:
        _comic(pen, rng)
    if kind == 2 or rng.random() < 0.3:
        _lettering(pen, rng, 0.2 if kind == 2 else -0.02, 3 if kind == 2 else 1)
    colour, alpha = _folded(pen.colour, pen.alpha, rng)
    width = max(SMALLEST_PX, round(width_px))
    size = width, max(SMALLEST_PX, round(width * colour.shape[0] / colour.shape[1]))
    method = cv2.INTER_AREA if size[0] < colour.shape[1] else cv2.INTER_LINEAR
    return (
        cv2.resize(colour, size, interpolation=method),
        np.clip(cv2.resize(alpha, size, interpolation=method), 0, 1),
    )


Points = np.ndarray | Sequence[tuple[float, float]]  # (n, 2), in widths of the print


class _Pen:
    """Draws in widths of the print on cloth of one colour."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.px = CANVAS_PX / (1 + 2 * MARGIN)
        self.shape = round(self.px * (HEIGHT + 2 * MARGIN)), CANVAS_PX
        dark = rng.random() < 0.75
        cloth = rng.uniform(8, 75) if dark else rng.uniform(150, 245)
        ink = rng.uniform(150, 250) if dark else rng.uniform(8, 90)
        self.cloth = _tinted(cloth, rng, 0.25)
        self.ink = _tinted(ink, rng, 0.6 if rng.random() < 0.3 else 0.1)
        self.second = _tinted(rng.uniform(20, 235), rng, 0.8)
        self.colour = np.empty((*self.shape, 3), np.uint8)
        self.colour[:] = self.cloth
        self.alpha = _cloth_shape(self.shape, rng)

    def points(self, xy: Points) -> np.ndarray:
        """(n, 2) widths -> (n, 1, 2) int32, in sixteenths of a pixel."""
        middle = np.array([0.5 + MARGIN, MARGIN])
        return np.round((np.asarray(xy, float) + middle) * self.px * 16).astype(np.int32)[:, None]

    def fill(self, xy: Points, colour: np.ndarray) -> None:
        cv2.fillPoly(self.colour, [self.points(xy)], colour.tolist(), cv2.LINE_AA, 4)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: np.ndarray, turn: float = 0.0) -> None:
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        dx, dy = rx * np.cos(angle), ry * np.sin(angle)
        self.fill(
            np.stack([x + dx * np.cos(turn) - dy * np.sin(turn), y + dx * np.sin(turn) + dy * np.cos(turn)], 1), colour
        )

    def line(self, xy: Points, colour: np.ndarray, width: float) -> None:
        cv2.polylines(
            self.colour, [self.points(xy)], False, colour.tolist(), max(1, round(width * self.px)), cv2.LINE_AA, 4
        )


def _tinted(level: float, rng: np.random.Generator, strength: float) -> np.ndarray:
    return np.clip(level * (1 + rng.uniform(-strength, strength, 3)), 0, 255)


def _cloth_shape(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The weight of the cloth: all of a rectangle, a rounded one, or a blot whose edge melts into what is there."""
    alpha: np.ndarray = np.zeros(shape, np.float32)
    h, w = shape
    kind = rng.integers(3)
    if kind == 0:
        alpha[:] = 1
    elif kind == 1:
        cv2.ellipse(alpha, (w // 2, h // 2), (round(w * 0.5), round(h * 0.5)), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
        cv2.rectangle(alpha, (round(w * 0.12), round(h * 0.1)), (round(w * 0.88), round(h * 0.9)), 1.0, -1)
    else:
        cv2.ellipse(alpha, (w // 2, h // 2), (round(w * 0.46), round(h * 0.46)), 0, 0, 360, 1.0, -1)
        alpha = cv2.blur(alpha, (w // 8, h // 8))
    return alpha


def _skull(pen: _Pen, rng: np.random.Generator) -> None:
    wide, jaw = rng.uniform(0.42, 0.5), rng.uniform(0.24, 0.36)
    chin, cheek = rng.uniform(1.1, 1.32), rng.uniform(0.68, 0.8)
    pen.ellipse(0, 0.46, wide, rng.uniform(0.44, 0.5), pen.ink)
    outline = [
        (wide * 0.97, 0.5),
        (wide * 0.9, cheek),
        (jaw * 1.15, cheek + 0.08),
        (jaw, chin - 0.08),
        (jaw * 0.5, chin),
    ]
    pen.fill(outline + [(-x, y) for x, y in reversed(outline)], pen.ink)
    dark = pen.cloth if rng.random() < 0.8 else pen.second
    eye, across, slant = rng.uniform(0.44, 0.56), rng.uniform(0.19, 0.25), rng.uniform(-0.35, 0.35)
    rx, ry = rng.uniform(0.11, 0.18), rng.uniform(0.08, 0.16)
    looks = rng.random() < 0.45
    for side in (-1, 1):
        pen.ellipse(side * across, eye, rx, ry, dark, side * slant)
        if looks:  # an eye in its socket
            pen.ellipse(side * across, eye, rx * 0.7, ry * rng.uniform(0.35, 0.6), pen.ink, side * slant)
            pen.ellipse(side * across, eye, ry * 0.4, ry * 0.45, dark)
        if rng.random() < 0.5:  # the hollow of the cheek
            pen.fill(
                [
                    (side * wide * 0.95, cheek - 0.1),
                    (side * jaw * 1.1, cheek),
                    (side * jaw * 1.2, cheek + 0.14),
                    (side * wide, cheek + 0.12),
                ],
                dark,
            )
    top, low, half = eye + rng.uniform(0.06, 0.14), eye + rng.uniform(0.22, 0.3), rng.uniform(0.05, 0.09)
    pen.fill(
        [(0, top), (half, low), (half * 0.3, low - 0.03), (0, low + 0.01), (-half * 0.3, low - 0.03), (-half, low)],
        dark,
    )
    _teeth(pen, rng, jaw, low + rng.uniform(0.07, 0.12), chin, dark)
    for _ in range(int(rng.integers(0, 5))):
        x, y = rng.uniform(-wide, wide), rng.uniform(0, chin)
        pen.line(np.cumsum([(x, y), *rng.normal(0, 0.06, (4, 2))], 0), dark, rng.uniform(0.008, 0.03))


def _teeth(pen: _Pen, rng: np.random.Generator, jaw: float, top: float, chin: float, dark: np.ndarray) -> None:
    rows, low = int(rng.integers(1, 3)), min(chin - 0.06, top + rng.uniform(0.12, 0.26))
    half, count = jaw * rng.uniform(0.8, 1.2), int(rng.integers(5, 11))
    bend = rng.uniform(-0.05, 0.09)  # a grin bends up at the ends

    def curve(y: float, x: float) -> float:
        return y - bend * (x / half) ** 2

    across = np.linspace(-half, half, 13)
    if rng.random() < 0.6:
        pen.fill([*((x, curve(top, x)) for x in across), *((x, curve(low, x)) for x in across[::-1])], dark)
        inset = 0.02
        for row in range(rows):
            y0 = top + (low - top) * row / rows + inset
            y1 = top + (low - top) * (row + 1) / rows - inset
            for k in range(count):
                x0, x1 = (-half + 2 * half * (k + share) / count for share in (0.1, 0.9))
                pen.fill([(x0, curve(y0, x0)), (x1, curve(y0, x1)), (x1, curve(y1, x1)), (x0, curve(y1, x0))], pen.ink)
    else:
        pen.line([(x, curve((top + low) / 2, x)) for x in across], dark, rng.uniform(0.015, 0.04))
        for x in np.linspace(-half, half, count):
            pen.line([(x, curve(top, x)), (x, curve(low, x))], dark, rng.uniform(0.01, 0.03))


def _comic(pen: _Pen, rng: np.random.Generator) -> None:
    """A round face of few lines: eyes and a mouth, perhaps a snout, ears or a moustache."""
    wide, high = rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.6)
    if rng.random() < 0.4:
        for side in (-1, 1):
            pen.ellipse(side * wide * 0.8, 0.12, rng.uniform(0.1, 0.18), rng.uniform(0.1, 0.25), pen.ink, side * 0.4)
    pen.ellipse(0, 0.6, wide, high, pen.ink)
    dark = pen.cloth if rng.random() < 0.6 else pen.second
    across, eye, size = rng.uniform(0.13, 0.24), rng.uniform(0.38, 0.55), rng.uniform(0.04, 0.11)
    for side in (-1, 1):
        pen.ellipse(side * across, eye, size, size * rng.uniform(0.7, 1.6), dark)
        if rng.random() < 0.4:
            pen.ellipse(side * across, eye, size * 0.4, size * 0.4, pen.ink)
    if rng.random() < 0.4:
        pen.ellipse(0, 0.72, rng.uniform(0.12, 0.25), rng.uniform(0.1, 0.2), pen.second)
    half, bend = rng.uniform(0.1, 0.28), rng.uniform(-0.12, 0.14)
    x = np.linspace(-half, half, 9)
    mouth = np.stack([x, rng.uniform(0.75, 0.9) + bend * (1 - (x / half) ** 2)], 1)
    if rng.random() < 0.4:
        pen.fill(mouth, dark)
    pen.line(mouth, dark, rng.uniform(0.02, 0.06))


def _lettering(pen: _Pen, rng: np.random.Generator, top: float, lines: int) -> None:
    for k in range(lines):
        word = str(rng.choice(WORDS))
        font, thick = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX])), int(rng.integers(2, 6))
        scale = 0.85 * pen.px / cv2.getTextSize(word, font, 1, thick)[0][0]
        at = round((0.5 + MARGIN - 0.42) * pen.px), round((top + MARGIN + 0.28 * k) * pen.px) + 8
        cv2.putText(pen.colour, word, at, font, scale, pen.ink.tolist(), thick, cv2.LINE_AA)


def _folded(colour: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cloth is not flat: waves move the ink, folds shade it, it hangs askew and may be worn."""
    h, w = alpha.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    for _ in range(2):
        depth, period, phase = rng.uniform(0, 3.5), rng.uniform(0.3, 1.2) * w, rng.uniform(0, 6.3)
        x += np.float32(depth) * np.sin(y * np.float32(6.28 / period) + np.float32(phase))
        depth, period, phase = rng.uniform(0, 3.5), rng.uniform(0.3, 1.2) * w, rng.uniform(0, 6.3)
        y += np.float32(depth) * np.sin(x * np.float32(6.28 / period) + np.float32(phase))
    turn, narrow = rng.normal(0, 0.1), rng.uniform(0.75, 1.25)
    cx, cy = np.float32(w / 2), np.float32(h / 2)
    u, v = (x - cx) * np.float32(narrow), y - cy
    x, y = (
        u * np.float32(np.cos(turn)) - v * np.float32(np.sin(turn)) + cx,
        u * np.float32(np.sin(turn)) + v * np.float32(np.cos(turn)) + cy,
    )
    colour = cv2.remap(colour, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.remap(alpha, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    cells = rng.normal(0, rng.uniform(0.03, 0.16), (6, 5)).astype(np.float32)
    shade = rng.uniform(0.6, 1.1) * (1 + cv2.resize(cells, (w, h), interpolation=cv2.INTER_CUBIC))
    shade += rng.normal(0, rng.uniform(0, 0.06), (h, w)).astype(np.float32)
    return np.clip(colour * shade[..., None], 0, 255).astype(np.uint8), alpha
