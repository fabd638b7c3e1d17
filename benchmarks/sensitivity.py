"""What each part of the network can bear: channels dropped from one group at a time, and one layer at a time in int8.

    python -m benchmarks.sensitivity --model pipeline/weights/s.keras --bundle jetson/models --data DIR [--runs DIR]

Writes benchmarks/results/pruning_scan.csv (val mAP50 without fine-tuning; `jetmask prune --scan`, cached in --runs) and
int8_sensitivity.csv (signal-to-noise ratio at the worst head, as ONNX Runtime computes Q/DQ).
"""

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from jetson import files
from jetson.bundle import manifest
from jetson.engine import calibration as tables
from pipeline import config as configuration
from pipeline.latency.cli import parse_wh
from pipeline.pruning.schedule import Pruning, Settings
from pipeline.quantization import calibrate, sensitivity

RESULTS = Path(__file__).parent / "results"
IMAGES = 8  # enough for a ranking


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a trained .keras file")
    parser.add_argument("--bundle", required=True, help="a bundle with its calibration")
    parser.add_argument("--data", required=True, help="folder with train/ and val/")
    parser.add_argument("--importance", default="taylor")
    parser.add_argument("--input-wh", default="320x192")
    parser.add_argument("--runs", default="runs/sensitivity", help="folder of the scan; what is there is not redone")
    args = parser.parse_args(argv)
    wh = parse_wh(args.input_wh)
    common = {"input_wh": args.input_wh, "machine": describe("keras", "onnxruntime")}
    write("pruning_scan.csv", [{**row, **common} for row in scan(args, wh)])
    write("int8_sensitivity.csv", [{**row, **common} for row in one_by_one(args, wh)])


def scan(args: argparse.Namespace, wh: Any) -> Any:
    config = configuration.load(None, [f"train.val_wh=[{wh[0]}, {wh[1]}]"])
    config.data.root = args.data
    pruning = Pruning(args.model, args.runs, config, Settings(importance=args.importance, input_wh=wh), say=say)
    found = pruning.scan()
    common = {
        "importance": args.importance,
        "baseline": round(found["baseline"], 2),
        "split": config.data.val,
        "model_sha256": files.sha256(args.model),
    }
    for group, row in found["groups"].items():
        for dropped, ap in row.items():
            yield {"group": group, "dropped": dropped, "map50": round(ap, 2), **common}


def one_by_one(args: argparse.Namespace, wh: Any) -> Any:
    variant = next(v for v in manifest.load(args.bundle).variants if v.precision == "fp32")
    onnx = Path(args.bundle) / variant.file
    table = tables.read(str(Path(args.bundle) / "calibration" / (variant.model + ".json")))
    images = calibrate.select(str(Path(args.data) / "train"), IMAGES, 1)
    for layer in sensitivity.layers(str(onnx), table, images, wh, lambda done, of: say(f"layer {done} of {of}")):
        yield {
            "layer": layer.name,
            "snr_db": round(layer.snr_db, 2),
            "images": len(images),
            "onnx_sha256": files.sha256(str(onnx)),
        }


def write(name: str, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(str(RESULTS / name), text.getvalue())
    say("wrote " + name)


if __name__ == "__main__":
    main()
