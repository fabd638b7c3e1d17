"""How long pruning itself takes: four networks of keras.applications with random weights, half of their channels.

    python -m benchmarks.pruner_speed

Plan (l1) and cut are timed apart; building the network, which Keras does, is not counted. CPU seconds of this process
stand beside wall seconds, since other programs show in the latter. Writes benchmarks/results/pruner_speed.csv.
"""

import csv
import io
import os
import sys
import time
from pathlib import Path

import keras

from benchmarks.machine import describe
from jetson import files
from pipeline.pruning.cost import Macs
from pipeline.pruning.pruner import plan_uniform, prune

OUT = Path(__file__).parent / "results" / "pruner_speed.csv"
NAMES = ("MobileNetV2", "ResNet50", "EfficientNetB0", "DenseNet121")
WH = (224, 224)


def main() -> None:
    rows = []
    for name in NAMES:
        model = getattr(keras.applications, name)(weights=None, input_shape=(*WH, 3))
        times = [(time.perf_counter(), time.process_time())]
        plan = plan_uniform(model, 0.5)
        times.append((time.perf_counter(), time.process_time()))
        smaller = prune(model, plan)
        times.append((time.perf_counter(), time.process_time()))
        before, after = (Macs(m, WH)({}) for m in (model, smaller))
        rows.append(
            {
                "network": name,
                "parameters": model.count_params(),
                "parameters_after": smaller.count_params(),
                "macs_share": f"{after / before:.4f}",
                "plan_s": f"{times[1][0] - times[0][0]:.2f}",
                "plan_cpu_s": f"{times[1][1] - times[0][1]:.2f}",
                "cut_s": f"{times[2][0] - times[1][0]:.2f}",
                "cut_cpu_s": f"{times[2][1] - times[1][1]:.2f}",
                "machine": describe("keras"),
                "load": f"{os.getloadavg()[0]:.1f}",
            }
        )
        print(
            f"{name:16} plan {rows[-1]['plan_s']} s (CPU {rows[-1]['plan_cpu_s']}), cut {rows[-1]['cut_s']} s "
            f"(CPU {rows[-1]['cut_cpu_s']}), {rows[-1]['macs_share']} of the multiply-adds left",
            file=sys.stderr,
            flush=True,
        )
        keras.utils.clear_session()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(str(OUT), text.getvalue())


if __name__ == "__main__":
    main()
