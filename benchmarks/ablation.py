"""What each choice of training is worth: short trainings of equal length, one choice changed in each.

    python -m benchmarks.ablation --data DIR [--model n] [--images 8000] [--only optimizer mosaic ...] [--list]
    python -m benchmarks.ablation --data DIR --model mobilenetv2 --images 4000     what a start from ImageNet is worth

All trainings see the same number of images from the same seed and are judged by their last weights, on val/ at 320 and
416: picking the best epoch would favour the noisiest. Where a choice differs from the baseline by less than a point at
416, both are trained again from a second seed. A row is written when its training has ended; a run that was stopped
goes on with the training that it was in. Rows are added to benchmarks/results/detector_ablation.csv, one set for each
model and number of images.
"""

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import describe
from jetson import files
from jetson.errors import JetmaskError, UsageError
from pipeline import config as configuration

OUT = Path(__file__).parent / "results" / "detector_ablation.csv"
FIELDS = (
    "choice",
    "value",
    "seed",
    "images",
    "minutes",
    "map50_320",
    "map50_416",
    "with_mask",
    "without_mask",
    "difference",
    "model",
    "machine",
)
EPOCHS = 8
CLOSE = 1.0  # points at 416 under which a second seed is asked
SEEDS = (1, 2)
TEACHER_WEIGHTS = (1,)
# A preset's warm-up and average are made for trainings thirty times as long; and the baseline is the same whatever a
# preset says by now.
SHORT = [
    f"train.epochs={EPOCHS}",
    "train.batch_size=16",
    "train.decay_share=0.45",
    "train.warmup_steps=40",
    "train.ema=0.99",
    "train.closing_epochs=1",
    "train.sizes=[[256, 0.35], [320, 0.40], [416, 0.25]]",
    "train.val_wh=[320, 320]",
    f"train.val_every={EPOCHS}",
]
OFF = {
    "mosaic": "augment.mosaic",
    "paste": "augment.paste",
    "photometric": "augment.photometric",
    "flip": "augment.flip",
    "drawn_masks": "augment.drawn_masks",
    "prints": "augment.prints",
    "low_resolution": "augment.low_resolution",
}
PLAIN = (
    "mosaic",
    "paste",
    "large",
    "scale",
    "flip",
    "photometric",
    "blur",
    "noise",
    "jpeg",
    "low_resolution",
    "erase",
    "drawn_masks",
    "prints",
)


class Choice(NamedTuple):
    """One training: what is changed, to what, and the configuration that does it."""

    choice: str
    value: str
    overrides: tuple = ()


def choices(model: Any) -> Any:
    """All trainings, the baseline first. An optimizer comes with a rate that is usual for it: one rate for all would
    compare rates."""
    rows = [Choice("baseline", "adamw, trapezoid, batch 16, all augmentation, average on, random weights")]
    if model == configuration.TRANSFER:
        return [*rows, Choice("init", "ImageNet weights", ("model.init=" + configuration.IMAGENET,))]
    for optimizer, rate in (("sgd", 0.02), ("adagrad", 0.02), ("rmsprop", 0.001), ("adam", 0.002)):
        rows.append(
            Choice(
                "optimizer",
                f"{optimizer}, rate {rate:g}",
                ("train.optimizer=" + optimizer, f"train.learning_rate={rate:g}"),
            )
        )
    rows += [Choice("schedule", name, ("train.schedule=" + name,)) for name in ("fixed", "cosine")]
    # The plateau is seen by validating each epoch.
    rows.append(Choice("schedule", "plateau", ("train.schedule=plateau", "train.val_every=1")))
    rows += [Choice("dropout", f"{rate:g}", (f"model.dropout={rate:g}",)) for rate in (0.1, 0.2)]
    rows += [Choice("batch", str(size), (f"train.batch_size={size}",)) for size in (8, 32)]
    rows += [Choice(name, "off", (key + "=0",)) for name, key in OFF.items()]
    rows.append(Choice("augmentation", "all off", ("augment.single=1", *(f"augment.{name}=0" for name in PLAIN))))
    rows.append(Choice("average", "off", ("train.ema=0",)))
    if (configuration.WEIGHTS / (model + ".keras")).exists():
        # A rate for weights that are good already.
        rows.append(
            Choice("init", "shipped weights, rate 0.0005", ("model.init=" + model, "train.learning_rate=0.0005"))
        )
    rows += [
        Choice("teacher", f"the shipped s, weight {weight:g}", ("model.teacher=s", f"model.teacher_weight={weight:g}"))
        for weight in TEACHER_WEIGHTS
        if model != "s"
    ]
    return rows


class Ablation:
    """The table in its file, and the trainings that are not in it yet."""

    def __init__(self, args: argparse.Namespace, say: Any) -> None:
        self.args, self.say, self.out = args, say, Path(args.out)
        self.rows = []
        if self.out.exists():
            with open(self.out, newline="", encoding="utf-8") as handle:
                self.rows = list(csv.DictReader(handle))

    def run(self, wanted: Any) -> None:
        baseline = choices(self.args.model)[0]
        for choice in wanted:
            for seed in SEEDS:
                if choice != baseline:
                    self.row(baseline, seed)
                row = self.row(choice, seed)
                if choice == baseline or abs(float(row["difference"])) >= CLOSE:
                    break

    def row(self, choice: Any, seed: int) -> Any:
        """The row of one training; trained when the table has none."""
        key = {
            "choice": choice.choice,
            "value": choice.value,
            "seed": str(seed),
            "images": str(self.args.images),
            "model": self.args.model,
        }
        for row in self.rows:
            if all(row[name] == value for name, value in key.items()):
                return row
        import keras  # seconds to load; who asks for the list of choices only need not wait

        from pipeline.models.detector import load
        from pipeline.training import train

        self.say(f"{choice.choice}: {choice.value}, seed {seed}")
        config = configuration.load(
            self.args.model,
            [
                *SHORT,
                f"train.images_per_epoch={int(max(1, self.args.images // EPOCHS))}",
                *choice.overrides,
                *self.args.set,
                f"train.seed={seed}",
            ],
        )
        if config.model.init == configuration.IMAGENET:
            config.model.init = self.args.imagenet
        config.data.root = self.args.data
        value = "".join(c if c.isalnum() else "_" for c in choice.value)
        name = f"{self.args.model}-{self.args.images}-{choice.choice}-{value}-{seed}"
        folder = Path(self.args.runs) / name
        result = train.fit(config, folder, resume=(folder / "checkpoint.npz").exists(), progress=1)
        net = load(result["last"])
        found = {side: train.validate(net, Path(self.args.data) / config.data.val, (side, side)) for side in (320, 416)}
        baseline = next(
            (
                row
                for row in self.rows
                if row["choice"] == "baseline" and all(row[name] == key[name] for name in ("seed", "images", "model"))
            ),
            None,
        )
        ap = found[416]["map50"]
        row = {
            **key,
            "minutes": f"{result['minutes']:.2f}",
            "map50_320": f"{found[320]['map50']:.2f}",
            "map50_416": f"{ap:.2f}",
            **{c: f"{found[416]['per_class'][c]:.2f}" for c in FIELDS[7:9]},
            "difference": f"{round(ap, 2) - float(baseline['map50_416']):.2f}" if baseline else "0.00",
            "machine": describe("keras", "tensorflow-cpu"),
        }
        self.rows.append(row)
        self.write()
        self.say(
            f"{choice.choice}: {choice.value}, seed {seed}: mAP50 {row['map50_320']} at 320, "
            f"{row['map50_416']} at 416, {row['difference']} to the baseline"
        )
        keras.backend.clear_session()  # or the graphs of all trainings stay in memory
        return row

    def write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        files.write_text(str(self.out), text.getvalue())


def main(argv: list[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train/ and val/")
    parser.add_argument("--model", default="n", help="preset that is trained (default: %(default)s)")
    parser.add_argument("--images", type=int, default=8000, help="images that each training sees")
    parser.add_argument(
        "--imagenet",
        default=configuration.IMAGENET,
        metavar="FILE.h5",
        help="ImageNet's weights for --model mobilenetv2 (default: Keras downloads them)",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these choices")
    parser.add_argument("--list", action="store_true", help="show the choices and end")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override for all trainings")
    parser.add_argument("--runs", default="runs/ablation", help="folder of the trainings; what is there is not redone")
    parser.add_argument("--out", default=str(OUT))
    args = parser.parse_args(argv)
    args.data = str(Path(args.data).absolute())
    wanted = choices(args.model)
    if args.list:
        print("\n".join(f"{row[0]:16} {row[1]}" for row in wanted))
        return 0
    try:
        names = list(dict.fromkeys(row.choice for row in wanted))
        for name in args.only or ():
            if name not in names:
                raise UsageError(f"no choice is called {name!r}", where="--only", expected="one of " + ", ".join(names))
        if args.images < EPOCHS:
            raise UsageError(f"{args.images} images", where="--images", expected=f"{EPOCHS} or more")
        ablation = Ablation(args, lambda text: print(text, file=sys.stderr, flush=True))
        ablation.run([row for row in wanted if not args.only or row.choice in args.only])
    except JetmaskError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"wrote {args.out}, {len(ablation.rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
