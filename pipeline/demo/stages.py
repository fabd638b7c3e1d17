"""The stages of the demo: the whole way once, each stage real, in a few minutes on two cores.

Data, a little fine-tuning from the weights that ship, pruning, ONNX, calibration, every engine this machine can run,
evaluation, the bundle, the on-device runner on a clip, and one report.
"""

import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from jetson import files
from jetson.errors import BadInput, JetmaskError, UsageError
from jetson.evaluation import average_precision
from pipeline import config as configuration
from pipeline.demo.live import clip, run_live, serve_command

log = logging.getLogger(__name__)
WH = (416, 256)  # the default input of the camera; what the live run uses
SQUARE = (320, 320)
MAX_DROP = 1.0  # a hundred images can not tell half a point from nothing
TUNE = [
    "train.warmup_steps=10",
    "train.schedule=cosine",
    "train.ema=0.98",
    "train.closing_epochs=1",
    "train.sizes=[[256, 0.5], [320, 0.5]]",
    "train.val_wh=[320, 320]",
    "train.images_per_epoch=400",
]


class Progress:
    """Says on stderr which stage runs, with the time since the start."""

    def __init__(self) -> None:
        self.start = time.time()

    def __call__(self, text: str) -> None:
        log.info("[%3d s] %s", time.time() - self.start, text)


class Demo:
    """One run in one folder. Every method is a stage; what a report shows is gathered in self.report."""

    def __init__(self, folder: Path, data: str | None, size: str, seconds: float, say: Progress) -> None:
        self.folder, self.size, self.seconds, self.say = folder, size, seconds, say
        self.weights = configuration.WEIGHTS / (size + ".keras")
        if not self.weights.exists():
            raise UsageError(
                f"no weights ship for size {size!r}",
                where="--size",
                expected="one of " + ", ".join(configuration.shipped()),
            )
        data = data or os.environ.get("JETMASK_DATA")
        if data and not Path(data).is_dir():
            raise BadInput(
                "the data folder does not exist",
                where=str(data),
                expected="a folder with train/ and val/",
                remedy="check --data or JETMASK_DATA; without both the demo draws its own images",
            )
        self.drawn = not data
        self.root = Path(data) if data else self.folder / "drawn"
        self.report: dict[str, Any] = {"title": "jetmask demo", "stages": [], "curves": []}

    def run(self) -> dict[str, Any]:
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / "demo.json").exists():
            raise UsageError(
                "this folder holds something else",
                where=str(self.folder),
                expected="a new or empty one",
                remedy="name another with --out",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_json(str(self.folder / "demo.json"), {"started": time.time()})
        self.open_data()
        tuned = self.tune()
        pruned = self.prune(tuned)
        digest, results = self.build([(self.size, tuned), (self.size + "p", pruned)])
        self.detections()
        live = run_live(self.folder / "bundle", clip(None if self.drawn else self.root), self.seconds, self.say)
        path = self.write_report(results, live)
        self.finish(results, digest, path)
        return {
            "report": str(path),
            "bundle": str(self.folder / "bundle"),
            "digest": digest,
            "live": live,
            "seconds": round(time.time() - self.say.start, 1),
        }

    def open_data(self) -> None:
        if self.drawn:
            from pipeline.data import draw, layout

            for seed, (split, count) in enumerate((("train", 240), ("val", 60)), 1):
                if (self.root / split / "annotations.json").exists():
                    continue
                self.say(f"drawing {count} labelled images: {split}/")
                self.root.mkdir(exist_ok=True)
                with layout.folder_aside(self.root / split) as part:
                    draw.write(part, count, seed=seed)
        truths = average_precision.load_split(str(self.root / "val"))
        self.folders = [f for f in ("train", "crops", "extra", "negatives") if (self.root / f).is_dir()]
        self.kind = "drawn images" if self.drawn else "val/"
        self.say(f"data: {', '.join(self.folders)}; validating on {len(truths)} images of {self.kind}")
        self.report["data"] = {"kind": "drawn" if self.drawn else "photographs", "split": "val", "images": len(truths)}
        if self.drawn:
            self.report["warnings"] = [
                "These images are drawn: every AP here is an AP on drawn images. It says that "
                "the stages work, and nothing about photographs."
            ]

    def settings(self, rate: float, epochs: int) -> Any:
        # Comparing every photograph with val/ and test/ takes longer than the demo's training; the real one does it.
        return configuration.load(
            None,
            [
                *TUNE,
                f"data.root={self.root}",
                "data.apart_from=[]",
                f"data.train=[{', '.join(self.folders)}]",
                f"train.learning_rate={rate:g}",
                f"train.epochs={epochs}",
            ],
        )

    def stage(self, name: str, model: str, started: float, note: str = "") -> float:
        """Evaluate a Keras model at SQUARE and put the row into the report."""
        from pipeline.models.detector import macs
        from pipeline.training.train import validate

        figure = validate(model, self.root / "val", SQUARE)["map50"]
        self.report["stages"].append(
            {
                "name": name,
                "map50": figure,
                "macs": macs(model, SQUARE),
                "note": note,
                "minutes": round((time.time() - started) / 60, 2),
            }
        )
        self.say(f"{name}: mAP50 {figure:.1f} on {self.kind} at {SQUARE[0]}x{SQUARE[1]}")
        return figure

    def train(self, name: str, model: str, rate: float, epochs: int, title: str) -> str:
        from pipeline.training.train import fit

        shutil.rmtree(self.folder / name, ignore_errors=True)
        result = fit(self.settings(rate, epochs), self.folder / name, model=model, progress=1)
        self.report["curves"].append({"name": title, "rows": result["rows"]})
        return result["best"]

    def tune(self) -> str:
        from pipeline.models.detector import load

        started = time.time()
        model = load(str(self.weights))
        before = self.stage("weights as shipped", model, started)
        self.say("fine-tuning")
        started = time.time()
        best = self.train("tuned", model, 1e-4, 2, "fine-tuning")
        after = self.stage("fine-tuned", load(best), started, "2 short epochs")
        if after < before:  # a few hundred images can cost a converged model some tenths: keep what is better
            self.report["stages"][-1]["note"] += "; the shipped weights are better here and go on"
            return str(self.weights)
        return best

    def prune(self, path: str) -> str:
        from pipeline.models.detector import load
        from pipeline.pruning import pruner as prune
        from pipeline.pruning.schedule import photo_scores

        started = time.time()
        model = load(path)
        scored = photo_scores(model, "taylor", self.settings(5e-4, 1), SQUARE)
        plan = prune.plan_global(model, 0.5, scored, SQUARE)
        smaller = prune.prune(model, plan)
        self.say("pruned to half of the multiply-adds")
        self.stage("pruned", smaller, started, "half of the multiply-adds, before fine-tuning")
        before, started = self.report["stages"][-2], time.time()
        best = self.train("pruned", smaller, 5e-4, 4, "after pruning")
        self.stage("pruned, fine-tuned", load(best), started, "4 short epochs")
        rows = self.report["stages"]
        self.report["pruning"] = {
            "note": "Channels of the least importance per multiply-add are removed (first-order Taylor, "
            "pipeline/pruning/importance.py).",
            "before": {k: before[k] for k in ("macs", "map50")},
            "after": {k: rows[-1][k] for k in ("macs", "map50")},
            "channels": [
                {"layer": name, "before": size, "after": len(plan.kept.get(name, range(size)))}
                for name, size in plan.sizes.items()
            ],
        }
        return best

    def build(self, models: Any) -> tuple[str, Any]:
        from pipeline.bundle import variants
        from pipeline.models.decode import DECODE
        from pipeline.quantization import calibrate

        images = calibrate.select(str(self.root / "train"), 32, 1)
        made = []
        with tempfile.TemporaryDirectory(prefix="jetmask-demo-") as aside:
            for number, (name, path) in enumerate(models):
                made.append(variants.make(name, path, aside, images, WH, [WH] if number == 0 else [], self.say))
            self.check_rtx(made)
            self.say(f"evaluating every variant that runs here on {self.kind}")
            card = f"# Made by jetmask demo\n\nAP on {self.kind}, for a try only.\n"
            digest, results = variants.write_bundle(
                self.folder / "bundle",
                made,
                (WH,),
                self.root / "val",
                "drawn val" if self.drawn else "val",
                DECODE,
                lambda results: card,
                {"made_by": "jetmask demo", "drawn": self.drawn},
                f"{self.size}-{WH[0]}x{WH[1]}-fp32",
                threads=1,
                say=self.say,
                max_drop=MAX_DROP,
            )
            self.predict(made, results)
        self.say(f"bundle: {self.folder / 'bundle'}")
        return digest, results

    def predict(self, made: Any, results: Any) -> None:
        """What a Nano would take, from the graphs alone; labelled so in the report."""
        from pipeline.latency import cli as predict

        for built, _ in made:
            figure = predict.predict_ms(built.kinds["fp32"], "nano", "fp16", WH)
            name = f"{built.name}-{WH[0]}x{WH[1]}-fp16"
            ap = next((r["map50"] for r in results if r["variant"] == name + "-typed"), None)
            self.report.setdefault("predicted", []).append(
                {
                    "name": name,
                    "target": "nano",
                    "precision": "fp16",
                    "input_wh": list(WH),
                    "map50": ap,
                    "latency_ms": figure.latency_ms,
                    "low_ms": figure.low_ms,
                    "high_ms": figure.high_ms,
                    "bytes": os.path.getsize(built.kinds["fp32"]),
                }
            )
            self.report.setdefault("layers", []).append({**figure.as_json(), "title": name})

    def check_rtx(self, made: Any) -> None:
        """Where NVIDIA's TensorRT for RTX is installed, its real parser and builder take each file; no GPU needed."""
        from pipeline.graphs import rtx

        for built, _ in made:
            for kind in ("fp32", "fp16", "int8"):
                outcome = rtx.check(built.kinds[kind], WH, kind)
                if outcome is None:
                    self.say("TensorRT for RTX is not installed: the files are checked by our own rules alone")
                    return
                if "error" in outcome:
                    raise JetmaskError(
                        f"NVIDIA's builder refuses a file: {outcome['error']}", where=f"{built.name} {kind}"
                    )
                self.say(
                    f"TensorRT for RTX {outcome['version']} builds {built.name} {kind} "
                    f"({outcome['plan_bytes'] // 1024} KB; a check, not run)"
                )

    def detections(self) -> None:
        from jetson.inference.detector import open_detector
        from pipeline.report.contact_sheet import contact_sheet

        truths = average_precision.load_split(str(self.root / "val"))
        pictures = []
        with open_detector(str(self.folder / "bundle")) as detector:
            for truth in truths[:: max(1, len(truths) // 12)][:12]:
                frame = average_precision.read_image(truth)
                pictures.append((frame, detector.detect(frame), Path(truth.file).name))
        self.report["detections"] = contact_sheet(self.folder, pictures)

    def write_report(self, results: Any, live: Any) -> Any:
        from pipeline.report import cli as report

        rows = []
        for result in results:
            p50 = result["latency_ms"]["total_ms"]["p50"]
            rows.append({**result, "name": result["variant"], "fps": 1000 / p50 if p50 else None})
        bundle = self.folder / "bundle"
        self.report.update(
            name=str(self.folder),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            variants=rows,
            live=live,
            environment=environment(),
            commands=[{"title": "This run again", "command": " ".join(["jetmask", *sys.argv[1:]])}],
            next=[
                {"title": "Serve the live page", "command": serve_command(bundle, clip(self.root))},
                {"title": "Train on your own photographs", "command": "jetmask train s --data DIR --out runs/mine"},
                {"title": "Bring the bundle to a Jetson", "command": f"jetmask deploy {bundle} user@nano"},
            ],
        )
        return report.write(self.folder, self.report)

    def finish(self, results: Any, digest: str, path: str) -> None:
        from jetson.cli import table

        print(
            table(
                ["variant", "runs on", f"AP ({self.kind})", "p50 ms", "frames/s", "KB"],
                [
                    [
                        r["variant"],
                        r["runtime"],
                        f"{r['map50']:.1f}",
                        f"{r['latency_ms']['total_ms']['p50']:.2f}",
                        f"{1000 / r['latency_ms']['total_ms']['p50']:.0f}",
                        r["bytes"] // 1024,
                    ]
                    for r in results
                ],
            )
        )
        print(
            "\nreport     {}\nbundle     {} ({})\nlive page  {}".format(
                path, self.folder / "bundle", digest[:16], serve_command(self.folder / "bundle", clip(self.root))
            )
        )


def environment() -> dict[str, Any]:
    import keras
    import onnxruntime
    import tensorflow

    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "keras": keras.__version__,
        "tensorflow": tensorflow.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opencv": cv2.__version__,
    }
