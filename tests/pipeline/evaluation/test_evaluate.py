"""`jetmask evaluate` from outside, on drawn squares that the tiny bundle's net finds, and its parts."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from refusals import failed, refused

from jetson.bundle import manifest
from jetson.errors import DeviceMismatch, QualityGate
from jetson.evaluation import average_precision
from pipeline.bundle import variants
from pipeline.evaluation import evaluate

ROOT = Path(__file__).resolve().parents[3]
IMAGES = [
    [(0, 76, 68, 16), (1, 184, 120, 32), (2, 276, 44, 16)],
    [(0, 362, 202, 8), (1, 304, 176, 64)],
    [(1, 104, 72, 32), (0, 200, 136, 16), (0, 248, 200, 16)],
    [],
]


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "evaluate", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def split(tmp_path_factory, draw):
    """A drawn split: one square unlabelled, one with the wrong class, one under an ignore box."""
    folder = tmp_path_factory.mktemp("data") / "drawn"
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, squares in enumerate(IMAGES):
        name = f"images/{number}.png"
        cv2.imwrite(str(folder / name), draw((416, 256), squares, number))
        images.append({"id": number + 10, "file_name": name, "width": 416, "height": 256, "source": f"s{number % 2}"})
        for label, x, y, side in squares:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 10,
                    "category_id": label + 1,
                    "iscrowd": 0,
                    "bbox": [x - side / 2, y - side / 2, side, side],
                    "area": side * side,
                }
            )
    images[2]["ignore_boxes"] = [annotations.pop()["bbox"]]
    annotations[-1]["category_id"] = 2
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(manifest.CLASSES)]
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return folder


def test_json_detections_and_coco_agree(split, tiny_bundle, tmp_path):
    out = tmp_path / "found.json"
    done = run("--bundle", tiny_bundle, "--data", split, "--variant", "t-416x256-fp32", "--json", "--detections", out)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["variant"] == "t-416x256-fp32" and result["runtime"] == "onnxruntime" and result["split"] == "drawn"
    assert result["counts"]["per_class"] == {"with_mask": 2, "without_mask": 4, "mask_worn_incorrect": 1}
    assert result["counts"]["ignore_regions"] == 1
    assert 0 < result["map50"] < 100
    assert result["latency_ms"]["infer_ms"]["p50"] > 0

    # The gating figure again, by COCO's tools, from the written detections alone.
    data = json.loads((split / "annotations.json").read_text())
    found = [entry for entry in json.loads(out.read_text()) if entry["category_id"] < 3]
    assert found and all(entry["score"] > 0.01 for entry in found)
    truth = [dict(a) for a in data["annotations"] if a["category_id"] < 3]
    crowds = [(a["image_id"], a["bbox"]) for a in data["annotations"] if a["category_id"] == 3]
    crowds += [(i["id"], box) for i in data["images"] for box in i.get("ignore_boxes", [])]
    for image_id, box in crowds:
        for category in (1, 2):
            truth.append(
                {
                    "id": len(truth) + 100,
                    "image_id": image_id,
                    "category_id": category,
                    "iscrowd": 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO({**data, "info": {}, "annotations": truth, "categories": data["categories"][:2]})
        check = COCOeval_faster(coco, coco.loadRes(found), "bbox")
        check.params.maxDets = [1, 10, 300]
        check.params.iouThrs = np.array([0.5])
        check.evaluate()
        check.accumulate()
    precision = check.eval["precision"][0, :, :, 0, -1]
    assert result["map50"] == pytest.approx(100 * precision.mean(), abs=1e-6)


def test_the_table_names_everything(split, tiny_bundle):
    done = run("--bundle", tiny_bundle, "--data", split)
    assert done.returncode == 0, done.stderr
    for word in ("two-class mAP50", "with_mask", "under 32 px", "mask_worn_incorrect", "drawn, 4 images", "p95"):
        assert word in done.stdout
    assert "4 of 4 images" in done.stderr


def test_a_comparison_shows_its_bounds_and_gates(split, tiny_bundle):
    same = run(
        "--bundle",
        tiny_bundle,
        "--data",
        split,
        "--variant",
        "t-416x256-int8-cpu",
        "--against",
        "t-416x256-fp32",
        "--max-drop",
        5,
    )
    assert same.returncode == 0 and "95 % bounds" in same.stdout
    worse = run(
        "--bundle",
        tiny_bundle,
        "--data",
        split,
        "--variant",
        "t-320x192-fp32",
        "--against",
        "t-416x256-fp32",
        "--max-drop",
        5,
        "--json",
    )
    failed(worse, 5, names=["mAP50", "--max-drop"])
    against = json.loads(worse.stdout)["against"]
    assert against["difference"] < -5 and against["runtime"] == "onnxruntime"
    assert "against t-416x256-fp32 on onnxruntime" in same.stdout


@pytest.mark.parametrize(
    "arguments, code, word",
    [
        (["--data", "{split}/no"], 3, "the data folder does not exist"),
        (["--variant", "t-416x256-fp3"], 2, "did you mean t-416x256-fp32"),
        (["--runtime", "litert", "--variant", "t-416x256-fp32"], 2, "t-416x256-fp32-litert"),
        (["--bundle", "{split}"], 3, "not a bundle"),
        (["--threads", "0"], 2, "--threads"),
        (["--max-drop", "1"], 2, "--against"),
        (["--negatives", "{split}"], 2, "--report"),
        (["--detections", "{split}/no/where.json"], 3, "no/where.json"),
        (["--detections", "{split}"], 3, "where: {split}"),
        (["--report", "{split}/annotations.json"], 3, "where: {split}/annotations.json"),
        (["--variant", "t-416x256-fp32", "--against", "t-320x192-fp32", "--max-drop", "nan"], 2, "--max-drop"),
        (["--variant", "t-416x256-fp32", "--against", "t-320x192-fp3"], 2, "t-320x192-fp32?"),
        pytest.param(
            ["--variant", "t-416x256-fp32", "--against", "t-320x192-fp16"],
            4,
            "t-320x192-fp16",
            marks=pytest.mark.skipif(evaluate.available()["tensorrt"] is None, reason="TensorRT is here"),
        ),
    ],
)
def test_mistakes_are_named(split, tiny_bundle, arguments, code, word):
    arguments = [argument.format(split=split) for argument in arguments]
    done = run("--bundle", tiny_bundle, "--data", split, *arguments)
    failed(done, code, names=word.format(split=split))
    assert done.stdout == ""
    assert " of 4 images" not in done.stderr  # told before the first image is looked at


def test_a_split_without_images_and_a_broken_image(split, tiny_bundle, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "annotations.json").write_text('{"images": [], "annotations": [], "categories": []}')
    done = run("--bundle", tiny_bundle, "--data", empty)
    failed(done, 3, where="annotations.json")
    data = json.loads((split / "annotations.json").read_text())
    (empty / "annotations.json").write_text(json.dumps(data))
    done = run("--bundle", tiny_bundle, "--data", empty)
    failed(done, 3, where=os.path.join("images", "0.png"))


def entry(name, precision, macs, wh, ap, runtimes=("onnxruntime",)):
    return manifest.Variant(name, "m", "models/m.onnx", "0" * 64, 1, wh, precision, runtimes, macs, ap, {}, ())


def contents(*variants):
    return manifest.Manifest(1, "b", "now", manifest.CLASSES, {}, "", variants[0].name, variants, {}, "")


def test_nothing_to_compare_by_and_nothing_to_look_at_is_told_before_the_first_image(split, tiny_bundle, tmp_path):
    document = json.loads((split / "annotations.json").read_text())
    for name, change in (("nobody", {"annotations": []}), ("nothing", {"annotations": [], "images": []})):
        shutil.copytree(split, tmp_path / name)
        (tmp_path / name / "annotations.json").write_text(json.dumps({**document, **change}))
    for arguments in (
        ("--data", tmp_path / "nobody", "--variant", "t-416x256-fp32", "--against", "t-320x192-fp32"),
        ("--data", split, "--report", tmp_path / "out", "--negatives", tmp_path / "nothing"),
    ):
        done = run("--bundle", tiny_bundle, *arguments)
        assert done.returncode == 3 and "internal" not in done.stderr and "images" not in done.stderr, done.stderr


def test_the_manifests_classes_are_the_parts_of_its_map50():
    """As on the model card; three-class figures beside a two-class mean would not add up."""
    boxes = np.array([[0, 0, 40, 40], [100, 0, 140, 40], [0, 100, 40, 140]], float)
    truths = [average_precision.Truth(1, "a.png", (200, 200), boxes, np.arange(3), np.zeros((0, 4)), "")]
    scores = np.array([[0.5, 0, 0], [0, 0.5, 0], [0.9, 0, 0.1]])  # the wrongly worn mask is taken for a right one
    found = average_precision.evaluate(truths, [(boxes, scores)])
    assert found["per_class"]["with_mask"] > found["three_class"]["per_class"]["with_mask"]
    ((key, entry),) = variants.ap_entries([found | {"variant": "v", "runtime": "onnxruntime", "split": "val"}]).items()
    kept = entry["per_class"]
    assert key == ("v", "onnxruntime") and list(kept) == list(manifest.CLASSES)
    assert (kept["with_mask"] + kept["without_mask"]) / 2 == pytest.approx(entry["map50"])
    assert kept["mask_worn_incorrect"] == pytest.approx(found["three_class"]["per_class"]["mask_worn_incorrect"])


def test_the_most_accurate_is_the_best_measured_one():
    low = entry("low", "fp32", 9, (640, 384), {"onnxruntime": {"map50": 70.0}})
    high = entry("high", "int8-cpu", 1, (320, 192), {"onnxruntime": {"map50": 71.0}})
    never = entry("never", "fp16", 9, (640, 384), {"tensorrt": {"map50": 99.0}}, ("tensorrt",))
    if manifest.RUNTIMES and evaluate.available()["tensorrt"] is not None:
        assert evaluate.most_accurate(contents(low, high, never)) == (high, "onnxruntime")
        with pytest.raises(DeviceMismatch):
            evaluate.most_accurate(contents(never))
    assert evaluate.most_accurate(contents(low, high), "onnxruntime") == (high, "onnxruntime")


def test_unmeasured_the_largest_model_at_its_largest_input_is_taken():
    none = {"onnxruntime": None}
    small = entry("n", "fp32", 90 * 384 * 640, (640, 384), none)
    large = entry("s", "fp32", 250 * 192 * 320, (320, 192), none)
    largest = entry("s2", "fp32", 250 * 384 * 640, (640, 384), none)
    half = entry("s3", "fp16", 250 * 384 * 640, (640, 384), none)
    assert evaluate.most_accurate(contents(small, large, largest, half))[0] is largest


def test_gate():
    change = {"before": 80.0, "after": 78.0, "difference": -2.0, "low": -3.0, "high": -1.0, "images": 9}
    evaluate.gate(change, 2.0)
    with refused(QualityGate, names=["2.0", "80.0", "78.0", "-3.0 to -1.0", "--max-drop"]):
        evaluate.gate(change, 1.9)


@pytest.mark.needs_data
def test_the_real_splits_load_with_the_published_counts(data_dir):
    expected = {"val": (101, 404, 129, 13), "test": (209, 674, 167, 23)}
    for split, (images, *boxes) in expected.items():
        truths = average_precision.load_split(os.path.join(data_dir, split))
        labels = np.concatenate([truth.labels for truth in truths])
        assert len(truths) == images and [int((labels == i).sum()) for i in range(3)] == boxes
        assert average_precision.read_image(truths[0]).ndim == 3
