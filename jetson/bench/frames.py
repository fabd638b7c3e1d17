"""The frames that `bench` measures on: of a source, of labelled images, or the bundle's own drawn ones."""

import time
from typing import List, Sequence

import numpy as np

from jetson.capture import source
from jetson.capture.address import Credentials
from jetson.capture.camera import Camera
from jetson.capture.check import check
from jetson.errors import BadInput
from jetson.evaluation import average_precision
from jetson.inference import golden

FRAMES = 60
HELD_BYTES = 64 << 20


def room_for(image: np.ndarray, count: int) -> int:
    """How many frames as `image`, uint8 (h, w, 3), are kept: `count`, or what fits HELD_BYTES, but 8 at least."""
    return min(count, max(8, HELD_BYTES // max(1, image.nbytes)))


def frames_of(uri: str, count: int = FRAMES) -> List[np.ndarray]:
    """Up to `count` frames of a source, uint8 (h, w, 3) BGR, spread over its length where it has an end.

    BadInput when none comes. Fewer where frames are large: they are all held, and a Nano has 4 GB for everything.
    """
    where = source.parse(Credentials().fill(uri), loop=False)
    check(where)
    kept: List[np.ndarray] = []
    step = seen = 0
    camera = Camera(where, every_frame=not where.live).start()
    try:
        last = time.monotonic()
        while camera.status != "ended" or camera.fresh():
            frame = camera.take()
            if frame is None:
                if time.monotonic() - last > 20 or camera.status == "lost":
                    break
                time.sleep(0.002)
                continue
            last = time.monotonic()
            if not kept:
                count = room_for(frame.image, count)
            if seen % (2**step) == 0:
                kept.append(frame.image.copy())
                if len(kept) >= 2 * count:
                    kept, step = kept[::2], step + 1
            seen += 1
            frame.release()
            if (where.live or where.kind == "synthetic") and seen >= 4 * count:
                break
    finally:
        camera.stop()
    if not kept:
        raise BadInput(f"no frame came from the source: {camera.last_error or 'it is empty'}", where.label)
    return kept[:count] if len(kept) <= count else kept[:: len(kept) // count][:count]


def golden_frames(bundle_dir: str) -> List[np.ndarray]:
    """The bundle's drawn images, uint8 (h, w, 3) BGR; what is measured when neither a source nor data is given."""
    return golden.read(bundle_dir).frames


def labelled_frames(truths: Sequence[average_precision.Truth], count: int = FRAMES) -> List[np.ndarray]:
    """The first images of a labelled split, uint8 (h, w, 3) BGR, as many as fit."""
    frames: List[np.ndarray] = []
    for truth in truths:
        image = average_precision.read_image(truth)
        if len(frames) >= room_for(image, count):
            break
        frames.append(image)
    return frames
