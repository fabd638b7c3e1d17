"""What `pip install .` brings along: every file of the packages, the version and the commit."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import jetson

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("pipeline", "jetson", "jetmask")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(files of the packages, the wheel, the sdist), made from a copy that carries a commit as an sdist does."""
    folder = tmp_path_factory.mktemp("package")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *PACKAGES], cwd=ROOT, check=True, text=True, capture_output=True
    ).stdout.split("\0")
    files = {name for name in tracked if name and (ROOT / name).is_file()}
    for name in files | {"pyproject.toml", "setup.py", "README.md", "LICENSE"}:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "source" / name)
    (folder / "source" / "jetson" / "commit.txt").write_text("1a2b3c4d\n")
    # setuptools changes sys.argv on its way.
    code = "import sys; from setuptools import build_meta as b; to = sys.argv[1]; b.build_sdist(to); b.build_wheel(to)"
    subprocess.run([sys.executable, "-c", code, folder], cwd=folder / "source", check=True, stdout=subprocess.DEVNULL)
    return files, next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_a_wheel_and_an_sdist_have_every_file_of_the_packages(built):
    files, wheel, sdist = built
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    assert "pipeline/weights/s.keras" in packed and "jetson/models/manifest.json" in packed
    assert files - packed == set()
    assert not any(name.startswith(("tests/", "benchmarks/", "docs/")) for name in packed)
    with tarfile.open(sdist) as archive:
        sources = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert (files | {"pyproject.toml", "setup.py", "LICENSE", "jetson/commit.txt"}) - sources == set()


def test_the_wheel_says_its_version_and_that_it_is_typed(built):
    _, wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        facts = Parser().parsestr(archive.read(name).decode())
    assert (facts["Name"], facts["Version"]) == ("jetmask", jetson.__version__)
    assert "Typing :: Typed" in facts.get_all("Classifier")


def test_an_unpacked_wheel_runs_and_names_its_commit(built, tmp_path):
    _, wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "jetmask", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        text=True,
        capture_output=True,
    )
    assert done.stdout == f"jetmask {jetson.__version__} (1a2b3c4d)\n"


def test_the_version_is_the_same_everywhere():
    with open(ROOT / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["version"] == jetson.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == jetson.__version__
    newest = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert newest == jetson.__version__
