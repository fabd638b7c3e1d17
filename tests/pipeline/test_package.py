"""What `pip install .` brings along: every file of the two packages, not the Python ones alone."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_a_wheel_has_every_file_of_the_packages(tmp_path):
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "pipeline", "jetson"], cwd=ROOT, check=True, text=True, capture_output=True
    ).stdout.split("\0")
    files = {name for name in tracked if name and (ROOT / name).is_file()}
    for name in files | {"pyproject.toml", "README.md", "LICENSE"}:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / "source" / name)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            tmp_path,
            tmp_path / "source",
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    assert "pipeline/weights/s.keras" in packed and "jetson/models/manifest.json" in packed
    assert files - packed == set()
