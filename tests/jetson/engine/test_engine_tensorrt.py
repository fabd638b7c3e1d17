"""The TensorRT engine from plan to numbers, on the double of four versions with a real pycuda.

Device memory is host memory there and the double runs the plan's ONNX on the device addresses it was given, so the
results must equal ONNX Runtime's to the last bit.
"""

import os

import machine
import pytest

HEAD = """
import ctypes, glob, json, sys, threading
import cv2
import numpy as np
from jetson.engine import cuda; from jetson.inference import detector; from jetson.bundle import manifest
from jetson.engine import tensorrt, tensorrt_module
from jetson.errors import JetmaskError
bundle = sys.argv[1]
frames = [cv2.imread(path) for path in sorted(glob.glob(bundle + "/golden/*.png"))]
def stats():
    v = (ctypes.c_ulong * 7)()
    ctypes.CDLL("libcuda.so.1").fakecuda_stats(v)
    return dict(zip(["blocks", "device_bytes", "host_bytes", "streams", "events", "contexts"], v))
def plan_of(name):
    from jetson.engine import build
    contents = manifest.load(bundle)
    return build.ensure(contents, contents.variant(name), tensorrt_module.load())[0]
"""

# One child per version does the whole day's work: starting Python and its libraries is most of the time.
DAY = (
    HEAD
    + """
result = {"equal": [], "faces": []}
with detector.open_detector(bundle, "t-416x256-fp32", "onnxruntime") as oracle:
    engine = tensorrt.open_variant(bundle, manifest.load(bundle), manifest.load(bundle).variant("t-416x256-fp32"))
    with detector.Detector(engine, manifest.load(bundle).decode) as tested:
        for frame in frames:
            want, got = oracle.detect(frame), tested.detect(frame)
            result["faces"].append(len(got))
            result["equal"].append(
                bool(np.array_equal(want.xyxy, got.xyxy) and np.array_equal(want.scores, got.scores)))
        result["timings"] = engine.timings
        result["tensors"] = [[t.name, t.shape, np.dtype(t.dtype).name, t.is_input] for t in engine.tensors]
        result["layers"] = engine.layer_times(3)
        result["open"] = stats()

        blob = np.random.RandomState(0).uniform(0, 255, engine.input.shape).astype(np.float32)
        outputs = engine.infer(blob)
        want = oracle.engine.infer(blob)
        result["infer"] = sorted(outputs) == sorted(want) and all(np.array_equal(outputs[k], want[k]) for k in want)
        result["types"] = sorted(set(a.dtype.name for a in outputs.values()))
        kept = outputs["cls_8"]
        engine.infer(np.zeros_like(blob))
        result["reused"] = engine.infer(blob)["cls_8"] is kept

        before = stats()
        for _ in range(200):
            engine.infer()
        result["steady"] = stats() == before

        threads_equal = []
        def work(frame):
            for _ in range(20):
                with lock:
                    got, want = tested.detect(frame), oracle.detect(frame)
                    threads_equal.append(bool(np.array_equal(want.xyxy, got.xyxy)))
        lock = threading.Lock()
        threads = [threading.Thread(target=work, args=(frame,)) for frame in frames]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        result["threads"] = [len(threads_equal), all(threads_equal)]
tested = engine = outputs = None
result["closed"] = stats()

def own(frame, out):
    with detector.open_detector(bundle, "t-320x192-fp32", "tensorrt") as mine:
        for _ in range(10):
            out.append(mine.detect(frame).xyxy.tolist())
with detector.open_detector(bundle, "t-320x192-fp32", "onnxruntime") as oracle:
    want = [oracle.detect(frame).xyxy.tolist() for frame in frames]
results = [[] for _ in frames]
threads = [threading.Thread(target=own, args=pair) for pair in zip(frames, results)]
for thread in threads: thread.start()
for thread in threads: thread.join()
result["four_engines"] = results == [[boxes] * 10 for boxes in want]
result["closed_four"] = stats()

broken = {}
from jetson.engine import build
plan = plan_of("t-320x192-fp32")
head, _, model = plan[10:].partition(b"\\n")
for name, data in (("truncated", plan[:5]), ("garbage", b"not an engine" * 99),
                   ("version", b"TRTDOUBLE\\n" + head.replace(b'"version": "', b'"version": "1') + b"\\n" + model),
                   ("device", b"TRTDOUBLE\\n" +
                    head.replace(b'"capability": [', b'"capability": [9') + b"\\n" + model)):
    try:
        tensorrt.TensorRtEngine(data, (320, 192))
    except JetmaskError as error:
        broken[name] = [error.exit_code, str(error)]
try:
    tensorrt.TensorRtEngine(plan, (416, 256))
except JetmaskError as error:
    broken["size"] = [error.exit_code, str(error)]
result["broken"] = broken
result["closed_broken"] = stats()
print(json.dumps(result))
"""
)


@pytest.fixture(scope="module")
def pycuda():
    return machine.pycuda()


@pytest.fixture(scope="module", params=sorted(machine.MATRIX))
def day(request, pycuda, tiny_bundle, tmp_path_factory):
    library, site = pycuda
    engines = str(tmp_path_factory.mktemp("engines") / "cache")
    result = machine.Machine(library, engines, request.param, site).python(DAY, tiny_bundle, timeout=300)
    result["version"] = request.param
    return result


def test_detections_equal_onnx_runtimes_to_the_last_bit(day):
    assert day["equal"] == [True] * 4
    assert sum(day["faces"]) > 0
    assert day["infer"] and day["types"] == ["float32"]


def test_buffers_are_reused_and_nothing_grows(day):
    assert day["reused"] and day["steady"]
    assert day["open"]["blocks"] == 2 * 9 and day["open"]["streams"] == 1 and day["open"]["events"] == 4


def test_everything_is_freed_on_close(day):
    for when in ("closed", "closed_four", "closed_broken"):
        left = dict(day[when])
        assert left.pop("contexts") == 1, "the primary context is the process's"
        assert set(left.values()) == {0}, when


def test_threads(day):
    assert day["threads"] == [80, True], "one engine, called from four threads in turn"
    assert day["four_engines"], "four engines in four threads at once"


def test_stages_are_timed_by_events(day):
    assert set(day["timings"]) == {"h2d_ms", "execute_ms", "d2h_ms", "infer_ms"}
    assert day["timings"]["execute_ms"] > 0 and day["timings"]["h2d_ms"] >= 0
    assert len(day["layers"]) > 20 and all(abs(ms - 0.25) < 1e-9 for _, ms in day["layers"])


def test_tensors_are_listed_by_their_own_types(day):
    assert day["tensors"][0] == ["image", [1, 3, 256, 416], "float32", True]
    assert ["cls_8", [1, 3, 32, 52], "float32", False] in day["tensors"]


def test_foreign_and_broken_plans_are_refused_with_tensorrts_words(day):
    broken = day["broken"]
    assert all(code == 4 for name, (code, _) in broken.items() if name != "size")
    assert "Magic tag does not match" in broken["truncated"][1] and "Magic tag does not match" in broken["garbage"][1]
    assert "not compatible with this version of TensorRT" in broken["version"][1]
    assert "incompatible device" in broken["device"][1]
    assert all("python3 -m jetson build DIR --force" in text for _, text in broken.values())
    assert broken["size"][0] == 3 and "(1, 3, 192, 320)" in broken["size"][1]


@pytest.mark.needs_data
def test_ap_on_photographs_is_onnx_runtimes_to_the_last_digit(pycuda, tmp_path):
    """Photograph, letterbox, copy to the device, engine, copy back, decoding, AP: the shipped bundle's whole way."""
    data = os.environ.get("JETMASK_DATA")
    if not data:
        pytest.skip("JETMASK_DATA names no photographs")
    library, site = pycuda
    got = machine.Machine(library, str(tmp_path / "e"), "8.2.1", site).python(
        HEAD
        + """
from jetson.evaluation import average_precision as metrics
truths = metrics.load_split(sys.argv[2])
found = []
for runtime in ("onnxruntime", "tensorrt"):
    with detector.open_detector(bundle, "s-416x256-fp32", runtime) as tested:
        faces = [tested.detect(metrics.read_image(truth), metrics.MIN_SCORE) for truth in truths]
    found.append(metrics.evaluate(truths, faces))
print(json.dumps([found[0]["map50"], found[1]["map50"], found[0] == found[1]]))
""",
        os.path.join(machine.ROOT, "jetson", "models"),
        os.path.join(data, "val"),
        timeout=300,
    )
    assert got[0] == got[1] > 60 and got[2]


def test_half_outputs_come_out_as_float32(pycuda, tiny_bundle, tmp_path):
    library, site = pycuda
    got = machine.Machine(library, str(tmp_path / "e"), "8.2.1", site, TENSORRT_DOUBLE_OUTPUT="HALF").python(
        HEAD
        + """
with detector.open_detector(bundle, "t-320x192-fp16", "tensorrt") as tested:
    with detector.open_detector(bundle, "t-320x192-fp32", "onnxruntime") as oracle:
        blob = np.full((1, 3, 192, 320), 99, np.float32)
        got, want = tested.infer(blob), oracle.infer(blob)
        print(json.dumps([sorted(set(np.dtype(t.dtype).name for t in tested.engine.tensors)),
                          sorted(set(a.dtype.name for a in got.values())),
                          all(np.array_equal(got[k], want[k].astype(np.float16)) for k in want)]))
""",
        tiny_bundle,
    )
    assert got == [["float16", "float32"], ["float32"], True]


def test_out_of_memory_and_lost_context(pycuda, tiny_bundle, tmp_path):
    library, site = pycuda
    nano = machine.Machine(library, str(tmp_path / "e"), "8.2.1", site)
    code = (
        HEAD
        + """
said = []
try:
    with detector.open_detector(bundle, "t-416x256-fp32", "tensorrt") as tested:
        for _ in range(6):
            tested.detect(frames[0])
            said.append("")
except JetmaskError as error:
    said.append(str(error))
tested = None
print(json.dumps([said, stats()["contexts"]]))
"""
    )
    said, contexts = nano.but(FAKECUDA_MEM_MB=1).python(code, tiny_bundle)
    assert len(said) == 1 and "the GPU is out of memory" in said[0] and "choose a smaller variant" in said[0]
    assert contexts == 1  # the process's own
    said, contexts = nano.but(FAKECUDA_LOSE_AFTER=25).python(code, tiny_bundle)  # 9 copies a frame
    assert said[:2] == ["", ""] and "restart the program" in said[2] and contexts == 1


@pytest.mark.full
def test_no_leak_over_ten_thousand_inferences(pycuda, tiny_bundle, tmp_path):
    library, site = pycuda
    got = machine.Machine(library, str(tmp_path / "e"), "10.3.0", site).python(
        HEAD
        + """
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
with detector.open_detector(bundle, "t-320x192-fp32", "tensorrt") as tested:
    for _ in range(500):
        tested.infer()
    before, memory = stats(), resident()
    for _ in range(10000):
        tested.infer()
    print(json.dumps([stats() == before, resident() - memory]))
""",
        tiny_bundle,
        timeout=500,
    )
    assert got[0] and got[1] < 4 << 20
