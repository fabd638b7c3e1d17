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

import nano
import pytest
from sshd import missing
from test_deploy import Device

from jetson import files
from jetson.bundle import manifest
from jetson.install import installer as install

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=f"not installed here: {missing()}")]
SEED = 20
PHASES = 9


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


class Run:
    """A deployment under way; `phase` is the number of the stage that it has reached, `text` what it said."""

    def __init__(self, device, folder, *words):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "deploy", *device.options, *words, folder, "device"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.text, self.phase, self.began = "", 0, {}
        self.changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self.changed:
                self.text += line
                if line.startswith("["):
                    self.phase = int(line[1:].split("/")[0])
                    self.began[self.phase] = time.monotonic()
                self.changed.notify_all()
        with self.changed:
            self.began[PHASES + 1] = time.monotonic()
            self.changed.notify_all()

    def wait_for(self, phase):
        """Until it has come to `phase`, or has ended."""
        with self.changed:
            self.changed.wait_for(lambda: max(self.began, default=0) >= phase, 300)

    def kill(self):
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self, timeout=300):
        """Its exit code, once it has ended."""
        code = self.process.wait(timeout)
        self._reader.join(30)
        return code


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
    done = device.deploy(folder, "device", "--no-bench")
    assert done.returncode == 0, done.stderr
    assert device.store.link("current") == digest
    assert device.store.read("trial.json") is None
    assert device.running()


def _other_bundle_is_new(device):
    """Away with what earlier deployments left, so that sending and installing have their work again."""
    device.deploy("--prune-old", "0", "device")
    device.sshd.run(f"rm -f {device.state_there}/previous")


def test_a_few_kills(device, bundles):
    """The workstation's process, then the device's, while the bundle is sent and while it is switched to."""
    digests = {digest for _, digest in bundles}
    _rerun(device, bundles, 0)
    for number, phase in enumerate((5, 9)):
        _other_bundle_is_new(device)
        run = Run(device, bundles[(number + 1) % 2][0], "--no-bench")
        run.wait_for(phase)
        victims = _device_processes(device) if number else []
        for pid in victims:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not victims:
            run.kill()
        run.end()
        assert "Traceback" not in run.text
        _whole(device, digests)
        _rerun(device, bundles, number + 1)
        _whole(device, digests)


def _engines_are_whole(device):
    """No plan without its sidecar, and the sidecar's hash is the plan's."""
    folder = os.path.join(device.state, "engines")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.endswith(".plan") and not name.startswith("."):
            path = os.path.join(folder, name)
            assert files.read_json(path[: -len("plan")] + "json")["plan"]["sha256"] == files.sha256(path)


# What a phase needs to have anything to do again.
_WORK = {3: "rm -rf /opt/jetmask/[0-9]*", 4: "rm -rf /opt/docker/images", 6: "rm -rf /var/lib/jetmask/engines"}


def _kill_in(nano, bundles, number, phase, on_device, wait_s):
    """Deploy the other bundle and kill it `wait_s` seconds after it came to `phase`; (phase, side) that was hit."""
    _other_bundle_is_new(nano)
    if phase in _WORK:
        nano.sshd.run(_WORK[phase])
    run = Run(nano, bundles[(number + 1) % 2][0], *([] if phase == 8 else ["--no-bench"]))
    run.wait_for(phase)
    time.sleep(wait_s)
    victims = _device_processes(nano) if on_device else []
    hit, over = run.phase, run.process.poll() is not None
    for pid in victims:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    if not victims:
        run.kill()
    code = run.end()
    assert "Traceback" not in run.text and (code <= 0 or "do: " in run.text), run.text
    return ("over" if over else hit), ("device" if victims else "workstation")


@pytest.mark.full
def test_sixty_kills(bundles, tmp_path_factory):
    """On the stand-in Jetson every phase has its work; each is hit at least twice, from both sides."""
    if nano.why_not():
        pytest.skip(f"not here: {nano.why_not()}")
    jetson = nano.Nano(tmp_path_factory.mktemp("nano"))
    try:
        digests = {digest for _, digest in bundles}
        run = Run(jetson, bundles[0][0])
        assert run.end() == 0, run.text
        lasts_s = {phase: run.began[phase + 1] - run.began[phase] for phase in range(1, PHASES + 1)}
        print("a deployment's phases, s:", {phase: round(seconds, 1) for phase, seconds in lasts_s.items()})
        moments = random.Random(SEED)
        hits = []

        def strike(phase, on_device, share):
            number = len(hits)
            hits.append(_kill_in(jetson, bundles, number, phase, on_device, lasts_s[phase] * share))
            time.sleep(0.3)
            for _ in range(2):
                _whole(jetson, digests)
                _engines_are_whole(jetson)
                if jetson.store.link("current") != bundles[(number + 1) % 2][1] or jetson.store.read("trial.json"):
                    _rerun(jetson, bundles, number + 1)
            assert jetson.running()

        for number in range(60):
            strike(1 + number // 2 % PHASES, number % 2 == 1, 0.9 * moments.random())
        for phase in range(1, PHASES + 1):  # a short phase is easily missed; in the first nothing runs on the device
            while len(hits) < 80 and (
                sum(hit == phase for hit, _ in hits) < 2 or (phase > 1 and (phase, "device") not in hits)
            ):
                strike(phase, phase > 1, 0.5 * moments.random())
        counts = {
            phase: {side: hits.count((phase, side)) for side in ("workstation", "device")}
            for phase in [*range(1, PHASES + 1), "over"]
        }
        print(len(hits), "kills:", counts)
        assert len(hits) >= 60 and all(sum(counts[phase].values()) >= 2 for phase in range(1, PHASES + 1)), counts
        assert all(counts[phase]["device"] for phase in range(2, PHASES + 1)), counts
    finally:
        jetson.close()


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
        for words in (
            ("addr", "add", f"{self.address}/30", "dev", self.there),
            ("link", "set", self.there, "up"),
            ("link", "set", "lo", "up"),
        ):
            self._do("ip", "-n", self.name, *words)
        self._do(
            "tc", "qdisc", "add", "dev", self.here, "root", "tbf", "rate", rate, "burst", "64kb", "latency", "300ms"
        )
        rules = (
            f"add table inet t; add chain inet t c {{ type filter hook input priority 0; }}; "
            f"add rule inet t c iifname {self.there} numgen random mod 100 < {loss_percent} drop"
        )
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
        _other_bundle_is_new(far)
        run = Run(far, bundles[(number + 1) % 2][0], "--no-bench")
        timer = threading.Timer(lasts_s * (number + moments.random()) / count, far.link.cut)
        timer.start()
        timer.join()
        if number % 2:
            time.sleep(3)
            far.link.mend()
        codes.append(run.end())
        far.link.mend()
        assert codes[-1] in (0, 1, 3), run.text
        assert "Traceback" not in run.text
        if codes[-1]:
            assert "do: " in run.text
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
