"""`jetmask deploy` over a real ssh to a real sshd, with the device's Python and the real runner."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from refusals import failed, refused
from sshd import Sshd, free_port, missing

from jetson import cli, files
from jetson.bundle import manifest
from jetson.errors import UsageError
from jetson.install import service
from jetson.install.store import Store
from pipeline.cli import VERBS
from pipeline.deploy import deployment
from pipeline.deploy.ssh import Remote

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed here: {missing()}")
DEVICE_PYTHON = os.environ.get("JETMASK_PYTHON36") or sys.executable


class Device:
    """An sshd with a home, and `jetmask deploy` pointed at it."""

    def __init__(self, folder, **where):
        self.sshd = Sshd(folder, **where)
        self.state = self.state_there = os.path.join(self.sshd.home, "state")
        self.store = Store(self.state)
        self.port = free_port()
        self.options = [
            "--ssh",
            f"-F {self.sshd.config}",
            "--root",
            os.path.join(self.sshd.home, "opt"),
            "--state",
            self.state,
            "--no-container",
            "--service",
            "process",
            "--use-python",
            "--python",
            DEVICE_PYTHON,
            "--source",
            "synthetic://?size=160x120&fps=2",
            "--port",
            str(self.port),
            "--watch",
            "0.5",
            "--start",
            "40",
            "--no-bench",
            "--retries",
            "1",
        ]

    def deploy(self, *words):
        """Run the command; the finished process. `words` come last, so that they win."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "deploy", *self.options, *words],
            capture_output=True,
            text=True,
            timeout=300,
        )

    def running(self):
        """What the live runner says about itself."""
        url = f"http://127.0.0.1:{self.port}/api/state"
        program = f"import urllib.request as u; print(u.urlopen('{url}', timeout=10).read().decode())"
        return json.loads(self.sshd.run(f'{DEVICE_PYTHON} -c "{program}"'))

    def close(self):
        spec = self.store.service()
        if spec is not None:
            service.stop(spec, self.state)
        self.sshd.close()


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    found = Device(tmp_path_factory.mktemp("device"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def bundles(tiny_bundle, tmp_path_factory):
    """{name: (folder, digest)}: two good bundles, and one whose default model sees nothing."""
    folder = tmp_path_factory.mktemp("bundles")
    found = {}
    for name in ("one", "two", "broken"):
        path = str(folder / name)
        shutil.copytree(tiny_bundle, path)
        document = files.read_json(os.path.join(path, "manifest.json"))
        document["name"] = name
        if name == "broken":
            model = os.path.join(path, "models", "t.onnx")
            proto = onnx.load(model)
            for weight in proto.graph.initializer:
                if weight.data_type == onnx.TensorProto.FLOAT:
                    weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros(weight.dims, np.float32), weight.name))
            onnx.save(proto, model)
            for variant in document["variants"]:
                if variant["file"] == "models/t.onnx":
                    variant["sha256"], variant["bytes"] = files.sha256(model), os.path.getsize(model)
            document["files"]["models/t.onnx"] = os.path.getsize(model)
        files.write_json(os.path.join(path, "manifest.json"), document)
        manifest.write_sums(path)
        found[name] = (path, files.sha256(os.path.join(path, "SHA256SUMS")))
    return found


def test_first_install_update_failing_update_rollback_and_rerun(device, bundles):
    (one, one_digest), (two, two_digest), (broken, broken_digest) = (bundles[n] for n in ("one", "two", "broken"))
    done = device.deploy(one, "device", "--digest", one_digest)
    assert done.returncode == 0, done.stderr
    assert device.store.link("current") == one_digest
    assert "[9/9]" in done.stderr and "as expected" in done.stderr
    assert device.running()

    done = device.deploy(two, "device", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["digest"] == two_digest and set(result["times_s"]) > {"self-test", "activate and watch"}
    assert (device.store.link("current"), device.store.link("previous")) == (two_digest, one_digest)

    # Its self-test fails on the device, so nothing that runs is touched.
    before = files.read_json(os.path.join(device.state, "service.pid"))
    done = device.deploy(broken, "device")
    assert done.returncode in (3, 4) and "nothing was activated" in done.stderr and "Traceback" not in done.stderr
    assert device.store.link("current") == two_digest and broken_digest in device.store.digests()
    assert files.read_json(os.path.join(device.state, "service.pid")) == before

    done = device.deploy("--rollback", "device")
    assert done.returncode == 0 and one_digest[:16] in done.stdout, done.stderr
    assert device.store.link("current") == one_digest and device.running()

    done = device.deploy(one, "device")
    assert done.returncode == 0 and "already there" in done.stderr, done.stderr
    assert device.store.link("current") == one_digest
    assert os.listdir(os.path.join(device.state, "incoming")) == ["service.json"]

    done = device.deploy("--status", "device")
    assert done.returncode == 0 and one_digest[:16] in done.stdout and '"ok": true' in done.stdout
    done = device.deploy("--list", "device", "--json")
    # The broken one went with the next deployment that was healthy; what it failed beside stayed.
    assert {entry["digest"] for entry in json.loads(done.stdout)["bundles"]} == {one_digest, two_digest}
    done = device.deploy("--logs", "device")
    assert done.returncode == 0 and "live page" in done.stdout
    words = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "bench",
        "--device",
        "device",
        "--ssh",
        f"-F {device.sshd.config}",
        "--state",
        device.state,
        "--variant",
        "t-320x192-fp32",
        "--runtime",
        "onnxruntime",
        "--seconds",
        "0.2",
    ]
    done = subprocess.run([*words, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["variant"] for row in rows] == ["t-320x192-fp32"] and rows[0]["infer_ms"]["p50"] > 0

    done = device.deploy("--prune-old", "0", "device")
    assert done.returncode == 0 and set(device.store.digests()) == {one_digest, two_digest}


def test_measured_rows_stand_beside_predicted_ones(tiny_bundle):
    from pipeline.deploy import device_bench

    variant = manifest.load(tiny_bundle).variant("t-320x192-fp16")
    row = {
        "variant": variant.name,
        "runtime": "tensorrt",
        "bytes": variant.bytes,
        "macs": variant.macs,
        "infer_ms": {"p50": 1000.0},
    }
    skipped = dict(row, infer_ms=None)
    found = device_bench.beside_predictions({"rows": [row, skipped]}, tiny_bundle, "nano")
    guess = found["rows"][0]["predicted"]
    assert guess["latency_ms"] > 0 and guess["inside"] is False
    assert guess["off_percent"] == pytest.approx(100 * (guess["latency_ms"] / 1000 - 1), abs=0.1)
    assert found["rows"][1]["predicted"] is None
    assert "off by" in device_bench.text_predictions(found)
    with refused(UsageError, where="tiny_bundle", names=["t-320x192-fp16", "--bundle"]):
        device_bench.beside_predictions({"rows": [dict(row, bytes=1)]}, tiny_bundle, "nano")


@pytest.mark.slow
def test_an_update_whose_runner_fails_is_rolled_back_on_the_device(device, bundles):
    """The bundle is good, but the new service is not: it is given an option that does not exist."""
    one, two = bundles["one"], bundles["two"]
    assert device.deploy(one[0], "device").returncode == 0
    done = device.deploy(two[0], "device", "--serve-args=--no-such-option")
    assert done.returncode == 1, done.stderr
    assert "rolled back to bundle " + one[1][:16] in done.stderr and "Traceback" not in done.stderr
    assert "unknown option --no-such-option" in done.stderr
    assert device.store.link("current") == one[1] and device.store.read("trial.json") is None
    assert device.running()


@pytest.mark.slow
def test_health_is_asked_where_the_runner_listens(device, bundles):
    done = device.deploy(bundles["one"][0], "device", "--host", "127.0.0.2")
    assert done.returncode == 0, done.stderr
    done = device.deploy("--status", "device")
    assert f"http://127.0.0.2:{device.port}/healthz" in done.stdout and '"ok": true' in done.stdout


@pytest.mark.slow
def test_every_command_may_be_heard_twice(tmp_path, bundles, monkeypatch, capsys):
    """The answer to the first is lost with the link: the command runs again, and finds its work done."""
    once, (folder, digest) = Remote._once, bundles["one"]

    def twice(remote, *words):
        once(remote, *words)
        return once(remote, *words)

    monkeypatch.setattr(Remote, "_once", twice)
    far = Device(tmp_path / "far")
    try:
        assert cli.main(["deploy", *far.options, folder, "device"], "jetmask", VERBS) == 0, capsys.readouterr().err
        assert far.store.link("current") == digest and far.running()
    finally:
        far.close()


def test_a_self_test_that_does_not_even_start_says_why(device, bundles):
    wrapper = os.path.join(device.sshd.folder, "bin", "wrapped")
    with open(wrapper, "w") as file:
        file.write(
            f"#!/bin/sh\ncase $* in *--self-test*) echo libnvinfer.so.8: cannot open >&2; exit 127;; esac\n"
            f'exec {DEVICE_PYTHON} "$@"\n'
        )
    os.chmod(wrapper, 0o755)
    done = device.deploy(bundles["two"][0], "device", "--python", wrapper)
    assert done.returncode == 1 and "libnvinfer.so.8: cannot open" in done.stderr, done.stderr


def _older_release(device, text):
    """What an earlier version of jetmask left on the device: its package and its venv; their names."""
    root = os.path.join(device.sshd.home, "opt")
    sums = f"{hashlib.sha256(text.encode()).hexdigest()}  jetson/a.py\n"
    code = f"0.0.9-{hashlib.sha256(sums.encode()).hexdigest()[:10]}"
    for path in (f"{root}/{code}/jetson", f"{root}/venv-{code}"):
        os.makedirs(path)
    files.write_text(f"{root}/{code}/SHA256SUMS", sums)
    files.write_text(f"{root}/venv-{code}/pyvenv.cfg", "home = /usr/bin\n")
    os.utime(f"{root}/{code}/jetson", (0, 0))
    return {code, f"venv-{code}"}


@pytest.mark.slow
def test_older_releases_go_once_the_new_one_is_healthy(device, bundles):
    (one, one_digest), (two, two_digest), (broken, broken_digest) = (bundles[n] for n in ("one", "two", "broken"))
    root = os.path.join(device.sshd.home, "opt")
    assert device.deploy(one, "device").returncode == 0
    older = _older_release(device, "older")
    mine = os.path.join(root, "mine")
    os.makedirs(mine, exist_ok=True)
    assert device.deploy(broken, "device").returncode != 0
    done = device.deploy(two, "device", "--serve-args=--no-such-option")
    assert done.returncode == 1 and "older releases" not in done.stderr, done.stderr
    assert older < set(os.listdir(root)) and broken_digest in device.store.digests(), "it was never healthy"

    done = device.deploy(two, "device", "--json")
    assert done.returncode == 0, done.stderr
    # Of packages one more where this one's sources have changed since the deployment before.
    assert re.search(r"  removed of older releases: 1 bundle, \d packages?, 1 venv; \S+ MiB freed\n", done.stderr)
    removed = json.loads(done.stdout)["removed"]
    assert removed["removed"] == [broken_digest] and older <= set(removed["packages"] + removed["venvs"])
    assert set(device.store.digests()) == {one_digest, two_digest} and device.running()
    assert not older & set(os.listdir(root)) and os.path.isdir(mine)
    done = device.deploy("--rollback", "device")
    assert done.returncode == 0 and device.store.link("current") == one_digest, done.stderr

    # Making room fails: a warning, and the runner is the new one all the same.
    wrapper = os.path.join(device.sshd.folder, "bin", "unable")
    with open(wrapper, "w") as file:
        file.write(
            f'#!/bin/sh\ncase $* in *--prune-old*) echo read-only card >&2; exit 1;; esac\nexec {DEVICE_PYTHON} "$@"\n'
        )
    os.chmod(wrapper, 0o755)
    done = device.deploy(two, "device", "--python", wrapper)
    assert done.returncode == 0 and device.store.link("current") == two_digest, done.stderr
    assert "warning: older releases could not be removed: " in done.stderr and "read-only card" in done.stderr
    older = _older_release(device, "older still")
    done = device.deploy("--prune-old", "0", "device")
    assert done.returncode == 0 and "1 venv; " in done.stdout and not older & set(os.listdir(root)), done.stderr


@pytest.mark.slow
def test_a_command_that_hangs_there_is_told_and_the_same_deploy_goes_on(tmp_path, bundles, monkeypatch, capsys):
    """As a card that no longer answers does it: the installer stands still over the bundle that has arrived."""
    far = Device(tmp_path / "far")
    wrapper = os.path.join(far.sshd.folder, "bin", "slow")
    with open(wrapper, "w") as file:
        file.write(
            f"#!/bin/sh\ncase $* in *--stage*) test -e {tmp_path}/mended || sleep 3600;; esac\n"
            f'exec {DEVICE_PYTHON} "$@"\n'
        )
    os.chmod(wrapper, 0o755)
    folder, digest = bundles["one"]
    words = ["deploy", *far.options, "--python", wrapper, folder, "device"]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(deployment, "MINUTES_S", 30)
            assert cli.main(words, "jetmask", VERBS) == 1
        said = capsys.readouterr().err
        assert "[5/9]" in said and "a command on device hangs: it was ended there after 30 s" in said, said
        assert "--stage" in said and "run the same command again" in said and "Traceback" not in said
        assert far.store.link("current") is None
        (tmp_path / "mended").touch()
        assert cli.main(words, "jetmask", VERBS) == 0, capsys.readouterr().err
        assert far.store.link("current") == digest and far.running()
    finally:
        far.close()


def test_a_dry_run_prints_every_command_and_touches_nothing(device, bundles):
    listing = sorted(os.listdir(device.sshd.home))
    done = device.deploy(bundles["one"][0], "device", "--dry-run", "--state", "/nowhere/state", "--root", "/nowhere")
    assert done.returncode == 0, done.stderr
    for word in ("rsync", "--activate", "verify", "mkdir -p", "--prune-old 0 --root /nowhere "):
        assert word in done.stdout
    assert sorted(os.listdir(device.sshd.home)) == listing


def test_a_container_deployment_shows_its_flags_in_a_dry_run(device, bundles):
    words = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "deploy",
        bundles["one"][0],
        "user@nano",
        "--source",
        "csi://0",
        "--source",
        "/dev/video1",
        "--dry-run",
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for flag in (
        "docker build",
        "--runtime nvidia",
        "--cap-drop ALL",
        "--read-only",
        "--group-add video",
        "--device /dev/video1",
        "-v /tmp:/run/host-tmp:ro",
        "BASE=nvcr.io/nvidia/l4t-base:r32.7.1",
    ):
        assert flag in done.stdout
    assert "privileged" not in done.stdout.replace("no-new-privileges", "")


@pytest.mark.parametrize("kind", [[], ["--no-container"]])
def test_int8_anyway_reaches_every_command_on_the_device(bundles, kind):
    words = [sys.executable, "-m", "pipeline.cli", "deploy", bundles["one"][0], "user@nano", "--source", "csi://0"]
    words += ["--dry-run", "--int8-anyway", "--variant", "t-320x192-int8", *kind]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "/bundles/" in line and "install" not in line]
    verbs = [line for line in lines if " build " in line or " bench " in line or "--self-test" in line]
    assert len(verbs) >= 3 and all("JETMASK_INT8_ANYWAY=1" in line for line in verbs)
    assert "JETMASK_INT8_ANYWAY=1" in done.stdout.split("service.json")[1], "the runner opens such an engine too"


@pytest.mark.parametrize(
    "words,code,text",
    [
        ([], 2, "BUNDLE USER@HOST"),
        (["only-a-host"], 2, "BUNDLE USER@HOST"),
        (["BUNDLE", "device", "--keep"], 2, "--fleet only"),
        (["BUNDLE", "device", "--fleet", "/nowhere/fleet.yaml"], 3, "/nowhere/fleet.yaml"),
        (["/nowhere/bundle", "device"], 3, "/nowhere/bundle"),
        (["BUNDLE", "device", "--digest", "0" * 64], 3, "another bundle"),
        (["BUNDLE", "device", "--variant", "t-320x192-fp23"], 2, "did you mean"),
        (["BUNDLE", "-oProxyCommand=true"], 2, "arguments"),
        (["BUNDLE", "nobody@host.invalid"], 3, "cannot reach"),
        (["--status", "nobody@host.invalid"], 3, "check the name"),
        (["--status", "127.0.0.1", "--ssh=-F /dev/null -p 1", "--retries", "0"], 3, "if it listens on another port"),
        (["BUNDLE", "device", "--root", "/proc/nothing"], 4, "sudo mkdir -p /proc/nothing"),
        (["BUNDLE", "device", "--service", "docker"], 2, "--no-container"),
        (["BUNDLE", "device", "--python", "python-of-tomorrow"], 4, "python-of-tomorrow"),
        (["BUNDLE", "device", "--service", "systemd"], 4, "systemd does not run there"),
        (["--rollback", "device", "--state", "/nowhere/state", "--root", "/nowhere/root"], 2, "nothing is deployed"),
    ],
)
def test_mistakes_are_told_with_what_to_do(device, bundles, words, code, text):
    words = [bundles["one"][0] if word == "BUNDLE" else word for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "deploy", *device.options, *words], capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert text in done.stderr and "Traceback" not in done.stderr and "where: \n" not in done.stderr


def test_a_wrong_host_key_is_not_accepted(device, bundles, tmp_path):
    config = tmp_path / "config"
    known = tmp_path / "known"
    with open(device.sshd.config) as file:
        config.write_text(file.read().replace("known_hosts", "known_hosts.none"))
    known.write_text("")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pipeline.cli",
            "deploy",
            bundles["one"][0],
            "device",
            *device.options,
            "--ssh",
            f"-F {config}",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3 and "Host key verification failed" in done.stderr
    assert "accept the host key once" in done.stderr


@pytest.mark.slow
def test_signatures_are_demanded_on_both_sides(device, bundles, tmp_path):
    from pipeline.bundle import writer

    writer.make_key(str(tmp_path / "key"))
    signed = str(tmp_path / "signed")
    shutil.copytree(bundles["two"][0], signed)
    document = files.read_json(os.path.join(signed, "manifest.json"))
    document["name"] = "signed"
    files.write_json(os.path.join(signed, "manifest.json"), document)
    manifest.write_sums(signed)
    key = str(tmp_path / "key.pub")
    done = device.deploy(signed, "device", "--key", key)
    failed(done, 3, names="SHA256SUMS.sig")
    writer.sign(signed, str(tmp_path / "key"))
    done = device.deploy(signed, "device", "--key", key)
    assert done.returncode == 0, done.stderr
    assert os.path.exists(os.path.join(device.store.bundle(device.store.link("current")), "SHA256SUMS.sig"))


def test_the_probe_script_is_clean_shell(tmp_path):
    from pipeline.deploy import preflight
    from pipeline.deploy.layout import Layout

    text = "#!/bin/sh\n" + preflight.script(Layout("/opt/it's", "/var/x y", "1"), "python3", "docker")
    path = tmp_path / "probe.sh"
    path.write_text(text)
    answers = preflight.parse(subprocess.run(["sh", str(path)], capture_output=True, text=True, check=True).stdout)
    assert answers["uid"] == str(os.getuid()) and answers["ROOT_free_kb"].isdigit()
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed here")
    done = subprocess.run(["shellcheck", "-S", "info", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
