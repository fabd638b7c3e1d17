"""What a configuration may say, and what is told of one that is wrong."""

import json

import pytest

from jetson.config import settings
from jetson.errors import BadInput

DOOR = {"source": "synthetic://"}
TRIANGLE = [[0, 0], [1, 0], [1, 1]]


def read(tmp_path, data):
    path = tmp_path / "jetmask.json"
    path.write_text(json.dumps(data, indent=1))
    return settings.read(str(path))


def test_all_of_a_camera(tmp_path):
    found = read(
        tmp_path,
        {
            "cameras": {
                "front door (left)": {
                    "source": "rtsp://{door}@10.0.0.2/a",
                    "size": "1280x720",
                    "fps": 5,
                    "rotate": 270,
                    "roi": [0, 0.25, 1, 1],
                    "score": 0.5,
                    "blur": True,
                    "lines": {"in": [[0.5, 0], [0.5, 1]]},
                    "zones": {"queue": TRIANGLE},
                    "was": "door",
                },
                "clip": {"source": "clip.mp4"},
                "off": {"source": "csi://1", "enabled": False},
            },
            "credentials": "secret/credentials",
            "events": {"history": "off"},
            "drift": {"file": "d.json"},
        },
    )
    door, clip = found.cameras
    assert (door.name, door.size, door.fps, door.rotate) == ("front door (left)", (1280, 720), 5, 270)
    assert (door.roi, door.score, door.blur, door.was) == ((0.0, 0.25, 1.0, 1.0), 0.5, True, "door")
    assert [(one.kind, one.name) for one in door.zones] == [("line", "in"), ("polygon", "queue")]
    assert clip.source == str(tmp_path / "clip.mp4") and not found.warnings
    assert found.credentials == str(tmp_path / "secret" / "credentials")
    assert found.events.history == "off" and found.drift.file == str(tmp_path / "d.json")
    assert found.engine.variant == "auto" and found.page.port == 8080


@pytest.mark.parametrize(
    "change, where, remedy",
    [
        (lambda d: d.update(camera={}), "line 7, camera", "did you mean cameras?"),
        (lambda d: d["cameras"]["door"].update(fsp=3), "cameras.door.fsp", "did you mean fps?"),
        (lambda d: d["cameras"]["door"].update(url="x"), "cameras.door.url", "did you mean source?"),
        (lambda d: d["cameras"]["door"].update(rotate=45), "cameras.door.rotate", None),
        (lambda d: d["cameras"]["door"].update(rotate=True), "cameras.door.rotate", None),
        (lambda d: d["cameras"]["door"].update(fps="5"), "cameras.door.fps", None),
        (lambda d: d["cameras"]["door"].update(fps=0), "cameras.door.fps", None),
        (lambda d: d["cameras"]["door"].update(size="1x1"), "cameras.door.size", None),
        (lambda d: d["cameras"]["door"].update(source="gopher://x"), "cameras.door.source", None),
        (lambda d: d["cameras"]["door"].update(source="a=rtsp://x/y"), "cameras.door.source", None),
        (lambda d: d["cameras"]["door"].update(roi=[0, 0, 0.01, 1]), "cameras.door.roi", None),
        (lambda d: d["cameras"]["door"].update(roi=[0, 0, 1]), "cameras.door.roi", None),
        (lambda d: d["cameras"]["door"].update(source="csi://0?flip=2", rotate=90), "cameras.door.rotate", None),
        (lambda d: d["cameras"]["door"].update(zones={"q": TRIANGLE[:2]}), "cameras.door.zones.q", None),
        (
            lambda d: d["cameras"]["door"].update(zones={"q": [[0, 0], [1, 1], [1, 0], [0, 1]]}),
            "cameras.door.zones.q",
            None,
        ),
        (
            lambda d: d["cameras"]["door"].update(zones={"q": TRIANGLE}, lines={"q": TRIANGLE[:2]}),
            "cameras.door.zones.q",
            None,
        ),
        (lambda d: d["cameras"]["door"].update(was="door"), "cameras.door.was", None),
        (lambda d: d["cameras"].update({"7": DOOR}), "cameras.7", None),
        (lambda d: d["cameras"].update({"a/b": DOOR}), "cameras.a/b", None),
        (lambda d: d["cameras"].update({"a": {}}), "cameras.a", None),
        (lambda d: d["cameras"]["door"].update(enabled=False), "cameras", None),
        (lambda d: d.update(engine={"governor": "fps=5"}, compare={"variants": "off"}), "engine.governor", None),
        (lambda d: d.update(mqtt={"prefix": "x"}), "mqtt", None),
        (lambda d: d.update(page={"port": 70000}), "page.port", None),
    ],
)
def test_what_is_wrong_is_told_with_line_and_key(tmp_path, change, where, remedy):
    data = {"cameras": {"door": dict(DOOR)}}
    change(data)
    with pytest.raises(BadInput) as told:
        read(tmp_path, data)
    assert told.value.where.startswith(str(tmp_path)) and told.value.where.endswith(where)
    assert ", line " in told.value.where and (told.value.expected or told.value.remedy)
    assert remedy is None or told.value.remedy == remedy


def test_a_password_in_the_file_is_warned_about_and_never_repeated(tmp_path):
    found = read(tmp_path, {"cameras": {"door": {"source": "rtsp://me:secret@10.0.0.2/a"}}})
    assert len(found.warnings) == 1 and "secret" not in found.warnings[0] and "line 4" in found.warnings[0]
    for source in ("rtsp://me:secret@10.0.0.2:port/a", 'rtsp://me:secret@10.0.0.2/"', ["rtsp://me:secret@h"]):
        with pytest.raises(BadInput) as told:
            read(tmp_path, {"cameras": {"door": {"source": source}}})
        assert "secret" not in str(told.value)


def test_what_is_the_same_and_what_gives_the_same_frames(tmp_path):
    def door(**more):
        return read(tmp_path, {"cameras": {"door": dict(DOOR, **more)}}).cameras[0]

    plain, zoned, slow = door(), door(zones={"q": TRIANGLE}), door(fps=1)
    assert plain.same(door()) and plain.same(door(was="yard")) and zoned.same(door(zones={"q": TRIANGLE}))
    assert not plain.same(zoned) and plain.same_frames(zoned)
    assert not plain.same_frames(slow) and not plain.same_frames(door(rotate=90))
