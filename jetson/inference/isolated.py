"""An engine in a process of its own, for runtimes that stop all of Python while they compute.

ONNX Runtime 1.10, the last one for Python 3.6, holds the interpreter's lock for the whole inference: no frame would be
read and no page served meanwhile, for 150 ms at a time on a slow board. Inputs and outputs lie in shared memory; what
goes over the pipes is a byte per inference: the number of the input.
"""

import contextlib
import ctypes
import json
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Tuple

import numpy as np

from jetson import errors
from jetson.bundle import manifest
from jetson.engine import available
from jetson.inference.detector import Detector, open_detector

OPEN_S = 120.0
INPUTS = 5  # the engine's own, and four for a runner that prepares the next frames there; untouched ones cost nothing
_DONE = struct.Struct("<d248s")  # infer_ms, and what went wrong; of one size, so that two answers never run together


def holds_the_lock(runtime: str) -> bool:
    """Whether inferences of this runtime stop the other threads: seen with 1.10 under 3.6, not with 1.32 under 3.12."""
    return runtime == "onnxruntime" and sys.version_info < (3, 7)


def open_for_threads(bundle_dir: str, variant: Any, runtime: Optional[str], threads: int) -> Detector:
    """A detector whose inferences leave other threads running: apart where it must be, here where it can."""
    if runtime is None:
        here = available()
        runtime = next((name for name in manifest.RUNTIMES if name in variant.runtimes and here[name] is None), None)
    if runtime is not None and holds_the_lock(runtime):
        return Detector(ApartEngine(bundle_dir, variant.name, runtime, threads), manifest.load(bundle_dir).decode)
    return open_detector(bundle_dir, variant.name, runtime, threads)


def _layout(wh: Tuple[int, int], outputs: Dict[str, np.ndarray]) -> Tuple[List[Any], int]:
    """[(name, shape, offset in bytes)] of the outputs behind the inputs, and the size of it all.

    An input has outputs of its own, so that one set is read while the next is computed.
    """
    offset = INPUTS * 3 * wh[0] * wh[1] * 4
    rows = []
    for _ in range(INPUTS):
        for name, value in outputs.items():
            rows.append((name, list(value.shape), offset))
            offset += value.size * 4
    return rows, offset


def _outputs(memory: mmap.mmap, rows: List[Any]) -> List[Dict[str, np.ndarray]]:
    """{name: float32 array in the shared memory} of each input."""
    arrays = [
        (name, np.frombuffer(memory, np.float32, int(np.prod(shape)), offset).reshape(shape))
        for name, shape, offset in rows
    ]
    size = len(arrays) // INPUTS
    return [dict(arrays[number * size : (number + 1) * size]) for number in range(INPUTS)]


def _inputs(memory: mmap.mmap, wh: Tuple[int, int]) -> np.ndarray:
    """float32 (INPUTS, 1, 3, H, W) at the beginning of the shared memory."""
    shape = (INPUTS, 1, 3, wh[1], wh[0])
    return np.frombuffer(memory, np.float32, int(np.prod(shape))).reshape(shape)


def _shared_file() -> Any:
    """A file in memory, without a name.

    Not in /dev/shm where that can be helped: a container's holds 64 MiB, and whoever writes to the page that no longer
    fits is killed (SIGBUS).
    """
    make = getattr(ctypes.CDLL(None), "memfd_create", None)  # glibc 2.27, Linux 3.17
    handle = make(b"jetmask", 1) if make is not None else -1  # MFD_CLOEXEC
    if handle >= 0:
        return os.fdopen(handle, "r+b", 0)
    return tempfile.TemporaryFile(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


class ApartEngine:
    """The engine interface (jetson.engine) over a child process. RuntimeError when an inference fails or it dies.

    What is prepared in one of `spare_inputs` is not copied any more when it is inferred.
    """

    def __init__(self, bundle_dir: str, variant: str, runtime: str, threads: int = 1) -> None:
        self.timings: Dict[str, float] = {"infer_ms": 0.0}
        self._memory: Optional[mmap.mmap] = None
        here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        path = os.environ.get("PYTHONPATH")
        with _shared_file() as shared:
            request = json.dumps([shared.fileno(), os.path.abspath(bundle_dir), variant, runtime, threads])
            self._child = subprocess.Popen(
                [sys.executable, "-m", "jetson.inference.isolated", request],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(shared.fileno(),),
                start_new_session=True,
                bufsize=0,
                env=dict(os.environ, PYTHONPATH=here + (os.pathsep + path if path else "")),
            )
            assert self._child.stdin is not None and self._child.stdout is not None  # both are pipes
            self._requests, self._answers = self._child.stdin, self._child.stdout
            try:
                answer = json.loads(self._opening().decode())
                if "error" in answer:
                    raise getattr(errors, answer["error"], errors.JetmaskError)(*answer["parts"])
                self._memory = mmap.mmap(shared.fileno(), answer["bytes"])
            except BaseException:
                self.close()
                raise
        self.runtime = answer["runtime"]
        self.input_wh = tuple(answer["input_wh"])
        self.input, *self.spare_inputs = _inputs(self._memory, self.input_wh)
        # By identity: the arrays live as long as the engine.
        self._arrays = [self.input] + self.spare_inputs
        self._numbers = {id(array): number for number, array in enumerate(self._arrays)}
        self._outputs = _outputs(self._memory, answer["outputs"])
        self._under_way: Deque[int] = deque()

    def infer(self, image: Optional[np.ndarray] = None) -> Dict[str, np.ndarray]:
        """Run `image` (default: `.input`); {output name: float32 array}, valid until the next call."""
        self.submit(image)
        return self.collect()

    def submit(self, image: Optional[np.ndarray] = None) -> None:
        """Give `image` to the process and do not wait: `collect` gives the results, in the order of the calls.

        With the next image at hand the process need not wait until somebody has fetched its last results. Only one
        image under way at a time may be none of `.input` and `.spare_inputs`: it is copied to `.input`.
        """
        number = self._numbers.get(id(image), 0)
        if image is not None and image is not self._arrays[number]:
            np.copyto(self.input, image)
        try:
            self._requests.write(bytes((number,)))
        except OSError as error:
            raise RuntimeError("the engine's process is gone") from error
        self._under_way.append(number)

    def collect(self) -> Dict[str, np.ndarray]:
        """The outputs of the image that was submitted first, valid until that buffer is submitted again."""
        number = self._under_way.popleft()
        # One plain read: every further system call gives the interpreter's lock away once more. An engine that never
        # answers is the loop's watchdog's matter.
        answer = os.read(self._answers.fileno(), _DONE.size)
        if not answer:
            raise RuntimeError(f"the engine's process has ended with {self._child.wait()}")
        infer_ms, trouble = _DONE.unpack(answer)
        if trouble.strip(b"\0"):
            raise RuntimeError(trouble.rstrip(b"\0").decode("utf-8", "replace"))
        self.timings = {"infer_ms": infer_ms}
        return self._outputs[number]

    def _opening(self) -> bytes:
        data = b""
        while not data.endswith(b"\n"):
            if not select.select([self._answers], [], [], OPEN_S)[0]:
                raise RuntimeError(f"the engine's process has not answered for {OPEN_S:.0f} s")
            part = os.read(self._answers.fileno(), 65536)
            if not part:
                raise RuntimeError(f"the engine's process has ended with {self._child.wait()}")
            data += part
        return data

    def close(self) -> None:
        """End the process."""
        if self._child.poll() is None:  # else its number may be another's by now
            with contextlib.suppress(OSError):
                os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._requests.close()
        self._answers.close()

    def __enter__(self) -> "ApartEngine":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _end_with_the_owner() -> None:
    """End when stdin is closed, also while an engine is being opened, when nobody reads it."""
    poll = select.poll()
    poll.register(0, 0)  # nothing but its end
    poll.poll()
    os._exit(0)


def main(argv: Optional[List[str]] = None) -> int:
    """`python3 -m jetson.inference.isolated REQUEST`: the child. Ends when its stdin does."""
    fd, bundle_dir, variant, runtime, threads = json.loads((argv or sys.argv[1:])[0])
    threading.Thread(target=_end_with_the_owner, daemon=True).start()
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)

    def say(value: Dict[str, Any]) -> None:
        answers.write(json.dumps(value).encode() + b"\n")

    try:
        engine = open_detector(bundle_dir, variant, runtime, threads).engine
        rows, size = _layout(engine.input_wh, engine.infer())
        os.ftruncate(fd, size)
        memory = mmap.mmap(fd, size)
    except errors.JetmaskError as error:
        say({"error": type(error).__name__, "parts": [None if part is None else str(part) for part in error.args]})
        return error.exit_code
    images = list(_inputs(memory, engine.input_wh))
    outputs = _outputs(memory, rows)
    say({"runtime": engine.runtime, "input_wh": engine.input_wh, "outputs": rows, "bytes": size})
    for number in iter(lambda: os.read(0, 1), b""):
        try:
            for name, value in engine.infer(images[number[0]]).items():
                np.copyto(outputs[number[0]][name], value)
            answers.write(_DONE.pack(engine.timings["infer_ms"], b""))
        except BrokenPipeError:
            return 0
        except Exception as error:
            answers.write(_DONE.pack(0.0, f"{type(error).__name__}: {error}".encode()[:248]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
