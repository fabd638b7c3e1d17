"""`jetmask data stats`: what a data set holds, by class and by size, as a table and one picture of plots."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jetson import files
from jetson.cli import table
from jetson.errors import BadInput
from pipeline.data import check, layout
from pipeline.data.classes import MASKS, ClassSet

log = logging.getLogger(__name__)

# COCO's areas of a box in pixels of the stored image, as in jetson/evaluation/average_precision.py.
SIZES = (("small", 0, 32**2), ("medium", 32**2, 96**2), ("large", 96**2, float("inf")))
COLOURS = ("#2a7f4f", "#c0392b", "#d68910")  # the three mask classes, and then those of matplotlib's


@dataclass(frozen=True)
class Settings:
    """Which split folders to describe; `plot`: the PNG to write, or none."""

    source: tuple[Path, ...]
    plot: Path | None = None
    json: bool = False


def counts(entries: Sequence[check.Entry], classes: ClassSet = MASKS) -> dict[str, Any]:
    """-> {"images", "images_without_boxes", "ignore_boxes", "sources": {name: images}, "tags": {tag: images},
    "classes": {class: {"boxes", "images", "small", "medium", "large", "height_px": {"p5", "p50", "p95"} or None}}}"""
    found: dict[str, Any] = {
        "images": len(entries),
        "images_without_boxes": sum(not e.boxes for e in entries),
        "ignore_boxes": sum(len(e.ignore) for e in entries),
        "sources": dict(Counter(str(e.extra.get("source", "")) or "not said" for e in entries).most_common()),
        "tags": dict(Counter(str(tag) for e in entries for tag in _tags(e)).most_common()),
        "classes": {},
    }
    for number, name in enumerate(classes.names):
        boxes = np.array(
            [box for e in entries for box, label in zip(e.boxes, e.labels, strict=True) if label == number]
        ).reshape(-1, 4)
        area, height = boxes[:, 2] * boxes[:, 3], boxes[:, 3]
        found["classes"][name] = {
            "boxes": len(boxes),
            "images": sum(number in e.labels for e in entries),
            **{size: int(((area >= low) & (area < high)).sum()) for size, low, high in SIZES},
            "height_px": {f"p{p}": round(float(np.percentile(height, p)), 1) for p in (5, 50, 95)}
            if len(boxes)
            else None,
        }
    return found


def _tags(entry: check.Entry) -> list[Any]:
    tags = entry.extra.get("tags")
    return tags if isinstance(tags, list) else [] if tags is None else [tags]


def plot(entries: Sequence[check.Entry], title: str, path: Path, classes: ClassSet = MASKS) -> None:
    """Write one PNG: boxes by class and size, heights of boxes, boxes an image, where their centres are."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_class = counts(entries, classes)["classes"]
    colours = [*COLOURS, *(f"C{i % 10}" for i in range(len(classes.names)))][: len(classes.names)]
    wide = 0.81 / len(classes.names)
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), constrained_layout=True)
    figure.suptitle(f"{title}: {len(entries)} images, {sum(len(e.boxes) for e in entries)} boxes")
    sizes, heights, each, where = axes.flat
    for number, name in enumerate(classes.names):
        x = np.arange(len(SIZES)) + (number - (len(classes.names) - 1) / 2) * wide
        values = [by_class[name][size] for size, _, _ in SIZES]
        bars = sizes.bar(x, values, wide * 0.93, color=colours[number], label=f"{name} ({by_class[name]['boxes']})")
        if len(classes.names) <= 6:  # more would lie on each other
            sizes.bar_label(bars, fontsize=8)
    sizes.set_xticks(range(len(SIZES)), ["small\nunder 32² px", "medium\n32² to 96² px", "large\nover 96² px"])
    sizes.set(title="boxes by class and size", ylabel="boxes")
    sizes.legend(fontsize=8 if len(classes.names) <= 12 else 5, ncols=1 + len(classes.names) // 13)

    tall = [
        [box[3] for e in entries for box, label in zip(e.boxes, e.labels, strict=True) if label == n]
        for n in range(len(classes.names))
    ]
    edges = 2.0 ** np.arange(2, 10.01, 0.5)
    heights.hist([np.clip(t, edges[0], edges[-1]) for t in tall], edges, stacked=True, color=colours)
    heights.set_xscale("log", base=2)
    heights.set_xticks(
        [4, 8, 16, 32, 64, 128, 256, 512, 1024], ["4", "8", "16", "32", "64", "128", "256", "512", "1024"]
    )
    heights.set(title="height of the boxes", xlabel="px of the stored image", ylabel="boxes")

    many = [min(len(e.boxes), 20) for e in entries]
    each.hist(many, np.arange(22) - 0.5, color="#34608c")
    each.set(title="boxes per image (20: 20 or more)", xlabel="boxes", ylabel="images")

    centres = np.array(
        [((b[0] + b[2] / 2) / e.wh[0], (b[1] + b[3] / 2) / e.wh[1]) for e in entries for b in e.boxes]
    ).reshape(-1, 2)
    density, _, _ = np.histogram2d(centres[:, 1], centres[:, 0], bins=24, range=((0, 1), (0, 1)))
    shown = where.imshow(density, extent=(0, 1, 1, 0), cmap="viridis", aspect="equal")
    where.set(title="where the centres of the boxes are", xlabel="of the width", ylabel="of the height")
    figure.colorbar(shown, ax=where, label="boxes")
    try:
        with files.aside(str(path)) as part:
            figure.savefig(part, format="png", dpi=100, metadata={"Software": "jetmask"})
    finally:
        pyplot.close(figure)


def run(settings: Settings) -> int:
    """Print what the split folders hold; BadInput where they are not of the same classes and are to be one plot."""
    loaded = {str(folder): layout.load(folder) for folder in settings.source}
    found = {name: counts(split.entries, split.classes) for name, split in loaded.items()}
    if settings.plot:
        sets = {split.classes.names for split in loaded.values()}
        if len(sets) > 1:
            shown = "; ".join(", ".join(names) for names in sorted(sets))
            raise BadInput(
                f"the folders have different classes: {shown}", None, "the same classes", "plot them one at a time"
            )
        entries = [e for split in loaded.values() for e in split.entries]
        classes = next(iter(loaded.values())).classes
        plot(entries, ", ".join(Path(n).name for n in loaded), settings.plot, classes)
        log.info(f"wrote {settings.plot}")
    if settings.json:
        print(json.dumps(found))
        return 0
    rows = []
    for name, one in found.items():
        for number, (label, values) in enumerate(one["classes"].items()):
            height = values["height_px"]
            rows.append(
                [
                    name if number == 0 else "",
                    one["images"] if number == 0 else "",
                    label,
                    values["boxes"],
                    values["images"],
                    *(values[size] for size, _, _ in SIZES),
                    "-" if height is None else "{p5:g} {p50:g} {p95:g}".format(**height),
                ]
            )
        rows.append(["", "", "ignore regions", one["ignore_boxes"], "", "", "", "", ""])
    print(
        table(["data", "images", "class", "boxes", "in images", "<32²", "32²-96²", ">96²", "height p5 p50 p95"], rows)
    )
    return 0
