"""What a viewer sees: boxes and names on the frame, blurred faces where asked, a card where there is no picture."""

import struct
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import cv2
import numpy as np

from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.tracking import tracker
from jetson.web import overlay
from jetson.web.server import Server

QUALITY = 80
BLUR_SHARE = 0.6  # of the score from which a face is shown: from there on it is blurred
MAX_SIDE = 1280
SMALL_SIDE = 320  # px: a camera among others
SMALL_S = 1.0


BOUNDARY = "jetmaskframe"
NEXT = f"\r\n--{BOUNDARY}\r\n".encode()


def picture_part(jpeg: bytes) -> bytes:
    """One part of the MJPEG stream, with the boundary behind it: browsers show a part only when it has ended."""
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg + NEXT


def small_part(camera: int, jpeg: bytes) -> bytes:
    """One part of the stream of all cameras: its JPEG's length and its camera's `key` in the state, and the JPEG.

    Both are numbers of four bytes, big-endian.
    """
    return struct.pack(">II", len(jpeg), camera) + jpeg


def blur(image: np.ndarray, xyxy: np.ndarray) -> None:
    """Make faces unrecognisable in place: mosaic of 6 cells a side over the box grown by a quarter."""
    height, width = image.shape[:2]
    for x0, y0, x1, y1 in np.asarray(xyxy, np.float64).reshape(-1, 4):
        grow_x, grow_y = (x1 - x0) * 0.25, (y1 - y0) * 0.25
        left, right = int(max(0, x0 - grow_x)), int(min(width, x1 + grow_x + 1))
        top, bottom = int(max(0, y0 - grow_y)), int(min(height, y1 + grow_y + 1))
        if right - left < 1 or bottom - top < 1:
            continue
        part = image[top:bottom, left:right]
        cells = cv2.resize(part, (min(6, right - left), min(6, bottom - top)), interpolation=cv2.INTER_AREA)
        part[:] = cv2.resize(cells, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)


def draw(
    image: np.ndarray,
    tracks: List[tracker.Track],
    at: float,
    scale: float = 1.0,
    classes: Classes = MASK_CLASSES,
    named: bool = True,
) -> None:
    """Draw each track's box and, if `named`, voted class and number in place; `scale` from frame to image pixels."""
    side = max(image.shape[:2])
    thickness = max(1, int(round(side / 420)))
    size = max(0.4, side / 1500)
    names, colours = classes.words(), classes.colours()
    for face in tracks:
        x0, y0, x1, y1 = (int(round(v * scale)) for v in face.predict(at))
        colour = colours[face.label]
        cv2.rectangle(image, (x0, y0), (x1, y1), colour, thickness, cv2.LINE_AA)
        if not named:
            continue
        name = names[face.label].encode("ascii", "replace").decode()  # OpenCV's letters
        text = name
        if face.confirmed:
            text = f"#{face.number} {name}"
        (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        if width > 3 * (x1 - x0) + 40:
            text = name
            (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        top = y0 - height - base - 2 if y0 - height - base - 2 >= 0 else y1 + 1
        left = max(0, min(x0, image.shape[1] - width - 6))
        cv2.rectangle(image, (left, top), (left + width + 5, top + height + base + 2), colour, -1)
        cv2.putText(
            image, text, (left + 3, top + height + 1), cv2.FONT_HERSHEY_SIMPLEX, size, (20, 20, 20), 1, cv2.LINE_AA
        )


def card(lines: List[str], wh: Tuple[int, int] = (640, 360)) -> bytes:
    """A JPEG that says that there is no picture, and why: an old frame would lie."""
    image = np.full((wh[1], wh[0], 3), 38, np.uint8)
    image[::8] = 42
    y = wh[1] // 2 - 14 * len(lines)
    for number, line in enumerate(lines):
        size = (0.9 if number == 0 else 0.5) * wh[0] / 640
        text = line.encode("ascii", "replace").decode()[:70]
        (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        cv2.putText(
            image,
            text,
            (max(4, (wh[0] - width) // 2), y),
            cv2.FONT_HERSHEY_SIMPLEX,
            size,
            (225, 225, 225),
            1,
            cv2.LINE_AA,
        )
        y += int(44 * size) + 8
    return encode(image)


def encode(image: np.ndarray, quality: int = QUALITY) -> bytes:
    """A JPEG of uint8 (h, w, 3) BGR."""
    good, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise ValueError(f"OpenCV cannot encode a picture of {image.shape}")
    return data.tobytes()


class Pictures:
    """The newest picture of each camera, for those who come later, and to those who watch."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._newest: Dict[int, bytes] = {}

    def newest(self, camera: int) -> Optional[bytes]:
        """The JPEG that was told last."""
        return self._newest.get(camera)

    def small(self, camera: int, jpeg: bytes) -> None:
        """A new small picture, for those who see all cameras."""
        self._server.publish("grid", small_part(camera, jpeg))

    def show(self, camera: int, jpeg: bytes, marked: bool = False) -> None:
        """A new picture of a camera is encoded; `marked`: with lines and zones, which only a snapshot has."""
        if marked:
            self._server.publish(f"marked {camera}", jpeg)
            return
        self._newest[camera] = jpeg
        self._server.publish(f"picture {camera}", picture_part(jpeg))
        self._server.publish(f"snapshot {camera}", jpeg)

    def forget(self, camera: int) -> None:
        """The camera is watched no longer."""
        self._newest.pop(camera, None)

    def none(self, camera: int, lines: List[str]) -> None:
        """Show a card to those who watch; a snapshot that is waited for is not answered with it."""
        self._newest[camera] = card(lines)
        self._server.publish(f"picture {camera}", picture_part(self._newest[camera]))


class _Film:
    """What is wanted and under way of one camera. `score`: from which a face is shown there, None: as everywhere."""

    def __init__(self) -> None:
        self.wanted = False
        self.once = False
        self.marked = False
        self.due = self.small_due = 0.0
        self.job: Optional[Any] = None
        self.buffer: Optional[np.ndarray] = None
        self.blurred = False
        self.score: Optional[float] = None


class Studio:
    """Encodes the pictures of all cameras, each once for all its viewers, and only while somebody looks.

    `publish(camera, jpeg)` is called in the encoding thread, and `publish(camera, jpeg, True)` with a picture that has
    the lines and zones in it; `places(camera)` tells them (jetson.tracking.zones.Counter.state).
    """

    def __init__(
        self,
        cameras: int,
        publish: Callable[..., None],
        fps: float = 15.0,
        blurred: bool = False,
        score: float = 0.4,
        places: Callable[[int], Any] = lambda camera: {"lines": [], "zones": []},
        classes: Classes = MASK_CLASSES,
    ) -> None:
        self.classes = classes
        self.blurred = blurred
        self._places = places
        self.score = score
        self._publish = publish
        self._period = 1.0 / max(fps, 0.1)
        self._films = {camera: _Film() for camera in range(cameras)}
        self._change = threading.Condition()
        self._stop = False
        self.encoded = 0
        self._small: Optional[Callable[[int, bytes], None]] = None
        self._thread = threading.Thread(target=self._run, name="encode", daemon=True)
        self._thread.start()

    def film(self, camera: int, blurred: bool = False, score: Optional[float] = None) -> None:
        """Take pictures of this camera, too, or in another way; `blurred`: faces of this one alone."""
        film = self._films.setdefault(camera, _Film())
        film.blurred, film.score = blurred, score

    def forget(self, camera: int) -> None:
        """The camera is watched no longer."""
        self._films.pop(camera, None)

    def blurs(self, camera: int) -> bool:
        """Whether faces in this camera's pictures are made unrecognisable."""
        film = self._films.get(camera)
        return self.blurred or film is None or film.blurred

    def want(self, camera: int, viewers: bool) -> None:
        """Whether anybody watches the stream of `camera`."""
        film = self._films.get(camera)
        if film is not None:
            film.wanted = viewers

    def want_small(self, tell: Optional[Callable[[int, bytes], None]]) -> None:
        """Whom to tell of a small picture of each camera each second; None: nobody watches."""
        self._small = tell

    def want_one(self, camera: int, marked: bool = False) -> None:
        """A single picture is asked for; `marked`: with lines and zones."""
        film = self._films.get(camera)
        if film is None:
            return
        if marked:
            film.marked = True
        else:
            film.once = True

    def offer(self, camera: int, image: np.ndarray, result: Any) -> None:
        """A finished frame; copied when it is wanted and the encoder is free, left alone otherwise."""
        now = time.monotonic()
        film = self._films.get(camera)
        if film is None:
            return
        plain = film.once or (film.wanted and now >= film.due)
        marked = film.marked
        small = self._small is not None and now >= film.small_due
        if not (plain or marked or small):
            return
        if film.job is not None:
            return
        if film.buffer is None or film.buffer.shape != image.shape:
            film.buffer = np.empty_like(image, order="C")
        np.copyto(film.buffer, image)
        if plain:
            film.once = False
            # From the due time, not from now: otherwise 15 frames/s out of 30 become 10.
            film.due = max(film.due + self._period, now - self._period)
        if marked:
            film.marked = False
        if small:
            # A little early is in time: of a camera of one frame a second every one is shown.
            film.small_due = now + 0.9 * SMALL_S
        with self._change:
            film.job = (result, plain, marked, small)
            self._change.notify()

    def stop(self) -> None:
        """End the thread."""
        with self._change:
            self._stop = True
            self._change.notify()
        self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            with self._change:
                waiting = self._waiting()
                while not self._stop and not waiting:
                    self._change.wait()
                    waiting = self._waiting()
                if self._stop:
                    return
            for index, film in waiting:
                job, image = film.job, film.buffer
                if job is None or image is None:  # not so: an offer fills both
                    film.job = None
                    continue
                try:
                    result, plain, marked, small = job
                    how = (self.blurs(index), film.score)
                    if marked:
                        self._publish(index, self.render(image.copy(), result, self._places(index), *how), True)
                    tell = self._small if small else None
                    if tell is not None:
                        kept = image.copy() if plain and how[0] else image  # what is blurred is blurred in place
                        tell(index, self.render_small(kept, result, *how))
                    if plain:
                        self._publish(index, self.render(image, result, None, *how))
                    self.encoded += plain + marked + small
                except Exception:  # whatever it was: this picture is missing, the next one comes
                    pass
                finally:
                    film.job = None

    def _waiting(self) -> List[Tuple[int, _Film]]:
        return [(camera, film) for camera, film in list(self._films.items()) if film.job is not None]

    def render(
        self,
        image: np.ndarray,
        result: Any,
        places: Optional[Any] = None,
        blurred: Optional[bool] = None,
        score: Optional[float] = None,
    ) -> bytes:
        """The JPEG of one result, with the lines and zones `places`, if given; `image` is drawn on.

        `blurred`, `score`: of this camera, where they are not those of all.
        """
        self._hide(image, result, blurred, score)
        scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if places is not None:
            overlay.draw(image, places)
        draw(image, result.tracks, result.at, scale, self.classes)
        return encode(image)

    def render_small(
        self, image: np.ndarray, result: Any, blurred: Optional[bool] = None, score: Optional[float] = None
    ) -> bytes:
        """The small JPEG of one result, with boxes and no words."""
        self._hide(image, result, blurred, score)
        scale = min(1.0, SMALL_SIDE / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image.copy()
        draw(small, result.tracks, result.at, scale, self.classes, named=False)
        return encode(small, 70)

    def _hide(self, image: np.ndarray, result: Any, blurred: Optional[bool], score: Optional[float]) -> None:
        if self.blurred if blurred is None else blurred:
            blur(image, self.hidden(result, score))

    def hidden(self, result: Any, score: Optional[float] = None) -> np.ndarray:
        """The boxes (N, 4) px that are blurred in the frame of a result."""
        # Unsure detections too, and where a face was a moment ago: better a blurred poster than a face.
        lowest = BLUR_SHARE * (self.score if score is None else score)
        found = np.asarray(result.faces.xyxy[result.faces.confidence >= lowest], np.float64).reshape(-1, 4)
        return np.vstack([found] + [np.reshape(face.predict(result.at), (1, 4)) for face in result.tracks])


def crop(image: np.ndarray, xyxy: np.ndarray, limit: int = 160) -> bytes:
    """A JPEG of one face with a margin of a quarter, at most `limit` pixels a side."""
    x0, y0, x1, y1 = (float(v) for v in xyxy)
    grow_x, grow_y = (x1 - x0) * 0.25, (y1 - y0) * 0.25
    part = image[int(max(0, y0 - grow_y)) : int(y1 + grow_y) + 1, int(max(0, x0 - grow_x)) : int(x1 + grow_x) + 1]
    if part.size == 0:
        return b""
    scale = min(1.0, limit / max(part.shape[:2]))
    if scale < 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return encode(part, 85)
