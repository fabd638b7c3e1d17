"""Making room on a device: what no kept release uses goes, and nothing else does, whatever lies beside it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from jetson import files
from jetson.bundle import manifest
from jetson.install import installer as install
from jetson.install import leftovers
from jetson.install.store import Store

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


class Machine:
    """A device with three releases, one after the other: bundles, packages and venvs `old`, `was` and `now`."""

    def __init__(self, folder, tiny_bundle, kind="systemd"):
        self.folder, self.kind = str(folder), kind
        self.store, self.root = Store(os.path.join(self.folder, "state")), os.path.join(self.folder, "root")
        self.docker = os.path.join(self.folder, "docker")
        self.digests, self.codes = {}, {}
        for name in ("old", "was", "now"):
            self.digests[name] = install.install(self.store, bundle(tiny_bundle, os.path.join(self.folder, name), name))
            self.codes[name] = package(self.root, name)
            venv(self.root, self.codes[name])
            with self.store.lock():
                self.store.begin(self.digests[name], self.spec(name))
                self.store.confirm()

    def spec(self, name):
        code = self.codes[name]
        run = [os.path.join(self.root, "venv-" + code, "bin", "python"), "-m", "jetson"]
        if self.kind == "docker":
            run = ["docker", "run", "--rm", "jetmask:" + code]
        return {"kind": self.kind, "name": "jetmask", "url": "", "code": code, "run": run, "start": run + ["serve"]}

    def clean(self, *words):
        """What the verb says, as JSON."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "jetson",
                "install",
                "--prune-old",
                "0",
                "--root",
                self.root,
                "--state",
                self.store.folder,
                "--docker",
                self.docker,
                "--json",
            ]
            + list(words),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def set_docker(self, text):
        files.write_text(self.docker, "#!/bin/sh\n" + text)
        os.chmod(self.docker, 0o755)


def bundle(source, target, name):
    """A copy of a bundle under another name, with another model in it."""
    shutil.copytree(source, target)
    path = os.path.join(target, "manifest.json")
    value = files.read_json(path)
    value["name"] = name
    model = os.path.join(target, "models", "t.onnx")
    with open(model, "ab") as file:
        file.write(b"\x32" + bytes([len(name)]) + name.encode())  # ModelProto.doc_string: it stays an ONNX file
    for variant in value["variants"]:
        if variant["file"] == "models/t.onnx":
            variant["sha256"], variant["bytes"] = files.sha256(model), os.path.getsize(model)
    value["files"]["models/t.onnx"] = os.path.getsize(model)
    files.write_json(path, value)
    manifest.write_sums(target)
    return target


def package(root, text):
    """A device package as `jetmask deploy` brings it; its id."""
    sums = f"{hashlib.sha256(text.encode()).hexdigest()}  jetson/a.py\n"
    code = "0.1.0-" + hashlib.sha256(sums.encode()).hexdigest()[:10]
    os.makedirs(os.path.join(root, code, "jetson"))
    files.write_text(os.path.join(root, code, "jetson", "a.py"), text)
    files.write_text(os.path.join(root, code, "SHA256SUMS"), sums)
    return code


def venv(root, code):
    os.makedirs(os.path.join(root, "venv-" + code, "bin"))
    files.write_text(os.path.join(root, "venv-" + code, "pyvenv.cfg"), "home = /usr/bin\n")


def everything(folder):
    return sorted(
        os.path.relpath(os.path.join(place, name), folder)
        for place, folders, names in os.walk(folder)
        for name in folders + names
    )


@pytest.fixture
def machine(tmp_path, tiny_bundle):
    return Machine(tmp_path, tiny_bundle)


def test_the_current_and_the_previous_release_stay_whole(machine):
    old, was, now = (machine.codes[name] for name in ("old", "was", "now"))
    half = os.path.join(machine.root, f".venv-{old}.old", "bin")
    broken_off = [
        os.path.join(machine.root, "incoming", old),
        os.path.join(machine.root, "incoming", "wheels"),
        machine.store.path("incoming", "a" * 64),
    ]
    for folder in [half] + broken_off:
        os.makedirs(folder)
    files.write_text(machine.store.path("incoming", "service.json"), "{}")
    found = machine.clean()
    assert found["removed"] == [machine.digests["old"]]
    assert found["packages"] == [old] and found["venvs"] == ["venv-" + old] and found["problems"] == []
    assert sorted(found["uploads"]) == sorted([old, "wheels", "a" * 64]) and found["images"] == []
    assert machine.store.digests() == [machine.digests["was"], machine.digests["now"]]
    assert sorted(os.listdir(machine.root)) == sorted(["incoming", was, now, "venv-" + was, "venv-" + now])
    for name in (was, now):
        assert os.path.isfile(os.path.join(machine.root, name, "jetson", "a.py"))
        assert os.path.isfile(os.path.join(machine.root, "venv-" + name, "pyvenv.cfg"))
    assert os.listdir(machine.store.path("incoming")) == ["service.json"]
    rest = everything(machine.folder)
    again = machine.clean()
    assert not any(again[key] for key in ("removed", "packages", "venvs", "uploads", "problems"))
    assert everything(machine.folder) == rest


def test_what_jetmask_did_not_make_stays(machine):
    names = ["venv-mine", "0.1.0-0123456789", "1.0", "notes", "venv-0.1.0-0123456789", ".cache.old"]
    for name in names:  # the second has a package's name, but another list of files; the fifth is no venv
        os.makedirs(os.path.join(machine.root, name, "jetson"))
        files.write_text(os.path.join(machine.root, name, "SHA256SUMS"), "other")
    for folder in (machine.root, machine.store.folder, machine.store.path("incoming")):
        os.makedirs(os.path.join(folder, "incoming"), exist_ok=True)
        files.write_text(os.path.join(folder, "mine.txt"), "mine")
    outside = package(os.path.join(machine.folder, "elsewhere"), "linked")
    os.symlink(os.path.join(machine.folder, "elsewhere", outside), os.path.join(machine.root, outside))
    machine.clean()
    assert set(names) | {outside, "mine.txt"} < set(os.listdir(machine.root))
    assert os.path.isfile(os.path.join(machine.folder, "elsewhere", outside, "SHA256SUMS"))
    assert os.path.exists(machine.store.path("mine.txt"))
    assert sorted(os.listdir(machine.store.path("incoming"))) == ["incoming", "mine.txt"]


def test_what_a_switch_on_trial_or_a_rollout_would_go_back_to_stays(machine, tiny_bundle):
    """On trial: a fourth release. It goes back to `now`, whose own way back is `was`; a rollout remembers `old`."""
    machine.digests["new"] = install.install(
        machine.store, bundle(tiny_bundle, os.path.join(machine.folder, "new"), "new")
    )
    machine.codes["new"] = package(machine.root, "new")
    with machine.store.lock():
        machine.store.begin(machine.digests["new"], machine.spec("new"))
    os.makedirs(machine.store.path("incoming"))
    files.write_json(machine.store.path("incoming", "before-1.json"), machine.spec("old"))
    found = machine.clean()
    assert found["removed"] == [machine.digests["old"]] and not found["packages"] and not found["venvs"]
    os.unlink(machine.store.path("incoming", "before-1.json"))
    found = machine.clean()
    assert found["packages"] == [machine.codes["old"]]
    with machine.store.lock():
        machine.store.undo()
    assert machine.clean()["packages"] == [machine.codes["new"]]
    assert machine.store.digests() == [machine.digests["was"], machine.digests["now"]]


def test_images_that_no_release_uses(tmp_path, tiny_bundle):
    machine = Machine(tmp_path, tiny_bundle, "docker")
    old, was, now = (machine.codes[name] for name in ("old", "was", "now"))
    held = package(os.path.join(machine.folder, "aside"), "held")  # a container of somebody's still has this image
    names = ["jetmask:" + code for code in (old, was, now, held)] + ["jetmask:r32.7", "jetmask:mine", "jetmask:<none>"]
    machine.set_docker(
        f"""echo "$@" >>{machine.folder}/calls
case $1 in image) printf '%s\\n' {" ".join(("'{}'".format(name) for name in names))};; esac
case "$*" in *{held}) echo conflict: a container is using it >&2; exit 1;; esac
"""
    )
    found = machine.clean()
    assert found["images"] == ["jetmask:" + old]
    assert found["venvs"] == ["venv-" + code for code in sorted((old, was, now))], "a container needs none"
    assert len(found["problems"]) == 1 and "a container is using it" in found["problems"][0]
    with open(os.path.join(machine.folder, "calls")) as file:
        calls = file.read().splitlines()
    assert sorted(call for call in calls if call.startswith("rm")) == sorted("rmi jetmask:" + c for c in (old, held))
    assert "-f" not in " ".join(calls).split()
    # A docker that does not answer is told, and all else is done.
    machine.set_docker("echo cannot connect >&2; exit 1\n")
    assert "cannot connect" in machine.clean()["problems"][0]
    os.unlink(machine.docker)
    assert machine.clean()["problems"] == []


def test_the_engines_of_removed_models_go_with_them(machine):
    engines = machine.store.path("engines")
    os.makedirs(engines)
    kept = []
    for name in ("old", "was", "now", "tiny", "mine"):
        sha = "f" * 64
        if name in machine.digests:
            contents = manifest.load(machine.store.bundle(machine.digests[name]))
            other = next(v for v in contents.variants if v.file != "models/t.onnx")
            sha = next(v for v in contents.variants if v.file == "models/t.onnx").sha256
        elif name == "tiny":  # of a model that is in all three bundles
            sha = other.sha256
        files.write_json(os.path.join(engines, name + ".json"), {"recipe": {"onnx_sha256": sha}})
        files.write_text(os.path.join(engines, name + ".plan"), name)
        kept += [name + ".json", name + ".plan"] if name != "old" else []
    files.write_text(os.path.join(engines, "odd.json"), "[]")
    assert machine.clean()["engines"] == ["old"]
    assert sorted(os.listdir(engines)) == sorted(kept + ["odd.json"])


def test_what_a_living_process_uses_stays(machine):
    """Another deployment that has just sent its package, or a runner that was started by hand."""
    old = machine.codes["old"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; sys.stdin.read()",
            os.path.join(machine.root, "venv-" + old, "bin"),
            machine.store.bundle(machine.digests["old"]),
        ],
        cwd=os.path.join(machine.root, old),
        stdin=subprocess.PIPE,
    )
    try:
        found = machine.clean()
        assert not found["removed"] and not found["packages"] and not found["venvs"] and found["problems"] == []
    finally:
        process.communicate()
    found = machine.clean()
    assert found["removed"] == [machine.digests["old"]]
    assert found["packages"] == [old] and found["venvs"] == ["venv-" + old]


def test_nothing_but_bundles_goes_where_others_set_the_runner_up(machine):
    machine.store.remove("service.json")
    before = sorted(os.listdir(machine.root))
    assert machine.clean()["removed"] == [machine.digests["old"]]
    assert sorted(os.listdir(machine.root)) == before


def test_what_cannot_be_removed_is_told_and_the_rest_is_done(machine, monkeypatch, capsys):
    rename = os.rename

    def full(source, target):
        if os.path.basename(source).startswith("0.1.0"):
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    with machine.store.lock():
        found = leftovers.remove(machine.store, 0, machine.root, machine.docker)
    assert found["packages"] == [] and found["venvs"] == ["venv-" + machine.codes["old"]]
    lines = leftovers.show(found).splitlines()
    assert lines[0].startswith("removed of older releases: 1 bundle, 1 venv; ") and lines[0].endswith("MiB freed")
    assert lines[1:] == [f"not removed: {os.path.join(machine.root, machine.codes['old'])}: Permission denied"]
