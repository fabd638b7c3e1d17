"""Every command of the README is run, in its order, in one folder, on drawn photographs.

What would take hours is shortened by further options; what needs hardware is given to its own parser.
"""

import os
import re
import shlex
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow  # every command of README in order

SHORT = {
    "jetmask train": "--set train.epochs=1 --set train.images_per_epoch=8 --set train.batch_size=4"
    " --set model.size=n --set train.sizes=[[64,1.0]] --set train.val_wh=[64,64]",
    "jetmask prune --model runs/mine/best.keras --data data --two-four": "--epochs 0 --input-wh 64x64",
    "jetmask prune": "--importance l1 --epochs 1 --set train.images_per_epoch=8 --set train.batch_size=4 --set "
    "train.sizes=[[64,1.0]] --set train.val_wh=[64,64] --input-wh 64x64",
    "jetmask build": "--max-drop 100 --input-wh 64x64",
    "jetmask bundle create": "--max-drop 100 --sizes 64x64",
    "jetmask calibrate": "--count 8 --input-wh 64x64",
    "jetmask predict": "--json",
    "jetmask evaluate": "--json",
    "python3 -m jetson bench": "--json --seconds 1",
}


def blocks(text):
    return [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", text, re.S)]


def readme(root):
    with open(os.path.join(root, "README.md"), encoding="utf-8") as file:
        return file.read()


def commands(root):
    for block in blocks(readme(root)):
        for line in block:
            line, _, comment = line.partition("#")
            if line.strip():
                yield line.strip(), "needs" in comment


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory):
    """A user's folder: drawn photographs under photos/, a clip, and the environment on the PATH."""
    place = tmp_path_factory.mktemp("user")
    run(argv("jetmask data draw photos --images 24 --size 160x120"), place, root)
    run(
        [
            sys.executable,
            "-c",
            "import cv2, numpy as np\n"
            "w = cv2.VideoWriter('clip.mp4', cv2.VideoWriter_fourcc(*'mp4v'), 10, (160, 128))\n"
            "[w.write(np.full((128, 160, 3), 9 * i, np.uint8)) for i in range(10)]; w.release()",
        ],
        place,
        root,
    )
    for name, contents in re.findall(r"```(\w+\.\w+)\n(.*?)```", readme(root), re.S):
        (place / name).write_text(contents)
    return place


def run(line, folder, root):
    done = subprocess.run(
        line,
        cwd=str(folder),
        env=dict(os.environ, PYTHONPATH=root, TF_CPP_MIN_LOG_LEVEL="2"),
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def argv(line):
    words = shlex.split(line)
    if words[0] in ("jetmask", ".venv/bin/jetmask"):
        return [sys.executable, "-m", "pipeline.cli", *words[1:]]
    assert words[:3] == ["python3", "-m", "jetson"], line
    return [sys.executable, *words[1:]]


def test_make_targets_exist(root):
    targets = [line.split()[1] for line, _ in commands(root) if line.startswith("make ")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        run(["make", "-n", target], root, root)


def test_photographs_may_lie_in_a_folder_with_blanks(root):
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", "demo", "DATA=/a b/c"],
        cwd=root,
        text=True,
        capture_output=True,
        check=True,
    )
    assert shlex.split(done.stdout.splitlines()[-1])[-2:] == ["--data", "/a b/c"]


def test_every_command_in_order(root, folder):
    seen = 0
    for line, hardware in commands(root):
        if line.startswith("make "):
            continue
        seen += 1
        if hardware:
            parsed(root, line)
            continue
        if " run " in line or " serve " in line:
            serves(argv(line) + ["--port", "0"], folder, root)
            continue
        more = next((extra for start, extra in SHORT.items() if line.startswith(start)), "")
        run(argv(line) + shlex.split(more), folder, root)
    assert seen > 10


def parsed(root, line):
    """The command's own parser takes it, without running it."""
    words = argv(line)
    module = "pipeline.cli" if "pipeline.cli" in words else "jetson.__main__"
    verb, rest = words[3], words[4:]
    code = (
        f"import sys; from jetson import cli; import {module} as m; "
        "cli.parser_for(sys.argv[1], 'x', m.VERBS).parse_args(sys.argv[2:])"
    )
    run([sys.executable, "-c", code, verb, *rest], root, root)


def serves(line, folder, root):
    """The runner comes up, says that it serves, and ends with 0 on SIGTERM."""
    ready = folder / "ready.json"
    if ready.exists():
        ready.unlink()
    process = subprocess.Popen(
        [*line, "--ready-file", str(ready)],
        cwd=str(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ, PYTHONPATH=root),
    )
    try:
        deadline = time.time() + 120
        while not ready.exists() and process.poll() is None and time.time() < deadline:
            time.sleep(0.1)
        assert ready.exists(), process.communicate(timeout=10)[0][-2000:]
    finally:
        process.terminate()
        process.wait(30)
    assert process.returncode == 0
