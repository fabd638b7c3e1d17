"""`jetmask data prelabel`: a first draft of labels by a detector, in a format that a labelling tool opens.

Correcting boxes takes a fraction of the time that drawing them takes. What comes out of the tool is imported again.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape

from jetson import files
from jetson.bundle import manifest
from jetson.errors import BadInput, UsageError
from pipeline.cluster import Cluster
from pipeline.data import finder, layout
from pipeline.data.labels import Finding


class Draft(NamedTuple):
    """One photograph's boxes: (class name, x, y, width, height, score) in px of the picture `name`."""

    name: str
    wh: tuple[int, int]
    boxes: list[tuple[str, float, float, float, float, float]]


@dataclass(frozen=True)
class Settings:
    """Which photographs, for which tool. `out` None: beside the folder; `score` None: that of the bundle."""

    folder: Path
    form: str
    bundle: str
    out: Path | None = None
    variant: str | None = None
    score: float | None = None
    json: bool = False
    ray: str | None = None


class _Looked(NamedTuple):
    """A photograph with its boxes: `data` without an EXIF turn, `suffix` that of its content."""

    suffix: str
    data: bytes
    wh: tuple[int, int]
    boxes: list[tuple[str, float, float, float, float, float]]


class _Each:
    """Looks at one photograph after the other, in this process or as a worker of a cluster, and says why not."""

    def __init__(self, bundle: str, variant: str | None, score: float | None, threads: int | None) -> None:
        self.finder = finder.Finder(bundle, variant, threads)
        self.score = score or self.finder.score

    def __call__(self, path: Path) -> _Looked | Finding:
        found = self.finder.one(path, self.score)
        if isinstance(found, Finding):
            return found
        boxes = [
            (self.finder.classes[label], *_xywh(xyxy), round(float(score), 4))
            for xyxy, label, score in zip(
                found.faces.xyxy.tolist(), found.faces.labels, found.faces.confidence, strict=True
            )
        ]
        return _Looked(found.suffix, found.data, found.wh, boxes)


def _look(settings: Settings, images: Sequence[Path]) -> Iterator[tuple[int, _Looked | Finding]]:
    """(number of the photograph, what came of it), in any order."""
    if settings.ray is None:
        each = _Each(settings.bundle, settings.variant, settings.score, None)
        with each.finder:
            yield from enumerate(map(each, images))
        return
    lost = set(range(len(images)))
    # Workers have other working folders, and one thread each.
    what = (os.path.abspath(settings.bundle), settings.variant, settings.score, 1)
    with Cluster(settings.ray) as cluster:
        for number, done in cluster.spread(_Each, what, [path.absolute() for path in images]):
            lost.remove(number)
            yield number, done._replace(file=str(images[number])) if isinstance(done, Finding) else done
    for number in sorted(lost):
        yield number, finder.left_out(images[number], "the process that read it died")


def run(settings: Settings) -> int:
    """Write pictures and labels; BadInput where no photograph can be read."""
    if settings.score is not None and not 0 < settings.score < 1:
        raise UsageError(f"--score {settings.score:g} is not a score", None, "a number between 0 and 1")
    folder = Path(settings.folder)
    images = finder.photographs(folder)
    out = settings.out or folder.absolute().parent / f"{folder.absolute().name}_{settings.form}"
    contents = manifest.load(settings.bundle)
    classes = contents.class_list.names
    variant, _ = finder.choose(contents, settings.variant)
    looked: dict[int, _Looked] = {}
    findings: dict[int, Finding] = {}
    with layout.folder_aside(out) as part:
        (part / "images").mkdir()
        for done, (number, found) in enumerate(_look(settings, images), 1):
            finder.progress(done, len(images))
            if isinstance(found, Finding):
                findings[number] = found
                continue
            files.write_bytes(str(part / "images" / f"{number}.part"), found.data)
            looked[number] = found._replace(data=b"")
        drafts: list[Draft] = []
        taken: set[str] = set()
        for number, found in sorted(looked.items()):  # names in the order of the folder, whoever was done first
            name = finder.free_name(images[number], found.suffix, taken)
            (part / "images" / f"{number}.part").rename(part / "images" / name)
            drafts.append(Draft(name, found.wh, found.boxes))
        for _, finding in sorted(findings.items()):
            print(finding, file=sys.stderr)
        if not drafts:
            raise BadInput("no photograph can be read", folder, "JPEG, PNG, BMP, WebP or TIFF")
        WRITERS[settings.form](part, out.name, drafts, classes)
    counts = Counter(box[0] for draft in drafts for box in draft.boxes)
    summary = {
        "out": str(out),
        "images": len(drafts),
        "boxes": dict(counts),
        "variant": variant,
        "left_out": len(findings),
    }
    if settings.json:
        print(json.dumps(summary))
        return 0
    shown = ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "no box"
    print(f"wrote {out}: {len(drafts)} images, {shown} ({variant})")
    print(f"{OPENS[settings.form].format(out=out, name=out.name)}\nthen: {_THEN[settings.form].format(out=out)}")
    return 0


def _xywh(xyxy: Sequence[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (round(v, 2) for v in xyxy)
    return x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)


def _yolo(part: Path, _: str, drafts: Sequence[Draft], classes: Sequence[str]) -> None:
    (part / "labels").mkdir()
    for draft in drafts:
        w, h = draft.wh
        lines = [
            f"{classes.index(name)} {(x + bw / 2) / w:.6f} {(y + bh / 2) / h:.6f} {bw / w:.6f} {bh / h:.6f}\n"
            for name, x, y, bw, bh, _score in draft.boxes
        ]
        files.write_text(str(part / "labels" / (Path(draft.name).stem + ".txt")), "".join(lines))
    names = "".join(f"{name}\n" for name in classes)
    files.write_text(str(part / "labels" / "classes.txt"), names)  # labelImg looks for it there,
    files.write_text(str(part / "classes.txt"), names)  # Label Studio's converter here
    listed = "".join(f"  {i}: {json.dumps(name, ensure_ascii=False)}\n" for i, name in enumerate(classes))
    files.write_text(str(part / "data.yaml"), f"path: .\ntrain: images\nval: images\nnames:\n{listed}")


def _voc(part: Path, name: str, drafts: Sequence[Draft], _: Sequence[str]) -> None:
    (part / "annotations").mkdir()
    for draft in drafts:
        w, h = draft.wh
        objects = "".join(
            f"  <object>\n    <name>{escape(label)}</name>\n    <pose>Unspecified</pose>\n"
            f"    <truncated>0</truncated>\n    <difficult>0</difficult>\n"
            f"    <bndbox><xmin>{x:.2f}</xmin><ymin>{y:.2f}</ymin>"
            f"<xmax>{x + bw:.2f}</xmax><ymax>{y + bh:.2f}</ymax></bndbox>\n  </object>\n"
            for label, x, y, bw, bh, _score in draft.boxes
        )
        text = (
            f"<annotation>\n  <folder>images</folder>\n  <filename>{escape(draft.name)}</filename>\n"
            f"  <source><database>{escape(name)}</database></source>\n"
            f"  <size><width>{w}</width><height>{h}</height><depth>3</depth></size>\n  <segmented>0</segmented>\n"
            f"{objects}</annotation>\n"
        )
        files.write_text(str(part / "annotations" / (Path(draft.name).stem + ".xml")), text)


def _coco(part: Path, name: str, drafts: Sequence[Draft], classes: Sequence[str]) -> None:
    annotations: list[dict[str, Any]] = []
    for image, draft in enumerate(drafts, 1):
        for label, x, y, w, h, score in draft.boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": classes.index(label) + 1,
                    "bbox": [x, y, w, h],
                    "area": round(w * h, 2),
                    "iscrowd": 0,
                    "segmentation": [],
                    "score": score,
                }
            )
    document = {
        "info": {"description": f"{name}: draft labels made by a detector, to be corrected"},
        "licenses": [],
        "categories": [{"id": i, "name": n, "supercategory": ""} for i, n in enumerate(classes, 1)],
        "images": [
            {"id": i, "file_name": d.name, "width": d.wh[0], "height": d.wh[1]} for i, d in enumerate(drafts, 1)
        ],
        "annotations": annotations,
    }
    (part / "annotations").mkdir()
    files.write_json(str(part / "annotations" / "instances_default.json"), document)


def _label_studio(part: Path, name: str, drafts: Sequence[Draft], classes: Sequence[str]) -> None:
    tasks = []
    for draft in drafts:
        w, h = draft.wh
        result = [
            {
                "id": f"{number}",
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": w,
                "original_height": h,
                "image_rotation": 0,
                "score": score,
                "value": {
                    "x": 100 * x / w,
                    "y": 100 * y / h,
                    "width": 100 * bw / w,
                    "height": 100 * bh / h,
                    "rotation": 0,
                    "rectanglelabels": [label],
                },
            }
            for number, (label, x, y, bw, bh, score) in enumerate(draft.boxes, 1)
        ]
        scores = [box[5] for box in draft.boxes]
        # Files of the machine that Label Studio runs on, below its document root (see docs/labels.md).
        image = "/data/local-files/?d=" + quote(f"{name}/images/{draft.name}")
        prediction = {"model_version": "jetmask", "score": min(scores, default=0.0), "result": result}
        tasks.append({"data": {"image": image}, "predictions": [prediction]})
    files.write_json(str(part / "tasks.json"), tasks)
    labels = "".join(f'    <Label value="{escape(n, {chr(34): "&quot;"})}"/>\n' for n in classes)
    config = (
        '<View>\n  <Image name="image" value="$image"/>\n  <RectangleLabels name="label" toName="image">\n'
        f"{labels}  </RectangleLabels>\n</View>\n"
    )
    files.write_text(str(part / "label_config.xml"), config)


WRITERS: dict[str, Callable[[Path, str, Sequence[Draft], Sequence[str]], None]] = {
    "yolo": _yolo,
    "voc": _voc,
    "coco": _coco,
    "label-studio": _label_studio,
}
OPENS = {
    "yolo": "open it in labelImg: labelImg {out}/images {out}/labels/classes.txt {out}/labels",
    "voc": "open it in labelImg: labelImg {out}/images, save folder {out}/annotations",
    "coco": "upload it to CVAT: a task with {out}/images, then its annotations as COCO 1.0",
    "label-studio": "open it in Label Studio: settings of {out}/label_config.xml, import "
    "{out}/tasks.json, local files of the folder above {name}",
}
_THEN = {
    "yolo": "jetmask data import {out} OUT",
    "voc": "jetmask data import {out} OUT",
    "coco": "jetmask data import CVATS_EXPORT --images {out}/images OUT",
    "label-studio": "jetmask data import ITS_EXPORT.json --images {out}/images OUT",
}
