"""The TensorRT engine on a real GPU. Run it on any machine with TensorRT and pycuda: `pytest -m gpu tests/jetson`.

Never run on hardware so far; everywhere else each test skips and says what is missing.
"""

import glob
import os
import threading

import cv2
import numpy as np
import pytest

from jetson import engine
from jetson.bundle import manifest
from jetson.engine import build, cuda, tensorrt_module
from jetson.errors import DeviceMismatch
from jetson.evaluation import average_precision
from jetson.inference import detector

pytestmark = pytest.mark.gpu

SHIPPED = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))), "jetson", "models"
)
# Largest difference of a box's edge, in pixels, and of a score against ONNX Runtime in float32.
CLOSE = {"fp32": (0.05, 0.002), "fp16": (1.0, 0.03), "int8": (6.0, 0.25)}


@pytest.fixture(scope="module", autouse=True)
def tensorrt(tmp_path_factory):
    why = engine.reason("tensorrt")
    if why:
        pytest.skip("no GPU to test on: " + why)
    os.environ["JETMASK_ENGINES"] = str(tmp_path_factory.mktemp("engines") / "cache")
    yield tensorrt_module.load()
    del os.environ["JETMASK_ENGINES"]


@pytest.fixture(scope="module")
def frames(tiny_bundle):
    return [cv2.imread(path) for path in sorted(glob.glob(os.path.join(tiny_bundle, "golden", "*.png")))]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_detections_are_those_of_onnx_runtime(tiny_bundle, frames, precision):
    name = "t-416x256-" + precision
    with detector.open_detector(tiny_bundle, "t-416x256-fp32", "onnxruntime") as oracle:
        wanted = [oracle.detect(frame, 0.4) for frame in frames]
    try:
        tested = detector.open_detector(tiny_bundle, name, "tensorrt")
    except DeviceMismatch as refusal:
        assert precision == "int8"  # only a GPU without INT8 hardware may refuse, and says so
        pytest.skip(str(refusal))
    pixels, score = CLOSE[precision]
    with tested:
        for frame, want in zip(frames, wanted):
            got = tested.detect(frame, 0.4)
            assert len(got) == len(want)
            for box, scores in zip(want.xyxy, want.scores):
                nearest = np.abs(got.xyxy - box).max(axis=1).argmin()
                assert np.abs(got.xyxy[nearest] - box).max() <= pixels
                assert np.abs(got.scores[nearest] - scores).max() <= score


def test_ten_thousand_inferences_take_no_more_memory(tiny_bundle):
    import pycuda.driver as driver

    def free():
        with look.current():
            return driver.mem_get_info()[0]

    with cuda.Session() as look, detector.open_detector(tiny_bundle, "t-320x192-fp16", "tensorrt") as tested:
        for _ in range(200):
            tested.infer()
        before = free()
        for _ in range(10000):
            tested.infer()
        assert before - free() < 4 << 20


def test_four_threads_with_an_engine_each(tiny_bundle, frames):
    with detector.open_detector(tiny_bundle, "t-320x192-fp32", "tensorrt") as one:
        want = [one.detect(frame).xyxy for frame in frames]
    results = [[] for _ in frames]

    def work(frame, out):
        with detector.open_detector(tiny_bundle, "t-320x192-fp32", "tensorrt") as own:
            out.extend(own.detect(frame).xyxy for _ in range(50))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(frames, results)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for boxes, expected in zip(results, want):
        assert len(boxes) == 50
        for got in boxes:
            np.testing.assert_allclose(got, expected, atol=0.05)


def test_a_second_start_takes_the_plan_from_the_cache(tiny_bundle, tensorrt):
    contents = manifest.load(tiny_bundle)
    plan, _ = build.ensure(contents, contents.variant("t-320x192-fp32"), tensorrt)
    plans = glob.glob(os.path.join(os.environ["JETMASK_ENGINES"], "**", "*.plan"), recursive=True)
    written = {path: os.stat(path).st_mtime_ns for path in plans}
    assert written
    assert build.ensure(contents, contents.variant("t-320x192-fp32"), tensorrt)[0] == plan
    assert {path: os.stat(path).st_mtime_ns for path in plans} == written


@pytest.mark.needs_data
@pytest.mark.parametrize("precision, lost", [("fp32", 0.1), ("fp16", 0.1), ("int8", 1.0)])
def test_ap_of_the_shipped_model(precision, lost):
    data = os.environ.get("JETMASK_DATA")
    if not data:
        pytest.skip("JETMASK_DATA names no photographs")
    truths = average_precision.load_split(os.path.join(data, "val"))

    def ap(name, runtime):
        with detector.open_detector(SHIPPED, name, runtime) as tested:
            found = [
                tested.detect(average_precision.read_image(truth), average_precision.MIN_SCORE) for truth in truths
            ]
        return average_precision.evaluate(truths, found)["map50"]

    try:
        measured = ap("s-416x256-" + precision, "tensorrt")
    except DeviceMismatch as refusal:
        assert precision == "int8"
        pytest.skip(str(refusal))
    assert ap("s-416x256-fp32", "onnxruntime") - measured <= lost
