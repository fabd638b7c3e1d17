"""A real pycuda on the driver stand-in, which is strict about contexts, asynchronous, and has a memory limit."""

import machine
import pytest

from jetson.engine import cuda

STATS = """
import ctypes, json, sys
import numpy as np
from jetson.engine import cuda
from jetson.errors import DeviceMismatch, JetmaskError
def stats():
    v = (ctypes.c_ulong * 7)()
    ctypes.CDLL("libcuda.so.1").fakecuda_stats(v)
    return dict(zip(["blocks", "device_bytes", "host_bytes", "streams", "events", "contexts", "copies"], v))
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A Nano without pycuda: the driver alone."""
    return machine.Machine(machine.driver(str(tmp_path_factory.mktemp("driver"))), "unused")


@pytest.fixture(scope="module")
def nano():
    library, site = machine.pycuda()
    return machine.Machine(library, "unused", site=site)


def test_gpu_facts_come_from_the_driver_without_pycuda(plain):
    got = plain.but(FAKECUDA_DRIVER="10020").python(STATS + "print(json.dumps([cuda.gpu(), stats()]))")
    assert got[0] == ["NVIDIA Tegra X1", [5, 3], 3956 << 20, 10020]
    assert got[1]["contexts"] == 0, "asking for facts must not make a context"


def test_no_driver_and_no_gpu_are_told_apart_and_say_what_to_do(plain):
    code = (
        STATS
        + """
try:
    cuda.gpu()
except DeviceMismatch as error:
    print(json.dumps([str(error), cuda.reason()]))
"""
    )
    without, why = plain.but(LD_LIBRARY_PATH="/nonexistent").python(code)
    assert "no NVIDIA driver on this machine" in without and "--runtime nvidia" in without
    assert "no NVIDIA driver" in why
    nothing, why = plain.but(FAKECUDA_DEVICES=0).python(code)
    assert "no CUDA-capable device is detected (error 100)" in nothing and "onnxruntime" in nothing
    assert "no CUDA-capable device" in why


def test_without_pycuda_the_reason_names_it(plain):
    assert "pycuda" in plain.python(STATS + "print(json.dumps(cuda.reason()))")


@pytest.mark.parametrize(
    "capability, int8, fp16",
    [
        ((5, 3), False, True),
        ((6, 0), False, True),
        ((6, 1), True, False),
        ((6, 2), False, True),
        ((7, 0), True, True),
        ((7, 2), True, True),
        ((7, 5), True, True),
        ((8, 7), True, True),
        ((12, 0), True, True),
        ((5, 0), False, False),
    ],
)
def test_precisions_by_compute_capability(capability, int8, fp16):
    assert cuda.has_int8(capability) is int8
    assert cuda.has_fp16(capability) is fp16


def test_round_trip_is_asynchronous_and_leaves_nothing(nano):
    got = nano.python(
        STATS
        + """
def main():
    with cuda.Session() as session:
        with session.current():
            a, b = session.pair((3, 5), np.float32), session.pair((3, 5), np.float32)
            a.host[...] = np.arange(15).reshape(3, 5)
            start, end = session.event(), session.event()
            start.record(session.stream)
            session.upload(a)
            session.driver.memcpy_dtod_async(b.address, a.address, a.host.nbytes, session.stream)
            session.download(b)
            end.record(session.stream)
            before = b.host.sum()
            session.synchronize()
            result = [float(before), b.host.tolist(), start.time_till(end) >= 0, stats()]
        a = b = start = end = None
    session.close()
    return result + [stats()]
print(json.dumps(main()))
"""
    )
    assert got[0] == 0, "nothing may arrive before the wait: else the stand-in would hide a forgotten one"
    assert got[1] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]
    assert got[2] is True
    assert got[3]["blocks"] == 4 and got[3]["streams"] == 1 and got[3]["events"] == 2 and got[3]["contexts"] == 1
    assert got[4] == dict(got[4], blocks=0, device_bytes=0, host_bytes=0, streams=0, events=0, contexts=1)


def test_context_is_current_only_inside_the_block_and_in_any_thread(nano):
    got = nano.python(
        STATS
        + """
import threading
with cuda.Session() as session:
    said = []
    try:
        session.driver.mem_alloc(4)
    except session.driver.LogicError as error:
        said.append(str(error))
    def work():
        with session.current():
            with session.current():
                pair = session.pair((4,), np.uint8)
                pair.host[...] = 7
                session.upload(pair); session.synchronize()
            session.download(pair); session.synchronize()
            said.append(pair.host.tolist())
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
print(json.dumps(said))
"""
    )
    assert "invalid device context" in got[0] or "no currently active context" in got[0]
    assert got[1:] == [[7] * 4] * 4


def test_out_of_memory_names_the_free_bytes_and_the_session_goes_on(nano):
    got = nano.but(FAKECUDA_MEM_MB=64).python(
        STATS
        + """
with cuda.Session() as session:
    try:
        with session.current():
            session.pair((100 << 20,), np.uint8)
    except JetmaskError as error:
        said = str(error)
    with session.current():
        session.pair((1 << 20,), np.uint8)
        after = stats()["device_bytes"]
print(json.dumps([said, after]))
"""
    )
    assert "the GPU is out of memory" in got[0] and "64 of 64 MiB free" in got[0] and "smaller variant" in got[0]
    assert got[1] == 1 << 20


def test_lost_context_is_an_error_that_says_restart_and_closing_still_works(nano):
    got = nano.but(FAKECUDA_LOSE_AFTER=3).python(
        STATS
        + """
session = cuda.Session()
said = []
with session.current():
    pair = session.pair((4,), np.uint8)
for _ in range(4):
    try:
        with session.current():
            session.upload(pair); session.synchronize()
        said.append("")
    except JetmaskError as error:
        said.append(str(error))
session.close(); session.close()
try:
    with session.current(): pass
except JetmaskError as error:
    said.append(str(error))
print(json.dumps(said))
"""
    )
    assert got[:2] == ["", ""]
    assert all("restart the program" in text and "launch failure" in text for text in got[2:4])
    assert "closed" in got[4]


def test_pushes_and_pops_match_and_the_primary_context_is_held_once(nano):
    """By pycuda's source a detach after the pop leaves a dead context current; in another thread it frees nothing."""
    got = nano.python(
        STATS
        + """
import threading
lib = ctypes.CDLL("libcuda.so.1")
def current():
    found = ctypes.c_void_p()
    assert lib.cuCtxGetCurrent(ctypes.byref(found)) == 0
    return found.value
said = []
def note(): said.append([current(), stats()["contexts"]])
session = cuda.Session(); note()
session.close(); note()
for _ in range(3):
    session = cuda.Session()
    thread = threading.Thread(target=session.close); thread.start(); thread.join(); note()
thread = threading.Thread(target=lambda: (cuda.Session().close(), note())); thread.start(); thread.join()
with cuda.Session() as one, cuda.Session() as other:
    with one.current(), other.current():
        inside = current()
    note()
print(json.dumps([said, inside is not None]))
"""
    )
    assert got == [[[None, 1]] * 7, True]


@pytest.mark.parametrize("version", [(2019, 1, 2)])
def test_a_pycuda_without_primary_contexts_is_told_with_its_version(plain, tmp_path, version):
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").write_text(f"VERSION = {version}\n")
    (tmp_path / "pycuda" / "driver.py").write_text(
        "class Error(Exception): pass\nclass MemoryError(Error): pass\nclass LogicError(Error): pass\n"
        "def init(): pass\n"
        "class Device:\n"
        "    def __init__(self, index): pass\n"
        "    def make_context(self, flags=0): raise Error('a private context')\n"
    )
    old = plain.but(PYTHONPATH=str(tmp_path) + ":" + plain.env["PYTHONPATH"])
    why, raised = old.python(
        STATS
        + """
try:
    cuda.Session()
except DeviceMismatch as error:
    print(json.dumps([cuda.reason(), [error.what, error.expected]]))
"""
    )
    assert "2019.1.2" in why and "2022.1" in why and raised == [why, "pycuda 2020.1 or later"]
