"""Bundles on a device: installed whole or not at all, switched on trial, and back again."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from refusals import refused

from jetson import files
from jetson.bundle import manifest, tarball
from jetson.errors import BadInput, JetmaskError, UsageError
from jetson.install import installer as install
from jetson.install import service
from jetson.install.store import Store

TESTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RUNNER = os.path.join(TESTS, "data", "standin_runner.py")
ROOT = os.path.dirname(TESTS)


def renamed(bundle, target, name):
    """A copy of a bundle under another name, so under another digest."""
    shutil.copytree(bundle, target)
    path = os.path.join(target, "manifest.json")
    value = files.read_json(path)
    value["name"] = name
    files.write_json(path, value)
    manifest.write_sums(target)
    return target


@pytest.fixture
def store(tmp_path):
    where = Store(str(tmp_path / "state"))
    yield where
    spec = where.service()
    if spec is not None:
        service.stop(spec, where.folder)


@pytest.fixture
def spec(store):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        "kind": "process",
        "name": "jetmask",
        "url": f"http://127.0.0.1:{port}/healthz",
        "start": [sys.executable, RUNNER, store.path("current"), str(port)],
    }


def _run(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "jetson"] + list(words),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        **options,
    )


def test_a_folder_and_a_tar_file_install_as_the_same_bundle(store, tiny_bundle, tmp_path):
    tarball.pack(tiny_bundle, str(tmp_path / "b.tar"))
    first = install.install(store, tiny_bundle)
    assert install.install(store, str(tmp_path / "b.tar"), first) == first
    assert store.digests() == [first]
    assert first == files.sha256(os.path.join(tiny_bundle, "SHA256SUMS"))
    manifest.verify(store.bundle(first))


@pytest.mark.parametrize("damage", ["changed", "missing", "extra", "link", "folder link", "other digest", "no sums"])
def test_a_wrong_bundle_is_refused_and_leaves_nothing(store, tiny_copy, damage):
    model = os.path.join(tiny_copy, "models", "t.onnx")
    digest = None
    if damage == "changed":
        with open(model, "r+b") as file:
            file.seek(100)
            file.write(b"?")
    elif damage == "missing":
        os.unlink(model)
    elif damage == "extra":
        files.write_text(os.path.join(tiny_copy, "models", "more.onnx"), "x")
    elif damage == "link":
        os.rename(model, model + ".real")
        os.symlink(model + ".real", model)
    elif damage == "folder link":
        os.rename(os.path.join(tiny_copy, "models"), tiny_copy + "-models")
        os.symlink(tiny_copy + "-models", os.path.join(tiny_copy, "models"))
    elif damage == "no sums":
        os.unlink(os.path.join(tiny_copy, "SHA256SUMS"))
    else:
        digest = "0" * 64
    with pytest.raises(BadInput):
        install.install(store, tiny_copy, digest)
    assert os.listdir(store.bundles) == []


def test_a_damaged_installed_bundle_is_replaced(store, tiny_bundle):
    digest = install.install(store, tiny_bundle)
    files.write_text(os.path.join(store.bundle(digest), "MODEL_CARD.md"), "changed on the disk")
    install.install(store, tiny_bundle)
    assert os.listdir(store.bundles) == [digest]
    manifest.verify(store.bundle(digest))


def test_what_a_killed_installer_left_is_swept(store, tiny_bundle):
    os.makedirs(os.path.join(store.bundles, ".1.partial", "models"))
    digest = install.install(store, tiny_bundle)
    assert os.listdir(store.bundles) == [digest]


def test_switching_updating_and_rolling_back(store, tiny_bundle, tmp_path, spec):
    one = install.install(store, tiny_bundle)
    two = install.install(store, renamed(tiny_bundle, str(tmp_path / "two"), "two"))
    install.activate(store, one, spec, 20, 0.3)
    assert service.healthy(spec) == (True, "200 tiny")
    install.activate(store, two, None, 20, 0.3)
    assert service.healthy(spec) == (True, "200 two")
    assert (store.link("current"), store.link("previous")) == (two, one)
    assert install.rollback(store, 20, 0.3) == one
    assert service.healthy(spec) == (True, "200 tiny")
    assert (store.link("current"), store.link("previous")) == (one, two)
    assert store.read("trial.json") is None


def test_a_runner_that_builds_its_engine_is_waited_for_longer_than_it_may_take_to_start(
    store, tiny_bundle, tmp_path, spec
):
    building = install.install(store, renamed(tiny_bundle, str(tmp_path / "b"), "builds"))
    said = []
    install.activate(store, building, spec, 1.0, 0.2, said.append)
    assert store.link("current") == building and store.result()["ok"] and store.read("trial.json") is None
    assert any("builds or opens its engine" in text for text in said)


def test_a_runner_that_builds_for_ever_is_undone_in_the_end_and_notes_for_who_waits_from_afar(
    store, tiny_bundle, tmp_path, spec, monkeypatch
):
    monkeypatch.setattr(service, "STARTING_S", 1.0)
    notes = []
    real = store.note_starting
    monkeypatch.setattr(store, "note_starting", lambda: (real(), notes.append(store.read("trial.json")["starting"])))
    bad = install.install(store, renamed(tiny_bundle, str(tmp_path / "b"), "builds for ever"))
    with refused(JetmaskError, where=bad, names=["2 s", "503"]):
        install.activate(store, bad, spec, 1.0, 0.2)
    assert store.link("current") is None
    assert notes and len(set(notes)) == 1, "a note every few seconds, not at each question"


@pytest.mark.parametrize(
    "name,told", [("dies", "Connection refused"), ("sick", ["4 s", "503 sick"]), ("fades", "503 fades")]
)
def test_a_bundle_that_does_not_come_up_is_rolled_back(store, tiny_bundle, tmp_path, spec, name, told):
    good = install.install(store, tiny_bundle)
    bad = install.install(store, renamed(tiny_bundle, str(tmp_path / "bad"), name))
    install.activate(store, good, spec, 20, 0.2)
    with refused(JetmaskError, where=bad, names=told):
        install.activate(store, bad, None, 4, 3)
    assert store.link("current") == good and store.link("previous") is None
    assert store.read("trial.json") is None and store.result()["ok"] is False
    assert service.healthy(spec) == (True, "200 tiny")


@pytest.mark.parametrize("wrong", [{"cwd": "gone"}, {"start": ["/nowhere/python"]}])
def test_a_runner_that_cannot_be_started_brings_the_old_one_back(store, tiny_bundle, tmp_path, spec, wrong):
    """The package or the venv of an older deployment was removed to make room, and a rollback wants to start it."""
    good = install.install(store, tiny_bundle)
    other = install.install(store, renamed(tiny_bundle, str(tmp_path / "other"), "other"))
    install.activate(store, good, spec, 20, 0.2)
    (missing,) = (part for value in wrong.values() for part in ([value] if isinstance(value, str) else value))
    with refused(JetmaskError, where=other, names=["No such file or directory", missing, good[:16]]):
        install.activate(store, other, dict(spec, **wrong), 20, 0.2)
    assert store.link("current") == good and store.read("trial.json") is None
    assert service.healthy(spec) == (True, "200 tiny")


def test_a_docker_that_hangs_holds_no_switch_for_ever(store, tiny_bundle, tmp_path, spec, monkeypatch):
    """It is told, the lock is free again, and once docker answers the same switch works and undoes the cut-off one."""
    docker = str(tmp_path / "docker")
    files.write_text(docker, "#!/bin/sh\nexec sleep 100\n")
    os.chmod(docker, 0o755)
    good = install.install(store, tiny_bundle)
    other = install.install(store, renamed(tiny_bundle, str(tmp_path / "other"), "other"))
    install.activate(store, good, spec, 20, 0.2)
    contained = {"kind": "docker", "name": "jetmask", "program": docker, "url": spec["url"], "start": [docker, "run"]}
    monkeypatch.setattr(service, "_TOOL_S", 0.5)
    with refused(JetmaskError, names=[docker + " rm -f jetmask", "sudo systemctl restart docker"]):
        install.activate(store, other, contained, 20, 0.2)
    files.write_text(docker, "#!/bin/sh\nexit 0\n")
    os.chmod(docker, 0o755)
    monkeypatch.setattr(service, "_TOOL_S", 60)
    install.activate(store, other, spec, 20, 0.2)
    assert (store.link("current"), store.link("previous")) == (other, good) and store.read("trial.json") is None
    assert service.healthy(spec) == (True, "200 other")


def test_a_first_bundle_that_fails_leaves_the_device_as_it_was(store, tiny_bundle, tmp_path, spec):
    bad = install.install(store, renamed(tiny_bundle, str(tmp_path / "bad"), "dies"))
    with pytest.raises(JetmaskError) as caught:
        install.activate(store, bad, spec, 5, 0.2)
    assert "nothing was installed before" in str(caught.value)
    assert store.link("current") is None and store.service() is None
    assert not service.running(spec, store.folder)


def test_a_switch_killed_in_the_middle_is_undone(store, tiny_bundle, tmp_path, spec):
    good = install.install(store, tiny_bundle)
    slow = install.install(store, renamed(tiny_bundle, str(tmp_path / "slow"), "sick"))
    install.activate(store, good, spec, 20, 0.2)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jetson",
            "install",
            "--activate",
            slow,
            "--state",
            store.folder,
            "--start",
            "60",
            "--token",
            "mine",
        ],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 20
    while store.link("current") != slow and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert store.link("current") == slow and store.read("trial.json")["was"] == good
    done = _run("install", "--recover", "--state", store.folder)
    assert done.returncode == 0, done.stderr
    assert store.link("current") == good and store.read("trial.json") is None
    # Whoever began it from afar learns its end by its token, and need not wait for ever.
    assert store.result()["token"] == "mine" and store.result()["ok"] is False
    service.stop(spec, store.folder)


def test_recovering_leaves_a_switch_at_work_alone(store, tiny_bundle):
    digest = install.install(store, tiny_bundle)
    with store.lock():
        store.begin(digest, None)
        done = _run("install", "--recover", "--state", store.folder, timeout=20)
        assert done.returncode == 0, done.stderr
        assert store.link("current") == digest
        store.confirm()


def test_the_same_request_twice_switches_once(store, tiny_bundle, spec):
    digest = install.install(store, tiny_bundle)
    install.activate(store, digest, spec, 20, 0.1, token="a")
    before = files.read_json(store.path("service.pid"))
    install.activate(store, digest, spec, 20, 0.1, token="a")
    assert files.read_json(store.path("service.pid")) == before


def test_a_detached_switch_outlives_its_caller(store, tiny_bundle, spec):
    digest = install.install(store, tiny_bundle)
    files.write_json(store.path("spec.json"), spec)
    done = _run(
        "install",
        "--activate",
        digest[:12],
        "--service",
        store.path("spec.json"),
        "--state",
        store.folder,
        "--watch",
        "0.2",
        "--token",
        "mine",
        "--detach",
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    end = time.monotonic() + 20
    while (store.result() or {}).get("token") != "mine" and time.monotonic() < end:
        time.sleep(0.05)
    assert store.result()["ok"] is True and store.link("current") == digest


def test_pruning_keeps_current_previous_and_the_newest(store, tiny_bundle, tmp_path):
    digests = []
    for number in range(5):
        folder = renamed(tiny_bundle, str(tmp_path / str(number)), f"b{number}")
        digests.append(install.install(store, folder))
        os.utime(store.bundle(digests[-1]), (number, number))
    install.activate(store, digests[0])
    install.activate(store, digests[1])
    assert store.prune(1) == digests[2:4]
    assert store.digests() == [digests[0], digests[1], digests[4]]


def one_of_two_runs(tmp_path):
    """A store with two bundles, of which the first was confirmed: (store, first, second)."""
    where, digests = Store(str(tmp_path / "state")), ("a" * 64, "b" * 64)
    with where.lock():
        for digest in digests:
            os.makedirs(os.path.join(where.bundles, digest))
        where.begin(digests[0], None)
        where.confirm()
    return (where, *digests)


def test_pruning_keeps_what_a_switch_on_trial_goes_back_to(tmp_path):
    where, old, new = one_of_two_runs(tmp_path)
    with where.lock():
        where.begin(new, None)  # here the power goes
        assert where.prune(0) == []
        where.undo()
    assert where.link("current") == old


def test_undoing_the_first_service_leaves_none(tmp_path):
    where, old, new = one_of_two_runs(tmp_path)
    with where.lock():
        where.begin(new, {"kind": "process", "start": ["false"], "url": ""})
        where.undo()
    assert where.link("current") == old and where.service() is None


def test_the_log_of_a_runner_is_turned_over_at_a_start_once_it_is_large(store, spec):
    log = store.path("service.log")
    os.makedirs(store.folder)
    for size, turned in ((1000, False), (5 << 20, True)):
        files.write_bytes(log, b"." * size)
        service.start(dict(spec, start=[sys.executable, "-c", "print('new')"]), store.folder)
        end = time.monotonic() + 10
        while b"new" not in Path(log).read_bytes():
            assert time.monotonic() < end
            time.sleep(0.02)
        service.stop(spec, store.folder)
        assert os.path.exists(log + ".1") == turned and (os.path.getsize(log) < 1000) == turned
    assert os.path.getsize(log + ".1") == size


def test_a_signature_is_demanded_once_a_key_is_trusted(store, tiny_copy, tmp_path):
    keys = tmp_path / "keys"
    # A valid key (RFC 8032's first), which signed something else.
    keys.write_text("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\n")
    done = _run("install", tiny_copy, "--state", store.folder, "--key", str(keys))
    assert done.returncode == 3 and "not signed" in done.stderr
    files.write_bytes(
        os.path.join(tiny_copy, "SHA256SUMS.sig"),
        bytes.fromhex(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    )
    done = _run("install", tiny_copy, "--state", store.folder, "--key", str(keys))
    assert done.returncode == 3 and "not by a trusted key" in done.stderr
    assert os.listdir(store.bundles) == []


def test_trusted_keys_that_cannot_be_read_are_not_taken_for_none(monkeypatch, tmp_path):
    monkeypatch.setattr(install, "TRUSTED_KEYS", str(tmp_path / "trusted_keys"))
    assert install.trusted_keys([]) is None
    os.symlink(str(tmp_path / "not mounted" / "keys"), str(tmp_path / "trusted_keys"))
    with pytest.raises(BadInput):
        install.trusted_keys([])


def test_the_verbs_from_outside(store, tiny_bundle, tmp_path):
    tar = str(tmp_path / "b.tar")
    tarball.pack(tiny_bundle, tar)
    done = _run("install", tar, "--state", store.folder, "--json")
    assert done.returncode == 0, done.stderr
    digest = json.loads(done.stdout)["digest"]
    status = json.loads(_run("install", "--status", "--state", store.folder, "--json").stdout)
    assert status["current"] == digest and status["bundles"][0]["name"] == "tiny"
    done = _run("verify", store.path("current"), "--digest", digest, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["digest"] == digest
    assert _run("verify", tar).returncode == 0
    assert "current" in _run("install", "--list", "--state", store.folder).stdout
    done = _run("install", "--rollback", "--state", store.folder)
    assert done.returncode == 2 and "no previous" in done.stderr and "Traceback" not in done.stderr
    done = _run("install", "--activate", "feedfacefeed", "--state", store.folder)
    assert done.returncode == 2 and digest[:16] in done.stderr
    done = _run("install", str(tmp_path / "none.tar"), "--state", store.folder)
    assert done.returncode == 3 and "none.tar" in done.stderr
    for wrong in ([], ["--rollback", "--status"]):
        assert _run("install", *wrong).returncode == 2


def test_names_in_the_c_locale(store, tiny_bundle, tmp_path):
    """What a command over ssh has on a Nano: Python 3.6 takes that for ASCII."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    bundle = renamed(tiny_bundle, os.path.join(str(tmp_path), "b\u00fcndel"), "Masken-Z\u00e4hler")
    for words, text in (
        (["verify", bundle], "Masken-Z\u00e4hler"),
        (["install", bundle, "--state", store.folder], "root digest"),
        (["install", "--status", "--state", store.folder], "Masken-Z\u00e4hler"),
        (["verify", bundle + "-not"], "b\u00fcndel-not"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "jetson"] + words,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert text in done.stdout.decode("utf-8") and b"internal" not in done.stdout, done.stdout


def test_verify_names_what_is_wrong(tiny_copy):
    files.write_text(os.path.join(tiny_copy, "MODEL_CARD.md"), "changed")
    done = _run("verify", tiny_copy)
    assert done.returncode == 3 and "MODEL_CARD.md" in done.stderr and "Traceback" not in done.stderr
    assert json.loads(_run("verify", tiny_copy, "--json").stdout)["ok"] is False


@pytest.mark.parametrize("gone", ["models/t.onnx", "SHA256SUMS", "manifest.json"])
def test_verify_says_how_to_mend_a_bundle_that_is_not_whole(tiny_copy, gone):
    os.unlink(os.path.join(tiny_copy, gone))
    done = _run("verify", tiny_copy)
    assert done.returncode == 3 and gone in done.stderr and re.search("do: .*copy", done.stderr)
    assert "No such file" not in done.stderr


def test_installing_needs_neither_numpy_nor_opencv(store, tiny_bundle):
    code = (
        "import runpy, sys; sys.modules['numpy'] = sys.modules['cv2'] = None; "
        "sys.argv = ['x', 'install', {!r}, '--state', {!r}]; "
        "runpy.run_module('jetson', run_name='__main__')"
    ).format(tiny_bundle, store.folder)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, universal_newlines=True, stdout=subprocess.PIPE
    )
    assert done.returncode == 0, done.stderr
    assert len(store.digests()) == 1


def test_a_state_folder_that_cannot_be_made_is_told(tmp_path, tiny_bundle):
    (tmp_path / "file").write_text("")
    with pytest.raises((JetmaskError, OSError, UsageError)):
        install.install(Store(str(tmp_path / "file" / "state")), tiny_bundle)


@pytest.mark.parametrize(
    "kind, start, unit",
    [
        ("process", ["python3", "serve"], None),
        ("docker", ["docker", "run", "-d", "image", "serve"], None),
        ("systemd", ["python3", "serve"], "[Unit]\nA=b\n[Service]\nType=notify\n"),
    ],
)
def test_a_variable_reaches_the_runner_however_it_is_kept_running(kind, start, unit):
    made = service.with_environment({"kind": kind, "start": start, "unit": unit}, "NAME", "1")
    assert made["env"] == {"NAME": "1"}
    if kind == "docker":
        assert made["start"] == ["docker", "run", "-e", "NAME=1", "-d", "image", "serve"]
    else:
        assert made["start"] == start
    assert made["unit"] == (unit and "[Unit]\nA=b\n[Service]\nEnvironment=NAME=1\nType=notify\n")
