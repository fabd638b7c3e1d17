"""Build this machine's TensorRT engines from a bundle: `python3 -m jetson build`.

Engines are made on the machine that runs them, once, in a process of their own (jetson/engine/build_worker.py), and kept in
the cache of jetson/engine/cache.py.
"""

import argparse
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Tuple

from jetson import cli, files, memory
from jetson.bundle import manifest, paths
from jetson.bundle.manifest import Manifest, Variant
from jetson.engine import build_worker, cache, calibration, cuda, onnx_facts, tensorrt_module, tensorrt_network
from jetson.engine.cache import Machine, Recipe
from jetson.errors import BadInput, DeviceMismatch, JetmaskError, UsageError

WORKSPACE_BYTES = 256 << 20
SPARSE = "sparse-weights"  # in Recipe.flags
WATCH_S = 0.1
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


def job_for(
    contents: Manifest,
    variant: Variant,
    trt: Any,
    machine: Machine,
    workspace_bytes: int = WORKSPACE_BYTES,
    calibration_images: Optional[str] = None,
) -> Job:
    """What to build for a variant on this machine; refuses (BadInput, DeviceMismatch) what cannot be, before any work.

    A TensorRT without an FP16 flag takes the typed FP16 file of the same model, where the bundle has it.
    """
    if "tensorrt" not in variant.runtimes:
        fitting = [other.name for other in contents.variants if "tensorrt" in other.runtimes]
        raise UsageError(
            f"variant {variant.name} is not for TensorRT",
            contents.folder,
            "one of " + ", ".join(fitting),
            "run it with " + " or ".join(variant.runtimes),
        )
    path, digest = contents.path(variant), variant.sha256
    try:
        found = files.sha256(path)
        _, model = onnx_facts.read(path)
    except OSError as error:
        raise BadInput(
            f"the model file cannot be read: {error.strerror}", path, "an ONNX file", "verify the bundle"
        ) from error
    if found != digest:
        raise BadInput(
            "the model file is not the one the manifest names", path, "sha256 " + digest, "verify the bundle"
        )
    if variant.precision == "fp16" and not model.half and not hasattr(trt.BuilderFlag, "FP16"):
        for other in contents.variants:
            if other.model == variant.model and other.precision == "fp16" and other.file.endswith(".fp16.onnx"):
                path, digest = contents.path(other), other.sha256
                _, model = onnx_facts.read(path)
                break
    table_path = paths.inside(contents.folder, f"calibration/{variant.model}.json")
    table = table_digest = None
    kept: Dict[str, str] = {}
    if os.path.isfile(table_path):
        table, table_digest = calibration.read(table_path), files.sha256(table_path)
        if not tensorrt_network.is_typed(trt, model) and not model.quantized:
            kept = table.layer_precisions.get(variant.precision, {})
    needs_table = variant.precision == "int8" and not model.quantized
    tensorrt_network.check_precision(
        trt, model, variant.precision, table is not None, machine.capability, machine.gpu, path
    )
    if not needs_table:
        table = None
    elif table is not None:
        calibration.require(table, table_path, digest)
    flags = ("calibration-images",) if needs_table and calibration_images else ()  # type: Tuple[str, ...]
    if variant.sparsity and tensorrt_network.takes_sparse(trt, variant.precision, machine.capability):
        flags += (SPARSE,)
    recipe = Recipe(
        variant.name,
        digest,
        variant.input_wh,
        variant.precision,
        table_digest if needs_table or kept else None,
        kept,
        flags,
        workspace_bytes,
    )
    return Job(recipe, path, table, calibration_images if needs_table else None)


class _Worker:
    """The child process: its phase, its last lines, its answer."""

    def __init__(self, job: Dict[str, Any], log_path: str) -> None:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(build_worker.__file__))))
        search = os.pathsep.join([root] + [p for p in [os.environ.get("PYTHONPATH")] if p])
        self.phase = "starting"
        self.phases: List[str] = ["starting"]
        self.lines: Deque[str] = collections.deque(maxlen=40)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jetson.engine.build_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=search),
            start_new_session=True,
        )
        self._answer = b""
        # Both at once: a child whose answer is larger than a pipe holds would wait for a reader, and never end.
        self._readers = [
            threading.Thread(target=self._read, args=(log_path,), daemon=True),
            threading.Thread(target=self._hear, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            self.process.stdin.write(json.dumps(job).encode("utf-8"))
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; its exit status says so

    def _read(self, log_path: str) -> None:
        with contextlib.ExitStack() as stack:
            log = None
            with contextlib.suppress(OSError):  # a full disk must not stop the reading: the child would block
                log = stack.enter_context(open(log_path, "w"))
            for raw in self.process.stderr:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                if line.startswith(build_worker.PHASE):
                    self.phase = line[len(build_worker.PHASE) :]
                    self.phases.append(self.phase)
                else:
                    self.lines.append(line)
                if log is not None:
                    with contextlib.suppress(OSError):
                        log.write(line + "\n")
                        log.flush()

    def _hear(self) -> None:
        self._answer = self.process.stdout.read()

    def answer(self) -> Dict[str, Any]:
        """The child's reply; {} when it died without one."""
        for reader in self._readers:
            reader.join(10)
        try:
            return json.loads(self._answer.decode("utf-8", "replace"))
        except ValueError:
            return {}

    def kill(self) -> None:
        """End the child and what it started."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _run_worker(
    job: Dict[str, Any], log_path: str, progress: Callable[[str, float], None], timeout_s: float, meminfo: str
) -> Dict[str, Any]:
    started = time.monotonic()
    worker = _Worker(job, log_path)
    try:
        told, told_at = 0, started
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(WATCH_S)
            now = time.monotonic()
            if told == len(worker.phases) and now - told_at >= 10:
                told -= 1  # say again that it goes on
            while told < len(worker.phases):
                progress(worker.phases[told], now - started)
                told, told_at = told + 1, now
            if worker.process.returncode is not None:
                break
            memory.watch(worker.phase, log_path, meminfo)
            if now - started > timeout_s:
                raise JetmaskError(
                    f"the build took longer than {timeout_s:.0f} s and was stopped",
                    log_path,
                    None,
                    "see its log; raise --timeout if the device is only slow",
                )
        reply = worker.answer()
    finally:
        worker.kill()
    if "done" in reply:
        return reply["done"]
    if "error" in reply:
        kind, what, where, expected, remedy = reply["error"]
        raise build_worker.ERRORS.get(kind, JetmaskError)(what, where, expected, remedy)
    if "oserror" in reply:
        raise OSError(*reply["oserror"])
    status = worker.process.returncode
    last = "; ".join(line for line in list(worker.lines)[-6:] if line.strip())
    killed = status == -signal.SIGKILL
    ended = "was killed" if killed else f"ended with status {status}"
    raise JetmaskError(
        f"the build's process {ended} while {worker.phase}{': ' + last if last else ''}",
        log_path,
        "a process that ends by itself",
        "most likely the kernel was out of memory (see dmesg): stop other programs, add swap, or give a smaller "
        "--workspace-mb"
        if killed
        else "see its log; report it with the log if it comes again",
    )


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
            done = _run_worker(
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
    return build(job, machine, cache.default_folder(), say(variant.name)).plan, job.recipe


# ------------------------------------------------------------------------------------------------------- the verb


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `python3 -m jetson build`."""
    parser.add_argument("bundle", help="the bundle's folder")
    parser.add_argument("--variant", help="build only this one (default: all TensorRT variants this machine can run)")
    parser.add_argument("--engines", help="the engine cache (default: $JETMASK_ENGINES or ~/.cache/jetmask/engines)")
    parser.add_argument(
        "--workspace-mb", type=int, default=WORKSPACE_BYTES >> 20, help="the builder's workspace (default 256)"
    )
    parser.add_argument(
        "--calibration-images",
        metavar="FOLDER",
        help="calibrate INT8 from these images, those of the bundle's calibration list",
    )
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="S", help="stop a build after S seconds")
    parser.add_argument("--force", action="store_true", help="build again even if the cache has the engine")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.epilog = "example: python3 -m jetson build /opt/jetmask/bundle --variant s-416x256-fp16"


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
    """Build each variant; one row each: variant, precision, bytes, seconds, cached, path, or reason when refused.

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
        rows.append(row)
    return rows


def command(args: argparse.Namespace) -> int:
    """Build the engines and print a table."""
    if args.workspace_mb < 1:
        raise UsageError(f"--workspace-mb is {args.workspace_mb}", None, "at least 1")
    contents = manifest.load(args.bundle)
    if args.variant:
        chosen = [contents.variant(args.variant)]
    else:
        chosen = [variant for variant in contents.variants if "tensorrt" in variant.runtimes]
    rows = build_all(
        contents,
        chosen,
        args.engines or cache.default_folder(),
        args.workspace_mb << 20,
        args.calibration_images,
        args.force,
        args.timeout,
        strict=bool(args.variant),
    )
    if args.json:
        print(json.dumps({"engines": rows}, indent=1))
    else:
        print(table(rows))
    if not any("path" in row for row in rows):
        raise DeviceMismatch(
            "no engine could be built",
            args.bundle,
            "a variant that this machine can run",
            "; ".join(f"{row['variant']}: {row['reason']}" for row in rows)
            or "use the onnxruntime variants: this bundle has none for TensorRT",
        )
    return 0


def table(rows: List[Dict[str, Any]]) -> str:
    """The rows of build_all as text."""
    return cli.table(
        ["variant", "precision", "bytes", "build s", "engine"],
        [
            [
                row["variant"],
                row["precision"],
                row.get("bytes", "-"),
                "-" if "reason" in row else "cached" if row["cached"] else row["seconds"],
                row.get("path") or "not built: " + row["reason"],
            ]
            for row in rows
        ],
    )
