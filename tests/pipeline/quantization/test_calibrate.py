"""Which photographs are chosen, and the ranges they give, against slow counting."""

import json
from collections import Counter

import cv2
import numpy as np
import onnx
import pytest
from refusals import refused
from small_net import detector, run

from jetson import files
from jetson.engine import calibration as tables
from jetson.errors import BadInput, UsageError
from jetson.evaluation import average_precision
from jetson.vision.letterbox import letterbox
from pipeline import cli
from pipeline.quantization import calibrate


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A SPLIT_DIR of 60 images: two sources, three brightnesses, faces of three sizes or none."""
    folder = tmp_path_factory.mktemp("split")
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(60):
        frame = random.integers(0, 40, (60, 80, 3)) + 80 * (i % 3)
        name = f"images/{i:02}.png"
        assert cv2.imwrite(str(folder / name), frame.astype(np.uint8))
        images.append({"id": i, "file_name": name, "width": 80, "height": 60, "source": "few" if i < 6 else "many"})
        side = (0, 6, 20, 50)[i % 4]
        if side:
            annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": [2, 2, side, side]})
    categories = [{"id": i + 1, "name": n} for i, n in enumerate(("with_mask", "without_mask", "mask_worn_incorrect"))]
    files.write_json(
        str(folder / "annotations.json"), {"images": images, "annotations": annotations, "categories": categories}
    )
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return detector().save(tmp_path_factory.mktemp("net") / "net.onnx")


def numbers(paths):
    return [int(path[-6:-4]) for path in paths]


def test_selection_is_spread_and_repeatable(split):
    first = calibrate.select(split, 24, seed=5)
    assert first == calibrate.select(split, 24, seed=5) != calibrate.select(split, 24, seed=6)
    assert len(set(first)) == 24
    found = numbers(first)
    assert min(Counter(i % 3 for i in found).values()) >= 5  # brightness
    assert min(Counter(i % 4 for i in found).values()) >= 3  # size of the faces
    assert sum(i < 6 for i in found) >= 4  # the rare source is not lost among the many


def test_selection_of_more_than_there_are_is_all(split):
    assert numbers(calibrate.select(split, 1000, 0)) == list(range(60))


def test_selection_refuses(split, tmp_path):
    with pytest.raises(UsageError):
        calibrate.select(split, 0, 0)
    with pytest.raises(BadInput):
        calibrate.select(str(tmp_path), 4, 0)


def test_a_model_that_is_not_ours_is_told(split, tmp_path):
    weight = onnx.numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    for name, kind in (("x", onnx.TensorProto.FLOAT), ("image", onnx.TensorProto.FLOAT16)):
        weights = [
            weight
            if kind == onnx.TensorProto.FLOAT
            else onnx.numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float16), "w")
        ]
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Conv", [name, "w"], ["y"])],
            "g",
            [onnx.helper.make_tensor_value_info(name, kind, [1, 3, 32, 32])],
            [onnx.helper.make_tensor_value_info("y", kind, None)],
            weights,
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=7)
        onnx.save(model, str(tmp_path / "own.onnx"))
        with refused(BadInput, where="own.onnx", names=[name, "float32"]):
            calibrate.collect(str(tmp_path / "own.onnx"), calibrate.select(split, 2, 0), (32, 32))


def test_a_model_of_one_size_is_not_run_at_another(split, model, tmp_path):
    fixed = onnx.load(model)
    for dim, value in zip(fixed.graph.input[0].type.tensor_type.shape.dim, (1, 3, 64, 96)):
        dim.Clear()
        dim.dim_value = value
    onnx.save(fixed, str(tmp_path / "fixed.onnx"))
    images = calibrate.select(split, 1, 0)
    with refused(BadInput, where="fixed.onnx", names=["1 x 3 x 64 x 96", "--input-wh 64x96"]):
        calibrate.collect(str(tmp_path / "fixed.onnx"), images, (64, 96), "minmax")
    assert (
        calibrate.collect(str(tmp_path / "fixed.onnx"), images, (96, 64), "minmax").ranges
        == calibrate.collect(model, images, (96, 64), "minmax").ranges
    )


def test_minmax_is_the_largest_of_every_tensor(split, model):
    images = calibrate.select(split, 5, 0)
    table = calibrate.collect(model, images, (96, 64), "minmax")
    outputs = [run(model, letterbox(cv2.imread(path), (96, 64))[0], optimised=False) for path in images]
    for name in outputs[0]:
        assert table.ranges[name] == pytest.approx(max(np.abs(o[name]).max() for o in outputs), rel=1e-5)
    assert table.ranges["image"] == 255.0
    assert {"stem_relu", "block_4_add", "up_4_resize", "fuse_4_relu"} <= set(table.ranges)
    assert table.onnx_sha256 == files.sha256(model) and table.preprocessing == tables.PREPROCESSING
    assert [name for name, _ in table.images] == [f"{i:02}.png" for i in numbers(images)]


@pytest.mark.parametrize("method", tables.METHODS)
def test_table_is_bound_repeatable_and_independent_of_order(split, model, method, tmp_path):
    images = calibrate.select(split, 6, 0)
    table = calibrate.collect(model, images, (96, 64), method)
    again = calibrate.collect(model, images[::-1], (96, 64), method)
    assert again.ranges == table.ranges and tables.data_hash(again.images) == tables.data_hash(table.images)
    largest = calibrate.collect(model, images, (96, 64), "minmax").ranges
    assert all(0 < table.ranges[name] <= largest[name] * (1 + 1e-6) for name in largest)
    tables.write(str(tmp_path / "table.json"), table)
    assert tables.read(str(tmp_path / "table.json")) == table


def slow_error(values, limit):
    step = limit / (calibrate.LEVELS - 1)
    return float(np.square(values - np.minimum(np.rint(values / step), calibrate.LEVELS - 1) * step).sum())


def test_mse_is_about_the_best_limit():
    values = np.abs(np.random.default_rng(0).laplace(0, 1, 200000))
    histogram = calibrate._histogram(values, values.max())
    chosen = calibrate._mse(histogram) * values.max() / calibrate.BINS
    best = min(slow_error(values, limit) for limit in np.linspace(values.max() / 16, values.max(), 60))
    assert slow_error(values, chosen) < best * 1.05


def test_percentile_leaves_out_its_share():
    values = np.concatenate([np.linspace(0.1, 1, 99995), np.full(5, 100.0)])
    histogram = calibrate._histogram(values, 100.0)
    assert calibrate._percentile(histogram) * 100.0 / calibrate.BINS == pytest.approx(1, abs=0.06)


def test_entropy_drops_a_far_outlier_and_keeps_a_full_range():
    random = np.random.default_rng(0)
    outlier = np.append(np.abs(random.normal(0, 1, 100000)), 60.0)
    assert calibrate._entropy(calibrate._histogram(outlier, 60.0)) * 60.0 / calibrate.BINS < 10
    flat = random.uniform(0, 1, 200000)
    assert calibrate._entropy(calibrate._histogram(flat, flat.max())) > 0.9 * calibrate.BINS


def test_a_tensor_that_is_always_zero(model):
    for choose in (calibrate._mse, calibrate._entropy, calibrate._percentile):
        assert 1 <= choose(np.zeros(calibrate.BINS, np.int64)) <= calibrate.BINS
    assert calibrate._histogram(np.zeros(4), 0.0) == 0


@pytest.mark.parametrize("method", ["minmax", "percentile"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_gives_no_numbers_is_refused(split, tmp_path, method, value):
    net = detector()
    net.weights["down_8.weight"][0, 0, 0, 0] = value
    broken = net.save(tmp_path / "broken.onnx")
    with refused(BadInput, where="broken.onnx", names="tensor "):
        calibrate.collect(broken, calibrate.select(split, 2, 0), (96, 64), method)


def test_collect_refuses(split, model, tmp_path):
    images = calibrate.select(split, 2, 0)
    with refused(UsageError, names="'guess'"):
        calibrate.collect(model, images, (96, 64), "guess")
    with refused(BadInput, names="8 or more"):
        calibrate.collect(model, [], (96, 64), "mse")
    (tmp_path / "text.jpg").write_text("no picture")
    with refused(BadInput, where="text.jpg"):
        calibrate.collect(model, [str(tmp_path / "text.jpg")], (96, 64), "minmax")
    with refused(BadInput, where="missing.jpg"):
        calibrate.collect(model, [str(tmp_path / "missing.jpg")], (96, 64), "minmax")


def call(*arguments):
    return cli.cli.main(["calibrate", *arguments], "jetmask", cli.VERBS)


def test_command_writes_the_table_and_nvidias_cache(split, model, tmp_path, capsys):
    out, cache = str(tmp_path / "net.json"), str(tmp_path / "net.cache")
    assert (
        call(
            "--onnx",
            model,
            "--data",
            split,
            "--out",
            out,
            "--count",
            "9",
            "--input-wh",
            "96x64",
            "--cache",
            cache,
            "--tensorrt",
            "8.2.1.8",
            "--json",
        )
        == 0
    )
    printed = capsys.readouterr()
    assert "looking at photographs 60/60" in printed.err and "calibrating 18/18" in printed.err
    said = json.loads(printed.out)
    table = tables.read(out)
    assert said["images"] == 9 == len(table.images) and said["method"] == "percentile"
    tables.require(table, out, onnx_sha256=files.sha256(model))
    back = tables.read_cache(cache)
    assert back.version == "8201" and back.algorithm == "EntropyCalibration2"
    assert 127 * back.scales["stem_relu"] == pytest.approx(table.ranges["stem_relu"], rel=1e-6)


@pytest.mark.parametrize(
    "change, code, words",
    [
        ({"--data": "missing"}, 3, "the data folder does not exist"),
        ({"--onnx": "missing.onnx"}, 3, "missing.onnx"),
        ({"--method": "guess"}, 2, "invalid choice: 'guess'"),
        ({"--input-wh": "100x100"}, 2, "not an input size"),
        ({"--input-wh": "²x32"}, 2, "not an input size"),
        ({"--seed": "-1"}, 2, "a seed below zero"),
        ({"--out": "{folder}/no/net.json"}, 3, "no such folder"),
        ({"--out": "{folder}"}, 3, "this is a folder"),
        ({"--out": "/dev/null"}, 3, "no plain file"),
        ({"--out": "{folder}/a.json", "--cache": "{folder}/a.json"}, 2, "overwrite the table"),
        ({"--cache": "{folder}/no/net.cache"}, 3, "no such folder"),
        ({"--tensorrt": "eight"}, 2, "not a version"),
    ],
)
def test_command_says_what_is_wrong(split, model, tmp_path, capsys, change, code, words):
    given = {
        "--onnx": model,
        "--data": split,
        "--out": str(tmp_path / "net.json"),
        "--count": "2",
        "--input-wh": "96x64",
        **{option: text.format(folder=tmp_path) for option, text in change.items()},
    }
    assert call(*[part for pair in given.items() for part in pair]) == code
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert "calibrating" not in said and "looking" not in said  # known before the first photograph is read
    assert not (tmp_path / "net.json").exists()


def test_the_zeros_of_a_relu_do_not_decide_the_range():
    """Int8 holds a zero exactly: a tensor that is mostly zero gets the range of the rest, by every method but mse."""
    random = np.random.default_rng(3)
    values = np.minimum(np.abs(random.laplace(0, 1, 20000)), 12.0)
    histogram = calibrate._histogram(values, 12.0)
    histogram[0] = 0
    for choose in (calibrate._entropy, calibrate._percentile):
        whole = choose(histogram)
        assert whole < calibrate.BINS
        for zeros in (10**3, 10**6, 10**9):
            more = histogram.copy()
            more[0] += zeros
            assert choose(more) == whole, (choose.__name__, zeros)


def slow_entropy(counts):
    """Kullback-Leibler by the definition, one candidate and one level at a time."""
    counts = counts.astype(float)
    counts[0] = 0
    best, least = None, np.inf
    for kept in range(calibrate.LEVELS, calibrate.BINS + 1, 8):
        reference = [*counts[: kept - 1], counts[kept - 1] + counts[kept:].sum()]
        approximation = np.zeros(kept)
        for level in range(calibrate.LEVELS):
            members = [i for i in range(kept) if i * calibrate.LEVELS // kept == level and counts[i]]
            for i in members:
                approximation[i] = sum(counts[m] for m in members) / len(members)
        if not approximation.sum():
            continue
        p, q = np.array(reference) / sum(reference), approximation / approximation.sum()
        here = sum(a * np.log(a / (b or 1e-12 * a)) for a, b in zip(p, q) if a)
        if here < least:
            best, least = kept, here
    return best


@pytest.mark.parametrize("seed", range(2))
def test_entropy_is_that_of_its_definition(seed, monkeypatch):
    monkeypatch.setattr(calibrate, "BINS", 256)
    monkeypatch.setattr(calibrate, "LEVELS", 32)
    values = np.abs(np.random.default_rng(seed).laplace(0, 1, 3000))
    histogram = calibrate._histogram(values, values.max())
    assert calibrate._entropy(histogram) == slow_entropy(histogram)


def test_a_histogram_counts_each_value_in_its_bin():
    top = calibrate.BINS
    counts = calibrate._histogram(np.array([[0.0, -0.5], [1.0, 1.0 - 1e-6], [-1.0, 0.25], [0.5, 0.0]]), 1.0)
    assert counts.sum() == 8 and len(counts) == top
    assert {int(i): int(counts[i]) for i in np.flatnonzero(counts)} == {0: 2, top // 4: 1, top // 2: 2, top - 1: 3}


def test_percentile_is_counted_exactly(monkeypatch):
    monkeypatch.setattr(calibrate, "PERCENTILE", 90)
    counts = np.zeros(calibrate.BINS, np.int64)
    counts[[0, 10, 20, 30]] = 1000, 50, 40, 10  # 90 % of what is not zero ends at bin 20
    assert calibrate._percentile(counts) == 21
    counts[30] += 1
    assert calibrate._percentile(counts) == 31


def test_mse_is_the_least_of_all_that_it_may_choose():
    values = np.abs(np.random.default_rng(1).normal(0, 1, 20000))
    counts = calibrate._histogram(values, values.max())
    centres = np.arange(calibrate.BINS) + 0.5
    kept = range(calibrate.LEVELS, calibrate.BINS + 1, 8)
    costs = [
        float((counts * (centres - np.minimum(np.rint(centres * 127 / k), 127) * k / 127) ** 2).sum()) for k in kept
    ]
    assert calibrate._mse(counts) == kept[int(np.argmin(costs))]


def test_the_image_has_the_range_that_a_picture_can_have(split, model):
    table = calibrate.collect(model, calibrate.select(split, 3, seed=0), (64, 32), "mse")
    assert table.ranges["image"] == 255.0


@pytest.mark.parametrize("text", ["416", "416x", "32x31", "0x32", "31x32", "32x-32", "32x32x32", "a x b"])
def test_sizes_that_are_none(text):
    with pytest.raises(UsageError):
        calibrate.size(text)


def test_sizes():
    assert calibrate.size("32x64") == (32, 64) and calibrate.size("416X256") == (416, 256)


def test_the_groups_of_a_selection():
    """A face's size is the root of its area, relative to the longer side; the median of a picture's."""
    photo = average_precision.Truth(1, "", (200, 100), np.array([[0, 0, 10, 40.0], [0, 0, 30, 30], [5, 5, 95, 95]]),
                                    np.zeros(3, int), np.zeros((0, 4)), "")  # fmt: skip
    assert calibrate._median_face(photo) == pytest.approx(30 / 200)
    assert calibrate._median_face(photo._replace(xyxy=np.zeros((0, 4)))) == 0
    assert calibrate._thirds(np.arange(9.0)).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_one_of_each_group_before_a_second_of_any(split):
    """The first nine of a split with many kinds are nine different kinds."""
    truths = {t.file: t for t in average_precision.load_split(split)}
    files_ = list(truths)
    bright = dict(zip(files_, calibrate._thirds(np.array([cv2.imread(f).mean() for f in files_]))))
    sizes = np.array([calibrate._median_face(t) for t in truths.values()])
    large = dict(
        zip(files_, np.where(sizes > 0, 1 + calibrate._thirds(np.where(sizes > 0, sizes, np.median(sizes))), 0))
    )
    kinds = {f: (t.source, bright[f], large[f]) for f, t in truths.items()}
    every = len(set(kinds.values()))
    picked = calibrate.select(split, every, seed=1)
    assert len({kinds[f] for f in picked}) == every
