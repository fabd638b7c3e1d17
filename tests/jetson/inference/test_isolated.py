"""The engine in a process of its own: the same results, its faults told, nothing left behind."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from refusals import refused
from serving import ROOT, alive, wait_for

from jetson.bundle import manifest
from jetson.errors import BadInput
from jetson.inference import isolated
from jetson.inference.detector import Detector, open_detector

VARIANT = "t-320x192-fp32"


def test_same_outputs_as_here(tiny_bundle, draw):
    frame = draw((320, 240), [(0, 100, 100, 32)])
    with open_detector(tiny_bundle, VARIANT, "onnxruntime") as here, isolated.ApartEngine(
        tiny_bundle, VARIANT, "onnxruntime"
    ) as there:
        assert there.input_wh == here.input_wh and there.runtime == "onnxruntime"
        blob, _ = here.prepare(frame)
        wanted = here.infer(blob)
        for image in (blob, None):
            found = there.infer(image)
            assert found.keys() == wanted.keys()
            assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
        assert there.timings["infer_ms"] > 0


def test_frames_prepared_in_the_shared_inputs_are_each_inferred(tiny_bundle, draw):
    frames = [draw((320, 240), [(0, 60 + 50 * number, 100, 32)]) for number in range(6)]
    with open_detector(tiny_bundle, VARIANT, "onnxruntime") as here, Detector(
        isolated.ApartEngine(tiny_bundle, VARIANT, "onnxruntime"), here.decode
    ) as there:
        # More are borrowed than are shared: those are copied.
        blobs = [there.prepare(frame, there.borrow_input())[0] for frame in frames]
        assert len({blob.ctypes.data for blob in blobs}) == len(frames) > isolated.INPUTS
        for number in (3, 0, 5, 1, 2, 4, 4):
            wanted, found = here.infer(here.prepare(frames[number])[0]), there.infer(blobs[number])
            assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_a_dead_process_is_told_and_no_process_stays(tiny_bundle):
    engine = isolated.ApartEngine(tiny_bundle, VARIANT, "onnxruntime")
    pid = engine._child.pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RuntimeError):
        engine.infer()
    engine.close()
    other = isolated.ApartEngine(tiny_bundle, VARIANT, "onnxruntime")
    pid = other._child.pid
    other.close()
    wait_for(lambda: not alive(pid), "the child's end")


def test_a_process_that_is_just_opening_ends_with_its_owner(tiny_bundle, tmp_path):
    with open(str(tmp_path / "shared"), "w+b") as shared:
        request = json.dumps([shared.fileno(), str(tiny_bundle), VARIANT, "onnxruntime", 1])
        child = subprocess.Popen(
            [sys.executable, "-m", "jetson.inference.isolated", request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(shared.fileno(),),
            cwd=ROOT,
        )
        child.stdin.close()
        assert child.stdout.read() == b"" and child.wait(60) == 0  # it did not go on to its answer
        child.stdout.close()


def test_no_signal_goes_to_a_number_that_is_free_again(tiny_bundle, monkeypatch):
    engine = isolated.ApartEngine(tiny_bundle, VARIANT, "onnxruntime")
    os.kill(engine._child.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError):
        engine.infer()
    engine._child.wait(60)  # from here on the system may give the number away
    sent = []
    monkeypatch.setattr(os, "killpg", lambda pid, number: sent.append(pid))
    engine.close()
    assert sent == []


def test_a_small_dev_shm_is_no_limit(tiny_bundle):
    """A container's /dev/shm holds 64 MiB; five inputs of a few engines are more."""
    script = (
        "from jetson.inference import isolated as apart\nengine = apart.ApartEngine({!r}, {!r}, 'onnxruntime')\n"
        "for image in engine.spare_inputs:\n    image[...] = 1\n    engine.infer(image)\nprint('fine')"
    )
    words = f'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec {sys.executable} -c "$SCRIPT"'
    env = dict(os.environ, PYTHONPATH=ROOT, SCRIPT=script.format(str(tiny_bundle), VARIANT))
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, timeout=60
    )
    if b"unshare failed" in done.stderr or b"mount:" in done.stderr:
        pytest.skip("needs the right to mount")
    assert done.stdout.strip() == b"fine", done.stderr.decode()


def test_what_is_wrong_with_a_bundle_is_told_as_here(tiny_copy):
    with open(os.path.join(tiny_copy, "models", "t.onnx"), "wb") as file:
        file.write(b"not a model")
    with refused(BadInput, where="t.onnx", names="ONNX"):
        isolated.ApartEngine(tiny_copy, VARIANT, "onnxruntime")


def test_open_for_threads_chooses_by_what_the_runtime_does(tiny_bundle, monkeypatch):
    variant = manifest.load(tiny_bundle).variant(VARIANT)
    for holds, kind in ((True, "ApartEngine"), (False, "OnnxEngine")):
        monkeypatch.setattr(isolated, "holds_the_lock", lambda runtime, holds=holds: holds)
        with isolated.open_for_threads(tiny_bundle, variant, None, 1) as detector:
            assert type(detector.engine).__name__ == kind


def test_images_submitted_ahead_come_back_in_their_order(tiny_bundle, draw):
    frames = [draw((320, 240), [(0, 60 + 50 * number, 100, 32)]) for number in range(4)]
    with open_detector(tiny_bundle, VARIANT, "onnxruntime") as here, Detector(
        isolated.ApartEngine(tiny_bundle, VARIANT, "onnxruntime"), here.decode
    ) as there:
        assert there.ahead and not here.ahead
        blobs = [there.prepare(frame, there.borrow_input())[0] for frame in frames]
        wanted = [{n: v.copy() for n, v in here.infer(here.prepare(frame)[0]).items()} for frame in frames]
        there.submit(blobs[0])
        for number in range(4):
            if number < 3:
                there.submit(blobs[number + 1])  # its outputs must not overwrite those that are about to be read
            found = there.collect()
            assert all(np.array_equal(found[name], wanted[number][name]) for name in found)


def test_a_failed_inference_is_told_for_its_own_image(tiny_bundle, draw):
    blob = np.zeros((1, 3, 192, 320), np.float32)
    with Detector(isolated.ApartEngine(tiny_bundle, VARIANT, "onnxruntime"), {}) as there:
        good = {name: value.copy() for name, value in there.infer(blob).items()}
        there.engine._child.stdin.write(bytes((200,)))  # no such input
        there.engine._under_way.append(0)
        there.submit(there.borrow_input() * 0)
        with pytest.raises(RuntimeError, match="IndexError"):
            there.collect()
        found = there.collect()
        assert all(np.array_equal(found[name], good[name]) for name in good)
