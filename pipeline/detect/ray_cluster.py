"""`jetmask detect --ray`: the files in blocks over a Ray cluster. A worker that is lost loses no more than its block.

Every node must see the photographs, the bundle and the folder of the results under the same paths (a shared file
system), and have jetmask installed.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from jetson.errors import DeviceMismatch
from pipeline.detect.inputs import Item
from pipeline.detect.worker import Settings, Worker

BLOCK = 16


class _Detect:
    """What each of the cluster's workers holds: a detector."""

    def __init__(self, settings: Settings) -> None:
        self.worker = Worker(settings)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        items = zip(batch["path"], batch["name"], batch["video"], strict=True)
        found = [self.worker.run(Item(str(path), str(name), bool(video))) for path, name, video in items]
        return {"lines": np.array([json.dumps(lines) for lines in found], dtype=object)}


class Cluster:
    """The Ray cluster at `address` ("local": one that lives as long as this process), `jobs` workers (None: as many
    as it has processors). DeviceMismatch where Ray is not installed, or nothing answers there."""

    def __init__(self, address: str, jobs: int | None) -> None:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise DeviceMismatch(
                f"Ray Data is not installed here ({error})",
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
        self.jobs = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def __call__(self, items: list[Item], settings: Settings) -> Iterator[list[dict[str, Any]]]:
        """The lines of each item as they come; those of lost workers are tried again, and left out at last."""
        context = self.ray.data.DataContext.get_current()
        context.max_errored_blocks = -1  # a file that kills its worker takes its own block along, not the others
        context.enable_progress_bars = False
        rows = [{"path": item.path, "name": item.name, "video": item.video} for item in items]
        blocks = max(1, min(len(rows), max(self.jobs, len(rows) // BLOCK)))
        found = self.ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Detect,
            fn_constructor_args=(settings,),
            batch_size=BLOCK,
            concurrency=(1, min(self.jobs, blocks)),
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=2,
        )
        try:
            for row in found.iter_rows():
                yield json.loads(row["lines"])
        finally:
            self.ray.shutdown()
