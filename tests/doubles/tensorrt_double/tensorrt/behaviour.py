"""What the double does. Each rule names its section in the facts it was written from (tensorrt_facts, by number).

It proves plumbing: a plan holds the ONNX, and running it runs ONNX Runtime on the very device addresses it was given
(device memory is host memory on the stand-in driver). No claim about TensorRT rests on a rule that is only here.
"""

import ctypes
import json
import os
import struct
import sys
import time
import zlib

from jetson.engine import onnx_facts

from . import surface
from .surface import MAJOR_MINOR, MEMBERS, VERSION, Base, expose

MAGIC = b"TRTDOUBLE\n"
FULL_VERSION = {"8.2.1": "8.2.1.8", "10.3.0": "10.3.0.26", "11.1": "11.1.0.106"}.get(VERSION, VERSION + ".0")

BuilderFlag = surface.enum("BuilderFlag")
DataType = surface.enum("DataType")
MemoryPoolType = surface.enum("MemoryPoolType")
NetworkDefinitionCreationFlag = surface.enum("NetworkDefinitionCreationFlag")
ProfilingVerbosity = surface.enum("ProfilingVerbosity")
Severity = surface.enum("Severity")
TensorIOMode = surface.enum("TensorIOMode")
LayerInformationFormat = surface.enum("LayerInformationFormat")
_NUMPY = {"FLOAT": "float32", "HALF": "float16"}


def _driver():
    return ctypes.CDLL("libcuda.so.1")


def _gpu():
    driver, major, minor, name = _driver(), ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    code = driver.cuInit(0)
    if code:
        return None
    driver.cuDeviceGetName(name, 256, 0)
    driver.cuDeviceComputeCapability(ctypes.byref(major), ctypes.byref(minor), 0)
    return name.value.decode(), (major.value, minor.value)


def _int8_hardware(capability):  # 3.4
    return capability == (6, 1) or capability >= (7, 0)


def _callback(function, *arguments):
    """Call into Python as the bindings do (0, fact 9): an exception ends the process of 8.2, later it is printed."""
    try:
        return function(*arguments)
    except BaseException as error:
        if MAJOR_MINOR < (8, 6):
            sys.stderr.write("terminate called after throwing an instance of 'pybind11::error_already_set'\n")
            sys.stderr.flush()
            os._exit(134)
        sys.stderr.write(f"[ERROR] Exception caught in {getattr(function, '__name__', '?')}: {error}\n")
        return None


class ILogger(Base):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = (
        getattr(Severity, name) for name in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    )
    Severity = Severity

    def log(self, severity, msg):
        raise NotImplementedError


_logger = []  # 1.3: the library keeps the first logger


def _log(severity, text):
    if _logger:
        _callback(_logger[0].log, getattr(Severity, severity), text)


def _assign(logger, creator):
    if not isinstance(logger, ILogger):
        raise TypeError("incompatible function arguments: a logger is needed")
    if not _logger:
        _logger.append(logger)
    elif _logger[0] is not logger:
        _log(
            "WARNING",
            f"The logger passed into {creator} differs from one already assigned, 0x55d0, logger not updated.",
        )


class Logger(ILogger):
    def __init__(self, min_severity=Severity.WARNING):
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity, msg):
        if int(severity) <= int(self.min_severity):
            print(f"[TRT] [{severity.name[0]}] {msg}")


class IHostMemory(Base):
    """Buffer protocol in the real one; here bytes-like through __bytes__."""

    def __init__(self, data):
        super().__init__()
        self._data = data

    def __bytes__(self):
        return self._data

    @property
    def nbytes(self):
        return len(self._data)


# ------------------------------------------------------------------------------------------------ the network


class ITensor(Base):
    def __init__(self, network, name, shape, dtype, is_input=False):
        super().__init__()
        self._network, self._name, self._shape, self._dtype, self._is_input = network, name, shape, dtype, is_input

    @property
    def name(self):
        return self._name

    @property
    def dtype(self):
        return self._dtype

    @property
    def shape(self):
        if not self._is_input and self._name in self._network._output_shapes():
            return self._network._output_shapes()[self._name]
        return self._shape

    @shape.setter
    def shape(self, shape):
        if not self._is_input:
            _log("ERROR", "ITensor::setDimensions: not a network input")
            return
        self._shape = tuple(shape)

    @property
    def is_network_input(self):
        return self._is_input


class ILayer(Base):
    _settable = ("precision",)

    def __init__(self, network, node):
        super().__init__()
        self._network, self._node, self._types = network, node, {}

    @property
    def name(self):
        return self._node.name

    @property
    def num_outputs(self):
        return len(self._node.outputs)

    def get_output(self, index):
        return ITensor(self._network, self._node.outputs[index], (), DataType.FLOAT)

    def set_output_type(self, index, dtype):
        self._types[index] = dtype


class INetworkDefinition(Base):
    def __init__(self, flags):
        super().__init__()
        self._flags, self._data, self._facts, self._layers, self._inputs = flags, b"", None, [], []

    def _fill(self, data, facts):
        self._data, self._facts = data, facts
        self._layers = [ILayer(self, node) for node in facts.nodes]
        self._inputs = [
            ITensor(self, value.name, tuple(d if isinstance(d, int) else -1 for d in value.shape), DataType.FLOAT, True)
            for value in facts.inputs
        ]

    def _session(self):
        import onnxruntime  # late: who only imports the module should not wait for it

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        for value, tensor in zip(self._facts.inputs, self._inputs):
            for dimension, size in zip(value.shape, tensor._shape):
                if isinstance(dimension, str) and size > 0:
                    options.add_free_dimension_override_by_name(dimension, size)
        return onnxruntime.InferenceSession(self._data, options, providers=["CPUExecutionProvider"])

    def _output_shapes(self):
        if self._facts is None:
            return {}
        return {
            output.name: tuple(d if isinstance(d, int) else -1 for d in output.shape)
            for output in self._session().get_outputs()
        }

    @property
    def num_layers(self):
        return len(self._layers)

    def get_layer(self, index):
        return self._layers[index]

    @property
    def num_inputs(self):
        return len(self._inputs)

    def get_input(self, index):
        return self._inputs[index]

    @property
    def num_outputs(self):
        return len(self._facts.outputs)

    def get_output(self, index):
        value = self._facts.outputs[index]
        return ITensor(self, value.name, tuple(d if isinstance(d, int) else -1 for d in value.shape), DataType.FLOAT)


class ParserError(Base):
    def __init__(self, node, name, op, words):
        super().__init__()
        self._node, self._name, self._op, self._words = node, name, op, words

    def node(self):
        return self._node

    def node_name(self):
        return self._name

    def node_operator(self):
        return self._op

    def desc(self):
        return self._words

    def code(self):
        return 8

    def __str__(self):
        return f"In node {self._node} (parseGraph): UNSUPPORTED_NODE: {self._words}"


class OnnxParser(Base):
    def __init__(self, network, logger):
        super().__init__()
        _assign(logger, "createParser_INTERNAL")
        self._network, self._errors = network, []

    def parse(self, model, path=None):
        data = bytes(model)
        try:
            facts = onnx_facts.parse(data)
        except Exception:
            self._errors = [ParserError(-1, "", "", "Failed to parse the ONNX model.")]
            return False
        self._errors = list(self._rules(facts))
        if self._errors:
            for error in self._errors:
                _log("ERROR", str(error))
            return False
        if MAJOR_MINOR < (10, 0) and not self._network._flags & 1:  # 0, fact 6
            _log("ERROR", "This version of the ONNX parser only supports networks with an explicit batch dimension")
            return False
        self._network._fill(data, facts)
        return True

    def _rules(self, facts):
        """4.2 and 3.3, for 8.2 only."""
        if MAJOR_MINOR >= (8, 5):
            return
        if any(value.type == onnx_facts.UINT8 for value in facts.inputs):
            yield ParserError(-1, "", "", "Failed to convert ONNX date type to TensorRT data type.")
        for index, node in enumerate(facts.nodes):
            if node.op in ("HardSwish", "NonZero", "QLinearConv", "DynamicQuantizeLinear"):
                yield ParserError(
                    index,
                    node.name,
                    node.op,
                    f"No importer registered for op: {node.op}. Attempting to import as plugin.",
                )
            if node.op in ("QuantizeLinear", "DequantizeLinear") and len(node.inputs) != 3:
                yield ParserError(
                    index,
                    node.name,
                    node.op,
                    f"This version of TensorRT requires 3 inputs for the {node.op} operator.",
                )
            if node.op == "Conv" and len(node.inputs) > 2 and node.inputs[2] not in facts.initializers:
                yield ParserError(
                    index, node.name, node.op, "The bias tensor is required to be an initializer for the Conv operator"
                )

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]

    def clear_errors(self):
        self._errors = []


# ------------------------------------------------------------------------------------------------ the builder


class ITimingCache(Base):
    def __init__(self, data):
        super().__init__()
        self._data = data

    def serialize(self):
        return IHostMemory(self._data)


class IBuilderConfig(Base):
    _settable = ("max_workspace_size", "int8_calibrator", "profiling_verbosity", "progress_monitor")

    def __init__(self):
        super().__init__()
        self._flags = {"TF32"}
        self._workspace = 1 << 34
        self._cache = None
        if "max_workspace_size" in MEMBERS["IBuilderConfig"]:
            self.max_workspace_size = 0  # 0, fact 5
        for name in ("int8_calibrator", "progress_monitor"):
            if name in MEMBERS["IBuilderConfig"]:
                setattr(self, name, None)

    def set_flag(self, flag):
        self._flags.add(flag.name)

    def clear_flag(self, flag):
        self._flags.discard(flag.name)

    def get_flag(self, flag):
        return flag.name in self._flags

    def set_memory_pool_limit(self, pool, size):
        self._workspace = size

    def _workspace_bytes(self):
        return self._workspace if "set_memory_pool_limit" in MEMBERS["IBuilderConfig"] else self.max_workspace_size

    def create_timing_cache(self, data):
        return ITimingCache(bytes(data) or b"timing " + FULL_VERSION.encode())

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache._data != b"timing " + FULL_VERSION.encode():  # 2.4
            return False
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache


def _addresses_hold_numbers(addresses, shape):
    import numpy as np

    count = int(np.prod(shape))
    values = np.ctypeslib.as_array((ctypes.c_float * count).from_address(addresses[0]))
    return bool(np.isfinite(values).all()), zlib.crc32(values.tobytes())


class Builder(Base):
    def __init__(self, logger):
        super().__init__()
        _assign(logger, "createInferBuilder")
        self._gpu = _gpu()
        if self._gpu is None:
            _log("INTERNAL_ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    @property
    def platform_has_fast_int8(self):
        return _int8_hardware(self._gpu[1])

    @property
    def platform_has_fast_fp16(self):
        return self._gpu[1] in ((5, 3), (6, 0), (6, 2)) or self._gpu[1] >= (7, 0)

    @property
    def num_DLA_cores(self):
        return 0

    def create_network(self, flags=0):
        return INetworkDefinition(flags)

    def create_builder_config(self):
        return IBuilderConfig()

    def _calibrate(self, network, config):
        """3.1: size, cache, batches until None, cache written as memory that dies after the call."""
        calibrator = config.int8_calibrator
        if _callback(calibrator.get_batch_size) != 1:
            _log("ERROR", "Calibration failure occurred: batch size")
            return None
        cache = _callback(calibrator.read_calibration_cache)
        kind = "EntropyCalibration2" if isinstance(calibrator, IInt8EntropyCalibrator2) else "MinMaxCalibration"
        digits = {"8.2.1": "8201", "8.4.3": "8403", "8.5.3": "8503", "8.6.1": "8601", "10.3.0": "100300"}[VERSION]
        digits = os.environ.get("TENSORRT_DOUBLE_CACHE_VERSION", digits)
        header = f"TRT-{digits}-{kind}"
        if cache is not None:
            if bytes(cache).decode().split("\n")[0] == header:  # 3.2, taken strictly
                return bytes(cache)
            _log("WARNING", "Calibration table does not match calibrator algorithm type.")
        seen = 0
        while True:
            batch = _callback(calibrator.get_batch, [tensor._name for tensor in network._inputs])
            if not batch:
                break
            if len(batch) < len(network._inputs):
                os._exit(139)  # the real one reads past the list's end
            good, check = _addresses_hold_numbers(batch, network._inputs[0]._shape)
            if not good:
                _log("ERROR", "Calibration data is not finite")
                return None
            seen += 1
        if not seen:
            _log("ERROR", "Calibration failure occurred with no scaling factors detected.")
            return None
        lines = [header] + [
            f"{name}: {struct.unpack('>I', struct.pack('>f', 2.0))[0]:x}"
            for node in network._facts.nodes
            for name in node.outputs
        ]
        text = ("\n".join(lines) + "\n").encode()
        memory = memoryview(bytearray(text))
        _callback(calibrator.write_calibration_cache, memory)
        memory.release()
        return text

    def build_serialized_network(self, network, config):
        started = time.time()
        if config._workspace_bytes() < 1 << 20:
            _log(
                "ERROR",
                "2: [standardEngineBuilder.cpp] insufficient workspace: Could not find any implementation for node",
            )
            return None
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            _callback(monitor.phase_start, "Building Engine", None, 4)
        typed = "STRONGLY_TYPED" in MEMBERS["NetworkDefinitionCreationFlag"] and (
            MAJOR_MINOR >= (11, 0) or network._flags & 2
        )
        if typed and config._flags & {"FP16", "INT8"}:  # 2.2, point 4
            _log("ERROR", "Strongly typed networks do not take precision flags")
            return None
        if network._facts.quantized and not _int8_hardware(self._gpu[1]):  # 0, fact 1
            _log(
                "WARNING",
                "Int8 support requested on hardware without native Int8 support, performance will be "
                "negatively affected.",
            )
            _log(
                "ERROR",
                "9: [standardEngineBuilder.cpp::buildEngine::1631] Error Code 9: Internal Error (Networks "
                "with QuantizeLayer/DequantizeLayer layers require hardware with Int8 support.)",
            )
            return None
        if network._facts.quantized and not typed and "INT8" not in config._flags:  # 3.3
            _log("ERROR", "Int8 precision has not been set in the builder configuration")
            return None
        cache = None
        if "INT8" in config._flags and not network._facts.quantized:
            if config.int8_calibrator is None:
                _log(
                    "WARNING",
                    "Calibrator is not being used. Users must provide dynamic range for all tensors that "
                    "are not Int32.",
                )
            else:
                cache = self._calibrate(network, config)
                if cache is None:
                    return None
        seconds = float(os.environ.get("TENSORRT_DOUBLE_BUILD_S", "0"))
        while time.time() - started < seconds:
            _log("INFO", "timing tactics")
            time.sleep(0.02)
        if os.environ.get("TENSORRT_DOUBLE_DIE"):
            os.kill(os.getpid(), int(os.environ["TENSORRT_DOUBLE_DIE"]))
        if monitor is not None:
            _callback(monitor.step_complete, "Building Engine", 0)
            _callback(monitor.phase_finish, "Building Engine")
        head = {
            "version": FULL_VERSION,
            "capability": list(self._gpu[1]),
            "gpu": self._gpu[0],
            "flags": sorted(config._flags),
            "typed": bool(typed),
            "workspace": config._workspace_bytes(),
            "inputs": [[t._name, list(t._shape)] for t in network._inputs],
            "pinned": [
                [layer.name, str(layer.__dict__["precision"])]
                for layer in network._layers
                if "precision" in layer.__dict__
            ],
            "calibrated": None if cache is None else zlib.crc32(cache),
            "output_type": os.environ.get("TENSORRT_DOUBLE_OUTPUT", "FLOAT"),
        }
        return IHostMemory(MAGIC + json.dumps(head).encode() + b"\n" + network._data)


# ------------------------------------------------------------------------------------------------ the runtime


class ICudaEngine(Base):
    def __init__(self, head, data):
        super().__init__()
        self._head = head
        network = INetworkDefinition(1)
        network._fill(data, onnx_facts.parse(data))
        for tensor, (_, shape) in zip(network._inputs, head["inputs"]):
            tensor._shape = tuple(shape)
        self._network, self._session = network, network._session()
        output_type = getattr(DataType, head["output_type"])
        self._io = [(t._name, tuple(t._shape), DataType.FLOAT, True) for t in network._inputs] + [
            (output.name, tuple(output.shape), output_type, False) for output in self._session.get_outputs()
        ]

    def _named(self, name):
        return next(entry for entry in self._io if entry[0] == name)

    @property
    def num_bindings(self):
        return len(self._io)

    def get_binding_name(self, index):
        return self._io[index][0]

    def get_binding_shape(self, index):
        return self._io[index][1]

    def get_binding_dtype(self, index):
        return self._io[index][2]

    def binding_is_input(self, index):
        return self._io[index][3]

    @property
    def num_io_tensors(self):
        return len(self._io)

    def get_tensor_name(self, index):
        return self._io[index][0]

    def get_tensor_shape(self, name):
        return self._named(name)[1]

    def get_tensor_dtype(self, name):
        return self._named(name)[2]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if self._named(name)[3] else TensorIOMode.OUTPUT

    @property
    def num_layers(self):
        return self._network.num_layers

    def create_execution_context(self):
        return IExecutionContext(self)


_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class IExecutionContext(Base):
    _settable = ("profiler", "enqueue_emits_profile")

    def __init__(self, engine):
        super().__init__()
        self._engine, self._addresses, self._pending = engine, {}, []
        self.profiler, self.enqueue_emits_profile = None, True

    def _array(self, address, shape, dtype):
        import numpy as np

        dtype = np.dtype(_NUMPY[dtype.name])
        count = int(np.prod(shape))
        return np.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(address), dtype).reshape(shape)

    def _run(self, addresses):
        feeds, views = {}, {}
        for name, shape, dtype, is_input in self._engine._io:
            view = self._array(addresses[name], shape, dtype)
            if is_input:
                feeds[name] = view
            else:
                views[name] = view
        for name, value in zip(views, self._engine._session.run(list(views), feeds)):
            views[name][...] = value

    def _enqueue(self, addresses, stream_handle):
        """The work goes into the stream and runs when the stream reaches it."""
        driver = _driver()
        context = ctypes.c_void_p()
        driver.cuCtxGetCurrent(ctypes.byref(context))
        if not context.value:  # 1.5
            _log("ERROR", "1: [runner.cpp] Error Code 1: Cuda Runtime (invalid resource handle)")
            return False
        addresses = dict(addresses)
        call = _HOST_FUNCTION(lambda _: self._run(addresses))
        self._pending = self._pending[-3:] + [call]  # alive until the stream has run it
        code = driver.cuLaunchHostFunc(ctypes.c_void_p(stream_handle), call, None)
        if code:
            _log("ERROR", "1: [genericReformat.cu] Error Code 1: Cuda Runtime (unspecified launch failure)")
            return False
        if self.profiler is not None and self.enqueue_emits_profile:
            self.report_to_profiler()
        return True

    def execute_async_v2(self, bindings, stream_handle):
        if len(bindings) < len(self._engine._io):
            os._exit(139)
        return self._enqueue(dict(zip((entry[0] for entry in self._engine._io), bindings)), stream_handle)

    def set_tensor_address(self, name, address):
        if name not in [entry[0] for entry in self._engine._io]:
            _log("ERROR", "3: [executionContext.cpp] Given invalid tensor name: " + name)
            return False
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle):
        missing = [entry[0] for entry in self._engine._io if entry[0] not in self._addresses]
        if missing:
            _log("ERROR", "3: [executionContext.cpp] Address is not set for tensor " + missing[0])
            return False
        return self._enqueue(self._addresses, stream_handle)

    def report_to_profiler(self):
        if self.profiler is None:
            return False
        for layer in self._engine._network._layers:
            _callback(self.profiler.report_layer_time, layer._node.name, 0.25)
        return True


class Runtime(Base):
    def __init__(self, logger):
        super().__init__()
        _assign(logger, "createInferRuntime")

    def deserialize_cuda_engine(self, serialized_engine):
        """1.7: None and the log's words, never an exception."""
        data = bytes(serialized_engine)
        gpu = _gpu()
        words = None
        if not data.startswith(MAGIC) or b"\n" not in data[len(MAGIC) :]:
            words = (
                "1: [stdArchiveReader.cpp::StdArchiveReader::35] Error Code 1: Serialization (Serialization "
                "assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match)"
            )
        else:
            text, _, model = data[len(MAGIC) :].partition(b"\n")
            head = json.loads(text.decode())
            if head["version"] != FULL_VERSION:
                words = (
                    "6: The engine plan file is not compatible with this version of TensorRT, expecting library "
                    "version {} got {}, please rebuild.".format(FULL_VERSION, head["version"])
                )
            elif gpu is None or tuple(head["capability"]) != gpu[1]:
                words = (
                    "The engine plan file is generated on an incompatible device, expecting compute {}.{} got "
                    "compute {}.{}, please rebuild.".format(*(gpu[1] if gpu else (0, 0)), *head["capability"])
                )
        if words:
            _log("ERROR", words)
            _log(
                "ERROR",
                "4: [runtime.cpp::deserializeCudaEngine::50] Error Code 4: Internal Error (Engine "
                "deserialization failed.)",
            )
            return None
        return ICudaEngine(head, model)


class IInt8EntropyCalibrator2(Base):
    pass


class IInt8MinMaxCalibrator(Base):
    pass


class IProfiler(Base):
    pass


class IProgressMonitor(Base):
    pass


CLASSES = {
    cls.__name__: expose(cls)
    for cls in (
        ILogger,
        Logger,
        IHostMemory,
        ITensor,
        ILayer,
        INetworkDefinition,
        ParserError,
        OnnxParser,
        ITimingCache,
        IBuilderConfig,
        Builder,
        ICudaEngine,
        IExecutionContext,
        Runtime,
        IInt8EntropyCalibrator2,
        IInt8MinMaxCalibrator,
        IProfiler,
        IProgressMonitor,
    )
}
