"""From an ONNX file to a TensorRT plan: parse, shapes, precision, in one function for every TensorRT from 8.2 on.

Two worlds, told apart by what the module has, never by its version text: builder flags and calibrators (8.x, 10.x), and
strongly typed networks, whose precision is in the ONNX (TensorRT 11, TensorRT for RTX, and FP16 files on 10.x).
Facts: NVIDIA/TensorRT tags 8.2.1 to v11.1, python/src, and onnx-tensorrt release/8.2-GA.
"""

import difflib
import warnings
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from jetson.engine import onnx_facts
from jetson.engine.cuda import NO_INT8, has_fp16, has_int8, has_sparse
from jetson.engine.tensorrt_module import log_for, remedy_for
from jetson.errors import BadInput, DeviceMismatch, JetmaskError


class Result(NamedTuple):
    plan: bytes
    timing_cache: Optional[bytes]
    flags: Tuple[str, ...]
    typed: bool
    layers: int
    inputs: Dict[str, Tuple[int, ...]]
    outputs: Dict[str, Tuple[int, ...]]


# ------------------------------------------------------------------------------------------------------- refusals


def int8_refusal(device: str, capability: Tuple[int, int], tensorrt: str = "TensorRT") -> DeviceMismatch:
    """The answer to whoever asks for TensorRT INT8 on a GPU without INT8 arithmetic."""
    board = NO_INT8.get(capability)
    target = {(5, 3): "nano", (6, 2): "tx2"}.get(capability, "DEVICE")
    return DeviceMismatch(
        f"{device} has no INT8 hardware, so a TensorRT INT8 engine is not built for it",
        "compute capability {}.{}{}; INT8 exists in 6.1 and from 7.0 on (NVIDIA's support table). What {} does there: "
        'a file with Q/DQ nodes fails to build ("Networks with QuantizeLayer/DequantizeLayer layers require hardware '
        'with Int8 support", NVIDIA/TensorRT#3399); with a calibrator it builds, and the owner of a Nano measured an '
        "engine of the same size and speed as FP16".format(
            capability[0], capability[1], f" ({board})" if board else "", tensorrt
        ),
        "fp16, which this GPU runs at twice the rate of fp32" if capability in NO_INT8 else "a precision it has",
        f"build fp16: `jetmask build MODEL.onnx --target {target} --precision fp16`, on the device `python3 -m jetson "
        "build DIR` with an fp16 variant; for 8 bits on its CPU use an int8-cpu variant with ONNX Runtime; "
        "--int8-anyway, on the device, builds and measures it all the same",
    )


def is_typed(trt: Any, model: onnx_facts.Facts) -> bool:
    """Whether the network is built strongly typed: when the module knows nothing else, or the file carries FP16."""
    if not hasattr(trt.BuilderFlag, "FP16"):
        return True
    return model.half and hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def check_precision(
    trt: Any,
    model: onnx_facts.Facts,
    precision: str,
    calibrated: bool,
    capability: Optional[Tuple[int, int]],
    device: str,
    where: str,
    fast_int8: Optional[bool] = None,
    int8_anyway: bool = False,
) -> None:
    """Refuse what this TensorRT, this GPU and this file cannot be together; the reason and the way out are named.

    `capability`: of the GPU, None when it is not known. `fast_int8`: the builder's own word, None when it has none.
    `int8_anyway`: INT8 by calibration also on a GPU without INT8 arithmetic.
    """
    name = f"TensorRT {trt.__version__}"
    if precision not in ("fp32", "fp16", "int8"):
        raise BadInput(f"{precision} is not a TensorRT precision", where, "fp32, fp16 or int8")
    if precision == "int8" or model.quantized:
        if fast_int8 is None and capability is not None:
            fast_int8 = has_int8(capability)
        if fast_int8 is False and (model.quantized or not int8_anyway):
            raise int8_refusal(device, capability or (0, 0), name)
    if model.quantized and precision != "int8":
        raise BadInput(
            f"the file holds Q/DQ nodes, so it is not an {precision} model",
            where,
            "precision int8",
            "choose the variant's float file (models/<model>.onnx)",
        )
    typed = is_typed(trt, model)
    if precision == "fp16" and typed and not model.half:
        raise DeviceMismatch(
            f"{name} has no FP16 flag: precision must be in the file, and this one is fp32",
            where,
            "a typed FP16 file",
            "use the variant whose file is models/<model>.fp16.onnx",
        )
    if precision == "fp32" and model.half:
        raise BadInput(
            "the file carries FP16, so it is not an fp32 model",
            where,
            "precision fp16",
            "use the variant whose file is models/<model>.onnx",
        )
    if precision == "int8" and not model.quantized:
        if typed or not hasattr(trt, "IInt8EntropyCalibrator2"):
            raise DeviceMismatch(
                f"{name} has no calibrators: INT8 must be in the file as Q/DQ nodes",
                where,
                "a Q/DQ file",
                "use the variant whose file is models/<model>.int8.onnx",
            )
        if not calibrated:
            raise BadInput(
                "INT8 needs a calibration table, or a file with Q/DQ nodes",
                where,
                "calibration/<model>.json in the bundle",
                "calibrate: jetmask calibrate; or use models/<model>.int8.onnx",
            )


def takes_sparse(trt: Any, precision: str, capability: Tuple[int, int]) -> bool:
    """Whether an engine can gain from weights in the 2:4 pattern: fp16 or int8 on tensor cores that skip zeros.

    TensorRT then times sparse kernels beside the dense ones and takes the faster, layer by layer. Not for fp32: there
    TF32 is switched off, and tensor cores know no fp32.
    """
    return precision in ("fp16", "int8") and has_sparse(capability) and hasattr(trt.BuilderFlag, "SPARSE_WEIGHTS")


# ----------------------------------------------------------------------------------------------------- the network


def _parser_failure(trt: Any, parser: Any, log: Any, since: int, model: onnx_facts.Facts, path: str) -> BadInput:
    words, where = [], path
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        words.append(" ".join(str(error).split()))
        name = error.node_name() if hasattr(error, "node_name") else ""
        number = error.node()
        if not name and 0 <= number < len(model.nodes):  # 8.x: only the node's number
            name = model.nodes[number].name or model.nodes[number].op
        if name and where == path:
            where = f"{path}, node {name}"
    said = "; ".join(words) or "; ".join(log.errors(since)) or "no reason given"
    return BadInput(
        f"TensorRT {trt.__version__} cannot parse the model: {said}",
        where,
        "opset 13 and operators that this TensorRT takes",
        remedy_for(said),
    )


def parse(trt: Any, builder: Any, log: Any, model: onnx_facts.Facts, data: bytes, path: str) -> Tuple[Any, Any, bool]:
    """(network, parser, whether it is strongly typed). The parser must be kept as long as the network."""
    typed = is_typed(trt, model)
    kinds = trt.NetworkDefinitionCreationFlag
    flags = 0
    if hasattr(kinds, "EXPLICIT_BATCH"):  # required by 8.x, ignored by 10.x, unknown to 11
        flags |= 1 << int(kinds.EXPLICIT_BATCH)
    if typed and hasattr(kinds, "STRONGLY_TYPED"):
        flags |= 1 << int(kinds.STRONGLY_TYPED)
    since = log.count
    network = builder.create_network(flags)
    if network is None:
        raise _failure(trt, log, since, "no network could be made", path)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(data):
        raise _parser_failure(trt, parser, log, since, model, path)
    return network, parser, typed


def _shape(tensor: Any, path: str) -> Tuple[int, ...]:
    try:
        return tuple(tensor.shape)
    except RuntimeError as error:  # TensorRT 11 and RTX cannot say it when the graph's shapes contradict each other
        raise BadInput(
            f"TensorRT cannot work out the shape of tensor {tensor.name} ({error})",
            path,
            "shapes that fit together at this input size",
            "export the model again",
        ) from error


def set_input(trt: Any, network: Any, input_wh: Tuple[int, int], path: str) -> None:
    """Fix the network's one input to (1, 3, H, W); BadInput when it has others, or when an output stays open."""
    width, height = input_wh
    names = [network.get_input(i).name for i in range(network.num_inputs)]
    shape = (1, 3, height, width)
    if len(names) != 1:
        raise BadInput(f"the model has {len(names)} inputs: {', '.join(names)}", path, "one input, image")
    tensor = network.get_input(0)
    found = _shape(tensor, path)
    if len(found) != 4 or any(have not in (-1, want) for have, want in zip(found, shape)):
        raise BadInput(f"the model's input {names[0]} has the shape {found}", path, str(shape))
    if tensor.dtype != trt.DataType.FLOAT:
        raise BadInput(
            f"the model's input {names[0]} has the type {tensor.dtype}",
            path,
            "float32",
            "export with a float32 input: `jetmask export` does",
        )
    tensor.shape = shape
    for index in range(network.num_outputs):
        output = network.get_output(index)
        if any(dimension < 0 for dimension in _shape(output, path)):
            raise BadInput(
                f"output {output.name} keeps the shape {_shape(output, path)} at {width}x{height}",
                path,
                "fixed shapes once the input is",
                "export the model again",
            )


def set_layer_precisions(trt: Any, network: Any, kept: Dict[str, str], path: str) -> int:
    """Pin layers, named by node or by output tensor, to "fp32" or "fp16"; the number of layers that were pinned."""
    types = {"fp32": trt.DataType.FLOAT, "fp16": trt.DataType.HALF}
    left, names, pinned = set(kept), [], 0
    nodes = {network.get_layer(index).name for index in range(network.num_layers)}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        # A tensor's name counts only where no node has it: one name never pins two layers.
        own = [layer.name] + [tensor.name for tensor in outputs if tensor.name not in nodes]
        names += own
        wanted = next((name for name in own if name in kept), None)
        if wanted is None:
            continue
        left.difference_update(own)
        layer.precision = types[kept[wanted]]
        for i, tensor in enumerate(outputs):
            if tensor.dtype in (trt.DataType.FLOAT, trt.DataType.HALF):
                layer.set_output_type(i, types[kept[wanted]])
        pinned += 1
    if left:
        first = sorted(left)[0]
        near = difflib.get_close_matches(first, names, 1, 0.0)
        raise BadInput(
            f"the network has no layer {first!r}",
            path,
            "names of nodes or tensors",
            f"did you mean {near[0]!r}?" if near else None,
        )
    return pinned


def _failure(trt: Any, log: Any, since: int, what: str, path: str) -> JetmaskError:
    said = log.errors(since)
    words = "; ".join(said[-4:])
    kind = DeviceMismatch if "require hardware with Int8 support" in words else JetmaskError
    return kind(
        f"TensorRT {trt.__version__}: {what}{': ' + words if words else ''}",
        path,
        None,
        remedy_for(words) or "see the build's log",
    )


def _configure(
    trt: Any,
    builder: Any,
    network: Any,
    typed: bool,
    precision: str,
    workspace: int,
    kept: Dict[str, str],
    capability: Optional[Tuple[int, int]],
    sparse: bool,
    path: str,
) -> Tuple[Any, Tuple[str, ...]]:
    config = builder.create_builder_config()
    if hasattr(config, "set_memory_pool_limit"):  # from 8.4
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    else:
        config.max_workspace_size = workspace  # 8.2: its default is 0 bytes
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    flags = []
    if not typed:
        if precision != "fp32":
            fast = (
                builder.platform_has_fast_fp16
                if hasattr(builder, "platform_has_fast_fp16")
                else (capability is None or has_fp16(capability))
            )
            if fast or precision == "fp16":
                flags.append("FP16")
        if precision == "int8":
            flags.append("INT8")
        if kept:
            set_layer_precisions(trt, network, kept, path)
            flags.append("OBEY_PRECISION_CONSTRAINTS")
        for flag in flags:
            config.set_flag(getattr(trt.BuilderFlag, flag))
    elif kept:
        raise BadInput(
            "layer precisions cannot be set in a strongly typed network",
            path,
            "them in the file",
            "export a file with these layers in higher precision",
        )
    if sparse:
        flags.append("SPARSE_WEIGHTS")
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default from Ampere on: 10-bit mantissas are not fp32
    return config, tuple(flags)


def _progress_monitor(trt: Any, phase: Callable[[str], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # the base is known only when the module is
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: Optional[str], steps: int) -> None:
            try:
                if parent is None:
                    phase(name)
            except BaseException:
                pass

        def step_complete(self, name: str, step: int) -> bool:
            return True

        def phase_finish(self, name: str) -> None:
            pass

    return Monitor()


def build_plan(
    trt: Any,
    path: str,
    input_wh: Tuple[int, int],
    precision: str,
    workspace: int,
    layer_precisions: Optional[Dict[str, str]] = None,
    calibrator: Any = None,
    timing_cache: bytes = b"",
    capability: Optional[Tuple[int, int]] = None,
    device: str = "this GPU",
    target_capabilities: Tuple[str, ...] = (),
    sparse: bool = False,
    phase: Callable[[str], None] = lambda name: None,
    int8_anyway: bool = False,
    keep_timings: Callable[[bytes], None] = lambda data: None,
) -> Result:
    """Build the plan of one ONNX file at one input size.

    `workspace`: bytes. `layer_precisions`: {node or tensor name: "fp32" or "fp16"}, weakly typed worlds only.
    `calibrator`: see jetson.engine.calibration.make_calibrator. `capability`, `device`: of the GPU, for the refusals.
    `target_capabilities`: TensorRT for RTX only, e.g. ("SM86",): builds for GPUs that are not here. `sparse`: the
    weights have the 2:4 pattern, and `takes_sparse` says that this pays.
    `keep_timings`: gets the timing cache as soon as TensorRT returns, whether it has built or not; while it builds
    there is no safe way to ask for it.
    BadInput, DeviceMismatch or JetmaskError carry the parser's or the builder's own words.
    """
    with warnings.catch_warnings():
        # What one version deprecates another needs; the choice is made by what exists, and nothing is to be done.
        warnings.simplefilter("ignore", DeprecationWarning)
        return _build_plan(
            trt,
            path,
            input_wh,
            precision,
            workspace,
            layer_precisions or {},
            calibrator,
            timing_cache,
            capability,
            device,
            target_capabilities,
            sparse,
            phase,
            int8_anyway,
            keep_timings,
        )


def _build_plan(
    trt: Any,
    path: str,
    input_wh: Tuple[int, int],
    precision: str,
    workspace: int,
    kept: Dict[str, str],
    calibrator: Any,
    timing_cache: bytes,
    capability: Optional[Tuple[int, int]],
    device: str,
    target_capabilities: Tuple[str, ...],
    sparse: bool,
    phase: Callable[[str], None],
    int8_anyway: bool,
    keep_timings: Callable[[bytes], None],
) -> Result:
    phase("reading the model")
    data, model = onnx_facts.read(path)
    log = log_for(trt)
    since = log.count
    check_precision(trt, model, precision, calibrator is not None, capability, device, path, int8_anyway=int8_anyway)
    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError) as error:  # pybind's nullptr from the factory: no CUDA, no driver
        said = "; ".join(log.errors(since)) or error
        raise DeviceMismatch(
            f"TensorRT {trt.__version__} cannot start: {said}",
            None,
            "a usable NVIDIA GPU",
            "run `python3 -m jetson doctor`",
        ) from error
    check_precision(
        trt,
        model,
        precision,
        calibrator is not None,
        capability,
        device,
        path,
        builder.platform_has_fast_int8 if hasattr(builder, "platform_has_fast_int8") else None,
        int8_anyway,
    )
    phase("parsing")
    network, parser, typed = parse(trt, builder, log, model, data, path)
    set_input(trt, network, input_wh, path)
    config, flags = _configure(trt, builder, network, typed, precision, workspace, kept, capability, sparse, path)
    if calibrator is not None and "INT8" in flags and not model.quantized:
        config.int8_calibrator = calibrator
    if target_capabilities:
        config.num_compute_capabilities = len(target_capabilities)
        for index, name in enumerate(target_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    if hasattr(config, "progress_monitor"):
        config.progress_monitor = monitor = _progress_monitor(trt, phase)  # noqa: F841  (kept alive until the end)
    if hasattr(config, "create_timing_cache"):
        cache = config.create_timing_cache(timing_cache)
        if cache is None or not config.set_timing_cache(cache, False):
            cache = config.create_timing_cache(b"")  # of another machine: begin a new one
            config.set_timing_cache(cache, False)
    phase("building")
    plan = builder.build_serialized_network(network, config)
    timings = None
    if hasattr(config, "get_timing_cache") and config.get_timing_cache() is not None:
        # Also of a build that failed: a second try, with more memory for instance, need not time everything again.
        timings = bytes(config.get_timing_cache().serialize())
        keep_timings(timings)
    if calibrator is not None and (calibrator.failure is not None or plan is None):
        calibrator.finish()  # raises what went wrong in it: more than the builder knows
    if plan is None:
        raise _failure(trt, log, since, "the engine could not be built", path)
    phase("saving")
    inputs = {network.get_input(i).name: tuple(network.get_input(i).shape) for i in range(network.num_inputs)}
    outputs = {network.get_output(i).name: tuple(network.get_output(i).shape) for i in range(network.num_outputs)}
    return Result(bytes(plan), timings, flags, typed, network.num_layers, inputs, outputs)
