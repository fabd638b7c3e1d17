"""`variant: auto`: the most accurate that keeps the rate, whatever its precision; and the choice is kept."""

import time
import types

import numpy as np
import pytest

from jetson.adapt import auto
from jetson.adapt.candidates import Entry
from jetson.errors import BadInput, JetmaskError


class Engine:
    """Takes so many ms for a frame."""

    def __init__(self, ms):
        self.ms = ms
        self.input_wh = (64, 32)
        self.closed = False

    def detect(self, image):
        assert image.shape == (32, 64, 3) and image.dtype == np.uint8
        end = time.monotonic() + self.ms / 1e3
        while time.monotonic() < end:
            pass

    def close(self):
        self.closed = True


def variant(name, ap, precision="fp32"):
    return types.SimpleNamespace(
        name=name, sha256=name, precision=precision, input_wh=(64, 32), macs=1000, ap={"onnxruntime": {"map50": ap}}
    )


class Here:
    """A machine on which variants take so many ms; what was opened."""

    def __init__(self, tmp_path, **ms):
        self.ms = ms
        self.path = str(tmp_path / "variant.json")
        self.opened = []
        names = {"best": 0.9, "middle": 0.8, "small": 0.7}
        self.entries = [Entry(variant(name, ap), "onnxruntime") for name, ap in names.items() if name in ms]
        self.contents = types.SimpleNamespace(name="b", created="now")

    def open(self, chosen, runtime):
        made = Engine(self.ms[chosen.name])
        self.opened.append((chosen.name, made))
        if made.ms < 0:
            raise BadInput("no engine", chosen.name)
        return made

    def choose(self, fps):
        found = auto.choose(self.contents, self.entries, self.open, fps, 1, self.path)
        # What is not used is closed; what is used is open.
        assert [name for name, made in self.opened if made.ms >= 0 and not made.closed][-1:] == [found.variant.name]
        assert not found.detector.closed
        return found.variant.name


# Far apart, so that a busy machine changes nothing.
@pytest.mark.parametrize("fps, wanted", [(0.1, "best"), (20, "small"), (100000, "small")])
def test_the_most_accurate_that_keeps_the_rate(tmp_path, fps, wanted):
    assert Here(tmp_path, best=200, middle=120, small=1).choose(fps) == wanted


def test_a_more_accurate_one_that_is_faster_is_taken(tmp_path):
    here = Here(tmp_path, best=1, small=100)
    assert here.choose(5) == "best" and len(here.opened) == 1


def test_the_choice_is_kept_until_something_else_is_asked(tmp_path):
    here = Here(tmp_path, best=100, small=1)
    assert here.choose(20) == "small" and len(here.opened) == 2
    again = Here(tmp_path, best=1, small=100)  # it would be measured otherwise now
    assert again.choose(20) == "small" and len(again.opened) == 1
    assert again.choose(5) == "best"
    with open(here.path, "w") as file:
        file.write("[]")
    assert Here(tmp_path, best=1, small=100).choose(20) == "best"


def test_one_that_cannot_be_opened_is_passed_over(tmp_path):
    assert Here(tmp_path, best=-1, small=1).choose(5) == "small"
    with pytest.raises(JetmaskError):
        Here(tmp_path, best=-1, small=-1).choose(7)


def test_rates_are_added_up():
    assert auto.wanted_fps([2.0, None, 0.5]) == 2.5 + auto.USUAL_FPS
