"""Pictures of persons and clips around alerts, made beside the inferring thread from frames that are there anyway.

That thread copies what is wanted (a part of a frame where a person looks better than before, a frame for a clip now and
then); blurring, encoding and writing are this one's. What waits is bounded, and what does not fit is counted.
"""

import threading
import time
from collections import OrderedDict, deque
from typing import Any, Callable, Deque, Dict, NamedTuple, Optional, Tuple

import cv2
import numpy as np

from jetson.capture.camera import Frame
from jetson.config.settings import NO_CLIPS, ClipSettings
from jetson.events.avi import mjpeg
from jetson.events.media import CLIP, CROP, FRAME, Kept, Media, new_key
from jetson.inference.runner import Result, View
from jetson.web.picture import MAX_SIDE, Studio, blur, encode

QUEUE_BYTES = 16 << 20  # frames and parts of them that wait to be encoded
RING_BYTES = 8 << 20  # JPEGs of one camera that wait for an alert
PERSONS = 100  # whose pictures may still become better
BETTER = 1.15  # times as good as the one there is: a picture is replaced a few times, not at every frame
CROP_SIDE = 320
_TURN_S = 0.25
_MOST_BOXES = 1000


class _Person:
    """One visit. `quality`: of the picture that was taken last."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.quality = 0.0
        self.crop: Optional[bytes] = None
        self.frame: Optional[bytes] = None
        self.written = False
        self.better = False  # than what was written
        self.missed = False


class _Job(NamedTuple):
    """`part` of a frame, uint8 BGR, with the faces to hide in it; no part: the person has left."""

    person: _Person
    part: Optional[np.ndarray] = None
    frame: Optional[np.ndarray] = None
    corner: Tuple[int, int] = (0, 0)
    face: Optional[np.ndarray] = None  # left, top, right, bottom in the frame
    hide: Optional[np.ndarray] = None

    @property
    def bytes(self) -> int:
        return (0 if self.part is None else self.part.nbytes) + (0 if self.frame is None else self.frame.nbytes)


class _Film:
    """One camera: how it is recorded, and its newest JPEGs, (seconds, (width, height), JPEG) each."""

    def __init__(self) -> None:
        self.pictures, self.clips = "off", False
        self.score: Optional[float] = None
        self.due = 0.0
        self.buffer: Optional[np.ndarray] = None
        self.job: Optional[Tuple[float, Optional[np.ndarray]]] = None  # when the buffer is of, and faces to hide
        self.ring: Deque[Tuple[float, Tuple[int, int], bytes]] = deque()
        self.ring_bytes = 0
        self.clip: Optional[Tuple[str, float, float]] = None  # key, from and to (monotonic seconds)


class Recorder:
    """`studio` knows which cameras are blurred; `blurred`: what is kept is, whatever the page shows."""

    def __init__(
        self,
        media: Media,
        studio: Studio,
        clips: ClipSettings = NO_CLIPS,
        blurred: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.media = media
        self.skipped = 0  # persons without a picture, because too much was waiting
        self._studio = studio
        self._clips = clips
        self._blurred = blurred
        self._clock = clock
        self._films: Dict[int, _Film] = {}
        self._persons: OrderedDict[Tuple[int, int], _Person] = OrderedDict()
        self._jobs: Deque[_Job] = deque()
        self._waiting = 0  # bytes of them
        self._change = threading.Condition()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)

    def start(self) -> "Recorder":
        """Begin."""
        self._thread.start()
        return self

    def film(self, camera: int, pictures: str, clips: bool, score: Optional[float] = None) -> None:
        """Record this camera, too, or in another way; `pictures`: off, crop, frame."""
        film = self._films.setdefault(camera, _Film())
        film.pictures, film.score = pictures, score
        film.clips = clips and self._clips.seconds > 0
        film.ring = deque()  # it may be blurred from now on: nothing sharp goes into a clip
        film.ring_bytes = 0
        with self._change:
            for place, person in self._persons.items():
                if place[0] == camera:  # nor is it written or sent later: a better picture is taken
                    person.quality, person.crop, person.frame, person.better = 0.0, None, None, False
            film.job = None
            mine = [person for place, person in self._persons.items() if place[0] == camera]
            self._jobs = deque(job for job in self._jobs if job.part is None or job.person not in mine)
            self._waiting = sum(job.bytes for job in self._jobs)

    def forget(self, camera: int) -> None:
        """The camera is watched no longer."""
        film = self._films.pop(camera, None)
        if film is not None and film.clip is not None:
            self.media.cancel(film.clip[0] + CLIP)

    # -- in the thread of the results ---------------------------------------------------------------------------------

    def enter(self, camera: int, number: int, at: float) -> None:
        """A person has come at `at` (Unix seconds)."""
        film = self._films.get(camera)
        if film is None or film.pictures == "off":
            return
        with self._change:
            self._persons[(camera, number)] = _Person(new_key(at))
            gone = self._persons.popitem(last=False)[1] if len(self._persons) > PERSONS else None
        if gone is not None:
            self._add(_Job(gone))

    def key(self, camera: int, number: int) -> Optional[str]:
        """What this person's pictures are called; None where there are none."""
        person = self._persons.get((camera, number))
        return None if person is None else person.key

    def leave(self, camera: int, number: int) -> None:
        """The person has left."""
        with self._change:
            person = self._persons.pop((camera, number), None)
        if person is not None:
            self._add(_Job(person))

    def offer(self, view: View, frame: Frame, result: Result) -> None:
        """A finished frame, valid until this returns."""
        film = self._films.get(view.camera.index)
        if film is None:
            return
        if film.pictures != "off":
            for face in result.tracks:
                if face.confirmed and face.seen >= result.at:
                    self._look(film, view.camera.index, face, frame.image, result)
        if film.clips and film.job is None and self._clock() >= film.due:
            now = self._clock()
            film.due = max(film.due + 1.0 / self._clips.fps, now)
            if film.buffer is None or film.buffer.shape != frame.image.shape:
                film.buffer = np.empty_like(frame.image, order="C")
            np.copyto(film.buffer, frame.image)
            with self._change:
                film.job = (now, self._hidden(view.camera.index, film, result))
                self._change.notify()

    def _look(self, film: _Film, camera: int, face: Any, image: np.ndarray, result: Result) -> None:
        person = self._persons.get((camera, face.number))
        quality = float(face.confidence) * (face.box[3] - face.box[1])
        if person is None or quality < BETTER * person.quality:
            return
        x0, y0, x1, y1 = _bust(face.xyxy, image.shape)
        if x1 <= x0 or y1 <= y0:
            return
        size = image.nbytes if film.pictures == "frame" else (x1 - x0) * (y1 - y0) * 3
        if self._jobs and self._waiting + size > QUEUE_BYTES:
            person.missed = True
            return
        whole = image.copy() if film.pictures == "frame" else None
        part = (image if whole is None else whole)[y0:y1, x0:x1]
        person.quality = quality
        hide = self._hidden(camera, film, result)
        self._add(_Job(person, part.copy() if whole is None else part, whole, (x0, y0), face.xyxy, hide))

    def _hidden(self, camera: int, film: _Film, result: Result) -> Optional[np.ndarray]:
        if not (self._blurred or self._studio.blurs(camera)):
            return None
        return self._studio.hidden(result, film.score)[:_MOST_BOXES]

    def _add(self, job: _Job) -> None:
        with self._change:
            self._jobs.append(job)
            self._waiting += job.bytes
            self._change.notify()

    # -- in the thread of the alerts ----------------------------------------------------------------------------------

    def alert(self, camera: int, number: Optional[int], at: float) -> Kept:
        """What there is of an alert of a camera at `at` (Unix seconds); a clip of it is begun where clips are on."""
        person = self._persons.get((camera, number)) if number is not None else None
        film = self._films.get(camera)
        jpeg = None if person is None else person.crop
        if film is None or not film.clips:
            return Kept(jpeg, person.key if person else None)
        with self._change:
            if film.clip is None:  # one at a time: an alert within another's seconds has that one's clip
                now = self._clock()
                film.clip = (new_key(at), now - self._clips.before, now + self._clips.after)
                self.media.expect(film.clip[0] + CLIP)
            clip = film.clip[0]
        return Kept(jpeg, person.key if person else None, clip)

    def stop(self, timeout_s: float = 3.0) -> None:
        """Write what is not written, and end."""
        with self._change:
            self._stop = True
            self._change.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def state(self) -> Dict[str, Any]:
        """Counters for the page and /metrics."""
        found = self.media.state()
        return dict(found, dropped=found["dropped"] + self.skipped)

    # -- in the thread of its own -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._change:
                if not self._stop and not self._jobs and not any(film.job for film in list(self._films.values())):
                    self._change.wait(_TURN_S)
                stop = self._stop
            try:
                more = self.work(stop)
            except Exception as error:  # this picture is missing, the next one comes
                self.media.error = f"pictures of events: {type(error).__name__}: {error}"
                more = True
            if stop and not more:
                return

    def work(self, end: bool = False) -> bool:
        """Do a job, take frames into the rings, write clips that are whole; whether there was a job. `end`: all."""
        with self._change:
            job = self._jobs.popleft() if self._jobs else None
            self._waiting -= 0 if job is None else job.bytes
        if job is not None:
            self._do(job)
        for film in list(self._films.values()):
            if film.job is not None:
                try:
                    self._take(film)
                finally:
                    film.job = None
            if film.clip is not None and (end or self._clock() >= film.clip[2]):
                self._write_clip(film)
        if end and job is None:
            with self._change:
                rest = list(self._persons.values())
                self._persons.clear()
            for person in rest:
                self._write(person)
        return job is not None

    def ring_bytes(self) -> int:
        """Of all JPEGs that wait for an alert."""
        return sum(film.ring_bytes for film in list(self._films.values()))

    def _do(self, job: _Job) -> None:
        person = job.person
        if job.part is None:
            if person.missed and person.crop is None:
                self.skipped += 1
            self._write(person)
            return
        if job.hide is not None:
            if job.frame is not None:
                blur(job.frame, job.hide)  # `part` is a part of it
            else:
                blur(job.part, job.hide - np.array(job.corner * 2))
        person.crop = encode(_within(job.part, CROP_SIDE), 85)
        if job.frame is not None and job.face is not None:
            _mark(job.frame, job.face)  # after the crop, which is a part of it
        person.frame = None if job.frame is None else encode(_within(job.frame, MAX_SIDE))
        person.better = True
        if not person.written:
            self._write(person)  # there from the beginning; the best one comes when the person leaves

    def _write(self, person: _Person) -> None:
        if not person.better:
            return
        person.better = False
        for end, data in ((CROP, person.crop), (FRAME, person.frame)):
            if data is not None:
                person.written |= self.media.put(person.key + end, data)

    def _take(self, film: _Film) -> None:
        if film.job is None or film.buffer is None:
            return
        at, hide = film.job
        image = film.buffer
        if hide is not None:
            blur(image, hide)
        small = _within(image, self._clips.width)
        jpeg = encode(small, 70)
        film.ring.append((at, (small.shape[1], small.shape[0]), jpeg))
        film.ring_bytes += len(jpeg)
        oldest = at - self._clips.before if film.clip is None else film.clip[1]
        while film.ring and (film.ring[0][0] < oldest or film.ring_bytes > RING_BYTES):
            film.ring_bytes -= len(film.ring.popleft()[2])

    def _write_clip(self, film: _Film) -> None:
        with self._change:
            assert film.clip is not None
            (key, begin, until), film.clip = film.clip, None
        shown = [one for one in film.ring if begin <= one[0] <= until]
        shown = [one for one in shown if one[1] == shown[-1][1]]  # a camera that is opened again may be of another size
        if not shown:
            self.media.cancel(key + CLIP)
            return
        each = (shown[-1][0] - shown[0][0]) / (len(shown) - 1) if len(shown) > 1 else 1.0 / self._clips.fps
        self.media.put(key + CLIP, mjpeg([jpeg for _, _, jpeg in shown], shown[0][1], max(each, 0.001)))


def _bust(xyxy: np.ndarray, shape: Tuple[int, ...]) -> Tuple[int, int, int, int]:
    """Head and shoulders around a face, within a frame of this shape: left, top, right, bottom in pixels."""
    x0, y0, x1, y1 = (float(v) for v in xyxy)
    wide, high = x1 - x0, y1 - y0
    return (
        int(max(0, x0 - 0.8 * wide)),
        int(max(0, y0 - 0.5 * high)),
        int(min(shape[1], x1 + 0.8 * wide + 1)),
        int(min(shape[0], y1 + 1.2 * high + 1)),
    )


def _mark(image: np.ndarray, xyxy: np.ndarray) -> None:
    """Frame the face that an event is about: others may be in the picture."""
    left, top, right, bottom = (int(round(float(v))) for v in xyxy)
    thick = max(1, int(round(max(image.shape[:2]) / 420)))
    for colour, width in (((20, 20, 20), thick + 2), ((255, 255, 255), thick)):
        cv2.rectangle(image, (left, top), (right, bottom), colour, width, cv2.LINE_AA)


def _within(image: np.ndarray, side: int) -> np.ndarray:
    """The image made smaller, if need be, so that its longer side is `side` pixels."""
    scale = min(1.0, side / max(image.shape[:2]))
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
