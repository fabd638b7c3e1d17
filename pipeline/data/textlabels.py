"""Which text file is whose label, where the two lie in folders of their own: YOLO and KITTI."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from jetson.errors import BadInput
from pipeline.data import pictures, recognise, textfile
from pipeline.data.labels import Box, Collection, Finding, Labelled
from pipeline.data.source import Source

# Folders that hold one kind: what is left of a path without them is the same for an image and its label.
_OF_IMAGES = {"images", "image", "imgs", "img", "jpegimages", "image_2", "pictures", "photos"}
_OF_LABELS = {"labels", "label", "label_2", "annotations", "annotation", "txt", "yolo_labels"}
_PART = "they are left out; an empty .txt says that a picture has no face"
_OF_BOTH = {"obj_train_data", "obj_valid_data", "obj_test_data", "data"}


def read(
    source: Source,
    labels: Sequence[Path],
    boxes_of: Callable[[Path, list[Finding]], list[Box]],
    expected: str,
    names: Sequence[str] = (),
) -> Collection:
    """Pair each picture with its label file and read that by `boxes_of`. A picture without a label in a folder whose
    others have one is one without faces. BadInput where nothing pairs."""
    findings: list[Finding] = []
    images = source.pictures.all
    if not images:
        raise BadInput(
            "no pictures found",
            source.path,
            expected,
            "import the folder with the pictures, or give it with --images DIR",
        )
    pairs, shared = _pairs(source, labels)
    if not pairs:
        raise BadInput(
            f"no picture has a label: looked for {_looked_for(source, images[0])}",
            source.path,
            expected,
            "put each label beside its picture or into a folder labels/ beside images/",
        )
    taken: dict[Path, Path] = {}  # label: the image that has it
    found: list[Labelled] = []
    missing = _left_out(source, pairs, labels, findings)
    for image in images:
        path = pairs.get(image)
        if path is not None and path in taken:
            findings.append(_shared(image, taken[path], path))
            continue
        if path is None and image in missing:
            continue
        if path is not None:
            taken[path] = image
        boxes = boxes_of(path, findings) if path else []
        found.append(Labelled(image, image.name, str(path or image), None, boxes, None, {"orig_name": image.name}))
    for image, path in shared.items():
        what = f"{source.shown(path)} is in another folder and is the only file of that name"
        findings.append(Finding(str(image), None, "label elsewhere", what, "it is used as the label", False))
    findings += _without_image(source, labels, set(taken), bool(source.image_folders))
    return Collection(found, findings, [], names)


def _pairs(source: Source, labels: Sequence[Path]) -> tuple[dict[Path, Path], dict[Path, Path]]:
    """-> {image: its label}, and those of them that are told by nothing but their name."""
    places: dict[tuple[str, ...], Path] = {}
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in labels:
        parts = path.relative_to(source.tree.root).parent.parts
        places.setdefault(("beside", *path.parent.parts, path.stem), path)
        places.setdefault(("in", *_kept(parts, _OF_LABELS | _OF_BOTH), path.stem), path)
        stems[path.stem].append(path)
    of_stem: dict[str, int] = defaultdict(int)
    for image in source.pictures.all:
        of_stem[image.stem] += 1
    pairs, by_name = {}, {}
    for image in source.pictures.all:
        ways: list[tuple[str, ...]] = [("beside", *image.parent.parts, image.stem)]
        for root in source.image_folders or [source.tree.root]:
            if root in image.parents:
                below = _kept(image.relative_to(root).parent.parts, _OF_IMAGES | _OF_BOTH)
                ways.append(("in", *below, image.stem))
                if source.image_folders:
                    ways.append(("in", root.name, *below, image.stem))
        label = next((places[way] for way in ways if way in places), None)
        if label is None and len(stems[image.stem]) == 1 and of_stem[image.stem] == 1:
            label = by_name[image] = stems[image.stem][0]
        if label is not None:
            pairs[image] = label
    return pairs, by_name


def _kept(parts: Sequence[str], dropped: set[str]) -> tuple[str, ...]:
    return tuple(part for part in parts if part.casefold() not in dropped)


def _left_out(source: Source, pairs: dict[Path, Path], labels: Sequence[Path], findings: list[Finding]) -> set[Path]:
    """The pictures that are left out since no picture of their folder has a label; what is told of all without one."""
    used = set(pairs)
    folders = {image.parent for image in used}
    first = next((image for image in source.pictures.all if image not in used), None)
    if first is not None:
        looked_for = f"looked for {_looked_for(source, first)}"
        remedy = "treated as an image without faces"
        told = pictures.unlabelled(source.pictures, used, source.path, looked_for, remedy)
        if any(finding.error for finding in told):
            # Most of a folder that is labelled in part are no pictures without faces: to train on them so would harm.
            told = [finding._replace(remedy=_PART) if finding.error else finding for finding in told]
            folders = set()
        findings += told
    return {image for image in source.pictures.all if image.parent not in folders}


def _looked_for(source: Source, image: Path) -> str:
    """Where the label of an image was looked for, for a message."""
    beside = image.with_suffix(".txt")
    parts = list(image.parts)
    swapped = [i for i, part in enumerate(parts[:-1]) if part.casefold() in _OF_IMAGES]
    if swapped:
        parts[swapped[-1]] = "labels"
        return f"{source.shown(Path(*parts).with_suffix('.txt'))} and {source.shown(beside)}"
    return f"{source.shown(beside)} and {source.shown(image.parent / 'labels' / beside.name)}"


def _shared(image: Path, other: Path, label: Path) -> Finding:
    """What is wrong with a second image of the same stem: whose the label is cannot be told, and an image of faces that
    is taken for one without teaches a detector to miss them."""
    what = f"{other.name} already has the label {label.name}"
    return Finding(str(image), None, "label shared", what, "the image is left out", True)


def _is_label(path: Path) -> bool:
    """Whether a text file without a picture is a label: a note of its owner lies there, too."""
    line = textfile.head(path, 2048).removeprefix("\ufeff").lstrip().split("\n", 1)[0]
    return not line or recognise.of_line(line) is not None


def _without_image(source: Source, labels: Sequence[Path], taken: set[Path], chosen_images: bool) -> list[Finding]:
    """Labels of no picture: one finding each, one for a folder of which none has a picture."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in labels:
        if path not in taken and _is_label(path):
            folders[path.parent].append(path)
    found = []
    with_image = {path.parent for path in taken}
    for folder, paths in folders.items():
        if folder not in with_image and (chosen_images or all(not path.stat().st_size for path in paths)):
            continue  # the labels of other pictures than --images names
        if folder not in with_image and len(paths) > 1:
            what = f"none of the {len(paths)} labels has a picture, for instance {paths[0].name}"
            found.append(Finding(str(folder), None, "images missing", what, "the labels are left out", True))
            continue
        for path in paths:
            what = f"no image named {path.stem}"
            found.append(Finding(str(path), None, "image missing", what, "the label is left out", True))
    return found
