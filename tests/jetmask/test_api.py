"""The public Python API: each example of docs/python.md is run as it stands there."""

import os
import re
import subprocess
import sys

import cv2
import pytest

with open(os.path.join(os.path.dirname(__file__), "..", "..", "docs", "python.md"), encoding="utf-8") as page:
    EXAMPLES = re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", page.read(), re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, root):
    """A folder as the page assumes it: photo.jpg, photos/, and labelled data."""
    top = tmp_path_factory.mktemp("notebook")
    for split, seed in (("val", 1), ("train", 2)):
        words = ["data", "draw", str(top / "data" / split), "--images", "6", "--seed", str(seed)]
        subprocess.run([sys.executable, "-m", "pipeline.cli", *words], cwd=root, check=True, capture_output=True)
    os.symlink(top / "data" / "val" / "images", top / "photos")
    name = sorted((top / "photos").iterdir())[0]
    cv2.imwrite(str(top / "photo.jpg"), cv2.imread(str(name)))
    return top


@pytest.mark.slow
@pytest.mark.parametrize("title, code", EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_an_example_of_the_page_runs(title, code, folder, root):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=root),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() or title == "Detect on a picture"


def test_importing_it_loads_nothing_heavy(root):
    code = (
        "import sys, jetmask; dir(jetmask)\n"
        "print([n for n in ('tensorflow', 'keras', 'onnxruntime', 'cv2') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_of_the_api_is_there_and_described():
    import jetmask

    for name in jetmask.__all__:
        if name != "__version__":
            assert getattr(jetmask, name).__doc__, name
    with pytest.raises(AttributeError):
        _ = jetmask.nonsense
