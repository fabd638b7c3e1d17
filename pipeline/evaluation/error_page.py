"""The page of an error analysis: one self-contained HTML file with its curves, tables and pictures."""

import base64
import html
import io
import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from jetson.bundle.manifest import CLASSES
from jetson.evaluation import average_precision
from jetson.inference.detector import Faces

TILE_WH = (360, 270)
COLOURS = ("#1b7f4d", "#c0392b", "#c77d00")  # one per class, on the page and in the pictures
TRUTH = (255, 255, 255)

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; margin: .6rem 0 }
th, td { padding: .25rem .8rem; border-bottom: 1px solid var(--line);
text-align: right } th:first-child, td:first-child { text-align: left } th { font-weight: 600 }
td.hit { background: var(--soft); font-weight: 600 }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 1rem }
.plots img { width: 100%; background: #fff; border-radius: 6px }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: .8rem }
figure { margin: 0 } figure img { width: 100%; border-radius: 4px; display: block } figcaption { font-size: 13px }
h1, td:first-child, figcaption { overflow-wrap: anywhere }
.note { opacity: .75 }
"""


def _bgr(colour: str) -> tuple[int, int, int]:
    return int(colour[5:7], 16), int(colour[3:5], 16), int(colour[1:3], 16)


def tile(truth: average_precision.Truth, faces: Faces, row: dict[str, Any], missed: Sequence[int]) -> str:
    """One image of a contact sheet as HTML: the `missed` truths (indices) in white, found faces in their class's
    colour, with a caption."""
    frame = average_precision.read_image(truth)
    scale = min(TILE_WH[0] / frame.shape[1], TILE_WH[1] / frame.shape[0])
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)

    def corners(box: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
        x1, y1, x2, y2 = (round(float(side) * scale) for side in box)
        return (x1, y1), (x2, y2)

    for box in truth.xyxy[list(missed)]:
        cv2.rectangle(frame, *corners(box), (0, 0, 0), 3)
        cv2.rectangle(frame, *corners(box), TRUTH, 1)
    for box, label, confidence in zip(faces.xyxy, faces.labels, faces.confidence, strict=True):
        start, end = corners(box)
        cv2.rectangle(frame, start, end, _bgr(COLOURS[label]), 2)
        at = (start[0], max(10, start[1] - 3))
        cv2.putText(frame, f"{confidence:.2f}", at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(frame, f"{confidence:.2f}", at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, TRUTH, 1, cv2.LINE_AA)
    data = base64.b64encode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()).decode()
    words = [
        f"{row[key]} {word}"
        for key, word in (("missed", "missed"), ("false", "false"), ("wrong_class", "wrong class"))
        if row.get(key)
    ]
    name = html.escape(os.path.basename(truth.file))
    return (
        f'<figure><img alt="{name}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{name}: {', '.join(words)}</figcaption></figure>"
    )


def _picture(figure: Figure, alt: str) -> str:
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return f'<img alt="{alt}" src="data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}">'


def _axes(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    return figure, axes


def _plots(numbers: dict[str, Any]) -> str:
    pictures = []
    figure, axes = _axes("Precision and recall at IoU .5", "recall", "precision")
    for colour, (name, points) in zip(COLOURS, numbers["precision_recall"].items(), strict=True):
        # From no recall on, at the precision of the first hit: one hit alone would be a line without length.
        recall, precision = points["recall"], points["precision"]
        axes.plot([0.0] * bool(recall) + recall, precision[:1] + precision, color=colour, label=name)
    axes.legend(fontsize=8)
    pictures.append(_picture(figure, "precision-recall curves"))

    figure, axes = _axes("What a threshold shows", "score threshold", "share")
    rows, best = numbers["thresholds"], numbers["recommended"]
    for key, style in (("precision", "-"), ("recall", "--"), ("f1", ":")):
        axes.plot([row["score"] for row in rows], [row[key] for row in rows], style, color="#333", label=key)
    if best["f1"]:
        axes.axvline(best["score"], color=COLOURS[0], label=f"recommended {best['score']:.2f}")
    axes.axvline(numbers["score"], color=COLOURS[2], label=f"bundle's {numbers['score']:g}")
    axes.legend(fontsize=8)
    pictures.append(_picture(figure, "precision, recall and F1 by threshold"))

    figure, axes = _axes("What a score means", "score of a shown face", "share of such faces that are right")
    bins = [entry for entry in numbers["calibration"]["bins"] if entry["count"]]
    axes.plot([0, 1], [0, 1], color="#999", linewidth=1)
    axes.plot([entry["confidence"] for entry in bins], [entry["right"] for entry in bins], "o-", color=COLOURS[0])
    for entry in bins:
        axes.annotate(
            entry["count"],
            (entry["confidence"], entry["right"]),
            fontsize=7,
            xytext=(3, -9),
            textcoords="offset points",
        )
    pictures.append(_picture(figure, "calibration of scores"))
    return '<div class="plots">' + "".join(pictures) + "</div>"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]], diagonal: bool = False) -> str:
    def cell(value: Any) -> str:
        if value is None:
            return "–"
        return f"{value:.1f}" if isinstance(value, float) else html.escape(str(value))

    lines = ["<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in header) + "</tr>"]
    for number, row in enumerate(rows):
        marks = [
            ' class="hit"' if diagonal and column == number + 1 and value is not None else ""
            for column, value in enumerate(row)
        ]
        cells = [f"<td{mark}>{cell(value)}</td>" for mark, value in zip(marks, row, strict=True)]
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"


def _figures(result: dict[str, Any]) -> str:
    counts, three = result["counts"], result["three_class"]
    rows = [["two-class mAP50", result["map50"], sum(counts["per_class"][name] for name in CLASSES[:2])]]
    rows += [[name, value, counts["per_class"][name]] for name, value in result["per_class"].items()]
    limits = {"small": "faces under 32 px", "medium": "32 to 96 px", "large": "over 96 px"}
    rows += [[limits[name], value, counts["by_size"][name]] for name, value in result["by_size"].items()]
    rows.append(["three-class mAP50", three["map50"], sum(counts["per_class"].values())])
    third = CLASSES[2]
    rows.append([third, three["per_class"][third], counts["per_class"][third]])
    return _table(["", "AP50", "faces"], rows)


def _negatives(numbers: dict[str, Any], alarms: Sequence[str]) -> str:
    part = numbers["negatives"]
    if part is None:
        return ""
    rows = [
        [f"{row['score']:.2f}", f"{row['with_mask']:.3f}", f"{row['mask_worn_incorrect']:.3f}"]
        for row in part["per_image"]
    ]
    at = f"{numbers['shown_at']:.2f}"
    sheet = (
        f'<p>The images with the most of them, at {at}:</p><div class="sheet">{"".join(alarms)}</div>'
        if alarms
        else f"<p>At {at} there is no false mask in any of them.</p>"
    )
    return (
        f"<h2>False masks where nobody wears one</h2><p>{part['images']} images; per image and threshold. "
        f"The bar is {part['limit']:g} false with_mask per image.</p>"
        + _table(["threshold", "with_mask", "mask_worn_incorrect"], rows)
        + sheet
    )


def page(
    split: str, result: dict[str, Any], numbers: dict[str, Any], sheet: Sequence[str], alarms: Sequence[str]
) -> str:
    """The whole page. `result`: of `evaluate.measure`; `numbers`: of `error_analysis.analyse`; tiles as HTML."""
    best, now, third = numbers["recommended"], numbers["at_score"], result["counts"]["per_class"][CLASSES[2]]
    limit = (
        " It is higher than the one with the best F1, to keep false masks on the negatives rare."
        if best["limited_by_negatives"]
        else ""
    )
    if best["too_many_false_masks_everywhere"]:
        limit = " No threshold keeps false masks on the negatives under the bar."
    recommended = (
        f"Recommended: <b>{best['score']:.2f}</b>, where {100 * best['precision']:.1f} % of the shown faces are right "
        f"and {100 * best['recall']:.1f} % of all faces are found (F1 {best['f1']:.3f}).{limit} At the bundle's "
        f"{numbers['score']:g}: {100 * now['precision']:.1f} % and {100 * now['recall']:.1f} % (F1 {now['f1']:.3f}). "
        f"<code>jetmask run --score {best['score']:.2f}</code> shows faces from there."
    )
    if not best["f1"]:
        recommended = "None can be recommended: at no threshold is a shown face right."
    error = numbers["calibration"]["expected_error"]
    meaning = (
        ""
        if error is None
        else (f"From .3 up, a score is {100 * error:.1f} points off the share of right faces on average.")
    )
    sources = [
        [name, entry["map50"], entry[CLASSES[0]], entry[CLASSES[1]], entry["images"], entry["faces"]]
        for name, entry in numbers["by_source"].items()
    ]
    names = [*CLASSES, "no face there"]
    table = [[name, *row] for name, row in zip(names, numbers["confusion"], strict=True)]
    table[3][4] = None
    legend = "".join(f'<span style="color:{c}">■</span> {n} ' for c, n in zip(COLOURS, CLASSES, strict=True))
    title = f"Errors of {html.escape(result['variant'])} on {html.escape(split)}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{STYLE}</style></head><body>
<h1>{title}</h1>
<p class="note">{result["counts"]["images"]} images, {html.escape(result["runtime"])}, {result["precision"]},
input {result["input_wh"][0]} x {result["input_wh"][1]}. The numbers behind this page are in errors.json beside it.</p>
<h2>Average precision</h2>{_figures(result)}
<p class="note">{CLASSES[2]} has {third} faces here: its figures carry a wide error. It is ignored in the two-class
figures, and so are the faces marked as ignored ({result["counts"]["ignore_regions"]} regions).</p>
<h2>The threshold</h2>
<p>{recommended}
{meaning}</p>
{_plots(numbers)}
<h2>Which class is taken for which, at {numbers["shown_at"]:.2f}</h2>
{_table(["true, shown as", *CLASSES, "not found"], table, diagonal=True)}
<h2>By source</h2>{_table(["source", "mAP50", *CLASSES[:2], "images", "faces"], sources)}
{_negatives(numbers, alarms)}
<h2>The {len(sheet)} worst images, at {numbers["shown_at"]:.2f}</h2>
<p>{legend} <span style="background:#000;color:#fff;padding:0 .3em">□</span> labelled, not found</p>
<div class="sheet">{"".join(sheet)}</div>
</body></html>
"""
