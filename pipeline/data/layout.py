"""The one layout: a folder with images/ and a COCO-style annotations.json. Read, write, aside and renamed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from jetson import files
from jetson.errors import BadInput, UsageError
from pipeline.data import check, coco, imagefile
from pipeline.data.labels import CLASSES, glob_escape
from pipeline.paths import made


def load(split_dir: Path) -> tuple[list[check.Entry], list[dict]]:
    """-> entries and licences of a split; BadInput with the first findings where it is not clean."""
    path = Path(split_dir) / "annotations.json"
    if not path.is_file():
        raise BadInput(
            "there is no annotations.json",
            split_dir,
            "a folder with images/ and annotations.json",
            "import the labels with `jetmask data import`",
        )
    collection = coco.read(path, [Path(split_dir)])
    entries, findings = check.check(collection, exif="stored")  # as training and the metric read a split
    errors = [f for f in findings if f.error]
    if errors:
        shown = "\n  ".join(str(f) for f in errors[:5])
        raise BadInput(
            f"{len(errors)} findings, the first of them:\n  {shown}",
            path,
            "labels without an error",
            f"`jetmask data check {split_dir}` lists all; `jetmask data import --mend` writes a mended copy",
        )
    return entries, collection.licenses


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def folder_aside(out: Path) -> Iterator[Path]:
    """Yield a new folder beside `out`; renamed to `out` at the end, removed on any exception. `out` must not exist."""
    out = Path(out).absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(
            "the folder to write exists already", out, "a new or an empty folder", "name another, or remove it"
        )
    made(out.parent)
    for left in out.parent.glob(f".{glob_escape(out.name[:80])}.*.partial"):
        if not _alive(int(left.name.split(".")[-3])):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    part = out.parent / f".{out.name[:80]}.{os.getpid()}.{secrets.token_hex(4)}.partial"
    part.mkdir()
    try:
        yield part
        os.replace(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write(folder: Path, entries: list[check.Entry], licenses: list[dict], description: str) -> None:
    """Write entries as a split into `folder` (there, and empty). The images are copied, never linked: what is done to
    the copy later must not reach the source."""
    (folder / "images").mkdir(exist_ok=True)
    for entry in entries:
        target = folder / "images" / entry.name
        if entry.turned:
            files.write_bytes(str(target), imagefile.plain(entry.image.read_bytes(), entry.upright))
        else:
            shutil.copyfile(entry.image, target)
    files.write_text(str(folder / "annotations.json"), document(entries, licenses, description))


def document(entries: list[check.Entry], licenses: list[dict], description: str) -> str:
    """The text of annotations.json: one image or box a line, so that a finding has a line to point at."""
    images: list[dict] = []
    boxes: list[dict] = []
    for number, entry in enumerate(entries, 1):
        image = {
            "id": number,
            "file_name": f"images/{entry.name}",
            "width": entry.wh[0],
            "height": entry.wh[1],
            **entry.extra,
        }
        if entry.ignore:
            image["ignore_boxes"] = entry.ignore
        images.append(image)
        extras = entry.extra_of_box or [{}] * len(entry.boxes)
        for box, label, extra in zip(entry.boxes, entry.labels, extras, strict=True):
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": box,
                    "area": round(box[2] * box[3], 3),
                    "iscrowd": 0,
                    **extra,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    parts = [
        ("info", {"description": description}),
        ("licenses", licenses),
        ("categories", categories),
        ("images", images),
        ("annotations", boxes),
    ]
    return "{\n" + ",\n".join(f'"{key}": {_lines(value)}' for key, value in parts) + "\n}\n"


def _lines(value):
    if not isinstance(value, list) or not value:
        return _line(value)
    return "[\n" + ",\n".join(map(_line, value)) + "\n]"


def _line(value):
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no UTF-8, kept as orig_name
        return json.dumps(value, allow_nan=False)
    return text
