"""One drawn head: a sprite with the box of its face, in every dress that teaches or tests a mask detector.

Positions are in face heights: x from the middle of the face, y from the brow (0) to the chin (1), so that what is
drawn and what is labelled cannot disagree. The random stream is RandomState's, which numpy has frozen: a seed draws
the same under numpy 1.19 and 2.x (single pixels at edges may differ between OpenCV versions).
"""

from typing import Any, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np

WITH_MASK, WITHOUT_MASK, MASK_WORN_INCORRECT = range(3)

WEARS = {
    WITH_MASK: (("surgical", 0.55), ("ffp2", 0.15), ("cloth", 0.30)),
    WITHOUT_MASK: (("bare", 0.42), ("beard", 0.26), ("hand", 0.10), ("scarf", 0.13), ("cup", 0.09)),
    MASK_WORN_INCORRECT: (("nose out", 0.6), ("under chin", 0.4)),
}
SKIN = (
    (54, 75, 110),
    (40, 56, 88),
    (70, 100, 150),
    (95, 132, 185),
    (120, 160, 214),
    (150, 185, 232),
    (165, 195, 235),
    (180, 205, 240),
)
HAIR = (
    (20, 20, 24),
    (24, 30, 42),
    (30, 46, 74),
    (50, 80, 120),
    (90, 140, 180),
    (150, 150, 155),
    (215, 215, 215),
    (40, 50, 110),
)
MASKS = {
    "surgical": ((226, 196, 150), (214, 178, 120), (240, 240, 238), (206, 214, 160), (206, 180, 236), (44, 42, 40)),
    "ffp2": ((240, 240, 240), (228, 230, 232), (42, 42, 44)),
    "cloth": (
        (26, 26, 28),
        (60, 56, 58),
        (110, 60, 36),
        (40, 40, 160),
        (70, 110, 50),
        (150, 140, 130),
        (190, 140, 220),
        (80, 170, 230),
    ),
}
# Around the face, in face heights: hair above, shoulders below and beside.
LEFT, TOP, RIGHT, BOTTOM = -1.15, -0.85, 1.15, 3.4
FINEST_PX = 200  # a face is drawn at most this high and then enlarged

Points = Union[np.ndarray, Sequence[Tuple[float, float]]]
Colour = Union[np.ndarray, Sequence[float]]


class Sprite(NamedTuple):
    """`colour` uint8 (h, w, 3) BGR, already times alpha; `rest` uint8 (h, w, 3), 255 minus alpha; `box` xyxy of the
    face in the sprite's pixels; `label`, None for what is no face."""

    colour: np.ndarray
    rest: np.ndarray
    box: np.ndarray
    label: Optional[int]


def paste(frame: np.ndarray, sprite: Sprite, x: int, y: int) -> None:
    """Draw `sprite` into `frame` (uint8 (h, w, 3)), its upper left corner at (x, y); cut at the frame's edges."""
    h, w = sprite.colour.shape[:2]
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, frame.shape[1]), min(y + h, frame.shape[0])
    if x2 <= x1 or y2 <= y1:
        return
    under = frame[y1:y2, x1:x2]
    shown = slice(y1 - y, y2 - y), slice(x1 - x, x2 - x)
    dimmed = cv2.multiply(under, sprite.rest[shown], scale=1 / 255)
    under[:] = cv2.add(dimmed, np.ascontiguousarray(sprite.colour[shown]))


class _Pen:
    """Draws in face heights on a canvas, turned by `roll` about the middle of the face."""

    def __init__(self, px: float, roll: float) -> None:
        self.px = px
        size = int(round((BOTTOM - TOP) * px)), int(round((RIGHT - LEFT) * px))
        self.colour = np.zeros(size + (3,), np.uint8)
        self.alpha = np.zeros(size, np.uint8)
        self.roll = roll

    def at(self, points: Points) -> np.ndarray:
        """(n, 2) face heights -> (n, 2) float px."""
        xy = np.asarray(points, float) - (0, 0.5)
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        return (xy.dot(np.array([[cos, sin], [-sin, cos]])) + (0, 0.5) - (LEFT, TOP)) * self.px

    def fill(self, points: Points, colour: Colour, over: bool = False) -> None:
        """A polygon. `over`: only where something is already, as a print on a shirt is."""
        sixteenths = [np.round(self.at(points) * 16).astype(np.int32)]
        if over:
            body = self.alpha.copy()
            area = np.zeros_like(body)
            cv2.fillPoly(area, sixteenths, 255)
            self.colour[np.minimum(area, body) > 127] = np.array(colour, np.uint8)
        else:
            cv2.fillPoly(self.colour, sixteenths, [float(c) for c in colour], cv2.LINE_AA, 4)
            cv2.fillPoly(self.alpha, sixteenths, 255, cv2.LINE_AA, 4)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, start: float = 0.0, end: float = 360.0
    ) -> None:
        self.fill(arc(x, y, rx, ry, start, end), colour)

    def line(self, points: Points, colour: Colour, width: float) -> None:
        sixteenths = [np.round(self.at(points) * 16).astype(np.int32)]
        thick = max(1, int(round(width * self.px)))
        cv2.polylines(self.colour, sixteenths, False, [float(c) for c in colour], thick, cv2.LINE_AA, 4)
        cv2.polylines(self.alpha, sixteenths, False, 255, thick, cv2.LINE_AA, 4)


def arc(x: float, y: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0) -> np.ndarray:
    """Points (n, 2) of an ellipse from `start` to `end` degrees (0 right, 90 down)."""
    angle = np.deg2rad(np.linspace(start, end, 28))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def _shade(colour: Colour, factor: float) -> np.ndarray:
    return np.clip(np.asarray(colour, float) * factor, 0, 255)


def _pick(random: np.random.RandomState, odds: Any) -> Any:
    names, weights = zip(*odds)
    return names[random.choice(len(names), p=np.array(weights) / sum(weights))]


def _of(random: np.random.RandomState, colours: Any, spread: float = 12.0) -> np.ndarray:
    return np.clip(np.array(colours[random.randint(len(colours))]) + random.normal(0, spread, 3), 5, 250)


def head(random: np.random.RandomState, face_px: float, label: int) -> Sprite:
    """A head and shoulders whose face is about `face_px` high (brow to chin); what it wears is drawn by lot."""
    wears = _pick(random, WEARS[label])
    pen = _Pen(min(FINEST_PX, max(36.0, 1.5 * face_px)), random.normal(0, 0.10))
    skin = _of(random, SKIN)
    hair = _of(random, HAIR)
    half = random.uniform(0.36, 0.46)  # half the width of the face
    turn = float(np.clip(random.normal(0, 0.09), -0.2, 0.2))  # how far the middle of the face looks aside
    covered = random.choice(4, p=(0.72, 0.12, 0.08, 0.08))  # bare-headed, cap, helmet, hood

    _shoulders(pen, random, skin, half)
    if random.random_sample() < 0.35 and covered != 3:
        pen.ellipse(0, 0.35, half + 0.16, random.uniform(0.85, 1.15), hair)  # long hair, behind
        pen.fill([(-half * 0.55, 0.8), (half * 0.55, 0.8), (half * 0.6, 1.25), (-half * 0.6, 1.25)], _shade(skin, 0.8))
    if covered == 3:
        pen.ellipse(0, 0.35, half + 0.18, 0.98, _of(random, MASKS["cloth"], 25))
    else:
        for side in (-1, 1):
            pen.ellipse(side * half, 0.3, 0.07, 0.15, _shade(skin, 0.88))
    face = arc(0, 0.32, half, 0.68)
    pen.fill(face, skin)
    _features(pen, random, skin, hair, half, turn)
    if wears == "beard" or (wears not in ("bare", "beard") and random.random_sample() < 0.12):
        _beard(pen, random, hair, half, turn)
    _covering(pen, random, hair, half, covered)
    if random.random_sample() < 0.25:
        _glasses(pen, random, half, turn)
    if label != WITHOUT_MASK:
        _mask(pen, random, half, turn, wears)
    elif wears == "scarf":
        _scarf(pen, random, half)
    elif wears == "hand":
        _hand(pen, random, skin, turn)
    elif wears == "cup":
        pen.fill(
            [(turn - 0.2, 0.6), (turn + 0.2, 0.6), (turn + 0.14, 1.15), (turn - 0.14, 1.15)], random.uniform(20, 245, 3)
        )
        _hand(pen, random, skin, turn, 0.25)
    outline = pen.at(face[face[:, 1] >= 0])
    return _sprite(pen, random, face_px, np.concatenate([outline.min(0), outline.max(0)]), label)


def decoy(random: np.random.RandomState, face_px: float) -> Sprite:
    """What is about as large as a face and none: the back of a head, a ball, a hand, a mask on nobody."""
    pen = _Pen(min(FINEST_PX, max(36.0, 1.5 * face_px)), random.normal(0, 0.2))
    kind = random.randint(4)
    half = random.uniform(0.36, 0.46)
    if kind == 0:
        _shoulders(pen, random, _of(random, SKIN), half)
        hair = _of(random, HAIR)
        pen.ellipse(0, 0.25, half + 0.04, 0.72, hair)
        for x in random.uniform(-0.3, 0.3, 6):
            pen.line([(x, -0.3), (x * 1.2, 0.7)], _shade(hair, random.uniform(0.7, 1.4)), 0.02)
    elif kind == 1:
        colour = random.uniform(20, 245, 3)
        pen.ellipse(0, 0.4, half, half, colour)
        pen.ellipse(-0.12, 0.28, 0.1, 0.1, _shade(colour, 1.3))
    elif kind == 2:
        _hand(pen, random, _of(random, SKIN), 0.0)
    else:
        _mask(pen, random, half, 0.0, "surgical", straps=False)
    return _sprite(pen, random, face_px, np.zeros(4), None)


def _both(right: Points) -> np.ndarray:
    """The right half of an outline, from the middle outwards, and its mirror image before it."""
    half = np.asarray(right, float)
    return np.concatenate([(half * (-1, 1))[::-1], half])


def _shoulders(pen: "_Pen", random: np.random.RandomState, skin: np.ndarray, half: float) -> None:
    cloth = random.uniform(15, 235, 3)
    wide = random.uniform(0.85, 1.05)
    right = [(0.22, 1.3), (0.6, 1.4), (wide, 1.62), (wide * 1.06, 4)]
    pen.fill(_both(right), cloth)
    for side in (-1, 1):
        pen.line([(side * wide * 0.74, 2.1), (side * wide * 0.78, 4)], _shade(cloth, 0.75), 0.03)
    pen.fill(
        [(-half * 0.55, 0.7), (half * 0.55, 0.7), (half * 0.6, 1.32), (0, 1.45), (-half * 0.6, 1.32)],
        _shade(skin, 0.78),
    )
    what = random.choice(4, p=(0.6, 0.15, 0.15, 0.1))
    if what == 1:
        for y in np.arange(1.45, 3.4, random.uniform(0.1, 0.25)):
            pen.fill([(-1.1, y), (1.1, y), (1.1, y + 0.06), (-1.1, y + 0.06)], _shade(cloth, 0.6), over=True)
    elif what == 2:  # a lapel and a shirt
        pen.fill([(-0.2, 1.34), (0.2, 1.34), (0, 2.5)], (235, 235, 235))
        pen.fill([(-0.05, 1.42), (0.05, 1.42), (0.07, 2.4), (-0.07, 2.4)], random.uniform(20, 200, 3))
    elif what == 3:  # a printed skull: a face-like thing that is none
        pen.ellipse(0, 1.78, 0.2, 0.2, (225, 225, 225))
        for x in (-0.08, 0.08):
            pen.ellipse(x, 1.76, 0.05, 0.06, (20, 20, 20))
        pen.fill([(-0.1, 1.92), (0.1, 1.92), (0.08, 2.02), (-0.08, 2.02)], (225, 225, 225))


def _features(
    pen: "_Pen", random: np.random.RandomState, skin: np.ndarray, hair: np.ndarray, half: float, turn: float
) -> None:
    dark, light = _shade(skin, 0.72), _shade(skin, 1.08)
    pen.ellipse(turn, 0.45, half * 0.5, 0.3, light)
    for side in (-1, 1):
        x = turn * 1.2 + side * half * 0.46
        pen.ellipse(x, 0.17, half * 0.22, 0.07, dark)
        pen.ellipse(x, 0.18, half * 0.17, 0.045, (225, 228, 232))
        pen.ellipse(x + turn * 0.2, 0.18, half * 0.08, 0.043, random.uniform(15, 90, 3))
        pen.line([(x - half * 0.24, 0.05), (x, 0.01), (x + half * 0.24, 0.05)], _shade(hair, 0.8), 0.035)
    nose = turn * 1.5
    pen.line([(nose - half * 0.05, 0.22), (nose - half * 0.16, 0.54), (nose + half * 0.05, 0.59)], dark, 0.03)
    for side in (-1, 1):
        pen.ellipse(nose + side * half * 0.13, 0.575, half * 0.07, 0.022, _shade(skin, 0.45))
    lips = np.clip(skin * 0.75 + np.array((10, 0, 45)), 0, 255)
    mouth = random.uniform(0.4, 0.62) * half
    pen.ellipse(turn * 1.2, 0.77, mouth, random.uniform(0.025, 0.075), lips)
    if random.random_sample() < 0.3:
        pen.ellipse(turn * 1.2, 0.77, mouth * 0.8, 0.025, (235, 238, 240))
    else:
        pen.line([(turn * 1.2 - mouth, 0.77), (turn * 1.2 + mouth, 0.77)], _shade(lips, 0.55), 0.015)


def _beard(pen: "_Pen", random: np.random.RandomState, hair: np.ndarray, half: float, turn: float) -> None:
    full = random.random_sample() < 0.7
    low, grey = 1.0 + random.uniform(0, 0.18), _shade(hair, random.uniform(0.9, 1.2))
    if full:
        edge = [
            (-half, 0.42),
            (-half * 0.72, 0.62),
            (turn - half * 0.45, 0.66),
            (turn, 0.62),
            (turn + half * 0.45, 0.66),
            (half * 0.72, 0.62),
            (half, 0.42),
        ]
        pen.fill(edge + [(half * 0.85, 0.8), (half * 0.45, low), (-half * 0.45, low), (-half * 0.85, 0.8)], grey)
        pen.ellipse(turn * 1.2, 0.78, half * 0.36, 0.04, (90, 95, 165))
    pen.ellipse(turn * 1.2, 0.675, half * 0.45, 0.045, _shade(grey, 0.85))


def _covering(pen: "_Pen", random: np.random.RandomState, hair: np.ndarray, half: float, covered: Any) -> None:
    if covered == 0 and random.random_sample() < 0.9:
        line = random.uniform(-0.28, -0.12)
        fringe = [(half * 0.92, 0.15), (half * 0.6, line), (-half * 0.4, line - 0.05), (-half * 0.92, 0.15)]
        pen.fill(np.concatenate([arc(0, 0.2, half + 0.06, random.uniform(0.66, 0.78), 180, 360), fringe]), hair)
    elif covered in (1, 2):
        colour = random.uniform(20, 240, 3)
        high = 0.5 if covered == 1 else 0.62
        rim = [(half + 0.07, -0.06), (-half - 0.07, -0.06)]
        pen.fill(np.concatenate([arc(0, -0.1, half + 0.07, high, 180, 360), rim]), colour)
        peak = [(-half * 1.25, -0.12), (half * 1.25, -0.12), (half * 1.1, -0.02), (-half * 1.1, -0.02)]
        pen.fill(peak, _shade(colour, 0.7))
    elif covered == 3:
        pen.line(arc(0, 0.32, half + 0.03, 0.72), random.uniform(20, 200, 3), 0.12)


def _glasses(pen: "_Pen", random: np.random.RandomState, half: float, turn: float) -> None:
    sun = random.random_sample() < 0.35
    for side in (-1, 1):
        x = turn * 1.2 + side * half * 0.46
        if sun:
            pen.ellipse(x, 0.18, half * 0.36, 0.12, (25, 22, 20))
        pen.line(arc(x, 0.18, half * 0.36, 0.12), (30, 28, 30), 0.022)
    pen.line([(turn * 1.2 - half * 0.1, 0.16), (turn * 1.2 + half * 0.1, 0.16)], (30, 28, 30), 0.022)


def _mask(
    pen: "_Pen", random: np.random.RandomState, half: float, turn: float, wears: Any, straps: bool = True
) -> None:
    material = wears if wears in MASKS else _pick(random, WEARS[WITH_MASK])
    colour = _of(random, MASKS[material], 14)
    if material == "cloth" and random.random_sample() < 0.3:
        colour = random.uniform(15, 245, 3)
    usual = {"nose out": (0.66, 0.64, 1.08), "under chin": (0.92, 0.86, 1.24)}.get(wears, (0.3, 0.42, 1.03))
    top, side, low = np.array(usual) + random.uniform(-0.03, 0.03, 3)
    tall = low - top
    wide = half * random.uniform(0.95, 1.03)
    middle = turn * 1.3
    if straps:
        ear = 0.3 if wears != "under chin" else 0.55
        cord = (235, 235, 235) if random.random_sample() < 0.6 else (40, 40, 40)
        for s in (-1, 1):
            pen.line([(s * wide * 0.95, side), (s * (half + 0.03), ear)], cord, 0.02)
            pen.line([(s * wide * 0.8, top + 0.75 * tall), (s * (half + 0.03), ear + 0.15)], cord, 0.02)
    edge = [(middle + x * wide, y) for x, y in ((-0.2, top), (0.2, top), (0.5, top + 0.1 * tall))] + [
        (wide, side),
        (wide * 0.98, top + 0.45 * tall),
        (wide * 0.72, top + 0.82 * tall),
        (middle * 0.5 + wide * 0.35, low),
        (middle * 0.5 - wide * 0.35, low),
        (-wide * 0.72, top + 0.82 * tall),
        (-wide * 0.98, top + 0.45 * tall),
        (-wide, side),
        (middle - wide * 0.5, top + 0.1 * tall),
    ]
    pen.fill(edge, colour)
    line = _shade(colour, random.uniform(0.75, 0.9))
    if material == "surgical":
        for at in (0.32, 0.52, 0.72):
            y = top + at * tall
            pen.line([(-wide * 0.85, y), (middle, y + 0.06 * tall), (wide * 0.85, y)], line, 0.014)
    else:
        pen.line([(middle, top), (middle * 0.5, low)], line, 0.016)
        if material == "cloth" and random.random_sample() < 0.4:
            other = random.uniform(15, 245, 3)
            for x, y in random.uniform((-0.75, 0.15), (0.75, 0.85), (14, 2)):
                pen.ellipse(x * wide * 0.9, top + y * tall, 0.035, 0.035, other)


def _scarf(pen: "_Pen", random: np.random.RandomState, half: float) -> None:
    """Over the mouth, and wider than the head: no mask."""
    colour = random.uniform(15, 230, 3)
    top = random.uniform(0.5, 0.72)
    wide = half + random.uniform(0.06, 0.16)
    upper = [(-wide, top), (-half * 0.4, top + 0.05), (half * 0.4, top + 0.04), (wide, top - 0.02)]
    pen.fill(upper + [(wide + 0.05, 1.25), (0, 1.5), (-wide - 0.05, 1.3)], colour)
    for y in random.uniform(top + 0.1, 1.3, 5):
        fold = [(-wide, y), (0, y + random.uniform(-0.08, 0.12)), (wide, y - 0.04)]
        pen.line(fold, _shade(colour, random.uniform(0.65, 1.3)), 0.03)


def _hand(pen: "_Pen", random: np.random.RandomState, skin: np.ndarray, turn: float, down: float = 0.0) -> None:
    tone = _shade(skin, random.uniform(0.85, 1.1))
    side = random.choice((-1, 1))
    x, y = turn + side * random.uniform(0, 0.08), 0.80 + down
    pen.fill([(x - 0.06, y + 0.1), (x + 0.22 * side, y), (x + 0.45 * side, 1.9), (x + 0.1 * side, 1.95)], tone)
    pen.ellipse(x, y, 0.24, 0.17, tone)
    for finger in range(4):
        at = y - 0.13 + finger * 0.085
        pen.line([(x + side * 0.15, at + 0.03), (x - side * random.uniform(0.25, 0.33), at)], tone, 0.085)
        pen.line([(x + side * 0.1, at + 0.075), (x - side * 0.25, at + 0.05)], _shade(tone, 0.7), 0.012)


def _sprite(pen: "_Pen", random: np.random.RandomState, face_px: float, box: Any, label: Optional[int]) -> "Sprite":
    h, w = pen.alpha.shape
    scale = face_px / pen.px
    size = max(1, int(round(w * scale))), max(1, int(round(h * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    # Shapes were drawn on black, so at its edges the colour is already times alpha.
    colour = cv2.resize(pen.colour, size, interpolation=method)
    shown = cv2.cvtColor(cv2.resize(pen.alpha, size, interpolation=method), cv2.COLOR_GRAY2BGR)
    slope, bend = random.uniform(-0.3, 0.3), random.uniform(0.05, 0.25)
    u = np.linspace(-1, 1, size[0])
    light = np.clip(128 * random.uniform(0.6, 1.12) * (1 + slope * u - bend * u * u), 0, 255).astype(np.uint8)
    lit = np.ascontiguousarray(np.broadcast_to(light[None, :, None], colour.shape))
    colour = cv2.multiply(colour, lit, scale=1 / 128.0)
    noise = np.clip(random.normal(128, 5, (48, 48)), 0, 255).astype(np.uint8)
    grain = cv2.resize(noise, (max(size[0], 48), max(size[1], 48)), interpolation=cv2.INTER_LINEAR)[
        : size[1], : size[0]
    ]
    colour = cv2.addWeighted(colour, 1.0, cv2.cvtColor(np.ascontiguousarray(grain), cv2.COLOR_GRAY2BGR), 1.0, -128.0)
    ratio = np.array((size[0] / float(w), size[1] / float(h)) * 2)
    return Sprite(np.minimum(colour, shown), 255 - shown, (box * ratio).astype(np.float32), label)


def covered(box: np.ndarray, sprite: Sprite, x: int, y: int) -> float:
    """How much of `box` (xyxy, frame px) lies behind `sprite` pasted at (x, y): 0 to 1."""
    x1, y1, x2, y2 = (int(round(v)) for v in box)
    hidden = sprite.rest[max(0, y1 - y) : max(0, y2 - y), max(0, x1 - x) : max(0, x2 - x), 0]
    return float(np.count_nonzero(hidden < 128)) / max(1, (x2 - x1) * (y2 - y1))
