"""Make what ships from finished trainings: jetson/models (the bundle), pipeline/weights, results/detector.csv.

    python -m benchmarks.ship --data DIR s=runs/s/last.keras [n=runs/n/last.keras …]

Models of the bundle that are not named stay as they are: their files, their AP, their lines in detector.csv. With no
model named, only the model card is written again, from the tables of results/ as they are then.

The threshold is chosen on val/ and on the third of negatives/ that training never sees; test/ is only reported, at all
sizes. Of the sizes those ship that somebody would choose on the front (benchmarks/front.py): SHIPPED.
"""

import argparse
import contextlib
import csv
import io
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import false_alarms, machine, model_card
from benchmarks.readme_table import read
from jetson import files, logs
from jetson.bundle import manifest
from jetson.engine import calibration as tables
from jetson.errors import QualityGate
from jetson.evaluation import average_precision
from jetson.inference.detector import open_detector
from pipeline.bundle import variants
from pipeline.bundle import writer as bundle
from pipeline.evaluation import error_analysis, evaluate, gate
from pipeline.models.decode import DECODE
from pipeline.quantization import calibrate, sensitivity
from pipeline.training.dataset import held_out

ROOT = Path(__file__).parent.parent
BUNDLE = ROOT / "jetson" / "models"
WEIGHTS = ROOT / "pipeline" / "weights"
RESULTS = ROOT / "benchmarks" / "results" / "detector.csv"
COLUMNS = ("model", "precision", "runtime", "input_wh", "split", "images", "map50", "with_mask", "without_mask",
           "mask_worn_incorrect", "incorrect_boxes", "small", "medium", "large", "macs", "bytes",
           "machine")  # fmt: skip
CALIBRATION_IMAGES = 64
METHODS = ("percentile", "mse", "minmax")
CAMERA_WH = (416, 256)
ALL_WHS = variants.CAMERA_WHS + variants.SQUARE_WHS
# Predicted on a Nano in FP16, `n` is on the front nowhere; it ships for processors, where multiply-adds are the time.
# `s` at 640x640 would be slower than `m` at 640x384 and less accurate.
SHIPPED: dict[str, tuple[tuple[int, int], ...]] = {
    "s": ((320, 192), (416, 256), (640, 384)),
    "m": ((640, 384),),
    "sp": ((320, 192), (416, 256), (640, 384)),
    "n": ((320, 192),),
}
# Files that no target needs yet (float16 with types), or that has time for FP16 (`m` on GPUs with INT8): so the bundle
# stays under 12 MB.
LEFT_OUT = {"m": ("fp16", "int8"), "n": ("fp16",)}
ORDER = {name: place for place, name in enumerate(SHIPPED)}
Say = Callable[[str], None]


def main(argv: Sequence[str] | None = None) -> None:
    """Make, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME=FILE.keras")
    parser.add_argument("--data", required=True)
    parser.add_argument("--note", default="", help="a sentence on the training for the model card")
    args = parser.parse_args(argv)
    logs.start()
    paths = dict(text.split("=", 1) for text in args.models)
    ship(paths, Path(args.data), args.note, variants.stderr)


def ship(paths: Mapping[str, str], data: Path, note: str, say: Say) -> None:
    """paths: {model: its .keras file}, the first one's variant is the bundle's default."""
    images = calibrate.select(str(data / "train"), CALIBRATION_IMAGES, 1)
    sizes: dict[str, Sequence[tuple[int, int]]] = {name: SHIPPED.get(name, ALL_WHS) for name in paths}
    with tempfile.TemporaryDirectory() as aside:
        stay = kept(BUNDLE, Path(aside) / "kept", paths)
        sizes.update({m.name: SHIPPED.get(m.name, ALL_WHS) for m, _ in stay.models})
        made = []
        for name, path in paths.items():
            made.append(calibrated(name, path, str(Path(aside) / name), images, data, sizes[name], say))
            (ROOT / "pipeline" / "weights").mkdir(exist_ok=True)
            target = ROOT / "pipeline" / "weights" / f"{name}.keras"
            if Path(path).resolve() != target.resolve():
                shutil.copyfile(path, target)
        tests, vals = dict(stay.figures["test"]), dict(stay.figures["val"])
        if made:
            trial = str(Path(aside) / "trial")
            whole = [entry for m, k in made for entry in variants.entries(m, k, ALL_WHS)]
            bundle.write(trial, {m.name: m.kinds for m, _ in made}, whole, {m.name: m.table for m, _ in made}, DECODE)
            tests = {**measured(trial, data / "test", "test", say), **tests}
            vals = {**measured(trial, data / "val", "val", say), **vals}
        # The score is the first model's: it is the default, and it is chosen again only with it.
        models = sorted(made + stay.models, key=lambda pair: ORDER.get(pair[0].name, len(ORDER)))
        first = models[0][0].name
        score = threshold(trial, f"{first}-416x416-fp32", data, say) if first in paths else stay.score
        say(f"threshold {score:.2f}")
        all_paths = {m.name: paths.get(m.name, f"{m.name}.keras") for m, _ in models}
        digest, results = variants.write_bundle(
            BUNDLE,
            models,
            sizes,
            data / "val",
            "val",
            dict(DECODE, score=score),
            lambda results: model_card.card(all_paths, vals, tests, score, note),
            {"trained_by": "the jetmask authors"},
            f"{first}-416x256-fp32",
            only=lambda variant: variant.model in paths,
            say=say,
            known=stay.ap,
            never=stay.lost,
        )
        lost = variants.lost_too_much(results)
    rows = [row(r, "test") for r in tests.values() if r["model"] in paths]
    rows += [row(r, "val") for name, r in vals.items() if r["model"] in paths and name not in lost]
    rows += stay.rows
    rows.sort(key=lambda line: (line["split"] != "test", ORDER.get(line["model"], len(ORDER))))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(str(RESULTS), text.getvalue())
    say(f"{digest}\n{RESULTS}")


class Kept(NamedTuple):
    """Models that stay as they are. models: [(Made, keras model)]; ap: {(variant, runtime): manifest entry}; lost:
    variants that the bundle does not have, of its sizes; rows: their lines of detector.csv; figures: {"test", "val":
    {variant: what the model card needs of evaluate.measure's result}}; score: the bundle's threshold."""

    models: list[tuple[variants.Made, Any]]
    ap: dict[tuple[str, str], dict[str, Any]]
    lost: set[str]
    rows: list[dict[str, str]]
    figures: dict[str, dict[str, dict[str, Any]]]
    score: float


def kept(folder: Path, aside: Path, made_anew: Mapping[str, str]) -> Kept:
    """What a bundle holds of models that are not `made_anew`; its files are copied to `aside`, since it is replaced."""
    from pipeline.models.detector import load

    if not (folder / "manifest.json").exists():
        return Kept([], {}, set(), [], {"test": {}, "val": {}}, DECODE["score"])
    shutil.copytree(folder, aside)
    contents = manifest.load(str(aside))
    names = list(dict.fromkeys(v.model for v in contents.variants if v.model not in made_anew))
    there = {v.name for v in contents.variants}
    stay = Kept([], {}, set(), [], {"test": {}, "val": {}}, float(contents.decode["score"]))
    for name in names:
        files_of = {
            kind: str(aside / "models" / pattern.format(name))
            for kind, pattern in bundle.KINDS.items()
            if kind not in LEFT_OUT.get(name, ())
        }
        table = str(aside / "calibration" / f"{name}.json")
        stay.models.append((variants.Made(name, files_of, table), load(str(WEIGHTS / f"{name}.keras"))))
        whs = SHIPPED.get(name, ALL_WHS)
        stay.lost.update(e["name"] for e in variants.entries(*stay.models[-1], whs) if e["name"] not in there)
    for variant in contents.variants:
        if variant.model in names:
            stay.ap.update({(variant.name, runtime): ap for runtime, ap in variant.ap.items() if ap})
    for line in read("detector"):
        if line["model"] in names:
            stay.rows.append(line)
            by_size = {key: float(line[key]) if line[key] else None for key in ("small", "medium", "large")}
            name = f"{line['model']}-{line['input_wh']}-{line['precision']}"
            figures = {
                "model": line["model"],
                "map50": float(line["map50"]),
                "macs": int(line["macs"]),
                "by_size": by_size,
            }
            stay.figures[line["split"]][name] = figures
    return stay


def measured(folder: str, split: Path, name: str, say: Say) -> dict[str, dict[str, Any]]:
    """Figures of the float32 and int8-cpu forms of a bundle at all of its sizes: {variant: evaluate.measure's result},
    with `macs`, `bytes` and `model`."""
    found = variants.measure(
        folder, split, name, lambda v: "onnxruntime" in v.runtimes and v.precision != "fp16", 1, say
    )
    return {result["variant"]: result for result in found}


def calibrated(
    name: str, path: str, folder: str, images: Sequence[str], data: Path, whs: Sequence[tuple[int, int]], say: Say
) -> tuple[variants.Made, Any]:
    """variants.make, with for each int8 form the first calibration method that holds the gate on val/: at every size of
    `whs` for int8-cpu, at CAMERA_WH for the one of TensorRT, and its table. Where none holds, the first method, and in
    int8-cpu as few layers in float as hold the gate at the largest size.

    The one for TensorRT is simulated by ONNX Runtime: no GPU is at hand when a bundle is made."""
    truths = average_precision.load_split(str(data / "val"))
    wanted = {"int8": [CAMERA_WH], "int8-cpu": list(whs)}
    plain: dict[tuple[int, int], Any] = {}
    chosen: dict[str, variants.Made] = {}
    tried = []
    for method in METHODS:
        made, model = variants.make(name, path, str(Path(folder) / method), images, CAMERA_WH, (), say, method)
        tried.append(made)
        for kind in [kind for kind in wanted if kind not in chosen]:
            for wh in wanted[kind]:
                if wh not in plain:
                    plain[wh] = gate.of_onnx(made.kinds["fp32"], truths, wh)
                verdict = gate.compare(truths, plain[wh], gate.of_onnx(made.kinds[kind], truths, wh), resamples=200)
                say(f"{name}: {kind} at {wh[0]}x{wh[1]}, calibrated by {method}: {verdict}")
                if not verdict.passed:
                    break
            else:
                chosen[kind] = made
        if len(chosen) == len(wanted):
            break
    if "int8-cpu" not in chosen and "int8-cpu" not in LEFT_OUT.get(name, ()):
        made, wh = tried[0], max(whs, key=math.prod)
        table = tables.read(str(Path(folder) / METHODS[0] / (name + ".json")))
        say(f"{name}: int8-cpu with layers in float, at {wh[0]}x{wh[1]}")
        # Where no mix holds it either, the gate leaves the variant out later.
        with contextlib.suppress(QualityGate):
            sensitivity.mix(
                made.kinds["fp32"], made.kinds["int8-cpu"], "int8-cpu", table, images[:8], truths, wh, progress=say
            )
    one, other = (chosen.get(kind, tried[0]) for kind in wanted)
    kinds = {**one.kinds, "int8-cpu": other.kinds["int8-cpu"]}
    return one._replace(kinds={kind: kinds[kind] for kind in kinds if kind not in LEFT_OUT.get(name, ())}), model


def row(result: Mapping[str, Any], split: str) -> dict[str, Any]:
    """A line of results/detector.csv from evaluate.measure's result."""

    def points(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    per_class, sizes = result["three_class"]["per_class"], result["by_size"]
    return {
        "model": result["model"],
        "precision": result["precision"],
        "runtime": result["runtime"],
        "input_wh": "{}x{}".format(*result["input_wh"]),
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
        "macs": result["macs"],
        "bytes": result["bytes"],
        "machine": machine.describe("onnxruntime"),
    }


def threshold(bundle_dir: str, variant: str, data: Path, say: Say) -> float:
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


if __name__ == "__main__":
    main()
