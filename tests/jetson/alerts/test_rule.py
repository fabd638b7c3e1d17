"""A rule's text: what it means, that it reads back to the same, and that a mistake names what was read."""

import time

import pytest

from jetson.alerts import rule
from jetson.errors import BadInput


@pytest.mark.parametrize(
    "text, meant",
    [
        ("no_mask > 5 s", {"kind": "seen", "what": "no_mask", "seconds": 5.0}),
        ("no_mask > 5s in zone queue", {"what": "no_mask", "zone": "queue"}),
        ('"bare head" > 1.5 min in zone "the door"', {"what": "bare head", "zone": "the door", "seconds": 90.0}),
        ("no_mask > 5 s in zone queue between 8 and 18", {"between": (480, 1080)}),
        ("alert > 0.5 s between 22:30 and 6 on mon-fri", {"between": (1350, 360), "days": frozenset(range(5))}),
        ("camera lost > 1 min", {"kind": "camera lost", "seconds": 60.0}),
        ("drift on sat,sun", {"kind": "drift", "days": frozenset([5, 6])}),
        ("compliance < 90 % over 1 h", {"kind": "compliance", "percent": 90.0, "seconds": 3600.0, "persons": 10}),
        (
            "compliance < 99.5 % over 1 d of at least 50 persons in zone hall",
            {"percent": 99.5, "persons": 50, "zone": "hall"},
        ),
    ],
)
def test_what_a_rule_means_and_that_its_text_reads_back(text, meant):
    found = rule.parse(text)
    assert {key: getattr(found, key) for key in meant} == meant
    assert rule.parse(found.text()) == found


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "empty"),
        ("no_mask", "too early"),
        ("no_mask > 5", "'5'"),
        ("no_mask > 5 weeks", "'5'"),
        ("no_mask >> 5 s", "'>'"),
        ("camera lost < 1 min", "'<'"),
        ("compliance < 0 % over 1 h", "'0'"),
        ("compliance < 90 over 1 h", "'over'"),
        ("no_mask > 5 s in zone queue in zone door", "'in'"),
        ("no_mask > 5 s between 8 and 25", "'25'"),
        ("no_mask > 5 s on friday-funday", "'friday-funday'"),
        ("drift in zone queue", "'in'"),
    ],
)
def test_a_mistake_names_what_was_read(text, told):
    with pytest.raises(BadInput) as error:
        rule.parse(text, "alerts.rules[0].when")
    assert told in error.value.what and error.value.where == "alerts.rules[0].when" and error.value.expected


def at(day, hour, minute=0):
    """A local time of a week that begins on Monday, 2026-11-30."""
    return time.struct_time((2026, 11, 30 + day, hour, minute, 0, day, 334 + day, 0))


def test_hours_over_midnight_belong_to_the_day_they_began():
    night = rule.parse("drift between 22 and 6 on fri")
    assert night.open_at(at(4, 23)) and night.open_at(at(5, 5, 59))
    assert not night.open_at(at(4, 5)) and not night.open_at(at(5, 6)) and not night.open_at(at(5, 23))
    day = rule.parse("drift between 8 and 18")
    assert day.open_at(at(0, 8)) and day.open_at(at(6, 17, 59)) and not day.open_at(at(0, 18))
