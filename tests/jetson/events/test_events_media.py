"""jetson/events/media.py and avi.py: real files, read back by OpenCV; a full disk and a kill."""

import os
import shutil
from collections import namedtuple

import cv2
import numpy as np
import pytest

from jetson.errors import BadInput
from jetson.events import media as module
from jetson.events.avi import mjpeg
from jetson.events.media import CLIP, CROP, FRAME, Media, kind_of, new_key, time_of
from jetson.events.store import Store
from jetson.monitor.journal import stamp

START = 1.79e9


def jpeg(value, wh=(64, 48)):
    return cv2.imencode(".jpg", np.full((wh[1], wh[0], 3), value, np.uint8))[1].tobytes()


def kept(folder):
    return sorted(os.listdir(str(folder)))


def test_a_picture_is_there_after_a_restart_and_is_replaced_by_a_better_one(tmp_path):
    folder = str(tmp_path / "events-media")
    media, key = Media(folder), new_key(START)
    assert abs(time_of(key) - START) < 0.01
    assert media.put(key + CROP, b"first") and media.put(key + CROP, b"better") and media.put(key + FRAME, b"frame")
    assert os.stat(folder).st_mode & 0o077 == 0
    again = Media(folder)
    assert again.read(key + CROP) == b"better" and again.bytes == media.bytes == 11
    assert again.urls({"picture": key}) == {
        "picture_url": f"/api/v1/media/{key}.jpg",
        "frame_url": f"/api/v1/media/{key}.frame.jpg",
    }
    assert again.urls({"clip": key}) == {} and again.read(key + CLIP) is None


def test_the_oldest_go_first_over_the_megabytes(tmp_path):
    media = Media(str(tmp_path / "m"), 1.0)
    keys = [new_key(START + n) for n in range(12)]
    for key in keys:
        media.put(key + CROP, b"x" * 100_000)
    assert kept(tmp_path / "m") == sorted(key + CROP for key in keys[2:])
    assert media.bytes == 1_000_000


def test_pictures_go_with_their_events(tmp_path):
    store = Store(str(tmp_path / "events.sqlite3"), days=36500)
    media = Media(str(tmp_path / "m"))
    store.tidied = media.tidy
    store.start()
    keys = [new_key(START + 3600 * n) for n in range(4)]
    for n, key in enumerate(keys):
        media.put(key + CROP, b"x")
        store.add({"at": stamp(START + 3600 * n), "kind": "enter", "camera": "gate", "picture": key})
    assert store.flush()
    assert store.keys(START + 7000) == set(keys[2:])
    store.close()
    store = Store(str(tmp_path / "events.sqlite3"), days=1.0)
    store.tidied = media.tidy
    store.tidy(START + 86400 + 5400)  # two of them are over a day old
    assert [event["picture"] for event in store.find()] == keys[:1:-1]
    assert kept(tmp_path / "m") == sorted(key + CROP for key in keys[2:])
    store.close()


def test_after_a_kill_no_picture_is_without_its_event(tmp_path):
    media = Media(str(tmp_path / "m"))
    old, known, lost = new_key(START - 9000), new_key(START), new_key(START + 1)
    for key in (old, known, lost):
        media.put(key + CROP, b"x")
    (tmp_path / "m" / f".{lost}.jpg.999999.0123abcd.part").write_bytes(b"half")
    again = Media(str(tmp_path / "m"))
    assert again.sweep(START - 3600, {known}) == [lost + CROP]
    assert kept(tmp_path / "m") == sorted([old + CROP, known + CROP])


def test_what_a_full_disk_does_not_take_is_counted_and_said(tmp_path, monkeypatch):
    media = Media(str(tmp_path / "m"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage(10**9, 10**9, 1000))
    media.expect("clip")
    assert not media.put("clip", b"x") and not media.expected("clip")
    assert media.state()["dropped"] == 1 and "free" in media.state()["error"] and kept(tmp_path / "m") == []
    monkeypatch.undo()
    (tmp_path / "m").rmdir()
    (tmp_path / "m").write_bytes(b"")  # no folder can be here
    assert not media.put(new_key(START) + CROP, b"x") and media.state()["dropped"] == 2


def test_whoever_removes_all_pictures_may_do_so_while_it_runs(tmp_path):
    media, key = Media(str(tmp_path / "m")), new_key(START)
    media.put(key + CROP, b"x")
    shutil.rmtree(str(tmp_path / "m"))
    assert media.read(key + CROP) is None and media.bytes == 0 and media.urls({"picture": key}) == {}
    assert media.put(new_key(START + 1) + CROP, b"y") and len(kept(tmp_path / "m")) == 1


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "m").write_bytes(b"")
    with pytest.raises(BadInput):
        Media(str(tmp_path / "m"))


@pytest.mark.parametrize("name", ["", "x", "../a.jpg", "0123456789ab-01234567", "0123456789AB-01234567.jpg", "a.png"])
def test_other_names_are_no_files_of_events(name):
    assert kind_of(name) is None


def test_a_clip_is_read_by_others(tmp_path):
    path = str(tmp_path / "clip.avi")
    shown = [jpeg(20 * n, (65, 48)) + b"\0" * (n % 2) for n in range(8)]  # of odd and even lengths
    with open(path, "wb") as file:
        file.write(mjpeg(shown, (65, 48), 0.2))
    film = cv2.VideoCapture(path)
    try:
        assert abs(film.get(cv2.CAP_PROP_FPS) - 5.0) < 0.01 and film.get(cv2.CAP_PROP_FRAME_COUNT) == 8
        for n in range(8):
            good, image = film.read()
            assert good and image.shape == (48, 65, 3) and abs(float(image.mean()) - 20 * n) < 3
        assert not film.read()[0]
    finally:
        film.release()
    with pytest.raises(ValueError):
        mjpeg([], (4, 4), 0.2)
