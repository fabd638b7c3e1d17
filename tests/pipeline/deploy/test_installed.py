"""What is installed on a device, steered over a real ssh: the way back over a link that breaks, health past a proxy."""

import json
import os
import shutil
import subprocess
import sys
import time
import types

import pytest
from sshd import Sshd, free_port, missing

from jetson import cli, files
from jetson.bundle import manifest
from jetson.install import installer as install
from jetson.install import service
from jetson.install.store import Store
from pipeline.cli import VERBS
from pipeline.deploy import board, fleet, installed, rollout
from pipeline.deploy import journal as rollout_journal
from pipeline.deploy.settings import Settings
from pipeline.deploy.ssh import Remote

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed here: {missing()}")
RUNNER = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "data", "standin_runner.py"
)


class Steered:
    """A device with two bundles: `new` runs, on a stand-in runner, and `old` ran before."""

    def __init__(self, folder, tiny_bundle, root):
        self.sshd = Sshd(folder)
        code = os.path.join(self.sshd.home, "opt", "0.1.0-x")
        os.makedirs(code)
        os.symlink(os.path.join(root, "jetson"), os.path.join(code, "jetson"))
        self.store = Store(os.path.join(self.sshd.home, "state"))
        port = free_port()
        self.spec = {
            "kind": "process",
            "name": "jetmask",
            "url": f"http://127.0.0.1:{port}/healthz",
            "start": [sys.executable, RUNNER, self.store.path("current"), str(port)],
        }
        other = str(folder / "other")
        shutil.copytree(tiny_bundle, other)
        document = files.read_json(os.path.join(other, "manifest.json"))
        files.write_json(os.path.join(other, "manifest.json"), dict(document, name="other"))
        manifest.write_sums(other)
        self.old, self.new = (install.install(self.store, bundle) for bundle in (tiny_bundle, other))
        for digest in (self.old, self.new):
            install.activate(self.store, digest, self.spec, 20, 0)

    def command(self, *words):
        return [
            sys.executable,
            "-m",
            "pipeline.cli",
            "deploy",
            *words,
            "device",
            "--ssh",
            f"-F {self.sshd.config}",
            "--root",
            os.path.join(self.sshd.home, "opt"),
            "--state",
            self.store.folder,
            "--python",
            sys.executable,
        ]

    def close(self):
        service.stop(self.spec, self.store.folder)
        self.sshd.close()


@pytest.fixture
def device(tmp_path, tiny_bundle, root):
    found = Steered(tmp_path / "device", tiny_bundle, root)
    yield found
    found.close()


def test_a_rollback_whose_link_breaks_goes_back_once(device, monkeypatch, capsys):
    """Every answer is lost with the link: the first request has done its work when it is heard a second time."""
    once = Remote._once

    def twice(remote, *words):
        once(remote, *words)
        return once(remote, *words)

    monkeypatch.setattr(Remote, "_once", twice)
    words = device.command("--rollback", "--json", "--start", "20", "--watch", "0.2")
    assert cli.main(words[words.index("deploy") :], "jetmask", VERBS) == 0
    assert json.loads(capsys.readouterr().out) == {"current": device.old}
    assert (device.store.link("current"), device.store.link("previous")) == (device.old, device.new)
    assert device.store.read("trial.json") is None and service.healthy(device.spec)[0]


def test_a_rollout_remembers_what_a_killed_switch_would_go_back_to(device, tmp_path, monkeypatch):
    """The bundle on trial was never seen to work: the device must not be brought back to that one."""
    with device.store.lock():
        device.store.begin(device.old, dict(device.spec, code="on trial"))
    settings = Settings(
        root=os.path.join(device.sshd.home, "opt"),
        state=device.store.folder,
        python=sys.executable,
        start=1,
        watch=0,
        ssh=f"-F {device.sshd.config}",
        retries=0,
    )
    host = fleet.Host("device", settings)
    journal = rollout_journal.Journal(str(tmp_path / "fleet.yaml"))
    journal.begin("d" * 64, "face")
    monkeypatch.setattr(rollout.Rollout, "_settled", staticmethod(lambda installed: installed.status()))  # no waiting
    under_way = rollout.Rollout(
        fleet.Fleet("fleet.yaml", None, [host]), journal, board.Board(["device"]), rollout.Settings()
    )
    with under_way._remote(host) as remote:
        deployment = types.SimpleNamespace(remote=remote, installed=installed.Installed(remote, settings), lazy=True)
        under_way._remember(host, deployment)
        kept = json.loads(remote.fetch(f"{settings.state}/incoming/before-{journal.rollout}.json"))
    assert journal.host("device")["was"] == device.new and kept == device.spec and deployment.lazy is False
    assert device.store.read("trial.json") is None


def test_a_device_that_started_anew_in_its_switch_is_not_back_yet(device, tmp_path):
    """At boot the old bundle comes back, in the new one's container or unit: a rollout must put that back as well."""
    with device.store.lock():
        device.store.begin(device.old, dict(device.spec, code="new"))
    service.stop(device.spec, device.store.folder)  # the power goes, and at boot:
    install.recover_at_start(device.store, print)
    settings = Settings(
        root=os.path.join(device.sshd.home, "opt"),
        state=device.store.folder,
        python=sys.executable,
        start=20,
        watch=0,
        ssh=f"-F {device.sshd.config}",
        retries=0,
    )
    host = fleet.Host("device", settings)
    journal = rollout_journal.Journal(str(tmp_path / "fleet.yaml"))
    journal.begin(device.old, "face")
    journal.note("device", phase=rollout_journal.SWITCHING, was=device.new, service=True)
    os.makedirs(device.store.path("incoming"))
    files.write_json(device.store.path("incoming", f"before-{journal.rollout}.json"), device.spec)
    rollout.Rollout(
        fleet.Fleet("fleet.yaml", None, [host]), journal, board.Board(["device"]), rollout.Settings()
    ).back()
    assert journal.host("device")["phase"] == rollout_journal.BACK and device.store.link("current") == device.new
    assert service.healthy(device.spec) == (True, "200 other")


def test_no_way_back_is_told(device):
    device.store.point("previous", None)
    done = subprocess.run(device.command("--rollback"), capture_output=True, text=True)
    assert done.returncode == 2 and "no previous bundle" in done.stderr, done.stderr
    assert device.store.link("current") == device.new


def test_health_is_not_asked_of_a_proxy(device):
    with open(device.sshd.config, "a") as file:
        file.write("  SetEnv http_proxy=http://127.0.0.1:9\n")
    with open(os.path.join(device.sshd.folder, "sshd_config"), "a") as file:
        file.write("AcceptEnv http_proxy\n")
    device.sshd.close()
    device.sshd.start()
    assert device.sshd.run("echo $http_proxy").strip()
    done = subprocess.run(device.command("--status"), capture_output=True, text=True)
    assert done.returncode == 0 and "health: other" in done.stdout, done.stdout + done.stderr


def _sick(device):
    """The same runner answers 503 from now on."""
    service.stop(device.spec, device.store.folder)
    manifest_path = os.path.join(device.store.bundle(device.new), "manifest.json")
    files.write_json(manifest_path, dict(files.read_json(manifest_path), name="sick"))
    service.start(device.spec, device.store.folder)
    end = time.monotonic() + 20
    while service.healthy(device.spec) != (False, "503 sick"):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        _sick,
        lambda device: service.stop(device.spec, device.store.folder),
        lambda device: device.store.remove("service.json"),
    ],
    ids=["sick", "stopped", "no runner set up"],
)
def test_a_script_can_tell_that_a_runner_is_not_healthy(device, tmp_path, spoil):
    """All is shown as ever, and the exit code says it: of one device, as JSON, and of a fleet."""
    assert subprocess.run(device.command("--status"), capture_output=True).returncode == 0
    spoil(device)
    done = subprocess.run(device.command("--status"), capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "", done.stderr
    assert all(words in done.stdout for words in (device.new[:16], device.old[:16], "last activation", "health: no "))
    done = subprocess.run(device.command("--status", "--json"), capture_output=True, text=True)
    answer = json.loads(done.stdout)
    assert done.returncode == 1 and answer["healthy"] is False and answer["current"] == device.new
    assert subprocess.run(device.command("--list"), capture_output=True).returncode == 0, "nobody asked for its health"

    words = device.command("--status", "--json", "--fleet", str(tmp_path / "fleet.yaml"))
    words.remove("device")
    (tmp_path / "fleet.yaml").write_text("hosts: [device]\n")
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1 and not json.loads(done.stdout)["hosts"][0]["healthy"], done.stderr
    # The one that is not reached weighs more, and keeps no other from being shown.
    (tmp_path / "fleet.yaml").write_text("hosts: [nobody@host.invalid, device]\n")
    words.remove("--json")
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 3 and device.new[:16] in done.stdout and "nobody@host.invalid: " in done.stdout
