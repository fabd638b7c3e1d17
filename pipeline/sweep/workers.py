"""Where a sweep's trials run: processes of this machine, or tasks of a Ray cluster. Either loses only its own trial."""

import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

from jetson import files
from jetson.errors import DeviceMismatch
from pipeline.sweep.trial import work, work_in_process

LOST: dict[str, Any] = {"state": "lost", "values": None, "known": {"curve": []}}


class Processes:
    """At most `jobs` child processes, one a trial, started afresh: a trial's memory goes back with it."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.running: dict[int, tuple[Any, Path]] = {}
        self.context = multiprocessing.get_context("spawn")

    @property
    def free(self) -> int:
        return self.jobs - len(self.running)

    def start(self, job: dict[str, Any]) -> None:
        folder = Path(job["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "outcome.json").unlink(missing_ok=True)
        path = folder / "job.json"
        files.write_json(str(path), job)
        # Daemons end with this process, unless it is killed with -9; then they end at their next look (see `orphaned`).
        process = self.context.Process(target=_child, args=(str(path), os.getpid()), daemon=True)
        process.start()
        self.running[job["number"]] = (process, folder)

    def finished(self, wait_s: float) -> list[tuple[int, dict[str, Any]]]:
        """(trial number, outcome) of what has ended, waiting at most `wait_s` for the first."""
        stop = time.monotonic() + wait_s
        while True:
            out = []
            for number, (process, folder) in list(self.running.items()):
                if process.is_alive():
                    continue
                process.join()
                del self.running[number]
                path = folder / "outcome.json"
                ended = (
                    json.loads(path.read_text())
                    if path.exists()
                    else LOST | {"error": f"the worker ended with status {process.exitcode}"}
                )
                out.append((number, ended))
            if out or not self.running or time.monotonic() >= stop:
                return out
            time.sleep(0.05)

    def close(self) -> None:
        for process, _ in self.running.values():
            process.terminate()
        for process, _ in self.running.values():
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def _child(path: str, parent: int) -> None:
    """The trial, in a process that does not outlive its sweep: two sweeps would train the same folder."""
    import threading

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # Whoever worked in this folder before may have half a second to live.
    with files.lock(str(Path(path).with_name("worker.lock"))):
        work_in_process(path)


class Ray:
    """Tasks of the Ray cluster at `address` ("local": one that lives as long as this process)."""

    def __init__(self, address: str, jobs: int) -> None:
        try:
            import ray
        except ImportError:
            raise DeviceMismatch(
                "Ray is not installed here",
                "--ray",
                "the extra `ray`",
                "pip install 'jetmask[ray]', or omit --ray",
            ) from None
        self.ray = ray
        options: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False, "logging_level": "error"}
        options |= {"num_cpus": jobs} if address == "local" else {"address": address}
        try:
            ray.init(**options)
        except Exception as error:  # a start that takes too long is a bare Exception in Ray
            raise DeviceMismatch(
                f"no Ray cluster answers: {error}",
                f"--ray {address}",
                "the address of a head node, or local",
                "start one: ray start --head",
            ) from None
        # No retries: a trial that kills its worker twice would take the study with it. The sweep retries by itself.
        self.task = ray.remote(num_cpus=1, max_retries=0)(work)
        self.jobs = jobs
        self.running: dict[Any, int] = {}

    @property
    def free(self) -> int:
        return self.jobs - len(self.running)

    def start(self, job: dict[str, Any]) -> None:
        self.running[self.task.remote(job)] = job["number"]

    def finished(self, wait_s: float) -> list[tuple[int, dict[str, Any]]]:
        if not self.running:
            return []
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=wait_s)
        out = []
        for reference in ready:
            number = self.running.pop(reference)
            try:
                out.append((number, self.ray.get(reference)))
            except self.ray.exceptions.RayError as error:
                out.append((number, LOST | {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}))
        return out

    def close(self) -> None:
        for reference in self.running:
            self.ray.cancel(reference, force=True)
        self.ray.shutdown()
