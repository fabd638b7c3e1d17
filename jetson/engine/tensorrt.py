"""TensorRT on the GPU: a plan from the cache, one CUDA session, fixed buffers, one stream.

Both runtime interfaces: numbered bindings (8.0 to 8.6) and named tensors (8.5 and later, the only one from 10.0), told
apart by what the engine object has. Outputs are allocated by their true type and handed out as float32.
"""

import contextlib
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from jetson.bundle.manifest import Manifest, Variant
from jetson.engine import build, cuda, tensorrt_module
from jetson.errors import BadInput, DeviceMismatch, JetmaskError

# Not trt.nptype: up to 8.5 it fails for every type under numpy 1.24 and later.
DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}

REBUILD = "build it again: python3 -m jetson build DIR --force"


class Tensor(NamedTuple):
    name: str
    shape: Tuple[int, ...]
    dtype: Any
    is_input: bool


def reason() -> Optional[str]:
    """Why TensorRT cannot run here; None when it can. Makes no CUDA context."""
    return cuda.reason() or tensorrt_module.reason()


def open_variant(bundle_dir: str, manifest: Manifest, variant: Variant, threads: int = 1) -> "TensorRtEngine":
    """The engine of one variant of a bundle: its plan from the cache, or built now (minutes, progress on stderr)."""
    trt = tensorrt_module.load()
    plan, _ = build.ensure(manifest, variant, trt)
    return TensorRtEngine(plan, variant.input_wh, trt)


def _numpy_type(name: str, dtype: Any) -> Any:
    kind = str(dtype).rpartition(".")[2]
    if kind not in DTYPES:
        raise BadInput(
            f"tensor {name} of the engine has the type {kind}, which numpy has not",
            None,
            "one of " + ", ".join(sorted(DTYPES)),
        )
    return DTYPES[kind]


class TensorRtEngine:
    """A deserialised plan with its buffers.

    `plan`: bytes whose hash was compared with a sidecar (a plan is executable code). `input_wh`: pixels.
    `input` is pinned memory: write to it, do not read from it (on a Nano it is not cached). DeviceMismatch when the
    plan is for another TensorRT or GPU. One call at a time; from any thread.
    """

    runtime = "tensorrt"

    def __init__(self, plan: bytes, input_wh: Tuple[int, int], trt: Any = None) -> None:
        self._trt = tensorrt_module.load() if trt is None else trt
        self._log = tensorrt_module.log_for(self._trt)
        self.input_wh = (int(input_wh[0]), int(input_wh[1]))
        self.timings: Dict[str, float] = {"infer_ms": 0.0}
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._input: Any = None
        self.input: Any = None
        self._session = cuda.Session()
        try:
            with self._session.current():
                self._open(plan)
        except BaseException:
            self.close()
            raise

    def _open(self, plan: bytes) -> None:
        since = self._log.count
        self._runtime = self._trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            said = "; ".join(self._log.errors(since)) or "no reason given"
            raise DeviceMismatch(
                "the engine cannot be loaded: " + said,
                f"TensorRT {self._trt.__version__} on {self._session.gpu.name}",
                "a plan built here, by this TensorRT",
                REBUILD,
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise JetmaskError(
                "the engine cannot be started: " + "; ".join(self._log.errors(since)),
                self._session.gpu.name,
                "enough free GPU memory",
                "stop other programs that use the GPU, or choose a smaller variant",
            )
        self._named = hasattr(self._engine, "num_io_tensors")
        self.tensors = self._list_tensors()
        inputs = [tensor for tensor in self.tensors if tensor.is_input]
        shape = (1, 3, self.input_wh[1], self.input_wh[0])
        if len(inputs) != 1 or inputs[0].shape != shape or inputs[0].dtype is not np.float32:
            raise BadInput(
                "unexpected engine input: {}".format(
                    ", ".join(f"{t.name} {t.shape} {np.dtype(t.dtype)}" for t in inputs)
                ),
                None,
                f"one float32 input {shape}",
                REBUILD,
            )
        pairs = [self._session.pair(tensor.shape, tensor.dtype) for tensor in self.tensors]
        self._input = next(pair for pair, tensor in zip(pairs, self.tensors) if tensor.is_input)
        self.input = self._input.host
        # Pinned memory is slow to read on boards without I/O coherency: each output is read from it once.
        self._results = [
            (tensor.name, pair, np.zeros(tensor.shape, np.float32))
            for pair, tensor in zip(pairs, self.tensors)
            if not tensor.is_input
        ]
        self._outputs = {name: result for name, _, result in self._results}
        self._bindings = [pair.address for pair in pairs]
        if self._named:
            for tensor, address in zip(self.tensors, self._bindings):
                if not self._context.set_tensor_address(tensor.name, address):
                    raise self._failed("TensorRT refuses the address of tensor " + tensor.name, since)
        self._marks = [self._session.event() for _ in range(4)]

    def _list_tensors(self) -> List[Tensor]:
        engine = self._engine
        if self._named:
            names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
            return [
                Tensor(
                    name,
                    tuple(engine.get_tensor_shape(name)),
                    _numpy_type(name, engine.get_tensor_dtype(name)),
                    engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT,
                )
                for name in names
            ]
        return [
            Tensor(
                engine.get_binding_name(i),
                tuple(engine.get_binding_shape(i)),
                _numpy_type(engine.get_binding_name(i), engine.get_binding_dtype(i)),
                engine.binding_is_input(i),
            )
            for i in range(engine.num_bindings)
        ]

    def _failed(self, what: str, since: int) -> JetmaskError:
        said = "; ".join(self._log.errors(since)[-3:])
        return JetmaskError(
            what + (": " + said if said else ""),
            self._session.gpu.name,
            None,
            tensorrt_module.remedy_for(said) or "restart the program, or " + REBUILD,
        )

    def _execute(self) -> None:
        since = self._log.count
        handle = self._session.stream.handle
        done = (
            self._context.execute_async_v3(handle)
            if self._named
            else self._context.execute_async_v2(self._bindings, handle)
        )
        if not done:
            raise self._failed("TensorRT could not run the engine", since)

    def infer(self, image: Optional[np.ndarray] = None) -> Dict[str, np.ndarray]:
        """Run `image` (default: what is in `.input`), float32 (1, 3, H, W); {output name: float32 NCHW array}.

        `timings` then holds h2d_ms, execute_ms and d2h_ms by CUDA events, and infer_ms by the wall clock.
        """
        started = time.perf_counter()
        with self._session.current():
            if image is not None and image is not self.input:
                self.input[...] = image
            session, marks = self._session, self._marks
            marks[0].record(session.stream)
            session.upload(self._input)
            marks[1].record(session.stream)
            self._execute()
            marks[2].record(session.stream)
            for _, pair, _ in self._results:
                session.download(pair)
            marks[3].record(session.stream)
            session.synchronize()
            stages = [marks[i].time_till(marks[i + 1]) for i in range(3)]
        for _, pair, result in self._results:
            result[...] = pair.host
        self.timings = {
            "h2d_ms": stages[0],
            "execute_ms": stages[1],
            "d2h_ms": stages[2],
            "infer_ms": (time.perf_counter() - started) * 1e3,
        }
        return dict(self._outputs)

    def layer_times(self, runs: int = 20) -> List[Tuple[str, float]]:
        """(layer, mean ms) in execution order over `runs` inferences of what is in `.input`.

        Profiling slows the engine: use the shares, take the total from `timings`.
        """
        totals: Dict[str, float] = {}

        profiler_base: Any = self._trt.IProfiler

        class Profiler(profiler_base):  # the base is known only when the module is
            def __init__(self, base: Any) -> None:
                base.__init__(self)

            def report_layer_time(self, layer: str, ms: float, *_: Any) -> None:
                with contextlib.suppress(BaseException):  # in 8.2 an exception here ends the process
                    totals[layer] = totals.get(layer, 0.0) + ms

        with self._session.current():
            profiler = Profiler(self._trt.IProfiler)
            self._context.profiler = profiler
            self._context.enqueue_emits_profile = False  # else the enqueue itself waits
            self._session.upload(self._input)
            for _ in range(runs):
                since = self._log.count
                self._execute()
                self._session.synchronize()
                if not self._context.report_to_profiler():
                    raise self._failed("TensorRT could not report the layers' times", since)
            self._profiler = profiler  # TensorRT keeps a bare pointer to it
        return [(layer, ms / runs) for layer, ms in totals.items()]

    def close(self) -> None:
        """Free context, engine, runtime, buffers and the CUDA context, in this order; again is harmless."""
        try:
            if self._context is not None or self._engine is not None or self._runtime is not None:
                with self._session.current():
                    self._context = None
                    self._engine = None
                    self._runtime = None
                    # The last references to pinned memory: it must be freed while its context is current.
                    self._marks, self._results, self._bindings = [], [], []
                    self._input = self.input = None
        finally:
            self._session.close()

    def __enter__(self) -> "TensorRtEngine":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
