"""Which int8 form ONNX Runtime's CPU provider runs fastest: time of one inference against float32, in one run.

    python -m benchmarks.int8_shape --onnx s.onnx --data TRAIN_DIR

Every form takes its turn in every round, and what is compared is the CPU time of the thread that computes (one thread),
so other work on the machine disturbs little. Rows of benchmarks/results/int8_shape.csv from the same machine are
replaced, others stay: with and without VNNI the answer differs.
"""

import argparse
import csv
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from jetson import files
from jetson.engine.onnx import OnnxEngine
from pipeline.graphs import edit as graphs
from pipeline.quantization import calibrate, quantize

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "int8_shape.csv")
FIELDS = [
    "form",
    "cpu_ms_p50",
    "cpu_ms_min",
    "times_faster_p50",
    "times_faster_min",
    "snr_db_worst_head",
    "bytes",
    "input_wh",
    "rounds",
    "onnx_sha256",
    "machine",
]


def forms(onnx: Any, table: Any, blobs: Any, folder: Path | str) -> Any:
    """{name: path} of the forms compared; the first is what the others are held against."""
    graph = graphs.read(onnx).graph
    made = {"fp32": onnx}

    def add(name: str, write: Any, *rest: Any, **more: Any) -> None:
        made[name] = write(onnx, *rest, os.path.join(folder, f"{len(made)}.onnx"), **more)

    add("fp16 typed", quantize.fp16)
    add("int8-cpu (as shipped)", quantize.int8_cpu, table)
    add("int8-cpu, first convolution int8 too", quantize.int8_cpu, table, keep=())
    add("int8-cpu, output convolutions float", quantize.int8_cpu, table, keep=quantize.float_ends(graph))
    add("int8 for TensorRT (Q/DQ, S8S8)", quantize.int8_tensorrt, table)
    for name, kind in (
        ("onnxruntime quantize_static, Q/DQ U8S8", "QDQ"),
        ("onnxruntime quantize_static, QOperator U8S8", "QOperator"),
    ):
        made[name] = _static(onnx, blobs, os.path.join(folder, kind + ".onnx"), kind)
    return made


def _static(onnx: Any, blobs: Any, path: Path | str, kind: Any) -> Any:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(blobs)

        def get_next(self) -> Any:
            blob = next(self.rest, None)
            return None if blob is None else {"image": blob}

    quantize_static(
        onnx,
        path,
        Reader(),
        quant_format=QuantFormat[kind],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return path


def measure(paths: Any, input_wh: Any, rounds: Any, blob: Any) -> Any:
    """{name: (p50, min) of the CPU time in ms} and {name: worst head's signal-to-noise ratio in dB}."""
    from pipeline.quantization.sensitivity import snr_db

    engines = {name: OnnxEngine(path, input_wh, 1) for name, path in paths.items()}
    outputs = {name: engine.infer(blob) for name, engine in engines.items()}
    reference = outputs[next(iter(paths))]
    noise = {name: min(snr_db(reference[head], out[head]) for head in reference) for name, out in outputs.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            started = time.thread_time()
            engine.infer(blob)
            times[name].append((time.thread_time() - started) * 1e3)
    return {name: (float(np.median(t)), min(t)) for name, t in times.items()}, noise


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", required=True)
    parser.add_argument("--data", required=True, help="SPLIT_DIR to calibrate on")
    parser.add_argument("--input-wh", nargs="+", default=["320x192", "416x256", "640x384"])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", default=OUT)
    args = parser.parse_args(argv)
    from pipeline.quantization.sensitivity import blobs as load

    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    here = machine.describe("onnxruntime")
    if os.path.exists(args.out):
        with open(args.out, newline="") as handle:
            writer.writerows(row for row in csv.DictReader(handle) if row["machine"] != here)
    with tempfile.TemporaryDirectory(prefix="jetmask-int8-") as folder:
        images = calibrate.select(args.data, 32, 0)
        first = calibrate.size(args.input_wh[0])
        table = calibrate.collect(args.onnx, images, first, "mse")
        paths = forms(args.onnx, table, load(images, first), folder)
        for size in args.input_wh:
            input_wh = calibrate.size(size)
            times, noise = measure(paths, input_wh, args.rounds, load(images[:1], input_wh)[0])
            base = times["fp32"]
            for name, (median, least) in times.items():
                row = [
                    name,
                    f"{median:.2f}",
                    f"{least:.2f}",
                    f"{base[0] / median:.2f}",
                    f"{base[1] / least:.2f}",
                    "" if name == "fp32" else f"{noise[name]:.1f}",
                    os.path.getsize(paths[name]),
                    size,
                    args.rounds,
                    files.sha256(args.onnx)[:16],
                    here,
                ]
                writer.writerow(dict(zip(FIELDS, row)))
                print(f"{name:45} {size:8} {median:6.2f} ms  {base[0] / median:.2f} times faster", flush=True)
    files.write_text(args.out, text.getvalue())


if __name__ == "__main__":
    main()
