"""What is to be imported: a folder with all its files, or one label file and the folder it lies in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jetson.errors import BadInput
from pipeline.data.pictures import Pictures
from pipeline.data.tree import Tree

_LABEL_FOLDERS = {"annotations", "annotation", "labels", "xmls"}


class Source:
    """`path`: as the user gave it. `tree`: the files to look through. `pictures`: where its images are looked for.
    `whole`: a folder was named, not one label file. BadInput where it is not there."""

    def __init__(self, path: Path, image_folders: Sequence[Path] = ()) -> None:
        if not path.exists():
            raise BadInput(
                "the data folder does not exist",
                path,
                "a folder of images and labels, or one label file",
                "check the path; `jetmask data fetch` names public collections",
            )
        for folder in image_folders:
            if not folder.is_dir():
                raise BadInput("the folder of images does not exist", folder)
        self.path = path
        self.whole = path.is_dir() or path.suffix.lower() in (".yaml", ".yml", ".data")  # these describe their folder
        folder = path if path.is_dir() else path.parent
        if not self.whole and folder.name.casefold() in _LABEL_FOLDERS:
            folder = folder.parent
        self.tree = Tree(folder)
        self.image_folders = list(image_folders)
        self.pictures = Pictures(self.tree, self.image_folders)

    def shown(self, path: Path) -> str:
        """A path for a message: below the source, where it is."""
        return self.tree.shown(path)
