"""Zones and names saved in place."""

import os
import stat

import pytest

from jetson.config import document, edit
from jetson.errors import BadInput

pytest.importorskip("yaml")
TRIANGLE = [[0.1, 0.1], [0.9, 0.1], [0.33333333, 0.9]]
TEXT = """\
# the gate
cameras:
  door:   # first
    source: synthetic://
    lines:   # two
      # towards the street
      in: [[0.5, 0], [0.5, 1]]  # stays
      out:
        - [0.1, 0.1]
        - [0.9, 0.9]
    # end of door

  yard: &yard
    source: synthetic://
  back:
    <<: *yard
    fps: 2
page: {port: 0}   # last
"""


def line(name, points=((0.5, 0), (0.5, 1))):
    return {"kind": "line", "name": name, "points": [list(point) for point in points]}


def zone(name, points=TRIANGLE):
    return {"kind": "zone", "name": name, "points": points}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "jetmask.yaml"
    path.write_text(TEXT)
    return path


def test_what_has_not_changed_is_left_byte_for_byte(file):
    edit.save_zones(str(file), "door", [line("in"), line("out", ((0.1, 0.1), (0.9, 0.9)))])
    assert file.read_text() == TEXT


def test_one_moved_one_gone_one_new(file):
    edit.save_zones(str(file), "door", [line("in", ((0.25, 0), (0.5, 1))), zone("queue")])
    assert file.read_text() == TEXT.replace("in: [[0.5, 0], [0.5, 1]]", "in: [[0.25, 0], [0.5, 1]]").replace(
        "      out:\n        - [0.1, 0.1]\n        - [0.9, 0.9]\n",
        "    zones:\n      queue: [[0.1, 0.1], [0.9, 0.1], [0.3333, 0.9]]\n",
    )


def test_none_left(file):
    edit.save_zones(str(file), "door", [])
    assert "lines" not in file.read_text() and "# end of door" in file.read_text()
    assert document.read(str(file)).data["cameras"]["door"] == {"source": "synthetic://"}


def test_of_a_camera_that_takes_over_another_s_values(file):
    with pytest.raises(BadInput):  # `back` would get them too
        edit.save_zones(str(file), "yard", [zone("queue")])
    assert file.read_text() == TEXT
    edit.save_zones(str(file), "back", [zone("queue")])
    data = document.read(str(file)).data["cameras"]
    assert "queue" in data["back"]["zones"] and "zones" not in data["yard"]


@pytest.mark.parametrize(
    "places",
    [
        [zone("queue", TRIANGLE[:2])],
        [zone("queue", [[0, 0], [1, 1], [1, 0], [0, 1]])],
        [zone("queue", [[0, 0], [2, 0], [1, 1]])],
        [zone("queue", [[0, 0], [float("nan"), 0], [1, 1]])],
        [zone("queue", [[0, 0], [True, 0], [1, 1]])],
        [zone("queue", "x")],
        [zone("a: b")],
        [zone("a\nb")],
        [zone(3)],
        [zone("a"), line("a")],
        [{"kind": "polygon", "name": "a", "points": TRIANGLE}],
        [{}],
        [line("a", ((0, 0), (0, 0)))],
        [zone(f"z{n}") for n in range(33)],
    ],
)
def test_what_is_no_place_changes_nothing(file, places):
    with pytest.raises(BadInput):
        edit.save_zones(str(file), "door", places)
    assert file.read_text() == TEXT and os.listdir(str(file.parent)) == ["jetmask.yaml"]


def test_a_camera_that_is_none(file):
    for name in ("gate", "", "page", "0"):
        with pytest.raises(BadInput):
            edit.save_zones(str(file), name, [])


def test_a_link_and_the_mode_stay(file, tmp_path):
    os.chmod(str(file), 0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    edit.save_zones(str(link), "door", [])
    assert link.is_symlink() and stat.S_IMODE(os.stat(str(file)).st_mode) == 0o640
    assert "lines" not in file.read_text()


def test_in_a_json_file_too(tmp_path):
    path = tmp_path / "jetmask.json"
    path.write_text('{"cameras": {"door": {"source": "csi://0", "fps": 5}}}')
    edit.save_zones(str(path), "door", [line("in"), zone("queue")])
    door = document.read(str(path)).data["cameras"]["door"]
    assert list(door) == ["source", "fps", "lines", "zones"] and door["lines"] == {"in": [[0.5, 0], [0.5, 1]]}


def test_a_name_keeps_the_former_one(file):
    edit.save_name(str(file), "door", "front door")
    assert file.read_text() == TEXT.replace("  door:   # first", "  front door:   # first").replace(
        "        - [0.9, 0.9]\n", "        - [0.9, 0.9]\n    was: door\n"
    )
    edit.save_name(str(file), "front door", "gate")
    assert document.read(str(file)).data["cameras"]["gate"]["was"] == "front door"
    for name in ("back", "7", "a/b", "", "x\ny", 'a"b', "a: b"):
        before = file.read_text()
        with pytest.raises(BadInput):
            edit.save_name(str(file), "gate", name)
        assert file.read_text() == before
