import copy
import json
import os
from pathlib import Path

import pytest
from refusals import refused

from jetson import files
from jetson.bundle import manifest
from jetson.errors import BadInput, UsageError


@pytest.fixture(scope="module")
def content(tiny_bundle):
    return files.read_json(os.path.join(tiny_bundle, "manifest.json"))


def test_load_gives_attributes(tiny_bundle):
    contents = manifest.load(tiny_bundle)
    assert contents.name == "tiny" and contents.classes == manifest.CLASSES
    variant = contents.variant()
    assert variant.name == contents.default_variant == "t-416x256-fp32"
    assert variant.input_wh == (416, 256) and variant.runtimes == ("onnxruntime", "tensorrt")
    assert os.path.isfile(contents.path(variant))
    assert contents.variant("t-320x192-int8-cpu").precision == "int8-cpu"


def test_an_unknown_variant_names_the_nearest(tiny_bundle):
    with refused(UsageError, names=["t-320x192-int8-cpuu", "t-320x192-int8-cpu?"]):
        manifest.load(tiny_bundle).variant("t-320x192-int8-cpuu")


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_what_is_no_bundle_is_said_so(tmp_path, what):
    path = tmp_path / "b"
    if what == "empty":
        path.mkdir()
    elif what == "file":
        path.write_text("x")
    with refused(BadInput, names=path):
        manifest.load(str(path))


WRONG = [
    (["schema_version"], 3),
    (["schema_version"], True),
    (["classes"], ["with_mask"]),
    (["preprocessing"], "other"),
    (["decode"], []),
    (["decode", "strides"], []),
    (["decode", "strides"], [8, 4]),
    (["decode", "box"], "dfl"),
    (["decode", "score"], 1.5),
    (["decode", "iou"], "x"),
    (["decode", "max_detections"], 0),
    (["decode", "vote_iou"], 2),
    (["decode", "vote_iou"], 0),
    (["default_variant"], "nope"),
    (["variants"], []),
    (["variants"], {}),
    (["variants", 0], "x"),
    (["variants", 0, "file"], "../t.onnx"),
    (["variants", 0, "file"], "/etc/passwd"),
    (["variants", 0, "file"], "models/../../x"),
    (["variants", 0, "file"], "golden/00.png"),
    (["variants", 0, "input_wh"], [320, 100]),
    (["variants", 0, "input_wh"], [320]),
    (["variants", 0, "input_wh"], [True, True]),
    (["variants", 0, "input_wh"], [32000, 320]),
    (["variants", 0, "precision"], "fp8"),
    (["variants", 0, "runtimes"], []),
    (["variants", 0, "runtimes"], ["cuda"]),
    (["variants", 0, "sha256"], "00"),
    (["variants", 0, "bytes"], "1"),
    (["variants", 0, "macs"], -1),
    (["variants", 0, "ap"], {"cuda": None}),
    (["variants", 0, "ap"], {"onnxruntime": {"map50": 120}}),
    (["variants", 0, "ap"], {"onnxruntime": 79}),
    (["variants", 0, "ap_reason"], {"tensorrt": 3}),
    (["variants", 0, "targets"], "nano"),
    (["variants", 0, "name"], "a/b"),
    (["variants", 1, "name"], "t-320x192-fp32"),
    (["provenance"], []),
]


@pytest.mark.parametrize("keys, value", WRONG)
def test_each_wrong_value_is_found_and_named(content, keys, value):
    wrong = copy.deepcopy(content)
    place = wrong
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with refused(BadInput, names=keys[0]):
        manifest.parse(wrong)


@pytest.mark.parametrize("key", ["schema_version", "classes", "decode", "variants", "default_variant", "preprocessing"])
def test_each_missing_key_is_found_and_named(content, key):
    wrong = copy.deepcopy(content)
    del wrong[key]
    assert any(line.startswith(key + ": missing") for line in manifest.problems(wrong))


@pytest.mark.parametrize("value", [None, [], 3, "x", {}])
def test_any_other_json_is_refused(value):
    with pytest.raises(BadInput):
        manifest.parse(value)


def test_the_tiny_bundle_is_whole(tiny_bundle):
    assert manifest.check(tiny_bundle) == []
    manifest.verify(tiny_bundle)


def damage_changed(bundle):
    path = Path(bundle, "models", "t.onnx")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    return "models/t.onnx"


def damage_missing(bundle):
    os.unlink(os.path.join(bundle, "golden", "golden.json"))
    return "golden/golden.json"


def damage_extra(bundle):
    Path(bundle, "models", "more.onnx").touch()
    return "models/more.onnx"


def damage_link(bundle):
    os.symlink("/etc/passwd", os.path.join(bundle, "models", "link"))
    return "models/link"


def damage_sums_line(bundle):
    with open(os.path.join(bundle, "SHA256SUMS"), "a") as file:
        file.write("not a line\n")
    return "SHA256SUMS, line "


def damage_sums_missing(bundle):
    os.unlink(os.path.join(bundle, "SHA256SUMS"))
    return "SHA256SUMS"


def damage_resummed(bundle):
    """Even with fitting checksums, another model is not the one that was measured."""
    damage_changed(bundle)
    manifest.write_sums(bundle)
    return "models/t.onnx"


def damage_manifest(bundle):
    path = Path(bundle, "manifest.json")
    path.write_text(path.read_text() + "x")
    return "manifest.json"


DAMAGES = [
    damage_changed,
    damage_missing,
    damage_extra,
    damage_link,
    damage_sums_line,
    damage_sums_missing,
    damage_resummed,
    damage_manifest,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_found_and_named(tiny_copy, damage):
    word = damage(tiny_copy)
    found = manifest.check(tiny_copy)
    assert any(word in line for line in found), found
    with refused(BadInput, where=tiny_copy, names=word):
        manifest.verify(tiny_copy)


@pytest.mark.parametrize(
    "line", ["{0}  ../x", "{0}  /x", "{0}  a//b", "{0} x", "{1}  x", "{0}  ", "{0}  a\\b", "{0}  a\n{0}  a"]
)
def test_a_wrong_checksum_line_is_refused(tmp_path, line):
    path = tmp_path / "SHA256SUMS"
    path.write_text(line.format("0" * 64, "0" * 63))
    with pytest.raises(BadInput):
        manifest.read_sums(str(path))


def test_sums_are_those_of_sha256sum(tiny_bundle):
    sums = manifest.read_sums(os.path.join(tiny_bundle, "SHA256SUMS"))
    assert sorted(sums) == [name for name in manifest.listing(tiny_bundle) if name != "SHA256SUMS"]
    assert sums["models/t.onnx"] == files.sha256(os.path.join(tiny_bundle, "models", "t.onnx"))


def test_the_manifest_on_disk_is_plain_json(tiny_bundle):
    with open(os.path.join(tiny_bundle, "manifest.json"), encoding="utf-8") as file:
        assert json.load(file)["schema_version"] == manifest.SCHEMA_VERSION
