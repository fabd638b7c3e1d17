"""The page of an error analysis: one self-contained HTML file with its curves, tables and pictures."""

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from jetson.bundle.classes import MASK_CLASSES, Classes
from jetson.evaluation import average_precision
from jetson.inference.detector import Faces
from pipeline.pages import render
from pipeline.pages.figures import ACCENT, QUIET, SECOND, SERIES, label, svg
from pipeline.pages.render import Section, figure, heading, legend, paragraph, sheet, table, together

TILE_WH = (360, 270)
TRUTH = (255, 255, 255)
SIZES = {"small": "under 32 px", "medium": "32 to 96 px", "large": "over 96 px"}


def tile(
    truth: average_precision.Truth,
    faces: Faces,
    row: dict[str, Any],
    missed: Sequence[int],
    classes: Classes = MASK_CLASSES,
) -> dict[str, str]:
    """One image of a contact sheet (see render.sheet): the `missed` truths (indices) in white, found faces in their
    class's colour, with a caption of what `row` counts."""
    frame = average_precision.read_image(truth)
    scale = min(TILE_WH[0] / frame.shape[1], TILE_WH[1] / frame.shape[0])
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    colours = classes.colours()

    def corners(box: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
        x1, y1, x2, y2 = (round(float(side) * scale) for side in box)
        return (x1, y1), (x2, y2)

    for box in truth.xyxy[list(missed)]:
        cv2.rectangle(frame, *corners(box), (0, 0, 0), 3)
        cv2.rectangle(frame, *corners(box), TRUTH, 1)
    for box, number, confidence in zip(faces.xyxy, faces.labels, faces.confidence, strict=True):
        start, end = corners(box)
        cv2.rectangle(frame, start, end, colours[number], 2)
        at = (start[0], max(10, start[1] - 3))
        cv2.putText(frame, f"{confidence:.2f}", at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(frame, f"{confidence:.2f}", at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, TRUTH, 1, cv2.LINE_AA)
    jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()
    words = [
        f"{row[key]} {word}"
        for key, word in (("missed", "missed"), ("false", "false"), ("wrong_class", "wrong class"))
        if row.get(key)
    ]
    name = os.path.basename(truth.file)
    source = render.data_uri(jpeg, "jpeg")
    return {"source": source, "alt": name, "caption": f"{name}: {', '.join(words)}", "found": ""}


def _square(draw: Any, title: str, x: str, y: str) -> Markup:
    def square(figure_: Any) -> None:
        axes = figure_.subplots()
        axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
        draw(axes)
        if axes.get_legend_handles_labels()[1]:
            figure_.legend(fontsize=7.5, loc="outside upper left", ncols=2)

    return figure(svg(square, 4.6, 3.6, title), title)


def precision_recall(numbers: dict[str, Any]) -> Any:
    """What draws the curve of each class into axes."""

    def draw(axes: Any) -> None:
        for number, (name, points) in enumerate(numbers["precision_recall"].items()):
            # From no recall on, at the precision of the first hit: one hit alone would be a line without length.
            recall, precision = points["recall"], points["precision"]
            axes.plot(
                [0.0] * bool(recall) + recall,
                precision[:1] + precision,
                color=SERIES[number % len(SERIES)],
                linestyle=("-", "--", ":", "-.")[number // len(SERIES) % 4],
                label=label(name),
            )

    return draw


def _thresholds(numbers: dict[str, Any]) -> Any:
    rows, best = numbers["thresholds"], numbers["recommended"]

    def draw(axes: Any) -> None:
        for key, style in (("precision", "-"), ("recall", "--"), ("f1", ":")):
            axes.plot([row["score"] for row in rows], [row[key] for row in rows], style, color=QUIET, label=key)
        if best["f1"]:
            axes.axvline(best["score"], color=ACCENT, label=f"recommended {best['score']:.2f}")
        axes.axvline(numbers["score"], color=SECOND, label=f"bundle's {numbers['score']:g}")

    return draw


def _calibration(numbers: dict[str, Any]) -> Any:
    bins = [entry for entry in numbers["calibration"]["bins"] if entry["count"]]

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1)
        axes.plot([entry["confidence"] for entry in bins], [entry["right"] for entry in bins], "o-", color=ACCENT)
        for entry in bins:
            axes.annotate(
                entry["count"],
                (entry["confidence"], entry["right"]),
                fontsize=7,
                xytext=(3, -9),
                textcoords="offset points",
            )

    return draw


def _plots(numbers: dict[str, Any]) -> Markup:
    score = "score threshold"
    return render.plots(
        [
            _square(precision_recall(numbers), "Precision and recall at IoU .5", "recall", "precision"),
            _square(_thresholds(numbers), "What a threshold shows: precision, recall and F1", score, "share"),
            _square(_calibration(numbers), "What a score means", "score of a shown face", "share that is correct"),
        ]
    )


def _figures(result: dict[str, Any], classes: Classes) -> Markup:
    counts, three = result["counts"], result.get("three_class")
    figure_name = average_precision.figure_name(classes.names)
    rows = [[figure_name, result["map50"], sum(counts["per_class"][name] for name in result["per_class"])]]
    rows += [[name, value, counts["per_class"][name]] for name, value in result["per_class"].items()]
    rows += [[SIZES[name], value, counts["by_size"][name]] for name, value in result["by_size"].items()]
    note = ""
    if three:
        third = classes.names[2]
        rows.append(["three-class mAP50", three["map50"], sum(counts["per_class"].values())])
        rows.append([third, three["per_class"][third], counts["per_class"][third]])
        note = (
            f"{third} has {counts['per_class'][third]} faces here: its figures carry a wide error. It is ignored in "
            "the two-class figures, and so are the faces marked as ignored "
            f"({counts['ignore_regions']} regions)."
        )
    return table([("", ""), ("AP50", "ap"), ("boxes", "")], [("", row) for row in rows]) + paragraph(note, "quiet")


def _threshold(numbers: dict[str, Any]) -> Markup:
    best, now = numbers["recommended"], numbers["at_score"]
    limit = (
        " It is higher than the one with the best F1, to keep false alarms on the negatives rare."
        if best["limited_by_negatives"]
        else ""
    )
    if best["too_many_false_masks_everywhere"]:
        limit = " At no threshold are false alarms on the negatives below the limit."
    text = (
        f"Recommended: {best['score']:.2f}, where {100 * best['precision']:.1f} % of the shown boxes are right "
        f"and {100 * best['recall']:.1f} % of all are found (F1 {best['f1']:.3f}).{limit} At the bundle's "
        f"{numbers['score']:g}: {100 * now['precision']:.1f} % and {100 * now['recall']:.1f} % (F1 {now['f1']:.3f}). "
        f"jetmask run --score {best['score']:.2f} shows boxes from there."
    )
    if not best["f1"]:
        text = "None can be recommended: no threshold shows a correct box."
    error = numbers["calibration"]["expected_error"]
    meaning = ""
    if error is not None:
        meaning = f"From .3 up, a score differs from the share of correct boxes by {100 * error:.1f} points."
    return paragraph(text) + paragraph(meaning) + _plots(numbers)


def _confusion(numbers: dict[str, Any], names: Sequence[str]) -> Markup:
    rows: list[list[Any]] = [[name, *row] for name, row in zip([*names, "no face"], numbers["confusion"], strict=True)]
    rows[-1][-1] = None
    columns = [("true, shown as", ""), *((name, "") for name in names), ("not found", "")]
    return table(columns, [("", row) for row in rows], f"Boxes, at {numbers['shown_at']:.2f}", diagonal=1)


def _sources(numbers: dict[str, Any], names: Sequence[str]) -> Markup:
    counted = [name for name in names if all(name in entry for entry in numbers["by_source"].values())]
    rows = [
        ("", [source, entry["map50"], *(entry[name] for name in counted), entry["images"], entry["faces"]])
        for source, entry in numbers["by_source"].items()
    ]
    columns = [("source", ""), ("mAP50", "ap"), *((name, "ap") for name in counted), ("images", ""), ("boxes", "")]
    return table(columns, rows)


def _negatives(numbers: dict[str, Any], alarms: Sequence[dict[str, str]], classes: Classes) -> Markup:
    part = numbers["negatives"]
    if part is None:
        return render.NOTHING
    names = [name for name in part["per_image"][0] if name != "score"]
    rows = [("", [f"{row['score']:.2f}", *(f"{row[name]:.3f}" for name in names)]) for row in part["per_image"]]
    counted = "with_mask" if classes.are_masks else "boxes"
    at = f"{numbers['shown_at']:.2f}"
    what = "mask" if classes.are_masks else "box"
    pictures = (
        paragraph(f"The images with the most of them, at {at}:") + sheet(alarms)
        if alarms
        else paragraph(f"At {at} there is no false {what} in any of them.")
    )
    text = f"{part['images']} images; per image and threshold. The bar is {part['limit']:g} false {counted} per image."
    return paragraph(text) + table([("threshold", ""), *((name, "") for name in names)], rows) + pictures


def page(
    split: str,
    result: dict[str, Any],
    numbers: dict[str, Any],
    pictures: Sequence[dict[str, str]],
    alarms: Sequence[dict[str, str]],
    classes: Classes = MASK_CLASSES,
) -> str:
    """The whole page. `result`: of `pipeline.evaluation.evaluate`; `numbers`: of `error_analysis.analyse`; tiles."""
    colours = [render.css_colour(colour) for colour in classes.colours()]
    shown = legend([*zip(colours, classes.words(), strict=True), ("#fff", "labelled, not found")])
    worst = together([shown, sheet(pictures)]) if pictures else paragraph("No image has an error.")
    nobody = "False masks where nobody wears one" if classes.are_masks else "False boxes where there is nothing"
    sections = [
        Section("accuracy", "Average precision", _figures(result, classes)),
        Section("threshold", "The threshold", _threshold(numbers)),
        Section("confusion", "Which class is taken for which", _confusion(numbers, classes.names)),
        Section("sources", "By source", _sources(numbers, classes.names)),
        Section("negatives", nobody, _negatives(numbers, alarms, classes)),
        Section("worst", f"The {len(pictures)} worst images", heading(f"At {numbers['shown_at']:.2f}") + worst),
    ]
    width, height = result["input_wh"]
    about = (
        f"{result['counts']['images']} images, {result['runtime']}, {result['precision']}, input {width} x {height}."
    )
    return render.page("errors.html", f"Errors of {result['variant']} on {split}", sections, about=about)
