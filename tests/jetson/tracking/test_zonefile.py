"""One camera's lines and zones replaced in the file of `--zones`."""

import os
import stat

import pytest

from jetson.errors import BadInput
from jetson.tracking import zonefile, zones

FILE = """# what is counted
line 0 door 0.50,0.00 0.50,1.00   # the way in
polygon 1 queue 0.1,0.1 0.5,0.1 0.5,0.9
pixels 1000x500
polygon 0 desk 100,100 500,100 500,400
"""


def zone(name, *points, kind="zone"):
    return {"kind": kind, "name": name, "points": [list(point) for point in points]}


DOOR = zone("door", (0.5, 0), (0.5, 1), kind="line")
DESK = zone("desk", (0.1, 0.2), (0.5, 0.2), (0.5, 0.8))
NEW = zone("new", (0.2, 0.2), (0.8, 0.2), (0.5, 0.8))


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "zones"
    made.write_text(FILE)
    return str(made)


def text(path):
    with open(path, newline="") as file:
        return file.read()


def test_what_has_not_changed_keeps_every_byte(path):
    zonefile.save(path, 0, [DESK, DOOR], 2)
    assert text(path) == FILE


def test_other_cameras_comments_and_pixels_stay(path):
    os.chmod(path, 0o640)
    zonefile.save(path, 0, [zone("door", (0.25, 0), (0.25, 1), kind="line"), NEW], 2)
    lines = text(path).splitlines()
    assert lines[:3] == [
        "# what is counted",
        "line 0 door 0.2500,0.0000 0.2500,1.0000 # the way in",
        "polygon 1 queue 0.1,0.1 0.5,0.1 0.5,0.9",
    ]
    assert lines[3:] == ["pixels 1000x500", "polygon 0 new 200.0,100.0 800.0,100.0 500.0,400.0"]
    found = {one.name: one.points.tolist() for one in zones.load(path, 2)}
    assert found["new"] == NEW["points"] and found["door"] == [[0.25, 0], [0.25, 1]]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_the_last_one_can_be_removed(path):
    zonefile.save(path, 0, [], 2)
    assert [one.name for one in zones.load(path, 2)] == ["queue"]


@pytest.mark.parametrize("before", ["", "# none yet", "line 1 a 0,0 1,1\r\n# end\r\n"])
def test_into_any_file(path, before):
    with open(path, "w", newline="") as file:
        file.write(before)
    zonefile.save(path, 0, [DOOR], 2)
    after = text(path)
    assert after.startswith(before) and after.endswith("\n")
    assert ("\r\n" in before) == ("\r\n" in after) and "\r\r" not in after
    assert "door" in [one.name for one in zones.load(path, 2)]


@pytest.mark.parametrize(
    "wanted",
    [
        [zone("two words", (0, 0), (1, 0), (1, 1))],
        [zone("a\npolygon 1 b", (0, 0), (1, 0), (1, 1))],
        [zone("a", (0, 0), (1, 1), (1, 0), (0, 1))],  # crosses itself
        [zone("a", (0, 0), (1, 1))],
        [DOOR, zone("door", (0, 0), (1, 0), (1, 1))],
        [zone(f"z{i}", (0, 0), (1, 0), (1, 1)) for i in range(zones.MOST + 1)],
    ],
)
def test_what_is_no_use_changes_nothing(path, wanted):
    with pytest.raises(BadInput):
        zonefile.save(path, 0, wanted, 2)
    assert text(path) == FILE and os.listdir(os.path.dirname(path)) == ["zones"]


def test_a_link_leads_to_its_file(path, tmp_path):
    link = str(tmp_path / "link")
    os.symlink(path, link)
    zonefile.save(link, 0, [DOOR], 2)
    assert os.path.islink(link) and "desk" not in text(path)
