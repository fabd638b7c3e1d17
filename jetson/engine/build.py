"""Build this machine's TensorRT engines from a bundle's variants.

Engines are made on the machine that runs them, once, in a process of their own (jetson/engine/build_process.py), and
kept in the cache of jetson/engine/cache.py.
"""

import os
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from jetson import files, memory
from jetson.bundle import paths
from jetson.bundle.manifest import Manifest, Variant
from jetson.engine import build_process, cache, calibration, cuda, int8, onnx_facts, tensorrt_module, tensorrt_network
from jetson.engine.cache import Machine, Recipe
from jetson.errors import BadInput, DeviceMismatch, JetmaskError, UsageError

WORKSPACE_BYTES = 256 << 20
SPARSE = "sparse-weights"  # in Recipe.flags
INT8_ANYWAY = "int8-anyway"  # in Recipe.flags
TIMEOUT_S = 3600.0


class Job(NamedTuple):
    recipe: Recipe
    onnx: str
    table: Optional[calibration.Table]
    calibration_images: Optional[str]


class Built(NamedTuple):
    plan: bytes
    path: str
    seconds: float
    cached: bool


def machine_of(trt: Any) -> Machine:
    """This machine, as far as an engine depends on it; DeviceMismatch when it has no GPU."""
    gpu = cuda.gpu()
    return Machine(trt.__name__, trt.__version__, gpu.name, gpu.capability)


def _float_file(contents: Manifest, variant: Variant) -> Variant:
    """The float32 variant of the same model: what a calibrator starts from (a Q/DQ file cannot be built there)."""
    for other in contents.variants:
        if other.model == variant.model and other.precision == "fp32" and other.file.endswith(".onnx"):
            return other
    raise BadInput(
        f"the bundle has no float32 file of the model {variant.model}, which calibration needs", contents.folder
    )


def job_for(
    contents: Manifest,
    variant: Variant,
    trt: Any,
    machine: Machine,
    workspace_bytes: int = WORKSPACE_BYTES,
    calibration_images: Optional[str] = None,
) -> Job:
    """What to build for a variant on this machine; refuses (BadInput, DeviceMismatch) what cannot be, before any work.

    A TensorRT without an FP16 flag takes the typed FP16 file of the same model, where the bundle has it. INT8 on a GPU
    without INT8 arithmetic is refused; asked for all the same (int8.py) it is calibrated from the float32 file.
    """
    if "tensorrt" not in variant.runtimes:
        fitting = [other.name for other in contents.variants if "tensorrt" in other.runtimes]
        raise UsageError(
            f"variant {variant.name} is not for TensorRT",
            contents.folder,
            "one of " + ", ".join(fitting),
            "run it with " + " or ".join(variant.runtimes),
        )
    anyway = variant.precision == "int8" and int8.anyway() and not cuda.has_int8(machine.capability)
    path, digest, model = _source(contents, _float_file(contents, variant) if anyway else variant, trt)
    table_path = paths.inside(contents.folder, f"calibration/{variant.model}.json")
    table = table_digest = None
    kept: Dict[str, str] = {}
    if os.path.isfile(table_path):
        table, table_digest = calibration.read(table_path), files.sha256(table_path)
        if not tensorrt_network.is_typed(trt, model) and not model.quantized:
            kept = table.layer_precisions.get(variant.precision, {})
    needs_table = variant.precision == "int8" and not model.quantized
    tensorrt_network.check_precision(
        trt, model, variant.precision, table is not None, machine.capability, machine.gpu, path, int8_anyway=anyway
    )
    if not needs_table:
        table = None
    elif table is not None:
        calibration.require(table, table_path, digest)
    images = calibration_images if needs_table else None
    flags = [
        flag
        for flag, given in (
            ("calibration-images", bool(images)),
            (SPARSE, variant.sparsity and tensorrt_network.takes_sparse(trt, variant.precision, machine.capability)),
            (INT8_ANYWAY, anyway),
        )
        if given
    ]
    recipe = Recipe(
        variant.name,
        digest,
        variant.input_wh,
        variant.precision,
        table_digest if needs_table or kept else None,
        kept,
        tuple(flags),
        workspace_bytes,
    )
    return Job(recipe, path, table, images)


def _source(contents: Manifest, variant: Variant, trt: Any) -> Tuple[str, str, onnx_facts.Facts]:
    """(path, sha256, what the graph says) of the file to build from; BadInput where it is not the manifest's.

    For a TensorRT without an FP16 flag that is the typed FP16 file of the same model, where the bundle has it.
    """
    path = contents.path(variant)
    try:
        found = files.sha256(path)
        _, model = onnx_facts.read(path)
    except OSError as error:
        raise BadInput(
            f"the model file cannot be read: {error.strerror}", path, "an ONNX file", "verify the bundle"
        ) from error
    if found != variant.sha256:
        raise BadInput(
            "the model file is not the one the manifest names", path, "sha256 " + variant.sha256, "verify the bundle"
        )
    if variant.precision == "fp16" and not model.half and not hasattr(trt.BuilderFlag, "FP16"):
        for other in contents.variants:
            if other.model == variant.model and other.precision == "fp16" and other.file.endswith(".fp16.onnx"):
                return contents.path(other), other.sha256, onnx_facts.read(contents.path(other))[1]
    return path, variant.sha256, model


def build(
    job: Job,
    machine: Machine,
    folder: str,
    progress: Callable[[str, float], None] = lambda phase, seconds: None,
    force: bool = False,
    timeout_s: float = TIMEOUT_S,
    meminfo: str = memory.MEMINFO,
) -> Built:
    """The engine of `job`: from the cache in `folder`, or built now.

    `progress(phase, seconds)` is called at every phase and at least every 10 s. Two builds of one engine at once wait
    for each other. JetmaskError (BadInput, DeviceMismatch) with the builder's words when it fails, or when too little
    memory is left by `meminfo`, before or while it builds; OSError when the disk is full; nothing half-written stays.
    """
    folder = cache.open_folder(folder)
    plan, sidecar = cache.paths(folder, job.recipe, machine)
    # Without the lock first: on a disk that has become read-only an engine that is there must still be found.
    data = None if force else cache.load(folder, job.recipe, machine)[0]
    if data is not None:
        return Built(data, plan, 0.0, True)
    with files.lock(plan[: -len(".plan")] + ".lock"):
        data = None if force else cache.load(folder, job.recipe, machine)[0]
        if data is not None:  # another process has built it meanwhile
            return Built(data, plan, 0.0, True)
        memory.check(job.recipe.workspace_bytes, meminfo)
        files.sweep_aside(folder)
        cache.remove(folder, job.recipe, machine)
        started = time.monotonic()
        log_path = plan[: -len(".plan")] + ".log"
        with files.aside(plan) as part:
            table = job.table
            done = build_process.run(
                {
                    "parent": os.getpid(),
                    "module": machine.module,
                    "onnx": job.onnx,
                    "plan": part,
                    "input_wh": list(job.recipe.input_wh),
                    "precision": job.recipe.precision,
                    "workspace_bytes": job.recipe.workspace_bytes,
                    "layer_precisions": job.recipe.layer_precisions,
                    "capability": list(machine.capability),
                    "gpu": machine.gpu,
                    "sparse": SPARSE in job.recipe.flags,
                    "int8_anyway": INT8_ANYWAY in job.recipe.flags,
                    "calibration_images": job.calibration_images,
                    "calibration": None
                    if table is None
                    else {
                        "method": table.method,
                        "ranges": table.ranges,
                        "images": [list(pair) for pair in table.images],
                    },
                    "timing_cache": os.path.join(
                        folder,
                        "timing-{}-{}-{}.{}.cache".format(
                            machine.tensorrt,
                            "".join(c if c.isalnum() else "_" for c in machine.gpu),
                            *machine.capability,
                        ),
                    ),
                },
                log_path,
                progress,
                timeout_s,
                meminfo,
            )
            seconds = time.monotonic() - started
            cache.write_sidecar(
                folder,
                job.recipe,
                machine,
                part,
                dict(
                    done,
                    seconds=round(seconds, 3),
                    log=os.path.basename(log_path),
                    created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                ),
            )
        data, why = cache.load(folder, job.recipe, machine)
    if data is None:
        raise JetmaskError(
            "the engine just built cannot be used: " + why, plan, None, "look at the disk and build again"
        )
    return Built(data, plan, seconds, False)


def say(name: str) -> Callable[[str, float], None]:
    """A progress function that prints to stderr."""
    return lambda phase, seconds: print(f"{name}: {phase} ({seconds:.0f} s)", file=sys.stderr)


def ensure(contents: Manifest, variant: Variant, trt: Any) -> Tuple[bytes, Recipe]:
    """The plan for a variant on this machine, built first if need be (minutes; progress on stderr)."""
    machine = machine_of(trt)
    job = job_for(contents, variant, trt, machine)
    if INT8_ANYWAY in job.recipe.flags:
        print(f"{variant.name}: {int8.NO_ARITHMETIC}", file=sys.stderr)
    return build(job, machine, cache.default_folder(), say(variant.name)).plan, job.recipe


def build_all(
    contents: Manifest,
    chosen: List[Variant],
    folder: str,
    workspace_bytes: int = WORKSPACE_BYTES,
    calibration_images: Optional[str] = None,
    force: bool = False,
    timeout_s: float = TIMEOUT_S,
    strict: bool = False,
) -> List[Dict[str, Any]]:
    """Build each variant; one row each: variant, precision, bytes, seconds, cached, path, or reason when refused, and
    a note where there is something to be said beside it.

    With `strict` a refusal is raised instead.
    """
    trt = tensorrt_module.load()
    machine = machine_of(trt)
    rows = []
    for variant in chosen:
        row: Dict[str, Any] = {"variant": variant.name, "precision": variant.precision}
        try:
            job = job_for(contents, variant, trt, machine, workspace_bytes, calibration_images)
        except (DeviceMismatch, BadInput) as error:
            if strict:
                raise
            row["reason"] = str(error.what)
        else:
            built = build(job, machine, folder, say(variant.name), force, timeout_s)
            row.update(bytes=len(built.plan), seconds=round(built.seconds, 1), cached=built.cached, path=built.path)
            if int8.note(variant, "tensorrt"):
                row["note"] = int8.NO_ARITHMETIC
        rows.append(row)
    return rows
