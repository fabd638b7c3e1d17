"""A report from outside: every section, its text for who cannot see it, nothing loaded from elsewhere, bad input."""

import argparse
import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from refusals import refused

from benchmarks.networks import build
from jetson.bundle import classes as class_list
from jetson.errors import BadInput
from jetson.inference.detector import Faces
from pipeline.latency import cli as predict
from pipeline.report import cli as report
from pipeline.report.contact_sheet import contact_sheet, numbered


def variant(name, ap, ms, **more):
    return {
        "name": name,
        "runtime": "onnxruntime",
        "precision": "fp32",
        "input_wh": [416, 256],
        "threads": 2,
        "map50": ap,
        "per_class": {"with_mask": ap + 1, "without_mask": ap - 1},
        "by_size": {"small": ap - 9},
        "latency_ms": {"total_ms": {"p50": ms, "p95": ms * 1.1, "p99": ms * 1.2}},
        "bytes": int(ms * 1e5),
        "macs": 266_000_000,
    } | more


def device_bench(machine):
    """What `jetmask bench --device --target nano --out` writes."""

    def row(name, real, guess, low, high):
        return {
            "variant": name,
            "runtime": "tensorrt",
            "precision": "fp16",
            "input_wh": [416, 256],
            "macs": 9,
            "bytes": 10,
            "latency_ms": {"p50": real + 2, "p95": real + 3, "p99": real + 4},
            "fps": 500.0,
            "infer_ms": {"p50": real},
            "ap": None,
            "predicted": {
                "latency_ms": guess,
                "low_ms": low,
                "high_ms": high,
                "off_percent": 100 * (guess / real - 1),
                "inside": None if low is None else low <= real <= high,
            },
        }

    return {
        "bundle": "b",
        "measured_on": "its drawn golden images",
        "threads": 1,
        "predicted_for": "nano",
        "board": {"machine": machine, "power_mode": "MAXN"},
        "rows": [
            row("fast", 10.0, 9.0, 8.0, 11.0),
            row("slow", 20.0, 26.0, 23.0, 29.0),
            {"variant": "skipped", "latency_ms": None, "infer_ms": None},
        ],
    }


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A report with everything in it, and the folder where its pictures are."""
    tmp_path = tmp_path_factory.mktemp("report")
    path = tmp_path / "model.onnx"
    onnx.save(build("SqueezeNet1.1", (224, 224)), str(path))
    frame = np.full((120, 200, 3), 90, np.uint8)
    faces = Faces(
        np.array([[10, 10, 60, 70], [100, 20, 130, 50]], np.float32),
        np.array([[0.9, 0.1, 0], [0.1, 0.7, 0]], np.float32),
    )
    none = Faces(np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32))
    folder = tmp_path / "run"
    return folder, {
        "title": "A <run> & more",
        "name": "demo",
        "created": "2026-01-02T03:04:05Z",
        "summary": "One sentence.",
        "warnings": ["Mind <this>."],
        "data": {"kind": "photographs", "split": "val", "images": 101},
        "facts": [["mAP50", 77.3]],
        "variants": [variant("fast", 70.0, 3.0), variant("beaten", 69.0, 5.0), variant("best", 80.0, 9.0)],
        "predicted": [
            {
                "name": "fast",
                "target": "nano",
                "precision": "fp16",
                "map50": 70.0,
                "latency_ms": 6.0,
                "low_ms": 5.0,
                "high_ms": 7.2,
                "bytes": 1000,
            },
            {"name": "fast", "target": "tx2", "precision": "fp16", "map50": 70.0, "latency_ms": 3.0},
        ],
        "stages": [{"name": "start", "map50": 60.0}, {"name": "fine-tuned", "map50": 71.5, "minutes": 2.0}],
        "curves": [
            {
                "name": "first",
                "rows": [{"epoch": e, "cls_loss": 1 / e, "box_loss": 2 / e, "map50": 60.0 + e} for e in (1, 2, 3)],
            }
        ],
        "layers": [predict.predict_ms(str(path)).as_json() | {"title": "squeeze"}],
        "pruning": {
            "note": "Plain L1.",
            "before": {"macs": 200, "map50": 70.0},
            "after": {"macs": 100, "map50": 69.0},
            "channels": [{"layer": "stem", "before": 16, "after": 8}],
        },
        "sensitivity": [{"layer": "stem", "drop": 1.5}],
        "ablations": [{"name": "no mosaic", "map50": 70, "delta": -2}],
        "comparisons": [{"title": "Optimizers", "rows": [{"optimizer": "AdamW", "map50": 70.0}]}],
        "sweep": {
            "target": "nano",
            "trials": [
                {"number": 0, "map50": 60.0, "latency_ms": 4.0, "bytes": 10, "params": {"width": 16}},
                {"number": 1, "map50": None, "latency_ms": 4.0},
            ],
        },
        "detections": contact_sheet(folder, [(frame, faces, "street"), (frame, none, "empty")]),
        "live": {"frames": 500},
        "environment": {"Python": "3.12"},
        "commands": [{"title": "Again", "command": "jetmask demo --data a&b"}],
        "next": [{"title": "Serve", "command": "python3 -m jetson serve runs/demo/bundle"}],
    }


@pytest.fixture(scope="module")
def text(full):
    """The HTML of it."""
    return written(*full)


def written(folder, data):
    return Path(report.write(folder, data)).read_text(encoding="utf-8")


class Page(HTMLParser):
    """What a reader's browser would find."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.unnamed, self.headings, self.open = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        for name in ("src", "href", "xlink:href"):
            if tag not in ("a",) and values.get(name, "#").split(":")[0] not in ("data",) and name in values:
                self.loads.append(values[name])
        if tag == "img" and not values.get("alt") or tag == "svg" and not values.get("aria-label"):
            self.unnamed.append((tag, values))


def test_the_whole_page(text):
    page = Page(text)
    assert not page.unnamed
    assert all(link.startswith("#") for link in page.loads), "nothing may be loaded from elsewhere"
    assert len(page.ids) == len(set(page.ids)), "ids are unique, figures included"
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert "<script" not in text and "http" not in re.sub(r"http://www\.w3\.org/\S+", "", text)
    assert text.count('role="img"') == 8
    for words in (
        "A &lt;run&gt; &amp; more",
        "Mind &lt;this&gt;.",
        "a&amp;b",
        "Predicted, not measured",
        "error unknown",
        "5.00 to 7.20",
        "1 mask, 1 no mask",
        "no face",
        "+11.5",
        "101 images of val",
    ):
        assert words in text, words
    for section in (
        "variants",
        "stages",
        "detections",
        "training",
        "pruning",
        "layers",
        "sensitivity",
        "sweep",
        "ablations",
        "live",
        "commands",
        "environment",
        "next",
    ):
        assert f'<section id="{section}"' in text, section
    assert not re.search("#0[1-8]0[1-8]0[1-8]", text), "every colour comes from the page"


def test_the_front_is_marked(text):
    marked = re.findall(r'<tr class="front"><td>([^<]+)', text)
    assert marked[:2] == ["fast", "best"] and "beaten" not in marked


def test_drawn_images_are_called_that(tmp_path):
    text = written(tmp_path, {"data": {"kind": "drawn"}, "variants": [variant("a", 99.0, 1.0)]})
    assert "measured on drawn images" in text
    assert "AP (drawn)" in text and "mAP50" not in text


def test_json_and_csv_hold_the_same(full, text):
    folder, data = full
    again = json.loads((folder / "report.json").read_text())
    assert again["variants"] == data["variants"]
    rows = list(csv.DictReader((folder / "report.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["fast", "beaten", "best", "fast", "fast"]
    assert [row["measured"] for row in rows] == ["measured"] * 3 + ["predicted"] * 2
    assert float(rows[0]["p50_ms"]) == 3.0


def test_the_same_data_gives_the_same_bytes(full, tmp_path):
    keys = ("variants", "stages", "curves")
    data = {key: full[1][key] for key in keys}
    assert written(tmp_path / "a", data) == written(tmp_path / "b", data)


def test_each_section_may_be_missing_or_alone(full, tmp_path):
    assert "<main></main>" in written(tmp_path / "empty", {})
    assert "report.csv" not in written(tmp_path / "empty", {}) and not (tmp_path / "empty" / "report.csv").exists()
    assert "report.csv" in written(tmp_path / "row", {"variants": [variant("a", 70.0, 3.0)]})
    for key in ("facts", "predicted", "pruning", "ablations", "live"):
        assert written(tmp_path / key, {key: full[1][key]}).count("<section") == (key != "facts")
    sparse = {
        "variants": [{"name": "a"}],
        "predicted": [{}],
        "stages": [{}],
        "curves": [{"rows": [{"epoch": 1}]}],
        "layers": [{}],
        "pruning": {},
        "sensitivity": [{}],
        "sweep": {},
        "comparisons": [{}],
        "commands": [{}],
    }
    assert report.write(tmp_path / "sparse", sparse)


def test_wrong_keys_and_types_are_named(tmp_path):
    with refused(BadInput, where="report.json", names=["'variant'", "variants?"]):
        report.write(tmp_path, {"variant": []})
    with refused(BadInput, where="report.json", names=["stages", "dict", "list"]):
        report.write(tmp_path, {"stages": {}})
    with refused(BadInput, where="report.json", names=["stages[0]", "int"]):
        report.write(tmp_path, {"stages": [3]})
    with refused(BadInput, where="report.json", names="list"):
        report.write(tmp_path, [])
    with refused(BadInput, where="report.json", names="facts[0]"):
        report.write(tmp_path, {"facts": [1]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["none.jpg", "../outside.jpg", "/etc/hostname"])
def test_pictures_outside_the_run_are_not_taken(tmp_path, name):
    (tmp_path / "outside.jpg").write_bytes(b"secret")
    with refused(BadInput, where="report.json", names=name):
        report.write(tmp_path / "run", {"detections": [{"file": name, "caption": "x"}]})


def parse(*arguments):
    parser = argparse.ArgumentParser()
    report.options(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def test_the_verb_from_outside(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"title": "Small", "variants": [variant("a", 70.0, 3.0)]}))
    code = (
        "import argparse, sys; from pipeline.report import cli as report; p = argparse.ArgumentParser(); "
        "report.options(p);"
        "report.command(p.parse_args(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"] == str(tmp_path / "report.html")
    assert "Small" in (tmp_path / "report.html").read_text()


NAME = '<b>$a_{b$ & "q"</b>'


@pytest.mark.parametrize(
    "data",
    [
        {"variants": [variant(NAME, 70.0, 3.0), variant(NAME + "2", 80.0, 9.0)]},
        {"stages": [{"name": NAME, "map50": 1.0}, {"map50": 0.0}]},
        {"curves": [{"name": NAME, "rows": [{"epoch": 1, "loss": 2.0}, {"loss": 1.0}]}]},
        {"ablations": [{"name": NAME, "delta": -1.0}, {"name": "b", "delta": -2.0}]},
        {"agreement": [{"network": NAME, "device": NAME, "measured_ms": 1.0, "predicted_ms": 2.0}]},
        {"sweep": {"target": NAME, "trials": [{"map50": 1.0, "latency_ms": 2.0, "params": {NAME: NAME}}]}},
        {"prunings": [{"method": NAME, "macs_share": 0.5, "map50": 3.0}]},
        {"scan": {"baseline": 50.0, "groups": {NAME: {"0.1": 40.0}}}},
        {"layers": [{"title": NAME, "layers": [{"name": NAME, "kind": NAME, "ms": 1.0}]}]},
        {"pruning": {"channels": [{"layer": NAME, "before": 8, "after": 4}]}},
    ],
    ids=lambda data: next(iter(data)),
)
def test_a_name_is_a_name_whatever_is_in_it(tmp_path, data):
    """No HTML, no formula: a dollar sign ended the report with matplotlib's parser."""
    text = written(tmp_path, data)
    assert NAME not in text and "&lt;b&gt;$a_{b$ &amp; " in text
    assert not Page(text).unnamed


def test_a_long_name_leaves_room_for_its_figure(tmp_path):
    """In a figure it loses its middle; the table has it whole."""
    names = ["first_" + "x" * 200 + "_1", "first_" + "x" * 200 + "_2"]
    text = written(
        tmp_path,
        {
            "variants": [
                variant(names[0], 70.0, 3.0, runtime=names[0]),
                variant(names[1], 80.0, 9.0, runtime=names[1]),
            ],
            "stages": [{"name": name, "map50": 70.0 + i} for i, name in enumerate(names)],
            "curves": [{"name": names[0], "rows": [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]}],
            "agreement": [{"network": "n", "device": name, "measured_ms": 3.0, "predicted_ms": 4.0} for name in names],
        },
    )
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert all(len(words) <= 60 for words in drawn)
    shortened = [words for words in drawn if "…" in words]
    assert {words[-2:] for words in shortened} >= {"_1", "_2", "ss"}
    assert all(f"<td>{name}</td>" in text for name in names)


def test_a_narrow_span_of_milliseconds_has_numbers_at_its_axes(tmp_path):
    text = written(tmp_path, {"agreement": [{"network": "n", "device": "d", "measured_ms": 3.0, "predicted_ms": 6.0}]})
    numbers = [float(words) for words in re.findall(r"<text[^>]*>([0-9.]+)</text>", text)]
    assert len([value for value in numbers if 2 < value < 8]) >= 2  # one at each axis


def test_pictures_with_and_without_a_group_leave_nothing_open(tmp_path):
    frame, none = np.zeros((9, 9, 3), np.uint8), Faces(np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32))
    pictures = [
        picture for group in ("", "one", "two") for picture in contact_sheet(tmp_path, [(frame, none, "x")], group)
    ]
    text = written(tmp_path, {"detections": pictures})
    assert text.count("<div") == text.count("</div>") == 3


def test_the_verb_without_a_report_or_with_half_a_one(tmp_path):
    with refused(BadInput, where="report.json"):
        report.command(parse(tmp_path))
    (tmp_path / "report.json").write_text("{")
    with refused(BadInput, where="report.json, line 1", names="JSON"):
        report.command(parse(tmp_path))


def test_a_devices_bench_is_put_in_and_replaces_the_older_one(tmp_path):
    run = tmp_path / "run"
    report.write(run, {"title": "t"})
    for number, machine in enumerate(("one", "two", "one")):
        bench = device_bench(machine)
        bench["rows"][0]["fps"] = 100.0 + number
        (tmp_path / "bench.json").write_text(json.dumps(bench))
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "report", str(run), "--device", str(tmp_path / "bench.json")],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    kept = json.loads((run / "report.json").read_text())["devices"]
    assert [(d["board"]["machine"], d["rows"][0]["fps"]) for d in kept] == [("two", 101.0), ("one", 102.0)]
    rows = list(csv.DictReader((run / "report.csv").open()))
    assert [(row["name"], row["measured"], row["target"]) for row in rows] == [
        ("fast", "two", "nano"),
        ("slow", "two", "nano"),
        ("fast", "one", "nano"),
        ("slow", "one", "nano"),
    ]
    page = (run / "report.html").read_text(encoding="utf-8")
    for words in (
        '<section id="devices"',
        "<h3>two</h3>",
        "+30.0 %",
        "-10.0 %",
        "23.0 to 29.0",
        "power mode MAXN",
        "off by 20.0 % on average over 2 measured rows, at most 30.0 %; 1 of 2 lay inside",
    ):
        assert words in page, words
    before = (run / "report.json").read_bytes()
    for rows in (
        [1],
        [{"variant": "x", "latency_ms": 5, "infer_ms": 3}],
        [{"variant": "x", "infer_ms": {}}],
        [{"variant": "x", "predicted": {"latency_ms": 3.0, "off_percent": 1.0}}],
    ):
        (tmp_path / "bench.json").write_text(json.dumps({"rows": rows}))
        with refused(BadInput, where="bench.json", names=["--out", "--device"]):
            report.command(parse(run, "--device", tmp_path / "bench.json"))
        assert (run / "report.json").read_bytes() == before


def test_what_cannot_be_shown_does_not_stay_in_the_runs_data(tmp_path):
    report.write(tmp_path, {"title": "t"})
    (tmp_path / "report.json").write_text(json.dumps({"detections": [{"file": "gone.jpg"}]}))
    (tmp_path / "bench.json").write_text(json.dumps(device_bench("one")))
    with refused(BadInput, where="report.json", names="'gone.jpg'"):
        report.command(parse(tmp_path, "--device", tmp_path / "bench.json"))
    assert "devices" not in json.loads((tmp_path / "report.json").read_text())


def test_the_ap_that_a_device_measured_is_whole_in_the_table(tmp_path):
    bench = device_bench("one")
    bench["rows"][0]["ap"] = {
        "map50": 70.0,
        "per_class": {"with_mask": 80.0, "without_mask": 60.0},
        "by_size": {"small": 50.0, "medium": 71.0, "large": None},
    }
    report.write(tmp_path, {"devices": [bench]})
    first, second = csv.DictReader((tmp_path / "report.csv").open())
    assert [first[key] for key in ("map50", "with_mask", "without_mask", "small", "medium", "large")] == [
        "70.0",
        "80.0",
        "60.0",
        "50.0",
        "71.0",
        "",
    ]
    assert second["map50"] == "" and second["p50_ms"] == "22.0"


def test_classes_of_one_colour_have_numbers_at_their_boxes_and_in_the_legend(tmp_path):
    own = class_list.make(["helmet", "vest", "bare"], {"bare": "alert"})
    assert numbered(own) == ["1 ", "2 ", "3 "] and numbered(class_list.MASK_CLASSES) == ["", "", ""]
