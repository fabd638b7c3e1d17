"""The search for the fewest layers in higher precision, its ranking, the fp16 scan, and the gate's verdict."""

import pathlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from refusals import refused
from small_net import detector, picture, run, snr_db

from jetson import files
from jetson.engine import calibration as tables
from jetson.errors import QualityGate, UsageError
from jetson.evaluation import average_precision
from jetson.inference.detector import Faces
from pipeline.evaluation import gate
from pipeline.quantization import calibrate, quantize, sensitivity


def asking(needed):
    """A gate that passes when all of `needed` are kept; remembers what it was asked."""

    def ask(keep):
        ask.asked.append(keep)
        return SimpleNamespace(passed=set(needed) <= set(keep))

    ask.asked = []
    return ask


@pytest.mark.parametrize("needed", [[], ["a"], ["d"], ["a", "c"], ["b", "f", "h"], list("abcdefgh")])
def test_auto_keeps_exactly_what_is_needed(needed):
    ask = asking(needed)
    mixed = sensitivity.auto(list("abcdefgh"), ask, start=("stem",))
    assert mixed.keep == tuple(sorted([*needed, "stem"])) and mixed.verdict.passed
    assert len(ask.asked) == len(set(ask.asked)) == mixed.asked <= 16  # no set is measured twice


def test_auto_says_when_nothing_helps():
    with refused(QualityGate, names="--max-drop"):
        sensitivity.auto(list("abc"), asking(["never"]))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, path, table, images) of the small net with one layer that int8 hurts: weights of one channel far out."""
    folder = tmp_path_factory.mktemp("net")
    net = detector()
    net.weights["lateral_8.weight"][:, 0] *= 400  # within each kernel one weight dwarfs the others
    net.weights["down_8.weight"][0] /= 400
    net.weights["down_8.bias"][0] /= 400
    path = net.save(folder / "net.onnx")
    images = []
    for seed in range(3):
        images.append(str(folder / (f"{seed}.png")))
        cv2.imwrite(images[-1], np.random.default_rng(seed).integers(0, 256, (64, 96, 3)).astype(np.uint8))
    return folder, path, calibrate.collect(path, images, (96, 64), "minmax"), images


def test_the_layer_that_int8_hurts_ranks_first(made):
    _, path, table, images = made
    ranking = sensitivity.layers(path, table, images, (96, 64))
    assert ranking[0].name == "lateral_8"
    assert {layer.name for layer in ranking} == {n.name for n in detector().nodes if n.op_type in ("Conv", "Add")}
    assert all(a.snr_db <= b.snr_db for a, b in zip(ranking, ranking[1:]))
    assert ranking[0].snr_db == min(ranking[0].heads.values())
    bad = run(quantize.int8_tensorrt(path, table, str(made[0] / "bad.onnx")), picture(1))
    good = run(quantize.int8_tensorrt(path, table, str(made[0] / "good.onnx"), keep=["lateral_8"]), picture(1))
    expected = run(path, picture(1))
    assert snr_db(expected["cls_8"], good["cls_8"]) > snr_db(expected["cls_8"], bad["cls_8"]) + 3


def test_fp16_scan_finds_what_overflows(made, tmp_path):
    _, path, _, images = made
    assert sensitivity.overflows(path, images, (96, 64)) == ()
    net = detector()
    net.weights["down_4.weight"] *= 1e5
    for reader in ("down_8", "lateral_4"):
        net.weights[reader + ".weight"] *= 1e-5
    loud = net.save(tmp_path / "loud.onnx")
    scan = sensitivity.fp16_scan(loud, images, (96, 64))
    assert scan[0].at_risk and scan[0].largest > 65504 * 0.5 and 0 <= scan[0].subnormal <= 1
    keep = sensitivity.overflows(loud, images, (96, 64))
    assert {"down_4", "down_4_relu", "block_4"} <= set(keep) and "cls_8" not in keep
    half = quantize.fp16(loud, str(tmp_path / "half.onnx"), keep=keep)
    expected = run(loud, picture(2))["box_4"]
    assert snr_db(expected, run(half, picture(2))["box_4"]) > 40


def truth(number):
    return average_precision.Truth(
        number,
        f"{number}.png",
        (100, 100),
        np.array([[10.0, 10, 50, 50]]),
        np.array([number % 2]),
        np.zeros((0, 4)),
        "drawn",
    )


def found(truths, miss=()):
    out = []
    for i, t in enumerate(truths):
        scores = np.full((1, 3), 0.005, np.float32)
        scores[0, t.labels[0]] = 0.9
        xyxy = t.xyxy + (60 if i in miss else 0)
        out.append(Faces(xyxy.astype(np.float32), scores))
    return out


def test_verdict():
    truths = [truth(i) for i in range(20)]
    same = gate.compare(truths, found(truths), found(truths), resamples=50)
    assert (same.before, same.difference, same.low, same.high) == (pytest.approx(100), 0, 0, 0) and same.passed
    gate.require(same, "copy")
    worse = gate.compare(truths, found(truths), found(truths, miss={0, 1, 2, 3}), resamples=50)
    assert worse.difference < -10 and worse.low <= worse.difference <= worse.high and not worse.passed
    assert gate.compare(truths, found(truths), found(truths, {0, 1, 2, 3}), 90.0, 50).passed
    with refused(QualityGate, where="broken", names=["100.00 -> ", "0.50", "--max-drop"]) as error:
        gate.require(worse, "broken")
    assert error.value.exit_code == 5


def test_mix_remembers_what_it_measured(made, tmp_path, monkeypatch):
    _, path, table, images = made
    truths = [truth(i) for i in range(4)]
    asked = []

    def of_onnx(file, truths, input_wh, **_):
        kept = b"lateral_8.weight.q" not in pathlib.Path(file).read_bytes()
        asked.append(file)
        return found(truths, () if kept else {0, 1})

    monkeypatch.setattr(gate, "of_onnx", of_onnx)
    lines, cache, out = [], str(tmp_path / "cache.json"), str(tmp_path / "mixed.onnx")
    mixed = sensitivity.mix(path, out, "int8", table, images, truths, (96, 64), cache=cache, progress=lines.append)
    assert "lateral_8" in mixed.keep and mixed.verdict.passed and "lateral_8" in lines[0]
    first, before = len(asked), files.sha256(out)
    again = sensitivity.mix(path, out, "int8", table, images, truths, (96, 64), cache=cache)
    assert again.keep == mixed.keep and files.sha256(out) == before
    assert len(asked) == first + 1  # only float32 was run again
    other = table._replace(ranges={**table.ranges, "stem_relu": 1.0})
    sensitivity.mix(path, out, "int8", other, images, truths, (96, 64), cache=cache)
    assert len(asked) > first + 2  # another table: nothing is taken over
    # A build asks for both forms, in one file: a repeated one measures neither again.
    sensitivity.mix(path, out, "int8-cpu", table, images, truths, (96, 64), cache=cache)
    count = len(asked)
    for form in ("int8", "int8-cpu"):
        sensitivity.mix(path, out, form, table, images, truths, (96, 64), cache=cache)
    assert len(asked) == count + 2
    mended = [t._replace(labels=1 - t.labels) for t in truths]
    sensitivity.mix(path, out, "int8", table, images, mended, (96, 64), cache=cache)
    assert len(asked) > count + 3  # the same photographs with other labels: nothing is taken over
    with pytest.raises(UsageError):
        sensitivity.mix(path, out, "int4", table, images, truths, (96, 64))
    assert tables.METHODS  # the table class is the shared one
