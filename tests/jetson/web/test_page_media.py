"""Thumbnails of events and the clip of an alert, in a real browser."""

import json
import shutil

import pytest
from browser import Browser
from serving import Serving, wait_for

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="needs chromium"
)


def test_a_picture_opens_large_and_a_clip_is_played(tiny_bundle, clip, tmp_path):
    value = {
        "cameras": {"gate": {"source": clip}},
        "engine": {"variant": "t-320x192-fp32"},
        "compare": {"variants": "off"},
        "events": {"history": str(tmp_path / "e.sqlite3"), "pictures": "frame", "clips": {"before": 1, "after": 0.5}},
        "alerts": {
            "rules": [{"name": "bare", "when": "no_mask > 0.1 s", "cool_down": "1 h"}],
            "receivers": {"nobody": {"kind": "command", "command": ["true"]}},
            "outbox": str(tmp_path / "alerts.sqlite3"),
        },
    }
    path = tmp_path / "jetmask.json"
    path.write_text(json.dumps(value))
    with Serving(tiny_bundle, options=["--config", str(path)]) as made:

        def there():
            events = json.loads(made.get("/api/v1/events?kind=enter")[2].decode())["events"]
            alerts = json.loads(made.get("/api/v1/alerts")[2].decode())["alerts"]
            return any("frame_url" in one for one in events) and any("clip_url" in one for one in alerts)

        wait_for(there, "a picture and a clip")
        with Browser(f"http://127.0.0.1:{made.port}/history") as page:
            wait_for(lambda: page.js("document.querySelector('#rows .thumb img').naturalWidth") or 0, "a thumbnail")
            page.js("document.querySelector('#rows .thumb').click()")
            wait_for(lambda: page.js("document.querySelector('#media-body img').naturalWidth") == 320, "the frame")
            page.js("document.querySelector('#media-close').click()")
            wait_for(lambda: page.js("!document.getElementById('media').open"), "it is closed")
            page.js("location.hash = '#alerts'")
            button = "[...document.querySelectorAll('#alert-rows button')].find(one => /Clip/.test(one.textContent))"
            wait_for(lambda: page.js(f"!!{button}"), "the clip's button")
            page.js(button + ".click()")
            said = "document.querySelector('#media-body [role=status]').textContent"
            wait_for(lambda: " of " in (page.js(said) or ""), "the clip to be played")
            assert page.js("document.querySelector('#media-body canvas').width") == 320
            assert int(page.js("document.querySelector('#media-body input').max")) >= 1
