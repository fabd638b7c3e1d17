"""What every importer reads a collection into: labelled images with the place of each label, and findings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CLASSES = ("with_mask", "without_mask", "mask_worn_incorrect")
IGNORE = "ignore"  # as a class: a region that neither rewards nor punishes a detector

# How the public collections call the three; letters and digits only, lower case. "face" alone is left out on purpose:
# it says nothing about a mask.
_SYNONYMS = {
    "with_mask": (
        "withmask",
        "mask",
        "masked",
        "facemask",
        "masks",
        "maskon",
        "wearingmask",
        "withfacemask",
        "goodmask",
        "maskworncorrect",
    ),
    "without_mask": (
        "withoutmask",
        "nomask",
        "unmasked",
        "maskoff",
        "nofacemask",
        "notwearingmask",
        "withoutfacemask",
        "barefaced",
    ),
    "mask_worn_incorrect": (
        "maskwornincorrect",
        "maskwearedincorrect",
        "incorrectmask",
        "maskincorrect",
        "incorrect",
        "badmask",
        "maskwornincorrectly",
        "wrongmask",
        "improperlywornmask",
        "improperfacemask",
        "incorrectlywornmask",
    ),
    IGNORE: ("ignore", "dontcare", "ignored"),
}
_CLASS_OF = {word: name for name, words in _SYNONYMS.items() for word in words}


class Finding(NamedTuple):
    """Something in a collection that is not as it should be.

    `error`: nothing is imported with it unless asked to mend; else it is a note, and what it says is done anyway.
    """

    file: str
    line: int | None
    kind: str  # box outside, box empty, class unknown, image missing, image broken, image duplicate, extension, ...
    what: str
    remedy: str  # what the import does about it
    error: bool

    def __str__(self):
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {'error' if self.error else 'note'}: {self.kind}: {self.what} -> {self.remedy}"


class Box(NamedTuple):
    """One label as it stands in the source."""

    name: str
    xywh: tuple[float, float, float, float]  # px of the stored image
    line: int | None
    normalised: bool = False  # xywh are fractions of the image's size, which the label file does not tell
    extra: Mapping = {}  # kept as it is: box_made_by, score


@dataclass
class Labelled:
    """One image and its labels."""

    image: Path | None  # None where the label does not say which image is meant, or no file of that name is there
    name: str  # the image's name as the label gives it
    file: str  # the label file
    line: int | None
    boxes: list[Box]
    wh: tuple[int, int] | None = None  # as the label says
    extra: dict = field(default_factory=dict)  # source, license, tags, orig_name: kept as they are


class Collection(NamedTuple):
    """What an importer returns."""

    images: list[Labelled]
    findings: list[Finding]
    licenses: list[dict] = []


def class_of(name: str, mapping: Mapping[str, str]) -> str | None:
    """-> one of CLASSES or IGNORE for a source's class name; None for one that nobody knows."""
    if name in mapping:
        return mapping[name]
    return _CLASS_OF.get(re.sub(r"[^a-z0-9]", "", name.lower()))


def nearest_class(name: str) -> str | None:
    """The class whose name is most like `name`, for an error message; None where none is ("class 0", "kid")."""
    near = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", name.lower()), list(_CLASS_OF), 1, 0.6)
    return _CLASS_OF[near[0]] if near else None


def find_image(
    folders: list[Path],
    name: str,
    file: str,
    line: int | None,
    findings: list[Finding],
    known: dict[Path, dict[str, list[Path]]],
) -> Path | None:
    """The image called `name` in one of `folders`; one of the same stem where only the extension differs.

    `known`: what was listed of the folders already, empty at first: to list one for every name would take hours where
    thousands of names have another extension.
    """
    name = name.replace("\\", "/")
    if name.startswith("/") or ".." in Path(name).parts:
        name = Path(name).name  # a label file must not fetch pictures from elsewhere on this machine
    for folder in folders:
        for candidate in (folder / name, folder / Path(name).name):
            if _is_file(candidate):
                return candidate
    for folder in folders:
        if folder not in known:
            known[folder] = {}
            for image in images_in(folder) if folder.is_dir() else ():
                known[folder].setdefault(image.stem, []).append(image)
        for candidate in known[folder].get(Path(name).stem, ())[:1]:
            what = f"{name} is not there, {candidate.name} is"
            findings.append(Finding(file, line, "extension", what, "that one is taken", False))
            return candidate
    return None


def _is_file(path):
    try:
        return path.is_file()
    except OSError:  # a name that no file can have, such as a long URL
        return False


IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def glob_escape(text: str) -> str:
    """`text` with the signs that glob reads as patterns made plain ("masked (1452)[1].jpg" is a real name)."""
    return re.sub(r"([*?[])", r"[\1]", text)


def images_in(folder: Path) -> list[Path]:
    """The image files directly in `folder`, by name; not the hidden ones."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and _shown(p) and p.is_file())


def labels_in(folder: Path, suffix: str) -> list[Path]:
    """The label files directly in `folder`, by name; not the hidden ones."""
    return sorted(p for p in folder.glob("*" + suffix) if _shown(p))


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in `folder`, by name; not the hidden ones."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and _shown(p))


def _shown(path):
    # macOS puts a "._NAME" beside every file that it zips or copies to another file system, or all into one folder.
    return not path.name.startswith(".") and path.name != "__MACOSX"


def shared(image: Path, other: Path) -> Finding:
    """What is wrong with a second image of the same stem: whose the label is cannot be told, and an image of faces that
    is taken for one without teaches a detector to miss them."""
    what = f"{other.name} has the label {image.stem}.txt already"
    return Finding(str(image), None, "label shared", what, "the image is left out", True)
