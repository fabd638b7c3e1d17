"""A Ray cluster: one that is there or one of this machine, and work spread over it in blocks.

Every node must see the files that the work names under the same paths (a shared file system), and have jetmask
installed.
"""

import contextlib
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from jetson.errors import DeviceMismatch

BLOCK = 16

# Made once by each of the cluster's workers, of arguments that can be pickled; then it turns jobs into what they give.
Maker = Callable[..., Callable[[Any], Any]]


def start(address: str, cpus: int | None) -> Any:
    """The module ray, joined to the cluster at `address`, or to one that lives as long as this process ("local", with
    `cpus` processors; None: all). DeviceMismatch where Ray is not installed, or nothing answers there."""
    try:
        import ray
    except ImportError as error:
        raise _missing("Ray", error) from None
    options: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False, "logging_level": "error"}
    options |= {"num_cpus": cpus} if address == "local" else {"address": address}
    try:
        ray.init(**options)
    except Exception as error:  # a start that takes too long is a bare Exception in Ray
        raise DeviceMismatch(
            f"no Ray cluster answers: {error}",
            f"--ray {address}",
            "the address of a head node, or local",
            "start one: ray start --head",
        ) from None
    return ray


def _missing(what: str, error: ImportError) -> DeviceMismatch:
    return DeviceMismatch(
        f"{what} is not installed here ({error})",
        "--ray",
        "the extra `ray`",
        "pip install 'jetmask[ray]', or omit --ray",
    )


class _Each:
    """What each of the cluster's workers holds. Exceptions travel as results: Ray would count them as lost blocks."""

    def __init__(self, make: Maker, arguments: tuple[Any, ...]) -> None:
        self.make = lambda: make(*arguments)
        self.work: Callable[[Any], Any] | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        done = np.empty(len(batch["job"]), object)
        done[:] = [pickle.dumps(self.one(pickle.loads(job))) for job in batch["job"]]
        return {"number": batch["number"], "done": done}

    def one(self, job: Any) -> tuple[Any, Exception | None]:
        """(what came of it, None), or (None, what was raised)."""
        cv2.setNumThreads(1)  # there is a worker for each processor
        try:
            self.work = self.work or self.make()
            return self.work(job), None
        except Exception as error:
            return None, error


def _alone(make: Maker, arguments: tuple[Any, ...], job: Any) -> tuple[Any, Exception | None]:
    return _Each(make, arguments).one(job)


class Cluster:
    """The Ray cluster at `address` (see `start`), of `workers` processes (None: as many as it has processors)."""

    def __init__(self, address: str, workers: int | None = None) -> None:
        try:
            import ray.data
        except ImportError as error:
            raise _missing("Ray Data", error) from None
        self.ray = start(address, workers)
        self.data = ray.data
        self.workers = workers or max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def spread(self, make: Maker, arguments: tuple[Any, ...], jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(number of the job, what the worker that `make` gave made of it), as they come.

        A worker that is lost loses no more than the blocks it had, whose jobs are tried again, each alone in a process.
        A job that loses that too does not come. What a worker raises is raised.
        """
        left = dict(enumerate(jobs))
        for tried in (self._blocks, self._singly):
            for number, (done, error) in tried(make, arguments, left):
                if error is not None:
                    raise error
                left.pop(number)
                yield number, done
            if not left:
                return

    def _blocks(self, make: Maker, arguments: tuple[Any, ...], jobs: dict[int, Any]) -> Iterator[tuple[int, Any]]:
        context = self.data.DataContext.get_current()
        context.max_errored_blocks = -1  # a job that kills its worker takes its own block along, not the others
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it tells each lost block with its stack
        rows = [{"number": number, "job": pickle.dumps(job)} for number, job in jobs.items()]
        blocks = max(1, min(len(rows), max(self.workers, len(rows) // BLOCK)))
        with warnings.catch_warnings():
            # The two last words have no other place in Ray before 2.64; see the bound in pyproject.toml.
            warnings.simplefilter("ignore", DeprecationWarning)
            found = self.data.from_items(rows, override_num_blocks=blocks).map_batches(
                _Each,
                fn_constructor_args=(make, arguments),
                batch_size=BLOCK,
                compute=self.data.ActorPoolStrategy(
                    min_size=1, max_size=min(self.workers, blocks), max_tasks_in_flight_per_actor=2
                ),
                num_cpus=1,
                max_restarts=-1,
                max_task_retries=0,  # retried in place, a job that kills its worker never ends
            )
        for row in found.iter_rows():
            yield int(row["number"]), pickle.loads(row["done"])

    def _singly(self, make: Maker, arguments: tuple[Any, ...], jobs: dict[int, Any]) -> Iterator[tuple[int, Any]]:
        task = self.ray.remote(num_cpus=1, max_retries=1)(_alone)
        running = {task.remote(make, arguments, job): number for number, job in jobs.items()}
        while running:
            (reference,), _ = self.ray.wait(list(running))
            number = running.pop(reference)
            with contextlib.suppress(self.ray.exceptions.RayError):
                yield number, self.ray.get(reference)

    def close(self) -> None:
        """Leave the cluster; one of this machine ends."""
        self.ray.shutdown()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
