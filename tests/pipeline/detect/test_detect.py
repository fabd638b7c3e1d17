"""`jetmask detect` from outside, on squares that the tiny bundle's net finds, and its parts."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from refusals import failed
from serving import wait_for

from jetson.bundle import manifest
from jetson.errors import BadInput
from jetson.inference.detector import Faces
from pipeline.detect import detect, drawing, inputs, results
from pipeline.detect.worker import Settings

SQUARES = [(0, 76, 68, 32), (1, 184, 120, 32)]


def command(bundle, *arguments):
    return [sys.executable, "-m", "pipeline.cli", "detect", "--bundle", bundle, *map(str, arguments)]


def run(root, bundle, *arguments):
    done = subprocess.run(command(bundle, *arguments), cwd=root, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def lines_of(out):
    return list(results.read_lines(os.path.join(str(out), "detections.jsonl")))


def with_environment(text):
    """The processes that were started with this in their environment."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if text.encode() in file.read():
                found.append(int(name))
    return found


@pytest.fixture
def photos(tmp_path, draw):
    """Ten pictures in two folders: two squares in each, one file that is none, one cut off, one hidden."""
    top = tmp_path / "photos"
    (top / "a" / "deep").mkdir(parents=True)
    for number in range(10):
        name = top / ("a/deep" if number % 2 else ".") / f"{number}.{'png' if number == 3 else 'jpg'}"
        cv2.imwrite(str(name), draw((416, 256), SQUARES, number), [cv2.IMWRITE_JPEG_QUALITY, 98])
    (top / "broken.jpg").write_bytes(b"no picture")
    whole = (top / "0.jpg").read_bytes()
    (top / "cut.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    (top / ".hidden.jpg").write_bytes(whole)
    (top / "notes.txt").write_text("no picture")
    return top


def test_a_folder_to_pictures_lines_labels_crops_and_coco(root, tiny_bundle, photos, tmp_path):
    out = tmp_path / "out"
    done = run(root, tiny_bundle, photos, "--out", out, "--save-txt", "--save-json", "--crops", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["photographs"] == 10 and sorted(told["failed"]) == ["broken.jpg", "cut.jpg"]
    found = {line["file"]: line for line in lines_of(out)}
    assert len(found) == 12 and ".hidden.jpg" not in found
    names = list(manifest.load(tiny_bundle).classes)
    for name in ("0.jpg", "a/deep/3.png"):
        line = found[name]
        assert (line["width"], line["height"]) == (416, 256)
        assert sorted(face["class"] for face in line["faces"]) == names[:2]
        for label, x, y, side in SQUARES:
            (face,) = [face for face in line["faces"] if face["class"] == names[label]]
            assert np.abs(np.array(face["xyxy"]) - [x - side / 2, y - side / 2, x + side / 2, y + side / 2]).max() < 6
    assert cv2.imread(str(out / "pictures" / "a" / "deep" / "3.png.jpg")).shape == (256, 416, 3)
    text = (out / "labels" / "a" / "deep" / "3.txt").read_text().split("\n")
    number, x, y, w, h, score = map(float, text[0].split())
    first = found["a/deep/3.png"]["faces"][0]
    assert names[int(number)] == first["class"] and score == pytest.approx(first["score"], abs=1e-4)
    assert [(x - w / 2) * 416, (y + h / 2) * 256] == pytest.approx([first["xyxy"][0], first["xyxy"][3]], abs=0.01)
    assert len(list((out / "crops" / names[0]).rglob("*.jpg"))) == 10
    document = json.loads((out / "detections.coco.json").read_text())
    assert len(document["images"]) == 10 and len(document["annotations"]) == sum(
        len(line.get("faces", ())) for line in found.values()
    )
    assert not [name for _, _, names in os.walk(out) for name in names if name.endswith(".part")]


def test_what_was_killed_goes_on_and_ends_with_the_same(root, tiny_bundle, tmp_path, draw):
    top = tmp_path / "photos"
    top.mkdir()
    for number in range(60):
        cv2.imwrite(str(top / f"{number:02d}.jpg"), draw((416, 256), SQUARES, number))
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(tiny_bundle, top, "--out", out),
        cwd=root,
        stderr=subprocess.DEVNULL,
        env=dict(os.environ, JETMASK_TEST=str(tmp_path)),
    )
    stop = time.monotonic() + 60
    while time.monotonic() < stop and not ((out / "detections.jsonl").exists() and lines_of(out)):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    mark = f"JETMASK_TEST={tmp_path}"
    wait_for(lambda: not with_environment(mark) or None, "the pool's processes and their server to end")
    with open(out / "detections.jsonl", "a") as file:
        file.write('{"file": "59.jpg", "wid')  # what a power cut may leave
    half = [out / "pictures" / "59.jpg.4711.part", out / "videos" / "deep" / "a.mp4.4711.part.mp4"]
    for path in half:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    before = len((out / "detections.jsonl").read_text().splitlines()) - 1
    done = run(root, tiny_bundle, top, "--out", out, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["skipped"] == before
    assert not any(path.exists() for path in half)
    assert sorted(line["file"] for line in lines_of(out)) == [f"{number:02d}.jpg" for number in range(60)]
    alone = run(root, tiny_bundle, top, "--out", tmp_path / "alone", "--jobs", "1")
    assert alone.returncode == 0
    assert sorted(map(json.dumps, lines_of(out))) == sorted(map(json.dumps, lines_of(tmp_path / "alone")))


def test_other_settings_are_not_mixed_into_a_folder(root, tiny_bundle, photos, tmp_path):
    out = tmp_path / "out"
    assert run(root, tiny_bundle, photos / "0.jpg", "--out", out).returncode == 0
    other = run(root, tiny_bundle, photos / "0.jpg", "--out", out, "--blur")
    assert other.returncode == 3 and "blur" in other.stderr and "--restart" in other.stderr
    (out / "mine.txt").write_text("stays")
    assert run(root, tiny_bundle, photos / "0.jpg", "--out", out, "--blur", "--restart").returncode == 0
    assert (out / "mine.txt").exists() and len(lines_of(out)) == 1


def test_a_video_has_a_line_a_frame_with_its_time(root, tiny_bundle, tmp_path, draw):
    clip = str(tmp_path / "ü clip.avi")
    writer = cv2.VideoWriter(clip, cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240))
    for number in range(10):
        writer.write(draw((320, 240), [(0, 80 + number, 80, 32)], 3))
    writer.release()
    out = tmp_path / "out"
    done = run(root, tiny_bundle, clip, "--out", out)
    assert done.returncode == 0, done.stderr
    found = lines_of(out)
    assert [line["frame"] for line in found] == list(range(10))
    assert [line["time_s"] for line in found] == pytest.approx([0.04 * n for n in range(10)], abs=1e-3)
    assert sum(len(line["faces"]) for line in found) >= 8 and found[-1]["last"]
    shown = cv2.VideoCapture(str(out / "videos" / "ü clip.mp4"))
    assert shown.get(cv2.CAP_PROP_FRAME_COUNT) == 10
    # A log that ends within the frames of a video begins that video anew.
    text = (out / "detections.jsonl").read_text().splitlines(keepends=True)
    (out / "detections.jsonl").write_text("".join(text[:4]))
    assert run(root, tiny_bundle, clip, "--out", out).returncode == 0
    assert lines_of(out) == found


def test_blurred_faces_cannot_be_seen_in_pictures_nor_crops(root, tiny_bundle, photos, tmp_path):
    for flag in ("--blur", None):
        out = tmp_path / str(flag)
        words = [photos / "0.jpg", "--out", out, "--crops", *([flag] if flag else [])]
        assert run(root, tiny_bundle, *words).returncode == 0
    names = manifest.load(tiny_bundle).classes
    blurred, plain = (
        cv2.imread(str(next((tmp_path / flag / "crops" / names[0]).glob("0-*.jpg")))).astype(float)
        for flag in ("--blur", "None")
    )
    assert blurred.shape == plain.shape
    assert np.abs(np.diff(blurred, axis=1)).mean() < 0.8 * np.abs(np.diff(plain, axis=1)).mean()


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["nowhere"], 3, "nowhere"),
        (["pyproject.toml"], 3, "pyproject.toml"),
        (["tests/data/*.nothing"], 3, "tests/data/*.nothing"),
        (["pipeline/presets"], 3, "pipeline/presets"),
        (["tests", "--score", "2"], 2, "--score"),
        (["tests", "--jobs", "0"], 2, "--jobs"),
        (["tests", "--variant", "nonsense"], 2, "nonsense"),
    ],
)
def test_wrong_words_are_told(root, tiny_bundle, tmp_path, words, code, said):
    done = run(root, tiny_bundle, *words, "--out", tmp_path / "out")
    failed(done, code, names=said)
    assert not (tmp_path / "out").exists()


def test_only_broken_files_are_bad_input(root, tiny_bundle, photos, tmp_path):
    done = run(root, tiny_bundle, photos / "broken.jpg", "--out", tmp_path / "out")
    assert done.returncode == 3 and "broken.jpg" in done.stderr


def test_names_are_those_below_the_common_folder(tmp_path):
    for name in ("x/a.jpg", "x/y/b.JPEG", "z/a.jpg", "z/c.mp4", "out/pictures/d.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    out = str(tmp_path / "out")

    def names(*paths):
        return [item.name for item in inputs.find([str(tmp_path / path) for path in paths], out)]

    assert names("x") == ["a.jpg", "y/b.JPEG"]
    assert names("x", "z") == ["x/a.jpg", "x/y/b.JPEG", "z/a.jpg", "z/c.mp4"]
    assert names("x/a.jpg", "x/a.jpg") == ["a.jpg"]
    assert names("**/a.jpg") == ["x/a.jpg", "z/a.jpg"]
    assert names("") == ["x/a.jpg", "x/y/b.JPEG", "z/a.jpg", "z/c.mp4"]  # not what was written before
    with pytest.raises(BadInput):
        inputs.find([str(tmp_path / "out")], out)


def test_a_process_that_dies_loses_only_the_file_that_killed_it(tiny_bundle, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), os.getcwd()]))
    import deadly

    monkeypatch.setattr(detect, "work", deadly.work)
    for number in range(10, 24):
        shutil.copy(photos / "0.jpg", photos / f"{number}.jpg")
    shutil.copy(photos / "0.jpg", photos / "deadly.jpg")
    contents = manifest.load(tiny_bundle)
    settings = Settings(tiny_bundle, contents.variants[0].name, "onnxruntime", str(tmp_path / "out"), pictures=False)
    items = inputs.find([str(photos)], settings.out)
    summary = detect.run(items, settings, 2)
    assert sorted(summary.failed) == ["broken.jpg", "cut.jpg", "deadly.jpg"]
    assert summary.photographs == len(items) - 3


def test_labels_never_cover_another_face():
    generator = np.random.default_rng(1)
    centres = generator.uniform(40, 360, (30, 2))
    xyxy = np.concatenate([centres - 12, centres + 12], 1).astype(np.float32)
    faces = Faces(xyxy, generator.uniform(0.2, 0.9, (30, 3)).astype(np.float32))
    boxes = [tuple(int(round(float(v))) for v in box) for box in xyxy]
    for box in boxes:
        spot = drawing._free_spot((400, 400, 3), "with_mask 0.50", 0.35, box, [o for o in boxes if o is not box])
        if spot is not None:
            assert spot[0] >= 0 and spot[2] <= 400 and spot[1] >= 0 and spot[3] <= 400
            for x0, y0, x1, y1 in boxes:
                if (x0, y0, x1, y1) != box:
                    assert spot[2] <= x0 or spot[0] >= x1 or spot[3] <= y0 or spot[1] >= y1
    image = np.zeros((400, 400, 3), np.uint8)
    drawing.draw(image, faces, ["a", "b", "c"])
    assert image.any()
