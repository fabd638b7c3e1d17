"""The same persons whatever the machine: counts do not depend on how fast a file is read."""

import time

from jetson.bundle import manifest
from jetson.capture import source
from jetson.inference.detector import open_detector
from jetson.inference.runner import Runner, Sink
from jetson.tracking import zones


class Kept(Sink):
    """What happened, in the scene's time since the beginning of the file."""

    def __init__(self):
        self.told = []

    def happened(self, view, events, passed):
        self.told += [
            (one.kind, one.track, one.label, round(one.began - view.origin, 3), round(one.at - view.origin, 3))
            for one in [*events, *passed]
        ]


def through(bundle, uri, every_frame, delay):
    """Events and the number of persons of a source that is read once; `delay(number)`: of an inference, seconds."""
    contents = manifest.load(bundle)
    variant = contents.variant("t-320x192-fp32")
    detector = open_detector(bundle, variant.name, "onnxruntime")
    infer, calls = detector.infer, []

    def slow(blob=None):
        calls.append(None)
        time.sleep(delay(len(calls)))
        return infer(blob)

    detector.infer = slow
    sink = Kept()
    counters = [zones.Counter(zones.parse("line 0 door 0.4,0 0.4,1\npolygon 0 all 0,0 1,0 1,1 0,1\n"))]
    runner = Runner([source.parse(uri, loop=False)], variant, detector, None, every_frame, sink, zones=counters)
    runner.start()
    try:
        end = time.monotonic() + 60
        while not runner.ended and time.monotonic() < end:
            time.sleep(0.01)
        assert runner.ended
        return sink.told, runner.views[0].tracker.persons, runner.results
    finally:
        runner.stop()


def test_the_same_persons_at_any_processing_speed(tiny_bundle, clip):
    """As fast as possible, at the file's own rate, and slower than it with pauses: one number, the same events."""
    fast = through(tiny_bundle, clip, True, lambda number: 0.0)
    own = through(tiny_bundle, clip, False, lambda number: 0.0)
    slow = through(tiny_bundle, clip, False, lambda number: 0.05 + (0.7 if number == 40 else 0.0))
    assert fast[2] == own[2] == slow[2] == 90 and fast[1] >= 1
    assert fast == own == slow
    # Whoever is there at the end leaves, so that each has a time of dwelling.
    entered = {track for kind, track, *_ in fast[0] if kind == "enter"}
    assert entered and {track for kind, track, *_ in fast[0] if kind == "leave"} == entered
    inside = {track for kind, track, *_ in fast[0] if kind == "zone entered"}
    assert inside and {track for kind, track, *_ in fast[0] if kind == "zone left"} == inside
