"""The loop of `jetson.inference.runner`: what is on its way when a source ends, and engines that change meanwhile."""

import functools
import threading
import time
import types

import cv2
import pytest
from serving import wait_for

from jetson.adapt.candidates import Entry
from jetson.bundle import manifest
from jetson.capture import source
from jetson.inference import histogram
from jetson.inference.detector import open_detector
from jetson.inference.runner import Active, Runner
from jetson.monitor.journal import Journal
from jetson.monitor.status import STUCK_S, Status
from jetson.serve import reload
from jetson.serve.comparing import Comparing
from jetson.serve.service import Service
from jetson.serve.settings import Settings

VARIANT = "t-320x192-fp32"


@pytest.fixture
def make(tiny_bundle):
    started = []

    def runner(*uris, **words):
        contents = manifest.load(tiny_bundle)
        made = Runner(
            [source.parse(str(uri), loop=False) for uri in uris],
            contents.variant(VARIANT),
            open_detector(tiny_bundle, VARIANT, "onnxruntime"),
            **words,
        )
        started.append(made)
        return made

    runner.bundle = tiny_bundle
    yield runner
    for made in started:
        made.stop()


def test_the_end_waits_for_the_frame_that_is_being_prepared(make, draw, tmp_path):
    cv2.imwrite(str(tmp_path / "one.png"), draw((320, 240), [(0, 100, 100, 48)]))
    made = make(tmp_path, every_frame=True)
    prepare = made.active.detector.prepare

    def slow(frame, out=None, filled=None):
        wait_for(lambda: made.views[0].camera.status == "ended", "the source's end")
        time.sleep(0.2)
        return prepare(frame, out, filled)

    made.active.detector.prepare = slow
    made.start()
    wait_for(lambda: made.ended, "the end")
    assert made.results == 1


def test_the_end_waits_for_the_frame_in_the_engine_while_the_next_slot_is_not_taken_yet(make, draw, tmp_path):
    cv2.imwrite(str(tmp_path / "one.png"), draw((320, 240), [(0, 100, 100, 48)]))
    made = make(tmp_path, every_frame=True)
    take_slot, collect = made._spare_slot, made.active.detector.collect

    def slow_collect():
        wait_for(lambda: made.views[0].camera.status == "ended", "the source's end")
        time.sleep(0.3)
        return collect()

    def slow_take_slot():
        if made.views[0].camera.status != "starting":
            time.sleep(0.5)  # a busy machine lets the preparing thread wait
        return take_slot()

    made._spare_slot, made.active.detector.collect = slow_take_slot, slow_collect
    made.start()
    wait_for(lambda: made.ended, "the end")
    assert made.results == 1


@pytest.mark.parametrize("cameras, fails", [(1, False), (2, False), (1, True)])
def test_each_frame_of_a_camera_is_a_result_or_told_as_dropped(make, monkeypatch, cameras, fails):
    """Frames come faster than the engine takes them, or it fails; wherever one is left out, it is counted."""
    plain = source.parse
    monkeypatch.setattr(source, "parse", lambda uri, loop: plain(uri))  # read for ever, as a camera
    made = make(*["synthetic://?size=160x120&fps=200"] * cameras)
    infer, calls = made.active.detector.engine.infer, []

    def slow(image=None):
        time.sleep(0.01 if made.results % 7 else 0.03)
        calls.append(None)
        if fails and len(calls) % 10 == 0:
            raise RuntimeError("a fault on purpose")
        return infer(image)

    made.active.detector.engine.infer = slow
    made.start()
    wait_for(lambda: all(view.results > 20 and view.camera.dropped > 20 for view in made.views), "results")
    for view in made.views:
        view.camera.stop()
    for view in made.views:
        wait_for(lambda view=view: view.camera.held == 0, "the frames on their way")
        assert view.camera.frames == view.results + view.camera.dropped and bool(made.engine_errors) == fails


class NoBoard:
    def state(self):
        return {}


def comparing_for(make, opened, **options):
    settings = Settings(make.bundle, variant=VARIANT, runtime="onnxruntime", **options)
    return Comparing(settings, opened, [], NoBoard(), None, Journal(), lambda text: None)


@pytest.mark.parametrize("case", ["died", "reloaded", "reloading", "well"])
def test_the_governor_switches_to_no_engine_that_is_gone(make, case):
    made = make("synthetic://")
    comparing = comparing_for(make, None)
    entry = Entry(made.active.variant, "onnxruntime")
    entry.detector = None if case == "died" else made.active.detector
    there = [] if case == "reloaded" else [entry]
    comparing.tradeoff = None if case == "reloading" else types.SimpleNamespace(entries=there)
    comparing.switch(made, entry, "too slow")
    assert made.active.detector is not None and made.active.generation == (1 if case == "well" else 0)
    assert len(comparing._journal.latest()) == (1 if case == "well" else 0)


def test_the_governor_does_not_go_back_to_an_engine_that_a_reload_puts_away(make):
    made = make("synthetic://")
    open_variant = functools.partial(open_detector, make.bundle)
    comparing = comparing_for(make, open_variant, tradeoff="off")
    entry = Entry(made.active.variant, "onnxruntime")
    entry.detector = made.active.detector
    comparing.tradeoff = types.SimpleNamespace(entries=[entry], stop=lambda: None)
    swap = made.swap

    def at_this_moment(variant, detector, own=True):
        swap(variant, detector, own)
        if own:
            comparing.switch(made, entry, "too slow")  # the main thread's, between two steps of the reload

    made.swap = at_this_moment
    status = Status(manifest.load(make.bundle), made, Journal(), comparing=comparing)
    service = Service(
        comparing._settings,
        made,
        comparing,
        Journal(),
        status,
        types.SimpleNamespace(),
        None,
        None,
        0,
        None,
        None,
        None,
        None,
        None,
        None,
        {},
        lambda variant, runtime: open_variant(variant.name, runtime),
    )
    reload._bundle(service, threading.Event())
    assert status.reloads == 1 and made.active.detector is not entry.detector


def test_an_engine_that_failed_does_not_take_the_place_of_the_next(make):
    opened = []
    made = make("synthetic://", reopen=lambda variant: opened.append(variant) or 1 / 0)
    old = made.active
    made.active = Active(old.variant, old.detector, 1, False)  # a reload has swapped meanwhile
    made._trouble(RuntimeError("gone"), old, 3)
    assert opened == []
    made._trouble(RuntimeError("gone"), made.active, 3)
    assert opened == [old.variant]


def slow_inference(made, seconds):
    infer = made.active.detector.infer

    def slow(blob=None):
        time.sleep(seconds)
        return infer(blob)

    made.active.detector.infer = slow


def test_a_camera_that_comes_after_a_minute_is_no_stuck_loop(make):
    made = make("synthetic://")
    slow_inference(made, 0.5)
    status = Status(manifest.load(make.bundle), made, Journal())
    made.start()
    made.started = made.last_result = time.monotonic() - 3 * STUCK_S  # the camera took so long to start up
    told = set()
    while not made.results:
        told.add(status.health()["reason"])
        time.sleep(0.01)
    assert told == {""}


def test_frames_without_a_result_are_told(make):
    made = make("synthetic://")
    status = Status(manifest.load(make.bundle), made, Journal())
    made._publish = lambda slot: None  # whatever it is that eats the results
    made.start()
    wait_for(lambda: made.views[0].camera.waiting_since, "a frame")
    made.views[0].camera.waiting_since -= 2 * STUCK_S
    made.last_result -= 2 * STUCK_S
    wait_for(lambda: not status.health()["ok"], "the word")
    assert "no result" in status.health()["reason"]


def test_a_fault_of_long_ago_is_not_told_as_the_reason_for_no_picture(make, monkeypatch):
    made = make("synthetic://")
    status = Status(manifest.load(make.bundle), made, Journal())
    made.start()
    wait_for(lambda: made.results, "a result")
    made._note("preparing a frame", ValueError("an odd frame"))
    assert made.engine_errors == 1
    wait_for(lambda: made.results > 10, "results")
    made.stop()
    now = time.monotonic() + 5.0  # no camera sends since
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert not [words for words in status.warnings() if "engine fails" in words]
    made._note("preparing a frame", ValueError("an odd frame"))
    assert [words for words in status.warnings() if "engine fails" in words]


def test_latencies_of_an_hour_ago_are_not_told(monkeypatch):
    latency = histogram.Histogram()
    latency.add(5.0)
    assert latency.percentiles()["n"] == 1
    now = time.monotonic()
    monkeypatch.setattr(histogram.time, "monotonic", lambda: now + 3600.0)
    assert latency.percentiles() == {} and latency.count == 1


@pytest.mark.parametrize("fps, cameras", [(0.25, 1), (1, 1), (1, 3), (10, 1), (30, 2)])
def test_no_more_results_a_second_than_there_are(fps, cameras):
    rate = histogram.Rate()
    for number in range(int(12 * fps)):
        for _ in range(cameras):
            rate.add(number / fps)
        if number > max(1, 2 * fps):
            for late in (0.0, 0.5, 0.99):
                assert rate.value((number + late) / fps) == pytest.approx(cameras * fps, rel=0.04), (number, late)
    assert rate.value(12 + 4.5) < 0.6 * cameras * fps and rate.value(100.0) == 0.0
