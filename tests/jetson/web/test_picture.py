"""What is drawn, blurred and encoded."""

import threading

import cv2
import numpy as np
from serving import wait_for

from jetson.bundle.classes import MASK_CLASSES
from jetson.inference.detector import Faces
from jetson.inference.runner import Result
from jetson.tracking import tracker as track
from jetson.web import overlay, picture


def noise(seed=0, wh=(320, 240)):
    return np.random.RandomState(seed).randint(0, 255, (wh[1], wh[0], 3)).astype(np.uint8)


def result(*faces, at=1.0):
    """(box, scores) each; the tracks are as the tracker makes them."""
    tracker = track.Tracker(0.4)
    xyxy = np.array([box for box, _ in faces], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in faces], np.float32).reshape(-1, 3)
    tracker.update(xyxy, scores, at)
    return Result(0, 1, at, at, at, (320, 240), Faces(xyxy, scores), tracker.visible(at), [], [], {}, {}, None)


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), 1).astype(int)


def test_blur_leaves_few_values_inside_and_nothing_changed_outside():
    image, before = noise(), noise()
    picture.blur(image, [[100, 80, 140, 130], [-50, -50, -10, -10], [300, 220, 400, 300], [5, 5, 5, 5]])
    assert len(np.unique(image[80:130, 100:140].reshape(-1, 3), axis=0)) <= 36
    assert (image[:40] == before[:40])[:, 20:].all() and not (image[225:, 310:] == before[225:, 310:]).all()


def test_blur_covers_unsure_faces_and_missing_ones():
    studio = picture.Studio(1, lambda camera, jpeg: None, blurred=True)
    sharp = picture.Studio(1, lambda camera, jpeg: None)
    try:
        seen = result(([100, 80, 140, 130], [0.9, 0, 0]), ([200, 80, 240, 130], [0.3, 0, 0]))
        blurred, plain = decoded(studio.render(noise(), seen)), decoded(sharp.render(noise(), seen))
        for x in (110, 210):
            inside = [np.abs(np.diff(p[95:125, x : x + 20], axis=1)).mean() for p in (blurred, plain)]
            assert inside[0] < 0.4 * inside[1]
    finally:
        studio.stop()
        sharp.stop()


def test_boxes_are_drawn_in_the_colour_of_the_voted_class():
    image = np.zeros((240, 320, 3), np.uint8)
    picture.draw(image, result(([100, 100, 160, 170], [0, 0.9, 0])).tracks, 1.0)
    assert np.abs(image[170, 130].astype(int) - MASK_CLASSES.colours()[1]).max() < 40  # lines are smoothed


def test_labels_at_the_edges_stay_inside():
    image = np.zeros((60, 80, 3), np.uint8)
    faces = result(([0, 0, 20, 20], [0.9, 0, 0]), ([60, 40, 80, 60], [0, 0, 0.9]), ([-5, 30, 90, 70], [0, 0.9, 0]))
    picture.draw(image, faces.tracks, 1.0)
    assert image.any()


def test_a_card_says_that_there_is_no_picture():
    data = picture.card(["No picture", "rtsp://***@camera", "no frame for 2 s"])
    assert decoded(data).shape == (360, 640, 3) and decoded(data).max() > 150


def test_nothing_is_encoded_while_nobody_looks():
    made = []
    got = threading.Event()
    studio = picture.Studio(2, lambda camera, jpeg: (made.append((camera, jpeg)), got.set()), fps=1000)
    try:
        studio.offer(0, noise(), result())
        assert not got.wait(0.2) and studio.encoded == 0
        studio.want(0, True)
        studio.offer(1, noise(), result())
        studio.offer(0, noise(), result())
        assert got.wait(30) and [camera for camera, _ in made] == [0]
        studio.want(0, False)
        studio.want_one(1)
        studio.offer(1, noise(), result())
        wait_for(lambda: studio.encoded == 2, "the single picture")
        studio.offer(1, noise(), result())
        assert made[-1][0] == 1 and len(made) == 2
    finally:
        studio.stop()


def test_a_picture_that_cannot_be_drawn_ends_no_other():
    made = []
    studio = picture.Studio(1, lambda camera, jpeg: made.append(jpeg), fps=1000)
    try:
        studio.want(0, True)
        wild = result(((10, 10, 60, 60), (0.9, 0, 0)))
        wild.tracks[0].velocity = [np.inf] * 4  # no pixel is there
        studio.offer(0, noise(), wild._replace(at=2.0))
        wait_for(lambda: studio._films[0].job is None or not studio._thread.is_alive(), "the picture's end")
        studio.offer(0, noise(), result())
        wait_for(lambda: made, "the next picture", 20.0)
    finally:
        studio.stop()


PLACES = {
    "lines": [{"name": "door", "points": [[0.2, 0.9], [0.2, 0.1]], "in": {"total": 3}, "out": {"total": 1}}],
    "zones": [{"name": "queue", "points": [[0.5, 0.5], [0.9, 0.5], [0.9, 0.9], [0.5, 0.9]], "now": {"total": 2}}],
}


def test_lines_and_zones_are_drawn_where_they_are():
    image = np.zeros((200, 400, 3), np.uint8)
    overlay.draw(image, PLACES)
    blue, green, red = (int(v) for v in image[60, 80])
    assert red > 200 and green > 150 and blue < 120, "the line is yellow"
    # Walked upwards, the way in is to the left: the arrow stands on that side alone.
    assert image[95:105, 86:100].max() == 0 and image[98:102, 66:72].min(axis=(0, 1))[2] > 200
    inside, outside = image[150, 300].astype(int), image[90, 300].astype(int)
    assert inside[0] > 40 > outside.max() and image[100, 250].max() > 150
    before = image.copy()
    overlay.draw(image, {"lines": [], "zones": []})
    assert np.array_equal(image, before)


def test_odd_places_stay_in_the_picture():
    image = np.zeros((48, 64, 3), np.uint8)
    overlay.draw(
        image,
        {
            "lines": [dict(PLACES["lines"][0], name="T\u00fcr" * 13, points=[[1, 1], [0, 1]])],
            "zones": [dict(PLACES["zones"][0], points=[[0, 0], [1, 0], [1, 1], [0, 1]])],
        },
    )
    assert image.any()


def test_a_marked_picture_is_made_only_when_asked_for():
    made = []
    studio = picture.Studio(
        1,
        lambda camera, jpeg, marked=False: made.append((decoded(jpeg), marked)),
        fps=1000,
        places=lambda camera: PLACES,
    )
    try:
        frame = np.zeros((200, 400, 3), np.uint8)
        for marked in (True, False):
            studio.want_one(0, marked)
            studio.offer(0, frame, result())
            wait_for(lambda marked=marked: made and made[-1][1] == marked, "the picture")
        assert len(made) == 2 and made[0][0].max() > 150 and made[1][0].max() < 30 and not frame.any()
    finally:
        studio.stop()


def test_large_frames_are_reduced():
    studio = picture.Studio(1, lambda camera, jpeg: None)
    try:
        assert decoded(studio.render(noise(wh=(2560, 1440)), result())).shape == (720, 1280, 3)
    finally:
        studio.stop()


def test_crop_has_a_margin_and_a_limit():
    assert decoded(picture.crop(noise(), np.array([100, 80, 140, 120]))).shape[:2] == (61, 61)
    assert max(decoded(picture.crop(noise(), np.array([0, 0, 320, 240]))).shape[:2]) <= 160
    assert picture.crop(noise(), np.array([500, 500, 520, 520])) == b""
