"""The systemd unit, booted for real: it serves, comes back after kill -9, and undoes a switch that was cut off."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import debian
import pytest
from sshd import free_port

from jetson import files
from jetson.bundle import manifest
from jetson.errors import UsageError
from jetson.install import installer as install
from jetson.install import service as runner
from jetson.install.store import Store
from jetson.monitor import status
from jetson.web.http import Response
from jetson.web.listener import Door
from pipeline.deploy import layout as device

# What a camera's address or a path may hold, and systemd has a meaning for.
ODD = 'it\'s 5$HOME ${HOME} %h "z" \\n;.txt'
booted = pytest.mark.skipif(
    bool(debian.missing("systemd-nspawn")), reason=f"not here: {debian.missing('systemd-nspawn')}"
)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("source", ["rtsp://me:p%40ss@10.0.0.2/1", "rtsp://me:${a}$b@10.0.0.2/%2f", ODD, ""])
def test_addresses_are_no_words_of_systemd(tmp_path, source):
    layout = device.Layout(str(tmp_path), str(tmp_path / "my state"), "100% sure")
    os.makedirs(layout.code)
    unit = tmp_path / "jetmask.service"
    unit.write_text(device.unit_text(layout, [sys.executable, "serve", source], sys.executable, "root"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert "jetmask" not in done.stdout + done.stderr
    line = next(line for line in unit.read_text().splitlines() if line.startswith("ExecStart="))
    assert "%" not in line.replace("%%", "") and "$" not in line.replace("$$", "")


def test_a_state_folder_with_a_blank_stays_one_word(tmp_path):
    text = device.unit_text(device.Layout("/opt/j", "/var/my state", "1"), ["python3"], "python3", "root")
    keys = [line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")]
    variables = [shlex.split(value) for key, value in keys if key == "Environment"]
    assert ["JETMASK_STATE=/var/my state"] in variables and ["JETMASK_ENGINES=/var/my state/engines"] in variables
    assert [shlex.split(value) for key, value in keys if key == "ReadWritePaths"] == [["/var/my state"]]


@pytest.mark.parametrize("source", ["clip.mp4\nExecStartPost=/bin/x", "a\tb", "\x1b[2J"])
def test_a_newline_in_a_source_is_refused(source):
    with pytest.raises(UsageError):
        device.unit_text(device.Layout("/opt/j", "/var/s", "1"), ["python3", "serve", source], "python3", "root")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("user", ["root", None])
def test_the_unit_notifies_and_is_watched(tmp_path, user):
    layout = device.Layout(str(tmp_path), str(tmp_path / "state"), "code")
    os.makedirs(layout.code)
    text = device.unit_text(layout, [sys.executable, "-m", "jetson", "serve", "b"], sys.executable, user)
    unit = tmp_path / "jetmask.service"
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    # It exits 0 even for a misspelt key: silence is the answer.
    assert "jetmask" not in done.stdout + done.stderr and "@" not in text.split("[Unit]")[1]
    keys = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert keys["Type"] == "notify" and keys["NotifyAccess"] == "main" and keys["WatchdogSec"] == "30"
    assert keys["ExecStartPre"].startswith("-")
    assert keys["TimeoutStartSec"] == "infinity" and keys["Restart"] == "always"
    # A process that its own watchdog ends after 20 s must never come to the start limit.
    each_s = status.STUCK_S + int(keys["RestartSec"])
    assert int(keys["StartLimitIntervalSec"]) / each_s < int(keys["StartLimitBurst"])


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::1"])
def test_health_is_asked_where_the_runner_listens(tmp_path, host):
    door = Door(host, 0, lambda request: Response(200, b"well"), lambda *_: None).start()
    layout = device.Layout(str(tmp_path), str(tmp_path / "state"), "code")
    spec = device.service(layout, "process", ["python3"], ["serve"], door.port, {}, "python3", host=host)
    assert runner.healthy(spec) == (True, "200 well")
    door.stop()


def _wait(check, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError, ValueError):
            found = check()
            if found:
                return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def _ask(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=2) as answer:
        return json.load(answer)


def _health(port):
    return _ask(port, "healthz")


def _main_process(port):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
            if b"serve" in words and str(port).encode() in words and b"nspawn" not in words[0]:
                return int(pid)
    return None


def _child(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return int(file.read().split()[0])


def _inside(init, *words, cwd="/"):
    """What a command in the booted system prints."""
    done = subprocess.run(
        ["nsenter", "-t", str(init), "-a", f"--wdns={cwd}", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return done.stdout


@pytest.fixture(scope="module")
def system(tmp_path_factory, tiny_bundle):
    """A Debian with systemd, jetmask installed as `deploy --no-container` does it, two bundles, a switch cut off."""
    root = str(tmp_path_factory.mktemp("system") / "root")
    debian.add_modules(root, debian.make(root, ("systemd", "systemd-sysv", "dbus")))
    layout = device.Layout("/opt/jetmask", "/var/lib/jetmask", "test")
    os.makedirs(root + layout.code)
    device.write_package(root + layout.code)
    store = Store(root + layout.state)
    good = install.install(store, tiny_bundle)
    other = str(tmp_path_factory.mktemp("other") / "b")
    shutil.copytree(tiny_bundle, other)
    document = files.read_json(os.path.join(other, "manifest.json"))
    document["name"] = "other"
    files.write_json(os.path.join(other, "manifest.json"), document)
    manifest.write_sums(other)
    new = install.install(store, other)
    port = free_port()
    run = ["/usr/local/bin/python3", "-m", "jetson"]
    zones = f"{layout.state}/{ODD}"
    files.write_text(root + zones, "line 0 door 0.5,0 0.5,1\n")
    serve = device.serve_words(
        layout.state + "/current", ["synthetic://?fps=1%30"], "127.0.0.1", port, ["--zones", zones]
    )
    spec = device.service(layout, "systemd", run, serve, port, {"user": "runner"}, run[0])
    with open(root + "/etc/systemd/system/jetmask.service", "w") as file:
        file.write(spec["unit"])
    for words in (["useradd", "-m", "-G", "video", "runner"], ["chown", "-R", "runner:runner", layout.state]):
        subprocess.run(["chroot", root, *words], check=True)
    subprocess.run(["systemctl", f"--root={root}", "enable", "jetmask.service"], check=True, capture_output=True)
    install.activate(store, good)
    store.begin(new, None)  # and here the power goes
    subprocess.run(["chroot", root, "chown", "-R", "runner:runner", layout.state], check=True)
    spec["state"] = layout.state
    return root, store, good, port, spec


@pytest.mark.full
@booted
def test_the_unit_is_spelt_right(system):
    root, *_ = system
    done = subprocess.run(
        [
            "systemd-nspawn",
            "-q",
            "-D",
            root,
            "--register=no",
            "--keep-unit",
            "systemd-analyze",
            "verify",
            "/etc/systemd/system/jetmask.service",
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    # It exits 0 even for a misspelt key: silence is the answer.
    assert [line for line in (done.stdout + done.stderr).splitlines() if "jetmask" in line or "Unknown" in line] == []
    assert done.returncode == 0


@pytest.mark.full
@booted
def test_boot_serve_kill_restart_and_recovery(system):
    root, store, good, port, spec = system
    machine = subprocess.Popen(
        ["systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "-b"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert _wait(lambda: _health(port))["ok"] is True
        assert store.link("current") == good, "the switch that was cut off was not undone at boot"
        assert store.read("trial.json") is None
        first = _wait(lambda: _main_process(port))
        with open(f"/proc/{first}/cmdline", "rb") as file:
            words = file.read().decode().split("\0")
        assert "synthetic://?fps=1%30" in words and f"{spec['state']}/{ODD}" in words
        with open(f"/proc/{first}/status") as file:
            status = dict(line.split(":", 1) for line in file)
        assert status["Uid"].split()[0] != "0" and status["NoNewPrivs"].strip() == "1"
        files.write_text(store.path("trial.json"), "damaged")  # is no reason not to serve
        os.kill(first, signal.SIGKILL)
        second = _wait(lambda: (_main_process(port) or first) != first and _main_process(port))
        assert _wait(lambda: _health(port))["ok"] is True and second != first
        os.unlink(store.path("trial.json"))
        init = _child(machine.pid)
        assert _inside(init, "systemctl", "show", "-p", "WatchdogUSec", "jetmask.service") == "WatchdogUSec=30s\n"
        _inside(init, "systemctl", "reload", "jetmask.service")
        _wait(lambda: _ask(port, "api/state")["reloads"] == 1)
        # A process that stands still (not the loop alone: then it ends by itself) is ended and started again.
        _inside(init, "sed", "-i", "s/^WatchdogSec=.*/WatchdogSec=3/", "/etc/systemd/system/jetmask.service")
        _inside(init, "systemctl", "daemon-reload")
        _inside(init, "systemctl", "restart", "jetmask.service")
        third = _wait(lambda: (_main_process(port) or second) != second and _main_process(port))
        os.kill(third, signal.SIGSTOP)
        fourth = _wait(lambda: (_main_process(port) or third) != third and _main_process(port))
        assert _wait(lambda: _health(port))["ok"] is True and fourth != third
        # What `deploy --no-container` does on the device: start it, watch it; and one that cannot start is told.
        code = (
            "import json, sys; from jetson.install import service; spec = json.loads(sys.argv[1]); "
            "service.stop(spec, spec['state']); service.start(spec, spec['state']); "
            "print(service.watch(spec, spec['state'], 60, 2))"
        )
        assert _inside(init, "/usr/local/bin/python3", "-c", code, json.dumps(spec), cwd=spec["cwd"]) == "None\n"
        broken = dict(spec, unit=spec["unit"].replace(" serve ", " serve /nowhere"))
        assert "ended" in _inside(init, "/usr/local/bin/python3", "-c", code, json.dumps(broken), cwd=spec["cwd"])
    finally:
        machine.send_signal(signal.SIGTERM)  # an orderly power-off
        machine.wait(60)
    with pytest.raises(OSError):
        _health(port)
