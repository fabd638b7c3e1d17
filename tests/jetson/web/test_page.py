"""The live page in a real browser."""

import itertools
import json
import shutil
import socket
import time

import pytest
from browser import Browser
from serving import Serving, wait_for

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="needs chromium"
)
SCENE = "synthetic://?size=320x240&fps=5&seed=1"


def a_free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_a_runner_that_was_restarted_at_once_is_shown_again(tiny_bundle, clip):
    """Picture and events go on, although the page has hardly missed the runner and its events count from 1 again."""
    options = ["--port", str(a_free_port()), "--tradeoff", "off"]
    newest = "document.querySelector('#camera-events time') && document.querySelector('#camera-events time').dateTime"
    with Serving(tiny_bundle, clip, options=options) as first:
        wait_for(lambda: len(first.state()["events"]) >= 6, "events")
        with Browser(f"http://127.0.0.1:{first.port}/") as page:
            wait_for(lambda: first.state()["server"]["streams"] == 2, "picture and events")
            before = wait_for(lambda: page.js(newest), "an event on the page")
            first.close()
            with Serving(tiny_bundle, clip, options=options) as second:
                wait_for(lambda: second.state()["server"]["streams"] == 2, "picture and events of the next run")
                wait_for(lambda: (page.js(newest) or "") > before, "an event of the next run")


def test_a_paused_picture_stays_while_the_page_is_hidden(tiny_bundle, clip):
    with Serving(tiny_bundle, clip, options=["--tradeoff", "off"]) as made, Browser(
        f"http://127.0.0.1:{made.port}/"
    ) as page:
        wait_for(lambda: page.js("document.getElementById('picture').naturalWidth") == 320, "the picture")
        page.js("document.getElementById('pause').click()")
        for hidden in ("true", "false"):
            page.js(
                "Object.defineProperty(document, 'hidden', {value: %s, configurable: true}); "
                "document.dispatchEvent(new Event('visibilitychange'))" % hidden
            )
        assert page.js("document.getElementById('picture').src").startswith("data:image/jpeg")


def test_a_hidden_page_asks_for_no_picture_when_the_runner_comes_back(tiny_bundle, clip):
    options = ["--port", str(a_free_port()), "--tradeoff", "off"]
    hide = (
        "Object.defineProperty(document, 'hidden', {value: %s, configurable: true}); "
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    with Serving(tiny_bundle, clip, options=options) as first, Browser(f"http://127.0.0.1:{first.port}/") as page:
        wait_for(lambda: first.state()["server"]["streams"] == 2, "picture and events")
        page.js(hide % "true")
        wait_for(lambda: first.state()["server"]["streams"] == 1, "events alone")
        first.close()
        with Serving(tiny_bundle, clip, options=options) as second:
            wait_for(lambda: second.state()["server"]["streams"] == 1, "the events of the next run")
            wait_for(lambda: page.js("document.querySelector('#health').dataset.state") == "ok", "contact")
            time.sleep(2.0)  # within it a page that asks again has done so
            assert second.state()["server"]["streams"] == 1
            page.js(hide % "false")
            wait_for(lambda: second.state()["server"]["streams"] == 2, "the picture again")


def test_what_was_on_another_day_is_told_with_the_day(tiny_bundle, clip):
    with Serving(tiny_bundle, clip, options=["--tradeoff", "off"]) as made, Browser(
        f"http://127.0.0.1:{made.port}/"
    ) as page:
        state = wait_for(lambda: made.state()["events"] and made.state(), "a state with events")
        wait_for(lambda: page.js("Boolean(document.querySelector('#camera-events time'))"), "the page")
        # The page's own state, fed by hand: nobody wants to wait three days.
        page.js("import('/state.js').then((state) => { window.take = state.take; }); 0")
        wait_for(lambda: page.js("Boolean(window.take)"), "the page's state")

        uptimes = itertools.count(1000, 1000)  # another run each time, whose events are new

        def told(now):
            then = "2026-03-01T12:00:00.000Z"
            said = dict(
                state,
                time=now,
                uptime_s=next(uptimes),
                events=[dict(state["events"][0], at=then, camera=0)],
                cameras=[dict(state["cameras"][0], status="lost", since=then)],
            )
            return page.js(
                "take(%s); document.getElementById('veil-title').textContent + '|' + "
                "document.querySelector('#camera-events time').textContent" % json.dumps(said)
            )

        same, later = told("2026-03-01T12:05:00.000Z"), told("2026-03-04T12:05:00.000Z")
        assert "Mar" not in same and same.count(":") == later.count(":") == 4
        assert all("Mar" in part and "1" in part for part in later.split("|")), later
