"""Collecting frames from outside: what is kept, what is not, and where it ends."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from jetson.capture import source
from jetson.collect import collector
from jetson.collect.collector import Collector, Settings
from jetson.errors import BadInput, JetmaskError
from jetson.evaluation.unsure import disagree, unsureness
from jetson.inference.detector import Faces

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


class Sees:
    """A detector that sees the same on every frame."""

    def __init__(self, boxes=(), scores=()):
        self.faces = Faces(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32).reshape(-1, 3))

    def detect(self, frame, score=None):
        return self.faces


def drawn(frames=0, **query):
    """A drawn camera; without an end where `frames` is 0, so that a busy machine misses nothing."""
    words = "&".join("%s=%s" % item for item in dict(query, frames=frames, faces=2).items())
    return [source.parse("synthetic://?" + words, (320, 240), 30.0, loop=False)]


def kept_in(out):
    folder = os.path.join(str(out), "images")
    return [cv2.imread(os.path.join(folder, name)) for name in sorted(os.listdir(folder)) if not name.startswith(".")]


def test_frames_are_kept_with_what_is_known_of_them(tmp_path):
    out = str(tmp_path / "c")
    outcome = Collector(Settings(drawn(), out, every_s=0.02, most=3), []).run()
    assert outcome.kept == 3 and outcome.ended == "3 frames are kept"
    pictures = kept_in(out)
    assert [p.shape for p in pictures] == [(240, 320, 3)] * 3 and pictures[0].std() > 5
    with open(os.path.join(out, collector.LOG)) as file:
        lines = [json.loads(line) for line in file]
    assert [line["file"] for line in lines] == sorted(os.listdir(os.path.join(out, "images")))
    assert all(line["source"].startswith("synthetic://") and not line["blurred"] for line in lines)


def test_only_its_owner_can_look(tmp_path):
    out = str(tmp_path / "c")
    Collector(Settings(drawn(), out, every_s=0.02, most=1), []).run()
    images = os.path.join(out, "images")
    assert os.stat(images).st_mode & 0o077 == 0
    assert all(os.stat(os.path.join(images, name)).st_mode & 0o077 == 0 for name in os.listdir(images))


def test_it_ends_with_its_source(tmp_path):
    outcome = Collector(Settings(drawn(4), str(tmp_path / "c"), every_s=0.01), []).run()
    assert outcome.ended == "the source has ended" and 1 <= outcome.kept <= 4


def test_the_limit_holds_over_several_runs(tmp_path):
    out = str(tmp_path / "c")
    first = Collector(Settings(drawn(), out, every_s=0.005, limit_bytes=60000), []).run()
    assert "limit" in first.ended and first.kept >= 1
    sizes = [entry.stat().st_size for entry in os.scandir(os.path.join(out, "images"))]
    assert sum(sizes) <= 60000
    full = Settings(drawn(), out, every_s=0.005, limit_bytes=sum(sizes))
    assert Collector(full, []).run().kept == 0


def test_the_disk_keeps_room_for_others(tmp_path, monkeypatch):
    monkeypatch.setattr(collector, "SPARE_BYTES", 1 << 62)
    outcome = Collector(Settings(drawn(), str(tmp_path / "c")), []).run()
    assert outcome.kept == 0 and "free on the disk" in outcome.ended


def test_faces_are_blurred_in_what_is_kept(tmp_path):
    settings = Settings(drawn(seed=3), str(tmp_path / "c"), every_s=0.02, blur=True, most=1)
    box = (80, 60, 240, 180)
    Collector(settings, [Sees([box], [(0.9, 0.1, 0.0)])]).run()
    (picture,) = kept_in(tmp_path / "c")
    inside = picture[70:170, 90:230].astype(float)
    assert np.abs(np.diff(inside, axis=1)).mean() < 3  # flat cells, where the drawing has texture
    plain = Settings(drawn(seed=3), str(tmp_path / "d"), every_s=0.02, most=1)
    Collector(plain, []).run()
    (picture,) = kept_in(tmp_path / "d")
    assert np.abs(np.diff(picture[70:170, 90:230].astype(float), axis=1)).mean() > 3


@pytest.mark.parametrize("only, blur, detectors", [(("disagree",), False, 1), (("unsure",), False, 0), ((), True, 0)])
def test_what_cannot_be_done_is_refused_before_a_frame_is_kept(only, blur, detectors, tmp_path):
    settings = Settings(drawn(), str(tmp_path / "c"), only=only, blur=blur)
    with pytest.raises(JetmaskError):
        Collector(settings, [Sees()] * detectors)
    assert not os.path.exists(str(tmp_path / "c"))


CERTAIN, UNSURE = (0.99, 0.0, 0.0), (0.42, 0.1, 0.0)
BOX = (10, 10, 60, 60)


@pytest.mark.parametrize(
    "only, first, second, kept",
    [
        (("unsure",), Sees([BOX], [UNSURE]), None, True),
        (("unsure",), Sees([BOX], [CERTAIN]), None, False),
        (("unsure",), Sees(), None, False),
        (("disagree",), Sees([BOX], [CERTAIN]), Sees([BOX], [CERTAIN]), False),
        (("disagree",), Sees([BOX], [CERTAIN]), Sees(), True),
        (("disagree",), Sees([BOX], [CERTAIN]), Sees([BOX], [(0.0, 0.9, 0.0)]), True),
        (("unsure", "disagree"), Sees([BOX], [UNSURE]), Sees([BOX], [CERTAIN]), True),
    ],
)
def test_only_frames_that_teach_something(only, first, second, kept, tmp_path):
    settings = Settings(drawn(4), str(tmp_path / "c"), every_s=0.01, only=only)
    outcome = Collector(settings, [first] if second is None else [first, second]).run()
    assert outcome.looked_at >= 1 and outcome.kept == (outcome.looked_at if kept else 0)


def test_two_collectors_do_not_share_a_folder(tmp_path):
    from jetson import files

    os.makedirs(str(tmp_path / "c"))
    with files.lock(str(tmp_path / "c" / "collect.lock")), pytest.raises(JetmaskError):
        Collector(Settings(drawn(), str(tmp_path / "c")), []).run()


def test_a_source_without_a_frame_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(collector, "PATIENCE_S", 0.2)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    where = [source.parse(str(tmp_path / "broken.mp4"), None, None, loop=False)]
    with pytest.raises(BadInput):
        Collector(Settings(where, str(tmp_path / "c")), []).run()


def test_a_signal_ends_it_with_all_that_was_kept(tmp_path):
    words = ["collect", "--source", "synthetic://?faces=1", "--size", "160x120", "--every", "0.05", "--json"]
    words += ["--out", str(tmp_path / "c")]
    process = subprocess.Popen(
        [sys.executable, "-m", "jetson"] + words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    images = str(tmp_path / "c" / "images")
    for _ in range(600):
        if os.path.isdir(images) and len(os.listdir(images)) > 2:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    told = json.loads(out.decode())
    assert told["ended"] == "stopped" and told["kept"] == len(os.listdir(images)) == len(kept_in(tmp_path / "c"))
    assert b"--blur-faces" in err  # it says that photographs of people are kept


@pytest.mark.parametrize("words", [["--every", "0"], ["--limit", "0"], ["--count", "-1"], ["--only", "good"]])
def test_settings_out_of_range(words, tmp_path, capsys):
    from jetson import cli
    from jetson.__main__ import VERBS

    given = ["collect", "--source", "synthetic://", "--out", str(tmp_path / "c")] + words
    assert cli.main(given, "prog", VERBS) == 2 and not os.path.exists(str(tmp_path / "c"))


def test_unsure_is_what_lies_at_the_threshold_or_between_two_classes():
    def faces(*scores):
        return Faces(np.zeros((len(scores), 4), np.float32), np.array(scores, np.float32).reshape(-1, 3))

    assert unsureness(faces(), 0.4) == 0 and unsureness(faces((0.4, 0, 0)), 0.4) == pytest.approx(1, abs=1e-6)
    assert unsureness(faces((1, 0, 0)), 0.4) == 0 and unsureness(faces((0.9, 0.9, 0)), 0.4) == 1
    assert unsureness(faces((0.1, 0, 0)), 0.4) < unsureness(faces((0.3, 0, 0)), 0.4)
    assert not disagree(faces(), faces()) and disagree(faces(), faces((1, 0, 0)))


def test_the_bundle_that_is_installed_is_the_one_that_looks(tmp_path, monkeypatch, capsys):
    """On a device nothing ships beside the code: the detector is the one that runs there."""
    from jetson import cli
    from jetson.__main__ import VERBS

    monkeypatch.setenv("JETMASK_STATE", str(tmp_path))
    (tmp_path / "current").mkdir()
    given = ["collect", "--source", "synthetic://?frames=2", "--out", str(tmp_path / "c"), "--only", "unsure"]
    assert cli.main(given, "prog", VERBS) == 3  # it is empty
    assert str(tmp_path / "current") in capsys.readouterr().err
