"""Read Label Studio's JSON (the full one, and JSON-MIN): boxes in percent of the picture, turned about a corner."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jetson.errors import BadInput
from pipeline.data import attributes, jsonfile, pictures
from pipeline.data.labels import Box, Collection, Finding, Labelled, outline, size_of
from pipeline.data.source import Source

_EXPECTED = "a Label Studio export: a list of tasks"
_UPLOADED = re.compile(r"^[0-9a-f]{6,8}-")  # what Label Studio puts before the name of a file that is uploaded
_SHAPES = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels")


class _Task:
    """One task, where it stands and what is said of it."""

    def __init__(self, value: dict[str, Any], path: Path, line: int, findings: list[Finding]) -> None:
        self.value, self.path, self.line, self.findings = value, path, line, findings
        self.wh: tuple[int, int] | None = None

    def tell(self, kind: str, what: str, remedy: str, error: bool = True) -> None:
        self.findings.append(Finding(str(self.path), self.line, kind, what, remedy, error))


def read(source: Source, paths: Sequence[Path]) -> Collection:
    """`paths`: the JSON files. BadInput where one is not a list of tasks."""
    images: list[Labelled] = []
    findings: list[Finding] = []
    predicted = 0
    for path in paths or source.tree.ending(".json"):
        document = jsonfile.read(path, _EXPECTED)
        if not isinstance(document.top, list) or any(not isinstance(value, dict) for value, _ in document.top):
            raise BadInput("not a list of tasks", path, _EXPECTED)
        for value, offset in document.top:
            task = _Task(value, path, document.line_of(offset), findings)
            results, is_prediction = _results(task)
            predicted += is_prediction
            if results is None:
                continue
            boxes = _boxes(results, task)
            images.append(_labelled(task, boxes, source))
    if predicted:
        what = f"{predicted} tasks hold predictions and no annotation"
        remedy = "they are used as labels although they have not been corrected by a person"
        findings.append(Finding(str(source.path), None, "predictions", what, remedy, False))
    used = {labelled.image for labelled in images if labelled.image}
    looked_for = "no annotated task names it"
    findings += pictures.unlabelled(
        source.pictures, used, source.path, looked_for, "they are left out", source.whole and not source.image_folders
    )
    return Collection(images, findings)


def _results(task: _Task) -> tuple[list[Any] | None, bool]:
    """-> the results of the annotation that counts, or None; and whether they are a prediction."""
    value = task.value
    annotations = value.get("annotations", value.get("completions"))
    if annotations is None and "predictions" not in value:  # JSON-MIN: the results stand under the name of the tag
        lists = [v for v in value.values() if isinstance(v, list) and v and all(_is_min(r) for r in v)]
        return [{"value": r, **r} for found in lists for r in found], False
    kept = [a for a in annotations or [] if isinstance(a, dict) and not a.get("was_cancelled") and not a.get("skipped")]
    if not kept:
        predictions = [
            p for p in value.get("predictions") or [] if isinstance(p, dict) and isinstance(p.get("result"), list)
        ]
        if predictions and not annotations:
            return list(predictions[-1]["result"]), True
        task.tell("label missing", "the task has no annotation, or was skipped", "the image is left out", False)
        return None, False
    if len(kept) > 1 and any(_plain(a) != _plain(kept[0]) for a in kept[1:]):
        last = max(kept, key=lambda a: str(a.get("updated_at") or a.get("created_at") or ""))
        task.tell("annotated twice", f"{len(kept)} annotations of one task, and they differ", "the latest is used")
        kept = [last]
    result = kept[0].get("result")
    return (result if isinstance(result, list) else []), False


def _is_min(value: object) -> bool:
    return isinstance(value, dict) and ("original_width" in value or any(key in value for key in _SHAPES))


def _plain(annotation: dict[str, Any]) -> list[str]:
    result = annotation.get("result")
    return sorted(str(r.get("value")) for r in result if isinstance(r, dict)) if isinstance(result, list) else []


def _boxes(results: list[Any], task: _Task) -> list[Box]:
    """The boxes; a rectangle and its label may be two results of one id."""
    regions: dict[Any, dict[str, Any]] = {}
    for number, result in enumerate(results):
        if isinstance(result, dict) and isinstance(result.get("value"), dict):
            region = regions.setdefault(result.get("id", number), {})
            region.update(result["value"])
            region.update(
                {k: result[k] for k in ("original_width", "original_height", "image_rotation") if k in result}
            )
    boxes = []
    for region in regions.values():
        wh = size_of(region.get("original_width"), region.get("original_height"))
        task.wh = wh or task.wh
        labels = next((region[key] for key in _SHAPES if isinstance(region.get(key), list)), None)
        if labels is None:
            if any(key.endswith("labels") for key in region):
                task.tell(
                    "shape",
                    f"a region of {', '.join(k for k in region if k.endswith('labels'))} is not a box",
                    "it is left out",
                    False,
                )
            elif "width" in region:
                task.tell("class unknown", "a region has no label", "it is left out")
            continue
        if len(labels) != 1:
            what = f"a region has the labels {', '.join(map(str, labels))}" if labels else "a region has no label"
            task.tell("box contradicts", what, "it is left out")
            continue
        if region.get("image_rotation"):
            what = f"the picture was turned by {region['image_rotation']} degrees for this region"
            task.tell("box empty", what, "it is left out")
            continue
        fractions = _fractions(region, wh)
        if fractions is None:
            task.tell("box empty", f"no usable numbers in a region of {labels[0]!r}", "it is left out")
            continue
        choices = region.get("choices")
        kept = [("choice", choice) for choice in choices] if isinstance(choices, list) else []
        boxes.append(Box(attributes.named(str(labels[0]), kept), fractions, task.line, normalised=True))
    return boxes


def _fractions(region: dict[str, Any], wh: tuple[int, int] | None) -> tuple[float, float, float, float] | None:
    """Percent -> fractions of the picture; around a turned rectangle, an ellipse or a polygon."""
    try:
        if isinstance(region.get("points"), list):
            points = [(float(x) / 100, float(y) / 100) for x, y in region["points"]]
            return outline(points) if len(points) > 2 and all(math.isfinite(v) for p in points for v in p) else None
        if "radiusX" in region:
            x, y, rx, ry = (float(region[key]) / 100 for key in ("x", "y", "radiusX", "radiusY"))
            return x - rx, y - ry, 2 * rx, 2 * ry
        x, y, w, h = (float(region[key]) / 100 for key in ("x", "y", "width", "height"))
        turn = math.radians(float(region.get("rotation") or 0))
    except (KeyError, TypeError, ValueError):
        return None
    if not all(map(math.isfinite, (x, y, w, h, turn))):
        return None
    if turn:  # about the corner at the top left, in pixels
        aspect = wh[0] / wh[1] if wh else 1.0
        cos, sin = math.cos(turn), math.sin(turn)
        corners = [(0.0, 0.0), (w * aspect, 0.0), (w * aspect, h), (0.0, h)]
        return outline([(x + (a * cos - b * sin) / aspect, y + a * sin + b * cos) for a, b in corners])
    return x, y, w, h


def _labelled(task: _Task, boxes: list[Box], source: Source) -> Labelled:
    value = task.value
    inner = value.get("data")
    data: dict[str, Any] = inner if isinstance(inner, dict) else value
    names = [
        v for v in data.values() if isinstance(v, str) and re.search(r"\.(jpe?g|jpe|jfif|png|bmp|webp|tiff?)$", v, re.I)
    ]
    uploaded = value.get("file_upload")
    name = names[0] if names else str(data.get("image") or uploaded or "")
    quiet: list[Finding] = []
    hit = source.pictures.find(name, task.path, task.line, quiet)
    plain = name.replace("\\", "/").split("/")[-1]
    plain = unquote(plain) if name.startswith("/data/") else plain  # coded as in an address
    if hit.image is None and _UPLOADED.match(plain):
        # The pictures of the user have the names of before the upload.
        again = source.pictures.find(_UPLOADED.sub("", plain), task.path, task.line, quiet)
        hit = again if again.image is not None else hit
    task.findings += quiet
    orig = plain if hit.image is None else hit.image.name
    return Labelled(hit.image, name, str(task.path), task.line, boxes, task.wh, {"orig_name": orig}, hit.missing)
