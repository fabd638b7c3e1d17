"""Box-aware augmentation in numpy and cv2. Every kind is a number in the config's `augment` section; 0 turns it off.

A canvas is one of five kinds: a single photograph zoomed and cropped, a mosaic of four, a scene with pasted faces,
one large face, or a drawn scene with beards, hands, scarves and cups at bare mouths. What is cut to under half, or ends
smaller than `min_face_px`, is kept out of the loss (ignored), not called background.
"""
import cv2
import numpy as np

from jetson import drawn
from jetson.image import PAD
from pipeline.data.prints import TALLEST as TALLEST_PRINT
from pipeline.data.prints import draw_print

FACE_ODDS = (0.42, 0.46, 0.12)  # of pasted and large faces: masked, bare (some get a drawn mask), worn incorrectly
MAX_FACE_PX = 520  # larger faces than this are of no use to a detector whose largest input is 640


def canvas(pool, size, config, rng, closing=False):
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
        image, boxes, labels = drawn.scene(int(rng.integers(2**32)), (size, size))
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
        _erase(image, sheet.boxes, rng)
    return (image, *sheet.truth())


class Sheet:
    """A canvas being filled, with its truth."""

    def __init__(self, size, config):
        self.size, self.config = size, config
        self.image = np.full((size, size, 3), PAD, np.uint8)
        self.boxes, self.labels, self.ignore = [], [], []

    def place(self, photo, rng, scale, region):
        """Draw a photo scaled by scale (x, y) at a random offset into region (x0, y0, x1, y1), cut at its edges."""
        image, boxes, labels = photo.image(), photo.boxes, photo.labels
        image, labels = _draw_masks(image, boxes, labels, self.config.drawn_masks, rng)
        x0, y0, x1, y1 = region
        h, w = image.shape[:2]
        width, height = max(2, round(w * scale[0])), max(2, round(h * scale[1]))
        sx, sy = width / w, height / h
        # Where the picture is larger than the region, a random part of it; where smaller, a random place in it.
        ox, oy = _offset(x1 - x0, width, rng), _offset(y1 - y0, height, rng)
        left, top = max(0, -ox), max(0, -oy)
        right, bottom = min(width, x1 - x0 - ox), min(height, y1 - y0 - oy)
        if right - left < 2 or bottom - top < 2:
            return
        # Only the visible part is resized: a zoomed photo would otherwise cost many times its share.
        u0, v0 = int(left / sx), int(top / sy)
        u1, v1 = min(w, int(np.ceil(right / sx))), min(h, int(np.ceil(bottom / sy)))
        part = cv2.resize(image[v0:v1, u0:u1], (max(1, round((u1 - u0) * sx)), max(1, round((v1 - v0) * sy))),
                          interpolation=cv2.INTER_AREA if sx < 0.7 else cv2.INTER_LINEAR)
        px, py = x0 + ox + round(u0 * sx), y0 + oy + round(v0 * sy)
        cx0, cy0 = max(x0, px), max(y0, py)
        cx1, cy1 = min(x1, px + part.shape[1]), min(y1, py + part.shape[0])
        if cx1 <= cx0 or cy1 <= cy0:
            return
        self.image[cy0:cy1, cx0:cx1] = part[cy0 - py:cy1 - py, cx0 - px:cx1 - px]
        shift = np.array([x0 + ox, y0 + oy] * 2, np.float32)
        factor = np.array([sx, sy] * 2, np.float32)
        self.add(boxes * factor + shift, labels, photo.ignore * factor + shift, (cx0, cy0, cx1, cy1))

    def add(self, boxes, labels, ignore, region):
        """Truth in canvas pixels, cut to region; too small or too much cut becomes an ignore region."""
        x0, y0, x1, y1 = region
        limit = np.array([x1, y1, x1, y1], np.float32)
        low = np.array([x0, y0, x0, y0], np.float32)
        for box, label in zip(boxes, labels):
            cut = np.minimum(np.maximum(box, low), limit)
            w, h = cut[2:] - cut[:2]
            if w <= 0 or h <= 0:
                continue
            visible = w * h / max(1e-6, (box[2] - box[0]) * (box[3] - box[1]))
            if visible < 0.5 or min(w, h) < self.config.min_face_px:
                self.ignore.append(cut)
            else:
                self.boxes.append(cut)
                self.labels.append(label)
        for box in ignore:
            cut = np.minimum(np.maximum(box, low), limit)
            if (cut[2:] > cut[:2]).all():
                self.ignore.append(cut)

    def cover(self, region):
        """Something was drawn over region: truth mostly under it is no longer there."""
        x0, y0, x1, y1 = region
        keep_boxes, keep_labels = [], []
        for box, label in zip(self.boxes, self.labels):
            w = min(box[2], x1) - max(box[0], x0)
            h = min(box[3], y1) - max(box[1], y0)
            share = max(0, w) * max(0, h) / max(1e-6, (box[2] - box[0]) * (box[3] - box[1]))
            if share < 0.15:
                keep_boxes.append(box)
                keep_labels.append(label)
            elif share < 0.8:
                self.ignore.append(box)
        self.boxes, self.labels = keep_boxes, keep_labels

    def flip(self):
        self.image = self.image[:, ::-1]
        for boxes in (self.boxes, self.ignore):
            for i, box in enumerate(boxes):
                boxes[i] = np.array([self.size - box[2], box[1], self.size - box[0], box[3]], np.float32)

    def truth(self):
        return (np.array(self.boxes, np.float32).reshape(-1, 4), np.array(self.labels, np.int32),
                np.array(self.ignore, np.float32).reshape(-1, 4))


def _offset(room, length, rng):
    return int(rng.integers(min(0, room - length), max(0, room - length) + 1))


def _pick(pool, rng):
    weights = np.array([w for _, w in pool.scenes])
    photos = pool.scenes[rng.choice(len(weights), p=weights / weights.sum())][0]
    photo = photos[rng.integers(len(photos))]
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


def _zoom(photo, size, rng, config, low=0.55, high=1.7):
    """Scale (x, y) that brings the photo's long side to low..high of size, its largest face under MAX_FACE_PX."""
    h, w = photo.image().shape[:2]
    scale = size / max(w, h) * np.exp(rng.uniform(np.log(low), np.log(high)) * config.scale)
    if len(photo.boxes):
        face = (photo.boxes[:, 2:] - photo.boxes[:, :2]).max()
        scale = min(scale, min(MAX_FACE_PX, 0.95 * size) / face)
    stretch = np.exp(rng.uniform(-0.12, 0.12) * config.scale)
    return scale * stretch, scale / stretch


def _mosaic(sheet, pool, rng):
    size = sheet.size
    cx, cy = (int(size * rng.uniform(0.25, 0.75)) for _ in range(2))
    for region in ((0, 0, cx, cy), (cx, 0, size, cy), (0, cy, cx, size), (cx, cy, size, size)):
        photo = _pick(pool, rng)
        room = max(region[2] - region[0], region[3] - region[1])
        sheet.place(photo, rng, _zoom(photo, room, rng, sheet.config, 0.7, 1.9), region)


def _pasted(sheet, pool, rng):
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


def _pick_face(pool, rng):
    """(photo, index of its box): the class first, so that bare and badly covered faces are not drowned by masks."""
    odds = np.array([share * bool(faces) for share, faces in zip(FACE_ODDS, pool.faces)])
    faces = pool.faces[rng.choice(len(odds), p=odds / odds.sum())]
    return faces[rng.integers(len(faces))]


def _paste(sheet, photo, k, face_px, rng):
    """Paste face k of photo, with what surrounds it, so that it is face_px high; its edge feathered or hard."""
    image, boxes = photo.image(), photo.boxes
    box = boxes[k]
    bw, bh = box[2:] - box[:2]
    margin = rng.uniform(0.1, 0.7, 4)
    h, w = image.shape[:2]
    u0, v0 = max(0, int(box[0] - margin[0] * bw)), max(0, int(box[1] - margin[1] * bh))
    u1, v1 = min(w, int(np.ceil(box[2] + margin[2] * bw))), min(h, int(np.ceil(box[3] + margin[3] * bh)))
    inside = [i for i in range(len(boxes)) if i != k and _overlap(boxes[i], (u0, v0, u1, v1)) > 0]
    if inside or bw < 4 or bh < 4:
        return  # a neighbour's half face in the patch would be an unlabelled one
    patch = image[v0:v1, u0:u1]
    labels = photo.labels[k:k + 1]
    local = (box - np.array([u0, v0, u0, v0], np.float32))[None]
    patch, labels = _draw_masks(patch, local, labels, sheet.config.drawn_masks, rng)
    scale = face_px / bh
    pw, ph = round(patch.shape[1] * scale), round(patch.shape[0] * scale)
    if pw < 4 or ph < 4 or pw >= sheet.size or ph >= sheet.size:
        return
    patch = cv2.resize(patch, (pw, ph), interpolation=cv2.INTER_AREA if scale < 0.7 else cv2.INTER_LINEAR)
    x, y = int(rng.integers(0, sheet.size - pw)), int(rng.integers(0, sheet.size - ph))
    for other in sheet.boxes:
        if _overlap(other, (x, y, x + pw, y + ph)) > 0.1:
            return
    target = sheet.image[y:y + ph, x:x + pw]
    if rng.random() < 0.5 and min(pw, ph) >= 12:
        alpha = np.zeros((ph, pw), np.float32)
        cv2.ellipse(alpha, (pw // 2, ph // 2), (int(pw * 0.46), int(ph * 0.46)), 0, 0, 360, 1.0, -1)
        alpha = cv2.blur(alpha, (max(3, pw // 6), max(3, ph // 6)))[..., None]
        target[:] = (patch * alpha + target * (1 - alpha)).astype(np.uint8)
    else:
        target[:] = patch
    sheet.cover((x, y, x + pw, y + ph))
    factor = np.array([pw / (u1 - u0), ph / (v1 - v0)] * 2, np.float32)
    sheet.add(local * factor + np.array([x, y, x, y], np.float32), labels, np.zeros((0, 4), np.float32),
              (x, y, x + pw, y + ph))


def _distract(sheet, pool, rng):
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
    if any(_overlap(b, region) > 0 for b in [*photo.boxes, *photo.ignore]):
        return
    px = int(np.exp(rng.uniform(np.log(10), np.log(0.3 * sheet.size))))
    patch = cv2.resize(image[y:y + side, x:x + side], (px, px), interpolation=cv2.INTER_AREA)
    cx, cy = int(rng.integers(0, sheet.size - px)), int(rng.integers(0, sheet.size - px))
    if any(_overlap(b, (cx, cy, cx + px, cy + px)) > 0 for b in [*sheet.boxes, *sheet.ignore]):
        return
    sheet.image[cy:cy + px, cx:cx + px] = patch


def _print(sheet, rng):
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
        if min(right - left, bottom - top) < 6 or any(_overlap(b, region) > 0 for b in [*sheet.boxes, *sheet.ignore]):
            continue
        colour, alpha = draw_print(width, rng)
        target = sheet.image[top:bottom, left:right]
        colour, alpha = (np.ascontiguousarray(a[top - int(y):, left - int(x):][:bottom - top, :right - left])
                         for a in (colour, alpha))
        target = target[:len(alpha), :alpha.shape[1]]
        target[:] = cv2.blendLinear(colour, np.ascontiguousarray(target), alpha, 1 - alpha)
        return


def _large(sheet, pool, rng):
    """One face that fills 35 to 95 % of the canvas: what a visitor in front of the camera looks like."""
    photo, k = _pick_face(pool, rng)
    box = photo.boxes[k]
    face = min(MAX_FACE_PX, rng.uniform(0.35, 0.95) * sheet.size)
    scale = face / max(box[2] - box[0], box[3] - box[1])
    sheet.place(photo, rng, (scale, scale), (0, 0, sheet.size, sheet.size))


def _overlap(box, region):
    """Share of box that lies in region."""
    w = min(box[2], region[2]) - max(box[0], region[0])
    h = min(box[3], region[3]) - max(box[1], region[1])
    return max(0.0, w) * max(0.0, h) / max(1e-6, float((box[2] - box[0]) * (box[3] - box[1])))


def _draw_masks(image, boxes, labels, share, rng):
    """Bare faces of at least 24 px may get a drawn mask. Returns image and labels, copied only where changed."""
    if not share or not (labels == 1).any() or rng.random() >= share:
        return image, labels
    from pipeline.data.masks import draw_mask

    image, labels = image.copy(), labels.copy()
    for i, box in enumerate(boxes):
        if labels[i] == 1 and (box[2:] - box[:2]).min() >= 24 and rng.random() < 0.8:
            labels[i] = draw_mask(image, box, rng)
    return image, labels


def photometric(image, config, rng):
    """Light, colour, blur, noise and compression; returns a new contiguous array."""
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
        image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return image


def _erase(image, boxes, rng):
    """A flat or noisy rectangle over a quarter of some face: hair, a phone, a hand before it."""
    for box in boxes:
        if rng.random() < 0.4:
            w, h = box[2:] - box[:2]
            x = int(box[0] + rng.uniform(-0.2, 0.8) * w)
            y = int(box[1] + rng.uniform(-0.2, 0.8) * h)
            x1, y1 = x + max(1, int(w * rng.uniform(0.2, 0.4))), y + max(1, int(h * rng.uniform(0.2, 0.4)))
            image[max(0, y):y1, max(0, x):x1] = rng.integers(0, 256, 3)
