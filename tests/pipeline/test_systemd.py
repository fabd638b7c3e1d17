"""The systemd unit, booted for real: it serves, comes back after kill -9, and undoes a switch that was cut off."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress

import debian
import pytest
from sshd import free_port

from jetson import files, install, manifest
from jetson.store import Store
from pipeline import device

pytestmark = [pytest.mark.full, pytest.mark.skipif(bool(debian.missing("systemd-nspawn")),
                                                   reason=f"not here: {debian.missing('systemd-nspawn')}")]


def _wait(check, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError, ValueError):
            found = check()
            if found:
                return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def _health(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
        return json.load(answer)


def _main_process(port):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
            if b"serve" in words and str(port).encode() in words and b"nspawn" not in words[0]:
                return int(pid)
    return None


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
    serve = device.serve_words(layout.state + "/current", ["synthetic://"], "127.0.0.1", port, [])
    spec = device.service(layout, "systemd", run, serve, port, {"user": "runner"}, run[0])
    with open(root + "/etc/systemd/system/jetmask.service", "w") as file:
        file.write(spec["unit"])
    for words in (["useradd", "-m", "-G", "video", "runner"], ["chown", "-R", "runner:runner", layout.state]):
        subprocess.run(["chroot", root, *words], check=True)
    subprocess.run(["systemctl", f"--root={root}", "enable", "jetmask.service"], check=True, capture_output=True)
    install.activate(store, good)
    store.begin(new, None)  # and here the power goes
    subprocess.run(["chroot", root, "chown", "-R", "runner:runner", layout.state], check=True)
    return root, store, good, port


def test_the_unit_is_spelt_right(system):
    root, *_ = system
    done = subprocess.run(["systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "systemd-analyze",
                           "verify", "/etc/systemd/system/jetmask.service"], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    # It exits 0 even for a misspelt key: silence is the answer.
    assert [line for line in (done.stdout + done.stderr).splitlines() if "jetmask" in line or "Unknown" in line] == []
    assert done.returncode == 0


def test_boot_serve_kill_restart_and_recovery(system):
    root, store, good, port = system
    booted = subprocess.Popen(["systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "-b"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert _wait(lambda: _health(port))["ok"] is True
        assert store.link("current") == good, "the switch that was cut off was not undone at boot"
        assert store.read("trial.json") is None
        first = _wait(lambda: _main_process(port))
        with open(f"/proc/{first}/status") as file:
            status = dict(line.split(":", 1) for line in file)
        assert status["Uid"].split()[0] != "0" and status["NoNewPrivs"].strip() == "1"
        os.kill(first, signal.SIGKILL)
        second = _wait(lambda: (_main_process(port) or first) != first and _main_process(port))
        assert _wait(lambda: _health(port))["ok"] is True and second != first
    finally:
        booted.send_signal(signal.SIGTERM)  # an orderly power-off
        booted.wait(60)
    with pytest.raises(OSError):
        _health(port)
