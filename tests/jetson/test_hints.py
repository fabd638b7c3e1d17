"""What somebody may have meant."""

import pytest

from jetson import cli, hints

VARIANTS = ["m-416x256-fp32", "s-320x192-fp32", "s-416x256-fp16", "s-416x256-fp32", "sp-416x256-fp32"]
TARGETS = ["nano", "tx2", "xavier-nx", "orin-nano", "this-machine"]


@pytest.mark.parametrize(
    "word, names, found",
    [
        ("s-416", VARIANTS, ["s-416x256-fp16", "s-416x256-fp32"]),
        ("S-416X256", VARIANTS, ["s-416x256-fp16", "s-416x256-fp32"]),
        ("s fp16", VARIANTS, ["s-416x256-fp16"]),
        ("sp", VARIANTS, ["sp-416x256-fp32"]),
        ("jetson nano", TARGETS, ["nano"]),
        ("Jetson Orin Nano", TARGETS, ["orin-nano"]),
        ("xavier", TARGETS, ["xavier-nx"]),
        ("nanno", TARGETS, ["nano"]),
        ("", TARGETS, []),
        ("zzz", TARGETS, []),
    ],
)
def test_names_by_beginning_by_parts_and_by_letters(word, names, found):
    assert hints.nearest(word, names) == found


def test_what_others_say_comes_first_and_lists_stay_short():
    assert hints.nearest("LR0", ["train.learning_rate"], {"lr0": "train.learning_rate"}) == ["train.learning_rate"]
    assert hints.nearest("a", ["a1", "a2", "a3", "a4"]) == ["a1", "a2", "a3"]
    assert hints.listed("abc") == "one of a, b, c"
    assert hints.listed(str(n) for n in range(30)) == "one of 0, 1, 2, 3, 4, 5, 6, 7, … (30 in all)"
    assert hints.question([]) is None and hints.question(["a"], "`") == "did you mean `a`?"


@pytest.mark.parametrize(
    "word, names, found",
    [
        ("--imgsz", ["--data", "--input-wh"], ["--input-wh"]),
        ("--fp16", ["--precision"], ["--precision fp16"]),
        ("--saveEngine", ["--out"], ["--out"]),
        ("--imgsz", ["--data"], []),  # a verb without a size is not told of one
        ("--weights", ["--bundle", "--variant"], ["--bundle"]),
        ("--debug", [], ["-v"]),
        ("--iou", ["--out"], []),
        ("--opset", ["--verbose"], []),
        ("--source", ["--score"], []),
        ("--workers", ["--threads"], ["--threads"]),
        ("--epoch", ["--epochs", "--config"], ["--epochs"]),
        ("--wh", ["--input-wh"], ["--input-wh"]),
    ],
)
def test_options_of_others(word, names, found):
    assert hints.option(word, names) == found
    assert hints.option(word, names, {word: "own"}) == ["own"]


@pytest.mark.parametrize(
    "words, right",
    [
        (["--conf", "0.4"], "unknown option --conf"),  # not the beginning of --config
        (["--onnx=a.onnx"], "PATH stands without an option"),
        (["a", "out=b"], "options are written --out b"),
        (["a", "imgsz=640"], "unknown option imgsz= (did you mean --input-wh?)"),
        (["data=a.yaml"], "unknown option data= (PATH stands without an option)"),
    ],
)
def test_words_as_others_write_them(words, right, capsys):
    parser = cli._Parser(prog="p")
    parser.add_argument("paths", nargs="+", metavar="PATH")
    for name in ("--config", "--out", "--input-wh", "--set"):
        parser.add_argument(name)
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    assert right in capsys.readouterr().err
    assert parser.parse_args(["a", "--set", "out=1", "--in", "4x4"]).set == "out=1"
