"""Bundles are written whole, always the same, signed on demand; the command line from outside."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
from refusals import failed, refused

from jetson import files
from jetson.bundle import manifest, signing, tarball
from jetson.errors import BadInput, UsageError
from jetson.evaluation import average_precision
from jetson.inference import golden
from jetson.install import installer as install
from pipeline.bundle import golden as drawn
from pipeline.bundle import writer
from pipeline.latency import cli as predict

WH = (320, 192)


def _recipe(tiny_bundle, **changes):
    models = os.path.join(tiny_bundle, "models")
    recipe = {
        "models": {
            "t": {
                "fp32": os.path.join(models, "t.onnx"),
                "int8-cpu": os.path.join(models, "t.int8-cpu.onnx"),
                "int8": os.path.join(models, "t.int8.onnx"),
            }
        },
        "variants": [
            {
                "name": "t-320x192-fp32",
                "model": "t",
                "input_wh": WH,
                "precision": "fp32",
                "macs": 5,
                "runtimes": ["onnxruntime", "tensorrt"],
                "ap": {"onnxruntime": {"map50": 50.0, "split": "val", "images": 3}},
            },
            {"name": "t-320x192-fp16", "model": "t", "input_wh": WH, "precision": "fp16", "runtimes": ["tensorrt"]},
            {
                "name": "t-320x192-int8-cpu",
                "model": "t",
                "input_wh": WH,
                "precision": "int8-cpu",
                "runtimes": ["onnxruntime"],
            },
            {"name": "t-320x192-int8", "model": "t", "input_wh": WH, "precision": "int8", "runtimes": ["tensorrt"]},
        ],
        "calibration": {"t": {"images": 3}, "t.cache": "TRT-8201-EntropyCalibration2\nimage: 3c010a14\n"},
        "card": "# card\n",
        "provenance": {"versions": {"onnx": "1"}},
        "created": "2026-01-01T00:00:00Z",
    }
    recipe.update(changes)
    return recipe


@pytest.fixture(scope="module")
def written(tiny_bundle, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("written") / "bundle")
    return folder, writer.write(folder, **_recipe(tiny_bundle))


def _jetmask(*words, **options):
    return subprocess.run([sys.executable, "-m", "pipeline.cli", *words], capture_output=True, text=True, **options)


def test_a_written_bundle_is_whole_and_its_files_are_where_they_belong(written):
    folder, digest = written
    assert install.check(folder, digest) == digest
    contents = manifest.load(folder)
    found = {variant.name: variant.file for variant in contents.variants}
    assert found == {
        "t-320x192-fp32": "models/t.onnx",
        "t-320x192-fp16": "models/t.onnx",
        "t-320x192-int8-cpu": "models/t.int8-cpu.onnx",
        "t-320x192-int8": "models/t.int8.onnx",
    }
    assert contents.default_variant == "t-320x192-fp32"
    assert files.read_json(os.path.join(folder, "calibration", "t.json")) == {"images": 3}
    assert contents.variant("t-320x192-int8").ap == {"tensorrt": None}
    assert "not evaluated" in contents.variant("t-320x192-int8").ap_reason["tensorrt"]
    assert not os.path.exists(os.path.join(folder, "eval"))


def test_the_same_input_gives_the_same_bytes(written, tiny_bundle, tmp_path):
    folder, digest = written
    assert writer.write(str(tmp_path / "again"), **_recipe(tiny_bundle)) == digest
    for number, source in enumerate((folder, str(tmp_path / "again"))):
        tarball.pack(source, str(tmp_path / f"{number}.tar"))
    assert files.sha256(str(tmp_path / "0.tar")) == files.sha256(str(tmp_path / "1.tar"))


def test_the_manifest_follows_its_published_schema(written, tiny_bundle, root):
    schema = files.read_json(os.path.join(root, "jetson", "bundle", "manifest.schema.json"))
    jsonschema.Draft202012Validator.check_schema(schema)
    for folder in (written[0], tiny_bundle):
        jsonschema.validate(files.read_json(os.path.join(folder, "manifest.json")), schema)


@pytest.mark.parametrize(
    "path,value",
    [
        (("schema_version",), 3),
        (("schema_version",), None),
        (("classes",), []),
        (("variants",), []),
        (("name",), ""),
        (("decode", "score"), 2),
        (("decode", "box"), "linear"),
        (("variants", 0, "input_wh"), [320, 190]),
        (("variants", 0, "input_wh"), [320]),
        (("variants", 0, "sha256"), "x"),
        (("variants", 0, "precision"), "int4"),
        (("variants", 0, "runtimes"), ["cuda"]),
        (("variants", 0, "bytes"), 0),
        (("variants", 0, "file"), "/etc/x"),
        (("variants", 0, "ap"), {"onnxruntime": {"map50": 101}}),
        (("variants", 0, "ap"), {"cuda": None}),
        (("variants", 0, "name"), "a b"),
        (("variants", 0, "macs"), -1),
        (("preprocessing",), "other"),
    ],
)
def test_schema_and_reader_refuse_the_same(written, root, path, value):
    document = files.read_json(os.path.join(written[0], "manifest.json"))
    place = document
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    validator = jsonschema.Draft202012Validator(
        files.read_json(os.path.join(root, "jetson", "bundle", "manifest.schema.json"))
    )
    assert list(validator.iter_errors(document))
    assert manifest.problems(document)


def test_unknown_keys_are_let_through_by_both(written, root):
    document = files.read_json(os.path.join(written[0], "manifest.json"))
    document["from_the_future"] = document["variants"][0]["also"] = 1
    jsonschema.validate(document, files.read_json(os.path.join(root, "jetson", "bundle", "manifest.schema.json")))
    assert manifest.problems(document) == []


def test_the_bill_of_materials_names_every_model(written):
    sbom = files.read_json(os.path.join(written[0], "sbom.cdx.json"))
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.5")
    contents = manifest.load(written[0])
    hashes = {part["name"]: part["hashes"][0]["content"] for part in sbom["components"]}
    assert hashes == {variant.file: variant.sha256 for variant in contents.variants}


@pytest.mark.parametrize("which", ["written", "shipped"])
def test_the_bill_of_materials_follows_cyclonedxs_own_schema(written, root, which):
    """The schema comes with CycloneDX's Python library, with those that it refers to."""
    import cyclonedx.schema
    import referencing
    import referencing.jsonschema

    folder = os.path.join(os.path.dirname(cyclonedx.schema.__file__), "_res")
    schemas = {
        name: files.read_json(os.path.join(folder, name + ".SNAPSHOT.schema.json"))
        for name in ("bom-1.5", "spdx", "jsf-0.82")
    }
    registry = referencing.Registry().with_resources(
        (schema["$id"], referencing.jsonschema.DRAFT7.create_resource(schema)) for schema in schemas.values()
    )
    validator = jsonschema.Draft7Validator(
        schemas["bom-1.5"], registry=registry, format_checker=jsonschema.FormatChecker()
    )
    place = written[0] if which == "written" else os.path.join(root, "jetson", "models")
    sbom = files.read_json(os.path.join(place, "sbom.cdx.json"))
    validator.validate(sbom)
    sbom["components"][0]["hashes"][0]["content"] = "not a hash"
    assert not validator.is_valid(sbom)


@pytest.mark.parametrize(
    "change,error,word",
    [
        ({"models": {"t": {"fp32": "/nowhere/t.onnx"}}}, BadInput, "/nowhere/t.onnx"),
        ({"models": {"t": {"fp8": "x"}}}, UsageError, "fp8"),
        ({"models": {}}, BadInput, "models/t.onnx"),
        ({"variants": []}, BadInput, "variants"),
        ({"variants": [{"name": "x"}]}, BadInput, "variant"),
        ({"default_variant": "none"}, BadInput, "none"),
    ],
)
def test_a_wrong_recipe_leaves_no_folder(tiny_bundle, tmp_path, change, error, word):
    with refused(error, names=word):
        writer.write(str(tmp_path / "b"), **_recipe(tiny_bundle, **change))
    assert os.listdir(tmp_path) == []


def test_an_old_bundle_is_replaced_and_anything_else_is_not(written, tiny_bundle, tmp_path):
    target = str(tmp_path / "b")
    shutil.copytree(written[0], target)
    changed = writer.write(target, **_recipe(tiny_bundle, card="# another\n"))
    assert changed != written[1] and install.check(target, changed)
    assert os.listdir(tmp_path) == ["b"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letters.txt").write_text("keep")
    with pytest.raises(UsageError):
        writer.write(str(tmp_path / "home"), **_recipe(tiny_bundle))
    assert os.listdir(tmp_path / "home") == ["letters.txt"]


def test_a_link_to_a_bundle_stays_one(written, tiny_bundle, tmp_path):
    shutil.copytree(written[0], str(tmp_path / "first"))
    os.symlink("first", str(tmp_path / "latest"))
    changed = writer.write(str(tmp_path / "latest"), **_recipe(tiny_bundle, card="# another\n"))
    assert os.readlink(tmp_path / "latest") == "first" and install.check(str(tmp_path / "first"), changed)
    assert sorted(os.listdir(tmp_path)) == ["first", "latest"]


def test_an_old_bundle_that_a_killed_writer_had_moved_away_comes_back(written, tiny_bundle, tmp_path):
    """Where a file system cannot swap two folders, there is an instant without any; the only copy must not be swept."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    away = f".b.{dead.pid}.0123abcd.partial"
    shutil.copytree(written[0], str(tmp_path / (away + ".old")))
    (tmp_path / away).mkdir()
    with pytest.raises(BadInput):
        writer.write(str(tmp_path / "b"), **_recipe(tiny_bundle, variants=[]))
    assert install.check(str(tmp_path / "b"), written[1])
    assert os.listdir(tmp_path) == ["b"]


def test_a_bundle_is_not_packed_into_itself(written, tmp_path):
    folder = str(tmp_path / "b")
    shutil.copytree(written[0], folder)
    done = _jetmask("bundle", "pack", folder, os.path.join(folder, "models", "b.tar"))
    failed(done, 2, names=folder)
    assert install.check(folder, written[1])


def test_golden_inputs_are_the_same_for_ever_and_hold_for_every_variant_here(written):
    assert [frame.tobytes() for frame in drawn.draw(2)] == [frame.tobytes() for frame in drawn.draw(2)]
    for name in ("t-320x192-fp32", "t-320x192-int8-cpu"):
        assert golden.check(written[0], name)["differences"] == []


def test_golden_inputs_find_a_wrong_colour_order(tiny_copy, monkeypatch):
    """A runner that swaps red and blue must not pass: the tiny net tells classes by colour."""
    import numpy as np

    from jetson.inference import detector

    plain = detector.Detector.detect
    monkeypatch.setattr(
        detector.Detector,
        "detect",
        lambda self, frame, score=None: plain(self, np.ascontiguousarray(frame[..., ::-1]), score),
    )
    assert golden.check(tiny_copy)["differences"]


def _split(folder, names, labelled=True):
    """A SPLIT_DIR of drawn squares, for the tiny bundle's net."""
    import cv2
    import squares

    images, annotations = [], []
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), squares.draw((320, 192), [(number % 2, 100, 80, 68)], number))
        images.append({"id": number, "file_name": name, "width": 320, "height": 192})
        if labelled:
            annotations.append(
                {"id": number, "image_id": number, "category_id": number % 2 + 1, "bbox": [66, 46, 68, 68]}
            )
    files.write_json(
        str(folder / "annotations.json"),
        {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": label + 1, "name": name} for label, name in enumerate(manifest.CLASSES)],
        },
    )
    return str(folder)


def test_photographs_come_in_only_when_asked(tiny_bundle, tmp_path):
    """Under the names that annotations.json has for them, equal names in two folders too: eval/ is a SPLIT_DIR."""
    names = ["images/a.png", "images/more/a.png"]
    split = _split(tmp_path / "split", names)
    folder = str(tmp_path / "b")
    writer.write(folder, **_recipe(tiny_bundle, photos=split))
    assert {"eval/" + name for name in names} <= set(manifest.listing(folder))
    for truth, name in zip(average_precision.load_split(os.path.join(folder, "eval")), names):
        assert (
            average_precision.read_image(truth).tobytes()
            == average_precision.read_image(truth._replace(file=os.path.join(split, name))).tobytes()
        )
    install.check(folder)


@pytest.mark.parametrize("text", ["[]", "{}", None])
def test_photographs_without_annotations_are_refused(tiny_bundle, tmp_path, text):
    split = tmp_path / "split"
    split.mkdir()
    if text:
        (split / "annotations.json").write_text(text)
    with refused(BadInput, where="annotations.json"):
        writer.write(str(tmp_path / "b"), **_recipe(tiny_bundle, photos=str(split)))
    outside = _split(tmp_path / "outside", ["images/a.png"])
    document = files.read_json(outside + "/annotations.json")
    document["images"][0]["file_name"] = "../outside/images/a.png"
    files.write_json(
        outside + "/annotations.json", dict(document, images=[dict(document["images"][0], file_name="../a.png")])
    )
    shutil.move(outside + "/images/a.png", str(tmp_path / "a.png"))
    with refused(BadInput, where="outside", names="'../a.png'"):
        writer.write(str(tmp_path / "b"), **_recipe(tiny_bundle, photos=outside))


def test_a_full_disk_is_not_called_a_file_that_cannot_be_read(tiny_bundle, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(OSError) as caught:
        writer.write(str(tmp_path / "b"), **_recipe(tiny_bundle))
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


def test_a_file_where_a_folder_is_to_be_is_told(tiny_bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with refused(BadInput, where="file"):
        writer.write(str(tmp_path / "file" / "b"), **_recipe(tiny_bundle))


def test_signing_on_the_command_line(written, tmp_path):
    folder = str(tmp_path / "b")
    shutil.copytree(written[0], folder)
    key = str(tmp_path / "maker")
    assert _jetmask("bundle", "key", key).returncode == 0
    assert os.stat(key).st_mode & 0o777 == 0o600
    assert _jetmask("bundle", "key", key).returncode == 2
    with refused(BadInput, where="b", names=["SHA256SUMS.sig", "jetmask bundle sign"]):
        install.check(folder, keys=signing.read_keys(key + ".pub"))
    done = _jetmask("bundle", "sign", folder, "--key", key)
    assert done.returncode == 0 and written[1] in done.stdout, done.stderr
    assert _jetmask("bundle", "verify", folder, "--key", key + ".pub").returncode == 0
    writer.make_key(str(tmp_path / "other"))
    done = _jetmask("bundle", "verify", folder, "--key", str(tmp_path / "other.pub"))
    failed(done, 3, where="SHA256SUMS.sig")
    # openssl agrees: the format is nobody's own.
    if shutil.which("openssl"):
        done = subprocess.run(
            [
                "openssl",
                "pkeyutl",
                "-verify",
                "-pubin",
                "-inkey",
                key + ".pub",
                "-rawin",
                "-in",
                f"{folder}/SHA256SUMS",
                "-sigfile",
                f"{folder}/SHA256SUMS.sig",
            ],
            capture_output=True,
        )
        assert done.returncode == 0
    with open(os.path.join(folder, "SHA256SUMS"), "r+b") as file:
        file.write(b"0")
    with refused(BadInput, where="SHA256SUMS.sig"):
        install.check(folder, keys=signing.read_keys(key + ".pub"))
    with refused(BadInput, where="maker.pub", names=["PEM", "jetmask bundle key"]):
        writer.sign(folder, key + ".pub")


@pytest.mark.parametrize(
    "change,word",
    [
        ("model byte", "damaged"),
        ("sums byte", "changed after it was signed"),
        ("signature byte", "changed"),
        ("other key", "not by a trusted key"),
        ("stripped", "not signed"),
        ("resealed", "changed after it was signed"),
    ],
)
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_what_is_not_signed_as_it_is_does_not_get_onto_a_device(written, tmp_path, change, word, form):
    """`python3 -m jetson install --key`, under the device's Python where there is one."""
    folder = str(tmp_path / "b")
    shutil.copytree(written[0], folder)
    for name in ("maker", "other"):
        writer.make_key(str(tmp_path / name))
    writer.sign(folder, str(tmp_path / "maker"))
    python = os.environ.get("JETMASK_PYTHON36") or sys.executable
    install_there = [
        python,
        "-m",
        "jetson",
        "install",
        "--stage",
        "--state",
        str(tmp_path / "state"),
        "--key",
        str(tmp_path / ("other.pub" if change == "other key" else "maker.pub")),
    ]

    def flip(name):
        with open(os.path.join(folder, name), "r+b") as file:
            file.seek(40)
            byte = file.read(1)
            file.seek(40)
            file.write(bytes([byte[0] ^ 1]))

    if change.endswith(" byte"):
        flip({"model": "models/t.onnx", "sums": "SHA256SUMS", "signature": "SHA256SUMS.sig"}[change.split()[0]])
    elif change == "stripped":
        os.unlink(os.path.join(folder, "SHA256SUMS.sig"))
    elif change == "resealed":  # a model byte, with sums that fit again and the old signature
        flip("models/t.onnx")
        manifest.write_sums(folder)
    source = folder
    if form == "tar":
        source = str(tmp_path / "b.tar")
        tarball.pack(folder, source)
    done = subprocess.run([*install_there, source], capture_output=True, text=True)
    assert done.returncode == 3 and word in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert os.listdir(tmp_path / "state" / "bundles") == []


@pytest.mark.slow
def test_what_create_is_given_is_checked_by_the_options_own_names(tiny_bundle, tmp_path):
    onnx, place = f"{tiny_bundle}/models/t.onnx", str(tmp_path / "b")
    labelled, unlabelled = (
        _split(tmp_path / name, ["images/a.png"], name == "labelled") for name in ("labelled", "unlabelled")
    )
    for words, code, told in (
        (["--onnx", "t"], 2, "--onnx s="),
        (["--onnx", f"a/b={onnx}"], 2, "--onnx a/b"),
        (["--onnx", f"t={onnx}", "--onnx", f"t={onnx}.other"], 2, "--onnx"),
        (["--onnx", f"t={onnx}", "--tflite", "t"], 2, "--tflite s-416x256-int8="),
        (["--onnx", f"t={onnx}", "--card", f"{place}/no.md"], 3, "no.md"),
        (["--onnx", f"t={onnx}", "--calibration", f"{place}/no"], 3, f"{place}/no"),
        (["--onnx", f"t={onnx}", "--max-drop", "nan"], 2, "--max-drop"),
        (["--onnx", f"t={onnx}", "--sizes", "100x100"], 2, "100x100"),
        (["--onnx", f"t={onnx}", "--default-variant", "t-416x256"], 2, "t-416x256-fp32"),
        (["--onnx", f"t={onnx}", "--data", unlabelled], 3, str(unlabelled)),
        (["--onnx", f"t={onnx}", "--data", labelled, "--key", onnx], 3, f"where: {onnx}"),
        (["--onnx", f"t={onnx}", "--data", labelled, "--include-photos", place], 3, f"where: {place}"),
    ):
        done = _jetmask("bundle", "create", place, *words)
        failed(done, code, names=told)
        assert not os.path.exists(place) and " ms" not in done.stderr  # before anything is measured
    done = _jetmask("bundle", "create", labelled, "--onnx", f"t={onnx}", "--data", labelled)
    failed(done, 2, where=labelled)
    assert " ms" not in done.stderr
    done = _jetmask("bundle", "key", f"{place}/no/key")
    failed(done, 3, names=f"{place}/no")


def test_what_loses_too_much_is_not_in_the_bundle(tiny_bundle, tmp_path):
    """Neither the variant nor its file; and a bundle without fp32 has nothing to compare with."""
    onnx, int8 = f"{tiny_bundle}/models/t.onnx", f"t={tiny_bundle}/models/t.int8-cpu.onnx"
    data = _split(tmp_path / "val", [f"images/{number}.png" for number in range(4)])
    done = _jetmask(
        "bundle",
        "create",
        str(tmp_path / "a"),
        "--onnx",
        f"t={onnx}",
        "--int8-cpu",
        int8,
        "--sizes",
        "320x192",
        "--data",
        data,
        "--max-drop=-101",
        "--default-variant",
        "t-320x192-int8-cpu",
    )
    failed(done, 5, names="t-320x192-int8-cpu")
    contents = manifest.load(str(tmp_path / "a"))
    assert [variant.name for variant in contents.variants] == ["t-320x192-fp32", "t-320x192-fp16"]
    assert os.listdir(tmp_path / "a" / "models") == ["t.onnx"]
    assert {variant.macs for variant in contents.variants} == {predict.predict_ms(onnx, input_wh=(320, 192)).macs}
    done = _jetmask(
        "bundle",
        "create",
        str(tmp_path / "b"),
        "--int8-cpu",
        int8,
        "--fp16",
        f"t={onnx}",
        "--sizes",
        "320x192",
        "--data",
        data,
        "--max-drop=-101",
    )
    assert done.returncode == 0, done.stderr
    assert len(manifest.load(str(tmp_path / "b")).variants) == 2


def test_only_the_models_own_calibration_goes_into_a_bundle(tiny_bundle, tmp_path):
    """A folder of runs holds other JSON too; and a table of another model would be found out on the device only."""
    words = ["--onnx", f"t={tiny_bundle}/models/t.onnx", "--sizes", "320x192", "--calibration", str(tmp_path / "runs")]
    runs = tmp_path / "runs"
    shutil.copytree(os.path.join(tiny_bundle, "calibration"), runs)
    (runs / "report.json").write_text("{}")
    (runs / ".sensitivity.json").write_text("{}")
    done = _jetmask("bundle", "create", str(tmp_path / "b"), *words)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "b" / "calibration") == ["t.json"]
    table = files.read_json(str(runs / "t.json"))
    for change, told in ((dict(table, onnx_sha256="0" * 64), "0" * 64), ({}, "schema_version")):
        files.write_json(str(runs / "t.json"), change)
        done = _jetmask("bundle", "create", str(tmp_path / "c"), *words)
        failed(done, 3, where=runs / "t.json", names=told)
    os.unlink(runs / "t.json")
    done = _jetmask("bundle", "create", str(tmp_path / "c"), *words)
    failed(done, 3, where=runs)
    assert not (tmp_path / "c").exists()


def test_create_pack_and_unpack_on_the_command_line(tiny_bundle, tmp_path):
    models = os.path.join(tiny_bundle, "models")
    done = _jetmask(
        "bundle",
        "create",
        str(tmp_path / "b"),
        "--onnx",
        f"t={models}/t.onnx",
        "--int8-cpu",
        f"t={models}/t.int8-cpu.onnx",
        "--sizes",
        "320x192",
        "--json",
        env=dict(os.environ, SOURCE_DATE_EPOCH="1700000000"),
    )
    assert done.returncode == 0, done.stderr
    digest = json.loads(done.stdout)["digest"]
    assert manifest.load(str(tmp_path / "b")).created == "2023-11-14T22:13:20Z"
    assert _jetmask("bundle", "pack", str(tmp_path / "b"), str(tmp_path / "b.tar")).returncode == 0
    done = _jetmask("bundle", "unpack", str(tmp_path / "b.tar"), str(tmp_path / "c"))
    assert done.returncode == 0 and digest in done.stdout, done.stderr
    assert install.check(str(tmp_path / "c"), digest)
    for wrong in (
        ["create", str(tmp_path / "d")],
        ["create", str(tmp_path / "d"), "--onnx", "t"],
        ["create", str(tmp_path / "d"), "--onnx", f"t={models}/t.onnx", "--sizes", "big"],
    ):
        done = _jetmask("bundle", *wrong)
        assert done.returncode == 2 and "Traceback" not in done.stderr
    assert not (tmp_path / "d").exists()


def _kill_while_writing(tiny_bundle, root, target, delay_s):
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from pipeline.bundle import writer; "
        "recipe = json.loads(sys.argv[3]); print('go', flush=True); print(writer.write(sys.argv[2], **recipe))"
    )
    recipe = json.dumps(_recipe(tiny_bundle, card="# new"))
    process = subprocess.Popen(
        [sys.executable, "-c", code, root, target, recipe], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout.readline() == "go\n"
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _kills(written, tiny_bundle, root, tmp_path, count):
    target = str(tmp_path / "b")
    shutil.copytree(written[0], target)
    started = time.monotonic()
    new = writer.write(str(tmp_path / "new"), **_recipe(tiny_bundle, card="# new"))
    lasts_s = time.monotonic() - started
    moments = random.Random(7)
    for number in range(count):
        _kill_while_writing(tiny_bundle, root, target, lasts_s * (number + moments.random()) / count)
        assert install.check(target) in (written[1], new)
    assert writer.write(target, **_recipe(tiny_bundle, card="# new")) == new
    assert sorted(os.listdir(tmp_path)) == ["b", "new"]


def test_kills_while_writing_leave_the_old_bundle_or_the_new_one(written, tiny_bundle, root, tmp_path):
    _kills(written, tiny_bundle, root, tmp_path, 3)


@pytest.mark.full
def test_many_kills_while_writing(written, tiny_bundle, root, tmp_path):
    _kills(written, tiny_bundle, root, tmp_path, 40)
