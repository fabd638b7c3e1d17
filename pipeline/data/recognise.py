"""Which format a source's labels are in, told from what lies in it; what is not known is named with what was seen."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from jetson.errors import BadInput
from pipeline.data import textfile, yolo_names
from pipeline.data.source import Source
from pipeline.data.tree import IMAGE_SUFFIXES

OWN_NAME = "annotations.json"  # jetmask's own layout
COCO_NAMES = (OWN_NAME, "_annotations.coco.json")  # and that of a Roboflow export

# What is read, in words; the first of those that a folder has labels of is taken.
READS = {
    "coco": "COCO json (instances_*.json, annotations.json, _annotations.coco.json, result.json)",
    "cvat": "CVAT xml (<annotations>)",
    "labelstudio": "Label Studio json",
    "labelme": "LabelMe json",
    "via": "VIA json or csv",
    "createml": "CreateML json",
    "voc": "Pascal VOC xml (<annotation>)",
    "tfcsv": "TensorFlow csv (filename, class, xmin, ymin, xmax, ymax)",
    "kitti": "KITTI or TAO txt (15 words per line)",
    "yolo": "YOLO txt (class x y width height) with data.yaml, classes.txt or obj.names",
}
_NO_LABELS = re.compile(
    r"(classes|labels|train|val|valid|test|trainval|default|predefined_classes|readme.*|.*_list)\.txt$"
)
_MOST_LOOKED_AT = 300  # label files of one folder that say nothing, before it is given up


def recognise(source: Source) -> dict[str, list[Path]]:
    """-> {format: its label files}, the one to take first. BadInput where there is none that is known."""
    if source.path.is_file() and not source.whole:
        form = _of_file(source.path)
        if form is None:
            raise _unknown(source)
        return {form: [source.path]}
    found: dict[str, list[Path]] = {}
    for path in source.tree.ending(".json", ".xml", ".csv"):
        form = _of_file(path)
        if form is not None:
            found.setdefault(form, []).append(path)
    _add_broken(source, found)
    for form, paths in _of_texts(source).items():
        found.setdefault(form, []).extend(paths)
    if "coco" in found:
        found["coco"] = _sets(source, found["coco"])
    if not found and yolo_names.sources(source.tree):
        return {"yolo": []}
    if not found:
        raise _unknown(source)
    return {form: found[form] for form in READS if form in found}


def _of_file(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return of_json(path) or ("coco" if path.name.lower() in COCO_NAMES else None)
    if suffix == ".xml":
        top = re.search(r"<\s*([A-Za-z_][\w.:-]*)", re.sub(r"<[?!][^>]*>", "", textfile.head(path)))
        return {"annotation": "voc", "annotations": "cvat"}.get(top.group(1)) if top else None
    if suffix == ".csv":
        first = textfile.head(path).removeprefix("\ufeff").split("\n", 1)[0].casefold()
        if "region_shape_attributes" in first:
            return "via"
        words = {word.strip(' "\r').replace("_", "") for word in re.split("[,;\t]", first)}
        corners = ({"xmin", "ymin", "xmax", "ymax"}, {"x1", "y1", "x2", "y2"}, {"left", "top", "right", "bottom"})
        return "tfcsv" if any(sides <= words for sides in corners) else None
    return None


def of_json(path: Path) -> str | None:
    """The format of a JSON file by its first keys; None for one that is no labels, or none that is known."""
    head = textfile.head(path).removeprefix("\ufeff").lstrip()

    def has(*keys: str) -> bool:
        return all(re.search(rf'"{key}"\s*:', head) for key in keys)

    if head.startswith("["):
        if has("data") or has("original_width") or re.search(r'"(rectangle|polygon|brush)?labels"\s*:', head):
            return "labelstudio"
        return "createml" if has("annotations?") and has("image(filename)?") else None
    if not head.startswith("{"):
        return None
    if has("shapes") or (has("imageData") and b'"shapes"' in path.read_bytes()):  # behind the picture itself
        return "labelme"
    if "_via_" in head or has("regions", "filename") or has("view", "metadata", "config"):
        return "via"
    if has("images") and has("annotations", "categories"):
        return None if has("caption") and not has("bbox") else "coco"
    if has("images") or has("categories") or has("annotations") or has("info"):  # the rest lies further behind
        data = path.read_bytes()
        keys = [b'"images"', b'"annotations"', b'"categories"', b'"bbox"']
        return "coco" if all(key in data for key in keys) else None
    return None


def of_line(line: str) -> str | None:
    """ "yolo", "kitti" or None for the first line of a text file."""
    words = line.split()
    numbers = [_is_number(word) for word in words]
    if len(words) >= 5 and all(numbers) and words[0].isdecimal():
        return "yolo"
    first = next((i for i, number in enumerate(numbers) if number), 0)
    # Eight numbers first and a name behind are DOTA's; here the name is in front.
    return "kitti" if first and len(words) - first >= 7 and all(numbers[first + 3 :]) else None


def _add_broken(source: Source, found: dict[str, list[Path]]) -> None:
    """Files of a format with one file for each picture that cannot be told from their beginning: an empty one, a broken
    one. They lie among the others, and are to be named."""
    for form, suffix in (("voc", ".xml"), ("labelme", ".json")):
        known = set(found.get(form, ()))
        folders = {path.parent for path in known}
        stems = {(image.parent, image.stem) for image in source.tree.images} if known else set()
        for path in source.tree.ending(suffix) if known else ():
            beside = form == "voc" or (path.parent, path.stem) in stems
            if path.parent in folders and beside and _of_file(path) is None:
                known.add(path)
        if known:
            found[form] = sorted(known)


def _of_texts(source: Source) -> dict[str, list[Path]]:
    """The text files with labels; each folder's are told by the first line of its first file that has one."""
    found: dict[str, list[Path]] = {}
    for folder, paths in _by_folder(source).items():
        for path in paths[:_MOST_LOOKED_AT]:
            line = textfile.head(path, 2048).removeprefix("\ufeff").lstrip().split("\n", 1)[0]
            form = of_line(line)
            if form is not None:
                found.setdefault(form, []).extend(paths)
                break
        else:
            if any(not p.stat().st_size for p in paths) and _has_labels_name(folder):
                found.setdefault("yolo", []).extend(paths)
    return found


def _has_labels_name(folder: Path) -> bool:
    return any(part.casefold() == "labels" for part in folder.parts[-3:])


def _by_folder(source: Source) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    stems = {image.stem for image in source.pictures.all}
    for path in source.tree.ending(".txt"):
        if path.stem in stems or not _NO_LABELS.match(path.name.lower()):
            found.setdefault(path.parent, []).append(path)
    return found


def label_texts(source: Source) -> list[Path]:
    """All text files that may be labels: not the lists of classes and of pictures."""
    return [path for paths in _by_folder(source).values() for path in paths]


def _sets(source: Source, paths: list[Path]) -> list[Path]:
    """The COCO files to read: the root's own where it has one; the instances of a set, not its key points, too."""
    root = source.tree.root
    own = [path for path in paths if path.parent == root and path.name.lower() in COCO_NAMES]
    if own:
        return own
    sets = [path.parent for path in paths if path.name == OWN_NAME and path.parent.name.lower() != "annotations"]
    if len(sets) > 1:
        shown = ", ".join(source.shown(folder) for folder in sets)
        raise BadInput(
            "the folder holds several data sets",
            f"{root}: {shown}",
            "one data set",
            f"import each: `jetmask data import {sets[0]} OUT/{sets[0].name}`; train/ and val/ of this layout need no "
            f"import: --data {root}",
        )
    names = {path.name for path in paths}
    return [p for p in paths if p.name.replace("person_keypoints_", "instances_") not in names - {p.name}]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _unknown(source: Source) -> BadInput:
    """What was seen, where nothing is known."""
    files = [source.path] if source.path.is_file() else source.tree.files
    kinds = Counter(path.suffix.lower() or path.name for path in files)
    seen = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6)) or "no file"
    others = [p for p in files if p.suffix.lower() not in IMAGE_SUFFIXES and p.stat().st_size][:1]
    if others and others[0].suffix.lower() in (".json", ".xml", ".csv", ".txt"):
        start = " ".join(textfile.head(others[0], 200).split())[:80]
        seen += f"; {source.shown(others[0])} begins with {start!r}"
    remedy = "give the format with --format, or the path of the label file itself"
    if files and all(p.suffix.lower() in IMAGE_SUFFIXES for p in files):
        remedy = "export the labels too; where there are none yet, `jetmask data prelabel` drafts them for your tool"
    if any(p.suffix.lower() in (".zip", ".tar", ".gz", ".7z", ".rar") for p in files):
        seen += "; unpack archives first"
        remedy = "unpack it, and give the folder that it contains"
    if any(".tfrecord" in p.name.lower() or p.suffix.lower() in (".record", ".parquet", ".arrow") for p in files):
        seen += "; TFRecord files are not supported: export the labels again in one of these formats"
    return BadInput(
        f"no labels found (seen: {seen})",
        source.path,
        "one of " + "; ".join(READS.values()),
        remedy,
    )
