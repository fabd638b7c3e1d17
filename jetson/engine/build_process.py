"""The process that builds one engine, seen from its parent: started, watched for memory and time, heard, killed."""

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Deque, Dict, List

from jetson import memory
from jetson.engine import build_worker
from jetson.errors import JetmaskError

WATCH_S = 0.1


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
        assert self.process.stdin is not None
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
        assert self.process.stderr is not None
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
        assert self.process.stdout is not None
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


def run(
    job: Dict[str, Any], log_path: str, progress: Callable[[str, float], None], timeout_s: float, meminfo: str
) -> Dict[str, Any]:
    """Build in a process of its own; what it says when it is done (jetson.engine.build_worker.run).

    `log_path`: gets what it prints. `progress`, `timeout_s` and `meminfo` as for jetson.engine.build.build.
    """
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
        "a build process that is not killed",
        "most likely the kernel was out of memory (see dmesg): stop other programs, add swap, or give a smaller "
        "--workspace-mb"
        if killed
        else "see its log; report it with the log if it comes again",
    )
