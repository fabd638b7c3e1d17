"""The trtexec command that builds what `jetmask build` builds, in the spelling of a target's TensorRT version.

Options by version: NVIDIA/TensorRT samples/common/sampleOptions.cpp at tags 8.2.1, v8.6.1, v10.0.1 and v11.0.
"""

import os
import shlex
from collections.abc import Mapping, Sequence

from jetson.bundle import manifest
from jetson.engine import onnx_facts
from jetson.errors import BadInput, DeviceMismatch, UsageError
from pipeline.build.settings import Settings
from pipeline.graphs import lint, sparsity
from pipeline.targets import Target

ON_JETSON = "/usr/src/tensorrt/bin/trtexec"  # JetPack 4.6 to 6; NVIDIA's pip wheels hold no trtexec


def command(
    version: Sequence[int],
    onnx: str,
    engine: str,
    input_wh: Sequence[int],
    precision: str,
    workspace_bytes: int,
    *,
    quantized: bool = False,
    half: bool = False,
    cache: str | None = None,
    timing_cache: str | None = None,
    layer_precisions: Mapping[str, str] | None = None,
    sparse: bool = False,
    program: str = ON_JETSON,
    shapes: str | None = "image:1x3x{height}x{width}",
) -> str:
    """One shell line. `version`: (major, minor). `precision`: fp32, fp16 or int8.

    `shapes`: of the inputs, as `input_shapes` gives them for a file; None for a file whose shapes are fixed.

    `quantized`, `half`: the ONNX carries Q/DQ nodes or FP16 itself. `cache`: NVIDIA's calibration cache, for int8 from
    a float file. `sparse`: the weights have the 2:4 pattern, and the GPU can skip zeros. DeviceMismatch or BadInput
    where trtexec would build something else than what is meant.
    """
    version = tuple(version[:2])
    if layer_precisions:
        raise BadInput(
            "layers kept in higher precision are not expressed as a trtexec command",
            onnx,
            "a recipe without layer precisions",
            "build with `python3 -m jetson build`, or bake them into the file (--precision auto)",
        )
    if version >= (11, 0) and precision == "fp16" and not half:
        raise DeviceMismatch(
            f"trtexec {version[0]} has no --fp16: precision must be in the file",
            onnx,
            "a typed FP16 file",
            "give it <model>.fp16.onnx",
        )
    if precision == "int8" and not quantized:
        if version >= (11, 0):
            raise DeviceMismatch(
                f"trtexec {version[0]} has no --int8 and no --calib", onnx, "a Q/DQ file", "give it <model>.int8.onnx"
            )
        if cache is None:
            # Without one, trtexec takes fixed made-up ranges: it runs, it is fast, and its outputs mean nothing.
            raise BadInput(
                "trtexec --int8 needs --calib for a float file",
                onnx,
                "a calibration cache, or a Q/DQ file",
                "jetmask calibrate … --cache FILE, or give it <model>.int8.onnx",
            )
    words = [program, f"--onnx={onnx}", f"--saveEngine={engine}"]
    if shapes:
        words.append("--shapes=" + shapes.format(height=input_wh[1], width=input_wh[0]))
    if version < (11, 0):
        if precision in ("fp16", "int8"):
            words.append("--fp16")
        if precision == "int8":
            words.append("--int8")
            if not quantized:
                words.append(f"--calib={cache}")
    if precision == "fp32":
        words.append("--noTF32")
    if sparse and precision != "fp32":
        words.append("--sparsity=enable")
    mib = workspace_bytes >> 20
    words.append(f"--workspace={mib}" if version < (8, 4) else f"--memPoolSize=workspace:{mib}")
    if timing_cache:
        words.append(f"--timingCacheFile={timing_cache}")
    words.append("--profilingVerbosity=detailed")
    words.append("--buildOnly" if version < (8, 6) else "--skipInference")
    return shlex.join(words)


def versions(device: Target) -> list[tuple[int, ...]]:
    """The TensorRT versions of a target; DeviceMismatch when it has none."""
    if not device.tensorrt:
        raise DeviceMismatch(
            f"{device.title} has no TensorRT, so there is no trtexec command for it",
            None,
            "a Jetson target",
            "name one: --target nano",
        )
    return [tuple(int(part) for part in text.split(".")[:2]) for text in device.tensorrt]


def input_shapes(inputs: Sequence[onnx_facts.Value], input_wh: Sequence[int]) -> str | None:
    """What trtexec's --shapes says of a file's inputs: `name:1x3xHxW`, with commas; None where shapes are fixed, for
    which trtexec takes none.

    Open sizes of the first picture (four axes) become those of input_wh = (width, height), every other one 1.
    """
    picture = next((value for value in inputs if len(value.shape) == 4), None)
    if all(isinstance(side, int) and side > 0 for value in inputs for side in value.shape):
        return None
    found = []
    for value in inputs:
        sides = [side if isinstance(side, int) and side > 0 else 1 for side in value.shape]
        if value is picture:
            first = 1 if sides[3] == 3 and value.shape[1] != 3 else 2  # channels last, or first
            for axis, side in ((first, input_wh[1]), (first + 1, input_wh[0])):
                if not isinstance(value.shape[axis], int):
                    sides[axis] = side
        found.append(f"{value.name}:{'x'.join(map(str, sides))}")
    return ",".join(found)


def lines(settings: Settings, device: Target) -> list[str]:
    """The commands for each TensorRT version of the target, with a comment line before each."""
    found_lines = []
    told = {}  # what lint says of a file, once for all versions
    for version in versions(device):
        label = ".".join(map(str, version))
        for title, onnx, input_wh, precision in _recipes(settings, device):
            _, facts = onnx_facts.read(onnx)
            cache = settings.calibration if settings.calibration and settings.calibration.endswith(".cache") else None
            if onnx not in told:
                told[onnx] = [
                    "# note: " + " ".join(line.strip() for line in lint.describe(finding).splitlines())
                    for finding in lint.lint(onnx, device)
                ]
                found_lines += told[onnx]
            found_lines.append(f"# {title}, {device.title}, TensorRT {label}")
            found_lines.append(
                command(
                    version,
                    onnx,
                    f"{title}.plan",
                    input_wh,
                    precision,
                    settings.workspace_bytes,
                    quantized=facts.quantized,
                    half=facts.half,
                    cache=cache,
                    timing_cache=f"timing-{label}.cache",
                    shapes=input_shapes(facts.inputs, input_wh),
                    sparse=device.skips_zeros and sparsity.pattern_of(onnx) is not None,
                )
            )
    return found_lines


def _recipes(settings: Settings, device: Target) -> list[tuple[str, str, Sequence[int], str]]:
    """(title, ONNX path, input size, precision) of what is asked for."""
    if os.path.isdir(settings.model):
        contents = manifest.load(settings.model)
        found: list[tuple[str, str, Sequence[int], str]] = [
            (v.name, contents.path(v), v.input_wh, v.precision)
            for v in contents.variants
            if "tensorrt" in v.runtimes
            and settings.precision in (None, v.precision)
            and settings.variant in (None, v.name)
            and (not v.targets or device.name in v.targets)
            and (v.precision != "int8" or "int8" in device.fast_precisions)
        ]
        if not found:
            raise UsageError("the bundle has no such variant for TensorRT on this target", settings.model)
        return found
    precision = settings.precision or "fp16"
    name = os.path.splitext(os.path.basename(settings.model))[0]
    wh = settings.input_wh
    return [(f"{name}-{wh[0]}x{wh[1]}-{precision}", settings.model, wh, precision)]
