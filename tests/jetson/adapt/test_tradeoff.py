"""Agreement, the budget of sampling, and the governor's decisions."""

import threading
import time

import numpy as np
import pytest
from serving import wait_for

from jetson.adapt import governor, tradeoff
from jetson.bundle import manifest
from jetson.errors import UsageError
from jetson.evaluation import agreement, average_precision
from jetson.inference.detector import Faces, open_detector


def faces(*rows):
    """(x, y, side, label) each."""
    xyxy = np.array([[x, y, x + side, y + side] for x, y, side, _ in rows], np.float32).reshape(-1, 4)
    scores = np.zeros((len(rows), 3), np.float32)
    for number, row in enumerate(rows):
        scores[number, row[3]] = 0.9
    return Faces(xyxy, scores)


def test_agreement_counts_place_and_class():
    count = agreement.Agreement()
    reference = faces((0, 0, 20, 0), (100, 0, 50, 1), (300, 0, 120, 0))
    count.add(reference, faces((1, 0, 20, 0), (100, 2, 50, 0), (600, 0, 20, 1)))
    value = count.value()
    # Either saw 4 faces; both agree on the first alone; of two matched, one class is the same.
    assert (value["agreement"], value["faces"], value["class_agreement"]) == (0.25, 4, 0.5)
    assert value["by_size"]["small"] == {"agreement": 0.5, "faces": 2}
    assert value["by_size"]["medium"]["agreement"] == value["by_size"]["large"]["agreement"] == 0.0
    assert value["low"] < 0.25 < value["high"]


def test_agreement_without_faces_says_nothing():
    count = agreement.Agreement()
    for _ in range(10):
        count.add(faces(), faces())
    assert count.value()["agreement"] is None and count.value()["frames"] == 10


def test_faces_that_go_together_widen_the_interval():
    apart, together = agreement.Agreement(), agreement.Agreement()
    ten = [(60 * n, 0, 40, 0) for n in range(10)]
    for number in range(100):
        apart.add(faces(*ten), faces(*ten[:9]))
        together.add(faces(*ten), faces(*(ten if number % 10 else [])))
    assert apart.value()["agreement"] == together.value()["agreement"] == 0.9
    width = [v["high"] - v["low"] for v in (apart.value(), together.value())]
    assert width[1] > 2 * width[0]


def test_interval_holds_what_it_promises():
    random = np.random.RandomState(0)
    inside = 0
    for _ in range(60):
        count = agreement.Agreement()
        for _ in range(40):
            same = [n for n in range(3) if random.random_sample() < 0.8]
            count.add(faces(*[(60 * n, 0, 40, 0) for n in range(3)]), faces(*[(60 * n, 0, 40, 0) for n in same]))
        inside += count.value()["low"] <= 0.8 <= count.value()["high"]
    assert inside >= 52


@pytest.fixture
def measured(tiny_bundle):
    contents = manifest.load(tiny_bundle)
    entries = tradeoff.choose(contents, "auto", "onnxruntime", contents.variant())
    made = tradeoff.TradeOff(
        entries, lambda variant, runtime: open_detector(tiny_bundle, variant.name, runtime), 0.4, budget=0.5
    ).start()
    made._opener.join(30)
    yield made
    made.stop()


def test_sampling_fills_every_row_and_keeps_its_budget(measured, draw):
    frame = draw((320, 240), [(0, 100, 100, 48), (1, 200, 150, 48)])
    began = time.monotonic()
    while measured.samples < 5 and time.monotonic() - began < 30:
        measured.offer(frame)
        if not measured.spare(True):
            time.sleep(0.002)
    state = measured.state()
    assert measured.samples >= 5 and state["reference"] == measured.reference.variant.name
    assert all(row["latency_p50_ms"] > 0 and row["agreement"] is not None for row in state["variants"])
    assert any(row["front"] for row in state["variants"])
    # One inference may go over the budget, and is then waited for.
    assert measured._spent <= 0.5 * (time.monotonic() - measured._started) + 0.3


def test_true_ap_on_labelled_images(tiny_bundle, tmp_path, draw):
    import json

    import cv2

    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), draw((320, 240), [(0, 100, 100, 48)], number))
        images.append({"id": number, "file_name": f"images/{number}.png", "width": 320, "height": 240})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [76, 76, 48, 48]})
    (tmp_path / "annotations.json").write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": n + 1, "name": name} for n, name in enumerate(manifest.CLASSES)],
            }
        )
    )
    contents = manifest.load(tiny_bundle)
    entries = tradeoff.choose(contents, contents.default_variant, "onnxruntime", contents.variant())
    made = tradeoff.TradeOff(
        entries,
        lambda variant, runtime: open_detector(tiny_bundle, variant.name, runtime),
        0.4,
        budget=0.5,
        truths=average_precision.load_split(str(tmp_path)),
    ).start()
    made._opener.join(30)
    end = time.monotonic() + 30
    while made.entries[0].eval_result is None and time.monotonic() < end:
        if not made.spare(True):
            time.sleep(0.002)
    made.stop()
    assert made.entries[0].eval_result["images"] == 3
    assert 0 <= made.entries[0].eval_result["map50"] <= 100


def test_choice_of_variants(tiny_bundle):
    contents = manifest.load(tiny_bundle)
    names = [v.name for v in contents.variants if "onnxruntime" in v.runtimes]
    some = tradeoff.choose(contents, names[-1], "onnxruntime", contents.variant())
    assert {e.variant.name for e in some} == {names[-1], contents.default_variant}
    with pytest.raises(UsageError):
        tradeoff.choose(contents, "nonsense", None, contents.variant())


class _Camera:
    status, fps = "live", 30.0


class _View:
    camera = _Camera()


class _Runner:
    """What the governor sees of a runner; `slow_ms` is the truth about each variant."""

    def __init__(self, entries):
        self.views = [_View()]
        self.results = 0
        self.active = type("Active", (), {"variant": entries[0].variant})()


def test_governor_goes_down_when_too_slow_and_up_when_there_is_room(tiny_bundle):
    contents = manifest.load(tiny_bundle)
    entries = tradeoff.choose(contents, "t-320x192-fp32,t-416x256-fp32", "onnxruntime", contents.variant())
    slow = next(e for e in entries if e.variant.name == "t-416x256-fp32")
    fast = next(e for e in entries if e is not slow)
    measured = tradeoff.TradeOff(entries, None, 0.4)
    runner = _Runner([slow])
    now = [0.0]
    switched = []

    def switch(entry, reason):
        switched.append((entry.variant.name, reason))
        runner.active.variant = entry.variant

    for entry in entries:
        entry.detector = object()
    guard = governor.Governor({"fps": 25.0}, runner, measured, switch, clock=lambda: now[0])
    assert measured.reference is slow

    def live(seconds, slow_ms, fast_ms):
        for _ in range(seconds):
            for entry, ms in ((slow, slow_ms), (fast, fast_ms)):
                entry.infer_ms.clear()
                entry.infer_ms.extend([ms] * 10)
            ms = slow_ms if runner.active.variant is slow.variant else fast_ms
            now[0] += 1.0
            runner.results += int(min(25.0, 1e3 / ms))
            guard.step()

    live(10, 10.0, 3.0)
    assert switched == []
    live(10, 80.0, 20.0)
    assert [name for name, _ in switched] == ["t-320x192-fp32"] and "instead of" in switched[0][1]
    live(10, 80.0, 20.0)
    assert len(switched) == 1
    live(60, 10.0, 3.0)
    assert [name for name, _ in switched][1:] == ["t-416x256-fp32"]
    # Rates that go to and fro must not make it go to and fro: each retreat waits longer.
    before = len(switched)
    for _ in range(20):
        live(8, 80.0, 20.0)
        live(14, 10.0, 3.0)
    assert len(switched) - before <= 12


def test_governor_does_not_ask_more_than_the_camera_gives(tiny_bundle):
    contents = manifest.load(tiny_bundle)
    entries = tradeoff.choose(contents, "t-320x192-fp32,t-416x256-fp32", "onnxruntime", contents.variant())
    runner = _Runner(entries)
    runner.views[0].camera = type("Slow", (), {"status": "live", "fps": 10.0})()
    guard = governor.Governor({"fps": 25.0}, runner, tradeoff.TradeOff(entries, None, 0.4), lambda *_: None)
    assert guard.demand() == 10.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fps",
        "fps=0",
        "fps=x",
        "ms=30",
        "fps=99999",
        "watts=0",
        "celsius=nan",
        "watts",
        "fps=25,",
        "fps=25,fps=20",
        "watts=5;celsius=70",
        "celsius=200",
        "watts=-5",
    ],
)
def test_governor_goal(text):
    with pytest.raises(UsageError):
        governor.parse(text)


# -- faults -----------------------------------------------------------------------------------------------------------


class _Double:
    """A detector that sees nothing, or fails while `broken`."""

    def __init__(self):
        self.timings = {"infer_ms": 0.1}
        self.broken = False
        self.closed = 0

    def detect(self, image, score=None):
        if self.broken:
            raise RuntimeError("the engine's process has ended with -9")
        return faces()

    def close(self):
        self.closed += 1


def sampled(made, seconds=0.5):
    """How many samples came in that time."""
    before, end = made.samples, time.monotonic() + seconds
    while time.monotonic() < end:
        made.offer(np.zeros((48, 64, 3), np.uint8))
        made.spare(True)
        time.sleep(0.002)
    return made.samples - before


def wait_for_samples(made):
    """More than two samples, however long a busy machine takes."""
    before = made.samples
    wait_for(lambda: sampled(made, 0.1) and False or made.samples > before + 2, "samples")


@pytest.fixture
def doubles(tiny_bundle):
    contents = manifest.load(tiny_bundle)
    entries = tradeoff.choose(contents, "auto", "onnxruntime", contents.variant())
    made = {}

    def trade(truths=()):
        found = tradeoff.TradeOff(
            entries, lambda variant, runtime: made.setdefault(variant.name, _Double()), 0.4, budget=0.5, truths=truths
        ).start()
        found._opener.join(30)
        return found, made

    return trade


@pytest.mark.parametrize("which", ["other", "reference"])
def test_an_engine_that_dies_stops_no_other(doubles, which):
    made, detectors = doubles()
    wait_for_samples(made)
    victim = next(e for e in made.entries if (e is made.reference) == (which == "reference"))
    detectors[victim.variant.name].broken = True
    wait_for(lambda: sampled(made, 0.1) and False or victim.detector is None, "the engine to be given up")
    if which == "other":
        wait_for_samples(made)
    else:
        assert sampled(made) == 0
    assert f"{victim.variant.name} is left out: the engine's process has ended with -9." in made.state()["note"]
    made.stop()
    assert all(double.closed == 1 for double in detectors.values())


def test_an_engine_that_died_is_opened_again(doubles, monkeypatch):
    monkeypatch.setattr(tradeoff, "REOPEN_S", 0.05)
    made, detectors = doubles()
    dead = detectors.pop(made.reference.variant.name)  # what is opened next works
    dead.broken = True
    wait_for(lambda: sampled(made, 0.1) > 2, "samples with another engine")
    assert made.reference.error == "" and made.reference.detector is not dead
    made.stop()
    assert dead.closed == 1


def test_the_note_counts_the_frames_that_the_agreement_is_of(doubles):
    made, _ = doubles()
    nothing = faces()
    for _ in range(2100):
        made.samples += 1
        for entry in made.entries:
            entry.agreement.add(nothing, nothing)
    frames = {row["frames"] for row in made.rows()}
    made.stop()
    assert frames == {2000} and "on the last 2000 sampled frames" in made.state()["note"]


def test_engines_that_die_again_and_again_are_closed_meanwhile(doubles, monkeypatch):
    monkeypatch.setattr(tradeoff, "REOPEN_S", 0.05)
    made, detectors = doubles()
    dead = []

    def dying(variant, runtime):
        dead.append(_Double())
        dead[-1].broken = True
        return dead[-1]

    made._open_variant = dying
    detectors[made.reference.variant.name].broken = True
    wait_for(lambda: sampled(made, 0.1) and False or len(dead) > 4, "engines that die")
    assert [one.closed for one in dead[:3]] == [1, 1, 1]
    # The one that the runner still uses is its matter until it has another.
    made.in_use = lambda detector: True
    since = len(dead)
    wait_for(lambda: sampled(made, 0.1) and False or len(dead) > since + 2, "further ones")
    assert dead[since].closed == 0
    made.stop()
    assert all(one.closed == 1 for one in dead)


def test_an_odd_fault_while_opening_leaves_out_one_variant_only(tiny_bundle):
    contents = manifest.load(tiny_bundle)
    entries = tradeoff.choose(contents, "auto", "onnxruntime", contents.variant())

    def odd(variant, runtime):
        if variant.name == made.reference.variant.name:
            raise KeyError("a fault that nobody thought of")
        return _Double()

    made = tradeoff.TradeOff(entries, odd, 0.4)
    made.start()
    made._opener.join(30)
    assert made.reference.error and any(entry.detector is not None for entry in entries)
    made.stop()


def test_one_failed_inference_leaves_the_variant_in(doubles):
    made, detectors = doubles()
    for double in detectors.values():
        real, calls = double.detect, []
        double.detect = lambda image, score=None, calls=calls, real=real: (
            calls.append(1) or len(calls) % 3 == 1 and 1 / 0 or real(image)
        )
    wait_for(lambda: sampled(made, 0.1), "samples")
    assert all(entry.detector is not None and not entry.error for entry in made.entries)
    made.stop()


def test_a_labelled_image_that_cannot_be_read_ends_the_true_ap_alone(doubles, tmp_path):
    nothing = np.zeros((0, 4))
    truth = average_precision.Truth(
        1, str(tmp_path / "gone.png"), (64, 48), nothing, np.zeros(0, np.int64), nothing, ""
    )
    made, _ = doubles([truth])
    assert sampled(made) > 5
    note = made.state()["note"]
    assert "gone.png" in note and all(entry.eval_result is None for entry in made.entries)
    made.stop()


def test_reading_a_labelled_image_is_part_of_the_budget(doubles, monkeypatch):
    nothing = np.zeros((0, 4))
    truth = average_precision.Truth(1, "x.png", (64, 48), nothing, np.zeros(0, np.int64), nothing, "")
    monkeypatch.setattr(
        average_precision, "read_image", lambda truth: time.sleep(0.05) or np.zeros((48, 64, 3), np.uint8)
    )
    made, _ = doubles([truth] * 4)
    sampled(made, 0.3)
    assert made._spent >= 0.05
    made.stop()


def test_stopping_while_engines_are_opened_leaves_none_open(tiny_bundle):
    contents = manifest.load(tiny_bundle)
    entries = tradeoff.choose(contents, "auto", "onnxruntime", contents.variant())
    opened, begun = [], threading.Event()

    def slow(variant, runtime):
        if opened:
            begun.set()
            time.sleep(1.3)  # longer than stop() waits
        opened.append(_Double())
        return opened[-1]

    made = tradeoff.TradeOff(entries, slow, 0.4).start()
    assert begun.wait(10)
    made.stop()
    made._opener.join(10)
    assert [double.closed for double in opened] == [1, 1]
