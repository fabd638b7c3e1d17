"""Twenty cameras of one file in one real process: renamed, removed, broken, reordered, and the others undisturbed."""

import collections
import json
import os
import signal

import pytest
from serving import Serving, alive, wait_for

NAMES = ["c{:02d}".format(number) for number in range(20)]


class File:
    """A configuration that the test changes."""

    def __init__(self, path, clip):
        self.path = str(path)
        self.clip = clip
        # By file: the device's Python keeps the order of a dict, and so does JSON.
        self.cameras = collections.OrderedDict((name, self.camera()) for name in NAMES)
        self.more = {"compare": {"variants": "off"}, "engine": {"variant": "default"}}

    def camera(self, **more):
        return dict({"source": self.clip, "fps": 2}, **more)

    def write(self):
        with open(self.path + ".part", "w") as file:
            json.dump(dict(self.more, cameras=self.cameras), file)
        os.rename(self.path + ".part", self.path)


class Twenty:
    def __init__(self, bundle, clip, folder):
        self.folder = str(folder)
        self.file = File(folder / "jetmask.json", clip)
        self.file.write()
        self.options = ["--config", self.file.path]
        self.bundle = bundle
        self.env = {"JETMASK_STATE": self.folder}
        self.serving = Serving(bundle, options=self.options, env=self.env)

    def cameras(self):
        return collections.OrderedDict((camera["name"], camera) for camera in self.serving.state()["cameras"])

    def change(self, what):
        """Write the file, and wait until what is told of it says so."""
        self.file.write()
        wait_for(lambda: what in self.serving.log(), what)


@pytest.fixture(scope="module")
def twenty(tiny_bundle, clip, tmp_path_factory):
    made = Twenty(tiny_bundle, clip, tmp_path_factory.mktemp("twenty"))
    yield made
    made.serving.close()


def test_twenty_cameras_renamed_removed_broken_reordered(twenty):
    serving = twenty.serving
    wait_for(lambda: all(camera["persons"]["total"] for camera in twenty.cameras().values()), "persons everywhere")
    before = twenty.cameras()
    assert list(before) == NAMES and [camera["index"] for camera in before.values()] == list(range(20))

    # At once: one is called otherwise, one is gone, one is broken, one has a line, and all stand the other way round.
    cameras = twenty.file.cameras
    cameras["gate"] = twenty.file.camera(was="c03")
    del cameras["c03"], cameras["c05"]
    cameras["c07"] = twenty.file.camera(source="/nowhere/c07.mp4")
    cameras["c09"]["lines"] = {"door": [[0.5, 0], [0.5, 1]]}
    twenty.file.cameras = collections.OrderedDict(reversed(list(cameras.items())))
    twenty.change("c09 has other lines and zones")
    now = twenty.cameras()
    assert list(now) == list(twenty.file.cameras) and len(now) == 19
    assert [camera["index"] for camera in now.values()] == list(range(19))
    undisturbed = [name for name in NAMES if name not in ("c03", "c05", "c07")]
    for name, was in [(name, name) for name in undisturbed] + [("gate", "c03")]:
        assert now[name]["capture_pid"] == before[was]["capture_pid"], name
        assert now[name]["results"] >= before[was]["results"] > 0, (name, now[name], before[was])
        assert now[name]["persons"]["total"] >= before[was]["persons"]["total"] > 0
        assert now[name]["restarts"] == 0 and now[name]["status"] == "live"
    # It was restarted, is lost, and says so; what it counted stays.
    wait_for(lambda: twenty.cameras()["c07"]["status"] == "lost", "the broken one")
    assert twenty.cameras()["c07"]["persons"]["total"] >= before["c07"]["persons"]["total"]
    wait_for(lambda: not alive(before["c05"]["capture_pid"]), "the end of the removed one's capture")
    assert any("c07" in text for text in serving.state()["warnings"])
    assert [line["name"] for line in now["c09"]["lines"]] == ["door"]

    # By name, and by position as before; metrics and events by name.
    for camera, status in (
        ("gate", 200),
        ("c12", 200),
        ("0", 200),
        ("18", 200),
        ("c05", 404),
        ("c03", 404),
        ("19", 404),
    ):
        assert serving.get("/snapshot.jpg?camera=" + camera)[0] == status, camera
    metrics = serving.get("/metrics")[2].decode()
    assert 'jetmask_persons{camera="gate",label="with_mask"}' in metrics and 'camera="c05"' not in metrics
    wait_for(lambda: any(e.get("camera") == "gate" for e in serving.state()["events"]), "an event of the gate")
    (reloaded,) = [event for event in serving.state()["events"] if event["kind"] == "reloaded"][:1] or [{"reason": ""}]
    kept = json.loads(serving.get("/api/v1/events?kind=reloaded")[2].decode())["events"]
    assert "c03 is called gate now" in (reloaded["reason"] or kept[0]["reason"])


def test_a_wrong_file_changes_nothing_and_is_told(twenty):
    serving, before = twenty.serving, twenty.cameras()
    twenty.file.cameras["c11"]["fsp"] = 3
    twenty.change("reload refused")
    state = serving.state()
    assert any("cameras.c11.fsp" in text for text in state["warnings"])
    now = twenty.cameras()
    assert list(now) == list(before)
    for name in set(now) - {"c07"}:  # the broken one is tried again and again
        assert now[name]["capture_pid"] == before[name]["capture_pid"], name
    del twenty.file.cameras["c11"]["fsp"]
    twenty.file.write()
    wait_for(lambda: not any("fsp" in text for text in serving.state()["warnings"]), "the end of the notice")
    assert twenty.cameras()["c11"]["capture_pid"] == before["c11"]["capture_pid"]


def test_what_was_counted_is_there_again_after_an_end(twenty):
    gone, gate = twenty.cameras(), {}
    twenty.file.cameras = collections.OrderedDict(
        [("gate", twenty.file.camera(was="c03")), ("c05", twenty.file.camera()), ("new", twenty.file.camera())]
    )
    twenty.change("c12 is no longer watched")
    gate = twenty.cameras()["gate"]
    assert gate["capture_pid"] == gone["gate"]["capture_pid"]
    # Removed and back: its counts are its own. One that never was begins with none.
    assert twenty.cameras()["c05"]["persons"]["total"] >= 1
    twenty.serving.end(signal.SIGTERM)
    with open(os.path.join(twenty.folder, "counts.json")) as file:
        counts = json.load(file)["cameras"]
    assert sum(counts["gate"]["persons"].values()) >= gate["persons"]["total"] > 0 and "c03" not in counts
    with open(os.path.join(twenty.folder, "drift.json")) as file:
        learnt = json.load(file)["cameras"]
    assert set(learnt) == set(NAMES) - {"c03"} | {"gate", "new"}
    twenty.serving.close()
    twenty.serving = Serving(twenty.bundle, options=twenty.options, env=twenty.env)
    again = twenty.cameras()
    assert again["gate"]["persons"]["total"] >= sum(counts["gate"]["persons"].values())
    assert again["c05"]["persons"]["total"] >= sum(counts["c05"]["persons"].values()) > 0
