"""`jetmask build` from outside: files with gate and lint, trtexec commands, refusals, engines of a bundle."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import cv2
import machine
import onnx
import pytest
from onnx import TensorProto, helper

from jetson import files
from jetson.bundle import manifest
from jetson.engine import onnx_facts
from jetson.errors import BadInput, DeviceMismatch
from pipeline.build import engines, trtexec


def jetmask(root, *arguments, **options):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "build", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
        **options,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def split(tmp_path_factory, root):
    """A SPLIT_DIR of drawn squares that the tiny net finds."""
    import squares

    folder = tmp_path_factory.mktemp("split")
    os.mkdir(folder / "images")
    images, annotations = [], []
    for index in range(10):
        faces = [(index % 2, 100 + 20 * index, 120, 40), ((index + 1) % 2, 300, 60 + 10 * index, 30)]
        cv2.imwrite(str(folder / "images" / f"{index}.png"), squares.draw((416, 256), faces, seed=index))
        images.append(
            {"id": index, "file_name": f"images/{index}.png", "width": 416, "height": 256, "ignore_boxes": []}
        )
        for label, x, y, side in faces:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": label + 1,
                    "iscrowd": 0,
                    "bbox": [x - side / 2, y - side / 2, side, side],
                    "area": side * side,
                }
            )
    files.write_json(
        str(folder / "annotations.json"),
        {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(manifest.CLASSES)],
        },
    )
    return str(folder)


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("target, capability, board", [("nano", "5.3", "Jetson Nano"), ("tx2", "6.2", "Jetson TX2")])
def test_int8_for_a_board_without_it_is_a_helpful_refusal(root, target, capability, board):
    status, out, err = jetmask(root, "--target", target, "--precision", "int8")
    assert status == 4 and not out
    for words in (
        "no INT8 hardware",
        capability,
        board,
        "NVIDIA/TensorRT#3399",
        "same size and speed as FP16",
        f"--target {target} --precision fp16",
        "int8-cpu",
    ):
        assert words in err, words
    assert "Traceback" not in err


@pytest.mark.slow
def test_what_is_missing_is_said(root, tiny_bundle, tmp_path):
    onnx = os.path.join(tiny_bundle, "models", "t.onnx")
    for arguments, status, words in (
        ((), 2, "nothing to build"),
        (("nowhere.onnx",), 3, "no such file"),
        ((onnx, "--precision", "fp16"), 2, "--out DIR"),
        ((onnx, "--target", "nanno"), 2, "did you mean nano"),
        ((onnx, "--precision", "int8", "--out", str(tmp_path)), 2, "int8 needs calibration"),
        ((onnx, "--precision", "auto", "--out", str(tmp_path)), 2, "--calibration-data"),
        ((os.path.join(tiny_bundle, "models", "t.int8.onnx"), "--out", str(tmp_path)), 3, "not a float32 model"),
        ((onnx, "--precision", "fp16", "--out", __file__), 3, "a file is where a folder is to be"),
        ((onnx, "--precision", "fp16", "--out", str(tmp_path), "--max-drop", "nan"), 2, "--max-drop"),
        ((onnx, "--print-trtexec"), 4, "no TensorRT"),
    ):
        got, _, err = jetmask(root, *arguments)
        assert got == status and words in err, (arguments, err)


# ------------------------------------------------------------------------------------------- files


def test_files_of_a_model_measured_against_float32(root, tiny_bundle, split, tmp_path):
    onnx = os.path.join(tiny_bundle, "models", "t.onnx")
    status, out, err = jetmask(
        root,
        onnx,
        "--out",
        str(tmp_path / "o"),
        "--calibration-data",
        split,
        "--data",
        split,
        "--max-drop",
        "100",
        "--json",
    )
    assert status == 0, err
    rows = {row["precision"]: row for row in json.loads(out)["built"]}
    assert set(rows) == {"fp16", "int8", "int8-cpu"}
    assert sorted(os.listdir(tmp_path / "o")) == ["t.fp16.onnx", "t.int8-cpu.onnx", "t.int8.onnx", "t.json"]
    for row in rows.values():
        assert row["bytes"] == os.path.getsize(row["file"]) and row["images"] == 10
        assert row["low"] <= row["difference"] <= row["high"]
    assert abs(rows["fp16"]["difference"]) <= 1
    assert "simulated" in rows["int8"]["note"] and "note" not in rows["int8-cpu"]


def test_what_loses_too_much_is_not_kept(root, tiny_bundle, split, tmp_path):
    """A table with absurd ranges ruins int8; the old file of that name stays as it was."""
    from jetson.engine import calibration

    onnx = os.path.join(tiny_bundle, "models", "t.onnx")
    table = calibration.read(os.path.join(tiny_bundle, "calibration", "t.json"))
    spoilt = str(tmp_path / "spoilt.json")
    calibration.write(spoilt, table._replace(ranges=dict.fromkeys(table.ranges, 1e-3)))
    os.mkdir(tmp_path / "o")
    files.write_text(str(tmp_path / "o" / "t.int8-cpu.onnx"), "the one of yesterday")
    status, out, err = jetmask(
        root,
        onnx,
        "--precision",
        "int8-cpu",
        "--out",
        str(tmp_path / "o"),
        "--calibration",
        spoilt,
        "--data",
        split,
        "--json",
    )
    assert status == 5 and "mAP50" in err and "--precision auto" in err
    assert "failed" in json.loads(out)["built"][0]
    with open(tmp_path / "o" / "t.int8-cpu.onnx") as file:
        assert file.read() == "the one of yesterday"
    assert sorted(os.listdir(tmp_path / "o")) == ["t.int8-cpu.onnx", "t.json"]


def test_a_table_of_another_model_is_refused(root, tiny_bundle, tmp_path):
    from jetson.engine import calibration

    table = calibration.read(os.path.join(tiny_bundle, "calibration", "t.json"))
    path = str(tmp_path / "other.json")
    calibration.write(path, table._replace(onnx_sha256="0" * 64))
    status, _, err = jetmask(
        root,
        os.path.join(tiny_bundle, "models", "t.onnx"),
        "--precision",
        "int8-cpu",
        "--out",
        str(tmp_path / "o"),
        "--calibration",
        path,
    )
    assert status == 3 and "belongs to a different model" in err


def test_a_bundle_takes_the_measured_ap_and_leaves_out_what_loses_too_much(root, tiny_bundle, split, tmp_path):
    from jetson.engine import calibration
    from pipeline.quantization import quantize

    onnx = os.path.join(tiny_bundle, "models", "t.onnx")
    table = calibration.read(os.path.join(tiny_bundle, "calibration", "t.json"))
    table = table._replace(ranges=dict.fromkeys(table.ranges, 1e-3))
    spoilt = quantize.int8_cpu(onnx, table, str(tmp_path / "bad.onnx"))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pipeline.cli",
            "bundle",
            "create",
            str(tmp_path / "b"),
            "--onnx",
            "t=" + onnx,
            "--int8-cpu",
            f"t={spoilt}",
            "--sizes",
            "416x256",
            "--data",
            split,
        ],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5 and "t-416x256-int8-cpu -" in done.stderr and "Traceback" not in done.stderr
    variants = {v.name: v for v in manifest.load(str(tmp_path / "b")).variants}
    assert set(variants) == {"t-416x256-fp32", "t-416x256-fp16"}
    assert variants["t-416x256-fp32"].ap["onnxruntime"]["map50"] > 50
    assert variants["t-416x256-fp16"].ap["tensorrt"] is None


@pytest.mark.slow
def test_auto_keeps_layers_in_float_writes_them_into_the_table_and_remembers(root, tiny_bundle, split, tmp_path):
    from jetson.engine import calibration

    onnx = os.path.join(tiny_bundle, "models", "t.onnx")
    arguments = (
        onnx,
        "--precision",
        "auto",
        "--out",
        str(tmp_path / "o"),
        "--calibration-data",
        split,
        "--data",
        split,
        "--max-drop",
        "3",
        "--json",
    )
    status, out, err = jetmask(root, *arguments)
    assert status == 0, err
    rows = {row["precision"]: row for row in json.loads(out)["built"]}
    assert set(rows) == {"int8", "int8-cpu"} and all(row["difference"] >= -3 for row in rows.values())
    assert "most sensitive: " in err and "layers kept in float: mAP50" in err
    kept = calibration.read(str(tmp_path / "o" / "t.json")).layer_precisions["int8"]
    assert len(kept) == rows["int8"]["kept"] and set(kept.values()) <= {"fp16"}
    again = json.loads(jetmask(root, *arguments)[1])["built"]  # from the cache: the same mix, the same figures
    assert [(row["kept"], row["difference"]) for row in again] == [
        (row["kept"], row["difference"]) for row in rows.values()
    ]


# ------------------------------------------------------------------------------------------- trtexec

VERBOSE = "--profilingVerbosity=detailed"


def words_of(version, precision, **options):
    return shlex.split(trtexec.command(version, "m s.onnx", "e.plan", (416, 256), precision, 256 << 20, **options))[1:]


def test_trtexec_in_the_spelling_of_each_version():
    common = ["--onnx=m s.onnx", "--saveEngine=e.plan", "--shapes=image:1x3x256x416"]
    assert words_of((8, 2), "fp16") == [*common, "--fp16", "--workspace=256", VERBOSE, "--buildOnly"]
    assert words_of((8, 6), "fp16") == [*common, "--fp16", "--memPoolSize=workspace:256", VERBOSE, "--skipInference"]
    assert words_of((10, 3), "int8", quantized=True)[3:5] == ["--fp16", "--int8"]
    assert "--calib=c.cache" in words_of((8, 5), "int8", cache="c.cache")
    typed = words_of((11, 1), "int8", quantized=True)
    assert not {"--fp16", "--int8"} & set(typed) and "--skipInference" in typed
    assert words_of((11, 1), "fp16", half=True)[3:] == ["--memPoolSize=workspace:256", VERBOSE, "--skipInference"]
    assert "--noTF32" in words_of((10, 3), "fp32")


@pytest.mark.parametrize(
    "version, precision, error",
    [((8, 2), "int8", BadInput), ((11, 0), "fp16", DeviceMismatch), ((11, 0), "int8", DeviceMismatch)],
)
def test_trtexec_that_would_build_something_else_is_refused(version, precision, error):
    with pytest.raises(error):
        words_of(version, precision)


@pytest.mark.parametrize(
    "inputs, shapes",
    [
        ([("images", (1, 3, 640, 640))], None),
        ([("images", (1, 3, "h", "w"))], "images:1x3x256x416"),
        ([("x", ("N", 3, "h", "w"))], "x:1x3x256x416"),
        ([("x", (None, "h", "w", 3))], "x:1x256x416x3"),
        ([("x", ("N", 3, 224, 224))], "x:1x3x224x224"),
        ([("x", (1, 3, "h", "w")), ("ratio", ("N",))], "x:1x3x256x416,ratio:1"),
    ],
)
def test_the_shapes_are_those_of_the_files_inputs(inputs, shapes):
    values = [onnx_facts.Value(name, 1, shape) for name, shape in inputs]
    assert trtexec.input_shapes(values, (416, 256)) == shapes
    words = words_of((8, 2), "fp16", shapes=shapes)
    assert ("--shapes=" + shapes in words) if shapes else not any("--shapes" in word for word in words)


def test_what_lint_finds_stands_before_the_command(root, tmp_path):
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])
    nodes = [
        helper.make_node("NonZero", ["images"], ["n"], name="odd one"),
        helper.make_node("Cast", ["n"], ["y"], name="c", to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "g", [image], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    path = str(tmp_path / "m.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)
    status, out, err = jetmask(root, path, "--target", "nano", "--print-trtexec")
    assert status == 0 and out.startswith("# note: odd one: operator NonZero") and "--shapes" not in out, err
    status, out, _ = jetmask(root, path, "--target", "nano", "--print-trtexec", "--json")
    assert status == 0 and len(json.loads(out)["findings"]) == 1


def test_print_trtexec_of_a_bundle_and_of_a_file(root, tiny_bundle):
    status, out, err = jetmask(root, tiny_bundle, "--target", "nano", "--print-trtexec", "--json")
    commands = json.loads(out)["commands"]
    assert status == 0 and len(commands) == 4 and not any("int8" in c for c in commands), err
    status, out, _ = jetmask(
        root,
        os.path.join(tiny_bundle, "models", "t.int8.onnx"),
        "--target",
        "orin-nano",
        "--precision",
        "int8",
        "--print-trtexec",
    )
    assert status == 0 and out.count("--int8") == 2, "one for each TensorRT of JetPack 6"


# ------------------------------------------------------------------------------------------- engines


def test_no_gpu_here_says_where_engines_are_built(root, tiny_bundle):
    status, _, err = jetmask(root, tiny_bundle)
    if status == 0:
        pytest.skip("this machine has a GPU with TensorRT")
    assert status == 4 and "python3 -m jetson build" in err and "--print-trtexec" in err


def test_engines_are_measured_and_the_manifest_kept_true(tiny_copy, split, tmp_path):
    """On the double with a real pycuda: the AP through H2D, execute and D2H equals ONNX Runtime's to the last digit."""
    library, site = machine.pycuda()
    there = machine.Machine(library, str(tmp_path / "engines"), "10.3.0", site)
    shutil.rmtree(os.path.join(tiny_copy, "eval"), ignore_errors=True)
    before = manifest.load(tiny_copy)
    status, out, err = there.run(
        "-m", "pipeline.cli", "build", tiny_copy, "--data", split, "--variant", "t-416x256-fp16", "--json", timeout=300
    )
    assert status == 0, err
    (row,) = json.loads(out)["built"]
    assert row["difference"] == 0 == row["low"] == row["high"]
    manifest.verify(tiny_copy)
    after = manifest.load(tiny_copy)
    assert after.variant("t-416x256-fp16").ap["tensorrt"] == {
        "map50": row["map50"],
        "split": os.path.basename(split),
        "images": 10,
    }
    assert "tensorrt" not in after.variant("t-416x256-fp16").ap_reason
    assert [v.name for v in after.variants] == [v.name for v in before.variants]


def test_a_failed_engine_leaves_the_manifest_and_a_default_cannot(tiny_copy):
    row = {"variant": "t-416x256-fp16", "map50": 1.0, "images": 3, "failed": "lost"}
    engines.write_measured(tiny_copy, [row], "val")
    manifest.verify(tiny_copy)
    assert "t-416x256-fp16" not in [v.name for v in manifest.load(tiny_copy).variants]
    from jetson.errors import QualityGate

    with pytest.raises(QualityGate):
        engines.write_measured(tiny_copy, [dict(row, variant="t-416x256-fp32")], "val")
    manifest.verify(tiny_copy)
