"""Rollouts over several devices: real sshds, the device's Python, real runners; failures, kills, the way back."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import test_deploy
from sshd import missing
from test_deploy import Device

from jetson import files
from pipeline.deploy import board as fleet_board
from pipeline.deploy import fleet, rollout
from pipeline.deploy import journal as rollout_journal
from pipeline.deploy.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=f"not installed here: {missing()}")]
bundles = test_deploy.bundles
QUIET = "--tradeoff off"


class Devices:
    """`count` stand-in devices behind one ssh configuration, d01 and so on, and the fleet file that names them."""

    def __init__(self, folder, count):
        self.folder = folder
        self.names = [f"d{number:02d}" for number in range(1, count + 1)]
        self.devices = {name: Device(folder / name) for name in self.names}
        self.config = str(folder / "ssh_config")
        with open(self.config, "w") as file:
            for name, device in self.devices.items():
                with open(device.sshd.config) as own:
                    file.write(own.read().replace("Host device", f"Host {name}"))
        self.file = str(folder / "fleet.yaml")
        self.write()

    def write(self, **wrong):
        """The fleet file; `wrong`: {name: {key: value}} beside the device's own options."""
        document = {
            "defaults": {
                "ssh": f"-F {self.config}",
                "no-container": True,
                "service": "process",
                "use-python": True,
                "python": test_deploy.DEVICE_PYTHON,
                "source": "synthetic://?size=160x120&fps=1",
                "serve-args": QUIET,
                "watch": 0.5,
                "start": 90,
                "no-bench": True,
                "retries": 0,
            },
            "hosts": [],
        }
        for name, device in self.devices.items():
            document["hosts"].append(
                {
                    "name": name,
                    "root": os.path.join(device.sshd.home, "opt"),
                    "state": device.state,
                    "port": device.port,
                    **wrong.get(name, {}),
                }
            )
        with open(self.file, "w") as file:
            json.dump(document, file)  # YAML has JSON in it

    def command(self, *words):
        return [sys.executable, "-m", "pipeline.cli", "deploy", *words, "--fleet", self.file]

    def deploy(self, *words):
        """Run it to its end; the finished process."""
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=3000)

    def start(self, *words):
        """Begin it: (process, its lines on stderr as they come)."""
        # Who runs the tests in the background has them ignore Ctrl-C, and a child inherits that.
        process = subprocess.Popen(
            self.command(*words),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        lines = []

        def read():
            for line in process.stderr:
                lines.append(line)

        threading.Thread(target=read, daemon=True).start()
        return process, lines

    def run_what(self):
        """{name: the digest that is current there}, of devices with no switch under way."""
        for device in self.devices.values():
            assert device.store.read("trial.json") is None
        return {name: device.store.link("current") for name, device in self.devices.items()}

    def runners(self):
        """{name: the runner's process}."""
        return {
            name: files.read_json(os.path.join(device.state, "service.pid")) for name, device in self.devices.items()
        }

    def close(self):
        for device in self.devices.values():
            device.close()


def _results(done):
    return {row["host"]: row["result"] for row in json.loads(done.stdout)["hosts"]}


def _wait_for(check, seconds=1500):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def _life_of_a_fleet(fleet, bundles, bad, at_once):
    """First install, a failing update, the killed and repeated update, the way back; `bad`: the device that fails."""
    (one, one_digest), (two, two_digest) = bundles["one"], bundles["two"]
    names, place = fleet.names, fleet.names.index(bad)
    options = ["--at-once", str(at_once), "--canary-watch", "0.5"]
    began = time.monotonic()
    done = fleet.deploy(one, *options, "--json")
    assert done.returncode == 0, done.stderr
    assert set(_results(done).values()) == {"updated"} and set(fleet.run_what().values()) == {one_digest}
    print(f"first install of {len(names)} devices: {time.monotonic() - began:.0f} s")

    # One cannot start the new service: whoever was switched goes back, whoever was not begun stays as it was.
    before = fleet.runners()
    fleet.write(**{bad: {"serve-args": QUIET + " --no-such-option"}})
    began = time.monotonic()
    done = fleet.deploy(two, *options)
    print(f"a failing update: {time.monotonic() - began:.0f} s\n{done.stdout}")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert set(fleet.run_what().values()) == {one_digest}
    results = {line.split()[0]: line for line in done.stdout.splitlines()[1 : len(names) + 1]}
    assert "failed" in results[bad] and "unknown option --no-such-option" in done.stderr
    assert all("rolled back" in results[name] for name in names[: max(1, place - at_once)])
    assert all("untouched" in results[name] for name in names[place + 2 * at_once :])
    assert {name for name in names if "untouched" in results[name]} == {
        name for name, process in fleet.runners().items() if process == before[name]
    }
    for device in fleet.devices.values():
        assert device.running()

    # kill -9 in the middle, then the same command again: those that had been switched are not started again.
    fleet.write()
    process, lines = fleet.start(two, *options)
    _wait_for(lambda: sum(": updated" in line for line in lines) > len(names) // 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    switched = {line.split(":")[0] for line in lines if ": updated" in line}
    done = fleet.deploy(one, *options)
    assert done.returncode == 2 and "is not finished" in done.stderr and "--rollback" in done.stderr
    running = fleet.runners()
    done = fleet.deploy(two, *options, "--json")
    assert done.returncode == 0 and "is resumed" in done.stderr, done.stderr
    assert set(fleet.run_what().values()) == {two_digest}
    assert set(_results(done).values()) == {"updated"}
    assert all(fleet.runners()[name] == running[name] for name in switched)
    for device in fleet.devices.values():
        assert device.running()

    done = fleet.deploy("--status")
    assert done.returncode == 0 and done.stdout.count("healthy") >= len(names), done.stdout + done.stderr
    print(done.stdout)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    fleet = Devices(tmp_path_factory.mktemp("four"), 4)
    yield fleet
    fleet.close()


def test_four_devices(four, bundles):
    _life_of_a_fleet(four, bundles, "d03", 2)
    # Killed while it goes back: the next start goes on going back, whatever it was asked for.
    process, lines = four.start("--rollback", "--at-once", "1")
    _wait_for(lambda: any(": rolled back" in line for line in lines))
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = four.deploy(bundles["two"][0], "--json")
    assert "rollback is resumed" in done.stderr and json.loads(done.stdout)["state"] == "undone", done.stderr
    assert done.returncode == 1 and set(four.run_what().values()) == {bundles["one"][1]}
    done = four.deploy("--rollback")
    assert done.returncode == 2 and "no rollout of this fleet" in done.stderr


def test_an_unreachable_device_is_a_failure_unless_it_may_be_skipped(four, bundles, tmp_path):
    lost = four.devices["d01"].sshd
    lost.close()
    try:
        before = four.runners()
        page = tmp_path / "fleet.html"
        done = four.deploy("--status", "--json", "--html", str(page))
        text = page.read_text()
        assert "3 of 4 devices healthy" in text and text.count("not reached") == 1 and "disk free" in text
        assert re.search(r'data-name="disk free" class="\w*"><span>\d+ %', text)
        rows = {row["host"]: row for row in json.loads(done.stdout)["hosts"]}
        assert done.returncode == 3 and rows["d01"]["reached"] is False and rows["d02"]["healthy"] is True
        done = four.deploy(bundles["two"][0], "--canary-watch", "0", "--json")
        assert done.returncode == 3 and four.runners() == before, done.stderr
        assert _results(done) == {"d01": "failed", "d02": "untouched", "d03": "untouched", "d04": "untouched"}
        done = four.deploy(bundles["one"][0], "--canary-watch", "0", "--json", "--skip-unreachable")
        # The next one is the canary then; what runs there already is not started again.
        assert done.returncode == 0 and four.runners() == before, done.stderr
        assert _results(done) == {"d01": "skipped", **dict.fromkeys(("d02", "d03", "d04"), "already there")}
        assert "d02: watched" in done.stderr
    finally:
        lost.start()


def test_a_rollout_that_reaches_nobody_is_no_success(tmp_path, tiny_bundle):
    path = tmp_path / "fleet.yaml"
    path.write_text("hosts: [nobody@one.invalid, nobody@two.invalid]\ndefaults: {retries: 0}\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pipeline.cli",
            "deploy",
            tiny_bundle,
            "--fleet",
            str(path),
            "--json",
            "--skip-unreachable",
        ],
        capture_output=True,
        text=True,
    )
    answer = json.loads(done.stdout)
    assert done.returncode == 3 and answer["ok"] is False and answer["state"] == "undone", done.stderr
    assert {row["result"] for row in answer["hosts"]} == {"skipped"}
    assert all("Could not resolve" in row["why"] for row in answer["hosts"])


def test_on_the_way_back_one_device_does_not_keep_the_others(tmp_path, monkeypatch):
    """Whatever goes wrong with the first (here the disk of this machine is full), the second is gone to as well."""
    tried = []

    def no_room(self, host):
        tried.append(host.name)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rollout.Rollout, "_remote", no_room)
    path = str(tmp_path / "fleet.yaml")
    journal = rollout_journal.Journal(path)
    journal.begin("d" * 64, "face")
    hosts = [fleet.Host(name, Settings()) for name in ("a", "b", "c")]
    for host in hosts:
        journal.note(host.name, phase=rollout_journal.UPDATED, was="c" * 64, service=True)
    board = fleet_board.Board([host.name for host in hosts])
    rollout.Rollout(fleet.Fleet(path, None, hosts), journal, board, rollout.Settings(at_once=1)).back()
    assert tried == ["a", "b", "c"] and journal.touched() == tried
    assert {row["result"] for row in board.results()} == {rollout_journal.STUCK}


def test_ctrl_c_stops_before_the_switch(four, bundles):
    before = four.runners()
    process, lines = four.start(bundles["two"][0])
    _wait_for(lambda: any("d01: [3/9]" in line for line in lines))
    process.send_signal(signal.SIGINT)
    assert process.wait(600) == 130
    assert "Traceback" not in "".join(lines) and four.runners() == before
    done = four.deploy("--rollback")
    assert done.returncode == 2 and "no rollout of this fleet has activated" in done.stderr


def test_a_failure_that_is_kept(four, bundles):
    (two, two_digest), one_digest = bundles["two"], bundles["one"][1]
    four.write(d02={"python": "python-of-tomorrow"})
    done = four.deploy(two, "--canary-watch", "0", "--keep", "--at-once", "1")
    four.write()
    assert done.returncode == 4 and "python-of-tomorrow" in done.stderr and "--rollback" in done.stdout, done.stderr
    assert four.run_what() == {"d01": two_digest, **dict.fromkeys(("d02", "d03", "d04"), one_digest)}
    assert [line.split()[1] for line in done.stdout.splitlines()[1:5]] == [
        "updated",
        "failed",
        "untouched",
        "untouched",
    ]
    done = four.deploy("--rollback", "--json")
    assert json.loads(done.stdout)["ok"] is True
    assert done.returncode == 0 and set(four.run_what().values()) == {one_digest}, done.stderr


def test_a_dry_run_touches_nothing(four, bundles):
    before = four.run_what()
    done = four.deploy("--rollback", "--dry-run")
    assert done.returncode == 2 and "--dry-run" in done.stderr and four.run_what() == before
    done = four.deploy(bundles["one"][0], "--dry-run")
    assert done.returncode == 0 and done.stdout.count("--activate") == 4 and "# d04" in done.stdout, done.stderr
    assert four.run_what() == before


@pytest.mark.full
def test_twenty_devices(tmp_path_factory, bundles):
    fleet = Devices(tmp_path_factory.mktemp("twenty"), 20)
    try:
        _life_of_a_fleet(fleet, bundles, "d11", 4)
    finally:
        fleet.close()
