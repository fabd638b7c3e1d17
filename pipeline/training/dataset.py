"""Photographs as training batches: reading, sampling, batching; plain numpy and cv2, seeded by (seed, epoch, index).

A resumed run sees exactly the images that an unbroken one would have seen, whatever order workers finish in.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import keras
import numpy as np

from jetson.bundle.manifest import CLASSES
from jetson.errors import BadInput
from jetson.evaluation import average_precision
from pipeline.config import Config, Data
from pipeline.data import leak
from pipeline.training import augment, image_cache

PASTED_FACE_PX = 40  # a smaller face, enlarged, would teach blur
MINED_IGNORES = Path(__file__).with_name("mined_ignores.json")
HELD_OUT = Path(__file__).with_name("held_out.json")  # people whom only validation sees: benchmarks/held_out.py
FEW_PEOPLE = {"video_frames_few_people", "few_people", "grayscale"}  # tags of extra2/
WEIGHTS = {"train": 0.6, "extra": 0.17, "extra2": 0.1, "crops": 0.13, "negatives": 0.1}  # of scenes; others: .6


class Photo(NamedTuple):
    """One labelled photograph: boxes and ignore are xyxy float32 (N, 4) in its pixels, labels int (N,); wh is the
    (width, height) that its labels were made for, None where nothing says it."""

    path: Path
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    wh: tuple[int, int] | None = None

    def image(self) -> np.ndarray:
        """uint8 (h, w, 3) BGR, read-only. BadInput where it cannot be decoded or has another size than `wh`."""
        image = _kept.get(self.path, _read)
        if self.wh and image.shape[1::-1] != tuple(self.wh):  # its boxes would be somewhere else
            raise BadInput(
                f"an image is {image.shape[1]} x {image.shape[0]}",
                where=str(self.path),
                expected=f"{self.wh[0]} x {self.wh[1]}, as annotations.json says",
                remedy="`jetmask data check` on its folder lists every such file",
            )
        return image


_kept = image_cache.Kept()  # decoding is half of a sample's cost


def _read(path: Path) -> np.ndarray:
    # Labels are in pixels of the stored image, so an orientation tag must not turn it.
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise BadInput(
            "an image cannot be decoded",
            where=str(path),
            expected="a JPEG or PNG file",
            remedy="run `jetmask data check` on its folder and repair or remove the file",
        )
    return image


def held_out(file_name: str | Path, parts: int = 3) -> bool:
    """Whether a hard negative belongs to the third that training never sees (a fixed hash of its name)."""
    return hashlib.sha256(Path(file_name).name.encode()).digest()[0] % parts == 0


def read_split(
    split_dir: str | Path, keep: Callable[[str], bool] = lambda name: True, classes: Sequence[str] = CLASSES
) -> list[Photo]:
    """Photos of one split folder (images/ and a COCO-style annotations.json), in the file's order, read as the metric
    reads them: `classes` by their names, crowds as ignore regions."""
    split_dir = Path(split_dir)
    mined = json.loads(MINED_IGNORES.read_text(encoding="utf-8")) if MINED_IGNORES.exists() else {}
    photos = []
    for truth in average_precision.load_split(str(split_dir), classes):
        if not keep(truth.file):
            continue
        ignore = _xyxy([m[:4] for m in mined.get(f"{split_dir.name}/{Path(truth.file).name}", [])])
        photos.append(
            Photo(
                Path(truth.file),
                truth.xyxy.astype(np.float32),
                truth.labels.astype(np.int32),
                np.concatenate([truth.ignore.astype(np.float32), ignore]),
                truth.wh,
            )
        )
    return photos


def _xyxy(xywh: Sequence[Any]) -> np.ndarray:
    boxes = np.array(xywh, np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


class Pool(NamedTuple):
    """The photographs by the role they play in a training canvas."""

    scenes: list[tuple[list[Photo], float]]  # (photos, weight) groups that fill canvases and mosaic tiles
    faces: list[list[tuple[Photo, int]]]  # per class, (photo, index of its box): large enough to be pasted and zoomed
    backgrounds: list[Photo]  # photos without any labelled face
    classes: tuple[str, ...] = CLASSES

    @property
    def masks(self) -> bool:
        """Whether these are the mask classes, for which faces can be given masks and some classes are rare."""
        return self.classes == CLASSES

    @property
    def photos(self) -> list[Photo]:
        """All photographs, of every group."""
        return [photo for photos, _ in self.scenes for photo in photos]


def folders_of(data: Data) -> list[str]:
    """The folders below data.root that are trained on, by the config's `data` section: those that it names, else train
    and, of crops, extra, extra2 and negatives, those that are there."""
    root = Path(data.root or os.environ.get("JETMASK_DATA", ""))
    return data.train or [
        "train",
        *(name for name in ("crops", "extra", "extra2", "negatives") if (root / name).is_dir()),
    ]


def read_pool(
    root: str | Path,
    folders: Sequence[str],
    apart_from: Sequence[str] = (),
    most_per_person: int = 0,
    classes: Sequence[str] = CLASSES,
) -> Pool:
    """All training photographs in the split folders below root.

    A folder called `crops` holds one face an image; of one called `negatives` a third is held out, and so are the
    people in held_out.json. Near-duplicates of photographs in the folders `apart_from` (those that exist) are left out,
    so that nothing is judged on what it saw. most_per_person: photographs of one person or video, where the file names
    tell (see `series`); 0: all. classes: their names, in the order of the labels.
    """
    not_trained_on = json.loads(HELD_OUT.read_text(encoding="utf-8"))["not_trained_on"] if HELD_OUT.exists() else {}
    judges = [Path(root) / name for name in apart_from if (Path(root) / name).is_dir()]
    groups: dict[str, list[Photo]] = {}
    for folder in folders:
        known = set(leak.keep_out(Path(root) / folder, judges) if judges else ())
        known.update(not_trained_on.get(folder, ()))
        if most_per_person:
            known.update(too_many(Path(root) / folder, most_per_person, known))
        groups[folder] = read_split(Path(root) / folder, _trained_on(folder, known), classes)
    scenes = [(photos, WEIGHTS.get(name, 0.6)) for name, photos in groups.items() if photos]
    everything = [p for photos in groups.values() for p in photos]
    if not everything:
        raise BadInput(
            "no training photographs",
            where=str(root),
            expected="labelled images in " + ", ".join(folders),
            remedy="set data.root and data.train to folders with images",
        )
    return Pool(scenes, _faces(groups, classes), [p for p in everything if not len(p.boxes)], tuple(classes))


def _trained_on(folder: str, known: Collection[str]) -> Callable[[str], bool]:
    return lambda name: not (Path(name).name in known or folder == "negatives" and held_out(name))


def _faces(groups: Mapping[str, list[Photo]], classes: Sequence[str]) -> list[list[tuple[Photo, int]]]:
    """Faces to paste, per class; where all of a data set's faces are small, the small ones. A speck under a pixel,
    enlarged to a face, would take more memory than there is."""
    for smallest in (PASTED_FACE_PX, 1):
        out: list[list[tuple[Photo, int]]] = [[] for _ in classes]
        for name, photos in groups.items():
            for photo in one_person_capped(photos) if name == "crops" and tuple(classes) == CLASSES else photos:
                for k in np.flatnonzero((photo.boxes[:, 2:] - photo.boxes[:, :2]).min(axis=1, initial=1e9) >= smallest):
                    out[photo.labels[k]].append((photo, int(k)))
        if any(out):
            break
    return out


def series(orig_name: str) -> str | None:
    """What the photographs of one person or video have in common: their original name without its numbers; None where
    nothing but numbers is there, as in a collection of portraits."""
    stem = re.split(r"\.rf\.", Path(orig_name).name, maxsplit=1)[0]
    stem = re.sub(r"[._](jpe?g|png|heic)$", "", stem, flags=re.IGNORECASE)
    stem = re.sub(r"[._](jpe?g|png|heic)$", "", stem, flags=re.IGNORECASE)
    stem = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", stem)  # a UUID
    return re.sub(r"\d+", "", stem).strip("-_. ") or None


def too_many(split_dir: str | Path, most: int, gone: Collection[str] = ()) -> set[str]:
    """Names of the photographs with faces, of a split folder, that are over `most` of one series and tagged as grey or
    of few people, as collections of video frames are; what stays is evenly spread. Those in `gone` are out already."""
    document = json.loads((Path(split_dir) / "annotations.json").read_text(encoding="utf-8"))
    with_faces = {annotation["image_id"] for annotation in document["annotations"]}
    groups: dict[tuple[Any, str], list[str]] = {}
    for entry in document["images"]:
        if entry["id"] not in with_faces:
            continue
        name, common = Path(entry["file_name"]).name, series(entry.get("orig_name") or "")
        if common and name not in gone and FEW_PEOPLE & set(entry.get("tags") or ()):
            groups.setdefault((entry.get("source"), common), []).append(name)
    out: set[str] = set()
    for names in map(sorted, groups.values()):
        if len(names) > most:
            out.update(set(names) - {names[i * len(names) // most] for i in range(most)})
    return out


def one_person_capped(photos: Sequence[Photo], run: int = 16, most: int = 8) -> list[Photo]:
    """At most `most` bare faces of any `run` in a row: where a collection holds many photographs of one person, as
    chandrikadeb7's bare faces do (99 people in about 1,600), they follow one another."""
    bare = sorted((p for p in photos if (p.labels == 1).any()), key=lambda photo: photo.path.name)
    left_out = {id(p) for i, p in enumerate(bare) if i % run * most // run == (i - 1) % run * most // run and i % run}
    return [p for p in photos if id(p) not in left_out]


class Batches(keras.utils.PyDataset):
    """One epoch of augmented batches: x (B, S, S, 3) float32 BGR and y = dict(boxes, labels, ignore), padded.

    Sizes vary from batch to batch; a batch of a larger size holds fewer images, so that every step costs about the
    same: `batch_size` is the number at 320 x 320.
    """

    def __init__(self, pool: Pool, config: Config, epoch: int, steps: int, closing: bool = False) -> None:
        super().__init__()
        self.pool, self.config, self.epoch, self.steps, self.closing = pool, config, epoch, steps, closing
        # Masks, beards and printed skulls are drawn to tell masks apart; on other classes they would be noise.
        self.augment = config.augment
        if not pool.masks:
            self.augment = dataclasses.replace(config.augment, drawn=0.0, prints=0.0, drawn_masks=0.0)
        sizes = np.array([s for s, _ in config.train.sizes])
        shares = np.array([w for _, w in config.train.sizes], float)
        rng = np.random.default_rng([config.train.seed, epoch, 0xB47C])
        self.sizes = rng.choice(sizes, steps, p=shares / shares.sum())

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        size = int(self.sizes[index])
        rng = np.random.default_rng([self.config.train.seed, self.epoch, index])
        samples = [
            augment.canvas(self.pool, size, self.augment, rng, self.closing)
            for _ in range(batch_count(self.config.train.batch_size, size))
        ]
        x = np.stack([s[0] for s in samples]).astype(np.float32)
        return x, {
            "boxes": pad([s[1] for s in samples], 0),
            "labels": pad([s[2] for s in samples], -1),
            "ignore": pad([s[3] for s in samples], 0),
        }


def batch_count(batch_size: int, size: int | float) -> int:
    """Images in a batch of size x size that costs what batch_size images of 320 x 320 cost."""
    return max(1, round(batch_size * (320 / size) ** 2))


def mean_batch(config: Config) -> float:
    """Images in a step on average over the sizes, weighted by their shares."""
    total = sum(w for _, w in config.train.sizes)
    return sum(w * batch_count(config.train.batch_size, s) for s, w in config.train.sizes) / total


def steps_per_epoch(config: Config) -> int:
    """Steps that show about train.images_per_epoch images."""
    return max(1, math.ceil(config.train.images_per_epoch / mean_batch(config)))


def pad(arrays: Sequence[np.ndarray], value: float) -> np.ndarray:
    """Stack arrays (N_i, …) to (B, max N, …), filled up with value; the length is a multiple of 8, at least 8."""
    length = max(8, -(-max(len(a) for a in arrays) // 8) * 8)
    out = np.full((len(arrays), length) + arrays[0].shape[1:], value, arrays[0].dtype)
    for row, a in zip(out, arrays, strict=True):
        row[: len(a)] = a
    return out
