"""Box-aware augmentation in numpy and cv2. Every kind is a number in the config's `augment` section; 0 turns it off.

A canvas is one of five kinds: a single photograph zoomed and cropped, a mosaic of four, a scene with pasted faces,
one large face, or a drawn scene with beards, hands, scarves and cups at bare mouths. What is cut to under half, or ends
smaller than `min_face_px`, is kept out of the loss (ignored), not called background.
"""

from typing import Any

import cv2
import numpy as np

from jetson.synthetic import scene
from pipeline.config import Augment
from pipeline.data.prints import TALLEST as TALLEST_PRINT
from pipeline.data.prints import draw_print
from pipeline.training.canvas import Sheet, draw_masks, overlap
from pipeline.training.photometric import erase, photometric

FACE_ODDS = (0.42, 0.46, 0.12)  # of pasted and large faces: masked, bare (some get a drawn mask), worn incorrectly
MAX_FACE_PX = 600  # larger faces than this are of no use to a detector whose largest input is 640
ENLARGED = 2.0  # a large face is rather taken from a photograph that need not be enlarged more: blur is no feature


def canvas(
    pool: Any, size: int, config: Augment, rng: np.random.Generator, closing: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One training image: (size, size, 3) uint8, boxes (N, 4) float32, labels (N,) int32, ignore (M, 4) float32."""
    kinds = [config.single, 0 if closing else config.mosaic, 0 if closing else config.paste, config.large, config.drawn]
    total = sum(kinds)
    kind = rng.choice(len(kinds), p=np.array(kinds) / total) if total else 0
    sheet = Sheet(size, config)
    if kind == 1:
        _mosaic(sheet, pool, rng)
    elif kind == 2:
        _pasted(sheet, pool, rng)
    elif kind == 3:
        _large(sheet, pool, rng)
    elif kind == 4:
        image, boxes, labels = scene.scene(int(rng.integers(2**32)), (size, size))
        sheet.image[:] = image
        sheet.add(boxes, labels.astype(np.int32), np.zeros((0, 4), np.float32), (0, 0, size, size))
    else:
        photo = _pick(pool, rng)
        sheet.place(photo, rng, _zoom(photo, size, rng, config), (0, 0, size, size))
    if rng.random() < config.prints:
        _print(sheet, rng)
    if rng.random() < config.flip:
        sheet.flip()
    image = photometric(sheet.image, config, rng)
    if rng.random() < config.erase:
        erase(image, sheet.boxes, rng)
    return (image, *sheet.truth())


def _pick(pool: Any, rng: np.random.Generator) -> Any:
    weights = np.array([w for _, w in pool.scenes])
    photos = pool.scenes[rng.choice(len(weights), p=weights / weights.sum())][0]
    photo = photos[rng.integers(len(photos))]
    if not pool.masks:
        return _with_a_rare_one(pool, photos, photo, rng)
    # Class 3 is rare: a second and third draw may replace a photo without one.
    for _ in range(2):
        if (photo.labels == 2).any():
            break
        other = photos[rng.integers(len(photos))]
        if (other.labels == 2).any():
            photo = other
    # Bare faces count as much in the metric as masked ones and are a fifth of them: one more draw may bring some.
    if not (photo.labels >= 1).any():
        other = photos[rng.integers(len(photos))]
        if (other.labels == 1).any():
            photo = other
    return photo


def _with_a_rare_one(pool: Any, photos: list[Any], photo: Any, rng: np.random.Generator) -> Any:
    """The photo, or another one that holds the class of fewest boxes: one more draw, so that it is not drowned."""
    counts = [len(faces) or 1e9 for faces in pool.faces]
    rare = int(np.argmin(counts))
    if len(counts) == 1 or (photo.labels == rare).any():
        return photo
    other = photos[rng.integers(len(photos))]
    return other if (other.labels == rare).any() else photo


def _zoom(
    photo: Any, size: float, rng: np.random.Generator, config: Augment, low: float = 0.55, high: float = 1.7
) -> tuple[float, float]:
    """Scale (x, y) that brings the photo's long side to low..high of size, its largest face under MAX_FACE_PX."""
    h, w = photo.image().shape[:2]
    scale = size / max(w, h) * np.exp(rng.uniform(np.log(low), np.log(high)) * config.scale)
    if len(photo.boxes):
        face = (photo.boxes[:, 2:] - photo.boxes[:, :2]).max()
        scale = min(scale, min(MAX_FACE_PX, 0.95 * size) / face)
    stretch = np.exp(rng.uniform(-0.12, 0.12) * config.scale)
    return scale * stretch, scale / stretch


def _mosaic(sheet: Sheet, pool: Any, rng: np.random.Generator) -> None:
    size = sheet.size
    cx, cy = (int(size * rng.uniform(0.25, 0.75)) for _ in range(2))
    for region in ((0, 0, cx, cy), (cx, 0, size, cy), (0, cy, cx, size), (cx, cy, size, size)):
        photo = _pick(pool, rng)
        room = max(region[2] - region[0], region[3] - region[1])
        sheet.place(photo, rng, _zoom(photo, room, rng, sheet.config, 0.7, 1.9), region)


def _pasted(sheet: Sheet, pool: Any, rng: np.random.Generator) -> None:
    """A background with 2 to 10 faces pasted at many sizes, and patches without faces as distractors."""
    size = sheet.size
    if pool.backgrounds and rng.random() < 0.6:
        photo = pool.backgrounds[rng.integers(len(pool.backgrounds))]
    else:
        photo = _pick(pool, rng)
    h, w = photo.image().shape[:2]
    fill = size / min(w, h) * rng.uniform(1.0, 1.4)
    sheet.place(photo, rng, (fill, fill), (0, 0, size, size))
    for _ in range(int(rng.integers(2, 11))):
        photo, k = _pick_face(pool, rng)
        face = float(np.exp(rng.uniform(np.log(8), np.log(0.4 * size))))
        _paste(sheet, photo, k, face, rng)
    for _ in range(int(rng.integers(0, 4))):
        _distract(sheet, pool, rng)


def _pick_face(pool: Any, rng: np.random.Generator) -> tuple[Any, int]:
    """(photo, index of its box): the class first, so that bare and badly covered faces are not drowned by masks."""
    shares = FACE_ODDS if pool.masks else [1.0] * len(pool.faces)
    odds = np.array([share * bool(faces) for share, faces in zip(shares, pool.faces, strict=True)])
    faces = pool.faces[rng.choice(len(odds), p=odds / odds.sum())]
    return faces[rng.integers(len(faces))]


def _paste(sheet: Sheet, photo: Any, k: int, face_px: float, rng: np.random.Generator) -> None:
    """Paste face k of photo, with what surrounds it, so that it is face_px high; its edge feathered or hard."""
    image, boxes = photo.image(), photo.boxes
    box = boxes[k]
    bw, bh = box[2:] - box[:2]
    margin = rng.uniform(0.1, 0.7, 4)
    h, w = image.shape[:2]
    u0, v0 = max(0, int(box[0] - margin[0] * bw)), max(0, int(box[1] - margin[1] * bh))
    u1, v1 = min(w, int(np.ceil(box[2] + margin[2] * bw))), min(h, int(np.ceil(box[3] + margin[3] * bh)))
    inside = [i for i in range(len(boxes)) if i != k and overlap(boxes[i], (u0, v0, u1, v1)) > 0]
    if inside or bw < 4 or bh < 4:
        return  # a neighbour's half face in the patch would be an unlabelled one
    patch = image[v0:v1, u0:u1]
    labels = photo.labels[k : k + 1]
    local = (box - np.array([u0, v0, u0, v0], np.float32))[None]
    patch, labels = draw_masks(patch, local, labels, sheet.config.drawn_masks, rng)
    scale = face_px / bh
    pw, ph = round(patch.shape[1] * scale), round(patch.shape[0] * scale)
    if pw < 4 or ph < 4 or pw >= sheet.size or ph >= sheet.size:
        return
    patch = cv2.resize(patch, (pw, ph), interpolation=cv2.INTER_AREA if scale < 0.7 else cv2.INTER_LINEAR)
    x, y = int(rng.integers(0, sheet.size - pw)), int(rng.integers(0, sheet.size - ph))
    for other in sheet.boxes:
        if overlap(other, (x, y, x + pw, y + ph)) > 0.1:
            return
    target = sheet.image[y : y + ph, x : x + pw]
    if rng.random() < 0.5 and min(pw, ph) >= 12:
        alpha = np.zeros((ph, pw), np.float32)
        cv2.ellipse(alpha, (pw // 2, ph // 2), (int(pw * 0.46), int(ph * 0.46)), 0, 0, 360, 1.0, -1)
        alpha = cv2.blur(alpha, (max(3, pw // 6), max(3, ph // 6)))[..., None]
        target[:] = (patch * alpha + target * (1 - alpha)).astype(np.uint8)
    else:
        target[:] = patch
    sheet.cover((x, y, x + pw, y + ph))
    factor = np.array([pw / (u1 - u0), ph / (v1 - v0)] * 2, np.float32)
    sheet.add(
        local * factor + np.array([x, y, x, y], np.float32),
        labels,
        np.zeros((0, 4), np.float32),
        (x, y, x + pw, y + ph),
    )


def _distract(sheet: Sheet, pool: Any, rng: np.random.Generator) -> None:
    """A patch of a photograph that holds no face: skin, hands, clothes and heads seen from behind teach what not to
    find."""
    photo = _pick(pool, rng)
    image = photo.image()
    h, w = image.shape[:2]
    side = int(rng.uniform(0.1, 0.4) * min(h, w))
    if side < 8:
        return
    x, y = int(rng.integers(0, w - side)), int(rng.integers(0, h - side))
    region = (x, y, x + side, y + side)
    if any(overlap(b, region) > 0 for b in [*photo.boxes, *photo.ignore]):
        return
    px = int(np.exp(rng.uniform(np.log(10), np.log(0.3 * sheet.size))))
    patch = cv2.resize(image[y : y + side, x : x + side], (px, px), interpolation=cv2.INTER_AREA)
    cx, cy = int(rng.integers(0, sheet.size - px)), int(rng.integers(0, sheet.size - px))
    if any(overlap(b, (cx, cy, cx + px, cy + px)) > 0 for b in [*sheet.boxes, *sheet.ignore]):
        return
    sheet.image[cy : cy + px, cx : cx + px] = patch


def _print(sheet: Sheet, rng: np.random.Generator) -> None:
    """A skull or another face of ink: on the chest under some face, one to two faces wide, or anywhere free."""
    size = sheet.size
    for _ in range(3):
        width = float(np.exp(rng.uniform(np.log(12), np.log(0.45 * size))))
        x, y = rng.uniform(0, size - width), rng.uniform(0, size - width)
        if sheet.boxes and rng.random() < 0.6:
            box = sheet.boxes[rng.integers(len(sheet.boxes))]
            w, h = box[2:] - box[:2]
            width = min(float(w * rng.uniform(1.0, 2.2)), 0.6 * size)
            x = (box[0] + box[2] - width) / 2 + rng.uniform(-0.3, 0.3) * w
            y = box[3] + rng.uniform(0.15, 0.8) * h
        left, top = max(0, int(x)), max(0, int(y))
        right, bottom = min(size, int(x + width)), min(size, int(y + TALLEST_PRINT * width))
        region = left, top, right, bottom
        if min(right - left, bottom - top) < 6 or any(overlap(b, region) > 0 for b in [*sheet.boxes, *sheet.ignore]):
            continue
        colour, alpha = draw_print(width, rng)
        target = sheet.image[top:bottom, left:right]
        colour, alpha = (
            np.ascontiguousarray(a[top - int(y) :, left - int(x) :][: bottom - top, : right - left])
            for a in (colour, alpha)
        )
        target = target[: len(alpha), : alpha.shape[1]]
        target[:] = cv2.blendLinear(colour, np.ascontiguousarray(target), alpha, 1 - alpha)
        return


def _large(sheet: Sheet, pool: Any, rng: np.random.Generator) -> None:
    """One face that fills 35 to 95 % of the canvas: what a visitor in front of the camera looks like."""
    face = min(MAX_FACE_PX, rng.uniform(0.35, 0.95) * sheet.size)
    for _ in range(4):
        photo, k = _pick_face(pool, rng)
        box = photo.boxes[k]
        scale = face / max(box[2] - box[0], box[3] - box[1])
        if scale <= ENLARGED:
            break
    sheet.place(photo, rng, (scale, scale), (0, 0, sheet.size, sheet.size))
