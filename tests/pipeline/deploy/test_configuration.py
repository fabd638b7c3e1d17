"""`deploy --config`: the file is checked here, travels as JSON without passwords, and the runner there goes by it."""

import json
import os

import pytest
from sshd import missing
from test_deploy import Device

from jetson.errors import BadInput, UsageError
from pipeline.deploy import configuration
from pipeline.deploy.settings import Settings

FILE = """\
# ours
cameras:
  front door: {source: "synthetic://?size=160x120&fps=2"}
  yard:
    source: synthetic://?size=160x120&fps=2
    zones: {queue: [[0, 0], [1, 0], [1, 1]]}
  off: {source: csi://0, enabled: false}
engine: {variant: default}
compare: {variants: "off"}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "jetmask.yaml"
    path.write_text(FILE)
    return path


def test_what_the_file_says_stands_in_the_settings(file):
    file.write_text(FILE + "page: {host: 0.0.0.0, port: 9000}\n")
    settings, found = configuration.merged(Settings(config=str(file)))
    assert (settings.host, settings.port, settings.variant) == ("0.0.0.0", 9000, None)
    assert settings.source == ("synthetic://?size=160x120&fps=2",) * 2
    assert json.loads(found.text)["cameras"]["yard"]["zones"] and found.name.endswith(".json")
    assert configuration.merged(Settings(config=str(file), port=1))[0].port == 1
    assert configuration.merged(Settings()) == (Settings(), None)
    # Comments make no other file; a setting does.
    file.write_text("# other words\n" + FILE + "page: {host: 0.0.0.0, port: 9000}\n")
    assert configuration.read(str(file))[0].name == found.name
    file.write_text(FILE)
    assert configuration.read(str(file))[0].name != found.name


def test_what_cannot_be_sent(file):
    with pytest.raises(UsageError):
        configuration.merged(Settings(config=str(file), source=("csi://0",)))
    file.write_text("cameras: {a: {source: 'rtsp://me:secret@10.0.0.2/x'}}\n")
    with pytest.raises(BadInput) as told:
        configuration.merged(Settings(config=str(file)))
    assert "secret" not in str(told.value)
    file.write_text("cameras:\n  a:\n    sauce: csi://0\n")
    with pytest.raises(BadInput) as told:
        configuration.merged(Settings(config=str(file)))
    assert "line 3" in told.value.where


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=f"not installed here: {missing()}")
def test_the_runner_there_goes_by_the_file(file, tiny_bundle, tmp_path):
    device = Device(tmp_path / "device")
    try:
        at = device.options.index("--source")
        del device.options[at : at + 2]
        done = device.deploy(tiny_bundle, "device", "--config", str(file))
        assert done.returncode == 0, done.stderr
        state = device.running()
        assert [camera["name"] for camera in state["cameras"]] == ["front door", "yard"]
        assert state["cameras"][1]["zones"][0]["name"] == "queue"
        (name,) = os.listdir(os.path.join(device.state, "config"))
        assert name == configuration.read(str(file))[0].name
        assert "--source" not in device.store.service()["start"]
    finally:
        device.close()
