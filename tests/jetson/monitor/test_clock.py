"""A wall clock that is set while the runner runs."""

import json
import random
import signal

import pytest
from serving import FAULTY, Serving, wait_for

from jetson.monitor import journal
from jetson.monitor.clock import LEAST_S, WallClock


def test_steps_are_told_both_ways_and_slewing_is_none():
    times = {"wall": 1000.0, "steady": 50.0}
    clock = WallClock(lambda: times["wall"], lambda: times["steady"])
    for wall, steady, wanted in (
        (10.0, 10.0, 0.0),
        (10.0 + LEAST_S / 2, 10.0, 0.0),
        (1e9, 1.0, 1e9 - 1.0 + LEAST_S / 2),
        (-5e8, 0.0, -5e8),
        (3600.0, 3600.0, 0.0),  # an hour of sleep
    ):
        times["wall"] += wall
        times["steady"] += steady
        assert clock.step() == pytest.approx(wanted)
        assert clock.step() == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_done_to_the_clock_what_was_told_adds_up(seed):
    """Any steps, slews and sleeps: the corrections together are what was done to it, but for what is too small yet."""
    draw = random.Random(seed)
    wall, steady, done, told = draw.uniform(0, 2e9), draw.uniform(0, 1e6), 0.0, 0.0
    clock = WallClock(lambda: wall, lambda: steady)
    for _ in range(60):
        passed, by = (
            draw.choice([0.0, 0.5, 3600.0, 1e6]),
            draw.choice([0.0, 0.0, 1e-3, -0.3, 1.9, 60.0, -7200.0, 1.7e9]),
        )
        wall, steady, done = wall + passed + by, steady + passed, done + by
        told += clock.step()
        assert abs(done - told) < LEAST_S + 1e-3


@pytest.mark.parametrize("by_s", [1.7e9, -3600.0])
def test_events_of_before_carry_the_correction(tmp_path, by_s):
    path = tmp_path / "events.jsonl"
    old = journal.Journal(str(path))
    old.add("enter", began=journal.stamp(5.0))
    old.close()
    made = journal.Journal(str(path))
    before = made.add("enter", began=journal.stamp(1e9))
    made.clock_stepped(by_s)
    told = {event["number"]: event for event in made.latest()}
    assert journal.unstamp(told[2]["began"]) == pytest.approx(1e9 + by_s, abs=2e-3)
    assert journal.unstamp(told[2]["at"]) == pytest.approx(journal.unstamp(before["at"]) + by_s, abs=2e-3)
    assert told[2]["clock_corrected_s"] == by_s and "clock_corrected_s" not in before
    assert (told[3]["kind"], told[3]["by_s"], told[3]["first"], told[3]["last"]) == ("clock stepped", by_s, 2, 2)
    made.close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["number"] for row in rows] == [1, 2, 3] and rows[1]["began"] == before["began"]


def test_a_running_service_notices_and_goes_on(tiny_bundle, clip, tmp_path):
    events = tmp_path / "events.jsonl"
    with Serving(
        tiny_bundle,
        clip,
        program=[FAULTY],
        env={"FAULTY_CLOCK": "315360000"},
        options=["--events", str(events), "--tradeoff", "off"],
    ) as made:
        first = wait_for(lambda: [e for e in made.state()["events"] if e["kind"] == "enter"], "a person")[-1]
        uptime = made.state()["uptime_s"]
        made.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: [e for e in made.state()["events"] if e["kind"] == "clock stepped"], "the notice")
        made.wait_results(5)
        state = made.state()
        assert uptime <= state["uptime_s"] < uptime + 120 and state["health"]["ok"]
        same = [e for e in state["events"] if e["number"] == first["number"]]
        if same:
            moved = journal.unstamp(same[0]["began"]) - journal.unstamp(first["began"])
            assert moved == pytest.approx(10 * 365 * 86400, abs=1.0)
