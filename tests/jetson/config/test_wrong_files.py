"""Files as people write them by mistake: each is refused with its line and key, none is read as something else."""

import pytest

from jetson.config import settings
from jetson.errors import BadInput

DOOR = "cameras:\n  door:\n    source: synthetic://\n"
FRIGATE = """\
mqtt:
  host: 10.0.0.5
cameras:
  front:
    ffmpeg:
      inputs:
        - path: rtsp://user:secret@10.0.0.3/live
record:
  enabled: true
"""
WRONG = [
    ("tabs", "cameras:\n\tdoor:\n", 2, "", None),
    ("a camera twice", DOOR + "  door:\n    source: synthetic://\n", 4, "", None),
    ("a unit", DOOR + "    fps: 10fps\n", 4, "cameras.door.fps", None),
    ("days with a unit", DOOR + "events:\n  days: 30d\n", 5, "events.days", None),
    ("megabytes with a unit", DOOR + "events:\n  mb: 200MB\n", 5, "events.mb", None),
    ("percent", DOOR + "    score: 50%\n", 4, "cameras.door.score", None),
    ("a product", DOOR + "    size: 1280*720\n", 4, "cameras.door.size", None),
    ("pixels", DOOR + "    roi: [0, 0, 640, 480]\n", 4, "cameras.door.roi.2", None),
    ("yes", DOOR + "    blur: yes\n", 4, "cameras.door.blur", None),
    ("a quarter of a turn", DOOR + "    rotate: 45\n", 4, "cameras.door.rotate", None),
    ("two corners", DOOR + "    zones:\n      q: [[0, 0], [1, 1]]\n", 5, "cameras.door.zones.q", None),
    ("no blank", "cameras:\n  door:\n    source:synthetic://\n", 2, "cameras.door", "a blank after the colon"),
    ("no number", DOOR + "page:\n  port: 80a\n", 5, "page.port", None),
    ("negative", DOOR + "    fps: -3\n", 4, "cameras.door.fps", None),
    ("a date", DOOR + "events:\n  days: 2026-12-01\n", 5, "events.days", None),
    ("a wrong goal", DOOR + "engine:\n  governor: fps>10\n", 5, "engine.governor", None),
    ("a number for a name", DOOR + "engine:\n  variant: 7\n", 5, "engine.variant", None),
    ("a list of cameras", "cameras:\n  - source: synthetic://\n", 1, "cameras", None),
    ("no cameras", "cameras:\n", 1, "cameras", None),
    ("one letter too few", "camera:\n  door:\n", 1, "camera", "did you mean cameras?"),
    ("a capital", "Cameras:\n  door:\n", 1, "Cameras", "did you mean cameras?"),
    ("the indent", "cameras:\n  door:\n   source: synthetic://\n    fps: 3\n", 4, "", None),
    ("no such anchor", "cameras: *nope\n", 1, "", None),
    ("an alias of itself", "cameras: &a\n  door: *a\n", 1, "", None),
    ("a merge of a list", "cameras:\n  door:\n    <<: [1]\n    source: synthetic://\n", 3, "", None),
    ("two documents", DOOR + "---\n" + DOOR, 4, "", None),
    ("a program", "cameras: !!python/object/apply:os.system [id]\n", 1, "cameras", None),
    ("deep", "a: " + "[" * 5000, 1, "", None),
    ("long", DOOR + "#" * 300000, None, "", None),
    ("a byte of Latin-1", DOOR.encode() + "  f\xfcr: x\n".encode("latin-1"), 4, "", None),
    ("UTF-16", DOOR.encode("utf-16"), 1, "", None),
    ("a control character", "cameras:\n  \x1b[31mdoor: x\n", 2, "", None),
    ("empty", "", 1, "", None),
    ("one word", "hello", 1, "", None),
    ("Frigate's", FRIGATE, 8, "record", None),
]


@pytest.mark.parametrize("text, line, key, remedy", [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_file_is_refused_with_line_and_key(tmp_path, text, line, key, remedy):
    pytest.importorskip("yaml")
    path = tmp_path / "jetmask.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput) as told:
        settings.read(str(path))
    where = str(path) + (", line {}".format(line) if line else "") + (", " + key if key else "")
    assert told.value.where == where and told.value.what
    assert remedy is None or told.value.remedy == remedy
    assert "secret" not in str(told.value)
