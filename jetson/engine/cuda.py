"""The GPU as the engine needs it: facts without a context, and one owner of context, stream and buffers (pycuda).

The device's primary context is used, the one that the CUDA runtime, and with it TensorRT, uses. A process holds it
once, until it ends; a session pushes it around each piece of work and pops it after it, so that it may be opened in one
thread and worked in another, one at a time. A session frees what it made: buffers and events, then the stream.
"""

import contextlib
import ctypes
import threading
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from jetson.errors import DeviceMismatch, JetmaskError


class Gpu(NamedTuple):
    name: str
    capability: Tuple[int, int]
    memory_bytes: int
    driver: int


PYCUDA_SINCE = "2020.1"  # the first with retain_primary_context
INSTALL_PYCUDA = "PATH=/usr/local/cuda/bin:$PATH python3 -m pip install 'pycuda==2022.1' (Python 3.6; later: pycuda)"

# NVIDIA's table: 8-bit integer dot products exist from 6.1, not in 6.2, and in everything from 7.0.
NO_INT8 = {(5, 3): "Jetson Nano / TX1", (6, 2): "Jetson TX2"}


def has_int8(capability: Tuple[int, int]) -> bool:
    """Whether a GPU of this compute capability has INT8 arithmetic.

    >>> has_int8((5, 3)), has_int8((6, 1)), has_int8((6, 2)), has_int8((8, 7))
    (False, True, False, True)
    """
    return capability == (6, 1) or capability >= (7, 0)


def has_fp16(capability: Tuple[int, int]) -> bool:
    """Whether FP16 is faster than FP32 there: 5.3, 6.0, 6.2 and from 7.0 on (6.1 has it at 1/64 of the speed)."""
    return capability in ((5, 3), (6, 0), (6, 2)) or capability >= (7, 0)


def has_sparse(capability: Tuple[int, int]) -> bool:
    """Whether its tensor cores skip the zeros of weights in the 2:4 pattern: from Ampere on, so Orin, not Xavier.

    >>> has_sparse((5, 3)), has_sparse((7, 2)), has_sparse((8, 7))
    (False, False, True)
    """
    return capability >= (8, 0)


def gpu(index: int = 0) -> Gpu:
    """The GPU's facts from the driver, by ctypes: no context is made and pycuda is not needed.

    DeviceMismatch when there is no driver or no GPU.
    """
    remedy = (
        "on a Jetson, start the container with --runtime nvidia; elsewhere install NVIDIA's driver, "
        "or use the onnxruntime variants"
    )
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DeviceMismatch(f"no NVIDIA driver on this machine ({error})", None, "libcuda.so.1", remedy) from error

    def ask(call: str, *arguments: Any) -> None:
        code = getattr(driver, call)(*arguments)
        if code:
            words = ctypes.c_char_p()
            driver.cuGetErrorString(code, ctypes.byref(words))
            raise DeviceMismatch(
                "the NVIDIA driver finds no usable GPU: {} (error {})".format(
                    (words.value or b"unknown error").decode(), code
                ),
                call,
                f"GPU {index}",
                remedy,
            )

    device, major, minor, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    ask("cuInit", 0)
    ask("cuDeviceGet", ctypes.byref(device), index)
    ask("cuDeviceGetName", name, 256, device)
    ask("cuDeviceComputeCapability", ctypes.byref(major), ctypes.byref(minor), device)
    ask("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    ask("cuDriverGetVersion", ctypes.byref(version))
    return Gpu(name.value.decode("utf-8", "replace"), (major.value, minor.value), memory.value, version.value)


def reason() -> Optional[str]:
    """Why the CUDA side cannot be used here; None when it can. Makes no context."""
    try:
        gpu()
    except DeviceMismatch as error:
        return str(error.what)
    return pycuda_reason()


def pycuda_reason() -> Optional[str]:
    """Why pycuda cannot be used here, with what to do; None when it can. Makes no context."""
    try:
        import pycuda
        import pycuda.driver
    except ImportError as error:
        return f"pycuda cannot be imported ({error}); the container has it, elsewhere: {INSTALL_PYCUDA}"
    # By what it has: many guides for the Nano install 2019.1.2, whose contexts are private ones.
    if not hasattr(pycuda.driver.Device, "retain_primary_context"):
        found = ".".join(str(part) for part in getattr(pycuda, "VERSION", ("?",)))
        return (
            f"pycuda {found} is too old, {PYCUDA_SINCE} or later is needed; the container has it, "
            f"elsewhere: {INSTALL_PYCUDA}"
        )
    return None


_primary_lock = threading.Lock()
_primary: Dict[int, Any] = {}


def _primary_context(device: Any, index: int, blocking: bool) -> Any:
    """The primary context of a device, retained once a process and given back when that ends.

    Not by each session: by pycuda's source a `detach` while the context is not current pushes it, releases it and
    leaves it on the thread's stack, dead; and one in another thread than that of the `retain` releases nothing.
    """
    with _primary_lock:
        if index not in _primary:
            if blocking:
                _sleep_while_waiting(index)
            _primary[index] = device.retain_primary_context()
        return _primary[index]


def _sleep_while_waiting(index: int) -> None:
    """Let the CPU sleep in a wait for the GPU. pycuda cannot set the primary context's flags, the driver can; when
    the context is already in use (error 708) its flags stay as they are, which costs CPU time and nothing else."""
    driver = ctypes.CDLL("libcuda.so.1")
    for name in ("cuDevicePrimaryCtxSetFlags_v2", "cuDevicePrimaryCtxSetFlags"):  # CUDA 11 and later, CUDA 10.2
        if hasattr(driver, name):
            getattr(driver, name)(index, 4)  # CU_CTX_SCHED_BLOCKING_SYNC
            return


class Pair(NamedTuple("Pair", [("host", Any), ("device", Any)])):
    """A pinned host array and its twin of the same size on the device."""

    __slots__ = ()

    @property
    def address(self) -> int:
        """The device pointer."""
        return int(self.device)


class Session:
    """The primary context, one stream, and the buffers allocated through it; a context manager.

    `blocking`: the CPU sleeps while it waits for the GPU (right for a small board) instead of spinning; the first
    session of a process decides.
    Every method but `current` wants the context current: call them inside `with session.current():`.
    """

    def __init__(self, index: int = 0, blocking: bool = True) -> None:
        self.gpu = gpu(index)
        why = pycuda_reason()
        if why is not None:
            raise DeviceMismatch(
                why, None, f"pycuda {PYCUDA_SINCE} or later", "use the container, or " + INSTALL_PYCUDA
            )
        import pycuda.driver

        self.driver = pycuda.driver
        self._lock = threading.RLock()
        self._pairs: List[Pair] = []
        self._events: List[Any] = []
        self.stream: Any = None
        self._context: Any = None
        with self._explained("opening the GPU"):
            self.driver.init()
            self._context = _primary_context(self.driver.Device(index), index, blocking)
        try:
            with self.current():
                self.stream = self.driver.Stream()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """The context is current in this thread inside the block; other threads wait. May be nested.

        Failures of the driver come out as JetmaskErrors that say what to do.
        """
        with self._lock:
            if self._context is None:
                raise JetmaskError(
                    "the engine was used after it was closed",
                    None,
                    "an open engine",
                    "report this as a bug, with the log",
                )
            with self._explained("using the GPU"):
                self._context.push()
                try:
                    yield
                finally:
                    # Static: pops what is current in this thread, which is our push.
                    self.driver.Context.pop()

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except self.driver.MemoryError as error:
            raise JetmaskError(
                f"the GPU is out of memory ({error})",
                self._memory_words(),
                "enough free memory",
                "stop other programs that use the GPU, choose a smaller variant, or reduce --workspace-mb",
            ) from error
        except self.driver.LogicError as error:
            if "not initialized" in str(error) or "no CUDA-capable device" in str(error):
                raise DeviceMismatch(
                    f"{doing}: {error}", None, "an NVIDIA GPU", "use an onnxruntime variant on this machine"
                ) from error
            raise JetmaskError(
                f"{doing} failed: {error}",
                self.gpu.name,
                "a usable CUDA context",
                "this is a bug of the program if it happens again; please report it",
            ) from error
        except self.driver.Error as error:
            raise JetmaskError(
                f"the GPU gave up: {error}",
                self.gpu.name,
                "a healthy CUDA context",
                "the context is lost: restart the program; if it comes again, look at `dmesg` for power or heat "
                "trouble and rebuild the engine",
            ) from error

    def _memory_words(self) -> str:
        try:
            self._context.push()
            try:
                free, total = self.driver.mem_get_info()
            finally:
                self.driver.Context.pop()
        except (AttributeError, self.driver.Error):
            return self.gpu.name
        return f"{self.gpu.name}, {free >> 20} of {total >> 20} MiB free"

    def pair(self, shape: Tuple[int, ...], dtype: Any) -> Pair:
        """A pinned, zeroed array of this shape and its device twin; both live until `close`."""
        host = self.driver.pagelocked_zeros(shape, dtype)
        pair = Pair(host, self.driver.mem_alloc(max(1, host.nbytes)))
        self._pairs.append(pair)
        return pair

    def upload(self, pair: Pair) -> None:
        """Queue the copy host to device on the stream; the host array must rest until `synchronize`."""
        self.driver.memcpy_htod_async(pair.device, pair.host, self.stream)

    def download(self, pair: Pair) -> None:
        """Queue the copy device to host on the stream."""
        self.driver.memcpy_dtoh_async(pair.host, pair.device, self.stream)

    def event(self) -> Any:
        """A CUDA event with timing; `event.record(session.stream)`, later `event.time_till(other)` in ms."""
        event = self.driver.Event()
        self._events.append(event)
        return event

    def synchronize(self) -> None:
        """Wait until the stream is empty; an error of any queued work shows here."""
        self.stream.synchronize()

    def close(self) -> None:
        """Free events, buffers and the stream; again is harmless. The primary context stays, the process's."""
        with self._lock:
            context, self._context = self._context, None
            if context is None:
                return
            try:
                context.push()
                try:
                    # Host buffers belong to their arrays: whoever keeps one keeps its memory, never a dangling pointer.
                    while self._pairs:
                        self._pairs.pop().device.free()
                    del self._events[:]
                    self.stream = None
                finally:
                    self.driver.Context.pop()
            except self.driver.Error:
                # A lost context frees with the process; an error here would hide the one that led to it.
                pass

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
