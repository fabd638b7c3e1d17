"""The calibration table and what it is bound to, NVIDIA's cache text, the calibrators on the double."""

import json
import os

import machine
import pytest
from refusals import refused

from jetson import files
from jetson.engine import calibration
from jetson.errors import BadInput

HASH = "0123456789abcdef" * 4
IMAGES = (("a.jpg", "a" * 64), ("b.jpg", "b" * 64))


def table(**changes):
    return calibration.Table(
        "s",
        HASH,
        calibration.PREPROCESSING,
        "entropy",
        (416, 256),
        IMAGES,
        {"image": 255.0, "conv/1": 2.6406, "zero": 0.0},
        {"int8": {"stem": "fp16"}},
    )._replace(**changes)


# ------------------------------------------------------------------------------------------------- the table


def test_table_is_read_as_it_was_written(tmp_path):
    path = str(tmp_path / "s.json")
    calibration.write(path, table())
    assert calibration.read(path) == table()
    calibration.require(calibration.read(path), path, HASH, reversed(IMAGES))


@pytest.mark.parametrize(
    "arguments, names",
    [
        ({"onnx_sha256": "f" * 64}, ["ONNX", "f" * 64, HASH]),
        ({"images": IMAGES[:1]}, ["data sha256"]),
        ({"images": (IMAGES[0], ("b.jpg", "c" * 64))}, ["data sha256"]),
        ({"preprocessing": "stretch-rgb-v0"}, ["stretch-rgb-v0", calibration.PREPROCESSING]),
    ],
)
def test_table_is_refused_for_another_model_other_data_another_preprocessing(tmp_path, arguments, names):
    path = str(tmp_path / "s.json")
    calibration.write(path, table())
    with refused(BadInput, where=path, names=["jetmask calibrate", *names]):
        calibration.require(calibration.read(path), path, **arguments)


@pytest.mark.parametrize(
    "change, names",
    [
        (lambda v: v.pop("onnx_sha256"), "onnx_sha256"),
        (lambda v: v.update(method="magic"), ["method", "'magic'"]),
        (lambda v: v["ranges"].update(image=-1), "ranges"),
        (lambda v: v["ranges"].update(image="255"), "ranges"),
        (lambda v: v.update(ranges={}), "ranges"),
        (lambda v: v.update(schema_version=2), ["schema_version", "2"]),
        (lambda v: v.update(layer_precisions={"int8": {"stem": "int4"}}), "layer_precisions"),
        (lambda v: v["data"]["images"].pop(), "images"),
        (lambda v: v["data"].update(images=[]), ["data", "sha256", "images"]),
        (lambda v: v.update(input_wh=[416]), "input_wh"),
    ],
)
def test_an_edited_table_names_the_key(tmp_path, change, names):
    path = str(tmp_path / "s.json")
    calibration.write(path, table())
    value = files.read_json(path)
    change(value)
    files.write_json(path, value)
    with refused(BadInput, where=path, names=names):
        calibration.read(path)


def test_a_range_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        calibration.write(str(tmp_path / "s.json"), table(ranges={"image": float("nan")}))
    assert not os.listdir(str(tmp_path))


# ------------------------------------------------------------------------------------------------- cache text

NVIDIAS = "TRT-8201-EntropyCalibration2\ninput: 3caa54fc\n371: 3caa54fc\n(Unnamed Layer* 64) [Shuffle]_output: 0\n"


def test_nvidias_text_is_read_and_written_back_unchanged():
    cache = calibration.parse_cache(NVIDIAS)
    assert (cache.version, cache.algorithm) == ("8201", "EntropyCalibration2")
    assert abs(cache.scales["input"] - 0.0207925) < 1e-7
    assert abs(127 * cache.scales["371"] - 2.6406) < 1e-4
    assert cache.scales["(Unnamed Layer* 64) [Shuffle]_output"] == 0
    assert calibration.format_cache(cache) == NVIDIAS


def test_table_to_cache_and_back_keeps_the_ranges():
    cache = calibration.cache_of(table().ranges, "8.2.1.8")
    text = calibration.format_cache(cache)
    assert text.startswith("TRT-8201-EntropyCalibration2\nimage: 40008102\n")
    back = {name: 127 * scale for name, scale in calibration.parse_cache(text).scales.items()}
    assert set(back) == set(table().ranges)
    for name, value in table().ranges.items():
        assert abs(back[name] - value) <= 1e-6 * value


@pytest.mark.parametrize(
    "version, digits",
    [("7.1.3.4", "7103"), ("8.2.1.8", "8201"), ("8.4.1.5", "8401"), ("10.14.1.48", "101401"), ("10.3.0", "100300")],
)
def test_header_digits_of_known_caches(version, digits):
    assert calibration.header_version(version) == digits


@pytest.mark.parametrize(
    "text, where",
    [
        ("", "line 1"),
        ("TRT-8201\na: 0", "line 1"),
        ("TRT-8201-EntropyCalibration2\nno colon", "line 2"),
        ("TRT-8201-EntropyCalibration2\na: 0\na: 1", "line 3"),
        ("TRT-8201-EntropyCalibration2\na: 7f800000", "line 2"),
        ("TRT-8201-EntropyCalibration2\na: bf800000", "line 2"),
        ("TRT-8201-EntropyCalibration2\na: 123456789", "line 2"),
        ("TRT-8201-EntropyCalibration2\na: 3CAA54FC ", "line 2"),
    ],
)
def test_a_wrong_cache_names_the_line(text, where):
    with refused(BadInput, where="s.cache, " + where):
        calibration.parse_cache(text, "s.cache")


def test_a_cache_file_that_is_missing_or_binary(tmp_path):
    path = tmp_path / "x.cache"
    with pytest.raises(BadInput):
        calibration.read_cache(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput):
        calibration.read_cache(str(path))
    path.write_bytes(NVIDIAS.replace("\n", "\r\n").encode())
    assert calibration.read_cache(str(path)) == calibration.parse_cache(NVIDIAS)


# ------------------------------------------------------------------------------------------------- calibrators

CALIBRATORS = """
import json, sys
import numpy as np
import tensorrt as trt
from jetson.engine import calibration as calibrate
from jetson.errors import JetmaskError
out = {}
def attempt(name, function):
    try:
        out[name] = function()
    except Exception as error:
        out[name] = [type(error).__name__, str(error)]
blob = np.ones((1, 3, 32, 32), np.float64)
held = []
def upload(data):
    held.append(data)
    return data.ctypes.data

given = calibrate.cache_of({"image": 255.0}, trt.__version__)
c = calibrate.make_calibrator(trt, "EntropyCalibration2", given)
out["kind"] = isinstance(c, trt.IInt8EntropyCalibrator2)
out["cache"] = bytes(c.read_calibration_cache()).decode()
attempt("cache_taken", c.finish)
out["asked"] = c.get_batch(["image"])
attempt("cache_refused", c.finish)

c = calibrate.make_calibrator(trt, "MinMaxCalibration", None, [blob, blob], upload)
out["minmax"] = isinstance(c, trt.IInt8MinMaxCalibrator)
batches = [c.get_batch(["image"]) for _ in range(3)]
out["batches"] = [batches[0] == [held[0].ctypes.data], len(batches[1]), batches[2], str(held[0].dtype),
                  c.get_batch_size()]
memory = memoryview(bytearray(calibrate.format_cache(given).encode()))
c.write_calibration_cache(memory)
memory.release()
attempt("written", lambda: c.finish().scales["image"] * 127)

def broken():
    yield blob
    raise ValueError("disk on fire")
for name, blobs, up, names in (("reader", broken(), upload, ["image"]), ("upload", [blob], lambda b: 1 // 0, ["image"]),
                               ("names", [blob], upload, ["image", "mask"]), ("shape", ["text"], upload, ["image"])):
    c = calibrate.make_calibrator(trt, "EntropyCalibration2", None, blobs, up)
    answers = [c.get_batch(names) for _ in range(3)]
    attempt(name, c.finish)
    out[name].append(answers[-1])
c = calibrate.make_calibrator(trt, "EntropyCalibration2", None, [], upload)
c.get_batch(["image"])
attempt("empty", c.finish)
c.write_calibration_cache(object())
attempt("memory", c.finish)
print(json.dumps(out))
"""


@pytest.mark.parametrize("version", ["8.2.1", "10.3.0"])
def test_callbacks_never_raise_and_finish_tells(version, tmp_path):
    got = machine.Machine("/nonexistent", str(tmp_path), version).python(CALIBRATORS)
    digits = {"8.2.1": "8201", "10.3.0": "100300"}[version]
    assert got["kind"] and got["minmax"]
    assert got["cache"] == f"TRT-{digits}-EntropyCalibration2\nimage: 40008102\n"
    assert got["cache_taken"] is None and got["asked"] is None
    assert got["cache_refused"][0] == "JetmaskError" and "did not take the calibration cache" in got["cache_refused"][1]
    assert "--calibration-images" in got["cache_refused"][1]
    assert got["batches"] == [True, 1, None, "float32", 1]
    assert abs(got["written"] - 255) < 1e-4
    assert got["reader"] == ["ValueError", "disk on fire", None]
    assert got["upload"][0] == "ZeroDivisionError"
    assert "image', 'mask'" in got["names"][1]
    assert got["shape"][0] == "ValueError"
    assert "no calibration image" in got["empty"][1]
    assert got["memory"][0] == "TypeError"


def test_an_exception_in_a_callback_would_end_the_process_of_8_2(tmp_path):
    """What the guard is for, shown on the double (facts, section 0, fact 9)."""
    code = """
import sys
from tensorrt import behaviour
def callback(): raise ValueError("x")
behaviour._callback(callback)
print("alive")
"""
    status, out, err = machine.Machine("/nonexistent", str(tmp_path), "8.2.1").run("-c", code)
    assert status == 134 and "terminate called" in err and "alive" not in out
    status, out, err = machine.Machine("/nonexistent", str(tmp_path), "10.3.0").run("-c", code)
    assert status == 0 and "Exception caught" in err and "alive" in out


def test_table_is_plain_json_for_other_tools(tmp_path):
    path = str(tmp_path / "s.json")
    calibration.write(path, table())
    with open(path) as file:
        value = json.load(file)
    assert value["data"]["images"][0] == {"file": "a.jpg", "sha256": "a" * 64}
    assert value["data"]["sha256"] == calibration.data_hash(IMAGES)
