"""Which picture a label file means: its name there may be of another machine, another folder or another format.

Of several candidates none is taken in silence, and no folder that the label names is overlooked: `cam2/0001.jpg` is not
`images/0001.jpg`.
"""

from __future__ import annotations

import filecmp
import functools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.data.labels import Finding
from pipeline.data.tree import Tree

# Folders that say nothing about which picture is meant: only these may be missing on the way to it.
_PLAIN_FOLDERS = {"images", "image", "imgs", "img", "jpegimages", "data", "upload", "uploads", "photos", "pictures"}
_PLAIN_FOLDERS |= {"obj_train_data", "obj_valid_data", "obj_test_data", "dataset", "frames", "image_2", "."}
_DRIVE = re.compile(r"[A-Za-z]:/")
_SPLIT_WORD = re.compile(r"[a-z]+\d*")


class Hit(NamedTuple):
    """What was found for a name: a picture, or why there is none."""

    image: Path | None
    missing: str = ""


class Pictures:
    """The pictures of a source, to be looked up by the names that its labels give. `extra`: folders of --images."""

    def __init__(self, tree: Tree, extra: Sequence[Path] = ()) -> None:
        self.tree, self.extra = tree, list(extra)
        self._told: set[tuple[str, str, str]] = set()

    @functools.cached_property
    def all(self) -> list[Path]:
        """Every picture that there is to look through."""
        trees = [Tree(folder) for folder in self.extra] if self.extra else [self.tree]
        return list(dict.fromkeys(image for tree in trees for image in tree.images))

    @functools.cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        return _index(self.all, lambda p: p.name.casefold())

    @functools.cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        return _index(self.all, lambda p: p.stem.casefold())

    def find(self, name: str, label: Path, line: int | None, findings: list[Finding]) -> Hit:
        """The picture called `name` in the label file `label`; what is not as the name says is added to `findings`."""
        parts, outside = _parts(name)
        if not parts:
            return Hit(None, "the name is empty")
        if not outside:
            exact = self._exact(parts, label)
            if len(exact) == 1 or (exact and all(filecmp.cmp(exact[0], other, False) for other in exact[1:])):
                return Hit(exact[0])
            if exact:
                return Hit(None, f"{self._list(exact)} all exist: it is unclear which one is meant")
        for suffix_counts in (True, False):
            hit = self._like(parts, outside, label, line, findings, suffix_counts)
            if hit is not None:
                return hit
        near = self._by_name.get(parts[-1].casefold(), [])
        return Hit(None, f"{self._list(near)} is in another folder and may be a different picture" if near else "")

    def _exact(self, parts: tuple[str, ...], label: Path) -> list[Path]:
        found: list[Path] = []
        here = [label.parent, label.parent / "images"]
        for folder in dict.fromkeys([*self.extra, *(here if not self.extra else []), *self._roots()]):
            path = folder.joinpath(*parts)
            if _is_file(path) and path not in found:
                found.append(path)
            if found and folder == label.parent:  # beside its label: nothing else can be meant
                break
        return found

    def _roots(self) -> list[Path]:
        return [] if self.extra else [self.tree.root, self.tree.root / "images"]

    def _like(
        self,
        parts: tuple[str, ...],
        outside: bool,
        label: Path,
        line: int | None,
        findings: list[Finding],
        suffix_counts: bool,
    ) -> Hit | None:
        """The picture whose path ends as the name does; None where there is none."""
        last = parts[-1].casefold() if suffix_counts else PurePosixPath(parts[-1]).stem.casefold()
        named = (self._by_name if suffix_counts else self._by_stem).get(last, [])
        for dropped in range(len(parts)):
            if dropped and not outside and not self.extra and parts[dropped - 1].casefold() not in _PLAIN_FOLDERS:
                break
            tail = [part.casefold() for part in parts[dropped:-1]]
            fits = [
                p for p in named if [q.casefold() for q in p.parent.parts][len(p.parent.parts) - len(tail) :] == tail
            ]
            best = self._nearest(fits, label)
            if len(best) > 1:
                return Hit(None, f"{self._list(best)} all exist: it is unclear which one is meant")
            if best:
                self._tell(parts, dropped, best[0], label, line, findings, suffix_counts)
                return Hit(best[0])
        return None

    def _tell(
        self,
        parts: tuple[str, ...],
        dropped: int,
        image: Path,
        label: Path,
        line: int | None,
        findings: list[Finding],
        suffix_counts: bool,
    ) -> None:
        name = "/".join(parts)
        if not suffix_counts:
            what = f"{name} does not exist, but {image.name} does"
            findings.append(Finding(str(label), line, "extension", what, "that one is used", False))
        key = (str(label), "/".join(parts[:dropped]), str(image.parent))
        if dropped and key not in self._told:
            self._told.add(key)
            what = f"{name} does not exist, but {self.tree.shown(image)} does"
            remedy = f"used instead, like the others in {'/'.join(parts[:dropped])}/"
            findings.append(Finding(str(label), line, "image name", what, remedy, False))

    def _nearest(self, images: list[Path], label: Path) -> list[Path]:
        """Those of `images` that lie nearest to the label: in folders of the same name ("train"), or of a split that
        the label file is named after (instances_train2017.json)."""
        if len(images) < 2:
            return images
        at = label.parent.parts
        words = set(_SPLIT_WORD.findall(label.stem.casefold()))
        words |= {word.rstrip("0123456789") for word in words}

        def nearness(image: Path) -> tuple[int, int]:
            folder = image.parent.parts
            common = len(os.path.commonprefix([at, folder]))
            names = {part.casefold() for part in folder[common:]}
            same = len(names & {part.casefold() for part in at[common:]})
            return common, 2 * same + len(names & words)

        best = max(map(nearness, images))
        return [image for image in images if nearness(image) == best]

    def _list(self, images: Sequence[Path]) -> str:
        shown = [self.tree.shown(image) for image in images[:3]]
        return ", ".join(shown) + (", ..." if len(images) > 3 else "")


def _index(images: Sequence[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        found[key(image)].append(image)
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have, such as a long URL
        return False


def _parts(name: str) -> tuple[tuple[str, ...], bool]:
    """-> the parts of a picture's name, and whether it names a place outside the source: of another machine, above."""
    plain = name.strip()
    outside = False
    if re.match(r"[a-zA-Z][\w+.-]+://", plain) or plain.startswith("/data/local-files/?"):
        split = urlsplit(plain)
        below = parse_qs(split.query).get("d", [""])[0]
        plain, outside = below or unquote(split.path), True
    plain = plain.replace("\\", "/")
    if plain.startswith("/data/upload/"):  # Label Studio codes the name as in an address
        plain = unquote(plain)
    if plain.startswith("/") or _DRIVE.match(plain):
        outside = True
        plain = plain[2:] if _DRIVE.match(plain) else plain
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if ".." in parts:  # a label file must not fetch pictures from elsewhere on this machine
        outside = True
        parts = parts[len(parts) - parts[::-1].index("..") :]
    return tuple(parts), outside


def unlabelled(
    pictures: Pictures, used: set[Path], labels: Path, looked_for: str, remedy: str, whole: bool = True
) -> list[Finding]:
    """What to say of the pictures that have no label: one line for each, one for a folder that has none at all; and an
    error that says where labels were looked for where they are the most. `whole`: the source is a whole folder, and not
    one label file that was asked for by name."""
    left = [image for image in pictures.all if image not in used]
    if not whole or not left:
        return []
    labelled = {image.parent for image in used}
    folders: dict[Path, list[Path]] = defaultdict(list)
    for image in left:
        folders[image.parent].append(image)
    found, counted = [], 0
    for folder, images in folders.items():
        if folder in labelled:
            counted += len(images)
            found += [Finding(str(image), None, "label missing", looked_for, remedy, False) for image in images]
            continue
        if not _for_testing(folder, pictures.tree.root):
            counted += len(images)
        what = f"no label for any picture in this folder ({looked_for})"
        found.append(
            Finding(str(folder), None, "labels missing", what, f"its {len(images)} images are left out", False)
        )
    if counted > len(used):
        what = f"{counted} of {len(used) + len(left)} pictures have no label: {looked_for}"
        found = [f for f in found if f.kind == "labels missing" and len(folders) > 1]
        found.append(Finding(str(labels), None, "labels missing", what, remedy, True))
    return found


def _for_testing(folder: Path, root: Path) -> bool:
    """Pictures that others label in secret, as in KITTI's testing/ and COCO's test2017/: nothing is amiss."""
    try:
        parts = folder.relative_to(root).parts
    except ValueError:
        parts = folder.parts[-2:]
    return any(re.match(r"(test|unlabel)", part.casefold()) for part in parts)
