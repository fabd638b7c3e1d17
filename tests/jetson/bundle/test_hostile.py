"""Bundles that mean harm: what lies outside is never read, what costs more than it announces is refused, in one line.

All of it is made by code, under both Pythons; the files are in tests/data/hostile.py.
"""

import os
import shutil

import cv2
import hostile
import pytest
from refusals import refused

from jetson import files, imagefile
from jetson.bundle import manifest, paths, tarball
from jetson.engine import build, cache, onnx_facts
from jetson.engine.onnx import OnnxEngine
from jetson.errors import BadInput, JetmaskError
from jetson.inference import golden
from jetson.install import installer as install

SECRET = b"\0" * 4096
NAMES = (
    "../secret.bin",
    "../../secret.bin",
    "models/../../secret.bin",
    "/etc/passwd",
    "//etc/passwd",
    "..",
    ".",
    "",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "/",
    "a\\..\\b",
    "C:\\x",
    "a\0b",
    "a\n",
    "a b",
    "\u202ea",
    "-rf",
    ".hidden",
    "a/.hidden",
    "~/x",
    "$HOME",
    "a" * 101,
    "a/" * 60 + "b",
    None,
    5,
    True,
    ["a"],
    {"a": 1},
)


def _sealed(bundle):
    """The manifest's sizes and SHA256SUMS as they must be for what is in the folder now: a careful attacker does it."""
    document = files.read_json(os.path.join(bundle, "manifest.json"))
    for variant in document["variants"]:
        path = os.path.join(bundle, variant["file"])
        variant.update(sha256=files.sha256(path), bytes=os.path.getsize(path))
    document["files"] = {
        name: os.path.getsize(os.path.join(bundle, name))
        for name in manifest.listing(bundle)
        if name not in tarball.UNANNOUNCED
    }
    files.write_json(os.path.join(bundle, "manifest.json"), document)
    manifest.write_sums(bundle)


def _one_line(error):
    assert len(str(error.what)) < 400 and "\n" not in str(error.what)


# ----------------------------------------------------------------------------------------------------------- ONNX

EXTERNAL = hostile.external_models()
BROKEN = hostile.broken_models()


def test_there_are_enough_of_each_kind():
    assert min(map(len, (EXTERNAL, BROKEN, NAMES, hostile.large_pictures(), JSON, MANIFEST, GOLDEN))) >= 20
    onnx_facts.parse(
        hostile.model(hostile.graph(extra=hostile.field(5, hostile.tensor())))
    )  # and the plain one is good


@pytest.mark.parametrize("what", sorted(EXTERNAL))
def test_a_model_with_values_in_another_file_is_refused(what):
    with refused(BadInput, where="m.onnx, tensor") as caught:
        onnx_facts.parse(EXTERNAL[what], "m.onnx")
    assert len(caught.value.where) < 300 and caught.value.remedy


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_a_model_that_is_none_or_without_end_is_refused(what):
    with pytest.raises(BadInput) as caught:
        onnx_facts.parse(BROKEN[what], "m.onnx")
    _one_line(caught.value)


def test_nothing_on_a_device_opens_a_model_with_external_data(tiny_copy, tmp_path):
    """The whole bundle of the attack: every checksum is right, and the model asks for a file beside the bundle."""
    (tmp_path / "secret.bin").write_bytes(SECRET)
    contents = manifest.load(tiny_copy)
    variant = contents.variant(None)
    with open(contents.path(variant), "ab") as file:  # protobuf: a graph that goes on
        file.write(hostile.field(7, hostile.field(5, hostile.outside("../../secret.bin", "w_new"))))
    _sealed(tiny_copy)
    assert manifest.check(tiny_copy) == [], "every hash is right"
    with refused(BadInput, where="t.onnx, tensor 'w_new'", names="../../secret.bin"):
        install.check(tiny_copy)
    variant = manifest.load(tiny_copy).variant(None)
    with refused(BadInput, where="t.onnx, tensor 'w_new'", names="../../secret.bin"):
        OnnxEngine(os.path.join(tiny_copy, variant.file), variant.input_wh)
    with refused(BadInput, where="t.onnx, tensor 'w_new'", names="../../secret.bin"):
        golden.require(tiny_copy, runtime="onnxruntime")

    class Trt:
        __name__, __version__ = "tensorrt", "8.2.1.8"

    with refused(BadInput, where="t.onnx, tensor 'w_new'", names="../../secret.bin"):
        build.job_for(manifest.load(tiny_copy), variant, Trt, cache.Machine("tensorrt", "8.2.1.8", "X1", (5, 3)))


# ---------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:30])
def test_no_name_leads_out_of_a_bundle(name, tiny_copy):
    assert paths.name_problem(name)
    with pytest.raises(BadInput) as caught:
        paths.inside(tiny_copy, name)
    _one_line(caught.value)
    document = files.read_json(os.path.join(tiny_copy, "manifest.json"))
    for key in ("file", "model"):
        broken = dict(document, variants=[dict(document["variants"][0], **{key: name})] + document["variants"][1:])
        assert any(f"variants[0].{key}" in line for line in manifest.problems(broken)), key
    announced = dict(document, files=dict(document["files"], **{name: 5})) if isinstance(name, str) else None
    if announced:
        files.write_json(os.path.join(tiny_copy, "manifest.json"), announced)
        with pytest.raises(BadInput):
            tarball.check_sizes(tiny_copy)
    content = files.read_json(os.path.join(tiny_copy, golden.FILE))
    files.write_json(os.path.join(tiny_copy, golden.FILE), dict(content, images=[name] + content["images"][1:]))
    with pytest.raises(BadInput) as caught:
        golden.read(tiny_copy)
    _one_line(caught.value)


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(name, str)], ids=lambda name: repr(name)[:30])
def test_no_name_in_the_checksums_leads_out(name, tiny_copy):
    with open(os.path.join(tiny_copy, manifest.SUMS), "a", encoding="utf-8") as file:
        file.write("{}  {}\n".format("0" * 64, name))
    problems = manifest.check(tiny_copy)
    assert problems and "checksum" in problems[0] or any("missing" in line for line in problems)
    assert "secret" not in "".join(problems) or "not a checksum line" in problems[0]


def test_a_link_inside_a_bundle_is_not_followed(tiny_copy, tmp_path):
    (tmp_path / "secret.png").write_bytes(hostile.png(8, 8))
    image = files.read_json(os.path.join(tiny_copy, golden.FILE))["images"][0]
    os.unlink(os.path.join(tiny_copy, "golden", image))
    os.symlink(str(tmp_path / "secret.png"), os.path.join(tiny_copy, "golden", image))
    with refused(BadInput, where=image):
        golden.read(tiny_copy)
    shutil.move(os.path.join(tiny_copy, "models"), str(tmp_path / "models"))
    os.symlink(str(tmp_path / "models"), os.path.join(tiny_copy, "models"))
    with refused(BadInput, where="models"):
        manifest.load(tiny_copy).path(manifest.load(tiny_copy).variant(None))


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "a/../../b.jpg", "..\\a.jpg", "", None, 3, "a\0.jpg"])
def test_names_of_the_users_photographs_stay_in_their_folder(name, tmp_path):
    with pytest.raises(BadInput):
        paths.below(str(tmp_path), name)
    assert paths.below(str(tmp_path), "my photo (1).jpg") == str(tmp_path / "my photo (1).jpg")


# ------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("what", sorted(hostile.large_pictures()))
def test_a_picture_is_bounded_before_it_is_decoded(what, tmp_path, monkeypatch):
    def decode(*_):
        raise AssertionError("it was decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    data = hostile.large_pictures()[what]
    assert len(data) < 1 << 20
    path = str(tmp_path / "x.png")
    with open(path, "wb") as file:
        file.write(data)
    with refused(BadInput, where=path, names="pixels") as caught:
        imagefile.read(path)
    _one_line(caught.value)


def test_a_plain_picture_has_the_size_that_is_read_from_its_head(tmp_path):
    import numpy as np

    frame = np.random.RandomState(0).randint(0, 255, (37, 53, 3)).astype(np.uint8)
    for end in (".png", ".jpg", ".bmp", ".webp"):
        data = cv2.imencode(end, frame)[1].tobytes()
        assert imagefile.size_of(data) == (53, 37), end
        assert imagefile.decode(data, end).shape == frame.shape
        for length in range(0, len(data), 7):  # cut off anywhere: no size, or the true one
            assert imagefile.size_of(data[:length]) in (None, (53, 37))
    assert imagefile.read(str(tmp_path / "none.png")) is None and imagefile.decode(b"", "x") is None


def test_a_golden_picture_that_announces_too_much_is_refused(tiny_copy):
    image = files.read_json(os.path.join(tiny_copy, golden.FILE))["images"][0]
    for data in (hostile.png(26000, 26000), hostile.png(3000, 3000), b"GIF89a" + b"\xff" * 40, b""):
        with open(os.path.join(tiny_copy, "golden", image), "wb") as file:
            file.write(data)
        _sealed(tiny_copy)
        with pytest.raises(BadInput) as caught:
            golden.read(tiny_copy)
        _one_line(caught.value)


# ----------------------------------------------------------------------------------------------------------- JSON

JSON = {
    "a whole number of 300,000 digits": b'{"a": ' + b"7" * 300000 + b"}",
    "a negative one": b"[-" + b"7" * 300000 + b"]",
    "as a key's value, deep": b'{"a": {"b": [' + b"9" * 5000 + b"]}}",
    "lists in lists": b"[" * 65 + b"]" * 65,
    "lists in lists, 100,000": b"[" * 100000 + b"]" * 100000,
    "lists without an end": b"[" * 100000,
    "objects in objects": b'{"a":' * 100 + b"1" + b"}" * 100,
    "both in turn": b'[{"a":' * 50 + b"1" + b"}]" * 50,
    "a million lists": b"[" + b"[]," * 1000000 + b"[]]",
    "a million objects": b"[" + b"{}," * 1000000 + b"{}]",
    "too long": b'"' + b"x" * (5 << 20) + b'"',
    "an open string of quotes": b'"' + b'\\"' * 1000000,
    "an open string of backslashes": b'"' + b"\\\\" * 1000000,
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "nothing": b"",
    "blanks": b" " * 100000,
    "cut off": b'{"a": [1, 2',
    "two values": b"{}{}",
    "a comment": b"{} // x",
    "a zero byte": b'{"a\0": 1}',
    "a lone bracket": b"]" * 100,
    "brackets that do not match": b"[{]}" * 1000,
    "a picture": hostile.png(8, 8),
}


@pytest.mark.parametrize("what", sorted(JSON))
def test_json_is_bounded(what, tmp_path, tiny_copy):
    path = str(tmp_path / "x.json")
    with open(path, "wb") as file:
        file.write(JSON[what])
    with pytest.raises(BadInput) as caught:
        files.read_json(path, 4 << 20)
    _one_line(caught.value)
    assert path in caught.value.where
    for name in ("manifest.json", golden.FILE):
        shutil.copy(path, os.path.join(tiny_copy, name))
    for read in (manifest.load, tarball.check_sizes, golden.read):
        with pytest.raises(BadInput) as caught:
            read(tiny_copy)
        _one_line(caught.value)


def test_json_that_only_looks_dangerous_is_read():
    deep = b"[" * 60 + b"]" * 60
    text = b'{"[[[[[": "]]]\\"[[[\\\\", "a": ' + deep + b', "n": ' + b"1" * 300 + b', "f": 1.' + b"5" * 5000 + b"}"
    found = files.parse_json(text, "x")
    assert found["[[[[["] == ']]]"[[[\\' and found["n"] == int("1" * 300) and found["f"] == pytest.approx(1.5555555)


# ------------------------------------------------------------------------------------------------------- manifest

MANIFEST = {
    "name of terminal codes": {"name": "\x1b]0;owned\x07"},
    "name with a line break": {"name": "a\nok: all is well"},
    "name of half a character": {"name": "\ud800"},
    "name turned round": {"name": "a\u202eb"},
    "name of a megabyte": {"name": "x" * (1 << 20)},
    "created": {"created": "\x1b[2J"},
    "variants without end": {"variants": [{}] * 10},
    "a huge version": {"schema_version": 10**300},
    "version true": {"schema_version": True},
    "classes": {"classes": {"a": 1}},
    "decode": {"decode": {"strides": [8, 16, 32], "box": "exp", "score": 0.5, "iou": 0.5, "max_detections": 10**300}},
    "strides": {"decode": {"strides": [10**30], "box": "exp", "score": 0.5, "iou": 0.5, "max_detections": 9}},
    "nan": {"decode": {"strides": [8], "box": "exp", "score": float("nan"), "iou": 0.5, "max_detections": 9}},
    "default": {"default_variant": "../x"},
}
VARIANT = {
    "variant name with a line break": {"name": "t\n"},
    "variant name with a blank": {"name": "a --source /etc/passwd"},
    "variant name with %": {"name": "%h"},
    "variant name without end": {"name": "a" * 5000},
    "sha256 with a line break": {"sha256": "0" * 64 + "\n"},
    "bytes": {"bytes": -1},
    "input of 8192 x 8192": {"input_wh": [8192, 8192]},
    "input of 2^31": {"input_wh": [2**31, 32]},
    "input of true": {"input_wh": [True, True]},
    "runtime": {"runtimes": ["os.system"]},
    "precision": {"precision": "../x"},
    "macs": {"macs": -(10**30)},
    "ap": {"ap": {"onnxruntime": {"map50": float("inf")}}},
    "a reason of terminal codes": {"ap_reason": {"tensorrt": "\x1b[31m"}},
    "targets": {"targets": ["\x1b]2;x\x07"]},
}
MANIFEST.update(VARIANT)


@pytest.mark.parametrize("what", sorted(MANIFEST))
def test_a_hostile_manifest_is_refused(what, tiny_bundle):
    document = files.read_json(os.path.join(tiny_bundle, "manifest.json"))
    if what in VARIANT:
        changed = dict(document, variants=[dict(document["variants"][0], **VARIANT[what])] + document["variants"][1:])
    else:
        changed = dict(document, **MANIFEST[what])
    assert manifest.problems(document) == []
    with pytest.raises(BadInput) as caught:
        manifest.parse(changed, "b")
    text = str(caught.value)
    assert len(text) < 3000 and "\x1b" not in text and "\ud800" not in text


# --------------------------------------------------------------------------------------------------------- golden

_FACE = {"xyxy": [1, 2, 3, 4], "scores": [0.5, 0.1, 0.1]}
GOLDEN = {
    "a list": [],
    "text": "x",
    "no images": {"images": []},
    "images of 17": {"images": ["drawn_0.png"] * 17},
    "images an object": {"images": {"drawn_0.png": 1}},
    "an image of the models": {"images": ["../models/t.onnx"]},
    "an image that is not listed": {"images": ["other.png"]},
    "the results themselves": {"images": ["golden.json"]},
    "expected a list": {"expected": []},
    "fewer entries": {"expected": {"t-416x256": []}},
    "entries of text": {"expected": {"t-416x256": ["x", "x", "x", "x"]}},
    "no score": {"faces": []},
    "score nan": {"score": float("nan"), "faces": []},
    "score 5": {"score": 5, "faces": []},
    "score true": {"score": True, "faces": []},
    "faces an object": {"score": 0.5, "faces": {}},
    "300 faces": {"score": 0.5, "faces": [_FACE] * 300},
    "three numbers": {"score": 0.5, "faces": [dict(_FACE, xyxy=[1, 2, 3])]},
    "text for numbers": {"score": 0.5, "faces": [dict(_FACE, xyxy=["1", "2", "3", "4"])]},
    "a box of 1e300": {"score": 0.5, "faces": [dict(_FACE, xyxy=[0, 0, 1e300, 1e300])]},
    "no scores": {"score": 0.5, "faces": [dict(_FACE, scores=[])]},
    "scores of two lengths": {"score": 0.5, "faces": [_FACE, dict(_FACE, scores=[0.5])]},
    "scores of infinity": {"score": 0.5, "faces": [dict(_FACE, scores=[float("inf")] * 3)]},
    "scores of other classes": {"score": 0.5, "faces": [dict(_FACE, scores=[0.5])]},
}


@pytest.mark.parametrize("what", sorted(GOLDEN))
def test_hostile_golden_results_are_refused(what, tiny_copy):
    import json

    path = os.path.join(tiny_copy, golden.FILE)
    content = files.read_json(path)
    change = GOLDEN[what]
    if isinstance(change, dict) and ("score" in change or "faces" in change):
        change = {"expected": {key: [change] * len(content["images"]) for key in content["expected"]}}
    with open(path, "w") as file:
        json.dump(dict(content, **change) if isinstance(change, dict) else change, file)
    _sealed(tiny_copy)
    with pytest.raises(BadInput) as caught:
        golden.check(tiny_copy, runtime="onnxruntime")
    _one_line(caught.value)


def test_a_bundle_that_is_as_it_should_be_passes_all_of_this(tiny_copy):
    _sealed(tiny_copy)
    assert install.check(tiny_copy) and golden.require(tiny_copy, runtime="onnxruntime")["faces"]
    assert isinstance(JetmaskError("x"), Exception)
