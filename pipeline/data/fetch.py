"""`jetmask data fetch NAME`: what public collections there are, under which terms, and how to get them.

Downloads go on where they broke off. Where a collection cannot be had without a login, or there is no network, it
says which file to place where. A checksum is given only where one is known; otherwise what was received is written
down beside the file, so that the next person can compare. The addresses were written down without trying them.
"""

from __future__ import annotations

import difflib
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jetson import files
from jetson.cli import table
from jetson.errors import BadInput, JetmaskError, UsageError
from pipeline.data.download import fetch, unpack

log = logging.getLogger(__name__)


class Download(NamedTuple):
    file: str  # the name it gets here
    url: str | None  # None: only with a login, by hand
    sha256: str | None = None  # None: not known


class Source(NamedTuple):
    """One public collection. What is said of licences is what its publisher says there, and not verified."""

    title: str
    page: str
    licence: str
    accept: str  # what its user must know or agree to
    downloads: tuple[Download, ...]
    then: str  # the command that brings it into the layout


SOURCES = {
    "andrewmvd": Source(
        "Face Mask Detection, 853 images with Pascal VOC boxes of all three classes",
        "https://www.kaggle.com/datasets/andrewmvd/face-mask-detection",
        "CC0 1.0, as its publisher declares; many are press photographs, so the declaration is only the publisher's",
        "a Kaggle account, and Kaggle's terms",
        (Download("face-mask-detection.zip", None),),
        "jetmask data import DIR/face-mask-detection OUT --format voc",
    ),
    "chandrikadeb7": Source(
        "Face-Mask-Detection, images of one face each in two folders, without boxes",
        "https://github.com/chandrikadeb7/Face-Mask-Detection",
        "MIT (the repository's LICENSE); the images come from the web, rights to single ones are not verified",
        "nothing; it has no boxes, so it needs a face detector before it can be imported",
        (Download("chandrikadeb7.zip", "https://codeload.github.com/chandrikadeb7/Face-Mask-Detection/zip/7e50074"),),
        "no import: classification folders; boxes must be made first",
    ),
    "darun18": Source(
        "Face-Mask-Detection by Darun-18, a Roboflow export (face-mask-jk4nr v18), loose whole-head boxes",
        "https://github.com/Darun-18/Face-Mask-Detection",
        "CC BY 4.0, as its README states: name the author",
        "attribution",
        (Download("darun18.zip", "https://codeload.github.com/Darun-18/Face-Mask-Detection/zip/e114358"),),
        "jetmask data import DIR/darun18/FOLDER OUT --format yolo",
    ),
    "nottanishqq": Source(
        "Automated-Safety-Compliance-Detection, YOLO labels, many masks drawn on",
        "https://github.com/nottanishqq/Automated-Safety-Compliance-Detection-Face-Mask-YOLOv8-",
        "MIT (the repository's LICENSE); rights to single photographs are not verified",
        "nothing",
        (
            Download(
                "nottanishqq.zip",
                "https://codeload.github.com/nottanishqq/Automated-Safety-Compliance-Detection-Face-Mask-YOLOv8-/zip/68bdf44",
            ),
        ),
        "jetmask data import DIR/nottanishqq/FOLDER OUT --format yolo",
    ),
    "roboflow-mask-wearing": Source(
        "Mask Wearing, 149 images, loose boxes of two classes",
        "https://public.roboflow.com/object-detection/mask-wearing",
        "Public Domain, as its README states",
        "a Roboflow account for the download",
        (Download("mask-wearing.zip", None),),
        "jetmask data import DIR/mask-wearing OUT --format yolo",
    ),
    "wider-face": Source(
        "WIDER FACE, 32,203 images of bare faces in crowds (no mask labels): negatives, and faces to draw masks on",
        "http://shuoyang1213.me/WIDERFACE/",
        "stated by its authors for research; check the page before any other use, and before you ship weights",
        "the authors' terms",
        (Download("WIDER_train.zip", None), Download("wider_face_split.zip", None)),
        "its label format is not supported: convert it to COCO first, every face as without_mask",
    ),
    "maskedface-net": Source(
        "MaskedFace-Net, 137,016 portraits with masks drawn on, worn well and badly, one face each, no boxes",
        "https://github.com/cabani/MaskedFace-Net",
        "CC BY-NC-SA 4.0 (non-commercial), built on FFHQ: see its page",
        "non-commercial use only",
        (Download("CMFD.zip", None), Download("IMFD.zip", None)),
        "no import: no boxes",
    ),
    "intel-clips": Source(
        "sample videos of people without masks, for trying the runner and for false alarms",
        "https://github.com/intel-iot-devkit/sample-videos",
        "CC BY 4.0, as its README states: name Intel",
        "attribution",
        (
            Download(
                "head-pose-face-detection-female-and-male.mp4",
                "https://github.com/intel-iot-devkit/sample-videos/raw/master/head-pose-face-detection-female-and-male.mp4",
            ),
        ),
        "no import: jetmask run --bundle jetson/models --source DIR/head-pose-face-detection-female-and-male.mp4",
    ),
}


@dataclass(frozen=True)
class Settings:
    """`name`: of SOURCES, or None to list them; `accept`: its licence was read."""

    name: str | None
    to: Path = Path("downloads")
    accept: bool = False
    json: bool = False


def run(settings: Settings) -> int:
    """Download one collection, or list all; what cannot be downloaded is said with where to place it."""
    if settings.name is None:
        if settings.json:
            print(json.dumps({name: source._asdict() for name, source in SOURCES.items()}))
        else:
            width = max(map(len, SOURCES))
            for name, source in SOURCES.items():
                how = "by hand" if any(d.url is None for d in source.downloads) else "download"
                print(f"{name:<{width}}  {how:<8}  {source.title}")
        return 0
    if settings.name not in SOURCES:
        near = difflib.get_close_matches(settings.name, SOURCES, 1, 0.3)
        raise UsageError(
            f"unknown collection {settings.name!r}",
            None,
            "one of " + ", ".join(SOURCES),
            f"did you mean {near[0]}?" if near else None,
        )
    source = SOURCES[settings.name]
    print(
        f"{source.title}\n  page: {source.page}\n  licence: {source.licence}\n  you need: {source.accept}",
        file=sys.stderr,
    )
    if not settings.accept:
        raise UsageError(
            "the licence has not been accepted",
            source.page,
            "--accept, after reading the licence on its page",
            f"jetmask data fetch {settings.name} --to {settings.to} --accept",
        )
    got: list[dict[str, Any]] = []
    missing: list[Path] = []
    for download in source.downloads:
        path = settings.to / download.file
        if path.is_file():
            digest = files.sha256(str(path))
            if download.sha256 not in (None, digest):
                raise BadInput(f"its sha256 is {digest}", path, download.sha256, "remove it and fetch it again")
        elif download.url is None:
            missing.append(path)
            continue
        else:
            digest = fetch(download.url, path, download.sha256, _progress(download.file))
        got.append(
            {"file": str(path), "bytes": path.stat().st_size, "sha256": digest, "checked": download.sha256 is not None}
        )
    if missing:
        raise JetmaskError(
            f"{settings.name} can only be downloaded by hand",
            source.page,
            ", ".join(str(p) for p in missing),
            f"download it from its page, save it as shown, and run this command again; then: {source.then}",
        )
    settings.to.mkdir(parents=True, exist_ok=True)
    files.write_json(
        str(settings.to / f"{settings.name}.fetched.json"),
        {"page": source.page, "licence": source.licence, "files": got},
    )
    for one in got:
        path = Path(one["file"])
        folder = path.with_suffix("")
        if path.suffix == ".zip" and not folder.exists():
            log.info(f"unpacked {unpack(path, folder)} files into {folder}")
    if settings.json:
        print(json.dumps(got))
    else:
        print(
            table(
                ["file", "bytes", "sha256", "known"],
                [[o["file"], o["bytes"], o["sha256"][:16], "yes" if o["checked"] else "no"] for o in got],
            )
        )
        print(f"next: {source.then.replace('DIR', str(settings.to))}")
    return 0


def _progress(name: str) -> Callable[[int, int | None], None]:
    last = [0.0]

    def show(done: int, total: int | None) -> None:
        if time.monotonic() - last[0] > 1 or done == total:
            last[0] = time.monotonic()
            log.info(f"{name}: {done / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB"))

    return show
