"""Built engines on disk: only a plan that is ours, whole, and made for exactly this is given back."""

import json
import os
import stat

import pytest
from refusals import refused

from jetson.engine import cache
from jetson.errors import JetmaskError

RECIPE = cache.Recipe("s-416x256-fp16", "a" * 64, (416, 256), "fp16", None, {"out": "fp32"}, ("FP16",), 1 << 28)
MACHINE = cache.Machine("tensorrt", "8.2.1", "NVIDIA Tegra X1", (5, 3))


@pytest.fixture
def folder(tmp_path):
    return cache.open_folder(str(tmp_path / "deep" / "engines"))


def put(folder, recipe=RECIPE, machine=MACHINE, data=b"plan"):
    plan, _ = cache.paths(folder, recipe, machine)
    with open(plan + ".aside", "wb") as file:
        file.write(data)
    cache.write_sidecar(folder, recipe, machine, plan + ".aside", {"seconds": 1})
    os.rename(plan + ".aside", plan)
    os.chmod(plan, 0o600)
    return cache.paths(folder, recipe, machine)


def change(path, edit):
    with open(path) as file:
        value = json.load(file)
    with open(path, "w") as file:
        json.dump(edit(value), file)


def test_a_pair_is_given_back_and_removed(folder):
    assert cache.load(folder, RECIPE, MACHINE) == (None, "not built yet")
    put(folder)
    assert cache.load(folder, RECIPE, MACHINE) == (b"plan", "")
    cache.remove(folder, RECIPE, MACHINE)
    cache.remove(folder, RECIPE, MACHINE)
    assert os.listdir(folder) == []


OTHERS = [
    {"onnx_sha256": "b" * 64},
    {"input_wh": (256, 416)},
    {"precision": "fp32"},
    {"calibration_sha256": "c" * 64},
    {"layer_precisions": {}},
    {"flags": ()},
    {"workspace_bytes": 1},
    {"module": "tensorrt_rtx"},
    {"tensorrt": "8.2.2"},
    {"gpu": "Orin"},
    {"capability": (8, 7)},
]


@pytest.mark.parametrize("changes", OTHERS, ids=lambda changes: list(changes)[0])
def test_each_part_of_the_key_counts(folder, changes):
    """Another file name; and where a sidecar says another thing than its name does, the plan is not used."""
    recipe = RECIPE._replace(**{k: v for k, v in changes.items() if k in RECIPE._fields})
    machine = MACHINE._replace(**{k: v for k, v in changes.items() if k in MACHINE._fields})
    assert cache.paths(folder, recipe, machine) != cache.paths(folder, RECIPE, MACHINE)
    _, sidecar = put(folder)
    change(sidecar, lambda facts: dict(facts, **cache.identity(recipe, machine)))
    data, why = cache.load(folder, RECIPE, MACHINE)
    assert data is None and list(changes)[0] in why and "sidecar" in why


def test_the_variants_name_is_a_label_only(folder):
    one, other = (cache.paths(folder, RECIPE._replace(variant=name), MACHINE)[0] for name in ("a", "b"))
    assert os.path.basename(one) == "a" + os.path.basename(other)[1:]
    assert len(os.path.basename(one)) == len("a-.plan") + 20


@pytest.mark.parametrize(
    "edit, why",
    [
        (lambda facts: [], "another form"),
        (lambda facts: dict(facts, schema_version=cache.SCHEMA_VERSION + 1), "another form"),
        (lambda facts: {k: v for k, v in facts.items() if k != "schema_version"}, "another form"),
        (lambda facts: dict(facts, recipe=None), "another recipe"),
        (lambda facts: dict(facts, machine=dict(facts["machine"], more=1)), "another machine (more)"),
        (lambda facts: dict(facts, plan=None), "content"),
        (lambda facts: dict(facts, plan=dict(facts["plan"], sha256="0" * 64)), "content"),
    ],
)
def test_a_sidecar_that_does_not_fit(folder, edit, why):
    _, sidecar = put(folder)
    change(sidecar, edit)
    data, told = cache.load(folder, RECIPE, MACHINE)
    assert data is None and why in told


def test_a_sidecar_that_cannot_be_read(folder):
    _, sidecar = put(folder)
    with open(sidecar, "w") as file:
        file.write("{")
    assert cache.load(folder, RECIPE, MACHINE)[0] is None
    os.unlink(sidecar)
    assert cache.load(folder, RECIPE, MACHINE)[0] is None


def test_a_changed_plan_is_not_given_back(folder):
    plan, _ = put(folder)
    with open(plan, "ab") as file:
        file.write(b"!")
    assert "content" in cache.load(folder, RECIPE, MACHINE)[1]


@pytest.mark.parametrize("mode, trusted", [(0o600, True), (0o644, True), (0o620, False), (0o602, False)])
def test_a_plan_that_others_can_write_to_is_code_of_others(folder, mode, trusted):
    plan, _ = put(folder)
    os.chmod(plan, mode)
    assert (cache.load(folder, RECIPE, MACHINE)[0] == b"plan") is trusted


def test_a_plan_is_a_plain_file_of_ones_own(folder, tmp_path, monkeypatch):
    plan, _ = put(folder)
    os.rename(plan, str(tmp_path / "elsewhere"))
    os.symlink(str(tmp_path / "elsewhere"), plan)
    assert "cannot be read" in cache.load(folder, RECIPE, MACHINE)[1]
    os.unlink(plan)
    os.mkdir(plan)
    assert cache.load(folder, RECIPE, MACHINE)[0] is None
    os.rmdir(plan)
    put(folder)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert "others" in cache.load(folder, RECIPE, MACHINE)[1]


def test_the_folder_is_ours_alone(tmp_path, monkeypatch):
    made = cache.open_folder(str(tmp_path / "a" / "b"))
    assert stat.S_IMODE(os.lstat(made).st_mode) == 0o700 and cache.open_folder(made) == made
    for mode in (0o710, 0o701, 0o770):
        os.chmod(made, mode)
        with pytest.raises(JetmaskError):
            cache.open_folder(made)
    os.chmod(made, 0o700)
    os.symlink(made, str(tmp_path / "link"))
    (tmp_path / "file").write_text("")
    for path in ("link", "file"):
        with refused(JetmaskError, where=tmp_path / path):
            cache.open_folder(str(tmp_path / path))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with refused(JetmaskError, where=made, names=[os.getuid(), os.getuid() + 1]):
        cache.open_folder(made)


def test_where_the_folder_is(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.delenv("JETMASK_ENGINES", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.default_folder() == "/h/.cache/jetmask/engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache.default_folder() == "/c/jetmask/engines"
    monkeypatch.setenv("JETMASK_ENGINES", "/own")
    assert cache.default_folder() == "/own"
