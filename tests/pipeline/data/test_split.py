"""Near-duplicates: what counts as one photograph, that splits keep it together, that training keeps it out."""

import json
import os
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from jetson import cli
from jetson.errors import BadInput, UsageError
from jetson.evaluation.average_precision import load_split
from jetson.synthetic import scene
from pipeline.cli import VERBS
from pipeline.data import check, draw, layout, leak
from pipeline.data import split as splitting

hashes = st.lists(st.integers(0, 2**64 - 1), max_size=30).map(lambda v: np.array(v, np.uint64))
close = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 63), st.integers(0, 63)), max_size=30).map(
    lambda v: np.array([(0x0123456789ABCDEF * (base + 1) % 2**64) ^ (1 << a) ^ (1 << b) for base, a, b in v], np.uint64)
)


def plain_bits(a, b):
    return bin(int(a) ^ int(b)).count("1")


@settings(max_examples=100, deadline=None)
@given(hashes | close, hashes | close, st.integers(0, 40))
def test_what_is_apart_is_the_plain_count_in_every_block(a, b, rows):
    blocks = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leak, "_BLOCK", rows)
        for start, differing in leak.apart(a, b):
            assert start == sum(map(len, blocks))
            blocks.append(differing)
    assert [[plain_bits(x, y) for y in b] for x in a] == [list(row) for block in blocks for row in block]


@settings(max_examples=100, deadline=None)
@given(close, st.integers(0, 6))
def test_groups_are_the_connected_parts(hashed, bits):
    parts = {i: {i} for i in range(len(hashed))}
    for i in range(len(hashed)):
        for j in range(i):
            if plain_bits(hashed[i], hashed[j]) <= bits:
                joined = parts[i] | parts[j]
                for k in joined:
                    parts[k] = joined
    found = splitting.groups(hashed, bits)
    assert all((found[i] == found[j]) == (j in parts[i]) for i in range(len(hashed)) for j in range(len(hashed)))


@settings(max_examples=60, deadline=None)
@given(close, st.integers(0, 6), st.integers(0, 2**64 - 1))
def test_mirror_images_belong_together(hashed, bits, seed):
    """A picture that another is the mirror image of is in its group, and so are both of their groups."""
    mirrored = hashed[np.random.default_rng(seed).permutation(len(hashed))]
    parts = {i: {i} for i in range(len(hashed))}
    for other in (hashed, mirrored):
        for i in range(len(hashed)):
            for j in range(len(hashed)):
                if plain_bits(hashed[i], other[j]) <= bits:
                    joined = parts[i] | parts[j]
                    for k in joined:
                        parts[k] = joined
    assert splitting.groups(hashed, bits, mirrored).tolist() == [min(parts[i]) for i in range(len(hashed))]


def test_frames_of_a_camera_that_stands_still_fit_in_memory():
    """All are near to all others: their pairs alone would be 9 million."""
    rng = np.random.default_rng(0)
    noise = (np.uint64(1) << rng.integers(0, 64, (3000, 3)).astype(np.uint64)).sum(axis=1, dtype=np.uint64)
    tracemalloc.start()
    try:
        number = splitting.groups(np.uint64(0x0123456789ABCDEF) ^ noise)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert set(number.tolist()) == {0} and peak < 200e6


def plain_dhash(grey):
    """Each of 9x8 cells is the mean of its pixels; a bit is set where the left one of two is darker."""
    h, w = grey.shape
    cells = [
        [np.round(grey[r * h // 8 : (r + 1) * h // 8, c * w // 9 : (c + 1) * w // 9].mean()) for c in range(9)]
        for r in range(8)
    ]
    return int("".join("1" if row[c] < row[c + 1] else "0" for row in cells for c in range(8)), 2)


def test_dhash_is_the_difference_hash():
    for seed in range(5):
        grey = np.random.default_rng(seed).integers(0, 256, (80, 90), np.uint8)
        grey = cv2.GaussianBlur(grey, (0, 0), 4)
        assert plain_bits(leak.dhash(grey), plain_dhash(grey)) <= 3  # where two neighbours are equal, rounding decides


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    draw.write(folder, 24, seed=5, wh=(160, 120))
    return folder


def copies(image):
    """What a collector of photographs meets: the same one again, in other clothes."""
    h, w = image.shape[:2]
    yield "again", cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1)
    yield "smaller", cv2.resize(image, (w * 2 // 3, h * 2 // 3), interpolation=cv2.INTER_AREA)
    yield "brighter", cv2.convertScaleAbs(image, alpha=1.05, beta=6)
    yield "mirrored", image[:, ::-1]


def test_copies_of_a_held_out_image_are_found_and_others_are_not(scenes, tmp_path):
    held_out = leak.images_of(scenes)
    training = []
    for number, path in enumerate(held_out[:6]):
        for name, copy in copies(cv2.imread(str(path))):
            training.append(tmp_path / f"{number}_{name}.png")
            cv2.imwrite(str(training[-1]), copy)
    fresh = [tmp_path / f"fresh_{i}.png" for i in range(6)]
    for i, path in enumerate(fresh):
        cv2.imwrite(str(path), scene.scene(9000 + i, (160, 120))[0])
    found = leak.keep_out(tmp_path, [scenes])
    assert set(found) == {p.name for p in training}
    assert all(found[p.name].twin == held_out[int(p.name[0])] for p in training)
    assert [f.kind for f in leak.findings(training[:2] + fresh, [scenes])] == ["near-duplicate"] * 2


def test_keep_out_needs_its_folders(scenes, tmp_path):
    with refused(BadInput, where="none", names="annotations.json"):
        leak.keep_out(scenes, [tmp_path / "none"])
    assert leak.keep_out(scenes, []) == {}


def entries_with_copies(scenes, folder):
    """The scenes, and of each third one two copies under other names."""
    entries, _, _ = layout.load(scenes)
    (folder / "images").mkdir(parents=True)
    out = []
    for number, entry in enumerate(entries):
        image = cv2.imread(str(entry.image))
        for name, copy in [("original", image), *(list(copies(image))[::3] if number % 3 == 0 else [])]:
            path = folder / "images" / f"{name}_{number:02d}.png"
            cv2.imwrite(str(path), copy)
            out.append(check.Entry(path, path.name, (copy.shape[1], copy.shape[0]), entry.boxes, entry.labels))
    return out


def parts_of(parts):
    return {name: sorted(e.image.read_bytes() for e in entries) for name, entries in parts.items()}


def test_a_split_keeps_copies_together_and_takes_everything_once(scenes, tmp_path):
    entries = entries_with_copies(scenes, tmp_path)
    for seed in range(4):
        parts = splitting.split(entries, {"train": 0.6, "val": 0.2, "test": 0.2}, seed)
        where = {e.name: part for part, chosen in parts.items() for e in chosen}
        assert len(where) == len(entries) == sum(len(chosen) for chosen in parts.values())
        for number in range(0, 24, 3):
            assert len({part for name, part in where.items() if name.endswith(f"_{number:02d}.png")}) == 1
        for part in ("val", "test"):
            assert leak.leaks([e.image for e in parts["train"]], [e.image for e in parts[part]]) == []
        assert 0.4 < len(parts["train"]) / len(entries) < 0.75 and all(parts.values())


def test_a_split_depends_on_content_and_seed_alone(scenes, tmp_path):
    entries = entries_with_copies(scenes, tmp_path)
    shares = {"train": 0.5, "test": 0.5, "val": 0}
    first = parts_of(splitting.split(entries, shares, 3))
    assert set(first) == {"train", "test"}
    renamed = []
    for number, entry in enumerate(reversed(entries)):
        path = tmp_path / f"renamed_{(number * 7) % 1000:03d}.png"
        os.link(entry.image, path)
        renamed.append(entry.__class__(path, path.name, entry.wh, entry.boxes, entry.labels))
    assert parts_of(splitting.split(renamed, shares, 3)) == first
    assert any(parts_of(splitting.split(entries, shares, seed)) != first for seed in (4, 5, 6))


@pytest.mark.parametrize("shares", [{}, {"train": 0}, {"train": -1, "val": 3}])
def test_shares_that_make_no_sense(shares):
    with pytest.raises(UsageError):
        splitting.split([], shares)


@pytest.mark.needs_data
def test_the_training_photographs_of_one_source_are_not_in_val_or_test(data_dir):
    data = Path(data_dir)
    assert leak.keep_out(data / "train", [data / "val", data / "test"]) == {}


def run(*words):
    return cli.main(["data", *map(str, words)], "jetmask", VERBS)


def test_the_split_verb_writes_clean_parts_and_leaves_the_source(scenes, tmp_path, capsys):
    before = {p: p.read_bytes() for p in scenes.rglob("*") if p.is_file()}
    assert run("split", scenes, tmp_path / "out", "--train", 0.5, "--val", 0.5, "--test", 0, "--json") == 0
    counts = json.loads(capsys.readouterr().out)
    assert set(counts) == {"train", "val"} == {p.name for p in (tmp_path / "out").iterdir()}
    for name, one in counts.items():
        truths = load_split(str(tmp_path / "out" / name))
        assert len(truths) == one["images"] == len(list((tmp_path / "out" / name / "images").iterdir()))
        assert sum(len(t.labels) for t in truths) == sum(v for k, v in one.items() if k != "images")
        assert run("check", tmp_path / "out" / name) == 0
    assert sum(one["images"] for one in counts.values()) == 24
    assert {p: p.read_bytes() for p in scenes.rglob("*") if p.is_file()} == before
    assert run("check", tmp_path / "out" / "train", "--against", tmp_path / "out" / "val") == 0
    assert run("check", tmp_path / "out" / "train", "--against", scenes) == 3
    assert "error: near-duplicate: 0 of 64 bits" in capsys.readouterr().err


def test_the_split_verb_refuses_what_it_cannot_do(scenes, tmp_path, capsys):
    assert run("split", tmp_path / "none", tmp_path / "out") == 3
    assert run("split", scenes, tmp_path / "out", "--train", -1) == 2
    assert "expected" in capsys.readouterr().err and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        ["--train", "nan"],
        ["--train", "inf"],
        ["--val", "-1"],
        ["--seed", "99999999999999999999"],
        ["--bits", "-1"],
        ["--bits", "64"],
    ],
)
def test_shares_seeds_and_bits_that_are_none(scenes, tmp_path, capsys, wrong):
    assert cli.main(["data", "split", str(scenes), str(tmp_path / "out"), *wrong], "jetmask", VERBS) == 2
    assert not (tmp_path / "out").exists() and "internal" not in capsys.readouterr().err


def test_a_part_without_an_image_is_said(tmp_path, capsys):
    draw.write(tmp_path, 2, seed=3, wh=(160, 120))
    assert cli.main(["data", "split", str(tmp_path), str(tmp_path / "out")], "jetmask", VERBS) == 0
    assert "got no image" in capsys.readouterr().err
