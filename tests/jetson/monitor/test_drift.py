"""Drift: what fires, what does not, and what is on the disk after a kill."""

import json
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from refusals import refused
from serving import ROOT, Serving, wait_for

from jetson.capture import reader, source
from jetson.errors import BadInput
from jetson.inference.detector import Faces, open_detector
from jetson.monitor import drift
from jetson.synthetic import scene

MODELS = os.path.join(ROOT, "jetson", "models")
VARIANT = "sp-320x192-fp32"
DAYS = 0.01  # the shortest first week: 864 s, slices of 5 s
LEARN_S = int(DAYS * 86400)
HOUR_S = 3600
WORN = "synthetic://?size=320x240&fps=5&darken=0.4&blur=3"
AS_NEW = "synthetic://?size=320x240&fps=5"


class Watched:
    """A Drift with clocks of its own, fed second by second."""

    def __init__(self, path=None, days=DAYS, at=1.7e9, cameras=("synthetic:",)):
        self.now = 0.0
        self.at = at
        self.told = []
        self.drift = drift.Drift(
            path,
            [drift.Known(camera) for camera in cameras],
            days,
            lambda *what: self.told.append(what),
            wall=lambda: self.at + self.now,
            clock=lambda: self.now,
        )

    def feed(self, seconds, frame, faces=None, step=1.0):
        """`frame(t)` -> image and `faces(t)` -> Faces or None, each `step` s; the largest ratio on the way."""
        most = 0.0
        every = 5 if step < 5 else 6
        for number in range(int(seconds / step)):
            self.drift.see(0, frame(self.now))
            found = faces(self.now) if faces else None
            if found is not None:
                self.drift.sample("model", 0, 240, found)
            self.now += step
            if number % every == 0:
                self.drift.judge()
                most = max(most, self.drift.state(0)["ratio"] or 0.0)
        return most


def frames_of(uri):
    """The frames of a drawn source as its reader sends them, one for each second of it."""
    parsed = source.parse(uri)
    request = {"size": parsed.size, "fps": 1.0, "options": parsed.options}
    made = reader.read_synthetic(request, lambda: None)
    return lambda t: next(made)[0]


def test_an_hour_as_before_is_quiet_and_a_worn_camera_fires():
    """An hour's samples (one a second, as they are taken live) through the real reader, detector and measurement."""
    detector = open_detector(MODELS, VARIANT)
    watched = Watched()
    seen = []

    def through(uri):
        get = frames_of(uri)

        def frame(t):
            seen[:] = [get(t)]
            return seen[0]

        return frame

    def faces(t):
        return detector.detect(seen[0], 0.4) if int(t) % 4 == 0 else None  # the trade-off samples less often, too

    with detector:
        as_new = through(AS_NEW)
        assert watched.feed(LEARN_S, as_new, faces) == 0 and watched.drift.state(0)["state"] != "judged"
        most = watched.feed(HOUR_S, as_new, faces)
        assert watched.drift.state(0)["state"] == "judged" and watched.told == []
        assert 0 < most < 1, most
        assert watched.feed(60, through(WORN), faces) > 2
    assert [what[:2] for what in watched.told] == [(0, True)]
    state = watched.drift.state(0)
    assert state["look"] and "brightness" in state["reason"] and "sharpness" in state["reason"]
    assert "look" not in state["reason"] and watched.drift.warnings()


def flat(level, edges=40):
    """A picture of stripes: its brightness and sharpness are known."""
    image = np.full((96, 128, 3), level, np.uint8)
    image[:, ::edges] = 255 - level
    return image


def week(level_of, days, watched, step=600.0):
    """Feed `days` with a sample each 10 minutes; `level_of(hour, day)`."""
    random = np.random.RandomState(int(watched.now))

    def frame(t):
        day, hour = divmod((watched.at + t) / 3600, 24)
        return flat(int(np.clip(level_of(hour, int(day)) + random.normal(0, 4), 0, 255)))

    return watched.feed(days * 86400, frame, step=step)


def test_day_and_night_are_not_drift_and_a_dead_lamp_is():
    def lit(hour, day):
        return 170 if 7 <= hour < 19 else 25

    watched = Watched(days=7, at=1.7e9 - 1.7e9 % 86400)
    week(lit, 7.1, watched)
    assert watched.drift.state(0)["learned"] == 1
    assert week(lit, 5, watched) < 1 and not watched.told
    week(lambda hour, day: 0.4 * lit(hour, day), 1, watched)
    assert [look for _, look, _ in watched.told] == [True]
    week(lit, 2, watched)
    assert [look for _, look, _ in watched.told] == [True, False] and "similar to its first 7 days" in watched.told[1][
        2
    ]


def test_a_restless_place_is_given_room():
    """Weather: the level of a day wanders. What a first week contained must not fire afterwards."""
    random = np.random.RandomState(5)
    levels = random.uniform(90, 150, 40)
    watched = Watched(days=7)
    week(lambda hour, day: levels[day % 40], 7.1, watched)
    assert week(lambda hour, day: levels[day % 40], 14, watched) < 1.0 and watched.told == []


def faces_of(random, score, height, count=3):
    sides = height * np.exp(random.normal(0, 0.3, count))
    corner = random.uniform(0, 100, (count, 2))
    scores = np.zeros((count, 3), np.float32)
    scores[:, 0] = np.clip(random.normal(score, 0.08, count), 0.4, 1)
    return Faces(np.concatenate([corner, corner + sides[:, None]], axis=1).astype(np.float32), scores)


@pytest.mark.parametrize("score, height, name", [(0.62, 40, "score"), (0.8, 20, "size")])
def test_faces_that_change_fire(score, height, name):
    random = np.random.RandomState(1)
    watched = Watched()
    image = flat(100)
    assert watched.feed(LEARN_S + 600, lambda t: image, lambda t: faces_of(random, 0.8, 40)) < 1
    watched.feed(60, lambda t: image, lambda t: faces_of(random, score, height))
    assert name in watched.drift.state(0)["reason"]


def feed_agreement(watched, random, seconds, miss, every=1):
    """One frame in `every` is sampled; a share `miss` of them finds the other variant blind."""
    none = Faces(np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32))
    for number in range(int(seconds)):
        found = faces_of(random, 0.8, 40)
        if number % every == 0:
            watched.drift.sample("model", 0, 240, found, [none if random.random_sample() < miss else found])
        watched.now += 1
    watched.drift.judge()


def agreement_of(watched):
    return next(s for s in watched.drift.full()["cameras"][0]["signals"] if s["name"] == "agreement")


def test_agreement_that_rises_is_no_reason_to_look():
    watched, random = Watched(), np.random.RandomState(6)
    feed_agreement(watched, random, LEARN_S + 100, 0.6)
    feed_agreement(watched, random, 60, 0.0)
    assert agreement_of(watched)["mean_now"] > agreement_of(watched)["mean_then"] + 0.3
    assert not watched.drift.state(0)["look"]


def test_what_was_measured_rarely_is_not_judged():
    """A busy machine leaves few samples: the most that they differed by is no measure of what is usual."""
    watched, random = Watched(), np.random.RandomState(7)
    feed_agreement(watched, random, LEARN_S + 100, 0.3, every=4)
    feed_agreement(watched, random, 60, 0.9)
    assert agreement_of(watched)["state"] == "few" and not watched.drift.state(0)["look"]


def test_agreement_that_falls_fires():
    watched, random = Watched(), np.random.RandomState(2)
    feed_agreement(watched, random, LEARN_S + 100, 0.1)
    assert not watched.drift.state(0)["look"]
    feed_agreement(watched, random, 60, 0.6)
    assert watched.drift.state(0)["reason"].startswith("agreement")


def test_too_few_faces_are_no_verdict():
    watched = Watched()
    image = flat(100)
    random = np.random.RandomState(3)
    watched.feed(LEARN_S + 100, lambda t: image, lambda t: faces_of(random, 0.8, 40, 3 * (t % 40 == 0)))
    states = {s["name"]: s["state"] for s in watched.drift.full()["cameras"][0]["signals"]}
    assert states == {"brightness": "judged", "sharpness": "judged", "score": "few", "size": "few", "agreement": "none"}


def test_another_model_is_learnt_anew_and_the_light_is_not():
    watched = Watched()
    random = np.random.RandomState(4)
    watched.feed(LEARN_S + 60, lambda t: flat(100), lambda t: faces_of(random, 0.8, 40))
    watched.drift.sample("another model", 0, 240, faces_of(random, 0.5, 40))
    watched.drift.judge()
    states = {s["name"]: s["state"] for s in watched.drift.full()["cameras"][0]["signals"]}
    assert states["score"] == states["size"] == "learning" and states["brightness"] == "judged"


def test_the_file_goes_on_where_it_was(tmp_path):
    path = str(tmp_path / "drift.json")
    first = Watched(path)
    first.feed(LEARN_S + 60, lambda t: flat(100))
    first.drift.save()
    first.drift.judge()
    second = Watched(path, at=first.at + first.now)
    assert second.drift.full()["cameras"] == first.drift.full()["cameras"]
    second.feed(60, lambda t: flat(200))
    assert second.drift.state(0)["look"]
    # Another camera in the same place is learnt by itself, and the first one's week is not thrown away.
    third = Watched(path, cameras=("v4l2:/dev/video0",))
    assert third.drift.state(0)["learned"] == 0
    third.drift.save()
    assert Watched(path, at=first.at + first.now).drift.state(0)["learned"] == 1


@pytest.mark.parametrize("away_s, look", [(120.0, True), (3600.0, False), (-3600.0, True)])
def test_what_was_long_before_the_start_is_not_the_present(tmp_path, away_s, look):
    """Mended while the runner was off: the worn picture of then (an hour is 700 slices) is no alarm of now.

    A clock that is behind at the start, as a Nano's until NTP has set it, forgets nothing.
    """
    path = str(tmp_path / "drift.json")
    first = Watched(path)
    first.feed(LEARN_S + 60, lambda t: flat(100))
    first.feed(60, lambda t: flat(200))
    assert first.drift.state(0)["look"]
    first.drift.save()
    second = Watched(path, at=first.at + first.now + away_s)
    assert second.drift.state(0)["look"] is look and bool(second.told) is look
    if away_s > 600:
        second.feed(20, lambda t: flat(100))
        assert second.drift.state(0)["ratio"] is None
        second.feed(60, lambda t: flat(100))
        assert second.drift.state(0)["ratio"] < 1


def test_identity_is_the_camera_not_its_options():
    assert drift.identity(source.parse(WORN)) == drift.identity(source.parse(AS_NEW)) == "synthetic:"
    for uri in ("rtsp://me:secret@host/a", "rtsp://host/secret/a", "http://host/a?auth=secret"):
        assert "secret" not in drift.identity(source.parse(uri))
    # Two cameras of one recorder are two; a new password makes no new camera.
    one, two = (drift.identity(source.parse(f"rtsp://me:a@host/ch{number}")) for number in (1, 2))
    assert one != two and one == drift.identity(source.parse("rtsp://you:b@host/ch1"))


def test_what_was_learnt_under_a_former_name_is_gone_on_with(tmp_path):
    """Earlier versions wrote a camera's address there, with a part of what is secret in it."""
    path = str(tmp_path / "drift.json")
    camera = source.parse("rtsp://me:secret@host/ch1?key=hidden")
    first = drift.Drift(path, [drift.Known(drift._former_identity(camera))], 7.0)
    first.see(0, np.full((64, 64, 3), 90, np.uint8))
    first.save()
    with open(path) as file:
        assert "rtsp://***@host/ch1?key=hidden" in file.read()
    made = drift.open_for(path, 7.0, [camera], lambda *_: None, pytest.fail)
    assert made._cameras[0].series["brightness"].open is not None
    made.save()
    made.stop()
    with open(path) as file:
        text = file.read()
    assert "hidden" not in text and drift.identity(camera) in text


@pytest.mark.parametrize(
    "text, name",
    [
        ("", "JSON"),
        ("[]", "drift.json"),
        ('{"schema": 1, "days": 0.01, "cameras": {"0 synthetic:": 3}}', "camera"),
        ('{"schema": 1, "days": 7, "cameras": {}}', "--drift-days 7"),
        (
            '{"schema": 1, "days": 0.01, "cameras": {"0 synthetic:": {"saved": 1, "signals": {"score": {"key": "", '
            '"reference": [[0, "1 2"]], "recent": [], "open": []}}}}}',
            "20 counts",
        ),
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(tmp_path, text, name):
    path = tmp_path / "drift.json"
    path.write_text(text)
    with refused(BadInput, where=path, names=name):
        Watched(str(path))
    assert path.read_text() == text


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path):
    with refused(BadInput, names=tmp_path / "no"):
        Watched(str(tmp_path / "no" / "drift.json"))


def test_a_disk_that_fails_later_is_told_and_tried_again(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    watched = Watched(str(folder / "drift.json"))
    os.rename(str(folder), str(tmp_path / "away"))
    watched.drift.save()
    assert "not written" in watched.drift.error and watched.drift.warnings() == [watched.drift.error]
    os.rename(str(tmp_path / "away"), str(folder))
    watched.drift.save()
    assert watched.drift.error == "" and os.listdir(str(folder)) == ["drift.json"]


def test_sharpness_knows_blur_from_dark():
    picture = scene.Scene(0, (320, 240)).frame(0.0)[0]
    plain = drift.sharpness(picture)
    assert abs(drift.sharpness(cv2.convertScaleAbs(picture, alpha=0.5)) - plain) < 0.1
    assert drift.sharpness(cv2.GaussianBlur(picture, (0, 0), 2)) < plain - 1
    assert abs(drift.brightness(cv2.convertScaleAbs(picture, alpha=0.5)) - drift.brightness(picture) / 2) < 2
    for flat_one in (np.zeros((8, 8, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)):
        assert -4 < drift.sharpness(flat_one) < 2


# -- through the real process ---------------------------------------------------------------------------------------


def metrics(serving):
    text = serving.get("/metrics")[2].decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("jetmask_drift")
    }


def learned_on_disk(path):
    """How many values of brightness the file holds."""
    stored = json.loads(path.read_text())["cameras"]["0 synthetic:"]["signals"]["brightness"]
    return sum(int(n) for part in stored["reference"] for n in part[1].split())


def test_page_metric_and_file_of_a_running_service(tiny_bundle, tmp_path):
    path = tmp_path / "drift.json"
    with Serving(
        tiny_bundle, "synthetic://?size=160x120&fps=10", options=["--drift", str(path), "--drift-days", "0.01"]
    ) as made:
        wait_for(lambda: metrics(made).get("jetmask_drift_learned", 0) > 0, "the first slice")
        assert metrics(made)["jetmask_drift_look"] == 0 and "jetmask_drift" not in metrics(made)
        status, headers, body = made.get("/drift")
        assert status == 200 and b'src="page.js"' in body and "default-src 'none'" in headers["Content-Security-Policy"]
        assert b"http://" not in body and b"https://" not in body and made.get("/drift.js")[0] == 200
        told = json.loads(made.get("/api/drift")[2].decode())["cameras"][0]
        assert {signal["name"] for signal in told["signals"]} == {scale.name for scale in drift.SCALES}
        assert made.camera()["drift"]["state"] == "learning"
        wait_for(lambda: learned_on_disk(path) >= 3, "three values on the disk")
        made.end(signal.SIGKILL)
    assert learned_on_disk(path) >= 3
    with Serving(
        tiny_bundle, "synthetic://?size=160x120&fps=10", options=["--drift", str(path), "--drift-days", "0.01"]
    ) as made:
        assert made.camera()["drift"]["learned"] > 0


def test_a_reload_does_not_forget(tiny_bundle, clip):
    def score(made):
        told = json.loads(made.get("/api/drift")[2].decode())["cameras"][0]
        return next(signal for signal in told["signals"] if signal["name"] == "score")

    with Serving(
        tiny_bundle,
        clip,
        options=[
            "--drift-days",
            "0.01",
            "--budget",
            "50",
            "--tradeoff",
            "t-416x256-fp32",
            "--variant",
            "t-320x192-int8-cpu",
        ],
    ) as made:
        before = wait_for(lambda: score(made)["learned"] and score(made)["values_then"], "learnt scores")
        for count in (1, 2):
            made.process.send_signal(signal.SIGHUP)
            wait_for(lambda count=count: made.state()["reloads"] == count, "the reload")
            assert score(made)["values_then"] >= before
        wait_for(lambda: score(made)["values_then"] > before, "further scores")


def test_switched_off(tiny_bundle):
    with Serving(tiny_bundle, "synthetic://?size=160x120", options=["--drift", "off"]) as made:
        assert made.camera()["drift"] is None and made.get("/api/drift")[0] == 404


@pytest.mark.full
def test_a_real_hour_as_before_then_worn(tmp_path):
    """75 minutes by the clock: learnt, an hour unchanged, killed, started again on a worn camera."""
    options = [
        "--drift",
        str(tmp_path / "drift.json"),
        "--drift-days",
        str(DAYS),
        "--variant",
        VARIANT,
        "--threads",
        "1",
        "--tradeoff",
        "s-320x192-int8-cpu",
    ]
    most, fired = 0.0, 0
    with Serving(MODELS, AS_NEW, options=options) as made:
        wait_for(lambda: metrics(made)["jetmask_drift_learned"] == 1, "the first week", 3 * LEARN_S)
        end = time.monotonic() + HOUR_S
        while time.monotonic() < end:
            value = metrics(made)
            most, fired = max(most, value.get("jetmask_drift", 0)), fired + value["jetmask_drift_look"]
            time.sleep(2)
        made.end(signal.SIGKILL)
    print(f"unchanged for an hour: at most {most:.3f}")
    assert 0 < most < 1 and fired == 0
    with Serving(MODELS, WORN, options=options) as made:
        wait_for(lambda: metrics(made)["jetmask_drift_look"] == 1, "the metric", 180)
        print(f"worn: {metrics(made)['jetmask_drift']:.2f}, {made.camera()['drift']['reason']}")
        assert any("/drift" in warning for warning in made.state()["warnings"])
        assert any(event["kind"] == "camera drifted" for event in made.state()["events"])


def test_what_a_power_cut_can_lose_is_five_minutes(tmp_path, monkeypatch):
    """The file is written when five minutes have passed since it was, and at the end."""
    watched = Watched(str(tmp_path / "drift.json"))
    saved = []

    def wait(seconds):
        watched.now += 50
        return watched.now > 1000

    monkeypatch.setattr(watched.drift, "_slice_s", 3600.0)
    monkeypatch.setattr(watched.drift._stop, "wait", wait)
    monkeypatch.setattr(watched.drift, "judge", lambda: None)
    monkeypatch.setattr(watched.drift, "save", lambda: saved.append(watched.now))
    watched.drift._run()
    assert saved == [300, 600, 900, 1050]


def test_a_file_of_an_earlier_version_is_gone_on_with_and_stop_waits_for_the_end(root, tmp_path):
    path = tmp_path / "drift.json"
    before = Path(root, "tests", "data", "state_before", "drift.json").read_text()
    path.write_text(before)
    made = drift.open_for(str(path), 7.0, [source.parse("synthetic://?fps=5")], lambda *_: None, pytest.fail)
    assert made._thread.is_alive()
    made.stop()
    assert not made._thread.is_alive()
    (old,), (new,) = (json.loads(text)["cameras"].values() for text in (before, path.read_text()))
    for name in ("brightness", "sharpness"):
        assert new["signals"][name]["reference"] == old["signals"][name]["reference"]
    drift.Drift(None, []).stop()  # never begun


def test_a_camera_that_comes_back_goes_on_with_what_was_learnt_and_another_begins_anew():
    one, other = drift.Known("/dev/video0", "gate"), drift.Known("/dev/video1")
    made = drift.Drift(None, [one], 7.0)
    assert made.see(0, np.full((48, 64, 3), 90, np.uint8))
    made.remove(0)
    made.add(3, other)
    made.add(4, one)
    assert not made._cameras[3].series["brightness"].to_json()["open"]
    assert made._cameras[4].series["brightness"].to_json()["open"]
