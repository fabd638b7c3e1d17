"""The page of a fleet's state."""

import re
from html.parser import HTMLParser

import pytest

from jetson.errors import UsageError
from pipeline.deploy import cli, fleet_cli, fleet_page

STATE = {
    "version": "0.1.0",
    "roles": {"with_mask": "ok", "without_mask": "alert", "poster": "ignore"},
    "cameras": [
        {"name": "gate", "status": "live", "persons": {"with_mask": 3, "without_mask": 1, "poster": 9, "total": 4}},
        {"name": "<yard>", "status": "lost", "persons": {"with_mask": 0, "without_mask": 0}, "drift": {"look": True}},
    ],
}
ROW = {
    "host": "nano-1",
    "reached": True,
    "current": "a" * 64,
    "previous": None,
    "name": "facemask",
    "service": "systemd",
    "healthy": True,
    "error": None,
    "state": STATE,
    "disk_free_share": 0.05,
}
AWAY = dict(ROW, host="nano-2<script>", reached=False, healthy=None, state=None, disk_free_share=None, error="no route")


class Cells(HTMLParser):
    """`rows`: the cells of each row of the body by their columns; `tags`: all that came."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self._name = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        if tag == "tr":
            self.rows.append({})
        if "data-name" in values:
            self._name = values["data-name"]
            self.rows[-1][self._name] = values["class"] + "|"

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._name = None

    def handle_data(self, data):
        if self._name:
            self.rows[-1][self._name] += data + " "


def test_what_stands_on_the_page():
    text = fleet_page.page([ROW, AWAY], "fleet.yaml", "now", 30)
    found = Cells(text)
    first, second = found.rows[1:]
    assert first["cameras"].startswith("warn|1 of 2 live") and first["compliance"].startswith("|75 %")
    assert first["drift"].startswith("warn|<yard>") and first["disk free"].startswith("bad|5 %")
    assert "0.1.0" in first["runs"] and first["health"].startswith("good|healthy")
    assert second["health"].startswith("bad|not reached") and second["cameras"].startswith("|-")
    assert "nano-2<script>" in second["device"] and "script" not in found.tags and "no route" in second["device"]
    assert re.search(r'http-equiv="refresh" content="30"', text)
    assert "refresh" not in fleet_page.page([ROW], "fleet.yaml", "now", None)


@pytest.mark.parametrize(
    "wrong", [{"html": "x"}, {"status": True, "every": 9}, {"status": True, "html": "x", "every": 1}]
)
def test_what_does_not_go_together(wrong, tmp_path):
    with pytest.raises(UsageError):
        fleet_cli.run(fleet_cli.FleetSettings(str(tmp_path / "none.yaml"), **wrong), cli.options)
