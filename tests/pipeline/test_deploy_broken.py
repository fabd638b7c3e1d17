"""Deployments that are killed or cut off at any moment: `current` stays whole, no half bundle, a rerun ends well."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
from sshd import missing
from test_deploy import Device

from jetson import files, install, manifest

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed here: {missing()}")
SEED = 20


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    found = Device(tmp_path_factory.mktemp("device"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def bundles(tiny_bundle, tmp_path_factory):
    """Two bundles with their digests; with some bytes more, so that sending them takes a moment."""
    found = []
    for name in ("one", "two"):
        path = str(tmp_path_factory.mktemp("bundles") / name)
        shutil.copytree(tiny_bundle, path)
        document = files.read_json(os.path.join(path, "manifest.json"))
        document["name"] = name
        files.write_bytes(os.path.join(path, "ballast.bin"), random.Random(name).randbytes(3 << 20))
        document["files"]["ballast.bin"] = 3 << 20
        files.write_json(os.path.join(path, "manifest.json"), document)
        manifest.write_sums(path)
        found.append((path, files.sha256(os.path.join(path, "SHA256SUMS"))))
    return found


def _start(device, folder):
    return subprocess.Popen([sys.executable, "-m", "pipeline.cli", "deploy", *device.options, folder, "device"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _device_processes(device):
    """Processes of ours on the device: their command line or folder names the device's home."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read()
            if device.sshd.home.encode() in environment and b"serve" not in words and b"sshd" not in words[0]:
                found.append(int(pid))
    return found


def _whole(device, digests):
    """What must hold after any break: `current` is a whole known bundle, and so is everything under a digest."""
    current = device.store.link("current")
    assert current in digests
    assert install.check(os.path.join(device.state, "current")) == current
    for digest in device.store.digests():
        assert install.check(device.store.bundle(digest), digest) == digest


def _rerun(device, bundles, number):
    folder, digest = bundles[number % 2]
    done = device.deploy(folder, "device")
    assert done.returncode == 0, done.stderr
    assert device.store.link("current") == digest
    assert device.store.read("trial.json") is None
    assert device.running()


def _phase(text):
    return max((int(part.split("/")[0]) for part in text.split("[")[1:] if part[:1].isdigit()), default=0)


def _kills(device, bundles, count):
    """Kill by turns the workstation's process and the device's, at moments spread over the whole duration."""
    digests = {digest for _, digest in bundles}
    started = time.monotonic()
    _rerun(device, bundles, 0)
    lasts_s = time.monotonic() - started
    moments = random.Random(SEED)
    phases = []
    for number in range(count):
        # The other bundle each time, and pruned, so that every phase has its work.
        device.deploy("--prune-old", "0", "device")
        with suppress(OSError):
            os.unlink(os.path.join(device.state, "previous"))
        process = _start(device, bundles[(number + 1) % 2][0])
        time.sleep(lasts_s * (number + moments.random()) / count)
        victims = _device_processes(device) if number % 2 else []
        for pid in victims:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not victims:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
        _, text = process.communicate()
        phases.append(_phase(text))
        time.sleep(0.3)
        _whole(device, digests)
        _rerun(device, bundles, number + 1)
        _whole(device, digests)
    return phases


def test_a_few_kills(device, bundles):
    phases = _kills(device, bundles, 2)
    assert len(phases) == 2


@pytest.mark.full
def test_sixty_kills(device, bundles):
    phases = _kills(device, bundles, 60)
    print("killed in phase:", {phase: phases.count(phase) for phase in sorted(set(phases))})
    assert len(phases) == 60


class Link:
    """A network namespace as the device's host, behind a slow link that loses packets and can be cut."""

    def __init__(self, rate="30mbit", loss_percent=1):
        self.name = f"jm{os.getpid() % 10000}"
        self.here, self.there = self.name + "a", self.name + "b"
        # A /30 out of the block for benchmarks (RFC 2544), chosen by the process's number.
        base, last = f"198.18.{os.getpid() // 63 % 256}", os.getpid() % 63 * 4
        self.address = f"{base}.{last + 2}"
        self._do("ip", "netns", "add", self.name)
        self._do("ip", "link", "add", self.here, "type", "veth", "peer", "name", self.there, "netns", self.name)
        self._do("ip", "addr", "add", f"{base}.{last + 1}/30", "dev", self.here)
        self._do("ip", "link", "set", self.here, "up")
        for words in (("addr", "add", f"{self.address}/30", "dev", self.there), ("link", "set", self.there, "up"),
                      ("link", "set", "lo", "up")):
            self._do("ip", "-n", self.name, *words)
        self._do("tc", "qdisc", "add", "dev", self.here, "root", "tbf", "rate", rate, "burst", "64kb",
                 "latency", "300ms")
        rules = (f"add table inet t; add chain inet t c {{ type filter hook input priority 0; }}; "
                 f"add rule inet t c iifname {self.there} numgen random mod 100 < {loss_percent} drop")
        self._do("ip", "netns", "exec", self.name, "nft", rules)
        self.prefix = ["ip", "netns", "exec", self.name]

    @staticmethod
    def _do(*words):
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")

    def cut(self):
        self._do("ip", "link", "set", self.here, "down")

    def mend(self):
        self._do("ip", "link", "set", self.here, "up")

    def close(self):
        for words in (("ip", "link", "del", self.here), ("ip", "netns", "del", self.name)):
            with suppress(RuntimeError):
                self._do(*words)


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """A device in a network namespace of its own; `far.link` can be cut."""
    absent = [name for name in ("ip", "tc", "nft") if shutil.which(name) is None]
    if absent or os.getuid():
        pytest.skip("needs root and " + ", ".join(absent or ["network namespaces"]))
    try:
        link = Link()
    except RuntimeError as error:
        pytest.skip(f"no network namespaces here: {error}")
    try:
        found = Device(tmp_path_factory.mktemp("far"), address=link.address, prefix=link.prefix)
        found.link = link
        at = found.options.index("--ssh") + 1
        found.options[at] += " -o ServerAliveInterval=1 -o ServerAliveCountMax=2 -o ConnectTimeout=2"
        yield found
        found.close()
    finally:
        link.close()


def _cuts(far, bundles, count):
    """Cut the link at moments spread over a deployment: every second time for good, else for some seconds."""
    digests = {digest for _, digest in bundles}
    started = time.monotonic()
    _rerun(far, bundles, 0)
    lasts_s = time.monotonic() - started
    moments = random.Random(SEED)
    codes = []
    for number in range(count):
        far.deploy("--prune-old", "0", "device")
        with suppress(OSError):
            os.unlink(os.path.join(far.state, "previous"))
        process = _start(far, bundles[(number + 1) % 2][0])
        timer = threading.Timer(lasts_s * (number + moments.random()) / count, far.link.cut)
        timer.start()
        timer.join()
        if number % 2:
            time.sleep(3)
            far.link.mend()
        _, text = process.communicate(timeout=300)
        far.link.mend()
        codes.append(process.returncode)
        assert process.returncode in (0, 1, 3), text
        assert "Traceback" not in text
        if process.returncode:
            assert "do: " in text
        time.sleep(0.5)
        _whole(far, digests)
        _rerun(far, bundles, number + 1)
        _whole(far, digests)
    return codes


def test_a_cut_link(far, bundles):
    assert len(_cuts(far, bundles, 1)) == 1


@pytest.mark.full
def test_twenty_cut_links(far, bundles):
    codes = _cuts(far, bundles, 20)
    print("exit codes of the cut deployments:", {code: codes.count(code) for code in sorted(set(codes))})
    assert any(codes), "no cut was felt"
