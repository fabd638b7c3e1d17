"""The process that builds one engine: `python -m jetson.engine.build_worker`.

It gets a job as JSON on stdin and tells its progress on stderr. It is a process of its own because a build takes
minutes and hundreds of megabytes, can be killed by the kernel for memory, and cannot be interrupted from Python. It
writes the plan to the file named in the job and one line of JSON to stdout. It dies with its parent.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
from typing import Any, Dict, Iterator, List

from jetson import files, memory
from jetson.bundle import paths
from jetson.engine import calibration, cuda
from jetson.errors import BadInput, DeviceMismatch, JetmaskError, QualityGate, UsageError

PHASE = "@phase "
ERRORS = {kind.__name__: kind for kind in (JetmaskError, UsageError, BadInput, DeviceMismatch, QualityGate)}


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; end at once when that has already happened."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def phase(name: str) -> None:
    """Tell the parent what is being done."""
    sys.stderr.write(PHASE + " ".join(name.split()) + "\n")
    sys.stderr.flush()


def blobs(folder: str, names: List[List[str]], input_wh: List[int]) -> Iterator[Any]:
    """The calibration images through the runner's own preprocessing; each must have the hash of the table's list."""
    from jetson import imagefile
    from jetson.vision.letterbox import letterbox

    for number, (name, digest) in enumerate(names, 1):
        path = paths.below(folder, name)
        phase(f"calibrating, image {number} of {len(names)}")
        if not os.path.isfile(path) or files.sha256(path) != digest:
            raise BadInput(
                "the calibration image is missing or has changed",
                path,
                "sha256 " + digest,
                "give the folder the table was made from, or calibrate again",
            )
        frame = imagefile.read(path)
        if frame is None:
            raise BadInput("the calibration image cannot be decoded", path, "a JPEG or PNG file")
        yield letterbox(frame, (input_wh[0], input_wh[1]))[0]


def _calibrator(trt: Any, job: Dict[str, Any], session: Any) -> Any:
    table = job["calibration"]
    algorithm = "MinMaxCalibration" if table["method"] == "minmax" else "EntropyCalibration2"
    if not job.get("calibration_images"):
        # The table's ranges are final, whatever the method was: TensorRT reads them as its own cache.
        cache = calibration.cache_of(table["ranges"], trt.__version__, algorithm)
        return calibration.make_calibrator(trt, algorithm, cache)
    with session.current():
        pair = session.pair((1, 3, job["input_wh"][1], job["input_wh"][0]), "float32")

    def upload(blob: Any) -> int:
        with session.current():
            pair.host[...] = blob
            session.upload(pair)
            session.synchronize()
        return pair.address

    return calibration.make_calibrator(
        trt, algorithm, None, blobs(job["calibration_images"], table["images"], job["input_wh"]), upload
    )


def run(job: Dict[str, Any]) -> Dict[str, Any]:
    """Build; the facts for the sidecar."""
    from jetson.engine import tensorrt_module, tensorrt_network

    phase("loading TensorRT")
    trt = tensorrt_module.load(job["module"])
    tensorrt_module.echo_log(trt)
    timing_cache = b""
    if os.path.isfile(job["timing_cache"]):
        with open(job["timing_cache"], "rb") as file:
            timing_cache = file.read()

    def keep_timings(data: bytes) -> None:
        with contextlib.suppress(OSError):  # it only saves time
            files.write_bytes(job["timing_cache"], data)

    with contextlib.ExitStack() as stack:
        calibrator = None
        if job["calibration"]:
            session = stack.enter_context(cuda.Session()) if job.get("calibration_images") else None
            calibrator = _calibrator(trt, job, session)
        result = tensorrt_network.build_plan(
            trt,
            job["onnx"],
            (job["input_wh"][0], job["input_wh"][1]),
            job["precision"],
            job["workspace_bytes"],
            job["layer_precisions"],
            calibrator,
            timing_cache,
            tuple(job["capability"]),
            job["gpu"],
            sparse=job["sparse"],
            int8_anyway=job["int8_anyway"],
            keep_timings=keep_timings,
            phase=phase,
        )
        cache = calibrator.finish() if calibrator is not None else None
    with open(job["plan"], "wb") as plan:
        plan.write(result.plan)
    return {
        "flags": list(result.flags),
        "typed": result.typed,
        "layers": result.layers,
        "inputs": result.inputs,
        "outputs": result.outputs,
        "calibration_cache": None if cache is None else calibration.format_cache(cache),
    }


def main() -> int:
    """Read the job, build, answer."""
    job = json.loads(sys.stdin.read())
    die_with_parent(job["parent"])
    memory.be_first_victim()
    answer = os.dup(1)
    os.dup2(2, 1)  # libraries print to stdout; the answer must stand there alone
    code = 0
    try:
        reply: Any = {"done": run(job)}
    except JetmaskError as error:
        reply = {
            "error": [type(error).__name__]
            + [None if part is None else str(part) for part in (error.what, error.where, error.expected, error.remedy)]
        }
        code = error.exit_code
    except OSError as error:
        reply, code = {"oserror": [error.errno, error.strerror, error.filename or job["plan"]]}, 1
    with os.fdopen(answer, "w") as file:
        file.write(json.dumps(reply) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
