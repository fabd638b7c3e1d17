"""What lies in a training's folder, and the README.md in it that says so."""

from collections.abc import Sequence
from pathlib import Path

from jetson import files
from jetson.bundle.classes import Classes
from jetson.evaluation import average_precision
from pipeline.training import checkpoint

FILES = (
    ("best.keras", "the model of the epoch with the best figure on val; the one to export, prune or build from"),
    ("last.keras", "the model after the last epoch"),
    ("log.csv", "a row for each epoch; its columns are below"),
    ("report.html", "the same as curves, tables and pictures, once `jetmask report` has written it"),
    ("config.json", "the whole configuration of the run, defaults included"),
    ("classes.json", "the classes in the order of the network's outputs, and the role of each"),
    (checkpoint.FILE, "all that `--resume` needs; may be removed when the training is done"),
    ("logs/", "for TensorBoard: `tensorboard --logdir .`"),
    ("train.lock", "held while a training works here"),
)
COLUMNS = (
    ("epoch", "number of the epoch, from 1"),
    ("minutes", "training time so far, over all resumptions"),
    ("learning_rate", "after the epoch's last step"),
    ("cls_loss, box_loss", "the training's losses, means over the epoch"),
    ("map50", "the figure on val, AP at IoU .5 in points: {figure}"),
    ("val_loss", "class and box loss on val, without augmentation"),
    ("precision, recall", "on val at the score of .4 that a bundle shows boxes from, shares of 1, all counted classes"),
    ("ap_CLASS", "AP at IoU .5 of one class in points; empty where val has no box of it"),
)


def describe(folder: Path, classes: Classes, start: str) -> None:
    """Write README.md and classes.json."""
    files.write_json(
        str(folder / "classes.json"), {"classes": list(classes.names), "roles": dict(zip(*classes, strict=True))}
    )
    figure = average_precision.figure_name(classes.names)
    if classes.are_masks:
        figure += " (the mean of with_mask and without_mask; mask_worn_incorrect counts neither way in it)"
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
