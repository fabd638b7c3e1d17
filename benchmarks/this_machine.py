"""How far off the latency model is on this machine, on networks that its calibration run never saw.

    python -m benchmarks.this_machine [--precision fp32|int8] [--write]

The calibration's networks and the unseen ones are measured in turns, in one process, one thread.
Result: benchmarks/results/this_machine_<precision>.csv
"""

import argparse
import csv
import io
from pathlib import Path

from benchmarks.machine import describe as describe_machine
from benchmarks.networks import build
from jetson import files
from pipeline.latency import this_machine
from pipeline.latency.roofline import ELEMENT_BYTES, Parameters, total_ms

UNSEEN = (
    ("ResNet-18", (224, 224)),
    ("ResNet-50", (160, 160)),
    ("SqueezeNet1.1", (224, 224)),
    ("GoogLeNet", (160, 160)),
    ("MobileNetV1", (224, 224)),
    ("MobileNetV2", (224, 224)),
    ("DenseNet-121", (160, 160)),
    ("AlexNet", (224, 224)),
    ("YOLOv3-tiny", (288, 288)),
    ("YOLOv4-tiny", (256, 256)),
    ("SSD-MobileNet-v1", (300, 300)),
    ("DetectNet_v2-ResNet18-960x544-unpruned", (320, 192)),
)


def compare(precision: str, rounds: int) -> list:
    """One dict for each unseen network."""
    models = {f"{name}@{wh[0]}x{wh[1]}": build(name, wh, "random") for name, wh in UNSEEN}
    samples = this_machine.samples()
    measured = this_machine.measure(samples | models, precision, rounds)
    result = this_machine.fit(samples, {name: measured[name] for name in samples}, precision)
    parameters = Parameters(**result["parameters"])
    rates = this_machine.NOMINAL._replace(element=ELEMENT_BYTES[precision])
    print({name: float(f"{value:.3g}") for name, value in result["parameters"].items()}, f"{result['spread']:.3f}")
    for name in samples:
        print(
            f"  calibration {name:20} {measured[name]:8.3f} ms  fitted "
            f"{total_ms(this_machine.described(samples[name]), rates, parameters):8.3f} ms"
        )
    out = []
    for name, model in models.items():
        predicted = total_ms(this_machine.described(model), rates, parameters)
        out.append(
            {
                "network": name.replace("-960x544-unpruned", ""),
                "precision": precision,
                "measured_ms": f"{measured[name]:.2f}",
                "predicted_ms": f"{predicted:.2f}",
                "error_pct": f"{(predicted / measured[name] - 1) * 100:+.1f}",
            }
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="fp32", choices=("fp32", "int8"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    lines = compare(args.precision, args.rounds)
    for line in lines:
        print(
            f"{line['network']:36} measured {line['measured_ms']:>8} ms  predicted {line['predicted_ms']:>8} ms  "
            f"{line['error_pct']:>6} %"
        )
    mean = sum(abs(float(line["error_pct"])) for line in lines) / len(lines)
    print(f"mean absolute error {mean:.1f} % over {len(lines)} networks that were not used for the fit")
    if args.write:
        machine = describe_machine()
        handle = io.StringIO()
        writer = csv.DictWriter(handle, [*lines[0], "machine"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(line | {"machine": machine} for line in lines)
        path = Path(__file__).parent / "results" / f"this_machine_{args.precision}.csv"
        files.write_text(str(path), handle.getvalue())
        print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
