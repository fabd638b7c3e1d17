"""Bakes the commit into what is built: jetson/commit.txt in a wheel and in an sdist. All else is in pyproject.toml."""

import runpy
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent


def commit() -> str | None:
    """The commit of this checkout, or the one that the unpacked sdist carries."""
    sys.path.insert(0, str(HERE))
    try:
        return runpy.run_path(str(HERE / "jetson" / "version.py"))["commit"]()
    finally:
        sys.path.remove(str(HERE))


def bake(folder: str) -> None:
    """Write it, where one is known."""
    known = commit()
    if known:
        (Path(folder) / "jetson" / "commit.txt").write_text(known + "\n", encoding="ascii")


class BuildPy(build_py):
    """A wheel's files."""

    def run(self) -> None:
        """Copy them, then write the commit; an editable install asks git instead."""
        super().run()
        if not self.editable_mode:
            bake(self.build_lib)


class Sdist(sdist):
    """An sdist's files."""

    def make_release_tree(self, base_dir: str, files: list) -> None:
        """Lay them out, then write the commit."""
        super().make_release_tree(base_dir, files)
        bake(base_dir)


setup(cmdclass={"build_py": BuildPy, "sdist": Sdist})
