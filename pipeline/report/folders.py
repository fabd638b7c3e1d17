"""A report from the folder of a training or a pruning: what its files say, and its best model judged once more."""

import csv
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from jetson import __version__, files
from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.errors import BadInput, JetmaskError
from jetson.evaluation import average_precision
from jetson.inference.detector import Faces
from pipeline.evaluation import error_analysis
from pipeline.models.decode import DECODE
from pipeline.report.contact_sheet import contact_sheet

EXAMPLES = 8
PACKAGES = ("tensorflow-cpu", "tensorflow", "keras", "numpy", "opencv-python-headless")
SIZES = {"small": "under 32 px", "medium": "32 to 96 px", "large": "over 96 px"}


def kind_of(folder: Path) -> str:
    """ "training", "pruning", or "" for a folder whose report is there already, or that is none of these."""
    if (folder / "log.csv").is_file() and (folder / "config.json").is_file():
        return "training"
    if (folder / "settings.json").is_file() and (folder / "wanted.json").is_file():
        return "pruning"
    return ""


def read(folder: Path, kind: str, data: str | None = None) -> dict[str, Any]:
    """What pipeline.report.cli.write takes. data: where the photographs are; default: where the run had them."""
    return {"training": _training, "pruning": _pruning}[kind](folder, data)


def log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a training's log.csv, numbers as numbers and empty cells as None."""
    path = folder / "log.csv"
    try:
        with open(path, newline="", encoding="utf-8") as lines:
            rows = [{key: float(text) if text else None for key, text in row.items()} for row in csv.DictReader(lines)]
    except (ValueError, TypeError, OSError, csv.Error) as error:
        raise BadInput(f"the log cannot be read: {error}", str(path), "what jetmask train writes") from None
    return [{**row, "epoch": int(row.get("epoch") or number)} for number, row in enumerate(rows, 1)]


def _training(folder: Path, data: str | None) -> dict[str, Any]:
    config = files.read_json(str(folder / "config.json"))
    rows = log(folder)
    validated = [row for row in rows if row.get("map50") is not None]
    best = max(validated, key=lambda row: row["map50"], default=None)
    minutes = rows[-1].get("minutes") if rows else None
    facts: list[list[Any]] = [["epochs", len(rows)]]
    facts += [["minutes", round(minutes, 1)]] if minutes is not None else []
    facts += [[f"mAP50 on val of the best epoch, {best['epoch']}", f"{best['map50']:.1f}"]] if best else []
    out: dict[str, Any] = {
        "title": f"Training {folder.resolve().name}",
        "name": folder.resolve().name,
        "facts": facts,
        "curves": [{"name": "", "rows": rows}],
        "config": config,
        "environment": environment(),
        "next": _next(folder / "best.keras"),
    }
    return {**out, **_judged(folder, folder / "best.keras", config, data)}


def _pruning(folder: Path, data: str | None) -> dict[str, Any]:
    settings = files.read_json(str(folder / "settings.json"))
    result = files.read_json(str(folder / "result.json")) if (folder / "result.json").is_file() else {}
    config = settings.get("tuning") or {}
    if not (config.get("train") or {}).get("epochs", 1):
        # What would train is of no effect: only where the photographs are.
        config = {"data": config["data"]} if (config.get("data") or {}).get("root") else {}
    curves = [
        {"name": path.parent.parent.name, "rows": log(path.parent)} for path in sorted(folder.glob("*/train/log.csv"))
    ]
    out: dict[str, Any] = {
        "title": f"Pruning {folder.resolve().name}",
        "name": folder.resolve().name,
        "curves": curves,
        "config": config,
        "environment": environment(),
        "next": _next(folder / "best.keras"),
    }
    if result:
        before = {"map50": result.get("map50_before")}
        after = {"map50": result.get("map50"), "macs": result.get("macs")}
        if result.get("macs") and result.get("macs_share"):
            before["macs"] = round(result["macs"] / result["macs_share"])
        known = {key for key in before if before[key] is not None and after.get(key) is not None}
        out["pruning"] = {
            "before": {key: before[key] for key in before if key in known},
            "after": {key: after[key] for key in before if key in known},
            "channels": _channels(folder / "plan.json"),
        }
        change = result.get("change")
        if change:
            out["pruning"]["note"] = (
                f"The figure changes by {change['difference']:+.1f} points (95 % bounds {change['low']:+.1f} to "
                f"{change['high']:+.1f}, {change['images']} images)."
            )
    else:
        out["warnings"] = ["The pruning has not finished."]
    if (folder / "scan.json").is_file():
        out["scan"] = files.read_json(str(folder / "scan.json"))
    if not (folder / "best.keras").is_file():
        return out
    if not data and not (config.get("data") or {}).get("root"):
        note = f"Pruned without photographs: AP was not measured. Measure it: jetmask report {folder} --data DIR"
        out["warnings"] = [*out.get("warnings", ()), note]
        return out
    judged = _judged(folder, folder / "best.keras", config, data)
    judged["warnings"] = [*out.get("warnings", ()), *judged.get("warnings", ())]
    return {**out, **judged}


def _channels(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    from pipeline.pruning.pruner import Plan

    plan = Plan.from_dict(files.read_json(str(path)))
    sizes = getattr(plan, "sizes", {})
    return [
        {"layer": name, "before": int(sizes[name]), "after": len(kept)}
        for name, kept in plan.kept.items()
        if name in sizes
    ]


def _next(model: Path) -> list[dict[str, str]]:
    return [
        {"title": "For the device", "command": f"jetmask export --model {model} --out {model.with_suffix('.onnx')}"},
        {"title": "Smaller and faster", "command": f"jetmask prune --model {model} --help"},
    ]


def environment() -> dict[str, str]:
    """The versions of what trained, on this machine."""
    found = {"jetmask": __version__, "Python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _judged(folder: Path, model: Path, config: dict[str, Any], data: str | None) -> dict[str, Any]:
    """AP with intervals, confusion, worst pictures, examples of a model on its val; a warning where that cannot be."""
    from pipeline.models.classes import classes_of
    from pipeline.models.detector import load
    from pipeline.training.validation import Judge

    told = config.get("data") or {}
    root = data or told.get("root") or ""
    val = Path(root) / (told.get("val") or "val")
    try:
        net = load(model)
        classes = classes_of(net)
        judge = Judge(val, (config.get("train") or {}).get("val_wh") or (416, 416), classes)
        judged = judge.judge(net)
    except JetmaskError as error:
        if data:
            raise
        return {
            "warnings": [
                f"The best model is not judged again here: {error.what} ({error.where}). With --data DIR it is, where "
                "the photographs are now."
            ]
        }
    threshold = DECODE["score"]
    return {
        "classes": dict(zip(*classes, strict=True)),
        "data": {"kind": "photographs", "split": val.name, "images": len(judge.truths)},
        "warnings": [],
        "accuracy": _accuracy(judge.truths, judged.faces, classes),
        "confusion": {
            "note": f"Boxes that score {threshold:g} or more, each by its best class, and labelled ones.",
            "names": list(classes.words()),
            "counts": error_analysis.confusion(judge.truths, judged.faces, threshold, len(classes.names)),
        },
        "detections": _pictures(folder, judge.truths, judged.faces, classes, threshold),
    }


def _accuracy(truths: Sequence[average_precision.Truth], faces: Sequence[Faces], classes: Classes) -> dict[str, Any]:
    scored, ignored = average_precision.scheme(classes.names)

    def row(name: str, labels: Sequence[int], regions: Sequence[int], area: tuple[float, float] | None = None) -> dict:
        words = {} if area is None else {"area_range": area}
        parts = [average_precision.tally(truths, faces, label, regions, **words) for label in labels]
        known = [ap for ap in map(average_precision.average_precision, parts) if ap is not None]
        bounds = average_precision.bounds(parts)
        return {
            "name": name,
            "ap": sum(known) / len(known) if known else None,
            "low": bounds[0] if bounds else None,
            "high": bounds[1] if bounds else None,
            "boxes": int(sum(part.positives.sum() for part in parts)),
        }

    rows = [row(average_precision.figure_name(classes.names), scored, ignored)]
    for number, name in enumerate(classes.words()):
        rows.append(row(name, [number], ignored if number in scored else ()))
    rows += [row(SIZES[size], scored, ignored, area) for size, area in average_precision.SIZES.items()]
    note = "mask_worn_incorrect is ignored in the first figure." if classes == MASK_CLASSES else ""
    return {"note": note, "rows": rows}


def _pictures(
    folder: Path,
    truths: Sequence[average_precision.Truth],
    faces: Sequence[Faces],
    classes: Classes,
    threshold: float,
) -> list[dict[str, str]]:
    def shown(numbers: Sequence[int], group: str, caption: Callable[[int], str]) -> list[dict[str, str]]:
        pictures = []
        missed = []
        for number in numbers:
            seen = error_analysis.shown(faces[number], threshold)
            lost = error_analysis.outcome(truths[number], seen).missed
            missed.append(truths[number].xyxy[np.array(lost, np.intp)])
            pictures.append((average_precision.read_image(truths[number]), seen, caption(number)))
        return contact_sheet(folder, pictures, group, classes=classes, missed=missed)

    worst = {row["image"]: row for row in error_analysis.worst(truths, faces, threshold)[:EXAMPLES]}

    def faults(number: int) -> str:
        row = worst[number]
        words = [
            f"{row[key]} {word}"
            for key, word in (("missed", "missed"), ("false", "false"), ("wrong_class", "wrong class"))
            if row[key]
        ]
        return f"{Path(truths[number].file).name}: {', '.join(words)}"

    others = [number for number in range(len(truths)) if number not in worst]
    return shown(list(worst), "Worst pictures", faults) + shown(
        others[:EXAMPLES], "Examples", lambda number: Path(truths[number].file).name
    )
