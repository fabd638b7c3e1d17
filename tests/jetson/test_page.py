"""The live page in a real browser."""

import shutil
import socket

import pytest
from browser import Browser
from serving import Serving, wait_for

pytestmark = pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("chromium-browser")),
                                reason="needs chromium")
SCENE = "synthetic://?size=320x240&fps=5&seed=1"


def a_free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_a_runner_that_was_restarted_at_once_is_shown_again(tiny_bundle, clip):
    """Picture and events go on, although the page has hardly missed the runner and its events count from 1 again."""
    options = ["--port", str(a_free_port()), "--tradeoff", "off"]
    newest = "document.querySelector('#events time') && document.querySelector('#events time').dateTime"
    with Serving(tiny_bundle, clip, options=options) as first:
        wait_for(lambda: len(first.state()["events"]) >= 6, "events")
        with Browser("http://127.0.0.1:{}/".format(first.port)) as page:
            wait_for(lambda: first.state()["server"]["streams"] == 2, "picture and events")
            before = wait_for(lambda: page.js(newest), "an event on the page")
            first.close()
            with Serving(tiny_bundle, clip, options=options) as second:
                wait_for(lambda: second.state()["server"]["streams"] == 2, "picture and events of the next run")
                wait_for(lambda: page.js(newest) > before, "an event of the next run")


def test_a_paused_picture_stays_while_the_page_is_hidden(tiny_bundle, clip):
    with Serving(tiny_bundle, clip, options=["--tradeoff", "off"]) as made, \
            Browser("http://127.0.0.1:{}/".format(made.port)) as page:
        wait_for(lambda: page.js("document.getElementById('picture').naturalWidth") == 320, "the picture")
        page.js("document.getElementById('pause').click()")
        for hidden in ("true", "false"):
            page.js("Object.defineProperty(document, 'hidden', {value: %s, configurable: true}); "
                    "document.dispatchEvent(new Event('visibilitychange'))" % hidden)
        assert page.js("document.getElementById('picture').src").startswith("data:image/jpeg")
