"""What is spread over a Ray cluster gives the same as without, though a worker is killed; a job that kills its workers
loses nothing but itself. Skipped without Ray."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import cv2
import pytest

from jetson.bundle import manifest
from jetson.errors import BadInput, DeviceMismatch, JetmaskError
from jetson.evaluation import average_precision
from pipeline.cluster import Cluster, start
from pipeline.data import prelabel
from pipeline.detect import detect, inputs, results
from pipeline.detect.worker import Settings
from pipeline.evaluation import evaluate

SQUARES = [(0, 76, 68, 32), (1, 184, 120, 32)]
COUNT = 48


class Mortal:
    """A worker that doubles numbers, dies of 7, and refuses 90."""

    def __call__(self, number):
        if number == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 90:
            raise BadInput("not a number to double", number)
        return 2 * number


class Killing(Cluster):
    """A cluster that kills one of its workers with the first result, while others are still to come."""

    killed = None

    def spread(self, make, arguments, jobs):
        self.killed = None
        for found in super().spread(make, arguments, jobs):
            if self.killed is None:
                done = subprocess.run(["pgrep", "-f", "ray::.*_Each"], capture_output=True, text=True)
                self.killed = [pid for pid in map(int, done.stdout.split()) if _descends_from(pid, os.getpid())][0]
                os.kill(self.killed, signal.SIGKILL)
            yield found


def _descends_from(pid, ancestor):
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return False
    return False


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray.data")
    # Workers find this file, as they would find jetmask: installed.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.getcwd()])
    try:
        with Killing("local", 2) as made:
            yield made
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.fixture(scope="module")
def split(tmp_path_factory, draw):
    """A labelled split of drawn squares."""
    top = tmp_path_factory.mktemp("split")
    (top / "images").mkdir()
    images, annotations = [], []
    for number in range(COUNT):
        name = f"images/{number:02d}.png"
        cv2.imwrite(str(top / name), draw((416, 256), SQUARES, number))
        images.append({"id": number, "file_name": name, "width": 416, "height": 256})
        for label, x, y, side in SQUARES:
            box = [x - side / 2, y - side / 2, side, side]
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": label + 1, "iscrowd": 0, "bbox": box}
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(manifest.CLASSES, 1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (top / "annotations.json").write_text(json.dumps(document))
    return top


def test_detections_are_the_same_with_a_worker_killed(cluster, split, tiny_bundle, tmp_path):
    variant = manifest.load(tiny_bundle).variants[0].name
    items = inputs.find([str(split / "images")], str(tmp_path / "out"))
    lines = []
    for out, spread in ((tmp_path / "out", cluster), (tmp_path / "alone", None)):
        summary = detect.run(items, Settings(tiny_bundle, variant, "onnxruntime", str(out)), 1, spread)
        assert summary.photographs == COUNT
        lines.append(sorted(map(json.dumps, results.read_lines(str(out / "detections.jsonl")))))
    assert lines[0] == lines[1] and cluster.killed


def test_ap_is_the_same_with_a_worker_killed(cluster, split, tiny_bundle):
    truths = average_precision.load_split(str(split))
    name = manifest.load(tiny_bundle).variants[0].name
    spread, here = (
        evaluate.measure(tiny_bundle, truths, name, "onnxruntime", cluster=where) for where in (cluster, None)
    )
    assert cluster.killed
    for one, other in zip(spread.detections, here.detections, strict=True):
        assert (one.xyxy == other.xyxy).all() and (one.scores == other.scores).all()
    assert spread.result["threads"] == 1
    for result in (spread.result, here.result):
        result.pop("latency_ms")
        result.pop("threads")
    assert spread.result == here.result


def test_drafts_are_the_same_with_a_worker_killed(cluster, split, tiny_bundle, tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in (split / "images").iterdir():
        (photos / path.name).write_bytes(path.read_bytes())
    (photos / "00.jpg").write_bytes(b"no picture")  # it takes no name from 00.png
    monkeypatch.setattr(cluster, "close", lambda: None)
    monkeypatch.setattr(prelabel, "Cluster", lambda address: cluster)
    drafts = []
    for ray in ("local", None):
        out = tmp_path / "drafts"
        assert prelabel.run(prelabel.Settings(photos, "coco", tiny_bundle, out, ray=ray)) == 0
        drafts.append({p.name: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()})
        out.rename(tmp_path / f"kept {ray}")
        assert "00.jpg" in capsys.readouterr().err
    assert drafts[0] == drafts[1] and len(drafts[0]) == COUNT + 1 and cluster.killed


def test_a_job_that_kills_its_workers_loses_itself_alone_and_an_exception_is_raised(cluster):
    plain = super(Killing, cluster).spread
    assert sorted(plain(Mortal, (), range(40))) == [(n, 2 * n) for n in range(40) if n != 7]
    with pytest.raises(BadInput) as raised:
        list(plain(Mortal, (), [1, 90]))
    assert raised.value.where == 90


def test_a_lost_image_is_no_ap(tiny_bundle, split):
    class Losing:
        def spread(self, make, arguments, jobs):
            each = make(*arguments)
            return ((number, each(job)) for number, job in enumerate(jobs) if number != 3)

    truths = average_precision.load_split(str(split))
    with pytest.raises(JetmaskError) as raised:
        evaluate.measure(tiny_bundle, truths, None, "onnxruntime", cluster=Losing())
    assert raised.value.where.endswith("03.png")


def test_no_cluster_is_told():
    pytest.importorskip("ray")
    started = time.monotonic()
    with pytest.raises(DeviceMismatch) as raised:
        start("nothing://there", None)
    assert "nothing://there" in raised.value.where and time.monotonic() - started < 60
