"""Rules on events as the journal tells them, by a clock of our own: who is told of what, once, and when not."""

import pytest

from jetson.alerts import settings
from jetson.alerts.scene import Scene
from jetson.alerts.watch import Watch
from jetson.bundle.classes import MASK_CLASSES
from jetson.monitor.journal import stamp

START = 1764590400.0  # 2025-12-01T12:00:00Z
RECEIVERS = {"office": {"kind": "command", "command": ["true"]}}


class Watched:
    """One rule, and a scene that events are told of."""

    def __init__(self, when, **more):
        rules = [dict({"name": "r", "when": when}, **more)]
        made = settings.alerts_of({"rules": rules, "receivers": RECEIVERS})
        self.watch, self.scene = Watch(made.rules, MASK_CLASSES), Scene()

    def tell(self, at, kind, person=None, label="without_mask", camera="gate", **more):
        event = dict({"kind": kind, "at": stamp(START + at), "camera": camera}, **more)
        if person is not None:
            role = MASK_CLASSES.roles[MASK_CLASSES.names.index(label)]
            event.update(person=person, label=label, role=role, began=stamp(START + at))
        self.scene.take([event], START + at)

    def look(self, at):
        return [told.found.text for told in self.watch.look(self.scene, START + at)]


def test_a_person_is_told_of_once_and_only_after_the_time():
    one = Watched("no_mask > 5 s", cool_down=0)
    one.tell(0, "enter", 1)
    assert one.look(5) == []
    assert one.look(5.5) == ["gate: without mask for over 5 s"]
    assert one.look(6) == one.look(60) == []
    one.tell(61, "leave", 1)
    one.tell(62, "enter", 2)
    assert one.look(64) == [] and len(one.look(68)) == 1


def test_the_time_begins_anew_when_the_class_changes():
    one = Watched("no_mask > 5 s")
    one.tell(0, "enter", 1, "with_mask")
    one.tell(10, "change", 1, "without_mask")
    assert one.look(14) == [] and len(one.look(15.5)) == 1
    other = Watched("no_mask > 5 s")
    other.tell(0, "enter", 1)
    other.tell(4, "change", 1, "with_mask")
    assert other.look(60) == []


def test_in_a_zone_counts_only_who_is_in_it_and_from_when():
    one = Watched("no_mask > 5 s in zone queue")
    one.tell(0, "enter", 1)
    one.tell(8, "zone entered", 1, zone="queue")
    assert one.look(12) == []
    one.tell(12, "zone left", 1, zone="queue")
    assert one.look(20) == []
    one.tell(20, "zone entered", 1, zone="queue")
    assert one.look(25.5) == ["gate: without mask in queue for over 5 s"]


def test_the_cool_down_keeps_back_counts_and_tells_the_number_with_the_next():
    one = Watched("no_mask > 1 s", cool_down="60 s")
    told = []
    for number in range(4):
        one.tell(10 * number, "enter", number)
        told += one.watch.look(one.scene, START + 10 * number + 2)
    one.tell(100, "enter", 9)
    told += one.watch.look(one.scene, START + 102)
    assert [(case.found.fields["person"], case.suppressed) for case in told] == [(0, 0), (9, 3)]
    one.tell(103, "enter", 1, camera="door")  # another camera has a cool-down of its own
    assert len(one.look(105)) == 1


def test_a_lost_camera_is_told_once_and_again_when_it_was_back():
    one = Watched("camera lost > 1 min", cool_down=0)
    one.tell(0, "camera lost", reason="no route")
    assert one.look(59) == [] and one.look(61) == ["gate: no picture for over 1 min"] and one.look(600) == []
    one.tell(601, "camera back")
    one.tell(602, "camera lost", reason="no route")
    assert one.look(640) == [] and len(one.look(663)) == 1


def test_a_camera_lost_again_within_the_cool_down_is_told_when_that_ends():
    one = Watched("camera lost > 1 min", cool_down="10 min")
    one.tell(0, "camera lost", reason="no route")
    assert len(one.look(61)) == 1
    for at in (120, 300):  # back, and lost again, the second time for good
        one.tell(at, "camera back")
        one.tell(at + 1, "camera lost", reason="no route")
        for later in (62, 63, 100):
            assert one.look(at + later) == []
    assert one.look(660) == []
    told = one.watch.look(one.scene, START + 661)
    assert [(case.found.text, case.suppressed) for case in told] == [("gate: no picture for over 1 min", 1)]
    assert one.look(662) == one.look(5000) == []


def test_what_is_over_before_the_cool_down_ends_is_not_told():
    one = Watched("drift", cool_down="10 min")
    for at in (0, 60, 120):
        one.tell(at, "camera drifted", reason="darker")
        assert len(one.look(at + 1)) == (at == 0)
        one.tell(at + 30, "camera as before", reason="")
        assert one.look(at + 31) == []
    assert one.look(700) == []
    one.tell(800, "camera drifted", reason="darker")
    assert [case.suppressed for case in one.watch.look(one.scene, START + 801)] == [2]


def test_drift_and_a_camera_that_is_as_before():
    one = Watched("drift", cool_down=0)
    one.tell(0, "camera drifted", reason="darker")
    assert len(one.look(1)) == 1 and one.look(2) == []
    one.tell(3, "camera as before", reason="")
    one.tell(4, "camera drifted", reason="blurred")
    assert len(one.look(5)) == 1


@pytest.mark.parametrize("bad, fires", [(2, True), (1, False)])
def test_compliance_over_a_window_with_enough_persons(bad, fires):
    one = Watched("compliance < 90 % over 1 h of at least 10 persons")
    for number in range(10):
        one.tell(number, "enter", number, "without_mask" if number < bad else "with_mask")
        one.tell(number + 1, "leave", number)
        if number < 9:
            assert one.look(number) == []  # too few to say
    assert bool(one.look(20)) is fires
    assert one.look(21) == []
    if fires:
        assert not one.look(3700) and not one.watch.look(one.scene, START + 8000)  # an hour later nobody is counted


def test_a_class_that_changes_later_counts_as_what_it_became():
    one = Watched("compliance < 90 % over 1 h of at least 1 persons")
    one.tell(0, "enter", 1, "without_mask")
    one.tell(1, "change", 1, "with_mask")
    assert one.look(2) == []


def test_other_cameras_roles_and_hours():
    one = Watched("alert > 1 s", cameras=["door"])
    one.tell(0, "enter", 1)
    assert one.look(5) == []
    one.tell(0, "enter", 1, camera="door")
    assert len(one.look(5)) == 1
    closed = Watched("no_mask > 1 s between 3 and 4")
    closed.watch = Watch(closed.watch.rules, MASK_CLASSES, lambda now: __import__("time").gmtime(now))
    closed.tell(0, "enter", 1)
    assert closed.look(5) == []


def test_a_clock_that_is_set_makes_nobody_stay_for_years():
    one = Watched("no_mask > 5 s")
    one.tell(-1e9, "enter", 1)
    one.scene.take([{"kind": "clock stepped", "at": stamp(START), "by_s": 1e9}], START)
    assert one.look(4) == [] and len(one.look(6)) == 1
