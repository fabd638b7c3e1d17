"""The one layout: a folder with images/ and a COCO-style annotations.json. Read, write, aside and renamed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jetson import files
from jetson.errors import BadInput, UsageError
from pipeline.data import check, coco, imagefile
from pipeline.data.classes import MASKS, ClassSet, of_split
from pipeline.data.source import Source
from pipeline.paths import made


class Split(NamedTuple):
    """A split folder that was read: its images, its licences, the classes of its boxes."""

    entries: list[check.Entry]
    licenses: list[dict[str, Any]]
    classes: ClassSet


def load(split_dir: Path) -> Split:
    """Read a split folder; BadInput with the first findings where it is not clean."""
    path = Path(split_dir) / "annotations.json"
    if not path.is_file():
        raise BadInput(
            "there is no annotations.json",
            split_dir,
            "a folder with images/ and annotations.json",
            "import the labels with `jetmask data import`",
        )
    collection = coco.read_file(path, Source(path))
    classes = of_split(collection.names, collection.own)
    # As training and the metric read a split: as it is stored.
    entries, findings = check.check(collection, exif="stored", classes=classes)
    errors = [f for f in findings if f.error]
    if errors:
        shown = "\n  ".join(str(f) for f in errors[:5])
        raise BadInput(
            f"{len(errors)} findings, the first of them:\n  {shown}",
            path,
            "labels without an error",
            f"`jetmask data check {split_dir}` lists all; `jetmask data import --mend` writes a corrected copy",
        )
    return Split(entries, collection.licenses, classes)


def _glob_escape(text: str) -> str:
    """`text` with the signs that glob reads as patterns made plain ("masked (1452)[1].jpg" is a real name)."""
    return re.sub(r"([*?[])", r"[\1]", text)


def _alive(pid: int) -> bool:
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
            "the output folder already exists", out, "a new or an empty folder", "choose another one, or remove it"
        )
    made(out.parent)
    for left in out.parent.glob(f".{_glob_escape(out.name[:80])}.*.partial"):
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


def write(
    folder: Path,
    entries: Sequence[check.Entry],
    licenses: Sequence[dict[str, Any]],
    description: str,
    classes: ClassSet = MASKS,
) -> None:
    """Write entries as a split into `folder` (there, and empty). The images are copied, never linked: what is done to
    the copy later must not reach the source."""
    (folder / "images").mkdir(exist_ok=True)
    for entry in entries:
        target = folder / "images" / entry.name
        if entry.turned:
            files.write_bytes(str(target), imagefile.plain(entry.image.read_bytes(), entry.upright))
        else:
            shutil.copyfile(entry.image, target)
    files.write_text(str(folder / "annotations.json"), document(entries, licenses, description, classes))


def document(
    entries: Sequence[check.Entry], licenses: Sequence[dict[str, Any]], description: str, classes: ClassSet = MASKS
) -> str:
    """The text of annotations.json: one image or box a line, so that a finding has a line to point at. Classes of one's
    own are named in `info`, too: it tells them from another program's names for the three."""
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
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
    categories = [{"id": i, "name": name} for i, name in enumerate(classes.names, 1)]
    info: dict[str, Any] = {"description": description, **({"classes": list(classes.names)} if classes.own else {})}
    parts: list[tuple[str, Any]] = [
        ("info", info),
        ("licenses", list(licenses)),
        ("categories", categories),
        ("images", images),
        ("annotations", boxes),
    ]
    return "{\n" + ",\n".join(f'"{key}": {_lines(value)}' for key, value in parts) + "\n}\n"


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return _line(value)
    return "[\n" + ",\n".join(map(_line, value)) + "\n]"


def _line(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no UTF-8, kept as orig_name
        return json.dumps(value, allow_nan=False)
    return text
