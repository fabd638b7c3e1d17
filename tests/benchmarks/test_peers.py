"""The peer's decoding against a plain one, and the ledger on a small drawn split in turns."""

import os
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from benchmarks import ledger, peers
from jetson.errors import BadInput, UsageError
from jetson.inference.detector import Faces

PEERS = os.environ.get("JETMASK_PEERS")


def bare():
    one = object.__new__(peers.Aizoo)
    one.anchors = peers.Aizoo.make_anchors()
    return one


def test_anchors_are_those_of_the_description():
    anchors = peers.Aizoo.make_anchors()
    assert anchors.shape == (5972, 4)
    assert np.allclose(anchors[0], [0.5 / 33, 0.5 / 33, 0.04, 0.04])
    assert np.allclose(anchors[1, 2:], 0.056)
    assert np.allclose(anchors[2, 2:], [0.04 * 0.62**0.5, 0.04 / 0.62**0.5])
    assert np.allclose(anchors[-1, :2], 2.5 / 3)


def test_decoding_against_a_plain_loop():
    random = np.random.default_rng(5)
    detector = bare()
    offsets = random.normal(0, 1, (5972, 4)).astype(np.float32)
    scores = random.uniform(0, 0.3, (5972, 2)).astype(np.float32)
    for place in (7, 3000, 5970):
        scores[place] = (0.9, 0.1)
    faces = detector.decode(offsets, scores, (400, 200), 0.5)
    plain = []
    for place in (7, 3000, 5970):
        cx, cy, w, h = detector.anchors[place].astype(float)
        dx, dy, dw, dh = (float(v) * s for v, s in zip(offsets[place], (0.1, 0.1, 0.2, 0.2), strict=True))
        cx, cy, w, h = cx + dx * w, cy + dy * h, w * np.exp(dw), h * np.exp(dh)
        box = np.clip([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 0, 1) * [400, 200, 400, 200]
        plain.append(box)
    assert sorted(map(tuple, np.round(faces.xyxy, 2))) == sorted(map(tuple, np.round(np.float32(plain), 2)))
    assert faces.scores.shape == (3, 3) and not faces.scores[:, 2].any()
    assert len(detector.decode(offsets, scores * 0, (400, 200), 0.5).xyxy) == 0


def test_where_the_peers_are_must_be_said(tmp_path):
    with refused(UsageError, where="--peers", names="JETMASK_PEERS"):
        peers.aizoo_entry(None, 1)
    with refused(BadInput, where="none.tflite", names=["--peers", "face_mask_detection"]):
        peers.Aizoo(str(tmp_path / "none.tflite"))


class Fixed:
    """A detector that finds the truth, shifted by nothing, after `ms` of work."""

    def __init__(self, truths, work):
        self.faces = iter([t for t in truths for _ in range(2)])
        self.work, self.timings, self.closed = work, {"infer_ms": float(work)}, False

    def detect(self, frame, score=None):
        truth = next(self.faces)
        sum(i * i for i in range(2000 * self.work))
        return Faces(truth.xyxy.astype(np.float32), np.eye(3, dtype=np.float32)[truth.labels])

    def close(self):
        self.closed = True


def test_the_ledger_compares_with_its_first_line(tmp_path):
    from jetson.evaluation import average_precision
    from pipeline.data import draw

    split = tmp_path / "drawn"
    split.mkdir()
    draw.write(split, 4, seed=3)
    truths = average_precision.load_split(str(split))
    slow, fast = Fixed(truths, 40), Fixed(truths, 4)
    entries = [
        ledger.Entry("A", "fp32", "r", 1, (1, 1), slow, 100, 1000),
        ledger.Entry("B", "fp32", "r", 1, (1, 1), fast, 50, 100),
    ]
    rows = ledger.rows_of(ledger.compare(entries, truths, lambda text: None), "drawn", len(truths))
    assert [row["map50"] for row in rows] == ["100.0", "100.0"]
    assert float(rows[0]["cpu_ratio"]) == 1 and float(rows[1]["cpu_ratio"]) < 0.9
    assert rows[1]["size_ratio"] == "0.500" and rows[1]["macs_ratio"] == "0.100"
    assert rows[1]["ap_difference"] == "0.0" and slow.closed and fast.closed
    ledger.write(tmp_path / "out.csv", rows)
    assert (tmp_path / "out.csv").read_text().startswith("system,precision")


@pytest.mark.needs_data
@pytest.mark.skipif(not PEERS, reason="JETMASK_PEERS is not set")
def test_the_peer_finds_faces_on_photographs():
    from jetson.evaluation import average_precision

    truths = average_precision.load_split(str(Path(os.environ["JETMASK_DATA"]) / "val"))[:12]
    entry = peers.aizoo_entry(PEERS, 1)
    rows = ledger.rows_of(ledger.compare([entry], truths, lambda text: None), "val", len(truths))
    assert float(rows[0]["map50"]) > 25
