"""The page's views in a real browser: the grid, one camera, lines and zones drawn, and who can use it without a mouse.

JETMASK_AXE: the path of axe-core's axe.min.js (MPL-2.0, for instance of the wheel axe-playwright-python); where it is
set, no view may have a serious finding.
"""

import json
import os
import shutil

import pytest
from browser import Browser
from serving import Serving, wait_for

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="needs chromium"
)
SCENE = "synthetic://?size=320x240&fps=5&seed={}"
VIEWS = ("#cameras", "#camera=gate", "#history", "#alerts", "#tradeoff", "#drift")
# What a screen reader would have nothing to say about, and ids that stand there twice.
NAMELESS = """(() => {
  const shown = (node) => node.getClientRects().length > 0;
  const labels = (node) => node.labels ? [...node.labels].map((label) => label.textContent).join("") : "";
  const name = (node) => (node.getAttribute("aria-label") || node.textContent || labels(node)).trim();
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  return JSON.stringify([...document.querySelectorAll("a, button, input, select, [tabindex='0']")].filter(shown)
    .filter((node) => !name(node) && !node.getAttribute("aria-labelledby")).map((node) => node.outerHTML.slice(0, 80))
    .concat([...document.images].filter((node) => !node.hasAttribute("alt")).map((node) => node.outerHTML.slice(0, 80)))
    .concat(ids.filter((id, i) => ids.indexOf(id) !== i)));
})()"""
WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def page(tiny_bundle, tmp_path_factory):
    """(serving, browser, the file of lines and zones)."""
    path = tmp_path_factory.mktemp("views") / "zones"
    path.write_text("# mine\nline 1 door 0.5,0 0.5,1\n")
    sources = [f"{name}={SCENE.format(number)}" for number, name in enumerate(("yard", "gate", "a b"))]
    options = ["--zones", str(path), "--history", str(path) + ".sqlite3"]
    with Serving(tiny_bundle, *sources, options=options) as made, Browser(f"http://127.0.0.1:{made.port}/") as browser:
        yield made, browser, path


def go(browser, view):
    browser.js(f"location.hash = {json.dumps(view)}")
    shown = "#view-" + view[1:].partition("=")[0]
    wait_for(lambda: browser.js(f"!document.querySelector('{shown}').hidden"), view)


def test_the_grid_shows_every_camera_by_name_in_one_stream(page):
    made, browser, _ = page
    go(browser, "#cameras")
    names = "[...document.querySelectorAll('.tile b')].map((node) => node.textContent).join('|')"
    wait_for(lambda: browser.js(names) == "yard|gate|a b", "three tiles")
    seen = "[...document.querySelectorAll('.tile-veil')].every((node) => node.hidden)"
    wait_for(lambda: browser.js(seen), "a picture in each")
    assert made.state()["server"]["streams"] == 2  # the events, and all pictures


def test_a_camera_of_any_name_has_a_link_of_its_own(page):
    made, browser, _ = page
    go(browser, "#cameras")
    wait_for(lambda: browser.js("document.querySelectorAll('.tile').length") == 3, "the tiles")
    browser.js("document.querySelectorAll('.tile')[2].click()")
    wait_for(lambda: browser.js("document.getElementById('camera-name').textContent") == "a b", "the camera")
    wait_for(lambda: browser.js("document.getElementById('picture').naturalWidth") == 320, "its picture")
    wait_for(lambda: made.state()["server"]["streams"] == 2, "the grid's stream has ended")
    browser.js("location.hash = '#camera=nobody'")
    wait_for(lambda: browser.js("!document.getElementById('view-cameras').hidden"), "all cameras, where there is none")


def test_a_zone_is_drawn_named_and_saved(page):
    made, browser, path = page
    go(browser, "#camera=gate")
    wait_for(lambda: browser.js("!document.getElementById('edit').hidden"), "the button")
    wait_for(lambda: browser.js("document.getElementById('picture').naturalWidth") == 320, "the picture")
    browser.js("document.getElementById('edit').click(); document.getElementById('new-zone').click()")
    browser.js(
        """(() => { const o = document.getElementById("overlay"), r = o.getBoundingClientRect();
        for (const [x, y] of [[0.4, 0.2], [0.6, 0.2], [0.6, 0.7], [0.4, 0.2]])
          o.dispatchEvent(new PointerEvent("pointerdown", {clientX: r.left + x * r.width, clientY: r.top + y * r.height,
            pointerId: 1, bubbles: true, button: 0})); })()"""
    )
    assert browser.js("document.querySelectorAll('#editor-list li').length") == 2
    browser.js(
        """(() => { const field = document.querySelector("#editor-list li:last-child input"); field.value = "queue";
        field.dispatchEvent(new Event("input")); document.getElementById("editor-save").click(); })()"""
    )
    wait_for(lambda: [zone["name"] for zone in made.camera(1)["zones"]] == ["queue"], "the zone is counted at")
    assert path.read_text().startswith("# mine\nline 1 door 0.5,0 0.5,1\npolygon 1 queue ")
    assert made.camera(0)["zones"] == made.camera(2)["zones"] == []
    wait_for(lambda: browser.js("document.getElementById('editor').hidden"), "the editor is closed")


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_used_without_eyes_and_fits(page, view):
    _, browser, _ = page
    go(browser, view)
    # Waited for: on a busy machine the view's answers are drawn some time after it is shown.
    wait_for(lambda: json.loads(browser.js(NAMELESS) or "[0]") == [], "a name for everything")
    wait_for(lambda: browser.js(WIDER) is False, "a view that is not wider than the window")
    wait_for(lambda: browser.js("document.querySelector('nav [aria-current]').textContent"), "the tab")


@pytest.mark.skipif(not os.environ.get("JETMASK_AXE"), reason="JETMASK_AXE names no axe.min.js")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(page, view, theme):
    _, browser, _ = page
    with open(os.environ["JETMASK_AXE"], encoding="utf-8") as file:
        browser.js(file.read() + "; 0")
    browser.js(f"document.documentElement.dataset.theme = '{theme}'")
    go(browser, view)
    found = browser.js(
        "axe.run().then((r) => JSON.stringify(r.violations.map((v) => [v.impact, v.id, v.nodes.map((n) => n.html)])))"
    )
    assert [one for one in json.loads(found) if one[0] in ("serious", "critical")] == []


def test_the_history_says_the_share_as_it_should_be_and_gives_csv_and_json(page):
    made, browser, _ = page
    rows = wait_for(lambda: json.loads(made.get("/api/v1/hours")[2].decode())["rows"], "persons who entered")
    assert rows
    go(browser, "#history")
    said = "document.getElementById('said').textContent"
    for value in ("86400,hour", "315360000,day"):
        browser.js(
            f"""(() => {{ const s = document.getElementById("span"); s.value = "{value}";
            s.dispatchEvent(new Event("change")); }})()"""
        )
        wait_for(lambda: " % as they should be" in browser.js(said), "the share")
        shown = "document.querySelectorAll('#history-chart circle.comply').length"
        wait_for(lambda shown=shown: browser.js(shown) >= 1, "a point of the line")
    for link in ("csv", "json"):
        path = browser.js(f"document.getElementById('{link}').getAttribute('href')")
        status, headers, body = made.get("/" + path)
        assert status == 200 and link in headers["Content-Type"] and body.count(b"enter") >= 1
