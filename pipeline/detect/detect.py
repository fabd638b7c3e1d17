"""Photographs and videos to lines and pictures, over all cores, on again where it was interrupted."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any, NamedTuple

from jetson import files
from jetson.bundle import manifest
from pipeline.cluster import Cluster
from pipeline.detect import processes, results
from pipeline.detect.inputs import Item
from pipeline.detect.worker import Each, Settings, Worker, start, work

# Fewer photographs are done sooner in this process than others are started.
ALONE = 6
CHUNK = 8
DIED = "the process that read it died: the file may be too large for memory"


class Summary(NamedTuple):
    """What is there of the items, those of earlier runs (`skipped` of them) among it. `faces`: by class, over
    photographs and frames. `failed`: file to reason. `seconds`: this run's."""

    photographs: int
    videos: int
    frames: int
    skipped: int
    faces: dict[str, int]
    failed: dict[str, str]
    warnings: dict[str, str]
    seconds: float


def run(
    items: Sequence[Item],
    settings: Settings,
    jobs: int,
    cluster: Cluster | None = None,
    say: Callable[[str], None] = lambda text: None,
    coco: bool = False,
) -> Summary:
    """Detect on `items` into the folder `settings.out`, which is made.

    jobs: processes, each with a detector of its own. cluster: whose workers do it instead. What the folder has of an
    earlier run with the same settings is kept and not done again. BadInput where the folder has the results of other
    settings.
    """
    os.makedirs(settings.out, exist_ok=True)
    with files.lock(os.path.join(settings.out, "detect.lock"), wait=False):
        log = results.Log(settings.out, _depends_on(settings))
        results.sweep(settings.out)
        try:
            return _run(items, settings, jobs, cluster, say, coco, log)
        finally:
            log.close()


def _run(
    items: Sequence[Item],
    settings: Settings,
    jobs: int,
    cluster: Cluster | None,
    say: Callable[[str], None],
    coco: bool,
    log: results.Log,
) -> Summary:
    left = [item for item in items if item.name not in log.done]
    if cluster is not None:
        source = _on(cluster, left, settings)
    elif jobs < 2 or len(left) < ALONE and not any(item.video for item in left[1:]):
        source = _here(left, settings)
    else:
        source = _processes(left, settings, min(jobs, len(left)))
    started, told = time.monotonic(), 0.0
    done = 0
    for lines in source:
        log.add(lines)
        done += 1
        now = time.monotonic()
        if now - told >= 1.0 and done < len(left):
            told = now
            rate = done / (now - started)
            say(f"{done} of {len(left)} files, {rate:.1f} a second, {_duration((len(left) - done) / rate)} left")
    seconds = time.monotonic() - started
    if left and done:
        say(f"{done} of {len(left)} files, {done / max(seconds, 1e-9):.1f} a second")
    if coco:
        names = list(manifest.load(settings.bundle).classes)
        files.write_json(
            os.path.join(settings.out, "detections.coco.json"),
            results.as_coco(results.read_lines(log.path), names),
        )
    return _summary(log.path, {item.name for item in items}, len(items) - len(left), seconds)


def _summary(path: str, names: set[str], skipped: int, seconds: float) -> Summary:
    counts: Counter[str] = Counter()
    faces: Counter[str] = Counter()
    failed, warnings = {}, {}
    for line in results.read_lines(path):
        if line["file"] not in names:
            continue
        if "error" in line:
            failed[line["file"]] = line["error"]
            continue
        if "warning" in line:
            warnings[line["file"]] = line["warning"]
        counts["frames" if "frame" in line else "photographs"] += 1
        counts["videos"] += "last" in line
        faces.update(face["class"] for face in line["faces"])
    return Summary(
        counts["photographs"], counts["videos"], counts["frames"], skipped, dict(faces), failed, warnings, seconds
    )


def _depends_on(settings: Settings) -> dict[str, Any]:
    contents = manifest.load(settings.bundle)
    return {
        "bundle": contents.name,
        "variant": settings.variant,
        "model_sha256": contents.variant(settings.variant).sha256,
        "runtime": settings.runtime,
        "score": contents.decode["score"] if settings.score is None else settings.score,
        "pictures": settings.pictures,
        "txt": settings.txt,
        "crops": settings.crops,
        "blur": settings.blur,
    }


def _here(items: Sequence[Item], settings: Settings) -> Iterator[list[dict[str, Any]]]:
    if not items:
        return
    worker = Worker(settings)
    try:
        for item in items:
            yield worker.run(item)
    finally:
        worker.close()


def _on(cluster: Cluster, items: Sequence[Item], settings: Settings) -> Iterator[list[dict[str, Any]]]:
    lost = set(range(len(items)))
    # Workers have other working folders.
    settings = replace(settings, out=os.path.abspath(settings.out), bundle=os.path.abspath(settings.bundle))
    for number, lines in cluster.spread(Each, (settings,), items):
        lost.remove(number)
        yield lines
    for number in sorted(lost):
        yield [{"file": items[number].name, "error": DIED}]


def _chunks(items: Sequence[Item], jobs: int) -> list[list[Item]]:
    """A few photographs at a time, each video alone; small ones near the end, so that all processes end together."""
    videos = [[item] for item in items if item.video]
    photos = [item for item in items if not item.video]
    size = max(1, min(CHUNK, len(photos) // (4 * jobs)))
    return videos + [photos[at : at + size] for at in range(0, len(photos), size)]


def _processes(items: Sequence[Item], settings: Settings, jobs: int) -> Iterator[list[dict[str, Any]]]:
    """The lines of each item as they come. A process that dies (of memory, say) loses only the item that killed it."""
    processes.prepare()
    waiting = _chunks(items, jobs)
    suspects: list[Item] = []
    while waiting or suspects:
        # Of those under way when a process died, each is tried once more, alone: so it is told which one it was.
        alone = bool(suspects)
        queue = [[item] for item in suspects] if alone else waiting
        running: dict[Future[list[list[dict[str, Any]]]], list[Item]] = {}
        pool = ProcessPoolExecutor(1 if alone else jobs, processes.context(), initializer=start, initargs=(settings,))
        try:
            while queue or running:
                while queue and len(running) < (1 if alone else 2 * jobs):
                    chunk = queue.pop(0)
                    running[pool.submit(work, chunk)] = chunk
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    found = future.result()
                    del running[future]
                    yield from found
            suspects = []
        except BrokenProcessPool:
            lost = [item for chunk in running.values() for item in chunk]
            if alone:
                yield [{"file": lost[0].name, "error": DIED}]
                lost = [chunk[0] for chunk in queue]
            suspects = lost
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _duration(seconds: float) -> str:
    """
    >>> _duration(5), _duration(150), _duration(7300)
    ('5 s', '3 min', '2 h 2 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def progress(text: str) -> None:
    """Tell how far it is on stderr: on one line of a terminal, else a line now and then."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)
