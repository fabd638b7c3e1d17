"""jetson/serve/recorder.py: what is kept of persons and alerts, blurred where asked, within its bounds."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from jetson.config.settings import ClipSettings
from jetson.events.media import CLIP, CROP, FRAME, Media
from jetson.serve import recorder as module
from jetson.serve.recorder import Recorder
from jetson.web.picture import Studio

NOW = 1.79e9
SHORT = ClipSettings(2.0, 1.0, 5.0, 160)


class Scene:
    """A recorder whose thread is this one, and a camera whose clock is turned by hand."""

    def __init__(self, folder, pictures="frame", clips=SHORT, blurred=False, megabytes=500.0):
        self.now = 100.0
        self.studio = Studio(1, lambda *args: None)
        self.media = Media(str(folder), megabytes)
        self.recorder = Recorder(self.media, self.studio, clips, blurred, lambda: self.now)
        self.recorder.film(0, pictures, True)

    def frame(self, height=40.0, step=0.2, value=128, wh=(320, 240)):
        """A frame with a face of this height, its pixels a fine checkerboard, on a plain ground."""
        image = np.full((wh[1], wh[0], 3), value, np.uint8)
        x0, y0, x1, y1 = box = [100.0, 60.0, 100.0 + height, 60.0 + height]
        face = image[int(y0) : int(y1), int(x0) : int(x1)]
        face[(np.indices(face.shape[:2]).sum(axis=0) // 4) % 2 == 0] = 255
        track = SimpleNamespace(
            confirmed=True,
            seen=1.0,
            number=7,
            confidence=0.9,
            box=box,
            xyxy=np.array(box),
            predict=lambda at: np.array(box),
        )
        faces = SimpleNamespace(xyxy=np.array([box]), confidence=np.array([0.9]))
        result = SimpleNamespace(tracks=[track], faces=faces, at=1.0)
        view = SimpleNamespace(camera=SimpleNamespace(index=0))
        self.recorder.offer(view, SimpleNamespace(image=image), result)
        self.now += step

    def work(self):
        while self.recorder.work():
            pass


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture
def scene(tmp_path):
    made = []

    def make(**more):
        made.append(Scene(tmp_path / "m", **more))
        return made[-1]

    yield make
    for one in made:
        one.studio.stop()


def test_the_first_picture_is_written_at_once_and_the_best_when_the_person_leaves(scene):
    one = scene()
    one.recorder.enter(0, 7, NOW)
    key = one.recorder.key(0, 7)
    one.frame(40)
    one.work()
    first = one.media.read(key + CROP)
    frame = decoded(one.media.read(key + FRAME))
    assert first and frame.shape == (240, 320, 3)
    # The face that it is about is framed there, and not in the crop.
    assert frame[60, 110:130].min() > 200 and frame[58:63, 110:130].min() < 90
    assert decoded(first).min() > 90
    one.frame(80)
    one.frame(81)  # hardly better: not taken again
    assert len(one.recorder._jobs) == 1
    one.work()
    assert one.media.read(key + CROP) == first
    one.recorder.leave(0, 7)
    one.work()
    assert decoded(one.media.read(key + CROP)).shape[0] > decoded(first).shape[0]
    assert one.recorder.key(0, 7) is None


@pytest.mark.parametrize("pictures", ["crop", "frame"])
def test_no_face_can_be_recognised_in_what_is_kept_where_that_is_asked(scene, pictures):
    def detail(blurred):
        one = scene(pictures=pictures, blurred=blurred)
        one.recorder.enter(0, 7, NOW)
        key = one.recorder.key(0, 7)
        for _ in range(4):
            one.frame(60)
        clip = one.recorder.alert(0, 7, NOW).clip
        for _ in range(8):
            one.work()
            one.frame(60)
        found = [decoded(one.media.read(key + end)) for end in ((CROP, FRAME) if pictures == "frame" else (CROP,))]
        found[1:] = [image[66:114, 106:154] for image in found[1:]]  # within the mark around the face
        path = one.media.folder + "/" + clip + CLIP
        good, film = cv2.VideoCapture(path).read()
        assert good
        return [cv2.Laplacian(image, cv2.CV_64F).var() for image in found + [film]]

    for sharp, hidden in zip(detail(False), detail(True)):
        assert hidden < 0.25 * sharp


def test_crop_alone_keeps_no_frame_and_off_keeps_nothing(scene):
    one = scene(pictures="crop")
    one.recorder.enter(0, 7, NOW)
    key = one.recorder.key(0, 7)
    one.frame()
    one.work()
    assert one.media.has(key + CROP) and not one.media.has(key + FRAME)
    off = scene(pictures="off")
    off.recorder.enter(0, 8, NOW)
    assert off.recorder.key(0, 8) is None


def test_a_clip_has_the_seconds_before_and_after_its_alert(scene):
    one = scene()
    for n in range(30):
        one.frame(value=4 * n)
        one.work()
    assert len(one.recorder._films[0].ring) <= 11  # two seconds of five frames, and no more
    kept = one.recorder.alert(0, None, NOW)
    assert one.recorder.alert(0, None, NOW + 0.5).clip == kept.clip  # within the same seconds
    assert one.media.expected(kept.clip + CLIP)
    for n in range(30, 37):
        one.frame(value=4 * n)
        one.work()
    assert not one.media.expected(kept.clip + CLIP)
    film = cv2.VideoCapture(one.media.folder + "/" + kept.clip + CLIP)
    shown = []
    while True:
        good, image = film.read()
        if not good:
            break
        assert image.shape == (120, 160, 3)
        shown.append(float(image[-5:].mean()) / 4)
    assert abs(film.get(cv2.CAP_PROP_FPS) - 5.0) < 0.2
    assert abs(shown[0] - 20) < 1.5 and abs(shown[-1] - 34) < 1.5 and len(shown) in (14, 15, 16)


def test_a_camera_that_is_lost_has_a_clip_of_what_was_before(scene):
    one = scene()
    for _ in range(10):
        one.frame()
        one.work()
    clip = one.recorder.alert(0, None, NOW).clip
    one.now += 1.5  # and no frame comes
    one.work()
    assert one.media.has(clip + CLIP)
    one.now += 60
    empty = one.recorder.alert(0, None, NOW + 60).clip
    one.now += 1.5
    one.work()
    assert not one.media.has(empty + CLIP) and not one.media.expected(empty + CLIP)


def test_what_waits_is_bounded_and_who_has_no_picture_for_that_is_counted(scene, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_BYTES", 300_000)
    one = scene()
    for number in (7, 8):
        one.recorder.enter(0, number, NOW)
    one.frame(wh=(320, 240))  # 230,400 bytes
    one.recorder._persons[(0, 7)].quality = 0.0
    one.frame()
    assert len(one.recorder._jobs) == 1 and one.recorder._waiting == 2 * 230_400 - 230_400 + _part(one)
    person = one.recorder._persons[(0, 8)]
    person.missed = True
    one.recorder.leave(0, 8)
    one.work()
    assert one.recorder.state()["dropped"] == 1 and one.recorder._waiting == 0


def _part(one):
    return one.recorder._jobs[0].part.nbytes


def test_the_ring_of_a_camera_is_bounded_in_bytes(scene, monkeypatch):
    monkeypatch.setattr(module, "RING_BYTES", 6000)
    one = scene()
    for _ in range(10):
        one.frame()
        one.work()
    film = one.recorder._films[0]
    assert film.ring_bytes == sum(len(jpeg) for _, _, jpeg in film.ring) <= 6000


def test_stopping_writes_what_is_not_written(scene):
    one = scene()
    one.recorder.start()
    one.recorder.enter(0, 7, NOW)
    key = one.recorder.key(0, 7)
    one.frame(40)
    clip = one.recorder.alert(0, 7, NOW).clip
    one.recorder.stop(20.0)
    assert one.media.has(key + CROP) and one.media.has(clip + CLIP)


def test_a_camera_that_is_removed_while_it_is_recorded_promises_no_clip(scene):
    one = scene()
    one.frame()
    clip = one.recorder.alert(0, None, NOW).clip
    one.recorder.forget(0)
    assert not one.media.expected(clip + CLIP) and one.recorder.alert(0, None, NOW).clip is None


def test_a_camera_that_is_blurred_from_now_on_gives_nothing_sharp(scene):
    one = scene()
    one.recorder.enter(0, 7, NOW)
    one.frame(40)
    one.frame(80)
    one.work()
    assert one.recorder.alert(0, 7, NOW).jpeg
    one.frame(120)  # this one waits, sharp
    one.studio.film(0, True)
    one.recorder.film(0, "crop", True)
    kept = one.recorder.alert(0, 7, NOW)
    assert kept.jpeg is None and not one.recorder._films[0].ring
    one.frame(40)
    one.work()
    hidden = one.recorder.alert(0, 7, NOW).jpeg
    one.recorder.leave(0, 7)
    one.work()
    assert one.media.read(kept.picture + CROP) == hidden
