"""A helmet set from import to page: classes of one's own with their roles, by the commands that a user types."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import Browser
from serving import Serving, wait_for

from jetson import files
from jetson.bundle import manifest
from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.errors import BadInput
from jetson.evaluation import average_precision
from jetson.monitor.journal import from_track
from jetson.mqtt import homeassistant
from jetson.tracking import tracker, zones
from jetson.web import picture
from pipeline.bundle import writer
from pipeline.graphs import classes as onnx_classes
from pipeline.models import classes as model_classes
from pipeline.models.detector import build, load, save
from pipeline.pruning import pruner
from pipeline.training.classes import of_training

pytestmark = pytest.mark.slow  # a training of another set of classes, to the page

ROOT = Path(__file__).resolve().parents[2]
WH = (96, 96)
HELMETS = Classes(("helmet", "bare head"), ("ok", "alert"))
ENVIRONMENT = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(ROOT)}


def jetmask(*words):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def scene(rng):
    """A head, with a yellow helmet or without: image, box xyxy, class."""
    image = np.full((*WH, 3), 90, np.uint8) + rng.integers(0, 20, (*WH, 3)).astype(np.uint8)
    side = int(rng.integers(34, 46))
    x, y = (int(v) for v in rng.integers(6, WH[0] - side - 6, 2))
    middle = (x + side // 2, y + side // 2)
    cv2.ellipse(image, middle, (side // 2 - 3, side // 2), 0, 0, 360, (140, 170, 220), -1)
    label = int(rng.integers(2))
    if label == 0:
        cv2.ellipse(image, (middle[0], y + side // 3), (side // 2, side // 3), 0, 180, 360, (0, 220, 255), -1)
    return image, (x, y, x + side, y + side), label


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A YOLO folder as a labelling tool writes it."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(1)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    (folder / "data.yaml").write_text("names: [helmet, bare head]\nnc: 2\n")
    for i in range(24):
        image, (x0, y0, x1, y1), label = scene(rng)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        box = ((x0 + x1) / 2 / WH[0], (y0 + y1) / 2 / WH[1], (x1 - x0) / WH[0], (y1 - y0) / WH[1])
        (folder / "labels" / f"{i}.txt").write_text(" ".join([str(label), *(f"{v:.5f}" for v in box)]) + "\n")
    return folder


@pytest.fixture(scope="module")
def walked(labelled, tmp_path_factory):
    """The folder after import, split, train, export and bundle; the lines that training told."""
    top = tmp_path_factory.mktemp("helmets")
    jetmask("data", "import", labelled, top / "set", "--classes", "helmet,bare head")
    jetmask("data", "split", top / "set", top / "parts", "--train", ".75", "--val", ".25", "--test", "0")
    sets = [
        "model.init=n",
        "train.epochs=2",
        "train.images_per_epoch=64",
        "train.batch_size=4",
        "train.val_wh=[96, 96]",
    ]
    sets += ["train.sizes=[[96, 1]]", "data.roles={bare head: alert}", "train.closing_epochs=1"]
    words = [word for one in sets for word in ("--set", one)]
    told = jetmask("train", "--data", top / "parts", "--out", top / "run", "--json", *words)
    jetmask("export", "--model", top / "run" / "best.keras", "--out", top / "h.onnx")
    jetmask(
        "bundle", "create", top / "bundle", "--onnx", f"h={top / 'h.onnx'}", "--sizes", "96x96", "--name", "helmets",
        "--data", top / "parts" / "val", "--include-photos", top / "parts" / "val",
    )  # fmt: skip
    return top, [json.loads(line) for line in told.splitlines()]


def test_the_classes_and_their_roles_reach_the_bundle(walked):
    top, told = walked
    assert told[0]["event"] == "start" and told[0]["classes"] == {"helmet": "ok", "bare head": "alert"}
    assert "new class heads for helmet, bare head" in told[0]["start"]
    epochs = [line for line in told if line["event"] == "epoch"]
    assert len(epochs) == 2 and {"ap_helmet", "ap_bare head", "val_loss", "precision", "recall"} <= set(epochs[0])
    assert told[-1]["event"] == "end" and told[-1]["classes"] == list(HELMETS.names)
    contents = manifest.load(str(top / "bundle"))
    assert (contents.schema_version, contents.class_list) == (2, HELMETS)
    assert set(contents.variants[0].ap["onnxruntime"]["per_class"]) == set(HELMETS.names)
    assert manifest.check(str(top / "bundle")) == []
    assert onnx_classes.of_file(str(top / "h.onnx")) == HELMETS
    golden = files.read_json(str(top / "bundle" / "golden" / "golden.json"))
    assert len(golden["images"]) == 4
    result = json.loads(jetmask("evaluate", "--bundle", top / "bundle", "--data", top / "parts" / "val", "--json"))
    assert set(result["per_class"]) == set(HELMETS.names) and "three_class" not in result


def test_pruning_keeps_the_classes_and_the_old_order_of_outputs(walked):
    top, _ = walked
    model = load(top / "run" / "best.keras")
    small = pruner.prune(model, pruner.plan_uniform(model, 0.5, "l1"))
    save(small, top / "small.keras")
    assert model_classes.classes_of(load(top / "small.keras")) == HELMETS
    assert [output.shape[-1] for output in small.outputs][::2] == [2] * 4


def test_the_report_of_the_training_shows_them(walked):
    top, _ = walked
    jetmask("report", top / "run")
    page = (top / "run" / "report.html").read_text()
    for words in ("helmet", "bare head", "95 % bounds", "Which class is taken for which", "train.images_per_epoch"):
        assert words in page, words
    assert "with_mask" not in page and "http" not in page.replace("http://www.w3.org", "")
    data = files.read_json(str(top / "run" / "report.json"))
    assert [row["name"] for row in data["accuracy"]["rows"]][1:3] == list(HELMETS.names)
    assert np.array(data["confusion"]["counts"]).shape == (3, 3)
    described = (top / "run" / "README.md").read_text()
    assert "best.keras" in described and "ap_CLASS" in described
    assert files.read_json(str(top / "run" / "classes.json"))["roles"] == {"helmet": "ok", "bare head": "alert"}


def test_a_model_of_masks_begins_the_class_heads_anew_and_keeps_what_both_know():
    masks = build("n")
    assert model_classes.with_classes(masks, MASK_CLASSES) is masks
    wanted = Classes(("cap", "with_mask"), ("ok", "ok"))
    other = model_classes.with_classes(masks, wanted)
    assert model_classes.classes_of(other) == wanted
    for before, after in zip(
        masks.get_layer("cls_8").get_weights(), other.get_layer("cls_8").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(after[..., 1], before[..., 0])
    np.testing.assert_array_equal(other.get_layer("box_8").get_weights()[0], masks.get_layer("box_8").get_weights()[0])
    assert other.get_layer("cls_8").get_weights()[1][0] == np.float32(model_classes.PRIOR)


def test_data_of_some_of_the_models_classes_is_of_the_models_classes(tmp_path):
    def split(name, names):
        (tmp_path / name).mkdir(parents=True)
        categories = [{"id": i, "name": each} for i, each in enumerate(names, 1)]
        (tmp_path / name / "annotations.json").write_text(
            json.dumps({"images": [], "annotations": [], "categories": categories})
        )

    from pipeline.config import Data

    split("a/train", ["without_mask"])
    split("a/val", ["with_mask"])
    assert of_training(Data(), tmp_path / "a") == MASK_CLASSES
    split("b/train", ["bare head"])
    split("b/val", ["helmet"])
    assert of_training(Data(), tmp_path / "b").names == ("bare head", "helmet")
    assert of_training(Data(), tmp_path / "b", HELMETS) == HELMETS
    assert of_training(Data(roles={"helmet": "ignore"}), tmp_path / "b", HELMETS).roles == ("ignore", "alert")
    assert of_training(Data(classes=["helmet"]), tmp_path / "b").names == ("helmet",)
    for data in (Data(roles={"cap": "ok"}), Data(roles={"helmet": "red"}), Data(classes=["total"])):
        with pytest.raises(BadInput):
            of_training(data, tmp_path / "b")


def test_the_figure_of_own_classes_is_the_mean_over_all_of_them():
    truth = average_precision.Truth(
        0, "x", (100, 100), np.array([[10.0, 10, 30, 30], [50, 50, 80, 80]]), np.array([0, 1]), np.zeros((0, 4)), ""
    )
    found = (truth.xyxy[:1], np.array([[0.9, 0.1]]))
    result = average_precision.evaluate([truth], [found], HELMETS.names)
    assert result["per_class"]["helmet"] > 99.9 and result["per_class"]["bare head"] == 0
    assert result["map50"] == pytest.approx(result["per_class"]["helmet"] / 2) and "three_class" not in result
    assert average_precision.interval([truth], [found], HELMETS.names) is not None
    assert average_precision.evaluate([truth], [([], [])], HELMETS.names)["map50"] == 0


def test_counts_events_colours_and_home_assistant_go_by_the_classes():
    kept = Classes(("helmet", "bare head", "hand"), ("ok", "alert", "ignore"))
    people = tracker.Tracker(0.4, 3, kept.ignored())
    boxes = np.array([[10, 10, 50, 60], [100, 10, 140, 60], [200, 10, 240, 60]], np.float32)
    events = []
    for step in range(12):
        events += people.update(boxes, np.eye(3, dtype=np.float32) * 0.9, step / 10)
    assert people.counts == [1, 1, 0] and people.persons == 2, "who is ignored is not followed"
    told = [from_track(event, 0, "cam", 0.0, 0.0, kept) for event in events]
    assert {(event["label"], event["role"]) for event in told} == {("helmet", "ok"), ("bare head", "alert")}
    counter = zones.Counter(zones.parse("polygon 0 gate 0,0 1,0 1,1 0,1"), kept.names)
    counter.update(people.tracks, (320, 240), 1.1)
    assert counter.state()["zones"][0]["now"] == {"helmet": 1, "bare head": 1, "hand": 0, "total": 2}
    image = np.zeros((240, 320, 3), np.uint8)
    picture.draw(image, people.tracks, 1.1, classes=kept)
    assert np.abs(image[60, 120].astype(int) - kept.colours()[1]).max() < 60
    places = [{"lines": [], "zones": ["gate"]}]
    found = homeassistant.configs("n", "d", "b", "ha", places, "m", ["enter"], ("it's", "items", "with_mask"))
    templates = {json.loads(text)["value_template"] for text in found.values() if b"value_template" in text}
    for wanted in (
        """{{ value_json.now["it's"] }}""",
        """{{ value_json.now["items"] }}""",
        "{{ value_json.now.with_mask }}",
    ):
        assert wanted in templates
    assert len(found) == len(homeassistant.configs("n", "d", "b", "ha", places, "m", ["enter"], ("a", "b", "c")))


def test_two_models_of_different_classes_are_no_bundle(walked, tmp_path):
    top, _ = walked
    shipped = ROOT / "jetson" / "models" / "models" / "n.onnx"
    with pytest.raises(BadInput) as told:
        writer.classes_of({"h": {"fp32": str(top / "h.onnx")}, "n": {"fp32": str(shipped)}})
    assert "bare head" in told.value.where
    assert writer.classes_of({"h": {"fp32": str(top / "h.onnx")}}, ["helmet=attention"]).roles == ("attention", "alert")


def test_page_state_metrics_and_names_are_those_of_the_bundle(walked):
    top, _ = walked
    options = ["--tradeoff", "off", "--score", ".05", "--insecure"]
    with Serving(top / "bundle", top / "parts" / "val" / "images", options=options) as made:
        made.wait_results()
        state = made.state()
        assert state["classes"] == list(HELMETS.names) and state["roles"] == dict(zip(*HELMETS, strict=True))
        assert state["words"]["bare head"] == "bare head"
        assert set(state["cameras"][0]["persons"]) == {*HELMETS.names, "total"}
        metrics = made.get("/metrics")
        if metrics[0] == 200:  # prometheus_client is here
            assert b'jetmask_faces{camera="0",label="bare head"}' in metrics[2] and b"jetmask_alert_faces" in metrics[2]
        if shutil.which("chromium"):
            with Browser(f"http://127.0.0.1:{made.port}/") as page:
                tiles = (
                    "[...document.querySelectorAll('#now li')].map((t) => t.className + ' ' + t.lastChild.textContent)"
                )
                wait_for(
                    lambda: page.js(tiles) == ["role-ok helmet", "role-alert bare head"],
                    "the bundle's classes on the page",
                )
