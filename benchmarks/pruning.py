"""What pruning brings: AP, size and latency by ratio and importance, beside magnitude pruning.

    python -m benchmarks.pruning --model pipeline/weights/s.keras --data DATA [--tune l1 --epochs 4 --runs DIR]
    python -m benchmarks.pruning ... --beside pruned:s50=runs/s50/best.keras trained:n=runs/n/best.keras [--add]

Every latency is the median of turns that all networks of the run take in a circle, and stands beside the unpruned
network of that same run as a ratio. Writes benchmarks/results/pruning.csv and pruning.svg. Predicted Nano latency is
predicted (pipeline/latency/roofline.py), not measured.
"""

import argparse
import csv
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import magnitude
from benchmarks.machine import describe
from jetson import files
from jetson.engine import calibration as tables
from jetson.engine.litert import LiteRtEngine
from jetson.engine.onnx import OnnxEngine
from jetson.errors import BadInput, UsageError
from pipeline import config as configuration
from pipeline.export import litert, onnx
from pipeline.latency import cli as predict
from pipeline.models.detector import load
from pipeline.pruning import cli as prune_cli
from pipeline.pruning import cost, importance, pruner
from pipeline.pruning.schedule import Pruning, Settings
from pipeline.quantization import calibrate, quantize
from pipeline.training import train

RESULTS = Path(__file__).parent / "results"
RATIOS = (0.25, 0.5, 0.65, 0.8)
SPARSITIES = (0.5, 0.8)
BESIDE = ("pruned", "trained")
SIZES = ((320, 320), (416, 416), (512, 512), (640, 640))  # finished networks are compared by the mean over these
ENGINES = ("ort_fp32", "ort_int8", "litert_fp32", "litert_int8")
FIELDS = (
    "kind",
    "importance",
    "ratio",
    "macs",
    "macs_share",
    "parameters",
    "onnx_bytes",
    "onnx_bytes_zlib",
    *(name + suffix for name in ENGINES for suffix in ("_ms", "_ratio")),
    "nano_fp16_predicted_ms",
    "map50_untuned",
    "map50_tuned",
    "map50_sizes",
    "tuning_images",
    "tuning_minutes",
    "input_wh",
    "split",
    "model_sha256",
    "machine",
    "load",
)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Entry:
    """One network of the run: its row of the CSV, and the engines that are timed."""

    def __init__(self, kind: Any, importance_: Any, ratio: Any, model: Any, wh: Any) -> None:
        self.model = model
        self.engines: dict[str, Any] = {}
        self.row = {
            "kind": kind,
            "importance": importance_,
            "ratio": ratio,
            "macs": int(cost.Macs(model, wh)({})),
            "parameters": model.count_params(),
            "input_wh": f"{wh[0]}x{wh[1]}",
        }

    def open(self, folder: Path | str, wh: Any, images: Any, with_litert: Any) -> None:
        """Export every form and open its engine; one thread each."""
        path = str(Path(folder) / "model.onnx")
        onnx.export(self.model, path)
        table = calibrate.collect(path, images, wh, "minmax")
        tables.write(str(Path(folder) / "table.json"), table)
        quantize.int8_cpu(path, table, str(Path(folder) / "int8.onnx"))
        self.row.update(
            onnx_bytes=os.path.getsize(path),
            onnx_bytes_zlib=magnitude.compressed_bytes(path),
            nano_fp16_predicted_ms=round(predict.predict_ms(path, "nano", "fp16", wh).latency_ms, 2),
        )
        self.engines = {
            "ort_fp32": OnnxEngine(path, wh, 1),
            "ort_int8": OnnxEngine(str(Path(folder) / "int8.onnx"), wh, 1),
        }
        for precision in ("fp32", "int8") if with_litert else ():
            target = f"{folder}/{precision}.tflite"
            litert.convert(self.model, wh, precision, images, target)
            self.engines["litert_" + precision] = LiteRtEngine(target, wh, 1)


def time_in_turns(entries: Any, turns: Any = 60) -> None:
    """Median ms of each engine of each entry; one call each in a circle, so that all see the same machine."""
    calls: list[tuple[Any, str, Any, list[float]]] = [
        (entry, name, engine, []) for entry in entries for name, engine in entry.engines.items()
    ]
    rng = np.random.default_rng(0)
    for _, _, engine, _ in calls:
        engine.input[...] = rng.integers(0, 256, engine.input.shape)
    for turn in range(turns + 5):
        for place in rng.permutation(len(calls)):
            _, _, engine, times = calls[place]
            start = time.perf_counter()
            engine.infer()
            if turn >= 5:
                times.append((time.perf_counter() - start) * 1e3)
    for entry, name, _, times in calls:
        entry.row[name + "_ms"] = round(float(np.median(times)), 3)
    for entry in entries:
        for name in entry.engines:
            entry.row[name + "_ratio"] = round(entry.row[name + "_ms"] / entries[0].row[name + "_ms"], 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a trained .keras file")
    parser.add_argument("--data", default=os.environ.get("JETMASK_DATA"), help="folder with train/ and val/")
    parser.add_argument("--ratios", type=float, nargs="*", default=RATIOS, help="shares of the multiply-adds removed")
    parser.add_argument("--importance", nargs="*", default=importance.KINDS)
    parser.add_argument("--timed", nargs="*", default=importance.KINDS, help="importances whose networks are timed")
    parser.add_argument("--litert", action="store_true", help="time LiteRT too")
    parser.add_argument("--tune", nargs="*", default=(), help="importances that are fine-tuned")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], help="config of fine-tuning, KEY=VALUE")
    parser.add_argument("--distill", type=float, default=0.0)
    parser.add_argument("--runs", default="runs/pruning", help="folder of fine-tunings; what is there is not redone")
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="KIND:NAME=FILE.keras",
        help="finished networks in the same run; KIND is pruned or trained",
    )
    parser.add_argument(
        "--add",
        action="store_true",
        help="measure --beside alone, against the unpruned network, and put the rows into the table that is there",
    )
    parser.add_argument("--input-wh", default="416x256")
    parser.add_argument("--out", default=str(RESULTS / "pruning.csv"))
    args = parser.parse_args()
    wh = predict.parse_wh(args.input_wh) or (320, 320)
    config = configuration.load(
        None, [*prune_cli.TUNE, f"train.val_wh=[{wh[0]}, {wh[1]}]", f"train.epochs={args.epochs}", *args.set]
    )
    config.data.root = args.data
    kept = rows_there(args) if args.add else []
    entries = measure(args, wh, config)
    with tempfile.TemporaryDirectory(prefix="jetmask-pruning-") as folder:
        images = calibrate.select(str(Path(args.data) / "train"), 16, 1)
        timed = [e for e in entries if e.row["kind"] != "channels" or e.row["importance"] in args.timed]
        for number, entry in enumerate(timed):
            say(f"exporting {entry.row['kind']} {entry.row['importance']} {entry.row['ratio']}")
            own = f"{folder}/{number}"
            os.mkdir(own)
            entry.open(own, wh, images, args.litert)
        time_in_turns(timed)
    write(entries, args, config, kept)


def measure(args: argparse.Namespace, wh: Any, config: Any) -> Any:
    """The networks with their AP: unpruned, pruned by each importance and ratio, and with magnitude pruning."""
    runs = Path(args.runs)
    original = load(args.model)
    first = Entry("unpruned", "", 0, original, wh)
    entries = [first]

    def pruning(kind: Any, folder: Path | str) -> Any:
        settings = Settings(importance=kind, input_wh=wh, distill=args.distill)
        return Pruning(args.model, folder, config, settings, say=say)

    judge = pruning("l1", runs / "untuned")
    weights = judge.original.get_weights()
    first.row["map50_untuned"] = round(judge.baseline()["map50"], 2)
    first.row["map50_sizes"] = mean_over_sizes(original, args, config) if args.beside else ""
    say(f"unpruned: mAP50 {first.row['map50_untuned']:.1f}")
    for kind in () if args.add else args.importance:
        scored = pruning(kind, runs / ("scores-" + kind)).scores(original)
        for ratio in args.ratios:
            plan = pruner.plan_global(original, 1 - ratio, scored, wh)
            entry = Entry("channels", kind, ratio, pruner.prune(original, plan), wh)
            # The same outputs as the pruned network's, without compiling each anew.
            pruner.silence(judge.original, plan)
            entry.row["map50_untuned"] = round(judge.map50(judge.original), 2)
            judge.original.set_weights(weights)
            if kind in args.tune:
                result = pruning(kind, runs / (f"{kind}-{ratio:g}")).rounds(1 - ratio)
                entry.row.update(
                    map50_tuned=round(result["map50"], 2),
                    tuning_minutes=result["minutes"],
                    tuning_images=result["epochs"] * config.train.images_per_epoch,
                )
            entries.append(entry)
            say(f"{kind} {ratio:g}: mAP50 {entry.row['map50_untuned']}, tuned {entry.row.get('map50_tuned')}")
    for kind, name, path in beside(args.beside):
        model = load(path)
        entry = Entry(kind, name, 0, model, wh)
        entry.row.update(
            ratio=round(1 - entry.row["macs"] / first.row["macs"], 4),
            map50_tuned=round(judge.map50(model), 2),
            **training_of(path),
            map50_sizes=mean_over_sizes(model, args, config),
        )
        entries.append(entry)
        say(f"{kind} {name}: mAP50 {entry.row['map50_tuned']}, {entry.row['map50_sizes']} over sizes")
    for sparsity in () if args.add else SPARSITIES:
        sparse = magnitude.sparsify(load(args.model), sparsity)
        entry = Entry("magnitude", "l1", sparsity, sparse, wh)
        entry.row["map50_untuned"] = round(judge.map50(sparse), 2)
        entries.append(entry)
        say(f"magnitude {sparsity:g}: mAP50 {entry.row['map50_untuned']}")
    for entry in entries:
        entry.row["macs_share"] = round(entry.row["macs"] / first.row["macs"], 4)
    return entries


def mean_over_sizes(model: Any, args: argparse.Namespace, config: Any) -> Any:
    """Mean mAP50 on val/ over SIZES: one size alone moves by a point from one epoch to the next."""
    split = Path(args.data) / config.data.val
    return round(sum(train.validate(model, split, wh)["map50"] for wh in SIZES) / len(SIZES), 2)


def beside(texts: Any) -> Any:
    """[(kind, name, path)] of --beside."""
    found = []
    for text in texts:
        kind, _, rest = text.partition(":")
        name, _, path = rest.partition("=")
        if kind not in BESIDE or not name or not Path(path).is_file():
            raise UsageError(
                f"not a network to measure: {text!r}",
                where="--beside",
                expected="pruned:NAME=FILE.keras or trained:NAME=FILE.keras, and the file there",
            )
        found.append((kind, name, path))
    return found


def training_of(path: Path | str) -> dict[str, Any]:
    """How many images a training in the file's folder saw, in how many minutes; nothing where its log is not there."""
    folder = Path(path).parent
    for run in (folder, *sorted(folder.glob("*/train"))):  # a pruning in rounds has a training in each
        if not (run / "log.csv").exists():
            continue
        settings = files.read_json(str(run / "config.json"))
        with open(run / "log.csv", newline="") as handle:
            epochs = list(csv.DictReader(handle))
        return {
            "tuning_images": len(epochs) * settings["train"]["images_per_epoch"],
            "tuning_minutes": float(epochs[-1]["minutes"]),
        }
    return {}


def rows_there(args: argparse.Namespace) -> Any:
    """The table's rows that --add leaves as they are; BadInput where they are of another model."""
    with open(args.out, newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["kind"] not in BESIDE]
    if not rows or rows[0]["model_sha256"] != files.sha256(args.model):
        raise BadInput(
            "the table is of another model",
            where=args.out,
            expected=f"rows of {args.model}",
            remedy="measure all of it anew: leave --add out",
        )
    return rows


def write(entries: Any, args: argparse.Namespace, config: Any, kept: Any) -> None:
    """The CSV and its plot."""
    if args.add:
        kept[0]["map50_sizes"] = entries[0].row["map50_sizes"]
        entries = entries[1:]  # the unpruned network is in the table
    common = {
        "split": config.data.val,
        "model_sha256": files.sha256(args.model),
        "load": f"{os.getloadavg()[0]:.1f}",
        "machine": describe("keras", "onnxruntime", "ai-edge-litert"),
    }
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    rows = kept + [{**entry.row, **common} for entry in entries]
    writer.writerows(rows)
    files.write_text(args.out, text.getvalue())
    if not args.add:
        plot(rows, os.path.splitext(args.out)[0] + ".svg")


def plot(rows: list[dict[str, Any]], path: Path | str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    whole = rows[0]
    kinds = list(dict.fromkeys(row["importance"] for row in rows if row["kind"] == "channels"))
    for number, kind in enumerate(kinds):
        own = [whole] + [row for row in rows if row["kind"] == "channels" and row["importance"] == kind]
        colour = f"C{number}"
        axes.plot(
            [r["macs_share"] for r in own],
            [r["map50_untuned"] for r in own],
            "--o",
            color=colour,
            linewidth=1,
            markersize=3,
            label=kind,
        )
        tuned = [r for r in own if r.get("map50_tuned") is not None]
        axes.plot(
            [r["macs_share"] for r in tuned],
            [r["map50_tuned"] for r in tuned],
            "-s",
            color=colour,
            markersize=4,
            label=kind + ", fine-tuned" if tuned else None,
        )
    axes.set(xlabel="multiply-adds left, as a share", ylabel=f"val mAP50 at {whole['input_wh']}, points")
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    with files.aside(str(path)) as aside:
        figure.savefig(aside, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
