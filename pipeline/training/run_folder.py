"""What lies in a training's folder, and the README.md in it that says so."""

from collections.abc import Sequence
from pathlib import Path

from jetson import files
from jetson.bundle.classes import Classes
from jetson.evaluation import average_precision
from pipeline.training import checkpoint

FILES = (
    ("best.keras", "the model of the best epoch on val: export, prune or build from this one"),
    ("last.keras", "the model after the last epoch"),
    ("log.csv", "one row per epoch; the columns are described below"),
    ("report.html", "the same as curves, tables and pictures; written by `jetmask report`"),
    ("config.json", "the whole configuration of the run, defaults included"),
    ("classes.json", "the classes in the order of the network's outputs, and the role of each"),
    (checkpoint.FILE, "what `--resume` needs; may be removed when the training is finished"),
    ("logs/", "for TensorBoard: `tensorboard --logdir .`"),
    ("train.lock", "locked while a training runs in this folder"),
)
COLUMNS = (
    ("epoch", "number of the epoch, from 1"),
    ("minutes", "training time so far, resumed parts included"),
    ("learning_rate", "after the epoch's last step"),
    ("cls_loss, box_loss", "the training's losses, means over the epoch"),
    ("map50", "the figure on val, AP at IoU .5 in points: {figure}"),
    ("val_loss", "class and box loss on val, without augmentation"),
    ("precision, recall", "on val at a score threshold of .4 (the bundle's default), 0 to 1, over all counted classes"),
    ("ap_CLASS", "AP at IoU .5 of one class in points; empty if val has no box of it"),
)


def describe(folder: Path, classes: Classes, start: str) -> None:
    """Write README.md and classes.json."""
    files.write_json(
        str(folder / "classes.json"), {"classes": list(classes.names), "roles": dict(zip(*classes, strict=True))}
    )
    figure = average_precision.figure_name(classes.names)
    if classes.are_masks:
        figure += " (the mean of with_mask and without_mask; mask_worn_incorrect is ignored)"
    lines = [
        "# A training of jetmask",
        "",
        f"Classes: {', '.join(classes.names)}. Started from {start}.",
        "",
        *_table("file", FILES),
        "",
        "log.csv:",
        "",
        *_table("column", [(name, text.format(figure=figure)) for name, text in COLUMNS]),
        "",
        "    jetmask report .                                    # report.html: curves, AP, worst pictures",
        "    jetmask export --model best.keras --out mine.onnx   # for the device",
        "    jetmask train --out . --resume                      # go on, if it was broken off",
        "",
    ]
    files.write_text(str(folder / "README.md"), "\n".join(lines))


def _table(head: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"| {head} | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]
