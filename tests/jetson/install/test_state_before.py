"""What a device wrote before the layout of 1.0 is opened by what runs there now: nothing is lost in an update.

tests/data/state_before was written by the code before that move: 20 events offered to the spool of which 5 had been
acknowledged, 3 lines of the journal, 400 samples of a camera's brightness, an engine with its sidecar, a service.
"""

import json
import os
import shutil

import pytest

from jetson.capture import source
from jetson.engine import cache
from jetson.install import installer
from jetson.install.store import Store
from jetson.monitor import drift
from jetson.monitor.journal import Journal
from jetson.mqtt.spool import Spool


@pytest.fixture
def state(root, tmp_path):
    folder = str(tmp_path / "state")
    shutil.copytree(os.path.join(root, "tests", "data", "state_before"), folder)
    os.chmod(os.path.join(folder, "engines"), 0o700)  # git keeps no modes of folders
    for name in os.listdir(os.path.join(folder, "engines")):
        os.chmod(os.path.join(folder, "engines", name), 0o600)
    return folder


def test_events_that_waited_for_the_broker_still_wait(state):
    spool = Spool(os.path.join(state, "mqtt"))
    assert spool.published == 5 and not any(spool.dropped.values())
    waiting = [(number, json.loads(payload.decode())["number"]) for number, payload in spool.read(100)]
    assert waiting == [(number, number) for number in range(6, 21)]
    assert spool.offer(b"next") == 21
    spool.close()


def test_the_journal_goes_on_counting(state):
    path = os.path.join(state, "events.jsonl")
    journal = Journal(path)
    assert journal.add("entered", camera=0, person=9)["number"] == 4
    journal.close()
    with open(path) as file:
        assert [json.loads(line)["number"] for line in file] == [1, 2, 3, 4]


def test_what_a_camera_looked_like_is_remembered(state):
    path = os.path.join(state, "drift.json")
    with open(path) as file:
        (before,) = json.load(file)["cameras"].values()
    said = []
    made = drift.open_for(path, 7.0, [source.parse("synthetic://?fps=5")], lambda *_: None, said.append)
    made.stop()
    made.save()
    with open(path) as file:
        (after,) = json.load(file)["cameras"].values()
    assert (
        not said and after["signals"]["brightness"]["reference"][0] == before["signals"]["brightness"]["reference"][0]
    )


def test_an_engine_is_not_built_again(state):
    recipe = cache.Recipe("t-320x192-fp16", "a" * 64, (320, 192), "fp16", None, {}, (), 256 << 20)
    machine = cache.Machine("tensorrt", "8.2.1.8", "NVIDIA Tegra X1", (5, 3))
    assert cache.load(os.path.join(state, "engines"), recipe, machine) == (b"a plan", "")


def test_the_service_and_what_is_installed_are_found(state, tiny_bundle):
    """The bundle lies where it was put; only the link and the folder's name say what runs."""
    digest = installer.root_digest(tiny_bundle)
    os.mkdir(os.path.join(state, "bundles"))
    shutil.copytree(tiny_bundle, os.path.join(state, "bundles", digest))
    os.symlink(os.path.join("bundles", digest), os.path.join(state, "current"))
    store = Store(state)
    assert store.link("current") == digest == installer.check(store.bundle(digest))
    assert store.service() == {
        "kind": "systemd", "name": "jetmask", "unit": "jetmask", "url": "http://127.0.0.1:8080/healthz",
    }  # fmt: skip
