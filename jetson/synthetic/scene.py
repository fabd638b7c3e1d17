"""Labelled scenes drawn from nothing, so that everything runs without a photograph or a camera.

`scene` is one still picture, `Scene` a moving one, cheap enough for 60 frames/s beside a detector on one core: heads
are rendered once, then moved and composited. A figure measured on these is about drawings and must be called that.
"""

from typing import Any, List, NamedTuple, Optional, Tuple

import cv2
import numpy as np

from jetson.synthetic.heads import Sprite, covered, decoy, head, paste

LABEL_ODDS = (0.5, 0.38, 0.12)  # with_mask, without_mask, mask_worn_incorrect
SMALLEST_FACE_PX = 8
SHOWN = 0.5  # a face with less of its box visible than this is not part of the truth


def ground(random: np.random.RandomState, frame_wh: Tuple[int, int]) -> np.ndarray:
    """A textured background without people, uint8 (h, w, 3) BGR: cloudy tints, walls, boxes, poles, lamps, print."""
    w, h = frame_wh
    picture = np.empty((h, w, 3), np.float32)
    picture[:] = random.uniform(35, 215) + random.normal(0, 18, 3)  # rooms and streets are nearly grey
    for cells, strength in ((3, 45), (9, 22), (40, 10)):
        noise = random.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        noise = noise * 0.15 + noise.mean(2, keepdims=True) * 1.3
        picture += cv2.resize(noise, (w, h), interpolation=cv2.INTER_LINEAR)
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    for _ in range(random.randint(4, 26)):
        grey, vivid = random.uniform(20, 235), random.choice((0.15, 0.4, 1.0))
        colour = [float(c) for c in grey + vivid * (random.uniform(10, 245, 3) - grey)]
        x, y = int(random.randint(w)), int(random.randint(h))
        size = int(np.exp(random.uniform(np.log(4), np.log(max(8, 0.5 * h)))))
        kind = random.randint(5)
        if kind == 0:
            cv2.rectangle(picture, (x, y), (x + size, y + int(size * random.uniform(0.3, 2.5))), colour, -1)
        elif kind == 1:
            axes = size // 2 + 1, int(size * random.uniform(0.2, 0.8)) + 1
            cv2.ellipse(picture, (x, y), axes, 0, 0, 360, colour, -1, cv2.LINE_AA)
        elif kind == 2:
            cv2.line(picture, (x, 0), (x + int(random.normal(0, 20)), h), colour, max(1, size // 12), cv2.LINE_AA)
        elif kind == 3:
            for row in range(0, size, 6):
                cv2.line(picture, (x, y + row), (x + size, y + row), colour, 1 + int(random.randint(3)))
        else:
            text = "EXIT 24"[: 1 + int(random.randint(7))]
            font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.2 + size / 80.0
            cv2.putText(picture, text, (x, y), font, scale, colour, 1 + size // 30, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), float(random.uniform(0.4, 2.5)))


def scene(
    seed: int, frame_wh: Tuple[int, int], faces: Optional[int] = None
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> frame uint8 (h, w, 3) BGR, xyxy float32 (N, 4), labels int64 (N,): the same for the same arguments.

    `faces`: how many heads are tried (by lot 0 to 12 if None); one that finds no free place is left out, so N may be
    smaller. Faces are 8 px to about half the frame high. Sprites larger in the picture stand in front.
    """
    random = np.random.RandomState(seed)
    w, h = frame_wh
    frame = ground(random, frame_wh)
    wanted = int(random.randint(13)) if faces is None else faces
    largest = max(SMALLEST_FACE_PX + 1.0, min(0.55 * h, 0.6 * w))
    heights = np.exp(random.uniform(np.log(SMALLEST_FACE_PX), np.log(largest), wanted + wanted // 3))
    placed: List[Tuple[Sprite, int, int]] = []
    for number, face_px in sorted(enumerate(heights), key=lambda pair: -pair[1]):
        if number < wanted:
            sprite = head(random, face_px, int(random.choice(3, p=LABEL_ODDS)))
        else:
            sprite = decoy(random, min(face_px, 0.2 * h))
        for _ in range(24):
            x, y = _place(random, sprite, w, h)
            mine = sprite.box + (x, y, x, y)
            if all(covered(mine, *other) < 0.08 for other in placed):
                placed.append((sprite, x, y))
                break
    boxes, labels = [], []
    for sprite, x, y in reversed(placed):
        paste(frame, sprite, x, y)
        if sprite.label is not None:
            boxes.append(sprite.box + (x, y, x, y))
            labels.append(sprite.label)
    frame = _camera(random, frame)
    return frame, _cut(boxes, w, h), np.array(labels, np.int64)


def _place(random: np.random.RandomState, sprite: Any, w: int, h: int) -> Tuple[int, int]:
    """-> the sprite's corner; a face may reach over an edge of the frame by a fifth of itself."""
    fw, fh = sprite.box[2] - sprite.box[0], sprite.box[3] - sprite.box[1]
    if sprite.label is None:
        sh, sw = sprite.rest.shape[:2]
        return int(random.randint(-sw // 2, w - sw // 2)), int(random.randint(-sh // 2, h - sh // 2))
    low_x, low_y, high_x, high_y = -0.2 * fw, -0.2 * fh, w - 0.8 * fw, h - 0.8 * fh
    if random.random_sample() < 0.85:  # mostly all of it is seen
        low_x, low_y, high_x, high_y = 0, min(0.2 * fh, h - fh), w - fw, h - fh
    x, y = random.uniform(low_x, max(low_x + 1, high_x)), random.uniform(low_y, max(low_y + 1, high_y))
    return int(round(x - sprite.box[0])), int(round(y - sprite.box[1]))


def _inside(box: Any, other: Any) -> float:
    """How much of `box` lies in `other`, 0 to 1."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    return float(width * height / max(1e-6, (box[2] - box[0]) * (box[3] - box[1])))


def _cut(boxes: Any, w: int, h: int) -> np.ndarray:
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    xyxy[:, 0::2] = np.clip(xyxy[:, 0::2], 0, w)
    xyxy[:, 1::2] = np.clip(xyxy[:, 1::2], 0, h)
    return xyxy


def _camera(random: np.random.RandomState, frame: np.ndarray) -> np.ndarray:
    """A little blur, a little sensor noise."""
    if random.random_sample() < 0.5:
        frame = cv2.GaussianBlur(frame, (0, 0), float(random.uniform(0.3, 1.0)))
    tile = np.clip(random.normal(128, random.uniform(0.5, 6), (160, 160)), 0, 255).astype(np.uint8)
    h, w = frame.shape[:2]
    noise = np.tile(tile, (h // 160 + 1, w // 160 + 1))[:h, :w]  # nobody sees the repeat, and it is many times cheaper
    return cv2.addWeighted(frame, 1.0, cv2.cvtColor(np.ascontiguousarray(noise), cv2.COLOR_GRAY2BGR), 1.0, -128.0)


class _Walker(NamedTuple):
    sprite: Sprite
    x: float  # where its left edge is at t = 0, in px of a path that is `span` long
    y: float
    speed: float  # px/s, negative to the left
    span: float
    bob: float  # px
    phase: float


class Scene:
    """A moving picture: people walk through the frame, leave it and come back as somebody else.

    `frame(t_s)` depends on nothing but (seed, frame_wh, faces, t_s), so that a reader can start anywhere.
    """

    def __init__(self, seed: int, frame_wh: Tuple[int, int], faces: Optional[int] = None) -> None:
        random = np.random.RandomState(seed)
        self.frame_wh = w, h = frame_wh
        self._ground = ground(random, frame_wh)
        count = int(random.randint(3, 7)) if faces is None else faces
        # Both the smallest and the largest are always there, whatever the lot says.
        low, high = np.log(max(SMALLEST_FACE_PX, 0.06 * h)), np.log(max(SMALLEST_FACE_PX + 1, 0.36 * h))
        heights = np.exp(np.linspace(low, high, max(count, 1)))
        self._walkers: List[_Walker] = []
        for number in range(count):
            label = number % 2 if number < 2 else int(random.choice(3, p=LABEL_ODDS))
            sprite = head(random, heights[number] * random.uniform(0.85, 1.1), label)
            sw = sprite.rest.shape[1]
            span = w + 1.2 * sw
            face_h = float(sprite.box[3] - sprite.box[1])
            near = 0.35 + 0.65 * number / max(1, count - 1)  # who is nearer stands lower in the picture
            y = random.uniform(0.02 * h, max(0.03 * h, 0.9 * h - face_h)) * near - sprite.box[1]
            self._walkers.append(
                _Walker(
                    sprite,
                    span * (number + random.uniform(0.2, 0.8)) / count,
                    y,
                    random.choice((-1, 1)) * random.uniform(0.03, 0.14) * w,
                    span,
                    random.uniform(0, 0.03) * face_h + 1,
                    random.uniform(0, 6.28),
                )
            )
        noise = random.normal(128, 20, (h + 64, w + 64, 1)).clip(0, 255).astype(np.uint8)
        self._noise = np.repeat(noise, 3, 2)

    def frame(self, t_s: float) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """-> frame uint8 (h, w, 3) BGR, xyxy float32 (N, 4), labels int64 (N,), ids int64 (N,), at `t_s` seconds.

        An id is one walk through the frame. Faces cut or covered to under half are left out of the truth.
        """
        w, h = self.frame_wh
        picture = self._ground.copy()
        spots = []
        for number, walker in enumerate(self._walkers):  # from the smallest, which is the farthest, to the nearest
            lap, along = divmod(walker.x + walker.speed * t_s, walker.span)
            x = int(round(along - 1.1 * walker.sprite.rest.shape[1]))
            y = int(round(walker.y + walker.bob * np.sin(walker.phase + 5 * t_s)))
            paste(picture, walker.sprite, x, y)
            spots.append((walker.sprite, x, y, number + len(self._walkers) * _counted(int(lap))))
        boxes, labels, ids = [], [], []
        for number, (sprite, x, y, identity) in enumerate(spots):
            box = sprite.box + (x, y, x, y)
            hidden = sum(covered(box, *other[:3]) for other in spots[number + 1 :])
            if _inside(box, (0, 0, w, h)) - hidden >= SHOWN:
                boxes.append(box)
                labels.append(sprite.label)
                ids.append(identity)
        tick = int(t_s * 1000)
        dy, dx = tick * 7 % 64, tick * 13 % 64
        cv2.addWeighted(picture, 1.0, self._noise[dy : dy + h, dx : dx + w], 0.25, -32.0, picture)
        return picture, _cut(boxes, w, h), np.array(labels, np.int64), np.array(ids, np.int64)


def _counted(lap: int) -> int:
    """Laps 0, 1, -1, 2, -2 ... as 0, 1, 2, 3, 4 ...: ids stay positive for those who walk to the left."""
    return 2 * lap - 1 if lap > 0 else -2 * lap
